//! Counts over restarts, and reports that are due, with a simulated clock.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use smtpd_core::tls_report::FailureKind;

use super::*;

/// An hour before midnight.
const START: Timestamp = Timestamp::from_millis(1_763_078_400_000 - 3_600_000);

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn open(place: &Path, clock: &Clock) -> Ledger {
    Ledger::open(Disk::Real, place.join("tls-reports"), clock.clone(), Log::quiet())
}

fn failure() -> Option<Failure> {
    Some(Failure::of(FailureKind::StartTlsNotSupported).because("no STARTTLS"))
}

async fn hours(count: u64) {
    tokio::time::advance(Duration::from_hours(count)).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_outlives_the_daemon_and_is_due_when_the_day_is_over() {
    let place = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START, 1);
    let ledger = open(place.path(), &clock);
    ledger.count(&domain("a.test"), Policy::none(), None);
    ledger.count(&domain("a.test"), Policy::none(), failure());
    ledger.count(&domain("b.test"), Policy::none(), failure());
    ledger.keep().await;
    assert!(ledger.ripe().is_empty());

    hours(1).await;
    let ledger = open(place.path(), &clock);
    ledger.count(&domain("b.test"), Policy::none(), None);
    let (current, due) = ledger.list();
    assert_eq!(current.unwrap().domains.len(), 1, "a new day has begun");
    assert_eq!(due.len(), 2);
    assert_eq!((due[0].begins, due[0].ends), (START, START.after(Span::hours(1))));
    assert_eq!((due[0].counted.successes(), due[0].counted.failures()), (1, 1));
    hours(4).await;
    assert_eq!(ledger.ripe().len(), 2);
    ledger.keep().await;
    // A death between the two files has the same period end once more.
    let line = std::fs::read(place.path().join("tls-reports/current")).unwrap();
    ledger.settle(&due[0]);
    ledger.keep().await;
    std::fs::write(place.path().join("tls-reports/current"), line).unwrap();
    let again = open(place.path(), &clock);
    let left: Vec<Domain> = again.ripe().into_iter().map(|due| due.domain).collect();
    assert_eq!(left, [domain("b.test")]);
}

#[tokio::test(start_paused = true)]
async fn a_report_is_tried_for_a_day_and_then_given_up() {
    let place = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START, 1);
    let ledger = open(place.path(), &clock);
    ledger.count(&domain("a.test"), Policy::none(), failure());
    ledger.count(&domain("b.test"), Policy::none(), failure());
    assert_eq!(ledger.hasten(Some(&domain("c.test"))), 0);
    assert_eq!(ledger.hasten(Some(&domain("a.test"))), 1);
    let ripe = ledger.ripe();
    assert_eq!((ripe.len(), &ripe[0].domain), (1, &domain("a.test")));
    let mut attempts = 0;
    while let Some(report) = ledger.ripe().into_iter().find(|it| it.domain == domain("a.test")) {
        attempts += 1;
        let done = vec!["mailto:x@a.test".to_owned()];
        let goes_on = ledger.postpone(&report, done, "no answer".to_owned());
        assert!(ledger.ripe().iter().all(|it| it.domain != report.domain));
        assert_eq!(ledger.list().1.iter().any(|it| it.domain == report.domain), goes_on);
        hours(1).await;
        if let Some(known) = ledger.list().1.iter().find(|it| it.domain == report.domain) {
            assert_eq!(known.trouble.as_deref(), Some("no answer"));
            assert_eq!(known.done, ["mailto:x@a.test"]);
        }
    }
    assert!((20..=29).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_is_passed_over() {
    let place = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START, 1);
    std::fs::create_dir(place.path().join("tls-reports")).unwrap();
    for file in ["current", "due"] {
        std::fs::write(place.path().join("tls-reports").join(file), "{\n\nnull\n[]\n").unwrap();
    }
    let ledger = open(place.path(), &clock);
    assert_eq!(ledger.list(), (None, Vec::new()));
    ledger.count(&domain("a.test"), Policy::none(), None);
    ledger.keep().await;
    assert!(open(place.path(), &clock).list().0.is_some());
}

#[test]
fn a_report_is_packed() {
    let packed = pack("{\"a\": 1}").unwrap();
    let mut text = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, "{\"a\": 1}");
}
