//! What `doctor` says of the certificates that clients are shown.

use mailroot_common::config::access::TlsMode;
use mailroot_common::control::{Check, Level};

use super::{VirtualServer, settings};
use crate::tls::{Clients, EXPIRES_SOON, Standing, until_words};

const TOPIC: &str = "tls";

impl VirtualServer {
    /// Each certificate: whether it is there, for our name, and for how long.
    pub(super) fn check_certificates(&self) -> Vec<Check> {
        let (config, shared) = (self.config(), self.shared.load_full());
        let tls = &config.access.tls;
        if tls.mode == TlsMode::Off {
            return Vec::new();
        }
        let all = shared.certificates.list();
        let (now, host) = (shared.clock.now(), settings::host(&config, &shared));
        let own: Vec<&Standing> = tls
            .certificate
            .iter()
            .filter_map(|name| all.iter().find(|it| it.name == *name))
            .collect();
        let mut checks: Vec<Check> = own.iter().map(|standing| check(standing, now)).collect();
        let mut shown = own.iter().filter_map(|it| it.certificate.as_ref());
        if shown.clone().next().is_some() && !shown.any(|it| it.facts.is_for(host.as_str())) {
            let text = format!("no certificate is for {host}, the name that we greet with");
            checks.push(
                Check::new(Level::Warn, TOPIC, "name", text)
                    .hint("clients that check names call it a fault; name another in access.tls"),
            );
        }
        if let Some(clients) = Clients::new(&config.access.certificates) {
            let warn = |text: String| Check::new(Level::Warn, TOPIC, "clients", text);
            let untrusted = clients
                .trouble()
                .map(|why| warn(why).hint("until that is mended no issuer vouches for a client"));
            // That they cannot be read is told by what is wrong with the issuers.
            let old = clients.old_lists(now).into_iter().flatten();
            let old = old.map(|it| warn(it).hint("fetch it from its issuer again"));
            checks.extend(untrusted.into_iter().chain(old));
        }
        checks
    }
}

fn check(standing: &Standing, now: mailroot_common::units::Timestamp) -> Check {
    let name = &standing.name;
    let check = |level, text: String| Check::new(level, TOPIC, "certificate", text);
    let files = &standing.files;
    match (&standing.trouble, &standing.certificate) {
        (Some(trouble), None) => check(Level::Fail, format!("{name} cannot be shown: {trouble}"))
            .hint("clients are offered no TLS by it until that is mended"),
        (Some(trouble), Some(_)) => {
            check(Level::Warn, format!("{name}: the old one is still shown: {trouble}"))
                .hint("the files are looked at again when they change")
        }
        (None, None) if standing.asked_for => {
            let why = standing.refused.as_deref().unwrap_or("it is being asked for");
            check(Level::Warn, format!("{name} is not there yet, auto stands in for it: {why}"))
                .hint(format!("once that is mended: smtpctl cert renew {name}"))
        }
        (None, None) => check(Level::Fail, format!("{name} was not read")),
        (None, Some(shown)) => {
            let facts = &shown.facts;
            let text = format!("{name} for {} {}", facts.names.join(", "), until_words(facts, now));
            let good = facts.not_before <= now && facts.not_after > now.after(EXPIRES_SOON);
            if let Some(why) = &standing.refused {
                return check(Level::Warn, format!("{text}, and could not be renewed: {why}"))
                    .hint(format!("once that is mended: smtpctl cert renew {name}"));
            }
            let check = check(if good { Level::Ok } else { Level::Warn }, text);
            if good {
                return check;
            }
            if standing.asked_for {
                return check
                    .hint(format!("it is renewed in time; or now: smtpctl cert renew {name}"));
            }
            check.hint(format!("put a new one in the place of {}", files.chain.display()))
        }
    }
}
