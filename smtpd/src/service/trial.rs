//! Changes on trial, and listeners tried before a change is made.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use mailroot_common::units::Timestamp;

use super::change::{Asked, TRIAL_OVER};
use super::{Service, ServiceError};
use crate::config::{EditError, Loaded, Trial};
use crate::net::overlap;
use crate::observe::Level;

impl Service {
    /// Whether every address that a configuration listens on, and the one in force does not, can
    /// be had. Asked before the change is made, so that it is refused and not half in force.
    pub(super) fn try_listeners(&self, loaded: &Loaded) -> Result<(), ServiceError> {
        let active = self.active();
        let listens = |loaded: &Loaded| -> BTreeSet<SocketAddr> {
            let enabled = loaded.servers.values().filter(|config| config.enabled);
            let doors = enabled.flat_map(|config| config.general.listen.clone());
            doors.map(|door| door.address).collect()
        };
        let old = listens(&active);
        // What one of ours is in the way of is seen when that is closed.
        let clashes = |at: &SocketAddr| old.iter().any(|other| overlap(*other, *at));
        for address in listens(loaded).difference(&old) {
            if address.port() == 0 || clashes(address) {
                continue;
            }
            if let Err(source) = self.0.net.listen(*address) {
                return Err(ServiceError::Address { address: *address, source });
            }
        }
        Ok(())
    }

    /// Notes that a change is on trial and sets its end.
    pub(super) fn begin_trial(&self, trial: Trial) -> Result<(), ServiceError> {
        let failed = |source| {
            let path = std::path::PathBuf::from("config.trial");
            ServiceError::Edit(EditError::Write { path, source })
        };
        trial.begin(&self.0.paths).map_err(failed)?;
        self.await_trial(trial);
        Ok(())
    }

    /// Takes the change back when its time is over, unless it was confirmed.
    pub(super) fn await_trial(&self, trial: Trial) {
        let service = self.clone();
        tokio::spawn(async move {
            let now = service.0.clock.now().as_millis();
            let left = trial.until.as_millis().saturating_sub(now);
            service.0.clock.sleep(Duration::from_millis(left)).await;
            if Trial::read(&service.0.paths).as_ref() == Some(&trial) {
                service.end_trial(&trial).await;
            }
        });
    }

    async fn end_trial(&self, trial: &Trial) {
        let asked = Asked::by_itself(TRIAL_OVER, &trial.who);
        if let Err(error) = self.roll_back(trial.back_to, &asked).await {
            let line = self.0.log.line(Level::Error, "config-trial-failed");
            line.word("rev", trial.revision).text("reason", error).send();
        }
    }

    /// Keeps the change that is on trial; its revision.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NoTrial`].
    pub async fn confirm(&self, actor: &str) -> Result<u64, ServiceError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let trial = Trial::read(&self.0.paths).ok_or(ServiceError::NoTrial)?;
        Trial::end(&self.0.paths).map_err(|source| EditError::Write {
            path: std::path::PathBuf::from("config.trial"),
            source,
        })?;
        let line = self.0.log.line(Level::Info, "config-confirmed");
        line.word("rev", trial.revision).word("actor", actor).send();
        Ok(trial.revision)
    }

    /// When the change on trial is taken back, and which it is.
    pub(super) fn on_trial(&self) -> Option<(u64, Timestamp)> {
        Trial::read(&self.0.paths).map(|trial| (trial.revision, trial.until))
    }
}
