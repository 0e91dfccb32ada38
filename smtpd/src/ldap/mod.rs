//! The directory that knows the recipients of a virtual server, its senders where that is asked, and users
//! who log in.
//!
//! In: addresses. Out: whether there is such a recipient, and who gets its mail. What is asked and what
//! answers mean is decided by [`smtpd_core::ldap`]; this room has the connections, the time and the
//! memory of what was said. That nobody answers is an [`Outage`], which never decides anything about
//! mail but that it waits.

mod connection;
mod login;
mod pool;
#[cfg(test)]
mod tests;
mod ticket;
mod trial;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use mailroot_common::address::{Domain, Host, Mailbox};
use mailroot_common::config::ldap::{Ldap, UnknownRecipient, UnknownSender};
use smtpd_core::ldap::cache::{self, Cache};
use smtpd_core::ldap::expand::{Bounds, Expansion, Ours, Resolution, key};
use smtpd_core::ldap::message::{Entry, Search};
use smtpd_core::ldap::schema::{Meaning, Schema, Target, next_range};

pub use self::connection::DirectoryError;
pub use self::login::Login;
use self::login::Logins;
pub use self::pool::Outage;
use self::pool::Pool;
use crate::clock::Clock;
use crate::config::Secrets;
use crate::net::Net;
use crate::observe::{Counters, Level, Log};
use crate::resolve::Resolver;
use crate::tls::ClientTls;

/// How long all look-ups for one address may take at once. What was found is kept for the next attempt.
const EXPANSION: Duration = Duration::from_mins(1);
/// Addresses that were not followed to their end, and how long that is kept.
const UNFINISHED_MAX: usize = 8;
const UNFINISHED: Duration = Duration::from_hours(6);

/// What is said of an entry for which a server names another one, or that names a host that is none.
pub const ELSEWHERE: &str =
    "which lies in another directory (referrals are not followed) or names no host for its mailbox";

/// What a directory is asked with.
#[derive(Clone, Debug)]
pub struct Means {
    /// The virtual server's name, for the log.
    pub server: Arc<str>,
    /// The names by which it goes, so that a mailbox of its own is known for one.
    pub own_names: Vec<Domain>,
    /// Time.
    pub clock: Clock,
    /// The network.
    pub net: Net,
    /// Asks DNS.
    pub resolver: Resolver,
    /// What connections come under TLS with.
    pub tls: ClientTls,
    /// Where the password is kept.
    pub secrets: Secrets,
    /// The log.
    pub log: Log,
    /// The virtual server's counters.
    pub counters: Arc<Counters>,
}

/// The directory of a virtual server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Directory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Arc<Ldap>,
    schema: Schema,
    means: ArcSwap<Means>,
    pool: Pool,
    logins: Logins,
    cache: Mutex<Cache<Asked>>,
    unfinished: Mutex<VecDeque<Unfinished>>,
}

/// An address that was not followed to its end.
#[derive(Debug)]
struct Unfinished {
    address: Box<str>,
    since: Duration,
    expansion: Expansion,
}

/// What was asked, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Asked {
    Address(Box<str>),
    Entry(Box<str>),
}

impl From<&Target> for Asked {
    fn from(target: &Target) -> Self {
        match target {
            Target::Address(address) => Self::Address(key(address)),
            Target::Entry(dn) => Self::Entry(dn.clone()),
        }
    }
}

impl Directory {
    /// Goes by these keys; nothing is asked yet.
    #[must_use]
    pub fn new(keys: Ldap, means: Means) -> Self {
        let keys = Arc::new(keys);
        let rules = cache::Rules {
            positive: keys.cache.positive.as_duration(),
            negative: keys.cache.negative.as_duration(),
            size: keys.cache.size as usize,
        };
        Self(Arc::new(Inner {
            schema: Schema::of(&keys),
            means: ArcSwap::from_pointee(means),
            pool: Pool::new(Arc::clone(&keys)),
            logins: Logins::of(&keys),
            cache: Mutex::new(Cache::new(rules)),
            unfinished: Mutex::default(),
            keys,
        }))
    }

    /// The keys that it goes by.
    #[must_use]
    pub fn keys(&self) -> &Ldap {
        &self.0.keys
    }

    /// Asks with these means from now on; what is known stays known.
    pub fn adopt(&self, means: Means) {
        self.0.means.store(Arc::new(means));
    }

    /// Forgets which servers are left alone.
    pub fn ask_anew(&self) {
        self.0.pool.ask_anew();
    }

    /// What happens to mail for an address that it does not know.
    #[must_use]
    pub fn unknown(&self) -> UnknownRecipient {
        self.0.keys.unknown
    }

    /// Whether it is asked about senders.
    #[must_use]
    pub fn looks_at_senders(&self) -> bool {
        let rules = &self.0.keys.senders;
        rules.primary || rules.unknown == UnknownSender::Refuse
    }

    /// The own address of who has this one; nothing if nobody has it.
    ///
    /// # Errors
    ///
    /// [`Outage`] if no directory says.
    pub async fn primary(&self, address: &Mailbox) -> Result<Option<Mailbox>, Outage> {
        if is_postmaster(address) {
            return Ok(Some(address.clone()));
        }
        let found = self.find(&Target::Address(address.clone())).await?;
        Ok(found.map(|it| it.mail.clone().unwrap_or_else(|| address.clone())))
    }

    /// Whether there is such a recipient.
    ///
    /// # Errors
    ///
    /// [`Outage`] if no directory says.
    pub async fn knows(&self, address: &Mailbox) -> Result<bool, Outage> {
        if is_postmaster(address) {
            return Ok(true);
        }
        self.find(&Target::Address(address.clone())).await.map(|found| found.is_some())
    }

    /// Who gets the mail of an address of ours; `is_local` tells which domains are.
    ///
    /// # Errors
    ///
    /// [`Outage`] if no directory says.
    pub async fn resolve(
        &self,
        address: &Mailbox,
        is_local: &(dyn Fn(&Domain) -> bool + Sync),
    ) -> Result<Resolution, Outage> {
        let (since, mut expansion) = self.begin(address);
        let means = self.0.means.load_full();
        let is_here = |host: &Host| match host {
            Host::Name(name) => {
                let names = || means.own_names.iter().chain(&self.0.keys.own_hosts);
                name.as_str() == "localhost" || names().any(|own| own == name) || is_local(name)
            }
            // One that we listen at is found out when it is called.
            Host::Address(_) => false,
        };
        let ours = Ours { is_local, is_here: &is_here };
        let following = async {
            while let Some(target) = expansion.ask() {
                let found = self.find(&target).await?;
                expansion.answer(found.as_deref(), ours);
            }
            Ok::<(), Outage>(())
        };
        let followed = tokio::time::timeout(EXPANSION, following).await;
        let followed = followed.unwrap_or_else(|_| {
            let seconds = EXPANSION.as_secs();
            Err(Outage(format!(
                "it was not followed to its end in {seconds} s; the next attempt goes on"
            )))
        });
        if let Err(outage) = followed {
            self.put_aside(Unfinished { address: key(address), since, expansion });
            return Err(outage);
        }
        if let Some(dn) = expansion.only_elsewhere() {
            return Err(Outage(format!("it leads to {dn}, {ELSEWHERE}")));
        }
        Ok(match expansion.end() {
            Resolution::Unknown if is_postmaster(address) => Resolution::Here,
            resolution => resolution,
        })
    }

    /// Where the last attempt has left off, or the beginning.
    fn begin(&self, address: &Mailbox) -> (Duration, Expansion) {
        let (name, now) = (key(address), self.0.means.load().clock.elapsed());
        let mut unfinished = lock(&self.0.unfinished);
        unfinished.retain(|it| now.saturating_sub(it.since) < UNFINISHED);
        let place = unfinished.iter().position(|it| it.address == name);
        if let Some(kept) = place.and_then(|place| unfinished.remove(place)) {
            return (kept.since, kept.expansion);
        }
        let keys = &self.0.keys.groups;
        let bounds = Bounds { members: keys.members, depth: keys.depth };
        (now, Expansion::new(address, bounds))
    }

    /// Keeps what an attempt has come to, unless another that began earlier has come further.
    fn put_aside(&self, left_off: Unfinished) {
        let mut unfinished = lock(&self.0.unfinished);
        let of_it = |it: &Unfinished| it.address == left_off.address;
        if unfinished.iter().any(|it| of_it(it) && it.since < left_off.since) {
            return;
        }
        unfinished.retain(|it| !of_it(it));
        unfinished.truncate(UNFINISHED_MAX - 1);
        unfinished.push_front(left_off);
    }

    /// What an address or an entry means, from memory or from a server.
    async fn find(&self, target: &Target) -> Result<Option<Arc<Meaning>>, Outage> {
        let means = self.0.means.load_full();
        let asked = Asked::from(target);
        let known = lock(&self.0.cache).get(&asked, means.clock.elapsed());
        if let Some(known) = known {
            means.counters.ldap_cached.add_one();
            return Ok(known);
        }
        let began = means.clock.elapsed();
        let found = self.ask(&means, target).await;
        means.counters.ldap_times.add(means.clock.elapsed().saturating_sub(began));
        let (counter, word) = match &found {
            Ok(Some(_)) => (&means.counters.ldap_found, "found"),
            Ok(None) => (&means.counters.ldap_not_found, "not-found"),
            Err(_) => (&means.counters.ldap_failed, "failed"),
        };
        counter.add_one();
        let line = means.log.line(Level::Debug, "ldap").word("server", &means.server);
        let line = line.word("result", word);
        let line = match target {
            Target::Address(address) => line.text("address", address),
            Target::Entry(dn) => line.text("entry", dn),
        };
        match &found {
            Ok(Some(meaning)) => line.text("dn", &meaning.dn).send(),
            Ok(None) => line.send(),
            Err(outage) => line.text("error", outage).send(),
        }
        let found = found?;
        self.remember(target, found.clone(), means.clock.elapsed());
        Ok(found)
    }

    fn remember(&self, target: &Target, found: Option<Arc<Meaning>>, now: Duration) {
        lock(&self.0.cache).put(Asked::from(target), found, now);
    }

    async fn ask(&self, means: &Means, target: &Target) -> Result<Option<Arc<Meaning>>, Outage> {
        let (keys, schema) = (&self.0.keys, &self.0.schema);
        let filter = match target {
            Target::Address(address) => Some(schema.filter(address)),
            Target::Entry(_) => None,
        };
        let attributes = schema.attributes();
        let seconds = u32::try_from(keys.timeout.as_duration().as_secs()).unwrap_or(1);
        let wanted = Search {
            base: match target {
                Target::Address(_) => keys.base.as_deref().unwrap_or_default(),
                Target::Entry(dn) => dn,
            },
            filter: filter.as_ref(),
            attributes: &attributes,
            // One more than there should be, so that two of one address are noticed.
            entries: 2,
            seconds: seconds.max(1),
        };
        let found = self.0.pool.search(means, &wanted, keys.timeout.as_duration()).await?;
        if let (true, Target::Entry(dn)) = (found.is_elsewhere, target) {
            let line = means.log.line(Level::Warn, "ldap-elsewhere").word("server", &means.server);
            line.text("entry", dn).send();
            return Ok(Some(Arc::new(Meaning::elsewhere(dn))));
        }
        let mut entries = found.entries.into_iter();
        let Some(mut entry) = entries.next() else { return Ok(None) };
        if let (Target::Address(address), Some(other)) = (target, entries.next()) {
            return Err(Outage(format!(
                "the directory has several entries for {address}: {} and {}{}",
                named(means, &entry.dn),
                named(means, &other.dn),
                if found.has_more { " and more" } else { "" }
            )));
        }
        if let Some(text) = schema.bad_host(&entry) {
            let dn = named(means, &entry.dn);
            let why = format!("{text:?} of {dn} cannot be the host of a mailbox");
            let Target::Entry(dn) = target else { return Err(Outage(why)) };
            // The others of its group do not wait for that to be mended.
            let line = means.log.line(Level::Warn, "ldap-bad-host").word("server", &means.server);
            line.text("error", why).send();
            return Ok(Some(Arc::new(Meaning::elsewhere(dn))));
        }
        self.complete(means, &mut entry, wanted.seconds).await?;
        Ok(Some(Arc::new(schema.meaning(&entry))))
    }

    /// Asks for the rest of an attribute that the directory gives in parts.
    async fn complete(&self, means: &Means, entry: &mut Entry, seconds: u32) -> Result<(), Outage> {
        let most = self.0.keys.groups.members as usize;
        let mut next = next_range(entry);
        while let Some(name) = next.take() {
            let plain = name.split(';').next().unwrap_or_default();
            let is_part = |other: &str| other.split(';').next() == Some(plain);
            let count = |entry: &Entry| {
                let parts = entry.attributes.iter().filter(|(other, _)| is_part(other));
                parts.map(|(_, all)| all.len()).sum::<usize>()
            };
            // A group that is too large already is not read to its end; whoever follows it finds that.
            if count(entry) > most {
                break;
            }
            let attributes = [&*name];
            let base = entry.dn.clone();
            let wanted =
                Search { base: &base, filter: None, attributes: &attributes, entries: 1, seconds };
            let patience = self.0.keys.timeout.as_duration();
            let found = self.0.pool.search(means, &wanted, patience).await?;
            // Half a group is no answer.
            let part = found.entries.into_iter().next().filter(|part| count(part) > 0);
            let Some(part) = part else {
                let dn = named(means, &entry.dn);
                return Err(Outage(format!("the directory did not give the rest of {dn}: {name}")));
            };
            next = next_range(&part);
            entry.attributes.extend(part.attributes);
        }
        Ok(())
    }
}

/// An entry as it may be named in words that come into the log.
fn named<'a>(means: &Means, dn: &'a str) -> &'a str {
    if means.log.style().mask.is_some() { "an entry" } else { dn }
}

/// Whether it is an address that every domain has (RFC 5321 section 4.5.1).
fn is_postmaster(address: &Mailbox) -> bool {
    address.local().as_str().eq_ignore_ascii_case("postmaster")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
