//! The sending side of a session, as a machine without input and output.
//!
//! In: the peer's octets, the messages to send, the time. Out: octets to send, and for each
//! recipient how the attempt ended, with the peer's words. The driver reads and writes, keeps the
//! deadline, and does what [`Client::poll`] says; it knows no verb and no code.
//!
//! Three things shape it. *Round trips*: where the peer offers PIPELINING, MAIL, all RCPT and
//! DATA leave together, and behind the end of one message the commands of the next
//! (RFC 2920 section 3.1), so that a message costs one wait. *Honesty*: a recipient is delivered
//! only by a good reply to the end of the body; when that reply is missing or unreadable the
//! recipient is in doubt; what never was tried is given back and counts as no attempt.
//! *Distrust*: every wait is bounded per whole reply, so that a peer that drips octets gains
//! nothing, and any reply that cannot be read ends the connection.

mod body;
mod ending;
mod machine;
#[cfg(test)]
mod tests;
mod transaction;

use std::time::Duration;

use super::reply::Reply;
pub use body::BareLineEnd;
pub use ending::{Ending, Fate, Finished};
pub use machine::Client;
pub use transaction::{NO_REQUIRETLS, Transaction};

/// What a session is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What we call ourselves in EHLO and HELO: a domain, or an address in brackets.
    pub name: String,
    /// Say HELO at once, for peers that cannot stand EHLO.
    pub helo_only: bool,
    /// What is done about TLS.
    pub tls: Tls,
    /// Set if the session needs a login.
    pub login: Option<LoginRule>,
    /// Recipients of one transaction, if fewer than the peer takes.
    pub recipients_max: Option<u32>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// What a session does about TLS (RFC 3207, RFC 8314).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tls {
    /// It stays in clear text.
    #[default]
    Off,
    /// STARTTLS where it is offered.
    Optional,
    /// STARTTLS, or no session.
    Required,
    /// The connection is under TLS from its first octet.
    Implicit,
}

/// How a session logs in; with which name and secret is the driver's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoginRule {
    /// The secret may be sent without TLS.
    pub in_clear_text: bool,
}

/// Why the driver cannot log in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// None of the mechanisms that are allowed here is offered there.
    #[error(
        "the host offers the login mechanisms {offered}, of which none is allowed here ({allowed})"
    )]
    Mechanism {
        /// The peer's, separated by spaces.
        offered: String,
        /// Ours, separated by spaces.
        allowed: String,
    },
    /// There is no secret.
    #[error("the login cannot be made: {0}")]
    Secret(String),
    /// There is no token.
    #[error("there is no token to log in with: {0}")]
    Token(String),
    /// What the peer said is not base64.
    #[error("the host's challenge cannot be read")]
    Challenge,
    /// What the peer said makes no sense in the mechanism, or it cannot be who it says it is.
    #[error("the login failed in {mechanism}: {why}")]
    Exchange {
        /// The mechanism.
        mechanism: String,
        /// For people.
        why: String,
    },
}

/// How long to wait, each for one whole reply (RFC 5321 section 4.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the greeting.
    pub greeting: Duration,
    /// For the reply to EHLO, HELO, MAIL, RCPT and RSET.
    pub command: Duration,
    /// For the reply to DATA.
    pub data: Duration,
    /// For the network to take a piece of the body.
    pub block: Duration,
    /// For the reply to the end of the body.
    pub end: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            greeting: Duration::from_mins(5),
            command: Duration::from_mins(5),
            data: Duration::from_mins(2),
            block: Duration::from_mins(3),
            end: Duration::from_mins(10),
        }
    }
}

/// What the driver is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Negotiate TLS, then [`Client::secured`] or [`Client::not_secured`].
    StartTls,
    /// Choose a mechanism of those the peer offers, then [`Client::authenticate`] or
    /// [`Client::give_up_login`].
    LogIn,
    /// Answer the peer's challenge: [`Client::respond`] or [`Client::give_up_login`].
    Challenge(Vec<u8>),
    /// The peer took the login: [`Client::logged_in`], or [`Client::give_up_login`] if it has not
    /// shown that it knows the secret as well.
    LoggedIn,
    /// The peer has greeted us and said what it can do: [`Client::begin`] may be called.
    Ready,
    /// Hand over the body of the oldest transaction: [`Client::body`] until the last piece, then
    /// [`Client::last_body`].
    SendBody,
    /// The oldest transaction is over.
    Done(Finished),
    /// The answer to [`Client::ask_for`] or [`Client::ask_to_reverse`].
    Answered(Reply),
    /// No transaction is possible here: the greeting or the hello failed.
    Failed(Ending),
    /// Close the connection.
    Close,
}

/// Whether the driver may hand over a piece of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFlow {
    /// Yes.
    Send,
    /// Not before the peer has answered the piece before (BDAT without PIPELINING).
    Wait,
    /// No: the transaction is over, or none is at its body.
    Stop,
}
