//! Seals of our own on mail that is passed on (ARC, RFC 8617 section 5.1).
//!
//! In: the header of a message as it leaves, which begins with what we found when it came. Out: which set is
//! added, and what is signed for it. A chain that was good or absent is carried on; one that failed is ended
//! once, by a set that says so and vouches for itself alone. What DNS did not tell is sealed by nobody.

use std::ops::Range;

use super::arc::{MESSAGE, RESULTS, SEAL, SETS_MAX, instance, sets};
use super::authres::results;
use super::dkim::signature::Header;
use super::tags::Tags;
use crate::message::header::{Field, fields};
use crate::message::sign::{Draft, Signer, relax};

/// A set of fields that is to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    number: usize,
    status: &'static str,
    /// The fields of the sets before, in relaxed form, as far as they are sealed.
    before: Vec<u8>,
    /// The `ARC-Authentication-Results` field.
    results: Vec<u8>,
}

impl Plan {
    /// What is added to a message with this header, whose first field must be the results that we wrote
    /// ourselves. Nothing if it is not to be sealed: those before us have ended the chain, or it is as long
    /// as any may be, or what it came to is not known, or no longer what it was when it came.
    #[must_use]
    pub fn of(octets: &[u8]) -> Option<Self> {
        let header = Header::new(octets);
        let own = header.fields.first().filter(|field| field.is("Authentication-Results"))?;
        let found = results(&header.value(own));
        let status = found.iter().find_map(|found| found.of("arc"))?;
        let (number, status, before) = match status {
            "none" if highest(&header).is_none() => (1, "none", Vec::new()),
            "pass" => {
                let (number, before) = sealed_before(&header)?;
                (number + 1, "pass", before)
            }
            "fail" => {
                let last = highest(&header).unwrap_or_default();
                (!has_ended(&header, last)).then_some((last + 1, "fail", Vec::new()))?
            }
            _ => return None,
        };
        let results = own_results(number, &octets[Range::clone(&own.value)]);
        (number <= SETS_MAX).then_some(Self { number, status, before, results })
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.number
    }

    /// The `ARC-Authentication-Results` field, with its line end.
    #[must_use]
    pub fn results(&self) -> &[u8] {
        &self.results
    }

    /// The `ARC-Seal` field, and what is signed for it (section 5.1.1). `message` is the set's
    /// `ARC-Message-Signature` with its line end.
    #[must_use]
    pub fn seal(&self, signer: &Signer<'_>, message: &[u8]) -> (Draft, Vec<u8>) {
        let mut canonical = self.before.clone();
        for octets in [&self.results[..], message] {
            fields(octets).for_each(|field| relax(octets, &field, &mut canonical));
        }
        let draft = Draft::seal(self.number, self.status, signer);
        let signed = draft.behind(canonical);
        (draft, signed)
    }
}

/// Our results as a field of the set: its lines are kept, without the blanks that fill up its room.
fn own_results(number: usize, value: &[u8]) -> Vec<u8> {
    let mut out = format!("ARC-Authentication-Results: i={number};").into_bytes();
    for (at, line) in value.split(|&octet| octet == b'\n').map(<[u8]>::trim_ascii).enumerate() {
        if !line.is_empty() {
            out.extend_from_slice(if at == 0 { b" " } else { b"\r\n\t" });
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn all<'h, 'a>(header: &'h Header<'a>) -> impl Iterator<Item = &'h Field<'a>> {
    [RESULTS, MESSAGE, SEAL].into_iter().flat_map(|name| header.all(name))
}

/// The highest number of a set; nothing if there is no field of any.
fn highest(header: &Header<'_>) -> Option<usize> {
    let number = |field: &Field<'_>| instance(header, field).unwrap_or_default();
    all(header).map(number).max()
}

/// Whether the last seal says itself that the chain is broken (section 5.1).
fn has_ended(header: &Header<'_>, last: usize) -> bool {
    header.all(SEAL).filter(|field| instance(header, field) == Some(last)).any(|field| {
        let tags = Tags::parse(&header.value(field));
        tags.is_some_and(|tags| tags.get("cv") == Some("fail"))
    })
}

/// How many sets there are, and their fields; nothing if one of them is not whole.
fn sealed_before(header: &Header<'_>) -> Option<(usize, Vec<u8>)> {
    let sets = sets(header)?;
    let mut out = Vec::new();
    for set in &sets {
        for field in [set.results?, set.message?, set.seal?] {
            relax(header.octets, field, &mut out);
        }
    }
    (!sets.is_empty()).then_some((sets.len(), out))
}

#[cfg(test)]
mod tests {
    use mailroot_common::address::Domain;
    use mailroot_common::config::Selector;
    use mailroot_common::units::Timestamp;

    use super::*;
    use crate::message::sign::Algorithm;

    fn set(number: usize, cv: &str) -> String {
        format!(
            "ARC-Seal: i={number}; a=rsa-sha256; cv={cv}; d=a.example; s=s; b=AQID\r\n\
             ARC-Message-Signature: i={number}; a=rsa-sha256; d=a.example; s=s; h=from; bh=AQID; b=AQID\r\n\
             ARC-Authentication-Results: i={number}; mx.a.example; none\r\n"
        )
    }

    fn plan(arc: &str, sets: &str) -> Option<(usize, &'static str, bool)> {
        let text = format!(
            "Authentication-Results: mx.test;   \r\n\tspf=pass;\r\n\tarc={arc}\r\n{sets}From: a@b\r\n\r\n"
        );
        Plan::of(text.as_bytes()).map(|it| (it.number, it.status, it.before.is_empty()))
    }

    #[test]
    fn a_chain_is_begun_carried_on_or_ended_once() {
        let many =
            |count: usize| (2..=count).fold(set(1, "none"), |all, at| all + &set(at, "pass"));
        assert_eq!(plan("none", ""), Some((1, "none", true)));
        assert_eq!(plan("pass", &many(1)), Some((2, "pass", false)));
        assert_eq!(plan("pass", &many(49)), Some((50, "pass", false)));
        assert_eq!(plan("pass", &many(50)), None, "there is no number 51");
        assert_eq!(plan("fail", &many(2)), Some((3, "fail", true)));
        assert_eq!(plan("fail", &many(50)), None);
        assert_eq!(plan("fail", &(many(1) + &set(2, "fail"))), None, "it was ended before");
        assert_eq!(plan("fail", "ARC-Seal: nonsense\r\n"), Some((1, "fail", true)));
        assert_eq!(plan("temperror", &many(2)), None);
    }

    #[test]
    fn what_is_no_longer_as_it_was_found_is_not_sealed() {
        assert_eq!(plan("none", &set(1, "none")), None, "somebody of ours has sealed it");
        assert_eq!(plan("pass", ""), None);
        let torn: String =
            set(1, "none").lines().take(2).map(|line| format!("{line}\r\n")).collect();
        assert_eq!(plan("pass", &torn), None);
        assert_eq!(Plan::of(b"From: a@b\r\nAuthentication-Results: mx.test; arc=none\r\n"), None);
        assert_eq!(Plan::of(b"Authentication-Results: mx.test; spf=pass\r\n"), None);
        assert_eq!(Plan::of(b""), None);
    }

    #[test]
    fn a_seal_covers_its_own_set_and_those_before_it() {
        let text = format!(
            "Authentication-Results: mx.test;   \r\n\tspf=pass;\r\n\tarc=pass\r\n{}From: a@b\r\n",
            set(1, "none")
        );
        let plan = Plan::of(text.as_bytes()).unwrap();
        let results = "ARC-Authentication-Results: i=2; mx.test;\r\n\tspf=pass;\r\n\tarc=pass\r\n";
        assert_eq!(String::from_utf8_lossy(plan.results()), results);
        let (domain, selector) =
            (Domain::parse("own.test").unwrap(), Selector::parse("mr1").unwrap());
        let (algorithm, at) = (Algorithm::RsaSha256, Timestamp::from_millis(5_000));
        let signer = Signer { domain: &domain, selector: &selector, algorithm, at };
        let (draft, signed) = plan.seal(&signer, b"ARC-Message-Signature: i=2;\r\n\tb=x\r\n");
        assert_eq!(
            String::from_utf8(signed).unwrap(),
            "arc-authentication-results:i=1; mx.a.example; none\r\n\
             arc-message-signature:i=1; a=rsa-sha256; d=a.example; s=s; h=from; bh=AQID; b=AQID\r\n\
             arc-seal:i=1; a=rsa-sha256; cv=none; d=a.example; s=s; b=AQID\r\n\
             arc-authentication-results:i=2; mx.test; spf=pass; arc=pass\r\n\
             arc-message-signature:i=2; b=x\r\n\
             arc-seal:i=2; a=rsa-sha256; t=5; cv=pass; d=own.test; s=mr1; b="
        );
        assert!(draft.finish(b"x").ends_with(b"b=eA==\r\n"));
    }
}
