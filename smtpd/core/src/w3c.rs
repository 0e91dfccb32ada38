//! What the SMTP service of IIS wrote into its W3C extended log files, for analysers of these.
//!
//! In: the lines of dialogues, as listeners hear them, so without secrets. Out: records. A client's command
//! becomes one record when its reply is complete, with the reply's code, what either took, and how long it
//! was; the reply that ends a message belongs to DATA or BDAT, with the message's octets, and names the message
//! by its id. Of a session that we began each command and each reply is a record of its own. Where lines were
//! lost, what can no longer be paired is forgotten. Nothing that a peer says can break out of its field.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use mailroot_common::control::{DialogueLine, Direction, Spoken};
use mailroot_common::id::{QueueId, SessionId};
use mailroot_common::units::Timestamp;

/// The fields of a record, as the original had them.
pub const FIELDS: &str = "date time c-ip cs-username s-sitename s-computername s-ip s-port cs-method \
    cs-uri-stem cs-uri-query sc-status sc-win32-status sc-bytes cs-bytes time-taken cs-version cs-host \
    cs(User-Agent) cs(Cookie) cs(Referer)";

/// Sessions that are followed at once; the oldest are forgotten first.
const SESSIONS_MAX: usize = 20_000;
/// Commands of one session whose replies are awaited.
const COMMANDS_MAX: usize = 1_000;
/// The most octets of a reply of several lines that are kept.
const REPLY_OCTETS_MAX: usize = 4_000;
/// What stands for nothing.
const NONE: &str = "-";
/// Who speaks in a session that we began.
const COMMAND: &str = "OutboundConnectionCommand";
const RESPONSE: &str = "OutboundConnectionResponse";

/// One line of such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When its reply was complete.
    pub at: Timestamp,
    /// The address of the other side.
    pub peer: String,
    /// The name that the client gave with HELO or EHLO, or who speaks in a session that we began.
    pub user: String,
    /// The virtual server.
    pub server: String,
    /// The port of the other side, where we called it.
    pub port: Option<String>,
    /// The verb.
    pub verb: String,
    /// What stands behind it.
    pub query: String,
    /// The reply's code; 0 where there is none.
    pub status: u16,
    /// Octets of the reply, or of what we said.
    pub sent: u64,
    /// Octets of the command and its message.
    pub received: u64,
    /// Milliseconds from the command to the end of its reply, or from the session's beginning.
    pub millis: u64,
}

impl Record {
    /// The day's part of the name of its file: `YYMMDD`, in UTC.
    #[must_use]
    pub fn day(&self) -> String {
        let text = self.at.to_string();
        let digits = text.bytes().take(10).filter(u8::is_ascii_digit).skip(2);
        digits.map(char::from).collect()
    }

    /// The line, with what `computer` is called, without its end.
    #[must_use]
    pub fn line(&self, computer: &str) -> String {
        let at = self.at.to_string();
        let (date, time) = (at.get(..10).unwrap_or(NONE), at.get(11..19).unwrap_or(NONE));
        format!(
            "{date} {time} {} {} {} {} {NONE} {} {} {NONE} {} {} 0 {} {} {} SMTP {NONE} {NONE} {NONE} {NONE}",
            Field(&self.peer),
            Field(&self.user),
            Field(&self.server),
            Field(computer),
            Field(self.port.as_deref().unwrap_or_default()),
            Field(&self.verb),
            Field(&self.query),
            self.status,
            self.sent,
            self.received,
            self.millis,
        )
    }
}

/// A value that can stand between blanks.
struct Field<'a>(&'a str);

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(NONE);
        }
        for part in self.0.split_inclusive(|c: char| c.is_whitespace() || c.is_control()) {
            match part.strip_suffix(|c: char| c.is_whitespace() || c.is_control()) {
                Some(words) => write!(f, "{words}+")?,
                None => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// A command whose reply is awaited.
#[derive(Debug)]
struct Command {
    at: Timestamp,
    verb: String,
    query: String,
    octets: u64,
}

#[derive(Debug)]
struct Session {
    began: Timestamp,
    helo: String,
    commands: VecDeque<Command>,
    /// The lines of a reply so far, and all its octets.
    reply: String,
    reply_octets: u64,
}

/// Makes records of dialogues.
#[derive(Debug, Default)]
pub struct Recorder {
    sessions: BTreeMap<SessionId, Session>,
}

impl Recorder {
    /// Takes a line that was said; what it completes.
    pub fn take(&mut self, line: &DialogueLine) -> Vec<Record> {
        if line.lost > 0 {
            // What was lost may have been any session's.
            self.sessions.values_mut().for_each(Session::forget);
        }
        if line.what == Spoken::End {
            let session = self.sessions.remove(&line.id);
            return session.map(|session| session.unanswered(line)).unwrap_or_default();
        }
        while self.sessions.len() >= SESSIONS_MAX && !self.sessions.contains_key(&line.id) {
            self.sessions.pop_first();
        }
        let session = self.sessions.entry(line.id).or_insert_with(|| Session::begun(line.at));
        let text = line.text.as_deref().unwrap_or_default();
        let record = match (line.direction, line.what) {
            (Direction::In, Spoken::Client) => session.hear_command(line, text),
            (Direction::In, Spoken::Server) => session.hear_reply(line, text),
            (Direction::In, Spoken::Body) => session.hear_body(line.octets.unwrap_or_default()),
            (Direction::Out, Spoken::Client) => Some(session.command(line, text)),
            (Direction::Out, Spoken::Server) => session.response(line, text),
            (_, Spoken::Body | Spoken::End) => None,
        };
        record.into_iter().collect()
    }
}

impl Session {
    const fn begun(at: Timestamp) -> Self {
        Self {
            began: at,
            helo: String::new(),
            commands: VecDeque::new(),
            reply: String::new(),
            reply_octets: 0,
        }
    }

    fn forget(&mut self) {
        self.commands.clear();
        self.reply.clear();
        self.reply_octets = 0;
    }

    fn hear_command(&mut self, line: &DialogueLine, text: &str) -> Option<Record> {
        let octets = octets_of(text);
        let (verb, query) = split(text);
        if !is_verb(&verb) {
            // An answer to 334, which nobody may see.
            if let Some(command) = self.commands.back_mut() {
                command.octets += octets;
            }
            return None;
        }
        if self.commands.len() >= COMMANDS_MAX {
            self.commands.pop_front();
        }
        self.commands.push_back(Command { at: line.at, verb, query, octets });
        None
    }

    fn hear_body(&mut self, octets: u64) -> Option<Record> {
        let takes_it = |it: &&mut Command| matches!(&*it.verb, "DATA" | "BDAT");
        if let Some(command) = self.commands.iter_mut().rev().find(takes_it) {
            command.octets += octets;
        }
        None
    }

    fn hear_reply(&mut self, line: &DialogueLine, text: &str) -> Option<Record> {
        self.reply_octets += octets_of(text);
        let code = text.get(..3).and_then(|code| code.parse::<u16>().ok()).unwrap_or_default();
        let goes_on = text.as_bytes().get(3) == Some(&b'-') || matches!(code, 334 | 354);
        if goes_on {
            return None;
        }
        let sent = std::mem::take(&mut self.reply_octets);
        let Some(mut command) = self.commands.pop_front() else {
            // A greeting is no record; what ends a session unasked is.
            let millis = line.at.since(self.began).as_millis();
            let ends = code >= 400;
            return ends.then(|| Record {
                query: split(text).1,
                status: code,
                sent,
                millis,
                ..self.record(line)
            });
        };
        match &*command.verb {
            "HELO" | "EHLO" if code < 300 => command.query.clone_into(&mut self.helo),
            "DATA" | "BDAT" if code < 300 => {
                let id = text.split(' ').find(|word| QueueId::parse(word).is_ok());
                command.query = id.map_or(command.query, |id| format!("<{id}>"));
            }
            _ => {}
        }
        Some(self.answered(line, command, code, sent))
    }

    fn answered(&self, line: &DialogueLine, command: Command, status: u16, sent: u64) -> Record {
        let Command { at, verb, query, octets } = command;
        let query = if query.is_empty() { query } else { format!("+{query}") };
        let (received, millis) = (octets, line.at.since(at).as_millis());
        Record { verb, query, status, sent, received, millis, ..self.record(line) }
    }

    /// The commands whose replies never came.
    fn unanswered(mut self, line: &DialogueLine) -> Vec<Record> {
        let commands = std::mem::take(&mut self.commands);
        commands.into_iter().map(|command| self.answered(line, command, 0, 0)).collect()
    }

    fn command(&self, line: &DialogueLine, text: &str) -> Record {
        let (verb, query) = split(text);
        let (verb, query) =
            if is_verb(&verb) { (verb, query) } else { (String::new(), text.to_owned()) };
        let millis = line.at.since(self.began).as_millis();
        let user = COMMAND.to_owned();
        Record { user, verb, query, sent: octets_of(text), millis, ..self.record(line) }
    }

    fn response(&mut self, line: &DialogueLine, text: &str) -> Option<Record> {
        self.reply_octets += octets_of(text);
        if self.reply.len() + text.len() < REPLY_OCTETS_MAX {
            if !self.reply.is_empty() {
                self.reply.push(' ');
            }
            self.reply.push_str(text);
        }
        if text.as_bytes().get(3) == Some(&b'-') {
            return None;
        }
        let query = std::mem::take(&mut self.reply);
        let sent = std::mem::take(&mut self.reply_octets);
        let millis = line.at.since(self.began).as_millis();
        Some(Record { user: RESPONSE.to_owned(), query, sent, millis, ..self.record(line) })
    }

    /// What is the same in all records.
    fn record(&self, line: &DialogueLine) -> Record {
        let (peer, port) = line.peer.rsplit_once(':').unwrap_or((&line.peer, ""));
        let peer = peer.trim_start_matches('[').trim_end_matches(']').to_owned();
        Record {
            at: line.at,
            peer,
            user: self.helo.clone(),
            server: line.server.clone(),
            port: (line.direction == Direction::Out).then(|| port.to_owned()),
            verb: String::new(),
            query: String::new(),
            status: 0,
            sent: 0,
            received: 0,
            millis: 0,
        }
    }
}

/// A line with its end.
fn octets_of(text: &str) -> u64 {
    text.len() as u64 + 2
}

/// The verb in capitals, and what stands behind it.
fn split(text: &str) -> (String, String) {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    (verb.to_ascii_uppercase(), rest.trim().to_owned())
}

fn is_verb(word: &str) -> bool {
    !word.is_empty() && word.len() <= 20 && word.bytes().all(|octet| octet.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn start() -> Timestamp {
        Timestamp::parse("2026-11-30T10:02:48.000Z").unwrap()
    }

    /// Plays a dialogue, 10 ms a line; `B: ` is a count of octets of a message.
    fn played(recorder: &mut Recorder, direction: Direction, script: &[&str]) -> Vec<String> {
        let mut all = Vec::new();
        for (number, said) in script.iter().enumerate() {
            let (side, text) = said.split_at(3);
            let what = match side {
                "C: " => Spoken::Client,
                "S: " => Spoken::Server,
                "B: " => Spoken::Body,
                _ => Spoken::End,
            };
            let line = DialogueLine {
                at: Timestamp::from_millis(start().as_millis() + 10 * number as u64),
                id: SessionId::from_u64(7),
                server: "default".to_owned(),
                direction,
                peer: "[2001:db8::1]:4711".to_owned(),
                what,
                octets: text.parse().ok().filter(|_| what == Spoken::Body),
                text: (what != Spoken::Body).then(|| text.to_owned()),
                lost: 0,
            };
            all.extend(recorder.take(&line).iter().map(|record| record.line("relay1")));
        }
        all
    }

    #[test]
    fn a_command_is_a_record_with_its_reply() {
        let script = [
            "S: 220 mx",
            "C: EHLO client",
            "S: 250-mx",
            "S: 250 SIZE",
            "C: AUTH PLAIN",
            "S: 334 ***",
            "C: ***",
            "S: 235 2.7.0 ok",
            "C: mail FROM:<a@x> SIZE=3",
            "C: RCPT TO:<b@y>",
            "C: DATA",
            "S: 250 ok",
            "S: 250 ok",
            "S: 354 go",
            "B: 1000",
            "S: 250 2.6.0 6FZK3Q8W1T0A queued for delivery",
            "C: QUIT",
            "E: ",
        ];
        let front = "2026-11-30 10:02:48 2001:db8::1";
        let back = "SMTP - - - -";
        assert_eq!(
            played(&mut Recorder::default(), Direction::In, &script),
            [
                format!("{front} client default relay1 - - EHLO - +client 250 0 18 13 20 {back}"),
                format!("{front} client default relay1 - - AUTH - +PLAIN 235 0 23 17 30 {back}"),
                format!(
                    "{front} client default relay1 - - MAIL - +FROM:<a@x>+SIZE=3 250 0 8 24 30 {back}"
                ),
                format!("{front} client default relay1 - - RCPT - +TO:<b@y> 250 0 8 15 30 {back}"),
                format!(
                    "{front} client default relay1 - - DATA - +<6FZK3Q8W1T0A> 250 0 52 1006 50 {back}"
                ),
                format!("{front} client default relay1 - - QUIT - - 0 0 0 6 10 {back}"),
            ]
        );
    }

    #[test]
    fn of_a_session_that_we_began_both_sides_are_records() {
        let script = ["S: 220-mx", "S: 220 ready", "C: EHLO relay1", "E: "];
        let front = "2026-11-30 10:02:48 2001:db8::1";
        assert_eq!(
            played(&mut Recorder::default(), Direction::Out, &script),
            [
                format!(
                    "{front} {RESPONSE} default relay1 - 4711 - - 220-mx+220+ready 0 0 19 0 10 SMTP - - - -"
                ),
                format!(
                    "{front} {COMMAND} default relay1 - 4711 EHLO - relay1 0 0 13 0 20 SMTP - - - -"
                ),
            ]
        );
    }

    #[test]
    fn nothing_breaks_out_of_its_field_and_what_is_lost_is_forgotten() {
        let mut recorder = Recorder::default();
        let script = ["C: EHLO a\u{a0}b\tc \u{85}d", "S: 250 x", "S: 421 4.3.2 bye"];
        let records = played(&mut recorder, Direction::In, &script);
        assert!(
            records.iter().all(|record| record.split_whitespace().count() == 21),
            "{records:?}"
        );
        assert!(records[1].contains(" 4.3.2+bye 421 "), "{records:?}");
        played(&mut recorder, Direction::In, &["C: NOOP"]);
        let lost = DialogueLine {
            at: start(),
            id: SessionId::from_u64(8),
            server: String::new(),
            direction: Direction::In,
            peer: "192.0.2.1:25".to_owned(),
            what: Spoken::Server,
            text: Some("220 mx".to_owned()),
            octets: None,
            lost: 3,
        };
        assert!(recorder.take(&lost).is_empty());
        assert!(played(&mut recorder, Direction::In, &["S: 250 ok", "E: "]).is_empty());
    }

    #[test]
    fn sessions_that_never_end_do_not_gather() {
        let mut recorder = Recorder::default();
        for id in 0..SESSIONS_MAX as u64 + 5 {
            recorder.take(&DialogueLine {
                at: start(),
                id: SessionId::from_u64(id),
                server: String::new(),
                direction: Direction::In,
                peer: String::new(),
                what: Spoken::Client,
                text: Some("NOOP".to_owned()),
                octets: None,
                lost: 0,
            });
        }
        assert_eq!(recorder.sessions.len(), SESSIONS_MAX);
        assert!(!recorder.sessions.contains_key(&SessionId::from_u64(0)));
    }

    #[test]
    fn the_day_is_that_of_the_file() {
        let record = Session::begun(start()).record(&DialogueLine {
            at: start(),
            id: SessionId::from_u64(1),
            server: String::new(),
            direction: Direction::In,
            peer: String::new(),
            what: Spoken::End,
            text: None,
            octets: None,
            lost: 0,
        });
        assert_eq!(record.day(), "261130");
    }
}
