//! Milters that hang up, refuse or take their time, over the simulated network.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use mailroot_common::config::milter::MilterAddress;
use mailroot_common::units::Span;
use smtpd_core::milter::answer::Field;
use smtpd_core::milter::frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
}

const GO_ON: &[u8] = b"\0\0\0\x01c";
const NO: &[u8] = b"\0\0\0\x01r";
/// No answer to MAIL.
const QUIET_AT_MAIL: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\0\x40\0";
const AGREED: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\0\0\0";

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
    (Milter { address, timeout: Span::seconds(60), on_failure: OnFailure::Defer }, heard)
}

async fn serve(mut stream: Stream, number: usize, does: Does, letters: &Mutex<String>) {
    let mut octets = Vec::new();
    while stream.read_buf(&mut octets).await.is_ok_and(|read| read > 0) {
        while let Some((letter, used)) = frame(&octets).unwrap().map(|it| (it.letter, it.used)) {
            octets.drain(..used);
            if matches!(letter, b'D' | b'Q') {
                continue;
            }
            letters.lock().unwrap().push(char::from(letter));
            if letter == b'A' {
                continue;
            }
            let (wait, answer, ends) = match does(number, letter) {
                Act::Say(answer) => (0, answer, false),
                Act::SayAfter(wait, answer) => (wait, answer, false),
                Act::SayAndEnd(answer) => (0, answer, true),
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
