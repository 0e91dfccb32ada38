//! Finding the stories that a selector means, the newest messages first.
//!
//! The beginnings of stories are found file by file, from the newest: only blocks that may hold one
//! are read, by several threads at once. Then the rest of each story is gathered from that file and
//! all later ones, some messages at a time, so that a search never holds more than a page of stories
//! and the ids of one file's messages. Messages that were accepted before the record begins come
//! last.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mailroot_common::control::selector::{SelectorError, id_range};
use mailroot_common::control::{Matcher, Refused, TraceEntry, TraceRecord};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::trace::event::{Event, REFUSED};
use smtpd_core::trace::story::{Story, refusal};
use smtpd_core::trace::want::Want;

use super::ask::{Ask, Early, suits};
use super::files::is_begun_before;
use super::parallel::{BATCH, BATCH_FIRST, visit_blocks};
use super::read::{Counts, Place, Reader, places};
use super::{Snapshot, Tally};

/// How many stories are gathered at once at first, and at most.
const PAGE_MIN: usize = 16;
const PAGE_MAX: usize = 4_096;
/// How many messages an ambiguous beginning of an id is shown to fit.
const CANDIDATES_MAX: usize = 10;

/// How many hosts that took mail lately are told, and in how many blocks they are looked for.
const LATEST_HOSTS: usize = 4;
const LATEST_BLOCKS: usize = 8;

/// Why nothing was searched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// The selector makes no sense.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// A beginning that fits several messages.
    #[error("{text} is the beginning of several ids")]
    Ambiguous {
        /// What was written.
        text: String,
        /// Some of the ids.
        ids: Vec<QueueId>,
    },
}

/// Whether somebody waits for what a search finds.
struct Wanted(Box<dyn Fn() -> bool + Send>);

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wanted").finish_non_exhaustive()
    }
}

/// A search in one snapshot. It waits for the disk.
#[derive(Debug)]
pub struct Search {
    /// The files, the oldest first, with the octets that count.
    files: Vec<(PathBuf, u64)>,
    /// The file that was read last, and its number.
    reader: Option<(usize, Reader)>,
    plain: Vec<u8>,
    tally: Arc<Tally>,
    counts: Counts,
    wanted: Option<Wanted>,
}

impl Drop for Search {
    fn drop(&mut self) {
        // Every search meets the same damage; what counts is how much there is.
        self.tally.damaged.fetch_max(self.counts.damaged, Ordering::Relaxed);
    }
}

impl Search {
    pub(super) fn new(snapshot: Snapshot, tally: Arc<Tally>) -> Self {
        let Snapshot { files, plain } = snapshot;
        Self { files, reader: None, plain, tally, counts: Counts::default(), wanted: None }
    }

    /// Reads no more files once this says that nobody waits for what is found.
    pub fn while_wanted(&mut self, is_wanted: impl Fn() -> bool + Send + 'static) {
        self.wanted = Some(Wanted(Box::new(is_wanted)));
    }

    /// Has a part read, if it is a file and somebody waits for it; one that was removed meanwhile has
    /// nothing to tell.
    fn reading<T>(&mut self, part: usize, read: impl FnOnce(&mut Reader) -> T) -> Option<T> {
        if self.wanted.as_ref().is_some_and(|wanted| !wanted.0()) {
            return None;
        }
        let (path, length) = self.files.get(part)?;
        if self.reader.as_ref().is_none_or(|(open, _)| *open != part) {
            self.reader = Some((part, Reader::new(File::open(path).ok()?, *length)));
        }
        self.reader.as_mut().map(|(_, reader)| read(reader))
    }

    /// What was done so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// What the record holds.
    #[must_use]
    pub fn record(&mut self) -> TraceRecord {
        let mut record = TraceRecord {
            events: Event::all(&self.plain).count() as u64,
            since: Event::all(&self.plain).map(|event| event.at).min(),
            until: Event::all(&self.plain).map(|event| event.at).max(),
            ..TraceRecord::default()
        };
        for part in 0..self.files.len() {
            record.size += self.files[part].1;
            let read = self.reading(part, |reader| {
                reader.each(&mut record.damaged, |place, _| {
                    record.events += u64::from(place.head.events);
                    record.since = record.since.into_iter().chain([place.head.first]).min();
                    record.until = record.until.into_iter().chain([place.head.last]).max();
                    true
                })
            });
            record.damaged += u64::from(read.is_some_and(|read| read.is_err()));
        }
        record.dropped = self.tally.dropped.load(Ordering::Relaxed);
        record
    }

    /// Hands the stories of the chosen messages to `found`, at most `limit` of them or until it says
    /// enough.
    ///
    /// # Errors
    ///
    /// [`SearchError`], before anything is found.
    pub fn stories(
        &mut self,
        matcher: &Matcher,
        now: Timestamp,
        limit: usize,
        mut found: impl FnMut(TraceEntry) -> bool,
    ) -> Result<(), SearchError> {
        let ask = Ask { matcher, want: Want::of(matcher, now)?, now };
        if !matcher.ids().is_empty() {
            let ids = self.resolve(matcher)?;
            self.tell(&ids, 0, &ask, limit, &mut found);
            return Ok(());
        }
        let mut early = Early { begins: self.since(), ..Early::default() };
        let (mut told, mut page, mut waiting) = (0, PAGE_MIN, Vec::new());
        for part in (0..=self.files.len()).rev() {
            let wanted = limit - told - waiting.len();
            waiting.extend(self.beginnings(part, &ask, wanted, &mut early).into_iter().rev());
            // What follows the beginnings is looked for in all later files, so not for each file.
            if waiting.len() < page.min(limit - told) && part > 0 {
                continue;
            }
            let first = part.saturating_sub(1);
            let Some(more) = self.tell(&waiting, first, &ask, limit - told, &mut found) else {
                return Ok(());
            };
            waiting.clear();
            (told, page) = (told + more, (page * 4).min(PAGE_MAX));
            if told == limit {
                return Ok(());
            }
        }
        let early = early.ids.iter().rev().filter(|id| !early.begun.contains(id));
        let ids: Vec<QueueId> = early.copied().collect();
        self.tell(&ids, 0, &ask, limit - told, &mut found);
        Ok(())
    }

    /// Hosts that took mail lately, and when, the last first: as far as the newest blocks tell.
    #[must_use]
    pub fn latest_deliveries(&mut self) -> Vec<(String, Timestamp)> {
        let mut found: Vec<(String, Timestamp)> = Vec::new();
        self.newest(LATEST_BLOCKS, |events| {
            for event in events.iter().rev().filter(|event| event.word == "delivered") {
                let Some(host) = event.host else { continue };
                if found.len() < LATEST_HOSTS && !found.iter().any(|(known, _)| known == host) {
                    found.push((host.to_owned(), event.at));
                }
            }
            found.len() < LATEST_HOSTS
        });
        found
    }

    /// Hands the events of the newest blocks to `each`, block by block, until it says enough.
    pub(super) fn newest(&mut self, blocks: usize, mut each: impl FnMut(&[Event<'_>]) -> bool) {
        let mut left = blocks;
        for part in (0..=self.files.len()).rev() {
            for place in self.newest_first(part, &Want::default()) {
                if left == 0 {
                    return;
                }
                left -= 1;
                let plain = self.events(part, place);
                let events: Vec<_> = Event::all(&plain).collect();
                if !each(&events) {
                    return;
                }
            }
        }
    }

    /// Hands every event not before a moment to `each`, block by block, in no order.
    pub fn events_since(&mut self, from: Timestamp, mut each: impl FnMut(&Event<'_>)) {
        let want = Want::since(from);
        for part in (0..=self.files.len()).rev() {
            for place in self.places(part, &want) {
                let plain = self.events(part, place);
                Event::all(&plain).filter(|event| event.at >= from).for_each(|event| each(&event));
            }
            // Whatever lies in older files happened before this one was begun.
            if self.files.get(part).is_some_and(|(path, _)| is_begun_before(path, from)) {
                return;
            }
        }
    }

    /// Hands the chosen refusals to `found`, the newest first, until it says enough.
    ///
    /// # Errors
    ///
    /// [`SearchError`], before anything is found.
    pub fn refusals(
        &mut self,
        matcher: &Matcher,
        now: Timestamp,
        mut found: impl FnMut(Refused) -> bool,
    ) -> Result<(), SearchError> {
        let ask = Ask { matcher, want: Want::of(matcher, now)?.refusals(), now };
        if matcher.asks_message() {
            return Ok(());
        }
        let look = |_: Option<&Place>, plain: &[u8]| {
            let all = Event::each_is(plain, REFUSED).filter(|(_, is_refusal)| *is_refusal);
            let all = all.filter_map(|(mut octets, _)| Event::take(&mut octets));
            all.filter(|event| ask.chooses(event)).map(|event| refusal(&event)).collect()
        };
        for part in (0..=self.files.len()).rev() {
            let places = self.newest_first(part, &ask.want);
            for batch in batches(&places) {
                let chosen: Vec<Vec<Refused>> = self.visit(part, batch, look);
                let mut chosen = chosen.into_iter().flat_map(|block| block.into_iter().rev());
                if !chosen.all(&mut found) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The blocks of a part that may have what is wanted. The part behind the last file is what has
    /// not got there yet; it is one block without a place.
    fn places(&mut self, part: usize, want: &Want) -> Vec<Option<Place>> {
        if part == self.files.len() {
            return vec![None];
        }
        let mut counts = self.counts;
        let found = self.reading(part, |reader| places(reader, want, &mut counts));
        self.counts = counts;
        found.unwrap_or_default().into_iter().map(Some).collect()
    }

    /// The same, the newest first.
    fn newest_first(&mut self, part: usize, want: &Want) -> Vec<Option<Place>> {
        let mut places = self.places(part, want);
        places.reverse();
        places
    }

    /// What `look` makes of the events of each block, in the order of the places.
    fn visit<T: Send>(
        &mut self,
        part: usize,
        places: &[Option<Place>],
        look: impl Fn(Option<&Place>, &[u8]) -> T + Sync,
    ) -> Vec<T> {
        if part == self.files.len() {
            return places.iter().map(|_| look(None, &self.plain)).collect();
        }
        let places: Vec<Place> = places.iter().copied().flatten().collect();
        let read = self.reading(part, |reader| {
            visit_blocks(reader, &places, |place, plain| look(Some(place), plain))
        });
        let told = read.unwrap_or_default();
        self.counts.damaged += told.iter().filter(|told| told.is_none()).count() as u64;
        told.into_iter().flatten().collect()
    }

    /// The events of a block.
    fn events(&mut self, part: usize, place: Option<Place>) -> Vec<u8> {
        let Some(place) = place else { return self.plain.clone() };
        let read = self.reading(part, |reader| reader.events(&place));
        self.counts.damaged += u64::from(read == Some(None));
        read.flatten().unwrap_or_default()
    }

    /// When the record begins.
    fn since(&mut self) -> Option<Timestamp> {
        for part in 0..self.files.len() {
            let mut first = None;
            let mut damaged = 0;
            let read = self.reading(part, |reader| {
                reader.each(&mut damaged, |place, _| {
                    first = Some(place.head.first);
                    false
                })
            });
            if read.is_some_and(|read| read.is_ok()) && first.is_some() {
                return first;
            }
        }
        Event::all(&self.plain).map(|event| event.at).min()
    }

    /// The ids of the chosen messages whose stories begin in a part: the newest, as many as wanted.
    /// Those of which only later events are there go to `early`.
    fn beginnings(
        &mut self,
        part: usize,
        ask: &Ask<'_>,
        wanted: usize,
        early: &mut Early,
    ) -> BTreeSet<QueueId> {
        let (mut ids, begins) = (BTreeSet::new(), early.begins);
        let look = |place: Option<&Place>, plain: &[u8]| {
            let lowest = place.map_or(QueueId::from_u64(0), |place| place.head.lowest);
            ask.look(lowest, plain, begins)
        };
        let places = self.newest_first(part, &ask.want);
        for batch in batches(&places) {
            let lowest = ids.first().copied().filter(|_| ids.len() >= wanted);
            let may_add = |place: &Place| lowest.is_none_or(|lowest| place.head.highest >= lowest);
            let batch: Vec<_> =
                batch.iter().filter(|place| place.as_ref().is_none_or(may_add)).copied().collect();
            for told in self.visit(part, &batch, look) {
                early.take(&told);
                ids.extend(told.chosen);
                while ids.len() > wanted {
                    ids.pop_first();
                }
            }
        }
        ids
    }

    /// The messages that ids and beginnings of ids mean, the newest first.
    fn resolve(&mut self, matcher: &Matcher) -> Result<Vec<QueueId>, SearchError> {
        let mut all = BTreeSet::new();
        for text in matcher.ids() {
            let (first, last) = id_range(text)?;
            if first == last {
                all.insert(first);
                continue;
            }
            let alone = mailroot_common::control::Selector::id(text.as_str()).compile()?;
            let want = Want::of(&alone, Timestamp::default())?;
            let mut fit = BTreeSet::new();
            for part in (0..=self.files.len()).rev() {
                for place in self.places(part, &want) {
                    let plain = self.events(part, place);
                    let ids = Event::all(&plain).filter_map(|event| event.id());
                    fit.extend(ids.filter(|id| (first..=last).contains(id)));
                }
                if fit.len() > CANDIDATES_MAX {
                    break;
                }
            }
            if fit.len() > 1 {
                let ids = fit.into_iter().rev().take(CANDIDATES_MAX).collect();
                return Err(SearchError::Ambiguous { text: text.clone(), ids });
            }
            all.extend(fit);
        }
        Ok(all.into_iter().rev().collect())
    }

    /// Gathers the stories of these messages from a part on and hands over those that are chosen, at
    /// most `limit`. Returns how many, or nothing if `found` said enough.
    fn tell(
        &mut self,
        ids: &[QueueId],
        first_part: usize,
        ask: &Ask<'_>,
        limit: usize,
        found: &mut impl FnMut(TraceEntry) -> bool,
    ) -> Option<usize> {
        let mut told = 0;
        for page in ids.chunks(PAGE_MAX) {
            for story in self.gather(page, first_part).into_iter().rev() {
                let entry = story.finish();
                if told < limit && suits(ask.matcher, &entry, ask.now) {
                    told += 1;
                    if !found(entry) {
                        return None;
                    }
                }
            }
        }
        Some(told)
    }

    /// The stories of these messages, by id; those of which nothing is known are left out.
    fn gather(&mut self, ids: &[QueueId], first_part: usize) -> Vec<Story> {
        if ids.is_empty() {
            return Vec::new();
        }
        let want = Want::ids(ids);
        let wanted: BTreeSet<QueueId> = ids.iter().copied().collect();
        let look = |_: Option<&Place>, plain: &[u8]| {
            let all = Event::each_of(plain).filter(|(id, _)| wanted.contains(id));
            all.map(|(_, octets)| octets.to_vec()).collect::<Vec<_>>()
        };
        let mut stories: BTreeMap<QueueId, Story> =
            ids.iter().map(|&id| (id, Story::new(id))).collect();
        for part in first_part..=self.files.len() {
            let places = self.places(part, &want);
            for batch in batches(&places) {
                for octets in self.visit(part, batch, look).iter().flatten() {
                    let Some(event) = Event::take(&mut octets.as_slice()) else { continue };
                    if let Some(story) = event.id().and_then(|id| stories.get_mut(&id)) {
                        story.add(&event);
                    }
                }
            }
        }
        stories.into_values().filter(|story| !story.is_empty()).collect()
    }
}

/// Blocks to be looked at together: few at first.
fn batches(places: &[Option<Place>]) -> impl Iterator<Item = &[Option<Place>]> {
    let (first, rest) = places.split_at(places.len().min(BATCH_FIRST));
    std::iter::once(first).chain(rest.chunks(BATCH)).filter(|batch| !batch.is_empty())
}
