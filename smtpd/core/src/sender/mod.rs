//! Whether mail is from whom it says: SPF, DKIM, DMARC and ARC, as facts.
//!
//! In: who sends, the header, the body as it comes, the book of what DNS said. Out: findings, the
//! `Authentication-Results` field that tells them, and whether the message is refused. Nothing waits
//! here: what is not in the book is wanted, and the judge is asked again once it is there.
//!
//! All of it is a stranger's: his domain's records, his signatures, their number. Each part has a bound
//! of its own, so that what he sends can make a message cost more, but not without end, and so that his
//! records cannot use up what the answers of the domain he pretends to be would need.

pub mod arc;
mod authres;
pub mod book;
pub mod dkim;
pub mod dmarc;
mod report;
pub mod seal;
pub mod spf;
mod tags;

use std::net::IpAddr;
use std::sync::Arc;

use mailroot_common::address::{Domain, ReversePath};
use mailroot_common::units::Timestamp;

use self::arc::{ArcFinding, ArcResult, Chain};
use self::book::Book;
use self::dkim::body::{Bodies, Sums};
use self::dkim::signature::Header;
use self::dkim::{Candidate, DkimResult, Label, SIGNATURES_MAX, Verify};
use self::dmarc::{Authors, DmarcFinding, DmarcResult, Vouchers, Wish};
pub use self::report::without_results;
use self::spf::{Claim, SpfResult};
use crate::smtp::refusal::Refusal;

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whether the client may send for the domain of the envelope's sender.
    pub spf: bool,
    /// Whether signatures hold.
    pub dkim: bool,
    /// Whether one of both is of the domain in From; needs both.
    pub dmarc: bool,
    /// Whether those who passed it on vouch for it.
    pub arc: bool,
    /// Mail that SPF says may not come from the client is refused.
    pub refuse_spf: bool,
    /// Mail whose author's domain wants that is refused.
    pub refuse_dmarc: bool,
}

impl Wanted {
    /// Whether anything is looked at.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.spf || self.dkim || self.dmarc || self.arc
    }

    /// Whether the message itself is looked at.
    #[must_use]
    pub const fn message(&self) -> bool {
        self.dkim || self.dmarc || self.arc
    }

    const fn any_spf(&self) -> bool {
        self.spf || self.dmarc
    }

    const fn any_dkim(&self) -> bool {
        self.dkim || self.dmarc
    }
}

/// Who sends, as far as the session tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    client: IpAddr,
    helo: String,
    /// The domain whose name is used, if it is one.
    domain: Option<Domain>,
    local: String,
    /// There is no sender, and what the client calls itself is judged instead (RFC 7208 section 2.4).
    is_helo: bool,
}

impl Identity {
    /// The identity that SPF is about.
    #[must_use]
    pub fn new(client: IpAddr, helo: &str, sender: &ReversePath) -> Self {
        let mailbox = sender.mailbox();
        let (domain, local) = match mailbox {
            Some(mailbox) => (mailbox.domain().cloned(), mailbox.local().to_string()),
            None => (Domain::parse(helo).ok(), "postmaster".to_owned()),
        };
        Self { client, helo: helo.to_owned(), domain, local, is_helo: mailbox.is_none() }
    }

    /// What SPF says about it; nothing if the book lacks something.
    pub fn judge(&self, book: &mut Book) -> Option<SpfFinding> {
        let result = match &self.domain {
            // A client whose address nobody tells is on no domain's list, and that says nothing of it.
            Some(_) if self.client.is_unspecified() => SpfResult::None,
            None => SpfResult::None,
            Some(domain) => {
                let claim = Claim {
                    client: self.client,
                    helo: &self.helo,
                    domain: domain.as_str(),
                    local: &self.local,
                };
                spf::check(book, claim)?
            }
        };
        Some(SpfFinding { result, domain: self.domain.clone(), is_helo: self.is_helo })
    }
}

/// What SPF came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpfFinding {
    /// The result.
    pub result: SpfResult,
    /// The domain it is about.
    pub domain: Option<Domain>,
    /// Whether that is what the client called itself.
    pub is_helo: bool,
}

impl SpfFinding {
    /// Whether mail is refused for it (RFC 7208 section 8.4).
    ///
    /// # Errors
    ///
    /// The refusal.
    pub fn admit(&self, wanted: &Wanted) -> Result<(), Refusal> {
        match self.result {
            SpfResult::Fail if wanted.refuse_spf => Err(Refusal::SpfFailed),
            _ => Ok(()),
        }
    }
}

/// What a signature came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimFinding {
    /// The result.
    pub result: DkimResult,
    /// Why, unless it passed.
    pub reason: &'static str,
    /// Whose it is.
    pub label: Label,
}

impl DkimFinding {
    /// There is no signature.
    fn none() -> Self {
        Self { result: DkimResult::None, reason: "", label: Label::default() }
    }
}

/// What was found about one message; nothing where it was not looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// SPF.
    pub spf: Option<SpfFinding>,
    /// DKIM: each signature, or one without a label that says that there is none.
    pub dkim: Vec<DkimFinding>,
    /// There are signatures that were not looked at.
    pub more_signatures: bool,
    /// DMARC.
    pub dmarc: Option<DmarcFinding>,
    /// ARC.
    pub arc: Option<ArcFinding>,
}

impl Findings {
    /// Whether the message is refused for them.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub fn admit(&self, wanted: &Wanted) -> Result<(), Refusal> {
        if let Some(spf) = &self.spf {
            spf.admit(wanted)?;
        }
        match &self.dmarc {
            Some(DmarcFinding {
                result: DmarcResult::Fail,
                wish: Wish::Reject,
                overruled_by: None,
                ..
            }) if wanted.refuse_dmarc => Err(Refusal::DmarcFailed),
            // Else whoever fears an author's domain would only have to write From so that it is not read.
            Some(DmarcFinding { result: DmarcResult::PermError, .. }) if wanted.refuse_dmarc => {
                Err(Refusal::AuthorUnreadable)
            }
            _ => Ok(()),
        }
    }
}

/// One message while it arrives.
#[derive(Clone, Debug)]
pub struct Examination {
    wanted: Wanted,
    signatures: Vec<Candidate>,
    more_signatures: bool,
    authors: Authors,
    chain: Chain,
    bodies: Bodies,
}

impl Examination {
    /// Reads the header, its empty line or not.
    #[must_use]
    pub fn begin(header: &[u8], wanted: Wanted) -> Self {
        let header = Header::new(header);
        let mut bodies = Bodies::default();
        let (mut signatures, mut more_signatures) = (Vec::new(), false);
        if wanted.any_dkim() {
            let mut fields = header.all("dkim-signature");
            let first = fields.by_ref().take(SIGNATURES_MAX);
            signatures.extend(first.map(|field| Candidate::new(&header, field)));
            more_signatures = fields.next().is_some();
        }
        let chain = if wanted.arc { Chain::new(&header) } else { Chain::default() };
        let forms = signatures.iter().filter_map(Candidate::form).chain(chain.form());
        forms.for_each(|form| bodies.want(form));
        let from = header.all("from").map(|field| &header.octets[field.value.clone()]);
        let authors = Authors::of(from);
        Self { wanted, signatures, more_signatures, authors, chain, bodies }
    }

    /// Takes a piece of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.bodies.push(piece);
    }

    /// Ends the body.
    #[must_use]
    pub fn finish(self) -> Examined {
        let Self { wanted, signatures, more_signatures, authors, chain, bodies } = self;
        let (sums, trusted) = (bodies.finish(), Arc::default());
        Examined { wanted, signatures, more_signatures, authors, chain, sums, trusted }
    }

    /// Findings about this message and sender that take as much room as any.
    fn longest(&self, identity: &Identity) -> Findings {
        let dkim = |candidate: &Candidate| DkimFinding {
            result: DkimResult::PermError,
            reason: dkim::REASON_LONGEST,
            label: candidate.label.clone(),
        };
        let author = self.authors.longest().cloned();
        Findings {
            spf: self.wanted.any_spf().then(|| SpfFinding {
                result: SpfResult::PermError,
                domain: identity.domain.clone(),
                is_helo: identity.is_helo,
            }),
            dkim: match self.signatures.as_slice() {
                [] if self.wanted.any_dkim() => vec![DkimFinding::none()],
                signatures => signatures.iter().map(dkim).collect(),
            },
            more_signatures: self.more_signatures,
            dmarc: self.wanted.dmarc.then_some(DmarcFinding {
                result: DmarcResult::PermError,
                domain: author,
                wish: Wish::Quarantine,
                overruled_by: self.chain.longest().cloned(),
            }),
            arc: self.wanted.arc.then(|| ArcFinding {
                result: ArcResult::TempError,
                sealer: self.chain.sealer().cloned(),
            }),
        }
    }

    /// Octets that the field about this message may take, whatever is found.
    #[must_use]
    pub fn room(&self, identity: &Identity, host: &str) -> usize {
        let mut longest = Vec::new();
        self.longest(identity).write(host, None, &mut longest);
        longest.len()
    }
}

/// A message that has arrived.
#[derive(Clone, Debug)]
pub struct Examined {
    wanted: Wanted,
    signatures: Vec<Candidate>,
    more_signatures: bool,
    authors: Authors,
    chain: Chain,
    sums: Sums,
    /// Whose findings count where those of our own would refuse the message.
    trusted: Arc<[Domain]>,
}

impl Examined {
    /// The same, where these are believed who sealed it on its way (RFC 8617 section 7.2.1).
    #[must_use]
    pub fn trusting(self, sealers: &Arc<[Domain]>) -> Self {
        Self { trusted: Arc::clone(sealers), ..self }
    }

    /// Who overrules that nobody vouches for the author, if somebody does.
    fn voucher(&self, dmarc: &DmarcFinding, arc: Option<&ArcFinding>) -> Option<Domain> {
        let holds = arc.is_some_and(|arc| arc.result == ArcResult::Pass);
        let author = self.authors.only().filter(|_| holds && dmarc.result == DmarcResult::Fail)?;
        self.chain.voucher(author, &self.trusted).cloned()
    }

    /// Judges the message; nothing if the book lacks something. `spf` is what was found before.
    pub fn judge(
        &self,
        book: &mut Book,
        (identity, spf): (&Identity, Option<&SpfFinding>),
        now: Timestamp,
        verify: &Verify<'_>,
    ) -> Option<Findings> {
        let now = now.as_millis() / 1000;
        if self.wanted.dmarc {
            self.authors.prepare(book);
        }
        // Every part says what it wants before any is waited for.
        let dkim: Vec<_> = self
            .signatures
            .iter()
            .map(|candidate| (candidate, candidate.judge(book, &self.sums, now, verify)))
            .collect();
        let arc = match self.wanted.arc {
            true => Some(self.chain.judge(book, &self.sums, now, verify)),
            false => None,
        };
        let spf = match (self.wanted.any_spf(), spf) {
            (true, None) => Some(identity.judge(book)),
            (true, Some(known)) => Some(Some(known.clone())),
            (false, _) => None,
        };
        let (spf, arc) = (transposed(spf)?, transposed(arc)?);
        let mut found = Vec::new();
        for (candidate, verdict) in dkim {
            let ((result, reason), label) = (verdict?, candidate.label.clone());
            found.push(DkimFinding { result, reason, label });
        }
        let mut dmarc = match self.wanted.dmarc {
            true => Some(dmarc::judge(book, &self.authors, &vouchers(spf.as_ref(), &found))?),
            false => None,
        };
        if let Some(dmarc) = &mut dmarc {
            dmarc.overruled_by = self.voucher(dmarc, arc.as_ref());
        }
        if found.is_empty() && self.wanted.any_dkim() {
            found.push(DkimFinding::none());
        }
        Some(Findings { spf, dkim: found, more_signatures: self.more_signatures, dmarc, arc })
    }
}

/// Something that is not wanted, or not known yet, or known.
fn transposed<T>(found: Option<Option<T>>) -> Option<Option<T>> {
    match found {
        None => Some(None),
        Some(None) => None,
        Some(known) => Some(known),
    }
}

fn vouchers<'a>(spf: Option<&'a SpfFinding>, dkim: &'a [DkimFinding]) -> Vouchers<'a> {
    Vouchers {
        spf: spf.map(|found| (found.result, found.domain.as_ref())),
        dkim: dkim.iter().map(|found| (found.result, found.label.domain.as_ref())).collect(),
    }
}

#[cfg(test)]
mod tests;
