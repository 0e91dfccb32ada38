//! Whose mail comes first where much of it waits, as every store must heed it.

use mailroot_common::address::ReversePath;
use smtpd_core::queue::turns::LARGE_OCTETS;

use super::super::{Lease, Pick, Store};
use super::{all, deferred, draft, id, later, nothing_due, route, start};

async fn commit(store: &Store, number: u64, sender: &str, octets: u64) {
    let body = vec![b'x'; usize::try_from(octets).unwrap()];
    let mut draft = draft(&["a@x.example"], start(), &body);
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
    assert!(store.next_due(start()).routes.is_empty(), "whoever left it comes back");
    let large = lease(&store, Pick::Due(start()), 9).await;
    assert_eq!(ids(&large), [4]);
    nothing_due(&store, "mx:x.example", start()).await;
    drop((first, small, large));
    let again = lease(&store, Pick::SmallDue(start()), 9).await;
    assert_eq!(ids(&again), [1, 3, 5]);
}
