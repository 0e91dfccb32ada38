//! What sessions with hosts of a domain came to, for those whom the domain names (RFC 8460).
//!
//! A session is counted once: when its connection can carry mail, or when TLS has failed on it. One that
//! could not be begun tells nothing of TLS. Where no reports are wanted nothing is looked at.

use std::net::IpAddr;

use mailroot_common::address::{Domain, Host};
use smtpd_core::queue::outcome::Stage;
use smtpd_core::route::dane::Tlsa;
use smtpd_core::route::sts::Mode;
use smtpd_core::smtp::client::Ending;
use smtpd_core::tls_report::{Failure, FailureKind, Policy};

use super::Settings;
use super::aim::Target;
use super::job::Job;
use super::session::Connection;
use super::target::Targets;
use super::trust::{OfDomain, Rule, TlsUse};
use crate::tls::Flaw;

/// Where TLS failed on a connection, and with what.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) flaw: Flaw,
    /// Our address there.
    pub(super) from: Option<IpAddr>,
}

/// Why a connection was not opened.
#[derive(Debug)]
pub(super) struct Unopened {
    pub(super) ending: Ending,
    /// What TLS failed with, if it did.
    pub(super) trouble: Option<Trouble>,
    /// What was said before it failed, where that is kept.
    pub(super) said: Option<String>,
}

impl From<Ending> for Unopened {
    fn from(ending: Ending) -> Self {
        Self { ending, trouble: None, said: None }
    }
}

/// Whether sessions for these messages are counted. Those that carry nothing but reports are not: a
/// report would be the cause of the next.
pub(super) fn are_counted(settings: &Settings, jobs: &[Job]) -> bool {
    let is_report = |job: &Job| job.envelope.is_tls_report();
    settings.tls_reports.is_some() && !jobs.iter().all(is_report)
}

/// Counts a session that can carry mail.
pub(super) fn opened(settings: &Settings, targets: &Targets, connection: &Connection) {
    let Some(of_domain) = counted(targets, &connection.target) else { return };
    let target = &connection.target;
    let Host::Name(host) = &target.name else { return };
    let flaw = match (&connection.host.tls, &connection.flaw) {
        (Some(_), _) if target.rule == Rule::DaneTls => {
            Some(flaw(FailureKind::TlsaInvalid, "none of the TLSA records can be used"))
        }
        (Some(_), flaw) => of_domain.trial(host, flaw.as_ref()),
        (None, _) => Some(match &connection.trouble {
            Some(trouble) => trouble.flaw.clone(),
            None => flaw(FailureKind::StartTlsNotSupported, "the host does not offer STARTTLS"),
        }),
    };
    // What the domain says of its policy could not be had: that is what it is to hear.
    let missing = of_domain.sts_trouble.as_ref().filter(|_| !is_dane(&target.rule));
    let failure = missing.or(flaw.as_ref()).map(|flaw| failure(flaw, connection.from, target));
    count(settings, of_domain, policy(of_domain, host, &target.rule), failure);
}

/// Counts a session on which TLS failed.
pub(super) fn failed(settings: &Settings, targets: &Targets, target: &Target, why: &Unopened) {
    let (Some(of_domain), Host::Name(host)) = (counted(targets, target), &target.name) else {
        return;
    };
    if why.ending.stage != Stage::Tls {
        return;
    }
    let (flaw, from) = match &why.trouble {
        Some(trouble) => (trouble.flaw.clone(), trouble.from),
        None => (flaw(FailureKind::StartTlsNotSupported, &why.ending.text), None),
    };
    let failure = failure(&flaw, from, target);
    count(settings, of_domain, policy(of_domain, host, &target.rule), Some(failure));
}

/// Counts that a host of the domain was not called, because its TLSA records could not be had, or the
/// domain's policy does not name it.
pub(super) fn ruled_out(
    settings: &Settings,
    of_domain: &OfDomain,
    host: &Domain,
    kind: FailureKind,
    why: &str,
) {
    let policy = match kind {
        FailureKind::DnssecInvalid => Policy::tlsa(host, &[]),
        _ => Policy::sts(of_domain.sts.as_deref().map(|known| &known.policy)),
    };
    let failure = Failure { host: Some(host.to_string()), ..Failure::of(kind) }.because(why);
    count(settings, of_domain, policy, Some(failure));
}

/// The domain whose sessions are counted, if they are.
fn counted<'t>(targets: &'t Targets, target: &Target) -> Option<&'t OfDomain> {
    let is_meant = targets.is_counted() && target.tls != TlsUse::Off;
    targets.of_domain().filter(|_| is_meant)
}

fn count(settings: &Settings, of_domain: &OfDomain, policy: Policy, failure: Option<Failure>) {
    if let Some(ledger) = &settings.tls_reports {
        ledger.count(of_domain.domain(), policy, failure);
    }
}

fn flaw(kind: FailureKind, text: &str) -> Flaw {
    Flaw { kind, text: text.to_owned() }
}

fn failure(flaw: &Flaw, from: Option<IpAddr>, target: &Target) -> Failure {
    let failure = Failure {
        sending_ip: from,
        host: Some(target.name.to_string()),
        receiving_ip: Some(target.at.ip()),
        ..Failure::of(flaw.kind)
    };
    failure.because(&flaw.text)
}

const fn is_dane(rule: &Rule) -> bool {
    matches!(rule, Rule::Dane(_) | Rule::DaneTls)
}

/// The policy that a host was called by.
fn policy(of_domain: &OfDomain, host: &Domain, rule: &Rule) -> Policy {
    match rule {
        Rule::Dane(dane) => {
            let records: Vec<Tlsa> = dane.records().collect();
            Policy::tlsa(host, &records)
        }
        Rule::DaneTls => Policy::tlsa(host, &[]),
        Rule::Configured | Rule::Sts | Rule::StsTesting | Rule::Remembered => {
            match &of_domain.sts {
                Some(known) if known.policy.mode != Mode::None => Policy::sts(Some(&known.policy)),
                _ if of_domain.sts_trouble.is_some() => Policy::sts(None),
                _ => Policy::none(),
            }
        }
    }
}
