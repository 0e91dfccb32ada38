//! Nothing stands still and nothing is taken for something else: one test for each way mail could
//! wait for ever, be tried without pause, or lose its content to another message.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mailroot_common::id::QueueId;
use mailroot_common::status::EnhancedCode;
use mailroot_common::units::{Span, Timestamp};
use smtpd_core::queue::outcome::{Outcome, Stage};
use smtpd_core::queue::recipient::{Phase, RecipientStatus};
use tokio::sync::oneshot::{Receiver, error::TryRecvError};

use super::super::conformance::{all, draft, ended, envelope, id, route, start, table};
use super::super::{Body, Change, CommitError, Draft, Filter, LargeBodyWriter, Lease, Pick};
use super::Log;
use super::commit::{NewMessage, Task};
use super::committer::Progress;
use super::faults::{Machine, lease_all, settle_all, submit, work_off};
use super::keeper::Kept;
use super::segments::Use;
use crate::disk::{Fault, Open};

/// Hands a message in without having it committed.
fn hand_in(log: &Log, number: u64, draft: Draft) -> Receiver<Result<(), CommitError>> {
    let message =
        NewMessage::new(id(number), draft, &log.clock.past(), log.table.load_full()).unwrap();
    log.gather.submit(Task::Accept(message)).unwrap()
}

async fn submit_large(log: &Arc<Log>, number: u64, octets: &[u8]) -> QueueId {
    let mut writer = LargeBodyWriter::file(Arc::clone(log)).await.unwrap();
    writer.append(octets).await.unwrap();
    let body = Body::File(writer.finish().await.unwrap());
    let draft = Draft { envelope: envelope(&["a@x.example"], start()), body };
    let mut answer = hand_in(log, number, draft);
    log.commit_step();
    answer.try_recv().unwrap().unwrap();
    id(number)
}

/// Settles without waiting; returns where the answer will come.
fn settle(
    log: &Log,
    mut lease: Lease,
    status: &RecipientStatus,
) -> Receiver<Result<(), CommitError>> {
    let (id, places) = (lease.id, lease.places().collect());
    let changes = lease.due.iter().map(|(place, _)| (*place, status.clone())).collect();
    lease.disarm();
    log.gather
        .submit(Task::Settle { id, places, changes, reports: Vec::new(), mark: None })
        .unwrap()
}

/// A deferral with a host's words of this many octets.
fn refused_at_length(octets: usize, until: Timestamp) -> RecipientStatus {
    let text = "no ".repeat(octets / 3);
    let last = Outcome::local(start(), Stage::Rcpt, EnhancedCode::transient(2, 0), text);
    RecipientStatus {
        phase: Phase::Waiting,
        attempts: 1,
        next_attempt: until,
        delay_told: false,
        doubted: false,
        deadline_told: false,
        fixed: false,
        last: Some(last),
    }
}

#[tokio::test]
async fn the_file_of_a_large_body_is_never_taken_for_that_of_an_earlier_message() {
    let machine = Machine::new();
    let mut log = machine.open();
    let first = submit_large(&log, 1, &[b'1'; 300_000]).await;
    // Numbers are partly drawn by lot, so that one round would show nothing.
    for number in (2..20).step_by(2) {
        let removed = submit_large(&log, number, &[b'r'; 300_000]).await;
        let remove = Task::Change { id: removed, change: Change::Remove, pinned: false };
        let _answer = log.gather.submit(remove).unwrap();
        log.commit_step();
        log.keep_step();
        log = machine.restart(log);
        let last = submit_large(&log, number + 1, &[b'2'; 300_000]).await;
        // The removal is read again, and the file it ends unlinked again.
        log = machine.restart(log);
        while log.keep_step() != Kept::Idle {}
        let leases = lease_all(&log);
        assert_eq!((leases[0].id, leases[leases.len() - 1].id), (first, last));
        for lease in leases {
            assert_eq!(lease.open().read_all().await.unwrap().len(), 300_000, "round {number}");
        }
    }
}

#[test]
fn outcomes_are_written_on_a_full_disk_also_when_new_mail_comes_with_them() {
    let machine = Machine::new();
    let log = machine.open();
    submit(&log, 1, b"x").unwrap();
    let lease = lease_all(&log).remove(0);
    while log.keep_step() != Kept::Idle {}
    let free = machine.disk.space(&machine.settings.directory).unwrap().free;
    machine.model.set_capacity(u64::MAX - free.as_u64() + 100);
    // Until the next batch of this size needs a segment, and only the reserve is left.
    let mut number = 1;
    while submit(&log, number + 1, &[b'x'; 20_000]).is_ok() {
        number += 1;
    }
    assert_eq!(log.index().segments.count(Use::Spare), 1);
    let mut refused = hand_in(&log, 900, draft(&["a@x.example"], start(), &[b'x'; 20_000]));
    let status = ended(Phase::Delivered, &lease.due[0].1);
    let mut settled = settle(&log, lease, &status);
    for _ in 0..5 {
        log.commit_step();
    }
    assert!(refused.try_recv().unwrap().unwrap_err().is_full());
    settled.try_recv().unwrap().unwrap();
}

#[test]
fn a_batch_that_turns_out_too_long_is_written_in_parts() {
    let machine = Machine::new();
    let log = machine.open();
    for number in 1..=4 {
        submit(&log, number, b"x").unwrap();
    }
    let until = start().after(Span::minutes(5));
    let settled: Vec<_> = lease_all(&log)
        .into_iter()
        .map(|lease| settle(&log, lease, &refused_at_length(20_000, until)))
        .collect();
    let mut steps = 0;
    while log.commit_step() != Progress::Idle {
        steps += 1;
        assert!(steps < 10, "the same batch is tried again and again");
    }
    for mut answer in settled {
        answer.try_recv().unwrap().unwrap();
    }
    assert_eq!(lease_all(&log).len(), 0);
}

#[test]
fn words_of_hosts_that_no_record_can_hold_are_cut_and_the_outcome_kept() {
    let machine = Machine::new();
    let log = machine.open();
    let to = ["a@x.example", "b@x.example", "c@x.example"];
    let mut accepted = hand_in(&log, 1, draft(&to, start(), b"x"));
    log.commit_step();
    accepted.try_recv().unwrap().unwrap();
    let until = start().after(Span::minutes(5));
    let lease = lease_all(&log).remove(0);
    let mut answer = settle(&log, lease, &refused_at_length(64_000, until));
    log.commit_step();
    answer.try_recv().unwrap().unwrap();
    assert!(lease_all(&log).is_empty(), "it is not tried again at once");
    let log = machine.restart(log);
    let shown = log.show_now(id(1)).unwrap().unwrap();
    let last = shown.state.recipients[2].last.as_ref().unwrap();
    assert!(last.text.starts_with("no no no") && last.text.ends_with(" [cut]"), "{}", last.text);
}

#[tokio::test]
async fn a_route_is_named_again_when_its_candidates_came_to_nothing() {
    let machine = Machine::new();
    let log = machine.open();
    for number in 1..=3 {
        submit(&log, number, b"x").unwrap();
    }
    let name = route("mx:x.example");
    assert_eq!(log.next_due(start()).routes, std::slice::from_ref(&name));
    // By the new table they go elsewhere, though nobody has sorted them yet.
    log.set_table(table(&["x.example"]));
    assert!(log.lease(&name, Pick::Due(start()), 3).await.unwrap().is_empty());
    log.set_table(table(&[]));
    while log.keep_step() != Kept::Idle {}
    assert!(log.next_due(start()).routes.contains(&name), "its mail would wait for ever");
}

#[tokio::test]
async fn mail_the_disk_will_not_give_back_is_asked_for_again_only_after_a_while() {
    let machine = Machine::new();
    let log = machine.open();
    submit(&log, 1, b"x").unwrap();
    let (path, _) = machine.find(b"x.example");
    let log = machine.restart(log);
    machine.disk.open(&path, Open::Write).unwrap().set_len(4096).unwrap();
    let name = route("mx:x.example");
    let now = log.clock.now();
    assert_eq!(log.next_due(now).routes, std::slice::from_ref(&name));
    assert!(log.lease(&name, Pick::Due(now), 10).await.unwrap().is_empty());
    let due = log.next_due(log.clock.now());
    assert!(due.routes.is_empty(), "it would be read in a circle");
    assert!(due.wake_at.is_some(), "it would never be read again");
}

#[test]
fn whoever_waits_is_answered_when_the_store_is_closed_over_a_disk_that_refuses() {
    let machine = Machine::new();
    let log = machine.open();
    submit(&log, 1, b"x").unwrap();
    let lease = lease_all(&log).remove(0);
    let changes = all(&lease, |status| ended(Phase::Delivered, status));
    let mut answer = settle(&log, lease, &changes[0].1);
    for after in 1..100 {
        machine.model.plan(after, Fault::Error(io::ErrorKind::Other));
    }
    log.gather.close();
    log.run_committer();
    assert!(!matches!(answer.try_recv(), Err(TryRecvError::Empty)), "it would wait for ever");
}

#[tokio::test]
async fn an_operators_word_for_mail_in_doubt_outlives_the_process() {
    let machine = Machine::new();
    let log = machine.open();
    submit(&log, 1, b"x").unwrap();
    for mut lease in lease_all(&log) {
        let changes = all(&lease, |status| RecipientStatus {
            phase: Phase::InDoubt,
            doubted: true,
            next_attempt: RecipientStatus::AT_OPERATORS_WORD,
            ..status.clone()
        });
        lease.disarm();
        log.settle_later(&lease, changes);
    }
    work_off(&log);
    assert!(lease_all(&log).is_empty(), "it waits");
    let log = machine.restart(log);
    let (asking, now) = (Arc::clone(&log), start());
    let asked =
        tokio::spawn(async move { asking.change(&[id(1)], &Change::Retry(now)).await.unwrap() });
    while !asked.is_finished() {
        log.commit_step();
        tokio::task::yield_now().await;
    }
    assert_eq!(asked.await.unwrap(), [id(1)]);
    let log = machine.restart(log);
    let leases = lease_all(&log);
    assert_eq!(leases.len(), 1, "the word stands");
    assert!(!leases[0].due[0].1.awaits_operator() && !leases[0].due[0].1.is_undecided());
}

#[test]
fn a_message_is_in_every_list_while_its_records_move() {
    let machine = Machine::new();
    let mut log = machine.open();
    // Mail of another route, which nobody settles.
    let mut answer = hand_in(&log, 1, draft(&["a@y.example"], start(), b"stays"));
    log.commit_step();
    answer.try_recv().unwrap().unwrap();
    // After a restart it is read from the disk to be shown.
    log = machine.restart(log);
    let over = Arc::new(AtomicBool::new(false));
    let (looked, ended) = (Arc::clone(&log), Arc::clone(&over));
    let looking = std::thread::spawn(move || {
        let mut absent = 0;
        while !ended.load(Ordering::Relaxed) {
            let listed = looked.list_now(&Filter::default(), None, 10);
            absent += usize::from(!listed.iter().any(|message| message.id == id(1)));
        }
        absent
    });
    for number in 2..400 {
        submit(&log, number, &[b'x'; 9_000]).unwrap();
        settle_all(&log);
        work_off(&log);
    }
    over.store(true, Ordering::Relaxed);
    assert_eq!(looking.join().unwrap(), 0, "lists without it");
}
