//! What a host must prove before it gets mail, and which rule says so.
//!
//! The configuration speaks first: where it wants no TLS, no rule of others changes that. Beyond it,
//! the recipient's domain may demand more for mail that goes by MX.

use std::sync::Arc;

use mailroot_common::address::Domain;
use mailroot_common::config::smart_hosts::SmartHostTls;
use mailroot_common::status::EnhancedCode;
use smtpd_core::queue::outcome::Stage;
use smtpd_core::route::sts::{Known, Mode};
use smtpd_core::route::table::TlsPolicy;
use smtpd_core::smtp::client::{Ending, Tls};

use super::Settings;

/// The host may not have the mail (RFC 3463 section 3.8).
const NOT_NAMED: EnhancedCode = EnhancedCode::transient(7, 1);

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// It is.
    #[default]
    Configured,
    /// The policy of the recipient's domain.
    Sts,
    /// Nothing is demanded, but the policy of the recipient's domain has it told what would fail.
    StsTesting,
}

/// The policy of the recipient's domain that holds for an attempt.
#[derive(Clone, Debug)]
pub(super) struct OfDomain {
    domain: Domain,
    sts: Option<Arc<Known>>,
}

impl OfDomain {
    /// What is known for mail by MX to the domain. The first mail waits for what it publishes.
    pub(super) async fn find(settings: &Settings, domain: &Domain, policy: TlsPolicy) -> Self {
        let sts = match &settings.mta_sts {
            Some(policies) if policy != TlsPolicy::Off => {
                policies.policy(domain, &settings.addresses).await
            }
            _ => None,
        };
        Self { domain: domain.clone(), sts: sts.filter(|it| it.policy.mode != Mode::None) }
    }

    /// How a host of the domain is called, by this policy of the configuration.
    ///
    /// # Errors
    ///
    /// Why it may not be.
    pub(super) fn of_host(
        &self,
        host: &Domain,
        policy: TlsPolicy,
    ) -> Result<(TlsUse, Rule), Ending> {
        match self.sts.as_deref().map(|known| (known.policy.mode, known.policy.names(host))) {
            Some((Mode::Enforce, true)) => Ok((TlsUse::Verify, Rule::Sts)),
            Some((Mode::Enforce, false)) => {
                Err(Ending::local(Stage::Tls, NOT_NAMED, self.not_named(host)))
            }
            Some((Mode::Testing, _)) => Ok((policy.into(), Rule::StsTesting)),
            Some((Mode::None, _)) | None => Ok((policy.into(), Rule::Configured)),
        }
    }

    fn not_named(&self, host: &Domain) -> String {
        format!("the MTA-STS policy of {} does not name {host}, which gets no mail", self.domain)
    }

    /// Says of a failure of TLS which rule demanded it.
    pub(super) fn explain(&self, ending: &mut Ending, rule: Rule) {
        if ending.stage == Stage::Tls && rule == Rule::Sts {
            ending.text = format!("{} (MTA-STS policy of {})", ending.text, self.domain);
        }
    }

    /// What would have failed, were the policy not on trial: the host, and the flaw of its protection.
    pub(super) fn trial_failure(&self, host: &Domain, flaw: Option<&str>) -> Option<String> {
        let policy = &self.sts.as_deref()?.policy;
        match flaw {
            _ if policy.mode != Mode::Testing => None,
            _ if !policy.names(host) => Some(self.not_named(host)),
            flaw => flaw.map(str::to_owned),
        }
    }

    /// The domain.
    pub(super) const fn domain(&self) -> &Domain {
        &self.domain
    }
}
