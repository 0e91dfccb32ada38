//! The record of what became of mail, as the configuration has it.

use mailroot_common::config::trace::Dialogues;

use super::Service;
use crate::clock::Clock;
use crate::config::{Loaded, Paths};
use crate::observe::{Level, Log};
use crate::trace::{self, Trace};

/// Opens it; mail goes on without one.
pub(super) fn open(paths: &Paths, loaded: &Loaded, clock: &Clock, log: &Log) -> Trace {
    let (path, settings) = (paths.state.join("trace"), settings(loaded));
    Trace::open(path, settings, clock.clone(), log.clone()).unwrap_or_else(|error| {
        log.line(Level::Error, "trace-failed").word("error", error).send();
        Trace::off()
    })
}

impl Service {
    /// Has it go by a configuration that is in force.
    pub(super) fn set_record(&self, loaded: &Loaded) {
        let settings = settings(loaded);
        self.0.dialogues.keep(settings.dialogues != Dialogues::Off);
        self.0.trace.set(settings);
    }
}

fn settings(loaded: &Loaded) -> trace::Settings {
    let keys = &loaded.service.trace;
    trace::Settings {
        keep: keys.keep,
        max_size: keys.max_size,
        subjects: keys.subjects,
        dialogues: keys.dialogues,
    }
}
