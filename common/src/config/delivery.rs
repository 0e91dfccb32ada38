//! `delivery:` - when, where and how mail goes out.

use std::net::IpAddr;

use super::choice::choice;
use super::section::section;
use super::sender_rewrite::SenderRule;
use super::sender_route::SenderRoute;
use super::smart_hosts::Hop;
use super::value::{Limit, Wait};
use crate::address::Domain;
use crate::units::Span;

section! {
    /// Retries, connections, smart hosts and what receivers are told about us.
    pub struct Delivery {
        /// Our address for outbound connections; one of each family, or none for the system's choice.
        source: Vec<IpAddr> = Vec::new(), Vec::new(), shown "system";
        /// Which addresses of a receiver are tried.
        ip_version: IpVersion = IpVersion::Any, IpVersion::V4;
        /// Received fields after which a message is taken to be in a loop and returned.
        max_hops: u32 = 100, 15, in 1..=1000;
        /// Replaces our local domains in the sender address of outgoing mail, which stands in MAIL FROM.
        masquerade_domain: Option<Domain> = None, None;
        /// Let masquerade_domain replace them in the From header as well. The original did not.
        masquerade_header: bool = false, false;
        /// Senders whose mail leaves under another address, in MAIL FROM and in From; the first rule that
        /// fits counts, and none applies to what came out of another. A pattern has * and ?, or is an
        /// expression between slashes. Answers go to the old From by Reply-To, unless the message has
        /// one. Reports of this server reach the old sender, those of other hosts the new one.
        sender_rewrite: Vec<SenderRule> = Vec::new(), Vec::new();
        /// The name in our greeting, in EHLO and in Received.
        fqdn: Option<Domain> = None, None, shown "service.hostname";
        /// Hosts that take all mail for other domains, tried in this order; smarthost:NAME is one of
        /// smart_hosts, with its security and login.
        smart_host: Vec<Hop> = Vec::new(), Vec::new();
        /// Senders whose mail goes another way; the first that fits counts, by the sender that the mail
        /// came with; a pattern is one of sender_rewrite, and "<>" means reports. A route is one of
        /// domains. Mail for a domain of this file goes as that says, whoever sends it.
        sender_routes: Vec<SenderRoute> = Vec::new(), Vec::new();
        /// Whether mail is first sent directly, and when it then goes to the smart host.
        direct_first: DirectFirst = DirectFirst::Never, DirectFirst::Never;
        /// Deliver to loopback and link-local addresses found by MX. Addresses written in this file
        /// are always allowed.
        allow_loopback: bool = false, false;
    }
    sections {
        /// Mail for other hosts.
        outbound: Outbound;
        /// Mail for the Drop directory.
        local: Local;
        /// Connections to other hosts.
        connections: Connections;
        /// Protection of mail on its way out.
        security: Security;
    }
}

section! {
    /// The schedule of mail for other hosts.
    pub struct Outbound {
        /// Waits between attempts; the last one repeats.
        retry: Vec<Span> =
            vec![
                Span::minutes(1), Span::minutes(5), Span::minutes(15), Span::minutes(30),
                Span::hours(1), Span::hours(4),
            ],
            vec![Span::minutes(15), Span::minutes(30), Span::hours(1), Span::hours(4)],
            in Span::seconds(1)..=Span::days(9999);
        /// After this time the sender is told that the message is late.
        delay_notice: Wait = Wait::After(Span::hours(12)), Wait::After(Span::hours(12)),
            in Span::minutes(1)..=Span::days(9999);
        /// After this time the message is returned to its sender.
        expire: Span = Span::days(4), Span::days(2), in Span::minutes(1)..=Span::days(9999);
        /// Attempts 60 seconds apart before the waits of retry begin. Profile iis6 only.
        quick_retries: u32 = 0, 3, in 0..=100;
        /// What is done with a recipient in doubt: the whole message was sent, and the connection or
        /// this service ended before the reply. After loss of power it may not be known.
        /// A message that was being sent at three ends of the service in a row is held. A further attempt may deliver it twice, none may mean
        /// that it never arrived. hold waits for an operator's queue retry, return tells the sender
        /// that it is not known.
        in_doubt: InDoubt = InDoubt::Retry, InDoubt::Retry;
    }
}

section! {
    /// The schedule of mail for the Drop directory.
    pub struct Local {
        /// Waits between attempts; the last one repeats.
        retry: Vec<Span> = vec![Span::minutes(5)], vec![Span::minutes(60)],
            in Span::seconds(1)..=Span::days(9999);
        /// After this time the sender is told that the message is late.
        delay_notice: Wait = Wait::After(Span::hours(12)), Wait::After(Span::hours(12)),
            in Span::minutes(1)..=Span::days(9999);
        /// After this time the message is returned to its sender.
        expire: Span = Span::days(4), Span::days(2), in Span::minutes(1)..=Span::days(9999);
    }
}

section! {
    /// Limits and times of outbound connections.
    pub struct Connections {
        /// Outbound connections at the same time, idle ones that are kept included.
        max: Limit<u32> = Limit::At(1000), Limit::At(1000), in 1..=1_000_000;
        /// Outbound connections at the same time for one domain or smart host. Domains that DNS sends to
        /// the same hosts share them.
        per_domain: Limit<u32> = Limit::At(20), Limit::At(100), in 1..=1_000_000;
        /// How long to wait for a reply in a session.
        timeout: Span = Span::minutes(10), Span::minutes(10), in Span::seconds(1)..=Span::days(1);
        /// How long to wait for a connection.
        connect: Span = Span::seconds(30), Span::seconds(30), in Span::seconds(1)..=Span::hours(1);
        /// How long to wait for the greeting.
        greeting: Span = Span::minutes(5), Span::minutes(5), in Span::seconds(1)..=Span::hours(1);
        /// How long to wait for the reply after a message's end.
        data_end: Span = Span::minutes(10), Span::minutes(10),
            in Span::seconds(1)..=Span::hours(1);
        /// The port of receivers that were written without one.
        port: u16 = 25, 25, in 1..=65535;
        /// How long an idle connection is kept for the next message.
        reuse: Wait = Wait::After(Span::seconds(30)), Wait::After(Span::seconds(30)),
            in Span::millis(1)..=Span::minutes(10);
    }
}

section! {
    /// Protection of mail on its way to hosts that are not in smart_hosts.
    pub struct Security {
        /// Whether it goes under TLS, and whether certificates are checked.
        tls: TlsMode = TlsMode::Optional, TlsMode::Off;
    }
}

choice! {
    /// Whether mail goes out under TLS.
    pub enum TlsMode {
        /// In clear text.
        Off = "off",
        /// Under TLS where the host offers it; certificates are not checked.
        Optional = "optional",
        /// Under TLS or not at all; certificates are not checked.
        Required = "required",
        /// Under TLS with a certificate that is good for the host's name, or not at all.
        Verify = "verify",
    }
}

choice! {
    /// Which addresses of a receiver are tried.
    pub enum IpVersion {
        /// Both, in the order the resolver gives.
        Any = "any",
        /// IPv4 only.
        V4 = "4",
        /// IPv6 only.
        V6 = "6",
        /// Both, IPv4 first.
        Prefer4 = "prefer-4",
    }
}

choice! {
    /// What is done with a recipient that may or may not have the message.
    pub enum InDoubt {
        /// It is tried again by the schedule.
        Retry = "retry",
        /// It waits for an operator.
        Hold = "hold",
        /// It is returned to its sender.
        Return = "return",
    }
}

choice! {
    /// When mail that was first tried directly goes to the smart host.
    pub enum DirectFirst {
        /// All mail goes to the smart host.
        Never = "never",
        /// When the domain's hosts cannot be found.
        OnDnsFailure = "on_dns_failure",
        /// After any temporary failure.
        OnAnyTemporaryFailure = "on_any_temporary_failure",
    }
}
