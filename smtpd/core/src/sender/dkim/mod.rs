//! Whether signatures of a message hold (DKIM, RFC 6376 section 6).
//!
//! In: the header, the digests of the body, the book of what DNS said, and somebody who can compare a
//! signature with a key. Out: a result for each signature that was looked at. Messages are a stranger's:
//! only the first signatures count, so that their number costs nothing.

pub(super) mod body;
pub(super) mod key;
pub(super) mod signature;

use body::Sums;
pub use key::Key;
use key::KeyFault;
pub use signature::Label;
use signature::{Fault, Header, Signature};

use super::book::{Book, Nothing};
use crate::message::header::Field;

/// Signatures of one message that are looked at.
pub(super) const SIGNATURES_MAX: usize = 8;

/// The words of RFC 8601 section 2.7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DkimResult {
    /// The message is not signed.
    None,
    /// The signature holds.
    Pass,
    /// It does not.
    Fail,
    /// It is not of a kind that counts here.
    Policy,
    /// It cannot be read.
    Neutral,
    /// DNS gave no answer.
    TempError,
    /// Its key cannot be used.
    PermError,
}

impl DkimResult {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Policy => "policy",
            Self::Neutral => "neutral",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// What a signature came to, and why.
pub(super) type Verdict = (DkimResult, &'static str);

/// Compares a key, the SHA-256 of what is signed, and a signature.
pub type Verify<'a> = dyn Fn(&Key, &[u8; 32], &[u8]) -> Verified + 'a;

/// What the comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// The signature is of this key.
    Holds,
    /// It is not.
    Differs,
    /// It is no key.
    BadKey,
}

/// A signature with the digest of what it signs.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) label: Label,
    signature: Result<(Signature, [u8; 32]), Fault>,
}

/// The longest reason that stands below.
pub(super) const REASON_LONGEST: &str = "the body does not agree with the signature";

impl Candidate {
    /// Reads a `DKIM-Signature` field.
    pub(super) fn new(header: &Header<'_>, field: &Field<'_>) -> Self {
        let value = header.value(field);
        let signature = Signature::parse(&value);
        Self::of(Label::of(&value), signature, header, field)
    }

    /// The same of a signature that was read already.
    pub(super) fn of(
        label: Label,
        signature: Result<Signature, Fault>,
        header: &Header<'_>,
        field: &Field<'_>,
    ) -> Self {
        let signature = signature.map(|signature| {
            let digest = signature.digest(header, field);
            (signature, digest)
        });
        Self { label, signature }
    }

    /// The form of the body that is signed.
    pub(super) fn form(&self) -> Option<body::Form> {
        self.signature.as_ref().ok().map(|(signature, _)| signature.body_form)
    }

    /// Judges it; nothing if the book lacks its key. `now` is in seconds since 1970.
    pub(super) fn judge(
        &self,
        book: &mut Book,
        sums: &Sums,
        now: u64,
        verify: &Verify<'_>,
    ) -> Option<Verdict> {
        let (signature, digest) = match &self.signature {
            Ok(good) => good,
            Err(Fault::Syntax) => {
                return Some((DkimResult::Neutral, "the signature cannot be read"));
            }
            Err(Fault::Algorithm) => {
                return Some((DkimResult::Policy, "its algorithm does not count"));
            }
        };
        if signature.expires.is_some_and(|end| end < now) {
            return Some((DkimResult::Fail, "the signature has expired"));
        }
        let Some(body) = sums.of(signature.body_form) else {
            return Some((DkimResult::PermError, "the body was not looked at"));
        };
        if signature.length.is_some_and(|length| length < body.octets) {
            return Some((DkimResult::Policy, "part of the body is not signed"));
        }
        if signature.length.is_some_and(|length| length > body.octets)
            || signature.body_digest != body.sum
        {
            return Some((DkimResult::Fail, REASON_LONGEST));
        }
        let key = match key_of(book, &signature.selector, &signature.domain)? {
            Ok(key) => key,
            Err(verdict) => return Some(verdict),
        };
        if key.algorithm != signature.algorithm || key.strict && signature.below {
            return Some((DkimResult::PermError, "the key is not for this signature"));
        }
        Some(match verify(&key, digest, &signature.signature) {
            Verified::Holds => (DkimResult::Pass, ""),
            Verified::Differs => (DkimResult::Fail, "the signature does not hold"),
            Verified::BadKey => (DkimResult::PermError, "the key cannot be used"),
        })
    }
}

/// The key of a selector, or what its absence comes to.
pub(super) fn key_of(
    book: &mut Book,
    selector: &mailroot_common::address::Domain,
    domain: &mailroot_common::address::Domain,
) -> Option<Result<Key, Verdict>> {
    let found = book.texts(&format!("{selector}._domainkey.{domain}"))?;
    Some(match found {
        Ok(texts) => Key::among(&texts).map_err(|fault| match fault {
            KeyFault::Revoked => (DkimResult::PermError, "the key was revoked"),
            KeyFault::Unusable => (DkimResult::PermError, "the key cannot be used"),
        }),
        Err(Nothing::Absent) => Err((DkimResult::PermError, "there is no key")),
        Err(Nothing::Unknown) => Err((DkimResult::TempError, "DNS gave no key")),
    })
}
