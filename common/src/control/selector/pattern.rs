//! Patterns and comparisons: the values of conditions, understood.
//!
//! Whatever is written, matching takes time in proportion to pattern and text at worst.

use super::{PATTERN_OCTETS_MAX, SelectorError};
use crate::units::ByteSize;

/// What an expression may take when it is understood, and again for each thread that compares it:
/// `\w` knows the letters of all scripts, which costs 70 KiB each time it stands there.
const REGEX_OCTETS_MAX: usize = 8 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SizeRule {
    Over(u64),
    AtLeast(u64),
    Under(u64),
    AtMost(u64),
}

impl SizeRule {
    pub(super) fn parse(text: &str) -> Result<Self, SelectorError> {
        let text = text.trim();
        let after = |sign: &str| text.strip_prefix(sign);
        let (rest, rule): (&str, fn(u64) -> Self) = if let Some(rest) = after(">=") {
            (rest, Self::AtLeast)
        } else if let Some(rest) = after("<=") {
            (rest, Self::AtMost)
        } else if let Some(rest) = after(">") {
            (rest, Self::Over)
        } else if let Some(rest) = after("<") {
            (rest, Self::Under)
        } else {
            return Err(SelectorError::Comparison(text.to_owned()));
        };
        let size = ByteSize::parse(rest.trim());
        size.map(|size| rule(size.as_u64()))
            .map_err(|source| SelectorError::Unit { condition: "size", source })
    }

    pub(super) const fn holds(self, size: u64) -> bool {
        match self {
            Self::Over(bound) => size > bound,
            Self::AtLeast(bound) => size >= bound,
            Self::Under(bound) => size < bound,
            Self::AtMost(bound) => size <= bound,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// The null path.
    Null,
    /// Small letters with `*` and `?`.
    Glob(Vec<char>),
    /// An expression, and what must stand in every text that it matches.
    Regex(regex::Regex, Vec<String>),
}

impl Pattern {
    /// `anywhere`: a text without wildcards may stand anywhere.
    pub(super) fn parse(
        condition: &'static str,
        text: &str,
        anywhere: bool,
    ) -> Result<Self, SelectorError> {
        let bad = |why: String| SelectorError::Pattern { condition, text: text.to_owned(), why };
        if text.len() > PATTERN_OCTETS_MAX {
            return Err(bad(format!("it is longer than {PATTERN_OCTETS_MAX} octets")));
        }
        if text.is_empty() {
            // An unset variable in a script must not choose anything.
            return Err(bad("it is empty; the null path is written <>".to_owned()));
        }
        if text == "<>" {
            return Ok(Self::Null);
        }
        let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        if let Some(inner) = inner {
            return regex::RegexBuilder::new(inner)
                .case_insensitive(true)
                .size_limit(REGEX_OCTETS_MAX)
                .dfa_size_limit(REGEX_OCTETS_MAX)
                .build()
                .map(|regex| Self::Regex(regex, must_stand(inner)))
                .map_err(|error| bad(error.to_string()));
        }
        let mut glob: Vec<char> = text.to_lowercase().chars().collect();
        if anywhere && !text.contains(['*', '?']) {
            glob.insert(0, '*');
            glob.push('*');
        }
        Ok(Self::Glob(glob))
    }

    /// The text that stands for itself at the end of a pattern, behind its last `@` if it has one.
    /// Nothing if there are wildcards in it.
    pub(super) fn domain(&self) -> Option<(bool, String)> {
        let Self::Glob(glob) = self else { return None };
        let at = glob.iter().rposition(|&c| c == '@');
        let rest = &glob[at.map_or(0, |at| at + 1)..];
        let is_plain = rest.iter().all(|c| c.is_ascii() && !['*', '?'].contains(c));
        is_plain.then(|| (at.is_some(), rest.iter().collect()))
    }

    /// The text, in small letters, if it has no wildcards; empty for the null path.
    pub(super) fn plain(&self) -> Option<String> {
        match self {
            Self::Null => Some(String::new()),
            Self::Regex(..) => None,
            Self::Glob(glob) => {
                let is_plain = glob.iter().all(|c| !['*', '?'].contains(c));
                is_plain.then(|| glob.iter().collect())
            }
        }
    }

    /// The texts that stand for themselves between wildcards, in small letters; of an expression those
    /// at its beginning.
    pub(super) fn literals(&self) -> Vec<String> {
        let texts: Vec<String> = match self {
            Self::Null => Vec::new(),
            Self::Regex(_, texts) => texts.clone(),
            Self::Glob(glob) => {
                glob.split(|c| ['*', '?'].contains(c)).map(|text| text.iter().collect()).collect()
            }
        };
        texts.into_iter().filter(|text| !text.is_empty()).collect()
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Null => text.is_empty(),
            Self::Regex(regex, _) => regex.is_match(text),
            Self::Glob(glob) => glob_matches(glob, text),
        }
    }
}

/// The usual walk with one way back: at a mismatch the last `*` takes one more character. Never
/// worse than pattern times text.
fn glob_matches(glob: &[char], text: &str) -> bool {
    if text.is_ascii() {
        let octets = text.as_bytes();
        return walk(glob, octets.len(), |place| char::from(octets[place].to_ascii_lowercase()));
    }
    let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
    walk(glob, text.len(), |place| text[place])
}

fn walk(glob: &[char], length: usize, text: impl Fn(usize) -> char) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut way_back: Option<(usize, usize)> = None;
    while t < length {
        if glob.get(g) == Some(&'*') {
            way_back = Some((g + 1, t));
            g += 1;
        } else if glob.get(g).is_some_and(|&c| c == '?' || c == text(t)) {
            (g, t) = (g + 1, t + 1);
        } else if let Some((after_star, from)) = way_back {
            (g, t) = (after_star, from + 1);
            way_back = Some((after_star, from + 1));
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|&c| c == '*')
}

/// What must stand in every text that an expression matches, as far as that is plain: the letters
/// before the first group, class, count or escape of one without alternatives, in small ones. Letters
/// beyond ASCII have more than two forms, of which an expression takes all.
fn must_stand(expression: &str) -> Vec<String> {
    if expression.contains('|') {
        return Vec::new();
    }
    let plain = expression.find(['(', ')', '[', '{', '\\']).unwrap_or(expression.len());
    let (plain, rest) = expression.split_at(plain);
    let mut texts = vec![String::new()];
    let mut chars = plain.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied().or_else(|| rest.chars().next());
        let may_be_absent = matches!(next, Some('*' | '?' | '{'));
        match c {
            '^' | '$' | '.' | '*' | '?' | '+' => texts.push(String::new()),
            c if may_be_absent || !c.is_ascii() => texts.push(String::new()),
            c => {
                if let Some(text) = texts.last_mut() {
                    text.extend(c.to_lowercase());
                }
            }
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_stand_in_a_match_is_told_of_expressions_too() {
        for (text, expected) in [
            ("/^Invoice [0-9]+$/", &["invoice "][..]),
            ("/colou?r of.*the+ sky/", &["colo", "r of", "the", " sky"]),
            ("/ab{0,2}c/", &["a"]),
            ("/x\\.y/", &["x"]),
            ("/abc|def/", &[]),
            ("/(?i)abc/", &[]),
            ("*Invoice?22*", &["invoice", "22"]),
        ] {
            let pattern = Pattern::parse("subject", text, true).unwrap();
            assert_eq!(pattern.literals(), expected, "{text}");
        }
    }

    #[test]
    fn letters_of_every_kind_are_compared_without_their_size() {
        let glob = Pattern::parse("subject", "*\u{dc}BER?alles*", false).unwrap();
        assert!(glob.matches("Vor \u{fc}ber Alles, oft"));
        let plain = Pattern::parse("subject", "a?C*", false).unwrap();
        assert!(plain.matches("AbCd") && plain.matches("abc") && !plain.matches("ab"));
    }

    #[test]
    fn letters_are_alike_in_expressions_as_in_globs() {
        let over = Pattern::parse("subject", "/^\u{fc}ber [\\w ]+\\d$/", true).unwrap();
        assert!(over.matches("\u{dc}BER L\u{f6}sung 7") && !over.matches("uber alles 7"));
    }

    #[test]
    fn expressions_are_bounded() {
        let many = format!("/{}/", "\\w{3}".repeat(20));
        assert!(Pattern::parse("subject", &many, true).is_ok());
        let huge = Pattern::parse("subject", "/(\\w{100}){100}/", true);
        assert!(huge.unwrap_err().to_string().contains("size limit"));
    }

    #[test]
    fn hostile_globs_take_no_time() {
        let stars = Pattern::parse("to", &"*a".repeat(400), false).unwrap();
        assert!(!stars.matches(&"a".repeat(399)));
        assert!(stars.matches(&"a".repeat(400)));
        assert!(!stars.matches(&format!("{}b", "a".repeat(5_000))));
    }
}
