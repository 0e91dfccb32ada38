//! Reads the mailboxes out of an address field: `To`, `Cc`, `Bcc`, `From`, `Sender`.
//!
//! In: the value of the field with its folds. Out: the addresses in order; display names,
//! comments, encoded words and names of groups are passed over (RFC 5322 section 3.4, with the
//! obsolete blanks and routes of section 4.4, and `;` between addresses, as people write).
//!
//! One pass from front to back and no recursion: nested comments are counted, so that forty
//! thousand brackets cost forty thousand steps.

use std::fmt;
use std::ops::Range;

use crate::address::{AddressError, LocalPart, Mailbox, ReversePath};

use super::header::readable;

/// What is wrong with an address field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct ListError {
    /// How many lines below the first line of the value it is wrong.
    pub lines_down: usize,
    /// What is wrong there.
    pub fault: ListFault,
}

/// See [`ListError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListFault {
    /// An address breaks the grammar.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Words without an address among them.
    #[error("{0:?} is not an address: write name@domain or Name <name@domain>")]
    NoAddress(String),
    /// Something begins and does not end.
    #[error("a {0} is not closed")]
    Unclosed(&'static str),
    /// Not exactly one address where one is wanted.
    #[error("{0} addresses where one is wanted")]
    NotOne(usize),
}

/// Reads a list of addresses; it may be empty.
///
/// # Errors
///
/// [`ListError`] for the first thing that cannot be read.
pub fn parse(value: &[u8]) -> Result<Vec<Mailbox>, ListError> {
    Ok(locate(value)?.into_iter().map(|(mailbox, _)| mailbox).collect())
}

/// Reads a list of addresses, each with its place in the value: what stands in angle brackets, or the
/// address itself.
///
/// # Errors
///
/// [`ListError`] for the first thing that cannot be read.
pub fn locate(value: &[u8]) -> Result<Vec<(Mailbox, Range<usize>)>, ListError> {
    read(value)
}

/// An address as programs of this machine write it, who may leave its domain out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// With its domain.
    Whole(Mailbox),
    /// Without.
    Bare(LocalPart),
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(mailbox) => mailbox.fmt(f),
            Self::Bare(local) => local.fmt(f),
        }
    }
}

/// Reads a list of addresses that may lack their domains, each with its place as [`locate`] has it.
///
/// # Errors
///
/// [`ListError`] for the first thing that cannot be read.
pub fn locate_named(value: &[u8]) -> Result<Vec<(Named, Range<usize>)>, ListError> {
    read(value)
}

/// The addresses of a list that can be read, and what is wrong with the others, as [`locate_named`] has both.
#[must_use]
pub fn every_named(value: &[u8]) -> (Vec<Named>, Vec<ListError>) {
    let (found, faults) = read_each(value);
    (found.into_iter().map(|(named, _)| named).collect(), faults)
}

/// What an address of a list is made into.
trait Spec: Sized {
    /// Whether a word without a domain is an address.
    const MAY_BE_BARE: bool;

    fn read(octets: &[u8]) -> Result<Self, ListFault>;
}

impl Spec for Mailbox {
    const MAY_BE_BARE: bool = false;

    fn read(octets: &[u8]) -> Result<Self, ListFault> {
        mailbox(octets)
    }
}

impl Spec for Named {
    const MAY_BE_BARE: bool = true;

    fn read(octets: &[u8]) -> Result<Self, ListFault> {
        if octets.contains(&b'@') {
            return mailbox(octets).map(Self::Whole);
        }
        let text =
            std::str::from_utf8(octets).map_err(|_| ListFault::NoAddress(readable(octets)))?;
        Ok(Self::Bare(LocalPart::parse(text)?))
    }
}

fn read<S: Spec>(value: &[u8]) -> Result<Vec<(S, Range<usize>)>, ListError> {
    let (found, faults) = read_each(value);
    faults.into_iter().next().map_or(Ok(found), Err)
}

type Found<S> = Vec<(S, Range<usize>)>;

/// What can be read, and what is wrong with the rest. Behind something that does not end nothing is read.
fn read_each<S: Spec>(value: &[u8]) -> (Found<S>, Vec<ListError>) {
    let mut reader = Reader { octets: value, at: 0, lines_down: 0 };
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    let mut item = Item::default();
    loop {
        let start = reader.at;
        let Some(octet) = reader.peek() else {
            faults.extend(item.finish(&mut found).err().map(|fault| reader.error(fault)));
            return (found, faults);
        };
        let step = match octet {
            b',' | b';' => {
                reader.take();
                let done = std::mem::take(&mut item).finish(&mut found);
                faults.extend(done.err().map(|fault| reader.error(fault)));
                Ok(())
            }
            b':' if item.angle.is_none() && !item.spec.contains(&b'@') => {
                // The name of a group; its members follow.
                reader.take();
                item = Item { is_spoiled: item.is_spoiled, ..Item::default() };
                Ok(())
            }
            b'<' => {
                reader.angle().and_then(|(inside, end)| item.set_angle(&inside, start + 1..end))
            }
            _ => reader.piece().map(|piece| item.push(piece, start..reader.at)),
        };
        if let Err(fault) = step {
            let is_open = matches!(fault, ListFault::Unclosed(_));
            faults.push(reader.error(fault));
            if is_open {
                return (found, faults);
            }
            item = Item { is_spoiled: true, ..Item::default() };
        }
    }
}

/// Reads a value that names one address, or nobody: empty, or `<>`.
///
/// # Errors
///
/// [`ListError`], also for more than one address.
pub fn parse_path(value: &[u8]) -> Result<ReversePath, ListError> {
    let bare = value.trim_ascii();
    if bare.is_empty() || bare == b"<>" {
        return Ok(ReversePath::Null);
    }
    let mut found = parse(value)?;
    match (found.pop(), found.len()) {
        (Some(mailbox), 0) => Ok(ReversePath::Mailbox(mailbox)),
        (last, others) => {
            let count = others + usize::from(last.is_some());
            Err(ListError { lines_down: 0, fault: ListFault::NotOne(count) })
        }
    }
}

/// What stands between two commas.
struct Item<S> {
    /// The words so far, joined: an address, or a display name.
    spec: Vec<u8>,
    /// A blank or comment stands after the last word.
    gap: bool,
    /// Two words stand apart where an address has none: this can only be a display name.
    is_phrase: bool,
    /// Where the words are.
    place: Range<usize>,
    angle: Option<(S, Range<usize>)>,
    /// Something of it could not be read: the rest is passed over.
    is_spoiled: bool,
}

impl<S> Default for Item<S> {
    fn default() -> Self {
        Self {
            spec: Vec::new(),
            gap: false,
            is_phrase: false,
            place: 0..0,
            angle: None,
            is_spoiled: false,
        }
    }
}

enum Piece<'a> {
    Gap,
    EncodedWord,
    Quoted(Vec<u8>),
    Word(&'a [u8]),
}

impl<S: Spec> Item<S> {
    fn push(&mut self, piece: Piece<'_>, place: Range<usize>) {
        if !matches!(piece, Piece::Gap) {
            let start = if self.spec.is_empty() { place.start } else { self.place.start };
            self.place = start..place.end;
        }
        match piece {
            Piece::Gap => self.gap = true,
            Piece::EncodedWord => {
                self.join(b"=??=");
                self.is_phrase = true;
            }
            Piece::Quoted(text) => self.join(&text),
            Piece::Word(text) => self.join(text),
        }
    }

    fn join(&mut self, word: &[u8]) {
        let joins = |octet: Option<&u8>| matches!(octet, None | Some(b'.' | b'@'));
        if self.gap && !joins(self.spec.last()) && !joins(word.first()) {
            self.is_phrase = true;
            self.spec.push(b' ');
        }
        self.spec.extend_from_slice(word);
        self.gap = false;
    }

    fn set_angle(&mut self, inside: &[u8], place: Range<usize>) -> Result<(), ListFault> {
        if self.is_spoiled {
            return Ok(());
        }
        if self.angle.is_some() {
            return Err(ListFault::NoAddress(readable(inside)));
        }
        self.angle = Some((S::read(inside)?, place));
        self.spec.clear();
        self.is_phrase = false;
        self.gap = false;
        Ok(())
    }

    fn finish(self, found: &mut Vec<(S, Range<usize>)>) -> Result<(), ListFault> {
        match self.angle {
            _ if self.is_spoiled => {}
            Some(angle) if self.spec.is_empty() => found.push(angle),
            None if self.spec.is_empty() => {}
            None if !self.is_phrase && (S::MAY_BE_BARE || self.spec.contains(&b'@')) => {
                found.push((S::read(&self.spec)?, self.place));
            }
            _ => return Err(ListFault::NoAddress(readable(&self.spec))),
        }
        Ok(())
    }
}

/// Reads `local@host`, after a route if there is one (`@a,@b:local@host`), which is dropped as
/// RFC 5321 appendix C allows.
fn mailbox(octets: &[u8]) -> Result<Mailbox, ListFault> {
    let spec = match octets.first() {
        Some(b'@') => octets.splitn(2, |&o| o == b':').nth(1).unwrap_or(octets),
        _ => octets,
    };
    let text = std::str::from_utf8(spec).map_err(|_| ListFault::NoAddress(readable(octets)))?;
    Ok(Mailbox::parse(text)?)
}

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
    lines_down: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.octets.get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let octet = self.peek()?;
        self.at += 1;
        self.lines_down += usize::from(octet == b'\n');
        Some(octet)
    }

    fn error(&self, fault: ListFault) -> ListError {
        ListError { lines_down: self.lines_down, fault }
    }

    /// What begins here and is neither a separator nor an angle bracket.
    fn piece(&mut self) -> Result<Piece<'a>, ListFault> {
        match self.peek() {
            None | Some(b' ' | b'\t' | b'\r' | b'\n') => {
                self.take();
                Ok(Piece::Gap)
            }
            Some(b'(') => self.comment().map(|()| Piece::Gap),
            Some(b'"') => self.delimited(b'"', "quoted string").map(Piece::Quoted),
            Some(b'[') => self.delimited(b']', "[ bracket").map(Piece::Quoted),
            Some(_) => Ok(self.word()),
        }
    }

    fn word(&mut self) -> Piece<'a> {
        let start = self.at;
        if let Some(length) = encoded_word(&self.octets[start..]) {
            self.at += length;
            return Piece::EncodedWord;
        }
        let ends = |o: u8| b" \t\r\n,;:<(\"[".contains(&o);
        let length = self.octets[start..].iter().take_while(|&&o| !ends(o)).count();
        // A separator that has no meaning where it stands is a word; it will not be an address.
        self.at += length.max(1);
        Piece::Word(&self.octets[start..self.at])
    }

    fn comment(&mut self) -> Result<(), ListFault> {
        let mut depth = 0_usize;
        while let Some(octet) = self.take() {
            match octet {
                b'\\' => {
                    self.take();
                }
                b'(' => depth += 1,
                b')' if depth == 1 => return Ok(()),
                b')' => depth -= 1,
                _ => {}
            }
        }
        Err(ListFault::Unclosed("( comment"))
    }

    /// From the opening octet to `close`, both included; folds inside are undone.
    fn delimited(&mut self, close: u8, what: &'static str) -> Result<Vec<u8>, ListFault> {
        let mut text = Vec::new();
        while let Some(octet) = self.take() {
            if !matches!(octet, b'\r' | b'\n') {
                text.push(octet);
            }
            if octet == b'\\' {
                text.extend(self.take());
            } else if octet == close && text.len() > 1 {
                return Ok(text);
            }
        }
        Err(ListFault::Unclosed(what))
    }

    /// What stands in angle brackets, without blanks and comments, and where they end.
    fn angle(&mut self) -> Result<(Vec<u8>, usize), ListFault> {
        self.take();
        let mut inside = Vec::new();
        loop {
            match self.peek() {
                None => return Err(ListFault::Unclosed("< bracket")),
                Some(b'>') => {
                    let end = self.at;
                    self.take();
                    return Ok((inside, end));
                }
                Some(b'"') => inside.extend(self.delimited(b'"', "quoted string")?),
                Some(b'(') => self.comment()?,
                Some(b' ' | b'\t' | b'\r' | b'\n') => {
                    self.take();
                }
                Some(octet) => {
                    self.take();
                    inside.push(octet);
                }
            }
        }
    }
}

/// How many octets the encoded word that begins here has (RFC 2047 section 2). Its text may hold
/// separators, though it should not.
fn encoded_word(octets: &[u8]) -> Option<usize> {
    let line = octets.strip_prefix(b"=?")?;
    let mut question_marks = 0;
    for (place, &octet) in line.iter().enumerate().take(1000) {
        match octet {
            b' ' | b'\t' | b'\r' | b'\n' => return None,
            b'?' if question_marks == 2 => {
                return (line.get(place + 1) == Some(&b'=')).then_some(place + 4);
            }
            b'?' => question_marks += 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(value: &str) -> Vec<String> {
        parse(value.as_bytes()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_without_a_domain_are_addresses_where_that_is_wanted() {
        for (value, expected) in [
            ("root", vec!["root@"]),
            ("root (Cron Daemon)", vec!["root@"]),
            ("Cron Daemon <root>, a@b.example", vec!["root@", "a@b.example"]),
            ("undisclosed-recipients:;", vec![]),
            ("", vec![]),
        ] {
            let found = locate_named(value.as_bytes()).unwrap();
            let shown = found.iter().map(|(named, place)| match named {
                Named::Whole(_) => named.to_string(),
                Named::Bare(_) => {
                    assert_eq!(&value[place.clone()], "root");
                    format!("{named}@")
                }
            });
            assert_eq!(shown.collect::<Vec<_>>(), expected, "{value}");
        }
        for value in ["two words", "a@", "<a b", "<>"] {
            assert!(locate_named(value.as_bytes()).is_err(), "{value}");
        }
    }

    #[test]
    fn one_that_cannot_be_read_takes_no_other_with_it() {
        for (value, expected, count) in [
            ("a@@b.example, good@b.example", "good@b.example", 1),
            ("x <a@@b.example> y <b@b.example>, root, two words", "root", 2),
            ("good@b.example, \"open, a@b.example", "good@b.example", 1),
            ("a@b.example", "a@b.example", 0),
            ("two words", "", 1),
            ("x <a@@b.example> y: b@b.example, c@b.example", "c@b.example", 1),
        ] {
            let (found, faults) = every_named(value.as_bytes());
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!((found.join(" ").as_str(), faults.len()), (expected, count), "{value}");
        }
    }

    #[test]
    fn addresses_are_read_past_all_decoration() {
        for (value, expected) in [
            ("a@b.example", vec!["a@b.example"]),
            (" Ada Lovelace <a@b.example> , c@d.example", vec!["a@b.example", "c@d.example"]),
            ("\"Lovelace, Ada\" <a@b.example>", vec!["a@b.example"]),
            ("=?utf-8?Q?Smith,_J=C3=B6rg?= <a@b.example>", vec!["a@b.example"]),
            (
                "a@b.example (Ada (the \\) first)), (x) c@d.example",
                vec!["a@b.example", "c@d.example"],
            ),
            (
                "friends: a@b.example, C <c@d.example>;, e@f.example",
                vec!["a@b.example", "c@d.example", "e@f.example"],
            ),
            ("undisclosed-recipients:;", vec![]),
            ("", vec![]),
            (" ,, ", vec![]),
            ("a @ b . example", vec!["a@b.example"]),
            ("\"a, b\"@c.example", vec!["\"a, b\"@c.example"]),
            ("<\"x> y\"@c.example>", vec!["\"x> y\"@c.example"]),
            ("<@r1.example,@r2.example:a@b.example>", vec!["a@b.example"]),
            (
                "a@[192.0.2.1], <b@[IPv6:2001:db8::1]>",
                vec!["a@[192.0.2.1]", "b@[IPv6:2001:db8::1]"],
            ),
            ("a@b.example; c@d.example", vec!["a@b.example", "c@d.example"]),
            ("Ada\r\n <a@b.example>,\r\n\tc@d.example", vec!["a@b.example", "c@d.example"]),
            ("grüße@b.example", vec!["grüße@b.example"]),
        ] {
            assert_eq!(texts(value), expected, "{value}");
        }
        assert_eq!(parse(b"J\xf6rg <a@b.example>").unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_address_is_named_with_its_line() {
        for (value, lines_down, words) in [
            ("everybody", 0, "\"everybody\" is not an address"),
            ("a@b.example,\r\n bob at example", 1, "\"bob at example\" is not an address"),
            ("a@b@c", 0, "\"a@b\" is not a local part"),
            ("Ada <a@b.example", 0, "a < bracket is not closed"),
            ("\"Ada <a@b.example>", 0, "a quoted string is not closed"),
            ("a@b.example (Ada", 0, "a ( comment is not closed"),
            ("<>", 0, "has no domain"),
            ("Ada <a@b> <c@d>", 0, "\"c@d\" is not an address"),
            ("<a@b> Ada", 0, "\"Ada\" is not an address"),
            ("a@b c@d", 0, "is not an address"),
            ("a@b>", 0, "is not a label"),
        ] {
            let error = parse(value.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(words), "{value}: {error}");
            assert_eq!(error.lines_down, lines_down, "{value}");
        }
    }

    #[test]
    fn path_is_one_address_or_nobody() {
        assert_eq!(parse_path(b" <> ").unwrap(), ReversePath::Null);
        assert_eq!(parse_path(b"").unwrap(), ReversePath::Null);
        assert_eq!(parse_path(b" Ada <a@b>").unwrap().to_string(), "a@b");
        assert_eq!(parse_path(b"a@b, c@d").unwrap_err().fault, ListFault::NotOne(2));
        assert_eq!(parse_path(b"none:;").unwrap_err().fault, ListFault::NotOne(0));
    }

    #[test]
    fn forty_thousand_brackets_are_read_in_one_pass() {
        let deep = format!("{}{} a@b", "(".repeat(40_000), ")".repeat(40_000));
        assert_eq!(texts(&deep), ["a@b"]);
        assert!(parse("(".repeat(40_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(octets: Vec<u8>) {
            let _ = parse(&octets);
        }

        #[test]
        fn any_text_of_separators_is_read_or_refused(text in "[a@.,;:<>()\"\\\\\\[\\] \n=?Q]{0,40}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn addresses_written_in_brackets_come_back(
            locals in prop::collection::vec("[a-z+]{1,9}|\"[ -!#-\\[\\]-~]{0,9}\"", 1..5),
            name in "[A-Za-z ]{0,12}",
        ) {
            let mailboxes: Vec<_> =
                locals.iter().map(|l| format!("{l}@x.example")).collect();
            let list: Vec<_> = mailboxes.iter().map(|m| format!("{name}<{m}>")).collect();
            prop_assert_eq!(texts(&list.join(",\r\n ")), mailboxes);
        }
    }
}
