//! Reads a segment from front to back, over what is torn or damaged.
//!
//! In: a segment file and its generation. Out: every frame whose header and envelope are sound,
//! in order; the bodies are skipped. Two questions shape this file. *Where does the segment end?* A
//! batch that was never synced may have left any part of itself, so the last batch counts only if
//! it is whole; one that a later batch follows was synced, so whatever is broken in it is damage.
//! *Where does reading go on after damage?* At the next place where a header verifies.

use std::io;

use mailroot_common::id::QueueId;

use super::record::{BATCH_END, BLOCK, HEADER, Header, MAGIC, is_whole};
use super::segment::{FIRST, SegmentFile};

const WINDOW: usize = 256 << 10;

/// Reads ahead through a file.
pub(super) struct Window<'a> {
    file: &'a SegmentFile,
    octets: Vec<u8>,
    begin: u64,
    len: u64,
}

/// One sound frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sound {
    pub(super) at: u64,
    pub(super) header: Header,
}

impl Sound {
    /// Where the next frame begins if nothing is broken.
    fn end(&self) -> u64 {
        let end = self.at + self.header.frame_len();
        if self.header.flags & BATCH_END == 0 { end } else { end.next_multiple_of(BLOCK) }
    }
}

impl<'a> Window<'a> {
    pub(super) const fn new(file: &'a SegmentFile) -> Self {
        Self { file, octets: Vec::new(), begin: 0, len: file.len }
    }

    /// The length of the file.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Up to `count` octets at a place; fewer where the file ends.
    pub(super) fn at(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        let end = self.begin + self.octets.len() as u64;
        let wanted = (at + count as u64).min(self.len);
        if at < self.begin || wanted > end {
            let size = self.len.saturating_sub(at).min(count.max(WINDOW) as u64);
            self.octets.resize(usize::try_from(size).map_err(io::Error::other)?, 0);
            self.begin = at;
            self.file.file.read_exact_at(&mut self.octets, at)?;
        }
        let skip = usize::try_from(at - self.begin).map_err(io::Error::other)?;
        let rest = self.octets.get(skip..).unwrap_or_default();
        Ok(&rest[..rest.len().min(count)])
    }

    /// The frame at a place, if one of `generation` is there and its header and meta are sound.
    pub(super) fn frame(&mut self, at: u64, generation: u64) -> io::Result<Option<Sound>> {
        let Some(header) = Header::read(self.at(at, HEADER)?) else { return Ok(None) };
        if header.generation != generation || at + header.frame_len() > self.len {
            return Ok(None);
        }
        let front = HEADER + header.meta_len as usize;
        let octets = self.at(at, front)?;
        Ok((octets.len() == front && is_whole(octets, &header)).then_some(Sound { at, header }))
    }

    /// The meta of a frame.
    pub(super) fn meta(&mut self, frame: &Sound) -> io::Result<&[u8]> {
        self.at(frame.at + HEADER as u64, frame.header.meta_len as usize)
    }

    /// The first sound frame at or after a place and before `limit`.
    fn search(&mut self, from: u64, limit: u64, generation: u64) -> io::Result<Option<Sound>> {
        let mut at = from.next_multiple_of(8);
        while at < limit {
            let octets = self.at(at, WINDOW)?;
            if octets.len() < HEADER {
                break;
            }
            let Some(hit) = memchr::memmem::find(octets, &MAGIC) else {
                // The magic may stand across the end of this window.
                at += (octets.len() as u64 - 3).next_multiple_of(8).max(8);
                continue;
            };
            let place = at + hit as u64;
            if place.is_multiple_of(8)
                && place < limit
                && let Some(found) = self.frame(place, generation)?
            {
                return Ok(Some(found));
            }
            at = (place + 1).next_multiple_of(8);
        }
        Ok(None)
    }
}

/// Where the sound batches of the newest segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The place after the last batch that counts.
    pub(super) end: u64,
    /// The number of that batch, or the one before this segment.
    pub(super) last_batch: u64,
    /// The number of the batch that is void; 0 if there is none.
    pub(super) void_batch: u64,
    /// The highest id in any sound record, void or not.
    pub(super) highest: QueueId,
}

/// A batch being read from the newest segment.
struct Last {
    number: u64,
    /// Whether it is there from its first frame on, without a gap.
    whole: bool,
    /// Whether its end mark was seen.
    ended: bool,
    frames: Vec<Sound>,
}

/// Finds the end of a segment that no other segment speaks of.
///
/// Frames without their bodies tell where batches begin and end. Only the last batch can be torn,
/// because each is synced before the next one is written, so only its bodies are read as well.
pub(super) fn find_tail(window: &mut Window, generation: u64, last_batch: u64) -> io::Result<Tail> {
    let mut tail = Tail { end: FIRST, last_batch, void_batch: 0, highest: QueueId::from_u64(0) };
    let mut last: Option<Last> = None;
    let mut at = FIRST;
    loop {
        let (frame, jumped) = match window.frame(at, generation)? {
            Some(frame) => (frame, false),
            None => match window.search(at, window.len(), generation)? {
                Some(frame) => (frame, true),
                None => break,
            },
        };
        tail.highest = tail.highest.max(frame.header.id);
        at = frame.end();
        let number = frame.header.batch;
        let mut batch = match last.take() {
            Some(batch) if batch.number == number => batch,
            before => {
                if let Some(before) = before {
                    // A later batch follows, so this one was synced, whatever it looks like now.
                    let begin = frame.at.saturating_sub(u64::from(frame.header.in_batch));
                    (tail.end, tail.last_batch) = (begin, before.number);
                }
                let whole = frame.header.in_batch == 0;
                Last { number, whole, ended: false, frames: Vec::new() }
            }
        };
        batch.whole &= !jumped || batch.frames.is_empty();
        batch.ended |= frame.header.flags & BATCH_END != 0;
        batch.frames.push(frame);
        last = Some(batch);
    }
    let Some(batch) = last else { return Ok(tail) };
    if batch.whole && batch.ended && bodies_match(window, &batch.frames)? {
        (tail.end, tail.last_batch) = (at, batch.number);
    } else {
        tail.void_batch = batch.number;
    }
    Ok(tail)
}

fn bodies_match(window: &mut Window, frames: &[Sound]) -> io::Result<bool> {
    for frame in frames {
        let body = window.at(frame.at + frame.header.body_at(), frame.header.body_len as usize)?;
        if !frame.header.body_matches(body) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a walk through a segment comes across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A sound frame.
    Frame(Sound),
    /// Octets that should be a frame and are not.
    Damage {
        /// Where they begin.
        at: u64,
        /// How many there are.
        len: u64,
    },
    /// The end.
    End,
}

/// A walk through all frames of a segment up to a place.
#[derive(Debug)]
pub(super) struct Walk {
    at: u64,
    limit: u64,
    /// Whether the segment is known to reach the limit.
    sure: bool,
    generation: u64,
    /// A sound frame further on, found while looking for the end of damage.
    ahead: Option<Sound>,
    /// Whether a batch has begun and its end was not seen.
    inside: bool,
}

impl Walk {
    /// A walk up to `end`, or through all `len` octets if it is not known where the frames end.
    pub(super) fn new(len: u64, generation: u64, end: Option<u64>) -> Self {
        let limit = end.unwrap_or(len);
        Self { at: FIRST, limit, sure: end.is_some(), generation, ahead: None, inside: false }
    }

    pub(super) fn next(&mut self, window: &mut Window) -> io::Result<Step> {
        if let Some(frame) = self.ahead.take() {
            return Ok(self.pass(frame));
        }
        if self.at >= self.limit {
            return Ok(Step::End);
        }
        if let Some(frame) = window.frame(self.at, self.generation)? {
            return Ok(self.pass(frame));
        }
        let at = self.at;
        let next = window.search(at, self.limit.min(window.len()), self.generation)?;
        self.ahead = next;
        match next {
            Some(frame) => Ok(Step::Damage { at, len: frame.at - at }),
            None => {
                self.at = self.limit;
                let len = self.limit.min(window.len()).saturating_sub(at).min(BLOCK);
                let broken = self.inside || self.sure;
                Ok(if broken { Step::Damage { at, len } } else { Step::End })
            }
        }
    }

    fn pass(&mut self, frame: Sound) -> Step {
        self.inside = frame.header.flags & BATCH_END == 0;
        self.at = frame.end();
        Step::Frame(frame)
    }
}
