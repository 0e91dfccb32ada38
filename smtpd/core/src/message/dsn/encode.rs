//! Makes text of strangers fit to stand in a report: no control character, no long line.

use mailroot_common::status::EnhancedCode;

use crate::queue::dispose::{EXPIRED, WITHDRAWN};
use crate::queue::outcome::{Outcome, Stage};

/// RFC 5322 section 2.1.1, without CRLF.
pub(super) const LINE_OCTETS_MAX: usize = 998;
/// Where a long line is cut; room is left for a name and indentation in front.
const CUT_OCTETS: usize = 900;

/// Content-Transfer-Encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    SevenBit,
    EightBit,
    QuotedPrintable,
}

impl Encoding {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::SevenBit => "7bit",
            Self::EightBit => "8bit",
            Self::QuotedPrintable => "quoted-printable",
        }
    }
}

/// Splits text at its line ends, replaces what is not printable and cuts what is too long: a line
/// longer than a message may have is continued on the next, and when `octets_max` are spent the
/// rest is replaced by a mark. Counted is what the text takes once it is encoded. Never empty.
pub(super) fn printable_lines(text: &str, octets_max: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut room = octets_max;
    let mut line = String::new();
    for c in text.chars() {
        if c == '\n' {
            lines.push(std::mem::take(&mut line));
            room = room.saturating_sub(LINE_COST);
            continue;
        }
        if c == '\r' {
            continue;
        }
        let c = if is_printable(c) { c } else { '?' };
        if line.len() + c.len_utf8() > CUT_OCTETS {
            lines.push(std::mem::take(&mut line));
        }
        // Three octets for each in quoted-printable; `\x{20AC}` takes no more.
        let cost = if c.is_ascii() && c != '=' { 1 } else { 3 * c.len_utf8() };
        let Some(left) = room.checked_sub(cost) else {
            line.push_str("[...]");
            break;
        };
        room = left;
        line.push(c);
    }
    lines.push(line);
    lines.retain(|line| !line.trim().is_empty());
    if lines.is_empty() {
        lines.push("(nothing was said)".to_owned());
    }
    lines
}

/// What a line takes besides its text: indentation, codes, line end.
const LINE_COST: usize = 32;

/// Whether a character can be shown as it is: no control character, and none that changes the
/// order or the lines of what stands around it.
fn is_printable(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    !c.is_control() && !turns && c != '\u{feff}'
}

/// One line of printable text.
pub(super) fn printable(text: &str, octets_max: usize) -> String {
    printable_lines(&text.replace(['\r', '\n'], " "), octets_max.min(CUT_OCTETS)).swap_remove(0)
}

/// Writes characters beyond ASCII as `\x{20AC}`, the notation of RFC 6533 section 3.
pub(super) fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            out.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
        }
    }
    out
}

/// An address with characters beyond ASCII as `utf-8-addr-xtext` (RFC 6533 section 3).
pub(super) fn address_xtext(address: &str) -> String {
    let mut out = String::with_capacity(address.len());
    for c in address.chars() {
        if c.is_ascii_graphic() && !matches!(c, '+' | '=' | '\\') {
            out.push(c);
        } else {
            out.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
        }
    }
    out
}

/// Writes octets as quoted-printable text (RFC 2045 section 6.7). CRLF stays a line end. Stops
/// before a character that would make the result longer than `octets_max`.
pub(super) fn quoted_printable(octets: &[u8], octets_max: usize) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    const LINE_MAX: usize = 76;
    let mut out = Vec::with_capacity(octets.len().min(octets_max));
    let mut line = 0;
    let mut rest = octets;
    while let Some((&octet, tail)) = rest.split_first() {
        if rest.starts_with(b"\r\n") {
            if out.len() + 2 > octets_max {
                break;
            }
            out.extend_from_slice(b"\r\n");
            (line, rest) = (0, &rest[2..]);
            continue;
        }
        let at_end = tail.is_empty() || tail.starts_with(b"\r\n");
        let plain = matches!(octet, b'!'..=b'<' | b'>'..=b'~')
            || (matches!(octet, b' ' | b'\t') && !at_end);
        let width = if plain { 1 } else { 3 };
        // Room for the character, the soft break before it and the line end after all.
        if out.len() + width + 5 > octets_max {
            break;
        }
        if line + width > LINE_MAX - 1 {
            out.extend_from_slice(b"=\r\n");
            line = 0;
        }
        if plain {
            out.push(octet);
        } else {
            let (high, low) = (usize::from(octet >> 4), usize::from(octet & 15));
            out.extend_from_slice(&[b'=', HEX[high], HEX[low]]);
        }
        line += width;
        rest = tail;
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// What keeps octets from travelling as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing: lines of ASCII, none too long.
    SevenBit,
    /// Characters beyond ASCII, nothing else.
    EightBit,
    /// Control characters, bare CR or LF, or a line too long.
    Binary,
}

/// Finds out how octets can travel.
pub(super) fn shape(octets: &[u8]) -> Shape {
    let mut shape = Shape::SevenBit;
    let mut rest = octets;
    while !rest.is_empty() {
        let end = memchr::memmem::find(rest, b"\r\n");
        let line = &rest[..end.unwrap_or(rest.len())];
        let odd = |o: &u8| o.is_ascii_control() && *o != b'\t';
        if line.len() > LINE_OCTETS_MAX || line.iter().any(odd) {
            return Shape::Binary;
        }
        if !line.is_ascii() {
            shape = Shape::EightBit;
        }
        rest = end.map_or(&[][..], |end| &rest[end + 2..]);
    }
    shape
}

/// The status a report gives: mail given up for its age is 4.4.7, whatever was said last.
pub(super) fn status(outcome: &Outcome) -> EnhancedCode {
    match outcome.stage {
        Stage::Expiry => EXPIRED,
        Stage::Deadline => WITHDRAWN,
        _ => outcome.status,
    }
}
