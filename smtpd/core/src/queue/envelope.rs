//! What is known of a message besides its content. It is frozen when the message is accepted.

use std::net::IpAddr;

use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::id::SessionId;
use mailroot_common::units::Timestamp;
use serde::{Deserialize, Serialize};

use super::recipient::Hold;
use super::wishes::Wishes;
use crate::route::smart_host::SmartHost;
use crate::route::table::{Route, RouteName, Table};

/// The envelope of one message. The store keeps it as JSON, so that fields can be added and a
/// store can be read without Mailroot; the short names keep records small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Where reports go (MAIL FROM).
    #[serde(rename = "f")]
    pub sender: ReversePath,
    /// Who is to get the message; never empty. Places in this list name recipients from now on.
    #[serde(rename = "r")]
    pub recipients: Vec<Recipient>,
    /// When the message was accepted.
    #[serde(rename = "at")]
    pub accepted_at: Timestamp,
    /// What the sender declared of the body (RFC 6152, RFC 3030).
    #[serde(rename = "b", default, skip_serializing_if = "is_default")]
    pub body: BodyKind,
    /// Whether the sender asked for SMTPUTF8 (RFC 6531).
    #[serde(rename = "u", default, skip_serializing_if = "is_default")]
    pub smtputf8: bool,
    /// How much of the message a report returns (RFC 3461 section 4.3).
    #[serde(rename = "ret", default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<Ret>,
    /// The sender's name for the transaction, in xtext as it came (RFC 3461 section 4.4).
    #[serde(rename = "env", default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
    /// Received fields in the message, ours included.
    #[serde(rename = "h", default, skip_serializing_if = "is_default")]
    pub hops: u32,
    /// Where the message came from.
    #[serde(rename = "o")]
    pub origin: Origin,
    /// Set if the message is held from its first moment; whether it still is, its state says.
    #[serde(rename = "hold", default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Whether the sender would rather have it sent without TLS than not at all (RFC 8689 section 3).
    #[serde(rename = "no_tls", default, skip_serializing_if = "is_default")]
    pub tls_optional: bool,
    /// The Message-ID field, for people; at most 250 octets.
    #[serde(rename = "mid", default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The Subject field as it stands, for people; at most 250 octets.
    #[serde(rename = "subj", default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What the sender wants of time, order and protection; nothing in most mail.
    #[serde(rename = "w", default, skip_serializing_if = "is_default")]
    pub wishes: Wishes,
}

impl Envelope {
    /// The moment that expiry and notices of delay count from: when the message was accepted, or the
    /// later one that it is not to be tried before.
    #[must_use]
    pub fn begins_at(&self) -> Timestamp {
        self.wishes.release_at.unwrap_or(self.accepted_at)
    }

    /// Whether it carries a report about TLS (RFC 8460): of all our reports only they may go without.
    #[must_use]
    pub fn is_tls_report(&self) -> bool {
        self.origin.via == Via::Report && self.tls_optional
    }

    /// When something is to be done about recipients that still wait, by the clock as it was when the
    /// message was accepted. Of a time that was up before, a host before us has told.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let deadline = self.wishes.deliver_by.map(|by| by.at);
        deadline.filter(|&at| at > self.accepted_at)
    }
}

/// One recipient as the sender named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The address (RCPT TO).
    #[serde(rename = "a")]
    pub mailbox: Mailbox,
    /// When the sender wants reports; absent is failure and delay (RFC 3461 section 4.1).
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// The original recipient, `type;address` in xtext as it came (RFC 3461 section 4.2).
    #[serde(rename = "or", default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    /// Whether it is what a directory made of another address, and is looked up no more.
    #[serde(rename = "x", default, skip_serializing_if = "is_default")]
    pub resolved: bool,
    /// Whether an alias of this machine, an operator or a milter led here, and the sender named another
    /// address.
    #[serde(rename = "fw", default, skip_serializing_if = "is_default")]
    pub forwarded: bool,
    /// The host that a directory says has the mailbox, whatever the table of routes says.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub via: Option<SmartHost>,
}

impl Recipient {
    /// A recipient without wishes for reports.
    #[must_use]
    pub fn plain(mailbox: Mailbox) -> Self {
        Self { mailbox, notify: None, orcpt: None, resolved: false, forwarded: false, via: None }
    }

    /// The way to it from a sender: by the host of its mailbox, else by the table.
    #[must_use]
    pub fn route(&self, table: &Table, sender: &ReversePath) -> Route {
        match &self.via {
            Some(host) => Route::to_host(host.clone()),
            None => table.route(Some(sender), &self.mailbox),
        }
    }

    /// The name of [`Recipient::route`].
    #[must_use]
    pub fn route_name(&self, table: &Table, sender: &ReversePath) -> RouteName {
        match &self.via {
            Some(_) => self.route(table, sender).name(),
            None => table.route_name(sender, &self.mailbox),
        }
    }

    /// The original recipient, for mail that goes on to another address: what the sender said, else the
    /// address itself, so that a report names whom the sender wrote to.
    #[must_use]
    pub fn original(&self) -> Option<String> {
        let own = || {
            let text = self.mailbox.to_string();
            // Characters that xtext would have to encode (RFC 3461 section 4) are not worth it.
            let is_plain = |o: u8| o.is_ascii_graphic() && o != b'+' && o != b'=';
            text.bytes().all(is_plain).then(|| format!("rfc822;{text}"))
        };
        self.orcpt.clone().or_else(own)
    }
}

/// The BODY parameter of MAIL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyKind {
    /// Not declared, or 7BIT.
    #[default]
    #[serde(rename = "7")]
    SevenBit,
    /// 8BITMIME (RFC 6152).
    #[serde(rename = "8")]
    EightBitMime,
    /// BINARYMIME (RFC 3030).
    #[serde(rename = "b")]
    BinaryMime,
}

/// The RET parameter of MAIL (RFC 3461 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ret {
    /// The whole message.
    #[serde(rename = "full")]
    Full,
    /// Its header only.
    #[serde(rename = "hdrs")]
    Headers,
}

/// The NOTIFY parameter of RCPT (RFC 3461 section 4.1). All false means NEVER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// Report delivery.
    #[serde(rename = "s", default)]
    pub success: bool,
    /// Report failure.
    #[serde(rename = "f", default)]
    pub failure: bool,
    /// Report delay.
    #[serde(rename = "d", default)]
    pub delay: bool,
}

impl Notify {
    /// No report at all.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };
    /// What holds when the sender says nothing.
    pub const UNSAID: Self = Self { success: false, failure: true, delay: true };
}

/// Where a message came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// By which door.
    #[serde(rename = "v")]
    pub via: Via,
    /// The client's address.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// What the client called itself, as it was said.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
    /// The session it came in.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The Pickup file's name, or the id a requeued message had before.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Who had logged in, or the user of the submit socket.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The number of the user who handed the message in over the submit socket.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// What was found about who sent it, in a few words, where that was looked at.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<String>,
}

/// The door a message came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// A listener.
    Smtp,
    /// The Pickup directory.
    Pickup,
    /// The submit socket.
    Submit,
    /// A report that Mailroot wrote itself.
    Report,
    /// Back from Badmail, by an operator.
    Requeue,
}

impl Via {
    /// The word of the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Pickup => "pickup",
            Self::Submit => "submit",
            Self::Report => "report",
            Self::Requeue => "requeue",
        }
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
