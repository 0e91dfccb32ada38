//! One log line: fields in the order they are given, values that cannot break out.
//!
//! Three forms. *logfmt* writes `key=value`; a value is quoted unless every character of it is plain,
//! and inside quotes the quote, the backslash and everything that is not printable are escaped.
//! *JSON* writes one object. The third is that of [`super::postfix`]. In all of them, text chosen by a peer
//! can forge neither a field nor a line, and addresses are shown as [`Mask`] has it.

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;

use mailroot_common::net::Network;
use mailroot_common::units::Timestamp;

use super::Log;
use super::mask::Mask;
use super::postfix::Told;

/// How much a line matters; the order is that of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is broken and needs a person.
    Error,
    /// Something is odd, or a limit was met.
    Warn,
    /// A change of state.
    Info,
    /// Steps in between.
    Debug,
}

impl Level {
    /// The word of the configuration and of the line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The digit of syslog's severity.
    pub(super) const fn severity(self) -> char {
        match self {
            Self::Error => '3',
            Self::Warn => '4',
            Self::Info => '6',
            Self::Debug => '7',
        }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `event=received server=default …`
    Logfmt,
    /// `{"time":"…","level":"info","event":"received",…}`
    Json,
    /// `mailroot/smtpd[812]: 6FZK3Q8W1T0A: client=…`, one line or several for an event.
    Postfix,
}

impl Format {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logfmt => "logfmt",
            Self::Json => "json",
            Self::Postfix => "postfix",
        }
    }
}

/// A line being written; nothing is logged until [`Line::send`].
#[must_use = "a line is written by send()"]
#[derive(Debug)]
pub struct Line<'log> {
    log: &'log Log,
    level: Level,
    /// Absent when the line is below the log's level: then every call is free.
    body: Option<Body>,
    /// What is shown of addresses, if not all.
    mask: Option<Arc<Mask>>,
    /// It is only wanted if it names a client of this network, and did not yet.
    client: Option<Network>,
}

/// What was written so far.
#[derive(Debug)]
enum Body {
    Logfmt(String),
    Json(String),
    Postfix(Box<Told>),
}

/// When a value stands in quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Where it could be misread without.
    AsNeeded,
    /// Always.
    Quoted,
}

/// How a line that is wanted begins.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) format: Format,
    pub(super) now: Timestamp,
    /// Whether the line carries the moment in every form.
    pub(super) dates: bool,
    /// What is shown of addresses, if not all.
    pub(super) mask: Option<Arc<Mask>>,
    /// It is only wanted if it names a client of this network.
    pub(super) client: Option<Network>,
}

impl<'log> Line<'log> {
    pub(super) fn begin(log: &'log Log, level: Level, event: &str, head: Option<Head>) -> Self {
        let Some(Head { format, now, dates, mask, client }) = head else {
            return Self { log, level, body: None, mask: None, client: None };
        };
        let line = |body| Self { log, level, body: Some(body), mask, client };
        match format {
            Format::Logfmt => {
                let mut text = String::with_capacity(256);
                if dates {
                    sure(write!(text, "time={now}"));
                }
                let line = line(Body::Logfmt(text)).word("event", event);
                if level == Level::Info { line } else { line.word("level", level.as_str()) }
            }
            Format::Json => {
                let mut text = String::with_capacity(256);
                sure(write!(text, "{{\"time\":\"{now}\",\"level\":\"{}\"", level.as_str()));
                line(Body::Json(text)).word("event", event)
            }
            Format::Postfix => {
                let at = dates.then_some(now);
                let fields = Vec::with_capacity(16);
                let told = Told { event: event.to_owned(), level, at, fields };
                line(Body::Postfix(Box::new(told)))
            }
        }
    }

    /// Adds a field. Use it for our own words, numbers, ids and addresses as well as for text of
    /// strangers: every value is checked and escaped.
    pub fn word(self, key: &'static str, value: impl fmt::Display) -> Self {
        self.field(key, &value, Written::AsNeeded)
    }

    /// Adds a field that stands for text of a peer; always quoted, so that readers see whose it is.
    pub fn text(self, key: &'static str, value: impl fmt::Display) -> Self {
        self.field(key, &value, Written::Quoted)
    }

    /// Adds a field if there is a value.
    pub fn maybe(self, key: &'static str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.word(key, value),
            None => self,
        }
    }

    fn field(mut self, key: &'static str, value: &dyn fmt::Display, written: Written) -> Self {
        if let Some(network) = &self.client
            && key == "client"
            && value.to_string().parse::<IpAddr>().is_ok_and(|client| network.contains(client))
        {
            self.client = None;
        }
        let Some(body) = &mut self.body else { return self };
        match &self.mask {
            None => body.put(key, value, written),
            Some(mask) => body.put(key, &mask.show(key, &value.to_string()), written),
        }
        self
    }

    /// Hands the line to the log.
    pub fn send(self) {
        match self.body.filter(|_| self.client.is_none()) {
            None => {}
            Some(Body::Logfmt(text)) => self.log.write(self.level, &(text + "\n")),
            Some(Body::Json(text)) => self.log.write(self.level, &(text + "}\n")),
            Some(Body::Postfix(told)) => {
                told.lines().iter().for_each(|line| self.log.write(self.level, line));
            }
        }
    }
}

impl Body {
    fn put(&mut self, key: &'static str, value: &dyn fmt::Display, written: Written) {
        match self {
            Self::Logfmt(text) => {
                if !text.is_empty() {
                    text.push(' ');
                }
                sure(quoted(text, key, value, written));
            }
            Self::Json(text) => sure(write_json(text, key, value)),
            Self::Postfix(told) => told.fields.push((key, value.to_string())),
        }
    }
}

/// Writing into a String cannot fail.
fn sure(done: fmt::Result) {
    debug_assert!(done.is_ok(), "writing into a String cannot fail");
}

/// Writes `key=value`.
pub(super) fn quoted(
    text: &mut String,
    key: &str,
    value: &dyn fmt::Display,
    written: Written,
) -> fmt::Result {
    text.push_str(key);
    text.push('=');
    let start = text.len();
    if written == Written::Quoted {
        text.push('"');
        write!(Escaped(text), "{value}")?;
        return text.write_char('"');
    }
    write!(text, "{value}")?;
    let said = &text[start..];
    let kinds = kinds(said);
    if said.is_empty() || kinds > EQUALS || kinds == EQUALS && !is_angled(said) {
        let said = text.split_off(start);
        text.push('"');
        Escaped(text).write_str(&said)?;
        text.push('"');
    }
    Ok(())
}

/// What a character is for a value: it may stand bare, or ...
const BARE: u8 = 0;
/// ... only between angle brackets, or ...
const EQUALS: u8 = 1;
/// ... only between quotes, as it is, or ...
const SPACE: u8 = 2;
/// ... escaped, or as part of a character beyond ASCII.
const OTHER: u8 = 4;

/// The kinds of all octets; a table, since every value of every line is looked at.
const KINDS: [u8; 256] = {
    let mut kinds = [OTHER; 256];
    let mut octet = b' ';
    while octet <= b'~' {
        kinds[octet as usize] = match octet {
            b' ' => SPACE,
            b'=' => EQUALS,
            b'"' | b'\\' => OTHER,
            _ => BARE,
        };
        octet += 1;
    }
    kinds
};

/// The kinds of the characters of a text, added up.
fn kinds(text: &str) -> u8 {
    text.bytes().fold(BARE, |all, octet| all | KINDS[usize::from(octet)])
}

/// Addresses in angle brackets may hold `=`; the brackets keep it from being read as a field.
fn is_angled(text: &str) -> bool {
    text.starts_with('<') && text.ends_with('>')
}

fn write_json(text: &mut String, key: &str, value: &dyn fmt::Display) -> fmt::Result {
    if !text.ends_with('{') {
        text.push(',');
    }
    write!(text, "\"{key}\":\"")?;
    write!(Escaped(text), "{value}")?;
    text.write_char('"')
}

/// Escapes what passes through so that it can stand between quotes, in logfmt and in JSON alike.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, said: &str) -> fmt::Result {
        if kinds(said) < OTHER {
            self.0.push_str(said);
            return Ok(());
        }
        for c in said.chars() {
            match c {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                '\t' => self.0.push_str("\\t"),
                c if is_hidden(c) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        write!(self.0, "\\u{unit:04x}")?;
                    }
                }
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// Control characters, line separators and marks that turn the direction of writing.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::super::Sink;
    use super::*;
    use crate::clock::Clock;

    fn said(format: Format, write: impl Fn(Line<'_>) -> Line<'_>) -> String {
        let (log, lines) = Log::captured(format, Level::Debug, Clock::real());
        write(log.line(Level::Info, "test")).send();
        drop(log);
        lines.text()
    }

    #[test]
    fn plain_values_stand_bare_and_others_in_quotes() {
        let line = said(Format::Logfmt, |line| {
            line.word("id", 7).word("from", "<a=b@c.example>").word("x", "two words").word("y", "")
        });
        assert_eq!(line, "event=test id=7 from=<a=b@c.example> x=\"two words\" y=\"\"\n");
    }

    #[test]
    fn peer_text_cannot_forge_a_field_or_a_line() {
        let hostile = "x client=1.2.3.4\r\nevent=forged \"\\\u{1b}[2J\u{2028}\u{202e}";
        let line = said(Format::Logfmt, |line| line.text("helo", hostile).word("a", "k=v"));
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(
            line,
            "event=test helo=\"x client=1.2.3.4\\r\\nevent=forged \\\"\\\\\\u001b[2J\\u2028\\u202e\" a=\"k=v\"\n"
        );
    }

    #[test]
    fn json_lines_parse_and_keep_the_order() {
        let line = said(Format::Json, |line| line.word("id", 7).text("helo", "a\"b\u{0}\u{1F4A9}"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["helo"], "a\"b\u{0}\u{1F4A9}");
        assert!(line.find("\"event\"") < line.find("\"id\""));
    }

    #[test]
    fn lines_below_the_level_are_not_written() {
        let (log, lines) = Log::captured(Format::Logfmt, Level::Warn, Clock::real());
        log.line(Level::Info, "hidden").word("a", 1).send();
        log.line(Level::Error, "shown").send();
        assert_eq!(lines.text(), "event=shown level=error\n");
        assert!(matches!(lines, Sink::Memory(_)));
    }
}
