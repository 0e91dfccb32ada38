//! Logging in at a smart host: which mechanism, and what is said in it.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use mailroot_common::config::smart_hosts::{Mechanism, SmartHostAuth};
use md5::Md5;
use rsasl::prelude::{Mechname, SASLClient, SASLConfig, Session, State};
use smtpd_core::smtp::client::LoginError;

use crate::config::Secrets;

/// An exchange under way.
pub(super) struct Exchange {
    mechanism: Mechanism,
    means: Means,
    is_over: bool,
}

enum Means {
    /// All but one.
    Sasl(Box<Session>),
    /// RFC 2195.
    CramMd5 { user: String, password: zeroize::Zeroizing<String> },
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("mechanism", &self.mechanism).finish_non_exhaustive()
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
    ) -> Result<Self, LoginError> {
        let ours = auth.mechanisms.iter();
        let mechanism = ours.copied().find(|ours| offered.iter().any(|name| name == ours.word()));
        let mechanism = mechanism.ok_or_else(|| LoginError::Mechanism {
            offered: offered.join(" "),
            allowed: auth.mechanisms.iter().map(|it| it.word()).collect::<Vec<_>>().join(" "),
        })?;
        let (Some(user), Some(secret)) = (auth.user.clone(), auth.password.clone()) else {
            return Err(LoginError::Secret("no name or no password is configured".to_owned()));
        };
        let secrets = secrets.clone();
        let read = tokio::task::spawn_blocking(move || secrets.read(&secret)).await;
        let password = read
            .map_err(|_| LoginError::Secret("it could not be read".to_owned()))?
            .map_err(|error| LoginError::Secret(error.to_string()))?;
        let means = match mechanism {
            Mechanism::CramMd5 => Means::CramMd5 { user, password },
            Mechanism::ScramSha256 | Mechanism::ScramSha1 | Mechanism::Plain | Mechanism::Login => {
                let session = sasl(mechanism, user, password.to_string());
                Means::Sasl(Box::new(session.map_err(|why| failed(mechanism, &why))?))
            }
        };
        Ok(Self { mechanism, means, is_over: false })
    }

    /// The mechanism's name.
    pub(super) fn name(&self) -> &'static str {
        self.mechanism.word()
    }

    /// What is said before the peer says anything, if the mechanism begins with us.
    pub(super) fn first(&mut self) -> Result<Option<Vec<u8>>, LoginError> {
        match &self.means {
            Means::Sasl(session) if session.are_we_first() => self.step(None).map(Some),
            Means::Sasl(_) | Means::CramMd5 { .. } => Ok(None),
        }
    }

    /// The answer to a challenge.
    pub(super) fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, LoginError> {
        if self.is_over {
            return Err(failed(self.mechanism, &"the host asks for more than there is to say"));
        }
        match &self.means {
            Means::Sasl(_) => self.step(Some(challenge)),
            Means::CramMd5 { user, password } => {
                let answer = cram_md5(user, password, challenge);
                self.is_over = true;
                Ok(answer)
            }
        }
    }

    /// The peer took the login. Has it shown what it must show?
    pub(super) fn finish(mut self) -> Result<(), LoginError> {
        if !self.is_over {
            self.step(None)?;
        }
        if self.is_over {
            return Ok(());
        }
        Err(failed(self.mechanism, &"the host has not shown that it knows the password"))
    }

    fn step(&mut self, input: Option<&[u8]>) -> Result<Vec<u8>, LoginError> {
        let Means::Sasl(session) = &mut self.means else { return Ok(Vec::new()) };
        let mut out = Vec::new();
        let state =
            session.step(input, &mut out).map_err(|error| failed(self.mechanism, &error))?;
        self.is_over = matches!(state, State::Finished(_));
        Ok(out)
    }
}

fn failed(mechanism: Mechanism, why: &dyn fmt::Display) -> LoginError {
    LoginError::Exchange { mechanism: mechanism.word().to_owned(), why: why.to_string() }
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
