//! Writes what Mailroot puts in front of a message: its trace field, and `Date` and `Message-ID`
//! where they are missing.
//!
//! In: what is known of the session. Out: whole header lines at the end of a buffer, no copies in
//! between, since this runs for every message. All text that a peer chose is reduced to characters
//! that cannot end a comment, a field or a line, and bounded.

use std::net::IpAddr;

use mailroot_common::address::Mailbox;
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;

use crate::queue::wishes::Priority;

/// More than everything [`Trace::write`] and [`write_missing`] can write for one message.
pub const PREFIX_OCTETS_MAX: usize = 2048;
/// RFC 5322 section 2.1.1: what a line should not pass.
const LINE_OCTETS: usize = 78;
/// RFC 5321 section 4.5.3.1.2, for names that peers choose.
const NAME_OCTETS_MAX: usize = 255;

/// How a message came in.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// Over SMTP.
    Smtp {
        /// What the client called itself.
        helo: &'a str,
        /// The name DNS gives its address, if it was looked up and found.
        name: Option<&'a str>,
        /// Its address.
        client: IpAddr,
        /// The check of its name was asked for and failed (the original's mark; nobody is refused
        /// for it).
        unverified: bool,
        /// What was spoken.
        protocol: Protocol,
        /// The protection it was spoken under.
        tls: Option<Tls>,
    },
    /// As a file in the Pickup directory.
    Pickup,
    /// Through the submit socket.
    Submit {
        /// The name or number of the user, if everybody is to know.
        user: Option<&'a str>,
    },
    /// Back from Badmail.
    Requeue,
}

/// What a session is protected by, in registered words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The version, such as `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, such as `TLS_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
}

/// The words of the "with" clause (RFC 3848, RFC 6531 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The client said HELO.
    Smtp,
    /// The client said EHLO.
    Esmtp {
        /// Over TLS.
        tls: bool,
        /// After AUTH.
        authenticated: bool,
        /// With SMTPUTF8 in MAIL.
        utf8: bool,
    },
}

impl Protocol {
    /// EHLO and nothing else.
    pub const ESMTP: Self = Self::Esmtp { tls: false, authenticated: false, utf8: false };

    /// The registered keyword.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Smtp => "SMTP",
            Self::Esmtp { tls, authenticated, utf8 } => match (utf8, tls, authenticated) {
                (false, false, false) => "ESMTP",
                (false, false, true) => "ESMTPA",
                (false, true, false) => "ESMTPS",
                (false, true, true) => "ESMTPSA",
                (true, false, false) => "UTF8SMTP",
                (true, false, true) => "UTF8SMTPA",
                (true, true, false) => "UTF8SMTPS",
                (true, true, true) => "UTF8SMTPSA",
            },
        }
    }

    const fn is_utf8(self) -> bool {
        matches!(self, Self::Esmtp { utf8: true, .. })
    }
}

/// What our trace field says.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// How the message came.
    pub entry: Entry<'a>,
    /// Our name (`server.fqdn`).
    pub by: &'a str,
    /// The message's id, if it is known already.
    pub id: Option<QueueId>,
    /// The recipient, if there is exactly one: naming one of several would betray the others.
    pub only_recipient: Option<&'a Mailbox>,
    /// Its priority; not named where it is the usual one.
    pub priority: Priority,
    /// When it came.
    pub at: Timestamp,
}

impl Trace<'_> {
    /// Writes the `Received` field with its line end (RFC 5321 section 4.4), folded at 78 octets
    /// where its words allow.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut line = Folded::begin(out, b"Received:");
        let (mut may_be_utf8, mut secured) = (false, None);
        match self.entry {
            Entry::Smtp { helo, name, client, unverified, protocol, tls } => {
                line.clause(b"from", |out| push_name(out, helo));
                line.open_word(|out| {
                    out.push(b'(');
                    if let Some(name) = name {
                        push_name(out, name);
                        out.push(b' ');
                    }
                    push_address(out, client);
                    if unverified {
                        out.extend_from_slice(b" unverified");
                    }
                    out.push(b')');
                });
                self.write_by(&mut line, b"(Mailroot)");
                line.clause(b"with", |out| out.extend_from_slice(protocol.as_str().as_bytes()));
                may_be_utf8 = protocol.is_utf8();
                secured = tls;
            }
            Entry::Pickup => self.write_by(&mut line, b"(Mailroot Pickup)"),
            Entry::Requeue => self.write_by(&mut line, b"(Mailroot Badmail)"),
            Entry::Submit { user: None } => self.write_by(&mut line, b"(Mailroot)"),
            Entry::Submit { user: Some(user) } => {
                self.write_by(&mut line, b"(Mailroot,");
                line.clause(b"from user", |out| {
                    push_name(out, user);
                    out.push(b')');
                });
            }
        }
        if let Some(id) = self.id {
            line.clause(b"id", |out| push_text(out, id));
        }
        if let Some(mailbox) = self.only_recipient
            && (mailbox.is_ascii() || may_be_utf8)
        {
            line.clause(b"for", |out| {
                out.push(b'<');
                push_text(out, mailbox);
                out.push(b'>');
            });
        }
        if let Some(Tls { version, cipher }) = secured {
            // RFC 8314 section 4.3 registers the clause; the version is not in it.
            line.clause(b"tls", |out| push_text(out, format_args!("{cipher} ({version})")));
        }
        if self.priority != Priority::NORMAL {
            // RFC 6710 registers the clause.
            line.clause(b"PRIORITY", |out| push_text(out, self.priority));
        }
        line.out.push(b';');
        line.open_word(|out| push_date(out, self.at));
        line.out.extend_from_slice(b"\r\n");
    }

    fn write_by(&self, line: &mut Folded<'_>, product: &[u8]) {
        line.clause(b"by", |out| push_name(out, self.by));
        line.word(product);
    }
}

/// Writes the fields RFC 5322 section 3.6 wants and the message lacks: `Date` if `date`, and
/// `Message-ID: <id@by>` if `message_id`.
pub fn write_missing(
    out: &mut Vec<u8>,
    date: Option<Timestamp>,
    message_id: Option<QueueId>,
    by: &str,
) {
    if let Some(at) = date {
        out.extend_from_slice(b"Date: ");
        push_date(out, at);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(id) = message_id {
        out.extend_from_slice(b"Message-ID: ");
        push_message_id(out, id, by);
        out.extend_from_slice(b"\r\n");
    }
}

/// The Message-ID that a message without one gets here.
#[must_use]
pub fn message_id(id: QueueId, by: &str) -> String {
    let mut out = Vec::with_capacity(by.len() + 15);
    push_message_id(&mut out, id, by);
    String::from_utf8_lossy(&out).into_owned()
}

fn push_message_id(out: &mut Vec<u8>, id: QueueId, by: &str) {
    out.push(b'<');
    push_text(out, id);
    out.push(b'@');
    push_name(out, by);
    out.push(b'>');
}

/// A header field being written word by word; a word that would pass the line's end begins a new
/// line.
struct Folded<'a> {
    out: &'a mut Vec<u8>,
    line_start: usize,
}

impl<'a> Folded<'a> {
    fn begin(out: &'a mut Vec<u8>, name: &[u8]) -> Self {
        let line_start = out.len();
        out.extend_from_slice(name);
        Self { out, line_start }
    }

    fn word(&mut self, word: &[u8]) {
        self.open_word(|out| out.extend_from_slice(word));
    }

    /// Adds a keyword and what belongs to it on one line.
    fn clause(&mut self, keyword: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.open_word(|out| {
            out.extend_from_slice(keyword);
            out.push(b' ');
            write(out);
        });
    }

    /// Adds what `write` appends as one word; blanks in it are never folded.
    fn open_word(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        self.out.push(b' ');
        write(self.out);
        // One octet is kept for a ";" after the word.
        if self.out.len() - self.line_start >= LINE_OCTETS {
            self.out[start] = b'\t';
            self.out.splice(start..start, *b"\r\n");
            self.line_start = start + 2;
        }
    }
}

/// A name a peer or the operator chose: letters, digits and what names and literals are made of.
fn push_name(out: &mut Vec<u8>, name: &str) {
    if name.is_empty() {
        out.extend_from_slice(b"unknown");
        return;
    }
    let harmless = |o: u8| o.is_ascii_alphanumeric() || b".-_[]:+@".contains(&o);
    let octets = name.bytes().take(NAME_OCTETS_MAX);
    out.extend(octets.map(|o| if harmless(o) { o } else { b'?' }));
}

fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => push_text(out, format_args!("[{address}]")),
        IpAddr::V6(address) => push_text(out, format_args!("[IPv6:{address}]")),
    }
}

fn push_text(out: &mut Vec<u8>, text: impl std::fmt::Display) {
    use std::io::Write;
    let done = write!(out, "{text}");
    debug_assert!(done.is_ok(), "writing into a Vec cannot fail");
}

const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Writes a date as RFC 5322 section 3.3 has it, in UTC; the same text as
/// [`Timestamp::to_rfc5322`], without its allocations.
pub fn push_date(out: &mut Vec<u8>, at: Timestamp) {
    // The last moment of the year 9999: a clock beyond it has no date form.
    let seconds = (at.as_millis() / 1000).min(253_402_300_799);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    out.extend_from_slice(DAYS[usize::try_from(days % 7).unwrap_or(0)]);
    out.extend_from_slice(b", ");
    push_digits(out, day, 2);
    out.push(b' ');
    out.extend_from_slice(MONTHS[usize::try_from(month - 1).unwrap_or(0)]);
    out.push(b' ');
    push_digits(out, year, 4);
    out.push(b' ');
    push_digits(out, second / 3600, 2);
    out.push(b':');
    push_digits(out, second / 60 % 60, 2);
    out.push(b':');
    push_digits(out, second % 60, 2);
    out.extend_from_slice(b" +0000");
}

fn push_digits(out: &mut Vec<u8>, number: u64, digits: u32) {
    for place in (0..digits).rev() {
        out.push(b'0' + (number / 10_u64.pow(place) % 10).to_le_bytes()[0]);
    }
}

/// Year, month (1 to 12) and day of the month of a day counted from 1970-01-01 in the Gregorian
/// calendar: years are counted from March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::header;

    fn written(trace: &Trace<'_>) -> String {
        let mut out = Vec::new();
        trace.write(&mut out);
        assert!(out.len() <= PREFIX_OCTETS_MAX);
        String::from_utf8(out).unwrap()
    }

    fn smtp<'a>(helo: &'a str, name: Option<&'a str>) -> Trace<'a> {
        Trace {
            entry: Entry::Smtp {
                helo,
                name,
                client: IpAddr::from([192, 0, 2, 1]),
                unverified: false,
                protocol: Protocol::ESMTP,
                tls: None,
            },
            by: "mail.example.net",
            id: Some(QueueId::at_millis(1_763_648_550_000)),
            only_recipient: None,
            priority: Priority::NORMAL,
            at: Timestamp::from_millis(1_763_648_550_123),
        }
    }

    #[test]
    fn trace_field_names_client_server_and_recipient() {
        let mailbox = Mailbox::parse("bob@partner.example").unwrap();
        let mut trace = smtp("app1", Some("app1.example.net"));
        trace.only_recipient = Some(&mailbox);
        let id = trace.id.unwrap();
        assert_eq!(
            written(&trace),
            format!(
                "Received: from app1 (app1.example.net [192.0.2.1]) by mail.example.net\r\n\
                 \t(Mailroot) with ESMTP id {id} for <bob@partner.example>;\r\n\
                 \tThu, 20 Nov 2025 14:22:30 +0000\r\n"
            )
        );
    }

    #[test]
    fn failed_name_check_marks_the_address() {
        let mut trace = smtp("x", None);
        let Entry::Smtp { unverified, client, .. } = &mut trace.entry else { unreachable!() };
        *unverified = true;
        *client = "2001:db8::1".parse().unwrap();
        assert!(written(&trace).contains("from x ([IPv6:2001:db8::1] unverified) by "));
    }

    #[test]
    fn priority_is_named_where_it_is_not_the_usual_one() {
        for (number, clause) in [(-4, " PRIORITY -4;"), (9, " PRIORITY 9;"), (0, "")] {
            let priority = Priority::try_from(number).unwrap();
            let text = written(&Trace { priority, ..smtp("x", None) }).replace("\r\n\t", " ");
            assert_eq!(text.contains("PRIORITY"), number != 0, "{text}");
            assert!(text.contains(clause), "{text}");
        }
    }

    #[test]
    fn other_doors_are_named() {
        let trace = |entry| Trace { entry, ..smtp("", None) };
        assert!(
            written(&trace(Entry::Pickup))
                .starts_with("Received: by mail.example.net (Mailroot Pickup) id ")
        );
        let submit = written(&trace(Entry::Submit { user: Some("erp) (evil") }));
        assert!(submit.contains("(Mailroot, from user erp???evil)\r\n\tid "), "{submit}");
    }

    #[test]
    fn recipient_beyond_ascii_is_named_only_after_smtputf8() {
        let mailbox = Mailbox::parse("grüße@b.example").unwrap();
        let mut trace = smtp("x", None);
        trace.only_recipient = Some(&mailbox);
        assert!(written(&trace).is_ascii());
        let Entry::Smtp { protocol, .. } = &mut trace.entry else { unreachable!() };
        *protocol = Protocol::Esmtp { tls: false, authenticated: false, utf8: true };
        assert!(written(&trace).contains("with UTF8SMTP\r\n\tid") && !written(&trace).is_ascii());
    }

    #[test]
    fn missing_fields_are_written_as_wanted() {
        let (at, id) = (Timestamp::from_millis(0), QueueId::from_u64(1));
        let mut out = Vec::new();
        write_missing(&mut out, Some(at), Some(id), "mail.example.net");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n\
             Message-ID: <000000000001@mail.example.net>\r\n"
        );
        let mut out = Vec::new();
        write_missing(&mut out, None, None, "x");
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn no_text_of_a_peer_breaks_the_field(helo in any::<String>(), name: Option<String>) {
            let text = written(&smtp(&helo, name.as_deref()));
            let message = format!("{text}\r\n");
            let found: Vec<_> = header::fields(message.as_bytes()).collect();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(found[0].whole.clone(), 0..text.len());
            prop_assert_eq!(text.matches('(').count(), 2);
            prop_assert_eq!(text.matches(')').count(), 2);
            prop_assert!(text.bytes().all(|o| o.is_ascii_graphic() || b" \t\r\n".contains(&o)));
        }

        #[test]
        fn lines_stay_short_where_words_allow(helo in "[a-z.]{1,60}", name in "[a-z.]{1,40}") {
            for line in written(&smtp(&helo, Some(&name))).lines() {
                prop_assert!(line.len() <= LINE_OCTETS, "{}", line);
            }
        }

        #[test]
        fn dates_equal_the_calendar_of_the_library(millis in 0_u64..253_402_300_799_999) {
            let at = Timestamp::from_millis(millis);
            let mut out = Vec::new();
            push_date(&mut out, at);
            prop_assert_eq!(String::from_utf8(out).unwrap(), at.to_rfc5322());
        }
    }
}
