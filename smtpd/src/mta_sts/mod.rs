//! The policies that domains publish for mail to them (MTA-STS, RFC 8461): asked for, kept, and asked
//! for again in time.
//!
//! In: the domain of a recipient. Out: the policy that holds for it, if there is one. However many
//! lanes and connections ask, one look is on its way for each domain, and it runs to its end whoever
//! waits for it. Where no policy is known the first mail waits for the look; where one is known it
//! holds, and a look that is due happens meanwhile. What cannot be had now changes nothing that is
//! known, and is not tried again for a few minutes; where the last policy was to be enforced, mail waits
//! that long, also when it is over, but not for ever. One for which there is no room among those that are
//! kept holds for some minutes.

mod kept;
mod passing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::config::oauth::Endpoint;
use mailroot_common::units::Timestamp;
use smtpd_core::route::crowd::{self, Door, Push, Standing};
use smtpd_core::route::loopback::AddressRule;
use smtpd_core::route::sts::{self, Known, Policy};
use smtpd_core::tls_report::FailureKind;

use self::kept::{Files, KEPT_MAX};
use self::passing::Passing;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::https::{Bounds, Https, HttpsError};
use crate::observe::{Level, Log};
use crate::tls::Flaw;

/// What a policy host may take (RFC 8461 section 3.3).
const BOUNDS: Bounds = Bounds { wait: Duration::from_mins(1), octets: sts::POLICY_OCTETS_MAX };
/// How long mail waits for a look; longer than the look itself takes unless DNS is slow as well.
const PATIENCE: Duration = Duration::from_secs(75);
/// How long what was found counts as news: the record is looked at again after that.
const FRESH: Duration = Duration::from_mins(10);
const FRESH_MIN: Duration = Duration::from_secs(30);
/// Of the policies that hold, so many are pushed out in an hour: who is mailed is often a stranger's choice.
const PUSHED_MAX: u32 = 50;
/// How long a failure is remembered.
const FAILED: Duration = Duration::from_mins(5);
/// Domains remembered that have no policy, besides those that have one.
const ENTRIES_MAX: usize = 20_000;

/// What is known of policies, for as long as the daemon runs. Cheap to clone.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

struct Shared {
    files: Files,
    clock: Clock,
    log: Log,
    entries: Mutex<HashMap<Domain, Arc<Entry>>>,
    door: Mutex<Door>,
    passing: Mutex<Passing>,
    /// How often another policy was found.
    changes: AtomicU64,
}

/// What is known of one domain.
#[derive(Debug, Default)]
struct Entry {
    state: Mutex<State>,
    /// Held by whoever looks.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Arc<Known>>,
    /// When mail last wanted to know.
    used: Timestamp,
    /// Until when nobody needs to look, in the clock's time.
    fresh_until: Duration,
    /// Why the last look came to nothing, although the domain speaks of a policy.
    trouble: Option<Flaw>,
    /// What [`Known::missed_until`] says of the last one that was not kept.
    passed_until: Timestamp,
}

impl State {
    fn holding(&self, now: Timestamp) -> Option<Arc<Known>> {
        self.known.clone().filter(|known| !known.is_over(now))
    }

    /// Until when mail waits for the next policy, if the last that was known was to be enforced.
    fn missed_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.known.as_ref().map_or(self.passed_until, |known| known.missed_until());
        (now < until).then_some(until)
    }
}

/// Whether a domain has a policy cannot be told now, and the last one that is known of was to be enforced:
/// mail must not overtake the next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the MTA-STS policy of {domain} cannot be had now ({why}); mail waits for it until {until} at most, since \
     the last one was to be enforced"
)]
pub struct Undecided {
    domain: Domain,
    why: String,
    until: Timestamp,
}

impl Cache {
    /// What lies in this directory, which is made when it is needed.
    #[must_use]
    pub fn open(disk: Disk, directory: PathBuf, clock: Clock, log: Log) -> Self {
        let files = Files::new(disk, directory);
        let entry = |known: Known| {
            let used = known.at;
            let state = State { known: Some(Arc::new(known)), used, ..State::default() };
            Arc::new(Entry { state: Mutex::new(state), ..Entry::default() })
        };
        let known = files.read(clock.now()).into_iter();
        let entries = known.map(|(domain, known)| (domain, entry(known))).collect();
        let (entries, changes) = (Mutex::new(entries), AtomicU64::default());
        let (door, passing) = Default::default();
        Self(Arc::new(Shared { files, clock, log, entries, door, passing, changes }))
    }

    fn entry(&self, domain: &Domain) -> Arc<Entry> {
        let mut entries = lock(&self.0.entries);
        if let Some(entry) = entries.get(domain) {
            return Arc::clone(entry);
        }
        if entries.len() >= ENTRIES_MAX + KEPT_MAX {
            // Domains without a policy cost one question to DNS to know again.
            entries.retain(|_, entry| lock(&entry.state).known.is_some());
        }
        Arc::clone(entries.entry(domain.clone()).or_default())
    }

    /// When a look is due that has found this. A policy that holds for a moment only is not asked for
    /// all the time.
    fn due_in(&self, known: Option<&Known>) -> Duration {
        let now = self.0.clock.now();
        known.map_or(FRESH, |known| known.due_in(now).clamp(FRESH_MIN, FRESH))
    }

    /// Makes room for one more, if there is none: who makes way. Nothing if too many did in this hour.
    fn make_room(&self) -> Option<Option<Domain>> {
        let now = self.0.clock.now();
        let entries = lock(&self.0.entries);
        let standing = |entry: &Entry| {
            let state = lock(&entry.state);
            let known = state.known.as_ref()?;
            let (is_over, since) = (known.is_over(now), known.first());
            Some(Standing { is_over, since, used: state.used.max(known.at) })
        };
        let known = entries.iter().filter_map(|(domain, it)| Some((domain, standing(it)?)));
        let known: Vec<(&Domain, Standing)> = known.collect();
        if known.len() < KEPT_MAX {
            return Some(None);
        }
        let (domain, standing) = crowd::least(known)?;
        let push = match standing.is_over {
            true => Push::Allowed,
            false => lock(&self.0.door).push(now, PUSHED_MAX),
        };
        if push == Push::JustFull {
            self.0.log.line(Level::Warn, "sts-full").word("policies", KEPT_MAX).send();
        }
        (push == Push::Allowed).then(|| Some(domain.clone()))
    }

    /// The policy that holds for a domain by its entry, and whether nobody needs to look.
    fn holding(&self, domain: &Domain, state: &State) -> (Option<Arc<Known>>, bool) {
        let now = self.0.clock.elapsed();
        let kept = state.holding(self.0.clock.now());
        match kept.is_none().then(|| lock(&self.0.passing).get(domain, now)).flatten() {
            Some(passing) => (Some(passing), true),
            None => (kept, now < state.fresh_until),
        }
    }

    /// Has a policy that there is no room for hold for a while; that long it counts as any other.
    fn pass(&self, domain: &Domain, entry: &Entry, known: &Known, span: Duration) {
        lock(&entry.state).passed_until = known.missed_until();
        let until = self.0.clock.elapsed() + span;
        if lock(&self.0.passing).put(domain, Arc::new(known.clone()), until) {
            self.0.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps what was fetched; it counts from now on, whether or not it can be written. Where there is
    /// no room for it, it holds for a while: then false.
    async fn keep(&self, domain: &Domain, entry: &Entry, known: Known) -> bool {
        let is_new = lock(&entry.state).known.is_none();
        let old = if is_new { self.make_room() } else { Some(None) };
        let Some(old) = old else {
            self.pass(domain, entry, &known, self.due_in(Some(&known)));
            return false;
        };
        if let Some(old) = &old {
            lock(&self.0.entries).remove(old);
        }
        let line = self.0.log.line(Level::Info, "sts-policy").word("domain", domain);
        line.word("mode", known.policy.mode.as_str())
            .word("policy", &known.id)
            .word("until", known.until())
            .send();
        let passed = lock(&self.0.passing).remove(domain);
        let before = lock(&entry.state).known.replace(Arc::new(known.clone())).or(passed);
        if before.is_none_or(|before| before.policy != known.policy) {
            self.0.changes.fetch_add(1, Ordering::Relaxed);
        }
        let (files, of) = (self.0.files.clone(), domain.clone());
        let writing = tokio::task::spawn_blocking(move || {
            if let Some(old) = &old {
                // Without a file it is forgotten just as well.
                files.forget(old).unwrap_or_default();
            }
            files.keep(&of, &known)
        });
        if let Ok(Err(error)) = writing.await {
            let line = self.0.log.line(Level::Error, "sts-not-kept").word("domain", domain);
            line.text("error", error).send();
        }
        true
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

/// Knows policies by the settings in force. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MtaSts {
    cache: Cache,
    https: Https,
}

/// What a look came to.
enum Look {
    /// The domain speaks of no policy, or of the one that is known.
    NoNews,
    /// It has this one.
    News(Known),
}

impl MtaSts {
    /// Asks by these means.
    #[must_use]
    pub const fn new(cache: Cache, https: Https) -> Self {
        Self { cache, https }
    }

    /// The policy that holds for a domain; looked for where that is due. The policy host is one that a
    /// stranger names, so that the rule says which addresses may be called.
    ///
    /// # Errors
    ///
    /// [`Undecided`], after [`PATIENCE`] at the latest.
    pub async fn policy(
        &self,
        domain: &Domain,
        rule: &AddressRule,
    ) -> Result<Option<Arc<Known>>, Undecided> {
        let entry = self.cache.entry(domain);
        let (known, is_fresh) = {
            let mut state = lock(&entry.state);
            state.used = self.cache.0.clock.now();
            self.cache.holding(domain, &state)
        };
        if is_fresh {
            return self.unless_missed(domain, &entry, None);
        }
        let looking = {
            let (it, domain, entry, rule) =
                (self.clone(), domain.clone(), Arc::clone(&entry), rule.clone());
            tokio::spawn(async move { it.look(&domain, &entry, &rule).await })
        };
        if known.is_some() {
            return Ok(known);
        }
        let slow = match tokio::time::timeout(PATIENCE, looking).await {
            // It may have made way already; it is for whoever waited for it all the same.
            Ok(Ok(Some(passing))) => return Ok(Some(passing)),
            Ok(Ok(None)) => None,
            Ok(Err(_)) => Some("the look for it broke off".to_owned()),
            Err(_) => Some(format!("it was not there within {} s", PATIENCE.as_secs())),
        };
        self.unless_missed(domain, &entry, slow)
    }

    /// The policy that holds, unless mail waits for the next: because of this, or because the last look
    /// came to nothing. Whoever never had a policy goes on without: so would mail if the host said
    /// nothing at all.
    fn unless_missed(
        &self,
        domain: &Domain,
        entry: &Entry,
        why: Option<String>,
    ) -> Result<Option<Arc<Known>>, Undecided> {
        let state = lock(&entry.state);
        if let (Some(known), _) = self.cache.holding(domain, &state) {
            return Ok(Some(known));
        }
        let why = why.or_else(|| state.trouble.as_ref().map(|flaw| flaw.text.clone()));
        match (why, state.missed_until(self.cache.0.clock.now())) {
            (Some(why), Some(until)) => Err(Undecided { domain: domain.clone(), why, until }),
            _ => Ok(None),
        }
    }

    /// How often another policy than before was found, of whatever domain, as long as the daemon runs.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.cache.0.changes.load(Ordering::Relaxed)
    }

    /// The policy that is known for a domain, without a look.
    #[must_use]
    pub fn known(&self, domain: &Domain) -> Option<Arc<Known>> {
        let entry = lock(&self.cache.0.entries).get(domain).cloned()?;
        let state = lock(&entry.state);
        self.cache.holding(domain, &state).0
    }

    /// Why there is no policy that a domain speaks of, by the last look.
    #[must_use]
    pub fn trouble(&self, domain: &Domain) -> Option<Flaw> {
        let entry = lock(&self.cache.0.entries).get(domain).cloned()?;
        let state = lock(&entry.state);
        state.trouble.clone()
    }

    /// Looks, unless somebody has just done so; the policy that was found, if there is no room to keep it.
    async fn look(&self, domain: &Domain, entry: &Entry, rule: &AddressRule) -> Option<Arc<Known>> {
        let _turn = entry.turn.lock().await;
        let (known, is_missed) = {
            let state = lock(&entry.state);
            let (known, is_fresh) = self.cache.holding(domain, &state);
            if is_fresh {
                return known;
            }
            (known, state.missed_until(self.cache.0.clock.now()).is_some())
        };
        let found = self.find(domain, (known.as_deref(), is_missed), rule).await;
        lock(&entry.state).trouble = found.as_ref().err().cloned();
        let span = match found {
            Ok(Look::NoNews) => self.cache.due_in(known.as_deref()),
            Ok(Look::News(news)) => {
                let span = self.cache.due_in(Some(&news));
                if !self.cache.keep(domain, entry, news.clone()).await {
                    return Some(Arc::new(news));
                }
                span
            }
            Err(why) => {
                let line = self.cache.0.log.line(Level::Warn, "sts-failed").word("domain", domain);
                let holds = match known {
                    Some(_) => "policy-known",
                    None if is_missed => "mail-waits",
                    None => "no-policy",
                };
                line.word("then", holds).text("reason", why.text).send();
                FAILED
            }
        };
        lock(&entry.state).fresh_until = self.cache.0.clock.elapsed() + span;
        None
    }

    async fn find(
        &self,
        domain: &Domain,
        (known, is_missed): (Option<&Known>, bool),
        rule: &AddressRule,
    ) -> Result<Look, Flaw> {
        let texts = match self.https.resolver.texts(&format!("_mta-sts.{domain}")).await {
            Ok(texts) => texts,
            Err(error) if error.is_temporary() && (known.is_some() || is_missed) => {
                let kind = FailureKind::StsPolicyFetchError;
                return Err(Flaw { kind, text: error.to_string() });
            }
            // Where none was ever known nothing changes, and it is not known that there is one.
            Err(_) => return Ok(Look::NoNews),
        };
        // A domain gives a policy up by one with the mode "none", not by taking the record away.
        let Some(id) = sts::record_id(texts.iter().map(String::as_str)) else {
            return Ok(Look::NoNews);
        };
        let now = self.cache.0.clock.now();
        if known.is_some_and(|known| known.id == id && !known.due_in(now).is_zero()) {
            return Ok(Look::NoNews);
        }
        let policy = self.fetch(domain, rule).await?;
        let since = known.map(Known::first);
        Ok(Look::News(Known { id: id.to_owned(), at: now, since, policy }))
    }

    /// Fetches the policy.
    async fn fetch(&self, domain: &Domain, rule: &AddressRule) -> Result<Policy, Flaw> {
        let text = format!("https://mta-sts.{domain}/.well-known/mta-sts.txt");
        let no_name = || Flaw {
            kind: FailureKind::StsPolicyFetchError,
            text: "its policy host cannot have a name".to_owned(),
        };
        let at = Endpoint::parse(&text).ok_or_else(no_name)?;
        let host = at.authority();
        let flaw = |kind, why: &dyn std::fmt::Display| Flaw {
            kind,
            text: format!("{host} gives no policy: {why}"),
        };
        let answer = self.https.get(&at, BOUNDS, rule).await.map_err(|error| {
            let kind = match &error {
                HttpsError::Tls(_) => FailureKind::StsWebpkiInvalid,
                _ => FailureKind::StsPolicyFetchError,
            };
            flaw(kind, &error)
        })?;
        if answer.status != 200 {
            let why = format!("it answers {}", answer.status);
            return Err(flaw(FailureKind::StsPolicyFetchError, &why));
        }
        if answer.content_type.as_deref() != Some("text/plain") {
            let kind = answer.content_type.as_deref().unwrap_or("of no kind");
            let why = format!("its answer is {kind}, not text/plain");
            return Err(flaw(FailureKind::StsPolicyFetchError, &why));
        }
        Policy::parse(&answer.body).map_err(|error| flaw(FailureKind::StsPolicyInvalid, &error))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
