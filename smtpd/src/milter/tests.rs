//! Milters that hang up, refuse or take their time, over the simulated network.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};

use mailroot_common::config::milter::{MilterAddress, OnFailure};
use mailroot_common::units::Span;
use smtpd_core::milter::answer::Field;
use smtpd_core::milter::frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::peer::{Gone, State};
use super::*;
use crate::net::{SimulatedNet, Stream};
use crate::resolve::SimulatedDns;

/// What a milter does with a command, by how many connections there were and the command's letter.
type Does = fn(usize, u8) -> Act;

enum Act {
    Say(&'static [u8]),
    /// The same after so many seconds.
    SayAfter(u64, &'static [u8]),
    /// The same, and hangs up.
    SayAndEnd(&'static [u8]),
    /// The same again and again, with so many seconds before each.
    SayOnAndOn(u64, &'static [u8]),
    /// So often, and that it may go on.
    SayTimes(usize, &'static [u8]),
    /// From now on nothing is answered, and nobody hangs up.
    Vanish,
}

const GO_ON: &[u8] = b"\0\0\0\x01c";
const NO: &[u8] = b"\0\0\0\x01r";
/// No answer to MAIL.
const QUIET_AT_MAIL: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\0\x40\0";
const AGREED: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\0\0\0";
/// The same of one that may change the body.
const MAY_CHANGE: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\0\x02\0\0\0\0";
const MORE_TIME: &[u8] = b"\0\0\0\x01p";

/// A milter; the letters that it hears.
fn milter(net: &Net, at: &str, does: Does) -> (Milter, Arc<Mutex<String>>) {
    let listener = net.listen(at.parse::<SocketAddr>().unwrap()).unwrap();
    let heard = Arc::<Mutex<String>>::default();
    let letters = Arc::clone(&heard);
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, number, does, &letters).await;
        }
    });
    let address = MilterAddress::parse(&format!("inet:{at}")).unwrap();
    (
        Milter { address, timeout: Span::seconds(60), on_failure: OnFailure::Defer, local: false },
        heard,
    )
}

async fn serve(mut stream: Stream, number: usize, does: Does, letters: &Mutex<String>) {
    let (mut octets, mut has_vanished) = (Vec::new(), false);
    while stream.read_buf(&mut octets).await.is_ok_and(|read| read > 0) {
        while let Some((letter, used)) = frame(&octets).unwrap().map(|it| (it.letter, it.used)) {
            octets.drain(..used);
            if matches!(letter, b'D' | b'Q') {
                continue;
            }
            letters.lock().unwrap().push(char::from(letter));
            let act = does(number, letter);
            has_vanished |= matches!(act, Act::Vanish);
            if letter == b'A' || has_vanished {
                continue;
            }
            let (wait, answer, ends) = match act {
                Act::Say(answer) => (0, answer, false),
                Act::SayAfter(wait, answer) => (wait, answer, false),
                Act::SayAndEnd(answer) => (0, answer, true),
                Act::SayOnAndOn(wait, answer) => {
                    say_on_and_on(&mut stream, wait, answer).await;
                    return;
                }
                Act::SayTimes(times, answer) => {
                    for _ in 0..times {
                        let _ = stream.write_all(answer).await;
                    }
                    (0, GO_ON, false)
                }
                Act::Vanish => return,
            };
            tokio::time::sleep(Duration::from_secs(wait)).await;
            // Whoever has hung up hears nothing.
            let _ = stream.write_all(answer).await;
            if ends {
                return;
            }
        }
    }
}

/// Until nobody listens any more.
async fn say_on_and_on(stream: &mut Stream, wait: u64, answer: &[u8]) {
    loop {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

fn who(name: &str) -> Who {
    let address = IpAddr::from([192, 0, 2, 1]);
    Who { name: name.to_owned(), address, port: 1, helo: name.to_owned(), tls: None }
}

struct Means {
    net: Net,
    resolver: Resolver,
    log: Log,
}

impl Means {
    fn new() -> Self {
        let net = Net::Simulated(SimulatedNet::default());
        let resolver = Resolver::Simulated(SimulatedDns::default());
        Self { net, resolver, log: Log::quiet() }
    }

    fn reach(&self) -> Reach<'_> {
        let Self { net, resolver, log } = self;
        Reach { net, resolver, log, server: "default", host: "mx.example" }
    }
}

const SENDER: (&str, &Values<'static>) = ("<a@x>", &[]);

#[tokio::test]
async fn a_milter_behind_one_that_refuses_hears_of_another_client_too() {
    let means = Means::new();
    let (first, _) = milter(&means.net, "192.0.2.7:1", |number, letter| match (number, letter) {
        (_, b'O') => Act::Say(AGREED),
        (1, b'M') => Act::Say(NO),
        _ => Act::Say(GO_ON),
    });
    let (second, heard) = milter(&means.net, "192.0.2.8:1", |_, letter| match letter {
        b'O' => Act::Say(AGREED),
        _ => Act::Say(GO_ON),
    });
    let (mut milters, reach) = (Milters::new(&[first, second]), means.reach());
    milters.mail(&who("one.example"), SENDER, &reach).await.unwrap();
    let refused = milters.mail(&who("two.example"), SENDER, &reach).await;
    assert_eq!(refused, Err(No::Refused));
    assert_eq!(*heard.lock().unwrap(), "OCHM");
    // The first one has nothing more to say.
    milters.peers[0].state = State::Gone(Gone::Satisfied);
    milters.mail(&who("two.example"), SENDER, &reach).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), "OCHMOCHM");
}

#[tokio::test]
async fn a_milter_that_was_restarted_between_messages_is_called_again() {
    let means = Means::new();
    let (entry, heard) =
        milter(&means.net, "192.0.2.7:1", |number, letter| match (number, letter) {
            (_, b'O') => Act::Say(QUIET_AT_MAIL),
            (0, b'R') => Act::SayAndEnd(GO_ON),
            (_, b'M') => Act::Say(b""),
            _ => Act::Say(GO_ON),
        });
    let (mut milters, reach) = (Milters::new(&[entry]), means.reach());
    let recipient: (&str, &Values<'_>) = ("<b@y>", &[]);
    milters.mail(&who("one.example"), SENDER, &reach).await.unwrap();
    milters.rcpt(recipient, &reach).await.unwrap();
    milters.mail(&who("one.example"), SENDER, &reach).await.unwrap();
    milters.rcpt(recipient, &reach).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), "OCHMROCHMR");
}

#[tokio::test(start_paused = true)]
async fn all_milters_have_one_time_together_for_a_whole_message() {
    let means = Means::new();
    let slow: Does = |_, letter| match letter {
        b'O' => Act::Say(AGREED),
        b'L' => Act::SayAfter(50, GO_ON),
        _ => Act::Say(GO_ON),
    };
    let (first, _) = milter(&means.net, "192.0.2.7:1", slow);
    let (second, heard) = milter(&means.net, "192.0.2.8:1", slow);
    let (mut milters, reach) = (Milters::new(&[first, second]), means.reach());
    milters.mail(&who("one.example"), SENDER, &reach).await.unwrap();
    let mut work = Work { header: b"A: 1\r\n".repeat(4), ..Work::default() };
    let begun = Instant::now();
    assert_eq!(milters.showing(), 2);
    milters.header(0, (&mut work, &[]), &reach).await.unwrap();
    let heard_of = milters.header(1, (&mut work, &[]), &reach).await;
    assert_eq!(heard_of, Err(No::Unheard));
    assert_eq!(begun.elapsed().as_secs(), SHOWING_MAX.as_secs());
    assert!(heard.lock().unwrap().ends_with("TLL"), "{heard:?}");
}

#[test]
fn of_changes_that_make_no_sense_none_is_made() {
    let mut work = Work { header: b"A: 1\r\n\r\n".to_vec(), ..Work::default() };
    let field = Field { name: b"B".to_vec(), value: b"2".to_vec() };
    let mut changes = vec![
        Change::AddHeader(field),
        Change::Hold("so".to_owned()),
        Change::Body(b"a\0b".to_vec()),
    ];
    assert_eq!(work.take(changes.clone(), false, 99), Err(MilterError::Form('b')));
    assert_eq!(work.header, b"A: 1\r\n\r\n");
    assert!(work.changes.is_empty() && work.by.is_empty() && work.body.is_none());
    changes.pop();
    work.take(changes, false, 99).unwrap();
    assert_eq!((&work.header[..], work.changes.len()), (&b"A: 1\r\nB: 2\r\n\r\n"[..], 1));
}

/// Shows a message as whoever receives it does.
async fn show(milters: &mut Milters, reach: &Reach<'_>) -> Result<Work, No> {
    let mut work = Work { header: b"A: 1\r\n\r\n".to_vec(), ..Work::default() };
    milters.showing();
    for _ in 0..2 {
        let mut next = milters.header(0, (&mut work, &[]), reach).await?;
        if next == Next::More {
            next = milters.body(0, (&mut work, b"x\r\n"), reach).await?;
        }
        if next != Next::Again {
            next = milters.end(0, (&mut work, &[]), (1_000, reach)).await?;
        }
        if next != Next::Again {
            return Ok(work);
        }
    }
    panic!("it is called a third time");
}

/// A milter that leaves these commands without an answer, as it says, and vanishes after one message.
macro_rules! vanishing {
    ($agreed:literal, $quiet:literal) => {{
        let does: Does = |number, letter| match letter {
            b'O' => Act::Say($agreed),
            b'A' if number == 0 => Act::Vanish,
            letter if $quiet.contains(&letter) => Act::Say(b""),
            _ => Act::Say(GO_ON),
        };
        does
    }};
}

#[tokio::test(start_paused = true)]
async fn a_milter_that_vanished_without_hanging_up_is_called_again_and_told_all_of_it() {
    for (number, (does, unanswered)) in [
        (vanishing!(b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\0\0\0", b""), "M"),
        (vanishing!(b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\0\x40\0", b"M"), "MR"),
        (vanishing!(b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\0\xc0\0", b"MR"), "MRT"),
        (vanishing!(b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\x05\xc0\x80", b"MRTLN"), "MRTLNB"),
        (vanishing!(b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\x0d\xc0\x80", b"MRTLNB"), "MRTLNBE"),
    ]
    .into_iter()
    .enumerate()
    {
        let means = Means::new();
        let (entry, heard) = milter(&means.net, "192.0.2.7:1", does);
        let (mut milters, reach) = (Milters::new(&[entry]), means.reach());
        for _ in 0..2 {
            milters.mail(&who("one.example"), SENDER, &reach).await.unwrap();
            milters.rcpt(("<b@y>", &[]), &reach).await.unwrap();
            show(&mut milters, &reach).await.unwrap();
        }
        let whole = "OCHMRTLNBE";
        assert_eq!(*heard.lock().unwrap(), format!("{whole}A{unanswered}{whole}"), "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_refuses_a_sender_that_is_told_again_holds_for_the_whole_message() {
    let means = Means::new();
    let (entry, heard) =
        milter(&means.net, "192.0.2.7:1", |number, letter| match (number, letter) {
            (0, b'O') => Act::Say(QUIET_AT_MAIL),
            (0, b'A') => Act::Vanish,
            (0, b'M') => Act::Say(b""),
            (_, b'O') => Act::Say(AGREED),
            (1, b'M') => Act::Say(NO),
            _ => Act::Say(GO_ON),
        });
    let (mut milters, reach) = (Milters::new(&[entry]), means.reach());
    milters.mail(&who("one.example"), SENDER, &reach).await.unwrap();
    milters.mail(&who("one.example"), SENDER, &reach).await.unwrap();
    for to in ["<b@y>", "<c@y>"] {
        assert_eq!(milters.rcpt((to, &[]), &reach).await, Err(No::Refused), "{to}");
    }
    assert!(show(&mut milters, &reach).await.is_err());
    milters.mail(&who("one.example"), SENDER, &reach).await.unwrap();
    milters.rcpt(("<b@y>", &[]), &reach).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), "OCHMAMROCHMOCHMR");
}

#[tokio::test(start_paused = true)]
async fn a_milter_that_asks_for_more_time_again_and_again_is_given_up() {
    let at_mail = |does: Does| async move {
        let means = Means::new();
        let (entry, heard) = milter(&means.net, "192.0.2.7:1", does);
        let (mut milters, begun) = (Milters::new(&[entry]), Instant::now());
        let said = milters.mail(&who("one.example"), SENDER, &means.reach()).await;
        let letters = heard.lock().unwrap().clone();
        (said, letters, begun.elapsed().as_secs())
    };
    let slow: Does = |_, letter| match letter {
        b'O' => Act::Say(AGREED),
        b'M' => Act::SayOnAndOn(50, MORE_TIME),
        _ => Act::Say(GO_ON),
    };
    assert_eq!(at_mail(slow).await, (Err(No::Unheard), "OCHM".to_owned(), 600));
    let quick: Does = |_, letter| match letter {
        b'O' => Act::Say(AGREED),
        b'M' => Act::SayOnAndOn(0, MORE_TIME),
        _ => Act::Say(GO_ON),
    };
    assert_eq!(at_mail(quick).await, (Err(No::Unheard), "OCHM".to_owned(), 0));
    let last: Does = |_, letter| match letter {
        b'O' => Act::Say(AGREED),
        b'E' => Act::SayOnAndOn(50, MORE_TIME),
        _ => Act::Say(GO_ON),
    };
    let means = Means::new();
    let (entry, _) = milter(&means.net, "192.0.2.7:1", last);
    let (mut milters, reach) = (Milters::new(&[entry]), means.reach());
    milters.mail(&who("one.example"), SENDER, &reach).await.unwrap();
    let begun = Instant::now();
    assert_eq!(show(&mut milters, &reach).await.err(), Some(No::Unheard));
    assert_eq!(begun.elapsed().as_secs(), SHOWING_MAX.as_secs());
}

/// A piece of another body, of a million octets.
static PIECE: LazyLock<Vec<u8>> =
    LazyLock::new(|| [&1_000_001_u32.to_be_bytes()[..], b"b", &[b'y'; 1_000_000]].concat());

#[tokio::test]
async fn the_changes_of_a_milter_are_bounded_in_octets() {
    let enough: Does = |_, letter| match letter {
        b'O' => Act::Say(MAY_CHANGE),
        b'E' => Act::SayTimes(33, &PIECE),
        _ => Act::Say(GO_ON),
    };
    let too_much: Does = |_, letter| match letter {
        b'O' => Act::Say(MAY_CHANGE),
        b'E' => Act::SayTimes(34, &PIECE),
        _ => Act::Say(GO_ON),
    };
    for (does, taken) in [(enough, Ok(Some(33_000_000))), (too_much, Err(No::Unheard))] {
        let means = Means::new();
        let (entry, _) = milter(&means.net, "192.0.2.7:1", does);
        let (mut milters, reach) = (Milters::new(&[entry]), means.reach());
        milters.mail(&who("one.example"), SENDER, &reach).await.unwrap();
        let made = show(&mut milters, &reach).await;
        assert_eq!(made.map(|work| work.body.map(|body| body.len())), taken);
    }
}
