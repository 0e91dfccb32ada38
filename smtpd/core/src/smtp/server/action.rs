//! What passes between the machine and the house around it.

use mailroot_common::address::{Mailbox, ReversePath};

use crate::queue::envelope::{BodyKind, Recipient, Ret};
use crate::queue::wishes::Wishes;
use crate::smtp::refusal::Refusal;

/// What the client called itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The argument of HELO or EHLO.
    pub name: String,
    /// Whether it was EHLO.
    pub esmtp: bool,
}

/// A message on its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// MAIL FROM.
    pub sender: ReversePath,
    /// How large the client said the message is; zero is "not said".
    pub declared_octets: u64,
    /// BODY of MAIL.
    pub body: BodyKind,
    /// SMTPUTF8 of MAIL.
    pub smtputf8: bool,
    /// RET of MAIL.
    pub ret: Option<Ret>,
    /// ENVID of MAIL, in xtext.
    pub envid: Option<String>,
    /// BY, HOLDFOR or HOLDUNTIL, MT-PRIORITY (as far as the client may raise it) and REQUIRETLS of MAIL.
    /// What is counted in seconds begins with that command (RFC 2852 section 4).
    pub wishes: Wishes,
    /// Recipients let in so far.
    pub recipients: Vec<Recipient>,
    /// Whether a recipient was refused.
    pub(super) refused: bool,
}

/// What only the house can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// May the sender of [`super::Server::transaction`] send? Answer with [`super::Server::admit`].
    Sender,
    /// May the recipient of [`super::Server::candidate`] be sent to? Answer with [`super::Server::admit`].
    Recipient,
    /// May the body come: is there room? Answer with [`super::Server::admit`].
    Body,
    /// May the client ask for the mail of [`super::Server::asked_for`]? Send it, and answer with
    /// [`super::Server::turned`].
    Etrn,
    /// May the client be sent the mail of [`super::Server::fetched`] over this connection? Answer with
    /// [`super::Server::reversed`].
    Reverse,
    /// May the session be that of the client of [`super::Server::told`]? Have it judged as one that has
    /// just called, and answer with [`super::Server::introduced`].
    Told,
    /// Is the client who it says it is? See [`super::Server::claim`]; answer with
    /// [`super::Server::verifier`] or [`super::Server::judged`].
    Login,
    /// May the session come under TLS: is there a certificate? Answer with [`super::Server::admit`].
    Secure,
    /// The message is complete. Make it durable and answer with [`super::Server::committed`].
    Commit,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer; the same question comes until it is answered.
    Answer(Question),
    /// Send the output, bring the connection under TLS, and say [`super::Server::secured`]. Where that
    /// fails nothing can be said any more, and the connection is to be closed.
    Handshake,
    /// Tell the log.
    Rejected(Box<Rejection>),
}

/// A "no" that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// When in the session.
    pub stage: Stage,
    /// Why.
    pub refusal: Refusal,
    /// The sender, if there was one.
    pub sender: Option<ReversePath>,
    /// The recipient, if it was about one.
    pub recipient: Option<Mailbox>,
}

/// Where in a session something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before the greeting.
    Connect,
    /// A line that is no command, or one out of order.
    Command,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA or BDAT, before the body.
    Data,
    /// The body or its end.
    End,
    /// ETRN.
    Etrn,
    /// ATRN or TURN.
    Reverse,
    /// AUTH.
    Auth,
    /// Between commands: a limit of the whole session.
    Session,
}

impl Stage {
    /// The word of the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Command => "command",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::End => "end",
            Self::Etrn => "etrn",
            Self::Reverse => "atrn",
            Self::Auth => "auth",
            Self::Session => "session",
        }
    }
}

/// How a session came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client said QUIT.
    Quit,
    /// From now on the connection carries mail the other way: the client greets next.
    Reversed,
    /// We closed it.
    Refused(Refusal),
    /// The client asks about its own mail from here on; what it says is no SMTP any more, and
    /// octets that came behind the command are lost.
    Inquiry,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No HELO or EHLO yet.
    Greeting,
    /// No message on its way.
    Idle,
    /// Between MAIL and the body.
    Envelope,
    /// The body is coming.
    Body,
    /// The message is being made durable.
    Commit,
    /// Mail goes the other way.
    Reversed,
    /// The last reply was said.
    Closing,
}

impl Standing {
    /// The word that people see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Idle => "idle",
            Self::Envelope => "envelope",
            Self::Body => "body",
            Self::Commit => "commit",
            Self::Reversed => "reversed",
            Self::Closing => "closing",
        }
    }
}
