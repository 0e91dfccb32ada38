//! The form of records on disk.
//!
//! A frame is a header of 64 octets, the *meta* (JSON: envelope or state) and the *body* (message
//! content, or for a large body the list of its checksums), padded to 8 octets. All numbers are
//! little-endian:
//!
//! | at | octets | what |
//! |---|---|---|
//! | 0 | 4 | magic `MRr1` |
//! | 4 | 1 | kind: 1 message, 2 state, 3 removed |
//! | 5 | 1 | flags: 1 end of batch, 2 body in a file of its own, 4 body found damaged |
//! | 8 | 4 | octets of meta |
//! | 12 | 4 | octets of body |
//! | 16 | 8 | generation of the segment |
//! | 24 | 8 | number of the batch |
//! | 32 | 8 | id of the message |
//! | 40 | 4 | version of the message |
//! | 44 | 4 | CRC-32C of body, generation, id |
//! | 48 | 8 | octets of the content, also when it is in a file |
//! | 56 | 4 | where the frame begins in its batch |
//! | 60 | 4 | CRC-32C of meta and the 60 octets before |
//!
//! Both checksums cover the generation, so a record left over from an earlier use of the segment
//! never passes for one of this use. They are built so that whoever hands a record in sums up meta
//! and body; the committer only appends what it alone knows, in time that does not grow with them.

use mailroot_common::id::QueueId;

/// Octets of a frame before its meta.
pub(super) const HEADER: usize = 64;
/// Batches begin at multiples of this, so that a synced sector is never written again.
pub(super) const BLOCK: u64 = PAGE as u64;
/// The same as a length in memory.
pub(super) const PAGE: usize = 4096;
pub(super) const MAGIC: [u8; 4] = *b"MRr1";

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message: envelope and content.
    Message,
    /// Where all recipients of a message stand; replaces every lower version.
    State,
    /// The end of a message.
    Removed,
}

/// The last record of its batch.
pub(super) const BATCH_END: u8 = 1;
/// The content is in a file of its own; the record's body says which and lists its checksums.
pub(super) const IN_FILE: u8 = 2;
/// The content was found damaged when the record was copied; it can never be read.
pub(super) const DAMAGED: u8 = 4;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) meta_len: u32,
    pub(super) body_len: u32,
    pub(super) generation: u64,
    pub(super) batch: u64,
    pub(super) id: QueueId,
    pub(super) version: u32,
    pub(super) body_crc: u32,
    pub(super) size: u64,
    /// Where the frame begins in its batch; so a batch that lost its beginning is recognised.
    pub(super) in_batch: u32,
}

impl Header {
    /// Octets of the whole frame.
    pub(super) const fn frame_len(&self) -> u64 {
        frame_len(self.meta_len as u64, self.body_len as u64)
    }

    /// Where the body begins, from the frame's start.
    pub(super) const fn body_at(&self) -> u64 {
        HEADER as u64 + self.meta_len as u64
    }

    /// Whether this is the body the record was written with.
    pub(super) fn body_matches(&self, body: &[u8]) -> bool {
        self.flags & DAMAGED == 0
            && body.len() == self.body_len as usize
            && finish_body_crc(crc32c::crc32c(body), self.generation, self.id) == self.body_crc
    }

    fn write(&self, meta_crc: u32, into: &mut [u8]) {
        let kind = match self.kind {
            Kind::Message => 1,
            Kind::State => 2,
            Kind::Removed => 3,
        };
        into[0..4].copy_from_slice(&MAGIC);
        into[4..8].copy_from_slice(&[kind, self.flags, 0, 0]);
        into[8..12].copy_from_slice(&self.meta_len.to_le_bytes());
        into[12..16].copy_from_slice(&self.body_len.to_le_bytes());
        into[16..24].copy_from_slice(&self.generation.to_le_bytes());
        into[24..32].copy_from_slice(&self.batch.to_le_bytes());
        into[32..40].copy_from_slice(&self.id.as_u64().to_le_bytes());
        into[40..44].copy_from_slice(&self.version.to_le_bytes());
        into[44..48].copy_from_slice(&self.body_crc.to_le_bytes());
        into[48..56].copy_from_slice(&self.size.to_le_bytes());
        into[56..60].copy_from_slice(&self.in_batch.to_le_bytes());
        let crc = crc32c::crc32c_append(meta_crc, &into[..60]);
        into[60..64].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the fields of a header, unless they cannot be one's. Nothing is verified yet.
    pub(super) fn read(octets: &[u8]) -> Option<Self> {
        let octets = octets.get(..HEADER)?;
        if octets[0..4] != MAGIC || octets[6..8] != [0, 0] {
            return None;
        }
        let kind = match octets[4] {
            1 => Kind::Message,
            2 => Kind::State,
            3 => Kind::Removed,
            _ => return None,
        };
        Some(Self {
            kind,
            flags: octets[5],
            meta_len: read_u32(octets, 8),
            body_len: read_u32(octets, 12),
            generation: read_u64(octets, 16),
            batch: read_u64(octets, 24),
            id: QueueId::from_u64(read_u64(octets, 32)),
            version: read_u32(octets, 40),
            body_crc: read_u32(octets, 44),
            size: read_u64(octets, 48),
            in_batch: read_u32(octets, 56),
        })
    }
}

/// Whether header and meta are what was written. `octets` begins with both.
pub(super) fn is_whole(octets: &[u8], header: &Header) -> bool {
    let Some(meta) = octets.get(HEADER..HEADER + header.meta_len as usize) else { return false };
    let crc = crc32c::crc32c_append(crc32c::crc32c(meta), &octets[..60]);
    crc == read_u32(octets, 60)
}

pub(super) const fn frame_len(meta_len: u64, body_len: u64) -> u64 {
    (HEADER as u64 + meta_len + body_len).next_multiple_of(8)
}

fn finish_body_crc(crc: u32, generation: u64, id: QueueId) -> u32 {
    let crc = crc32c::crc32c_append(crc, &generation.to_le_bytes());
    crc32c::crc32c_append(crc, &id.as_u64().to_le_bytes())
}

pub(super) fn read_u32(octets: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(octets[at..at + 4].try_into().expect("four octets were cut out"))
}

pub(super) fn read_u64(octets: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(octets[at..at + 8].try_into().expect("eight octets were cut out"))
}

/// A part of a record together with its checksum, which is the expensive part of writing it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) octets: &'a [u8],
    pub(super) crc: u32,
}

impl<'a> Part<'a> {
    pub(super) const EMPTY: Part<'static> = Part { octets: &[], crc: 0 };

    pub(super) fn new(octets: &'a [u8]) -> Self {
        Self { octets, crc: crc32c::crc32c(octets) }
    }
}

/// What identifies a record besides its parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) id: QueueId,
    pub(super) version: u32,
    pub(super) size: u64,
}

/// Records on their way into one write.
#[derive(Debug, Default)]
pub(super) struct Batch {
    octets: Vec<u8>,
    frames: Vec<Frame>,
}

#[derive(Debug)]
struct Frame {
    at: usize,
    header: Header,
    meta_crc: u32,
    body_crc: u32,
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.octets.clear();
        self.frames.clear();
        // One huge batch must not pin its memory for ever.
        self.octets.shrink_to(8 << 20);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Octets the batch takes on disk.
    pub(super) const fn len(&self) -> u64 {
        (self.octets.len() as u64).next_multiple_of(BLOCK)
    }

    /// Adds a record; returns where its frame begins in the batch and its length.
    pub(super) fn push(&mut self, label: Label, meta: Part, body: Part) -> (u64, u64) {
        let at = self.octets.len();
        let header = Header {
            kind: label.kind,
            flags: label.flags & !BATCH_END,
            meta_len: u32::try_from(meta.octets.len()).expect("a record fits into a segment"),
            body_len: u32::try_from(body.octets.len()).expect("a record fits into a segment"),
            generation: 0,
            batch: 0,
            id: label.id,
            version: label.version,
            body_crc: 0,
            size: label.size,
            in_batch: u32::try_from(at).expect("a batch fits into a segment"),
        };
        self.octets.resize(at + HEADER, 0);
        self.octets.extend_from_slice(meta.octets);
        self.octets.extend_from_slice(body.octets);
        self.octets.resize(self.octets.len().next_multiple_of(8), 0);
        self.frames.push(Frame { at, header, meta_crc: meta.crc, body_crc: body.crc });
        (at as u64, (self.octets.len() - at) as u64)
    }

    /// Fills in what was not known before: where the batch goes and what number it has. Returns
    /// the octets to write. May be called again with other values.
    pub(super) fn stamp(&mut self, generation: u64, batch: u64) -> &[u8] {
        let whole = self.octets.len().next_multiple_of(PAGE);
        self.octets.resize(whole, 0);
        let last = self.frames.len().saturating_sub(1);
        for (place, frame) in self.frames.iter_mut().enumerate() {
            let header = &mut frame.header;
            header.generation = generation;
            header.batch = batch;
            header.flags =
                if place == last { header.flags | BATCH_END } else { header.flags & !BATCH_END };
            header.body_crc = finish_body_crc(frame.body_crc, generation, header.id);
            header.write(frame.meta_crc, &mut self.octets[frame.at..frame.at + HEADER]);
        }
        &self.octets
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label(kind: Kind) -> Label {
        Label { kind, flags: 0, id: QueueId::from_u64(77), version: 3, size: 5 }
    }

    fn written(meta: &[u8], body: &[u8]) -> Vec<u8> {
        let mut batch = Batch::default();
        batch.push(label(Kind::Message), Part::new(meta), Part::new(body));
        batch.push(label(Kind::Removed), Part::EMPTY, Part::EMPTY);
        batch.stamp(9, 4).to_vec()
    }

    /// What a reader makes of the first frame, if it believes it.
    fn believed(octets: &[u8], generation: u64) -> Option<(Header, Vec<u8>, Vec<u8>)> {
        let header = Header::read(octets)?;
        if header.generation != generation || !is_whole(octets, &header) {
            return None;
        }
        let begin = usize::try_from(header.body_at()).unwrap();
        let body = octets.get(begin..begin + header.body_len as usize)?;
        let meta = octets[HEADER..begin].to_vec();
        header.body_matches(body).then(|| (header, meta, body.to_vec()))
    }

    #[test]
    fn a_batch_marks_its_end_and_fills_whole_blocks() {
        let octets = written(b"{}", b"hello");
        assert_eq!(octets.len() as u64, BLOCK);
        let (first, meta, body) = believed(&octets, 9).unwrap();
        assert_eq!((meta.as_slice(), body.as_slice()), (&b"{}"[..], &b"hello"[..]));
        assert_eq!((first.flags & BATCH_END, first.batch, first.version), (0, 4, 3));
        let next = usize::try_from(first.frame_len()).unwrap();
        let (second, ..) = believed(&octets[next..], 9).unwrap();
        assert_eq!((second.kind, second.flags), (Kind::Removed, BATCH_END));
    }

    #[test]
    fn a_record_of_another_generation_is_not_believed_even_if_its_number_is_forged() {
        let mut octets = written(b"{}", b"hello");
        assert!(believed(&octets, 8).is_none());
        octets[16] = 8;
        assert!(believed(&octets, 8).is_none());
    }

    #[test]
    fn stamping_again_replaces_the_first_stamp() {
        let mut batch = Batch::default();
        batch.push(label(Kind::State), Part::new(b"{\"r\":[]}"), Part::EMPTY);
        batch.stamp(1, 1);
        let octets = batch.stamp(2, 5).to_vec();
        assert_eq!(believed(&octets, 2).unwrap().0.batch, 5);
    }

    proptest! {
        #[test]
        fn flipped_bits_never_make_another_record(
            meta in prop::collection::vec(any::<u8>(), 0..200),
            body in prop::collection::vec(any::<u8>(), 0..600),
            flips in prop::collection::vec((0_usize..800, 0_u8..8), 1..4),
        ) {
            let octets = written(&meta, &body);
            let whole = believed(&octets, 9).unwrap();
            let mut broken = octets;
            for (at, bit) in flips {
                broken[at] ^= 1 << bit;
            }
            if let Some(found) = believed(&broken, 9) {
                prop_assert!(found == whole);
            }
        }

        #[test]
        fn any_octets_are_read_without_a_panic(
            octets in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut octets = octets;
            if octets.len() >= 4 {
                octets[..4].copy_from_slice(&MAGIC);
            }
            prop_assert!(believed(&octets, 9).is_none());
        }
    }
}
