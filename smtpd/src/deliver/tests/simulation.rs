//! Days of mail in seconds: queue, store, lanes and retries together, in made-up time, with peers that
//! fail and change, deaths of the process and loss of power.
//!
//! A seed decides everything. Each life of the service has a Tokio runtime of its own, and dropping that
//! is the death of the process; the disk is a model that forgets what was not synced when the power
//! fails. In the end every recipient of acknowledged mail must have reached an end: a peer took the
//! message, or its sender was told, or it lies in Badmail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;
use crate::disk::{Disk, Fault, Modelled};
use crate::queue::Stepper;

const DOMAINS: [&str; 5] = ["a.test", "b.test", "c.test", "d.test", "e.test"];

/// How a peer may be in one life; the second number says how often of ten.
const MOODS: &[(&str, u32)] = &[
    ("", 10),
    ("GREETING close", 4),
    ("GREETING 421 4.3.2 not now", 5),
    ("RCPT 450 4.2.1 grey", 4),
    ("RCPT 550 5.1.1 nobody", 2),
    ("MAIL 451 4.3.0 trouble", 3),
    ("DATA 452 4.3.1 full", 3),
    ("END 451 4.3.0 once more", 4),
    ("END 554 5.6.0 not this", 2),
    ("END close", 4),
    ("END silence", 2),
    ("DATA close", 3),
];

/// A recipient of one message.
type Key = (u32, String);

/// What was promised and what came.
#[derive(Default)]
struct Books {
    acknowledged: BTreeSet<Key>,
    handed_in: BTreeSet<Key>,
    arrived: BTreeMap<Key, u32>,
    reported: BTreeSet<Key>,
    crashes: u32,
    /// Ends of messages that a peer left without an answer.
    doubts: u64,
}

impl Books {
    fn note(&mut self, mail: &peer::Mail) {
        let number = number_in(&mail.body);
        for recipient in &mail.recipients {
            let recipient = recipient.trim_matches(['<', '>']).to_owned();
            if recipient == "sender@src.test" {
                self.note_report(number, &mail.body);
            } else {
                *self.arrived.entry((number, recipient)).or_default() += 1;
            }
        }
    }

    fn note_report(&mut self, number: u32, body: &str) {
        if body.contains("Action: failed") {
            let fields = body.lines().filter_map(|line| {
                line.strip_prefix("Final-Recipient: rfc822; ").map(str::to_owned)
            });
            self.reported.extend(fields.map(|recipient| (number, recipient)));
        }
    }

    /// Every promise is kept, nothing came that nobody sent.
    fn balance(&self, badmail: &str) {
        for key @ (number, recipient) in &self.acknowledged {
            let kept = badmail.contains(&format!("number-{number}-"))
                && badmail.contains(recipient.as_str());
            let ended = self.arrived.contains_key(key) || self.reported.contains(key) || kept;
            assert!(ended, "message {number} to {recipient} has no end");
        }
        let strangers: Vec<_> =
            self.arrived.keys().filter(|key| !self.handed_in.contains(*key)).collect();
        assert!(strangers.is_empty(), "{strangers:?}");
        let twice: u32 = self.arrived.values().map(|count| count - 1).sum();
        assert!(twice == 0 || self.crashes > 0 || self.doubts > 0, "{twice} came twice");
    }
}

fn number_in(body: &str) -> u32 {
    let tail = body.split("number-").nth(1).unwrap_or_else(|| panic!("no number in {body}"));
    tail.split('-').next().unwrap().parse().unwrap()
}

struct World {
    random: fastrand::Rng,
    model: Arc<Modelled>,
    net: Net,
    folder: tempfile::TempDir,
    wall: Timestamp,
    number: u32,
    books: Books,
}

/// One life of the service, with its peers.
struct Life {
    queue: Queue,
    store: Stepper,
    clock: Clock,
    peers: Vec<Peer>,
    counters: Arc<Counters>,
    _deliver: Deliver,
}

impl World {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["Drop", "Badmail"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self {
            random: fastrand::Rng::with_seed(seed),
            model: Arc::new(Modelled::new(seed)),
            net: Net::Simulated(SimulatedNet::default()),
            folder,
            wall: START,
            number: 0,
            books: Books::default(),
        }
    }

    /// Begins a life; the power may fail while the store is opened.
    fn begin(&mut self) -> Option<Life> {
        let clock = Clock::simulated(self.wall, self.random.u64(..));
        let (log, counters) = (Log::quiet(), Arc::new(Counters::default()));
        let dns = SimulatedDns::default();
        let settings = settings(self.folder.path(), &clock, &log, &counters, &dns);
        let disk = Disk::Modelled(Arc::clone(&self.model));
        let table = Arc::clone(&settings.table);
        let opened = Queue::stepped(disk, Path::new("/spool/Queue"), clock.clone(), table);
        let Ok((queue, store)) = opened else {
            assert!(self.model.is_off(), "the store opens while there is power");
            return None;
        };
        let mut peers = Vec::new();
        for (place, name) in DOMAINS.iter().chain(&["src.test"]).enumerate() {
            let mx = domain(&format!("mx.{name}"));
            let address = format!("192.0.2.{}", place + 1);
            dns.add_mx(&domain(name), 10, Some(mx.clone()));
            dns.add_address(&mx, address.parse().unwrap());
            let script = if *name == "src.test" { Script::honest() } else { self.mood() };
            peers.push(Peer::start(&self.net, &format!("{address}:25"), script));
        }
        let parts = Parts {
            server: "test".into(),
            queue: queue.clone(),
            net: self.net.clone(),
            clock: clock.clone(),
            log,
            counters: Arc::clone(&counters),
            session_ids: Arc::new(SessionIds::beginning_at(1)),
            dialogues: Default::default(),
            trace: Trace::off(),
            limits: SharedLimits::default(),
        };
        let _deliver = Deliver::start(parts, settings);
        Some(Life { queue, store, clock, peers, counters, _deliver })
    }

    fn mood(&mut self) -> Script {
        loop {
            let (fault, often) = MOODS[self.random.usize(..MOODS.len())];
            if self.random.u32(..10) < often {
                let script = if fault.is_empty() { Script::honest() } else { Script::with(fault) };
                let few = self.random.usize(1..6);
                return if self.random.bool() { script.times(few) } else { script };
            }
        }
    }

    /// Hands messages in and lets time pass; returns early if the power fails.
    async fn live(&mut self, life: &Life, hours: u64) {
        let until = life.clock.elapsed() + Duration::from_hours(hours);
        while life.clock.elapsed() < until && !self.model.is_off() {
            for _ in 0..self.random.usize(..4) {
                self.hand_in(life).await;
            }
            let pause = Duration::from_secs(self.random.u64(1..7200));
            life.clock.sleep(pause).await;
        }
    }

    async fn hand_in(&mut self, life: &Life) {
        self.number += 1;
        let number = self.number;
        let sender = if self.random.u8(..8) == 0 { "" } else { "sender@src.test" };
        let count = self.random.usize(1..4);
        let recipients: BTreeSet<String> = (0..count)
            .map(|_| format!("u{}@{}", self.random.u8(..3), DOMAINS[self.random.usize(..5)]))
            .collect();
        let keys: Vec<Key> = recipients.iter().map(|to| (number, to.clone())).collect();
        self.books.handed_in.extend(keys.iter().cloned());
        let to: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let filling = "x".repeat(self.random.usize(..3000));
        let body = format!("Subject: number-{number}-\r\n\r\n{filling}\r\n");
        let envelope = envelope(sender, &to, life.clock.now());
        let draft = Draft { envelope, body: Body::Memory(body.into_bytes()) };
        if life.queue.accept(draft).await.is_ok() {
            self.books.acknowledged.extend(keys);
        }
    }

    /// One life and its end.
    fn one_life(&mut self, hours: u64, last: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let Some(life) = self.begin() else { return };
            let (store, dead) = (life.store.clone(), Arc::new(tokio::sync::Notify::new()));
            let died = Arc::clone(&dead);
            tokio::spawn(async move {
                loop {
                    if !store.step() {
                        died.notify_one();
                    }
                    store.wait().await;
                }
            });
            let alive = async {
                self.live(&life, hours).await;
                let mut days = 0;
                while last && life.queue.counts().messages > 0 {
                    life.clock.sleep(Duration::from_hours(24)).await;
                    days += 1;
                    assert!(
                        days < 30,
                        "the queue does not become empty: {:?}",
                        life.queue.counts()
                    );
                }
            };
            tokio::select! {
                biased;
                () = dead.notified() => {}
                () = alive => {}
            }
            self.wall = life.clock.now();
            self.books.doubts += life.counters.recipients_in_doubt.value();
            for peer in &life.peers {
                peer.mail().iter().for_each(|mail| self.books.note(mail));
            }
        });
        drop(runtime);
        self.wall = self.wall.after(Span::seconds(self.random.u64(1..40_000)));
    }

    fn end_life(&mut self) {
        if self.model.is_off() || self.random.bool() {
            self.model.cut();
            self.model.power_on();
        } else {
            self.model.kill();
        }
        self.model.plan_nothing();
    }
}

/// Some lives, then one in which the queue empties.
fn simulate(seed: u64, crashes: u32) -> Books {
    let mut world = World::new(seed);
    for _ in 0..crashes {
        world.books.crashes += 1;
        if world.random.bool() {
            world.model.plan(world.random.u64(1..1500), Fault::Cut);
        }
        let hours = world.random.u64(1..40);
        world.one_life(hours, false);
        world.end_life();
    }
    world.one_life(20, true);
    let mut badmail = String::new();
    for file in std::fs::read_dir(world.folder.path().join("Badmail")).unwrap() {
        badmail.push_str(&String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()));
    }
    world.books.balance(&badmail);
    world.books
}

fn simulate_many(seeds: std::ops::Range<u64>, crashes: u32) {
    let (mut promised, mut twice, mut reported) = (0, 0, 0);
    for seed in seeds.clone() {
        match std::panic::catch_unwind(|| simulate(seed, crashes)) {
            Ok(books) => {
                promised += books.acknowledged.len();
                reported += books.reported.len();
                twice += books.arrived.values().map(|count| count - 1).sum::<u32>();
            }
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!(
        "seeds {seeds:?}, {crashes} crashes each: {promised} recipients promised, none lost, \
         {reported} returned, {twice} deliveries twice"
    );
    assert!(promised > 100 && reported > 0);
}

#[test]
fn days_of_failing_peers_lose_nothing_and_send_nothing_twice() {
    simulate_many(0..10, 0);
}

#[test]
fn days_of_failing_peers_deaths_and_power_cuts_lose_nothing() {
    simulate_many(100..112, 4);
}

#[test]
fn days_of_failing_peers_and_many_deaths_lose_nothing() {
    simulate_many(200..206, 9);
}
