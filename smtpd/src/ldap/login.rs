//! Logins of users whose passwords the directory judges: the name leads to an entry, and a bind as that
//! entry says whether the password is right. A name that nobody has costs a bind as well, as an entry that
//! there is not.

use std::time::Duration;

use mailroot_common::address::Mailbox;
use mailroot_common::config::ldap::Ldap;
use smtpd_core::ldap::logins::{self, Verdict, verdict};
use smtpd_core::ldap::message::{Entry, Search};
use tokio::sync::Semaphore;

use super::{Directory, Means, Outage, named};
use crate::observe::Level;

/// How long a login waits for one server, so that another one is asked while the client still waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a directory says of a name and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// The password is right.
    Right {
        /// By which name the user is known.
        name: String,
        /// As whom the user may send; as anybody if there is no list.
        senders: Option<Vec<Mailbox>>,
    },
    /// It is wrong, or the user may not log in.
    Wrong,
    /// There is no such user.
    Unknown,
}

/// How users are found, and how many passwords are tried at once.
#[derive(Debug)]
pub(super) struct Logins {
    rules: logins::Logins,
    seats: Semaphore,
}

impl Logins {
    pub(super) fn of(keys: &Ldap) -> Self {
        Self { rules: logins::Logins::of(keys), seats: Semaphore::new(keys.connections.into()) }
    }
}

impl Directory {
    /// Whether this is the password of a user.
    ///
    /// # Errors
    ///
    /// [`Outage`] if no directory says.
    pub async fn login(&self, name: &str, password: &str) -> Result<Login, Outage> {
        // A bind without a password proves nothing, and many directories say yes to it.
        if password.is_empty() {
            return Ok(Login::Wrong);
        }
        let (keys, means) = (&self.0.keys, self.0.means.load_full());
        let logins = &self.0.logins;
        let patience = keys.timeout.as_duration().min(PATIENCE);
        let seat = tokio::time::timeout(patience, logins.seats.acquire()).await;
        let Ok(Ok(_seat)) = seat else {
            let words = "too many passwords are tried at the directory (ldap.connections)";
            return Err(Outage(words.to_owned()));
        };
        let found = self
            .entry_of(&means, name, patience)
            .await?
            .and_then(|it| named_user(&means, logins, it));
        let dn = found.as_ref().map_or_else(|| decoy(keys), |(entry, _)| entry.dn.clone());
        let ended = self.0.pool.try_password(&means, (&dn, password), patience).await?;
        let Some((entry, name)) = found else { return Ok(Login::Unknown) };
        match verdict(&ended) {
            Verdict::Right => Ok(Login::Right { name, senders: logins.rules.senders(&entry) }),
            Verdict::Wrong => Ok(Login::Wrong),
            Verdict::Unknown => {
                let dn = named(&means, &entry.dn);
                Err(Outage(format!("the bind as {dn} says neither yes nor no: {ended}")))
            }
        }
    }

    /// The one entry of a user.
    async fn entry_of(
        &self,
        means: &Means,
        name: &str,
        patience: Duration,
    ) -> Result<Option<Entry>, Outage> {
        let (keys, rules) = (&self.0.keys, &self.0.logins.rules);
        let (filter, attributes) = (rules.filter(name), rules.attributes());
        let seconds = u32::try_from(patience.as_secs()).unwrap_or(1);
        let wanted = Search {
            base: keys.base.as_deref().unwrap_or_default(),
            filter: Some(&filter),
            attributes: &attributes,
            entries: 2,
            seconds: seconds.max(1),
        };
        let mut entries = self.0.pool.search(means, &wanted, patience).await?.entries.into_iter();
        match (entries.next(), entries.next()) {
            (Some(first), Some(second)) => {
                let line = means.log.line(Level::Warn, "ldap-login-ambiguous");
                let line = line.word("server", &means.server).text("user", name);
                let (first, second) = (named(means, &first.dn), named(means, &second.dn));
                line.text("entries", format_args!("{first} and {second}")).send();
                Ok(None)
            }
            (Some(entry), None) if entry.dn.is_empty() => {
                Err(Outage("the directory gives an entry that has no name".to_owned()))
            }
            (entry, _) => Ok(entry),
        }
    }
}

/// An entry with the name by which its user is known; nobody without one is let in.
fn named_user(means: &Means, logins: &Logins, entry: Entry) -> Option<(Entry, String)> {
    let Some(name) = logins.rules.name(&entry) else {
        let line = means.log.line(Level::Warn, "ldap-login-nameless");
        let line = line.word("server", &means.server).text("entry", named(means, &entry.dn));
        let attribute = logins.rules.name_attribute();
        line.text("error", format_args!("no {attribute} that can be the name of a user")).send();
        return None;
    };
    Some((entry, name))
}

/// The name of an entry that there is not.
fn decoy(keys: &Ldap) -> String {
    let base = keys.base.as_deref().unwrap_or_default();
    format!("cn={:032x},{base}", fastrand::u128(..))
}
