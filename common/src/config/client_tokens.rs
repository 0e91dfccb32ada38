//! `access.tokens:` - logins of clients with a token that somebody else gave.

use super::access::{Access, TlsMode};
use super::choice::choice;
use super::diagnostic::Diagnostic;
use super::oauth::Endpoint;
use super::secret::Secret;
use super::section::{Reader, section};
use crate::units::Span;

section! {
    /// Logins with a token that somebody else gave, under TLS alone. Either whoever gave it is asked about
    /// each one (introspection, RFC 7662): it is good if he calls it active, and if it is for us. Or it
    /// is a JWT (RFC 7519, RFC 9068), which is good if one of his keys has signed it (jwks), if it is not
    /// over, and if it is for us. Where he gives no answer, clients are told to come again; nobody
    /// is let in.
    pub struct ClientTokens {
        /// Whether tokens are taken.
        enabled: bool = false, false;
        /// The forms in which they are shown, in the order in which that is offered.
        mechanisms: Vec<TokenMechanism> =
            vec![TokenMechanism::OauthBearer, TokenMechanism::Xoauth2],
            vec![TokenMechanism::OauthBearer, TokenMechanism::Xoauth2];
        /// The address that is asked about tokens. It begins with https:, or with http: on this machine.
        introspection: Option<Endpoint> = None, None;
        /// The address of the keys that tokens are signed by (a JWK set, RFC 7517), in place of
        /// introspection. It begins with https:. The keys are kept for an hour, or six while there is no
        /// answer; for a key that is not known there it is asked once a minute at most.
        jwks: Option<Endpoint> = None, None;
        /// By which algorithms tokens may be signed, whatever a token says.
        algorithms: Vec<TokenAlgorithm> = TokenAlgorithm::usual(), TokenAlgorithm::usual();
        /// By how much the clock of whoever signs tokens may differ from ours.
        leeway: Span = Span::minutes(1), Span::minutes(1),
            in Span::seconds(0)..=Span::minutes(5);
        /// By which id we are known to the one who is asked about tokens.
        client_id: Option<String> = None, None;
        /// Where our secret for it is kept.
        client_secret: Option<Secret> = None, None;
        /// Who must have given the token: iss of the answer or of the token, letter for letter. Signed ones
        /// need it.
        issuer: Option<String> = None, None;
        /// For whom it must be: aud of the answer or of the token names one of these. Signed ones need it.
        audience: Vec<String> = Vec::new(), Vec::new();
        /// What it must be good for: a word of scope in the answer, of scope or scp in the token.
        scope: Option<String> = None, None;
        /// Which member of the answer or the token names the user: username, sub, email, preferred_username or
        /// another, which nobody may be able to choose for himself. It is compared with
        /// the names of users, as a whole or without @ and basic.domain. There must be that user, and
        /// a client that names one must name him.
        user: String = "username".to_owned(), "username".to_owned();
        /// How long a good answer of introspection counts without another question, but not beyond the token's own end. A
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

choice! {
    /// An algorithm by which tokens are signed (RFC 7518 section 3.1, RFC 8037 section 3.1).
    pub enum TokenAlgorithm {
        /// RSA, as in PKCS #1 1.5.
        Rs256 = "RS256",
        /// The same with SHA-384.
        Rs384 = "RS384",
        /// The same with SHA-512.
        Rs512 = "RS512",
        /// RSA, as in PSS.
        Ps256 = "PS256",
        /// The same with SHA-384.
        Ps384 = "PS384",
        /// The same with SHA-512.
        Ps512 = "PS512",
        /// ECDSA on P-256.
        Es256 = "ES256",
        /// ECDSA on P-384.
        Es384 = "ES384",
        /// Ed25519.
        EdDsa = "EdDSA",
    }
}

impl TokenAlgorithm {
    fn usual() -> Vec<Self> {
        vec![Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa]
    }
}

/// Whether tokens can be judged, and whose would be good.
pub(super) fn check(access: &Access, reader: &mut Reader) {
    let keys = &access.tokens;
    let enabled = reader.origins.get("access.tokens.enabled").cloned();
    let Some(span) = enabled.filter(|_| keys.enabled) else { return };
    let missing = if keys.introspection.is_none() && keys.jwks.is_none() {
        let help =
            "write  introspection: https://host/path,  or  jwks:  for tokens that are signed";
        Some(("nobody is asked about them", help))
    } else if keys.mechanisms.is_empty() {
        Some(("they could be shown in no form", "name at least one below mechanisms"))
    } else if access.tls.mode == TlsMode::Off {
        Some(("they come under TLS alone", "write  mode: optional  below access.tls"))
    } else if keys.jwks.is_none() && keys.client_id.is_none() && keys.client_secret.is_some() {
        Some(("the secret is nobody's", "write  client_id: ...  below access.tokens"))
    } else {
        None
    };
    if let Some((label, help)) = missing {
        let diagnostic = Diagnostic::error("E0387", "tokens of clients cannot be judged");
        reader.report(diagnostic.at(&reader.source, span.clone(), label).help(help));
    }
    if keys.jwks.is_some() {
        signed(keys, &span, reader);
        return;
    }
    ignored(&["algorithms", "leeway"], "tokens that the provider is asked about", reader);
    if keys.audience.is_empty() && keys.scope.is_none() {
        let title = "a token that was given for something else logs in as well";
        let diagnostic = Diagnostic::warning("W0476", title)
            .at(&reader.source, span, "for whom tokens must be is not said")
            .help("write  audience:  or  scope:  below access.tokens, as the provider has them");
        reader.report(diagnostic);
    }
}

/// Whether signed tokens can be told from those of others, and for others.
fn signed(keys: &ClientTokens, span: &std::ops::Range<usize>, reader: &mut Reader) {
    let is_secure = keys.jwks.as_ref().is_some_and(Endpoint::is_secure);
    let wrong = [
        (keys.introspection.is_some(), "two judges are named", "keep  introspection:  or  jwks:"),
        (!is_secure, "the keys would come without TLS", "write  jwks: https://host/path"),
        (
            keys.issuer.is_none(),
            "the provider may sign for many",
            "write  issuer:  below access.tokens, as iss of a token has it",
        ),
        (
            keys.audience.is_empty(),
            "a token for something else would be as good",
            "write  audience:  below access.tokens, as aud of a token has it",
        ),
        (keys.algorithms.is_empty(), "no signature would be good", "write  algorithms: [RS256]"),
        (
            keys.client_id.is_some() || keys.client_secret.is_some(),
            "nobody is asked, and so nobody is told who we are",
            "remove  client_id:  and  client_secret:,  or write  introspection:  in place of  jwks:",
        ),
    ];
    for (_, label, help) in wrong.iter().filter(|(is_wrong, _, _)| *is_wrong) {
        let at = reader.origins.get("access.tokens.jwks").unwrap_or(span).clone();
        let diagnostic = Diagnostic::error("E0388", "signed tokens of clients cannot be judged");
        reader.report(diagnostic.at(&reader.source, at, *label).help(*help));
    }
    ignored(&["keep"], "signed tokens", reader);
}

/// Keys that are written and say nothing about tokens of this kind.
fn ignored(keys: &[&str], kind: &str, reader: &mut Reader) {
    for key in keys {
        let Some(at) = reader.origins.get(&format!("access.tokens.{key}")).cloned() else {
            continue;
        };
        let title = format!("access.tokens.{key} says nothing about {kind}");
        let diagnostic = Diagnostic::error("E0388", title).at(&reader.source, at, "not used");
        reader.report(diagnostic.help("remove that line"));
    }
}
