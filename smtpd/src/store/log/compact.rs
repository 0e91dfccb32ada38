//! Compaction: moves what is alive out of segments that are mostly dead.
//!
//! It begins when the sealed segments take more than twice what is alive, and takes the emptiest.
//! With the segment being written and three spare ones that is the bound of the disk's use. It also
//! empties one of which hardly anything is needed when a spare segment is wanted: that is cheaper
//! than making one of zeros. Beside a long queue such segments come about all the time, because a
//! removal that is still needed keeps its segment, and so the removals of that one's messages keep
//! the next. Records are moved as they are, through the committer like everything else;
//! it looks once more whether they still count. The emptied segment is recycled by the keeper when
//! the batch is synced and nobody reads it any more. Removals move too as long as another segment
//! holds a copy of their message.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use tokio::sync::oneshot::{Receiver, error::TryRecvError};

use super::super::CommitError;
use super::Log;
use super::commit::{Copied, Task};
use super::index::Place;
use super::keeper::{Kept, SPARES};
use super::record::{BATCH_END, DAMAGED, HEADER, Kind};
use super::scan::{Sound, Step, Walk, Window};
use super::segment::SegmentFile;
use super::segments::Use;

/// Octets moved in one batch.
const PIECE: u64 = 256 << 10;
/// A segment of which at most one in so many octets is needed is emptied rather than another made.
const CHEAP: u64 = 16;

/// How far compaction is.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    current: Option<Current>,
    /// Segments that could not be emptied because something in them cannot be read.
    stuck: HashSet<u64>,
}

#[derive(Debug)]
struct Current {
    file: Arc<SegmentFile>,
    generation: u64,
    walk: Walk,
    pending: Option<Receiver<Result<(), CommitError>>>,
}

impl Log {
    /// Hands in the next records to be moved.
    pub(super) fn compact_step(&self, compaction: &mut Compaction) -> Kept {
        if compaction.current.is_none() {
            compaction.current = self.choose(&compaction.stuck);
        }
        let Some(current) = &mut compaction.current else { return Kept::Idle };
        if let Some(pending) = &mut current.pending {
            match pending.try_recv() {
                Err(TryRecvError::Empty) => return Kept::Idle,
                Ok(Ok(())) => current.pending = None,
                // The disk refused; it is begun anew later.
                Ok(Err(_)) | Err(TryRecvError::Closed) => {
                    compaction.current = None;
                    return Kept::Idle;
                }
            }
        }
        match self.gather_live(current) {
            Ok(records) if records.is_empty() => {
                let Current { file, generation, .. } =
                    compaction.current.take().expect("it was looked at just now");
                let index = self.index();
                let emptied = index.segments.get(file.number).is_none_or(|segment| {
                    segment.generation != generation
                        || (segment.live == 0 && segment.needed_removals == 0)
                });
                if emptied {
                    self.counters.segments_compacted.add_one();
                } else {
                    compaction.stuck.insert(generation);
                }
                Kept::Done
            }
            Ok(records) => {
                current.pending = self.gather.submit(Task::Copy(records)).ok();
                Kept::Copied
            }
            Err(_) => {
                compaction.stuck.insert(current.generation);
                compaction.current = None;
                Kept::Idle
            }
        }
    }

    /// Whether the log takes more than the design allows. Then compaction does not rest.
    pub(super) fn is_overfull(&self) -> bool {
        let (index, size) = (self.index(), self.settings.segment_size);
        index.segments.iter().count() as u64 * size > 2 * index.segments.live + 4 * size
    }

    /// Whether a segment is being emptied, or can be, that has little left to move.
    pub(super) fn gains_soon(&self, compaction: &Compaction) -> bool {
        let next = match &compaction.current {
            Some(current) => Some(current.file.number),
            None => self.choose(&compaction.stuck).map(|current| current.file.number),
        };
        let most = self.settings.segment_size / CHEAP;
        let index = self.index();
        let segment = next.and_then(|number| index.segments.get(number));
        segment.is_some_and(|segment| segment.needed() <= most)
    }

    /// The emptiest sealed segment, if there is more dead than the design allows, or if a spare one
    /// is wanted and this one is cheap to have.
    fn choose(&self, stuck: &HashSet<u64>) -> Option<Current> {
        let index = self.index();
        let sealed = || index.segments.iter().filter(|segment| segment.usage == Use::Sealed);
        let size = self.settings.segment_size;
        let is_crowded = sealed().count() as u64 * size > 2 * index.segments.live;
        let most = match (is_crowded, index.segments.count(Use::Spare) < SPARES) {
            (true, _) => u64::MAX,
            (false, true) => size / CHEAP,
            (false, false) => return None,
        };
        let victim = sealed()
            .filter(|segment| (1..=most).contains(&segment.needed()))
            .filter(|segment| !stuck.contains(&segment.generation))
            .min_by_key(|segment| segment.needed())?;
        let (file, generation) = (Arc::clone(&victim.file), victim.generation);
        let walk = Walk::new(file.len, generation, victim.end);
        Some(Current { file, generation, walk, pending: None })
    }

    /// Reads on in the segment until there is enough to move, or its end.
    fn gather_live(&self, current: &mut Current) -> io::Result<Vec<Copied>> {
        let (mut records, mut octets) = (Vec::new(), 0);
        let mut window = Window::new(&current.file);
        let most = PIECE.min(self.settings.segment_size / 8);
        while octets < most {
            let frame = match current.walk.next(&mut window)? {
                Step::Frame(frame) => frame,
                // What stands there was reported when it was found first.
                Step::Damage { .. } => continue,
                Step::End => break,
            };
            if self.counts_still(current, &frame) {
                octets += frame.header.frame_len();
                records.push(read_whole(&current.file, &frame)?);
            }
        }
        Ok(records)
    }

    fn counts_still(&self, current: &Current, frame: &Sound) -> bool {
        let index = self.index();
        let (id, number) = (frame.header.id, current.file.number);
        let here = place(number, frame);
        match frame.header.kind {
            Kind::Message => index.get(id).is_some_and(|slot| slot.record == here),
            Kind::State => index.get(id).is_some_and(|slot| slot.state == here),
            Kind::Removed => index.segments.is_grave(id, number),
        }
    }
}

fn place(segment: u32, frame: &Sound) -> Place {
    Place::new(segment, frame.at, frame.header.frame_len())
}

fn read_whole(file: &SegmentFile, frame: &Sound) -> io::Result<Copied> {
    let header = frame.header;
    let mut octets = vec![0; usize::try_from(header.frame_len()).map_err(io::Error::other)?];
    file.file.read_exact_at(&mut octets, frame.at)?;
    let body_at = HEADER + header.meta_len as usize;
    let body = octets[body_at..body_at + header.body_len as usize].to_vec();
    let meta = octets[HEADER..body_at].to_vec();
    let mut flags = header.flags & !BATCH_END;
    if header.kind == Kind::Message && !header.body_matches(&body) {
        // A new checksum over wrong octets would make them look right.
        flags |= DAMAGED;
    }
    let (id, kind, version, size) = (header.id, header.kind, header.version, header.size);
    Ok(Copied { id, kind, flags, version, size, from: place(file.number, frame), meta, body })
}
