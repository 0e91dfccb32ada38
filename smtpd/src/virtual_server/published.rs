//! What DNS says about our own sender domains, so that others believe our mail: SPF and DMARC.

use std::net::IpAddr;
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::config::{DomainKind, ServerConfig};
use mailroot_common::control::{Check, Level};
use smtpd_core::sender::book::Nothing;
use smtpd_core::sender::dmarc::{Wish, published};
use smtpd_core::sender::spf::{Branch, Claim, SpfResult, Tree, check};

use super::{Shared, VirtualServer, settings};
use crate::process;
use crate::resolve::Allowance;
use crate::sender::settle;

/// Domains that are looked at.
const DOMAINS_MAX: usize = 20;
/// How long DNS is waited for, for each question about one domain.
const WAIT: Duration = Duration::from_secs(10);
/// The same for all domains together; whoever asks waits for a minute.
const ALL_WAIT: Duration = Duration::from_secs(20);

impl VirtualServer {
    /// What was found about the records of domains that mail of ours comes from, each with what to do.
    pub(super) async fn check_published(&self) -> Vec<Check> {
        let found = tokio::time::timeout(ALL_WAIT, self.look_at_published()).await;
        found.unwrap_or_else(|_| {
            let text = "DNS did not tell in time what the domains of our mail publish".to_owned();
            vec![Check::new(Level::Warn, "spf", "record", text).hint("smtpctl doctor dns")]
        })
    }

    async fn look_at_published(&self) -> Vec<Check> {
        let (config, shared) = (self.config(), self.shared.load_full());
        let mut checks = Vec::new();
        for (domain, signs) in senders(&config, &shared).await {
            checks.extend(spf(&config, &shared, &domain).await);
            checks.extend(dmarc(&shared, &domain, signs).await);
        }
        checks
    }
}

/// The domains that mail of ours comes from, and whether it is signed: those that have a key, the
/// masquerade, and our own domains if the world sends mail to them.
async fn senders(config: &ServerConfig, shared: &Shared) -> Vec<(Domain, bool)> {
    let mut all: Vec<(Domain, bool)> = Vec::new();
    for entry in &config.dkim {
        if !all.iter().any(|(known, _)| *known == entry.domain) {
            all.push((entry.domain.clone(), true));
        }
    }
    let is_ours = |kind: &DomainKind| matches!(kind, DomainKind::Default(_) | DomainKind::Alias);
    let ours = config.domains.iter().filter(|entry| is_ours(&entry.kind));
    let ours = ours.filter_map(|entry| Domain::parse(&entry.name.to_string()).ok());
    let masquerade = config.delivery.masquerade_domain.clone();
    for domain in masquerade.iter().cloned().chain(ours) {
        if all.len() >= DOMAINS_MAX || all.iter().any(|(known, _)| *known == domain) {
            continue;
        }
        let found = shared.resolver.mx(&domain, &Allowance::default()).await;
        let is_known = found.is_ok_and(|found| !found.value.is_empty());
        if masquerade.as_ref() == Some(&domain) || is_known {
            all.push((domain, false));
        }
    }
    all.truncate(DOMAINS_MAX);
    all
}

/// The addresses that our mail leaves from, as far as this machine can know: none behind a smart host, and
/// none that the world does not see.
fn addresses(config: &ServerConfig) -> Vec<IpAddr> {
    if !config.delivery.smart_host.is_empty() {
        return Vec::new();
    }
    let is_public = |address: &IpAddr| match address {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared)
        }
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000,
    };
    let chosen = config.delivery.source.clone();
    let all = if chosen.is_empty() { process::own_addresses() } else { chosen };
    all.into_iter().filter(is_public).take(DOMAINS_MAX).collect()
}

async fn spf(config: &ServerConfig, shared: &Shared, domain: &Domain) -> Vec<Check> {
    let name = domain.as_str();
    let tree = settle(&shared.resolver, WAIT, |book| Tree::grow(book, name)).await;
    let found = |level, text: String| Check::new(level, "spf", "record", text);
    let Some((first, others)) = tree.branches.split_first() else { return Vec::new() };
    let text = match &first.record {
        Ok(text) => text,
        Err(why) => {
            let hint = format!("publish a TXT record of {name}, such as \"v=spf1 mx -all\"");
            return vec![found(Level::Warn, format!("{name}: {why}")).hint(hint)];
        }
    };
    let (terms, most) = (tree.terms, Tree::TERMS_MAX);
    let count = format!("{terms} of {most} terms ask DNS");
    let mut checks = vec![match terms > most {
        true => found(Level::Fail, format!("{name} \"{text}\": {count}, so that it may not count"))
            .hint("name networks (ip4:, ip6:) in place of include:, a and mx"),
        false => found(Level::Ok, format!("{name} \"{text}\": {count}")),
    }];
    checks.extend(others.iter().map(branch));
    let helo = settings::host(config, shared);
    for address in addresses(config) {
        let claim =
            Claim { client: address, helo: helo.as_str(), domain: name, local: "postmaster" };
        let said = settle(&shared.resolver, WAIT, |book| check(book, claim)).await;
        checks.push(ours(name, address, said));
    }
    checks
}

/// What is said of a record that another leads to.
fn branch(branch: &Branch) -> Check {
    let Branch { domain, from, record } = branch;
    let from = from.as_deref().unwrap_or_default();
    let (level, said) = match record {
        Ok(text) => (Level::Ok, format!("\"{text}\"")),
        Err(why) => (Level::Fail, (*why).to_owned()),
    };
    Check::new(level, "spf", "include", format!("{from} leads to {domain}: {said}"))
}

/// What the domain says of an address that our mail leaves from.
fn ours(name: &str, address: IpAddr, said: SpfResult) -> Check {
    let check = |level, text| Check::new(level, "spf", "address", text);
    let kind = if address.is_ipv4() { "ip4" } else { "ip6" };
    match said {
        SpfResult::Pass => check(Level::Ok, format!("{name} lets {address} send")),
        SpfResult::TempError => check(Level::Warn, format!("DNS does not say all of {name}")),
        other => check(
            if other == SpfResult::Fail { Level::Fail } else { Level::Warn },
            format!("{name} says {} of {address}, which our mail leaves from", other.word()),
        )
        .hint(format!("add {kind}:{address} to the record, or set delivery.source")),
    }
}

async fn dmarc(shared: &Shared, domain: &Domain, signs: bool) -> Option<Check> {
    let found = settle(&shared.resolver, WAIT, |book| published(book, domain)).await;
    let check = |level, text: String| Check::new(level, "dmarc", "record", text);
    Some(match found {
        Err(Nothing::Unknown | Nothing::Absent) => {
            check(Level::Warn, format!("DNS does not say what {domain} wants (DMARC)"))
        }
        Ok(None) => check(Level::Warn, format!("{domain} publishes no policy (DMARC)"))
            .hint(format!("publish a TXT record of _dmarc.{domain}, such as \"v=DMARC1; p=none\"")),
        Ok(Some(wish)) if wish > Wish::None && !signs => check(
            Level::Warn,
            format!(
                "{domain} wants {} for mail that fails, and ours has no signature",
                wish.word()
            ),
        )
        .hint(format!("mail that is passed on needs one: smtpctl dkim create {domain}")),
        Ok(Some(wish)) => check(Level::Ok, format!("{domain} publishes p={}", wish.word())),
    })
}
