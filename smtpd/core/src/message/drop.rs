//! What a file of the Drop directory begins with, and what it is called.
//!
//! In: the envelope and the recipients that are delivered here. Out: lines that go in front of the
//! message. `X-Sender` and `X-Receiver` come first, so that a file moved into Pickup is sent again
//! with the same envelope, as the original supports; `Return-Path` follows, because here the
//! message reaches its end (RFC 5321 section 4.4).

use mailroot_common::address::ReversePath;
use mailroot_common::id::QueueId;

use crate::queue::envelope::Envelope;

/// Appends the lines for a file that holds the message for the recipients at these places.
pub fn write_prefix(out: &mut Vec<u8>, envelope: &Envelope, recipients: &[usize]) {
    write_line(out, "X-Sender", &envelope.sender);
    for recipient in recipients.iter().filter_map(|&place| envelope.recipients.get(place)) {
        push_text(out, format_args!("X-Receiver: {}\r\n", recipient.mailbox));
    }
    match &envelope.sender {
        ReversePath::Null => out.extend_from_slice(b"Return-Path: <>\r\n"),
        ReversePath::Mailbox(mailbox) => {
            push_text(out, format_args!("Return-Path: <{mailbox}>\r\n"))
        }
    }
}

fn write_line(out: &mut Vec<u8>, name: &str, sender: &ReversePath) {
    match sender {
        ReversePath::Null => push_text(out, format_args!("{name}: <>\r\n")),
        ReversePath::Mailbox(mailbox) => push_text(out, format_args!("{name}: {mailbox}\r\n")),
    }
}

fn push_text(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let done = out.write_fmt(text);
    debug_assert!(done.is_ok(), "writing into a Vec cannot fail");
}

/// The name of the file without its ending: the message's id, so that doing a delivery again
/// replaces the file and makes no second one.
///
/// Recipients of one message may come here at different times, as when a domain becomes local
/// later. So that the later file does not replace the earlier one, the place of its first recipient
/// is part of the name unless it is the first of all.
#[must_use]
pub fn stem(id: QueueId, recipients: &[usize]) -> String {
    match recipients.iter().min() {
        None | Some(0) => id.to_string(),
        Some(place) => format!("{id}-{}", place + 1),
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::address::Mailbox;
    use mailroot_common::units::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::message::header;
    use crate::message::pickup::{self, Settings};
    use crate::queue::envelope::{BodyKind, Origin, Recipient, Via};

    fn envelope(sender: ReversePath, recipients: Vec<Mailbox>) -> Envelope {
        Envelope {
            hold: None,
            tls_optional: false,
            sender,
            recipients: recipients.into_iter().map(Recipient::plain).collect(),
            accepted_at: Timestamp::from_millis(0),
            body: BodyKind::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
            hops: 1,
            origin: Origin {
                via: Via::Smtp,
                client: None,
                helo: None,
                session: None,
                source: None,
                user: None,
                uid: None,
                checks: None,
            },
            message_id: None,
            subject: None,
            wishes: crate::queue::wishes::Wishes::default(),
        }
    }

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    fn settings() -> Settings {
        Settings {
            x_headers: true,
            header_octets_max: 1 << 20,
            recipients_max: 1000,
            default_sender: None,
        }
    }

    #[test]
    fn prefix_names_the_recipients_delivered_here() {
        let envelope = envelope(
            ReversePath::Mailbox(mailbox("a@b")),
            vec![mailbox("c@d"), mailbox("e@f"), mailbox("g@h")],
        );
        let mut out = Vec::new();
        write_prefix(&mut out, &envelope, &[0, 2]);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "X-Sender: a@b\r\nX-Receiver: c@d\r\nX-Receiver: g@h\r\nReturn-Path: <a@b>\r\n"
        );
    }

    #[test]
    fn later_recipients_do_not_replace_the_earlier_file() {
        let id = QueueId::from_u64(1);
        assert_eq!(stem(id, &[0, 2]), "000000000001");
        assert_eq!(stem(id, &[2, 1]), "000000000001-2");
    }

    fn any_mailbox() -> impl Strategy<Value = Mailbox> {
        "([a-z!+-]{1,9}|\"[ -!#-\\[\\]-~]{0,9}\"|ü{1,3})@([a-z]{1,9}\\.example|\\[192\\.0\\.2\\.1\\])"
            .prop_map(|text| mailbox(&text))
    }

    proptest! {
        /// Whatever the message holds, also fields of our own names: replayed, it has the envelope
        /// it was dropped with and not one octet changed but for the fields that always go.
        #[test]
        fn dropped_files_replay_with_the_same_envelope(
            sender in proptest::option::of(any_mailbox()),
            recipients in prop::collection::hash_set(any_mailbox(), 1..5),
            fields in prop::collection::vec(
                prop_oneof![
                    Just("X-Receiver: evil@x\r\n"), Just("X-Sender: evil@x\r\n\t(fold)\r\n"),
                    Just("To: t@x\r\n"), Just("Bcc: b@x\r\n"), Just("Return-Path: <r@x>\r\n"),
                    Just("Subject: \u{fc}\r\n"), Just("Resent-To: s@x\r\n"),
                ],
                0..6,
            ),
            body: Vec<u8>,
        ) {
            let sender = sender.map_or(ReversePath::Null, ReversePath::Mailbox);
            let recipients: Vec<_> = recipients.into_iter().collect();
            let envelope = envelope(sender.clone(), recipients.clone());
            let places: Vec<_> = (0..recipients.len()).collect();
            let message = [b"Received: x\r\n", fields.concat().as_bytes(), b"\r\n", &body].concat();
            let mut file = Vec::new();
            write_prefix(&mut file, &envelope, &places);
            file.extend_from_slice(&message);

            let parsed = pickup::parse(&file, true, &settings()).unwrap().unwrap();

            prop_assert_eq!(parsed.sender, sender);
            prop_assert_eq!(parsed.recipients, recipients);
            let replayed = [&parsed.header[..], &file[parsed.body_start..]].concat();
            prop_assert_eq!(&replayed, &*header::without(&message, &["Bcc", "Return-Path"]));
        }

        #[test]
        fn any_octets_are_read_or_refused(octets: Vec<u8>, is_whole: bool) {
            if let Ok(Some(parsed)) = pickup::parse(&octets, is_whole, &settings()) {
                prop_assert!(parsed.body_start <= octets.len() && !parsed.recipients.is_empty());
            }
        }

        #[test]
        fn any_header_lines_are_read_or_refused(
            lines in "((X-Sender|X-Receiver|To|Bcc|From|Resent-To):[a@.,<>\"( ]{0,9}\r\n){0,6}(\r\n)?"
        ) {
            if let Ok(Some(parsed)) = pickup::parse(lines.as_bytes(), true, &settings()) {
                prop_assert!(header::fields(&parsed.header).all(|field| !field.is("Bcc")));
            }
        }
    }
}
