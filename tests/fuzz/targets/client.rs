//! The sending machine against a hostile peer: any octets in any pieces. It always ends, every
//! recipient gets one fate, and it says "delivered" if and only if a slow reader of both sides'
//! octets finds good replies to MAIL, RCPT and the end of the whole body.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::status::{Class, EnhancedCode};
use mailroot_fuzz::{Choices, split};
use smtpd_core::queue::envelope::{BodyKind, Notify, Recipient, Ret};
use smtpd_core::queue::outcome::{AttemptResult, Stage};
use smtpd_core::queue::wishes::{By, Priority};
use smtpd_core::smtp::client::{
    Action, BodyFlow, Client, Ending, Fate, Finished, LoginError, LoginRule, Settings, Timeouts,
    Tls, Transaction,
};

fuzz_target!(|input: &[u8]| {
    let (octets, mut choices) = split(input);
    let plan = Plan::draw(&mut choices);
    let mut run = Run::new(&plan);
    run.play(octets, &mut choices);
    run.check();
});

/// What is to be sent: messages, each to some recipients.
struct Plan {
    settings: Settings,
    sender: ReversePath,
    ret: Option<Ret>,
    mail: Vec<Mail>,
}

struct Mail {
    recipients: Vec<Recipient>,
    body: Vec<u8>,
    kind: BodyKind,
    smtputf8: bool,
    by: Option<By>,
    priority: Priority,
    require_tls: bool,
}

impl Plan {
    fn draw(choices: &mut Choices<'_>) -> Self {
        let style = choices.octet();
        let address = if style & 1 == 0 { "s@c.test" } else { "\u{fc}@c.test" };
        let sender = if style & 2 == 0 { address } else { "" };
        let mail = (0..1 + choices.below(3)).map(|number| Mail::draw(number, choices)).collect();
        Self {
            settings: Settings {
                name: "c.test".to_owned(),
                helo_only: style & 4 != 0,
                tls: [Tls::Off, Tls::Optional, Tls::Required, Tls::Implicit]
                    [usize::from(style >> 6)],
                login: (style & 0x30 == 0x30)
                    .then_some(LoginRule { in_clear_text: style & 8 == 0 }),
                recipients_max: [None, Some(1)][usize::from(style >> 5) & 1],
                timeouts: Timeouts::default(),
            },
            sender: ReversePath::parse(sender).expect("an address"),
            ret: [None, Some(Ret::Full), Some(Ret::Headers)][usize::from(style >> 3) % 3],
            mail,
        }
    }
}

impl Mail {
    fn draw(number: usize, choices: &mut Choices<'_>) -> Self {
        let recipients = match choices.octet() {
            few @ 0..=199 => usize::from(few % 4) + 1,
            many => usize::from(many),
        };
        let beyond = choices.rarely(40);
        let recipient = |place: usize| {
            let local =
                if beyond && place == 1 { "\u{fc}".to_owned() } else { format!("r{place}") };
            let mailbox = Mailbox::parse(&format!("{local}@d{}.test", place % 3));
            let orcpt = (place == 1).then(|| "rfc822;x".to_owned());
            let notify = match place {
                2 => Some(Notify::NEVER),
                3 => Some(Notify { success: true, failure: true, delay: true }),
                _ => None,
            };
            Recipient { notify, orcpt, ..Recipient::plain(mailbox.expect("an address")) }
        };
        let body: &[u8] = match choices.below(8) {
            0 | 1 => b"Subject: x\r\n\r\n.dot\r\n",
            2 => b".\r\n..\r\n.",
            3 => b"",
            4 => b"Subject: x\r\n\r\nno end",
            5 => b"a\nb\r\n",
            6 => b"x\r",
            _ => b"Subject: long\r\n\r\n",
        };
        let mut body = [format!("N: {number}\r\n").as_bytes(), body].concat();
        if body.ends_with(b"long\r\n\r\n") {
            body.extend(b".23456789\r\n".repeat(6000));
        }
        let kind = match choices.below(8) {
            6 => BodyKind::EightBitMime,
            7 => BodyKind::BinaryMime,
            _ => BodyKind::SevenBit,
        };
        let smtputf8 = choices.rarely(20);
        let by = ["", "", "", "60;R", "240;RT", "-5;N", "60;NT"][choices.below(7)];
        let priority = Priority::parse(["0", "-9", "4"][choices.below(3)]).unwrap_or_default();
        let recipients = (0..recipients).map(recipient).collect();
        let require_tls = choices.below(8) == 0;
        Self { recipients, body, kind, smtputf8, by: By::parse(by), priority, require_tls }
    }
}

struct Run<'a> {
    plan: &'a Plan,
    client: Client,
    now: Duration,
    /// Everything the client sent.
    sent: Vec<u8>,
    /// What the peer said as far as the client took it.
    heard: Vec<u8>,
    begun: usize,
    /// Messages whose commands left, in order.
    asked: Vec<usize>,
    done: Vec<(usize, Finished)>,
    /// How far the body of the oldest transaction is handed over.
    handed: Option<usize>,
    failed: usize,
    closed: usize,
    /// Said because the peer takes no more.
    quit: bool,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            client: Client::new(Arc::new(plan.settings.clone()), Duration::ZERO),
            now: Duration::ZERO,
            sent: Vec::new(),
            heard: Vec::new(),
            begun: 0,
            asked: Vec::new(),
            done: Vec::new(),
            handed: None,
            failed: 0,
            closed: 0,
            quit: false,
        }
    }

    fn play(&mut self, octets: &[u8], choices: &mut Choices<'_>) {
        let mut rest = octets;
        while !rest.is_empty() && !self.client.is_closed() {
            let (piece, behind) = cut(rest, choices);
            rest = behind;
            self.heard.extend_from_slice(piece);
            self.client.on_octets(piece, self.now);
            self.act(choices);
            self.now += Duration::from_millis(1);
            if choices.rarely(2) {
                self.client.quit(self.now);
                self.act(choices);
            }
            if choices.rarely(2) {
                let ending = Ending::local(Stage::Data, EnhancedCode::transient(3, 0), "we stop");
                self.client.abandon(&ending);
                self.act(choices);
            }
        }
        // The peer has said all it had to say.
        if !self.client.is_closed() {
            let spent = self.client.is_spent();
            let ours = self.client.can_begin() || spent || self.handed.is_some();
            assert!(self.client.deadline().is_some() || ours, "nobody's turn, and no end to it");
            if choices.octet() % 2 == 0 {
                self.client.on_close("the connection was closed");
            } else {
                self.client.on_timeout();
            }
            self.act(choices);
        }
        assert!(self.client.is_closed() && !self.client.is_idle(), "it always ends");
        assert!(!self.client.ehlo_was_dropped() || self.asked.is_empty());
        assert!(self.client.deadline().is_none() && !self.client.can_begin());
        self.client.on_octets(b"250 late\r\n", self.now);
        assert!(self.client.poll().is_none());
    }

    /// Does what the client says until it waits for the peer.
    fn act(&mut self, choices: &mut Choices<'_>) {
        loop {
            self.sent.append(self.client.output());
            match self.client.poll() {
                Some(Action::Ready) => {}
                Some(Action::SendBody) => {
                    assert_eq!(self.handed, None);
                    self.handed = Some(0);
                }
                Some(Action::Done(finished)) => self.take(finished),
                Some(Action::Failed(ending)) => {
                    assert!(ending.result != AttemptResult::Delivered && self.asked.is_empty());
                    self.failed += 1;
                }
                Some(Action::Close) => self.closed += 1,
                Some(Action::StartTls) if choices.rarely(8) => self.client.not_secured("we cannot"),
                Some(Action::StartTls) => self.client.secured(self.now),
                Some(Action::LogIn) => {
                    assert!(!self.client.peer().auth.is_empty());
                    let rule = self.plan.settings.login.expect("a login was asked for");
                    assert!(self.client.is_secured() || rule.in_clear_text);
                    let first = [None, Some(&b"first"[..])][choices.below(2)];
                    self.client.authenticate("PLAIN", first, self.now);
                }
                Some(Action::Challenge(_)) => self.client.respond(b"answer", self.now),
                Some(Action::LoggedIn) if choices.rarely(8) => {
                    self.client.give_up_login(&LoginError::Challenge);
                }
                Some(Action::LoggedIn) => self.client.logged_in(),
                None if self.hand_over(choices) || self.begin(choices) => {}
                Some(Action::Answered(_)) => panic!("nothing was asked for"),
                None => return,
            }
        }
    }

    fn take(&mut self, finished: Finished) {
        let number = self.asked[self.done.len()];
        assert_eq!(finished.fates.len(), self.plan.mail[number].recipients.len());
        self.done.push((number, finished));
        self.handed = None;
    }

    fn begin(&mut self, choices: &mut Choices<'_>) -> bool {
        if self.client.is_closed() {
            return false;
        }
        if self.client.is_spent() && !std::mem::replace(&mut self.quit, true) {
            self.client.quit(self.now);
            return true;
        }
        if !self.client.can_begin() {
            return false;
        }
        let Some(mail) = self.plan.mail.get(self.begun) else {
            if self.client.is_spent() || choices.rarely(100) {
                return false;
            }
            self.client.quit(self.now);
            return true;
        };
        assert!(self.client.peer().mails_max.is_none_or(|most| self.asked.len() < most as usize));
        let transaction = Transaction {
            sender: &self.plan.sender,
            recipients: mail.recipients.iter().collect(),
            envid: Some("e"),
            ret: self.plan.ret,
            size: mail.body.len() as u64,
            body: mail.kind,
            smtputf8: mail.smtputf8,
            by: mail.by,
            priority: mail.priority,
            require_tls: mail.require_tls,
        };
        match self.client.begin(&transaction, self.now) {
            Ok(()) => self.asked.push(self.begun),
            Err(finished) => {
                assert_eq!(finished.fates.len(), mail.recipients.len());
                for fate in &finished.fates {
                    let Fate::Ended(ending) = fate else { continue };
                    assert_eq!(ending.result, AttemptResult::Failed, "nobody was asked");
                }
            }
        }
        self.begun += 1;
        true
    }

    fn hand_over(&mut self, choices: &mut Choices<'_>) -> bool {
        let Some(at) = self.handed else { return false };
        match self.client.body_flow() {
            BodyFlow::Wait => return false,
            BodyFlow::Stop => {
                self.handed = None;
                return true;
            }
            BodyFlow::Send => {}
        }
        let body = &self.plan.mail[self.asked[self.done.len()]].body;
        let (piece, rest) = choices.piece(&body[at..]);
        // Octets of a message must not take as many turns as there are.
        if rest.is_empty() || rest.len() > 4096 && piece.len() < 512 {
            self.client.last_body(&body[at..], self.now);
            self.handed = None;
        } else {
            self.client.body(piece, self.now);
            self.handed = Some(at + piece.len());
        }
        true
    }

    fn check(&self) {
        assert_eq!(self.closed, 1, "closed once");
        assert!(self.failed <= 1);
        assert_eq!(self.done.len(), self.asked.len(), "every transaction has its end");
        let slow = Slow::read(&self.sent, &self.heard);
        let mut found = slow.delivered.iter();
        for (number, finished) in &self.done {
            let mail = &self.plan.mail[*number];
            let delivered: Vec<String> = finished
                .fates
                .iter()
                .zip(&mail.recipients)
                .filter(|(fate, _)| is_delivered(fate))
                .map(|(_, recipient)| recipient.mailbox.to_string())
                .collect();
            if delivered.is_empty() {
                continue;
            }
            let Some(slow) = found.next() else { panic!("{delivered:?} never got it") };
            assert_eq!(delivered, slow.recipients);
            assert_eq!(slow.body, with_end(&mail.body, slow.dots), "another body was delivered");
        }
        assert!(found.next().is_none(), "delivered, but said not to be: it will be sent twice");
    }
}

/// Cuts off what the peer says at once: a line, unless it is chosen otherwise.
fn cut<'o>(octets: &'o [u8], choices: &mut Choices<'_>) -> (&'o [u8], &'o [u8]) {
    let line = octets.iter().position(|octet| *octet == b'\n').map_or(octets.len(), |at| at + 1);
    let length = match choices.octet() {
        0 => line,
        255 => octets.len(),
        few @ 1..=127 => usize::from(few),
        many => usize::from(many) * 64,
    };
    octets.split_at(length.min(octets.len()))
}

fn is_delivered(fate: &Fate) -> bool {
    let Fate::Ended(ending) = fate else { return false };
    let delivered = ending.result == AttemptResult::Delivered;
    if delivered {
        assert_eq!((ending.stage, ending.status.class()), (Stage::End, Class::Success));
        assert!(ending.code.is_some_and(|code| code.as_u16() / 100 == 2));
    }
    assert!(!ending.text.contains(|c: char| c.is_control() && c != '\n'));
    delivered
}

fn with_end(body: &[u8], dots: bool) -> Vec<u8> {
    let end: &[u8] =
        if dots && !body.is_empty() && !body.ends_with(b"\r\n") { b"\r\n" } else { b"" };
    [body, end].concat()
}

struct Delivered {
    recipients: Vec<String>,
    body: Vec<u8>,
    dots: bool,
}

/// A reader of both directions that knows one thing: the n-th reply answers the n-th command.
struct Slow<'a> {
    sent: &'a [u8],
    heard: &'a [u8],
    delivered: Vec<Delivered>,
}

impl<'a> Slow<'a> {
    fn read(sent: &'a [u8], heard: &'a [u8]) -> Self {
        let mut slow = Self { sent, heard, delivered: Vec::new() };
        slow.walk();
        slow
    }

    fn walk(&mut self) -> Option<()> {
        let (mut mail, mut recipients, mut chunks) = (false, Vec::new(), None);
        self.reply()?;
        loop {
            let line = self.line()?;
            let line = String::from_utf8(line).expect("commands are text");
            let mut chunk = Vec::new();
            if let Some(size) = line.strip_prefix("BDAT ") {
                let size: usize = size.trim_end_matches(" LAST").parse().expect("a size");
                chunk = self.sent.get(..size)?.to_vec();
                self.sent = &self.sent[size..];
            }
            let code = self.reply()?;
            let good = code / 100 == 2;
            if line.starts_with("MAIL ") {
                (mail, recipients, chunks) = (good, Vec::new(), Some(Vec::new()));
            } else if let Some(path) = line.strip_prefix("RCPT TO:<") {
                if good && mail {
                    let end = path.find('>').expect("a path has two brackets");
                    recipients.push(path[..end].to_owned());
                }
            } else if line == "DATA" && code == 354 {
                let body = self.dots()?;
                if self.reply()? / 100 == 2 && !recipients.is_empty() {
                    let recipients = std::mem::take(&mut recipients);
                    self.delivered.push(Delivered { recipients, body, dots: true });
                }
            } else if line.starts_with("BDAT ") {
                match &mut chunks {
                    Some(whole) if good => whole.extend_from_slice(&chunk),
                    _ => chunks = None,
                }
                if line.ends_with(" LAST")
                    && let Some(body) = chunks.take()
                    && !recipients.is_empty()
                {
                    let recipients = std::mem::take(&mut recipients);
                    self.delivered.push(Delivered { recipients, body, dots: false });
                }
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.sent.iter().position(|octet| *octet == b'\n')?;
        let (line, rest) = self.sent.split_at(end + 1);
        let line = line.strip_suffix(b"\r\n").expect("no bare LF goes out");
        assert!(!line.contains(&b'\r') && line.len() <= 1022, "not in a command");
        self.sent = rest;
        Some(line.to_vec())
    }

    /// A body by the definition of RFC 5321 section 4.5.2.
    fn dots(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            let end = self.sent.iter().position(|octet| *octet == b'\n')?;
            let (line, rest) = self.sent.split_at(end + 1);
            self.sent = rest;
            assert!(line.ends_with(b"\r\n"), "no bare LF goes out");
            assert!(!line[..line.len() - 2].contains(&b'\r'), "no bare CR goes out");
            if line == b".\r\n" {
                return Some(out);
            }
            out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
    }

    /// The code of the next reply; none if it is not whole, or if anything is wrong with it:
    /// nobody knows what the replies behind it answer.
    fn reply(&mut self) -> Option<u16> {
        let mut first: Option<&[u8]> = None;
        loop {
            let end = self.heard.iter().position(|octet| *octet == b'\n')?;
            let (line, rest) = self.heard.split_at(end + 1);
            self.heard = rest;
            let text = line.strip_suffix(b"\r\n")?;
            let code = text.get(..3)?;
            let one = first.is_none_or(|first| first == code);
            let sign = text.get(3).copied().unwrap_or(b' ');
            if text.contains(&0) || !one || !matches!(sign, b' ' | b'-') {
                self.heard = &[];
                return None;
            }
            first = Some(code);
            if sign == b' ' {
                let code = std::str::from_utf8(code).ok()?.parse().ok()?;
                return (200..600).contains(&code).then_some(code);
            }
        }
    }
}
