//! Macros in records of SPF (RFC 7208 section 7).

/// The longest name that comes of a macro.
const NAME_OCTETS_MAX: usize = 253;

/// What stands for something of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letter {
    /// `s`: the sender.
    Sender,
    /// `l`: the local part of the sender.
    Local,
    /// `o`: the domain of the sender.
    SenderDomain,
    /// `d`: the domain whose record it is.
    Domain,
    /// `i`: the address of the client, with dots.
    Address,
    /// `p`: what the client is called.
    Name,
    /// `v`: `in-addr` or `ip6`.
    Version,
    /// `h`: what the client said that it is called.
    Helo,
}

/// A letter and what is made of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Macro {
    letter: Letter,
    /// How many parts of the right are kept; all if it is none.
    keep: Option<u32>,
    reverse: bool,
    delimiters: String,
    escape: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Macro(Macro),
}

/// A text with macros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

/// What macros are filled in from.
pub(super) trait Values {
    /// Why there is no value.
    type Missing;
    /// The value of a letter.
    fn value(&mut self, letter: Letter) -> Result<String, Self::Missing>;
}

impl Template {
    /// Reads a text with macros.
    pub(super) fn text(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            match rest.as_bytes().first()? {
                b'%' => plain.push('%'),
                b'_' => plain.push(' '),
                b'-' => plain.push_str("%20"),
                b'{' => {
                    let end = rest.find('}')?;
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    pieces.push(Piece::Macro(Macro::parse(&rest[1..end])?));
                    rest = &rest[end + 1..];
                    continue;
                }
                _ => return None,
            }
            rest = &rest[1..];
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Some(Self(pieces))
    }

    /// Reads a name with macros, which ends with a macro or with a label that is not all digits.
    pub(super) fn domain(text: &str) -> Option<Self> {
        let template = Self::text(text)?;
        match template.0.last()? {
            Piece::Macro(_) => {}
            Piece::Text(last) => {
                let last = last.strip_suffix('.').unwrap_or(last);
                let (_, label) = last.rsplit_once('.')?;
                let good = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
                let is_label = !label.is_empty()
                    && label.bytes().all(good)
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && !label.bytes().all(|octet| octet.is_ascii_digit());
                if !is_label || text.ends_with("%%") {
                    return None;
                }
            }
        }
        let has_slash = |piece: &Piece| matches!(piece, Piece::Text(text) if text.contains('/'));
        (!template.0.iter().any(has_slash)).then_some(template)
    }

    /// The text, if it has no macros.
    pub(super) fn plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The name that comes of it; one that is too long loses labels from the left.
    pub(super) fn fill<V: Values>(&self, values: &mut V) -> Result<String, V::Missing> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Macro(found) => out.push_str(&found.transform(&values.value(found.letter)?)),
            }
        }
        let mut name = &*out;
        while name.len() > NAME_OCTETS_MAX
            && let Some((_, rest)) = name.split_once('.')
        {
            name = rest;
        }
        Ok(name.to_owned())
    }
}

impl Macro {
    /// Reads what stands in the braces: a letter, a number, `r`, delimiters.
    fn parse(text: &str) -> Option<Self> {
        let first = text.chars().next()?;
        let letter = match first.to_ascii_lowercase() {
            's' => Letter::Sender,
            'l' => Letter::Local,
            'o' => Letter::SenderDomain,
            'd' => Letter::Domain,
            'i' => Letter::Address,
            'p' => Letter::Name,
            'v' => Letter::Version,
            'h' => Letter::Helo,
            _ => return None,
        };
        let rest = &text[1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = rest.split_at(digits);
        let keep = match number {
            "" => None,
            // More parts than fit into a number are all of them.
            number => Some(number.parse::<u32>().unwrap_or(u32::MAX)),
        };
        let reverse = rest.starts_with(['r', 'R']);
        let delimiters = &rest[usize::from(reverse)..];
        let good = keep != Some(0) && delimiters.chars().all(|c| ".-+,/_=".contains(c));
        let delimiters = if delimiters.is_empty() { "." } else { delimiters };
        good.then(|| Self {
            letter,
            keep,
            reverse,
            delimiters: delimiters.to_owned(),
            escape: first.is_ascii_uppercase(),
        })
    }

    fn transform(&self, value: &str) -> String {
        let mut parts: Vec<&str> = value.split(|c| self.delimiters.contains(c)).collect();
        if self.reverse {
            parts.reverse();
        }
        let keep = self.keep.and_then(|keep| usize::try_from(keep).ok()).unwrap_or(usize::MAX);
        let from = parts.len().saturating_sub(keep);
        let joined = parts[from..].join(".");
        if !self.escape {
            return joined;
        }
        let mut out = String::new();
        for octet in joined.bytes() {
            match octet {
                b'-' | b'.' | b'_' | b'~' => out.push(char::from(octet)),
                _ if octet.is_ascii_alphanumeric() => out.push(char::from(octet)),
                _ => out.push_str(&format!("%{octet:02X}")),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message of RFC 7208 section 7.4.
    struct Example;

    impl Values for Example {
        type Missing = ();

        fn value(&mut self, letter: Letter) -> Result<String, ()> {
            Ok(match letter {
                Letter::Sender => "strong-bad@email.example.com",
                Letter::Local => "strong-bad",
                Letter::SenderDomain | Letter::Domain => "email.example.com",
                Letter::Address => "192.0.2.3",
                Letter::Name => "unknown",
                Letter::Version => "in-addr",
                Letter::Helo => "a_b+c",
            }
            .to_owned())
        }
    }

    #[test]
    fn examples_of_the_standard_come_out() {
        for (text, expected) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l-}", "strong.bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{H}%%%-%_", "a_b%2Bc%%20 "),
            ("%{d99999999999}", "email.example.com"),
        ] {
            assert_eq!(
                Template::text(text).unwrap().fill(&mut Example).unwrap(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_long_name_loses_labels_from_the_left() {
        let text = format!("{}.%{{d}}", "abcdefg.".repeat(40).trim_end_matches('.'));
        let name = Template::text(&text).unwrap().fill(&mut Example).unwrap();
        assert!(name.len() <= NAME_OCTETS_MAX && name.starts_with("abcdefg.abcdefg."), "{name}");
        assert!(name.ends_with(".email.example.com"));
    }
}
