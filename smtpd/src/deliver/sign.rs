//! Signing: the `DKIM-Signature` fields that a message leaves with.
//!
//! In: leased messages on their way to another host. Out: the same, with their fields in front; or for
//! now an end with words, because mail that is to be signed never leaves without. A message is signed
//! once for an attempt, on the octets that leave: nothing converts them afterwards, since a host that
//! cannot take them is given nothing. The body goes through the digest in pieces.
//!
//! A server without keys pays nothing; one with keys looks at the header of what it sends. Keys are read
//! when the first message needs them, and again after each change or reload of the configuration.

use std::io;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{Context, SHA256};
use mailroot_common::address::Domain;
use mailroot_common::config::DkimEntry;
use mailroot_common::status::EnhancedCode;
use mailroot_common::units::Timestamp;
use smtpd_core::message::header::{self, HeaderEnd};
use smtpd_core::message::sign::{Covered, Draft, Signer, SimpleBody, author_domain};
use smtpd_core::policy::relay::RelayPolicy;
use smtpd_core::queue::outcome::{Outcome, Stage};

use super::Settings;
use super::finish::finish;
use super::front::Front;
use super::job::Job;
use super::room::Room;
use crate::config::{Secrets, signing_key};
use crate::dkim::SigningKey;
use crate::queue::BodyReader;

/// The longest header that is signed.
const HEADER_OCTETS_MAX: usize = 1 << 20;

/// What mail is signed with.
#[derive(Debug)]
pub struct Signing {
    keys: Vec<Arc<Key>>,
    secrets: Secrets,
    relay: RelayPolicy,
}

/// A key, once it was read.
#[derive(Debug)]
struct Key {
    entry: DkimEntry,
    ready: OnceLock<SigningKey>,
}

impl Signing {
    /// By these entries; whether a client is a stranger, whose mail is not signed, `relay` says.
    #[must_use]
    pub fn new(entries: &[DkimEntry], secrets: Secrets, relay: RelayPolicy) -> Self {
        let key =
            |entry: &DkimEntry| Arc::new(Key { entry: entry.clone(), ready: OnceLock::new() });
        Self { keys: entries.iter().map(key).collect(), secrets, relay }
    }

    /// The keys for a domain: its own, else those of the nearest domain above that sign for it.
    fn keys_of(&self, domain: &Domain) -> Vec<&Arc<Key>> {
        let own = |key: &&Arc<Key>| key.entry.domain == *domain;
        let above = |key: &&Arc<Key>| key.entry.subdomains && domain.is_below(&key.entry.domain);
        let found: Vec<_> = self.keys.iter().filter(own).collect();
        if !found.is_empty() {
            return found;
        }
        let length = |key: &Arc<Key>| key.entry.domain.as_str().len();
        let nearest = self.keys.iter().filter(above).map(length).max();
        self.keys.iter().filter(above).filter(|key| Some(length(key)) == nearest).collect()
    }

    /// Whether the mail is a stranger's, that only the recipient's domain lets through.
    fn is_strangers(&self, settings: &Settings, job: &Job, now: Timestamp) -> bool {
        let recipient = job.first_recipient();
        let client = job.envelope.origin.client;
        client.zip(recipient).is_some_and(|(client, recipient)| {
            self.relay.is_strangers(client, recipient, &settings.table, now)
        })
    }
}

impl Key {
    /// Reads the key unless that was done.
    async fn ready(self: &Arc<Self>, secrets: &Secrets) -> Result<&SigningKey, String> {
        if let Some(key) = self.ready.get() {
            return Ok(key);
        }
        let (own, secrets) = (Arc::clone(self), secrets.clone());
        let read = tokio::task::spawn_blocking(move || signing_key(&secrets, &own.entry)).await;
        let key = read
            .map_err(|_| "the key could not be read".to_owned())?
            .map_err(|error| error.to_string())?;
        Ok(self.ready.get_or_init(|| key))
    }
}

/// Signs each message whose author's domain has keys. One that cannot be signed ends here for now.
pub(super) async fn sign_all(room: &Arc<Room>, settings: &Settings, jobs: &mut [Job]) {
    let signing = &settings.signing;
    if signing.keys.is_empty() {
        return;
    }
    let now = room.clock.now();
    for job in jobs.iter_mut().filter(|job| job.is_open()) {
        if signing.is_strangers(settings, job, now) {
            continue;
        }
        match sign(signing, job, now).await {
            Ok(Some(front)) => job.front = Some(Arc::new(front)),
            Ok(None) => {}
            Err(why) => {
                let text = format!("the message cannot be signed and waits: {why}");
                let status = EnhancedCode::transient(7, 5);
                job.end_all(&Outcome::local(now, Stage::Sign, status, text));
                finish(room, job).await;
            }
        }
    }
}

/// The fields of one message, one for each key; nothing if its author's domain has none.
async fn sign(signing: &Signing, job: &Job, now: Timestamp) -> Result<Option<Front>, String> {
    let Some(lease) = &job.lease else { return Ok(None) };
    let unreadable = |error: io::Error| format!("it cannot be read here: {error}");
    let mut reader = lease.open();
    let beginning = read_beginning(&mut reader).await.map_err(unreadable)?;
    let facts = header::scan(&beginning, HEADER_OCTETS_MAX);
    let end = match facts.end {
        HeaderEnd::Open if beginning.len() >= HEADER_OCTETS_MAX => {
            return Err(format!("its header has more than {HEADER_OCTETS_MAX} octets"));
        }
        HeaderEnd::Open => beginning.len(),
        HeaderEnd::EmptyLine | HeaderEnd::NotField => facts.header_octets,
    };
    let (header, rest) = beginning.split_at(end);
    let author = author_domain(header, job.sender());
    let keys = author.as_ref().map(|domain| signing.keys_of(domain)).unwrap_or_default();
    if keys.is_empty() {
        return Ok(None);
    }
    let mut ready = Vec::with_capacity(keys.len());
    for key in keys {
        ready.push((&key.entry, key.ready(&signing.secrets).await?));
    }
    let digest = digest_of(rest, &mut reader).await.map_err(unreadable)?;
    let mut octets = Vec::new();
    for (entry, key) in ready {
        let covered = Covered::of(header, &entry.headers);
        let (domain, selector) = (&entry.domain, &entry.selector);
        let signer = Signer { domain, selector, algorithm: key.algorithm(), at: now };
        let draft = Draft::new(&signer, &covered, digest.as_ref());
        let signature = key
            .sign(&draft.to_be_signed(&covered))
            .map_err(|error| format!("the key {}: {error}", entry.key))?;
        octets.extend(draft.finish(&signature));
    }
    Ok(Some(Front { octets, replaces: 0 }))
}

/// The octets up to the end of the header, and some behind it.
async fn read_beginning(reader: &mut BodyReader) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    while let Some(piece) = reader.next().await? {
        octets.extend_from_slice(piece);
        let is_over = header::scan(&octets, HEADER_OCTETS_MAX).end != HeaderEnd::Open;
        if is_over || octets.len() >= HEADER_OCTETS_MAX {
            break;
        }
    }
    Ok(octets)
}

/// The SHA-256 of the body in simple form: of what was read of it already, and of what follows.
async fn digest_of(begun: &[u8], reader: &mut BodyReader) -> io::Result<aws_lc_rs::digest::Digest> {
    let (mut body, mut digest) = (SimpleBody::default(), Context::new(&SHA256));
    body.push(begun, |octets| digest.update(octets));
    while let Some(piece) = reader.next().await? {
        body.push(piece, |octets| digest.update(octets));
    }
    body.finish(|octets| digest.update(octets));
    Ok(digest.finish())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mailroot_common::config::{Secret, Selector};

    use super::*;

    #[test]
    fn a_domain_is_signed_for_by_its_own_keys_else_by_the_nearest_above() {
        let entry = |domain: &str, selector: &str, subdomains| DkimEntry {
            domain: Domain::parse(domain).unwrap(),
            selector: Selector::parse(selector).unwrap(),
            key: Secret::File("k".to_owned()),
            subdomains,
            headers: Vec::new(),
        };
        let entries = [
            entry("a.example", "one", true),
            entry("b.a.example", "two", true),
            entry("b.a.example", "three", false),
            entry("c.example", "four", false),
        ];
        let relay = RelayPolicy {
            list: smtpd_core::policy::access::List::default(),
            authenticated: true,
            anonymous: true,
        };
        let signing = Signing::new(&entries, Secrets::in_directory(Path::new("/nowhere")), relay);
        for (domain, expected) in [
            ("a.example", "one"),
            ("x.a.example", "one"),
            ("b.a.example", "two three"),
            ("x.b.a.example", "two"),
            ("ba.example", ""),
            ("c.example", "four"),
            ("x.c.example", ""),
        ] {
            let keys = signing.keys_of(&Domain::parse(domain).unwrap());
            let found: Vec<&str> = keys.iter().map(|key| key.entry.selector.as_str()).collect();
            assert_eq!(found.join(" "), expected, "{domain}");
        }
    }
}
