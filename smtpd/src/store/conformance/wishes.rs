//! What senders want of time and order, as every store must heed it.

use std::time::Duration;

use mailroot_common::units::Span;
use smtpd_core::queue::recipient::{Hold, Phase};
use smtpd_core::queue::wishes::{ByMode, DeliverBy, Priority};

use super::super::{Change, Pick, Store};
use super::{all, deferred, draft, ended, id, later, lease_one, nothing_due, route, start};
use crate::clock::Clock;

pub(super) async fn priority_is_leased_first(store: Store) {
    for (number, priority) in [(1, 0), (2, 5), (3, -5), (4, 5), (5, 0)] {
        let mut draft = draft(&["a@x.example"], start(), b"x");
        draft.envelope.wishes.priority = Priority::try_from(priority).unwrap();
        store.commit(id(number), draft).await.unwrap();
    }
    let name = route("mx:x.example");
    assert_eq!(store.next_due(start()).routes, [route("mx:x.example")]);
    let first = store.lease(&name, Pick::Due(start()), 2).await.unwrap();
    assert_eq!(first.iter().map(|lease| lease.id).collect::<Vec<_>>(), [id(2), id(4)]);
    let rest = store.lease(&name, Pick::Due(start()), 9).await.unwrap();
    assert_eq!(rest.iter().map(|lease| lease.id).collect::<Vec<_>>(), [id(1), id(5), id(3)]);
    // One that is deferred is not in the way of others, whatever its priority.
    for lease in first {
        let changes = all(&lease, |status| deferred(later(60), status));
        store.settle(lease, changes, Vec::new()).await.unwrap();
    }
    drop(rest);
    let due = store.lease(&name, Pick::Due(later(1)), 9).await.unwrap();
    assert_eq!(due.iter().map(|lease| lease.id).collect::<Vec<_>>(), [id(1), id(5), id(3)]);
}

pub(super) async fn a_retry_for_later_of_what_is_being_tried_is_not_made_sooner(store: Store) {
    let now = Clock::real().now();
    store.commit(id(1), draft(&["a@x.example"], now, b"x")).await.unwrap();
    let lease = lease_one(&store, "mx:x.example", now).await;
    let at = now.after(Span::hours(2));
    assert_eq!(store.change(&[id(1)], &Change::Retry(at)).await.unwrap(), [id(1)]);
    let changes = all(&lease, |status| deferred(now.after(Span::hours(9)), status));
    store.settle(lease, changes, Vec::new()).await.unwrap();
    nothing_due(&store, "mx:x.example", now.after(Span::minutes(119))).await;
    let lease = lease_one(&store, "mx:x.example", at).await;
    store.change(&[id(1)], &Change::Retry(at.after(Span::hours(1)))).await.unwrap();
    store.change(&[id(1)], &Change::Retry(now)).await.unwrap();
    let changes = all(&lease, |status| deferred(now.after(Span::hours(9)), status));
    store.settle(lease, changes, Vec::new()).await.unwrap();
    drop(lease_one(&store, "mx:x.example", now.after(Span::minutes(5))).await);
}

pub(super) async fn mail_waits_for_its_release(store: Store) {
    let now = Clock::real().now();
    let release = now.after(Span::hours(1));
    for number in [1, 2] {
        let mut draft = draft(&["a@x.example"], now, b"x");
        draft.envelope.wishes.release_at = Some(release);
        store.commit(id(number), draft).await.unwrap();
    }
    nothing_due(&store, "mx:x.example", now).await;
    assert_eq!(store.next_due(now).wake_at, Some(release));
    let shown = store.show(id(1)).await.unwrap().unwrap();
    assert_eq!((shown.next_attempt_at(), shown.awaits_release()), (Some(release), Some(release)));
    let aged = store.lease(&route("mx:x.example"), Pick::Aged(now), 9).await.unwrap();
    assert!(aged.is_empty(), "its time has not begun");
    store.change(&[id(1)], &Change::Retry(now)).await.unwrap();
    let lease = lease_one(&store, "mx:x.example", now).await;
    assert_eq!(lease.id, id(1));
    drop(lease);
    store.change(&[id(1)], &Change::Remove).await.unwrap();
    nothing_due(&store, "mx:x.example", now.after(Span::minutes(59))).await;
    assert_eq!(lease_one(&store, "mx:x.example", release).await.id, id(2));
}

pub(super) async fn mail_for_later_is_not_in_the_way_of_aged_mail(store: Store) {
    let now = Clock::real().now();
    let name = route("mx:x.example");
    for number in 1..=200 {
        let mut draft = draft(&["a@x.example"], start(), b"x");
        draft.envelope.wishes.release_at = Some(now.after(Span::hours(1)));
        draft.envelope.wishes.priority = Priority::try_from(4).unwrap();
        store.commit(id(number), draft).await.unwrap();
    }
    store.commit(id(201), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    let aged = store.lease(&name, Pick::Aged(later(60)), 100).await.unwrap();
    assert_eq!(aged.iter().map(|lease| lease.id).collect::<Vec<_>>(), [id(201)]);
    drop(aged);
    let untold = store.lease(&name, Pick::Untold(later(60)), 100).await.unwrap();
    assert_eq!(untold.iter().map(|lease| lease.id).collect::<Vec<_>>(), [id(201)]);
}

pub(super) async fn overdue_mail_is_named(store: Store) {
    for number in 1..=4 {
        let mut draft = draft(&["a@x.example"], start(), b"x");
        let at = later(number);
        draft.envelope.wishes.deliver_by =
            Some(DeliverBy { at, mode: ByMode::Return, trace: false });
        store.commit(id(number), draft).await.unwrap();
    }
    store.commit(id(9), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    while store.counts().recovering {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(store.next_due(start()).deadline_at, Some(later(1)));
    assert_eq!(store.overdue(start(), 9), []);
    let hold = Hold { by: "anna".into(), reason: None, since: start() };
    store.change(&[id(2)], &Change::Hold(hold)).await.unwrap();
    assert_eq!(store.overdue(later(3), 9), [id(1), id(3)]);
    let lease = store.lease_message(id(1)).await.unwrap().unwrap();
    let changes = all(&lease, |status| ended(Phase::Returned, status));
    store.settle(lease, changes, Vec::new()).await.unwrap();
    store.put_off_deadline(id(3), Some(later(8)));
    assert_eq!(store.overdue(later(4), 9), [id(4)]);
    store.put_off_deadline(id(4), None);
    store.change(&[id(2)], &Change::Release).await.unwrap();
    assert_eq!(store.overdue(later(8), 9), [id(2), id(3)]);
}
