//! Sealing: the set of ARC fields that mail of strangers leaves with (RFC 8617).
//!
//! In: the header of a message as it leaves, signatures of our own included, and the digest of its body. Out:
//! one set, or nothing where the message is not to be sealed. Only mail that was looked at when it came is: its
//! first field tells what was found, and no one but us has written it.

use std::sync::Arc;

use aws_lc_rs::digest::Digest;
use mailroot_common::units::Timestamp;
use smtpd_core::message::sign::{Algorithm, Covered, Draft, Signer};
use smtpd_core::sender::seal::Plan;

use super::job::Job;
use super::sign::{Key, Signing};

impl Signing {
    /// Which set a message with this header is to get; none where it is not to be sealed.
    pub(super) fn plan(&self, job: &Job, header: &[u8]) -> Option<Plan> {
        self.sealer.as_ref().filter(|_| job.envelope.origin.checks.is_some())?;
        Plan::of(header)
    }

    /// The fields of the set, the seal first.
    ///
    /// # Errors
    ///
    /// Why it cannot be sealed, for people.
    pub(super) async fn seal(
        &self,
        plan: &Plan,
        header: &[u8],
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Vec<u8>, String> {
        let key = self.sealing_key().await?;
        let (entry, signing) = (&key.entry, key.ready(&self.secrets).await?);
        let (domain, selector) = (&entry.domain, &entry.selector);
        let signer = Signer { domain, selector, algorithm: signing.algorithm(), at: now };
        let covered = Covered::of_sealed(header, &entry.headers);
        let draft = Draft::of_set(plan.number(), &signer, &covered, digest.as_ref());
        let signature = key.sign(signing, &draft.to_be_signed(&covered))?;
        let message = draft.finish(&signature);
        let (seal, signed) = plan.seal(&signer, &message);
        let mut octets = seal.finish(&key.sign(signing, &signed)?);
        octets.extend(message);
        octets.extend_from_slice(plan.results());
        Ok(octets)
    }

    /// The first key of the domain that everybody can verify, else its first one.
    async fn sealing_key(&self) -> Result<&Arc<Key>, String> {
        let own = |key: &&Arc<Key>| Some(&key.entry.domain) == self.sealer.as_ref();
        let mut first = None;
        for key in self.keys.iter().filter(own) {
            if key.ready(&self.secrets).await?.algorithm() == Algorithm::RsaSha256 {
                return Ok(key);
            }
            first = first.or(Some(key));
        }
        first.ok_or_else(|| "the domain that seals has no key".to_owned())
    }
}
