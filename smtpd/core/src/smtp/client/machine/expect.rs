//! The replies a session waits for.

use crate::queue::outcome::Stage;

/// A reply awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    /// A step of AUTH.
    Auth,
    Reset,
    Mail,
    /// The recipient's place in the list.
    Rcpt(usize),
    Data,
    Chunk,
    End,
    Etrn,
    Atrn,
    Quit,
}

impl Expect {
    pub(super) const fn stage(self) -> Stage {
        match self {
            Self::Greeting => Stage::Greeting,
            Self::Ehlo | Self::Helo => Stage::Hello,
            Self::StartTls => Stage::Tls,
            Self::Auth => Stage::Login,
            Self::Reset | Self::Mail | Self::Etrn | Self::Atrn => Stage::Mail,
            Self::Rcpt(_) => Stage::Rcpt,
            Self::Data | Self::Chunk => Stage::Data,
            Self::End | Self::Quit => Stage::End,
        }
    }

    pub(super) const fn awaited(self) -> &'static str {
        match self {
            Self::Greeting => "the greeting",
            Self::Ehlo => "the reply to EHLO",
            Self::Helo => "the reply to HELO",
            Self::StartTls => "the reply to STARTTLS",
            Self::Auth => "the reply to AUTH",
            Self::Reset => "the reply to RSET",
            Self::Mail => "the reply to MAIL",
            Self::Rcpt(_) => "the reply to RCPT",
            Self::Data => "the reply to DATA",
            Self::Chunk => "the reply to BDAT",
            Self::End => "the reply to the end of the message",
            Self::Etrn => "the reply to ETRN",
            Self::Atrn => "the reply to ATRN",
            Self::Quit => "the reply to QUIT",
        }
    }
}
