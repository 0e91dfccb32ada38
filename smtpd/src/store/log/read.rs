//! Reads records back: envelopes, states and bodies of single messages.

use std::io;
use std::sync::Arc;

use mailroot_common::id::QueueId;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::recipient::MessageState;

use super::super::ReadError;
use super::active::Active;
use super::index::{Index, Place};
use super::record::{HEADER, Header, IN_FILE, Kind, is_whole};
use super::segment::SegmentFile;

/// Bodies up to this size are read together with their envelope.
const WITH_BODY_MAX: u64 = 64 << 10;

/// Where a message is, with its segments held so that they are not recycled meanwhile.
#[derive(Debug)]
pub(super) struct Location {
    pub(super) id: QueueId,
    pub(super) version: u32,
    record: (Place, Arc<SegmentFile>),
    state: Option<(Place, Arc<SegmentFile>)>,
}

/// A message as it was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) version: u32,
    pub(super) active: Active,
}

impl Location {
    pub(super) fn of(index: &Index, id: QueueId) -> Option<Self> {
        let slot = index.get(id)?;
        let hold = |place: Place| {
            let segment = index.segments.get(place.segment)?;
            Some((place, Arc::clone(&segment.file)))
        };
        Some(Self {
            id,
            version: slot.version,
            record: hold(slot.record)?,
            state: if slot.state.is_somewhere() { Some(hold(slot.state)?) } else { None },
        })
    }

    /// Reads envelope, state and a small body.
    pub(super) fn load(&self) -> Result<Loaded, ReadError> {
        self.load_parts(self.record.0.len() <= WITH_BODY_MAX)
    }

    /// Reads envelope and state.
    pub(super) fn load_without_body(&self) -> Result<Loaded, ReadError> {
        self.load_parts(false)
    }

    fn load_parts(&self, with_body: bool) -> Result<Loaded, ReadError> {
        let (place, file) = &self.record;
        let (header, mut octets) = self.frame(*place, file, Kind::Message, with_body)?;
        let body_at = index_of(header.body_at());
        let envelope: Envelope = serde_json::from_slice(&octets[HEADER..body_at])
            .map_err(|_| self.damaged("its envelope"))?;
        let body = if with_body && header.flags & IN_FILE == 0 {
            let end = body_at + header.body_len as usize;
            octets.truncate(end);
            octets.drain(..body_at);
            header.body_matches(&octets).then(|| Arc::new(octets))
        } else {
            None
        };
        let state = match &self.state {
            None => MessageState::fresh(&envelope),
            Some((place, file)) => {
                let (header, octets) = self.frame(*place, file, Kind::State, true)?;
                let meta = &octets[HEADER..index_of(header.body_at())];
                serde_json::from_slice(meta).map_err(|_| self.damaged("its state"))?
            }
        };
        if state.recipients.len() != envelope.recipients.len() {
            return Err(self.damaged("its state"));
        }
        Ok(Loaded { version: self.version, active: Active::new(Arc::new(envelope), state, body) })
    }

    /// Reads the body of the record: the content, or for a large one the list of checksums.
    pub(super) fn body(&self) -> Result<(Header, Vec<u8>), ReadError> {
        let (place, file) = &self.record;
        let (header, mut octets) = self.frame(*place, file, Kind::Message, true)?;
        let begin = index_of(header.body_at());
        octets.truncate(begin + header.body_len as usize);
        octets.drain(..begin);
        if !header.body_matches(&octets) {
            return Err(self.damaged("its content"));
        }
        Ok((header, octets))
    }

    /// Reads a frame whole, or only its header and meta.
    fn frame(
        &self,
        place: Place,
        file: &SegmentFile,
        kind: Kind,
        whole: bool,
    ) -> Result<(Header, Vec<u8>), ReadError> {
        let trouble = |source: io::Error| ReadError::Read {
            path: file.path.clone(),
            source: Arc::new(source),
        };
        let guess = if whole { place.len() } else { place.len().min(4096) };
        let mut octets = vec![0; index_of(guess)];
        file.file.read_exact_at(&mut octets, place.at()).map_err(trouble)?;
        let header = Header::read(&octets).ok_or_else(|| self.damaged("its record"))?;
        let front = index_of(header.body_at());
        if front > octets.len() {
            if front as u64 > place.len() {
                return Err(self.damaged("its record"));
            }
            octets.resize(front, 0);
            file.file.read_exact_at(&mut octets, place.at()).map_err(trouble)?;
        }
        let sound = header.id == self.id
            && header.kind == kind
            && header.frame_len() == place.len()
            && is_whole(&octets, &header);
        if sound { Ok((header, octets)) } else { Err(self.damaged("its record")) }
    }

    const fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { id: self.id, what }
    }
}

/// A place within a record; records are far smaller than memory.
fn index_of(octets: u64) -> usize {
    usize::try_from(octets).expect("a record fits into memory")
}
