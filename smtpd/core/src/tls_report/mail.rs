//! The message that carries a report (RFC 8460 section 5.3).
//!
//! It says `TLS-Required: No` (RFC 8689): a domain whose TLS is broken is to hear of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::units::Timestamp;

use super::form::About;
use crate::queue::envelope::{BodyKind, Envelope, Notify, Origin, Recipient, Via};
use crate::queue::wishes::Wishes;

/// Octets of a line in base64 (RFC 2045 section 6.8).
const LINE_OCTETS: usize = 76;

/// A report, ready to be accepted into the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The message with CRLF line ends.
    pub octets: Vec<u8>,
    /// Its envelope. Nobody is told of its fate: reports about reports come to no end.
    pub envelope: Envelope,
}

/// Writes the message that carries a packed report to these mailboxes, which are not empty.
#[must_use]
pub fn write(
    about: &About<'_>,
    to: &[Mailbox],
    packed: &[u8],
    now: Timestamp,
    random: u64,
) -> Written {
    let About { domain, host, contact, .. } = about;
    let id = about.id();
    let message_id = format!("<{random:016x}.{}@{host}>", now.as_millis());
    let subject = format!("Report Domain: {domain} Submitter: {host} Report-ID: <{id}>");
    // Base64 has no such characters.
    let boundary = format!("=_mailroot_{random:016x}");
    let all: Vec<String> = to.iter().map(|to| format!("<{to}>")).collect();
    let name = about.file_name();
    let mut text = format!(
        "From: <{contact}>\r\nTo: {}\r\nSubject: Report Domain: {domain}\r\n Submitter: {host}\r\n \
         Report-ID: <{id}>\r\nDate: {}\r\nMessage-ID: {message_id}\r\n\
         TLS-Report-Domain: {domain}\r\nTLS-Report-Submitter: {host}\r\nTLS-Required: No\r\n\
         Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n\tboundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\
         Content-Transfer-Encoding: 7bit\r\n\r\n\
         This is a report about TLS (RFC 8460): what mail met on its way from\r\n{host}\r\n\
         to hosts of\r\n{domain}\r\n\r\n\
         --{boundary}\r\nContent-Type: application/tlsrpt+gzip\r\n\
         Content-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment;\r\n\tfilename=\"{name}\"\r\n\r\n",
        all.join(",\r\n "),
        now.to_rfc5322(),
    );
    let digits = STANDARD.encode(packed);
    for line in digits.as_bytes().chunks(LINE_OCTETS) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push_str("\r\n");
    }
    text.push_str(&format!("\r\n--{boundary}--\r\n"));
    let envelope = envelope(about, to, now, (message_id, subject));
    Written { octets: text.into_bytes(), envelope }
}

fn envelope(
    about: &About<'_>,
    to: &[Mailbox],
    now: Timestamp,
    (message_id, subject): (String, String),
) -> Envelope {
    let quiet =
        |to: &Mailbox| Recipient { notify: Some(Notify::NEVER), ..Recipient::plain(to.clone()) };
    let is_plain = about.contact.is_ascii() && to.iter().all(Mailbox::is_ascii);
    Envelope {
        sender: ReversePath::Mailbox(about.contact.clone()),
        recipients: to.iter().map(quiet).collect(),
        accepted_at: now,
        body: BodyKind::SevenBit,
        smtputf8: !is_plain,
        ret: None,
        envid: None,
        hops: 0,
        origin: Origin {
            via: Via::Report,
            client: None,
            helo: None,
            session: None,
            source: Some("tls".to_owned()),
            user: None,
            uid: None,
            checks: None,
        },
        hold: None,
        tls_optional: true,
        message_id: Some(message_id),
        subject: Some(cut(subject)),
        wishes: Wishes::default(),
    }
}

/// As much as an envelope has room for.
fn cut(mut text: String) -> String {
    // Names of domains are ASCII.
    text.truncate(250);
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use mail_parser::{MessageParser, MimeHeaders as _};
    use mailroot_common::address::Domain;

    use super::*;

    #[test]
    fn a_report_is_a_message_that_programs_can_read() {
        let about = About {
            organization: "X",
            contact: &Mailbox::parse("tls@x.test").unwrap(),
            domain: &Domain::parse(&format!("{}.test", "a".repeat(60))).unwrap(),
            begins: Timestamp::from_millis(1_000),
            ends: Timestamp::from_millis(86_400_000),
            host: &Domain::parse("mx.x.test").unwrap(),
        };
        let to = ["a@b.test", "c@d.test"].map(|to| Mailbox::parse(to).unwrap());
        let packed = vec![0xa5; 5_000];
        let written = write(&about, &to, &packed, Timestamp::from_millis(5_000), 7);
        let text = String::from_utf8(written.octets.clone()).unwrap();
        assert!(text.lines().all(|line| line.len() <= 998), "{text}");
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{text}");
        let message = MessageParser::default().parse(&written.octets).unwrap();
        let header = |name: &'static str| message.header_raw(name).unwrap().trim().to_owned();
        assert_eq!(header("TLS-Required"), "No");
        assert_eq!(header("TLS-Report-Domain"), about.domain.as_str());
        assert_eq!(header("TLS-Report-Submitter"), "mx.x.test");
        let subject = format!(
            "Report Domain: {} Submitter: mx.x.test Report-ID: <{}>",
            about.domain,
            about.id()
        );
        assert_eq!(message.subject(), Some(subject.as_str()));
        let kind = message.content_type().unwrap();
        assert_eq!(kind.attribute("report-type"), Some("tlsrpt"));
        let part = message.attachment(0).unwrap();
        assert_eq!(part.contents(), packed);
        assert_eq!(part.content_type().unwrap().subtype(), Some("tlsrpt+gzip"));
        assert_eq!(part.attachment_name(), Some(about.file_name().as_str()));
        let envelope = &written.envelope;
        assert!(envelope.is_tls_report());
        assert_eq!(envelope.recipients.len(), 2);
        assert!(envelope.recipients.iter().all(|to| to.notify == Some(Notify::NEVER)));
    }
}
