//! Logins of clients (RFC 4954): the mechanisms, and each exchange as steps.
//!
//! In: what the client says, decoded. Out: what to say next, or what the house has to judge. Nothing
//! is known here of users: for a name that nobody has, the house gives a verifier that nothing
//! fits, so that both look alike from outside.

mod bearer;
mod binding;
mod scram;

use std::fmt;

use mailroot_common::password::Verifier;
use zeroize::Zeroizing;

use self::bearer::Bearer;
pub use self::binding::Channel;
use self::scram::{Begun, Scram};
use super::line::LINE_OCTETS_MAX;

/// How a client may log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// A ticket of Kerberos (RFC 4752).
    Gssapi,
    /// The certificate that the client has shown (RFC 4422 appendix A).
    External,
    /// A token (RFC 7628).
    OauthBearer,
    /// A token, in the form of Google and Microsoft.
    Xoauth2,
    /// RFC 7677, bound to the connection under TLS.
    ScramSha256Plus,
    /// RFC 7677.
    ScramSha256,
    /// RFC 4616.
    Plain,
    /// As the original did; nowhere standardised.
    Login,
}

impl Mechanism {
    /// All of them, the best one first.
    pub const ALL: [Self; 8] = [
        Self::Gssapi,
        Self::External,
        Self::OauthBearer,
        Self::Xoauth2,
        Self::ScramSha256Plus,
        Self::ScramSha256,
        Self::Plain,
        Self::Login,
    ];

    /// Its registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gssapi => "GSSAPI",
            Self::External => "EXTERNAL",
            Self::OauthBearer => "OAUTHBEARER",
            Self::Xoauth2 => "XOAUTH2",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// How long a response may be, with its CRLF. Tickets carry what a directory says of the user, and
    /// RFC 4954 section 4 allows for them; a name or a password is no longer than a command.
    #[must_use]
    pub const fn response_octets_max(self) -> usize {
        match self {
            Self::Gssapi | Self::OauthBearer | Self::Xoauth2 => RESPONSE_OCTETS_MAX,
            Self::External
            | Self::ScramSha256Plus
            | Self::ScramSha256
            | Self::Plain
            | Self::Login => LINE_OCTETS_MAX,
        }
    }

    /// Whether it shows a token.
    #[must_use]
    pub const fn is_bearer(self) -> bool {
        matches!(self, Self::OauthBearer | Self::Xoauth2)
    }

    /// The one of this name, in capitals or not.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name().eq_ignore_ascii_case(text))
    }
}

/// The longest response of any, in octets (RFC 4954 section 4).
pub const RESPONSE_OCTETS_MAX: usize = 12_288;
/// Longest name of a user, in octets.
pub const NAME_OCTETS_MAX: usize = 255;
/// Longest password, in octets.
pub const PASSWORD_OCTETS_MAX: usize = mailroot_common::password::OCTETS_MAX;

/// What the house has to judge.
#[derive(Clone, PartialEq, Eq)]
pub enum Claim {
    /// Is this the user's password?
    Password {
        /// Who.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// By what is a proof of this user's told? To be answered with a verifier, for nobody as well.
    Verifier {
        /// Who.
        user: String,
    },
    /// The client has proved that it knows the password, or not.
    Proof {
        /// Who.
        user: String,
        /// Whether the proof was good.
        good: bool,
    },
    /// The client has also taken our last word: only now is it logged in.
    Agreed {
        /// Who.
        user: String,
    },
    /// Is this token a good one, and this user's?
    Bearer {
        /// Whom the client names; empty where it leaves that to the token.
        user: String,
        /// The token.
        token: Zeroizing<String>,
    },
    /// Is the client, by the certificate that it has shown, this user?
    External {
        /// Whom it wants to be; empty where it leaves that to the certificate.
        identity: String,
    },
    /// What does this say of the client's ticket? To be answered with more words for the client, or
    /// with who it is.
    Token {
        /// As the client's library made it; may be empty where ours has said the last word.
        token: Vec<u8>,
        /// Whether an exchange begins with it.
        first: bool,
    },
}

impl Claim {
    /// Who the client says that it is; of a token only the house can tell.
    #[must_use]
    pub fn user(&self) -> &str {
        match self {
            Self::External { identity: user }
            | Self::Bearer { user, .. }
            | Self::Password { user, .. }
            | Self::Verifier { user }
            | Self::Proof { user, .. }
            | Self::Agreed { user } => user,
            Self::Token { .. } => "",
        }
    }
}

/// Passwords are not for logs.
impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claim").field(&self.user()).finish()
    }
}

/// What comes next in an exchange.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Say this and wait for the client.
    Challenge(Vec<u8>),
    /// Have this judged.
    Judge(Claim),
    /// It is logged in: the last words were said.
    Done,
    /// The client has heard why its token was refused: it is refused in earnest now.
    Refused,
    /// What the client said makes no sense.
    Malformed,
    /// The login is bound to another connection, or was kept from being bound to this one: somebody
    /// may be in between.
    Unbound,
}

/// An exchange on its way.
pub struct Exchange {
    mechanism: Mechanism,
    channel: Channel,
    state: State,
}

enum State {
    /// Nothing was said yet.
    Begun,
    /// LOGIN: the name was said.
    Named(String),
    /// The house judges a password.
    Judging,
    Scram(Box<Scram>),
    /// GSSAPI: the first token was said.
    Tokens,
    /// The client hears why its token is refused.
    Refusing,
}

/// Passwords and proofs are not for logs.
impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Exchange").field(&self.mechanism).finish()
    }
}

impl Exchange {
    /// An exchange over a connection, of which nothing was said yet.
    #[must_use]
    pub fn new(mechanism: Mechanism, channel: Channel) -> Self {
        Self { mechanism, channel, state: State::Begun }
    }

    /// How the client logs in.
    #[must_use]
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What to say to a client that began without a first word.
    #[must_use]
    pub fn prompt(&self) -> &'static [u8] {
        match self.mechanism {
            Mechanism::Login => b"Username:",
            Mechanism::Plain
            | Mechanism::ScramSha256
            | Mechanism::ScramSha256Plus
            | Mechanism::External
            | Mechanism::OauthBearer
            | Mechanism::Xoauth2
            | Mechanism::Gssapi => b"",
        }
    }

    /// Takes what the client said.
    pub fn on_response(&mut self, said: &[u8]) -> Step {
        match (&mut self.state, self.mechanism) {
            (State::Begun, Mechanism::Plain) => self.plain(said),
            (State::Begun, Mechanism::Login) => match name(said) {
                Some(user) => {
                    self.state = State::Named(user);
                    Step::Challenge(b"Password:".to_vec())
                }
                None => Step::Malformed,
            },
            (State::Named(user), _) => {
                let user = std::mem::take(user);
                self.password(user, said)
            }
            (State::Begun, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus) => {
                let is_bound = self.mechanism == Mechanism::ScramSha256Plus;
                match Scram::begin(said, &self.channel, is_bound) {
                    Begun::Scram(scram) => {
                        let user = scram.user().to_owned();
                        self.state = State::Scram(scram);
                        Step::Judge(Claim::Verifier { user })
                    }
                    Begun::Malformed => Step::Malformed,
                    Begun::Unbound => Step::Unbound,
                }
            }
            (State::Begun, Mechanism::External) => match identity(said) {
                Some(identity) => {
                    self.state = State::Judging;
                    Step::Judge(Claim::External { identity })
                }
                None => Step::Malformed,
            },
            (State::Scram(scram), _) => scram.on_response(said),
            (State::Begun, Mechanism::Gssapi) if said.is_empty() => Step::Malformed,
            (State::Begun | State::Tokens, Mechanism::Gssapi) => {
                let first = matches!(self.state, State::Begun);
                self.state = State::Tokens;
                Step::Judge(Claim::Token { token: said.to_vec(), first })
            }
            (State::Begun, Mechanism::OauthBearer) => self.bearer(Bearer::oauthbearer(said)),
            (State::Begun, Mechanism::Xoauth2) => self.bearer(Bearer::xoauth2(said)),
            (State::Refusing, _) => Step::Refused,
            (State::Tokens, _) => Step::Malformed,
            (State::Judging, _) => Step::Malformed,
        }
    }

    /// Answers [`Claim::Verifier`]; `nonce` is a fresh random word.
    pub fn on_verifier(&mut self, verifier: Verifier, nonce: &str) -> Step {
        match &mut self.state {
            State::Scram(scram) => Step::Challenge(scram.on_verifier(verifier, nonce)),
            State::Begun | State::Named(_) | State::Judging | State::Refusing | State::Tokens => {
                Step::Malformed
            }
        }
    }

    /// Answers [`Claim::Token`] with more words for the client.
    pub fn on_words(&mut self, words: Vec<u8>) -> Step {
        match &self.state {
            State::Tokens => Step::Challenge(words),
            State::Begun | State::Named(_) | State::Judging | State::Refusing | State::Scram(_) => {
                Step::Malformed
            }
        }
    }

    /// The house has judged well. Some mechanisms have a last word of ours, by which the client knows
    /// us, and are judged once more when it was taken.
    pub fn on_admission(&mut self) -> Step {
        match &mut self.state {
            State::Scram(scram) => scram.signature().map_or(Step::Done, Step::Challenge),
            State::Begun | State::Named(_) | State::Judging | State::Refusing | State::Tokens => {
                Step::Done
            }
        }
    }

    /// The house has judged badly. What a client with a token is told first (RFC 7628 section 3.2.2); it
    /// has to answer before it is refused in earnest.
    pub fn on_refusal(&mut self) -> Option<&'static [u8]> {
        self.mechanism.is_bearer().then(|| {
            self.state = State::Refusing;
            &b"{\"status\":\"401\",\"schemes\":\"bearer\"}"[..]
        })
    }

    /// Whether the login is refused already, whatever the client answers.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.state, State::Refusing)
    }

    fn bearer(&mut self, said: Option<Bearer>) -> Step {
        self.state = State::Judging;
        match said {
            Some(Bearer { user, token }) => Step::Judge(Claim::Bearer { user, token }),
            None => Step::Malformed,
        }
    }

    /// `[authzid] NUL authcid NUL password`
    fn plain(&mut self, said: &[u8]) -> Step {
        let mut parts = said.split(|octet| *octet == 0);
        let (Some(other), Some(user), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Step::Malformed;
        };
        match name(user) {
            // Nobody acts for somebody else.
            Some(name) if other.is_empty() || other == user => self.password(name, password),
            _ => Step::Malformed,
        }
    }

    fn password(&mut self, user: String, said: &[u8]) -> Step {
        self.state = State::Judging;
        match std::str::from_utf8(said) {
            Ok(password) if !password.is_empty() && password.len() <= PASSWORD_OCTETS_MAX => {
                let password = Zeroizing::new(password.to_owned());
                Step::Judge(Claim::Password { user, password })
            }
            _ => Step::Malformed,
        }
    }
}

/// Whom a client wants to be (RFC 4422 section 3.4.1): anybody who could be somebody, or nobody in
/// particular.
fn identity(said: &[u8]) -> Option<String> {
    if said.is_empty() { Some(String::new()) } else { name(said) }
}

/// A name that somebody could have.
fn name(said: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(said).ok()?;
    let good = !text.is_empty() && text.len() <= NAME_OCTETS_MAX;
    (good && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(mechanism: Mechanism) -> Exchange {
        Exchange::new(mechanism, Channel::default())
    }

    fn password(step: Step) -> Option<(String, String)> {
        match step {
            Step::Judge(Claim::Password { user, password }) => Some((user, password.to_string())),
            _ => None,
        }
    }

    #[test]
    fn plain_is_one_word() {
        let said = |octets: &[u8]| password(begun(Mechanism::Plain).on_response(octets));
        let ada = Some(("ada".to_owned(), "pa ss".to_owned()));
        assert_eq!(said(b"\0ada\0pa ss"), ada);
        assert_eq!(said(b"ada\0ada\0pa ss"), ada);
        for bad in [
            &b"eve\0ada\0pw"[..],
            b"\0ada\0",
            b"\0\0pw",
            b"\0ada",
            b"",
            b"\0ada\0p\0w",
            b"\0ad\na\0pw",
            b"\0ada\0\xff",
        ] {
            assert_eq!(said(bad), None, "{bad:?}");
        }
        assert_eq!(said(&[&b"\0ada\0"[..], &[b'x'; 1001]].concat()), None);
    }

    #[test]
    fn login_asks_twice() {
        let mut exchange = begun(Mechanism::Login);
        assert_eq!(exchange.prompt(), b"Username:");
        assert_eq!(exchange.on_response(b"ada"), Step::Challenge(b"Password:".to_vec()));
        let judged = exchange.on_response(b"secret");
        assert_eq!(password(judged), Some(("ada".to_owned(), "secret".to_owned())));
        assert_eq!(exchange.on_response(b"again"), Step::Malformed);
        assert_eq!(exchange.on_admission(), Step::Done);
        assert_eq!(begun(Mechanism::Login).on_response(b""), Step::Malformed);
    }

    #[test]
    fn tokens_go_to_the_house_until_it_knows_who_it_is() {
        let token = |said: &[u8], first| Step::Judge(Claim::Token { token: said.to_vec(), first });
        let mut exchange = begun(Mechanism::Gssapi);
        assert_eq!(exchange.on_words(b"x".to_vec()), Step::Malformed);
        assert_eq!(exchange.on_response(b"ticket"), token(b"ticket", true));
        assert_eq!(exchange.on_words(b"name".to_vec()), Step::Challenge(b"name".to_vec()));
        assert_eq!(exchange.on_response(b""), token(b"", false));
        assert_eq!(exchange.on_response(b"layer"), token(b"layer", false));
        assert_eq!(exchange.on_admission(), Step::Done);
        assert_eq!(begun(Mechanism::Gssapi).on_response(b""), Step::Malformed);
        let mut plain = begun(Mechanism::Plain);
        assert_eq!(plain.on_words(b"x".to_vec()), Step::Malformed);
    }

    #[test]
    fn a_certificate_is_asked_about_once_and_by_a_name_or_none() {
        for identity in ["", "ada", "ada@corp.example"] {
            let claim = Claim::External { identity: identity.to_owned() };
            let mut exchange = begun(Mechanism::External);
            assert_eq!(exchange.on_response(identity.as_bytes()), Step::Judge(claim));
            assert_eq!(exchange.on_response(identity.as_bytes()), Step::Malformed);
            assert_eq!(exchange.on_admission(), Step::Done);
        }
        for odd in [&b"ada\0"[..], b"\xff\xfe", b"ada\r\n", b"\x1b[31m", &[b'a'; 256]] {
            assert_eq!(begun(Mechanism::External).on_response(odd), Step::Malformed, "{odd:?}");
        }
    }

    #[test]
    fn passwords_do_not_show() {
        let step = begun(Mechanism::Plain).on_response(b"\0ada\0secret");
        assert!(!format!("{step:?}").contains("secret"));
    }
}
