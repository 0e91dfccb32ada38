//! Logging in at a smart host: which mechanism, and what is said in it.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use mailroot_common::address::Host;
use mailroot_common::config::Secret;
use mailroot_common::config::smart_hosts::{AuthMethod, Mechanism, SmartHostAuth};
use md5::Md5;
use rsasl::prelude::{Mechname, SASLClient, SASLConfig, Session, State};
use smtpd_core::oauth::sasl::{Form, status_words};
use smtpd_core::oauth::words;
use smtpd_core::smtp::client::{Ending, LoginError};
use zeroize::Zeroizing;

use crate::config::Secrets;
#[cfg(feature = "gssapi")]
use crate::kerberos;
use crate::oauth::Token;

/// An exchange under way.
pub(super) struct Exchange {
    /// The mechanism's name.
    name: &'static str,
    means: Means,
    is_over: bool,
}

enum Means {
    /// All but one.
    Sasl(Box<Session>),
    /// RFC 2195.
    CramMd5 { user: String, password: Zeroizing<String> },
    /// A ticket is shown.
    #[cfg(feature = "gssapi")]
    Ticket(Box<kerberos::Negotiation>),
    /// A token is shown.
    Token { form: Form, token: Token, first: Zeroizing<Vec<u8>>, status: Option<String> },
}

/// To whom a token is shown, and as whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Showing<'a> {
    pub(super) form: Form,
    pub(super) mailbox: &'a str,
    pub(super) host: &'a str,
    pub(super) port: u16,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Exchange {
    /// Chooses the first mechanism of ours that the peer offers, and reads the secret.
    ///
    /// # Errors
    ///
    /// [`LoginError`] if there is no such mechanism or no secret.
    pub(super) async fn begin(
        auth: &SmartHostAuth,
        offered: &[String],
        secrets: &Secrets,
        host: &Host,
    ) -> Result<Self, LoginError> {
        if auth.method == AuthMethod::Integrated {
            return Self::with_ticket(auth, offered, secrets, host).await;
        }
        let ours = auth.mechanisms.iter();
        let mechanism = ours.copied().find(|ours| offered.iter().any(|name| name == ours.word()));
        let mechanism = mechanism.ok_or_else(|| LoginError::Mechanism {
            offered: offered.join(" "),
            allowed: auth.mechanisms.iter().map(|it| it.word()).collect::<Vec<_>>().join(" "),
        })?;
        let (Some(user), Some(secret)) = (auth.user.clone(), auth.password.clone()) else {
            return Err(LoginError::Secret("no name or no password is configured".to_owned()));
        };
        let password = read(secrets, secret).await?;
        let means = match mechanism {
            Mechanism::CramMd5 => Means::CramMd5 { user, password },
            Mechanism::ScramSha256 | Mechanism::ScramSha1 | Mechanism::Plain | Mechanism::Login => {
                let session = sasl(mechanism, user, password.to_string());
                Means::Sasl(Box::new(session.map_err(|why| failed(mechanism.word(), &why))?))
            }
        };
        Ok(Self { name: mechanism.word(), means, is_over: false })
    }

    /// Gets a ticket for the host, and begins with it.
    #[cfg(feature = "gssapi")]
    async fn with_ticket(
        auth: &SmartHostAuth,
        offered: &[String],
        secrets: &Secrets,
        host: &Host,
    ) -> Result<Self, LoginError> {
        let name = kerberos::NAME;
        can_use(name, offered)?;
        let principal = auth.user.clone();
        let principal =
            principal.ok_or_else(|| LoginError::Secret("no name is configured".into()))?;
        let password = match auth.password.clone() {
            Some(secret) => Some(read(secrets, secret).await?),
            None => None,
        };
        let holder = kerberos::Holder { principal: Some(principal), password };
        let negotiation = kerberos::Negotiation::start("smtp", holder, host, None).await;
        let negotiation = negotiation.map_err(|why| failed(name, &why))?;
        Ok(Self { name, means: Means::Ticket(Box::new(negotiation)), is_over: false })
    }

    /// The configuration names this method only where it can be used.
    #[cfg(not(feature = "gssapi"))]
    #[expect(clippy::unused_async, reason = "with the feature it waits for a ticket")]
    async fn with_ticket(
        _auth: &SmartHostAuth,
        _offered: &[String],
        _secrets: &Secrets,
        _host: &Host,
    ) -> Result<Self, LoginError> {
        Err(LoginError::Secret("smtpd was built without its feature gssapi".to_owned()))
    }

    /// Begins with a token, in a form that the peer offers.
    pub(super) fn with_token(showing: Showing<'_>, token: Token) -> Self {
        let Showing { form, mailbox, host, port } = showing;
        let first = Zeroizing::new(form.first(mailbox, host, port, &token.text));
        let means = Means::Token { form, token, first, status: None };
        Self { name: form.word(), means, is_over: false }
    }

    /// The mechanism's name.
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// The token that was shown.
    pub(super) const fn token(&self) -> Option<&Token> {
        match &self.means {
            Means::Token { token, .. } => Some(token),
            #[cfg(feature = "gssapi")]
            Means::Ticket(_) => None,
            Means::Sasl(_) | Means::CramMd5 { .. } => None,
        }
    }

    /// Adds to a refusal what is known of it: the host's status, and what its code means.
    pub(super) fn explain(&self, ending: &mut Ending) {
        if let Means::Token { status, .. } = &self.means {
            ending.text.push_str("; the host does not take our token");
            if let Some(status) = status {
                ending.text.push_str(&format!(" ({status})"));
            }
        }
        let by_token = self.token().is_some();
        let meaning = words::of_login(ending.status, &ending.text);
        if let Some(meaning) = meaning.filter(|it| by_token || it.code != words::NO_MAILBOX) {
            ending.text.push_str(&format!(": {}; {}", meaning.cause, meaning.cure));
        }
    }

    /// What is said before the peer says anything, if the mechanism begins with us.
    pub(super) fn first(&mut self) -> Result<Option<Vec<u8>>, LoginError> {
        match &self.means {
            Means::Sasl(session) if session.are_we_first() => self.step(None).map(Some),
            Means::Sasl(_) | Means::CramMd5 { .. } => Ok(None),
            #[cfg(feature = "gssapi")]
            Means::Ticket(negotiation) => Ok(Some(negotiation.first())),
            Means::Token { first, .. } => Ok(Some(first.to_vec())),
        }
    }

    /// The answer to a challenge.
    pub(super) fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, LoginError> {
        if self.is_over {
            return Err(failed(self.name, &"the host asks for more than there is to say"));
        }
        match &mut self.means {
            Means::Sasl(_) => self.step(Some(challenge)),
            #[cfg(feature = "gssapi")]
            Means::Ticket(negotiation) => {
                let answer = negotiation.answer(challenge);
                let answer = answer.map_err(|why| failed(self.name, &why))?;
                self.is_over = negotiation.is_over();
                Ok(answer)
            }
            Means::CramMd5 { user, password } => {
                let answer = cram_md5(user, password, challenge);
                self.is_over = true;
                Ok(answer)
            }
            // It is no challenge but a refusal, which ends when it was answered.
            Means::Token { form, status, .. } => {
                *status = Some(status_words(challenge));
                self.is_over = true;
                Ok(form.farewell().to_vec())
            }
        }
    }

    /// The peer took the login. Has it shown what it must show?
    pub(super) fn finish(mut self) -> Result<(), LoginError> {
        if matches!(self.means, Means::Token { .. }) {
            return Ok(());
        }
        if !self.is_over {
            self.step(None)?;
        }
        if self.is_over {
            return Ok(());
        }
        Err(failed(self.name, &"the host has not shown that it knows the password"))
    }

    fn step(&mut self, input: Option<&[u8]>) -> Result<Vec<u8>, LoginError> {
        let Means::Sasl(session) = &mut self.means else { return Ok(Vec::new()) };
        let mut out = Vec::new();
        let state = session.step(input, &mut out).map_err(|error| failed(self.name, &error))?;
        self.is_over = matches!(state, State::Finished(_));
        Ok(out)
    }
}

/// Whether the peer offers a form to show tokens in.
///
/// # Errors
///
/// [`LoginError::Mechanism`].
pub(super) fn can_show(form: Form, offered: &[String]) -> Result<(), LoginError> {
    can_use(form.word(), offered)
}

fn can_use(mechanism: &str, offered: &[String]) -> Result<(), LoginError> {
    if offered.iter().any(|name| name == mechanism) {
        return Ok(());
    }
    Err(LoginError::Mechanism { offered: offered.join(" "), allowed: mechanism.to_owned() })
}

/// Reads a secret where it is kept.
async fn read(secrets: &Secrets, secret: Secret) -> Result<Zeroizing<String>, LoginError> {
    let secrets = secrets.clone();
    let read = tokio::task::spawn_blocking(move || secrets.read(&secret)).await;
    read.map_err(|_| LoginError::Secret("it could not be read".to_owned()))?
        .map_err(|error| LoginError::Secret(error.to_string()))
}

fn failed(mechanism: &str, why: &dyn fmt::Display) -> LoginError {
    LoginError::Exchange { mechanism: mechanism.to_owned(), why: why.to_string() }
}

fn sasl(mechanism: Mechanism, user: String, password: String) -> Result<Session, String> {
    let config: Arc<SASLConfig> =
        SASLConfig::with_credentials(None, user, password).map_err(|error| error.to_string())?;
    let name = Mechname::parse(mechanism.word().as_bytes()).map_err(|error| error.to_string())?;
    SASLClient::new(config).start_suggested_iter([name]).map_err(|error| error.to_string())
}

/// The name, and the keyed digest of the challenge in hexadecimal digits.
fn cram_md5(user: &str, password: &str, challenge: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Md5>::new_from_slice(password.as_bytes())
        .expect("a key of this digest may have any length");
    mac.update(challenge);
    let digits = mac.finalize().into_bytes();
    let digits: String = digits.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{user} {digits}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard() {
        let challenge = b"<1896.697170952@postoffice.reston.mci.net>";
        let answer = cram_md5("tim", "tanstaaftanstaaf", challenge);
        assert_eq!(answer, b"tim b913a602c7eda7a495b4e6e7334d3890");
    }
}
