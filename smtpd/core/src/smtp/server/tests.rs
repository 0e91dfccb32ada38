//! Conversations from files, and what a conversation cannot show: time, bodies, the house's "no".

use proptest::prelude::*;

use super::transcript::{Player, WALL, play, settings};
use super::*;
use crate::smtp::extension::Offer;

const HELLO_AND_ENVELOPE: &[u8] =
    b"EHLO client.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.com>\r\n";

/// The conversations by name; a black-box test watches that none is missing here.
macro_rules! transcripts {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../../../../tests/transcripts/", $name, ".smtp"))),)*]
    };
}

const TRANSCRIPTS: &[(&str, &str)] = transcripts! {
    "arguments"
    "auth-order"
    "bad-paths"
    "bare-cr-in-command"
    "bare-lf-in-command"
    "bdat"
    "bdat-refused-is-swallowed"
    "bdat-size-beyond-64-bit"
    "bdat-size-missing"
    "bdat-size-negative"
    "bdat-size-text"
    "bdat-size-trailing"
    "bdat-size-two-to-the-63"
    "bdat-too-large"
    "body-types"
    "deliver-by"
    "deliver-by-least"
    "dots"
    "dsn"
    "errors"
    "extensions-off"
    "future-release"
    "future-release-off"
    "greeting-and-quit"
    "hello-is-asked-for"
    "helo-message"
    "http-request"
    "idle-commands"
    "long-lines"
    "nul-in-command"
    "null-sender-and-postmaster"
    "order"
    "overlong-line"
    "paths"
    "pipelining"
    "priority"
    "recipients"
    "relay-forms"
    "rset-and-ehlo-forget"
    "session-size"
    "size"
    "smuggle-after-size-limit"
    "smuggle-cr-dot-cr"
    "smuggle-cr-dot-crlf"
    "smuggle-cr-dot-lf"
    "smuggle-cr-nul-lf-dot-crlf"
    "smuggle-crcrlf-dot-crcrlf"
    "smuggle-crlf-dot-cr"
    "smuggle-crlf-dot-cr-nul-lf"
    "smuggle-crlf-dot-crcrlf"
    "smuggle-crlf-dot-lf"
    "smuggle-crlf-dot-nul-crlf"
    "smuggle-crlf-nul-dot-crlf"
    "smuggle-first-line-and-header"
    "smuggle-lf-dot-cr"
    "smuggle-lf-dot-crlf"
    "smuggle-lf-dot-lf"
    "smuggle-lf-dot-lf-lf"
    "smuggle-lf-lf-dot-lf"
    "smuggle-lfcr-dot-lfcr"
    "smuggle-padding"
    "starttls-required"
    "unknown-and-unoffered"
    "unknown-parameters"
    "wishes-of-strangers"
};

#[test]
fn server_follows_every_transcript_however_the_octets_are_cut() {
    for (name, script) in TRANSCRIPTS {
        for piece in [1, 3, 64, 1 << 20] {
            assert_eq!(play(script, piece), Ok(()), "{name}, in pieces of {piece}");
        }
    }
}

fn codes(replies: &[String]) -> Vec<&str> {
    replies.iter().map(|reply| &reply[..3]).collect()
}

#[test]
fn message_comes_out_as_it_was_meant() {
    let mut player = Player::new(settings());
    player.feed(HELLO_AND_ENVELOPE, 1000);
    player.feed(b"RCPT TO:<c@d.test> NOTIFY=NEVER\r\nRCPT TO:<b@example.com>\r\nDATA\r\n", 1000);
    player.feed(b"Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n", 5);
    let (sender, recipients, body) = player.messages.pop().unwrap();
    assert_eq!(sender, "a@client.test");
    assert_eq!(recipients, ["b@example.com", "c@d.test"], "named twice is one recipient");
    assert_eq!(body, b"Subject: x\r\n\r\n.dot\r\n");
    assert_eq!(player.server.end(), Some(End::Quit));
    let last = player.replies().pop().unwrap();
    assert!(last.starts_with("221 2.0.0 "), "{last}");
}

#[test]
fn session_limit_holds_however_the_octets_are_cut() {
    let wire = [HELLO_AND_ENVELOPE, b"DATA\r\nSubject: x\r\n\r\nlong enough\r\n.\r\n"].concat();
    for piece in [1, 7, 1000] {
        let mut player = Player::new(Settings { session_octets_max: 20, ..settings() });
        player.feed(&wire, piece);
        assert_eq!(player.server.end(), Some(End::Refused(Refusal::SessionTooLarge)), "{piece}");
        assert!(player.messages.is_empty());
    }
}

#[test]
fn chunks_become_one_message() {
    let mut player = Player::new(settings());
    player.feed(HELLO_AND_ENVELOPE, 1000);
    player.feed(b"BDAT 7\r\na: b\r\n.BDAT 0\r\nBDAT 3 LAST\r\n\r\nxNOOP\r\n", 1);
    assert_eq!(player.messages[0].2, b"a: b\r\n.\r\nx");
    assert_eq!(codes(&player.replies())[4..], ["250", "250", "250", "250"]);
}

#[test]
fn nothing_is_consumed_while_a_question_is_open() {
    let mut server = Server::new(Arc::new(settings()), Duration::ZERO, WALL);
    let wire = b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nNOOP\r\n";
    let used = server.on_octets(wire, Duration::ZERO);
    assert_eq!(&wire[used..], b"NOOP\r\n");
    assert_eq!(server.poll(), Some(Action::Answer(Question::Sender)));
    assert_eq!(server.on_octets(b"NOOP\r\n", Duration::ZERO), 0);
    server.admit(Err(Refusal::AuthenticationRequired), Duration::ZERO);
    let Some(Action::Rejected(rejection)) = server.poll() else { panic!("the log is told") };
    assert_eq!(
        (rejection.stage, rejection.refusal),
        (Stage::Mail, Refusal::AuthenticationRequired)
    );
    assert_eq!(rejection.sender.unwrap().to_string(), "a@b.test");
    assert!(server.transaction().is_none());
    assert_eq!(server.on_octets(b"NOOP\r\n", Duration::ZERO), 6);
}

#[test]
fn mail_is_asked_for_between_messages_only() {
    let mut settings = settings();
    settings.grammar.offer = Offer::all();
    let mut player = Player::new(settings);
    player.feed(b"ETRN branch.test\r\nEHLO x\r\nETRN branch.test\r\nETRN other.test\r\n", 7);
    player.feed(b"ETRN\r\nETRN a b\r\nMAIL FROM:<a@b.test>\r\nETRN branch.test\r\nQUIT\r\n", 7);
    let replies = player.replies();
    assert!(replies.iter().any(|reply| reply.contains("250-ETRN\r\n")), "{replies:?}");
    let about = |reply: &&String| !reply.starts_with("250") && !reply.starts_with("220");
    let said: Vec<&str> = replies.iter().filter(about).map(|reply| reply.trim_end()).collect();
    assert_eq!(
        codes(&replies.iter().filter(about).cloned().collect::<Vec<_>>()),
        ["503", "253", "459", "501", "501", "503", "221"]
    );
    assert_eq!(said[1], "253 2.0.0 2 messages for branch.test started");
    assert!(said[2].starts_with("459 4.7.1 other.test: "), "{said:?}");
    assert!(player.rejections.contains(&("etrn", "etrn-denied")));
}

/// Plays up to a question, answers it with `refusal` and gives the last reply.
fn refused(wire: &[u8], question: Question, refusal: Refusal) -> (Server, String) {
    let mut server = Server::new(Arc::new(settings()), Duration::ZERO, WALL);
    let mut rest = wire;
    loop {
        rest = &rest[server.on_octets(rest, Duration::ZERO)..];
        match server.poll() {
            Some(Action::Answer(asked)) if asked == question => break,
            Some(Action::Answer(_)) => server.admit(Ok(()), Duration::ZERO),
            other => panic!("{other:?} before {question:?}"),
        }
    }
    if question == Question::Commit {
        server.committed(Err(refusal), Duration::ZERO);
    } else {
        server.admit(Err(refusal), Duration::ZERO);
    }
    server.on_octets(rest, Duration::ZERO);
    let said = String::from_utf8(std::mem::take(server.output())).unwrap();
    let last = said.trim_end().rsplit("\r\n").next().unwrap().to_owned();
    (server, last)
}

#[test]
fn every_no_of_the_house_reaches_the_client() {
    let data = [HELLO_AND_ENVELOPE, b"DATA\r\n"].concat();
    let chunk = [HELLO_AND_ENVELOPE, b"BDAT 6 LAST\r\nQUIT\r\n"].concat();
    let whole = [HELLO_AND_ENVELOPE, b"DATA\r\nx\r\n.\r\n"].concat();
    for (wire, question, refusal, said) in [
        (
            HELLO_AND_ENVELOPE,
            Question::Recipient,
            Refusal::RelayDenied,
            "550 5.7.1 <b@example.com>",
        ),
        (&data, Question::Body, Refusal::StorageFull, "452 4.3.1 "),
        (&chunk, Question::Body, Refusal::StorageFull, "452 4.3.1 "),
        (&whole, Question::Commit, Refusal::StorageFull, "452 4.3.1 "),
        (&whole, Question::Commit, Refusal::LocalTrouble, "451 4.3.0 "),
        (&whole, Question::Commit, Refusal::TooManyHops, "554 5.4.6 "),
    ] {
        let (server, last) = refused(wire, question, refusal);
        assert!(last.starts_with(said), "{refusal:?}: {last}");
        assert_eq!(server.end(), None, "the session goes on");
        assert_eq!(server.transaction().is_some(), question == Question::Recipient);
    }
}

fn after(wait: Duration, wire: &[u8]) -> Player {
    let mut player = Player::new(settings());
    player.feed(wire, 1000);
    player.replies();
    player.now = wait;
    assert!(player.server.deadline() <= wait);
    player.server.on_time(wait);
    player
}

#[test]
fn silence_and_long_sessions_end_with_421() {
    let data = [HELLO_AND_ENVELOPE, b"DATA\r\n"].concat();
    for (wait, wire, reason) in [
        (Duration::from_mins(5), &b""[..], Refusal::Idle),
        (Duration::from_mins(5), b"EHLO x\r\nNOO", Refusal::Idle),
        (Duration::from_mins(5), &data, Refusal::Idle),
        (Duration::from_hours(1), b"", Refusal::SessionTooLong),
    ] {
        let mut player = after(wait, wire);
        assert_eq!(player.server.end(), Some(End::Refused(reason)));
        assert_eq!(codes(&player.replies()), ["421"]);
    }
    let mut player = Player::new(settings());
    player.server.on_time(Duration::from_secs(299));
    assert_eq!(player.server.end(), None, "not before its time");
}

#[test]
fn a_command_typed_octet_by_octet_has_one_deadline() {
    let mut player = Player::new(settings());
    for second in 0..400 {
        player.now = Duration::from_secs(second);
        player.feed(b"x", 1);
    }
    assert_eq!(player.server.end(), Some(End::Refused(Refusal::Idle)));
}

#[test]
fn a_body_must_keep_a_pace() {
    let mut player = Player::new(settings());
    player.feed(HELLO_AND_ENVELOPE, 1000);
    player.feed(b"DATA\r\n", 1000);
    for second in 1..=180 {
        player.now = Duration::from_secs(second);
        player.feed(&[b'x'; 100], 100);
        player.feed(b"\r\n", 2);
    }
    assert_eq!(player.server.end(), None, "the pace is good");
    for second in 181..=260 {
        player.now = Duration::from_secs(second);
        player.feed(b"x", 1);
    }
    assert_eq!(player.server.end(), Some(End::Refused(Refusal::TooSlow)));
}

#[test]
fn a_chunk_must_keep_a_pace_as_well() {
    let mut player = Player::new(settings());
    player.feed(HELLO_AND_ENVELOPE, 1000);
    player.feed(b"BDAT 1000 LAST\r\n", 1000);
    for second in 1..=260 {
        player.now = Duration::from_secs(second);
        player.feed(b"x", 1);
    }
    assert_eq!(player.server.end(), Some(End::Refused(Refusal::TooSlow)));
    assert!(player.messages.is_empty());
}

#[test]
fn stopping_waits_for_a_message_on_its_way_only() {
    let mut player = Player::new(settings());
    player.feed(HELLO_AND_ENVELOPE, 1000);
    player.feed(b"DATA\r\nx\r\n", 1000);
    player.server.stop();
    assert_eq!(player.server.end(), None);
    player.feed(b".\r\nNOOP\r\n", 1000);
    assert_eq!(player.messages.len(), 1);
    assert_eq!(codes(&player.replies())[4..], ["354", "250", "421"]);
    assert_eq!(player.server.end(), Some(End::Refused(Refusal::Stopping)));

    for wire in [&b""[..], b"EHLO x\r\n", HELLO_AND_ENVELOPE] {
        let mut player = Player::new(settings());
        player.feed(wire, 1000);
        player.server.stop();
        assert_eq!(player.server.end(), Some(End::Refused(Refusal::Stopping)));
    }
}

#[test]
fn memory_of_large_bodies_is_given_back() {
    let mut server = Server::new(Arc::new(settings()), Duration::ZERO, WALL);
    let wire = [HELLO_AND_ENVELOPE, b"DATA\r\n\r\n", &b"0123456\r\n".repeat(10_000)[..], b".\r\n"]
        .concat();
    let mut rest = &wire[..];
    while !rest.is_empty() {
        rest = &rest[server.on_octets(rest, Duration::ZERO)..];
        match server.poll() {
            Some(Action::Answer(Question::Commit)) => {
                assert_eq!(server.body().len(), 90_002);
                server.committed(Ok(QueueId::at_millis(1)), Duration::ZERO);
            }
            Some(Action::Answer(_)) => server.admit(Ok(()), Duration::ZERO),
            other => assert_eq!(other, None),
        }
    }
    server.output().clear();
    server.release();
    assert_eq!((server.body.capacity(), server.output.capacity()), (0, 0));
    assert_eq!(server.messages(), 1);
}

proptest! {
    /// Whole sessions of likely and unlikely parts.
    #[test]
    fn replies_do_not_depend_on_how_the_octets_are_cut(
        parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..25),
        piece in 1..40_usize,
    ) {
        let wire = parts.concat();
        let run = |piece| {
            let mut small = settings();
            small.body.size_max = 60;
            small.recipients_max = 2;
            small.errors_max = 6;
            let mut player = Player::new(small);
            player.feed(wire.as_bytes(), piece);
            (player.replies(), player.messages, player.rejections, player.server.end())
        };
        let whole = run(wire.len().max(1));
        prop_assert_eq!(&run(piece), &whole);
        let (_, messages, ..) = whole;
        for (_, recipients, body) in messages {
            prop_assert!(!recipients.is_empty() && recipients.len() <= 2 && body.len() <= 60);
        }
    }

    #[test]
    fn no_octets_bring_the_machine_down(wire in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut player = Player::new(settings());
        player.feed(HELLO_AND_ENVELOPE, 1000);
        player.feed(&wire, 7);
        player.replies();
    }
}

#[test]
fn what_is_pipelined_behind_a_mail_that_trouble_of_ours_refused_is_no_error_of_the_client() {
    let settings = Settings { errors_max: 3, ..settings() };
    let mut server = Server::new(Arc::new(settings), Duration::ZERO, WALL);
    let all = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@example.com>\r\nDATA\r\n";
    server.on_octets(b"EHLO x\r\n", Duration::ZERO);
    for _ in 0..10 {
        let mut rest = &all[..];
        while !rest.is_empty() {
            let taken = server.on_octets(rest, Duration::ZERO);
            rest = &rest[taken..];
            while let Some(action) = server.poll() {
                if matches!(action, Action::Answer(Question::Sender)) {
                    server.admit(Err(Refusal::StorageFull), Duration::ZERO);
                }
            }
        }
    }
    assert_eq!(server.end(), None, "{}", String::from_utf8_lossy(server.output()));
    let mut wrong = &b"RCPT TO:<c@example.com>\r\n".repeat(2000)[..];
    while server.end().is_none() && !wrong.is_empty() {
        let taken = server.on_octets(wrong, Duration::ZERO);
        wrong = &wrong[taken..];
        while server.poll().is_some() {}
    }
    assert!(server.end().is_some(), "the excuse is not without end");
}

const PARTS: &[&str] = &[
    "EHLO x\r\n",
    "HELO x\r\n",
    "MAIL FROM:<a@b.test>\r\n",
    "MAIL FROM:<> BODY=BINARYMIME\r\n",
    "MAIL FROM:<a@b.test> SIZE=61\r\n",
    "RCPT TO:<a@example.com>\r\n",
    "RCPT TO:<b@example.com>\r\n",
    "RCPT TO:<c>\r\n",
    "RCPT TO:<>\r\n",
    "DATA\r\n",
    "line\r\n",
    ".line\r\n",
    "\r\n.\r\n",
    ".\r\n",
    "BDAT 5\r\n",
    "BDAT 7 LAST\r\n",
    "BDAT 0 LAST\r\n",
    "BDAT 61\r\n",
    "12345",
    "\r\n",
    "\r",
    "\n",
    "RSET\r\n",
    "NOOP\r\n",
    "QUIT\r\n",
];
