//! What the domain in `From` wants done with mail that nobody vouches for (DMARC, RFC 7489 and 9091).
//!
//! In: the domains in From, what SPF and DKIM came to, and the book of what DNS said. Out: a result and a
//! wish. Which domain stands above another is found by walking up the names in DNS, as the successor of
//! RFC 7489 has it, and not by a list that would have to be kept up to date: at most eight questions.

use mailroot_common::address::Domain;

use super::book::{Book, Nothing};
use super::dkim::DkimResult;
use super::spf::SpfResult;
use super::tags::Tags;
use crate::message::address_list;

/// Domains in From that are looked at; honest mail has one.
const AUTHORS_MAX: usize = 4;
/// Labels of the second name that is asked, where the first has more.
const LABELS_MAX: usize = 7;

/// The words of RFC 7489 section 11.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmarcResult {
    /// The domain publishes nothing.
    None,
    /// Somebody of the domain vouches for the message.
    Pass,
    /// Nobody does.
    Fail,
    /// DNS gave no answer.
    TempError,
    /// From cannot be read.
    PermError,
}

impl DmarcResult {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// What is to be done with mail that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Nothing.
    None,
    /// It is to be set apart.
    Quarantine,
    /// It is to be refused.
    Reject,
}

impl Wish {
    /// The word of the tag `p`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Self::None, Self::Quarantine, Self::Reject];
        all.into_iter().find(|wish| wish.word().eq_ignore_ascii_case(text))
    }

    /// The next milder one, for domains that are still trying it out.
    const fn milder(self) -> Self {
        match self {
            Self::Reject => Self::Quarantine,
            Self::Quarantine | Self::None => Self::None,
        }
    }
}

/// What DMARC came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmarcFinding {
    /// The result.
    pub result: DmarcResult,
    /// The domain in From.
    pub domain: Option<Domain>,
    /// What it wants done with mail that fails.
    pub wish: Wish,
    /// Who passed the message on, found that the domain vouched for it, and is believed.
    pub overruled_by: Option<Domain>,
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    wish: Wish,
    below: Wish,
    /// What it wants for names below that are none (RFC 9091 section 3.2).
    nonexistent: Wish,
    strict_dkim: bool,
    strict_spf: bool,
    is_suffix: Option<bool>,
}

impl Record {
    fn parse(text: &str) -> Option<Self> {
        let tags = Tags::parse(text).filter(|tags| tags.first() == Some(("v", "DMARC1")))?;
        let wish = |tag| tags.get(tag).and_then(Wish::parse);
        let is =
            |tag, word: &str| tags.get(tag).is_some_and(|value| value.eq_ignore_ascii_case(word));
        let trial = is("t", "y") || tags.get("pct") == Some("0");
        let tempered = |wish: Wish| if trial { wish.milder() } else { wish };
        // A record without a wish that can be read wants to be told, and nothing else (section 6.6.3).
        let own = wish("p").unwrap_or(Wish::None);
        Some(Self {
            wish: tempered(own),
            below: tempered(wish("sp").unwrap_or(own)),
            nonexistent: tempered(wish("np").or(wish("sp")).unwrap_or(own)),
            strict_dkim: is("adkim", "s"),
            strict_spf: is("aspf", "s"),
            is_suffix: if is("psd", "y") { Some(true) } else { is("psd", "n").then_some(false) },
        })
    }
}

/// The names above a domain that are asked, itself first.
fn names_up(domain: &Domain) -> Vec<&str> {
    let text = domain.as_str();
    let mut names = vec![text];
    let mut starts: Vec<usize> = text.match_indices('.').map(|(at, _)| at + 1).collect();
    let too_many = starts.len().saturating_sub(LABELS_MAX);
    starts.drain(..too_many);
    names.extend(starts.into_iter().map(|start| &text[start..]));
    names
}

/// What the names above a domain publish.
struct Ladder<'a> {
    /// Names from the domain up, each with its record.
    rungs: Vec<(&'a str, Record)>,
    /// The domain that all names of its owner have in common.
    top: &'a str,
}

impl<'a> Ladder<'a> {
    fn climb(book: &mut Book, domain: &'a Domain) -> Option<Result<Self, Nothing>> {
        let names = names_up(domain);
        let asked: Vec<_> =
            names.iter().map(|name| book.texts(&format!("_dmarc.{name}"))).collect();
        let mut rungs = Vec::new();
        for (name, found) in names.iter().zip(asked) {
            match found? {
                Ok(texts) => {
                    let mut records = texts.iter().filter_map(|text| Record::parse(text));
                    if let (Some(record), None) = (records.next(), records.next()) {
                        rungs.push((*name, record));
                    }
                }
                Err(Nothing::Absent) => {}
                // Nobody's mail waits for what stands above all names of a country.
                Err(Nothing::Unknown) if !name.contains('.') => {}
                Err(Nothing::Unknown) => return Some(Err(Nothing::Unknown)),
            }
        }
        let mut top = rungs.last().map_or(names[0], |(name, _)| name);
        for (name, record) in &rungs {
            match record.is_suffix {
                Some(false) => top = name,
                Some(true) if *name != names[0] => {
                    let below = names.iter().position(|known| known == name).unwrap_or(1) - 1;
                    top = names[below];
                }
                Some(true) => top = name,
                None => continue,
            }
            break;
        }
        Some(Ok(Self { rungs, top }))
    }

    /// The record that counts for the domain, and whether it is its own.
    fn record(&self, domain: &Domain) -> Option<(Record, bool)> {
        let of = |wanted: &str| self.rungs.iter().find(|(name, _)| *name == wanted);
        if let Some((_, record)) = of(domain.as_str()) {
            return Some((*record, true));
        }
        let suffix = || self.rungs.iter().find(|(_, record)| record.is_suffix == Some(true));
        let (_, record) = of(self.top).or_else(suffix)?;
        Some((*record, false))
    }
}

/// Whether a name is one that mail could come from: it has addresses, or hosts that take mail (RFC 9091
/// section 2.7). Nothing within if DNS does not tell.
fn exists(book: &mut Book, domain: &Domain) -> Option<Option<bool>> {
    let name = domain.as_str();
    let (v4, v6) = (book.addresses(name, true), book.addresses(name, false));
    let hosts = book.hosts(name);
    let found = [
        v4?.map(|all| !all.is_empty()),
        v6?.map(|all| !all.is_empty()),
        hosts?.map(|all| !all.is_empty()),
    ];
    let is_unknown = found.contains(&Err(Nothing::Unknown));
    Some(if found.contains(&Ok(true)) { Some(true) } else { (!is_unknown).then_some(false) })
}

/// What a record wants for a name below its own. Of two wishes the milder one counts where DNS does not
/// tell which of them is meant.
fn wish_below(book: &mut Book, record: &Record, domain: &Domain) -> Option<Wish> {
    let Record { below, nonexistent, .. } = *record;
    if below == nonexistent {
        return Some(below);
    }
    Some(match exists(book, domain)? {
        Some(true) => below,
        Some(false) => nonexistent,
        None => below.min(nonexistent),
    })
}

/// What a domain in From wants done with mail that fails; nothing within if it publishes nothing.
///
/// # Errors
///
/// [`Nothing::Unknown`] if DNS gives no answer.
pub fn published(book: &mut Book, domain: &Domain) -> Option<Result<Option<Wish>, Nothing>> {
    let ladder = match Ladder::climb(book, domain)? {
        Ok(ladder) => ladder,
        Err(nothing) => return Some(Err(nothing)),
    };
    Some(Ok(match ladder.record(domain) {
        Some((record, true)) => Some(record.wish),
        Some((record, false)) => Some(wish_below(book, &record, domain)?),
        None => None,
    }))
}

/// Whose mail it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authors(Option<Vec<Domain>>);

impl Authors {
    /// Reads the values of all From fields.
    pub(super) fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut domains: Vec<Domain> = Vec::new();
        for value in values {
            let Ok(addresses) = address_list::parse(value) else { return Self(None) };
            for address in addresses {
                let Some(domain) = address.domain() else { continue };
                if !domains.contains(domain) {
                    domains.push(domain.clone());
                }
                if domains.len() > AUTHORS_MAX {
                    return Self(None);
                }
            }
        }
        Self((!domains.is_empty()).then_some(domains))
    }

    /// That with the longest name.
    pub(super) fn longest(&self) -> Option<&Domain> {
        self.0.iter().flatten().max_by_key(|domain| domain.as_str().len())
    }

    /// The one there is, if there is one.
    pub(super) fn only(&self) -> Option<&Domain> {
        match self.0.as_deref() {
            Some([only]) => Some(only),
            _ => None,
        }
    }

    /// Asks for what may be needed of DNS, so that it is asked early: before a stranger's records have used
    /// up questions and time, which would leave unknown whether a name exists.
    pub(super) fn prepare(&self, book: &mut Book) {
        for domain in self.0.iter().flatten() {
            let Some(Ok(ladder)) = Ladder::climb(book, domain) else { continue };
            if let Some((record, false)) = ladder.record(domain) {
                let _early = wish_below(book, &record, domain);
            }
        }
    }
}

/// Who vouches for the message, and how that was found.
#[derive(Debug, Default)]
pub(super) struct Vouchers<'a> {
    /// What SPF came to for a domain.
    pub(super) spf: Option<(SpfResult, Option<&'a Domain>)>,
    /// What signatures came to, each with its domain.
    pub(super) dkim: Vec<(DkimResult, Option<&'a Domain>)>,
}

/// Judges a message: of several domains in From the one that wants the most decides.
pub(super) fn judge(
    book: &mut Book,
    authors: &Authors,
    vouchers: &Vouchers<'_>,
) -> Option<DmarcFinding> {
    let Some(domains) = &authors.0 else {
        return Some(DmarcFinding {
            result: DmarcResult::PermError,
            domain: None,
            wish: Wish::None,
            overruled_by: None,
        });
    };
    let mut findings = Vec::new();
    for domain in domains {
        findings.push(judge_one(book, domain, vouchers)?);
    }
    findings.into_iter().max_by_key(|found| match found.result {
        DmarcResult::Fail if found.wish > Wish::None => (3, found.wish),
        DmarcResult::TempError => (2, Wish::None),
        DmarcResult::Fail => (1, Wish::None),
        DmarcResult::None | DmarcResult::Pass | DmarcResult::PermError => (0, Wish::None),
    })
}

fn judge_one(book: &mut Book, domain: &Domain, vouchers: &Vouchers<'_>) -> Option<DmarcFinding> {
    let said = |result, wish| {
        let domain = Some(domain.clone());
        Some(DmarcFinding { result, domain, wish, overruled_by: None })
    };
    let Ok(ladder) = Ladder::climb(book, domain)? else {
        return said(DmarcResult::TempError, Wish::None);
    };
    let Some((record, is_own)) = ladder.record(domain) else {
        return said(DmarcResult::None, Wish::None);
    };
    let usual = if is_own { record.wish } else { record.below };
    let mut by_chance = false;
    let spf = vouchers.spf.iter().map(|(result, voucher)| {
        let (pass, chance) = (*result == SpfResult::Pass, *result == SpfResult::TempError);
        (pass, chance, *voucher, record.strict_spf)
    });
    let dkim = vouchers.dkim.iter().map(|(result, voucher)| {
        let (pass, chance) = (*result == DkimResult::Pass, *result == DkimResult::TempError);
        (pass, chance, *voucher, record.strict_dkim)
    });
    for (pass, chance, voucher, strict) in spf.chain(dkim) {
        let (true, Some(voucher)) = (pass || chance, voucher) else { continue };
        match is_aligned(book, voucher, domain, ladder.top, strict)? {
            Some(true) if pass => return said(DmarcResult::Pass, usual),
            Some(true) | None => by_chance = true,
            Some(false) => {}
        }
    }
    if by_chance {
        return said(DmarcResult::TempError, usual);
    }
    let wish = if is_own { usual } else { wish_below(book, &record, domain)? };
    said(DmarcResult::Fail, wish)
}

/// Whether a domain that vouches is the author's, or has its owner; nothing within if DNS does not tell.
fn is_aligned(
    book: &mut Book,
    voucher: &Domain,
    author: &Domain,
    top: &str,
    strict: bool,
) -> Option<Option<bool>> {
    if voucher == author {
        return Some(Some(true));
    }
    let text = voucher.as_str();
    let is_below =
        text.strip_suffix(top).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if strict || !is_below {
        return Some(Some(false));
    }
    Some(match Ladder::climb(book, voucher)? {
        Ok(ladder) => Some(ladder.top == top),
        Err(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::book::Question;
    use super::super::spf::tests::Zone;
    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    /// What `From` of these addresses comes to, with SPF and DKIM passing for these domains.
    fn judged(zone: &[&str], from: &str, spf: &str, dkim: &str) -> (DmarcResult, Wish) {
        let authors = Authors::of(std::iter::once(from.as_bytes()));
        let (spf, dkim) = (Domain::parse(spf).ok(), Domain::parse(dkim).ok());
        let vouchers = Vouchers {
            spf: spf.as_ref().map(|it| (SpfResult::Pass, Some(it))),
            dkim: dkim.iter().map(|it| (DkimResult::Pass, Some(it))).collect(),
        };
        let (found, asked) = Zone::new(zone).settle(|book| judge(book, &authors, &vouchers));
        assert!(asked <= 8 * (AUTHORS_MAX + 2), "{asked} questions");
        (found.result, found.wish)
    }

    const REJECT: &str = "_dmarc.a.example TXT v=DMARC1; p=reject; sp=quarantine";

    #[test]
    fn names_are_walked_up_to_the_root_in_eight_steps() {
        assert_eq!(names_up(&domain("a.b.example")), ["a.b.example", "b.example", "example"]);
        let long = domain("1.2.3.4.5.6.7.8.9.example");
        let names = names_up(&long);
        assert_eq!((names.len(), names[1]), (8, "4.5.6.7.8.9.example"));
    }

    #[test]
    fn somebody_of_the_domain_must_vouch() {
        for (from, spf, dkim, expected) in [
            ("x@a.example", "a.example", "", DmarcResult::Pass),
            ("x@a.example", "", "a.example", DmarcResult::Pass),
            ("x@a.example", "bounce.a.example", "", DmarcResult::Pass),
            ("x@a.example", "", "", DmarcResult::Fail),
            ("x@a.example", "b.example", "nota.example", DmarcResult::Fail),
            ("x@sub.a.example", "", "a.example", DmarcResult::Pass),
            ("x@b.example", "b.example", "", DmarcResult::None),
            ("nobody", "a.example", "", DmarcResult::PermError),
            ("x@a.example, y@b.example", "b.example", "", DmarcResult::Fail),
        ] {
            assert_eq!(judged(&[REJECT], from, spf, dkim).0, expected, "{from} {spf} {dkim}");
        }
    }

    #[test]
    fn the_wish_is_the_domains_or_that_for_names_below() {
        assert_eq!(judged(&[REJECT], "x@a.example", "", "").1, Wish::Reject);
        assert_eq!(judged(&[REJECT], "x@sub.a.example", "", "").1, Wish::Quarantine);
        for (record, expected) in [
            ("v=DMARC1; p=quarantine; pct=0", Wish::None),
            ("v=DMARC1; p=reject; t=y", Wish::Quarantine),
            ("v=DMARC1; rua=mailto:x@a.example", Wish::None),
            ("v=DMARC1;p=REJECT;", Wish::Reject),
        ] {
            let line = format!("_dmarc.a.example TXT {record}");
            assert_eq!(judged(&[&line], "x@a.example", "", ""), (DmarcResult::Fail, expected));
        }
        for none in ["DMARC1; p=reject", "p=reject; v=DMARC1", "v=DMARC2; p=reject"] {
            let line = format!("_dmarc.a.example TXT {none}");
            assert_eq!(judged(&[&line], "x@a.example", "", "").0, DmarcResult::None, "{none}");
        }
        let publishes = |name: &str| {
            let name = domain(name);
            Zone::new(&[REJECT]).settle(|book| published(book, &name)).0
        };
        assert_eq!(publishes("a.example"), Ok(Some(Wish::Reject)));
        assert_eq!(publishes("b.example"), Ok(None));
        let two = [REJECT, "_dmarc.a.example TXT v=DMARC1; p=none"];
        assert_eq!(judged(&two, "x@a.example", "", "").0, DmarcResult::None);
    }

    #[test]
    fn names_that_are_none_have_a_wish_of_their_own() {
        let record = "_dmarc.a.example TXT v=DMARC1; p=none; sp=quarantine; np=reject";
        let told = |more: &[&str], from: &str| judged(&[&[record], more].concat(), from, "", "").1;
        assert_eq!(told(&[], "x@nowhere.a.example"), Wish::Reject);
        assert_eq!(told(&["only.a.example TXT words"], "x@only.a.example"), Wish::Reject);
        for here in ["here.a.example A 192.0.2.1", "here.a.example AAAA 2001:db8::1"] {
            assert_eq!(told(&[here], "x@here.a.example"), Wish::Quarantine, "{here}");
        }
        let by_host = ["here.a.example MX mx.b.example", "here.a.example A !"];
        assert_eq!(told(&by_host, "x@here.a.example"), Wish::Quarantine);
        assert_eq!(told(&["here.a.example A !"], "x@here.a.example"), Wish::Quarantine);
        assert_eq!(told(&[], "x@a.example"), Wish::None, "the domain itself is no name below");
        let publishes = domain("nowhere.a.example");
        let (found, _) = Zone::new(&[record]).settle(|book| published(book, &publishes));
        assert_eq!(found, Ok(Some(Wish::Reject)));
        for (record, expected) in [
            ("v=DMARC1; p=reject; np=none", Wish::None),
            ("v=DMARC1; p=reject; np=nonsense", Wish::Reject),
            ("v=DMARC1; p=none; np=reject; t=y", Wish::Quarantine),
        ] {
            let line = format!("_dmarc.a.example TXT {record}");
            assert_eq!(judged(&[&line], "x@nowhere.a.example", "", "").1, expected, "{record}");
        }
        let own = ["_dmarc.s.a.example TXT v=DMARC1; p=none; np=reject", REJECT];
        assert_eq!(judged(&own, "x@s.a.example", "", "").1, Wish::None);
    }

    #[test]
    fn whether_a_name_exists_is_asked_as_soon_as_it_may_matter() {
        let wanted = |record: &str| {
            let line = format!("_dmarc.a.example TXT {record}");
            let authors = Authors::of(std::iter::once(&b"x@nowhere.a.example"[..]));
            let mut first = true;
            let (wanted, _) = Zone::new(&[&line]).settle(|book| {
                authors.prepare(book);
                (!std::mem::take(&mut first)).then(|| book.take_wanted())
            });
            wanted
        };
        let kinds = wanted("v=DMARC1; p=none; np=reject");
        assert_eq!(kinds.len(), 3, "{kinds:?}");
        assert!(kinds.contains(&Question::Hosts("nowhere.a.example".to_owned())));
        assert!(wanted("v=DMARC1; p=reject").is_empty());
    }

    #[test]
    fn strict_domains_want_their_very_name() {
        let zone = ["_dmarc.a.example TXT v=DMARC1; p=reject; adkim=s; aspf=s"];
        assert_eq!(judged(&zone, "x@a.example", "s.a.example", "s.a.example").0, DmarcResult::Fail);
        assert_eq!(judged(&zone, "x@a.example", "a.example", "").0, DmarcResult::Pass);
    }

    #[test]
    fn owners_below_a_public_suffix_are_kept_apart() {
        let zone = ["_dmarc.co.example TXT v=DMARC1; p=reject; psd=y"];
        assert_eq!(judged(&zone, "x@a.co.example", "b.co.example", "").0, DmarcResult::Fail);
        assert_eq!(judged(&zone, "x@a.co.example", "m.a.co.example", "").0, DmarcResult::Pass);
        let zone = [REJECT, "_dmarc.s.a.example TXT v=DMARC1; p=reject; psd=n"];
        assert_eq!(judged(&zone, "x@a.example", "s.a.example", "").0, DmarcResult::Fail);
        assert_eq!(judged(&zone, "x@s.a.example", "a.example", "").0, DmarcResult::Fail);
    }

    #[test]
    fn what_is_not_known_refuses_nothing_unless_it_could_not_help() {
        let zone = ["_dmarc.a.example TXT !"];
        assert_eq!(judged(&zone, "x@a.example", "", ""), (DmarcResult::TempError, Wish::None));
        assert_eq!(
            judged(&["_dmarc.example TXT !", REJECT], "x@a.example", "", "").0,
            DmarcResult::Fail
        );
        let authors = Authors::of(std::iter::once(&b"x@a.example"[..]));
        for (voucher, expected) in
            [("a.example", DmarcResult::TempError), ("evil.example", DmarcResult::Fail)]
        {
            let voucher = domain(voucher);
            let vouchers =
                Vouchers { spf: None, dkim: vec![(DkimResult::TempError, Some(&voucher))] };
            let (found, _) = Zone::new(&[REJECT]).settle(|book| judge(book, &authors, &vouchers));
            assert_eq!(found.result, expected, "{voucher}");
        }
    }
}
