//! `auth.oauth:` of a smart host - who gives the tokens for its login, and by which right (RFC 6749).
//!
//! What a preset knows is filled in here, in one place, so that nobody else asks which provider it is.

use std::fmt;
use std::net::IpAddr;

use super::diagnostic::Diagnostic;
use super::host::HostPort;
use super::node::Node;
use super::secret::Secret;
use super::section::{Reader, section};
use super::smart_hosts::{AuthMethod, Preset, SmartHostKeys};
use crate::address::Host;

section! {
    /// How the token for a login is had.
    pub struct OauthKeys {
        /// By which right: the application's own, or that of a person who allowed it once.
        grant: Grant = Grant::ClientCredentials, Grant::ClientCredentials;
        /// The directory at Microsoft that the application is registered in: a domain of it, or its id.
        tenant: Option<String> = None, None;
        /// The id of the application.
        client_id: Option<String> = None, None;
        /// Where the secret of the application is kept. An application of the grant refresh-token may
        /// have none.
        client_secret: Option<Secret> = None, None;
        /// Where the certificate of the application and its RSA key are kept, instead of a secret: both in
        /// one text of PEM.
        client_certificate: Option<Secret> = None, None;
        /// The address that tokens are asked of. It begins with https:, or with http: on this machine.
        token_endpoint: Option<Endpoint> = None, None, shown "required, or the preset's";
        /// The address that codes for a person are asked of (RFC 8628).
        device_endpoint: Option<Endpoint> = None, None, shown "the preset's";
        /// What the token is to be good for, words separated by spaces.
        scope: Option<String> = None, None, shown "the preset's";
    }
}

super::choice::choice! {
    /// The right by which a token is given.
    pub enum Grant {
        /// The application's own (RFC 6749 section 4.4): nobody ever signs in.
        ClientCredentials = "client-credentials",
        /// That of a person who signed in once (RFC 6749 section 6).
        RefreshToken = "refresh-token",
    }
}

/// An address of the web that is asked: under TLS, or on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    text: Box<str>,
    is_secure: bool,
    at: HostPort,
    /// Where path and query begin.
    target: usize,
}

impl Endpoint {
    /// Longest address, in octets.
    const OCTETS_MAX: usize = 2_000;

    /// Reads `https://host[:port]/path`; `http:` is for this machine only.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |octet: u8| octet.is_ascii_graphic() && !b"#@\"<>\\^`{|}".contains(&octet);
        if text.len() > Self::OCTETS_MAX || !text.bytes().all(plain) {
            return None;
        }
        let (is_secure, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://")?),
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let target = text.len() - rest.len() + authority.len();
        let at = HostPort::parse(authority)?;
        let is_here = match &at.host {
            Host::Name(name) => name.as_str() == "localhost",
            Host::Address(address) => address.is_loopback(),
        };
        let good = is_secure || is_here;
        good.then(|| Self { text: text.into(), is_secure, at, target })
    }

    /// Whether it is asked under TLS.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// The host.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.at.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.at.port.unwrap_or(if self.is_secure { 443 } else { 80 })
    }

    /// Host and port as a request names them (RFC 9110 section 7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        let port = self.at.port.map(|port| format!(":{port}")).unwrap_or_default();
        match &self.at.host {
            Host::Address(IpAddr::V4(address)) => format!("{address}{port}"),
            Host::Address(IpAddr::V6(address)) => format!("[{address}]{port}"),
            Host::Name(name) => format!("{name}{port}"),
        }
    }

    /// Path and query.
    #[must_use]
    pub fn target(&self) -> &str {
        match &self.text[self.target..] {
            "" => "/",
            target => target,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

super::host::parsed_text! {
    Endpoint, "web address", "E0316", Self::parse,
        "write https://host/path; http: is only for addresses of this machine";
}

/// Where the tokens of a smart host are had, with what its preset knows filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSource {
    /// By which right.
    pub grant: Grant,
    /// The application.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Option<Secret>,
    /// Its certificate and key, which count for more than a secret.
    pub client_certificate: Option<Secret>,
    /// Who gives tokens.
    pub token_endpoint: Endpoint,
    /// Who gives codes for a person.
    pub device_endpoint: Option<Endpoint>,
    /// What the token is good for.
    pub scope: Option<String>,
}

/// What a preset knows of its provider's tokens.
struct Known {
    token_endpoint: Option<Endpoint>,
    device_endpoint: Option<Endpoint>,
    scope: Option<&'static str>,
}

impl Known {
    fn of(preset: Option<Preset>, keys: &OauthKeys) -> Self {
        match preset {
            Some(Preset::M365) => Self::microsoft(keys),
            Some(Preset::Gmail | Preset::GoogleRelay) => Self {
                token_endpoint: Endpoint::parse("https://oauth2.googleapis.com/token"),
                device_endpoint: Endpoint::parse("https://oauth2.googleapis.com/device/code"),
                scope: Some("https://mail.google.com/"),
            },
            _ => Self { token_endpoint: None, device_endpoint: None, scope: None },
        }
    }

    fn microsoft(keys: &OauthKeys) -> Self {
        let tenant = keys.tenant.as_deref().filter(|tenant| is_tenant(tenant));
        let below = |last: &str| {
            let base = "https://login.microsoftonline.com";
            Endpoint::parse(&format!("{base}/{}/oauth2/v2.0/{last}", tenant?))
        };
        let scope = match keys.grant {
            Grant::ClientCredentials => "https://outlook.office365.com/.default",
            Grant::RefreshToken => "https://outlook.office.com/SMTP.Send offline_access",
        };
        Self {
            token_endpoint: below("token"),
            device_endpoint: below("devicecode"),
            scope: Some(scope),
        }
    }
}

/// A domain name or an id.
fn is_tenant(text: &str) -> bool {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b".-".contains(&octet);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(plain)
}

impl SmartHostKeys {
    /// Where its tokens are had; nothing if it logs in otherwise.
    #[must_use]
    pub fn token_source(&self) -> Option<TokenSource> {
        if !self.auth.method.wants_token() {
            return None;
        }
        let keys = &self.auth.oauth;
        let known = Known::of(self.preset, keys);
        Some(TokenSource {
            grant: keys.grant,
            client_id: keys.client_id.clone()?,
            client_secret: keys.client_secret.clone(),
            client_certificate: keys.client_certificate.clone(),
            token_endpoint: keys.token_endpoint.clone().or(known.token_endpoint)?,
            device_endpoint: keys.device_endpoint.clone().or(known.device_endpoint),
            scope: keys.scope.clone().or_else(|| known.scope.map(str::to_owned)),
        })
    }
}

/// What is missing, and what is there for nothing. `path` is that of the smart host.
pub(super) fn check(keys: &SmartHostKeys, path: &str, node: &Node, reader: &mut Reader) {
    let written =
        |key: &str, reader: &Reader| reader.origins.get(&format!("{path}.auth.{key}")).cloned();
    let useless: &[&str] = match keys.auth.method {
        AuthMethod::None | AuthMethod::Basic => &["mailbox", "oauth"],
        AuthMethod::Integrated => &["mailbox", "oauth", "mechanisms"],
        AuthMethod::Xoauth2 | AuthMethod::Oauthbearer => &["user", "password", "mechanisms"],
    };
    for key in useless {
        if let Some(span) = written(key, reader) {
            let method = keys.auth.method.word();
            let title = format!("{path}.auth.{key} is not used by the method {method}");
            let help = "remove it, or choose another  method:  below auth";
            reader.report(
                Diagnostic::error("E0433", title).at(&reader.source, span, "not used").help(help),
            );
        }
    }
    if keys.auth.oauth.client_secret.is_some()
        && let Some(span) = written("oauth.client_certificate", reader)
    {
        let title = format!("{path}.auth.oauth has a secret and a certificate");
        let diagnostic = Diagnostic::error("E0433", title)
            .at(&reader.source, span, "one of the two")
            .help("remove this line, or client_secret");
        reader.report(diagnostic);
    }
    if keys.auth.method.wants_token() {
        check_source(keys, path, node, reader);
    }
}

fn check_source(keys: &SmartHostKeys, path: &str, node: &Node, reader: &mut Reader) {
    let oauth = &keys.auth.oauth;
    let known = Known::of(keys.preset, oauth);
    let by_itself = oauth.grant == Grant::ClientCredentials;
    let no_endpoint = oauth.token_endpoint.is_none() && known.token_endpoint.is_none();
    let by_tenant = no_endpoint && keys.preset == Some(Preset::M365);
    for (key, missing, help) in [
        (
            "mailbox",
            keys.auth.mailbox.is_none(),
            "add  mailbox: NAME@DOMAIN  below auth: who the mail is sent as",
        ),
        (
            "oauth.client_id",
            oauth.client_id.is_none(),
            "add  client_id: ID  below oauth: the id of the registered application",
        ),
        (
            "oauth.client_secret",
            by_itself && oauth.client_secret.is_none() && oauth.client_certificate.is_none(),
            "add  client_secret: {file: NAME}  below oauth, or client_certificate, or say smtpctl \
             smarthost login",
        ),
        (
            "oauth.tenant",
            by_tenant,
            "add  tenant: DOMAIN  below oauth: a domain of the organization, or its id",
        ),
        (
            "oauth.token_endpoint",
            no_endpoint && !by_tenant,
            "add  token_endpoint: https://HOST/PATH  below oauth, or a preset that knows it",
        ),
    ] {
        let whole = format!("{path}.auth.{key}");
        // What was written and is wrong has been told; but for a tenant that is none.
        let told = reader.origins.contains_key(&whole) && key != "oauth.tenant";
        if missing && !told {
            let origin = reader.origins.get(&format!("{path}.auth.method"));
            let span = origin.cloned().unwrap_or_else(|| node.span.clone());
            let title = format!("{whole} is missing or cannot be one");
            let diagnostic = Diagnostic::error("E0104", title)
                .at(&reader.source, span, "a login by tokens needs it")
                .help(help);
            reader.report(diagnostic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SmartHostName, parse_service};
    use super::*;

    fn read(auth: &str) -> Result<SmartHostKeys, String> {
        let text = format!("version: 1\nsmart_hosts:\n  cloud:\n{auth}");
        let name = SmartHostName::parse("cloud").unwrap();
        match parse_service(&text, "mailroot.yaml") {
            Ok((config, _)) => Ok(config.smart_hosts[&name].clone()),
            Err(errors) => Err(errors
                .iter()
                .map(|error| format!("{} {}\n", error.code, error.title))
                .collect()),
        }
    }

    const GOOD: &str = "    preset: m365\n    auth:\n      method: xoauth2\n      mailbox: a@b.example\n      \
                        oauth:\n        tenant: b.example\n        client_id: x-1\n        \
                        client_secret: {file: cloud.client-secret}\n";

    #[test]
    fn a_preset_knows_who_gives_tokens() {
        let source = read(GOOD).unwrap().token_source().unwrap();
        assert_eq!(
            source.token_endpoint.to_string(),
            "https://login.microsoftonline.com/b.example/oauth2/v2.0/token"
        );
        assert_eq!(source.scope.as_deref(), Some("https://outlook.office365.com/.default"));
        let person = GOOD.replace("oauth:\n", "oauth:\n        grant: refresh-token\n");
        let source = read(&person).unwrap().token_source().unwrap();
        assert_eq!(source.device_endpoint.unwrap().target(), "/b.example/oauth2/v2.0/devicecode");
        assert!(source.scope.unwrap().contains("offline_access"));
        let google = person.replace("m365", "gmail");
        let source = read(&google).unwrap().token_source().unwrap();
        assert_eq!(source.token_endpoint.authority(), "oauth2.googleapis.com");
    }

    #[test]
    fn what_is_missing_or_useless_is_told() {
        for (from, to, expected) in [
            ("mailbox: a@b.example", "require_tls: true", "E0104 smart_hosts.cloud.auth.mailbox"),
            ("client_id: x-1", "scope: s", "E0104 smart_hosts.cloud.auth.oauth.client_id"),
            ("tenant: b.example", "scope: s", "E0104 smart_hosts.cloud.auth.oauth.tenant"),
            ("tenant: b.example", "tenant: a/b", "E0104 smart_hosts.cloud.auth.oauth.tenant"),
            (
                "preset: m365",
                "host: h.example",
                "E0104 smart_hosts.cloud.auth.oauth.token_endpoint",
            ),
            ("        client_secret: {file: cloud.client-secret}\n", "", "oauth.client_secret"),
            ("method: xoauth2", "method: none", "E0433 smart_hosts.cloud.auth.oauth"),
            ("mailbox: a@b.example", "mailbox: a@b.example\n      user: u", "auth.user"),
            ("tenant: b.example", "token_endpoint: http://h.example/", "E0316"),
            ("client_secret: {file: cloud.client-secret}", "client_secret: s3cr3t", "E0313"),
            ("client_id: x-1", "client_id: x-1\n        client_certificate: {env: C}", "E0433"),
            ("preset: m365", "preset: m365\n    tls: off", "E0433"),
        ] {
            let told = read(&GOOD.replace(from, to)).unwrap_err();
            assert!(told.contains(expected), "{from} -> {to}: {told}");
            assert!(!told.contains("s3cr3t"));
        }
    }

    #[test]
    fn endpoints_are_under_tls_or_on_this_machine() {
        let at = |text: &str| {
            let endpoint = Endpoint::parse(text)?;
            Some((endpoint.authority(), endpoint.port(), endpoint.target().to_owned()))
        };
        let some = |authority: &str, port, target: &str| {
            Some((authority.to_owned(), port, target.to_owned()))
        };
        assert_eq!(at("https://a.example/b?c=d"), some("a.example", 443, "/b?c=d"));
        assert_eq!(at("https://a.example:8443"), some("a.example:8443", 8443, "/"));
        assert_eq!(at("http://127.0.0.1:80/x"), some("127.0.0.1:80", 80, "/x"));
        assert_eq!(at("http://[::1]:81/x"), some("[::1]:81", 81, "/x"));
        for bad in [
            "http://a.example/",
            "ftp://a.example/",
            "https://",
            "https://u@a.example/",
            "https://a.example/ b",
            "https://a.example/#x",
            "https://a.example:0/",
        ] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
