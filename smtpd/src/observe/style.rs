//! How log lines are written, where, and which.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use mailroot_common::config::logging::{self, Logging};
use mailroot_common::net::Network;
use mailroot_common::units::Timestamp;

use super::line::{Format, Level};
use super::mask::Mask;

/// Where lines are written.
#[derive(Clone, Debug)]
pub enum Sink {
    /// Standard output; under systemd each line begins with its severity, as the journal wants it.
    Stdout {
        /// Whether standard output is the journal.
        journal: bool,
    },
    /// A file, appended to; opened again by [`Log::reopen`].
    File(PathBuf),
    /// Memory, for tests.
    Memory(Arc<Mutex<String>>),
}

impl Sink {
    /// Whether lines carry the moment: the journal knows it, and so does whoever takes standard
    /// output.
    pub(super) const fn wants_dates(&self) -> bool {
        matches!(self, Self::File(_))
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Stdout { .. }, Self::Stdout { .. }) => true,
            (Self::File(one), Self::File(other)) => one == other,
            (Self::Memory(one), Self::Memory(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// What a memory sink holds; empty for the others.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Memory(text) => text.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Self::Stdout { .. } | Self::File(_) => String::new(),
        }
    }
}

/// How lines are written, and where.
#[derive(Clone, Debug)]
pub struct Style {
    /// Where they are written.
    pub sink: Sink,
    /// Their form.
    pub format: Format,
    /// The least important that are written.
    pub level: Level,
    /// What is shown of addresses, if not all.
    pub mask: Option<Arc<Mask>>,
}

/// More lines for a while than [`Style::level`] lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// The least important that are written meanwhile.
    pub level: Level,
    /// Until when.
    pub until: Timestamp,
    /// Only those that name a client of this network.
    pub client: Option<Network>,
}

impl Style {
    /// As the configuration has it; `journal` is whether standard output is that.
    #[must_use]
    pub fn of(settings: &Logging, journal: bool, mask: Option<Arc<Mask>>) -> Self {
        let sink = match (settings.target, &settings.file) {
            (logging::Target::File, Some(file)) => Sink::File(file.clone()),
            _ => Sink::Stdout { journal },
        };
        let format = match settings.format {
            logging::Format::Logfmt => Format::Logfmt,
            logging::Format::Json => Format::Json,
            logging::Format::Postfix => Format::Postfix,
        };
        Self { sink, format, level: settings.level.into(), mask }
    }

    /// What is shown of addresses.
    #[must_use]
    pub fn addresses(&self) -> logging::Addresses {
        match self.mask.as_deref() {
            None => logging::Addresses::Full,
            Some(Mask::Hashed(_)) => logging::Addresses::Hashed,
            Some(Mask::DomainOnly) => logging::Addresses::DomainOnly,
        }
    }
}

impl From<logging::Level> for Level {
    fn from(level: logging::Level) -> Self {
        match level {
            logging::Level::Error => Self::Error,
            logging::Level::Warn => Self::Warn,
            logging::Level::Info => Self::Info,
            logging::Level::Debug => Self::Debug,
        }
    }
}
