//! What is written down about a message in Badmail: for programs as JSON, for people as text.

use std::fmt::{self, Write};

use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use serde::{Deserialize, Serialize};
use smtpd_core::message::drop::stem;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::outcome::Outcome;

/// Why a message is in Badmail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A Pickup file that cannot be read as a message.
    BadPickupFile,
    /// A report that could not be delivered; nobody is left to tell.
    NdrOfDsn,
    /// Too many `Received` fields: the message goes in circles.
    HopCount,
    /// The store found it damaged.
    Damaged,
    /// Anything else.
    General,
}

impl Reason {
    /// The word of the log, of lists and of the reason file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadPickupFile => "bad-pickup-file",
            Self::NdrOfDsn => "ndr-of-dsn",
            Self::HopCount => "hop-count",
            Self::Damaged => "damaged",
            Self::General => "general",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything known of a message in Badmail but its content: the `.envelope` file, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The id the message had in the queue, or was given when it came here.
    pub id: QueueId,
    /// When it came here.
    pub at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// What happened, for people.
    pub detail: String,
    /// Who sent it; absent if that cannot be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<ReversePath>,
    /// The recipients who did not get it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<Concerned>,
    /// Where it came from, such as `Pickup/report.eml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The envelope it had in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
}

/// A recipient who did not get a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concerned {
    /// The address.
    pub mailbox: Mailbox,
    /// Its place in the envelope, from 0.
    pub place: usize,
    /// What the last attempt came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

impl Record {
    /// The name of the files, without their endings. The same message may come here again for
    /// other recipients; then it has another name.
    #[must_use]
    pub fn name(&self) -> String {
        let places: Vec<_> = self.recipients.iter().map(|concerned| concerned.place).collect();
        stem(self.id, &places)
    }

    /// The `.reason` file.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = String::new();
        let done = self.write_report(&mut text);
        debug_assert!(done.is_ok(), "writing into a String cannot fail");
        text
    }

    fn write_report(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "reason  {}", self.reason)?;
        writeln!(text, "detail  {}", OneLine(&self.detail))?;
        writeln!(text, "at      {}", self.at)?;
        if let Some(source) = &self.source {
            writeln!(text, "source  {}", OneLine(source))?;
        }
        match &self.sender {
            Some(sender) => writeln!(text, "from    <{sender}>")?,
            None => writeln!(text, "from    -")?,
        }
        for concerned in &self.recipients {
            writeln!(text, "to      <{}>", concerned.mailbox)?;
            let Some(outcome) = &concerned.outcome else { continue };
            writeln!(text, "        {}", OneLine(&outcome.to_string()))?;
            if let Some(host) = &outcome.host {
                writeln!(text, "        said by {host} at {}", outcome.at)?;
            }
        }
        let name = self.name();
        match self.reason {
            Reason::BadPickupFile => {
                writeln!(text, "do      smtpctl badmail requeue {name} --from A --to A")
            }
            _ => writeln!(text, "do      smtpctl badmail requeue {name}"),
        }
    }
}

/// Text of strangers, which must not make a second line.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if c.is_control() { '?' } else { c }))
    }
}
