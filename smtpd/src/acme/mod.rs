//! Certificates that are asked of an authority (ACME, RFC 8555).
//!
//! In: the names, the authority, and by which means it is reached and answered. Out: a certificate with a
//! new key, or why there is none, in words for people. One request is on its way at a time, bounded in all
//! its parts; what came of it is kept, so that a daemon that is started again and again does not ask again
//! and again. What the authority says is a stranger's word: it is shown, and a certificate of it is used
//! only if it is for our key and the names that were asked for.

mod challenge;
mod kept;
mod order;
mod web;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroot_common::config::tls::CertificateName;
use mailroot_common::units::Timestamp;
use smtpd_core::acme::{Tries, Wanted};
use smtpd_core::certificate::Facts;

use self::kept::Kept;
use self::order::Request;
use crate::clock::Clock;
use crate::config::Secrets;
use crate::https::Https;
use crate::observe::{Level, Log};
use crate::tls::Texts;

/// How long a whole request may take.
const REQUEST_MAX: Duration = Duration::from_mins(6);

/// By which means an authority is reached, and answered.
#[derive(Clone, Debug)]
pub struct Means {
    /// Asks the web, trusting whom `tls.acme.trust` names.
    pub https: Https,
    /// Where its question is answered.
    pub listen: Vec<SocketAddr>,
    /// Where it may write to.
    pub email: Option<String>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// Nothing can be answered.
    #[error("the authority's question cannot be answered: cannot listen on {0}")]
    Listen(String),
    /// The authority, or the way to it.
    #[error("{at} gives no certificate: {why}")]
    Authority {
        /// Its directory.
        at: String,
        /// Its words, or what is in the way.
        why: String,
    },
    /// The authority found a name not to be ours.
    #[error("the authority did not find the answer it wants at port 80 of {why}; here, {here}")]
    NotProved {
        /// The name and the authority's words.
        why: String,
        /// What was seen of it on our side.
        here: String,
    },
    /// The authority did not look in time.
    #[error("the authority has not looked for the answer in time; here, {0}")]
    Late(String),
    /// The authority does not know the only proof that we can give.
    #[error("the authority takes no proof over HTTP (HTTP-01) for {0}")]
    NoHttp01(String),
    /// We have nothing to ask it with.
    #[error("the authority cannot be asked: {0}")]
    Means(String),
    /// The certificate cannot be written down.
    #[error("the certificate cannot be kept: {0}")]
    KeepCertificate(#[source] io::Error),
    /// The request ended without a result, by a fault of ours.
    #[error("the request broke off: {0}")]
    Broken(String),
    /// Our account cannot be written down.
    #[error("the account cannot be kept: {0}")]
    Keep(#[source] io::Error),
    /// The kept account cannot be used.
    #[error("the account that was kept cannot be used")]
    Account,
    /// What came cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Unfit(String),
    /// It took too long.
    #[error("the request was not over within {} min", REQUEST_MAX.as_secs() / 60)]
    TimedOut,
}

/// How a certificate stands that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is being asked for now.
    pub asking: bool,
    /// What came of requests.
    pub tries: Tries,
    /// When it is asked for next.
    pub next: Timestamp,
}

/// What is known of requests, for as long as the daemon runs. Cheap to clone.
#[derive(Clone)]
pub struct Acme(Arc<Shared>);

struct Shared {
    kept: Kept,
    clock: Clock,
    log: Log,
    state: Mutex<State>,
    /// Held by whoever asks.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    tries: BTreeMap<String, Tries>,
    /// Those that are to be asked for whenever they would be due.
    wished: BTreeSet<CertificateName>,
    asking: Option<CertificateName>,
    had: u64,
    failed: u64,
}

/// The right to ask; one is given at a time.
#[derive(Debug)]
pub struct Turn {
    _held: tokio::sync::OwnedMutexGuard<()>,
}

impl fmt::Debug for Acme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acme").finish_non_exhaustive()
    }
}

impl Acme {
    /// What is kept in this directory, which is made when it is needed.
    #[must_use]
    pub fn open(directory: &Path, clock: Clock, log: Log) -> Self {
        let kept = Kept::new(Secrets::in_directory(directory));
        let tries = kept.tries().unwrap_or_else(|reason| {
            log.line(Level::Warn, "acme-tries-unread").text("reason", reason).send();
            BTreeMap::new()
        });
        let state = Mutex::new(State { tries, ..State::default() });
        Self(Arc::new(Shared { kept, clock, log, state, turn: Arc::default() }))
    }

    /// Has a certificate asked for, whether it is due or not.
    pub fn wish(&self, name: &CertificateName) {
        self.lock().wished.insert(name.clone());
    }

    /// How a certificate stands.
    #[must_use]
    pub fn standing(
        &self,
        name: &CertificateName,
        wanted: &Wanted,
        there: Option<&Facts>,
    ) -> Standing {
        let state = self.lock();
        let tries = state.tries.get(name.as_str()).cloned().unwrap_or_default();
        let asking = state.asking.as_ref() == Some(name) || state.wished.contains(name);
        let next = tries.next(wanted, there, self.0.clock.now());
        Standing { asking, tries, next }
    }

    /// Certificates that were had, and requests that failed, since the daemon began.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.had, state.failed)
    }

    /// Takes the right to ask; nothing while somebody else has it.
    #[must_use]
    pub fn turn(&self) -> Option<Turn> {
        Arc::clone(&self.0.turn).try_lock_owned().ok().map(|held| Turn { _held: held })
    }

    /// Begins a request, whose end is to be noted by [`Acme::done`] whatever comes of it. What was wished is
    /// granted by that, also if it fails.
    pub fn begin(&self, _turn: &Turn, name: &CertificateName) {
        let mut state = self.lock();
        state.wished.remove(name);
        state.asking = Some(name.clone());
    }

    /// Asks for a certificate.
    ///
    /// # Errors
    ///
    /// [`AcmeError`], in words for people.
    pub async fn ask(
        &self,
        name: &CertificateName,
        (wanted, means): (&Wanted, &Means),
    ) -> Result<Texts, AcmeError> {
        let line = self.0.log.line(Level::Info, "acme-request").word("name", name);
        line.text("hosts", wanted.names.join(", ")).word("authority", &wanted.directory).send();
        let request = Request { means, wanted, kept: &self.0.kept, log: &self.0.log };
        let asked = tokio::time::timeout(REQUEST_MAX, Box::pin(request.run())).await;
        asked.unwrap_or(Err(AcmeError::TimedOut))
    }

    /// Notes what came of a request.
    pub async fn done(
        &self,
        name: &CertificateName,
        wanted: &Wanted,
        outcome: &Result<(), AcmeError>,
    ) {
        let (kept, tries) = (self.0.kept.clone(), self.note(name, wanted, outcome));
        let keeping = tokio::task::spawn_blocking(move || kept.keep_tries(&tries));
        if let Err(error) = keeping.await.map_err(io::Error::other).flatten() {
            self.0.log.line(Level::Warn, "acme-tries-unkept").text("reason", error).send();
        }
    }

    fn note(
        &self,
        name: &CertificateName,
        wanted: &Wanted,
        outcome: &Result<(), AcmeError>,
    ) -> BTreeMap<String, Tries> {
        let now = self.0.clock.now();
        let mut state = self.lock();
        state.asking = None;
        let tries = state.tries.entry(name.to_string()).or_default();
        match outcome {
            Ok(()) => {
                tries.succeed(wanted, now);
                state.had += 1;
            }
            Err(error) => {
                tries.fail(wanted, &error.to_string(), now, self.0.clock.random());
                let line = self.0.log.line(Level::Warn, "acme-failed").word("name", name);
                let line = line.word("failures", tries.failures).text("reason", error);
                line.word("next", tries.next(wanted, None, now)).send();
                state.failed += 1;
            }
        }
        state.tries.clone()
    }

    /// Forgets all but these.
    pub fn keep_only(&self, names: &BTreeSet<CertificateName>) {
        let mut state = self.lock();
        state.tries.retain(|name, _| names.iter().any(|it| it.as_str() == name));
        state.wished.retain(|name| names.contains(name));
    }

    /// Which of these is to be asked for now: one that is wished, or else the one that is due for longest.
    #[must_use]
    pub fn due<'a>(
        &self,
        all: &'a [(CertificateName, Wanted, Option<Facts>)],
    ) -> Option<&'a (CertificateName, Wanted, Option<Facts>)> {
        let (state, now) = (self.lock(), self.0.clock.now());
        let next = |(name, wanted, there): &(CertificateName, Wanted, Option<Facts>)| {
            let none = Tries::default();
            state.tries.get(name.as_str()).unwrap_or(&none).next(wanted, there.as_ref(), now)
        };
        let wished = all.iter().find(|(name, ..)| state.wished.contains(name));
        wished.or_else(|| all.iter().filter(|it| next(it) <= now).min_by_key(|it| next(it)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::units::Span;

    use super::*;

    fn wanted() -> Wanted {
        Wanted { names: vec!["mx.test".to_owned()], directory: "https://ca.test/dir".to_owned() }
    }

    fn acme(directory: &Path) -> Acme {
        let clock = Clock::simulated(Timestamp::from_millis(1_790_000_000_000), 1);
        Acme::open(directory, clock, Log::quiet())
    }

    #[tokio::test]
    async fn a_wish_that_fails_waits_as_everything_else_does() {
        let place = tempfile::tempdir().unwrap();
        let acme = acme(place.path());
        let name = CertificateName::parse("mx").unwrap();
        let all = [(name.clone(), wanted(), None)];
        acme.wish(&name);
        let turn = acme.turn().unwrap();
        assert!(acme.due(&all).is_some());
        acme.begin(&turn, &name);
        acme.done(&name, &wanted(), &Err(AcmeError::Means("no resolver".to_owned()))).await;
        assert!(acme.due(&all).is_none(), "it has to wait");
        let standing = acme.standing(&name, &wanted(), None);
        assert!(!standing.asking && standing.tries.failures == 1, "{standing:?}");
        assert!(standing.next.since(acme.0.clock.now()) > Span::minutes(13));
        acme.begin(&turn, &name);
        acme.wish(&name);
        acme.done(&name, &wanted(), &Err(AcmeError::TimedOut)).await;
        assert!(acme.due(&all).is_some(), "what is wished meanwhile stands");
    }

    #[tokio::test]
    async fn waits_are_known_again_however_many_there_are() {
        let place = tempfile::tempdir().unwrap();
        let before = acme(place.path());
        let name = |number: u32| CertificateName::parse(&format!("mx{number}")).unwrap();
        let words = || Err(AcmeError::Means("x".repeat(1_000)));
        for number in 0..99 {
            before.note(&name(number), &wanted(), &words());
        }
        before.done(&name(99), &wanted(), &words()).await;
        let after = acme(place.path());
        for number in 0..100 {
            assert_eq!(after.standing(&name(number), &wanted(), None).tries.failures, 1);
        }
    }
}
