//! The command line.

use std::path::PathBuf;

use crate::Outcome;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The measurement: `run` or one of the scale commands.
    pub(crate) command: String,
    /// Every size and number of sessions.
    pub(crate) full: bool,
    /// How often each row is measured.
    pub(crate) rounds: usize,
    /// Only rows whose name holds this.
    pub(crate) rows: String,
    /// Rates only.
    pub(crate) rates_only: bool,
    /// Tables in Markdown.
    pub(crate) markdown: bool,
    /// How long each sync is made to take, and the library that does it.
    pub(crate) slow_disk: Option<(u64, PathBuf)>,
    /// Where the servers keep their mail; on the disk that is to be measured.
    pub(crate) directory: PathBuf,
    /// How many messages are sent, of the usual number.
    pub(crate) percent: u64,
}

impl Options {
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut options = Self {
            command: words.next().ok_or("which measurement?")?,
            full: false,
            rounds: 3,
            rows: String::new(),
            rates_only: false,
            markdown: false,
            slow_disk: None,
            directory: PathBuf::from("/var/tmp"),
            percent: 100,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--full" => options.full = true,
                "--rates-only" => options.rates_only = true,
                "--markdown" => options.markdown = true,
                "--rounds" => options.rounds = value()?.parse::<usize>()?.clamp(1, 100),
                "--rows" => options.rows = value()?,
                "--percent" => options.percent = value()?.parse::<u64>()?.clamp(1, 10_000),
                "--directory" => options.directory = value()?.into(),
                "--slow-disk" => {
                    let delay = value()?.parse()?;
                    let library = std::env::var_os("SLOW_DISK").ok_or("SLOW_DISK is not set")?;
                    options.slow_disk = Some((delay, library.into()));
                }
                _ => return Err(format!("{word} is no option").into()),
            }
        }
        Ok(options)
    }

    /// A number of messages, as it was asked for.
    pub(crate) fn messages(&self, count: u64) -> u64 {
        // Whole hundreds, because the bound tells of no other numbers.
        (count * self.percent / 10_000).max(1) * 100
    }
}
