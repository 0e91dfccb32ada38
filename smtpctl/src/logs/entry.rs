//! One line of the log, taken apart again.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

use mailroot_common::control::Matcher;
use mailroot_common::control::selector::{Facts, RecipientFacts};
use mailroot_common::units::Timestamp;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::postfix;
use crate::output::{Cell, Column, Row, Shape, clock_time, escape};
use crate::tool::now;

/// How much a line matters; the order is that of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Importance {
    /// Something is broken.
    Error,
    /// Something needs a look.
    Warn,
    /// What happened to mail.
    Info,
    /// Every step.
    Debug,
}

impl Importance {
    const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// The word of the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// By the severity of syslog.
    pub(super) const fn of_severity(severity: u8) -> Self {
        match severity {
            0..=3 => Self::Error,
            4 => Self::Warn,
            5 | 6 => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// A line. What is none of ours has one field, `text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) at: Option<Timestamp>,
    pub(super) level: Importance,
    pub(super) event: Option<String>,
    fields: Vec<(String, String)>,
}

impl Entry {
    /// Reads a line of any form.
    pub(super) fn read(line: &str) -> Self {
        if let Some(postfix::Told { at, level, event, fields }) = postfix::read(line, now()) {
            return Self { at, level, event: Some(event), fields };
        }
        let fields = match serde_json::from_str::<Pairs>(line) {
            Ok(Pairs(fields)) => Some(fields),
            Err(_) => logfmt(line),
        };
        let known = fields.filter(|fields| fields.iter().any(|(key, _)| key == "event"));
        let mut entry = Self { at: None, level: Importance::Info, event: None, fields: Vec::new() };
        let Some(fields) = known else {
            entry.fields.push(("text".to_owned(), line.to_owned()));
            return entry;
        };
        for (key, value) in fields {
            match key.as_str() {
                "time" if entry.at.is_none() => entry.at = Timestamp::parse(&value).ok(),
                "event" if entry.event.is_none() => entry.event = Some(value),
                "level" => {
                    let found = Importance::ALL.into_iter().find(|it| it.as_str() == value);
                    entry.level = found.unwrap_or(entry.level);
                }
                _ => entry.fields.push((key, value)),
            }
        }
        entry
    }

    fn field(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// An address without its brackets.
    fn address(&self, key: &str) -> Option<&str> {
        let value = self.field(key)?;
        Some(value.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(value))
    }

    /// Whether the conditions hold. Ids are those of messages and of sessions.
    pub(super) fn suits(&self, matcher: &Matcher, now: Timestamp) -> bool {
        let words = self.field("reply").or_else(|| self.field("reason"));
        let to = RecipientFacts {
            address: self.address("to").unwrap_or_default(),
            reason: words,
            code: self.field("dsn"),
            ..RecipientFacts::default()
        };
        let fits = |id: &str| {
            let facts = Facts {
                id,
                server: self.field("server").unwrap_or_default(),
                state: "",
                at: self.at,
                size: None,
                from: self.address("from"),
                subject: self.field("subject"),
                client: self.field("client").and_then(|text| text.parse::<IpAddr>().ok()),
            };
            matcher.matches(&facts, [to], now)
        };
        ["id", "sid", "other"].into_iter().any(|key| fits(self.field(key).unwrap_or_default()))
    }

    /// `14:02:29  received  6FZK3Q8W1T0A from=<app@example.net> …`, ended by LF.
    pub(super) fn for_people(&self, shape: &Shape) -> String {
        let at = self.at.map_or_else(
            || "-".to_owned(),
            |at| match shape.time {
                crate::output::TimeForm::Relative => clock_time(at, shape.now, shape.utc),
                form => Cell::Ago(at).for_people(shape.now, form, shape.utc),
            },
        );
        let level = match self.level {
            Importance::Info => String::new(),
            level => format!("{}: ", crate::output::painted(level.as_str(), shape.colour)),
        };
        let event = self.event.as_deref().unwrap_or("-");
        let id = self.field("id").map(|id| format!(" {id}")).unwrap_or_default();
        let mut text = format!("{}  {level}{}", escape(&at), escape(&format!("{event}{id}")));
        for (key, value) in self.fields.iter().filter(|(key, _)| key != "id") {
            text.push(' ');
            text.push_str(&match (key.as_str(), self.event.is_none()) {
                (_, true) => escape(value),
                _ => escape(&format!("{key}={}", quoted(value))),
            });
        }
        text.push('\n');
        text
    }
}

/// A value as it can stand behind a key: in quotes if there is a blank in it, or nothing.
fn quoted(value: &str) -> String {
    let is_plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"');
    if is_plain { value.to_owned() } else { format!("\"{}\"", value.replace('"', "\\\"")) }
}

/// The fields of a line of `key=value`; nothing if it is none.
pub(super) fn logfmt(line: &str) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    let mut rest = line.trim_end();
    while !rest.is_empty() {
        let (key, value) = rest.split_once('=')?;
        if key.is_empty() || !key.bytes().all(|o| o.is_ascii_alphanumeric() || b"_-.".contains(&o))
        {
            return None;
        }
        let (value, behind) = match value.strip_prefix('"') {
            Some(quote) => unquoted(quote)?,
            None => {
                let end = value.find(' ').unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        fields.push((key.to_owned(), value));
        rest = behind.trim_start_matches(' ');
    }
    (!fields.is_empty()).then_some(fields)
}

/// What stands before the closing quote, and what behind it. The escapes are those of JSON.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut is_escaped = false;
    let end = text.bytes().position(|octet| {
        let ends = octet == b'"' && !is_escaped;
        is_escaped = octet == b'\\' && !is_escaped;
        ends
    })?;
    let value = serde_json::from_str(&format!("\"{}\"", &text[..end])).ok()?;
    Some((value, &text[end + 1..]))
}

/// The members of a JSON object, in their order.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, String>()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(at) = &self.at {
            map.serialize_entry("time", at)?;
        }
        map.serialize_entry("level", self.level.as_str())?;
        if let Some(event) = &self.event {
            map.serialize_entry("event", event)?;
        }
        for (key, value) in &self.fields {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl Row for Entry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("time", |it| it.at.map_or(Cell::Nothing, Cell::Ago)),
        Column::always("level", |it| Cell::text(it.level.as_str())),
        Column::always("event", |it| Cell::maybe(it.event.as_deref())),
        Column::always("id", |it| Cell::maybe(it.field("id").or_else(|| it.field("sid")))),
        Column::always("server", |it| Cell::maybe(it.field("server"))),
        Column::always("text", |it| {
            let rest = it.fields.iter().filter(|(key, _)| !["id", "server"].contains(&&**key));
            let words = rest.map(|(key, value)| format!("{key}={}", quoted(value)));
            Cell::Text(words.collect::<Vec<_>>().join(" "))
        }),
        Column::asked("client", |it| Cell::maybe(it.field("client"))),
        Column::asked("from", |it| Cell::maybe(it.address("from"))),
        Column::asked("to", |it| Cell::maybe(it.address("to"))),
        Column::asked("reply", |it| Cell::maybe(it.field("reply"))),
    ];

    fn id(&self) -> String {
        self.field("id").or_else(|| self.field("sid")).unwrap_or_default().to_owned()
    }
}

/// The newest so many.
pub(super) struct Newest {
    most: usize,
    entries: VecDeque<Entry>,
}

impl Newest {
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: VecDeque::new() }
    }

    /// Takes the next older one; whether there is room for another.
    pub(super) fn put_older(&mut self, entry: Entry) -> bool {
        self.entries.push_front(entry);
        self.entries.len() < self.most
    }

    /// The oldest first.
    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.entries.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::control::Selector;

    use super::*;

    const LOGFMT: &str = "time=2026-11-20T14:02:29.114Z event=login-failed level=warn server=default \
        sid=7QK2M9 client=10.1.0.7 user=\"a \\\"b\\\"\\u001b\\\\\" from=<app@example.net>";

    #[test]
    fn both_forms_are_read_alike() {
        let json = r#"{"time":"2026-11-20T14:02:29.114Z","level":"warn","event":"login-failed",
            "server":"default","sid":"7QK2M9","client":"10.1.0.7","user":"a \"b\"\u001b\\",
            "from":"<app@example.net>"}"#;
        let entry = Entry::read(LOGFMT);
        assert_eq!(entry, Entry::read(json));
        assert_eq!((entry.level, entry.event.as_deref()), (Importance::Warn, Some("login-failed")));
        assert_eq!(entry.field("user"), Some("a \"b\"\u{1b}\\"));
        let shape = Shape { utc: true, now: entry.at.unwrap(), ..Shape::default() };
        assert_eq!(
            entry.for_people(&shape),
            "14:02:29  warn: login-failed server=default sid=7QK2M9 client=10.1.0.7 \
             user=\"a \\\"b\\\"\\x1b\\\" from=<app@example.net>\n"
        );
    }

    #[test]
    fn what_is_no_line_of_ours_is_told_as_it_is() {
        for line in ["thread 'x' panicked at y=z:", "", "{\"a\":\"b\"}", "a=\"open", "{", "x=1"] {
            let entry = Entry::read(line);
            assert_eq!((entry.event.as_deref(), entry.field("text")), (None, Some(line)));
        }
    }

    #[test]
    fn conditions_hold_for_what_a_line_names() {
        let entry = Entry::read(LOGFMT);
        let holds =
            |selector: Selector| entry.suits(&selector.compile().unwrap(), entry.at.unwrap());
        assert!(holds(Selector::default()));
        assert!(holds(Selector::id("7QK2")) && !holds(Selector::id("6FZK")));
        let client = |text: &str| Some(text.to_owned());
        assert!(holds(Selector { client: client("10.1.0.0/16"), ..Selector::default() }));
        assert!(!holds(Selector { client: client("10.2.0.0/16"), ..Selector::default() }));
        assert!(holds(Selector { from: Some("app@*".to_owned()), ..Selector::default() }));
        assert!(!holds(Selector { to: Some("*@*".to_owned()), ..Selector::default() }));
    }
}
