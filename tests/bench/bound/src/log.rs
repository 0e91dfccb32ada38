//! Group commit: one thread writes and syncs what has gathered while it was syncing before.
//!
//! The file is written full of zeros first, so that a sync has data to write and nothing else: no
//! length, no block list. When it is full, writing begins again at its start.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::oneshot;

const FILE_OCTETS: u64 = 256 << 20;
/// A batch begins on a page of its own, so that no page is written twice.
const PAGE_OCTETS: u64 = 4096;

#[derive(Default)]
struct Batch {
    octets: Vec<u8>,
    senders: Vec<oneshot::Sender<()>>,
}

#[derive(Default)]
struct Gathering {
    batch: Mutex<Batch>,
    filled: Condvar,
}

/// The file all messages go to.
pub(crate) struct Log {
    gathering: Arc<Gathering>,
}

impl Log {
    /// Makes the file and starts its thread.
    pub(crate) fn create(path: &str) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        for place in (0..FILE_OCTETS).step_by(zeros.len()) {
            file.write_all_at(&zeros, place)?;
        }
        file.sync_all()?;
        let gathering = Arc::new(Gathering::default());
        let shared = Arc::clone(&gathering);
        std::thread::Builder::new().name("committer".into()).spawn(move || {
            if let Err(error) = commit_batches(&shared, &file) {
                // No sender hears 250 any more: its channel is closed with the batch.
                eprintln!("bound: the log cannot be written: {error}");
            }
        })?;
        Ok(Self { gathering })
    }

    /// Returns whether `message` is durable, once that is known.
    pub(crate) async fn commit(&self, message: &[u8]) -> bool {
        let (sender, synced) = oneshot::channel();
        {
            let mut batch = self.gathering.batch.lock().unwrap_or_else(PoisonError::into_inner);
            let length = message.len() as u64;
            batch.octets.extend_from_slice(&length.to_le_bytes());
            batch.octets.extend_from_slice(&crc32c::crc32c(message).to_le_bytes());
            batch.octets.extend_from_slice(message);
            batch.senders.push(sender);
        }
        self.gathering.filled.notify_one();
        synced.await.is_ok()
    }
}

fn commit_batches(gathering: &Gathering, file: &File) -> io::Result<()> {
    let mut place = 0;
    let mut batch = Batch::default();
    loop {
        {
            let mut filling = gathering.batch.lock().unwrap_or_else(PoisonError::into_inner);
            while filling.senders.is_empty() {
                filling = gathering.filled.wait(filling).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut *filling, &mut batch);
        }
        let length = batch.octets.len() as u64;
        if place + length > FILE_OCTETS {
            place = 0;
        }
        file.write_all_at(&batch.octets, place)?;
        file.sync_data()?;
        place = (place + length).next_multiple_of(PAGE_OCTETS);
        batch.octets.clear();
        for sender in batch.senders.drain(..) {
            // A client that hung up meanwhile needs no answer.
            let _ = sender.send(());
        }
    }
}
