//! Requests to a directory and its answers (RFC 4511 section 4).

use mailroot_common::config::ldap::LdapFilter;
use mailroot_common::config::ldap::filter::{Comparison, Node};

use super::ber::{BerError, Reader, Writer, tag};

/// The extended operation that begins TLS (RFC 4511 section 4.14).
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
/// The most characters of a directory's words that are kept.
const WORDS_MAX: usize = 300;

/// Tags of operations and their parts.
mod op {
    pub(super) const BIND: u8 = 0x60;
    pub(super) const BIND_ANSWER: u8 = 0x61;
    pub(super) const UNBIND: u8 = 0x42;
    pub(super) const SEARCH: u8 = 0x63;
    pub(super) const ENTRY: u8 = 0x64;
    pub(super) const DONE: u8 = 0x65;
    pub(super) const REFERENCE: u8 = 0x73;
    pub(super) const EXTENDED: u8 = 0x77;
    pub(super) const EXTENDED_ANSWER: u8 = 0x78;
}

/// Codes of results (RFC 4511 appendix A).
pub mod code {
    /// It was done.
    pub const SUCCESS: u32 = 0;
    /// There are more entries than were asked for.
    pub const SIZE_LIMIT: u32 = 4;
    /// Another server may know.
    pub const REFERRAL: u32 = 10;
    /// The bind goes on.
    pub const BIND_GOES_ON: u32 = 14;
    /// A rule of the directory forbids it, such as one about too many wrong passwords.
    pub const CONSTRAINT: u32 = 19;
    /// There is no such entry.
    pub const NO_SUCH_OBJECT: u32 = 32;
    /// The distinguished name is none.
    pub const INVALID_DN: u32 = 34;
    /// The entry has nothing that it could be bound by.
    pub const INAPPROPRIATE: u32 = 48;
    /// The name or the password is wrong.
    pub const INVALID_CREDENTIALS: u32 = 49;
    /// It has too much to do.
    pub const BUSY: u32 = 51;
    /// It is about to end, or does not answer for a part that has ended.
    pub const UNAVAILABLE: u32 = 52;
    /// It will not do that, such as bind as an account that is locked or not active.
    pub const UNWILLING: u32 = 53;
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search<'a> {
    /// Where: a distinguished name.
    pub base: &'a str,
    /// What: entries below it that the filter finds, or without one the entry itself.
    pub filter: Option<&'a LdapFilter>,
    /// Which attributes are wanted.
    pub attributes: &'a [&'a str],
    /// How many entries are wanted.
    pub entries: u32,
    /// How long the server may take, in seconds.
    pub seconds: u32,
}

fn message(id: u32, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::default();
    out.inside(tag::SEQUENCE, |out| {
        out.number(tag::INTEGER, id);
        write(out);
    });
    out.into_octets()
}

/// A simple bind; an empty name and password are an anonymous one.
#[must_use]
pub fn bind(id: u32, name: &str, password: &str) -> Vec<u8> {
    message(id, |out| {
        out.inside(op::BIND, |out| {
            out.number(tag::INTEGER, 3);
            out.octets(tag::OCTETS, name.as_bytes());
            out.octets(0x80, password.as_bytes());
        });
    })
}

/// A bind by a mechanism of SASL (RFC 4513 section 5.2), one of as many as the mechanism needs.
#[must_use]
pub fn sasl_bind(id: u32, mechanism: &str, credentials: &[u8]) -> Vec<u8> {
    message(id, |out| {
        out.inside(op::BIND, |out| {
            out.number(tag::INTEGER, 3);
            out.octets(tag::OCTETS, &[]);
            out.inside(0xa3, |out| {
                out.octets(tag::OCTETS, mechanism.as_bytes());
                out.octets(tag::OCTETS, credentials);
            });
        });
    })
}

/// The wish to go on under TLS.
#[must_use]
pub fn start_tls(id: u32) -> Vec<u8> {
    message(id, |out| out.inside(op::EXTENDED, |out| out.octets(0x80, START_TLS)))
}

/// The end of a conversation.
#[must_use]
pub fn unbind(id: u32) -> Vec<u8> {
    message(id, |out| out.octets(op::UNBIND, &[]))
}

/// A search. Aliases of the directory are followed by the directory; referrals by nobody.
#[must_use]
pub fn search(id: u32, wanted: &Search<'_>) -> Vec<u8> {
    const BASE: u32 = 0;
    const SUBTREE: u32 = 2;
    const ALWAYS: u32 = 3;
    message(id, |out| {
        out.inside(op::SEARCH, |out| {
            out.octets(tag::OCTETS, wanted.base.as_bytes());
            out.number(tag::ENUMERATED, if wanted.filter.is_some() { SUBTREE } else { BASE });
            out.number(tag::ENUMERATED, ALWAYS);
            out.number(tag::INTEGER, wanted.entries);
            out.number(tag::INTEGER, wanted.seconds);
            out.boolean(tag::BOOLEAN, false);
            match wanted.filter {
                Some(LdapFilter(node)) => write_filter(out, node),
                None => out.octets(0x87, b"objectClass"),
            }
            out.inside(tag::SEQUENCE, |out| {
                for name in wanted.attributes {
                    out.octets(tag::OCTETS, name.as_bytes());
                }
            });
        });
    })
}

/// Writes a filter that was filled (RFC 4511 section 4.5.1.7). Its depth was bounded when it was read.
fn write_filter(out: &mut Writer, node: &Node) {
    let all = |out: &mut Writer, nodes: &[Node]| nodes.iter().for_each(|it| write_filter(out, it));
    match node {
        Node::And(nodes) => out.inside(0xa0, |out| all(out, nodes)),
        Node::Or(nodes) => out.inside(0xa1, |out| all(out, nodes)),
        Node::Not(node) => out.inside(0xa2, |out| write_filter(out, node)),
        Node::Compare(how, attribute, value) => {
            let tag = match how {
                Comparison::Equal => 0xa3,
                Comparison::AtLeast => 0xa5,
                Comparison::AtMost => 0xa6,
                Comparison::About => 0xa8,
            };
            out.inside(tag, |out| {
                out.octets(tag::OCTETS, attribute.as_bytes());
                out.octets(tag::OCTETS, &value.octets());
            });
        }
        Node::Present(attribute) => out.octets(0x87, attribute.as_bytes()),
        Node::Pieces { attribute, first, within, last } => out.inside(0xa4, |out| {
            out.octets(tag::OCTETS, attribute.as_bytes());
            out.inside(tag::SEQUENCE, |out| {
                first.iter().for_each(|value| out.octets(0x80, &value.octets()));
                within.iter().for_each(|value| out.octets(0x81, &value.octets()));
                last.iter().for_each(|value| out.octets(0x82, &value.octets()));
            });
        }),
        Node::Rule { attribute, with_dn, rule, value } => out.inside(0xa9, |out| {
            rule.iter().for_each(|rule| out.octets(0x81, rule.as_bytes()));
            attribute.iter().for_each(|name| out.octets(0x82, name.as_bytes()));
            out.octets(0x83, &value.octets());
            if *with_dn {
                out.boolean(0x84, true);
            }
        }),
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// One of [`code`], or another.
    pub code: u32,
    /// What the directory says about it, in one line of printable characters.
    pub words: String,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.code {
            code::SUCCESS => "success",
            1 => "operations error",
            2 => "protocol error",
            3 => "time limit exceeded",
            code::SIZE_LIMIT => "size limit exceeded",
            7 => "authentication method not supported",
            8 => "stronger authentication required",
            code::REFERRAL => "referral to another server, which is not followed",
            13 => "confidentiality required",
            code::BIND_GOES_ON => "the bind goes on",
            code::NO_SUCH_OBJECT => "no such entry",
            code::INVALID_DN => "invalid distinguished name",
            code::CONSTRAINT => "constraint violation",
            code::INAPPROPRIATE => "inappropriate authentication",
            code::INVALID_CREDENTIALS => "wrong name or password",
            50 => "insufficient access rights",
            code::BUSY => "busy",
            code::UNAVAILABLE => "unavailable",
            53 => "unwilling to perform",
            _ => "error",
        };
        write!(f, "{name} ({})", self.code)?;
        if !self.words.is_empty() {
            write!(f, ": {}", self.words)?;
        }
        Ok(())
    }
}

/// An entry as the directory gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its distinguished name.
    pub dn: String,
    /// Its attributes, each with its values. A name may have options behind a semicolon.
    pub attributes: Vec<(String, Vec<Vec<u8>>)>,
}

/// What a directory says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The bind ended or goes on, with what the mechanism of SASL says.
    Bind(Ended, Vec<u8>),
    /// An entry was found.
    Entry(Entry),
    /// Other servers may have more entries.
    Reference,
    /// The search ended.
    Done(Ended),
    /// An extended operation ended.
    Extended(Ended),
    /// Something else.
    Other,
}

/// Reads one whole message: which request it answers, and what it says. Nothing was asked for by 0: it
/// announces the end of the connection.
///
/// # Errors
///
/// [`BerError`].
pub fn read(octets: &[u8]) -> Result<(u32, Answer), BerError> {
    let mut message = Reader::new(octets).inside(tag::SEQUENCE)?;
    let id = message.number(tag::INTEGER)?;
    let (tag, content) = message.any()?;
    let content = Reader::new(content);
    let answer = match tag {
        op::BIND_ANSWER => Answer::Bind(read_end(content)?, read_credentials(content)?),
        op::ENTRY => Answer::Entry(read_entry(content)?),
        op::REFERENCE => Answer::Reference,
        op::DONE => Answer::Done(read_end(content)?),
        op::EXTENDED_ANSWER => Answer::Extended(read_end(content)?),
        _ => Answer::Other,
    };
    Ok((id, answer))
}

fn read_end(mut content: Reader<'_>) -> Result<Ended, BerError> {
    let code = content.number(tag::ENUMERATED)?;
    content.octets(tag::OCTETS)?;
    let words = String::from_utf8_lossy(content.octets(tag::OCTETS)?).into_owned();
    let is_plain = |c: &char| !c.is_control();
    Ok(Ended { code, words: words.chars().filter(is_plain).take(WORDS_MAX).collect() })
}

/// What stands behind the end of a bind for the mechanism.
fn read_credentials(mut content: Reader<'_>) -> Result<Vec<u8>, BerError> {
    while !content.is_empty() {
        if let (0x87, credentials) = content.any()? {
            return Ok(credentials.to_vec());
        }
    }
    Ok(Vec::new())
}

fn read_entry(mut content: Reader<'_>) -> Result<Entry, BerError> {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let dn = text(content.octets(tag::OCTETS)?);
    let mut all = content.inside(tag::SEQUENCE)?;
    let mut attributes = Vec::new();
    while !all.is_empty() {
        let mut one = all.inside(tag::SEQUENCE)?;
        let name = text(one.octets(tag::OCTETS)?);
        let mut set = one.inside(tag::SET)?;
        let mut values = Vec::new();
        while !set.is_empty() {
            values.push(set.octets(tag::OCTETS)?.to_vec());
        }
        attributes.push((name, values));
    }
    Ok(Entry { dn, attributes })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use mailroot_common::address::Mailbox;
    use proptest::prelude::*;

    use super::*;

    /// The octets of a message in hexadecimal digits.
    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    #[test]
    fn requests_are_as_the_standard_has_them() {
        assert_eq!(hex(&bind(1, "", "")), "300c020101600702010304008000");
        assert_eq!(hex(&bind(2, "a", "b")), "300e0201026009020103040161800162");
        assert_eq!(hex(&sasl_bind(2, "G", b"t")), "3012020102600d0201030400a306040147040174");
        assert_eq!(
            hex(&start_tls(1)),
            "301d02010177188016312e332e362e312e342e312e313436362e3230303337"
        );
        assert_eq!(hex(&unbind(3)), "30050201034200");
        let filter = LdapFilter::parse("(&(m={address})(c=a*b*))").unwrap();
        let filter = filter.fill(&Mailbox::parse("*@b.c").unwrap());
        let wanted = Search {
            base: "o=x",
            filter: Some(&filter),
            attributes: &["m"],
            entries: 2,
            seconds: 5,
        };
        let octets = "3039 020104 6334 04036f3d78 0a0102 0a0103 020102 020105 010100 \
                      a019 a30a 04016d 04052a40622e63 a40b 040163 3006 800161 810162 3003 04016d";
        assert_eq!(hex(&search(4, &wanted)), octets.replace(' ', ""));
    }

    #[test]
    fn answers_are_read() {
        let octets = |text: &str| -> Vec<u8> {
            let digits: Vec<u8> = text.bytes().filter(|o| *o != b' ').collect();
            let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
            digits.chunks(2).map(|digits| pair(digits).unwrap()).collect()
        };
        let (id, answer) = read(&octets("300c 020101 6107 0a0100 0400 0400")).unwrap();
        let plain = Ended { code: 0, words: String::new() };
        assert_eq!((id, answer), (1, Answer::Bind(plain, Vec::new())));
        let (_, answer) = read(&octets("3010 020101 610b 0a010e 0400 0400 8702 6162")).unwrap();
        let on = Ended { code: code::BIND_GOES_ON, words: String::new() };
        assert_eq!(answer, Answer::Bind(on, b"ab".to_vec()));
        let (_, answer) = read(&octets("300e 020101 6109 0a0131 0400 04026f0a")).unwrap();
        let Answer::Bind(ended, _) = answer else { panic!("{answer:?}") };
        assert_eq!(ended.to_string(), "wrong name or password (49): o");
        let entry = "301b 020102 6416 04036f3d78 300f 300d 04046d61696c 3105 0401 61 0400";
        let (_, answer) = read(&octets(entry)).unwrap();
        let attributes = vec![("mail".to_owned(), vec![b"a".to_vec(), Vec::new()])];
        assert_eq!(answer, Answer::Entry(Entry { dn: "o=x".to_owned(), attributes }));
        let (id, answer) = read(&octets("3005 020100 7300")).unwrap();
        assert_eq!((id, answer), (0, Answer::Reference));
        assert_eq!(read(&octets("3003 020100")), Err(BerError::Short));
    }

    proptest! {
        #[test]
        fn no_octets_are_too_strange_to_be_read(mut octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _read = read(&octets);
            // As an entry that goes wrong somewhere within.
            let head = [0x30, 0x7f, 2, 1, 1, 0x64];
            octets.splice(0..0, head);
            octets.resize(0x81, 0);
            let _read = read(&octets);
        }
    }
}
