//! Whose mail comes first where much of it waits, as every store must heed it.

use mailroot_common::address::ReversePath;
use smtpd_core::queue::recipient::Phase;
use smtpd_core::queue::turns::LARGE_OCTETS;

use super::super::{Lease, Pick, Store};
use super::{all, deferred, draft, ended, id, later, nothing_due, route, start};

async fn commit(store: &Store, number: u64, sender: &str, octets: u64) {
    let body = vec![b'x'; usize::try_from(octets).unwrap()];
    let mut draft = draft(&["a@x.example"], start(), &body);
    draft.envelope.sender = ReversePath::parse(sender).unwrap();
    store.commit(id(number), draft).await.unwrap();
}

async fn commit_to(store: &Store, number: u64, sender: &str, to: &[&str]) {
    let mut draft = draft(to, start(), b"x");
    draft.envelope.sender = ReversePath::parse(sender).unwrap();
    store.commit(id(number), draft).await.unwrap();
}

async fn lease(store: &Store, pick: Pick, max: usize) -> Vec<Lease> {
    store.lease(&route("mx:x.example"), pick, max).await.unwrap()
}

fn ids(leases: &[Lease]) -> Vec<u64> {
    leases.iter().map(|lease| lease.id.as_u64() - id(0).as_u64()).collect()
}

pub(super) async fn one_sender_does_not_hold_up_another(store: Store) {
    for number in 1..=100 {
        commit(&store, number, "bulk@here.example", 1).await;
    }
    commit(&store, 101, "anna@here.example", 1).await;
    let first = lease(&store, Pick::Due(start()), 2).await;
    let mut taken = ids(&first);
    taken.sort_unstable();
    assert_eq!(taken, [1, 101]);
    // Who comes while others have waited long is as little behind them.
    commit(&store, 102, "bea@here.example", 1).await;
    let next = lease(&store, Pick::Due(start()), 5).await;
    assert!(ids(&next).contains(&102), "{:?}", ids(&next));
    let of_bulk: Vec<u64> = ids(&next).into_iter().filter(|number| *number <= 100).collect();
    assert_eq!(of_bulk, [2, 3, 4, 5], "in their order");
    for lease in next {
        let changes = all(&lease, |status| deferred(later(60), status));
        store.settle(lease, changes, Vec::new()).await.unwrap();
    }
    drop(first);
    let rest = lease(&store, Pick::Due(later(1)), 200).await;
    assert_eq!(rest.len(), 97);
    assert!(Lease::are_all(&rest, 200));
    for lease in rest {
        let changes = all(&lease, |status| deferred(later(90), status));
        store.settle(lease, changes, Vec::new()).await.unwrap();
    }
    nothing_due(&store, "mx:x.example", later(59)).await;
    assert_eq!(store.next_due(later(59)).wake_at, Some(later(60)));
    assert_eq!(lease(&store, Pick::Due(later(60)), 200).await.len(), 5);
}

pub(super) async fn large_mail_comes_last_in_a_lease_and_may_be_left_out(store: Store) {
    for (number, octets) in [(1, 1), (2, LARGE_OCTETS), (3, 1), (4, LARGE_OCTETS), (5, 1)] {
        commit(&store, number, "anna@here.example", octets).await;
    }
    assert_eq!(store.next_due(start()).routes, [route("mx:x.example")]);
    let first = lease(&store, Pick::Due(start()), 9).await;
    assert_eq!(ids(&first), [1, 2]);
    assert!(!Lease::are_all(&first, 9) && store.next_due(start()).routes.is_empty());
    let small = lease(&store, Pick::SmallDue(start()), 9).await;
    assert_eq!(ids(&small), [3, 5]);
    assert!(store.next_due(start()).routes.is_empty(), "whoever left large mail knows of it");
    let large = lease(&store, Pick::Due(start()), 9).await;
    assert_eq!(ids(&large), [4]);
    nothing_due(&store, "mx:x.example", start()).await;
    drop((first, small, large));
    let again = lease(&store, Pick::SmallDue(start()), 9).await;
    assert_eq!(ids(&again), [1, 3, 5]);
}

pub(super) async fn small_mail_is_named_while_large_mail_waits(store: Store) {
    let name = route("mx:x.example");
    for number in 1..=3 {
        commit(&store, number, "anna@here.example", LARGE_OCTETS).await;
    }
    assert_eq!(store.next_due(start()).routes, std::slice::from_ref(&name));
    let first = lease(&store, Pick::Due(start()), 9).await;
    assert_eq!(ids(&first), [1]);
    for number in 4..=6 {
        assert!(lease(&store, Pick::SmallDue(start()), 9).await.is_empty());
        let due = store.next_due(later(60));
        assert!(due.routes.is_empty() && due.wake_at.is_none(), "there is nothing to look for");
        commit(&store, number, "anna@here.example", 1).await;
        assert_eq!(store.next_due(start()).routes, std::slice::from_ref(&name), "and now there is");
        let small = lease(&store, Pick::SmallDue(start()), 9).await;
        assert_eq!(ids(&small), [number]);
        for lease in small {
            let changes = all(&lease, |status| deferred(later(60), status));
            store.settle(lease, changes, Vec::new()).await.unwrap();
        }
        assert_eq!(store.next_due(start()).wake_at, Some(later(60)), "for those that wait");
        assert_eq!(store.next_due(later(60)).routes, std::slice::from_ref(&name));
        for lease in lease(&store, Pick::SmallDue(later(60)), 9).await {
            let changes = all(&lease, |status| ended(Phase::Delivered, status));
            store.settle(lease, changes, Vec::new()).await.unwrap();
        }
    }
    // Whoever comes back for large mail is told of all that follows.
    assert_eq!(ids(&lease(&store, Pick::Due(start()), 9).await), [2]);
    drop(first);
    for expected in [1, 2, 3] {
        let large = lease(&store, Pick::Due(start()), 9).await;
        assert_eq!(ids(&large), [expected]);
        for lease in large {
            let changes = all(&lease, |status| ended(Phase::Delivered, status));
            store.settle(lease, changes, Vec::new()).await.unwrap();
        }
    }
    nothing_due(&store, "mx:x.example", start()).await;
    commit(&store, 7, "anna@here.example", LARGE_OCTETS).await;
    assert_eq!(store.next_due(start()).routes, [name]);
}

pub(super) async fn mail_that_was_not_tried_keeps_its_place(store: Store) {
    for number in 1..=100 {
        commit(&store, number, "bulk@here.example", 1).await;
    }
    commit(&store, 101, "anna@here.example", 1).await;
    for _ in 0..20 {
        let mut taken = ids(&lease(&store, Pick::Due(start()), 2).await);
        taken.sort_unstable();
        assert_eq!(taken, [1, 101]);
    }
    // Nor does it cost its sender anything.
    commit(&store, 102, "anna@here.example", 1).await;
    let mut taken = ids(&lease(&store, Pick::Due(start()), 4).await);
    taken.sort_unstable();
    assert_eq!(taken, [1, 2, 101, 102]);
    // Of what was taken before there were turns the same holds.
    for number in 201..=203 {
        commit_to(&store, number, "bulk@here.example", &["a@y.example"]).await;
    }
    let name = route("mx:y.example");
    let early = store.lease(&name, Pick::Due(start()), 9).await.unwrap();
    assert_eq!(early.len(), 3);
    for number in 204..=250 {
        commit_to(&store, number, "bulk@here.example", &["a@y.example"]).await;
    }
    let next = store.lease(&name, Pick::Due(start()), 1).await.unwrap();
    assert_eq!(ids(&next), [204]);
    drop((early, next));
    let again = store.lease(&name, Pick::Due(start()), 5).await.unwrap();
    assert_eq!(ids(&again), [201, 202, 203, 204, 205]);
}

pub(super) async fn what_becomes_of_a_message_elsewhere_costs_it_no_place(store: Store) {
    for number in 1..=20 {
        let to = ["a@x.example", "b@y.example"];
        commit_to(&store, number, "bulk@here.example", &to).await;
    }
    let name = route("mx:y.example");
    let first = store.lease(&name, Pick::Due(start()), 1).await.unwrap();
    assert_eq!(ids(&first), [1]);
    let elsewhere = lease(&store, Pick::Due(start()), 5).await;
    assert_eq!(ids(&elsewhere), [1, 2, 3, 4, 5]);
    for (count, lease) in elsewhere.into_iter().enumerate() {
        if count % 2 == 0 {
            let changes = all(&lease, |status| ended(Phase::Delivered, status));
            store.settle(lease, changes, Vec::new()).await.unwrap();
        }
    }
    let next = store.lease(&name, Pick::Due(start()), 5).await.unwrap();
    assert_eq!(ids(&next), [2, 3, 4, 5, 6]);
    drop(first);
}
