//! The record of what became of mail, as the configuration has it.

use mailroot_common::config::trace::Dialogues;
use mailroot_common::control::Direction;

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
        let (wanted, dialogues) = (settings.dialogues, &self.0.dialogues);
        dialogues.keep(Direction::Out, wanted != Dialogues::Off);
        // Only a message that was accepted has a story, and nothing failed in it.
        dialogues.keep(Direction::In, wanted == Dialogues::All);
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
