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
    /// Multiplies every number of messages.
    pub(crate) share: f64,
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
            share: 1.0,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--full" => options.full = true,
                "--rates-only" => options.rates_only = true,
                "--markdown" => options.markdown = true,
                "--rounds" => options.rounds = value()?.parse::<usize>()?.clamp(1, 100),
                "--rows" => options.rows = value()?,
                "--share" => options.share = value()?.parse::<f64>()?.clamp(0.001, 100.0),
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
        let hundreds = (count as f64 * self.share / 100.0).round().max(1.0);
        // Whole hundreds, because the bound tells of no other numbers.
        hundreds as u64 * 100
    }
}
