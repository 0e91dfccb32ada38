//! xtext: values of parameters, without octets that would end them (RFC 3461 section 4).

/// Decodes xtext (RFC 3461 section 4); absent if it is none, or hides what is not printable ASCII.
pub(crate) fn from_xtext(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let (octet, tail) = match first {
            b'+' => {
                let digits = tail.get(..2)?;
                let digits = std::str::from_utf8(digits).ok()?;
                if digits.starts_with('+') {
                    return None;
                }
                (u8::from_str_radix(digits, 16).ok()?, tail.get(2..)?)
            }
            other => (other, tail),
        };
        if !matches!(octet, b' '..=b'~') {
            return None;
        }
        out.push(char::from(octet));
        rest = tail;
    }
    Some(out)
}
