//! What a host must prove before it gets mail, and which rule says so.
//!
//! The configuration speaks first: where it wants no TLS, no rule of others changes that. Beyond it,
//! the recipient's domain may demand more for mail that goes by MX.

use std::fmt;
use std::sync::Arc;

use mailroot_common::address::{Domain, Host};
use mailroot_common::config::smart_hosts::SmartHostTls;
use mailroot_common::status::EnhancedCode;
use smtpd_core::queue::outcome::Stage;
use smtpd_core::route::dane::{Association, Demand, Tlsa, Usage};
use smtpd_core::route::sts::{Known, Mode};
use smtpd_core::route::table::TlsPolicy;
use smtpd_core::smtp::client::{Ending, Tls};
use smtpd_core::tls_report::FailureKind;

use super::Settings;
use super::aim::Target;
use crate::mta_sts::MtaSts;
use crate::resolve::{Allowance, LookupError};
use crate::tls::{Flaw, Proof, Recall};

/// The host may not have the mail (RFC 3463 section 3.8).
const NOT_NAMED: EnhancedCode = EnhancedCode::transient(7, 1);
/// What keeps it safe cannot be had (RFC 3463 section 3.8).
const NO_POLICY: EnhancedCode = EnhancedCode::transient(7, 5);

/// What a connection does about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum TlsUse {
    Off,
    Optional,
    Required,
    Verify,
    /// Verified, and from the first octet on.
    Implicit,
}

impl TlsUse {
    /// What the session is told.
    pub(super) const fn of_session(self) -> Tls {
        match self {
            Self::Off => Tls::Off,
            Self::Optional => Tls::Optional,
            Self::Required | Self::Verify => Tls::Required,
            Self::Implicit => Tls::Implicit,
        }
    }

    /// The same with a host that proves who it is.
    pub(super) const fn verified(self) -> Self {
        match self {
            Self::Off | Self::Optional | Self::Required | Self::Verify => Self::Verify,
            Self::Implicit => Self::Implicit,
        }
    }

    /// Whether the host must prove who it is.
    pub(super) const fn is_verified(self) -> bool {
        matches!(self, Self::Verify | Self::Implicit)
    }
}

impl From<TlsPolicy> for TlsUse {
    fn from(policy: TlsPolicy) -> Self {
        match policy {
            TlsPolicy::Off => Self::Off,
            TlsPolicy::Optional => Self::Optional,
            TlsPolicy::Required => Self::Required,
            TlsPolicy::Verify => Self::Verify,
        }
    }
}

impl From<SmartHostTls> for TlsUse {
    fn from(tls: SmartHostTls) -> Self {
        match tls {
            SmartHostTls::Off => Self::Off,
            SmartHostTls::Optional => Self::Optional,
            SmartHostTls::Required => Self::Required,
            SmartHostTls::Verify => Self::Verify,
            SmartHostTls::Implicit => Self::Implicit,
        }
    }
}

/// Which rule demands what a connection does, if it is not the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// It is.
    #[default]
    Configured,
    /// The policy of the recipient's domain.
    Sts,
    /// Nothing is demanded, but the policy of the recipient's domain has it told what would fail.
    StsTesting,
    /// The host's TLSA records.
    Dane(Arc<Dane>),
    /// The host's TLSA records, of which none can be used.
    DaneTls,
    /// The host has proved who it is before.
    Remembered,
}

/// What a host proves by its TLSA records.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Dane {
    associations: Vec<Association>,
    /// The names that an authority may vouch for. Without one they say nothing, and connections are
    /// shared by whatever domains have the host.
    names: Vec<Domain>,
    /// The name that the records were found at, which is the one to ask for (RFC 7672 section 8.1).
    base: Domain,
}

impl Dane {
    pub(super) fn proof(&self) -> Proof<'_> {
        Proof::Tlsa(&self.associations, &self.names)
    }

    /// The name that the host is asked to prove.
    pub(super) fn base(&self) -> Host {
        Host::Name(self.base.clone())
    }

    /// The records that can be used.
    pub(super) fn records(&self) -> impl Iterator<Item = Tlsa> {
        self.associations.iter().map(Tlsa::from)
    }
}

/// How a host is called that has proved who it is before, where the configuration asks for less:
/// whatever comes, or TLS with any certificate. Who writes the latter of one smart host, `is_own`, has
/// spoken of its certificate; who writes it of a server or a domain wants more than what comes, and
/// would get less than he did.
pub(super) fn recalled(
    settings: &Settings,
    host: &Host,
    called: (TlsUse, Rule),
    is_own: bool,
) -> (TlsUse, Rule) {
    let is_lax = match called.0 {
        TlsUse::Optional => true,
        TlsUse::Required => !is_own && called.1 != Rule::DaneTls,
        TlsUse::Off | TlsUse::Verify | TlsUse::Implicit => false,
    };
    let (Some(recall), Host::Name(name), true) = (&settings.recall, host, is_lax) else {
        return called;
    };
    match recall.until(name) {
        // Policies on trial have it told what would fail; here it fails.
        Some(_) => (TlsUse::Verify, Rule::Remembered),
        None => called,
    }
}

impl Settings {
    /// Grows with what is known of policies of other domains, and of what hosts have proved: as long as
    /// it is the same, a host that was chosen is called as it was.
    pub(super) fn rules_known(&self) -> u64 {
        let of_domains = self.mta_sts.as_ref().map_or(0, MtaSts::changes);
        of_domains + self.recall.as_ref().map_or(0, Recall::changes)
    }
}

/// Says of a failure of TLS that it is held against a host because of what it proved before.
pub(super) fn explain_recalled(ending: &mut Ending, target: &Target) {
    if ending.stage == Stage::Tls && target.rule == Rule::Remembered {
        let host = &target.name;
        ending.text = format!(
            "{} ({host} had a good certificate before, and gets no mail with less; smtpctl tls \
             forget {host} allows it)",
            ending.text
        );
    }
}

/// The policy of the recipient's domain that holds for an attempt.
#[derive(Clone, Debug)]
pub(super) struct OfDomain {
    domain: Domain,
    pub(super) sts: Option<Arc<Known>>,
    /// Why it has none although it speaks of one, where somebody is to be told.
    pub(super) sts_trouble: Option<Flaw>,
    /// Whether the names of its hosts are vouched for.
    pub(super) is_signed: bool,
}

impl OfDomain {
    /// What is known for mail by MX to the domain. The first mail waits for what it publishes.
    ///
    /// # Errors
    ///
    /// Why mail is not to go on without it.
    pub(super) async fn find(
        settings: &Settings,
        domain: &Domain,
        policy: TlsPolicy,
    ) -> Result<Self, Ending> {
        let sts = match &settings.mta_sts {
            Some(policies) if policy != TlsPolicy::Off => {
                let found = policies.policy(domain, &settings.addresses).await;
                found.map_err(|why| Ending::local(Stage::Tls, NO_POLICY, why.to_string()))?
            }
            _ => None,
        };
        let sts = sts.filter(|it| it.policy.mode != Mode::None);
        let is_told = settings.tls_reports.is_some() && sts.is_none() && policy != TlsPolicy::Off;
        let policies = settings.mta_sts.as_ref().filter(|_| is_told);
        let sts_trouble = policies.and_then(|policies| policies.trouble(domain));
        Ok(Self { domain: domain.clone(), sts, sts_trouble, is_signed: false })
    }

    /// What the TLSA records of a host of the domain demand, and the name that they were found at.
    ///
    /// # Errors
    ///
    /// [`LookupError`]: it may have some, so that it cannot be called.
    pub(super) async fn demand(
        &self,
        settings: &Settings,
        host: &Domain,
        policy: TlsPolicy,
        allowance: &Allowance,
    ) -> Result<Option<(Domain, Demand)>, LookupError> {
        if !settings.dane || !self.is_signed || policy == TlsPolicy::Off {
            return Ok(None);
        }
        let found = settings.resolver.tlsa(host, settings.port, allowance).await?;
        Ok(Demand::of(found.records).map(|demand| (found.base, demand)))
    }

    /// How a host of the domain is called, by this policy of the configuration. TLSA records that can be
    /// used go before the domain's policy (RFC 8461 section 2).
    ///
    /// # Errors
    ///
    /// Why it may not be.
    pub(super) fn of_host(
        &self,
        host: &Domain,
        policy: TlsPolicy,
        demand: Option<(Domain, Demand)>,
    ) -> Result<(TlsUse, Rule), Ending> {
        let needs_tls = match demand {
            Some((base, Demand::Proof(associations))) => {
                let names = match associations.iter().any(|it| it.usage == Usage::Authority) {
                    true => vec![base.clone(), self.domain.clone()],
                    false => Vec::new(),
                };
                let dane = Arc::new(Dane { associations, names, base });
                return Ok((TlsUse::Verify, Rule::Dane(dane)));
            }
            Some((_, Demand::Tls)) => true,
            None => false,
        };
        match self.sts.as_deref().map(|known| (known.policy.mode, known.policy.names(host))) {
            Some((Mode::Enforce, true)) => Ok((TlsUse::Verify, Rule::Sts)),
            Some((Mode::Enforce, false)) => {
                let text = format!("{}, which gets no mail", self.not_named(host));
                Err(Ending::local(Stage::Tls, NOT_NAMED, text))
            }
            _ if needs_tls => Ok((TlsUse::from(policy.max(TlsPolicy::Required)), Rule::DaneTls)),
            Some((Mode::Testing, _)) => Ok((policy.into(), Rule::StsTesting)),
            Some((Mode::None, _)) | None => Ok((policy.into(), Rule::Configured)),
        }
    }

    fn not_named(&self, host: &Domain) -> String {
        format!("the MTA-STS policy of {} does not name {host}", self.domain)
    }

    /// Says of a failure of TLS which rule demanded it.
    pub(super) fn explain(&self, ending: &mut Ending, target: &Target) {
        if ending.stage != Stage::Tls {
            return;
        }
        let (rule, whose): (_, &dyn fmt::Display) = match (&target.rule, &target.name) {
            (Rule::Sts, _) => ("MTA-STS policy", &self.domain),
            (Rule::Dane(_) | Rule::DaneTls, Host::Name(host)) => ("TLSA records", host),
            _ => return,
        };
        ending.text = format!("{} ({rule} of {whose})", ending.text);
    }

    /// What would have failed, were the policy not on trial: the host, and the flaw of its protection.
    pub(super) fn trial(&self, host: &Domain, flaw: Option<&Flaw>) -> Option<Flaw> {
        let policy = &self.sts.as_deref()?.policy;
        match flaw {
            _ if policy.mode != Mode::Testing => None,
            _ if !policy.names(host) => {
                Some(Flaw { kind: FailureKind::ValidationFailure, text: self.not_named(host) })
            }
            flaw => flaw.cloned(),
        }
    }

    /// Whether it is beyond doubt that a host is one of the domain's: DNS is signed, the domain's policy
    /// names it, or it has the domain's own name.
    pub(super) fn vouches_for(&self, host: &Domain) -> bool {
        let is_named = |known: &Arc<Known>| known.policy.names(host);
        self.is_signed || *host == self.domain || self.sts.as_ref().is_some_and(is_named)
    }

    /// The domain.
    pub(super) const fn domain(&self) -> &Domain {
        &self.domain
    }
}

/// What kept hosts from being used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Obstacles {
    /// A rule of others ruled one out.
    pub(super) by_rule: bool,
    /// One could not be connected to, or did not let us in.
    shut: bool,
    /// One answered, and did not come under TLS as it must.
    insecure: bool,
}

impl Obstacles {
    pub(super) fn note(&mut self, stage: Stage, rule: &Rule) {
        let by_rule = !matches!(rule, Rule::Configured | Rule::StsTesting);
        self.insecure |= stage == Stage::Tls;
        self.by_rule |= by_rule && stage == Stage::Tls;
        self.shut |= matches!(stage, Stage::Connect | Stage::Greeting | Stage::Hello);
    }

    /// Whether they are those of all domains that the hosts serve: what is demanded of one domain's
    /// hosts, and what cannot be looked up, is no matter of the others.
    pub(super) const fn are_of_all(self) -> bool {
        self.shut && !self.insecure && !self.by_rule
    }
}
