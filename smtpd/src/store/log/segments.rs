//! What each segment holds: how much of it is alive, and which removals in it are still needed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mailroot_common::id::QueueId;

use super::index::Place;
use super::record::HEADER;
use super::segment::SegmentFile;

/// What a segment is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Nothing; it can be written from its start.
    Spare,
    /// Records are being appended.
    Active,
    /// It was written and is read.
    Sealed,
    /// It was written before the start and not read yet.
    Unread,
    /// Its header is being written by whoever set this; nobody else may touch it.
    Changing,
}

/// One segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<SegmentFile>,
    pub(super) usage: Use,
    pub(super) generation: u64,
    /// Where its sound batches end, if that is known.
    pub(super) end: Option<u64>,
    /// Octets of frames that count.
    pub(super) live: u64,
    /// Removals in here whose message has a copy in another segment.
    pub(super) needed_removals: u32,
    /// Messages with a copy in here whose removal is in another segment.
    buried: Vec<QueueId>,
    /// Living messages with an old copy in here.
    moved_out: Vec<QueueId>,
    /// While a segment of this generation is in use, this one's header says where that one ended
    /// badly, so this one must stay.
    pub(super) guards: Option<u64>,
}

impl Segment {
    /// Octets that would have to be moved if the segment were emptied.
    pub(super) fn needed(&self) -> u64 {
        self.live + u64::from(self.needed_removals) * HEADER as u64
    }
}

/// Where the removal of a message stands, and a segment that still holds a copy of the message.
/// There may be a million: what few of them have besides is in [`Segments::further`].
#[derive(Debug)]
struct Grave {
    segment: u32,
    copy: u32,
}

/// All segments.
#[derive(Debug, Default)]
pub(super) struct Segments {
    all: BTreeMap<u32, Segment>,
    graves: HashMap<QueueId, Grave, foldhash::fast::RandomState>,
    /// Segments with further copies of removed messages.
    further: HashMap<QueueId, Vec<u32>, foldhash::fast::RandomState>,
    /// Segments with old copies of living messages.
    old_copies: HashMap<QueueId, Vec<u32>, foldhash::fast::RandomState>,
    /// Octets of frames that count, in all segments.
    pub(super) live: u64,
    next_number: u32,
}

impl Segments {
    pub(super) fn add(&mut self, file: Arc<SegmentFile>, usage: Use, generation: u64) {
        let segment = Segment {
            usage,
            generation,
            end: None,
            live: 0,
            needed_removals: 0,
            buried: Vec::new(),
            moved_out: Vec::new(),
            guards: None,
            file,
        };
        self.all.insert(segment.file.number, segment);
    }

    pub(super) fn get(&self, number: u32) -> Option<&Segment> {
        self.all.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Segment> {
        self.all.get_mut(&number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.all.values()
    }

    pub(super) fn count(&self, usage: Use) -> usize {
        self.all.values().filter(|segment| segment.usage == usage).count()
    }

    pub(super) fn find(&self, usage: Use) -> Option<u32> {
        let found = self.all.values().find(|segment| segment.usage == usage)?;
        Some(found.file.number)
    }

    /// A number no segment has, had or will have while the store is open.
    pub(super) fn new_number(&mut self) -> u32 {
        let next = self.all.keys().next_back().map_or(1, |last| last + 1);
        self.next_number = self.next_number.max(next) + 1;
        self.next_number - 1
    }

    /// Records go into a segment from now on.
    pub(super) fn begin(&mut self, number: u32, generation: u64, guards: Option<u64>) {
        if let Some(segment) = self.all.get_mut(&number) {
            segment.usage = Use::Active;
            segment.generation = generation;
            segment.guards = guards;
            segment.end = None;
        }
    }

    /// No more records go into a segment; its sound batches end at `end`.
    pub(super) fn seal(&mut self, number: u32, end: u64) {
        if let Some(segment) = self.all.get_mut(&number) {
            segment.usage = Use::Sealed;
            segment.end = Some(end);
        }
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Segment> {
        self.all.remove(&number)
    }

    pub(super) fn set_use(&mut self, number: u32, usage: Use) {
        if let Some(segment) = self.all.get_mut(&number) {
            segment.usage = usage;
        }
    }

    pub(super) fn add_live(&mut self, place: Place) {
        if let Some(segment) = self.all.get_mut(&place.segment) {
            segment.live += place.len();
            self.live += place.len();
        }
    }

    pub(super) fn drop_live(&mut self, place: Place) {
        if let Some(segment) = self.all.get_mut(&place.segment) {
            segment.live -= place.len();
            self.live -= place.len();
        }
    }

    /// Notes that a living message left a copy behind.
    pub(super) fn moved_out(&mut self, id: QueueId, segment: u32) {
        if let Some(segment) = self.all.get_mut(&segment) {
            segment.moved_out.push(id);
        }
        self.old_copies.entry(id).or_default().push(segment);
    }

    /// Notes the removal of a message, in segment `grave`, whose last copy is in `copy`.
    pub(super) fn bury(&mut self, id: QueueId, copy: u32, grave: u32) {
        let mut copies = self.old_copies.remove(&id).unwrap_or_default();
        copies.push(copy);
        self.dig(id, copies, grave);
    }

    fn dig(&mut self, id: QueueId, mut copies: Vec<u32>, grave: u32) {
        // A copy beside the removal goes when the removal goes.
        copies.retain(|copy| *copy != grave && self.all.contains_key(copy));
        copies.sort_unstable();
        copies.dedup();
        let Some((first, further)) = copies.split_first() else { return };
        for copy in &copies {
            if let Some(segment) = self.all.get_mut(copy) {
                segment.buried.push(id);
            }
        }
        if let Some(segment) = self.all.get_mut(&grave) {
            segment.needed_removals += 1;
        }
        self.graves.insert(id, Grave { segment: grave, copy: *first });
        if !further.is_empty() {
            self.further.insert(id, further.to_vec());
        }
    }

    /// Takes another copy of a removed message into account, found during recovery.
    pub(super) fn found_buried(&mut self, id: QueueId, copy: u32, grave: u32) {
        let mut copies = vec![copy];
        if let Some(known) = self.graves.remove(&id) {
            copies.push(known.copy);
            copies.extend(self.further.remove(&id).unwrap_or_default());
            if let Some(segment) = self.all.get_mut(&known.segment) {
                segment.needed_removals -= 1;
            }
        }
        self.dig(id, copies, grave);
    }

    /// Whether a removal in `segment` is still needed.
    pub(super) fn is_grave(&self, id: QueueId, segment: u32) -> bool {
        self.graves.get(&id).is_some_and(|grave| grave.segment == segment)
    }

    /// Follows a removal that was copied.
    pub(super) fn moved_grave(&mut self, id: QueueId, from: u32, to: u32) {
        let Some(grave) = self.graves.get_mut(&id).filter(|grave| grave.segment == from) else {
            return;
        };
        grave.segment = to;
        if let Some(segment) = self.all.get_mut(&from) {
            segment.needed_removals -= 1;
        }
        if let Some(segment) = self.all.get_mut(&to) {
            segment.needed_removals += 1;
        }
    }

    /// Whether nothing in a sealed segment is needed any more and nobody reads it.
    pub(super) fn is_free(&self, number: u32) -> bool {
        let Some(segment) = self.all.get(&number) else { return false };
        segment.usage == Use::Sealed
            && segment.live == 0
            && segment.needed_removals == 0
            && Arc::strong_count(&segment.file) == 1
            && segment.guards.is_none_or(|generation| {
                !self.all.values().any(|other| {
                    other.generation == generation
                        && matches!(other.usage, Use::Sealed | Use::Unread | Use::Active)
                })
            })
    }

    /// A segment no longer holds a copy of a removed message. Without any, its grave is not needed.
    fn forget_copy(&mut self, id: QueueId, copy: u32) {
        let Some(grave) = self.graves.get_mut(&id) else { return };
        if let Some(further) = self.further.get_mut(&id) {
            further.retain(|other| *other != copy);
            if grave.copy == copy
                && let Some(other) = further.pop()
            {
                grave.copy = other;
            }
            if further.is_empty() {
                self.further.remove(&id);
            }
        }
        if grave.copy == copy {
            let grave = grave.segment;
            self.graves.remove(&id);
            if let Some(segment) = self.all.get_mut(&grave) {
                segment.needed_removals -= 1;
            }
        }
    }

    /// Notes that every record in a segment has become void.
    pub(super) fn recycled(&mut self, number: u32, generation: u64) {
        let Some(segment) = self.all.get_mut(&number) else { return };
        segment.usage = Use::Spare;
        segment.generation = generation;
        segment.guards = None;
        let (buried, moved) =
            (std::mem::take(&mut segment.buried), std::mem::take(&mut segment.moved_out));
        for id in buried {
            self.forget_copy(id, number);
        }
        for id in moved {
            if let Some(copies) = self.old_copies.get_mut(&id) {
                copies.retain(|copy| *copy != number);
                if copies.is_empty() {
                    self.old_copies.remove(&id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::super::conformance::id;
    use super::*;
    use crate::disk::{Disk, Modelled};

    /// Four sealed segments with the numbers 1 to 4.
    fn segments() -> Segments {
        let disk = Disk::Modelled(Arc::new(Modelled::new(1)));
        let home = Path::new("/q");
        disk.create_dir_all(home).unwrap();
        let mut segments = Segments::default();
        for number in 1..=4 {
            let file = SegmentFile::create(&disk, home, number, 65536).unwrap();
            segments.add(file, Use::Sealed, u64::from(number));
        }
        segments
    }

    #[test]
    fn a_removal_is_needed_until_every_copy_of_its_message_is_gone() {
        let mut segments = segments();
        segments.moved_out(id(1), 1);
        segments.moved_out(id(1), 2);
        segments.bury(id(1), 3, 4);
        segments.bury(id(2), 2, 4);
        for (recycled, free) in [(2, false), (1, false), (3, true)] {
            assert!(!segments.is_free(4), "copies of the first message are left");
            segments.recycled(recycled, 10);
            assert_eq!(segments.is_free(4), free);
            assert_eq!(segments.is_grave(id(1), 4), !free);
        }
        assert!(segments.further.is_empty() && segments.old_copies.is_empty());
    }

    #[test]
    fn a_removal_that_was_moved_is_needed_where_it_is_now() {
        let mut segments = segments();
        segments.bury(id(1), 1, 3);
        segments.moved_grave(id(1), 3, 4);
        assert!(segments.is_free(3) && !segments.is_free(4));
        segments.found_buried(id(1), 2, 4);
        segments.recycled(1, 10);
        assert!(!segments.is_free(4));
        segments.recycled(2, 11);
        assert!(segments.is_free(4) && segments.graves.is_empty());
    }
}
