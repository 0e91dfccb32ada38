//! Power that is cut, on real file systems: nothing acknowledged is lost.
//!
//! The daemon's spool, with Queue, Drop and Badmail, lies on a volume whose file system is shut down in the
//! middle of the work; what no sync had brought to the disk is gone. *Busy* cuts come under load from many
//! clients. *Idle* cuts come right after the last 250, or after the queue said that a delivery was done:
//! only they show a sync that is missing, because under load the next one makes up for it. Controls take
//! the syncs away and see mail lost, which shows that these tests are not blind.
//!
//! One thing cannot be seen here: the syncs of directories that new segments and large bodies lie in. On
//! ext4 and XFS the sync of a new file brings the names above it along, so without those syncs nothing is
//! lost; the disk modelled in the store's own tests is stricter.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use mailroot_tests::account::{Account, arrived, queued, tag};
use mailroot_tests::load::{Load, Shape};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::volume::{Cut, Kind, Volume};
use mailroot_tests::{ports, skip, wait};

const SHAPE: Shape = Shape { clients: 12, per_connection: 10, filling: 1500 };

/// Messages that can go nowhere, so that there is always something alive to move between segments.
const STUCK: usize = 10;

/// Messages acknowledged between two busy cuts.
const BETWEEN: usize = 100;

/// Octets of a body that lies in a file of its own.
const LARGE: usize = 300 << 10;

fn site(sink: &Peer) -> Site {
    let nowhere = ports::free();
    Site::prepare(
        Setup::new()
            .smart_host(sink.address())
            .domain(&format!(
                "{{name: stuck.test, type: remote, route: \"[127.0.1.99]:{nowhere}\"}}"
            ))
            .key("general.max_connections_per_client", "unlimited"),
    )
}

/// The power goes and comes back.
fn cut(site: &Site, volume: &Volume, cut: Cut) {
    volume.cut(cut);
    site.kill();
    volume.restart();
}

fn kind_of_cut(round: usize) -> Cut {
    if round.is_multiple_of(2) { Cut::JournalLost } else { Cut::JournalKept }
}

#[track_caller]
fn accept(site: &Site, from: &str, to: &str, octets: &[u8]) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let reply = talk.message(from, &[to], octets).unwrap();
    assert_eq!(reply.code, 250, "{reply}");
}

// --- busy cuts ---

/// Waits until a client hears that nothing can be kept: after the cut there is no 250 any more.
fn await_refusal(site: &Site) {
    wait::until("a refusal", || {
        let mut talk = site.talk();
        talk.try_say("EHLO client.test").ok()?;
        let to = format!("after@{LOCAL_DOMAIN}");
        let reply = talk.message("a@client.test", &[&to], &tagged("after the cut")).ok()?;
        assert!(matches!(reply.code, 451 | 452), "after the cut: {reply}");
        Some(())
    });
}

fn busy(kind: Kind, cuts: usize) {
    let sink = Peer::accepting(ports::local());
    let site = site(&sink);
    let volume = Volume::roomy(kind, &site.home().join("spool"));
    site.launch();
    let load = Load::start(site.address(), SHAPE, |number| match number % 4 {
        0 => format!("d{number}@{LOCAL_DOMAIN}"),
        _ => format!("r{number}@far.test"),
    });
    for number in 0..STUCK {
        let tag = format!("stuck{number}");
        accept(&site, "a@client.test", "x@stuck.test", &tagged(&tag));
        load.account.acknowledge(&tag);
    }
    for round in 0..cuts {
        let target = load.account.acknowledged() + BETWEEN;
        wait::until("acknowledged messages", || {
            (load.account.acknowledged() >= target).then_some(())
        });
        volume.cut(kind_of_cut(round));
        if round.is_multiple_of(3) {
            await_refusal(&site);
        }
        site.kill();
        volume.restart();
        site.launch_again();
    }
    let account = load.stop();
    wait::until("nothing but what is stuck", || {
        let listed = site.ctl(&["queue", "list", "-o", "name"]);
        (listed.code == 0 && listed.out.lines().count() == STUCK).then_some(())
    });

    let stuck = queued(&site, "stuck.test");
    let tags = [arrived(&site, &sink), stuck.clone()].concat();
    let balance = account.balance(&tags);
    println!("{cuts} busy cuts on {}: {balance}", kind.name());
    assert!(balance.lost.is_empty(), "{} lost: {:?}", balance.lost.len(), balance.lost);
    assert!(balance.strangers.is_empty(), "{:?}", balance.strangers);
    assert!(site.badmail().is_empty(), "{:?}", site.badmail());
    assert_eq!(stuck.len(), STUCK, "what was stuck is there, each once: {stuck:?}");
}

#[test]
fn power_cuts_under_load_on_ext4_lose_nothing_that_was_acknowledged() {
    if Volume::possible("busy power cuts on ext4", Kind::Ext4, &["xfs_io"]) {
        busy(Kind::Ext4, if skip::full() { 100 } else { 4 });
    }
}

#[test]
fn power_cuts_under_load_on_xfs_lose_nothing_that_was_acknowledged() {
    if Volume::possible("busy power cuts on xfs", Kind::Xfs, &["xfs_io"]) {
        busy(Kind::Xfs, if skip::full() { 40 } else { 2 });
    }
}

// --- idle cuts ---

/// What is acknowledged, or done, when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// One to three messages on a first start, when directories and segments are new.
    FirstMail,
    /// One to three messages in a queue that was there before.
    LaterMail,
    /// A message whose body lies in a file of its own.
    LargeMail,
    /// A delivery to Drop that the queue has forgotten.
    Drop,
    /// The same with a large body.
    LargeDrop,
    /// A message that could be neither delivered nor returned.
    Badmail,
}

const LAST: [Last; 6] =
    [Last::FirstMail, Last::LaterMail, Last::LargeMail, Last::Drop, Last::LargeDrop, Last::Badmail];

/// A site that is put on one fresh volume after the other.
struct Idle {
    sink: Peer,
    site: Site,
    account: Account,
    arrived: Vec<String>,
}

impl Idle {
    fn new() -> Self {
        let sink = Peer::accepting(ports::local());
        let site = site(&sink);
        Self { sink, site, account: Account::default(), arrived: Vec::new() }
    }

    /// One cut on a fresh volume, and the count of what is there after it.
    fn round(&mut self, round: usize, last: Last, kind: Kind, how: Cut) {
        let volume = Volume::roomy(kind, &self.site.home().join("spool"));
        self.sink.behave(refuse_or_be_silent);
        self.site.launch();
        if last == Last::LaterMail {
            self.site.stop();
            self.site.launch();
        }
        let count =
            if matches!(last, Last::LargeMail | Last::LargeDrop) { 1 } else { 1 + round % 3 };
        let messages: Vec<(String, Vec<u8>)> = (0..count)
            .map(|number| {
                let tag = format!("r{round}n{number}");
                let filling = if count == 1 && last != Last::FirstMail { LARGE } else { 100 };
                let octets = [tagged(&tag), b"0123456789\r\n".repeat(filling / 12)].concat();
                (tag, octets)
            })
            .collect();
        self.send(last, &messages);
        if matches!(last, Last::Drop | Last::LargeDrop | Last::Badmail) {
            self.site.await_empty_queue();
        }
        cut(&self.site, &volume, how);
        self.count(last, &messages);
        self.site.kill();
    }

    /// Sends on one connection, so that the cut can follow the last reply at once.
    fn send(&self, last: Last, messages: &[(String, Vec<u8>)]) {
        let (from, to) = match last {
            Last::FirstMail | Last::LaterMail | Last::LargeMail => ("a@client.test", "x@far.test"),
            Last::Drop | Last::LargeDrop => ("a@client.test", "x@local.test"),
            Last::Badmail => ("", "refused@far.test"),
        };
        let mut talk = self.site.talk();
        talk.expect("EHLO client.test", 250);
        for (tag, octets) in messages {
            let reply = talk.message(from, &[to], octets).unwrap();
            assert_eq!(reply.code, 250, "{reply}");
            self.account.acknowledge(tag);
        }
    }

    /// Starts again and notes the tags of all messages that are there, octet for octet.
    fn count(&mut self, last: Last, messages: &[(String, Vec<u8>)]) {
        self.sink.behave(|_| Answer::Accept);
        let before = self.sink.with_received(|received| received.len());
        self.site.launch_again();
        self.site.await_empty_queue();
        let found: Vec<Vec<u8>> = match last {
            Last::Drop | Last::LargeDrop => {
                self.site.dropped("default").into_iter().map(|stored| stored.octets).collect()
            }
            Last::Badmail => self.badmail(),
            _ => self.sink.with_received(|received| {
                received[before..].iter().map(|message| message.octets.clone()).collect()
            }),
        };
        for octets in found {
            let sound = messages.iter().any(|(_, sent)| octets.ends_with(sent));
            self.arrived.push(if sound {
                tag(&octets)
            } else {
                format!("damaged {}", tag(&octets))
            });
        }
    }

    /// The messages in Badmail, of those that have all their three files.
    fn badmail(&self) -> Vec<Vec<u8>> {
        let files = self.site.badmail();
        let whole = |path: &&std::path::PathBuf| {
            let others = ["reason", "envelope"].map(|extension| path.with_extension(extension));
            path.extension().is_some_and(|extension| extension == "eml")
                && others.iter().all(|other| fs::metadata(other).is_ok_and(|file| file.len() > 0))
        };
        files.iter().filter(whole).map(|path| fs::read(path).unwrap()).collect()
    }
}

/// Refuses who is called so, and keeps everybody else waiting: nothing is recorded of a session that hangs,
/// so the last sync before the cut is that of the last 250.
fn refuse_or_be_silent(event: &Event) -> Answer {
    match event.stage {
        Stage::Rcpt if event.line.contains("refused@") => Answer::say("550 5.1.1 no such user"),
        Stage::Rcpt => Answer::Silence,
        _ => Answer::Accept,
    }
}

fn idle(kind: Kind, cuts: usize) {
    let mut idle = Idle::new();
    for round in 0..cuts {
        // The harder kind of cut for each of them first.
        let how = kind_of_cut(round / LAST.len());
        idle.round(round, LAST[round % LAST.len()], kind, how);
    }
    let balance = idle.account.balance(&idle.arrived);
    println!("{cuts} idle cuts on {}: {balance}", kind.name());
    assert!(balance.lost.is_empty(), "{:?}", balance.lost);
    assert!(balance.strangers.is_empty(), "{:?}", balance.strangers);
    assert_eq!(balance.duplicates, 0, "no delivery was under way that could be done twice");
}

#[test]
fn a_power_cut_right_after_the_last_reply_on_ext4_loses_nothing() {
    if Volume::possible("idle power cuts on ext4", Kind::Ext4, &["xfs_io"]) {
        idle(Kind::Ext4, if skip::full() { 100 } else { LAST.len() + 1 });
    }
}

#[test]
fn a_power_cut_right_after_the_last_reply_on_xfs_loses_nothing() {
    if Volume::possible("idle power cuts on xfs", Kind::Xfs, &["xfs_io"]) {
        idle(Kind::Xfs, if skip::full() { 40 } else { LAST.len() });
    }
}

// --- controls ---

#[test]
fn without_syncs_power_cuts_lose_mail_so_these_tests_are_not_blind() {
    if !Volume::possible("power cuts without syncs", Kind::Ext4, &["xfs_io", "eatmydata"]) {
        return;
    }
    let mut idle = Idle::new();
    idle.site.under(&["eatmydata"]);
    for (round, last) in [Last::FirstMail, Last::LargeMail, Last::Drop].into_iter().enumerate() {
        idle.round(round, last, Kind::Ext4, Cut::JournalLost);
    }
    let balance = idle.account.balance(&idle.arrived);
    println!("3 idle cuts on ext4 without syncs: {balance}");
    assert!(!balance.lost.is_empty(), "nothing was lost without a sync: the cuts cut nothing");
}

#[test]
fn without_the_sync_of_its_directory_a_file_in_drop_is_lost() {
    let programs = ["xfs_io", "strace"];
    if !Volume::possible("power cuts without syncs of a directory", Kind::Ext4, &programs) {
        return;
    }
    let mut idle = Idle::new();
    let drop = idle.site.spool("default", "Drop");
    let skip_sync = ["-e", "trace=fsync", "-e", "inject=fsync:retval=0"];
    let words = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", drop.to_str().unwrap()];
    idle.site.under(&[&words[..], &skip_sync].concat());
    for round in 0..3 {
        idle.round(round, Last::Drop, Kind::Ext4, Cut::JournalLost);
    }
    let balance = idle.account.balance(&idle.arrived);
    println!("3 idle cuts on ext4 without syncs of Drop: {balance}");
    assert!(!balance.lost.is_empty(), "nothing was lost without the sync of the directory");
}
