//! One event as a query reads it back.

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;

use super::note::LENGTH_OCTETS;

/// Defines the fields of an event once: their tags on disk and their places in [`Event`].
macro_rules! fields {
    (
        numbers { $($(#[doc = $number_doc:literal])+ $Number:ident $number:ident = $number_tag:literal,)+ }
        texts { $($(#[doc = $text_doc:literal])+ $Text:ident $text:ident = $text_tag:literal,)+ }
    ) => {
        /// Tags of fields that hold a number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Number {
            /// When it happened, in milliseconds since 1970.
            At = 1,
            $($(#[doc = $number_doc])+ $Number = $number_tag,)+
        }

        /// Tags of fields that hold a text; they have the highest bit.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Text {
            /// What happened.
            Word = 129,
            /// The virtual server.
            Server = 130,
            /// A recipient; a message that was accepted has one field for each.
            To = 131,
            $($(#[doc = $text_doc])+ $Text = $text_tag,)+
        }

        /// An event; fields that it does not have are absent.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Event<'a> {
            /// When it happened.
            pub at: Timestamp,
            /// What happened.
            pub word: &'a str,
            /// The virtual server.
            pub server: &'a str,
            /// The recipients concerned.
            pub to: Vec<&'a str>,
            $($(#[doc = $number_doc])+ pub $number: Option<u64>,)+
            $($(#[doc = $text_doc])+ pub $text: Option<&'a str>,)+
        }

        impl<'a> Event<'a> {
            fn set_number(&mut self, tag: u8, value: u64) {
                match tag {
                    1 => self.at = Timestamp::from_millis(value),
                    $($number_tag => self.$number = Some(value),)+
                    _ => {}
                }
            }

            fn set_text(&mut self, tag: u8, value: &'a str) {
                match tag {
                    129 => self.word = value,
                    130 => self.server = value,
                    131 => self.to.push(value),
                    $($text_tag => self.$text = Some(value),)+
                    _ => {}
                }
            }
        }
    };
}

fields! {
    numbers {
        /// The message's number; see [`Event::id`].
        Id message = 2,
        /// Octets.
        Size size = 3,
        /// Attempts made.
        Attempt attempt = 4,
        /// When the next one is made, in milliseconds since 1970.
        Next next = 5,
        /// The reply code.
        Code code = 6,
        /// The number of the report, or of the message that another became.
        Other other = 7,
    }
    texts {
        /// The sender; empty for the null path.
        From from = 132,
        /// The client's address.
        Client client = 133,
        /// What the client called itself.
        Helo helo = 134,
        /// What DNS calls the client.
        Name name = 135,
        /// The session.
        Session session = 136,
        /// The door.
        Via via = 137,
        /// The rule that let the message in.
        Rule rule = 138,
        /// The Pickup file, or what the message was before.
        Source source = 139,
        /// The Message-ID field.
        MessageId message_id = 140,
        /// The Subject field.
        Subject subject = 141,
        /// The route.
        Route route = 142,
        /// The remote host.
        Host host = 143,
        /// The enhanced code.
        Status status = 144,
        /// The remote's words, or ours.
        Words words = 145,
        /// The part of the attempt or of the session that decided.
        Stage stage = 146,
        /// Why, in a word of the log or an operator's.
        Reason reason = 147,
        /// The operator.
        By by = 148,
        /// How the connection was protected.
        Tls tls = 149,
        /// What the sender wants of time and order.
        Wishes wishes = 150,
        /// What was found about who sent it.
        Checks checks = 153,
        /// Who had logged in, or the user of the submit socket.
        User user = 151,
        /// SHA-256 of the client's certificate, if it showed a good one.
        Certificate certificate = 152,
        /// The number of the user of the submit socket.
        Uid uid = 160,
    }
}

/// The word of the beginning of a message's story.
pub const RECEIVED: &str = "received";
/// The word of what was said about a message.
pub const DIALOGUE: &str = "dialogue";
/// The word of a client that was turned away.
pub const REFUSED: &str = "refused";

impl<'a> Event<'a> {
    /// Takes one event from the front of `octets`, which is left behind it; nothing if what stands
    /// there is no whole event.
    pub fn take(octets: &mut &'a [u8]) -> Option<Self> {
        let (length, rest) = octets.split_first_chunk::<LENGTH_OCTETS>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (mut fields, rest) = rest.split_at_checked(length)?;
        let mut event = Self::default();
        while let Some((&tag, value)) = fields.split_first() {
            if tag & 0x80 == 0 {
                let (number, rest) = value.split_first_chunk::<8>()?;
                event.set_number(tag, u64::from_le_bytes(*number));
                fields = rest;
            } else {
                let (length, value) = value.split_first_chunk::<2>()?;
                let (text, rest) = value.split_at_checked(u16::from_le_bytes(*length).into())?;
                event.set_text(tag, str::from_utf8(text).ok()?);
                fields = rest;
            }
        }
        *octets = rest;
        Some(event)
    }

    /// The octets of the events that stand behind one another, and whether each is `word`: what is
    /// not of interest need not be taken apart. [`super::note::Note`] writes the moment first and
    /// the word behind it.
    pub fn each_is(octets: &'a [u8], word: &str) -> impl Iterator<Item = (&'a [u8], bool)> {
        pieces(octets).map(move |event| (event, text_at(event, WORD_AT) == Some(word.as_bytes())))
    }

    /// The octets of the events of messages, with the message of each.
    pub fn each_of(octets: &'a [u8]) -> impl Iterator<Item = (QueueId, &'a [u8])> {
        pieces(octets).filter_map(|event| Some((id_of(event)?, event)))
    }

    /// The events that stand behind one another, up to the first that is not whole.
    pub fn all(octets: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut rest = octets;
        std::iter::from_fn(move || Self::take(&mut rest))
    }

    /// The message.
    #[must_use]
    pub fn id(&self) -> Option<QueueId> {
        self.message.map(QueueId::from_u64)
    }

    /// Whether a client was turned away.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.word == REFUSED
    }

    /// Whether it is the beginning of a message's story.
    #[must_use]
    pub fn is_beginning(&self) -> bool {
        self.word == RECEIVED
    }
}

/// Where the word of an event stands: behind its length and its moment.
const WORD_AT: usize = LENGTH_OCTETS + 1 + 8;

/// The octets of each event, with its length.
fn pieces(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        let length = u32::from_le_bytes(*rest.first_chunk::<LENGTH_OCTETS>()?);
        let (event, behind) =
            rest.split_at_checked(LENGTH_OCTETS + usize::try_from(length).ok()?)?;
        rest = behind;
        Some(event)
    })
}

/// The text whose tag stands at a place.
fn text_at(event: &[u8], at: usize) -> Option<&[u8]> {
    let (length, value) = event.get(at + 1..)?.split_first_chunk::<2>()?;
    value.get(..u16::from_le_bytes(*length).into())
}

/// The message of an event, found by passing over the fields before.
fn id_of(event: &[u8]) -> Option<QueueId> {
    let mut at = LENGTH_OCTETS;
    loop {
        let tag = *event.get(at)?;
        if tag == Number::Id as u8 {
            let number = event.get(at + 1..)?.first_chunk::<8>()?;
            return Some(QueueId::from_u64(u64::from_le_bytes(*number)));
        }
        at += if tag & 0x80 == 0 { 9 } else { 3 + text_at(event, at)?.len() };
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use mailroot_common::status::{EnhancedCode, ReplyCode};
    use proptest::prelude::{any, proptest};

    use super::super::note::{Admission, Cause, Note, TEXT_OCTETS_MAX};
    use super::*;
    use crate::queue::outcome::{AttemptResult, Outcome, RemoteHost, Stage};
    use crate::queue::recipient::{Phase, RecipientStatus};
    use crate::queue::retry::tests::envelope;

    const AT: Timestamp = Timestamp::from_millis(1_763_000_000_123);

    fn id() -> QueueId {
        QueueId::parse("6FZK3QB27N5C").unwrap()
    }

    fn status(phase: Phase, result: AttemptResult, stage: Stage) -> RecipientStatus {
        RecipientStatus {
            phase,
            attempts: 2,
            next_attempt: Timestamp::from_millis(AT.as_millis() + 60_000),
            delay_told: false,
            doubted: false,
            deadline_told: false,
            fixed: false,
            last: Some(Outcome {
                at: AT,
                result,
                status: EnhancedCode::transient(7, 1),
                code: Some(ReplyCode::new(451)),
                text: "Greylisted,\ntry \u{fc}ber again".to_owned(),
                host: Some(RemoteHost {
                    name: "mx.x.test".to_owned(),
                    address: Some(IpAddr::from([192, 0, 2, 1])),
                    port: 25,
                    tls: None,
                }),
                stage,
            }),
        }
    }

    fn outcome(status: &RecipientStatus, cause: Cause) -> Option<Note> {
        Note::outcome("s", id(), AT, &"a@x.test", &"mx:x.test", (status, cause))
    }

    #[test]
    fn a_message_is_read_back_as_it_was_accepted() {
        let mut accepted = envelope("app@x.example", &[None, None]);
        accepted.subject = Some("Invoice 2291".to_owned());
        accepted.origin.client = Some(IpAddr::from([10, 1, 0, 7]));
        for subjects in [true, false] {
            let rule: &dyn std::fmt::Display = &"relay list 10.1.0.0/16";
            let name = Some("app1.x.example");
            let certificate = Some("ab12");
            let admitted = Admission { rule: Some(rule), name, subjects, certificate, tls: None };
            let octets = Note::received("default", id(), &accepted, 1_200, admitted).finish();
            let event = Event::take(&mut octets.as_slice()).unwrap();
            assert_eq!((event.word, event.server, event.id()), ("received", "default", Some(id())));
            assert_eq!((event.from, event.size), (Some("app@x.example"), Some(1_200)));
            assert_eq!(event.to, ["r0@there.example", "r1@there.example"]);
            assert_eq!((event.client, event.name), (Some("10.1.0.7"), Some("app1.x.example")));
            assert_eq!(event.rule, Some("relay list 10.1.0.0/16"));
            assert_eq!(event.certificate, Some("ab12"));
            assert_eq!(event.subject, subjects.then_some("Invoice 2291"));
        }
    }

    #[test]
    fn an_outcome_keeps_the_remotes_words_and_says_what_comes_next() {
        let word = |phase, result, stage| {
            let status = status(phase, result, stage);
            let note = outcome(&status, Cause::Attempt);
            let octets = note.map(Note::finish).unwrap_or_default();
            Event::take(&mut octets.as_slice()).map(|event| event.word.to_owned())
        };
        for (phase, result, stage, expected) in [
            (Phase::Delivered, AttemptResult::Delivered, Stage::End, Some("delivered")),
            (Phase::Delivered, AttemptResult::Delivered, Stage::Drop, Some("dropped")),
            (Phase::Delivered, AttemptResult::Delivered, Stage::Directory, Some("resolved")),
            (Phase::Waiting, AttemptResult::Deferred, Stage::Rcpt, Some("deferred")),
            (Phase::InDoubt, AttemptResult::InDoubt, Stage::End, Some("in_doubt")),
            (Phase::Returned, AttemptResult::Failed, Stage::Rcpt, Some("bounced")),
            (Phase::Returned, AttemptResult::Failed, Stage::Expiry, Some("expired")),
            (Phase::Badmail, AttemptResult::Failed, Stage::Rcpt, Some("badmail")),
            (Phase::Removed, AttemptResult::Failed, Stage::Operator, None),
        ] {
            assert_eq!(word(phase, result, stage).as_deref(), expected, "{phase:?}");
        }
        let waiting = status(Phase::Waiting, AttemptResult::Deferred, Stage::Rcpt);
        let late = outcome(&waiting, Cause::Age).unwrap().finish();
        assert_eq!(Event::take(&mut late.as_slice()).unwrap().word, "delayed");
        let octets = outcome(&waiting, Cause::Attempt).unwrap().finish();
        let event = Event::take(&mut octets.as_slice()).unwrap();
        assert_eq!(event.words, Some("Greylisted,\ntry \u{fc}ber again"));
        assert_eq!((event.code, event.status), (Some(451), Some("4.7.1")));
        assert_eq!(event.host, Some("mx.x.test[192.0.2.1]:25"));
        assert_eq!((event.attempt, event.route), (Some(2), Some("mx:x.test")));
        assert_eq!(event.next, Some(AT.as_millis() + 60_000));
        assert_eq!(event.at, AT);
    }

    #[test]
    fn events_stand_behind_one_another_and_a_broken_one_ends_them() {
        let mut octets = Vec::new();
        for number in 0..3 {
            octets.extend(Note::new("held", "s", AT).id(QueueId::from_u64(number)).finish());
        }
        assert_eq!(Event::all(&octets).count(), 3);
        assert_eq!(Event::all(&octets[..octets.len() - 1]).count(), 2);
        let mut unknown = Note::new("held", "s", AT).id(id()).finish();
        let length = u32::try_from(unknown.len() - LENGTH_OCTETS + 4).unwrap();
        unknown.extend_from_slice(&[0xFE, 1, 0, b'x']);
        unknown[..LENGTH_OCTETS].copy_from_slice(&length.to_le_bytes());
        assert_eq!(Event::all(&unknown).next().unwrap().id(), Some(id()));
    }

    #[test]
    fn events_of_one_word_are_told_without_taking_them_apart() {
        let mut octets = Vec::new();
        for word in ["held", "received", "refused", "received"] {
            octets.extend(Note::new(word, "s", AT).id(id()).finish());
        }
        let found: Vec<_> = Event::each_is(&octets, "received").collect();
        assert_eq!(found.iter().map(|it| it.1).collect::<Vec<_>>(), [false, true, false, true]);
        let words = found.iter().map(|&(mut event, _)| Event::take(&mut event).unwrap().word);
        assert_eq!(words.collect::<Vec<_>>(), ["held", "received", "refused", "received"]);
        assert_eq!(Event::each_is(&octets[..octets.len() - 1], "x").count(), 3);
        let of: Vec<_> = Event::each_of(&octets).map(|(id, _)| id).collect();
        assert_eq!(of, [id(); 4]);
        let nobody = Note::new("refused", "s", AT).text(Text::Client, "x").finish();
        assert_eq!(Event::each_of(&nobody).count(), 0);
    }

    #[test]
    fn a_text_beyond_its_bound_is_cut_between_letters() {
        let long = "\u{fc}".repeat(TEXT_OCTETS_MAX);
        let octets = Note::new("x", "s", AT).text(Text::Words, &long).id(id()).finish();
        let event = Event::take(&mut octets.as_slice()).unwrap();
        assert_eq!(event.words.map(str::len), Some(TEXT_OCTETS_MAX));
        assert_eq!(event.id(), Some(id()));
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_harm(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Event::all(&octets).count();
            let _ = Event::each_is(&octets, "received").count();
            let _ = Event::each_of(&octets).count();
        }
    }
}
