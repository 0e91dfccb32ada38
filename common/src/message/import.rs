//! What becomes of a file of Pickup: the rules of a virtual server, and what they say of a file.
//!
//! In: the configuration, and octets. Out: sender, recipients and what would be added, or why the file
//! would end in Badmail. Where recipients are routed only the daemon knows.

use super::header::HeaderFacts;
use super::line_ends::{BareLineEnd, LineEnds};
use super::pickup::{self, Fault, Parsed};
use crate::config::ServerConfig;
use crate::config::messages::Fix;
use crate::control::{PickupCheck, PickupRecipient};
use crate::units::ByteSize;

/// Why a file is for Badmail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// The header says too little, or what cannot be.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A line ends as none of mail does.
    #[error(transparent)]
    LineEnd(#[from] BareLineEnd),
    /// It is too large.
    #[error("it is larger than messages.max_size ({0})")]
    TooLarge(ByteSize),
    /// It became too large.
    #[error("it grew beyond messages.max_size ({0}) after it was taken")]
    Grew(ByteSize),
    /// It has been through too many hands.
    #[error("it has {hops} Received fields (delivery.max_hops is {limit}): it goes in circles")]
    Hops {
        /// How many.
        hops: u32,
        /// The limit.
        limit: u32,
    },
    /// A milter does not want it.
    #[error("a milter refused it: {0}")]
    Filtered(String),
    /// The queue cannot hold it.
    #[error("it cannot be queued: {0}")]
    Unstorable(String),
}

/// How files are read, and what is done to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How their headers are read.
    pub parse: pickup::Settings,
    /// Whether bare CR and LF become CRLF (`messages.fix`).
    pub fix_line_ends: bool,
    /// Whether lines that begin with a dot carry a second one.
    pub dot_stuffed: bool,
    /// The largest file.
    pub size_max: ByteSize,
    /// How many `Received` fields a message may have.
    pub hops_max: u32,
    /// Whether `Date` is added where it is missing (`messages.fix`).
    pub add_date: bool,
    /// Whether `Message-ID` is added where it is missing (`messages.fix`).
    pub add_message_id: bool,
}

impl Rules {
    /// Those of a virtual server.
    #[must_use]
    pub fn of(config: &ServerConfig) -> Self {
        let (keys, messages) = (&config.store.pickup, &config.messages);
        let recipients = messages.max_recipients.value().unwrap_or(u32::MAX);
        let header = config.limits.header_size.as_u64();
        Self {
            parse: pickup::Settings {
                x_headers: keys.x_headers,
                header_octets_max: usize::try_from(header).unwrap_or(usize::MAX),
                recipients_max: usize::try_from(recipients).unwrap_or(usize::MAX),
                default_sender: messages.default_sender.clone(),
            },
            fix_line_ends: messages.fix.contains(&Fix::LineEnds),
            dot_stuffed: keys.dot_stuffed,
            size_max: messages.max_size.value().unwrap_or(ByteSize::bytes(u64::MAX)),
            hops_max: config.delivery.max_hops,
            add_date: messages.fix.contains(&Fix::Date),
            add_message_id: messages.fix.contains(&Fix::MessageId),
        }
    }

    /// A converter of line ends for one file.
    #[must_use]
    pub fn line_ends(&self) -> LineEnds {
        LineEnds::new(self.fix_line_ends, self.dot_stuffed)
    }

    /// Whether what stands in a header may go on.
    ///
    /// # Errors
    ///
    /// [`Bad::Hops`].
    pub fn admit(&self, facts: &HeaderFacts) -> Result<(), Bad> {
        let (hops, limit) = (facts.hops, self.hops_max);
        if hops >= limit { Err(Bad::Hops { hops, limit }) } else { Ok(()) }
    }

    /// What is told of a file that was read to its end; no routes.
    #[must_use]
    pub fn told(&self, name: &str, parsed: Parsed, is_eight_bit: bool) -> PickupCheck {
        let notes = self.notes(&parsed.facts, is_eight_bit);
        let recipient = |address| PickupRecipient { address, route: None };
        PickupCheck {
            name: name.to_owned(),
            from: parsed.sender,
            to: parsed.recipients.into_iter().map(recipient).collect(),
            envelope: if parsed.has_x_receiver { "X-Receiver" } else { "header" }.to_owned(),
            notes,
        }
    }

    fn notes(&self, facts: &HeaderFacts, is_eight_bit: bool) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, is_there, is_added) in [
            ("Date", facts.has_date, self.add_date),
            ("Message-ID", facts.has_message_id, self.add_message_id),
        ] {
            match (is_there, is_added) {
                (true, _) => {}
                (false, true) => notes.push(format!("it has no {name}: one will be added")),
                (false, false) => notes.push(format!("it has no {name}, and none is added")),
            }
        }
        if is_eight_bit {
            notes.push("its body is sent as 8BITMIME".to_owned());
        }
        notes
    }

    /// Reads a whole file as Pickup would.
    ///
    /// # Errors
    ///
    /// [`Bad`]: why it would end in Badmail.
    pub fn check(&self, name: &str, octets: &[u8]) -> Result<PickupCheck, Bad> {
        if octets.len() as u64 > self.size_max.as_u64() {
            return Err(Bad::TooLarge(self.size_max));
        }
        let (mut ends, mut text) = (self.line_ends(), Vec::new());
        ends.feed(octets, &mut text)?;
        ends.finish(&mut text)?;
        let parsed = pickup::parse(&text, true, &self.parse)?.ok_or(Fault::Empty)?;
        self.admit(&parsed.facts)?;
        Ok(self.told(name, parsed, ends.is_eight_bit()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;
    use crate::config::Profile;

    #[test]
    fn a_file_is_told_as_pickup_would_take_it() {
        let rules = Rules::of(&ServerConfig::defaults(Profile::Modern));
        let text = b"X-Sender: a@x.example\nX-Receiver: b@y.example\nDate: x\n\nGr\xfc\xdfe\n";
        let told = rules.check("a.eml", text).unwrap();
        assert_eq!(
            (told.from.to_string(), told.envelope.as_str()),
            ("a@x.example".into(), "X-Receiver")
        );
        assert_eq!(told.to[0].address.to_string(), "b@y.example");
        assert_eq!(told.notes.len(), 2, "{told:?}");
        assert!(told.notes[0].contains("Message-ID") && told.notes[1].contains("8BITMIME"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let rules = Rules::of(&ServerConfig::defaults(Profile::Modern));
        let why = |text: &[u8], rules: &Rules| rules.check("x", text).unwrap_err().to_string();
        assert_eq!(why(b"", &rules), "the file is empty");
        assert!(why(b"From: a@x.example\nToo: b@y.example\n\n", &rules).contains("line 2"));
        let hops = b"Received: x\nFrom: a@x.example\nTo: b@y.example\n\n";
        assert!(why(hops, &Rules { hops_max: 1, ..rules.clone() }).contains("circles"));
        assert!(
            why(hops, &Rules { size_max: ByteSize::bytes(9), ..rules.clone() }).contains("larger")
        );
        assert!(why(hops, &Rules { fix_line_ends: false, ..rules }).contains("bare LF"));
    }
}
