//! Reads a file of the Pickup directory: who sends it, who is to get it, and what goes on.
//!
//! In: the front of the file with its line ends already those of mail ([`super::line_ends`]). Out:
//! [`Parsed`], or a [`Fault`] that tells the operator the line and the reason.
//!
//! `X-Sender` and `X-Receiver` give the envelope, as in the original; else it comes from the
//! address fields. A run of them at the very top that names a receiver is complete, and fields of
//! those names further down are content: so a file of Drop goes through Pickup with the envelope it
//! had, whatever a stranger wrote into the message it holds. `Bcc` always goes; the original let it
//! through and betrayed the hidden recipients.

use std::collections::HashSet;
use std::ops::Range;

use crate::address::{Mailbox, ReversePath};

use super::address_list::{self, ListFault};
use super::header::{self, Field, HeaderEnd, HeaderFacts, readable};

/// What the operator decided about Pickup files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether `X-Sender` and `X-Receiver` are obeyed. They are taken out in any case.
    pub x_headers: bool,
    /// The largest header, in octets.
    pub header_octets_max: usize,
    /// How many recipients one file may name.
    pub recipients_max: usize,
    /// Who sends files that name no sender.
    pub default_sender: Option<Mailbox>,
}

/// A Pickup file, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Who sends it.
    pub sender: ReversePath,
    /// Who is to get it; nobody twice, never empty.
    pub recipients: Vec<Mailbox>,
    /// Whether the recipients stood in `X-Receiver` fields.
    pub has_x_receiver: bool,
    /// The header that goes on, with its empty line.
    pub header: Vec<u8>,
    /// Where the body begins in the octets given.
    pub body_start: usize,
    /// What stands in `header`.
    pub facts: HeaderFacts,
}

/// What is wrong with a Pickup file, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// A line of the header that is none.
    #[error("line {line} {text:?} is neither a header field nor the empty line before the body")]
    NotField {
        /// Which line, from 1.
        line: usize,
        /// Its first octets.
        text: String,
    },
    /// The header does not end within its limit.
    #[error("the header is larger than {limit} octets")]
    HeaderTooLarge {
        /// The limit.
        limit: usize,
    },
    /// No field names the sender.
    #[error("no sender: no X-Sender, From or Sender; set messages.default_sender to allow this")]
    NoSender,
    /// The sender is named twice.
    #[error("line {line} is a second X-Sender")]
    SecondSender {
        /// Which line, from 1.
        line: usize,
    },
    /// No field names a recipient, and none looks as if it should.
    #[error("no recipients: no To, Cc, Bcc or X-Receiver names anybody")]
    NoRecipients,
    /// No field names a recipient, but one is nearly spelled like one that would.
    #[error("line {line} {text:?} is not a recipient header; no To, Cc, Bcc or X-Receiver")]
    MisspeltRecipients {
        /// Which line, from 1.
        line: usize,
        /// Its first octets.
        text: String,
    },
    /// More recipients than allowed.
    #[error("more than {limit} recipients (messages.max_recipients)")]
    TooManyRecipients {
        /// The limit.
        limit: usize,
    },
    /// An address that is none.
    #[error("line {line}, {field}: {fault}")]
    BadAddress {
        /// Which line, from 1.
        line: usize,
        /// The field it stands in.
        field: String,
        /// What is wrong with it.
        fault: ListFault,
    },
}

impl Fault {
    /// The line at fault, from 1, if it is one.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::NotField { line, .. }
            | Self::SecondSender { line }
            | Self::MisspeltRecipients { line, .. }
            | Self::BadAddress { line, .. } => Some(*line),
            Self::Empty
            | Self::HeaderTooLarge { .. }
            | Self::NoSender
            | Self::NoRecipients
            | Self::TooManyRecipients { .. } => None,
        }
    }

    /// A few words for lists.
    #[must_use]
    pub fn brief(&self) -> &'static str {
        match self {
            Self::Empty => "empty file",
            Self::NotField { .. } => "not a header field",
            Self::HeaderTooLarge { .. } => "header too large",
            Self::NoSender => "no sender",
            Self::SecondSender { .. } => "second X-Sender",
            Self::NoRecipients | Self::MisspeltRecipients { .. } => "no recipients",
            Self::TooManyRecipients { .. } => "too many recipients",
            Self::BadAddress { .. } => "bad address",
        }
    }
}

/// Reads the front of a file. `is_whole` says that nothing follows `octets`.
///
/// Returns `None` if the header has not ended yet and more must be read.
///
/// # Errors
///
/// [`Fault`]: the file is for Badmail.
pub fn parse(octets: &[u8], is_whole: bool, settings: &Settings) -> Result<Option<Parsed>, Fault> {
    // Windows editors begin files with a byte order mark, which is no part of the first name.
    let mark = if octets.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let octets = &octets[mark..];
    let mut fields = header::fields(&octets[..octets.len().min(settings.header_octets_max)]);
    let found: Vec<Field<'_>> = fields.by_ref().collect();
    match fields.end() {
        HeaderEnd::Open if octets.len() > settings.header_octets_max => {
            return Err(Fault::HeaderTooLarge { limit: settings.header_octets_max });
        }
        HeaderEnd::Open if !is_whole => return Ok(None),
        HeaderEnd::Open if octets.is_empty() => return Err(Fault::Empty),
        HeaderEnd::NotField => {
            let line = octets[fields.position()..].split(|&o| o == b'\n').next();
            let text = readable(line.unwrap_or_default());
            return Err(Fault::NotField { line: fields.line(), text });
        }
        HeaderEnd::Open | HeaderEnd::EmptyLine => {}
    }
    let header_end = fields.position();
    let head = Head { octets, x_run: x_run(&found, settings), fields: &found, settings };
    let sender = head.sender()?;
    let (recipients, has_x_receiver) = head.recipients()?;
    let mut kept = head.kept(header_end);
    if fields.end() == HeaderEnd::Open {
        kept.extend_from_slice(b"\r\n");
    }
    let facts = header::scan(&kept, kept.len());
    let body_start = mark + header_end;
    Ok(Some(Parsed { sender, recipients, has_x_receiver, header: kept, body_start, facts }))
}

/// The fields at the very top that make a complete envelope of their own: `X-Sender` and
/// `X-Receiver` only, a receiver among them. Empty if there is no such run.
fn x_run(fields: &[Field<'_>], settings: &Settings) -> Range<usize> {
    let length = fields.iter().take_while(|field| is_x(field)).count();
    let is_complete = fields[..length].iter().any(|field| field.is("X-Receiver"));
    if settings.x_headers && is_complete { 0..length } else { 0..0 }
}

fn is_x(field: &Field<'_>) -> bool {
    field.is("X-Sender") || field.is("X-Receiver")
}

struct Head<'a> {
    octets: &'a [u8],
    fields: &'a [Field<'a>],
    x_run: Range<usize>,
    settings: &'a Settings,
}

impl<'a> Head<'a> {
    /// The fields that command: the run at the top if there is one, else those in all the header.
    fn x_fields(&self, name: &'static str) -> impl Iterator<Item = &'a Field<'a>> {
        let among = match (self.settings.x_headers, self.x_run.is_empty()) {
            (false, _) => &self.fields[..0],
            (true, false) => &self.fields[self.x_run.clone()],
            (true, true) => self.fields,
        };
        among.iter().filter(move |field| field.is(name))
    }

    fn value(&self, field: &Field<'_>) -> &'a [u8] {
        &self.octets[field.value.clone()]
    }

    fn sender(&self) -> Result<ReversePath, Fault> {
        let mut x_senders = self.x_fields("X-Sender");
        if let Some(field) = x_senders.next() {
            if let Some(second) = x_senders.next() {
                return Err(Fault::SecondSender { line: second.line });
            }
            return address_list::parse_path(self.value(field))
                .map_err(|error| bad_address(field, error));
        }
        // Whoever sends again stands before who sent first; Sender is the one who really sent.
        for name in ["Resent-Sender", "Resent-From", "Sender", "From"] {
            let Some(field) = self.fields.iter().find(|field| field.is(name)) else { continue };
            let found = address_list::parse(self.value(field))
                .map_err(|error| bad_address(field, error))?;
            if let Some(mailbox) = found.into_iter().next() {
                return Ok(ReversePath::Mailbox(mailbox));
            }
        }
        self.settings.default_sender.clone().map(ReversePath::Mailbox).ok_or(Fault::NoSender)
    }

    fn recipients(&self) -> Result<(Vec<Mailbox>, bool), Fault> {
        let mut found = Recipients::new(self.settings.recipients_max);
        for field in self.x_fields("X-Receiver") {
            found.add(self, field)?;
        }
        let has_x_receiver = !found.list.is_empty();
        for names in [["Resent-To", "Resent-Cc", "Resent-Bcc"], ["To", "Cc", "Bcc"]] {
            if !found.list.is_empty() {
                break;
            }
            for field in self.fields.iter().filter(|field| names.iter().any(|n| field.is(n))) {
                found.add(self, field)?;
            }
        }
        if found.list.is_empty() {
            Err(self.no_recipients())
        } else {
            Ok((found.list, has_x_receiver))
        }
    }

    fn no_recipients(&self) -> Fault {
        let misspelt = self.fields.iter().find(|field| {
            ["to", "cc", "bcc", "x-receiver"].iter().any(|name| is_nearly(field.name, name))
        });
        match misspelt {
            Some(field) => Fault::MisspeltRecipients {
                line: field.line,
                text: readable(&self.octets[field.whole.clone()]),
            },
            None => Fault::NoRecipients,
        }
    }

    /// The header as it goes on.
    fn kept(&self, header_end: usize) -> Vec<u8> {
        let run_end = self.fields[self.x_run.clone()].last().map_or(0, |field| field.whole.end);
        let all_x = self.x_run.is_empty();
        let always = ["Bcc", "Resent-Bcc", "Return-Path"];
        let kept = header::without_where(&self.octets[..header_end], |field| {
            field.whole.end <= run_end
                || (all_x && is_x(field))
                || always.iter().any(|name| field.is(name))
        });
        kept.into_owned()
    }
}

fn bad_address(field: &Field<'_>, error: address_list::ListError) -> Fault {
    Fault::BadAddress {
        line: field.line + error.lines_down,
        field: readable(field.name),
        fault: error.fault,
    }
}

/// Recipients in order, nobody twice.
struct Recipients {
    list: Vec<Mailbox>,
    known: HashSet<Mailbox>,
    limit: usize,
}

impl Recipients {
    fn new(limit: usize) -> Self {
        Self { list: Vec::new(), known: HashSet::new(), limit }
    }

    fn add(&mut self, head: &Head<'_>, field: &Field<'_>) -> Result<(), Fault> {
        let found =
            address_list::parse(head.value(field)).map_err(|error| bad_address(field, error))?;
        for mailbox in found {
            if self.known.insert(mailbox.clone()) {
                if self.list.len() == self.limit {
                    return Err(Fault::TooManyRecipients { limit: self.limit });
                }
                self.list.push(mailbox);
            }
        }
        Ok(())
    }
}

/// Whether a field's name is one letter off: one too many, one missing, one wrong or two swapped.
fn is_nearly(name: &[u8], wanted: &str) -> bool {
    let (name, wanted) = (name.to_ascii_lowercase(), wanted.as_bytes());
    if name == wanted || name.len().abs_diff(wanted.len()) > 1 {
        return false;
    }
    let front = name.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    let (a, b) = (&name[front..], &wanted[front..]);
    let drop_one = |text: &'_ [u8]| text.get(1..).unwrap_or_default().to_vec();
    let is_swapped =
        a.len() >= 2 && b.len() >= 2 && (a[0], a[1]) == (b[1], b[0]) && a[2..] == b[2..];
    // For two letters everything is one letter off something; ask for a common beginning.
    front > 0 && (drop_one(a) == b || drop_one(b) == a || drop_one(a) == drop_one(b) || is_swapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            x_headers: true,
            header_octets_max: 1 << 16,
            recipients_max: 10,
            default_sender: None,
        }
    }

    fn read(file: &str) -> Result<Parsed, Fault> {
        parse(file.as_bytes(), true, &settings()).map(|parsed| parsed.unwrap())
    }

    fn envelope(file: &str) -> (String, Vec<String>) {
        let parsed = read(file).unwrap();
        (parsed.sender.to_string(), parsed.recipients.iter().map(ToString::to_string).collect())
    }

    fn owned(sender: &str, recipients: &[&str]) -> (String, Vec<String>) {
        (sender.to_owned(), recipients.iter().map(|&r| r.to_owned()).collect())
    }

    #[test]
    fn x_fields_give_the_envelope_and_go() {
        let file = "x-sender: <a@b.example>\r\nX-RECEIVER: c@d.example\r\nX-Receiver: e@f.example\r\n\
            From: Other <o@p.example>\r\nTo: q@r.example\r\n\r\nbody\r\n";
        assert_eq!(envelope(file), owned("a@b.example", &["c@d.example", "e@f.example"]));
        let parsed = read(file).unwrap();
        assert_eq!(parsed.header, b"From: Other <o@p.example>\r\nTo: q@r.example\r\n\r\n");
        assert_eq!(&file[parsed.body_start..], "body\r\n");
        assert!(parsed.has_x_receiver && !parsed.facts.has_date && parsed.facts.has_from);
    }

    #[test]
    fn x_fields_may_stand_anywhere_if_none_lead() {
        let file = "X-Sender: a@b\r\nSubject: x\r\nX-Receiver: c@d\r\n\r\n";
        assert_eq!(envelope(file), owned("a@b", &["c@d"]));
        assert_eq!(read(file).unwrap().header, b"Subject: x\r\n\r\n");
        let null = "X-Sender: <>\r\nX-Receiver: c@d\r\n\r\n";
        assert_eq!(envelope(null), owned("", &["c@d"]));
    }

    #[test]
    fn x_fields_below_a_complete_run_are_content() {
        let file = "X-Sender: a@b\r\nX-Receiver: c@d\r\nReturn-Path: <a@b>\r\nX-Sender: evil@x\r\n\
            X-Receiver: victim@y\r\nFrom: a@b\r\n\r\n";
        assert_eq!(envelope(file), owned("a@b", &["c@d"]));
        let kept = "X-Sender: evil@x\r\nX-Receiver: victim@y\r\nFrom: a@b\r\n\r\n";
        assert_eq!(read(file).unwrap().header, kept.as_bytes());
    }

    #[test]
    fn x_fields_are_taken_out_even_where_they_are_switched_off() {
        let file = "X-Sender: a@b\r\nX-Receiver: c@d\r\nFrom: e@f\r\nTo: g@h\r\n\r\n";
        let off = Settings { x_headers: false, ..settings() };
        let parsed = parse(file.as_bytes(), true, &off).unwrap().unwrap();
        assert_eq!(parsed.recipients[0].to_string(), "g@h");
        assert_eq!(parsed.header, b"From: e@f\r\nTo: g@h\r\n\r\n");
    }

    #[test]
    fn address_fields_give_the_envelope_and_bcc_goes() {
        let file = "From: Ada <a@b.example>, o@p.example\r\nSender: s@b.example\r\nTo: t@d.example,\r\n\
            \tT2 <t2@d.example>\r\nCc: t@d.example\r\nBcc: h@d.example\r\n\r\nbody\r\n";
        assert_eq!(
            envelope(file),
            owned("s@b.example", &["t@d.example", "t2@d.example", "h@d.example"])
        );
        let header = String::from_utf8(read(file).unwrap().header).unwrap();
        assert!(!header.contains("h@d.example") && header.ends_with("Cc: t@d.example\r\n\r\n"));
    }

    #[test]
    fn resent_fields_come_before_the_first_sending() {
        let file =
            "Resent-From: r@x\r\nResent-To: n@y\r\nResent-Bcc: h@y\r\nFrom: a@b\r\nTo: c@d\r\n\r\n";
        assert_eq!(envelope(file), owned("r@x", &["n@y", "h@y"]));
        assert!(!read(file).unwrap().header.windows(6).any(|w| w == b"h@y\r\nF"));
    }

    #[test]
    fn default_sender_stands_in() {
        let sender = Mailbox::parse("default@x").ok();
        let with = Settings { default_sender: sender, ..settings() };
        let parsed = parse(b"To: a@b\r\n\r\n", true, &with).unwrap().unwrap();
        assert_eq!(parsed.sender.to_string(), "default@x");
    }

    #[test]
    fn header_without_empty_line_gets_one() {
        let parsed = read("From: a@b\r\nTo: c@d\r\n").unwrap();
        assert_eq!(parsed.header, b"From: a@b\r\nTo: c@d\r\n\r\n");
        assert_eq!(parsed.body_start, 20);
    }

    #[test]
    fn byte_order_mark_is_no_part_of_the_header() {
        let file = "\u{feff}From: a@b\r\nTo: c@d\r\n\r\nbody\r\n";
        let parsed = read(file).unwrap();
        assert!(parsed.header.starts_with(b"From"));
        assert_eq!(&file[parsed.body_start..], "body\r\n");
    }

    #[test]
    fn more_is_asked_for_until_the_header_ends() {
        let settings = settings();
        assert_eq!(parse(b"From: a@b\r\nTo: c@", false, &settings), Ok(None));
        assert_eq!(parse(b"", false, &settings), Ok(None));
        let small = Settings { header_octets_max: 12, ..settings };
        let fault = parse(b"From: a@b\r\nTo: c@", false, &small).unwrap_err();
        assert_eq!(fault, Fault::HeaderTooLarge { limit: 12 });
    }

    #[test]
    fn faults_name_line_and_reason() {
        for (file, line, text) in [
            ("", None, "the file is empty"),
            ("Subject: x\r\n\r\n", None, "no sender: no X-Sender"),
            ("From: a@b\r\n\r\n", None, "no recipients: no To"),
            ("From: a@b\r\nTo: everybody:;\r\n\r\n", None, "no recipients"),
            (
                "From: a@b\r\nDate: x\r\nToo: ops@example.net\r\n\r\n",
                Some(3),
                "line 3 \"Too: ops@example.net\" is not a recipient header; no To, Cc, Bcc or X-Receiver",
            ),
            ("From: a@b\r\nHello Bob\r\n\r\n", Some(2), "line 2 \"Hello Bob\" is neither"),
            (
                "From: a@b\r\nTo: c@d,\r\n bob\r\n\r\n",
                Some(3),
                "line 3, To: \"bob\" is not an address",
            ),
            ("X-Sender: a@b\r\nX-Sender: a@b\r\n\r\n", Some(2), "line 2 is a second X-Sender"),
            ("X-Sender: a@b@c\r\nTo: a@b\r\n\r\n", Some(1), "line 1, X-Sender: "),
            ("\r\nbody\r\n", None, "no sender"),
        ] {
            let fault = read(file).unwrap_err();
            assert!(fault.to_string().contains(text), "{file:?}: {fault}");
            assert_eq!(fault.line(), line, "{file:?}");
            assert!(!fault.brief().is_empty());
        }
    }

    #[test]
    fn recipients_are_bounded() {
        let list: Vec<_> = (0..11).map(|n| format!("r{n}@x")).collect();
        let file = format!("From: a@b\r\nTo: {}\r\n\r\n", list.join(", "));
        assert_eq!(read(&file), Err(Fault::TooManyRecipients { limit: 10 }));
        let same = format!("From: a@b\r\nTo: {}\r\n\r\n", ["r@x"; 50].join(", "));
        assert_eq!(read(&same).unwrap().recipients.len(), 1);
    }

    #[test]
    fn misspelt_names_are_one_letter_off() {
        for near in ["too", "tp", "bc", "bcx", "ccc", "x-reciever", "x-receivr", "X-Receivers"] {
            let wanted = ["to", "cc", "bcc", "x-receiver"];
            assert!(wanted.iter().any(|w| is_nearly(near.as_bytes(), w)), "{near}");
        }
        for far in ["to", "subject", "date", "x", "from"] {
            assert!(!is_nearly(far.as_bytes(), "to"), "{far}");
        }
    }
}
