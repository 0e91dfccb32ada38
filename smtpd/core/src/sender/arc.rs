//! Whether those who passed a message on vouch for what they found (ARC, RFC 8617 section 5.2).
//!
//! In: the header and what DKIM needs. Out: none, pass or fail for the whole chain, and whom those who are
//! trusted vouch for. Chains are a stranger's: the standard bounds how long they are.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailroot_common::address::Domain;
use sha2::{Digest as _, Sha256};

use super::authres::results;
use super::book::Book;
use super::dkim::body::{Form, Sums};
use super::dkim::signature::{Fault, Header, Signature, unsigned};
use super::dkim::{Candidate, DkimResult, Label, Verified, Verify, key_of};
use super::tags::Tags;
use crate::message::header::Field;
use crate::message::sign::{Algorithm, relax, relax_parts};

/// The most sets that a message may have (section 4.2.1).
pub(super) const SETS_MAX: usize = 50;

/// The words of RFC 8617 section 10.1, and that DNS gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArcResult {
    /// Nobody has sealed the message.
    None,
    /// Every seal holds, and the last one is about this message.
    Pass,
    /// Some seal does not.
    Fail,
    /// DNS gave no answer.
    TempError,
}

impl ArcResult {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
        }
    }
}

/// What a chain came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArcFinding {
    /// The result.
    pub result: ArcResult,
    /// Who sealed last.
    pub sealer: Option<Domain>,
}

#[derive(Clone, Debug)]
struct Seal {
    algorithm: Algorithm,
    domain: Domain,
    selector: Domain,
    signature: Vec<u8>,
    digest: [u8; 32],
    /// The author's domain, if whoever sealed found that it vouched for the message (DMARC).
    author: Option<Domain>,
}

/// The chain of one message.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    seals: Vec<Seal>,
    /// The newest signature of the message.
    newest: Option<Candidate>,
    broken: bool,
}

/// The fields of one set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Set<'h, 'a> {
    pub(super) results: Option<&'h Field<'a>>,
    pub(super) message: Option<&'h Field<'a>>,
    pub(super) seal: Option<&'h Field<'a>>,
}

pub(super) const RESULTS: &str = "arc-authentication-results";
pub(super) const MESSAGE: &str = "arc-message-signature";
pub(super) const SEAL: &str = "arc-seal";

impl Chain {
    /// Reads the chain of a header.
    pub(super) fn new(header: &Header<'_>) -> Self {
        let broken = Self { broken: true, ..Self::default() };
        let Some(sets) = sets(header) else { return broken };
        let mut chain = Self::default();
        let mut sealed = Sha256::new();
        let last = sets.len();
        for (number, set) in sets.iter().enumerate() {
            let Set { results: Some(results), message: Some(message), seal: Some(field) } = *set
            else {
                return broken;
            };
            let mut octets = Vec::new();
            relax(header.octets, results, &mut octets);
            relax(header.octets, message, &mut octets);
            sealed.update(&octets);
            let Some(mut seal) = read_seal(header, field, number == 0, sealed.clone()) else {
                return broken;
            };
            seal.author = author_of(&header.value(results));
            octets.clear();
            relax(header.octets, field, &mut octets);
            sealed.update(&octets);
            chain.seals.push(seal);
            if number + 1 == last {
                chain.newest = Some(read_message(header, message));
            }
        }
        chain
    }

    /// The form of the body that the newest signature is about.
    pub(super) fn form(&self) -> Option<Form> {
        self.newest.as_ref().and_then(Candidate::form)
    }

    /// Who sealed last.
    pub(super) fn sealer(&self) -> Option<&Domain> {
        self.seals.last().map(|seal| &seal.domain)
    }

    /// The one with the longest name of those who have sealed.
    pub(super) fn longest(&self) -> Option<&Domain> {
        self.seals.iter().map(|seal| &seal.domain).max_by_key(|domain| domain.as_str().len())
    }

    /// Who of these found that the author's domain vouched for the message, where nobody but them has
    /// sealed it since (section 7.2.1). That the chain holds is for the caller to know.
    pub(super) fn voucher(&self, author: &Domain, trusted: &[Domain]) -> Option<&Domain> {
        let mut newest = self.seals.iter().rev().take_while(|seal| trusted.contains(&seal.domain));
        newest.find(|seal| seal.author.as_ref() == Some(author)).map(|seal| &seal.domain)
    }

    /// Judges the chain; nothing if the book lacks a key.
    pub(super) fn judge(
        &self,
        book: &mut Book,
        sums: &Sums,
        now: u64,
        verify: &Verify<'_>,
    ) -> Option<ArcFinding> {
        let said = |result| Some(ArcFinding { result, sealer: self.sealer().cloned() });
        if self.broken {
            return said(ArcResult::Fail);
        }
        let Some(newest) = &self.newest else { return said(ArcResult::None) };
        let keys: Vec<_> =
            self.seals.iter().map(|seal| key_of(book, &seal.selector, &seal.domain)).collect();
        let message = newest.judge(book, sums, now, verify);
        let mut unknown = false;
        match message?.0 {
            DkimResult::Pass => {}
            DkimResult::TempError => unknown = true,
            _ => return said(ArcResult::Fail),
        }
        for (seal, key) in self.seals.iter().zip(keys) {
            match key? {
                Ok(key) => {
                    let holds = key.algorithm == seal.algorithm
                        && verify(&key, &seal.digest, &seal.signature) == Verified::Holds;
                    if !holds {
                        return said(ArcResult::Fail);
                    }
                }
                Err((DkimResult::TempError, _)) => unknown = true,
                Err(_) => return said(ArcResult::Fail),
            }
        }
        said(if unknown { ArcResult::TempError } else { ArcResult::Pass })
    }
}

/// The author's domain in results that say of it that it vouched for the message. Of several results of
/// DMARC none counts: a message has one author, and a sealer may pass on what others wrote beside its own.
fn author_of(value: &str) -> Option<Domain> {
    let found = results(value);
    let mut of_dmarc = found.iter().filter(|it| it.of("dmarc").is_some());
    let (Some(only), None) = (of_dmarc.next(), of_dmarc.next()) else { return None };
    let passed = Some(only).filter(|it| it.says("dmarc", "pass"))?;
    Domain::parse(passed.property("header.from")?).ok()
}

/// The sets in order, without gaps; nothing if the chain cannot be whole.
pub(super) fn sets<'h, 'a>(header: &'h Header<'a>) -> Option<Vec<Set<'h, 'a>>> {
    let mut sets: Vec<Set<'h, 'a>> = Vec::new();
    for (name, place) in [(RESULTS, 0), (MESSAGE, 1), (SEAL, 2)] {
        for field in header.all(name) {
            let number =
                instance(header, field).filter(|number| (1..=SETS_MAX).contains(number))?;
            if sets.len() < number {
                sets.resize(number, Set::default());
            }
            let set = &mut sets[number - 1];
            let slot = match place {
                0 => &mut set.results,
                1 => &mut set.message,
                _ => &mut set.seal,
            };
            if slot.replace(field).is_some() {
                return None;
            }
        }
    }
    Some(sets)
}

/// The number of the set a field belongs to: its first tag (section 4.1.1), or anywhere among others.
pub(super) fn instance(header: &Header<'_>, field: &Field<'_>) -> Option<usize> {
    let value = header.value(field);
    let mut parts = value.split(';').map(|part| part.split_once('='));
    let found = parts.find_map(|part| part.filter(|(name, _)| name.trim() == "i"));
    let digits = found?.1.trim();
    let good =
        (1..=2).contains(&digits.len()) && digits.bytes().all(|octet| octet.is_ascii_digit());
    good.then(|| digits.parse().ok()).flatten()
}

/// Reads a seal and ends the digest of what it seals; nothing if it says itself that the chain is broken.
fn read_seal(
    header: &Header<'_>,
    field: &Field<'_>,
    is_first: bool,
    mut sealed: Sha256,
) -> Option<Seal> {
    let tags = Tags::parse(&header.value(field))?;
    let expected = if is_first { "none" } else { "pass" };
    if tags.get("cv") != Some(expected) || tags.get("h").is_some() {
        return None;
    }
    let algorithm = match tags.get("a")? {
        "rsa-sha256" => Algorithm::RsaSha256,
        "ed25519-sha256" => Algorithm::Ed25519Sha256,
        _ => return None,
    };
    let mut octets = Vec::new();
    relax_parts(field.name, &unsigned(&header.octets[Range::clone(&field.value)]), &mut octets);
    sealed.update(&octets);
    Some(Seal {
        algorithm,
        domain: Domain::parse(tags.get("d")?).ok()?,
        selector: Domain::parse(tags.get("s")?).ok()?,
        signature: STANDARD.decode(tags.dense("b")?).ok()?,
        digest: sealed.finalize().into(),
        author: None,
    })
}

/// Reads the newest signature, which may not cover seals (section 4.1.2).
fn read_message(header: &Header<'_>, field: &Field<'_>) -> Candidate {
    let value = header.value(field);
    let tags = Tags::parse(&value).ok_or(Fault::Syntax);
    let signature = tags.and_then(|tags| Signature::of_tags(&tags));
    let signature =
        signature.and_then(|it| if it.lists(SEAL) { Err(Fault::Syntax) } else { Ok(it) });
    Candidate::of(Label::of(&value), signature, header, field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(header: &str) -> Chain {
        Chain::new(&Header::new(header.as_bytes()))
    }

    fn set(number: usize, cv: &str) -> String {
        format!(
            "ARC-Seal: i={number}; a=rsa-sha256; cv={cv}; d=a.example; s=s; b=AQID\r\n\
             ARC-Message-Signature: i={number}; a=rsa-sha256; d=a.example; s=s; h=from; bh=AQID; b=AQID\r\n\
             ARC-Authentication-Results: i={number}; mx.a.example; none\r\n"
        )
    }

    #[test]
    fn chains_without_gaps_are_read_and_others_are_broken() {
        let none = chain("From: a@a.example\r\n");
        assert!(!none.broken && none.newest.is_none());
        let two = chain(&(set(2, "pass") + &set(1, "none")));
        assert!(!two.broken);
        assert_eq!((two.seals.len(), two.sealer().unwrap().as_str()), (2, "a.example"));
        for bad in [
            set(1, "pass"),
            set(1, "fail"),
            set(2, "pass"),
            set(1, "none") + &set(1, "none"),
            set(1, "none") + &set(2, "none"),
            set(1, "none").replace("i=1; a", "a"),
            set(1, "none").replace("cv=none", "h=from; cv=none"),
            set(1, "none").lines().take(2).map(|line| format!("{line}\r\n")).collect(),
            set(51, "pass"),
        ] {
            assert!(chain(&bad).broken, "{bad}");
        }
        let many = |count: usize| {
            (2..=count).fold(set(1, "none"), |all, number| all + &set(number, "pass"))
        };
        assert!(!chain(&many(SETS_MAX)).broken && chain(&many(SETS_MAX + 1)).broken);
    }

    #[test]
    fn only_those_who_are_trusted_vouch_for_an_author_and_only_if_nobody_else_sealed_since() {
        let sealed = |number: usize, domain: &str, found: &str| {
            let cv = if number == 1 { "none" } else { "pass" };
            let text = set(number, cv).replace("d=a.example", &format!("d={domain}"));
            text.replace("mx.a.example; none", &format!("mx.{domain}; {found}"))
        };
        let passed = "dmarc=pass (p=reject) header.from=author.test";
        let [list, other] = ["list.test", "other.test"].map(|name| Domain::parse(name).unwrap());
        let author = Domain::parse("author.test").unwrap();
        let voucher = |header: &str, trusted: &[&Domain]| {
            let trusted: Vec<Domain> = trusted.iter().map(|&it| it.clone()).collect();
            chain(header).voucher(&author, &trusted).map(ToString::to_string)
        };
        let one = sealed(1, "list.test", passed);
        assert_eq!(voucher(&one, &[&list]).as_deref(), Some("list.test"));
        assert_eq!(voucher(&one, &[&other]), None);
        assert_eq!(voucher(&one, &[]), None);
        let two = one.clone() + &sealed(2, "other.test", "dmarc=fail header.from=author.test");
        assert_eq!(voucher(&two, &[&list]), None, "somebody else had it in hand since");
        assert_eq!(voucher(&two, &[&other, &list]).as_deref(), Some("list.test"));
        for found in [
            "dmarc=fail header.from=author.test",
            "dmarc=pass header.from=else.test",
            "dmarc=pass",
            "dmarc=pass header.from=author.test; dmarc=fail header.from=author.test",
            "dmarc=fail header.from=author.test; dmarc=pass header.from=author.test",
            "dmarc=pass header.from=else.test; DMARC/1=pass header.from=author.test",
            "spf=pass (dmarc=pass header.from=author.test)",
        ] {
            assert_eq!(voucher(&sealed(1, "list.test", found), &[&list]), None, "{found}");
        }
    }
}
