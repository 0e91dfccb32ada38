//! The third part of a report: the original, or its header.

use std::borrow::Cow;

use super::encode::{Encoding, Shape, quoted_printable, shape};
use super::{BODY_OCTETS_MAX, HEADER_OCTETS_MAX, Original, Part};

/// Writes the part. `global` chooses the media types of internationalized mail (RFC 6533).
pub(super) fn write(original: Original<'_>, global: bool) -> Part {
    let octets = match original {
        Original::Header(octets) | Original::Whole(octets) => octets,
    };
    let header = &octets[..header_end(octets)];
    let whole = matches!(original, Original::Whole(_))
        && header.len() <= HEADER_OCTETS_MAX
        && octets.len() - header.len() <= BODY_OCTETS_MAX;
    if whole {
        let encoding = match shape(octets) {
            Shape::SevenBit => Some(Encoding::SevenBit),
            Shape::EightBit => Some(Encoding::EightBit),
            // No encoding may be put on a message/rfc822 (RFC 2046 section 5.2.1).
            Shape::Binary => None,
        };
        if let Some(encoding) = encoding {
            let content_type = if global { "message/global" } else { "message/rfc822" };
            let description = "Undelivered message";
            return Part { content_type, description, encoding, octets: octets.to_vec() };
        }
    }
    header_part(header, global)
}

/// Where the header ends: behind its last line end, the empty line not included.
fn header_end(octets: &[u8]) -> usize {
    if octets.starts_with(b"\r\n") {
        return 0;
    }
    memchr::memmem::find(octets, b"\r\n\r\n").map_or(octets.len(), |end| end + 2)
}

fn header_part(header: &[u8], global: bool) -> Part {
    let content_type = if global {
        "message/global-headers"
    } else if header.is_ascii() {
        "text/rfc822-headers"
    } else {
        "text/rfc822-headers; charset=utf-8"
    };
    let description = "Header of the message";
    if header.len() <= HEADER_OCTETS_MAX && shape(header) == Shape::SevenBit {
        let encoding = Encoding::SevenBit;
        return Part { content_type, description, encoding, octets: header.to_vec() };
    }
    let octets = quoted_printable(&without_controls(header), HEADER_OCTETS_MAX);
    Part { content_type, description, encoding: Encoding::QuotedPrintable, octets }
}

/// The header with a question mark for every control character but tabs and line ends: an encoding
/// would carry them unseen to whoever decodes it.
fn without_controls(header: &[u8]) -> Cow<'_, [u8]> {
    let is_line_end = |place: usize, octet: u8| match octet {
        b'\r' => header.get(place + 1) == Some(&b'\n'),
        b'\n' => place > 0 && header[place - 1] == b'\r',
        _ => false,
    };
    let is_odd = |(place, &octet): (usize, &u8)| {
        octet.is_ascii_control() && octet != b'\t' && !is_line_end(place, octet)
    };
    if !header.iter().enumerate().any(is_odd) {
        return Cow::Borrowed(header);
    }
    let clean = |(place, octet)| if is_odd((place, octet)) { b'?' } else { *octet };
    Cow::Owned(header.iter().enumerate().map(clean).collect())
}
