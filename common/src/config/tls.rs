//! `tls:` - what all virtual servers share about TLS.

use std::path::PathBuf;

use super::choice::choice;
use super::node::Node;
use super::section::{Reader, Setting, section};
use crate::units::Span;

section! {
    /// Which certificates are trusted, and which versions are spoken.
    pub struct Tls {
        /// Who may vouch for the certificates of other hosts: the authorities this system trusts, or
        /// those of a PEM file.
        trust: Trust = Trust::System, Trust::System;
        /// The oldest version of TLS that is spoken.
        min_version: TlsVersion = TlsVersion::V12, TlsVersion::V12;
        /// Keep to the policies that domains publish for mail to them (MTA-STS, RFC 8461): where one is
        /// enforced, mail goes under TLS to the hosts that it names, each with a certificate for its
        /// name, and waits otherwise. Only mail that goes by MX is concerned, and only where
        /// delivery.security.tls, or tls of the domain, is not off.
        mta_sts: bool = true, true;
        /// Trust certificates by the word of DNS (DANE, RFC 7672): a host with signed TLSA records gets
        /// mail under TLS only, and only with a certificate that they speak of. It takes a validating
        /// resolver on this machine, such as unbound; doctor dns tells whether there is one. It goes
        /// before mta_sts, and concerns the same mail.
        dane: bool = true, true;
        /// Remember hosts that showed a good certificate for their name. Where delivery.security.tls is
        /// optional, one that is remembered gets mail under TLS only, and only with a good certificate:
        /// whoever is in the way cannot take TLS off. smtpctl tls lists the hosts and forgets one whose
        /// certificate is not to be mended. Servers of the profile iis6 are not concerned, because
        /// their delivery.security.tls is off.
        memory: bool = true, true;
        /// How long a host is remembered after it last showed a good certificate.
        memory_for: Span = Span::days(30), Span::days(30), in Span::hours(1)..=Span::days(366);
    }
}

choice! {
    /// A version of TLS.
    pub enum TlsVersion {
        /// RFC 5246.
        V12 = "1.2",
        /// RFC 8446.
        V13 = "1.3",
    }
}

/// Who may vouch for certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The authorities that this system trusts.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

impl Setting for Trust {
    type Quantity = u8;

    fn type_name() -> String {
        "system or path".to_owned()
    }

    fn show(&self) -> String {
        match self {
            Self::System => "system".to_owned(),
            Self::File(path) => path.show(),
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if node.text() == Some("system") {
            return Some(Self::System);
        }
        PathBuf::read(node, reader).map(Self::File)
    }
}
