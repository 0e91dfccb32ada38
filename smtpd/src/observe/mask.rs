//! Addresses of people in log lines: whole, told apart by a keyed digest, or the domain alone.
//!
//! One place for all lines: every value goes through here, so that an address in the words of a remote host is
//! treated as one in a field of its own is. What only looks like an address is treated as one too.

use std::borrow::Cow;
use std::fmt::Write as _;

use aws_lc_rs::hmac;

/// Octets of the key.
pub const KEY_OCTETS: usize = 32;
/// Octets of the digest that are shown, each as two digits: by chance alone two of a billion addresses
/// would have to meet.
const SHOWN_OCTETS: usize = 8;
/// What stands for a local part where only the domain is shown.
const HIDDEN: &str = "*";
/// Where a longer quoted string ends as a local part is told by the `@` behind it.
const QUOTED_OCTETS_MAX: usize = 256;
/// Fields whose value looks like an address and names no person.
const EXEMPT: [&str; 1] = ["msgid"];
/// Fields whose value is the name of an entry of a directory, which is often that of a person.
const ENTRIES: [&str; 2] = ["dn", "entry"];

/// What is shown of addresses instead of all.
#[derive(Debug)]
pub enum Mask {
    /// A digest of the address by this key, and its domain.
    Hashed(Box<hmac::Key>),
    /// Its domain.
    DomainOnly,
}

impl Mask {
    /// Digests by a key.
    #[must_use]
    pub fn hashed(key: &[u8; KEY_OCTETS]) -> Self {
        Self::Hashed(Box::new(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// A field's value as it may be shown.
    pub(super) fn show<'a>(&self, key: &str, value: &'a str) -> Cow<'a, str> {
        if EXEMPT.contains(&key) {
            return Cow::Borrowed(value);
        }
        if ENTRIES.contains(&key) {
            return Cow::Owned(self.instead_of(value));
        }
        let inner = value.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
        match inner {
            Some("") => Cow::Borrowed(value),
            Some(inner) if !inner.contains(['<', '>']) => {
                Cow::Owned(format!("<{}>", self.of(inner)))
            }
            _ => self.show_text(value),
        }
    }

    /// Text with the addresses in it masked.
    pub(super) fn show_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !text.contains('@') {
            return Cow::Borrowed(text);
        }
        let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
        let mut may_be_long = true;
        while !rest.is_empty() {
            let mut local = local_octets(rest);
            if local == 0 && may_be_long && rest.starts_with('"') {
                local = long_octets(rest);
                may_be_long = local > 0;
            }
            let domain = rest[local..].strip_prefix('@').map_or(0, domain_octets);
            if local > 0 && domain > 0 {
                let (address, behind) = rest.split_at(local + 1 + domain);
                shown.push_str(&self.of(address));
                rest = behind;
                continue;
            }
            // A local part that none is behind is text, but for a quote that may open another.
            let is_quote = rest.starts_with('"');
            let first = rest.chars().next().map_or(0, char::len_utf8);
            let (plain, behind) = rest.split_at(if is_quote { first } else { local.max(first) });
            shown.push_str(plain);
            rest = behind;
        }
        Cow::Owned(shown)
    }

    /// An address as it may be shown.
    fn of(&self, address: &str) -> String {
        let domain = address.rsplit_once('@').map(|(_, domain)| domain);
        let mut shown = self.instead_of(address);
        if let Some(domain) = domain {
            shown.push('@');
            shown.push_str(domain);
        }
        shown
    }

    /// What stands for a name of which nothing may be shown.
    fn instead_of(&self, name: &str) -> String {
        match self {
            Self::Hashed(key) => {
                // Hardly anybody tells Bob from bob, and whoever looks for either means both.
                let digest = hmac::sign(key, name.to_lowercase().as_bytes());
                let mut digits = String::with_capacity(2 * SHOWN_OCTETS);
                for octet in digest.as_ref().iter().take(SHOWN_OCTETS) {
                    let done = write!(digits, "{octet:02x}");
                    debug_assert!(done.is_ok(), "writing into a String cannot fail");
                }
                digits
            }
            Self::DomainOnly => HIDDEN.to_owned(),
        }
    }
}

/// How far a local part reaches at the beginning of a text: a quoted string, or characters that can stand
/// in an address without quotes.
fn local_octets(text: &str) -> usize {
    if text.starts_with('"') {
        let mut is_escaped = false;
        let end = text.bytes().skip(1).take(QUOTED_OCTETS_MAX).position(|octet| {
            let ends = octet == b'"' && !is_escaped;
            is_escaped = octet == b'\\' && !is_escaped;
            ends
        });
        return end.map_or(0, |end| end + 2);
    }
    let is_part =
        |c: char| c.is_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    text.find(|c| !is_part(c) || c.is_whitespace()).unwrap_or(text.len())
}

/// How far a quoted string reaches that does not end, or not soon: up to the next quote with a domain
/// behind it.
fn long_octets(text: &str) -> usize {
    let mut ends = text.match_indices("\"@").skip_while(|(at, _)| *at == 0);
    let end = ends.find(|(at, end)| domain_octets(&text[at + end.len()..]) > 0);
    end.map_or(0, |(at, _)| at + 1)
}

/// How far a domain or an address literal reaches at the beginning of a text.
fn domain_octets(text: &str) -> usize {
    if text.starts_with('[') {
        return text.find(']').map_or(0, |end| end + 1);
    }
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    // A sentence may end behind an address.
    text[..end].trim_end_matches('.').len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_domain_is_left_of_addresses_wherever_they_stand() {
        for (key, value, shown) in [
            ("from", "<>", "<>"),
            ("from", "<bob@x.example>", "<*@x.example>"),
            ("to", "<\"a@b, <c\"@x.example>", "<*@x.example>"),
            ("to", "<\"a b\"@[192.0.2.1]>", "<*@[192.0.2.1]>"),
            ("to", "<postmaster>", "<*>"),
            ("to", "<jörg@bücher.example>", "<*@bücher.example>"),
            ("msgid", "<1@x.example>", "<1@x.example>"),
            ("helo", "client.test", "client.test"),
            (
                "reply",
                "550 5.1.1 <bob@x.example>: no such user",
                "550 5.1.1 <*@x.example>: no such user",
            ),
            ("reply", "bob@x.example. Or \"b ob\"@y, eh @ z", "*@x.example. Or *@y, eh @ z"),
            ("reply", "\"open bob@x \"quoted\" a=b@y", "\"open *@x \"quoted\" *@y"),
            ("reply", "rfc822;bob+a=b@x", "rfc822;*@x"),
            ("user", "scanner01", "scanner01"),
            ("user", "scanner@x.example", "*@x.example"),
        ] {
            assert_eq!(Mask::DomainOnly.show(key, value), shown, "{value}");
        }
    }

    #[test]
    fn long_and_broken_quotes_hide_what_is_in_them() {
        let long = format!("no \"{} b\"@x.example here", "Bob ".repeat(200));
        for (text, shown) in [
            (long.as_str(), "no *@x.example here"),
            ("\"Bob \\\"@x", "*@x"),
            ("\"Bob \\\"@ \\\"@y", "*@y"),
            ("\"Bob a@x", "\"Bob *@x"),
        ] {
            assert_eq!(Mask::DomainOnly.show_text(text), shown, "{text}");
        }
        let hostile = "\\\"@ ".repeat(100_000);
        assert_eq!(Mask::DomainOnly.show_text(&hostile), hostile);
    }

    #[test]
    fn names_of_entries_of_a_directory_are_shown_in_no_part() {
        let dn = "cn=Bob Smith,mail=bob@x.example,o=y";
        assert_eq!(Mask::DomainOnly.show("dn", dn), "*");
        assert_eq!(Mask::hashed(&[1; KEY_OCTETS]).show("entry", dn).len(), 16);
    }

    #[test]
    fn a_digest_is_that_of_one_address_and_one_key() {
        let (one, other) = (Mask::hashed(&[1; KEY_OCTETS]), Mask::hashed(&[2; KEY_OCTETS]));
        let shown = one.show("to", "<bob@x.example>");
        assert_eq!(one.show("to", "<Bob@X.example>").to_lowercase(), shown);
        assert_ne!(other.show("to", "<bob@x.example>"), shown);
        assert_ne!(one.show("to", "<bob@y.example>")[..17], shown[..17]);
        let bare = &shown[1..shown.len() - 1];
        assert_eq!(one.show("reply", "no bob@x.example here"), format!("no {bare} here"));
        assert!(bare.ends_with("@x.example") && bare.len() == 16 + "@x.example".len(), "{bare}");
    }

    #[test]
    fn no_text_is_damaged_or_spoils_anything() {
        for text in ["", "@", "@@", "a@", "\"@", "\"\\", "\"a\"@", "é@", "é@é", "a@[", "[a@]"] {
            let shown = Mask::DomainOnly.show_text(text);
            assert_eq!(shown, if text == "é@é" { "*@é" } else { text });
        }
    }
}
