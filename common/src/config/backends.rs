//! `access.basic.backends` - who judges passwords of clients.

use std::fmt;

use super::access::LoginMechanism;
use super::choice::choice;
use super::diagnostic::Diagnostic;
use super::host::parsed_text;
use super::ldap::logins;
use super::section::Reader;
use super::server::ServerConfig;

choice! {
    /// Who judges passwords of clients.
    pub enum Backend {
        /// The users that smtpctl user add makes.
        Users = "users",
        /// The directory of the section ldap, by a bind as the user's entry.
        Ldap = "ldap",
        /// This machine's PAM. Needs a daemon built with its feature pam.
        Pam = "pam",
    }
}

impl Backend {
    /// Whether nobody else than we know what passwords are told by, so that a client can prove one without
    /// saying it.
    #[must_use]
    pub fn are_ours(all: &[Self]) -> bool {
        all.iter().all(|backend| *backend == Self::Users)
    }
}

/// Whether each can judge, and is given what it judges by.
pub(super) fn check(config: &ServerConfig, reader: &mut Reader) {
    let basic = &config.access.basic;
    if basic.enabled {
        ignored(basic, reader);
    }
    let Some(span) = reader.origins.get("access.basic.backends").cloned() else { return };
    let number_of = |backend| basic.backends.iter().filter(|it| **it == backend).count();
    let title = match () {
        () if basic.backends.is_empty() => Some("access.basic.backends names none"),
        () if basic.backends.iter().rev().skip(1).any(|backend| *backend == Backend::Pam) => {
            Some("PAM knows every name: who stands behind it is never asked")
        }
        () if Backend::ALL.iter().any(|backend| number_of(*backend) > 1) => {
            Some("access.basic.backends names one twice")
        }
        () => None,
    };
    if let Some(title) = title {
        let diagnostic = Diagnostic::error("E0339", title)
            .at(&reader.source, span.clone(), "who judges passwords, in the order they are asked")
            .help("write  backends: [users],  or users, ldap and pam, each once and pam last");
        reader.report(diagnostic);
    }
    if !basic.enabled {
        return;
    }
    scram(basic, &span, reader);
    if basic.backends.contains(&Backend::Ldap) {
        logins::check(config, &span, reader);
    }
    if basic.backends.contains(&Backend::Pam) && !cfg!(feature = "pam") {
        let title = "PAM is to judge passwords, which this build cannot";
        let diagnostic = Diagnostic::error("E0389", title)
            .at(&reader.source, span, "needs the feature pam")
            .help("build smtpd with  --features pam,  or leave pam out");
        reader.report(diagnostic);
    }
}

/// Keys about those who judge no passwords here.
fn ignored(basic: &super::access::Basic, reader: &mut Reader) {
    const KEYS: &[(Backend, &str)] = &[
        (Backend::Pam, "access.basic.pam_service"),
        (Backend::Ldap, "ldap.logins.filter"),
        (Backend::Ldap, "ldap.logins.name"),
        (Backend::Ldap, "ldap.logins.addresses"),
        (Backend::Ldap, "ldap.logins.send_as"),
    ];
    for (backend, key) in KEYS.iter().filter(|(backend, _)| !basic.backends.contains(backend)) {
        let Some(at) = reader.origins.get(*key).cloned() else { continue };
        let (title, word) = (format!("{key} says nothing here"), backend.word());
        let diagnostic = Diagnostic::error("E0339", title)
            .at(&reader.source, at, format!("{word} judges no passwords"))
            .help(format!("remove that line, or name {word} in access.basic.backends"));
        reader.report(diagnostic);
    }
}

/// A proof is told by what is kept of a password, which nobody else shows us.
fn scram(basic: &super::access::Basic, span: &std::ops::Range<usize>, reader: &mut Reader) {
    let is_proof = |word: &LoginMechanism| {
        matches!(word, LoginMechanism::ScramSha256 | LoginMechanism::ScramSha256Plus)
    };
    if Backend::are_ours(&basic.backends) || !basic.mechanisms.iter().any(is_proof) {
        return;
    }
    // Those that are not written are left out by themselves.
    let Some(written) = reader.origins.get("access.basic.mechanisms").cloned() else { return };
    let title = "SCRAM works with passwords that are kept here, and others judge them";
    let diagnostic = Diagnostic::error("E0339", title)
        .at(&reader.source, written, "SCRAM")
        .at(&reader.source, span.clone(), "judged elsewhere")
        .help("write  mechanisms: [PLAIN, LOGIN],  or remove that line");
    reader.report(diagnostic);
}

/// The longest name of a service.
const SERVICE_OCTETS_MAX: usize = 64;

/// The name of a service at PAM, which names the file of its rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PamService(Box<str>);

impl PamService {
    /// Checks a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"_-".contains(&octet);
        let fits = !text.is_empty() && text.len() <= SERVICE_OCTETS_MAX;
        (fits && text.bytes().all(is_plain)).then(|| Self(text.into()))
    }

    /// Ours.
    pub(super) fn usual() -> Self {
        Self("mailroot".into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PamService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

parsed_text! {
    PamService, "name of a PAM service", "E0379", Self::parse,
        "write the name of a file in /etc/pam.d: letters, digits, hyphens and underscores, such as mailroot";
}
