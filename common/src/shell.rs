//! Words as a POSIX shell reads them: for commands that are run elsewhere or shown to people.

/// Writes a word so that a shell takes it as it is.
pub fn quote(word: &[u8], out: &mut Vec<u8>) {
    let is_plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_=+@%:,./".contains(octet);
    if !word.is_empty() && word.iter().all(is_plain) {
        return out.extend_from_slice(word);
    }
    out.push(b'\'');
    for octet in word {
        match octet {
            b'\'' => out.extend_from_slice(b"'\\''"),
            octet => out.push(*octet),
        }
    }
    out.push(b'\'');
}

/// The same of a text.
#[must_use]
pub fn quoted(word: &str) -> String {
    let mut out = Vec::with_capacity(word.len() + 2);
    quote(word.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_read_otherwise_is_quoted() {
        for (word, expected) in [
            ("al@slow.example", "al@slow.example"),
            ("", "''"),
            ("it's", "'it'\\''s'"),
            ("$(id)@d", "'$(id)@d'"),
            ("\u{fc}", "'\u{fc}'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
