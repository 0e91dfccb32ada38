//! `tls.acme:` - the authority that certificates are asked of, and how it is told that names are ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::diagnostic::Diagnostic;
use super::oauth::Endpoint;
use super::section::{Reader, section};
use super::tls::Trust;
use crate::address::Mailbox;

/// The authority that is asked unless another is named.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

section! {
    /// Certificates that are asked for over ACME (RFC 8555) and renewed when two thirds of their life are
    /// over; which ones, acme of each certificate says. Whoever asks agrees to the terms of the authority.
    pub struct Acme {
        /// The directory of the authority. Let's Encrypt has another one for trials:
        /// https://acme-staging-v02.api.letsencrypt.org/directory. Its host and port may be anywhere; where it
        /// sends requests elsewhere, that is no address of a private network or of this machine.
        directory: Option<Endpoint> = None, None,
            shown "https://acme-v02.api.letsencrypt.org/directory";
        /// Who may vouch for the authority's own web server: the authorities this system trusts, or those of
        /// a PEM file, as an authority inside a company needs it.
        trust: Trust = Trust::System, Trust::System;
        /// The address that the authority may write to.
        email: Option<Mailbox> = None, None;
        /// Where the authority's question is answered (HTTP-01), for as long as a request lasts: it asks at
        /// port 80 of each name. One of these must be free at the time. Where a web server has port 80, it passes
        /// /.well-known/acme-challenge/ on to an address that is written here, such as 127.0.0.1:8402.
        listen: Vec<SocketAddr> = everywhere(), everywhere();
    }
}

fn everywhere() -> Vec<SocketAddr> {
    let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    all.map(|address| SocketAddr::new(address, 80)).to_vec()
}

impl Acme {
    /// The address of the authority's directory.
    #[must_use]
    pub fn directory(&self) -> String {
        self.directory.as_ref().map_or_else(|| LETS_ENCRYPT.to_owned(), Endpoint::to_string)
    }
}

/// What is missing.
pub(super) fn check(keys: &Acme, reader: &mut Reader) {
    let key = "tls.acme.listen";
    if keys.listen.is_empty()
        && let Some(span) = reader.origins.get(key).cloned()
    {
        let diagnostic = Diagnostic::error("E0375", format!("{key} names no address"))
            .at(&reader.source, span, "nowhere")
            .help("name at least one, or remove the line");
        reader.report(diagnostic);
    }
}
