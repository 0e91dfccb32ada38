//! The record as a whole: what is handed in comes back, and little is read for it.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use mailroot_common::control::{Selector, TraceEntry};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::trace::block::Builder;
use smtpd_core::trace::event::{Number, Text};

use super::*;
use crate::observe::{Format, Level};

const NOW: Timestamp = Timestamp::from_millis(1_763_003_600_000);

fn settings() -> Settings {
    Settings {
        keep: Span::days(14),
        max_size: ByteSize::mib(64),
        subjects: true,
        dialogues: Dialogues::Off,
    }
}

fn open(path: &std::path::Path) -> Trace {
    let clock = Clock::simulated(NOW, 1);
    Trace::open(path.to_owned(), settings(), clock, Log::quiet()).unwrap()
}

/// The id of a message accepted so many milliseconds before [`NOW`].
fn id(millis_ago: u64) -> QueueId {
    QueueId::at_millis(NOW.as_millis() - millis_ago)
}

fn received(number: u64) -> Note {
    let at = Timestamp::from_millis(NOW.as_millis() - number);
    Note::new("received", "default", at)
        .id(id(number))
        .text(Text::From, format_args!("app{number}@client.example"))
        .text(Text::To, format_args!("user{number}@x{}.example", number % 100))
        .text(Text::Client, IpAddr::from([10, 1, (number % 7) as u8, (number % 250) as u8]))
        .text(Text::Subject, format_args!("Invoice {number}"))
        .number(Number::Size, number)
}

fn delivered(number: u64) -> Note {
    let at = Timestamp::from_millis(NOW.as_millis() - number + 5);
    Note::new("delivered", "default", at)
        .id(id(number))
        .text(Text::To, format_args!("user{number}@x{}.example", number % 100))
        .text(Text::Words, "2.0.0 queued")
        .text(Text::Host, "mx.example[192.0.2.1]:25")
}

fn of(change: impl FnOnce(&mut Selector)) -> Selector {
    let mut selector = Selector::default();
    change(&mut selector);
    selector
}

async fn found(
    trace: &Trace,
    selector: &Selector,
    limit: usize,
) -> (Vec<TraceEntry>, read::Counts) {
    let mut search = trace.search().await;
    let mut entries = Vec::new();
    let matcher = selector.compile().unwrap();
    let take = |entry| {
        entries.push(entry);
        true
    };
    search.stories(&matcher, NOW, limit, take).unwrap();
    (entries, search.counts())
}

#[tokio::test]
async fn what_was_handed_in_is_found_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut trace = open(dir.path());
    trace.record(received(10));
    trace.record(received(20));
    trace.record(delivered(20));
    for _ in 0..2 {
        let to = of(|selector| selector.to = Some("user20@x20.example".to_owned()));
        let (entries, _) = found(&trace, &to, 10).await;
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].state.as_str(), entries[0].events.len()), ("delivered", 2));
        let (entries, _) = found(&trace, &Selector::default(), 10).await;
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [id(10), id(20)], "the newest first");
        let (entries, _) = found(&trace, &Selector::default(), 1).await;
        assert_eq!(entries[0].id, id(10));
        trace.close();
        trace = open(dir.path());
    }
    let record = trace.search().await.record();
    assert_eq!((record.events, record.damaged), (3, 0));
    assert_eq!(record.since, Some(Timestamp::from_millis(NOW.as_millis() - 20)));
    trace.close();
}

/// A record of many messages in files of its own making, the oldest first.
fn fill(path: &std::path::Path, messages: u64) -> u64 {
    let directory = Directory::prepare(path).unwrap();
    let (mut builder, mut blocks) = (Builder::default(), 0);
    let mut file = directory.create("2025-11-13T02").unwrap().1;
    for number in (1..=messages).rev() {
        for note in [received(number), delivered(number)] {
            assert!(builder.take(&mut note.finish().as_slice()));
        }
        if builder.is_full() || number == 1 {
            file.write_all(&builder.seal()).unwrap();
            blocks += 1;
            if blocks % 10 == 0 {
                file = directory.create("2025-11-13T02").unwrap().1;
            }
        }
    }
    blocks
}

#[tokio::test]
async fn a_query_reads_the_blocks_that_may_answer_it_and_passes_over_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = fill(dir.path(), 20_000);
    assert!(blocks > 30, "{blocks}");
    let trace = open(dir.path());
    let text = |text: &str| Some(text.to_owned());
    for (selector, expected) in [
        (of(|it| it.to = text("user12345@x45.example")), 1),
        (of(|it| it.from = text("app77@client.example")), 1),
        (of(|it| it.ids = vec![id(12_345).to_string()]), 1),
        (of(|it| it.to = text("nobody@nowhere.example")), 0),
        (of(|it| it.domain = text("nowhere.example")), 0),
        (of(|it| it.client = text("192.0.2.0/24")), 0),
        (of(|it| it.newer_than = text("1s")), 1_000),
    ] {
        let (entries, counts) = found(&trace, &selector, usize::MAX).await;
        assert_eq!(entries.len(), expected, "{selector:?}");
        let read = counts.looked_at - counts.passed_over;
        assert!(counts.looked_at >= blocks, "{selector:?}: {counts:?}");
        assert!(read <= blocks / 10 || expected > 1, "{selector:?}: {counts:?}");
    }
    // A page of the newest needs no more than the newest file.
    let (entries, counts) = found(&trace, &Selector::default(), 10).await;
    assert_eq!((entries.len(), entries[0].id), (10, id(1)));
    assert!(counts.looked_at < blocks, "{counts:?}");
    let all = of(|selector| selector.domain = text("x7.example"));
    let (entries, _) = found(&trace, &all, usize::MAX).await;
    assert_eq!(entries.len(), 200);
    assert!(entries.is_sorted_by(|a, b| a.id > b.id), "the newest first");
    assert!(entries.iter().all(|entry| entry.events.len() == 2));
    trace.close();
}

#[tokio::test]
async fn a_search_reads_no_more_once_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = fill(dir.path(), 20_000);
    let trace = open(dir.path());
    let nobody = of(|it| it.to = Some("nobody@nowhere.example".to_owned())).compile().unwrap();
    for wanted_for in [0, 2, usize::MAX] {
        let mut search = trace.search().await;
        let looks = AtomicUsize::new(0);
        search.while_wanted(move || looks.fetch_add(1, Ordering::Relaxed) < wanted_for);
        search.stories(&nobody, NOW, 10, |_| true).unwrap();
        let counts = search.counts();
        assert_eq!(counts.damaged, 0, "{counts:?}");
        assert_eq!(
            counts.looked_at >= blocks,
            wanted_for == usize::MAX,
            "{wanted_for}: {counts:?}"
        );
        assert_eq!(counts.looked_at == 0, wanted_for == 0, "{wanted_for}: {counts:?}");
    }
    trace.close();
}

#[tokio::test]
async fn a_torn_end_is_tolerated_and_a_damaged_block_passed_over_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 4_000);
    let first = Directory::prepare(dir.path()).unwrap().list().unwrap().remove(0);
    let file = OpenOptions::new().read(true).write(true).open(&first.path).unwrap();
    file.set_len(first.size - 100).unwrap();
    let trace = open(dir.path());
    let count = |entries: &[TraceEntry]| entries.len();
    let (entries, counts) = found(&trace, &Selector::default(), usize::MAX).await;
    let torn = count(&entries);
    assert!(torn < 4_000 && torn > 3_000, "{torn}");
    assert_eq!(counts.damaged, 0);
    // A head: what is lost is one block, and the next is found by its magic.
    file.write_all_at(b"xxxx", 8).unwrap();
    let (entries, counts) = found(&trace, &Selector::default(), usize::MAX).await;
    let spoilt = count(&entries);
    assert!(spoilt < torn && torn - spoilt < 1_000, "{torn} became {spoilt}");
    assert!(counts.damaged > 0);
    let record = trace.search().await.record();
    assert!(record.damaged > 0 && record.events > 6_000, "{record:?}");
    trace.close();
}

#[tokio::test]
async fn beyond_its_bounds_events_are_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let trace = open(dir.path());
    let client = IpAddr::from([203, 0, 113, 9]);
    let refused = || Note::refused("default", client, NOW).text(Text::Reason, "relay-denied");
    for _ in 0..REFUSALS_PER_SECOND + 7 {
        trace.record_refusal(refused());
    }
    let mut seen = 0;
    let mut search = trace.search().await;
    let matcher = of(|it| it.client = Some("203.0.113.0/24".to_owned())).compile().unwrap();
    let count = |refused: mailroot_common::control::Refused| {
        assert_eq!(
            (refused.client.as_str(), refused.reason.as_str()),
            ("203.0.113.9", "relay-denied")
        );
        seen += 1;
        true
    };
    search.refusals(&matcher, NOW, count).unwrap();
    assert_eq!(seen, REFUSALS_PER_SECOND);
    let dropped = trace.counters().into_iter().find(|(name, _)| *name == "trace_dropped");
    assert_eq!(dropped, Some(("trace_dropped", 7)));
    trace.close();
    trace.record(received(1));
    assert_eq!(trace.counters()[1].1, 8);
}

#[test]
fn what_cannot_be_written_is_counted_and_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (log, lines) = Log::captured(Format::Logfmt, Level::Warn, Clock::real());
    let clock = Clock::simulated(NOW, 1);
    let path = dir.path().join("trace");
    let trace = Trace::open(path.clone(), settings(), clock, log).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    trace.record(received(1));
    trace.record(received(2));
    trace.close();
    assert_eq!(trace.counters()[1], ("trace_dropped", 2));
    assert_eq!(lines.text().matches("event=trace-failed").count(), 1, "{}", lines.text());
}

#[tokio::test]
async fn beginnings_of_ids_mean_one_message_or_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let trace = open(dir.path());
    trace.record(received(1));
    trace.record(received(2));
    trace.record(received(50_000_000));
    let one = of(|selector| selector.ids = vec![id(50_000_000).to_string()[..7].to_owned()]);
    let (entries, _) = found(&trace, &one, 10).await;
    assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id(50_000_000)]);
    let two = Selector::id(&id(1).to_string()[..7]).compile().unwrap();
    let refused = trace.search().await.stories(&two, NOW, 10, |_| true).unwrap_err();
    assert!(matches!(refused, SearchError::Ambiguous { ids, .. } if ids == [id(1), id(2)]));
    trace.close();
}

#[tokio::test]
async fn a_message_from_before_the_record_is_found_by_what_happened_since() {
    let dir = tempfile::tempdir().unwrap();
    let trace = open(dir.path());
    trace.record(received(5));
    let at = Timestamp::from_millis(NOW.as_millis() - 4);
    let old =
        Note::new("deferred", "default", at).id(id(900_000)).text(Text::To, "al@slow.example");
    trace.record(old);
    let to = of(|selector| selector.to = Some("al@slow.example".to_owned()));
    let (entries, _) = found(&trace, &to, 10).await;
    assert_eq!((entries.len(), entries[0].id, entries[0].accepted_at), (1, id(900_000), None));
    trace.close();
}

#[tokio::test]
async fn events_since_a_moment_are_those_of_every_file_that_may_have_one() {
    const HOUR: u64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::prepare(dir.path()).unwrap();
    // The file of an hour may go on into later ones; it was begun four, two and one hour ago.
    for (begun, events) in [(4, vec![4, 3]), (2, vec![2, 1]), (1, vec![1, 0])] {
        let at = |hours: u64| Timestamp::from_millis(NOW.as_millis() - hours * HOUR);
        let mut builder = Builder::default();
        for hours in events {
            let note = Note::new("delivered", "default", at(hours)).id(id(hours * HOUR));
            assert!(builder.take(&mut note.finish().as_slice()));
        }
        let mut file = directory.create(&files::hour(at(begun))).unwrap().1;
        file.write_all(&builder.seal()).unwrap();
    }
    let trace = open(dir.path());
    for (hours, expected) in [(0, 1), (1, 3), (2, 4), (3, 5), (4, 6), (9, 6)] {
        let from = Timestamp::from_millis(NOW.as_millis() - hours * HOUR);
        let mut count = 0;
        trace.search().await.events_since(from, |_| count += 1);
        assert_eq!(count, expected, "{hours} hours ago");
    }
    trace.close();
}

#[tokio::test]
async fn nothing_is_found_without_a_record() {
    let trace = Trace::off();
    trace.record(received(1));
    assert!(found(&trace, &Selector::default(), 10).await.0.is_empty());
    assert!(!trace.is_on() && !trace.wants_subjects());
}
