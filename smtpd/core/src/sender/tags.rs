//! Lists of `tag=value` (RFC 6376 section 3.2): signatures, their keys, and records of DMARC.

/// The tags of one list, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tags(Vec<(String, String)>);

/// Tags that a list may have; honest ones have a dozen.
const TAGS_MAX: usize = 64;

impl Tags {
    /// Reads a list; nothing if it breaks the grammar, or a tag stands twice.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches(is_blank);
        let text = text.strip_suffix(';').unwrap_or(text);
        let mut tags: Vec<(String, String)> = Vec::new();
        for part in text.split(';') {
            let (name, value) = part.split_once('=')?;
            let (name, value) = (name.trim_matches(is_blank), value.trim_matches(is_blank));
            let good = name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_');
            let known = tags.iter().any(|(other, _)| other == name);
            if !good || known || tags.len() == TAGS_MAX || !is_text(value) {
                return None;
            }
            tags.push((name.to_owned(), value.to_owned()));
        }
        Some(Self(tags))
    }

    /// The value of a tag.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The value of a tag without any blanks in it.
    pub(super) fn dense(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.split(is_blank).collect())
    }

    /// The first tag.
    pub(super) fn first(&self) -> Option<(&str, &str)> {
        self.0.first().map(|(name, value)| (&**name, &**value))
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Whether its only control characters are those of folds.
fn is_text(value: &str) -> bool {
    value.chars().all(|c| !c.is_control() || is_blank(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_with_blanks_folds_and_a_last_semicolon() {
        let tags = Tags::parse(" v=1; b = ab\r\n\tcd ;h=From : To; z=;").unwrap();
        assert_eq!(tags.first(), Some(("v", "1")));
        assert_eq!(tags.dense("b").as_deref(), Some("abcd"));
        assert_eq!(
            (tags.get("h"), tags.get("z"), tags.get("x")),
            (Some("From : To"), Some(""), None)
        );
        for bad in ["", "v", "v=1;;", "v=1; v=2", "=1", "1v=1", "v=\u{1}", "v=1; b"] {
            assert_eq!(Tags::parse(bad), None, "{bad:?}");
        }
        let many: String = (0..65).map(|number| format!("t{number}=1;")).collect();
        assert_eq!(Tags::parse(&many), None);
    }
}
