//! The receiving machine as a whole: any octets in any pieces, any answers to its questions, any
//! pace. It never panics, holds bounded memory, says as many replies as a slow reader finds
//! commands, and hands over exactly the messages that reader finds.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mailroot_common::address::Domain;
use mailroot_common::id::QueueId;
use mailroot_common::password::Verifier;
use mailroot_common::units::{Span, Timestamp};
use mailroot_fuzz::{Choices, split};
use smtpd_core::queue::wishes::Priority;
use smtpd_core::smtp::auth::{Channel, Claim, Mechanism};
use smtpd_core::smtp::body::BodyLimits;
use smtpd_core::smtp::command::Grammar;
use smtpd_core::smtp::extension::{Extension, Offer};
use smtpd_core::smtp::line::LINE_OCTETS_MAX;
use smtpd_core::smtp::refusal::{After, Refusal};
use smtpd_core::smtp::server::{Action, End, Logins, Question, Server, Settings, Tls};

/// What the wall clock shows when a session begins.
const WALL: Timestamp = Timestamp::from_millis(1_764_000_000_000);

fuzz_target!(|input: &[u8]| {
    let (wire, mut choices) = split(input);
    let mut run = Run::new(&mut choices);
    run.play(wire, &mut choices);
    run.check(wire);
});

fn settings(choices: &mut Choices<'_>) -> Settings {
    let tight = choices.octet();
    let of =
        |bit: u8, tight_value: u64, wide: u64| if tight & bit != 0 { tight_value } else { wide };
    let (offer, tls, logins) = if tight & 64 == 0 {
        (Offer::all(), Tls::Off, Logins::default())
    } else {
        let bits = choices.octet();
        let on = |(place, _): &(usize, Extension)| bits >> (place % 8) & 1 == 0;
        let on = Extension::ALL.into_iter().enumerate().filter(on);
        let tls = [Tls::Off, Tls::Optional, Tls::Required][choices.below(3)];
        let logins = Logins {
            mechanisms: Mechanism::ALL.into_iter().take(choices.below(9)).collect(),
            only_under_tls: tls != Tls::Off && choices.octet() & 1 != 0,
            failures_max: 3,
        };
        (on.map(|(_, extension)| extension).collect(), tls, logins)
    };
    Settings {
        host: "mx.test".to_owned(),
        banner: "ESMTP".to_owned(),
        grammar: Grammar {
            offer,
            default_domain: Domain::parse("d.test").expect("a domain"),
            auth: !logins.mechanisms.is_empty(),
            inquiries: false,
        },
        body: BodyLimits {
            size_max: if tight & 128 != 0 { u64::MAX } else { of(1, 100, 1 << 20) },
            line_max: if tight & 2 != 0 { 20 } else { 2000 },
            header_max: if tight & 2 != 0 { 64 } else { 10_000 },
        },
        recipients_max: if tight & 4 != 0 { 2 } else { 100 },
        release_max: Span::days(60),
        deliver_by_min: Span::ZERO,
        priority_max: if tight & 4 != 0 { Priority::NORMAL } else { Priority::MAX },
        session_octets_max: of(8, 300, 10 << 20),
        errors_max: if tight & 16 != 0 { 3 } else { u32::MAX },
        idle_commands_max: if tight & 32 != 0 { 4 } else { u32::MAX },
        idle: Duration::from_mins(5),
        session_time: Duration::from_hours(1),
        rate_min: 100,
        tls,
        logins,
    }
}

/// One message the machine asked to have made durable.
struct Message {
    octets: Vec<u8>,
    recipients: usize,
    taken: bool,
}

struct Run {
    server: Server,
    now: Duration,
    waiting: Vec<u8>,
    said: Vec<u8>,
    body: Vec<u8>,
    messages: Vec<Message>,
    rejections: usize,
    size_max: u64,
    session_max: u64,
}

impl Run {
    fn new(choices: &mut Choices<'_>) -> Self {
        let settings = settings(choices);
        let (size_max, session_max) = (settings.body.size_max, settings.session_octets_max);
        let mut server = Server::new(Arc::new(settings), Duration::ZERO, WALL);
        server.let_tell(choices.below(4) == 0);
        Self {
            server,
            now: Duration::ZERO,
            waiting: Vec::new(),
            said: Vec::new(),
            body: Vec::new(),
            messages: Vec::new(),
            rejections: 0,
            size_max,
            session_max,
        }
    }

    fn play(&mut self, wire: &[u8], choices: &mut Choices<'_>) {
        let mut rest = wire;
        while !rest.is_empty() && self.server.end().is_none() {
            let (piece, behind) = choices.piece(rest);
            rest = behind;
            self.waiting.extend_from_slice(piece);
            self.feed(choices);
            self.pass_time(choices);
        }
        self.feed(choices);
        if self.server.end().is_some() {
            assert_eq!(self.server.on_octets(b"NOOP\r\n", self.now), 0, "closed is closed");
            assert!(self.server.output().is_empty() && self.server.poll().is_none());
            assert_eq!(self.server.deadline(), Duration::MAX);
        }
    }

    fn feed(&mut self, choices: &mut Choices<'_>) {
        loop {
            let used = self.server.on_octets(&self.waiting, self.now);
            self.waiting.drain(..used);
            let asked = self.answer(choices);
            self.collect();
            if used == 0 && !asked {
                break;
            }
        }
        let closed = self.server.end().is_some();
        assert!(closed || self.waiting.len() < LINE_OCTETS_MAX, "what waits is bounded");
        let _ = self.server.standing().as_str();
    }

    /// Takes out what the machine holds, and looks how much that is.
    fn collect(&mut self) {
        let output = std::mem::take(self.server.output());
        // A line of six octets is answered by at most an EHLO reply.
        assert!(output.len() <= 512 * 64 * 1024);
        self.said.extend_from_slice(&output);
        self.body.extend_from_slice(self.server.body());
        self.server.body_taken();
        match self.server.body_octets() {
            None => self.body.clear(),
            Some(octets) => assert!(self.body.len() as u64 <= octets.min(self.size_max)),
        }
    }

    fn answer(&mut self, choices: &mut Choices<'_>) -> bool {
        let mut asked = false;
        while let Some(action) = self.server.poll() {
            asked = true;
            match action {
                Action::Rejected(rejection) => {
                    self.rejections += 1;
                    assert!(!rejection.stage.as_str().is_empty());
                }
                Action::Answer(Question::Commit) => self.commit(choices),
                Action::Answer(Question::Etrn) => {
                    assert_eq!(self.server.on_octets(b"QUIT\r\n", self.now), 0, "ETRN");
                    assert!(self.server.asked_for().is_some() && self.server.hello().is_some());
                    assert!(self.server.transaction().is_none(), "ETRN within a transaction");
                    self.server.turned(verdict(choices).map(|()| 7), self.now);
                }
                Action::Answer(Question::Reverse) => {
                    assert_eq!(self.server.on_octets(b"QUIT\r\n", self.now), 0, "ATRN");
                    assert!(self.server.fetched().is_some() && self.server.user().is_some());
                    assert!(self.server.transaction().is_none(), "ATRN within a transaction");
                    self.server.reversed(verdict(choices), self.now);
                }
                Action::Answer(Question::Told) => {
                    assert_eq!(self.server.on_octets(b"QUIT\r\n", self.now), 0, "XCLIENT");
                    assert!(self.server.told().is_some() && self.server.transaction().is_none());
                    let verdict = verdict(choices).map_err(|_| Refusal::AccessDenied);
                    self.server.introduced(verdict, self.now);
                    assert!(self.server.user().is_none() || self.server.end().is_some());
                }
                Action::Answer(Question::Login) => self.judge_login(choices),
                Action::Answer(Question::Secure) => {
                    assert_eq!(self.server.on_octets(b"QUIT\r\n", self.now), 0, "STARTTLS");
                    assert!(!self.server.is_secured() && self.server.transaction().is_none());
                    self.server.admit(verdict(choices), self.now);
                }
                Action::Handshake => {
                    assert!(self.waiting.is_empty(), "clear text would be read under TLS");
                    assert_eq!(self.server.on_octets(b"QUIT\r\n", self.now), 0, "handshake");
                    self.server.secured(self.now);
                    let mut is = || choices.below(2) == 1;
                    let (exporter, end_point) = (is().then_some([7; 32]), is().then(|| vec![7]));
                    let (is_users, is_offered) = (is(), false);
                    self.server.over(Channel { is_users, exporter, end_point, is_offered });
                    assert!(self.server.is_secured() && self.server.hello().is_none());
                }
                Action::Answer(question) => {
                    assert_eq!(self.server.on_octets(b"QUIT\r\n", self.now), 0, "{question:?}");
                    assert_eq!(self.server.poll(), Some(Action::Answer(question)));
                    let known = self.server.transaction().expect("a question is about mail");
                    match question {
                        Question::Recipient => assert!(self.server.candidate().is_some()),
                        Question::Body => assert!(!known.recipients.is_empty()),
                        _ => assert!(known.recipients.is_empty() && self.server.hello().is_some()),
                    }
                    let verdict = verdict(choices);
                    self.server.admit(verdict, self.now);
                }
            }
        }
        asked
    }

    fn judge_login(&mut self, choices: &mut Choices<'_>) {
        assert_eq!(self.server.on_octets(b"QUIT\r\n", self.now), 0, "AUTH");
        assert!(self.server.user().is_none() && self.server.transaction().is_none());
        assert!(self.server.hello().is_some() && self.server.mechanism().is_some());
        match self.server.claim().expect("a login has a claim").clone() {
            Claim::Verifier { .. } => {
                let keys = [7; 32];
                let (salt, iterations) = (vec![1, 2, 3], 4096);
                let verifier = Verifier { salt, iterations, stored_key: keys, server_key: keys };
                self.server.verifier(verifier, "nonce", self.now);
            }
            Claim::Password { user, password } => {
                assert!(!user.is_empty() && !password.is_empty());
                let verdict = verdict(choices).map(|()| user);
                self.server.judged(verdict, self.now);
            }
            Claim::Proof { good, .. } => {
                assert!(!good, "nobody knows the key");
                self.server.judged(Err(Refusal::LoginFailed), self.now);
            }
            Claim::Agreed { .. } => unreachable!("nobody has a proof"),
            Claim::External { identity: user } | Claim::Bearer { user, .. } => {
                assert!(self.server.is_secured());
                self.server.judged(verdict(choices).map(|()| user), self.now);
            }
            Claim::Token { token, first } => {
                assert!(!first || !token.is_empty());
                match verdict(choices) {
                    Ok(()) if first || token.is_empty() => {
                        self.server.challenged(token, self.now);
                    }
                    verdict => self.server.judged(verdict.map(|()| "ada".to_owned()), self.now),
                }
            }
        }
    }

    fn commit(&mut self, choices: &mut Choices<'_>) {
        self.body.extend_from_slice(self.server.body());
        let octets = std::mem::take(&mut self.body);
        let recipients = self.server.take_recipients().len();
        assert!(recipients > 0, "mail for nobody");
        let before = self.server.messages();
        let result = verdict(choices).map(|()| QueueId::at_millis(1));
        let good = result.is_ok();
        self.messages.push(Message { octets, recipients, taken: good });
        self.server.committed(result, self.now);
        assert_eq!(self.server.messages(), before + u64::from(good));
        assert!(self.server.transaction().is_none());
    }

    fn pass_time(&mut self, choices: &mut Choices<'_>) {
        if self.server.end().is_some() {
            return;
        }
        match choices.octet() {
            250 => self.now += Duration::from_secs(61),
            251 => self.now += Duration::from_mins(5),
            252 => self.now += Duration::from_hours(1),
            253 => self.server.stop(),
            254 => self.server.kill(Refusal::Fault),
            255 => self.server.release(),
            _ => return,
        }
        if self.now >= self.server.deadline() {
            self.server.on_time(self.now);
            assert!(self.server.end().is_some() || self.now < self.server.deadline());
        }
        self.collect();
    }

    fn check(&self, wire: &[u8]) {
        let replies = replies(&self.said);
        assert_eq!(replies.first(), Some(&220));
        let mut reader = Reader { wire, at: 0, replies: &replies, next: 1, found: Vec::new() };
        let end = self.server.end();
        if reader.walk() == Walked::Unanswered {
            assert!(end.is_some(), "a command got no reply");
        }
        // Besides those to commands there is at most the goodbye of a limit, and that is the last.
        let spare = replies.len() - reader.next;
        assert!(spare == 0 || spare == 1 && end.is_some(), "{spare} replies answer nothing");
        match end {
            None => {}
            Some(End::Quit) => assert_eq!(replies.last().copied(), Some(221)),
            Some(End::Reversed) => assert_eq!(replies.last().copied(), Some(250)),
            Some(End::Inquiry) => assert_eq!(replies.last().copied(), Some(220)),
            Some(End::Refused(refusal)) => {
                assert_eq!(replies.last().copied(), Some(refusal.code().as_u16()));
                assert_eq!(refusal.after(), After::Close);
            }
        }
        let refusals = replies.iter().filter(|code| **code >= 400).count();
        // Only `kill`, by whatever road, says no without telling the log: it was told by whoever killed.
        assert!(refusals == self.rejections || refusals == self.rejections + 1 && end.is_some());

        let total: u64 = self.messages.iter().map(|message| message.octets.len() as u64).sum();
        assert!(total <= self.session_max, "the session carried more than it may");
        self.compare(&reader.found);
    }

    /// Every message that was taken is one that the slow reader found, and the other way round;
    /// those refused at their end may have been refused before the house was asked.
    fn compare(&self, found: &[Found]) {
        let mut ours = self.messages.iter().peekable();
        for slow in found {
            let taken = slow.code < 300;
            let same = |ours: &&Message| ours.taken == taken && ours.octets == slow.octets;
            match ours.next_if(|ours| same(ours)) {
                Some(ours) => {
                    assert!(!slow.bad, "a bare line end was taken");
                    // Which of two refused messages alike was asked about cannot be told.
                    assert!(!taken || ours.recipients <= slow.recipients);
                    assert!(ours.octets.len() as u64 <= self.size_max);
                }
                None => assert!(!taken, "another message was taken than was sent"),
            }
        }
        assert!(ours.next().is_none(), "a message came from nowhere");
    }
}

fn verdict(choices: &mut Choices<'_>) -> Result<(), Refusal> {
    if choices.rarely(60) {
        let all = Refusal::ALL;
        return Err(all[choices.below(all.len())]);
    }
    Ok(())
}

/// The codes of all replies, each checked line by line.
fn replies(said: &[u8]) -> Vec<u16> {
    let said = std::str::from_utf8(said).expect("replies are ASCII");
    let (mut out, mut open) = (Vec::new(), false);
    for line in said.split_inclusive("\r\n") {
        assert!(line.len() <= 512 && line.ends_with("\r\n"), "{line:?}");
        let text = line.trim_end_matches("\r\n");
        assert!(text.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{text:?}");
        let code: u16 = text[..3].parse().expect("a line begins with its code");
        if let Some(enhanced) = text[4..].split(' ').next()
            && enhanced.split('.').count() == 3
            && enhanced.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.')
        {
            assert_eq!(enhanced[..1].parse(), Ok(code / 100), "{text:?}");
        }
        open = text.as_bytes()[3] == b'-';
        assert!(open || text.as_bytes()[3] == b' ', "{text:?}");
        if !open {
            out.push(code);
        }
    }
    assert!(!open, "the last reply is whole");
    out
}

/// A number of digits alone.
fn digits(word: &str) -> Option<usize> {
    word.bytes().all(|octet| octet.is_ascii_digit()).then(|| word.parse().ok())?
}

/// A message on the wire, and what was said at its end.
struct Found {
    code: u16,
    octets: Vec<u8>,
    bad: bool,
    recipients: usize,
}

/// Reads the wire as a slow and trusting client would who sees the replies: command by command.
struct Reader<'a> {
    wire: &'a [u8],
    at: usize,
    replies: &'a [u16],
    /// The reply that answers the next command.
    next: usize,
    found: Vec<Found>,
}

#[derive(PartialEq, Eq)]
enum Walked {
    /// Every command on the wire has its reply.
    ToTheEnd,
    /// A whole command has none.
    Unanswered,
}

impl Reader<'_> {
    fn walk(&mut self) -> Walked {
        let (mut chunks, mut recipients, mut in_login) = (Vec::new(), 0, false);
        while let Some(line) = self.line() {
            if in_login {
                // What answers 334 is no command, whatever it looks like.
                let Some(code) = self.reply() else { return Walked::Unanswered };
                in_login = code == 334;
                continue;
            }
            let line = String::from_utf8(line).unwrap_or_default().to_ascii_uppercase();
            let line = line.trim_end_matches([' ', '\t']);
            let line = if line.bytes().any(|octet| octet.is_ascii_control()) { "" } else { line };
            let mut words = line.split(' ').filter(|word| !word.is_empty());
            let verb = words.next().filter(|_| !line.starts_with(' ')).unwrap_or_default();
            let size: Option<usize> = words.next().and_then(digits);
            let last = words.next() == Some("LAST");
            let mut chunk = &[][..];
            if let ("BDAT", Some(size)) = (verb, size) {
                let end = self.at.saturating_add(size);
                let Some(whole) = self.wire.get(self.at..end) else { return Walked::ToTheEnd };
                (self.at, chunk) = (end, whole);
            }
            let Some(code) = self.reply() else { return Walked::Unanswered };
            in_login = code == 334;
            match (verb, code) {
                ("HELO" | "EHLO" | "RSET", 250) | ("STARTTLS", 220) => {
                    (chunks, recipients) = (Vec::new(), 0)
                }
                ("MAIL", 250) => recipients = 0,
                ("RCPT", 250) => recipients += 1,
                ("DATA", 354) => {
                    let Some((octets, bad)) = self.dots() else { return Walked::ToTheEnd };
                    let Some(code) = self.reply() else { return Walked::Unanswered };
                    self.found.push(Found { code, octets, bad, recipients });
                }
                ("BDAT", _) => {
                    chunks.extend_from_slice(chunk);
                    if last || code >= 400 {
                        let octets = std::mem::take(&mut chunks);
                        self.found.push(Found { code, octets, bad: false, recipients });
                    }
                }
                _ => {}
            }
        }
        Walked::ToTheEnd
    }

    fn reply(&mut self) -> Option<u16> {
        let reply = self.replies.get(self.next)?;
        self.next += 1;
        Some(*reply)
    }

    /// The next line, or what is enough to be refused: one that is bare or too long.
    fn line(&mut self) -> Option<Vec<u8>> {
        let rest = &self.wire[self.at..];
        let end = rest.iter().position(|octet| matches!(octet, b'\r' | b'\n'))?;
        if rest[end..] == *b"\r" {
            return None;
        }
        let whole = rest[end..].starts_with(b"\r\n");
        self.at = if whole { self.at + end + 2 } else { self.wire.len() };
        let good = whole && end + 2 <= LINE_OCTETS_MAX;
        Some(if good { rest[..end].to_vec() } else { Vec::new() })
    }

    /// A body after 354: lines without their first dot, up to the line that is a dot; and whether
    /// a CR or LF stands alone in it.
    fn dots(&mut self) -> Option<(Vec<u8>, bool)> {
        let (mut out, mut line, mut bad) = (Vec::new(), Vec::new(), false);
        while let Some(&octet) = self.wire.get(self.at) {
            self.at += 1;
            bad |= octet != b'\n' && line.last() == Some(&b'\r');
            line.push(octet);
            if octet == b'\n' {
                bad |= !line.ends_with(b"\r\n");
                if line == b".\r\n" || line == b".\n" {
                    return Some((out, bad));
                }
                out.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
                line.clear();
            }
        }
        None
    }
}
