//! Counts over restarts, and reports that are due, with a simulated clock.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use smtpd_core::tls_report::{FailureKind, record};

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
    assert!(!ledger.has_ripe());

    hours(1).await;
    let ledger = open(place.path(), &clock);
    ledger.count(&domain("b.test"), Policy::none(), None);
    let (current, due) = ledger.list();
    assert_eq!(current.unwrap().domains.len(), 1, "a new day has begun");
    assert_eq!(due.len(), 2);
    assert_eq!((due[0].begins, due[0].ends), (START, START.after(Span::hours(1))));
    assert_eq!((due[0].counted.successes(), due[0].counted.failures()), (1, 1));
    hours(4).await;
    assert!(ledger.has_ripe());
    assert_eq!((ledger.ripe(1).len(), ledger.ripe(9).len()), (1, 2));
    ledger.keep().await;
    // A death between the two files has the same period end once more.
    let line = std::fs::read(place.path().join("tls-reports/current")).unwrap();
    ledger.settle(&due[0]);
    ledger.keep().await;
    std::fs::write(place.path().join("tls-reports/current"), line).unwrap();
    let again = open(place.path(), &clock);
    let left: Vec<Domain> = again.ripe(9).into_iter().map(|due| due.domain).collect();
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
    let ripe = ledger.ripe(9);
    assert_eq!((ripe.len(), &ripe[0].domain), (1, &domain("a.test")));
    let mut attempts = 0;
    let texts = ["v=TLSRPTv1;rua=mailto:x@a.test,https://a.test/x"];
    while let Some(mut report) = ledger.ripe(9).into_iter().find(|it| it.domain == domain("a.test"))
    {
        attempts += 1;
        report.destinations = record::destinations(texts);
        report.done = vec!["mailto:x@a.test".to_owned()];
        let goes_on = ledger.postpone(report, "no answer");
        assert!(ledger.ripe(9).iter().all(|it| it.domain != domain("a.test")));
        assert_eq!(ledger.list().1.iter().any(|it| it.domain == domain("a.test")), goes_on);
        hours(1).await;
        if let Some(known) = ledger.list().1.iter().find(|it| it.domain == domain("a.test")) {
            assert_eq!(known.trouble.as_deref(), Some("no answer"));
            assert_eq!(known.done, ["mailto:x@a.test"]);
            // It is known over a restart.
            assert_eq!(known.destinations, record::destinations(texts));
            let text = serde_json::to_vec(known).unwrap();
            assert_eq!(serde_json::from_slice::<Due>(&text).unwrap(), *known);
        }
    }
    assert!((20..=29).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_ahead_stops_no_reports() {
    let place = tempfile::tempdir().unwrap();
    let ahead = Clock::simulated(START.after(Span::days(400)), 1);
    let ledger = open(place.path(), &ahead);
    ledger.count(&domain("due.test"), Policy::none(), failure());
    assert_eq!(ledger.hasten(None), 1);
    ledger.count(&domain("a.test"), Policy::none(), failure());
    ledger.keep().await;

    let ledger = open(place.path(), &Clock::simulated(START, 1));
    ledger.count(&domain("a.test"), Policy::none(), failure());
    // The day ends in an hour, and its reports are due within four more.
    hours(5).await;
    assert!(ledger.has_ripe());
    let mut ripe = ledger.ripe(9);
    ripe.sort_by(|one, other| one.domain.cmp(&other.domain));
    let told: Vec<(&str, u64)> =
        ripe.iter().map(|due| (due.domain.as_str(), due.counted.failures())).collect();
    assert_eq!(told, [("a.test", 2), ("due.test", 1)]);
    assert!(ripe.iter().all(|due| due.until <= START.after(Span::hours(33))), "{ripe:?}");
}

#[tokio::test(start_paused = true)]
async fn strangers_fill_only_so_much_memory() {
    let place = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START, 1);
    let ledger = open(place.path(), &clock);
    for number in 0..3_000 {
        let of = domain(&format!("d{number}.test"));
        for detail in 0..30 {
            let policy = Policy { lines: vec!["x".repeat(300); 30], ..Policy::none() };
            let why = format!("{detail} {}", "y".repeat(190));
            ledger.count(
                &of,
                policy,
                Some(Failure::of(FailureKind::ValidationFailure).because(&why)),
            );
        }
    }
    ledger.keep().await;
    let written = std::fs::metadata(place.path().join("tls-reports/current")).unwrap().len();
    assert!(written < 32 * 1024 * 1024, "{written}");
    assert!(written > 8 * 1024 * 1024, "{written}");
    // Of those that are known it goes on counting.
    let before = ledger.list().0.unwrap().domains[&domain("d0.test")].failures();
    ledger.count(&domain("d0.test"), Policy::none(), failure());
    assert_eq!(ledger.list().0.unwrap().domains[&domain("d0.test")].failures(), before + 1);
    assert!(ledger.list().0.unwrap().left_out > 0);
    // What is due takes of the same room, and what it says of destinations as well.
    let octets = |ledger: &Ledger| {
        let mut state = lock(&ledger.0.state);
        let kept = state.octets;
        state.count_octets();
        assert_eq!(kept, state.octets);
        kept
    };
    assert!(ledger.hasten(None) > 500);
    let far = format!("v=TLSRPTv1;rua=https://a.test/{}", "z".repeat(1_900));
    for mut report in ledger.ripe(usize::MAX) {
        report.destinations = record::destinations([far.as_str()]);
        assert_eq!(report.destinations.len(), 1);
        assert!(ledger.postpone(report, &"e".repeat(5_000)));
    }
    assert!(octets(&ledger) <= OCTETS_MAX);
    ledger.keep().await;
    let again = open(place.path(), &clock);
    assert!(octets(&again) <= OCTETS_MAX);
    ledger.list().1.iter().for_each(|due| ledger.settle(due));
    assert_eq!(octets(&ledger), 0);
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
