//! `senders:` - whether mail from strangers is from whom it says (SPF, DKIM, DMARC, ARC).

use super::choice::choice;
use super::diagnostic::Diagnostic;
use super::section::{Reader, section};
use super::server::ServerConfig;
use crate::address::Domain;
use crate::units::Span;

section! {
    /// What is looked at in mail from clients that have not logged in and may not relay. What is found goes
    /// into the Authentication-Results field, the log, the trace and queue show. What DNS does not tell
    /// refuses nothing.
    pub struct Senders {
        /// Whether the client may send for the domain of the envelope's sender (RFC 7208); reject refuses MAIL
        /// where that domain says fail.
        spf: Check = Check::Off, Check::Off;
        /// Whether the signatures of the message hold (RFC 6376); the first eight are looked at.
        dkim: Mark = Mark::Off, Mark::Off;
        /// Whether SPF or DKIM vouches for the domain in From (RFC 7489, with np of RFC 9091), for which both are
        /// looked at; reject refuses the message where that domain wants it, and one whose From names no author who can be read,
        /// or authors of more than four domains. Mail that it wants in quarantine is marked.
        dmarc: Check = Check::Off, Check::Off;
        /// Whether those who passed the message on vouch for what they found (RFC 8617).
        arc: Mark = Mark::Off, Mark::Off;
        /// Domains that are believed where they have passed a message on: their ARC chain holds, nobody else
        /// has sealed it since, and they found that DMARC passed. Such mail is not refused for DMARC here.
        /// Needs arc and dmarc.
        trusted_sealers: Vec<Domain> = Vec::new(), Vec::new();
        /// Seal such mail where it leaves for another host, in the name of this domain (RFC 8617): by its
        /// first RSA key in dkim, else its first one. A chain that does not hold is ended. Needs arc.
        seal: Option<Domain> = None, None;
        /// The name that the results are given under (authserv-id); it is delivery.fqdn where it is not set.
        /// Results that a stranger gives under this name are taken out.
        name: Option<Domain> = None, None, shown "delivery.fqdn";
        /// How long DNS may take to answer all questions about one message.
        timeout: Span = Span::seconds(20), Span::seconds(20), in Span::seconds(1)..=Span::minutes(5);
    }
}

choice! {
    /// What is done about a finding that can refuse mail.
    pub enum Check {
        /// Not looked at.
        Off = "off",
        /// Written into the message.
        Mark = "mark",
        /// Written into the message, or the message is refused.
        Reject = "reject",
    }
}

choice! {
    /// What is done about a finding that never refuses mail by itself.
    pub enum Mark {
        /// Not looked at.
        Off = "off",
        /// Written into the message.
        Mark = "mark",
    }
}

/// Seals need a look at the chain and a key; whoever is trusted, something to be trusted with.
pub(super) fn check(config: &ServerConfig, reader: &mut Reader) {
    let senders = &config.senders;
    let mut report = |key: &str, code, title: &str, help: &str| {
        if let Some(span) = reader.origins.get(key).cloned() {
            let diagnostic = Diagnostic::error(code, title).at(&reader.source, span, "set here");
            reader.report(diagnostic.help(help));
        }
    };
    if let Some(domain) = &senders.seal {
        if senders.arc == Mark::Off {
            let title = "a chain is carried on only where it is looked at";
            report("senders.seal", "E0450", title, "add  arc: mark  to senders");
        }
        if !config.dkim.iter().any(|entry| entry.domain == *domain) {
            let title = format!("{domain} has no key that could seal");
            let help = format!("smtpctl dkim create {domain}  makes one");
            report("senders.seal", "E0451", &title, &help);
        }
    }
    let looks = senders.arc != Mark::Off && senders.dmarc != Check::Off;
    if !senders.trusted_sealers.is_empty() && !looks {
        let title = "whoever sealed a message is believed only where ARC and DMARC are looked at";
        let help = "add  arc: mark  and  dmarc: reject  to senders";
        report("senders.trusted_sealers", "E0450", title, help);
    }
}
