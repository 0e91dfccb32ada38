//! Between the hello and the first message: TLS, and our login.
//!
//! Both are the driver's work; when, whether, and what a refusal means is decided here. Nothing
//! that was said in clear text survives the handshake (RFC 3207 section 4.2), and a login that was
//! wanted and is not possible ends the session: mail never goes on without it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailroot_common::status::{Class, EnhancedCode};

use super::super::super::reply::Reply;
use super::super::{Action, Ending, LoginError, Tls};
use super::expect::Expect;
use super::replies::CHALLENGE;
use super::{Client, EndedBy, Phase};
use crate::queue::outcome::{AttemptResult, Stage};

/// The longest line of an exchange, without its line end (RFC 4954 section 4).
const AUTH_LINE_MAX: usize = 12_286;

/// Something the peer cannot do that this connection needs (RFC 3463, RFC 4954).
const UNSUPPORTED: EnhancedCode = EnhancedCode::transient(7, 4);
const TLS_FAILED: EnhancedCode = EnhancedCode::transient(7, 5);
const LOGIN_FAILED: EnhancedCode = EnhancedCode::transient(7, 8);

impl Client {
    /// Whether no message can be sent yet.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Hello | Phase::Securing | Phase::LoggingIn)
    }

    /// Whether the session is under TLS.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.is_secured
    }

    /// Whether the peer knows us by a login.
    #[must_use]
    pub fn is_logged_in(&self) -> bool {
        self.is_logged_in
    }

    /// What comes after a good hello.
    pub(super) fn secure(&mut self, now: Duration) {
        match self.settings.tls {
            Tls::Optional | Tls::Required if !self.is_secured && self.peer.starttls => {
                let say = |out: &mut Vec<u8>| out.extend_from_slice(b"STARTTLS\r\n");
                self.command(Expect::StartTls, now, say);
            }
            Tls::Required if !self.is_secured => {
                let text = "TLS is required for this host, which does not offer STARTTLS";
                self.leave(&Ending::local(Stage::Tls, UNSUPPORTED, text));
            }
            Tls::Off | Tls::Optional | Tls::Required | Tls::Implicit => self.log_in(),
        }
    }

    pub(super) fn on_start_tls(&mut self, reply: &Reply) {
        if reply.class() == Class::Success && self.reader.has_rest() {
            // Octets in clear text behind the reply would be read as if they had come under TLS.
            let text = "the host sent more in clear text behind its reply to STARTTLS";
            self.break_all(&Ending::local(Stage::Tls, TLS_FAILED, text), EndedBy::Peer);
        } else if reply.class() == Class::Success {
            self.phase = Phase::Securing;
            self.actions.push_back(Action::StartTls);
        } else if self.settings.tls == Tls::Optional {
            self.log_in();
        } else {
            let text = format!("TLS is required for this host, which refused STARTTLS: {reply}");
            self.leave(&Ending { text, ..Ending::local(Stage::Tls, UNSUPPORTED, "") });
        }
    }

    /// The driver has negotiated TLS: everything begins anew.
    pub fn secured(&mut self, now: Duration) {
        debug_assert_eq!(self.phase, Phase::Securing, "TLS was asked for");
        self.is_secured = true;
        self.phase = Phase::Hello;
        self.peer = Arc::default();
        self.say_ehlo(now);
    }

    /// TLS could not be negotiated; `why` is for people. The connection is of no further use.
    pub fn not_secured(&mut self, why: &str) {
        let ending = Ending::local(Stage::Tls, TLS_FAILED, format!("TLS failed: {why}"));
        self.break_all(&ending, EndedBy::Nobody);
    }

    fn log_in(&mut self) {
        let Some(login) = self.settings.login.filter(|_| !self.is_logged_in) else {
            self.open();
            return;
        };
        let cannot = |text: &str| Ending::local(Stage::Login, UNSUPPORTED, text);
        if !self.is_secured && !login.in_clear_text {
            let text = "a login is set for this host, and it is not sent without TLS, which the \
                        host does not offer";
            self.leave(&cannot(text));
        } else if self.peer.auth.is_empty() {
            let text = "a login is set for this host, which offers no AUTH";
            self.leave(&cannot(text));
        } else {
            self.phase = Phase::LoggingIn;
            self.actions.push_back(Action::LogIn);
        }
    }

    /// Begins the exchange of a mechanism, with what the client says first if it speaks first.
    pub fn authenticate(&mut self, mechanism: &str, first: Option<&[u8]>, now: Duration) {
        debug_assert_eq!(self.phase, Phase::LoggingIn, "a login was asked for");
        let mut line = format!("AUTH {mechanism}");
        self.unsaid = None;
        match first.map(encoded) {
            None => {}
            Some(text) if line.len() + 1 + text.len() <= AUTH_LINE_MAX => {
                line.push(' ');
                line.push_str(&text);
            }
            Some(text) => self.unsaid = Some(text),
        }
        self.say_auth(&line, now);
    }

    /// The answer to a challenge.
    pub fn respond(&mut self, answer: &[u8], now: Duration) {
        debug_assert_eq!(self.phase, Phase::LoggingIn, "a challenge is answered");
        let line = STANDARD.encode(answer);
        self.say_auth(&line, now);
    }

    fn say_auth(&mut self, line: &str, now: Duration) {
        self.command(Expect::Auth, now, |out| {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        });
    }

    /// The driver cannot log in: it has no secret, or the exchange makes no sense to it.
    pub fn give_up_login(&mut self, error: &LoginError) {
        self.leave(&Ending::local(Stage::Login, LOGIN_FAILED, error.to_string()));
    }

    pub(super) fn on_auth(&mut self, reply: Reply, now: Duration) {
        if reply.code().as_u16() == CHALLENGE {
            self.on_challenge(&reply, now);
        } else if reply.class() == Class::Success {
            self.is_logged_in = true;
            self.actions.push_back(Action::LoggedIn);
        } else {
            // Whatever is wrong with the login, it is not the mail: the mail waits.
            let mut ending = Ending::from_reply(reply, Stage::Login);
            ending.result = AttemptResult::Deferred;
            if ending.status.class() != Class::Transient {
                ending.status = ending.status.in_class(Class::Transient);
            }
            ending.text = format!("the login was refused: {}", ending.text);
            self.leave(&ending);
        }
    }

    fn on_challenge(&mut self, reply: &Reply, now: Duration) {
        if let Some(text) = self.unsaid.take() {
            self.say_auth(&text, now);
            return;
        }
        let text: String = reply.lines().next().unwrap_or_default().trim().to_owned();
        match STANDARD.decode(text) {
            Ok(challenge) => self.actions.push_back(Action::Challenge(challenge)),
            Err(_) => self.give_up_login(&LoginError::Challenge),
        }
    }

    /// The driver has checked that the peer is who it says it is, if the mechanism shows that.
    pub fn logged_in(&mut self) {
        debug_assert!(self.is_logged_in, "the peer said so");
        self.open();
    }

    /// Ends a session that cannot be used; QUIT leaves, nobody waits for its reply.
    fn leave(&mut self, ending: &Ending) {
        self.break_all(ending, EndedBy::Us);
        self.output.extend_from_slice(b"QUIT\r\n");
    }
}

/// An initial response that is empty is written `=` (RFC 4954 section 4).
fn encoded(first: &[u8]) -> String {
    if first.is_empty() { "=".to_owned() } else { STANDARD.encode(first) }
}
