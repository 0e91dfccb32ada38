//! One test for each way a disk, a directory or a neighbour can go wrong.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailroot_common::id::QueueId;
use mailroot_common::units::ByteSize;
use smtpd_core::queue::recipient::{MessageState, Phase};

use super::super::conformance::{
    all, draft, ended, envelope, id, route, settings, start, surroundings,
};
use super::super::{
    Body, CommitError, Draft, Filter, LargeBodyWriter, Lease, Pick, Settings, Unready,
};
use super::commit::{NewMessage, Task};
use super::committer::Progress;
use super::keeper::Kept;
use super::record::{Batch, DAMAGED, IN_FILE, Kind, Label, Part};
use super::segments::Use;
use super::{Log, OpenError, Surroundings};
use crate::clock::Clock;
use crate::disk::{Disk, Fault, Modelled, Open};
use crate::observe::{Format, Level, Log as Journal};

pub(super) const HOME: &str = "/spool/Queue";

pub(super) struct Machine {
    pub(super) model: Arc<Modelled>,
    pub(super) disk: Disk,
    pub(super) settings: Settings,
}

impl Machine {
    pub(super) fn new() -> Self {
        let model = Arc::new(Modelled::new(7));
        let disk = Disk::Modelled(Arc::clone(&model));
        Self { model, disk, settings: settings(Path::new(HOME)) }
    }

    pub(super) fn open(&self) -> Arc<Log> {
        let log = Log::open(self.disk.clone(), self.settings.clone(), surroundings()).unwrap();
        while !log.index().recovered {
            log.keep_step();
        }
        log
    }

    /// Ends the process that has the log and starts another.
    pub(super) fn restart(&self, log: Arc<Log>) -> Arc<Log> {
        drop(log);
        self.model.kill();
        self.open()
    }

    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let names = self.disk.list(Path::new(HOME)).unwrap();
        let mut names: Vec<String> =
            names.iter().map(|name| name.to_string_lossy().into()).collect();
        names.retain(|name| name.starts_with("segment-"));
        names.sort();
        names.iter().map(|name| Path::new(HOME).join(name)).collect()
    }

    /// The file and the place at which `octets` are found.
    pub(super) fn find(&self, octets: &[u8]) -> (PathBuf, u64) {
        for path in self.segments() {
            let content = self.disk.read(&path, u64::MAX).unwrap();
            if let Some(at) = memchr::memmem::find(&content, octets) {
                return (path, at as u64);
            }
        }
        unreachable!("the octets were written")
    }
}

pub(super) fn submit(log: &Log, number: u64, body: &[u8]) -> Result<(), CommitError> {
    let draft = draft(&["a@x.example"], start(), body);
    let message =
        NewMessage::new(id(number), draft, &log.clock.past(), log.table.load_full()).unwrap();
    let mut answer = log.gather.submit(Task::Accept(message)).unwrap();
    log.commit_step();
    answer.try_recv().unwrap()
}

pub(super) fn lease_all(log: &Arc<Log>) -> Vec<Lease> {
    let (route, pick) = (route("mx:x.example"), Pick::Due(start()));
    let (ids, missing) = log.look(&route, pick, 1000);
    let loaded = log.load_all(&missing);
    log.hand_out(&route, pick, &ids, loaded)
}

pub(super) fn ids(log: &Arc<Log>) -> Vec<QueueId> {
    let found = log.list_now(&Filter::default(), None, usize::MAX);
    found.into_iter().map(|message| message.id).collect()
}

pub(super) fn settle_all(log: &Arc<Log>) {
    for mut lease in lease_all(log) {
        let changes = all(&lease, |status| ended(Phase::Delivered, status));
        lease.disarm();
        log.settle_later(&lease, changes);
    }
}

pub(super) fn work_off(log: &Log) {
    while log.commit_step() != Progress::Idle || log.keep_step() != Kept::Idle {}
}

#[test]
fn a_second_daemon_is_refused_and_told_who_has_the_queue() {
    let machine = Machine::new();
    let _log = machine.open();
    let second = Log::open(machine.disk.clone(), machine.settings.clone(), surroundings());
    let Err(error @ OpenError::Locked { .. }) = second else { unreachable!("it is locked") };
    let holder = format!("in use by process {} (a test)", std::process::id());
    assert!(error.to_string().contains(&holder), "{error}");
}

#[tokio::test]
async fn a_closed_queue_opens_again_though_somebody_still_holds_it() {
    let machine = Machine::new();
    let held = machine.open();
    held.close().await;
    assert!(Log::open(machine.disk.clone(), machine.settings.clone(), surroundings()).is_ok());
    drop(held);
}

#[test]
fn a_damaged_record_is_set_aside_and_the_rest_is_read() {
    let machine = Machine::new();
    let log = machine.open();
    for number in 1..=20 {
        submit(&log, number, format!("body number {number}.").as_bytes()).unwrap();
    }
    let (path, at) = machine.find(b"body number 7.");
    // The envelope stands before the body.
    machine.model.damage(&path, at - 60, |octets| octets[0] ^= 1).unwrap();
    let log = machine.restart(log);
    let expected: Vec<QueueId> = (1..=20).filter(|n| *n != 7).map(id).collect();
    assert_eq!(ids(&log), expected);
    assert_eq!(log.counts().damaged, 1);
    let kept = machine.disk.list(&Path::new(HOME).join("damaged")).unwrap();
    assert_eq!(kept.len(), 1);
    let kept = Path::new(HOME).join("damaged").join(&kept[0]);
    let octets = machine.disk.read(&kept, 1 << 20).unwrap();
    assert!(memchr::memmem::find(&octets, b"body number 7.").is_some());
}

#[tokio::test]
async fn a_damaged_body_is_never_completed_and_its_message_is_held() {
    let machine = Machine::new();
    let log = machine.open();
    submit(&log, 1, b"the first body").unwrap();
    submit(&log, 2, b"the second body").unwrap();
    submit(&log, 3, b"the third body").unwrap();
    let (path, at) = machine.find(b"the second body");
    machine.model.damage(&path, at, |octets| octets[4] = b'S').unwrap();
    let log = machine.restart(log);
    let leases = lease_all(&log);
    assert_eq!(leases.len(), 3);
    let error = leases[1].open().read_all().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(leases[2].open().read_all().await.unwrap(), b"the third body");
    drop(leases);
    log.commit_step();
    assert_eq!(log.counts().held, 1);
    assert_eq!(lease_all(&log).len(), 2);
    let held = log.show_now(id(2)).unwrap().unwrap();
    assert!(held.reason().unwrap().contains("damaged"), "{:?}", held.reason());
}

#[test]
fn a_segment_that_was_emptied_is_missed_and_one_that_was_being_made_is_not() {
    let machine = Machine::new();
    let log = machine.open();
    let mut number = 0;
    while log.index().segments.count(Use::Sealed) < 2 {
        number += 1;
        submit(&log, number, &[b'x'; 9000]).unwrap();
    }
    let first = machine.segments().remove(0);
    drop(log);
    machine.model.kill();
    machine.disk.open(&first, Open::Write).unwrap().set_len(0).unwrap();
    let unfinished = Path::new(HOME).join("segment-999999");
    machine.disk.open(&unfinished, Open::CreateNew).unwrap().set_len(4096).unwrap();
    let (journal, lines) = Journal::captured(Format::Logfmt, Level::Info, Clock::real());
    let around = Surroundings { journal, ..surroundings() };
    let _log = Log::open(machine.disk.clone(), machine.settings.clone(), around).unwrap();
    let said = format!("event=segment_emptied level=warn file={}", first.display());
    assert_eq!(lines.text().matches("event=segment_emptied").count(), 1, "{}", lines.text());
    assert!(lines.text().contains(&said), "{}", lines.text());
    assert!(!machine.segments().contains(&unfinished));
}

#[test]
fn a_batch_whose_sync_failed_is_void_for_ever() {
    let machine = Machine::new();
    let log = machine.open();
    submit(&log, 1, b"safe").unwrap();
    machine.model.plan(2, Fault::Error(io::ErrorKind::Other));
    let refused = submit(&log, 2, b"refused").unwrap_err();
    assert!(!refused.is_full());
    submit(&log, 3, b"safe again").unwrap();
    let log = machine.restart(log);
    assert_eq!(ids(&log), [id(1), id(3)]);
    // Once more, now that the segment after it is not the newest.
    let log = machine.restart(log);
    assert_eq!(ids(&log), [id(1), id(3)]);
    assert_eq!(log.counts().damaged, 0);
}

#[test]
fn an_outcome_that_cannot_be_written_is_written_later_and_its_mail_not_tried_again() {
    let machine = Machine::new();
    let log = machine.open();
    submit(&log, 1, b"x").unwrap();
    settle_all(&log);
    machine.model.plan(1, Fault::Error(io::ErrorKind::Other));
    assert_eq!(log.commit_step(), Progress::Failed);
    assert!(lease_all(&log).is_empty(), "nobody delivers it twice");
    assert_eq!(log.commit_step(), Progress::Done);
    assert_eq!(log.counts().messages, 0);
    assert!(ids(&machine.restart(log)).is_empty());
}

#[test]
fn new_mail_is_refused_at_once_however_many_outcomes_wait_for_the_disk() {
    let machine = Machine::new();
    let log = machine.open();
    for number in 1..=200 {
        submit(&log, number, b"x").unwrap();
    }
    settle_all(&log);
    for operation in 1..100 {
        machine.model.plan(operation, Fault::Error(io::ErrorKind::Other));
    }
    submit(&log, 1000, b"refused").unwrap_err();
    machine.model.plan_nothing();
    work_off(&log);
    assert_eq!(log.counts().messages, 0, "the outcomes were kept and written");
}

#[test]
fn a_full_disk_refuses_new_mail_and_still_settles_what_is_there() {
    let machine = Machine::new();
    let log = machine.open();
    machine.model.set_capacity(4 * 65536 + 1000);
    let mut number = 0;
    let refused = loop {
        number += 1;
        if let Err(error) = submit(&log, number, &[b'x'; 3000]) {
            break error;
        }
    };
    assert!(refused.is_full(), "{refused}");
    assert!(number > 10);
    assert_eq!(log.index().segments.count(Use::Spare), 1, "one segment is in reserve");
    settle_all(&log);
    work_off(&log);
    assert_eq!(log.counts().messages, 0);
    submit(&log, 1000, b"there is room again").unwrap();
}

#[test]
fn below_the_floor_new_mail_is_refused_before_it_comes() {
    let mut machine = Machine::new();
    machine.model.set_capacity(1 << 20);
    machine.settings.min_free = ByteSize::mib(2);
    let log = machine.open();
    assert_eq!(log.ready(), Err(Unready::NoRoom));
    let error = log.check_room().unwrap_err();
    assert!(error.is_full() && error.to_string().contains("service.min_free"), "{error}");
}

#[test]
fn a_disk_that_fails_is_not_told_as_one_without_room() {
    let machine = Machine::new();
    let log = machine.open();
    for (kind, unready) in
        [(io::ErrorKind::Other, Unready::Trouble), (io::ErrorKind::StorageFull, Unready::NoRoom)]
    {
        machine.model.plan(1, Fault::Error(kind));
        submit(&log, 1, b"refused").unwrap_err();
        assert_eq!(log.ready(), Err(unready));
        assert_eq!(log.check_room().map_err(|error| error.to_string()), Ok(()));
    }
}

#[test]
fn foreign_truncated_and_missing_segments_leave_the_others_alone() {
    let machine = Machine::new();
    let log = machine.open();
    let mut number = 0;
    while machine.segments().len() < 9 {
        number += 1;
        submit(&log, number, &[b'x'; 3000]).unwrap();
        log.keep_step();
    }
    drop(log);
    machine.model.kill();
    let segments = machine.segments();
    machine.model.damage(&segments[0], 0, |octets| octets[..4096].fill(b'?')).unwrap();
    machine.disk.unlink(&segments[1]).unwrap();
    machine.disk.open(&segments[2], Open::Write).unwrap().set_len(20_000).unwrap();
    let log = machine.open();
    let left = ids(&log);
    assert!((20..number).contains(&(left.len() as u64)), "{} of {number}", left.len());
    assert!(left.contains(&id(number)), "what was in sound segments is there");
    assert!(log.counts().damaged >= 2);
    let aside = machine.disk.list(&Path::new(HOME).join("damaged")).unwrap();
    assert!(aside.iter().any(|name| name == "segment-000001"));
}

#[test]
fn random_damage_never_alters_a_message() {
    let (mut found, mut read) = (0, 0);
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let machine = Machine::new();
        let log = machine.open();
        for number in 0..40 {
            let body = format!("{number}:").repeat(50 + random.usize(..100));
            submit(&log, number, body.as_bytes()).unwrap();
        }
        drop(log);
        machine.model.kill();
        for _ in 0..random.usize(1..6) {
            let segments = machine.segments();
            let path = &segments[random.usize(..segments.len())];
            let (at, bit) = (random.u64(..65536), random.u8(..8));
            machine.model.damage(path, at, |octets| octets[0] ^= 1 << bit).unwrap();
        }
        let log = machine.open();
        for id in ids(&log) {
            found += 1;
            let Ok(super::Opened::Small(body)) = log.open_body(id) else { continue };
            let number = id.as_u64() - super::super::conformance::id(0).as_u64();
            let unit = format!("{number}:");
            assert!(body.chunks(unit.len()).all(|chunk| chunk == unit.as_bytes()), "{seed} {id}");
            read += 1;
        }
    }
    assert!(found > 150 * 30 && read < found, "{found} found, {read} read");
}

#[tokio::test]
async fn large_bodies_survive_a_restart_and_leave_no_files_behind() {
    let machine = Machine::new();
    let log = machine.open();
    let octets = vec![b'L'; 300_000];
    let mut kept = LargeBodyWriter::file(Arc::clone(&log)).await.unwrap();
    kept.append(&octets).await.unwrap();
    let body = Body::File(kept.finish().await.unwrap());
    let draft = Draft { envelope: envelope(&["a@x.example"], start()), body };
    let message = NewMessage::new(id(1), draft, &log.clock.past(), log.table.load_full()).unwrap();
    let mut answer = log.gather.submit(Task::Accept(message)).unwrap();
    log.commit_step();
    answer.try_recv().unwrap().unwrap();
    let mut orphan = LargeBodyWriter::file(Arc::clone(&log)).await.unwrap();
    orphan.append(&octets).await.unwrap();
    std::mem::forget(orphan.finish().await.unwrap());
    let bodies = || {
        let names = machine.disk.list(Path::new(HOME)).unwrap();
        names.iter().filter(|name| name.to_string_lossy().starts_with("body-")).count()
    };
    assert_eq!(bodies(), 2);
    let log = machine.restart(log);
    assert_eq!(bodies(), 1, "what no record names is gone");
    let leases = lease_all(&log);
    assert!(leases[0].open().read_all().await.unwrap() == octets);
    drop(leases);
    settle_all(&log);
    work_off(&log);
    assert_eq!(bodies(), 0);
}

#[test]
fn segments_of_another_size_are_read_and_not_used_again() {
    let mut machine = Machine::new();
    let log = machine.open();
    submit(&log, 1, b"small").unwrap();
    drop(log);
    machine.model.kill();
    machine.settings.segment_size = 128 << 10;
    let log = machine.open();
    assert_eq!(ids(&log), [id(1)]);
    settle_all(&log);
    work_off(&log);
    let sizes: Vec<u64> =
        machine.segments().iter().map(|path| machine.disk.metadata(path).unwrap().len).collect();
    assert!(sizes.iter().all(|size| *size == 128 << 10), "{sizes:?}");
}

fn active_generation(log: &Log) -> u64 {
    let index = log.index();
    let active = index.segments.find(Use::Active).unwrap();
    index.segments.get(active).unwrap().generation
}

/// A body that holds a record of a message, for a segment of some generation. The octets before
/// the record make it begin where records may begin.
fn smuggled(generation: u64) -> Vec<u8> {
    let meta = serde_json::to_vec(&envelope(&["victim@x.example"], start())).unwrap();
    let mut batch = Batch::default();
    let label = Label { kind: Kind::Message, flags: 0, id: id(666), version: 0, size: 3 };
    batch.push(label, Part::new(&meta), Part::new(b"bad"));
    let frame = batch.stamp(generation, 3)[..1000].to_vec();
    let mut body = Vec::new();
    for shift in 0..8 {
        body.resize(shift * 1001, b'.');
        body.extend_from_slice(&frame);
    }
    body
}

#[test]
fn a_record_hidden_in_a_body_is_not_believed_even_after_damage() {
    let forged = |guess: fn(u64) -> u64| {
        let machine = Machine::new();
        let log = machine.open();
        submit(&log, 1, b"first").unwrap();
        submit(&log, 2, &smuggled(guess(active_generation(&log)))).unwrap();
        submit(&log, 3, b"third").unwrap();
        machine.model.damage(&machine.segments()[0], 8192, |octets| octets[9] ^= 1).unwrap();
        ids(&machine.restart(log))
    };
    assert_eq!(forged(|generation| generation & !0xffff_ffff), [id(1), id(3)]);
    let knowing = forged(|generation| generation);
    assert!(knowing.contains(&id(666)), "the body is built so that a known generation would do");
}

/// A segment of records that are sound one by one and make no sense together.
fn nonsense(random: &mut fastrand::Rng, generation: u64) -> Vec<u8> {
    let one = envelope(&["a@x.example"], start());
    let two = envelope(&["a@x.example", "b@here.example", "c@x.example"], start());
    let metas: Vec<Vec<u8>> = vec![
        serde_json::to_vec(&one).unwrap(),
        serde_json::to_vec(&two).unwrap(),
        serde_json::to_vec(&MessageState::fresh(&one)).unwrap(),
        serde_json::to_vec(&MessageState::fresh(&two)).unwrap(),
        b"{\"r\":[]}".to_vec(),
        b"not JSON".to_vec(),
        Vec::new(),
    ];
    let mut octets = Vec::new();
    for number in 1..random.u64(2..12) {
        let mut batch = Batch::default();
        for _ in 0..random.usize(1..6) {
            let kinds = [Kind::Message, Kind::Message, Kind::State, Kind::Removed];
            let label = Label {
                kind: kinds[random.usize(..4)],
                flags: [0, IN_FILE, DAMAGED][random.usize(..3)],
                id: id(random.u64(..6)),
                version: random.u32(..4),
                size: random.u64(..100),
            };
            let body: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
            let meta = &metas[random.usize(..metas.len())];
            batch.push(label, Part::new(meta), Part::new(&body));
        }
        octets.extend_from_slice(batch.stamp(generation, number));
    }
    octets
}

#[test]
fn records_that_make_no_sense_together_harm_nothing() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let machine = Machine::new();
        let generation = active_generation(&machine.open());
        machine.model.kill();
        let path = &machine.segments()[0];
        let octets = nonsense(&mut random, generation);
        machine
            .model
            .damage(path, 4096, |old| old[..octets.len()].copy_from_slice(&octets))
            .unwrap();
        let log = machine.open();
        let listed = ids(&log);
        let readable = listed.iter().filter(|id| log.open_body(**id).is_ok()).count();
        assert!(readable <= listed.len());
        submit(&log, 100, b"sound").unwrap();
        settle_all(&log);
        work_off(&log);
        let log = machine.restart(log);
        assert!(!ids(&log).contains(&id(100)), "seed {seed}");
        submit(&log, 101, b"sound").unwrap();
        let log = machine.restart(log);
        assert!(ids(&log).contains(&id(101)), "seed {seed}");
    }
}
