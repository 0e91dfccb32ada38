//! The users who may log in: kept in a file of their own, judged, and guessers slowed.
//!
//! A name that nobody has costs as much time as one that somebody has, and sounds the same. What
//! costs time is done off the threads that carry mail, for a few logins at once.

mod decoy_key;
mod file;
mod password;
mod turns;
mod user;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use mailroot_common::address::Mailbox;
use mailroot_common::control::selector::AddressPattern;
use mailroot_common::password::Verifier;
use mailroot_common::rate::Rate;
use smtpd_core::policy::guess::{Guesses, Limit};
use smtpd_core::policy::quota::Quotas;
use zeroize::Zeroizing;

use self::password::{Decoy, random};
pub use self::password::{Secret, Unkeepable};
use self::turns::Turns;
pub use self::user::{Denied, Logins, User};
use crate::clock::Clock;

/// The most users.
pub const USERS_MAX: usize = 10_000;

/// Why a change of users was not made.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is one of this name.
    #[error("there is a user {0} already")]
    Exists(String),
    /// There is none of this name.
    #[error("there is no user {0}")]
    Unknown(String),
    /// There are as many as may be.
    #[error("there are {USERS_MAX} users, and no more can be kept")]
    TooMany,
    /// The password.
    #[error(transparent)]
    Password(#[from] Unkeepable),
    /// The file.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file could not be read when the daemon began, and is not overwritten.
    #[error("the users cannot be read, and none is changed: {0}")]
    Unread(String),
}

/// Changes of a user.
#[derive(Debug, Default)]
pub struct UserChange {
    /// Another password.
    pub secret: Option<Secret>,
    /// Whether logins are taken.
    pub enabled: Option<bool>,
    /// Other addresses to send as.
    pub send_as: Option<Vec<AddressPattern>>,
    /// Another quota, or none.
    pub quota: Option<Option<Rate>>,
}

/// The users. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Users(Arc<Inner>);

type All = BTreeMap<String, Arc<User>>;

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    clock: Clock,
    all: ArcSwap<All>,
    trouble: Option<String>,
    /// Made when it is needed first: it takes as long as a login.
    decoy: std::sync::OnceLock<Option<Decoy>>,
    turns: Turns,
    logins: Mutex<HashMap<String, Logins>>,
    guesses: Mutex<Guesses>,
    /// What users have used of their quotas since the daemon started.
    used: Mutex<Quotas<String>>,
    /// Held by whoever changes the file.
    changing: Mutex<()>,
}

impl Users {
    /// Those of a file, which need not be there. Without a file that can be read nobody can log in,
    /// and [`Users::trouble`] says why.
    #[must_use]
    pub fn open(path: PathBuf, clock: Clock) -> Self {
        let (all, trouble) = match file::read(&path) {
            Ok(all) => (all, None),
            Err(error) => (All::new(), Some(format!("{}: {error}", path.display()))),
        };
        Self(Arc::new(Inner {
            path,
            clock,
            all: ArcSwap::from_pointee(all),
            trouble,
            decoy: std::sync::OnceLock::new(),
            turns: Turns::new(),
            logins: Mutex::default(),
            guesses: Mutex::default(),
            used: Mutex::default(),
            changing: Mutex::default(),
        }))
    }

    /// Why nobody can log in, if that is so.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.0.trouble.as_deref()
    }

    /// All of them, by name.
    #[must_use]
    pub fn list(&self) -> Vec<(Arc<User>, Logins)> {
        let logins = lock(&self.0.logins);
        let of = |user: &Arc<User>| logins.get(&user.name).copied().unwrap_or_default();
        self.0.all.load().values().map(|user| (Arc::clone(user), of(user))).collect()
    }

    /// The one of this name; capitals do not matter.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<User>> {
        self.0.all.load().get(&folded(name)).cloned()
    }

    /// Whether this is the user's password. Whoever stops waiting gives his place in line away.
    ///
    /// # Errors
    ///
    /// [`Denied`], after the same time whatever it is.
    pub async fn check(
        &self,
        name: &str,
        password: Zeroizing<String>,
        client: IpAddr,
    ) -> Result<Arc<User>, Denied> {
        let Some(turn) = self.0.turns.take(client).await else { return Err(Denied::BadPassword) };
        let user = self.find(name);
        let (inner, looked_at) = (Arc::clone(&self.0), user.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            match (looked_at.as_deref(), inner.decoy()) {
                (Some(User { kept: Some(kept), .. }), _) => password::is(kept, &password),
                (_, Some(decoy)) => {
                    decoy.waste_time(&password);
                    false
                }
                (_, None) => false,
            }
        });
        let is_right = looking.await.unwrap_or(false);
        match user {
            None => Err(Denied::UnknownUser),
            Some(_) if !is_right => Err(Denied::BadPassword),
            Some(user) if !user.enabled => Err(Denied::Disabled),
            Some(user) => Ok(user),
        }
    }

    /// What a user's proof is told by, and a fresh word to prove it with; for a name that nobody has,
    /// what no proof fits. Nothing without randomness.
    pub async fn verifier(&self, name: &str) -> Option<(Verifier, String)> {
        let nonce = STANDARD_NO_PAD.encode(random::<18>().ok()?);
        let (inner, asked) = (Arc::clone(&self.0), folded(name));
        // The first decoy takes its time to make.
        let made = tokio::task::spawn_blocking(move || Some(inner.decoy()?.verifier(&asked)));
        let fake = made.await.ok().flatten()?;
        let known = self.find(name).and_then(|user| user.verifier());
        Some((known.unwrap_or(fake), nonce))
    }

    /// Who has proved that he knows the password.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn proved(&self, name: &str, good: bool) -> Result<Arc<User>, Denied> {
        match self.find(name) {
            None => Err(Denied::UnknownUser),
            Some(_) if !good => Err(Denied::BadPassword),
            Some(user) if !user.enabled => Err(Denied::Disabled),
            Some(user) => Ok(user),
        }
    }

    /// Whom somebody else vouches for by this name: the user who has it, or one of whom nothing is said here,
    /// who sends with these addresses, or as anybody if there are none said. Nothing where the users cannot
    /// be read: he may be disabled.
    ///
    /// # Errors
    ///
    /// [`Denied::Disabled`].
    #[must_use]
    pub fn vouched(
        &self,
        name: &str,
        own: Option<Vec<Mailbox>>,
    ) -> Option<Result<Arc<User>, Denied>> {
        Some(match self.find(name) {
            _ if self.0.trouble.is_some() => return None,
            Some(user) if !user.enabled => Err(Denied::Disabled),
            Some(user) => Ok(user),
            None => Ok(Arc::new(User::guest(folded(name), own))),
        })
    }

    /// Whether a user who was judged is still who he was then.
    #[must_use]
    pub fn is_still(&self, user: &Arc<User>) -> bool {
        match self.find(&user.name) {
            Some(now) => Arc::ptr_eq(&now, user),
            None => user.kept.is_none(),
        }
    }

    /// Whether a login may be looked at; it counts as wrong until it is forgiven. Not where too
    /// many by this name from this address were wrong of late.
    #[must_use]
    pub fn may_guess(&self, name: &str, client: IpAddr, limit: Limit) -> bool {
        let (name, now) = (folded(name), self.0.clock.elapsed());
        let mut guesses = lock(&self.0.guesses);
        if guesses.is_banned(&name, client, now, limit) {
            return false;
        }
        guesses.failed(&name, client, now, limit);
        true
    }

    /// Whether no login by this name from this address is looked at now, or none from this address.
    #[must_use]
    pub fn is_banned(&self, name: &str, client: IpAddr, limit: Limit) -> bool {
        let now = self.0.clock.elapsed();
        lock(&self.0.guesses).is_banned(&folded(name), client, now, limit)
    }

    /// Takes back what [`Users::may_guess`] has counted: nobody could say whether the login was wrong. Where
    /// somebody said already that he does not know the name, it goes on counting against the address: names
    /// could be tried without end otherwise.
    pub fn not_judged(&self, name: &str, client: IpAddr, is_unknown: bool) {
        lock(&self.0.guesses).taken_back(&folded(name), client, is_unknown);
    }

    /// Notes that a login was good that [`Users::may_guess`] was asked about.
    pub fn forgive(&self, name: &str, client: IpAddr) {
        lock(&self.0.guesses).succeeded(&folded(name), client);
    }

    /// Counts a login of a user, for people.
    pub fn count(&self, name: &str, client: IpAddr, good: bool) {
        let name = folded(name);
        // A count is kept of users only: of other names there is no end.
        if self.0.all.load().contains_key(&name) {
            let mut logins = lock(&self.0.logins);
            let of_user = logins.entry(name).or_default();
            match good {
                true => of_user.last = Some((self.0.clock.now(), client)),
                false => of_user.failed += 1,
            }
        }
    }

    /// Uses one recipient of a user's quota.
    ///
    /// # Errors
    ///
    /// How long to wait for the next one.
    pub fn charge(&self, user: &User, now: Duration) -> Result<(), Duration> {
        let Some(quota) = user.quota else { return Ok(()) };
        lock(&self.0.used).charge(user.name.clone(), quota, now)
    }

    /// Adds a user. Blocks, as the other changes do.
    ///
    /// # Errors
    ///
    /// [`UserError`]; nothing was changed.
    pub fn add(
        &self,
        name: &str,
        secret: Secret,
        send_as: Vec<AddressPattern>,
        quota: Option<Rate>,
    ) -> Result<Arc<User>, UserError> {
        let kept = secret.keep()?;
        let (name, password_since) = (folded(name), self.0.clock.now());
        self.change(|all| {
            if all.contains_key(&name) {
                return Err(UserError::Exists(name.clone()));
            }
            if all.len() >= USERS_MAX {
                return Err(UserError::TooMany);
            }
            let name = name.clone();
            let kept = Some(kept);
            let own = None;
            let user = User { name, enabled: true, send_as, own, quota, password_since, kept };
            let user = Arc::new(user);
            all.insert(user.name.clone(), Arc::clone(&user));
            Ok(user)
        })
    }

    /// Changes a user.
    ///
    /// # Errors
    ///
    /// [`UserError`]; nothing was changed.
    pub fn set(&self, name: &str, wish: UserChange) -> Result<Arc<User>, UserError> {
        let kept = wish.secret.map(Secret::keep).transpose()?;
        let (name, now) = (folded(name), self.0.clock.now());
        self.change(|all| {
            let old = all.get(&name).ok_or_else(|| UserError::Unknown(name.clone()))?;
            let mut user = User::clone(old);
            if let Some(kept) = kept {
                (user.kept, user.password_since) = (Some(kept), now);
            }
            user.enabled = wish.enabled.unwrap_or(user.enabled);
            user.send_as = wish.send_as.unwrap_or(user.send_as);
            user.quota = wish.quota.unwrap_or(user.quota);
            let user = Arc::new(user);
            all.insert(name.clone(), Arc::clone(&user));
            Ok(user)
        })
    }

    /// Takes a user away.
    ///
    /// # Errors
    ///
    /// [`UserError`]; nothing was changed.
    pub fn remove(&self, name: &str) -> Result<Arc<User>, UserError> {
        let name = folded(name);
        let gone =
            self.change(|all| all.remove(&name).ok_or_else(|| UserError::Unknown(name.clone())))?;
        lock(&self.0.logins).remove(&name);
        Ok(gone)
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut All) -> Result<T, UserError>,
    ) -> Result<T, UserError> {
        if let Some(trouble) = &self.0.trouble {
            return Err(UserError::Unread(trouble.clone()));
        }
        let _one_at_a_time = lock(&self.0.changing);
        let mut all = All::clone(&self.0.all.load());
        let done = change(&mut all)?;
        let path = self.0.path.clone();
        file::write(&path, &all).map_err(|source| UserError::Write { path, source })?;
        self.0.all.store(Arc::new(all));
        Ok(done)
    }
}

impl Inner {
    fn decoy(&self) -> Option<&Decoy> {
        let make = || Decoy::new(&decoy_key::beside(&self.path)?).ok();
        self.decoy.get_or_init(make).as_ref()
    }
}

/// Names differ in more than capitals.
fn folded(name: &str) -> String {
    name.to_lowercase()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use mailroot_common::address::ReversePath;
    use mailroot_common::units::Timestamp;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const LIMIT: Limit = Limit { failures: 2, ban: Some(Duration::from_secs(900)) };

    fn users(place: &tempfile::TempDir) -> Users {
        let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000), 1);
        Users::open(place.path().join("users.json"), clock)
    }

    fn pattern(text: &str) -> AddressPattern {
        AddressPattern::parse(text).unwrap()
    }

    fn secret(text: &str) -> Secret {
        Secret::Password(Zeroizing::new(text.to_owned()))
    }

    async fn judged(all: &Users, name: &str, password: &str) -> Result<String, Denied> {
        let password = Zeroizing::new(password.to_owned());
        all.check(name, password, HERE).await.map(|user| user.name.clone())
    }

    #[tokio::test]
    async fn users_are_kept_changed_and_judged() {
        let place = tempfile::tempdir().unwrap();
        let first = users(&place);
        first.add("Scanner01", secret("first"), vec![pattern("scanner*@x.example")], None).unwrap();
        assert!(matches!(
            first.add("scanner01", secret("x"), Vec::new(), None),
            Err(UserError::Exists(_))
        ));
        let all = users(&place);
        assert_eq!(judged(&all, "SCANNER01", "first").await.as_deref(), Ok("scanner01"));
        assert_eq!(judged(&all, "scanner01", "second").await, Err(Denied::BadPassword));
        assert_eq!(judged(&all, "nobody", "first").await, Err(Denied::UnknownUser));
        let second = Some(secret("second"));
        all.set("scanner01", UserChange { secret: second, ..UserChange::default() }).unwrap();
        assert_eq!(judged(&all, "scanner01", "first").await, Err(Denied::BadPassword));
        all.set("scanner01", UserChange { enabled: Some(false), ..UserChange::default() }).unwrap();
        assert_eq!(judged(&all, "scanner01", "second").await, Err(Denied::Disabled));
        all.remove("scanner01").unwrap();
        assert!(matches!(all.remove("scanner01"), Err(UserError::Unknown(_))));
    }

    #[test]
    fn senders_are_held_to_their_addresses() {
        let place = tempfile::tempdir().unwrap();
        let all = users(&place);
        let user = all.add("a", secret("x"), vec![pattern("scanner*@x.example")], None).unwrap();
        let sender = |text: &str| ReversePath::Mailbox(Mailbox::parse(text).unwrap());
        assert!(user.may_send_as(&sender("Scanner7@x.example")));
        assert!(user.may_send_as(&ReversePath::Null));
        assert!(!user.may_send_as(&sender("boss@x.example")));
        assert!(
            all.add("b", secret("x"), Vec::new(), None)
                .unwrap()
                .may_send_as(&sender("boss@x.example"))
        );
    }

    #[test]
    fn whom_a_directory_vouches_for_sends_with_his_own_addresses() {
        let place = tempfile::tempdir().unwrap();
        let all = users(&place);
        let sender = |text: &str| ReversePath::Mailbox(Mailbox::parse(text).unwrap());
        let own = || Some(vec![Mailbox::parse("Ada@x.example").unwrap()]);
        let ada = all.vouched("Ada", own()).unwrap().unwrap();
        assert!(ada.may_send_as(&sender("ada@X.example")) && ada.may_send_as(&ReversePath::Null));
        assert!(!ada.may_send_as(&sender("boss@x.example")) && all.is_still(&ada));
        let nobody = all.vouched("Ada", Some(Vec::new())).unwrap().unwrap();
        assert!(!nobody.may_send_as(&sender("ada@x.example")));
        // What is said of him here holds instead.
        all.add("ada", secret("x"), vec![pattern("boss@x.example")], None).unwrap();
        assert!(!all.is_still(&ada));
        let ada = all.vouched("ada", own()).unwrap().unwrap();
        assert!(ada.may_send_as(&sender("boss@x.example")));
        assert!(!ada.may_send_as(&sender("ada@x.example")));
        all.set("ada", UserChange { enabled: Some(false), ..UserChange::default() }).unwrap();
        assert!(matches!(all.vouched("ADA", own()), Some(Err(Denied::Disabled))));
    }

    #[test]
    fn what_nobody_could_judge_is_no_wrong_guess() {
        let place = tempfile::tempdir().unwrap();
        let all = users(&place);
        for _ in 0..10 {
            assert!(all.may_guess("a", HERE, LIMIT));
            all.not_judged("A", HERE, false);
        }
        assert!(all.may_guess("a", HERE, LIMIT) && all.may_guess("a", HERE, LIMIT));
        assert!(!all.may_guess("a", HERE, LIMIT));
    }

    #[test]
    fn names_are_not_tried_without_end_while_somebody_gives_no_answer() {
        let place = tempfile::tempdir().unwrap();
        let all = users(&place);
        let tried = (0..1000).take_while(|number| {
            let name = format!("user{number}");
            let is_looked_at = all.may_guess(&name, HERE, LIMIT);
            all.not_judged(&name, HERE, true);
            is_looked_at
        });
        assert_eq!(tried.count(), 20);
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_looks_the_same_after_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let salt = || async { users(&place).verifier("nobody").await.unwrap().0.salt };
        assert_eq!(salt().await, salt().await);
        let mode = std::fs::metadata(place.path().join("decoy.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn guesses_are_counted_for_each_name_and_address() {
        let place = tempfile::tempdir().unwrap();
        let all = users(&place);
        all.add("a", secret("x"), Vec::new(), None).unwrap();
        assert!(all.may_guess("A", HERE, LIMIT));
        all.count("A", HERE, false);
        assert!(all.may_guess("a", HERE, LIMIT), "counted before it is looked at");
        assert!(!all.may_guess("a", HERE, LIMIT));
        let elsewhere = "192.0.2.1".parse().unwrap();
        assert!(all.may_guess("a", elsewhere, LIMIT), "others are not locked out");
        assert_eq!(all.list()[0].1.failed, 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("users.json");
        std::fs::write(&path, "{ half").unwrap();
        let grant = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        grant(0o644);
        assert!(users(&place).trouble().unwrap().contains("chmod 600"));
        grant(0o600);
        let all = users(&place);
        assert!(!all.trouble().unwrap().contains("chmod"));
        assert!(matches!(all.add("a", secret("x"), Vec::new(), None), Err(UserError::Unread(_))));
        assert!(all.vouched("a", None).is_none(), "he may be disabled");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{ half");
    }
}
