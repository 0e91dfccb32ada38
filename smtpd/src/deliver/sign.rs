//! Signing: the `DKIM-Signature` fields that a message leaves with.
//!
//! In: a header as it leaves, and the body behind it. Out: one field for each key of the author's domain.
//! Nothing converts a message afterwards: a host that cannot take its octets is given nothing. The body
//! goes through the digest in pieces. Keys are read when the first message needs them, and again after
//! each change or reload of the configuration.

use std::io;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{Context, Digest, SHA256};
use mailroot_common::address::Domain;
use mailroot_common::config::DkimEntry;
use mailroot_common::units::Timestamp;
use smtpd_core::message::sign::{Covered, Draft, Signer, SimpleBody, author_domain};
use smtpd_core::policy::relay::RelayPolicy;

use super::Settings;
use super::job::Job;
use crate::config::{Secrets, signing_key};
use crate::dkim::SigningKey;
use crate::queue::BodyReader;

/// What mail is signed with.
#[derive(Debug)]
pub struct Signing {
    pub(super) keys: Vec<Arc<Key>>,
    pub(super) secrets: Secrets,
    relay: RelayPolicy,
    /// In whose name mail that is passed on is sealed, if it is.
    pub(super) sealer: Option<Domain>,
}

/// A key, once it was read.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) entry: DkimEntry,
    ready: OnceLock<SigningKey>,
}

impl Signing {
    /// By these entries; whether a client is a stranger, whose mail is not signed, `relay` says.
    #[must_use]
    pub fn new(entries: &[DkimEntry], secrets: Secrets, relay: RelayPolicy) -> Self {
        let key =
            |entry: &DkimEntry| Arc::new(Key { entry: entry.clone(), ready: OnceLock::new() });
        Self { keys: entries.iter().map(key).collect(), secrets, relay, sealer: None }
    }

    /// The same, where mail that is passed on is sealed in the name of a domain.
    #[must_use]
    pub fn sealing(self, domain: Option<Domain>) -> Self {
        Self { sealer: domain, ..self }
    }

    /// Whether there are no keys.
    pub(super) fn is_off(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys for a message with this header.
    pub(super) fn keys_for(
        &self,
        settings: &Settings,
        job: &Job,
        header: &[u8],
        now: Timestamp,
    ) -> Vec<Arc<Key>> {
        if self.is_off() || self.is_strangers(settings, job, now) {
            return Vec::new();
        }
        let author = author_domain(header, job.sender());
        let keys = author.as_ref().map(|domain| self.keys_of(domain)).unwrap_or_default();
        keys.into_iter().cloned().collect()
    }

    /// The fields of one message with this header and the SHA-256 of its body.
    ///
    /// # Errors
    ///
    /// Why it cannot be signed, for people.
    pub(super) async fn sign(
        &self,
        keys: &[Arc<Key>],
        header: &[u8],
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Vec<u8>, String> {
        let mut octets = Vec::new();
        for key in keys {
            let (entry, signing) = (&key.entry, key.ready(&self.secrets).await?);
            let covered = Covered::of(header, &entry.headers);
            let (domain, selector) = (&entry.domain, &entry.selector);
            let signer = Signer { domain, selector, algorithm: signing.algorithm(), at: now };
            let draft = Draft::new(&signer, &covered, digest.as_ref());
            let signature = key.sign(signing, &draft.to_be_signed(&covered))?;
            octets.extend(draft.finish(&signature));
        }
        Ok(octets)
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
        let origin = &job.envelope.origin;
        // What was examined on its way in came from nobody of ours, wherever it was led since.
        if origin.checks.is_some() && origin.user.is_none() {
            return true;
        }
        // Whoever has logged in is none.
        let client = origin.client.filter(|_| origin.user.is_none());
        client.zip(recipient).is_some_and(|(client, recipient)| {
            self.relay.is_strangers(client, recipient, &settings.table, now)
        })
    }
}

impl Key {
    /// Signs these octets by what was read.
    ///
    /// # Errors
    ///
    /// Why it cannot, for people.
    pub(super) fn sign(&self, signing: &SigningKey, octets: &[u8]) -> Result<Vec<u8>, String> {
        signing.sign(octets).map_err(|error| format!("the key {}: {error}", self.entry.key))
    }

    /// Reads the key unless that was done.
    pub(super) async fn ready(self: &Arc<Self>, secrets: &Secrets) -> Result<&SigningKey, String> {
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

/// The SHA-256 of the body in simple form: of what was read of it already, and of what follows.
pub(super) async fn digest_of(begun: &[u8], reader: &mut BodyReader) -> io::Result<Digest> {
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
            certificates: smtpd_core::policy::relay::RelayCertificates::None,
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
