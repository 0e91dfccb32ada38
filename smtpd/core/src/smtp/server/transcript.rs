//! Plays the conversations of `tests/transcripts/*.smtp` against the machine.
//!
//! The same files are played against the daemon and against a real Postfix by the black-box tests,
//! which describe the format (`tests/src/transcript.rs`). Here every conversation is played several
//! times with its octets cut differently: pieces must not matter.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::id::QueueId;
use mailroot_common::password::Verifier;
use mailroot_common::units::{ByteSize, Span, Timestamp};

use super::{Action, Logins, Question, Server, Settings, Tls};
use crate::queue::wishes::Priority;
use crate::smtp::auth::{Channel, Claim, Mechanism};
use crate::smtp::body::BodyLimits;
use crate::smtp::command::Grammar;
use crate::smtp::extension::{Extension, Offer};
use crate::smtp::refusal::Refusal;

/// What the wall clock shows when a session begins.
pub(super) const WALL: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// Settings for tests, all limits out of the way.
pub(super) fn settings() -> Settings {
    Settings {
        host: "mx.test".to_owned(),
        banner: "ESMTP".to_owned(),
        grammar: Grammar {
            offer: Offer::all()
                .without(Extension::Etrn)
                .without(Extension::Atrn)
                .without(Extension::Turn),
            default_domain: Domain::parse("example.com").unwrap(),
            auth: false,
            inquiries: false,
        },
        body: BodyLimits { size_max: 1 << 20, line_max: 2000, header_max: 10_000 },
        recipients_max: 100,
        release_max: Span::days(60),
        deliver_by_min: Span::ZERO,
        priority_max: Priority::MAX,
        session_octets_max: 10 << 20,
        errors_max: 20,
        idle_commands_max: 100,
        idle: Duration::from_mins(5),
        session_time: Duration::from_hours(1),
        rate_min: 100,
        tls: Tls::Off,
        logins: Logins::default(),
    }
}

/// A machine with a house around it that lets everybody in, but relays only if told to.
pub(super) struct Player {
    pub(super) server: Server,
    pub(super) now: Duration,
    relays: bool,
    /// What the connection says of itself under TLS.
    pub(super) channel: Channel,
    unused: Vec<u8>,
    body: Vec<u8>,
    /// Messages that were committed: sender, recipients, body.
    pub(super) messages: Vec<(String, Vec<String>, Vec<u8>)>,
    /// Reasons of the rejections that were told to the log.
    pub(super) rejections: Vec<(&'static str, &'static str)>,
}

impl Player {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            server: Server::new(Arc::new(settings), Duration::ZERO, WALL),
            now: Duration::ZERO,
            relays: true,
            channel: Channel::default(),
            unused: Vec::new(),
            body: Vec::new(),
            messages: Vec::new(),
            rejections: Vec::new(),
        }
    }

    /// Feeds octets in pieces and answers what is asked.
    pub(super) fn feed(&mut self, octets: &[u8], piece: usize) {
        for piece in octets.chunks(piece) {
            self.unused.extend_from_slice(piece);
            loop {
                let used = self.server.on_octets(&self.unused, self.now);
                self.unused.drain(..used);
                let asked = self.answer();
                if used == 0 && !asked {
                    break;
                }
            }
        }
    }

    fn answer(&mut self) -> bool {
        let mut asked = false;
        while let Some(action) = self.server.poll() {
            asked = true;
            match action {
                Action::Rejected(rejection) => {
                    self.rejections.push((rejection.stage.as_str(), rejection.refusal.reason()));
                }
                Action::Answer(Question::Commit) => self.commit(),
                Action::Answer(Question::Recipient) => {
                    let ours = Domain::parse("example.com").unwrap();
                    let domain = self.server.candidate().unwrap().mailbox.domain().cloned();
                    let admitted = self.relays || domain == Some(ours);
                    let verdict = admitted.then_some(()).ok_or(Refusal::RelayDenied);
                    self.server.admit(verdict, self.now);
                }
                Action::Answer(Question::Etrn) => {
                    let asked = self.server.asked_for().unwrap().to_string();
                    let known = asked.strip_prefix("branch").is_some();
                    self.server.turned(known.then_some(2).ok_or(Refusal::NodeNotAllowed), self.now);
                }
                Action::Answer(Question::Reverse) => {
                    let domain = self.server.fetched().unwrap().first().map(ToString::to_string);
                    let verdict = match domain.as_deref() {
                        Some("nobody.example") => Err(Refusal::FetchDenied),
                        Some("empty.example") => Err(Refusal::NoMailWaits),
                        _ => Ok(()),
                    };
                    self.server.reversed(verdict, self.now);
                }
                Action::Answer(Question::Told) => self.server.introduced(Ok(()), self.now),
                Action::Answer(Question::Login) => self.judge_login(),
                Action::Handshake => {
                    assert!(self.unused.is_empty(), "clear text is left for the session under TLS");
                    self.server.secured(self.now);
                    self.server.over(self.channel.clone());
                }
                Action::Answer(Question::Sender | Question::Body | Question::Secure) => {
                    self.server.admit(Ok(()), self.now);
                }
            }
        }
        self.body.extend_from_slice(self.server.body());
        self.server.body_taken();
        if self.server.body_octets().is_none() {
            self.body.clear();
        }
        asked
    }

    /// Everybody's password is "secret", every certificate is ada's, one token is good, no proof is good, and a ticket's last word is a name.
    fn judge_login(&mut self) {
        match self.server.claim().unwrap().clone() {
            Claim::Verifier { .. } => {
                let keys = [7; 32];
                let verifier =
                    Verifier { salt: vec![1], iterations: 1, stored_key: keys, server_key: keys };
                self.server.verifier(verifier, "nonce", self.now);
            }
            Claim::Password { user, password } => {
                let good = password.as_str() == "secret";
                let verdict = good.then_some(user).ok_or(Refusal::LoginFailed);
                self.server.judged(verdict, self.now);
            }
            Claim::Proof { user, good } => {
                let verdict = good.then_some(user).ok_or(Refusal::LoginFailed);
                self.server.judged(verdict, self.now);
            }
            Claim::Bearer { user, token } => {
                let good = token.as_str() == "good";
                let verdict = good.then_some(user).ok_or(Refusal::LoginFailed);
                self.server.judged(verdict, self.now);
            }
            Claim::External { identity } => {
                let good = matches!(&*identity, "" | "ada");
                let verdict = good.then(|| "ada".to_owned()).ok_or(Refusal::LoginFailed);
                self.server.judged(verdict, self.now);
            }
            Claim::Agreed { user } => self.server.judged(Ok(user), self.now),
            Claim::Token { token, .. } if token.len() > 100 || token.is_empty() => {
                self.server.challenged(token.len().to_string().into_bytes(), self.now);
            }
            Claim::Token { token, .. } => {
                self.server.judged(Ok(String::from_utf8(token).unwrap()), self.now);
            }
        }
    }

    fn commit(&mut self) {
        self.body.extend_from_slice(self.server.body());
        let sender = self.server.transaction().unwrap().sender.to_string();
        let recipients = self.server.take_recipients();
        let recipients = recipients.iter().map(|r| r.mailbox.to_string()).collect();
        let body = std::mem::take(&mut self.body);
        self.messages.push((sender, recipients, body));
        self.server.committed(Ok(QueueId::at_millis(1)), self.now);
    }

    /// All that was said since the last call, reply by reply, each with all its lines.
    pub(super) fn replies(&mut self) -> Vec<String> {
        let said = String::from_utf8(std::mem::take(self.server.output())).unwrap();
        let mut replies = vec![String::new()];
        for line in said.split_inclusive("\r\n") {
            assert!(line.len() <= 512 && line.ends_with("\r\n"), "{line:?}");
            replies.last_mut().unwrap().push_str(line);
            if line.as_bytes()[3] == b' ' {
                replies.push(String::new());
            }
        }
        assert_eq!(replies.pop().as_deref(), Some(""), "the last reply is whole");
        replies
    }
}

/// Plays a script; the error names the line and what came instead.
pub(super) fn play(script: &str, piece: usize) -> Result<(), String> {
    let (player, lines) = prepare(script);
    let mut player = player;
    let mut replies = VecDeque::from(player.replies());
    if !lines.first().is_some_and(|(_, line)| line.starts_with('S')) {
        replies.pop_front();
    }
    for (number, line) in lines {
        let (mark, rest) = line.split_at(2);
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        match mark {
            "C:" => player.feed(format!("{rest}\r\n").as_bytes(), piece),
            "R:" => player.feed(&unescape(rest), piece),
            "S:" | "S~" => {
                let reply = replies.pop_front().unwrap_or_else(|| "nothing".to_owned());
                if !fits(rest, &reply, mark == "S:") {
                    return Err(format!("line {number}: expected {rest:?}, came {reply:?}"));
                }
            }
            "X:" if player.server.end().is_some() && replies.is_empty() => {}
            "X:" => return Err(format!("line {number}: not the end, {replies:?} is left")),
            _ => return Err(format!("line {number} is not understood")),
        }
        replies.extend(player.replies());
    }
    if replies.is_empty() { Ok(()) } else { Err(format!("nobody expected {replies:?}")) }
}

fn prepare(script: &str) -> (Player, Vec<(usize, &str)>) {
    let mut settings = settings();
    let (mut relays, mut lines) = (true, Vec::new());
    for (index, line) in script.lines().enumerate() {
        if let Some(key) = line.strip_prefix("@ ") {
            relays &= set(&mut settings, key);
        } else if !line.is_empty() && !line.starts_with(['#', '@']) {
            lines.push((index + 1, line));
        }
    }
    let mut player = Player::new(settings);
    player.relays = relays;
    (player, lines)
}

/// Takes a key of the server file into the settings; false if it forbids relaying.
fn set(settings: &mut Settings, key: &str) -> bool {
    let (name, value) = key.split_once(": ").unwrap();
    let size = || ByteSize::parse(value).unwrap().as_u64();
    match name {
        "messages.max_size" => settings.body.size_max = size(),
        "messages.max_session_size" => settings.session_octets_max = size(),
        "messages.future_release" => {
            settings.release_max = Span::parse(value).unwrap();
            if settings.release_max == Span::ZERO {
                let offer = settings.grammar.offer;
                settings.grammar.offer = offer.without(Extension::FutureRelease);
            }
        }
        "messages.deliver_by_min" => settings.deliver_by_min = Span::parse(value).unwrap(),
        "messages.max_recipients" => settings.recipients_max = value.parse().unwrap(),
        "general.max_errors" => settings.errors_max = value.parse().unwrap(),
        "limits.idle_commands" => settings.idle_commands_max = value.parse().unwrap(),
        "limits.line_length" => settings.body.line_max = usize::try_from(size()).unwrap(),
        "limits.header_size" => settings.body.header_max = usize::try_from(size()).unwrap(),
        "general.extensions" => {
            let names = value.trim_matches(['[', ']']).split(", ");
            let extensions = names.filter(|name| !name.is_empty());
            settings.grammar.offer = extensions.map(|e| Extension::named(e).unwrap()).collect();
        }
        "access.relay.list" => {
            settings.priority_max = Priority::NORMAL;
            settings.grammar.offer = settings.grammar.offer.without(Extension::FutureRelease);
            return false;
        }
        "access.basic.enabled" => {
            settings.logins.mechanisms = Mechanism::ALL.to_vec();
            settings.logins.failures_max = 5;
            settings.grammar.auth = true;
        }
        "access.basic.require_tls" => settings.logins.only_under_tls = value == "true",
        "access.tls.mode" => {
            settings.tls = match value {
                "required" => Tls::Required,
                "optional" => Tls::Optional,
                _ => Tls::Off,
            }
        }
        // The house of the player has this domain anyway.
        "domains" => {}
        other => panic!("{other} is not known to the player"),
    }
    true
}

fn fits(expected: &str, reply: &str, enhanced: bool) -> bool {
    let words: Vec<&str> = expected.split(' ').collect();
    let said: Vec<&str> = reply.trim_end().split([' ', '-']).collect();
    let is_enhanced = |word: &&&str| {
        word.split('.').count() == 3 && word.bytes().all(|o| o.is_ascii_digit() || o == b'.')
    };
    let codes = usize::from(enhanced && words.get(1).filter(is_enhanced).is_some());
    words[..=codes] == said[..(codes + 1).min(said.len())]
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.extend_from_slice(plain.as_bytes());
        let (kind, after) = escaped.split_at(1);
        rest = after;
        match kind {
            "r" => out.push(b'\r'),
            "n" => out.push(b'\n'),
            "t" => out.push(b'\t'),
            "0" => out.push(0),
            "\\" => out.push(b'\\'),
            "x" => {
                out.push(u8::from_str_radix(&after[..2], 16).unwrap());
                rest = &after[2..];
            }
            "e" => {
                let (count, after) = after[1..].split_once('}').unwrap();
                out.extend(std::iter::repeat_n(after.as_bytes()[0], count.parse().unwrap()));
                rest = &after[1..];
            }
            other => panic!("\\{other} is no escape"),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}
