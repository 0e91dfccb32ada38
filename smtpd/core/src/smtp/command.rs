//! One command line, read by the grammar of RFC 5321 and of the extensions we offer.
//!
//! In: a line without its CRLF. Out: a [`Command`], or a [`Complaint`] that says which refusal it
//! earns. Whether the command is in order is [`super::server`]'s business.
//!
//! Strict where two readers could disagree: the last `@` outside quotes divides, quotes stay part
//! of a local part, a source route is checked and dropped so that its final mailbox decides, an
//! octet that no command has makes the line worthless. Lenient in three places where devices of
//! every age are wrong in one harmless way: a blank after the colon of MAIL and RCPT, missing
//! angle brackets, and an address without a domain, which gets the default domain.

mod mail;
mod parameters;

use std::fmt;

use mailroot_common::address::{Domain, Host, LocalPart, Mailbox, ReversePath};

use self::mail::MailParameter;
use self::parameters::{Parameters, Seen};
use super::etrn::{self, Etrn};
use super::extension::{Extension, Offer};
use super::refusal::Refusal;
use crate::queue::envelope::{BodyKind, Notify, Ret};
use crate::queue::wishes::{By, HoldBack, Priority};

/// A command that may be executed if it is in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// HELO with the client's name.
    Helo(&'a str),
    /// EHLO with the client's name.
    Ehlo(&'a str),
    /// MAIL.
    Mail(Mail),
    /// RCPT.
    Rcpt(Rcpt),
    /// DATA.
    Data,
    /// BDAT (RFC 3030).
    Bdat(Chunk),
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// HELP.
    Help,
    /// VRFY.
    Vrfy,
    /// ETRN (RFC 1985).
    Etrn(Etrn),
    /// ATRN (RFC 2645) with its domains, or TURN (RFC 821), which names none.
    Reverse(Vec<Domain>),
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954).
    Auth(Auth<'a>),
    /// QUIT.
    Quit,
    /// XCLIENT with its argument, not read: the host tells for whom it speaks.
    Xclient(&'a str),
    /// XQUERY: the client wants to ask about its own mail, in another protocol.
    Query,
    /// VERB: the client stays to see what becomes of its messages.
    Verbose,
}

/// AUTH with its arguments, not decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// The mechanism's name.
    pub mechanism: &'a str,
    /// What the client says at once.
    pub initial: Option<&'a str>,
}

/// What is said may be a password.
impl fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Auth").field(&self.mechanism).finish()
    }
}

/// MAIL with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The reverse-path.
    pub sender: ReversePath,
    /// SIZE: how large the message is said to be, in octets; zero is "not known" (RFC 1870).
    pub size: u64,
    /// BODY (RFC 6152, RFC 3030).
    pub body: BodyKind,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET (RFC 3461).
    pub ret: Option<Ret>,
    /// ENVID as it came, in xtext (RFC 3461).
    pub envid: Option<String>,
    /// BY (RFC 2852).
    pub by: Option<By>,
    /// HOLDFOR or HOLDUNTIL (RFC 4865).
    pub hold: Option<HoldBack>,
    /// MT-PRIORITY (RFC 6710).
    pub priority: Priority,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
}

/// RCPT with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcpt {
    /// The forward-path without a source route.
    pub mailbox: Mailbox,
    /// Whether the command is ASCII; if not, MAIL must have said SMTPUTF8.
    pub ascii: bool,
    /// NOTIFY (RFC 3461).
    pub notify: Option<Notify>,
    /// ORCPT as it came, `type;xtext` (RFC 3461).
    pub orcpt: Option<String>,
}

/// The argument of BDAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Octets that follow the command line.
    pub octets: u64,
    /// Whether the message is complete with them.
    pub last: bool,
}

/// A line that cannot be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint<'a> {
    /// What to answer.
    pub refusal: Refusal,
    /// What it is about, such as a parameter's name.
    pub about: Option<&'a str>,
}

impl From<Refusal> for Complaint<'_> {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, about: None }
    }
}

/// What a virtual server's configuration adds to the grammar.
#[derive(Clone, Debug)]
pub struct Grammar {
    /// Parameters of extensions that are not offered are not known.
    pub offer: Offer,
    /// The domain of addresses that have none.
    pub default_domain: Domain,
    /// Whether clients may log in: without that AUTH is not known.
    pub auth: bool,
    /// Whether clients may ask about their own mail: without that XQUERY and VERB are not known.
    pub inquiries: bool,
}

/// Octets of ORCPT (RFC 3461 section 4.2) as it came.
const ORCPT_OCTETS_MAX: usize = 500;
/// RFC 5321 section 4.5.3.1.2.
const HELLO_OCTETS_MAX: usize = 255;
/// The longest verb, and one octet more so that a longer one does not match.
const VERB_OCTETS_MAX: usize = 9;

/// Reads one line.
///
/// # Errors
///
/// A [`Complaint`] with the refusal to answer.
pub fn parse<'a>(line: &'a [u8], grammar: &Grammar) -> Result<Command<'a>, Complaint<'a>> {
    // RFC 5321 section 4.1.1: blanks before the CRLF are tolerated.
    let text = std::str::from_utf8(line).map_err(|_| Refusal::BadOctet)?.trim_end_matches(BLANK);
    if text.bytes().any(|octet| octet.is_ascii_control()) {
        return Err(Refusal::BadOctet.into());
    }
    let (verb, argument) = text.split_once(' ').unwrap_or((text, ""));
    let argument = argument.trim_start_matches(' ');
    let mut upper = [0; VERB_OCTETS_MAX];
    let upper = upper.get_mut(..verb.len()).ok_or(Refusal::UnknownCommand)?;
    upper.copy_from_slice(verb.as_bytes());
    upper.make_ascii_uppercase();
    match &*upper {
        b"MAIL" => mail(argument, grammar).map(Command::Mail),
        b"RCPT" => rcpt(argument, grammar).map(Command::Rcpt),
        b"DATA" => alone(argument, Command::Data),
        b"BDAT" => chunk(argument).map(Command::Bdat),
        b"RSET" => alone(argument, Command::Rset),
        b"QUIT" => alone(argument, Command::Quit),
        b"XCLIENT" => Ok(Command::Xclient(argument)),
        b"XQUERY" if grammar.inquiries => alone(argument, Command::Query),
        b"VERB" if grammar.inquiries => alone(argument, Command::Verbose),
        b"NOOP" => Ok(Command::Noop),
        b"EHLO" => Ok(Command::Ehlo(parse_hello(argument)?)),
        b"HELO" => Ok(Command::Helo(parse_hello(argument)?)),
        b"HELP" => Ok(Command::Help),
        b"VRFY" if argument.is_empty() => Err(Refusal::ArgumentMissing.into()),
        b"VRFY" => Ok(Command::Vrfy),
        b"ETRN" if grammar.offer.has(Extension::Etrn) => etrn(argument).map(Command::Etrn),
        b"ATRN" if grammar.offer.has(Extension::Atrn) => atrn(argument),
        b"TURN" if grammar.offer.has(Extension::Turn) => {
            alone(argument, Command::Reverse(Vec::new()))
        }
        b"STARTTLS" => alone(argument, Command::StartTls),
        b"AUTH" if grammar.auth => auth(argument),
        b"EXPN" | b"AUTH" | b"ETRN" | b"TURN" | b"ATRN" | b"SEND" | b"SOML" | b"SAML" => {
            Err(Refusal::NotOffered.into())
        }
        // A browser or a client of another protocol was lured to us; its next lines may be mail
        // that somebody else has written.
        b"GET" | b"POST" | b"PUT" | b"HEAD" | b"DELETE" | b"OPTIONS" | b"CONNECT" | b"PATCH"
        | b"TRACE" => Err(Refusal::OtherProtocol.into()),
        _ => Err(Refusal::UnknownCommand.into()),
    }
}

const BLANK: [char; 2] = [' ', '\t'];

fn alone<'a>(argument: &str, command: Command<'a>) -> Result<Command<'a>, Complaint<'a>> {
    if argument.is_empty() { Ok(command) } else { Err(Refusal::NoArgument.into()) }
}

fn auth(argument: &str) -> Result<Command<'_>, Complaint<'_>> {
    if argument.is_empty() {
        return Err(Refusal::ArgumentMissing.into());
    }
    let (mechanism, initial) = match argument.split_once(' ') {
        Some((mechanism, initial)) => (mechanism, Some(initial.trim_start_matches(' '))),
        None => (argument, None),
    };
    if initial.is_some_and(|text| text.is_empty() || text.contains(' ')) {
        return Err(Refusal::Syntax.into());
    }
    Ok(Command::Auth(Auth { mechanism, initial }))
}

fn etrn(argument: &str) -> Result<Etrn, Complaint<'_>> {
    if argument.is_empty() {
        return Err(Refusal::ArgumentMissing.into());
    }
    Etrn::parse(argument).ok_or_else(|| Refusal::BadNode.into())
}

fn atrn(argument: &str) -> Result<Command<'_>, Complaint<'_>> {
    etrn::atrn_domains(argument).map(Command::Reverse).ok_or_else(|| Refusal::BadDomains.into())
}

/// One word that can stand in a Received field. The grammar asks for a domain or an address
/// literal; devices send all sorts of names, and nothing is decided by them.
pub(super) fn parse_hello(argument: &str) -> Result<&str, Refusal> {
    let odd = |octet: u8| !octet.is_ascii_graphic() || b"()<>\"\\,;".contains(&octet);
    if argument.is_empty() || argument.len() > HELLO_OCTETS_MAX || argument.bytes().any(odd) {
        return Err(Refusal::BadHello);
    }
    Ok(argument)
}

fn chunk(argument: &str) -> Result<Chunk, Complaint<'_>> {
    let (number, rest) = argument.split_once(' ').unwrap_or((argument, ""));
    let rest = rest.trim_start_matches(' ');
    let last = rest.eq_ignore_ascii_case("LAST");
    if number.is_empty()
        || !number.bytes().all(|o| o.is_ascii_digit())
        || !(last || rest.is_empty())
    {
        return Err(Refusal::BadChunkSize.into());
    }
    let octets = number.parse().map_err(|_| Refusal::ChunkTooLarge)?;
    Ok(Chunk { octets, last })
}

fn mail<'a>(argument: &'a str, grammar: &Grammar) -> Result<Mail, Complaint<'a>> {
    let (path, parameters) = path(argument, "FROM:").ok_or(Refusal::Syntax)?;
    let sender = if path.is_empty() {
        ReversePath::Null
    } else {
        ReversePath::Mailbox(mailbox(path, grammar).ok_or(Refusal::BadSender)?)
    };
    let mut mail = Mail {
        sender,
        size: 0,
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        by: None,
        hold: None,
        priority: Priority::NORMAL,
        require_tls: false,
    };
    let mut seen = Seen::default();
    for parameter in Parameters(parameters) {
        let (keyword, value) = parameter?;
        let known = MailParameter::named(keyword, grammar);
        let known = known.ok_or_else(|| about(Refusal::UnknownParameter, keyword))?;
        seen.once(known.kind(), keyword)?;
        mail.set(known, value).ok_or_else(|| about(Refusal::BadParameter, keyword))?;
    }
    if !path.is_ascii() && !mail.smtputf8 {
        return Err(Refusal::NeedsSmtpUtf8.into());
    }
    Ok(mail)
}

fn rcpt<'a>(argument: &'a str, grammar: &Grammar) -> Result<Rcpt, Complaint<'a>> {
    let (path, parameters) = path(argument, "TO:").ok_or(Refusal::Syntax)?;
    let mailbox = mailbox(path, grammar).ok_or(Refusal::BadRecipient)?;
    let mut rcpt = Rcpt { mailbox, ascii: path.is_ascii(), notify: None, orcpt: None };
    let mut seen = Seen::default();
    for parameter in Parameters(parameters) {
        let (keyword, value) = parameter?;
        let dsn = grammar.offer.has(Extension::Dsn);
        let bad = || about(Refusal::BadParameter, keyword);
        if dsn && keyword.eq_ignore_ascii_case("NOTIFY") {
            seen.once(0, keyword)?;
            rcpt.notify = Some(value.and_then(notify).ok_or_else(bad)?);
        } else if dsn && keyword.eq_ignore_ascii_case("ORCPT") {
            seen.once(1, keyword)?;
            let value = value.filter(|value| is_original_recipient(value)).ok_or_else(bad)?;
            rcpt.ascii &= value.is_ascii();
            rcpt.orcpt = Some(value.to_owned());
        } else {
            return Err(about(Refusal::UnknownParameter, keyword));
        }
    }
    Ok(rcpt)
}

fn about(refusal: Refusal, about: &str) -> Complaint<'_> {
    Complaint { refusal, about: Some(about) }
}

/// Splits `FROM:<path> parameters` into the path without brackets and the parameters.
fn path<'a>(argument: &'a str, tag: &str) -> Option<(&'a str, &'a str)> {
    let (said, rest) = argument.split_at_checked(tag.len())?;
    if !said.eq_ignore_ascii_case(tag) {
        return None;
    }
    let rest = rest.trim_start_matches(' ');
    let (inner, end) = match rest.strip_prefix('<') {
        Some(inner) => (inner, '>'),
        None => (rest, ' '),
    };
    let close = find_outside_quotes(inner, end);
    if end == ' ' {
        let (path, parameters) = inner.split_at(close.unwrap_or(inner.len()));
        return (!path.is_empty()).then_some((path, parameters));
    }
    let (path, parameters) = (inner.get(..close?)?, inner.get(close? + 1..)?);
    (parameters.is_empty() || parameters.starts_with(' ')).then_some((path, parameters))
}

fn find_outside_quotes(text: &str, wanted: char) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == wanted && !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Reads a path: a source route, which is checked and dropped (RFC 5321 appendix C), and a
/// mailbox, which may lack its domain.
fn mailbox(path: &str, grammar: &Grammar) -> Option<Mailbox> {
    let path = if path.starts_with('@') {
        let (route, mailbox) = path.split_once(':')?;
        let good = |hop: &str| hop.strip_prefix('@').is_some_and(|d| Domain::parse(d).is_ok());
        route.split(',').all(good).then_some(mailbox)?
    } else {
        path
    };
    if path.contains('@')
        && let Ok(mailbox) = Mailbox::parse(path)
    {
        return Some(mailbox);
    }
    let local = LocalPart::parse(path).ok()?;
    Some(Mailbox::new(local, Host::Name(grammar.default_domain.clone())))
}

/// RFC 3461 section 4.1: NEVER alone, or each of the others at most once.
fn notify(value: &str) -> Option<Notify> {
    let mut notify = Notify::NEVER;
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(notify);
    }
    for word in value.split(',') {
        let wish = if word.eq_ignore_ascii_case("SUCCESS") {
            &mut notify.success
        } else if word.eq_ignore_ascii_case("FAILURE") {
            &mut notify.failure
        } else if word.eq_ignore_ascii_case("DELAY") {
            &mut notify.delay
        } else {
            return None;
        };
        if std::mem::replace(wish, true) {
            return None;
        }
    }
    Some(notify)
}

/// RFC 3461 section 4.2, and RFC 6533 section 3 for addresses beyond ASCII.
fn is_original_recipient(value: &str) -> bool {
    let Some((kind, address)) = value.split_once(';') else {
        return false;
    };
    let atom = |o: u8| o.is_ascii_alphanumeric() || o == b'-';
    let unicode = |c: char| {
        (c.is_ascii_graphic() && !matches!(c, '+' | '='))
            || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
    };
    value.len() <= ORCPT_OCTETS_MAX
        && !kind.is_empty()
        && kind.bytes().all(atom)
        && !address.is_empty()
        && (is_xtext(address)
            || (kind.eq_ignore_ascii_case("utf-8") && address.chars().all(unicode)))
}

/// RFC 3461 section 4; what is encoded must be printable, so that nothing that is decoded later
/// can hold a line end.
fn is_xtext(value: &str) -> bool {
    let mut octets = value.bytes();
    while let Some(octet) = octets.next() {
        let plain = match octet {
            b'+' => {
                let hex = |o: Option<u8>| {
                    let o = o.filter(|o| o.is_ascii_digit() || (b'A'..=b'F').contains(o))?;
                    char::from(o).to_digit(16)
                };
                let (high, low) = (hex(octets.next()), hex(octets.next()));
                high.zip(low).is_some_and(|(high, low)| (0x20..0x7f).contains(&(high << 4 | low)))
            }
            octet => octet.is_ascii_graphic() && octet != b'=',
        };
        if !plain {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grammar() -> Grammar {
        Grammar {
            offer: Offer::all(),
            default_domain: Domain::parse("home.example").unwrap(),
            auth: false,
            inquiries: false,
        }
    }

    fn refusal(line: &str) -> Option<Refusal> {
        parse(line.as_bytes(), &grammar()).err().map(|complaint| complaint.refusal)
    }

    fn sender(line: &str) -> String {
        match parse(line.as_bytes(), &grammar()) {
            Ok(Command::Mail(mail)) => mail.sender.to_string(),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn recipient(line: &str) -> String {
        match parse(line.as_bytes(), &grammar()) {
            Ok(Command::Rcpt(rcpt)) => rcpt.mailbox.to_string(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn verbs_are_known_in_capitals_or_not_and_take_what_they_take() {
        for (line, command) in [
            ("data", Command::Data),
            ("DATA  \t", Command::Data),
            ("RSET", Command::Rset),
            ("noop anything", Command::Noop),
            ("HELP mail", Command::Help),
            ("VRFY ada", Command::Vrfy),
            ("Quit", Command::Quit),
            ("EHLO [192.0.2.1]", Command::Ehlo("[192.0.2.1]")),
            ("helo scanner_4", Command::Helo("scanner_4")),
            ("atrn", Command::Reverse(Vec::new())),
            ("TURN", Command::Reverse(Vec::new())),
            ("BDAT 86 last", Command::Bdat(Chunk { octets: 86, last: true })),
            ("BDAT 0", Command::Bdat(Chunk { octets: 0, last: false })),
        ] {
            assert_eq!(parse(line.as_bytes(), &grammar()), Ok(command), "{line}");
        }
    }

    #[test]
    fn lines_that_are_no_commands_are_refused() {
        for (line, expected) in [
            ("", Refusal::UnknownCommand),
            (" NOOP", Refusal::UnknownCommand),
            ("NOOPE", Refusal::UnknownCommand),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2", Refusal::UnknownCommand),
            ("X-EXPS GSSAPI", Refusal::UnknownCommand),
            ("DEBUG", Refusal::UnknownCommand),
            ("WIZ", Refusal::UnknownCommand),
            ("XXXXXXXXXXXXXXXXXXXX", Refusal::UnknownCommand),
            ("POST / HTTP/1.1", Refusal::OtherProtocol),
            ("STARTTLS now", Refusal::NoArgument),
            ("AUTH PLAIN", Refusal::NotOffered),
            ("EXPN list", Refusal::NotOffered),
            ("ETRN", Refusal::ArgumentMissing),
            ("ETRN a b", Refusal::BadNode),
            ("ATRN a b", Refusal::BadDomains),
            ("ATRN ../etc", Refusal::BadDomains),
            ("TURN a.example", Refusal::NoArgument),
            ("DATA foo", Refusal::NoArgument),
            ("RSET foo", Refusal::NoArgument),
            ("QUIT foo", Refusal::NoArgument),
            ("VRFY", Refusal::ArgumentMissing),
            ("EHLO", Refusal::BadHello),
            ("EHLO foo bar", Refusal::BadHello),
            ("EHLO (x)", Refusal::BadHello),
            ("HELO b\u{fc}cher.example", Refusal::BadHello),
            ("BDAT", Refusal::BadChunkSize),
            ("BDAT -1", Refusal::BadChunkSize),
            ("BDAT +1", Refusal::BadChunkSize),
            ("BDAT 1x LAST", Refusal::BadChunkSize),
            ("BDAT 5 FIRST", Refusal::BadChunkSize),
            ("BDAT 5 LAST LAST", Refusal::BadChunkSize),
            ("BDAT 18446744073709551621 LAST", Refusal::ChunkTooLarge),
            ("NOOP\0", Refusal::BadOctet),
            ("NO\x08OP", Refusal::BadOctet),
        ] {
            assert_eq!(refusal(line), Some(expected), "{line:?}");
        }
        let long = format!("EHLO {}", "a".repeat(256));
        assert_eq!(refusal(&long), Some(Refusal::BadHello));
        assert_eq!(parse(b"NOOP \xff", &grammar()).map_err(|c| c.refusal), Err(Refusal::BadOctet));
    }

    #[test]
    fn addresses_keep_their_spelling() {
        assert_eq!(sender("MAIL FROM:<>"), "");
        assert_eq!(sender("mail from:<A.b@C.example>"), "A.b@c.example");
        assert_eq!(sender("MAIL FROM: <a@b.example>"), "a@b.example");
        assert_eq!(sender("MAIL FROM:a@b.example SIZE=1"), "a@b.example");
        assert_eq!(sender("MAIL FROM:<root>"), "root@home.example");
        assert_eq!(recipient("RCPT TO:<postmaster>"), "postmaster@home.example");
        assert_eq!(recipient("RCPT TO:<\"a@b\"@x.example>"), "\"a@b\"@x.example");
        assert_eq!(recipient("RCPT TO:<\"a@b\">"), "\"a@b\"@home.example");
        assert_eq!(recipient("RCPT TO:<\"a > b\"@x.example>"), "\"a > b\"@x.example");
        assert_eq!(recipient("RCPT TO:<\"a\\\"> b\"@x.example>"), "\"a\\\"> b\"@x.example");
        assert_eq!(recipient("RCPT TO:<a@[127.0.0.1]>"), "a@[127.0.0.1]");
        assert_eq!(recipient("RCPT TO:<a@[IPv6:::1]>"), "a@[IPv6:::1]");
        assert_eq!(recipient("RCPT TO:<@us.example,@x.example:a@them.example>"), "a@them.example");
        assert_eq!(recipient("RCPT TO:<a%them.example@us.example>"), "a%them.example@us.example");
        assert_eq!(recipient("RCPT TO:<them.example!a>"), "them.example!a@home.example");
    }

    #[test]
    fn bad_paths_are_refused() {
        for path in [
            "<a@b@c>",
            "<a@b.>",
            "<a@-b.example>",
            "<a@b..c>",
            "<a b@c>",
            "<a,b@c>",
            "<a;b@c>",
            "<a@b,c>",
            "<a(x)@b>",
            "<a:b@c>",
            "<@us.example>",
            "<@us.example:>",
            "<us.example:a@b>",
            "<@us.example;@x:a@b>",
            "<a@[127.0.0.1>",
            "<a@[999.0.0.1]>",
            "<a@127.0.0.1\u{2024}x y>",
            "<a@us.example\u{3002}>",
            "<@>",
            "<@:a@b>",
        ] {
            assert_eq!(refusal(&format!("RCPT TO:{path}")), Some(Refusal::BadRecipient), "{path}");
            assert_eq!(refusal(&format!("MAIL FROM:{path}")), Some(Refusal::BadSender), "{path}");
        }
        for line in [
            "MAIL",
            "MAIL FROM",
            "MAIL FROM:",
            "MAIL TO:<a@b>",
            "MAIL FROM :<a@b>",
            "MAIL FROM:<a@b",
            "MAIL FROM:<a@b.example>SIZE=1",
            "RCPT TO:<a@b>>",
            "RCPT TO:<<a@b>>",
            "RCPT TO:<\"a@b>",
            "RCPT",
            "RCPT TO:",
        ] {
            assert_eq!(refusal(line), Some(Refusal::Syntax), "{line}");
        }
        assert_eq!(refusal("RCPT TO:<>"), Some(Refusal::BadRecipient));
        let long = format!("RCPT TO:<{}@b.example>", "a".repeat(65));
        assert_eq!(refusal(&long), Some(Refusal::BadRecipient));
    }

    #[test]
    fn mail_parameters_are_read() {
        let line = "MAIL FROM:<a@b.example> size=42 BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=QQ+2B314";
        let Ok(Command::Mail(mail)) = parse(line.as_bytes(), &grammar()) else { panic!("{line}") };
        assert_eq!((mail.size, mail.body, mail.smtputf8), (42, BodyKind::EightBitMime, true));
        assert_eq!((mail.ret, mail.envid.as_deref()), (Some(Ret::Headers), Some("QQ+2B314")));
        let line = "MAIL FROM:<> SIZE=99999999999999999999 BODY=BINARYMIME";
        let Ok(Command::Mail(mail)) = parse(line.as_bytes(), &grammar()) else { panic!("{line}") };
        assert_eq!((mail.size, mail.body), (u64::MAX, BodyKind::BinaryMime));
    }

    #[test]
    fn bad_mail_parameters_are_refused() {
        for (parameters, expected) in [
            ("SIZE=999999999999999999999", Refusal::BadParameter),
            ("SIZE=-1", Refusal::BadParameter),
            ("SIZE=x", Refusal::BadParameter),
            ("SIZE", Refusal::BadParameter),
            ("SIZE=", Refusal::BadParameter),
            ("SIZE=1 SIZE=1", Refusal::DuplicateParameter),
            ("BODY=9BIT", Refusal::BadParameter),
            ("BODY=7BIT BODY=7BIT", Refusal::DuplicateParameter),
            ("SMTPUTF8=YES", Refusal::BadParameter),
            ("RET=ALL", Refusal::BadParameter),
            ("ENVID=a+0Ab", Refusal::BadParameter),
            ("ENVID=a+2", Refusal::BadParameter),
            ("ENVID=a+2b", Refusal::BadParameter),
            ("ENVID=a=b", Refusal::BadParameter),
            ("REQUIRETLS=YES", Refusal::BadParameter),
            ("REQUIRETLS REQUIRETLS", Refusal::DuplicateParameter),
            ("AUTH=<>", Refusal::UnknownParameter),
            ("NOTIFY=NEVER", Refusal::UnknownParameter),
            ("X=1", Refusal::UnknownParameter),
            ("-X=1", Refusal::BadParameter),
            ("<c@d.example>", Refusal::BadParameter),
        ] {
            let line = format!("MAIL FROM:<a@b.example> {parameters}");
            assert_eq!(refusal(&line), Some(expected), "{line}");
        }
        let line = format!("MAIL FROM:<a@b.example> ENVID={}", "a".repeat(101));
        assert_eq!(refusal(&line), Some(Refusal::BadParameter));
    }

    #[test]
    fn recipient_parameters_are_read_and_bad_ones_refused() {
        let line = "RCPT TO:<a@b.example> NOTIFY=success,DELAY ORCPT=rfc822;x+40y.example";
        let Ok(Command::Rcpt(rcpt)) = parse(line.as_bytes(), &grammar()) else { panic!("{line}") };
        assert_eq!(rcpt.notify, Some(Notify { success: true, failure: false, delay: true }));
        assert_eq!(rcpt.orcpt.as_deref(), Some("rfc822;x+40y.example"));
        for (parameters, expected) in [
            ("NOTIFY=NEVER,FAILURE", Refusal::BadParameter),
            ("NOTIFY=FAILURE,FAILURE", Refusal::BadParameter),
            ("NOTIFY=", Refusal::BadParameter),
            ("NOTIFY=SOMETIMES", Refusal::BadParameter),
            ("NOTIFY=DELAY NOTIFY=DELAY", Refusal::DuplicateParameter),
            ("ORCPT=rfc822", Refusal::BadParameter),
            ("ORCPT=;a", Refusal::BadParameter),
            ("ORCPT=rfc822;", Refusal::BadParameter),
            ("ORCPT=rfc822;a+0Db", Refusal::BadParameter),
            ("ORCPT=rfc822;\u{fc}", Refusal::BadParameter),
            ("SIZE=1", Refusal::UnknownParameter),
            ("<c@d.example>", Refusal::BadParameter),
        ] {
            let line = format!("RCPT TO:<a@b.example> {parameters}");
            assert_eq!(refusal(&line), Some(expected), "{line}");
        }
    }

    #[test]
    fn addresses_beyond_ascii_are_seen() {
        assert_eq!(refusal("MAIL FROM:<\u{fc}@b.example>"), Some(Refusal::NeedsSmtpUtf8));
        assert_eq!(refusal("MAIL FROM:<a@b\u{fc}.example>"), Some(Refusal::NeedsSmtpUtf8));
        assert_eq!(sender("MAIL FROM:<\u{fc}@b.example> SMTPUTF8"), "\u{fc}@b.example");
        for (line, ascii) in [
            ("RCPT TO:<a@b.example>", true),
            ("RCPT TO:<\u{fc}@b.example>", false),
            ("RCPT TO:<a@b.example> ORCPT=utf-8;\u{fc}@x", false),
        ] {
            let Ok(Command::Rcpt(rcpt)) = parse(line.as_bytes(), &grammar()) else {
                panic!("{line}")
            };
            assert_eq!(rcpt.ascii, ascii, "{line}");
        }
    }

    #[test]
    fn parameters_of_extensions_that_are_off_are_unknown() {
        let grammar =
            Grammar { offer: [Extension::EightBitMime].into_iter().collect(), ..grammar() };
        for (line, good) in [
            ("MAIL FROM:<a@b.example> SIZE=1", false),
            ("MAIL FROM:<a@b.example> RET=FULL", false),
            ("MAIL FROM:<a@b.example> SMTPUTF8", false),
            ("MAIL FROM:<a@b.example> REQUIRETLS", false),
            ("ATRN", false),
            ("TURN", false),
            ("MAIL FROM:<a@b.example> BODY=8BITMIME", true),
            ("RCPT TO:<a@b.example> NOTIFY=NEVER", false),
        ] {
            assert_eq!(parse(line.as_bytes(), &grammar).is_ok(), good, "{line}");
        }
    }
}
