//! A spool with damage: no altered message is ever delivered, and what is damaged is set aside and named.
//!
//! A queue with messages of all kinds is written once. Each round starts the daemon on a copy of it in which
//! octets were flipped and files cut off, and looks at what is delivered. The damage is drawn from a seed,
//! which is printed; `MAILROOT_SEED` sets another. What lies where in the queue still depends on time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mailroot_tests::account::tag;
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, skip, wait};
use tempfile::TempDir;

/// Octets of small messages: most lie in records, the last in files of their own.
const SIZES: [usize; 8] = [0, 100, 900, 2_500, 6_000, 9_000, 12_000, 300_000];
const MESSAGES: usize = 40;

/// Damages in one copy of the queue: at different places, so that they do not hide each other.
const DAMAGES: usize = 5;

/// A queue that was written once, and a daemon that is started on copies of it.
struct Bench {
    peer: Peer,
    site: Site,
    saved: TempDir,
    sent: BTreeMap<String, Vec<u8>>,
}

/// What a daemon made of a copy.
#[derive(Debug, Default)]
struct Found {
    /// Tags of messages that were delivered.
    delivered: Vec<String>,
    /// Messages that stay in the queue, each of them named in the log.
    kept: usize,
    /// What it said of damage.
    said: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let peer = Peer::start(ports::local(), |event| match event.stage {
            Stage::Rcpt => Answer::say("450 4.2.1 later"),
            _ => Answer::Accept,
        });
        let site = Site::start(Setup::new().smart_host(peer.address()));
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        let mut sent = BTreeMap::new();
        for number in 0..MESSAGES {
            let tag = format!("m{number}");
            let filling = format!("{tag} 0123456789 abcdefghijklmnopqrstuvwxyz\r\n");
            let count = SIZES[number % SIZES.len()] / filling.len();
            let octets = [tagged(&tag), filling.repeat(count).into_bytes()].concat();
            let reply = talk.message("a@client.test", &["x@far.test"], &octets).unwrap();
            assert_eq!(reply.code, 250, "{reply}");
            sent.insert(tag, octets);
            // Delivered and removed again: such records belong to a queue as well.
            let gone = talk.message("a@client.test", &[&format!("x@{LOCAL_DOMAIN}")], b"gone\r\n");
            assert_eq!(gone.unwrap().code, 250);
        }
        site.await_dropped(MESSAGES);
        wait::until("an attempt at each", || {
            let listed = site.ctl(&["queue", "list", "--state", "retry", "-o", "name"]).ok();
            (listed.lines().count() == MESSAGES).then_some(())
        });
        site.kill();
        peer.behave(|_| Answer::Accept);
        let saved = tempfile::tempdir().unwrap();
        copy(&site.spool("default", "Queue"), saved.path());
        Self { peer, site, saved, sent }
    }

    fn queue(&self) -> PathBuf {
        self.site.spool("default", "Queue")
    }

    /// Starts a daemon on a copy of the queue that `change` has changed, until all that it can deliver is
    /// delivered, and ends it.
    fn round(&self, change: impl FnOnce(&Path)) -> Found {
        fs::remove_dir_all(self.queue()).unwrap();
        copy(self.saved.path(), &self.queue());
        change(&self.queue());
        let before = self.peer.with_received(|received| received.len());
        let log_before = self.site.log().len();
        self.site.launch_again();
        let said = || -> Vec<String> {
            let words = ["damaged", "segment_", "unreadable"];
            let log = self.site.log()[log_before..].to_owned();
            log.lines()
                .filter(|line| words.iter().any(|word| line.contains(word)))
                .filter(|line| !line.contains("event=queue_read"))
                .map(str::to_owned)
                .collect()
        };
        // Until then the list is short of what has not been read yet.
        wait::until("the queue to be read", || {
            self.site.log()[log_before..].contains("event=queue_read").then_some(())
        });
        let kept = wait::until("a queue in which only damaged messages are left", || {
            let ids = self.site.ctl(&["queue", "list", "-o", "name"]).ok();
            let said = said();
            let is_named = |id: &str| said.iter().any(|line| line.contains(id));
            ids.lines().all(is_named).then(|| ids.lines().count())
        });
        let delivered = self.peer.with_received(|received| {
            received[before..]
                .iter()
                .map(|message| {
                    let tag = tag(&message.octets);
                    let sound =
                        self.sent.get(&tag).is_some_and(|sent| message.octets.ends_with(sent));
                    assert!(sound, "an altered message was delivered: {tag}");
                    tag
                })
                .collect()
        });
        let errors = fs::read_to_string(self.site.home().join("errors")).unwrap();
        assert!(!errors.contains("panicked"), "{errors}");
        let reply = self.site.talk().say("NOOP");
        assert_eq!(reply.code, 250, "it lives: {reply}");
        let said = said();
        self.site.kill();
        Found { delivered, kept, said }
    }

    /// What must be true of every damaged queue; returns how many messages were not delivered.
    fn judge(&self, found: &Found, what: &str) -> usize {
        let once: BTreeSet<&String> = found.delivered.iter().collect();
        assert_eq!(once.len(), found.delivered.len(), "{what}: delivered twice");
        let missing = self.sent.len() - once.len();
        if missing > 0 {
            assert!(!found.said.is_empty(), "{what}: {missing} messages are gone without a word");
        }
        missing
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

/// The files of a queue that hold mail.
fn files(queue: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(queue).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("segment-") || name.starts_with("body-")
    });
    paths.sort();
    paths
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// Whether nothing was ever written into a file.
fn is_blank(path: &Path) -> bool {
    fs::read(path).unwrap().iter().all(|octet| *octet == 0)
}

/// One damage: an octet flipped in a file that holds something, or that file cut off.
fn damage(queue: &Path, random: &mut fastrand::Rng) -> String {
    let files: Vec<PathBuf> = files(queue).into_iter().filter(|path| !is_blank(path)).collect();
    let path = &files[random.usize(..files.len())];
    let file = open(path);
    let at = random.u64(..file.metadata().unwrap().len());
    let name = path.file_name().unwrap().to_string_lossy();
    if random.u8(..4) == 0 {
        file.set_len(at.max(1)).unwrap();
        return format!("{name} cut off at {at}");
    }
    let mut octet = [0];
    file.read_exact_at(&mut octet, at).unwrap();
    let mask = 1 << random.u8(..8);
    file.write_all_at(&[octet[0] ^ mask], at).unwrap();
    format!("{name} octet {at} xor {mask:#x}")
}

#[test]
fn random_damage_alters_no_message_and_is_named_in_the_log() {
    let rounds = if skip::full() { 200 } else { 40 };
    let seed = std::env::var("MAILROOT_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or(20_261_124);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let bench = Bench::new();
    let mut missing = 0;
    let mut kept = 0;
    for round in 0..rounds {
        let mut done = Vec::new();
        let found = bench.round(|queue| {
            done.extend((0..DAMAGES).map(|_| damage(queue, &mut random)));
        });
        missing += bench.judge(&found, &format!("round {round}: {done:?}"));
        kept += found.kept;
    }
    println!(
        "{} damages in {rounds} queues of {MESSAGES} messages: {missing} not delivered, \
         {kept} of them kept in the queue, 0 altered",
        rounds * DAMAGES
    );
}

/// The segment in use that was begun first: others say where it ends.
fn oldest(queue: &Path) -> PathBuf {
    let begun = |path: &PathBuf| -> Option<(u64, PathBuf)> {
        let octets = fs::read(path).unwrap();
        let in_use = u32::from_le_bytes(octets.get(12..16)?.try_into().unwrap()) == 1;
        let generation = u64::from_le_bytes(octets.get(16..24)?.try_into().unwrap());
        let is_segment = path.to_string_lossy().contains("segment-");
        (is_segment && in_use).then(|| (generation, path.clone()))
    };
    files(queue).iter().filter_map(begun).min().unwrap().1
}

#[test]
fn segments_that_are_cut_off_missing_or_foreign_leave_the_others_alone() {
    let bench = Bench::new();
    let whole = bench.round(|_| ());
    assert_eq!((bench.judge(&whole, "no damage"), whole.kept), (0, 0));

    let cut = bench.round(|queue| open(&oldest(queue)).set_len(20_000).unwrap());
    let missing = bench.judge(&cut, "a segment cut off");
    assert!(missing > 0 && missing < MESSAGES, "{missing}");

    let header = bench.round(|queue| open(&oldest(queue)).write_all_at(&[b'?'; 4096], 0).unwrap());
    let missing = bench.judge(&header, "a segment without its header");
    assert!(missing > 0 && missing < MESSAGES, "{missing}");
    assert!(header.said.iter().any(|line| line.contains("segment_unreadable")), "{header:?}");

    let blank = bench.round(|queue| open(&oldest(queue)).write_all_at(&[0; 4096], 0).unwrap());
    let missing = bench.judge(&blank, "a segment whose header was wiped");
    assert!(missing > 0 && missing < MESSAGES, "{missing}");
    assert!(blank.said.iter().any(|line| line.contains("segment_unreadable")), "{blank:?}");

    let gone = bench.round(|queue| fs::remove_file(oldest(queue)).unwrap());
    let once: BTreeSet<&String> = gone.delivered.iter().collect();
    assert!(once.len() == gone.delivered.len() && once.len() < MESSAGES, "{gone:?}");

    let foreign = bench.round(|queue| {
        fs::write(queue.join("segment-000900"), b"not a segment\n".repeat(1000)).unwrap();
        fs::write(queue.join("notes.txt"), "somebody's").unwrap();
        fs::copy(oldest(queue), queue.join("segment-000901")).unwrap();
    });
    assert_eq!(bench.judge(&foreign, "foreign files"), 0);
    assert!(foreign.said.iter().any(|line| line.contains("segment-000900")), "{foreign:?}");
    assert!(bench.queue().join("damaged/segment-000900").exists(), "it was not kept");
    assert!(bench.queue().join("notes.txt").exists(), "a file of somebody else was removed");
}
