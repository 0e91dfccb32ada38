//! `access.tokens:` - logins of clients with a token that somebody else gave.

use super::access::{Access, TlsMode};
use super::choice::choice;
use super::diagnostic::Diagnostic;
use super::oauth::Endpoint;
use super::secret::Secret;
use super::section::{Reader, section};
use crate::units::Span;

section! {
    /// Logins with a token that somebody else gave, under TLS alone. Whoever gave it is asked about each
    /// one (introspection, RFC 7662): it is good if he calls it active, and if it is for us. Where he
    /// gives no answer, clients are told to come again; nobody is let in.
    pub struct ClientTokens {
        /// Whether tokens are taken.
        enabled: bool = false, false;
        /// The forms in which they are shown, in the order in which that is offered.
        mechanisms: Vec<TokenMechanism> =
            vec![TokenMechanism::OauthBearer, TokenMechanism::Xoauth2],
            vec![TokenMechanism::OauthBearer, TokenMechanism::Xoauth2];
        /// The address that is asked about tokens, which there must be. It begins with https:, or with http: on
        /// this machine.
        introspection: Option<Endpoint> = None, None;
        /// By which id we are known there.
        client_id: Option<String> = None, None;
        /// Where our secret for it is kept.
        client_secret: Option<Secret> = None, None;
        /// Who must have given the token: iss of the answer, letter for letter.
        issuer: Option<String> = None, None;
        /// For whom it must be: aud of the answer names one of these.
        audience: Vec<String> = Vec::new(), Vec::new();
        /// What it must be good for: a word of scope in the answer.
        scope: Option<String> = None, None;
        /// Which member of the answer names the user: username, sub, email or another. It is compared with
        /// the names of users, as a whole or without @ and basic.domain. There must be that user, and
        /// a client that names one must name him.
        user: String = "username".to_owned(), "username".to_owned();
        /// How long a good answer counts without another question, but not beyond the token's own end. A
        /// token that is called back may log in for so long.
        keep: Span = Span::minutes(1), Span::minutes(1),
            in Span::seconds(0)..=Span::minutes(10);
    }
}

choice! {
    /// A form in which a token is shown.
    pub enum TokenMechanism {
        /// RFC 7628.
        OauthBearer = "OAUTHBEARER",
        /// That of Google and Microsoft.
        Xoauth2 = "XOAUTH2",
    }
}

/// Whether tokens can be judged, and whose would be good.
pub(super) fn check(access: &Access, reader: &mut Reader) {
    let keys = &access.tokens;
    let enabled = reader.origins.get("access.tokens.enabled").cloned();
    let Some(span) = enabled.filter(|_| keys.enabled) else { return };
    let missing = if keys.introspection.is_none() {
        Some(("nobody is asked about them", "write  introspection: https://host/path"))
    } else if keys.mechanisms.is_empty() {
        Some(("they could be shown in no form", "name at least one below mechanisms"))
    } else if access.tls.mode == TlsMode::Off {
        Some(("they come under TLS alone", "write  mode: optional  below access.tls"))
    } else if keys.client_id.is_none() && keys.client_secret.is_some() {
        Some(("the secret is nobody's", "write  client_id: ...  below access.tokens"))
    } else {
        None
    };
    if let Some((label, help)) = missing {
        let diagnostic = Diagnostic::error("E0387", "tokens of clients cannot be judged");
        reader.report(diagnostic.at(&reader.source, span.clone(), label).help(help));
    }
    if keys.audience.is_empty() && keys.scope.is_none() {
        let title = "a token that was given for something else logs in as well";
        let diagnostic = Diagnostic::warning("W0476", title)
            .at(&reader.source, span, "for whom tokens must be is not said")
            .help("write  audience:  or  scope:  below access.tokens, as the provider has them");
        reader.report(diagnostic);
    }
}
