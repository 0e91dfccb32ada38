//! Tokens for logins: asked for, kept, and renewed in time; and those of clients, judged.
//!
//! In: a smart host's name and where its tokens are had. Out: a token that is good now, or why there is
//! none, in words for people. However many connections want a token, one request is on its way for each
//! smart host; whoever waits for it shares what comes of it. A request runs to its end whoever asked for
//! it: a refresh token that was replaced by the answer is kept durably before anybody uses the token.

mod assertion;
mod device;
mod judge;
mod kept;
mod right;
mod signed;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroot_common::config::SmartHostName;
use mailroot_common::config::oauth::{Endpoint, Grant, TokenSource};
use mailroot_common::units::Timestamp;
use smtpd_core::oauth::answer::{self, Granted, Refusal};
use smtpd_core::oauth::life::{Life, Standing};
use smtpd_core::oauth::request::{Proof, Wish, form};
use zeroize::Zeroizing;

use self::device::Device;
pub use self::device::{DeviceCode, Polled};
pub use self::judge::{Judge, NoGood, Unjudged};
use self::kept::{AccessToken, Kept};
use crate::clock::Clock;
use crate::config::Secrets;
use crate::https::{Answer, Bounds, Https};
use crate::observe::{Level, Log};

/// What a token endpoint may take.
const BOUNDS: Bounds = Bounds { wait: Duration::from_secs(30), octets: 64 * 1024 };
/// How long the end of the daemon waits for answers.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long an ageing token is used on after a new one could not be had.
const PATIENCE: Duration = Duration::from_mins(1);

/// A token that may be shown to its host.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The token itself.
    pub text: Arc<Zeroizing<String>>,
    /// When it ends.
    pub until: Timestamp,
    /// Whether it was asked for by whoever has it now.
    pub is_new: bool,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("until", &self.until).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Its secret.
    #[error("{0}")]
    Secret(String),
    /// Nobody has signed in.
    #[error("nobody has signed in yet: smtpctl smarthost login {0} --device-code")]
    NoRefreshToken(SmartHostName),
    /// Somebody has signed in, for once only.
    #[error(
        "the provider gave no right to ask for the next token: the scope must allow it, as \
         offline_access does at Microsoft"
    )]
    ForOnce,
    /// The endpoint gave no answer.
    #[error("{at} gives no token: {why}")]
    Unreached {
        /// Who was asked.
        at: String,
        /// What went wrong.
        why: String,
    },
    /// It said no.
    #[error("{at} gives no token: {refusal}")]
    Refused {
        /// Who was asked.
        at: String,
        /// Its words, and ours.
        refusal: Refusal,
    },
    /// No code can be asked for.
    #[error("no device_endpoint is set, and the preset knows none")]
    NoDeviceEndpoint,
    /// No code was asked for, or it is used up.
    #[error("no code waits for a person: ask for one first")]
    NoCode,
    /// The request ended before its answer.
    #[error("the request was broken off")]
    Lost,
}

/// What is known of tokens, for as long as the daemon runs. Cheap to clone.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

struct Shared {
    /// The directory of what is kept.
    files: Secrets,
    clock: Clock,
    log: Log,
    entries: Mutex<HashMap<SmartHostName, Arc<Entry>>>,
}

/// What is known of one smart host's tokens.
#[derive(Default)]
struct Entry {
    state: Mutex<State>,
    /// Held by whoever asks for a token.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    is_loaded: bool,
    kept: Kept,
    /// The last failure, in the clock's time, and what it was.
    failed: Option<(Duration, TokenError)>,
    /// When a right was last used without mail, in the clock's time.
    upheld: Option<Duration>,
    device: Option<Device>,
}

impl Cache {
    /// What is kept in files of this directory, which is made when it is needed.
    #[must_use]
    pub fn new(directory: &Path, clock: Clock, log: Log) -> Self {
        let (files, entries) = (Secrets::in_directory(directory), Mutex::default());
        Self(Arc::new(Shared { files, clock, log, entries }))
    }

    /// Waits a while for requests under way, so that a right that an answer replaces is not lost.
    pub async fn settle(&self) {
        let entries: Vec<Arc<Entry>> = lock(&self.0.entries).values().cloned().collect();
        let all = async {
            for entry in entries {
                let _turn = entry.turn.lock().await;
            }
        };
        // Whoever is still waiting then waits for a provider that may never answer.
        let _late = tokio::time::timeout(LAST_WAIT, all).await;
    }

    fn entry(&self, name: &SmartHostName) -> Arc<Entry> {
        let mut entries = lock(&self.0.entries);
        Arc::clone(entries.entry(name.clone()).or_default())
    }
}

/// Gives tokens by the settings in force. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    cache: Cache,
    https: Https,
    secrets: Secrets,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Asks by these means, with secrets that lie there.
    #[must_use]
    pub const fn new(cache: Cache, https: Https, secrets: Secrets) -> Self {
        Self { cache, https, secrets }
    }

    /// A token that is good now.
    ///
    /// # Errors
    ///
    /// [`TokenError`].
    pub async fn get(
        &self,
        name: &SmartHostName,
        source: &TokenSource,
    ) -> Result<Token, TokenError> {
        let entry = self.cache.entry(name);
        let at_hand = lock(&entry.state).good(source, self.cache.0.clock.now());
        match at_hand {
            Some(token) => Ok(token),
            None => self.spawn(name, source, false).await,
        }
    }

    /// A new token, whatever is at hand.
    ///
    /// # Errors
    ///
    /// [`TokenError`].
    pub async fn get_new(
        &self,
        name: &SmartHostName,
        source: &TokenSource,
    ) -> Result<Token, TokenError> {
        self.spawn(name, source, true).await
    }

    /// The host did not take this token: it is not used again.
    pub fn refused(&self, name: &SmartHostName, token: &Token) {
        let entry = self.cache.entry(name);
        lock(&entry.state).kept.access.take_if(|access| access.token == **token.text);
    }

    /// Asks in a task of its own, which goes on when whoever waits for it does not.
    async fn spawn(
        &self,
        name: &SmartHostName,
        source: &TokenSource,
        anew: bool,
    ) -> Result<Token, TokenError> {
        let (tokens, name, source) = (self.clone(), name.clone(), source.clone());
        let asked_at = self.cache.0.clock.elapsed();
        let asking =
            tokio::spawn(async move { tokens.renew(&name, &source, anew, asked_at).await });
        asking.await.unwrap_or(Err(TokenError::Lost))
    }

    async fn renew(
        &self,
        name: &SmartHostName,
        source: &TokenSource,
        anew: bool,
        asked_at: Duration,
    ) -> Result<Token, TokenError> {
        let entry = self.cache.entry(name);
        let _turn = entry.turn.lock().await;
        let clock = &self.cache.0.clock;
        let old = {
            let mut state = lock(&entry.state);
            self.cache.load(name, &mut state);
            let now = clock.now();
            let old = state.usable(source, now).filter(|_| !anew);
            match (state.good(source, now), &state.failed) {
                (Some(token), _) if !anew => return Ok(token),
                // Somebody failed while we waited: asking once more would fail as well.
                (_, Some((at, error))) if *at >= asked_at => {
                    return old.ok_or_else(|| error.clone());
                }
                _ => {}
            }
            let failed_lately = state
                .failed
                .as_ref()
                .is_some_and(|(at, _)| clock.elapsed().saturating_sub(*at) < PATIENCE);
            match old {
                Some(old) if failed_lately => return Ok(old),
                old => old,
            }
        };
        match self.ask_for_token(name, source, &entry).await {
            Ok(token) => Ok(token),
            Err(error) => {
                self.fail(name, &entry, &error);
                old.ok_or(error)
            }
        }
    }

    fn fail(&self, name: &SmartHostName, entry: &Entry, error: &TokenError) {
        let line = self.cache.0.log.line(Level::Warn, "token-failed");
        line.word("smart_host", name).text("reason", error).send();
        lock(&entry.state).failed = Some((self.cache.0.clock.elapsed(), error.clone()));
    }

    async fn ask_for_token(
        &self,
        name: &SmartHostName,
        source: &TokenSource,
        entry: &Entry,
    ) -> Result<Token, TokenError> {
        let refresh_token = match source.grant {
            Grant::ClientCredentials => None,
            Grant::RefreshToken => {
                let found = lock(&entry.state).kept.refresh_for(source).map(Zeroizing::new);
                Some(found.ok_or_else(|| TokenError::NoRefreshToken(name.clone()))?)
            }
        };
        let wish = match &refresh_token {
            None => Wish::ByClient,
            Some(token) => Wish::ByRefreshToken(token),
        };
        let asked_at = self.cache.0.clock.now();
        let answer = self.post(&source.token_endpoint, source, wish).await?;
        let granted = answer::token(answer.status, &answer.body)
            .map_err(|refusal| refused(&source.token_endpoint, refusal))?;
        Ok(self.take(name, source, entry, granted, asked_at).await)
    }

    /// Keeps what was given, durably, and hands it out.
    async fn take(
        &self,
        name: &SmartHostName,
        source: &TokenSource,
        entry: &Entry,
        granted: Granted,
        asked_at: Timestamp,
    ) -> Token {
        let life = Life::new(asked_at, granted.span);
        let mut kept = lock(&entry.state).kept.clone();
        kept.take(source, granted, life);
        let (files, file) = (self.cache.0.files.clone(), name.to_string());
        let line = kept.to_line();
        let written = tokio::task::spawn_blocking(move || files.keep(&file, &line)).await;
        let log = &self.cache.0.log;
        if let Ok(Err(error)) = written {
            // The token is good all the same; after a restart somebody may have to sign in again.
            let line = log.line(Level::Error, "token-not-kept");
            line.word("smart_host", name).text("reason", error).send();
        }
        log.line(Level::Info, "token").word("smart_host", name).word("until", life.until).send();
        let text = kept.access.as_ref().map(|access| access.token.clone()).unwrap_or_default();
        let mut state = lock(&entry.state);
        (state.kept, state.is_loaded, state.failed) = (kept, true, None);
        Token { text: Arc::new(Zeroizing::new(text)), until: life.until, is_new: true }
    }

    async fn post(
        &self,
        at: &Endpoint,
        source: &TokenSource,
        wish: Wish<'_>,
    ) -> Result<Answer, TokenError> {
        let (secrets, for_proof) = (self.secrets.clone(), source.clone());
        let now = self.cache.0.clock.now();
        let read = tokio::task::spawn_blocking(move || prove(&secrets, &for_proof, now)).await;
        let proven = read.map_err(|_| TokenError::Lost)?.map_err(TokenError::Secret)?;
        let proof = match &proven {
            Some(Proven::Secret(secret)) => Proof::Secret(secret),
            Some(Proven::Assertion(word)) => Proof::Assertion(word),
            None => Proof::None,
        };
        let form = form(source, proof, wish);
        self.https
            .post_form(at, form, BOUNDS)
            .await
            .map_err(|error| TokenError::Unreached { at: at.authority(), why: error.to_string() })
    }
}

impl Cache {
    /// When the token at hand ends, if there is one for these settings.
    #[must_use]
    pub fn until(&self, name: &SmartHostName, source: &TokenSource) -> Option<Timestamp> {
        let entry = self.entry(name);
        let mut state = lock(&entry.state);
        self.load(name, &mut state);
        let access = state.kept.access_for(source)?;
        let life = access.life();
        (life.standing(self.0.clock.now()) != Standing::Over).then_some(life.until)
    }

    /// Keeps a right to ask for tokens that was given elsewhere. It waits for a request under way, whose
    /// answer would be kept in its place.
    ///
    /// # Errors
    ///
    /// The system's error; what was kept before stands then.
    pub async fn adopt(
        &self,
        name: &SmartHostName,
        source: &TokenSource,
        refresh_token: &str,
    ) -> std::io::Result<()> {
        let entry = self.entry(name);
        let _turn = entry.turn.lock().await;
        let kept = Kept::with_refresh_token(source, refresh_token, self.0.clock.now());
        self.0.files.keep(name.as_str(), &kept.to_line())?;
        let mut state = lock(&entry.state);
        (state.kept, state.is_loaded, state.failed) = (kept, true, None);
        Ok(())
    }

    /// Forgets a smart host, durably: its token, and the right to ask for the next.
    ///
    /// # Errors
    ///
    /// The system's error: the file is there still.
    pub async fn forget(&self, name: &SmartHostName) -> std::io::Result<()> {
        let entry = self.entry(name);
        let _turn = entry.turn.lock().await;
        *lock(&entry.state) = State { is_loaded: true, ..State::default() };
        let (files, file) = (self.0.files.clone(), name.to_string());
        let removed = tokio::task::spawn_blocking(move || files.remove(&file)).await;
        lock(&self.0.entries).remove(name);
        removed.map_err(std::io::Error::other)?
    }

    /// Reads what is kept in the file, once. A file that is not there, or that belongs to other
    /// settings, is as good as none.
    fn load(&self, name: &SmartHostName, state: &mut State) {
        if !std::mem::replace(&mut state.is_loaded, true) {
            match Kept::read(&self.0.files, name) {
                Ok(kept) => state.kept = kept,
                Err(error) => {
                    let line = self.0.log.line(Level::Warn, "token-not-read");
                    line.word("smart_host", name).text("reason", error).send();
                }
            }
        }
    }
}

impl State {
    /// The token at hand, if nothing is to be done about it.
    fn good(&self, source: &TokenSource, now: Timestamp) -> Option<Token> {
        let access = self.kept.access_for(source)?;
        (access.life().standing(now) == Standing::Good).then(|| at_hand(access))
    }

    /// The token at hand, also if it is ageing.
    fn usable(&self, source: &TokenSource, now: Timestamp) -> Option<Token> {
        let access = self.kept.access_for(source)?;
        (access.life().standing(now) != Standing::Over).then(|| at_hand(access))
    }
}

/// What the application proves itself by, read or made.
enum Proven {
    Secret(Zeroizing<String>),
    Assertion(Zeroizing<String>),
}

/// Reads the secret, or signs with the key; the error is for people.
fn prove(
    secrets: &Secrets,
    source: &TokenSource,
    now: Timestamp,
) -> Result<Option<Proven>, String> {
    if let Some(place) = &source.client_certificate {
        let pem = secrets.read_lines(place).map_err(|error| error.to_string())?;
        let word = assertion::assertion(&pem, source, now).map_err(|error| error.to_string())?;
        return Ok(Some(Proven::Assertion(word)));
    }
    let read = source.client_secret.as_ref().map(|place| secrets.read(place)).transpose();
    Ok(read.map_err(|error| error.to_string())?.map(Proven::Secret))
}

fn at_hand(access: &AccessToken) -> Token {
    let text = Arc::new(Zeroizing::new(access.token.clone()));
    Token { text, until: access.until, is_new: false }
}

fn refused(at: &Endpoint, refusal: Refusal) -> TokenError {
    TokenError::Refused { at: at.authority(), refusal }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
