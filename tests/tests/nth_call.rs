//! Killed at its n-th call on files, and told at that call that the disk fails: nothing is lost or altered.
//!
//! A flow is a few messages on the same way. It is run once to count its calls below the spool, then again
//! and again with a fault at call 1, 2, 3 ... until a run meets none; without `--full` a few of these points
//! are taken, evenly spread. A daemon that was killed is started again; one whose disk refused must go on by
//! itself. In the end every message that was acknowledged is where it belongs, whole, and no other is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::cell::Cell;
use std::fmt;
use std::fs;

use mailroot_tests::injection::{self, Call, Fault, Injection};
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::whereabouts::{self, End, Letter, Way, Word, balance};
use mailroot_tests::{ports, skip, wait};
use nix::sys::signal::Signal;

/// A body that goes to a file of its own.
const LARGE: usize = 300 << 10;
/// No flow makes more calls than this; one that seems to is not ending.
const CALLS_MAX: usize = 1000;
/// Points of each fault without `--full`.
const KILLS: usize = 6;
const ERRORS: usize = 2;

struct Flow {
    name: &'static str,
    letters: fn() -> Vec<Letter>,
    start: Start,
    /// Whether the flow ends with the last reply; otherwise it ends when everything has arrived.
    ends_with_replies: bool,
    /// Whether a kill may make a message arrive once more: where a remote's reply, or the removal of a file
    /// of Pickup, was outstanding. A disk that fails never may.
    may_repeat: bool,
    /// Whether what failed is tried again only after minutes.
    rests_after_trouble: bool,
}

impl Flow {
    const fn new(name: &'static str, letters: fn() -> Vec<Letter>) -> Self {
        Self {
            name,
            letters,
            start: Start::Afterwards,
            ends_with_replies: false,
            may_repeat: false,
            rests_after_trouble: false,
        }
    }
}

/// Which part of a daemon's life is watched.
#[derive(Clone, Copy)]
enum Start {
    /// It has started; the letters are sent to it.
    Afterwards,
    /// Its start, after an earlier life that left the letters behind.
    Watched(fn(&Site, &mut [Letter])),
}

/// What the points of a flow came to.
#[derive(Default)]
struct Figures {
    killed: usize,
    failed: usize,
    acknowledged: usize,
    duplicates: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { killed, failed, acknowledged, duplicates } = self;
        let points = killed + failed;
        write!(
            f,
            "{points} points: {killed} killed, {failed} failed, {acknowledged} acknowledged, 0 lost, \
             {duplicates} duplicates"
        )
    }
}

/// Tells whatever happens inside which point it was.
struct Scene<'a>(&'a str, Cell<Option<(usize, Fault)>>);

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {:?}", self.0, self.1.get());
        }
    }
}

fn remote() -> Peer {
    Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt if event.line.contains("refused@") => Answer::say("550 5.1.1 nobody here"),
        _ => Answer::Accept,
    })
}

fn setup(peer: &Peer) -> Setup {
    Setup::new()
        .smart_host(peer.address())
        .key("store.pickup.poll", "1s")
        .key("store.pickup.settle", "0ms")
}

/// One run of a flow: how many calls it made, and the one at which the fault happened, if it did.
fn run(flow: &Flow, fault: Option<(usize, Fault)>, figures: &mut Figures) -> (usize, Option<Call>) {
    let peer = remote();
    let site = Site::prepare(setup(&peer));
    let spool = site.home().join("spool");
    let mut letters = (flow.letters)();
    let mut injection = match flow.start {
        Start::Afterwards => {
            site.launch();
            let injection = Injection::attach(site.pid(), &spool, fault);
            send(&site, &mut letters, &injection);
            injection
        }
        Start::Watched(leave) => {
            leave(&site, &mut letters);
            site.spawn_stopped();
            let injection = Injection::attach(site.pid(), &spool, fault);
            site.signal(Signal::SIGCONT);
            injection
        }
    };
    await_end(flow, &site, &peer, &letters, &injection);
    injection.detach();
    let (injected, calls) = (injection.injected(), injection.calls());
    match (fault, &injected) {
        (Some((_, Fault::Kill)), Some(_)) => after_kill(&site, &peer, &mut letters),
        (Some((_, fault)), Some(call)) => {
            let may_end = matches!(flow.start, Start::Watched(_));
            after_error(&site, &peer, &mut letters, (fault, call), &calls, may_end);
        }
        (None, _) | (_, None) => assert!(site.runs(), "nobody killed it"),
    }
    let found = settle(&site, &peer, &letters);
    let sum = balance(&letters, &found, true);
    let was_killed = injected.is_some() && matches!(fault, Some((_, Fault::Kill)));
    let most = if flow.may_repeat && was_killed { 2 } else { 1 };
    assert!(sum.most <= most, "{} times after {injected:?}", sum.most);
    figures.acknowledged += sum.acknowledged;
    figures.duplicates += sum.duplicates;
    (calls.len(), injected)
}

fn send(site: &Site, letters: &mut [Letter], injection: &Injection) {
    let mut talk = None;
    for letter in letters {
        if injection.ended() {
            break;
        }
        letter.send(site, &mut talk);
    }
}

/// Waits until nothing more happens: the daemon is gone, or everything has come to its end.
fn await_end(flow: &Flow, site: &Site, peer: &Peer, letters: &[Letter], injection: &Injection) {
    let is_hit = || injection.injected().is_some();
    if flow.ends_with_replies && !is_hit() {
        return;
    }
    wait::until("the end of the flow", || {
        if injection.ended() {
            return Some(());
        }
        if flow.rests_after_trouble && is_hit() {
            // The operator does not wait for minutes either.
            let _none_waits = site.ctl(&["queue", "retry", "--state", "retry", "--yes"]);
        }
        let found = whereabouts::search(site, peer);
        let arrived = whereabouts::all_arrived(letters, &found)
            && whereabouts::is_settled(site)
            && (is_hit() || bodies(site) == 0);
        arrived.then_some(())
    });
}

/// The files of large bodies; they go after their message, a little later.
fn bodies(site: &Site) -> usize {
    let entries = fs::read_dir(site.spool("default", "Queue")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"body-")).count()
}

/// Waits until everything has come to its end.
fn settle(site: &Site, peer: &Peer, letters: &[Letter]) -> Vec<whereabouts::Found> {
    wait::until("an end of every message", || {
        if !whereabouts::is_settled(site) {
            return None;
        }
        let found = whereabouts::search(site, peer);
        whereabouts::all_arrived(letters, &found).then_some(found)
    })
}

fn after_kill(site: &Site, peer: &Peer, letters: &mut Vec<Letter>) {
    let status = site.wait();
    assert!(!status.success(), "{status}");
    // What has a final name is whole at every moment.
    let _so_far = balance(letters, &whereabouts::search(site, peer), false);
    site.launch();
    pass(site, letters);
}

/// A disk that fails is trouble of ours, and a full one has no room; the client hears which, whether it is
/// the one whose message met it or another that comes meanwhile.
fn must_be_honest(fault: Fault, letters: &[Letter]) {
    for letter in letters {
        let Word::Refused(code) = letter.word else { continue };
        let honest: &[u16] = if fault == Fault::NoSpace { &[451, 452] } else { &[451] };
        assert!(honest.contains(&code), "{} heard {code} after {fault:?}", letter.tag);
    }
    let open = letters.iter().find(|letter| letter.word == Word::Open);
    assert!(open.is_none(), "{open:?} has no reply");
}

fn after_error(
    site: &Site,
    peer: &Peer,
    letters: &mut Vec<Letter>,
    (fault, call): (Fault, &Call),
    calls: &[Call],
    may_end: bool,
) {
    if may_end && !site.runs() {
        // It said why it cannot start. The disk is well by now.
        site.launch();
    }
    assert!(site.runs(), "it ended after {call}");
    must_not_repeat(call, calls);
    pass(site, letters);
    must_be_honest(fault, letters);
    let found = settle(site, peer, letters);
    let _sum = balance(letters, &found, true);
    // What was void stays void for whoever reads the spool next.
    site.kill();
    site.launch();
}

/// A sync of a file that failed says nothing when it is done again: something else must come before. (Of a
/// directory each writer has a handle of its own, and the system tells every one of them.)
fn must_not_repeat(failed: &Call, calls: &[Call]) {
    let folder = format!("{}/", failed.path);
    if !failed.is_sync() || calls.iter().any(|call| call.path.starts_with(&folder)) {
        return;
    }
    let mut later = calls.iter().skip_while(|call| call.number <= failed.number);
    let next = later.find(|call| call.path == failed.path);
    assert!(!next.is_some_and(Call::is_sync), "{next:?}");
}

/// Sends new messages until one is taken: what was in trouble is well again.
fn pass(site: &Site, letters: &mut Vec<Letter>) {
    let mut number = 0;
    wait::until("a message that passes", || {
        number += 1;
        let mut letter = Letter::local(&format!("after{number}"), 100);
        letter.send(site, &mut None);
        letters.push(letter);
        (letters.last().unwrap().word == Word::Acknowledged).then_some(())
    });
}

/// The points of a fault: all of them, or so many, evenly spread.
fn points(calls: usize, some: usize) -> Vec<usize> {
    if skip::full() {
        return (1..=CALLS_MAX).collect();
    }
    let stride = calls.div_ceil(some).max(1);
    (1..=calls).skip(stride / 2).step_by(stride).collect()
}

fn play(flow: &Flow) {
    if let Err(reason) = injection::possible() {
        skip::note(&format!("faults at the n-th call: {}", flow.name), &reason);
        return;
    }
    let scene = Scene(flow.name, Cell::new(None));
    let mut figures = Figures::default();
    let (calls, _) = run(flow, None, &mut figures);
    for (fault, some) in
        [(Fault::Kill, KILLS), (Fault::InputOutput, ERRORS), (Fault::NoSpace, ERRORS)]
    {
        for number in points(calls, some) {
            scene.1.set(Some((number, fault)));
            let (_, injected) = run(flow, Some((number, fault)), &mut figures);
            if injected.is_none() {
                assert!(number < CALLS_MAX, "the flow does not end");
                break;
            }
            match fault {
                Fault::Kill => figures.killed += 1,
                Fault::InputOutput | Fault::NoSpace => figures.failed += 1,
            }
        }
    }
    println!("{}: {calls} calls, {figures}", flow.name);
}

#[test]
fn a_message_is_accepted_whole_or_not_at_all() {
    let letters = || {
        let mut letters = vec![Letter::local("small", 100), Letter::local("large", LARGE)];
        // Enough for the next segment.
        letters.extend((0..4).map(|number| Letter::local(&format!("filling{number}"), 14_000)));
        letters
    };
    play(&Flow { ends_with_replies: true, ..Flow::new("accept", letters) });
}

#[test]
fn a_file_of_pickup_is_sent_and_at_most_once_more() {
    let letters = || vec![Letter::file("small", 100), Letter::file("large", LARGE)];
    play(&Flow { may_repeat: true, ..Flow::new("pickup", letters) });
}

#[test]
fn a_claim_that_cannot_be_removed_is_removed_later_and_sent_once() {
    if let Err(reason) = injection::possible() {
        skip::note("a claim that cannot be removed", &reason);
        return;
    }
    let flow = Flow::new("removal", || vec![Letter::file("one", 100)]);
    let is_removal = |call: &Call| call.name == "unlinkat" && call.path.contains("/.claimed/");
    // Its place among the calls depends on which of two threads was faster.
    wait::until("a removal that fails", || {
        let (mut figures, peer) = (Figures::default(), remote());
        let site = Site::start(setup(&peer));
        let mut watched = Injection::attach(site.pid(), &site.home().join("spool"), None);
        let mut letters = (flow.letters)();
        send(&site, &mut letters, &watched);
        await_end(&flow, &site, &peer, &letters, &watched);
        watched.detach();
        let removal = watched.calls().into_iter().find(is_removal)?.number;
        let (_, injected) = run(&flow, Some((removal, Fault::InputOutput)), &mut figures);
        injected.is_some_and(|call| is_removal(&call)).then_some(())
    });
}

fn far(tag: &str, filling: usize) -> Letter {
    Letter::smtp(tag, "a@client.test", "x@far.test", End::Peer, filling)
}

#[test]
fn a_message_reaches_a_remote_and_at_most_once_more() {
    let letters = || vec![far("small", 100), far("large", LARGE)];
    play(&Flow { may_repeat: true, ..Flow::new("remote", letters) });
}

#[test]
fn a_message_stands_in_drop_whole_and_once() {
    play(&Flow::new("drop", || vec![Letter::local("small", 100), Letter::local("large", LARGE)]));
}

#[test]
fn a_refused_message_comes_back_in_one_report() {
    let letters = || {
        let back = |tag, filling| {
            let to = format!("{tag}.refused@far.test");
            Letter::smtp(tag, "sender@local.test", &to, End::Returned, filling)
        };
        vec![back("small", 100), back("large", LARGE)]
    };
    play(&Flow::new("bounce", letters));
}

#[test]
fn what_can_go_nowhere_stands_in_badmail_whole() {
    let letters = || {
        let report =
            |tag, filling| Letter::smtp(tag, "", "refused@far.test", End::Badmail, filling);
        vec![report("report", 100), Letter::bad_file("bad", 100), report("large", LARGE)]
    };
    play(&Flow { rests_after_trouble: true, ..Flow::new("badmail", letters) });
}

/// An earlier life: mail in the queue that could not be delivered, half a large body, a claimed file of
/// Pickup and one that came while nobody was there.
fn leave_mail(site: &Site, letters: &mut [Letter]) {
    let goal = site.setup();
    site.configure(goal.clone().smart_host(ports::local()));
    site.launch();
    let mut talk = None;
    let (files, mail): (Vec<_>, Vec<_>) =
        letters.iter_mut().partition(|letter| letter.way == Way::Pickup);
    for letter in mail {
        letter.send(site, &mut talk);
        assert_eq!(letter.word, Word::Acknowledged);
    }
    let bodies = bodies(site);
    let mut half = site.talk();
    half.expect("EHLO client.test", 250);
    half.expect("MAIL FROM:<a@client.test>", 250);
    half.expect("RCPT TO:<x@far.test>", 250);
    half.expect("DATA", 354);
    half.send(&far("half", LARGE).octets).unwrap();
    wait::until("the file of half a body", || (self::bodies(site) > bodies).then_some(()));
    site.kill();
    for letter in files {
        letter.send(site, &mut None);
    }
    let pickup = site.spool("default", "Pickup");
    fs::rename(pickup.join("claimed.eml"), pickup.join(".claimed/D00000000000.claimed.eml"))
        .unwrap();
    site.configure(goal);
}

#[test]
fn mail_in_the_queue_survives_every_start() {
    let letters = || {
        let mut letters = vec![far("small", 100), far("large", LARGE)];
        letters.extend((0..6).map(|number| far(&format!("filling{number}"), 14_000)));
        letters.extend([Letter::file("waiting", 100), Letter::file("claimed", 100)]);
        letters
    };
    let flow = Flow { may_repeat: true, ..Flow::new("start", letters) };
    play(&Flow { start: Start::Watched(leave_mail), ..flow });
}
