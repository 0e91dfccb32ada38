//! Counts what a server's log says, while it is being written.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use memchr::memmem;
use tokio::time::sleep;

use crate::Outcome;

/// A log and the words that are counted in it.
pub(crate) struct Watch {
    path: PathBuf,
    words: &'static str,
    /// How many messages one line stands for.
    messages: u64,
    file: Option<File>,
    /// The end of what was read, in which the words may have been cut in two.
    rest: Vec<u8>,
    count: u64,
}

impl Watch {
    pub(crate) fn new(path: PathBuf, words: &'static str, messages: u64) -> Self {
        Self { path, words, messages, file: None, rest: Vec::new(), count: 0 }
    }

    /// How many messages the log tells of so far.
    pub(crate) fn look(&mut self) -> Outcome<u64> {
        let file = match &mut self.file {
            Some(file) => file,
            None => match File::open(&self.path) {
                Ok(file) => self.file.insert(file),
                // Nothing was logged yet.
                Err(_) => return Ok(0),
            },
        };
        let mut piece = vec![0; 1 << 18];
        loop {
            let length = file.read(&mut piece)?;
            if length == 0 {
                return Ok(self.count * self.messages);
            }
            self.rest.extend_from_slice(piece.get(..length).unwrap_or_default());
            let words = self.words.as_bytes();
            let mut seen = 0;
            for place in memmem::find_iter(&self.rest, words) {
                self.count += 1;
                seen = place + words.len();
            }
            let kept = (words.len() - 1).min(self.rest.len() - seen);
            self.rest.drain(..self.rest.len() - kept);
        }
    }

    /// Waits until the log tells of `count` messages.
    pub(crate) async fn until(&mut self, count: u64, patience: Duration) -> Outcome<()> {
        let begun = Instant::now();
        loop {
            let seen = self.look()?;
            if seen >= count {
                return Ok(());
            }
            if begun.elapsed() > patience {
                let path = self.path.display();
                return Err(format!("{path} tells of {seen} messages, not {count}").into());
            }
            sleep(Duration::from_millis(3)).await;
        }
    }
}
