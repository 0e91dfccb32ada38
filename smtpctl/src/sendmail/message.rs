//! The message: how a program wrote it, and as it is handed in.
//!
//! In: the octets of standard input. Out: the same with the line ends of mail, recipients taken from
//! its header if they are wanted, and with what is missing there. Nothing is ever cut off.

use mailroot_common::message::address_list::{Named, every_named, locate_named};
use mailroot_common::message::header::{Field, HeaderEnd, fields, readable};

use super::envelope::Recipients;

/// Fields whose addresses get a domain where they have none.
const ADDRESS_FIELDS: [&str; 10] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Reply-To",
];
/// Where recipients are read from, unless the message is sent on.
const RECIPIENT_FIELDS: [&str; 3] = ["To", "Cc", "Bcc"];
/// Where they are read from if it is (RFC 5322 section 3.6.6).
const RESENT_FIELDS: [&str; 3] = ["Resent-To", "Resent-Cc", "Resent-Bcc"];
/// The longest line of an encoded word (RFC 2047 section 2).
const ENCODED_WORD_MAX: usize = 75;

/// The longest line of a body that is left as it is. The daemon takes 64 KiB where nobody set another limit.
const LINE_OCTETS_MAX: usize = 60_000;
/// How much of a longer one stands on a line: all that a line of mail may hold (RFC 5322 section 2.1.1), less a blank
/// and the octets of a character.
const PIECE_OCTETS: usize = 990;

/// A message with the line ends of mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

/// Who is named as the author if the message names nobody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Author<'a> {
    /// The address.
    pub(super) address: &'a str,
    /// The name in people's words; may be empty.
    pub(super) name: &'a str,
}

impl Message {
    /// Takes what a program wrote: a bare LF, a bare CR and a missing end of the last line become
    /// CRLF; a NUL, which mail cannot hold, becomes `?`; the line that mailbox files begin with goes.
    pub(super) fn read(input: &[u8]) -> Self {
        let input = match input.strip_prefix(b">").unwrap_or(input) {
            [b'F', b'r', b'o', b'm', b' ', ..] => {
                let end = input.iter().position(|&octet| octet == b'\n');
                end.and_then(|end| input.get(end + 1..)).unwrap_or_default()
            }
            _ => input,
        };
        let mut out = Vec::with_capacity(input.len() + input.len() / 32 + 2);
        let mut octets = input.iter().copied().peekable();
        while let Some(octet) = octets.next() {
            match octet {
                b'\r' => {
                    // CR CR LF is one end: a program in text mode wrote CRLF.
                    while octets.peek() == Some(&b'\r') {
                        octets.next();
                    }
                    octets.next_if_eq(&b'\n');
                    out.extend_from_slice(b"\r\n");
                }
                b'\n' => out.extend_from_slice(b"\r\n"),
                0 => out.push(b'?'),
                octet => out.push(octet),
            }
        }
        if !out.ends_with(b"\r\n") && !out.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
        Self(out)
    }

    /// The octets.
    pub(super) fn octets(&self) -> &[u8] {
        &self.0
    }

    /// The recipients that its header names.
    pub(super) fn recipients(&self) -> Recipients {
        let names = if self.is_resent() { RESENT_FIELDS } else { RECIPIENT_FIELDS };
        let mut all = Recipients::default();
        for field in fields(&self.0).filter(|field| is_one_of(field, &names)) {
            let (named, faults) = every_named(self.0.get(field.value.clone()).unwrap_or_default());
            all.named.extend(named.iter().map(ToString::to_string));
            for error in faults {
                let (line, name) = (field.line + error.lines_down, readable(field.name));
                all.refuse(format!("line {line}: {name}: {error}"));
            }
        }
        all
    }

    fn is_resent(&self) -> bool {
        fields(&self.0).any(|field| is_one_of(&field, &RESENT_FIELDS))
    }

    /// Takes the fields out that name blind copies, and the one that belongs to who delivers (RFC 5321 section 4.4).
    fn hide_copies(&mut self) {
        let hidden = ["Bcc", "Resent-Bcc", "Return-Path"];
        self.0 = mailroot_common::message::header::without(&self.0, &hidden).into_owned();
    }

    /// Makes it fit to be sent.
    pub(super) fn prepare(&mut self) {
        self.hide_copies();
        self.break_lines();
    }

    /// Breaks lines of the body that no mail server takes, so that a job whose output has one is heard of all the
    /// same. A line goes on behind a blank, as far as that splits no character.
    fn break_lines(&mut self) {
        let mut header = fields(&self.0);
        header.by_ref().for_each(drop);
        let (begin, is_end) = (header.position(), |octet: u8| octet == b'\n');
        let is_long = |line: &[u8]| line.len() > LINE_OCTETS_MAX;
        let body = self.0.get(begin..).unwrap_or_default();
        if !body.split_inclusive(|&octet| is_end(octet)).any(is_long) {
            return;
        }
        let mut out = self.0.get(..begin).unwrap_or_default().to_vec();
        for line in body.split_inclusive(|&octet| is_end(octet)) {
            let mut text = line.strip_suffix(b"\r\n").unwrap_or(line);
            let end = line.get(text.len()..).unwrap_or_default();
            while is_long(line) && text.len() > PIECE_OCTETS {
                let splits = |at: &usize| text.get(*at).is_some_and(|octet| octet & 0xC0 == 0x80);
                let mut at = PIECE_OCTETS;
                while at > PIECE_OCTETS - 4 && splits(&at) {
                    at -= 1;
                }
                let (piece, rest) = text.split_at(at);
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n ");
                text = rest;
            }
            out.extend_from_slice(text);
            out.extend_from_slice(end);
        }
        self.0 = out;
    }

    /// Adds the author if nobody is named, the domain where addresses have none, and the empty line
    /// behind a header that ends without one.
    pub(super) fn complete(&mut self, author: Author<'_>, domain: &str) {
        let mut out = Vec::with_capacity(self.0.len() + 256);
        if !fields(&self.0).any(|field| field.is("From")) {
            out.extend_from_slice(from_field(author).as_bytes());
        }
        let mut header = fields(&self.0);
        let mut copied = 0;
        for field in header.by_ref().filter(|field| is_one_of(field, &ADDRESS_FIELDS)) {
            let value = self.0.get(field.value.clone()).unwrap_or_default();
            // What cannot be read stays as it is: it is the reader's affair, not ours.
            for (named, place) in locate_named(value).unwrap_or_default() {
                let Named::Bare(local) = named else { continue };
                let begin = field.value.start + place.start;
                out.extend_from_slice(self.0.get(copied..begin).unwrap_or_default());
                out.extend_from_slice(format!("{local}@{domain}").as_bytes());
                copied = field.value.start + place.end;
            }
        }
        let (body, end) = (header.position(), header.end());
        out.extend_from_slice(self.0.get(copied..body).unwrap_or_default());
        if end != HeaderEnd::EmptyLine {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(self.0.get(body..).unwrap_or_default());
        self.0 = out;
    }
}

fn is_one_of(field: &Field<'_>, names: &[&str]) -> bool {
    names.iter().any(|name| field.is(name))
}

fn from_field(author: Author<'_>) -> String {
    let name: String = author.name.chars().filter(|c| !c.is_control()).collect();
    let name = name.trim();
    let address = author.address;
    let is_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~ ".contains(c);
    if name.is_empty() {
        format!("From: {address}\r\n")
    } else if !name.is_ascii() {
        format!("From: {} <{address}>\r\n", encoded(name))
    } else if name.chars().all(is_atom) && !name.contains("=?") {
        format!("From: {name} <{address}>\r\n")
    } else {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        format!("From: \"{quoted}\" <{address}>\r\n")
    }
}

/// Encoded words for a name beyond ASCII (RFC 2047, encoding Q).
fn encoded(name: &str) -> String {
    const FRONT: &str = "=?utf-8?q?";
    let mut words = vec![FRONT.to_owned()];
    for c in name.chars() {
        let mut octets = [0; 4];
        let text = match c {
            ' ' => "_".to_owned(),
            c if c.is_ascii_alphanumeric() => c.to_string(),
            c => c.encode_utf8(&mut octets).bytes().map(|octet| format!("={octet:02X}")).collect(),
        };
        let is_full = |word: &String| word.len() + text.len() + 2 > ENCODED_WORD_MAX;
        if words.last().is_none_or(is_full) {
            words.push(FRONT.to_owned());
        }
        if let Some(word) = words.last_mut() {
            word.push_str(&text);
        }
    }
    words.iter().map(|word| format!("{word}?=")).collect::<Vec<_>>().join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::read(text.as_bytes())
    }

    fn completed(text: &str, name: &str) -> String {
        let mut message = message(text);
        message.complete(Author { address: "anna@x.test", name }, "x.test");
        String::from_utf8(message.0).unwrap()
    }

    #[test]
    fn every_end_of_a_line_becomes_crlf_and_nothing_is_cut_off() {
        for (input, expected) in [
            ("a\nb\r\nc", "a\r\nb\r\nc\r\n"),
            ("50%\r60%\r100%\n", "50%\r\n60%\r\n100%\r\n"),
            ("a\r\r\nb\n", "a\r\nb\r\n"),
            ("a\n.\nb\n", "a\r\n.\r\nb\r\n"),
            ("a\0b\n", "a?b\r\n"),
            ("From anna Mon Nov 30\nTo: x\n\n", "To: x\r\n\r\n"),
            (">From anna Mon Nov 30\nTo: x\n\n", "To: x\r\n\r\n"),
            ("", ""),
        ] {
            assert_eq!(message(input).0, expected.as_bytes(), "{input:?}");
        }
    }

    #[test]
    fn recipients_are_read_from_the_header() {
        let header = "To: root, Ben <b@x.test>\nCc: c@x.test\nbcc: d@x.test,\n\te@x.test\nX: f@x.test\n\nTo: g@x.test\n";
        let found = message(header).recipients();
        assert_eq!(found.named.join(" "), "root b@x.test c@x.test d@x.test e@x.test");
        let resent = message(&format!("Resent-To: r@x.test\n{header}")).recipients();
        assert_eq!(resent.named, ["r@x.test"]);
        let some = message("Subject: x\nTo: a@x.test,\n two words,\n b@x.test\n\n").recipients();
        assert_eq!(some.named.join(" "), "a@x.test b@x.test");
        assert!(some.words().starts_with("line 3: To:") && !some.words().contains(';'), "{some:?}");
    }

    #[test]
    fn blind_copies_are_hidden() {
        let mut message = message(
            "Return-Path: <x@x.test>\nTo: a@x.test\nBcc: b@x.test,\n c@x.test\nResent-Bcc: d@x.test\n\nBcc: body\n",
        );
        message.hide_copies();
        assert_eq!(message.0, b"To: a@x.test\r\n\r\nBcc: body\r\n");
    }

    #[test]
    fn a_line_that_nobody_takes_is_broken_and_no_other() {
        let whole = |text: &str| {
            let mut message = message(text);
            message.break_lines();
            String::from_utf8(message.0).unwrap()
        };
        let short = format!("Subject: x\r\n\r\n{}\r\n", "a".repeat(50_000));
        assert_eq!(whole(&short), short);
        let text = format!("{}\u{20ac}{}", "a".repeat(988), "\u{20ac}b".repeat(30_000));
        let broken = whole(&format!("Subject: x\n\n{text}\nend\n"));
        assert!(broken.lines().all(|line| line.len() <= 998), "{}", broken.len());
        let body = broken.strip_prefix("Subject: x\r\n\r\n").unwrap();
        assert_eq!(body.replace("\r\n ", ""), format!("{text}\r\nend\r\n"));
        for octets in 60_100..61_100 {
            let text = "x".repeat(octets);
            let broken = whole(&format!("Subject: x\n\n{text}\nend\n"));
            let body = broken.strip_prefix("Subject: x\r\n\r\n").unwrap();
            assert_eq!(body.replace("\r\n ", ""), format!("{text}\r\nend\r\n"));
        }
    }

    #[test]
    fn what_is_missing_is_added_and_the_rest_stays() {
        for (input, name, expected) in [
            ("hello\n", "", "From: anna@x.test\r\n\r\nhello\r\n"),
            (
                "Subject: x\nhello\n",
                "Anna",
                "From: Anna <anna@x.test>\r\nSubject: x\r\n\r\nhello\r\n",
            ),
            (
                "Subject: x\n",
                "Dr. A \"B\"",
                "From: \"Dr. A \\\"B\\\"\" <anna@x.test>\r\nSubject: x\r\n\r\n",
            ),
            (
                "From: root (Cron Daemon)\nTo: a@b.test, Ops <ops>\nSubject: root\n\nTo: root\n",
                "",
                "From: root@x.test (Cron Daemon)\r\nTo: a@b.test, Ops <ops@x.test>\r\nSubject: root\r\n\r\nTo: root\r\n",
            ),
            ("From: two words\n\n", "", "From: two words\r\n\r\n"),
            ("", "", "From: anna@x.test\r\n\r\n"),
        ] {
            assert_eq!(completed(input, name), expected, "{input:?}");
        }
    }

    #[test]
    fn a_name_beyond_ascii_is_encoded_and_folded() {
        let text = completed("", "J\u{f6}rg M\u{fc}ller");
        assert!(
            text.starts_with("From: =?utf-8?q?J=C3=B6rg_M=C3=BCller?= <anna@x.test>\r\n"),
            "{text}"
        );
        let text = completed("", &"\u{fc}".repeat(40));
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        assert!(!completed("", "a\r\nBcc: x@y.test").contains("\r\nBcc"));
    }
}
