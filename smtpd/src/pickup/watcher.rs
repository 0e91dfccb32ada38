//! Finds complete files and takes them, a bounded number at once.
//!
//! Files moved in are taken on the kernel's notice. All others are found by the search that runs
//! every `poll`, and sooner when something stirred and a file may have come to rest. Files in hand
//! are committed side by side, so that they share the queue's syncs.
//!
//! When the queue has no room or cannot write, the claims in hand stay claims, nothing new is
//! claimed, and all of it is tried again after `poll`. The same holds when a claim was taken and its
//! file cannot be removed: at the next start it would be sent again, so no others come to it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::claim::{self, CLAIMED, Claimed, Refusal};
use super::enter::{Stuck, blocking, enter, shown};
use super::settle::Settling;
use super::watch::{Notice, Watch};
use super::{Inner, Left, lock, names};
use crate::directory::{Directory, FileFacts};
use crate::observe::Level;

/// How many files are in hand at once.
const IN_HAND_MAX: usize = 32;
/// The shortest time from a notice to the search it causes, so that a flood of notices does not
/// become a flood of searches.
const STIR_MIN: Duration = Duration::from_millis(20);
/// How many files one search takes note of; the next one finds the others.
const FOUND_MAX: usize = 10_000;
/// How many claims may wait for milters; until some are tried again no other file is taken.
const PUT_OFF_MAX: usize = 10_000;
/// How long a claim rests that a milter has wait, so that its body is not written anew each `poll`.
const PUT_OFF_REST: Duration = Duration::from_mins(1);
/// How many files that are left are remembered, so that each is logged once.
const LEFT_MAX: usize = 10_000;

/// The loop behind [`super::Pickup::run`].
pub(super) struct Watcher {
    inner: Arc<Inner>,
    place: Option<Place>,
    /// The directory whose old claims were taken up; all others in it are in our hands already.
    resumed: Option<(u64, u64)>,
    settling: Settling,
    ready: VecDeque<Work>,
    /// Claims that could not be read or put into Badmail; the next search takes them up again.
    later: Vec<OsString>,
    /// Claims that a milter has wait, and when each may be taken up again, the earliest first.
    put_off: VecDeque<(Duration, OsString)>,
    /// Names of files that are ready or in hand.
    known: HashSet<OsString>,
    in_hand: JoinSet<Done>,
    next_search: Duration,
    /// Nothing is taken before this moment.
    blocked_until: Option<Duration>,
    /// What the log was told last about the directory or the queue, so that it is told once.
    trouble: Option<String>,
}

/// The directory as it was opened.
#[derive(Clone)]
struct Place {
    pickup: Arc<Directory>,
    claimed: Arc<Directory>,
    identity: (u64, u64),
    watch: Option<Arc<Watch>>,
}

enum Work {
    File(OsString),
    /// A claim of an earlier run, or one that was stuck.
    Claim(OsString),
}

enum Done {
    /// It is in the queue or in Badmail, or was gone.
    Finished {
        name: OsString,
    },
    /// The same, but its file is still among the claims.
    Unremoved {
        name: OsString,
        claim: OsString,
        claimed: Arc<Directory>,
        error: io::Error,
    },
    Left {
        name: OsString,
        facts: Option<FileFacts>,
        refusal: Refusal,
    },
    Stuck {
        name: OsString,
        claim: OsString,
        why: Stuck,
    },
}

/// What a search found.
struct Found {
    files: HashMap<OsString, FileFacts>,
    /// Files that are left where they are and have not changed.
    left: HashSet<OsString>,
    /// Whether the search came to the directory's end.
    is_whole: bool,
}

impl Watcher {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            place: None,
            resumed: None,
            settling: Settling::default(),
            ready: VecDeque::new(),
            later: Vec::new(),
            put_off: VecDeque::new(),
            known: HashSet::new(),
            in_hand: JoinSet::new(),
            next_search: Duration::ZERO,
            blocked_until: None,
            trouble: None,
        }
    }

    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        self.inner.stopping.send_replace(false);
        loop {
            let now = self.inner.clock.elapsed();
            if now >= self.next_search {
                self.search(now).await;
            }
            self.take_in_hand(now);
            let watch = self.place.as_ref().and_then(|place| place.watch.clone());
            let next = self.blocked_until.map_or(self.next_search, |at| at.min(self.next_search));
            let wait = next.saturating_sub(now);
            tokio::select! {
                () = &mut stop => break,
                Some(done) = self.in_hand.join_next(), if !self.in_hand.is_empty() => {
                    self.put_down(done.ok());
                    while let Some(done) = self.in_hand.try_join_next() {
                        self.put_down(done.ok());
                    }
                }
                notices = heard(watch) => self.hear(notices),
                () = self.inner.clock.sleep(wait) => {}
            }
        }
        self.inner.stopping.send_replace(true);
        while let Some(done) = self.in_hand.join_next().await {
            self.put_down(done.ok());
        }
        self.remove_taken().await;
    }

    fn poll(&self) -> Duration {
        self.inner.settings.poll.as_duration()
    }

    /// Opens the directory anew if it is not the one we know, and notes what is complete.
    async fn search(&mut self, now: Duration) {
        self.next_search = now + self.poll();
        self.remove_taken().await;
        let was_open = self.place.is_some();
        match self.open().await {
            Err(error) => {
                self.place = None;
                let path = self.inner.settings.directory.display().to_string();
                self.complain(format!("cannot use {path}: {error}; it must be a directory"));
                return;
            }
            Ok(place) => self.place = Some(place),
        }
        if !was_open {
            self.trouble = None;
        }
        let Some(place) = self.place.clone() else { return };
        self.ready.extend(self.later.drain(..).map(Work::Claim));
        let rested = self.put_off.partition_point(|(until, _)| *until <= now);
        self.ready.extend(self.put_off.drain(..rested).map(|(_, claim)| Work::Claim(claim)));
        let left = self.left();
        match blocking(move || look_around(&place.pickup, &left)).await {
            Err(error) => self.complain(format!("cannot list Pickup: {error}")),
            Ok(found) => self.note(found, now),
        }
    }

    /// Tries once more to remove what is taken.
    async fn remove_taken(&mut self) {
        let taken = std::mem::take(&mut *lock(&self.inner.taken.0));
        if taken.is_empty() {
            return;
        }
        let stays = |(claimed, claim): &(Arc<Directory>, OsString)| claimed.remove(claim).is_err();
        let left = blocking(move || Ok(taken.into_iter().filter(stays).collect::<Vec<_>>())).await;
        lock(&self.inner.taken.0).extend(left.unwrap_or_default());
    }

    async fn open(&mut self) -> io::Result<Place> {
        let path = self.inner.settings.directory.clone();
        let (known, resumed) = (self.place.clone(), self.resumed);
        let (place, claims) = blocking(move || {
            let pickup = Directory::open(&path)?;
            let identity = pickup.identity()?;
            if let Some(place) = known.filter(|place| place.identity == identity) {
                return Ok((place, Vec::new()));
            }
            let claimed = Arc::new(pickup.private(CLAIMED)?);
            let is_resumed = resumed == Some(identity);
            let claims = if is_resumed { Vec::new() } else { names(&claimed)? };
            Ok((Place { pickup: Arc::new(pickup), claimed, identity, watch: None }, claims))
        })
        .await?;
        if place.watch.is_some() {
            return Ok(place);
        }
        self.resumed = Some(place.identity);
        self.ready.extend(claims.into_iter().map(Work::Claim));
        // Without notices the search finds everything, a little later.
        let watch = Watch::new(&self.inner.settings.directory).ok().map(Arc::new);
        Ok(Place { watch, ..place })
    }

    /// The files that are left where they are, as they were.
    fn left(&self) -> HashMap<OsString, FileFacts> {
        let refused = lock(&self.inner.refused);
        let with_facts = |(name, left): (&OsString, &Left)| Some((name.clone(), left.facts?));
        refused.iter().filter_map(with_facts).collect()
    }

    fn note(&mut self, found: Found, now: Duration) {
        self.settling.retain(|name| found.files.contains_key(name));
        if found.is_whole {
            let is_there =
                |name: &OsString| found.left.contains(name) || found.files.contains_key(name);
            lock(&self.inner.refused).retain(|name, _| is_there(name));
        }
        let wall = self.inner.clock.now();
        let span = self.inner.settings.settle.as_duration();
        for (name, facts) in found.files {
            if self.known.contains(&name) {
                continue;
            }
            match self.settling.look(&name, &facts, span, wall, now) {
                None => {
                    self.known.insert(name.clone());
                    self.ready.push_back(Work::File(name));
                }
                Some(wait) => self.next_search = self.next_search.min(now + wait),
            }
        }
    }

    fn hear(&mut self, notices: io::Result<Vec<Notice>>) {
        let Ok(notices) = notices else {
            if let Some(place) = &mut self.place {
                place.watch = None;
            }
            return;
        };
        for notice in notices {
            match notice {
                Notice::MovedIn(name) if claim::is_ignored(&name) => {}
                Notice::MovedIn(name)
                    if self.ready.len() < FOUND_MAX && !self.known.contains(&name) =>
                {
                    self.known.insert(name.clone());
                    self.ready.push_back(Work::File(name));
                }
                // Another file of a name in hand is found by the search like any other.
                Notice::MovedIn(_) | Notice::Stirred => {
                    let settle = self.inner.settings.settle.as_duration();
                    let soon = self.inner.clock.elapsed() + settle.max(STIR_MIN);
                    self.next_search = self.next_search.min(soon);
                }
            }
        }
    }

    fn has_taken(&self) -> bool {
        !lock(&self.inner.taken.0).is_empty()
    }

    fn take_in_hand(&mut self, now: Duration) {
        if self.blocked_until.is_some_and(|until| now < until) || self.has_taken() {
            return;
        }
        self.blocked_until = None;
        let Some(place) = &self.place else { return };
        while self.in_hand.len() < IN_HAND_MAX && !self.ready.is_empty() {
            if self.put_off.len() + self.in_hand.len() >= PUT_OFF_MAX {
                return;
            }
            if let Err(why) = self.inner.queue.ready() {
                self.blocked_until = Some(now + self.poll());
                self.complain(format!("{why}, files wait in Pickup"));
                return;
            }
            let Some(work) = self.ready.pop_front() else { return };
            self.in_hand.spawn(take(Arc::clone(&self.inner), place.clone(), work));
        }
    }

    fn put_down(&mut self, done: Option<Done>) {
        match done {
            // A fault of ours ended the task; the claim is taken again at the next start.
            None => self.inner.counters.panics.add_one(),
            Some(Done::Finished { name }) => {
                self.known.remove(&name);
                self.trouble = None;
            }
            Some(Done::Unremoved { name, claim, claimed, error }) => {
                self.known.remove(&name);
                lock(&self.inner.taken.0).push((claimed, claim));
                self.complain(format!(
                    "{} was taken and cannot be removed, others wait: {error}",
                    shown(&name)
                ));
            }
            Some(Done::Left { name, facts, refusal }) => {
                self.known.remove(&name);
                self.leave(name, facts, &refusal);
            }
            Some(Done::Stuck { name, claim, why }) => {
                self.known.remove(&name);
                self.keep_claim(&name, claim, &why);
            }
        }
    }

    /// Keeps a claim for a later try.
    fn keep_claim(&mut self, name: &OsStr, claim: OsString, why: &Stuck) {
        let now = self.inner.clock.elapsed();
        match why {
            // Whoever watches next finds it.
            Stuck::Stopping => return,
            // Each file may be told another reason: the log hears of the first that waits.
            Stuck::Filter(_) => {
                let is_first = self.put_off.is_empty();
                self.put_off.push_back((now + PUT_OFF_REST, claim));
                if is_first {
                    self.complain(format!("files are put off: {why}"));
                }
                return;
            }
            Stuck::Commit(_) => {
                self.ready.push_front(Work::Claim(claim));
                self.blocked_until = Some(now + self.poll());
            }
            Stuck::Badmail(_) | Stuck::Read(_) | Stuck::Alias(_) => self.later.push(claim),
        }
        self.complain(format!("{}: {why}", shown(name)));
    }

    /// Remembers a file that stays where it is; the log hears of it once.
    fn leave(&self, name: OsString, facts: Option<FileFacts>, refusal: &Refusal) {
        let why = refusal.to_string();
        // Trouble that does not show in the file's own facts is looked for again.
        let facts = facts.filter(|_| refusal.lasts_until_it_changes());
        let mut refused = lock(&self.inner.refused);
        let is_known = refused.get(&name).is_some_and(|left| left.why == why);
        let is_remembered = refused.len() < LEFT_MAX || refused.contains_key(&name);
        if !is_known && is_remembered {
            let line = self.inner.log.line(Level::Warn, "pickup-left");
            line.word("server", &self.inner.settings.server)
                .text("file", shown(&name))
                .text("reason", &why)
                .send();
        }
        if is_remembered {
            refused.insert(name, Left { facts, why });
        }
    }

    fn complain(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            let line = self.inner.log.line(Level::Error, "pickup-failed");
            line.word("server", &self.inner.settings.server).text("error", &trouble).send();
            self.trouble = Some(trouble);
        }
    }
}

/// Waits for notices; without a watch there are none.
async fn heard(watch: Option<Arc<Watch>>) -> io::Result<Vec<Notice>> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

fn look_around(pickup: &Directory, left: &HashMap<OsString, FileFacts>) -> io::Result<Found> {
    let mut found = Found { files: HashMap::new(), left: HashSet::new(), is_whole: true };
    pickup.each_name(|name| {
        if claim::is_ignored(&name) {
            return true;
        }
        // What vanished in the meantime is not there.
        let Ok(facts) = pickup.facts(&name) else { return true };
        if left.get(&name) == Some(&facts) {
            found.left.insert(name);
        } else {
            found.files.insert(name, facts);
        }
        found.is_whole = found.files.len() < FOUND_MAX;
        found.is_whole
    })?;
    Ok(found)
}

async fn take(inner: Arc<Inner>, place: Place, work: Work) -> Done {
    let claimed = match work {
        Work::File(name) => match claim_file(&inner, &place, name).await {
            Ok(claimed) => claimed,
            Err(done) => return done,
        },
        Work::Claim(claim) => match resume_claim(&inner, &place, claim).await {
            Ok(claimed) => claimed,
            Err(done) => return done,
        },
    };
    let (name, claim) = (claimed.name.clone(), claimed.claim.clone());
    if let Err(why) = enter(&inner, claimed).await {
        return Done::Stuck { name, claim, why };
    }
    let (claimed, removed) = (Arc::clone(&place.claimed), claim.clone());
    match blocking(move || place.claimed.remove(&removed)).await {
        Ok(()) => Done::Finished { name },
        Err(error) => Done::Unremoved { name, claim, claimed, error },
    }
}

async fn claim_file(inner: &Inner, place: &Place, name: OsString) -> Result<Claimed, Done> {
    let (ticket, limit) = (inner.queue.new_id(), inner.settings.rules.size_max);
    let (place, wanted) = (place.clone(), name.clone());
    let claimed = blocking(move || {
        let facts = place.pickup.facts(&wanted).ok();
        let claimed = claim::claim(&place.pickup, &place.claimed, &wanted, ticket, limit);
        Ok((facts, claimed))
    });
    match claimed.await {
        Ok((_, Ok(Some(claimed)))) => Ok(claimed),
        Ok((_, Ok(None))) => Err(Done::Finished { name }),
        Ok((facts, Err(refusal))) => Err(Done::Left { name, facts, refusal }),
        Err(error) => Err(Done::Left { name, facts: None, refusal: Refusal::Unclaimable(error) }),
    }
}

async fn resume_claim(inner: &Inner, place: &Place, claim: OsString) -> Result<Claimed, Done> {
    let limit = inner.settings.rules.size_max;
    let (claimed, wanted) = (Arc::clone(&place.claimed), claim.clone());
    let resumed = blocking(move || Ok(claim::resume(&claimed, &wanted, limit)));
    match resumed.await {
        Ok(Ok(claimed)) => Ok(claimed),
        Ok(Err(Refusal::Unreadable { source, .. })) => {
            let name = claim::original_name(&claim);
            Err(Done::Stuck { name, claim, why: Stuck::Read(source) })
        }
        Ok(Err(refusal)) => Err(Done::Left { name: claim, facts: None, refusal }),
        Err(error) => {
            Err(Done::Left { name: claim, facts: None, refusal: Refusal::Unclaimable(error) })
        }
    }
}
