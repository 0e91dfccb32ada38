//! Log lines in the words of Postfix, for what counts and watches by these: pflogsumm and its kin.
//!
//! One event becomes the lines that programs of Postfix would write about it; [`Told::bodies`] is the table.
//! What has no counterpart there is told as a line of `service`. Whatever a peer chose is bare of the marks by
//! which readers tell fields, so that it can forge none: an address has no blanks and no angle brackets
//! inside, and behind other text no field can follow that brackets end.

use std::fmt::Write as _;

use mailroot_common::id::SessionId;
use mailroot_common::units::Timestamp;

use super::line::{Level, Written, quoted};

/// What stands before the program's name.
const NAME: &str = "mailroot";
/// The program of what Postfix does not know.
const SERVICE: &str = "service";

/// An event with its fields.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) event: String,
    pub(super) level: Level,
    /// The moment, where lines carry it.
    pub(super) at: Option<Timestamp>,
    pub(super) fields: Vec<(&'static str, String)>,
}

/// The program that would tell something, and what.
type Body = (&'static str, String);

impl Told {
    /// The lines, each ended by LF.
    pub(super) fn lines(&self) -> Vec<String> {
        let before = self.at.map(|at| format!("{} {} ", stamp(at), host())).unwrap_or_default();
        let number = self.number();
        let line = |(program, text): Body| format!("{before}{NAME}/{program}[{number}]: {text}\n");
        self.bodies().into_iter().map(line).collect()
    }

    /// Who tells what about which event.
    fn bodies(&self) -> Vec<Body> {
        let id = self.word("id");
        match self.event.as_str() {
            "connect" => vec![("smtpd", format!("connect from {}", self.client()))],
            "disconnect" => vec![("smtpd", format!("disconnect from {}", self.client()))],
            "tls" => vec![("smtpd", self.protected())],
            "reject" => vec![("smtpd", self.reject())],
            "login-failed" => vec![("smtpd", self.login_failed())],
            "received" => self.received(&id),
            "report" => self.report(&id),
            "sent-on" => vec![self.queued(&id)],
            "delivered" | "resolved" | "deferred" | "bounced" | "expired" => {
                vec![self.attempt(&id)]
            }
            "held" => vec![("postsuper", format!("{id}: placed on hold"))],
            "released" => vec![("postsuper", format!("{id}: released from hold"))],
            "removed" => vec![("postsuper", format!("{id}: removed"))],
            _ => vec![(SERVICE, self.other())],
        }
    }

    fn received(&self, id: &str) -> Vec<Body> {
        let from = self.address("from");
        let door = match (self.get("client"), self.get("uid")) {
            (_, Some(uid)) => ("pickup", format!("{id}: uid={uid} from={from}")),
            (Some(_), None) => {
                let user = match self.get("user") {
                    None | Some("-") => String::new(),
                    Some(_) => format!(", sasl_username={}", self.word("user")),
                };
                ("smtpd", format!("{id}: client={}{user}", self.client()))
            }
            (None, None) => ("pickup", format!("{id}: sender={from}")),
        };
        vec![
            door,
            ("cleanup", format!("{id}: message-id={}", self.address("msgid"))),
            self.queued(id),
        ]
    }

    fn report(&self, id: &str) -> Vec<Body> {
        let kind = match self.get("kind") {
            Some("delay") => "delay",
            Some("success") => "delivery status",
            _ => "non-delivery",
        };
        let words = format!("{}: sender {kind} notification: {id}", self.word("about"));
        vec![("bounce", words), self.queued(id)]
    }

    fn queued(&self, id: &str) -> Body {
        let (size, count) = (self.or("size", "0"), self.or("nrcpt", "1"));
        let from = self.address("from");
        ("qmgr", format!("{id}: from={from}, size={size}, nrcpt={count} (queue active)"))
    }

    fn attempt(&self, id: &str) -> Body {
        let reply = self.text("reply");
        let (program, relay) = match self.get("relay") {
            Some("drop" | "directory") => ("local", "local".to_owned()),
            Some(_) => ("smtp", self.word("relay")),
            None => ("smtp", "none".to_owned()),
        };
        let (status, words) = match self.event.as_str() {
            "delivered" => ("sent", reply),
            "resolved" => ("sent", format!("forwarded as new mail: {reply}")),
            "deferred" => ("deferred", self.said(&relay, reply)),
            _ => ("bounced", self.said(&relay, reply)),
        };
        let (to, delay, dsn) = (self.address("to"), self.or("delay", "0"), self.or("dsn", "5.0.0"));
        let line = format!(
            "{id}: to={to}, relay={relay}, delay={delay}, dsn={dsn}, status={status} ({words})"
        );
        (program, line)
    }

    /// The remote's words as Postfix quotes them; ours as they are.
    fn said(&self, relay: &str, reply: String) -> String {
        let command = match self.get("reason") {
            Some("hello") => "EHLO command",
            Some("tls") => "STARTTLS command",
            Some("login") => "AUTH command",
            Some("mail") => "MAIL FROM command",
            Some("rcpt") => "RCPT TO command",
            Some("data") => "DATA command",
            Some("end") => "end of DATA command",
            _ => return reply,
        };
        let is_reply = reply.get(..3).is_some_and(|code| code.bytes().all(|o| o.is_ascii_digit()));
        if !is_reply || relay == "none" {
            return reply;
        }
        let host = relay.rsplit_once(':').map_or(relay, |(host, _)| host);
        format!("host {host} said: {reply} (in reply to {command})")
    }

    fn reject(&self) -> String {
        let (client, reason) = (self.client(), self.or("reason", "-"));
        let codes = format!("{} {}", self.or("code", "550"), self.or("dsn", "5.0.0"));
        let verb = match self.get("stage") {
            Some("connect") => "CONNECT",
            Some("mail") => "MAIL",
            Some("rcpt") => "RCPT",
            Some("data") => "DATA",
            Some("end") => "END-OF-MESSAGE",
            Some("etrn") => "ETRN",
            // Of a session that ends, not of a message.
            stage => {
                let stage = stage.unwrap_or("command").to_ascii_uppercase();
                return format!("{reason} after {stage} from {client}: {codes}");
            }
        };
        let about = match (verb, self.get("to"), self.get("from")) {
            ("CONNECT", ..) => format!("<{client}>: "),
            ("RCPT", Some(_), _) => format!("{}: ", self.address("to")),
            ("MAIL", _, Some(_)) => format!("{}: ", self.address("from")),
            _ => String::new(),
        };
        let words = match reason.as_str() {
            "relay-denied" => "Relay access denied".to_owned(),
            "access-denied" => "Client host rejected: Access denied".to_owned(),
            "size" => "Message size exceeds fixed limit".to_owned(),
            "unknown-sender" => "Sender address rejected: User unknown".to_owned(),
            "unknown-recipient" => "Recipient address rejected: User unknown".to_owned(),
            other => other.replace('-', " "),
        };
        let mut line = format!("NOQUEUE: reject: {verb} from {client}: {codes} {about}{words};");
        for key in ["from", "to"] {
            if self.get(key).is_some() {
                put(&mut line, format_args!(" {key}={}", self.address(key)));
            }
        }
        match self.get("helo") {
            None | Some("") => line.push_str(" proto=SMTP"),
            Some(_) => put(&mut line, format_args!(" proto=ESMTP helo=<{}>", self.word("helo"))),
        }
        line
    }

    fn login_failed(&self) -> String {
        let (client, mechanism) = (self.client(), self.or("mech", "-"));
        let (reason, user) = (self.or("reason", "-"), self.word("user"));
        format!(
            "warning: {client}: SASL {mechanism} authentication failed: {reason}, sasl_username={user}"
        )
    }

    fn protected(&self) -> String {
        let (client, tls, cipher) = (self.client(), self.or("tls", "TLS"), self.or("cipher", "-"));
        format!("Anonymous TLS connection established from {client}: {tls} with cipher {cipher}")
    }

    fn other(&self) -> String {
        let mut line = match self.level {
            Level::Error => "error: ".to_owned(),
            Level::Warn => "warning: ".to_owned(),
            Level::Info | Level::Debug => String::new(),
        };
        if self.get("id").is_some() {
            put(&mut line, format_args!("{}: ", self.word("id")));
        }
        put(&mut line, format_args!("{}:", self.event));
        for (key, value) in self.fields.iter().filter(|(key, _)| *key != "id") {
            line.push(' ');
            let done = quoted(&mut line, key, &tame(value), Written::AsNeeded);
            debug_assert!(done.is_ok(), "writing into a String cannot fail");
        }
        line
    }

    /// The number in brackets. A process of Postfix serves one session at a time, and readers go by that:
    /// what belongs to a session has its number, all else that of our process.
    fn number(&self) -> u64 {
        let session = self.get("sid").and_then(|sid| SessionId::parse(sid).ok());
        session.map_or_else(|| std::process::id().into(), SessionId::as_u64)
    }

    fn client(&self) -> String {
        let name = self.get("name").map_or_else(|| "unknown".to_owned(), |_| self.word("name"));
        format!("{name}[{}]", self.or("client", "unknown"))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    fn or(&self, key: &str, else_: &str) -> String {
        self.get(key).map_or_else(|| else_.to_owned(), bare)
    }

    /// A value without blanks and brackets; empty where there is none.
    fn word(&self, key: &str) -> String {
        self.or(key, "")
    }

    /// A value in angle brackets, without any inside.
    fn address(&self, key: &str) -> String {
        let value = self.get(key).unwrap_or_default();
        let inner = value.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
        format!("<{}>", bare(inner.unwrap_or(value)))
    }

    /// Text that stands last.
    fn text(&self, key: &str) -> String {
        tame(self.get(key).unwrap_or_default())
    }
}

fn put(line: &mut String, words: std::fmt::Arguments<'_>) {
    let done = line.write_fmt(words);
    debug_assert!(done.is_ok(), "writing into a String cannot fail");
}

/// A value that can stand among fields.
fn bare(value: &str) -> String {
    let is_mark = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>');
    value.chars().map(|c| if is_mark(c) { '?' } else { c }).collect()
}

/// Text behind which nobody takes more for a field.
fn tame(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    plain.replace(">, ", ">; ")
}

/// `Nov 30 10:02:48`, where this machine is.
fn stamp(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    let moment = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    moment.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%b %e %H:%M:%S").to_string()
}

/// What this machine is called, without its domain.
fn host() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let name =
        name.as_deref().and_then(|name| name.split('.').next()).filter(|name| !name.is_empty());
    bare(name.unwrap_or("localhost"))
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Log};
    use super::*;
    use crate::clock::Clock;

    /// What is written about an event, without what stands before the text.
    fn told(event: &str, level: Level, fields: &[(&'static str, &str)]) -> Vec<String> {
        let (log, lines) = Log::captured(Format::Postfix, Level::Debug, Clock::real());
        let line = log.line(level, event);
        fields.iter().fold(line, |line, (key, value)| line.word(key, value)).send();
        let process = format!("[{}]", std::process::id());
        lines.text().lines().map(|line| line.replace(&process, "")).collect()
    }

    #[test]
    fn a_message_is_told_as_postfix_tells_it() {
        let id = ("id", "6FZK3Q8W1T0A");
        let received = [
            id,
            ("sid", "7QK2M9"),
            ("client", "10.1.0.7"),
            ("size", "4312"),
            ("nrcpt", "2"),
            ("user", "-"),
            ("from", "<a@x.example>"),
            ("msgid", "<1@x>"),
            ("subject", "x"),
        ];
        let number = SessionId::parse("7QK2M9").unwrap().as_u64();
        assert_eq!(
            told("received", Level::Info, &received),
            [
                format!("mailroot/smtpd[{number}]: 6FZK3Q8W1T0A: client=unknown[10.1.0.7]"),
                format!("mailroot/cleanup[{number}]: 6FZK3Q8W1T0A: message-id=<1@x>"),
                format!(
                    "mailroot/qmgr[{number}]: 6FZK3Q8W1T0A: from=<a@x.example>, size=4312, nrcpt=2 (queue active)"
                ),
            ]
        );
        let sent = [
            id,
            ("relay", "mx1.y.example[192.0.2.20]:25"),
            ("delay", "1.912"),
            ("dsn", "2.0.0"),
            ("to", "<b@y.example>"),
            ("reply", "250 2.0.0 OK"),
        ];
        assert_eq!(
            told("delivered", Level::Info, &sent),
            ["mailroot/smtp: 6FZK3Q8W1T0A: to=<b@y.example>, relay=mx1.y.example[192.0.2.20]:25, \
              delay=1.912, dsn=2.0.0, status=sent (250 2.0.0 OK)"]
        );
        let deferred = [
            id,
            ("relay", "mx[192.0.2.20]:25"),
            ("delay", "3"),
            ("dsn", "4.7.1"),
            ("reason", "rcpt"),
            ("to", "<b@y>"),
            ("reply", "451 4.7.1 later"),
        ];
        assert_eq!(
            told("deferred", Level::Info, &deferred),
            [
                "mailroot/smtp: 6FZK3Q8W1T0A: to=<b@y>, relay=mx[192.0.2.20]:25, delay=3, dsn=4.7.1, \
              status=deferred (host mx[192.0.2.20] said: 451 4.7.1 later (in reply to RCPT TO command))"
            ]
        );
        let dropped =
            [id, ("relay", "drop"), ("dsn", "2.0.0"), ("to", "<c@z>"), ("reply", "2.0.0 x")];
        assert!(
            told("delivered", Level::Info, &dropped)[0]
                .contains("/local: 6FZK3Q8W1T0A: to=<c@z>, relay=local")
        );
        let report =
            [("id", "6FZK3QB27N5C"), ("about", "6FZK3Q8W1T0A"), ("kind", "failure"), ("size", "9")];
        assert_eq!(
            told("report", Level::Info, &report),
            [
                "mailroot/bounce: 6FZK3Q8W1T0A: sender non-delivery notification: 6FZK3QB27N5C",
                "mailroot/qmgr: 6FZK3QB27N5C: from=<>, size=9, nrcpt=1 (queue active)",
            ]
        );
    }

    #[test]
    fn refusals_name_the_command_and_sessions_that_end_are_none() {
        let refused = [
            ("client", "203.0.113.9"),
            ("stage", "rcpt"),
            ("code", "550"),
            ("dsn", "5.7.1"),
            ("reason", "relay-denied"),
            ("helo", "bad"),
            ("from", "<s@bad.example>"),
            ("to", "<x@other.example>"),
        ];
        assert_eq!(
            told("reject", Level::Info, &refused),
            ["mailroot/smtpd: NOQUEUE: reject: RCPT from unknown[203.0.113.9]: 550 5.7.1 \
              <x@other.example>: Relay access denied; from=<s@bad.example> to=<x@other.example> \
              proto=ESMTP helo=<bad>"]
        );
        let idle = [
            ("client", "::1"),
            ("stage", "session"),
            ("code", "421"),
            ("dsn", "4.4.2"),
            ("reason", "idle"),
        ];
        assert_eq!(
            told("reject", Level::Info, &idle),
            ["mailroot/smtpd: idle after SESSION from unknown[::1]: 421 4.4.2"]
        );
    }

    #[test]
    fn what_postfix_does_not_know_is_told_all_the_same() {
        let fields = [("server", "lan"), ("id", "6FZK3Q8W1T0A"), ("error", "no room")];
        assert_eq!(
            told("settle-failed", Level::Error, &fields),
            ["mailroot/service: error: 6FZK3Q8W1T0A: settle-failed: server=lan error=\"no room\""]
        );
        assert_eq!(
            told("config", Level::Info, &[("rev", "4")]),
            ["mailroot/service: config: rev=4"]
        );
    }

    #[test]
    fn peers_can_forge_neither_a_field_nor_a_line() {
        let hostile = "x>, size=1 [1]: y: client=z\r\nmailroot/smtpd[1]: from=<a>, size=9";
        for (event, key) in
            [("reject", "helo"), ("reject", "to"), ("received", "msgid"), ("login-failed", "user")]
        {
            let fields = [("client", "::1"), ("stage", "rcpt"), (key, hostile)];
            for line in told(event, Level::Info, &fields) {
                assert!(!line.contains(": y: client=") && !line.contains(">, size=9"), "{line}");
            }
        }
        let line = told("deferred", Level::Info, &[("reply", hostile), ("relay", "mx:25")]);
        assert_eq!(line.len(), 1);
        assert!(!line[0].contains(">, size="), "{line:?}");
        let line = told("config", Level::Info, &[("change", hostile)]);
        assert!(line.len() == 1 && !line[0].contains(">, size="), "{line:?}");
    }
}
