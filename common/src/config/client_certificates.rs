//! `access.certificates:` - what clients may prove by certificates.

use std::path::PathBuf;

use super::access::{Access, RelayCertificates, TlsMode};
use super::choice::choice;
use super::diagnostic::Diagnostic;
use super::node::{Kind, Node};
use super::section::{Reader, Setting, section};
use super::smart_hosts::Pin;
use super::tls::Trust;
use super::value::scalar;
use crate::control::user::is_user_name;

section! {
    /// Certificates of clients. A good one is listed below pinned, or signed by an issuer of trust, and
    /// is within its time. It gives no rights by itself: login lets a user log in by it, and
    /// access.relay.certificates lets clients relay.
    pub struct ClientCertificates {
        /// Whether clients are asked for a certificate under TLS: never; yes, where one that is not good
        /// counts as none; or yes, where TLS fails without a good one. The last one is for servers that
        /// nobody else sends to.
        mode: CertificateMode = CertificateMode::Off, CertificateMode::Off;
        /// Who may vouch for clients: the issuers of a PEM file, which is looked at again when it changes,
        /// or the authorities that this system trusts, which sign for anybody. A certificate must be for
        /// clients, if it says what it is for.
        trust: Option<Trust> = None, None;
        /// Files of the lists of revoked certificates that issuers of trust publish (CRL), PEM or DER,
        /// each looked at again when it changes. A certificate that stands in its issuer's list is not
        /// good, nor is one whose issuer is in such a list; where an issuer has no list here, nothing of
        /// it is revoked. If a file cannot be read no issuer vouches for anybody. Certificates of pinned
        /// are not looked for.
        crl: Vec<PathBuf> = Vec::new(), Vec::new();
        /// What becomes of certificates whose issuer's list has expired, because no newer one came.
        crl_expired: ExpiredCrl = ExpiredCrl::Refuse, ExpiredCrl::Refuse;
        /// Certificates that are known by themselves, whoever has signed them: each its SHA-256, as
        /// openssl x509 -noout -fingerprint -sha256 prints it, or the same with the user whose it is.
        pinned: Vec<PinnedCertificate> = Vec::new(), Vec::new();
        /// Whether a client may log in by its certificate (EXTERNAL), as the user of pinned; or by one
        /// that trust vouches for, as the user whose name is the mail address in it, or the part in
        /// front where the domain is basic.domain. There must be that user.
        login: bool = false, false;
    }
}

choice! {
    /// Whether clients are asked for a certificate.
    pub enum CertificateMode {
        /// Never.
        Off = "off",
        /// They may show one.
        Request = "request",
        /// They must.
        Require = "require",
    }
}

choice! {
    /// What becomes of certificates whose issuer's list of revoked ones has expired.
    pub enum ExpiredCrl {
        /// They are not good until there is a newer list.
        Refuse = "refuse",
        /// The old list counts on.
        Accept = "accept",
    }
}

/// A certificate that is known by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PinnedCertificate {
    /// SHA-256 of the certificate.
    pub sha256: Pin,
    /// Whose it is.
    pub user: Option<String>,
    /// What the administrator said about it.
    pub comment: Option<String>,
}

impl Setting for PinnedCertificate {
    type Quantity = u8;

    fn type_name() -> String {
        "certificate's SHA-256, or {sha256, user, comment}".to_owned()
    }

    fn show(&self) -> String {
        match &self.user {
            Some(user) => format!("{} ({user})", self.sha256),
            None => self.sha256.to_string(),
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Kind::Map(_) = node.kind else {
            return Some(Self { sha256: fingerprint(node, reader)?, user: None, comment: None });
        };
        let (mut sha256, mut user, mut comment, mut named) = (None, None, None, false);
        for (key, value) in reader.entries(node, "this entry", &["sha256", "user", "comment"]) {
            match key {
                "sha256" => {
                    named = true;
                    sha256 = fingerprint(value, reader);
                }
                "user" => user = Some(user_name(value, reader)?),
                _ => comment = String::read(value, reader),
            }
        }
        if !named {
            let diagnostic =
                reader.error_at("E0104", "this entry names no certificate", node, "no sha256");
            reader.report(diagnostic.help("write {sha256: \"AB:CD:...\", user: NAME}"));
        }
        Some(Self { sha256: sha256?, user, comment })
    }
}

fn fingerprint(node: &Node, reader: &mut Reader) -> Option<Pin> {
    let text = scalar(node, reader, "a fingerprint")?;
    let found = Pin::parse(text);
    if found.is_none() {
        let title = "this is not the SHA-256 of a certificate";
        let diagnostic = reader.error_at("E0381", title, node, "not 64 digits of base 16");
        reader.report(
            diagnostic.help("copy what  openssl x509 -noout -fingerprint -sha256 -in FILE  prints"),
        );
    }
    found
}

fn user_name(node: &Node, reader: &mut Reader) -> Option<String> {
    let text = scalar(node, reader, "the name of a user")?;
    if is_user_name(text) {
        return Some(text.to_lowercase());
    }
    let diagnostic = reader.error_at("E0382", "nobody can have this name", node, "no user's name");
    reader.report(diagnostic.help("write the name that smtpctl user add gave"));
    None
}

/// Whether whoever has a certificate of a public authority may relay, which is everybody.
pub(super) fn anybody_may_relay(access: &Access) -> bool {
    let keys = &access.certificates;
    keys.mode != CertificateMode::Off
        && keys.trust == Some(Trust::System)
        && access.relay.certificates == RelayCertificates::Trusted
}

/// Whether certificates can be looked at, and who would gain by them.
pub(super) fn check(access: &Access, reader: &mut Reader) {
    let keys = &access.certificates;
    let at = |key: &str, reader: &Reader| reader.origins.get(key).cloned();
    let report = |reader: &mut Reader, diagnostic: Diagnostic, key: &str, label: &str| {
        if let Some(span) = at(key, reader) {
            let diagnostic = diagnostic.at(&reader.source, span, label);
            reader.report(diagnostic);
        }
    };
    let mode = "access.certificates.mode";
    if keys.mode != CertificateMode::Off && access.tls.mode == TlsMode::Off {
        let title = "clients are asked for certificates under TLS alone, and the server has no TLS";
        let diagnostic = Diagnostic::error("E0383", title);
        let diagnostic = diagnostic.help("write  mode: optional  below access.tls");
        report(reader, diagnostic, mode, "nobody is ever asked");
    }
    if keys.mode != CertificateMode::Off && keys.trust.is_none() && keys.pinned.is_empty() {
        let diagnostic = Diagnostic::error("E0384", "no client's certificate would be good");
        let help = "name the file of their issuers as trust, or list certificates below pinned";
        report(reader, diagnostic.help(help), mode, "neither trust nor pinned is set");
    }
    let relay = (access.relay.certificates != RelayCertificates::None)
        .then_some("access.relay.certificates");
    let login = keys.login.then_some("access.certificates.login");
    let lists = (!keys.crl.is_empty()).then_some("access.certificates.crl");
    if let Some(key) = lists.filter(|_| keys.trust.is_none()) {
        let title = "lists of revoked certificates are named, and no issuer is trusted";
        let diagnostic = Diagnostic::error("E0378", title);
        let help = "name the file of the issuers as  trust  beside it, or remove this line";
        report(reader, diagnostic.help(help), key, "leads to nothing");
    }
    for key in
        relay.into_iter().chain(login).chain(lists).filter(|_| keys.mode == CertificateMode::Off)
    {
        let title = format!("{key} needs certificates, and no client is asked for one");
        let diagnostic = Diagnostic::error("E0385", title);
        let help = "write  mode: request  below access.certificates";
        report(reader, diagnostic.help(help), key, "leads to nothing");
    }
    if keys.login && keys.trust == Some(Trust::System) {
        let title = "any public authority decides by its signature who is a user";
        let diagnostic = Diagnostic::warning("W0473", title);
        let help = "name the file of your own issuer, or list certificates below pinned";
        report(reader, diagnostic.help(help), "access.certificates.trust", "all of them");
    }
    if keys.mode == CertificateMode::Require
        && access.anonymous
        && access.tls.mode == TlsMode::Optional
    {
        let title =
            "clients without a certificate are turned away under TLS, and taken in clear text";
        let diagnostic = Diagnostic::warning("W0474", title);
        let help = "write  mode: required  below access.tls";
        report(reader, diagnostic.help(help), mode, "clear text goes past this");
    }
}
