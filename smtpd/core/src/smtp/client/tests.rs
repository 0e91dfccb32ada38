//! Conversations with made-up peers: honest ones, and one fault at each stage.

mod secure;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::status::Class;

use super::*;
use crate::queue::envelope::{BodyKind, Notify, Recipient, Ret};
use crate::queue::outcome::{AttemptResult, Stage};
use crate::queue::wishes::{By, Priority};
use crate::smtp::etrn::Etrn;

const BODY: &[u8] = b"Subject: x\r\n\r\n.dot\r\n";

/// What a peer does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Say(&'static str),
    Close,
    Silence,
}

/// A peer: answers each command, with the fault where one is planned.
struct FakePeer {
    offers: &'static [&'static str],
    /// The front of the command (or GREETING, END) and what happens then.
    faults: Vec<(&'static str, Fault)>,
    seen: Vec<String>,
    input: Vec<u8>,
    in_body: bool,
    accepted: usize,
}

impl FakePeer {
    fn new(offers: &'static [&'static str]) -> Self {
        let (faults, seen, input) = (Vec::new(), Vec::new(), Vec::new());
        Self { offers, faults, seen, input, in_body: false, accepted: 0 }
    }

    fn with(mut self, at: &'static str, fault: Fault) -> Self {
        self.faults.push((at, fault));
        self
    }

    fn answer(&mut self, command: &str) -> Fault {
        self.seen.push(command.to_owned());
        let planned = self.faults.iter().position(|(at, _)| command.starts_with(at));
        if let Some(place) = planned {
            return self.faults[place].1;
        }
        let verb = command.split(' ').next().unwrap_or_default();
        match verb {
            "GREETING" => Fault::Say("220 mx.test\r\n"),
            "EHLO" => Fault::Say("EHLO"),
            "RCPT" => {
                self.accepted += 1;
                Fault::Say("250 2.1.5 ok\r\n")
            }
            "DATA" if self.accepted == 0 => Fault::Say("554 5.5.1 no valid recipients\r\n"),
            "DATA" => {
                self.in_body = true;
                Fault::Say("354 go\r\n")
            }
            "END" => Fault::Say("250 2.0.0 taken as 7\r\n"),
            "BDAT" => Fault::Say("250 2.0.0 chunk\r\n"),
            "QUIT" => Fault::Say("221 bye\r\n"),
            _ => Fault::Say("250 2.0.0 ok\r\n"),
        }
    }

    /// The next whole command in the input; a body counts as the command END.
    fn next_command(&mut self) -> Option<String> {
        let end: &[u8] = if self.in_body { b"\r\n.\r\n" } else { b"\r\n" };
        let lone = self.in_body && self.input.starts_with(b".\r\n");
        let at = self.input.windows(end.len()).position(|window| window == end);
        let at = if lone { Some(3 - end.len().min(3)) } else { at };
        let length = if lone { 3 } else { at? + end.len() };
        let octets: Vec<u8> = self.input.drain(..length).collect();
        let text = String::from_utf8(octets).unwrap();
        if self.in_body {
            self.in_body = false;
            self.accepted = 0;
            return Some(format!("END {text}"));
        }
        let text = text.trim_end().to_owned();
        if let Some(size) = text.strip_prefix("BDAT ") {
            let size: usize = size.trim_end_matches(" LAST").parse().unwrap();
            self.input.drain(..size);
        }
        Some(text)
    }
}

struct Run {
    done: Vec<Finished>,
    failed: Option<Ending>,
    closed: bool,
    waited: Duration,
}

/// Plays the client against the peer with these transactions, until nothing more happens.
fn play(client: &mut Client, peer: &mut FakePeer, mut wanted: VecDeque<Transaction<'_>>) -> Run {
    let mut run = Run { done: Vec::new(), failed: None, closed: false, waited: Duration::ZERO };
    let mut now = Duration::ZERO;
    let mut answers = VecDeque::from([peer.answer("GREETING")]);
    loop {
        while let Some(action) = client.poll() {
            match action {
                Action::Ready => {}
                Action::SendBody => client.last_body(BODY, now),
                Action::Done(finished) => run.done.push(finished),
                Action::Failed(ending) => run.failed = Some(ending),
                Action::Close => run.closed = true,
                Action::StartTls
                | Action::LogIn
                | Action::Challenge(_)
                | Action::LoggedIn
                | Action::Answered(_) => panic!("neither TLS nor a login is set"),
            }
        }
        if run.closed {
            return run;
        }
        if client.can_begin()
            && let Some(next) = wanted.pop_front()
        {
            if let Err(finished) = client.begin(&next, now) {
                run.done.push(finished);
            }
            continue;
        }
        peer.input.append(client.output());
        while let Some(command) = peer.next_command() {
            let answer = peer.answer(&command);
            answers.push_back(answer);
        }
        match answers.pop_front() {
            Some(Fault::Say("EHLO")) => {
                let mut lines = vec!["250-mx.test".to_owned()];
                lines.extend(peer.offers.iter().map(|offer| format!("250-{offer}")));
                lines.push("250 HELP".into());
                client.on_octets(format!("{}\r\n", lines.join("\r\n")).as_bytes(), now);
            }
            Some(Fault::Say(text)) => client.on_octets(text.as_bytes(), now),
            Some(Fault::Close) => client.on_close("the connection was closed"),
            Some(Fault::Silence) | None => match client.deadline() {
                Some(deadline) => {
                    run.waited = deadline - now;
                    now = deadline;
                    client.on_timeout();
                }
                None => return run,
            },
        }
    }
}

fn settings() -> Arc<Settings> {
    let timeouts = Timeouts::default();
    Arc::new(Settings {
        name: "relay.test".into(),
        helo_only: false,
        tls: Tls::Off,
        login: None,
        recipients_max: None,
        timeouts,
    })
}

fn client() -> Client {
    Client::new(settings(), Duration::ZERO)
}

struct Mail {
    sender: ReversePath,
    recipients: Vec<Recipient>,
}

fn mail(recipients: &[&str]) -> Mail {
    let recipient = |text: &&str| Recipient::plain(Mailbox::parse(text).unwrap());
    Mail {
        sender: ReversePath::parse("a@src.test").unwrap(),
        recipients: recipients.iter().map(recipient).collect(),
    }
}

impl Mail {
    fn transaction(&self) -> Transaction<'_> {
        Transaction {
            sender: &self.sender,
            recipients: self.recipients.iter().collect(),
            envid: None,
            ret: None,
            size: 20,
            body: BodyKind::SevenBit,
            smtputf8: false,
            by: None,
            priority: Priority::NORMAL,
            require_tls: false,
        }
    }
}

fn ending(fate: &Fate) -> &Ending {
    match fate {
        Fate::Ended(ending) => ending,
        Fate::Unsent | Fate::Untried => panic!("{fate:?} is no end"),
    }
}

#[test]
fn message_goes_out_with_one_group_of_commands() {
    let mail = mail(&["b@x.test", "c@x.test"]);
    let mut client = client();
    let mut peer = FakePeer::new(&["PIPELINING", "SIZE 1000", "8BITMIME"]);
    let run = play(&mut client, &mut peer, [mail.transaction()].into());
    assert_eq!(
        peer.seen,
        [
            "GREETING",
            "EHLO relay.test",
            "MAIL FROM:<a@src.test> SIZE=20",
            "RCPT TO:<b@x.test>",
            "RCPT TO:<c@x.test>",
            "DATA",
            "END Subject: x\r\n\r\n..dot\r\n.\r\n",
        ]
    );
    for fate in &run.done[0].fates {
        let ending = ending(fate);
        assert_eq!((ending.result, ending.stage), (AttemptResult::Delivered, Stage::End));
        assert_eq!(ending.text, "taken as 7");
    }
    assert!(client.is_idle());
}

#[test]
fn without_pipelining_commands_leave_one_by_one() {
    let mail = mail(&["b@x.test"]);
    let mut client = client();
    client.on_octets(b"220 mx\r\n", Duration::ZERO);
    client.output().clear();
    client.on_octets(b"250 mx\r\n", Duration::ZERO);
    client.begin(&mail.transaction(), Duration::ZERO).unwrap();
    for (sent, reply) in [
        ("MAIL FROM:<a@src.test>\r\n", "250 ok\r\n"),
        ("RCPT TO:<b@x.test>\r\n", "250 ok\r\n"),
        ("DATA\r\n", "354 go\r\n"),
    ] {
        assert_eq!(std::mem::take(client.output()), sent.as_bytes());
        client.on_octets(reply.as_bytes(), Duration::ZERO);
    }
    assert_eq!(client.body_flow(), BodyFlow::Send);
}

#[test]
fn next_message_travels_behind_the_end_of_the_one_before() {
    let (one, two) = (mail(&["b@x.test"]), mail(&["c@x.test"]));
    let mut client = client();
    client.on_octets(b"220 mx\r\n", Duration::ZERO);
    client.on_octets(b"250-mx\r\n250 PIPELINING\r\n", Duration::ZERO);
    client.begin(&one.transaction(), Duration::ZERO).unwrap();
    client.on_octets(b"250 ok\r\n250 ok\r\n354 go\r\n", Duration::ZERO);
    client.output().clear();
    assert!(!client.can_begin(), "not before the end of the body");
    client.last_body(b"x\r\n", Duration::ZERO);
    client.begin(&two.transaction(), Duration::ZERO).unwrap();
    let sent = String::from_utf8(std::mem::take(client.output())).unwrap();
    assert_eq!(
        sent, "x\r\n.\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<c@x.test>\r\nDATA\r\n",
        "one write"
    );
    assert!(!client.can_begin(), "at most one behind");
    client.on_octets(b"250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n", Duration::ZERO);
    let actions: Vec<_> = std::iter::from_fn(|| client.poll()).collect();
    assert!(matches!(
        &actions[..],
        [Action::Ready, Action::SendBody, Action::Done(_), Action::SendBody]
    ));
}

#[test]
fn lost_end_leaves_the_first_in_doubt_and_gives_the_second_back() {
    let (one, two) = (mail(&["b@x.test"]), mail(&["c@x.test"]));
    for fault in [Fault::Close, Fault::Silence, Fault::Say("25x what\r\n"), Fault::Say("354 a\r\n")]
    {
        let mut peer = FakePeer::new(&["PIPELINING"]).with("END", fault);
        let wanted = [one.transaction(), two.transaction()].into();
        let run = play(&mut client(), &mut peer, wanted);
        assert_eq!(ending(&run.done[0].fates[0]).result, AttemptResult::InDoubt, "{fault:?}");
        assert_eq!(run.done[1].fates, [Fate::Untried], "{fault:?}");
        assert!(run.closed);
    }
}

#[test]
fn closing_reply_to_the_end_is_an_answer() {
    let (one, two) = (mail(&["b@x.test"]), mail(&["c@x.test"]));
    let mut peer = FakePeer::new(&["PIPELINING"]).with("END", Fault::Say("421 4.3.2 later\r\n"));
    let run = play(&mut client(), &mut peer, [one.transaction(), two.transaction()].into());
    let ending = ending(&run.done[0].fates[0]);
    assert_eq!((ending.result, ending.text.as_str()), (AttemptResult::Deferred, "later"));
    assert_eq!(run.done[1].fates, [Fate::Untried]);
}

#[test]
fn after_a_delivery_closing_gives_the_next_message_back() {
    let (one, two) = (mail(&["b@x.test"]), mail(&["c@x.test"]));
    for offers in [&["PIPELINING"][..], &[]] {
        for (at, fault) in [
            ("RCPT TO:<c@", Fault::Say("421 4.3.2 enough\r\n")),
            ("RCPT TO:<c@", Fault::Close),
            ("RCPT TO:<c@", Fault::Silence),
        ] {
            let mut peer = FakePeer::new(offers).with(at, fault);
            let wanted = [one.transaction(), two.transaction()].into();
            let run = play(&mut client(), &mut peer, wanted);
            assert_eq!(ending(&run.done[0].fates[0]).result, AttemptResult::Delivered);
            assert_eq!(run.done[1].fates, [Fate::Untried], "{fault:?}");
        }
    }
}

/// Every stage of a first message × every fault × with and without PIPELINING.
#[test]
fn each_fault_at_each_stage_ends_as_it_should() {
    use AttemptResult::{Deferred, Failed, InDoubt};
    let faults = [
        (Fault::Say("451 4.7.1 grey\r\n"), Deferred),
        (Fault::Say("421 4.3.2 bye\r\n"), Deferred),
        (Fault::Say("550 5.1.1 no such user\r\n"), Failed),
        (Fault::Close, Deferred),
        (Fault::Silence, Deferred),
        (Fault::Say("ok then\r\n"), Deferred),
        (Fault::Say("999 what\r\n"), Deferred),
        (Fault::Say("250 ok\n"), Deferred),
        (Fault::Say("350 go on\r\n"), Deferred),
        (Fault::Say("250-a\r\n550 b\r\n"), Deferred),
    ];
    let stages = [
        ("GREETING", Stage::Greeting),
        ("EHLO", Stage::Hello),
        ("MAIL", Stage::Mail),
        ("RCPT", Stage::Rcpt),
        ("DATA", Stage::Data),
        ("END", Stage::End),
    ];
    let mail = mail(&["b@x.test"]);
    for offers in [&["PIPELINING", "SIZE"][..], &[]] {
        for (at, stage) in stages {
            for (fault, result) in faults {
                let case = format!("{at} {fault:?} {offers:?}");
                let mut peer = FakePeer::new(offers).with(at, fault);
                if at == "EHLO" && result == Failed {
                    peer = peer.with("HELO", fault);
                }
                let run = play(&mut client(), &mut peer, [mail.transaction()].into());
                let unknown = !matches!(fault, Fault::Say(text) if text.contains(" 4.") || text.contains(" 5."));
                let expected = if stage == Stage::End && unknown { InDoubt } else { result };
                let found = match &run.failed {
                    Some(ending) => ending,
                    None => ending(&run.done[0].fates[0]),
                };
                assert_eq!((found.result, found.stage), (expected, stage), "{case}");
                assert!(run.waited <= Duration::from_mins(10), "{case}");
                if let Fault::Say(text) = fault
                    && !unknown
                {
                    assert!(text.contains(&found.text) && !found.text.is_empty(), "{case}");
                }
            }
        }
    }
}

#[test]
fn refused_ehlo_falls_back_to_helo_without_extensions() {
    let mail = mail(&["b@x.test"]);
    let mut peer = FakePeer::new(&["SIZE"]).with("EHLO", Fault::Say("502 5.5.1 what?\r\n"));
    let run = play(&mut client(), &mut peer, [mail.transaction()].into());
    assert_eq!(peer.seen[2..4], ["HELO relay.test", "MAIL FROM:<a@src.test>"]);
    assert_eq!(ending(&run.done[0].fates[0]).result, AttemptResult::Delivered);
    let mut client = client();
    let mut peer = FakePeer::new(&[]).with("EHLO", Fault::Close);
    assert!(play(&mut client, &mut peer, VecDeque::new()).failed.is_some());
    assert!(client.ehlo_was_dropped());
}

#[test]
fn helo_only_never_says_ehlo() {
    let only = Arc::new(Settings { helo_only: true, ..(*settings()).clone() });
    let mut peer = FakePeer::new(&["PIPELINING"]);
    play(&mut Client::new(only, Duration::ZERO), &mut peer, VecDeque::new());
    assert_eq!(peer.seen, ["GREETING", "HELO relay.test"]);
}

#[test]
fn each_recipient_has_its_own_end() {
    let mail = mail(&["ok@x.test", "no@x.test", "later@x.test"]);
    for offers in [&["PIPELINING"][..], &[]] {
        let mut peer = FakePeer::new(offers)
            .with("RCPT TO:<no@", Fault::Say("550 5.1.1 nobody\r\n"))
            .with("RCPT TO:<later@", Fault::Say("450 4.2.1 busy\r\n"));
        let run = play(&mut client(), &mut peer, [mail.transaction()].into());
        let results: Vec<_> = run.done[0].fates.iter().map(|fate| ending(fate).result).collect();
        let expected = [AttemptResult::Delivered, AttemptResult::Failed, AttemptResult::Deferred];
        assert_eq!(results, expected);
    }
}

#[test]
fn no_recipient_left_sends_no_body_and_the_next_message_goes_on() {
    let (one, two) = (mail(&["no@x.test"]), mail(&["b@x.test"]));
    for (offers, data) in [
        (&["PIPELINING"][..], Some(Fault::Say("354 go\r\n"))),
        (&["PIPELINING"], None),
        (&[], None),
        (&["CHUNKING", "PIPELINING"], None),
    ] {
        let mut client = client();
        let mut peer =
            FakePeer::new(offers).with("RCPT TO:<no@", Fault::Say("550 5.1.1 nobody\r\n"));
        if let Some(fault) = data {
            // The peer says 354 in spite of it: what comes is a lone dot.
            peer.in_body = false;
            peer = peer.with("DATA", fault);
        }
        let run = play(&mut client, &mut peer, [one.transaction()].into());
        assert_eq!(ending(&run.done[0].fates[0]).text, "nobody", "{offers:?}");
        peer.faults.retain(|(at, _)| *at != "DATA");
        if data.is_some() {
            assert_eq!(peer.seen.last().unwrap(), ".");
            continue;
        }
        client.begin(&two.transaction(), Duration::ZERO).unwrap();
        let sent = String::from_utf8(client.output().clone()).unwrap();
        assert!(sent.starts_with("RSET\r\n"), "{offers:?}: {sent}");
    }
}

#[test]
fn recipients_over_the_limit_wait_for_a_further_transaction() {
    let mail = mail(&["a@x.test", "b@x.test", "c@x.test"]);
    for offers in [&["PIPELINING"][..], &[]] {
        for reply in ["452 4.5.3 too many\r\n", "452 enough\r\n", "552 too many recipients\r\n"] {
            let mut peer = FakePeer::new(offers).with("RCPT TO:<c@", Fault::Say(reply));
            let run = play(&mut client(), &mut peer, [mail.transaction()].into());
            assert_eq!(run.done[0].fates[2], Fate::Unsent, "{reply}");
            assert_eq!(ending(&run.done[0].fates[1]).result, AttemptResult::Delivered);
        }
    }
    let mut peer = FakePeer::new(&["PIPELINING", "LIMITS RCPTMAX=2"]);
    let run = play(&mut client(), &mut peer, [mail.transaction()].into());
    assert_eq!(run.done[0].fates[2], Fate::Unsent);
    assert!(!peer.seen.iter().any(|line| line.contains("<c@")));
}

#[test]
fn an_operator_can_allow_fewer_recipients_than_the_peer() {
    let mail = mail(&["a@x.test", "b@x.test", "c@x.test"]);
    for (offers, sent) in
        [(&["PIPELINING"][..], 2), (&["LIMITS RCPTMAX=100"], 2), (&["LIMITS RCPTMAX=1"], 1)]
    {
        let of_operator = Settings { recipients_max: Some(2), ..Settings::clone(&settings()) };
        let mut client = Client::new(Arc::new(of_operator), Duration::ZERO);
        let mut peer = FakePeer::new(offers);
        let run = play(&mut client, &mut peer, [mail.transaction()].into());
        let unsent = run.done[0].fates.iter().filter(|fate| **fate == Fate::Unsent).count();
        assert_eq!(unsent, 3 - sent, "{offers:?}");
    }
}

#[test]
fn refusal_for_lack_of_room_is_not_a_limit_when_it_comes_first_or_says_so() {
    let mail = mail(&["a@x.test", "b@x.test"]);
    let full = Fault::Say("452 4.2.2 mailbox full\r\n");
    let mut peer = FakePeer::new(&["PIPELINING"]).with("RCPT TO:<b@", full);
    let run = play(&mut client(), &mut peer, [mail.transaction()].into());
    assert_eq!(ending(&run.done[0].fates[1]).result, AttemptResult::Deferred);
    let all = Fault::Say("452 4.5.3 too many\r\n");
    let mut peer = FakePeer::new(&["PIPELINING"]).with("RCPT", all);
    let run = play(&mut client(), &mut peer, [mail.transaction()].into());
    assert!(run.done[0].fates.iter().all(|fate| ending(fate).result == AttemptResult::Deferred));
}

#[test]
fn message_the_peer_cannot_take_is_not_sent_at_all() {
    let plain = mail(&["b@x.test"]);
    let beyond = mail(&["grün@x.test", "b@x.test"]);
    let base = plain.transaction();
    let large = Transaction { size: 1001, ..base.clone() };
    let eight = Transaction { body: BodyKind::EightBitMime, ..base.clone() };
    let binary = Transaction { body: BodyKind::BinaryMime, ..base.clone() };
    let private = Transaction { require_tls: true, ..base.clone() };
    let utf8 = Transaction { smtputf8: true, ..base };
    let offers = &["PIPELINING", "SIZE 1000"];
    for (transaction, status) in [
        (large, "5.3.4"),
        (eight, "5.6.3"),
        (binary, "5.6.3"),
        (utf8, "5.6.7"),
        (private, "5.7.10"),
    ] {
        let mut peer = FakePeer::new(offers);
        let run = play(&mut client(), &mut peer, [transaction].into());
        let ending = ending(&run.done[0].fates[0]);
        assert_eq!(ending.status.to_string(), status);
        assert_eq!(ending.result, AttemptResult::Failed);
        assert_eq!(peer.seen.len(), 2, "nothing after EHLO");
    }
    let mut peer = FakePeer::new(offers);
    let run = play(&mut client(), &mut peer, [beyond.transaction()].into());
    assert_eq!(ending(&run.done[0].fates[0]).status.to_string(), "5.6.7");
    assert_eq!(ending(&run.done[0].fates[1]).result, AttemptResult::Delivered);
}

#[test]
fn mail_for_tls_all_the_way_goes_where_that_is_offered_under_tls() {
    let mail = mail(&["b@x.test"]);
    let transaction = || Transaction { require_tls: true, ..mail.transaction() };
    let secured = || {
        let settings = Settings { tls: Tls::Implicit, ..Settings::clone(&settings()) };
        Client::new(Arc::new(settings), Duration::ZERO)
    };
    let mut peer = FakePeer::new(&["PIPELINING"]);
    let run = play(&mut secured(), &mut peer, [transaction()].into());
    assert_eq!(ending(&run.done[0].fates[0]).status.to_string(), "5.7.30");
    let mut peer = FakePeer::new(&["PIPELINING", "REQUIRETLS"]);
    let run = play(&mut secured(), &mut peer, [transaction()].into());
    assert_eq!(ending(&run.done[0].fates[0]).result, AttemptResult::Delivered);
    assert_eq!(peer.seen[2], "MAIL FROM:<a@src.test> REQUIRETLS");
}

#[test]
fn parameters_are_given_only_to_peers_that_offer_them() {
    let mut mail = mail(&["b@x.test", "grün@x.test"]);
    mail.recipients[0].notify = Some(Notify { success: true, failure: true, delay: false });
    mail.recipients[0].orcpt = Some("rfc822;b@y.test".into());
    mail.recipients[1].notify = Some(Notify::NEVER);
    let transaction = Transaction {
        envid: Some("id+2B1"),
        ret: Some(Ret::Headers),
        body: BodyKind::EightBitMime,
        ..mail.transaction()
    };
    let mut peer = FakePeer::new(&["DSN", "8BITMIME", "SMTPUTF8", "SIZE", "PIPELINING"]);
    let run = play(&mut client(), &mut peer, [transaction].into());
    assert!(run.done[0].dsn);
    assert_eq!(
        peer.seen[2..5],
        [
            "MAIL FROM:<a@src.test> SIZE=20 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+2B1",
            "RCPT TO:<b@x.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@y.test",
            "RCPT TO:<grün@x.test> NOTIFY=NEVER",
        ]
    );
    let transaction = Transaction { envid: Some("id"), ret: Some(Ret::Full), ..mail.transaction() };
    let mut peer = FakePeer::new(&["SMTPUTF8"]);
    let run = play(&mut client(), &mut peer, [transaction].into());
    assert!(!run.done[0].dsn);
    assert_eq!(peer.seen[2], "MAIL FROM:<a@src.test> SMTPUTF8");
    assert_eq!(peer.seen[3], "RCPT TO:<b@x.test>");
}

#[test]
fn time_and_priority_are_passed_on_where_they_are_understood() {
    let mail = mail(&["b@x.test"]);
    let sent = |by: &str, priority: i8, offers: &'static [&'static str]| {
        let (by, priority) = (By::parse(by), Priority::try_from(priority).unwrap());
        let transaction = Transaction { by, priority, ..mail.transaction() };
        let mut peer = FakePeer::new(offers);
        let run = play(&mut client(), &mut peer, [transaction].into());
        let told = run.done[0].deliver_by;
        let ending = ending(&run.done[0].fates[0]).clone();
        let said = peer.seen.into_iter().find(|line| line.starts_with("MAIL"));
        (said.unwrap_or_default(), told, ending)
    };
    for (by, priority, offers, said) in [
        ("30;RT", 0, &["DELIVERBY 30"][..], "MAIL FROM:<a@src.test> BY=30;RT"),
        (
            "-5;N",
            9,
            &["DELIVERBY 30", "MT-PRIORITY"],
            "MAIL FROM:<a@src.test> BY=-5;N MT-PRIORITY=9",
        ),
        ("30;N", -2, &["MT-PRIORITY MIXER"], "MAIL FROM:<a@src.test> MT-PRIORITY=-2"),
        ("", 3, &["DELIVERBY"], "MAIL FROM:<a@src.test>"),
    ] {
        let (line, told, ending) = sent(by, priority, offers);
        assert_eq!((line.as_str(), told), (said, offers[0].starts_with("DELIVERBY")));
        assert_eq!(ending.result, AttemptResult::Delivered);
    }
    for (by, offers, status) in [
        ("30;R", &[][..], "5.3.3"),
        ("30;R", &["DELIVERBY 31"], "5.4.7"),
        ("29;RT", &["DELIVERBY 30"], "5.4.7"),
    ] {
        let (line, _, ending) = sent(by, 0, offers);
        assert_eq!((line.as_str(), ending.status.to_string().as_str()), ("", status));
        assert_eq!(ending.result, AttemptResult::Failed);
    }
}

#[test]
fn who_is_not_told_the_time_tells_of_delay() {
    let said = |by: &str, notify: Option<Notify>, offers: &'static [&'static str]| {
        let mut mail = mail(&["b@x.test"]);
        mail.recipients[0].notify = notify;
        let transaction = Transaction { by: By::parse(by), ..mail.transaction() };
        let mut peer = FakePeer::new(offers);
        play(&mut client(), &mut peer, [transaction].into());
        let line = peer.seen.into_iter().find(|line| line.starts_with("RCPT")).unwrap();
        line.trim_start_matches("RCPT TO:<b@x.test>").trim_start().to_owned()
    };
    let success = Some(Notify { success: true, failure: false, delay: false });
    for (by, notify, offers, wanted) in [
        ("30;N", None, &["DSN"][..], "NOTIFY=FAILURE,DELAY"),
        ("30;N", success, &["DSN"], "NOTIFY=SUCCESS,DELAY"),
        ("30;N", Some(Notify::NEVER), &["DSN"], "NOTIFY=NEVER"),
        ("0;N", success, &["DSN"], "NOTIFY=SUCCESS"),
        ("30;N", None, &["DSN", "DELIVERBY"], ""),
        ("30;R", None, &["DSN", "DELIVERBY"], ""),
        ("30;N", success, &["SIZE"], ""),
    ] {
        assert_eq!(said(by, notify, offers), wanted, "{by} {notify:?} {offers:?}");
    }
}

#[test]
fn binary_messages_travel_in_chunks_as_they_are() {
    let mail = mail(&["b@x.test"]);
    let transaction = Transaction { body: BodyKind::BinaryMime, ..mail.transaction() };
    for (offers, more) in [
        (&["CHUNKING", "BINARYMIME", "PIPELINING"][..], BodyFlow::Send),
        (&["CHUNKING", "BINARYMIME"], BodyFlow::Wait),
    ] {
        let mut client = client();
        client.on_octets(b"220 mx\r\n", Duration::ZERO);
        let lines: String = offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
        client.on_octets(format!("250-mx\r\n{lines}250 HELP\r\n").as_bytes(), Duration::ZERO);
        client.begin(&transaction, Duration::ZERO).unwrap();
        client.on_octets(b"250 ok\r\n", Duration::ZERO);
        client.on_octets(b"250 ok\r\n", Duration::ZERO);
        client.output().clear();
        client.body(b"a\n.\n", Duration::ZERO);
        assert_eq!(client.body_flow(), more);
        if more == BodyFlow::Wait {
            client.on_octets(b"250 chunk\r\n", Duration::ZERO);
        }
        client.last_body(b"\rb", Duration::ZERO);
        assert_eq!(client.output(), b"BDAT 4\r\na\n.\nBDAT 2 LAST\r\n\rb");
    }
}

#[test]
fn bare_line_end_spoils_the_message_before_its_end_is_sent() {
    let mail = mail(&["b@x.test"]);
    let mut client = client();
    client.on_octets(b"220 mx\r\n", Duration::ZERO);
    client.on_octets(b"250-mx\r\n250 PIPELINING\r\n", Duration::ZERO);
    client.begin(&mail.transaction(), Duration::ZERO).unwrap();
    client.on_octets(b"250 ok\r\n250 ok\r\n354 go\r\n", Duration::ZERO);
    client.output().clear();
    client.last_body(b"a\r\n\n.\r\nMAIL FROM:<x@y.test>\r\n", Duration::ZERO);
    assert!(client.output().is_empty());
    let actions: Vec<_> = std::iter::from_fn(|| client.poll()).collect();
    let Some(Action::Done(finished)) = actions.get(2) else { panic!("{actions:?}") };
    assert_eq!(ending(&finished.fates[0]).status.to_string(), "5.6.0");
    assert_eq!(actions.last(), Some(&Action::Close));
}

#[test]
fn early_no_to_the_body_counts_and_early_yes_does_not() {
    let mail = mail(&["b@x.test"]);
    for (reply, result) in [
        ("552 5.3.4 too big\r\n", AttemptResult::Failed),
        ("250 2.0.0 fine\r\n", AttemptResult::Deferred),
    ] {
        let mut client = client();
        client.on_octets(b"220 mx\r\n", Duration::ZERO);
        client.on_octets(b"250-mx\r\n250 PIPELINING\r\n", Duration::ZERO);
        client.begin(&mail.transaction(), Duration::ZERO).unwrap();
        client.on_octets(b"250 ok\r\n250 ok\r\n354 go\r\n", Duration::ZERO);
        client.body(b"part\r\n", Duration::ZERO);
        client.on_octets(reply.as_bytes(), Duration::ZERO);
        let done = std::iter::from_fn(|| client.poll()).find_map(|action| match action {
            Action::Done(finished) => Some(finished),
            _ => None,
        });
        assert_eq!(ending(&done.unwrap().fates[0]).result, result);
        assert!(client.is_closed());
    }
}

#[test]
fn many_recipients_never_have_more_than_a_window_of_replies_due() {
    let names: Vec<String> = (0..300).map(|n| format!("u{n}@x.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mail = mail(&names);
    let mut client = client();
    client.on_octets(b"220 mx\r\n", Duration::ZERO);
    client.on_octets(b"250-mx\r\n250-LIMITS RCPTMAX=300\r\n250 PIPELINING\r\n", Duration::ZERO);
    client.output().clear();
    client.begin(&mail.transaction(), Duration::ZERO).unwrap();
    let lines = client.output().iter().filter(|&&octet| octet == b'\n').count();
    assert_eq!(lines, 102);
    for _ in 0..301 {
        client.on_octets(b"250 ok\r\n", Duration::ZERO);
    }
    assert!(client.output().ends_with(b"DATA\r\n"));
    let mut peer = FakePeer::new(&["PIPELINING"]);
    let run = play(&mut self::client(), &mut peer, [mail.transaction()].into());
    assert_eq!(run.done[0].fates.iter().filter(|fate| **fate == Fate::Unsent).count(), 200);
}

#[test]
fn drip_of_octets_does_not_move_the_deadline() {
    let mut client = client();
    let deadline = client.deadline().unwrap();
    client.on_octets(b"220-still", Duration::from_secs(100));
    client.on_octets(b" here\r\n220-and here\r\n", Duration::from_secs(200));
    assert_eq!(client.deadline(), Some(deadline));
}

#[test]
fn reply_that_nobody_asked_for_must_not_drip_in_for_ever() {
    let mut client = client();
    client.on_octets(b"220 mx\r\n", Duration::ZERO);
    client.on_octets(b"250 mx\r\n", Duration::from_secs(1));
    assert_eq!(client.deadline(), None, "nothing is awaited");
    client.on_octets(b"4", Duration::from_secs(50));
    let deadline = client.deadline();
    assert_eq!(deadline, Some(Duration::from_secs(50) + Timeouts::default().block));
    client.on_octets(b"21 bye", Duration::from_secs(100));
    assert_eq!(client.deadline(), deadline);
    client.on_timeout();
    assert!(client.is_closed());
}

#[test]
fn goodbye_travels_behind_the_last_body() {
    let mail = mail(&["b@x.test"]);
    let mut client = client();
    client.on_octets(b"220 mx\r\n", Duration::ZERO);
    client.on_octets(b"250-mx\r\n250 PIPELINING\r\n", Duration::ZERO);
    client.begin(&mail.transaction(), Duration::ZERO).unwrap();
    client.on_octets(b"250 ok\r\n250 ok\r\n354 go\r\n", Duration::ZERO);
    client.output().clear();
    client.last_body(b"", Duration::ZERO);
    client.quit(Duration::ZERO);
    assert_eq!(client.output(), b".\r\nQUIT\r\n");
    client.on_octets(b"250 taken\r\n221 bye\r\n", Duration::ZERO);
    let actions: Vec<_> = std::iter::from_fn(|| client.poll()).collect();
    assert!(matches!(actions[2..], [Action::Done(_), Action::Close]));
}

#[test]
fn session_limit_of_the_peer_is_kept() {
    let mail = mail(&["b@x.test"]);
    let mut client = client();
    let mut peer = FakePeer::new(&["PIPELINING", "LIMITS MAILMAX=1"]);
    play(&mut client, &mut peer, [mail.transaction(), mail.transaction()].into());
    assert!(client.is_spent());
    assert_eq!(peer.seen.iter().filter(|line| line.starts_with("MAIL")).count(), 1);
}

#[test]
fn mail_is_asked_for_and_the_answer_comes_back_whatever_it_is() {
    for (answer, class) in
        [("253 2.0.0 7 messages\r\n", Class::Success), ("459 4.7.1 no\r\n", Class::Transient)]
    {
        let mut client = client();
        client.on_octets(b"220 mx.test\r\n", Duration::ZERO);
        client.on_octets(b"250-mx.test\r\n250 ETRN\r\n", Duration::ZERO);
        assert_eq!(client.poll(), Some(Action::Ready));
        assert!(client.peer().etrn && client.is_idle());
        client.output().clear();
        client.ask_for(&Etrn::parse("@branch.test").unwrap(), Duration::ZERO);
        assert_eq!(client.output().as_slice(), b"ETRN @branch.test\r\n");
        client.on_octets(answer.as_bytes(), Duration::ZERO);
        let Some(Action::Answered(reply)) = client.poll() else { panic!("an answer") };
        assert_eq!(reply.class(), class);
        assert!(client.is_idle());
    }
}
