//! Lines of the form `postfix`, taken apart again as far as they tell: which event, which message, who.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;

use super::entry::{Importance, logfmt};

/// What stands before the program's name.
const NAME: &str = "mailroot/";
/// The program of what Postfix does not know.
const SERVICE: &str = "service";
/// A moment that seems to lie further ahead belongs to the year before.
const AHEAD: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// A line taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) at: Option<Timestamp>,
    pub(super) level: Importance,
    pub(super) event: String,
    pub(super) fields: Vec<(String, String)>,
}

/// Reads a line; nothing if it is none of ours.
pub(super) fn read(line: &str, now: Timestamp) -> Option<Told> {
    let (at, line) = match line.strip_prefix(NAME) {
        Some(rest) => (None, rest),
        None => {
            let (stamp, rest) = line.split_at_checked(15)?;
            let (_host, rest) = rest.strip_prefix(' ')?.split_once(' ')?;
            (moment(stamp, now), rest.strip_prefix(NAME)?)
        }
    };
    let (program, rest) = line.split_once('[')?;
    let (number, mut body) = rest.split_once("]: ")?;
    if !number.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    let mut level = Importance::Info;
    for (word, it) in [("warning: ", Importance::Warn), ("error: ", Importance::Error)] {
        if let Some(rest) = body.strip_prefix(word) {
            (level, body) = (it, rest);
        }
    }
    let mut fields = Vec::new();
    if let Some((id, rest)) = body.split_once(": ")
        && QueueId::parse(id).is_ok()
    {
        fields.push(("id".to_owned(), id.to_owned()));
        body = rest;
    }
    let event = if program == SERVICE {
        let (event, rest) = body.split_once(':')?;
        fields.extend(logfmt(rest.trim_start()).unwrap_or_default());
        event.to_owned()
    } else {
        take_apart(body, &mut fields);
        event(program, body).to_owned()
    };
    Some(Told { at, level, event, fields })
}

/// `Nov 30 10:02:48` of the year that is nearest, where this machine is.
fn moment(stamp: &str, now: Timestamp) -> Option<Timestamp> {
    let millis = i64::try_from(now.as_millis()).ok()?;
    let zone = TimeZone::system();
    let now = jiff::Timestamp::from_millisecond(millis).ok()?;
    let year = now.to_zoned_datetime(zone.clone()).year();
    let of = |year: i16| {
        let text = format!("{year} {stamp}");
        let civil = DateTime::strptime("%Y %b %e %H:%M:%S", text).ok()?;
        Some(civil.to_zoned_datetime(zone.clone()).ok()?.timestamp())
    };
    let this = of(year).filter(|at| at.duration_since(now) <= AHEAD);
    let at = this.or_else(|| of(year.checked_sub(1)?))?;
    u64::try_from(at.as_millisecond()).ok().map(Timestamp::from_millis)
}

/// The event by the words that tell it.
fn event<'a>(program: &'a str, body: &str) -> &'a str {
    const WORDS: [(&str, &str, &str); 14] = [
        ("smtpd", "connect from", "connect"),
        ("smtpd", "disconnect from", "disconnect"),
        ("smtpd", "NOQUEUE: reject:", "reject"),
        ("smtpd", " after ", "reject"),
        ("smtpd", "authentication failed", "login-failed"),
        ("smtpd", "TLS connection established", "tls"),
        ("smtpd", "client=", "received"),
        ("pickup", "", "received"),
        ("bounce", "", "report"),
        ("postsuper", "placed on hold", "held"),
        ("postsuper", "released", "released"),
        ("postsuper", "removed", "removed"),
        ("", "status=sent", "delivered"),
        ("", "status=deferred", "deferred"),
    ];
    let known = WORDS
        .iter()
        .find(|(by, words, _)| (by.is_empty() || *by == program) && body.contains(words));
    match known {
        Some((.., event)) => event,
        None if body.contains("status=bounced") => "bounced",
        None => program,
    }
}

/// Fields that are separated by commas, or behind a semicolon by blanks; what is left is text.
fn take_apart(body: &str, fields: &mut Vec<(String, String)>) {
    let mut put = |key: &str, value: &str| fields.push((key.to_owned(), value.to_owned()));
    let (body, reply) = match body.split_once(", status=") {
        Some((body, status)) => (body, status.split_once(" (").map(|(_, words)| words)),
        None => (body, None),
    };
    let (front, behind) = body.split_once("; ").unwrap_or((body, ""));
    let mut rest = Vec::new();
    for piece in front.split(", ") {
        match piece.split_once('=') {
            Some(("client", host)) => put("client", address(host)),
            Some(("message-id", id)) => put("msgid", id),
            Some((key, value)) if is_key(key) => {
                put(key, value.trim_end_matches(" (queue active)"))
            }
            _ => rest.push(piece),
        }
    }
    if let Some((_, host)) = rest.first().and_then(|text| text.split_once(" from ")) {
        let host = host.split(": ").next().unwrap_or(host);
        put("client", address(host));
    }
    for (key, value) in behind.split(' ').filter_map(|piece| piece.split_once('=')) {
        put(key, value);
    }
    if let Some(reply) = reply {
        put("reply", reply.strip_suffix(')').unwrap_or(reply));
    }
    if !rest.is_empty() {
        put("text", &rest.join(", "));
    }
}

fn is_key(text: &str) -> bool {
    text.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_')
}

/// The address of `name[address]`.
fn address(host: &str) -> &str {
    let inner = host.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or(host, |(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> (String, String) {
        let told = read(line, Timestamp::parse("2026-11-30T12:00:00Z").unwrap()).unwrap();
        let fields: Vec<_> =
            told.fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
        (told.event, fields.join(" | "))
    }

    #[test]
    fn lines_are_read_as_far_as_they_tell() {
        for (line, event, fields) in [
            (
                "smtpd[3]: connect from unknown[10.1.0.7]",
                "connect",
                "client=10.1.0.7 | text=connect from unknown[10.1.0.7]",
            ),
            (
                "smtpd[3]: 6FZK3Q8W1T0A: client=unknown[::1], sasl_username=app",
                "received",
                "id=6FZK3Q8W1T0A | client=::1 | sasl_username=app",
            ),
            (
                "qmgr[3]: 6FZK3Q8W1T0A: from=<a@x>, size=7, nrcpt=2 (queue active)",
                "qmgr",
                "id=6FZK3Q8W1T0A | from=<a@x> | size=7 | nrcpt=2",
            ),
            (
                "smtp[1]: 6FZK3Q8W1T0A: to=<b@y>, relay=mx[1.2.3.4]:25, delay=1.9, dsn=2.0.0, status=sent (250 2.0.0 OK, yes)",
                "delivered",
                "id=6FZK3Q8W1T0A | to=<b@y> | relay=mx[1.2.3.4]:25 | delay=1.9 | dsn=2.0.0 | reply=250 2.0.0 OK, yes",
            ),
            (
                "smtpd[3]: NOQUEUE: reject: RCPT from unknown[10.1.0.7]: 550 5.7.1 <b@y>: Relay access denied; from=<a@x> to=<b@y> proto=ESMTP helo=<c>",
                "reject",
                "client=10.1.0.7 | from=<a@x> | to=<b@y> | proto=ESMTP | helo=<c> | text=NOQUEUE: reject: RCPT from unknown[10.1.0.7]: 550 5.7.1 <b@y>: Relay access denied",
            ),
            ("service[1]: config: rev=4 actor=\"an na\"", "config", "rev=4 | actor=an na"),
        ] {
            assert_eq!(told(&format!("mailroot/{line}")), (event.to_owned(), fields.to_owned()));
        }
        let now = Timestamp::parse("2026-11-30T12:00:00Z").unwrap();
        for line in [
            "",
            "mailroot/x",
            "postfix/smtpd[1]: x",
            "mailroot/smtpd[a]: x",
            "mailroot/service[1]: x",
        ] {
            assert_eq!(read(line, now), None, "{line}");
        }
    }

    #[test]
    fn a_moment_is_that_of_the_nearest_year() {
        let now = Timestamp::parse("2026-01-01T12:00:00Z").unwrap();
        let year = |stamp: &str| {
            let line = format!("{stamp} relay1 mailroot/service[1]: warning: x: y=z");
            let told = read(&line, now).unwrap();
            assert_eq!(told.level, Importance::Warn);
            told.at.unwrap().to_string()[..7].to_owned()
        };
        assert_eq!(year("Dec 15 10:02:48"), "2025-12");
        assert_eq!(year("Nov  5 10:02:48"), "2025-11");
        assert_eq!(year("Jan  1 10:02:48"), "2026-01");
    }
}
