//! The log as the configuration has it, and as operators want it for a while.

use std::time::Duration;

use mailroot_common::control::{LogRaised, LogState, LogTarget};
use mailroot_common::net::Network;
use mailroot_common::units::Timestamp;

use super::{Service, ServiceError, lock};
use crate::config::{self, Loaded};
use crate::observe::{Level, LogError, Raised, Sink, Style, W3c, W3cSettings};
use crate::process;

impl Service {
    /// Tells what is odd about a configuration that is in force, and why it is an old one if it is.
    pub(super) fn log_troubles(&self, loaded: &Loaded) {
        if let Some(text) = &*lock(&self.0.degraded) {
            self.complain(text);
        }
        for warning in &loaded.warnings {
            let line = self.0.log.line(Level::Warn, "config-warning");
            line.word("code", warning.code).text("text", &warning.title).send();
        }
    }

    pub(super) fn complain(&self, text: &str) {
        self.0.log.line(Level::Error, "config-refused").text("reason", text).send();
    }

    fn log_style(&self, loaded: &Loaded) -> Result<Style, LogError> {
        config::log_style(&self.0.paths, loaded, process::stdout_is_journal())
    }

    /// Whether the log can go where a configuration wants it.
    pub(super) fn try_log(&self, loaded: &Loaded) -> Result<(), ServiceError> {
        self.0.log.check(&self.log_style(loaded)?)?;
        Ok(loaded.service.logging.w3c.path().map_or(Ok(()), |path| W3c::check(path))?)
    }

    /// Has the log go by a configuration that is in force; what is wrong with that, if anything.
    pub(super) fn set_log(&self, loaded: &Loaded) -> Option<String> {
        let set = self.log_style(loaded).and_then(|style| self.0.log.set(style));
        let set = set.and_then(|()| self.set_w3c(loaded));
        let trouble = set.map_err(ServiceError::from).err().map(|error| error.to_string())?;
        self.0.log.line(Level::Error, "log-failed").text("reason", &trouble).send();
        Some(trouble)
    }

    /// Begins to write log files for analysers of the original's, where they are wanted.
    pub(super) fn begin_w3c(&self, loaded: &Loaded) {
        if let Err(error) = self.set_w3c(loaded) {
            let error = ServiceError::from(error);
            self.0.log.line(Level::Error, "log-failed").text("reason", error).send();
        }
    }

    fn set_w3c(&self, loaded: &Loaded) -> Result<(), LogError> {
        let name = loaded.hostname.as_str();
        let computer = name.split('.').next().unwrap_or(name).to_owned();
        let settings = loaded
            .service
            .logging
            .w3c
            .path()
            .map(|directory| W3cSettings { directory: directory.clone(), computer });
        self.0.w3c.set(settings, &self.0.dialogues, &self.0.log)
    }

    /// Opens the files of the log anew, after they were moved away.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Log`], which is told in the log too.
    pub async fn reopen_log(&self) -> Result<(), ServiceError> {
        self.0.w3c.reopen();
        let log = self.0.log.clone();
        let opened = tokio::task::spawn_blocking(move || log.reopen()).await;
        match opened {
            Ok(opened) => opened.map_err(|error| {
                let error = ServiceError::from(error);
                self.0.log.line(Level::Error, "log-failed").text("reason", &error).send();
                error
            }),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The service ends, and nothing is moved away any more.
            Err(_) => Ok(()),
        }
    }

    /// The log as it is now.
    #[must_use]
    pub fn log_state(&self) -> LogState {
        let style = self.0.log.style();
        let (target, file) = match &style.sink {
            Sink::Stdout { journal: true } => (LogTarget::Journal, None),
            Sink::Stdout { journal: false } | Sink::Memory(_) => (LogTarget::Stdout, None),
            Sink::File(path) => (LogTarget::File, Some(path.display().to_string())),
        };
        let unit = (target == LogTarget::Journal).then(process::unit).flatten();
        let format = style.format.as_str();
        let addresses = style.addresses().word().to_owned();
        let raised = self.0.log.raised().map(|raised| LogRaised {
            level: raised.level.as_str().to_owned(),
            until: raised.until,
            client: raised.client.map(|client| client.to_string()),
        });
        let level = style.level.as_str().to_owned();
        LogState { target, file, unit, format: format.to_owned(), addresses, level, raised }
    }

    /// Has more be told for a while, or of one client; nothing ends that.
    pub fn raise_log(&self, wish: Option<(Level, Duration, Option<Network>)>) {
        let now = self.0.clock.now().as_millis();
        self.0.log.raise(wish.map(|(level, span, client)| {
            let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            Raised { level, until: Timestamp::from_millis(now.saturating_add(millis)), client }
        }));
    }
}
