//! `general:` - where a virtual server listens and how many clients it serves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::choice::choice;
use super::node::{Kind, Node};
use super::section::{Reader, Setting, section};
use super::value::Limit;
use crate::units::Span;

section! {
    /// Where the server listens, and the limits of one session and of all.
    pub struct General {
        /// Addresses and ports the server listens on. 0.0.0.0 and [::] mean every address of the
        /// machine. The default reaches this machine only; the original's was every address. Written
        /// {address: 0.0.0.0:465, tls: implicit}, clients must speak TLS there from the first octet on.
        listen: Vec<Listen> =
            vec![
                Listen::plain(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 25)),
                Listen::plain(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 25)),
            ],
            vec![Listen::plain(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 25))];
        /// Sessions at the same time. Beyond it a client hears 421 and is closed.
        max_connections: Limit<u32> = Limit::At(1000), Limit::Unlimited, in 1..=1_000_000;
        /// Sessions at the same time from one client address.
        max_connections_per_client: Limit<u32> = Limit::At(50), Limit::Unlimited, in 1..=1_000_000;
        /// How long a session may be silent. RFC 5321 asks for at least 5 minutes.
        idle_timeout: Span = Span::minutes(5), Span::minutes(10),
            in Span::seconds(1)..=Span::days(1);
        /// How long a session may last at all. A changed configuration applies to every session
        /// after this time at the latest.
        max_session_time: Limit<Span> = Limit::At(Span::hours(1)), Limit::Unlimited,
            in Span::seconds(1)..=Span::days(30);
        /// Commands refused as wrong before the session is closed with 421.
        max_errors: Limit<u32> = Limit::At(20), Limit::Unlimited, in 1..=1_000_000;
        /// Whether the log tells of sessions and mail of this server. What is wrong it tells in any case,
        /// and smtpctl trace knows of its mail. In the original logging had to be turned on.
        logging: bool = true, false;
        /// What the greeting says after the host name. The original also told its version.
        banner: String = "ESMTP".to_owned(), "ESMTP Mailroot".to_owned();
        /// Extensions offered in reply to EHLO. An extension that is left out is also refused when a
        /// client uses it.
        extensions: Vec<Extension> = Extension::usual(), Extension::IIS6.to_vec();
    }
}

choice! {
    /// An SMTP extension that can be switched off.
    pub enum Extension {
        /// RFC 2920.
        Pipelining = "PIPELINING",
        /// RFC 1870.
        Size = "SIZE",
        /// RFC 6152.
        EightBitMime = "8BITMIME",
        /// RFC 3030; needs CHUNKING.
        BinaryMime = "BINARYMIME",
        /// RFC 3030.
        Chunking = "CHUNKING",
        /// RFC 6531.
        SmtpUtf8 = "SMTPUTF8",
        /// RFC 3461.
        Dsn = "DSN",
        /// RFC 2034.
        EnhancedStatusCodes = "ENHANCEDSTATUSCODES",
        /// RFC 9422.
        Limits = "LIMITS",
        /// RFC 1985; offered only while mail of a domain is held for it.
        Etrn = "ETRN",
        /// RFC 2645; offered only while somebody may fetch mail of a domain, and has logged in or can.
        Atrn = "ATRN",
        /// RFC 821; the same for clients that know no other. Has to be listed to be offered.
        Turn = "TURN",
        /// RFC 2852.
        DeliverBy = "DELIVERBY",
        /// RFC 4865; offered only to clients that may relay, and unless messages.future_release is 0s.
        FutureRelease = "FUTURERELEASE",
        /// RFC 6710.
        MtPriority = "MT-PRIORITY",
        /// RFC 8689; offered only under TLS.
        RequireTls = "REQUIRETLS",
    }
}

impl Extension {
    /// What the original offered of these.
    pub const IIS6: &'static [Self] = &[
        Self::Pipelining,
        Self::Size,
        Self::EightBitMime,
        Self::BinaryMime,
        Self::Chunking,
        Self::Dsn,
        Self::EnhancedStatusCodes,
        Self::Etrn,
        Self::Atrn,
        Self::Turn,
    ];

    /// What is offered unless the configuration says otherwise: all but TURN.
    #[must_use]
    pub fn usual() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|&it| it != Self::Turn).collect()
    }
}

choice! {
    /// How TLS begins at a listener.
    pub enum ListenTls {
        /// When the client asks for it.
        StartTls = "starttls",
        /// With the first octet (RFC 8314).
        Implicit = "implicit",
    }
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// How TLS begins there.
    pub tls: ListenTls,
}

impl Listen {
    /// A listener whose sessions begin in clear text.
    #[must_use]
    pub const fn plain(address: SocketAddr) -> Self {
        Self { address, tls: ListenTls::StartTls }
    }
}

impl Setting for Listen {
    type Quantity = u8;

    fn type_name() -> String {
        format!("{} or {{address, tls}}", SocketAddr::type_name())
    }

    fn show(&self) -> String {
        match self.tls {
            ListenTls::StartTls => self.address.to_string(),
            ListenTls::Implicit if self.address.is_ipv6() => {
                format!("{{address: \"{}\", tls: {}}}", self.address, self.tls.word())
            }
            ListenTls::Implicit => {
                format!("{{address: {}, tls: {}}}", self.address, self.tls.word())
            }
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Kind::Map(_) = node.kind else {
            return SocketAddr::read(node, reader).map(Self::plain);
        };
        let (mut address, mut tls, mut named) = (None, ListenTls::StartTls, false);
        for (key, value) in reader.entries(node, "this listener", &["address", "tls"]) {
            if key == "tls" {
                tls = ListenTls::read(value, reader)?;
            } else {
                named = true;
                address = SocketAddr::read(value, reader);
            }
        }
        if !named {
            let title = "this listener has no address";
            let diagnostic = reader.error_at("E0104", title, node, "address is missing");
            reader.report(diagnostic.help("write {address: 0.0.0.0:465, tls: implicit}"));
        }
        Some(Self { address: address?, tls })
    }
}
