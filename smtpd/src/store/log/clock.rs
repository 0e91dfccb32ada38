//! A wall clock that is set, as the log sees it: mail is due when it would have been.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::units::{Span, Timestamp};
use tokio::time::advance;

use super::super::conformance::{all, deferred, draft, id, route, settings, start, surroundings};
use super::super::{Pick, Surroundings};
use super::Log;
use super::keeper::Kept;
use crate::clock::Clock;
use crate::disk::{Disk, Modelled};

const DAY: i64 = 86_400_000;

fn open(model: &Arc<Modelled>, clock: &Clock) -> Arc<Log> {
    let around = Surroundings { clock: clock.clone(), ..surroundings() };
    let settings = settings(Path::new("/spool/Queue"));
    let log = Log::open(Disk::Modelled(Arc::clone(model)), settings, around).unwrap();
    while log.keep_step() != Kept::Idle {}
    log
}

/// A log with a message that waits for an hour, of which the first ten minutes have passed.
async fn waiting(model: &Arc<Modelled>, clock: &Clock) -> Arc<Log> {
    let log = open(model, clock);
    let (committing, draft) = (Arc::clone(&log), draft(&["a@x.example"], start(), b"x"));
    let commit = tokio::spawn(async move { committing.commit(id(1), draft).await });
    while !commit.is_finished() {
        log.commit_step();
        tokio::task::yield_now().await;
    }
    assert_eq!(log.next_due(clock.now()).routes.len(), 1);
    let mut leases = log.lease(&route("mx:x.example"), Pick::Due(clock.now()), 2).await.unwrap();
    let mut lease = leases.pop().unwrap();
    let changes = all(&lease, |status| deferred(start().after(Span::hours(1)), status));
    lease.disarm();
    log.settle_later(&lease, changes);
    log.commit_step();
    advance(Duration::from_mins(10)).await;
    log
}

/// What is left of the hour, by what the log says it waits for and by what it hands out.
async fn left(log: &Arc<Log>, clock: &Clock) -> Span {
    let name = route("mx:x.example");
    // Mail that came up too early is handed to nobody, and waits for its moment again.
    for _ in 0..2 {
        if log.next_due(clock.now()).routes.is_empty() {
            break;
        }
        assert!(log.lease(&name, Pick::Due(clock.now()), 2).await.unwrap().is_empty());
    }
    let due = log.next_due(clock.now());
    assert!(due.routes.is_empty(), "{due:?}");
    let wake_at = due.wake_at.unwrap();
    let shown = log.show_now(id(1)).unwrap().unwrap().state.recipients[0].next_attempt;
    assert_eq!(shown, wake_at, "what is shown is what happens");
    wake_at.since(clock.now())
}

#[tokio::test(start_paused = true)]
async fn mail_waits_for_what_is_left_of_its_wait_wherever_the_clock_goes() {
    for by in [DAY, -DAY, 3650 * DAY, -3650 * DAY] {
        let (model, clock) = (Arc::new(Modelled::new(1)), Clock::simulated(start(), 1));
        let log = waiting(&model, &clock).await;
        clock.jump_by(by);
        assert_eq!(clock.jumps(), 1);
        assert!(log.follow(&clock.jumps_after(0)));
        assert_eq!(left(&log, &clock).await, Span::minutes(50), "{by}");
        // Whoever has it said twice, or too late, does no harm.
        assert!(log.follow(&clock.jumps_after(0)));
        assert_eq!(left(&log, &clock).await, Span::minutes(50), "{by}");
        advance(Duration::from_mins(50)).await;
        assert_eq!(log.next_due(clock.now()).routes.len(), 1);
        let leases = log.lease(&route("mx:x.example"), Pick::Due(clock.now()), 2).await;
        assert_eq!(leases.unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn mail_waits_no_longer_than_it_was_to_if_the_clock_went_back_while_nothing_ran() {
    let (model, clock) = (Arc::new(Modelled::new(1)), Clock::simulated(start(), 1));
    drop(waiting(&model, &clock).await);
    model.kill();
    let earlier = Timestamp::from_millis(start().as_millis() - 10 * 86_400_000);
    let clock = Clock::simulated(earlier, 2);
    let log = open(&model, &clock);
    assert_eq!(left(&log, &clock).await, Span::hours(1));
}

#[tokio::test(start_paused = true)]
async fn mail_known_only_in_part_follows_no_jump() {
    let (model, clock) = (Arc::new(Modelled::new(1)), Clock::simulated(start(), 1));
    drop(waiting(&model, &clock).await);
    model.kill();
    let around = Surroundings { clock: clock.clone(), ..surroundings() };
    let disk = Disk::Modelled(Arc::clone(&model));
    let log = Log::open(disk, settings(Path::new("/spool/Queue")), around).unwrap();
    clock.jump_by(-DAY);
    assert_eq!(clock.jumps(), 1);
    assert!(!log.follow(&clock.jumps_after(0)));
    while log.keep_step() != Kept::Idle {}
    assert!(log.follow(&clock.jumps_after(0)));
    assert_eq!(left(&log, &clock).await, Span::minutes(50));
}
