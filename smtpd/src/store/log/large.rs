//! Large bodies: a file of its own for each, written while the body arrives.
//!
//! The file holds the content and nothing else, so that it can be read without Mailroot. Its
//! checksums, one for each block of 64 KiB, are kept in the message's record. The file is synced
//! and its name made durable before the record is written; it is unlinked after the message's
//! removal is durable. A file that no record names is removed at start. A file that is not there,
//! or shorter than its record says, is damage like a wrong checksum: no later attempt finds it whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::super::{CommitError, ReadError};
use super::Log;
use super::record::{read_u32, read_u64};
use crate::disk::{File, Open};
use mailroot_common::id::QueueId;

const BLOCK: usize = 64 << 10;
/// What is written and read at once.
const PIECE: usize = 4 * BLOCK;
const PREFIX: &str = "body-";

/// The number in a file name of a large body; nothing for other files.
pub(super) fn number_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok()
}

/// The number of the first large body of a life of the store.
///
/// No number is ever given twice, although the file that had the highest one may be gone: records
/// of messages long removed still name theirs, and reading them must not unlink the file of a
/// message that came since. `uses` is the number of the life's first header, the upper half of its
/// generation: it rises from life to life, so each has numbers of its own. The lower half is drawn
/// by lot and would not do.
pub(super) fn first_number(uses: u64, highest_file: u64) -> u64 {
    (uses << 32).max(highest_file.saturating_add(1))
}

pub(super) fn path(log: &Log, number: u64) -> PathBuf {
    log.settings.directory.join(format!("{PREFIX}{number:016x}"))
}

/// The number in the list of checksums of a record.
pub(super) fn number_in(list: &[u8]) -> Option<u64> {
    (list.len() >= 8).then(|| read_u64(list, 0))
}

/// A file of a large body. Dropped before a record names it, it is unlinked.
#[derive(Debug)]
pub(in super::super) struct Owned {
    log: Arc<Log>,
    number: u64,
    kept: bool,
}

impl Owned {
    fn path(&self) -> PathBuf {
        path(&self.log, self.number)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A record names the file: it stays.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.kept {
            // If this fails the next start finds the file, which no record names.
            self.log.disk.unlink(&self.path()).unwrap_or_default();
        }
    }
}

/// A large body as it arrives.
#[derive(Debug)]
pub(in super::super) struct Writer {
    owned: Owned,
    file: Arc<File>,
    piece: Vec<u8>,
    at: u64,
    checksums: Vec<u8>,
}

impl Writer {
    pub(in super::super) async fn begin(log: Arc<Log>) -> Result<Self, CommitError> {
        let number = log.new_large_number();
        let path = path(&log, number);
        let opened = blocking({
            let path = path.clone();
            // Owned from the moment it is there, and not before: a file found is somebody else's.
            move || {
                let file = log.disk.open(&path, Open::CreateNew)?;
                Ok((file, Owned { log, number, kept: false }))
            }
        });
        let (file, owned) = opened.await.map_err(|error| CommitError::from_io(&path, error))?;
        let checksums = number.to_le_bytes().to_vec();
        let piece = Vec::with_capacity(PIECE);
        Ok(Self { owned, file: Arc::new(file), piece, at: 0, checksums })
    }

    pub(in super::super) async fn append(&mut self, octets: &[u8]) -> Result<(), CommitError> {
        let mut rest = octets;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(now);
            rest = later;
            if self.piece.len() == PIECE {
                self.write().await?;
            }
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), CommitError> {
        let (file, piece, at) = (Arc::clone(&self.file), std::mem::take(&mut self.piece), self.at);
        self.at += piece.len() as u64;
        let written = blocking(move || {
            let sums: Vec<u8> =
                piece.chunks(BLOCK).flat_map(|block| crc32c::crc32c(block).to_le_bytes()).collect();
            file.write_all_at(&piece, at).map(|()| (piece, sums))
        });
        let (mut piece, sums) = written.await.map_err(|error| self.trouble(error))?;
        piece.clear();
        self.piece = piece;
        self.checksums.extend_from_slice(&sums);
        Ok(())
    }

    /// Puts octets in the place of the first ones, all of which are within one block.
    pub(in super::super) async fn begin_with(&mut self, octets: &[u8]) -> Result<(), CommitError> {
        if self.at == 0 {
            self.piece[..octets.len()].copy_from_slice(octets);
            return Ok(());
        }
        let length = usize::try_from(self.at).map_or(BLOCK, |written| written.min(BLOCK));
        let (file, octets) = (Arc::clone(&self.file), octets.to_vec());
        let written = blocking(move || {
            let mut block = vec![0; length];
            file.read_exact_at(&mut block, 0)?;
            block[..octets.len()].copy_from_slice(&octets);
            file.write_all_at(&octets, 0)?;
            Ok(crc32c::crc32c(&block))
        });
        let sum = written.await.map_err(|error| self.trouble(error))?;
        self.checksums[8..12].copy_from_slice(&sum.to_le_bytes());
        Ok(())
    }

    fn trouble(&self, error: io::Error) -> CommitError {
        CommitError::from_io(&self.owned.path(), error)
    }

    pub(in super::super) async fn finish(mut self) -> Result<Finished, CommitError> {
        if !self.piece.is_empty() {
            self.write().await?;
        }
        let (file, log) = (Arc::clone(&self.file), Arc::clone(&self.owned.log));
        let synced = blocking(move || {
            file.sync_all()?;
            log.disk.sync_dir(&log.settings.directory)
        });
        synced.await.map_err(|error| self.trouble(error))?;
        Ok(Finished { owned: self.owned, size: self.at, checksums: self.checksums })
    }
}

/// A large body that is durable, but that no record names yet.
#[derive(Debug)]
pub(in super::super) struct Finished {
    pub(super) owned: Owned,
    pub(in super::super) size: u64,
    /// The number of the file and one CRC-32C for each block.
    pub(in super::super) checksums: Vec<u8>,
}

impl Finished {
    /// Reads it before a record names it.
    pub(in super::super) async fn reader(&self, id: QueueId) -> io::Result<Reader> {
        let (log, checksums, size) =
            (Arc::clone(&self.owned.log), self.checksums.clone(), self.size);
        blocking(move || Reader::open(&log, id, checksums, size).map_err(Into::into)).await
    }

    pub(super) fn keep(&mut self) -> u64 {
        self.owned.keep();
        self.owned.number()
    }
}

/// Reads a large body piece by piece, each compared with its checksums before it is handed out.
#[derive(Debug)]
pub(in super::super) struct Reader {
    id: QueueId,
    path: PathBuf,
    file: Arc<File>,
    checksums: Arc<Vec<u8>>,
    size: u64,
    at: u64,
    piece: Vec<u8>,
}

impl Reader {
    /// Opens the file that a record's list of checksums names. Blocks.
    pub(super) fn open(
        log: &Log,
        id: QueueId,
        checksums: Vec<u8>,
        size: u64,
    ) -> Result<Self, ReadError> {
        let damaged = || ReadError::Damaged { id, what: "its list of checksums" };
        let number = number_in(&checksums).ok_or_else(damaged)?;
        if (checksums.len() as u64 - 8) / 4 != size.div_ceil(BLOCK as u64) {
            return Err(damaged());
        }
        let path = path(log, number);
        let opened = log.disk.open(&path, Open::Read);
        let file = opened.map_err(|source| trouble(id, &path, source))?;
        let (file, checksums) = (Arc::new(file), Arc::new(checksums));
        Ok(Self { id, path, file, checksums, size, at: 0, piece: Vec::new() })
    }

    pub(in super::super) async fn next(&mut self) -> Result<Option<&[u8]>, ReadError> {
        if self.at >= self.size {
            return Ok(None);
        }
        let len = usize::try_from(self.size - self.at).map_or(PIECE, |rest| rest.min(PIECE));
        let first = usize::try_from(self.at).unwrap_or(usize::MAX) / BLOCK;
        let (file, sums, at) = (Arc::clone(&self.file), Arc::clone(&self.checksums), self.at);
        let mut piece = std::mem::take(&mut self.piece);
        let read = blocking(move || {
            piece.resize(len, 0);
            file.read_exact_at(&mut piece, at)?;
            let sound = piece.chunks(BLOCK).enumerate().all(|(place, block)| {
                crc32c::crc32c(block) == read_u32(&sums, 8 + 4 * (first + place))
            });
            Ok((piece, sound))
        });
        let (piece, sound) = read.await.map_err(|source| trouble(self.id, &self.path, source))?;
        if !sound {
            return Err(ReadError::Damaged { id: self.id, what: "its content" });
        }
        self.at += len as u64;
        self.piece = piece;
        Ok(Some(&self.piece))
    }
}

/// Tells a file that is not what it was from a disk that refuses for now.
fn trouble(id: QueueId, path: &Path, source: io::Error) -> ReadError {
    let what = match source.kind() {
        io::ErrorKind::NotFound => "the file of its body is missing",
        io::ErrorKind::UnexpectedEof => "the file of its body was cut short",
        _ => return ReadError::Read { path: path.to_owned(), source: Arc::new(source) },
    };
    ReadError::Damaged { id, what }
}

/// Does something with the disk where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::super::super::conformance::{draft, envelope, id, settings, start, surroundings};
    use super::super::super::{Body, Change, Draft, LargeBodyWriter, Settings};
    use super::super::Opened;
    use super::super::commit::{NewMessage, Task};
    use super::super::faults::{HOME, Machine, lease_all};
    use super::super::keeper::Kept;
    use super::*;
    use crate::disk::{Disk, Modelled};

    fn open(model: &Arc<Modelled>) -> Arc<Log> {
        let settings: Settings = settings(Path::new("/spool/Queue"));
        Log::open(Disk::Modelled(Arc::clone(model)), settings, surroundings()).unwrap()
    }

    /// The log has no threads here: new mail can come before any old record was read.
    async fn accept(log: &Arc<Log>, number: u64, body: &[u8]) {
        let (committing, draft) = (Arc::clone(log), draft(&["a@x.example"], start(), body));
        let commit = tokio::spawn(async move { committing.commit(id(number), draft).await });
        while !commit.is_finished() {
            log.commit_step();
            tokio::task::yield_now().await;
        }
        commit.await.unwrap().unwrap();
    }

    fn keep(log: &Log) {
        while log.keep_step() != Kept::Idle {}
    }

    #[tokio::test]
    async fn reading_an_old_removal_leaves_the_large_body_of_a_new_message() {
        let model = Arc::new(Modelled::new(1));
        let body = vec![b'n'; 100_000];
        let log = open(&model);
        accept(&log, 1, &[b'o'; 100_000]).await;
        let removal = Task::Change { id: id(1), change: Change::Remove, pinned: false };
        let _answer = log.gather.submit(removal).unwrap();
        log.commit_step();
        keep(&log);
        drop(log);
        model.kill();

        let log = open(&model);
        accept(&log, 2, &body).await;
        keep(&log);

        let Opened::Large(mut reader) = log.open_body(id(2)).unwrap() else {
            panic!("the body is in a file");
        };
        let mut found = Vec::new();
        while let Some(piece) = reader.next().await.unwrap() {
            found.extend_from_slice(piece);
        }
        assert!(found == body, "it is the body that was accepted");
    }

    #[tokio::test]
    async fn a_message_whose_large_body_was_cut_or_taken_away_is_held_and_the_others_go() {
        let machine = Machine::new();
        let log = machine.open();
        for number in 1..=4 {
            let mut writer = LargeBodyWriter::file(Arc::clone(&log)).await.unwrap();
            writer.append(&[b'x'; 300_000]).await.unwrap();
            let body = Body::File(writer.finish().await.unwrap());
            let draft = Draft { envelope: envelope(&["a@x.example"], start()), body };
            let past = log.clock.past();
            let message = NewMessage::new(id(number), draft, &past, log.table.load_full()).unwrap();
            let mut answer = log.gather.submit(Task::Accept(message)).unwrap();
            log.commit_step();
            answer.try_recv().unwrap().unwrap();
        }
        let mut bodies = machine.disk.list(Path::new(HOME)).unwrap();
        bodies.retain(|name| name.to_string_lossy().starts_with("body-"));
        bodies.sort();
        let path = |number: usize| Path::new(HOME).join(&bodies[number - 1]);
        machine.disk.unlink(&path(1)).unwrap();
        for (number, len) in [(2, 0), (3, 299_999)] {
            machine.disk.open(&path(number), Open::Write).unwrap().set_len(len).unwrap();
        }
        let log = machine.restart(log);
        let leases = lease_all(&log);
        assert_eq!(leases.len(), 4);
        for lease in &leases[..3] {
            let error = lease.open().read_all().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        assert_eq!(leases[3].open().read_all().await.unwrap(), [b'x'; 300_000]);
        drop(leases);
        log.commit_step();
        assert_eq!((log.counts().held, log.counts().damaged), (3, 3));
        assert_eq!(lease_all(&log).len(), 1, "what is held does not come up again");
        for (number, words) in [(1, "is missing"), (2, "was cut short"), (3, "was cut short")] {
            let held = log.show_now(id(number)).unwrap().unwrap();
            assert!(held.reason().unwrap().contains(words), "{:?}", held.reason());
        }
    }
}
