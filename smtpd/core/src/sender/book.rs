//! What DNS was asked about one message, and what it said.
//!
//! Whoever judges looks into the book. What is not in it is noted as wanted, and the judge gives up
//! until it is there: so the rules stay free of waiting, and whoever asks can count the questions.

use std::collections::HashMap;
use std::net::IpAddr;

/// The longest name DNS knows, without its final dot (RFC 1035 section 2.3.4).
const NAME_OCTETS_MAX: usize = 253;
/// The longest label.
const LABEL_OCTETS_MAX: usize = 63;

/// One question to DNS. Names are in small letters, without a final dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// The texts of a name, each with its strings joined.
    Texts(String),
    /// The addresses of a name: IPv4, or else IPv6.
    Addresses {
        /// The name.
        name: String,
        /// Which kind.
        v4: bool,
    },
    /// The hosts that take mail for a name, the preferred first.
    Hosts(String),
    /// What an address says that it is called.
    Names(IpAddr),
}

/// What was found; the kind fits the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// To [`Question::Texts`].
    Texts(Vec<String>),
    /// To [`Question::Addresses`].
    Addresses(Vec<IpAddr>),
    /// To [`Question::Hosts`] and [`Question::Names`].
    Names(Vec<String>),
}

/// Why nothing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// There is nothing of the kind.
    Absent,
    /// Nobody could tell, or too much was asked.
    Unknown,
}

/// What a question came to.
pub type Answer = Result<Found, Nothing>;

/// The answers so far.
#[derive(Debug, Default)]
pub struct Book {
    answers: HashMap<Question, Answer>,
    wanted: Vec<Question>,
}

impl Book {
    /// Enters an answer.
    pub fn enter(&mut self, question: Question, answer: Answer) {
        self.answers.insert(question, answer);
    }

    /// Takes the questions that were looked for and are not answered.
    pub fn take_wanted(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.wanted)
    }

    fn look(&mut self, question: Question) -> Option<&Answer> {
        if self.answers.contains_key(&question) {
            return self.answers.get(&question);
        }
        if !self.wanted.contains(&question) {
            self.wanted.push(question);
        }
        None
    }

    /// The texts of a name; nothing if they are not known yet.
    pub fn texts(&mut self, name: &str) -> Option<Result<Vec<String>, Nothing>> {
        let Some(name) = tidy(name) else { return Some(Err(Nothing::Absent)) };
        Some(match self.look(Question::Texts(name))? {
            Ok(Found::Texts(texts)) => Ok(texts.clone()),
            Ok(Found::Addresses(_) | Found::Names(_)) => Err(Nothing::Unknown),
            Err(nothing) => Err(*nothing),
        })
    }

    /// The addresses of a name.
    pub fn addresses(&mut self, name: &str, v4: bool) -> Option<Result<Vec<IpAddr>, Nothing>> {
        let Some(name) = tidy(name) else { return Some(Err(Nothing::Absent)) };
        Some(match self.look(Question::Addresses { name, v4 })? {
            Ok(Found::Addresses(addresses)) => Ok(addresses.clone()),
            Ok(Found::Texts(_) | Found::Names(_)) => Err(Nothing::Unknown),
            Err(nothing) => Err(*nothing),
        })
    }

    /// The hosts that take mail for a name.
    pub fn hosts(&mut self, name: &str) -> Option<Result<Vec<String>, Nothing>> {
        let Some(name) = tidy(name) else { return Some(Err(Nothing::Absent)) };
        self.names_of(Question::Hosts(name))
    }

    /// What an address says that it is called.
    pub fn names(&mut self, address: IpAddr) -> Option<Result<Vec<String>, Nothing>> {
        self.names_of(Question::Names(address))
    }

    fn names_of(&mut self, question: Question) -> Option<Result<Vec<String>, Nothing>> {
        Some(match self.look(question)? {
            Ok(Found::Names(names)) => Ok(names.clone()),
            Ok(Found::Texts(_) | Found::Addresses(_)) => Err(Nothing::Unknown),
            Err(nothing) => Err(*nothing),
        })
    }
}

/// A name as it is asked for; nothing for what DNS cannot know.
fn tidy(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let good = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_OCTETS_MAX
            && label.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'\\')
    };
    (name.len() <= NAME_OCTETS_MAX && name.split('.').all(good)).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_wanted_once_and_what_cannot_be_is_not_asked() {
        let mut book = Book::default();
        assert_eq!(book.texts("A.example."), None);
        assert_eq!(book.texts("a.example"), None);
        let question = Question::Texts("a.example".to_owned());
        assert_eq!(book.take_wanted(), std::slice::from_ref(&question));
        book.enter(question, Ok(Found::Texts(vec!["x".to_owned()])));
        assert_eq!(book.texts("a.example"), Some(Ok(vec!["x".to_owned()])));
        for name in ["", ".", "a..b", "a b", "a\u{e9}", &"a".repeat(64), &"a.".repeat(128)] {
            assert_eq!(book.texts(name), Some(Err(Nothing::Absent)), "{name}");
        }
        assert!(book.take_wanted().is_empty());
    }
}
