//! Replies: writing ours, reading those of others.
//!
//! In: octets from a peer, in whatever pieces the network made, or a reply of our own. Out: whole
//! replies, or the octets of one. What a code means for the mail at hand is decided elsewhere
//! ([`super::client`], [`super::refusal`]).
//!
//! What shapes this file is a peer that lies: a reply that never ends is cut at
//! [`OCTETS_MAX`], and a line ended by a bare LF, a NUL, a code that changes within a reply or no
//! code at all is an error and never a success, because after it nobody knows which command a later
//! reply answers. The peer's words are kept whole, but none of its control characters gets out of
//! here: they reach logs, reports and terminals.

use std::borrow::Cow;
use std::fmt;

use mailroot_common::status::{Class, EnhancedCode, ReplyCode};

/// The most octets one reply may have, all lines together.
pub const OCTETS_MAX: usize = 64 * 1024;

/// The most octets one line of a reply may have, CRLF included. RFC 5321 section 4.5.3.1.5 says
/// 512; peers say more than that when they refuse.
pub const LINE_OCTETS_MAX: usize = 4 * 1024;

/// One reply, of one or more lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: ReplyCode,
    enhanced: Option<EnhancedCode>,
    /// Lines joined by LF; no other control character.
    text: Cow<'static, str>,
}

impl Reply {
    /// A reply of ours; lines of the text are separated by LF.
    #[must_use]
    pub fn new(
        code: ReplyCode,
        enhanced: Option<EnhancedCode>,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { code, enhanced, text: printable(text.into()) }
    }

    /// A reply known when the program is built. The text is plain: printable, lines ended by LF.
    #[must_use]
    pub const fn fixed(code: u16, enhanced: Option<EnhancedCode>, text: &'static str) -> Self {
        Self { code: ReplyCode::new(code), enhanced, text: Cow::Borrowed(text) }
    }

    /// The three digits.
    #[must_use]
    pub const fn code(&self) -> ReplyCode {
        self.code
    }

    /// What the first digit says.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.code.class()
    }

    /// The enhanced code, if the first line had one of the same class as the code.
    #[must_use]
    pub const fn enhanced(&self) -> Option<EnhancedCode> {
        self.enhanced
    }

    /// The words without codes, lines joined by LF; printable but for those.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The words, taken out.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text.into_owned()
    }

    /// The lines without codes; at least one.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n')
    }

    /// Appends the octets of the wire: every line with its codes and CRLF.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lines = self.lines().peekable();
        while let Some(line) = lines.next() {
            push_digits(out, self.code.as_u16());
            let last = lines.peek().is_none();
            if let Some(enhanced) = self.enhanced {
                out.push(if last { b' ' } else { b'-' });
                // Writing into a vector cannot fail.
                let _ = std::io::Write::write_fmt(out, format_args!("{enhanced}"));
                if !line.is_empty() {
                    out.push(b' ');
                }
            } else if !last || !line.is_empty() {
                out.push(if last { b' ' } else { b'-' });
            }
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// As people see it: codes once, lines joined by ` / `.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code.fmt(f)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        for (place, line) in self.lines().enumerate() {
            write!(f, "{}{line}", if place == 0 { " " } else { " / " })?;
        }
        Ok(())
    }
}

fn push_digits(out: &mut Vec<u8>, code: u16) {
    for digit in [code / 100, code / 10 % 10, code % 10] {
        out.push(b'0' + u8::try_from(digit).expect("a digit is below ten"));
    }
}

/// The text with every control character but LF replaced, TAB by a blank.
fn printable(text: Cow<'static, str>) -> Cow<'static, str> {
    let bad = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{2028}' | '\u{2029}');
    if !text.contains(bad) {
        return text;
    }
    let clean = |c: char| match c {
        '\t' => ' ',
        c if bad(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    Cow::Owned(text.chars().map(clean).collect())
}

/// How many characters people are shown of a line that is no reply.
const EXCERPT_MAX: usize = 80;

/// Why octets are not a reply. Each ends the connection: what a later reply answers is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line does not begin with three digits from 200 to 599 and a blank, hyphen or its end.
    #[error("a line of the reply has no valid reply code")]
    Code,
    /// Two lines of one reply differ in code.
    #[error("the reply code changes within one reply")]
    Changed,
    /// A line is longer than [`LINE_OCTETS_MAX`] or the reply longer than [`OCTETS_MAX`].
    #[error("the reply is too long")]
    Length,
    /// A line is ended by LF without CR.
    #[error("a line of the reply ends with a bare LF")]
    BareLf,
    /// A NUL stands in the reply.
    #[error("the reply contains a NUL")]
    Nul,
}

/// Reads replies from octets as they arrive. With PIPELINING several may arrive at once, so what
/// follows a reply is kept for the next.
#[derive(Debug, Default)]
pub struct ReplyReader {
    buffer: Vec<u8>,
    /// Where the reply being read begins in the buffer.
    start: usize,
    /// Where the line being read begins, at or after `start`.
    line: usize,
    /// Up to where the line being read was searched for its end.
    searched: usize,
    /// The code of the lines before, if the reply has some.
    code: Option<ReplyCode>,
}

impl ReplyReader {
    /// Takes octets from the peer.
    pub fn feed(&mut self, octets: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            (self.start, self.line, self.searched) = (0, 0, 0);
        } else if self.start > OCTETS_MAX {
            self.buffer.drain(..self.start);
            self.line -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(octets);
    }

    /// Whether octets arrived that no reply has used up.
    #[must_use]
    pub fn has_rest(&self) -> bool {
        self.start < self.buffer.len()
    }

    /// The front of the line being read, printable, for people: what came instead of a reply.
    #[must_use]
    pub fn line_text(&self) -> String {
        let line = self.buffer.get(self.line..).unwrap_or_default();
        let line = line.split(|octet| matches!(octet, b'\r' | b'\n')).next().unwrap_or_default();
        let text = String::from_utf8_lossy(line).chars().take(EXCERPT_MAX).collect::<String>();
        printable(Cow::Owned(text)).into_owned()
    }

    /// The next whole reply, or `None` until its last line has arrived.
    ///
    /// # Errors
    ///
    /// [`ReplyError`]; the reader is of no use after it.
    ///
    /// # Standards
    ///
    /// RFC 5321 sections 4.2 and 4.5.3.1.5; RFC 2034 for the enhanced code, which a peer may omit.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                let line = self.searched - self.line;
                if line >= LINE_OCTETS_MAX || self.searched - self.start >= OCTETS_MAX {
                    return Err(ReplyError::Length);
                }
                return Ok(None);
            };
            let end = self.searched + end + 1;
            // First of all, because of a line that is not whole nothing else can be said.
            if end - self.line > LINE_OCTETS_MAX || end - self.start > OCTETS_MAX {
                return Err(ReplyError::Length);
            }
            let line = check_line(&self.buffer[self.line..end])?;
            if self.code.is_some_and(|code| code != line.code) {
                return Err(ReplyError::Changed);
            }
            (self.line, self.searched) = (end, end);
            self.code = (!line.last).then_some(line.code);
            if line.last {
                let reply = assemble(line.code, &self.buffer[self.start..end]);
                self.start = end;
                return Ok(Some(reply));
            }
        }
    }
}

/// Reads one reply from the front of `octets`; says how many octets it took, or `None` until its
/// last line has arrived. For a connection, [`ReplyReader`] does the same without rereading.
///
/// # Errors
///
/// [`ReplyError`], as [`ReplyReader::next_reply`].
pub fn parse(octets: &[u8]) -> Result<Option<(Reply, usize)>, ReplyError> {
    let mut reader = ReplyReader::default();
    reader.feed(octets);
    let reply = reader.next_reply()?;
    Ok(reply.map(|reply| (reply, reader.start)))
}

struct Line {
    code: ReplyCode,
    last: bool,
}

/// Checks one line that is not too long, its LF included.
fn check_line(line: &[u8]) -> Result<Line, ReplyError> {
    let line = line.strip_suffix(b"\r\n").ok_or(ReplyError::BareLf)?;
    if memchr::memchr(0, line).is_some() {
        return Err(ReplyError::Nul);
    }
    let digits = line.get(..3).ok_or(ReplyError::Code)?;
    let code = digits.iter().try_fold(0_u16, |code, octet| {
        octet.is_ascii_digit().then(|| code * 10 + u16::from(octet - b'0'))
    });
    let code = code.and_then(|code| ReplyCode::try_from(code).ok()).ok_or(ReplyError::Code)?;
    match line.get(3) {
        None | Some(b' ') => Ok(Line { code, last: true }),
        Some(b'-') => Ok(Line { code, last: false }),
        Some(_) => Err(ReplyError::Code),
    }
}

/// Puts the checked lines of one reply together.
fn assemble(code: ReplyCode, octets: &[u8]) -> Reply {
    let mut enhanced = None;
    let mut text = String::with_capacity(octets.len());
    let lines = octets.split(|&octet| octet == b'\n').filter(|line| !line.is_empty());
    for (place, line) in lines.enumerate() {
        let words = line.strip_suffix(b"\r").unwrap_or(line).get(4..).unwrap_or_default();
        let words = String::from_utf8_lossy(words);
        let (found, rest) = split_enhanced(code, &words);
        if place == 0 {
            enhanced = found;
        } else {
            text.push('\n');
        }
        let same = found.is_some() && found == enhanced;
        text.push_str(if same { rest } else { &words });
    }
    Reply { code, enhanced, text: printable(Cow::Owned(text)) }
}

/// The enhanced code at the front of the words, if its class is that of the code, and the rest.
fn split_enhanced(code: ReplyCode, words: &str) -> (Option<EnhancedCode>, &str) {
    if code.as_u16() / 100 == 3 {
        return (None, words);
    }
    let (first, rest) = words.split_once([' ', '\t']).unwrap_or((words, ""));
    match EnhancedCode::parse(first) {
        Ok(enhanced) if enhanced.class() == code.class() => (Some(enhanced), rest),
        _ => (None, words),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(octets: &[u8]) -> Result<Option<Reply>, ReplyError> {
        parse(octets).map(|found| found.map(|(reply, _)| reply))
    }

    fn one(octets: &[u8]) -> Reply {
        read(octets).unwrap().unwrap()
    }

    #[test]
    fn what_came_instead_of_a_reply_can_be_shown() {
        let mut reader = ReplyReader::default();
        reader.feed(b"220 ready\r\nSSH-2.0-\x07x\r\nmore");
        assert!(reader.next_reply().unwrap().is_some());
        assert_eq!(reader.next_reply(), Err(ReplyError::Code));
        assert_eq!(reader.line_text(), "SSH-2.0-\u{fffd}x");
        let mut reader = ReplyReader::default();
        reader.feed(&b"x".repeat(LINE_OCTETS_MAX + 1));
        assert_eq!(reader.next_reply(), Err(ReplyError::Length));
        assert_eq!(reader.line_text().len(), EXCERPT_MAX);
    }

    #[test]
    fn what_is_too_long_is_told_first_however_it_is_cut() {
        let front = b"250-more\r\n".repeat(OCTETS_MAX / 10);
        let octets = [&front[..], b"250 \0 and more than a reply may have\r\n"].concat();
        for piece in [1, 1000, octets.len()] {
            let mut reader = ReplyReader::default();
            let ended = octets.chunks(piece).find_map(|piece| {
                reader.feed(piece);
                reader.next_reply().err()
            });
            assert_eq!(ended, Some(ReplyError::Length), "{piece}");
        }
    }

    #[test]
    fn single_and_multiple_lines_are_read() {
        let reply = one(b"250 2.1.5 recipient ok\r\n");
        assert_eq!(reply.code().as_u16(), 250);
        assert_eq!(reply.enhanced(), Some(EnhancedCode::success(1, 5)));
        assert_eq!(reply.text(), "recipient ok");
        let reply = one(b"550-5.7.1 no\r\n550-5.7.1 not you\r\n550 call us\r\n");
        assert_eq!(reply.enhanced(), Some(EnhancedCode::permanent(7, 1)));
        assert_eq!(reply.text(), "no\nnot you\ncall us");
        assert_eq!(reply.to_string(), "550 5.7.1 no / not you / call us");
        assert_eq!(one(b"250\r\n").text(), "");
        assert_eq!(one(b"250 \r\n").text(), "");
        assert_eq!(one(b"250 2.0.0\r\n").enhanced(), Some(EnhancedCode::success(0, 0)));
    }

    #[test]
    fn enhanced_code_of_another_class_is_only_words() {
        let reply = one(b"550 4.7.1 odd\r\n");
        assert_eq!((reply.enhanced(), reply.text()), (None, "4.7.1 odd"));
        let reply = one(b"250-mx.test\r\n250 2.0.0 late\r\n");
        assert_eq!((reply.enhanced(), reply.text()), (None, "mx.test\n2.0.0 late"));
    }

    #[test]
    fn a_tab_behind_the_enhanced_code_is_no_part_of_the_words() {
        let reply = one(b"550-5.7.1\tnot you\r\n550 5.7.1 call us\r\n");
        assert_eq!(reply.enhanced(), Some(EnhancedCode::permanent(7, 1)));
        assert_eq!(reply.text(), "not you\ncall us");
    }

    #[test]
    fn parts_of_a_reply_are_waited_for() {
        for part in ["", "2", "250", "250 ok", "250 ok\r", "250-ok\r\n", "250-ok\r\n250 x"] {
            assert_eq!(read(part.as_bytes()), Ok(None), "{part:?}");
        }
        let (reply, used) = parse(b"250 a\r\n354 b\r\n").unwrap().unwrap();
        assert_eq!((reply.text(), used), ("a", 7));
    }

    #[test]
    fn lies_are_errors_and_never_success() {
        for (octets, error) in [
            (&b"\r\n"[..], ReplyError::Code),
            (b"hello\r\n", ReplyError::Code),
            (b"25 ok\r\n", ReplyError::Code),
            (b"2500 ok\r\n", ReplyError::Code),
            (b"250ok\r\n", ReplyError::Code),
            (b"150 ok\r\n", ReplyError::Code),
            (b"650 ok\r\n", ReplyError::Code),
            (b" 250 ok\r\n", ReplyError::Code),
            (b"250-a\r\n\r\n250 b\r\n", ReplyError::Code),
            (b"250-a\r\n251 b\r\n", ReplyError::Changed),
            (b"250-a\r\nok\r\n", ReplyError::Code),
            (b"250 ok\n", ReplyError::BareLf),
            (b"250-a\n250 b\r\n", ReplyError::BareLf),
            (b"250 o\0k\r\n", ReplyError::Nul),
        ] {
            assert_eq!(read(octets), Err(error), "{:?}", String::from_utf8_lossy(octets));
        }
    }

    #[test]
    fn endless_lines_and_replies_are_cut() {
        assert_eq!(read(&[b'2'; LINE_OCTETS_MAX]), Err(ReplyError::Length));
        let long = [b"250 ".as_slice(), &[b'x'; LINE_OCTETS_MAX], b"\r\n"].concat();
        assert_eq!(read(&long), Err(ReplyError::Length));
        let mut reader = ReplyReader::default();
        let given_up = (0..OCTETS_MAX).find(|_| {
            reader.feed(b"250-more\r\n");
            reader.next_reply() == Err(ReplyError::Length)
        });
        assert_eq!(given_up, Some(OCTETS_MAX / 10));
    }

    #[test]
    fn control_characters_do_not_get_out() {
        let reply = one(b"550 a\x1b[2Jb\tc\xff\xc2\x85\rd\r\n");
        assert_eq!(reply.text(), "a\u{fffd}[2Jb c\u{fffd}\u{fffd}\u{fffd}d");
        let ours = Reply::new(ReplyCode::new(250), None, "a\rb");
        assert_eq!(ours.text(), "a\u{fffd}b");
    }

    #[test]
    fn written_replies_carry_codes_on_each_line() {
        let mut out = Vec::new();
        Reply::fixed(550, Some(EnhancedCode::permanent(7, 1)), "one\ntwo").write_to(&mut out);
        Reply::fixed(250, None, "mx.test\nSIZE 1").write_to(&mut out);
        Reply::fixed(354, None, "").write_to(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "550-5.7.1 one\r\n550 5.7.1 two\r\n250-mx.test\r\n250 SIZE 1\r\n354\r\n"
        );
    }

    proptest! {
        #[test]
        fn replies_round_trip_however_they_are_cut(
            replies in prop::collection::vec(
                (200_u16..600, any::<bool>(), prop::collection::vec("[ -~]{0,40}", 1..4)),
                1..5,
            ),
            cuts in prop::collection::vec(1_usize..20, 1..20),
        ) {
            let replies: Vec<Reply> = replies
                .into_iter()
                .map(|(code, with_enhanced, lines)| {
                    let code = ReplyCode::new(code);
                    let enhanced = (with_enhanced && code.as_u16() / 100 != 3)
                        .then(|| EnhancedCode::new(code.class(), 1, 0));
                    Reply::new(code, enhanced, format!("x{}", lines.join("\nx")))
                })
                .collect();
            let mut octets = Vec::new();
            replies.iter().for_each(|reply| reply.write_to(&mut octets));
            let mut reader = ReplyReader::default();
            let (mut found, mut at, mut cuts) = (Vec::new(), 0, cuts.into_iter().cycle());
            while at < octets.len() {
                let end = octets.len().min(at + cuts.next().unwrap());
                reader.feed(&octets[at..end]);
                at = end;
                while let Some(reply) = reader.next_reply().unwrap() {
                    found.push(reply);
                }
            }
            prop_assert_eq!(found, replies);
            prop_assert!(!reader.has_rest());
        }

        #[test]
        fn any_octets_are_read_without_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((reply, used))) = parse(&octets) {
                prop_assert!(used <= octets.len());
                prop_assert!(reply.text().chars().all(|c| !c.is_control() || c == '\n'));
            }
        }
    }
}
