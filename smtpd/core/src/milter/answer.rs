//! What a milter answers: its verdict, and what it wants changed.

use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::status::{Class, EnhancedCode, ReplyCode};

use super::MilterError;
use super::offer::Agreed;

/// The most octets of the words that a client is told.
const WORDS_OCTETS_MAX: usize = 400;
/// The most octets of a reason for a hold.
const REASON_OCTETS_MAX: usize = 250;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has nothing to say yet, or wants more time.
    Progress,
    /// It has decided something.
    Verdict(Verdict),
    /// It wants something changed; more answers follow.
    Change(Change),
}

/// What a milter decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Go on without asking it any more: about this message, or the session.
    Accept,
    /// It needs no more pieces of the body.
    Skip,
    /// No, in our words.
    Reject,
    /// Not now, in our words.
    Defer,
    /// No or not now, in its own words.
    Reply(Reply),
    /// Say yes, and forget the message.
    Discard,
    /// End the session.
    Close,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The code: 4xx or 5xx.
    pub code: ReplyCode,
    /// The enhanced code, of the same class.
    pub enhanced: EnhancedCode,
    /// The words: one line of printable ASCII.
    pub words: String,
}

/// Something that is to be changed about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A field at the end of the header.
    AddHeader(Field),
    /// A field before the one with this place, from 0.
    InsertHeader(u32, Field),
    /// The field of this name with this number, from 1: another value, or none.
    ChangeHeader(u32, Field),
    /// A piece of another body; the first one takes the place of the old one.
    Body(Vec<u8>),
    /// One more recipient.
    AddRecipient(Mailbox),
    /// One less.
    DeleteRecipient(Mailbox),
    /// Another sender.
    Sender(ReversePath),
    /// The message is to be held.
    Hold(String),
}

/// A field as a milter words it: the value's folds are told by LF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name: printable ASCII without a colon.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Answer {
    /// Reads an answer. Changes have their place behind the end of the message alone.
    ///
    /// # Errors
    ///
    /// [`MilterError`].
    pub fn read(letter: u8, content: &[u8], agreed: &Agreed) -> Result<Self, MilterError> {
        let verdict = |verdict| Ok(Self::Verdict(verdict));
        match letter {
            b'p' => Ok(Self::Progress),
            b'c' => verdict(Verdict::Continue),
            b'a' => verdict(Verdict::Accept),
            b's' => verdict(Verdict::Skip),
            b'r' => verdict(Verdict::Reject),
            b't' => verdict(Verdict::Defer),
            b'd' => verdict(Verdict::Discard),
            b'f' | b'4' => verdict(Verdict::Close),
            b'y' => {
                let reply = Reply::read(content).ok_or(MilterError::Form('y'))?;
                verdict(Verdict::Reply(reply))
            }
            _ => Change::read(letter, content, agreed).map(Self::Change),
        }
    }
}

impl Reply {
    /// `550 5.7.1 words`; of several lines the first. A percent sign comes doubled.
    fn read(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text(content)?).ok()?;
        let line = text.split(['\r', '\n']).next()?;
        let (code, rest) = line.split_at_checked(3)?;
        let digits = code.bytes().all(|octet| octet.is_ascii_digit());
        let code = ReplyCode::try_from(code.parse::<u16>().ok().filter(|_| digits)?).ok()?;
        let class = code.class();
        if !matches!(class, Class::Transient | Class::Permanent) {
            return None;
        }
        let rest = rest.strip_prefix([' ', '-']).unwrap_or(rest).trim();
        let said = rest.split_once(' ').unwrap_or((rest, ""));
        let enhanced = EnhancedCode::parse(said.0).ok().filter(|it| it.class() == class);
        let (enhanced, words) = match enhanced {
            Some(enhanced) => (enhanced, said.1),
            None if class == Class::Transient => (EnhancedCode::transient(7, 1), rest),
            None => (EnhancedCode::permanent(7, 1), rest),
        };
        let plain = |octet: &char| matches!(octet, ' '..='~');
        let words: String = words.replace("%%", "%").chars().filter(plain).collect();
        let words = words.get(..words.len().min(WORDS_OCTETS_MAX))?.trim().to_owned();
        Some(Self { code, enhanced, words })
    }
}

impl Change {
    fn read(letter: u8, content: &[u8], agreed: &Agreed) -> Result<Self, MilterError> {
        let sign = char::from(letter);
        let form = || MilterError::Form(sign);
        let (action, change) = match letter {
            b'h' => (0x01, field(content).map(Self::AddHeader)),
            b'i' => (0x01, numbered(content).map(|(at, field)| Self::InsertHeader(at, field))),
            b'm' => (0x10, numbered(content).map(|(at, field)| Self::ChangeHeader(at, field))),
            b'b' => (0x02, Some(Self::Body(content.to_vec()))),
            b'+' => (0x04, mailbox(content).map(Self::AddRecipient)),
            // What it says of the recipient behind the address is for a host that we are not.
            b'2' => (0x80, mailbox(content).map(Self::AddRecipient)),
            b'-' => (0x08, mailbox(content).map(Self::DeleteRecipient)),
            b'e' => (0x40, sender(content).map(Self::Sender)),
            b'q' => (0x20, reason(content).map(Self::Hold)),
            _ => return Err(MilterError::Unexpected(sign)),
        };
        if !agreed.may(action) {
            return Err(MilterError::NotAgreed(sign));
        }
        change.ok_or_else(form)
    }
}

/// The text up to its NUL, which must be there.
fn text(content: &[u8]) -> Option<&[u8]> {
    content.split(|octet| *octet == 0).next().filter(|text| text.len() < content.len())
}

fn field(content: &[u8]) -> Option<Field> {
    let name = text(content)?;
    let value = text(content.get(name.len() + 1..)?)?;
    let plain = |octet: &u8| (33..=126).contains(octet) && *octet != b':';
    let good = !name.is_empty() && name.len() <= 255 && name.iter().all(plain);
    good.then(|| Field { name: name.to_vec(), value: value.to_vec() })
}

fn numbered(content: &[u8]) -> Option<(u32, Field)> {
    let (number, rest) = content.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), field(rest)?))
}

/// The address of an argument, without its angle brackets.
fn address(content: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text(content)?).ok()?.trim();
    match text.strip_prefix('<') {
        Some(inner) => inner.strip_suffix('>'),
        None => Some(text),
    }
}

fn mailbox(content: &[u8]) -> Option<Mailbox> {
    Mailbox::parse(address(content)?).ok()
}

fn sender(content: &[u8]) -> Option<ReversePath> {
    ReversePath::parse(address(content)?).ok()
}

fn reason(content: &[u8]) -> Option<String> {
    let words = String::from_utf8_lossy(text(content)?);
    let plain = |it: &char| !it.is_control();
    Some(words.chars().filter(plain).take(REASON_OCTETS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agreed(actions: u32) -> Agreed {
        let words = [6, actions, 0];
        let content: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_be_bytes()).collect();
        Agreed::read(b'O', &content).unwrap()
    }

    fn read(letter: u8, content: &[u8]) -> Result<Answer, MilterError> {
        Answer::read(letter, content, &agreed(0xFF))
    }

    fn reply(content: &[u8]) -> Option<String> {
        match read(b'y', content) {
            Ok(Answer::Verdict(Verdict::Reply(Reply { code, enhanced, words }))) => {
                Some(format!("{code} {enhanced} {words}"))
            }
            _ => None,
        }
    }

    #[test]
    fn replies_in_its_own_words_are_one_line_of_a_refusal() {
        for (said, told) in [
            (&b"550 5.7.1 spam, 99%% sure\0"[..], Some("550 5.7.1 spam, 99% sure")),
            (b"451 4.7.1 later\0", Some("451 4.7.1 later")),
            (b"554 no\0", Some("554 5.7.1 no")),
            (b"421 4.3.0 closing\0", Some("421 4.3.0 closing")),
            (b"550 4.7.1 mixed\0", Some("550 5.7.1 4.7.1 mixed")),
            (b"550-5.7.1 one\r\n550 5.7.1 two\0", Some("550 5.7.1 one")),
            (b"550 5.7.1 a\x07b\xC3\xA9\0", Some("550 5.7.1 ab")),
            (b"550\0", Some("550 5.7.1 ")),
            (b"250 2.0.0 fine\0", None),
            (b"354 go\0", None),
            (b"55\0", None),
            (b"xyz no\0", None),
            (b"550 5.7.1 no end", None),
        ] {
            assert_eq!(reply(said).as_deref(), told, "{}", String::from_utf8_lossy(said));
        }
    }

    #[test]
    fn changes_are_read_with_their_parts() {
        let field = |name: &str, value: &str| Field { name: name.into(), value: value.into() };
        let change = |letter, content: &[u8]| match read(letter, content) {
            Ok(Answer::Change(change)) => Some(change),
            _ => None,
        };
        assert_eq!(change(b'h', b"X-A\0b\n c\0"), Some(Change::AddHeader(field("X-A", "b\n c"))));
        let inserted = Change::InsertHeader(1, field("X", ""));
        assert_eq!(change(b'i', b"\0\0\0\x01X\0\0"), Some(inserted));
        let changed = Change::ChangeHeader(2, field("X", "y"));
        assert_eq!(change(b'm', b"\0\0\0\x02X\0y\0"), Some(changed));
        let to = Mailbox::parse("a@b.test").unwrap();
        assert_eq!(change(b'+', b"<a@b.test>\0"), Some(Change::AddRecipient(to.clone())));
        assert_eq!(
            change(b'2', b"<a@b.test>\0NOTIFY=NEVER\0"),
            Some(Change::AddRecipient(to.clone()))
        );
        assert_eq!(change(b'-', b"a@b.test\0"), Some(Change::DeleteRecipient(to)));
        assert_eq!(change(b'e', b"<>\0"), Some(Change::Sender(ReversePath::Null)));
        assert_eq!(change(b'q', b"odd\r\n\0"), Some(Change::Hold("odd".to_owned())));
        for (letter, content) in [
            (b'h', &b"X\0no end"[..]),
            (b'h', b"X y\0v\0"),
            (b'h', b"\0v\0"),
            (b'm', b"\0\0X\0v\0"),
            (b'+', b"<nobody\0"),
            (b'+', b"<a b@c.test>\0"),
            (b'e', b"a@b@\0"),
        ] {
            assert_eq!(read(letter, content), Err(MilterError::Form(char::from(letter))));
        }
    }

    #[test]
    fn what_was_not_agreed_on_is_refused() {
        let only_fields = agreed(0x01);
        assert!(Answer::read(b'h', b"X\0y\0", &only_fields).is_ok());
        let no = Answer::read(b'b', b"body", &only_fields);
        assert_eq!(no, Err(MilterError::NotAgreed('b')));
        assert_eq!(read(b'l', b""), Err(MilterError::Unexpected('l')));
        assert_eq!(read(0xFF, b""), Err(MilterError::Unexpected('ÿ')));
    }

    proptest! {
        #[test]
        fn any_octets_are_an_answer_or_an_error(letter: u8, content: Vec<u8>) {
            if let Ok(Answer::Verdict(Verdict::Reply(reply))) = read(letter, &content) {
                prop_assert!(reply.words.bytes().all(|octet| (b' '..=b'~').contains(&octet)));
                prop_assert_eq!(reply.code.class(), reply.enhanced.class());
            }
        }
    }
}
