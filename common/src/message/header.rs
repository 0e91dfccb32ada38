//! Finds the header of a message and what Mailroot wants to know of it.
//!
//! In: the octets a message begins with. Out: [`HeaderFacts`], the fields one by one, and the
//! header without some of its fields. Nothing here changes a message; what is taken out is taken
//! out whole, and every other octet stays as it came.
//!
//! Two things shape this file. Strangers choose the octets: each is looked at once, nothing is
//! copied but two short texts, and no shape of header costs more than its length (header bombs).
//! And a relay must not damage what it does not understand: a message may have no header at all,
//! or one that ends in the middle of nowhere; then the header is what looked like one.

use std::borrow::Cow;
use std::ops::Range;

/// What stands in the header of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderFacts {
    /// Where the body begins: octets of the header and of the empty line after it.
    pub header_octets: usize,
    /// Lines of the header, the empty one included.
    pub lines: usize,
    /// How the header ended, or that its end was not among the octets given.
    pub end: HeaderEnd,
    /// `Received` fields.
    pub hops: u32,
    /// Whether there is a `Date` field.
    pub has_date: bool,
    /// Whether there is a `Message-ID` field.
    pub has_message_id: bool,
    /// Whether there is a `From` field.
    pub has_from: bool,
    /// Whether there is a `TLS-Required` field.
    pub has_tls_required: bool,
    /// Whether it is the only one, and says `No` (RFC 8689 section 3).
    pub tls_optional: bool,
    /// Whether an octet of the header is beyond ASCII (RFC 6532).
    pub is_eight_bit: bool,
    /// The first `Message-ID`, for people; at most [`TEXT_OCTETS_MAX`] octets.
    pub message_id: Option<String>,
    /// The first `Subject` as it stands, unfolded, for people; at most [`TEXT_OCTETS_MAX`] octets.
    pub subject: Option<String>,
}

/// How a header ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderEnd {
    /// The octets ended first; more may follow.
    #[default]
    Open,
    /// With an empty line, which counts as part of the header.
    EmptyLine,
    /// With a line that is no field, which counts as part of the body.
    NotField,
}

impl HeaderFacts {
    /// Whether fields put in front of the message need an empty line after them: the message has
    /// no header, and its first line would else be read as a broken field of ours.
    #[must_use]
    pub fn needs_empty_line(&self) -> bool {
        self.header_octets == 0 && self.end == HeaderEnd::NotField
    }
}

/// How much of a `Subject` or `Message-ID` is kept for people.
pub const TEXT_OCTETS_MAX: usize = 250;

/// Looks at the header in the first `limit` octets of `message`.
///
/// A header that has not ended by then is [`HeaderEnd::Open`]; whether that means "too large" or
/// "not yet here" is the caller's knowledge. Lines end at LF; a CR before it belongs to the end.
#[must_use]
pub fn scan(message: &[u8], limit: usize) -> HeaderFacts {
    let octets = &message[..message.len().min(limit)];
    let mut facts = HeaderFacts::default();
    let mut fields = Fields::new(octets);
    for field in &mut fields {
        facts.note(&field, octets);
    }
    facts.header_octets = fields.position;
    facts.lines = fields.line - 1;
    facts.end = fields.end;
    facts.is_eight_bit = !octets[..facts.header_octets].is_ascii();
    facts
}

impl HeaderFacts {
    fn note(&mut self, field: &Field<'_>, octets: &[u8]) {
        let value = &octets[field.value.clone()];
        // The length sorts out nearly every field at once.
        match field.name.len() {
            8 if field.is("Received") => self.hops = self.hops.saturating_add(1),
            4 if field.is("Date") => self.has_date = true,
            4 if field.is("From") => self.has_from = true,
            7 if field.is("Subject") && self.subject.is_none() => {
                self.subject = Some(readable(value));
            }
            12 if field.is("TLS-Required") => {
                let is_no = value.trim_ascii().eq_ignore_ascii_case(b"no");
                self.tls_optional = is_no && !self.has_tls_required;
                self.has_tls_required = true;
            }
            10 if field.is("Message-ID") => {
                self.has_message_id = true;
                self.message_id.get_or_insert_with(|| readable(value));
            }
            _ => {}
        }
    }
}

/// A value for people: unfolded, without blanks at its ends, cut at [`TEXT_OCTETS_MAX`] octets;
/// control octets and what is not UTF-8 become `?`.
#[must_use]
pub fn readable(value: &[u8]) -> String {
    let mut unfolded = Vec::with_capacity(value.len().min(TEXT_OCTETS_MAX) + 4);
    for &octet in value.trim_ascii() {
        if unfolded.len() > TEXT_OCTETS_MAX {
            break;
        }
        match octet {
            b'\r' | b'\n' => {}
            b'\t' => unfolded.push(b' '),
            0..=31 | 127 => unfolded.push(b'?'),
            _ => unfolded.push(octet),
        }
    }
    let mut text = String::with_capacity(unfolded.len());
    for chunk in unfolded.utf8_chunks() {
        text.extend(chunk.valid().chars().map(|c| if c.is_control() { '?' } else { c }));
        if !chunk.invalid().is_empty() {
            text.push('?');
        }
    }
    let mut end = text.len().min(TEXT_OCTETS_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// One field of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as it is spelled, without blanks before the colon.
    pub name: &'a [u8],
    /// Where the field begins and ends, its line ends included.
    pub whole: Range<usize>,
    /// Where its value is: from behind the colon to before the last line end, folds included.
    pub value: Range<usize>,
    /// The number of its first line, from 1.
    pub line: usize,
}

impl Field<'_> {
    /// Whether the field has this name; capitals do not matter.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of a header, in order, up to the first line that is none.
#[must_use]
pub fn fields(octets: &[u8]) -> Fields<'_> {
    Fields::new(octets)
}

/// See [`fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    octets: &'a [u8],
    /// Where the next field would begin.
    position: usize,
    /// The number of the line there.
    line: usize,
    end: HeaderEnd,
}

impl<'a> Fields<'a> {
    fn new(octets: &'a [u8]) -> Self {
        Self { octets, position: 0, line: 1, end: HeaderEnd::Open }
    }

    /// Where the iteration stands: after its end, where the body begins.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// How the header ended, once the iteration has.
    #[must_use]
    pub fn end(&self) -> HeaderEnd {
        self.end
    }

    /// The number of the line where the iteration stands, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.end != HeaderEnd::Open {
            return None;
        }
        let start = self.position;
        let first_line = self.line;
        let rest = &self.octets[start..];
        // A line that is not complete may become anything yet.
        let mut length = memchr::memchr(b'\n', rest)? + 1;
        if matches!(&rest[..length], b"\n" | b"\r\n") {
            self.position += length;
            self.line += 1;
            self.end = HeaderEnd::EmptyLine;
            return None;
        }
        let Some(name) = field_name(&rest[..length]) else {
            self.end = HeaderEnd::NotField;
            return None;
        };
        let colon = memchr::memchr(b':', &rest[..length])?;
        self.line += 1;
        while let Some(b' ' | b'\t') = rest.get(length) {
            match memchr::memchr(b'\n', &rest[length..]) {
                Some(end) => length += end + 1,
                // The fold is cut off by the end of the octets; so is the field.
                None => length = rest.len(),
            }
            self.line += 1;
        }
        self.position = start + length;
        let mut value_end = length;
        if rest[value_end - 1] == b'\n' {
            value_end -= 1;
            value_end -= usize::from(rest[value_end - 1] == b'\r');
        }
        Some(Field {
            name,
            whole: start..start + length,
            value: start + colon + 1..start + value_end.max(colon + 1),
            line: first_line,
        })
    }
}

/// The name of the field that begins with this line (RFC 5322 sections 2.2 and 4.5: blanks may
/// stand before the colon).
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let length = line.iter().take_while(|&&o| (33..=126).contains(&o) && o != b':').count();
    let (name, rest) = line.split_at(length);
    let colon = rest.iter().find(|&&o| o != b' ' && o != b'\t')?;
    (*colon == b':' && !name.is_empty()).then_some(name)
}

/// The header without the fields of these names; every other octet as it stands. Give the header
/// with its empty line, or any octets that begin with one.
#[must_use]
pub fn without<'a>(octets: &'a [u8], unwanted: &[&str]) -> Cow<'a, [u8]> {
    without_where(octets, |field| unwanted.iter().any(|name| field.is(name)))
}

/// The octets without the fields for which `is_unwanted` says so.
#[must_use]
pub fn without_where(
    octets: &[u8],
    mut is_unwanted: impl FnMut(&Field<'_>) -> bool,
) -> Cow<'_, [u8]> {
    let mut kept: Option<Vec<u8>> = None;
    let mut from = 0;
    for field in fields(octets) {
        if is_unwanted(&field) {
            let kept = kept.get_or_insert_with(|| Vec::with_capacity(octets.len()));
            kept.extend_from_slice(&octets[from..field.whole.start]);
            from = field.whole.end;
        }
    }
    match kept {
        None => Cow::Borrowed(octets),
        Some(mut kept) => {
            kept.extend_from_slice(&octets[from..]);
            Cow::Owned(kept)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESSAGE: &[u8] = b"Received: from a by b; date\r\nreceived :\r\n from c by d\r\n\
        From: Ada <ada@example.org>\r\nSUBJECT: one\r\n\ttwo\r\nMessage-Id: <1@x>\r\n\r\nReceived: x\r\n";

    #[test]
    fn a_wish_to_be_sent_without_tls_is_one_field_and_nothing_else() {
        for (header, expected) in [
            ("TLS-Required: No\r\n", true),
            ("tls-required:\t no \r\n", true),
            ("TLS-Required: Yes\r\n", false),
            ("TLS-Required: No\r\nTLS-Required: No\r\n", false),
            ("X-TLS-Required: No\r\n", false),
            ("Subject: x\r\n\r\nTLS-Required: No\r\n", false),
        ] {
            assert_eq!(scan(header.as_bytes(), 1 << 16).tls_optional, expected, "{header:?}");
        }
    }

    #[test]
    fn facts_are_read_from_the_header_only() {
        let facts = scan(MESSAGE, 1 << 16);
        assert_eq!(facts.hops, 2);
        assert_eq!((facts.has_date, facts.has_message_id, facts.has_from), (false, true, true));
        assert_eq!(facts.message_id.as_deref(), Some("<1@x>"));
        assert_eq!(facts.subject.as_deref(), Some("one two"));
        assert_eq!(facts.end, HeaderEnd::EmptyLine);
        assert_eq!(facts.lines, 8);
        assert_eq!(&MESSAGE[facts.header_octets..], b"Received: x\r\n");
        assert!(!facts.needs_empty_line() && !facts.is_eight_bit);
    }

    #[test]
    fn message_without_header_needs_an_empty_line_before_it() {
        let facts = scan(b"Hello Bob\r\nDate: x\r\n\r\n", 1 << 16);
        assert_eq!((facts.header_octets, facts.end), (0, HeaderEnd::NotField));
        assert!(facts.needs_empty_line() && !facts.has_date);
        assert!(!scan(b"\r\nHello\r\n", 100).needs_empty_line());
        assert!(!scan(b"", 100).needs_empty_line());
        assert!(scan(b" folded first line\r\n", 100).needs_empty_line());
    }

    #[test]
    fn header_ends_before_a_line_that_is_no_field() {
        let message = b"A: 1\r\nno field here\r\nB: 2\r\n\r\n";
        let facts = scan(message, 1 << 16);
        assert_eq!((facts.header_octets, facts.end, facts.lines), (6, HeaderEnd::NotField, 1));
    }

    #[test]
    fn header_past_the_limit_is_open() {
        let facts = scan(MESSAGE, 40);
        assert_eq!(facts.end, HeaderEnd::Open);
        assert!(facts.header_octets <= 40);
        assert_eq!(facts.hops, 1);
    }

    #[test]
    fn texts_for_people_are_bounded_and_printable() {
        let long = format!("Subject: {}\u{e9}\r\n\r\n", "x".repeat(TEXT_OCTETS_MAX - 1));
        let subject = scan(long.as_bytes(), 1 << 16).subject.unwrap();
        assert_eq!(subject.len(), TEXT_OCTETS_MAX - 1);
        assert_eq!(readable(b" a\x1b[2J\xff\r\n\tb\x00 "), "a?[2J? b?");
    }

    #[test]
    fn fields_are_taken_out_with_their_folds() {
        let message = b"To: a\r\nBCC: b,\r\n c\r\nBcc : d\r\nBcc-Not: e\r\n\r\nBcc: body\r\n";
        let kept = without(message, &["Bcc"]);
        assert_eq!(&*kept, b"To: a\r\nBcc-Not: e\r\n\r\nBcc: body\r\n");
        assert!(matches!(without(message, &["X-Sender"]), Cow::Borrowed(_)));
    }

    fn slow_fields(octets: &[u8]) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = Vec::new();
        for line in octets.split_inclusive(|&o| o == b'\n') {
            let text: String = line.iter().map(|&o| char::from(o)).collect();
            let is_fold = text.starts_with([' ', '\t']) && !found.is_empty();
            if !text.ends_with('\n') && !is_fold {
                break;
            }
            if text.starts_with([' ', '\t']) {
                let Some(last) = found.last_mut() else { break };
                last.1.push_str(&text);
                continue;
            }
            let Some((name, _)) = text.split_once(':') else { break };
            let name = name.trim_end_matches([' ', '\t']);
            if name.is_empty() || !name.bytes().all(|o| o.is_ascii_graphic()) {
                break;
            }
            found.push((name.to_owned(), text));
        }
        found
    }

    proptest! {
        #[test]
        fn fields_agree_with_a_slow_reader(
            lines in prop::collection::vec("[ \tABCabc:\u{e9}-]{0,9}(\r\n|\n|)", 0..12)
        ) {
            let octets = lines.concat().into_bytes();
            let fast: Vec<_> = fields(&octets)
                .map(|field| {
                    let text = |octets: &[u8]| octets.iter().map(|&o| char::from(o)).collect();
                    (text(field.name), text(&octets[field.whole]))
                })
                .collect();
            prop_assert_eq!(fast, slow_fields(&octets));
        }

        #[test]
        fn any_octets_are_scanned_within_bounds(octets: Vec<u8>, limit in 0_usize..300) {
            let facts = scan(&octets, limit);
            prop_assert!(facts.header_octets <= octets.len().min(limit));
        }

        #[test]
        fn taking_out_leaves_every_other_octet(
            parts in prop::collection::vec(
                prop_oneof![Just("Bcc: x\r\n\ty\r\n"), Just("A: b\r\n"), Just("bcc:\r\n"), Just("C : d\n e\n")],
                0..9,
            ),
            body: Vec<u8>,
        ) {
            let with = [parts.concat().as_bytes(), b"\r\n", &body].concat();
            let fine: Vec<_> =
                parts.iter().filter(|p| !p.to_lowercase().starts_with("bcc")).copied().collect();
            let expected = [fine.concat().as_bytes(), b"\r\n", &body].concat();
            prop_assert_eq!(&*without(&with, &["Bcc"]), &expected[..]);
        }
    }
}
