//! Rights to ask for tokens that people gave by signing in: upheld where no mail does it.
//!
//! A provider takes such a right away when nobody uses it for months, and a person has to sign in again:
//! of all things for mail that is rare. So it is used once a month whether there is mail or not, and
//! where that fails for long, people hear of it while there is time.

use std::time::Duration;

use mailroot_common::config::SmartHostName;
use mailroot_common::config::oauth::{Grant, TokenSource};
use mailroot_common::units::Timestamp;
use smtpd_core::oauth::life::{RIGHT_LAPSES, RightStanding, right_standing};

use super::{Cache, Tokens, lock};
use crate::observe::Level;

/// How long until the next try, however often it is asked for.
const TRY_EVERY: Duration = Duration::from_hours(24);

/// A right that nobody could use for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapsing {
    /// When it was last used.
    pub used: Timestamp,
    /// When it may end.
    pub until: Timestamp,
    /// Why it could not be used, if it was tried since the start.
    pub why: Option<String>,
}

impl Cache {
    /// When the right of a smart host was last used, if it has one and if that is known.
    fn right_used(&self, name: &SmartHostName, source: &TokenSource) -> Option<Option<Timestamp>> {
        if source.grant != Grant::RefreshToken {
            return None;
        }
        let entry = self.entry(name);
        let mut state = lock(&entry.state);
        self.load(name, &mut state);
        state.kept.right_used(source)
    }

    /// Whether the right of a smart host is about to lapse.
    #[must_use]
    pub fn lapsing(&self, name: &SmartHostName, source: &TokenSource) -> Option<Lapsing> {
        let used = self.right_used(name, source)??;
        let is_lapsing = right_standing(Some(used), self.0.clock.now()) == RightStanding::Lapsing;
        is_lapsing.then(|| {
            let entry = self.entry(name);
            let why = lock(&entry.state).failed.as_ref().map(|(_, error)| error.to_string());
            Lapsing { used, until: used.after(RIGHT_LAPSES), why }
        })
    }
}

impl Tokens {
    /// Uses the right of a smart host if that is due, at most once a day.
    pub async fn uphold(&self, name: &SmartHostName, source: &TokenSource) {
        let Some(used) = self.cache.right_used(name, source) else { return };
        let clock = &self.cache.0.clock;
        if right_standing(used, clock.now()) == RightStanding::Fresh {
            return;
        }
        {
            let entry = self.cache.entry(name);
            let mut state = lock(&entry.state);
            let now = clock.elapsed();
            if state.upheld.is_some_and(|at| now.saturating_sub(at) < TRY_EVERY) {
                return;
            }
            state.upheld = Some(now);
        }
        // What fails is told by whoever asks.
        if self.get_new(name, source).await.is_err()
            && let Some(lapsing) = self.cache.lapsing(name, source)
        {
            let line = self.cache.0.log.line(Level::Warn, "token-right-lapses");
            line.word("smart_host", name)
                .word("used", lapsing.used)
                .word("until", lapsing.until)
                .send();
        }
    }
}
