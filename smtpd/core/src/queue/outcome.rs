//! What one attempt came to, with the remote's words kept whole.

use std::fmt;
use std::net::IpAddr;

use mailroot_common::status::{Class, EnhancedCode, ReplyCode};
use mailroot_common::units::Timestamp;
use serde::{Deserialize, Serialize};

/// What one attempt came to for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// When it was known.
    pub at: Timestamp,
    /// Delivered, to be tried again, failed, or not to be known.
    pub result: AttemptResult,
    /// The remote's enhanced code, or ours where the remote gave none.
    pub status: EnhancedCode,
    /// The remote's reply code, if it was a reply that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ReplyCode>,
    /// The remote's words, lines joined by LF, or ours where nothing was said. Printable text.
    pub text: String,
    /// The remote host, if one was reached or tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<RemoteHost>,
    /// Where in the attempt it was decided.
    pub stage: Stage,
}

impl Outcome {
    /// An outcome without a remote host or reply: the words are ours.
    #[must_use]
    pub fn local(
        at: Timestamp,
        stage: Stage,
        status: EnhancedCode,
        text: impl Into<String>,
    ) -> Self {
        let result = match status.class() {
            Class::Success => AttemptResult::Delivered,
            Class::Transient => AttemptResult::Deferred,
            Class::Permanent => AttemptResult::Failed,
        };
        Self { at, result, status, code: None, text: text.into(), host: None, stage }
    }

    /// Whether the network failed it: no host was found or reached, or the connection broke before the
    /// host said anything that decided. A handshake or a login that failed is no such thing.
    #[must_use]
    pub const fn is_network_error(&self) -> bool {
        let is_on_the_way = matches!(
            self.stage,
            Stage::Dns
                | Stage::Connect
                | Stage::Greeting
                | Stage::Hello
                | Stage::Mail
                | Stage::Rcpt
                | Stage::Data
                | Stage::End
        );
        let is_open = matches!(self.result, AttemptResult::Deferred | AttemptResult::InDoubt);
        is_on_the_way && is_open && self.code.is_none()
    }
}

/// `250 2.0.0 text` or `4.4.1 text`: the line people see.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = self.code {
            write!(f, "{code} ")?;
        }
        write!(f, "{} {}", self.status, self.text.replace('\n', " / "))
    }
}

/// How an attempt ended for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    /// The next hop has taken the message, or it lies in Drop.
    Delivered,
    /// Not now.
    Deferred,
    /// Not ever.
    Failed,
    /// The connection died between the end of the body and the reply.
    InDoubt,
}

/// The remote host of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteHost {
    /// Its name as looked up or configured.
    pub name: String,
    /// The address connected to; absent if none was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// How the connection was protected; absent for clear text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Protection>,
}

/// How a connection was protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// The version of TLS, such as `TLSv1.3`.
    pub version: Box<str>,
    /// Whether the host proved that it is the one that was meant, and how.
    pub verified: Verified,
}

/// How a host proved that it is the one that was meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", from = "Written")]
pub enum Verified {
    /// It did not.
    #[default]
    No,
    /// Somebody we trust knows it by its name.
    Name,
    /// It has a key that it is pinned to.
    Pin,
    /// It is one of those that the policy of the recipient's domain names (RFC 8461), and somebody we
    /// trust knows it by its name.
    Sts,
    /// It is one that its TLSA records speak of (RFC 7672).
    Dane,
}

impl Verified {
    /// The word of the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Name => "name",
            Self::Pin => "pin",
            Self::Sts => "sts",
            Self::Dane => "dane",
        }
    }
}

/// What may stand in a record: a word, or whether it did, as builds before wrote it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Did(bool),
    How(How),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    No,
    Name,
    Pin,
    Sts,
    Dane,
}

impl From<Written> for Verified {
    fn from(written: Written) -> Self {
        match written {
            Written::Did(false) | Written::How(How::No) => Self::No,
            Written::Did(true) | Written::How(How::Name) => Self::Name,
            Written::How(How::Pin) => Self::Pin,
            Written::How(How::Sts) => Self::Sts,
            Written::How(How::Dane) => Self::Dane,
        }
    }
}

/// `mx1.example[192.0.2.20]:25`, or `[192.0.2.20]:25` for a host without a name.
impl fmt::Display for RemoteHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(_) if self.name.starts_with('[') => write!(f, "{}:{}", self.name, self.port),
            Some(address) => write!(f, "{}[{address}]:{}", self.name, self.port),
            None => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

/// `TLSv1.3`, with `verified` behind it where that is so, and how if not by the name alone.
impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.version)?;
        f.write_str(match self.verified {
            Verified::No => "",
            Verified::Name => ", verified",
            Verified::Pin => ", verified (pin)",
            Verified::Sts => ", verified (MTA-STS)",
            Verified::Dane => ", verified (DANE)",
        })
    }
}

/// The part of an attempt that decided its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Choosing the next hop.
    Route,
    /// Signing the message.
    Sign,
    /// Looking names up.
    Dns,
    /// Connecting.
    Connect,
    /// The greeting.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS, and what follows from it.
    Tls,
    /// AUTH.
    Login,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA or BDAT, and the body.
    Data,
    /// The reply to the end of the body.
    End,
    /// Writing into Drop.
    Drop,
    /// Asking the directory who the recipient is.
    Directory,
    /// No attempt: the message's time was up.
    Expiry,
    /// No attempt: the time that the sender named was up (RFC 2852).
    Deadline,
    /// No attempt: an operator decided.
    Operator,
}

impl Stage {
    /// Whether time was up rather than anything decided.
    #[must_use]
    pub const fn is_age(self) -> bool {
        matches!(self, Self::Expiry | Self::Deadline)
    }

    /// The word of the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Sign => "sign",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Hello => "hello",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::End => "end",
            Self::Drop => "drop",
            Self::Directory => "directory",
            Self::Expiry => "expiry",
            Self::Deadline => "deadline",
            Self::Operator => "operator",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn what_earlier_builds_wrote_of_certificates_is_read() {
        for (text, expected) in [
            ("false", Verified::No),
            ("true", Verified::Name),
            ("\"pin\"", Verified::Pin),
            ("\"sts\"", Verified::Sts),
        ] {
            assert_eq!(serde_json::from_str::<Verified>(text).unwrap(), expected);
        }
        let text = serde_json::to_string(&Verified::Name).unwrap();
        assert_eq!(serde_json::from_str::<Verified>(&text).unwrap(), Verified::Name);
    }
}
