//! Reads what others found, from the values of `Authentication-Results` and its like (RFC 8601 section 2.2).
//!
//! Only pairs around an equals sign are of interest. Comments are passed over, and quotes taken off; what
//! breaks the grammar loses its part and no other.

/// One result: `method=result`, then its properties, each name in small letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    method: String,
    result: String,
    properties: Vec<(String, String)>,
}

impl Found {
    /// Whether it says that a method came to this.
    pub(super) fn says(&self, method: &str, result: &str) -> bool {
        self.method == method && self.result == result
    }

    /// What a method came to, if it is of this one.
    pub(super) fn of(&self, method: &str) -> Option<&str> {
        (self.method == method).then_some(self.result.as_str())
    }

    /// The value of a property such as `header.from`.
    pub(super) fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Equals,
    Semicolon,
}

/// The results in a value.
pub(super) fn results(value: &str) -> Vec<Found> {
    let tokens = tokens(value);
    tokens.split(|token| *token == Token::Semicolon).filter_map(found).collect()
}

fn found(tokens: &[Token]) -> Option<Found> {
    let mut pairs = tokens.windows(3).filter_map(|three| match three {
        [Token::Word(name), Token::Equals, Token::Word(value)] => {
            Some((name.to_ascii_lowercase(), value.clone()))
        }
        _ => None,
    });
    let (method, result) = pairs.next()?;
    let method = method.split('/').next().unwrap_or_default().to_owned();
    Some(Found { method, result: result.to_ascii_lowercase(), properties: pairs.collect() })
}

fn tokens(value: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut word, mut depth) = (String::new(), 0_usize);
    let mut chars = value.chars();
    let mut end = |word: &mut String, token: Option<Token>| {
        if !word.is_empty() {
            tokens.push(Token::Word(std::mem::take(word)));
        }
        tokens.extend(token);
    };
    while let Some(next) = chars.next() {
        match next {
            '\\' if depth > 0 => drop(chars.next()),
            '(' => {
                end(&mut word, None);
                depth += 1;
            }
            ')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            '"' => {
                while let Some(inner) = chars.next().filter(|&inner| inner != '"') {
                    word.extend(if inner == '\\' { chars.next() } else { Some(inner) });
                }
            }
            '=' => end(&mut word, Some(Token::Equals)),
            ';' => end(&mut word, Some(Token::Semicolon)),
            ' ' | '\t' | '\r' | '\n' => end(&mut word, None),
            other => word.push(other),
        }
    }
    end(&mut word, None);
    tokens
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn results_are_read_between_comments_folds_and_quotes() {
        let value = "i=2; mx.a.example 1;\r\n\tspf=pass (dmarc=pass; x) smtp.mailfrom=a.example;\r\n \
                     dkim/1 = FAIL reason=\"not; dmarc=pass\" header.d=a.example; dmarc=pass \
                     (p=reject (nested\\) still)) Header.From=a.example";
        let all = results(value);
        assert_eq!(all.len(), 4);
        assert!(all[1].says("spf", "pass") && all[2].says("dkim", "fail"));
        assert_eq!(all[2].property("reason"), Some("not; dmarc=pass"));
        assert_eq!(all[3].of("dmarc"), Some("pass"));
        assert_eq!((all[3].property("header.from"), all[1].of("dmarc")), (Some("a.example"), None));
        for nothing in
            ["", "mx.a.example; none", "a; (dmarc=pass)", "a; \"dmarc=pass\"", "a; =pass"]
        {
            assert!(!results(nothing).iter().any(|it| it.says("dmarc", "pass")), "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(value in "[a-c=;()\\\\\" ./]{0,40}") {
            prop_assert!(results(&value).len() <= value.len());
        }
    }
}
