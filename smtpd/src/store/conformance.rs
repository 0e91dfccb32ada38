//! What every store must do, run over each arm.
//!
//! A test is a story told to a [`Store`] through its verbs alone; the arms are made at the bottom.

mod fairness;
mod samples;
mod wishes;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::id::QueueId;
use mailroot_common::status::EnhancedCode;
use mailroot_common::units::{Span, Timestamp};
use smtpd_core::queue::outcome::{Outcome, Stage};
use smtpd_core::queue::recipient::{Hold, Phase, RecipientStatus, ReturnOrder};
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::route::table::RouteName;

use self::fairness::{
    large_mail_comes_last_in_a_lease_and_may_be_left_out, mail_that_was_not_tried_keeps_its_place,
    one_sender_does_not_hold_up_another, small_mail_is_named_while_large_mail_waits,
    what_becomes_of_a_message_elsewhere_costs_it_no_place,
};
pub(crate) use self::samples::{draft, envelope, settings, start, surroundings, table};
use self::wishes::{
    a_retry_for_later_of_what_is_being_tried_is_not_made_sooner,
    mail_for_later_is_not_in_the_way_of_aged_mail, mail_waits_for_its_release,
    overdue_mail_is_named, priority_is_leased_first,
};
use super::{Body, Change, Draft, Filter, Lease, Pick, Store};
use crate::clock::Clock;
use crate::disk::{Disk, Modelled};

pub(crate) fn id(number: u64) -> QueueId {
    QueueId::from_u64(QueueId::at_millis(start().as_millis()).as_u64() + number)
}

pub(crate) fn route(text: &str) -> RouteName {
    RouteName::from_text(text)
}

fn later(minutes: u64) -> Timestamp {
    start().after(Span::minutes(minutes))
}

pub(super) fn ended(phase: Phase, before: &RecipientStatus) -> RecipientStatus {
    RecipientStatus { phase, attempts: before.attempts + 1, ..before.clone() }
}

pub(super) fn deferred(until: Timestamp, before: &RecipientStatus) -> RecipientStatus {
    let failure = Outcome::local(start(), Stage::Connect, EnhancedCode::transient(4, 1), "refused");
    RecipientStatus {
        next_attempt: until,
        attempts: before.attempts + 1,
        last: Some(failure),
        ..before.clone()
    }
}

/// The lease's changes when each of its recipients comes to `change`.
pub(super) fn all(
    lease: &Lease,
    change: impl Fn(&RecipientStatus) -> RecipientStatus,
) -> Vec<(usize, RecipientStatus)> {
    lease.due.iter().map(|(place, status)| (*place, change(status))).collect()
}

async fn lease_one(store: &Store, name: &str, now: Timestamp) -> Lease {
    let mut leases = store.lease(&route(name), Pick::Due(now), 10).await.unwrap();
    assert_eq!(leases.len(), 1, "exactly one message is due on {name}");
    leases.remove(0)
}

async fn nothing_due(store: &Store, name: &str, now: Timestamp) {
    let leases = store.lease(&route(name), Pick::Due(now), 10).await.unwrap();
    assert!(leases.is_empty(), "{name} has {} due", leases.len());
}

async fn a_message_is_leased_once_read_and_gone_when_delivered(store: Store) {
    store
        .commit(id(1), draft(&["a@x.example"], start(), b"Subject: x\r\n\r\nbody\r\n"))
        .await
        .unwrap();
    let due = store.next_due(start());
    assert_eq!(due.routes, [route("mx:x.example")]);
    assert!(store.next_due(start()).routes.is_empty(), "a route is named once");
    let lease = lease_one(&store, "mx:x.example", start()).await;
    assert_eq!(lease.open().read_all().await.unwrap(), b"Subject: x\r\n\r\nbody\r\n");
    assert_eq!(lease.read_header(1000).await.unwrap(), b"Subject: x\r\n\r\n");
    assert_eq!(lease.size, 20);
    nothing_due(&store, "mx:x.example", start()).await;
    let changes = all(&lease, |status| ended(Phase::Delivered, status));
    store.settle(lease, changes, Vec::new()).await.unwrap();
    assert!(store.show(id(1)).await.unwrap().is_none());
    assert_eq!(store.counts().messages, 0);
}

async fn a_dropped_lease_is_due_again(store: Store) {
    store.commit(id(1), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    drop(lease_one(&store, "mx:x.example", start()).await);
    let lease = lease_one(&store, "mx:x.example", start()).await;
    assert_eq!(lease.due[0].1.attempts, 0);
}

async fn a_deferred_recipient_is_due_at_its_moment_and_not_before(store: Store) {
    store.commit(id(1), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    let lease = lease_one(&store, "mx:x.example", start()).await;
    let changes = all(&lease, |status| deferred(later(15), status));
    store.settle(lease, changes, Vec::new()).await.unwrap();
    nothing_due(&store, "mx:x.example", later(14)).await;
    assert_eq!(store.next_due(later(14)).wake_at, Some(later(15)));
    assert_eq!(store.next_due(later(15)).routes, [route("mx:x.example")]);
    assert_eq!(lease_one(&store, "mx:x.example", later(15)).await.due[0].1.attempts, 1);
}

async fn routes_of_one_message_are_leased_and_settled_apart(store: Store) {
    let to = ["a@x.example", "b@here.example", "c@x.example"];
    store.commit(id(1), draft(&to, start(), b"x")).await.unwrap();
    let remote = lease_one(&store, "mx:x.example", start()).await;
    let local = lease_one(&store, "drop", start()).await;
    assert_eq!(remote.places().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(local.places().collect::<Vec<_>>(), [1]);
    let changes = vec![(0, ended(Phase::Delivered, &remote.due[0].1))];
    store.settle(remote, changes, Vec::new()).await.unwrap();
    let changes = all(&local, |status| ended(Phase::Delivered, status));
    store.settle(local, changes, Vec::new()).await.unwrap();
    let shown = store.show(id(1)).await.unwrap().unwrap();
    let phases: Vec<Phase> = shown.state.recipients.iter().map(|status| status.phase).collect();
    assert_eq!(phases, [Phase::Delivered, Phase::Delivered, Phase::Waiting]);
    let rest = lease_one(&store, "mx:x.example", start()).await;
    assert_eq!(rest.places().collect::<Vec<_>>(), [2]);
}

async fn a_settlement_and_its_report_come_together(store: Store) {
    store.commit(id(1), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    let lease = lease_one(&store, "mx:x.example", start()).await;
    let changes = all(&lease, |status| ended(Phase::Returned, status));
    let report = draft(&["sender@here.example"], start(), b"sorry");
    store.settle(lease, changes, vec![(id(2), report)]).await.unwrap();
    assert!(store.show(id(1)).await.unwrap().is_none());
    let report = lease_one(&store, "drop", start()).await;
    assert_eq!(report.id, id(2));
    assert_eq!(report.open().read_all().await.unwrap(), b"sorry");
}

async fn a_held_message_is_not_tried_until_released(store: Store) {
    store.commit(id(1), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    let hold = Hold { by: "anna".into(), reason: Some("ask legal".into()), since: start() };
    assert_eq!(store.change(&[id(1), id(9)], &Change::Hold(hold)).await.unwrap(), [id(1)]);
    nothing_due(&store, "mx:x.example", later(60)).await;
    let shown = store.show(id(1)).await.unwrap().unwrap();
    assert_eq!(shown.reason().unwrap(), "by anna: ask legal");
    assert_eq!(store.counts().held, 1);
    store.change(&[id(1)], &Change::Release).await.unwrap();
    drop(lease_one(&store, "mx:x.example", start()).await);
}

async fn a_message_may_be_held_from_its_first_moment(store: Store) {
    let hold = Hold { by: "anna".into(), reason: None, since: start() };
    let mut held = draft(&["a@x.example"], start(), b"x");
    held.envelope.hold = Some(hold);
    store.commit(id(1), held).await.unwrap();
    nothing_due(&store, "mx:x.example", later(60)).await;
    assert_eq!(store.counts().held, 1);
    store.change(&[id(1)], &Change::Release).await.unwrap();
    assert_eq!(store.counts().held, 0);
    drop(lease_one(&store, "mx:x.example", start()).await);
}

async fn a_retry_now_beats_the_schedule(store: Store) {
    store.commit(id(1), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    let lease = lease_one(&store, "mx:x.example", start()).await;
    let changes = all(&lease, |status| deferred(later(600), status));
    store.settle(lease, changes, Vec::new()).await.unwrap();
    nothing_due(&store, "mx:x.example", later(1)).await;
    store.change(&[id(1)], &Change::Retry(later(1))).await.unwrap();
    assert_eq!(store.next_due(later(1)).routes, [route("mx:x.example")]);
    let lease = lease_one(&store, "mx:x.example", later(1)).await;
    let changes = all(&lease, |status| deferred(later(600), status));
    store.settle(lease, changes, Vec::new()).await.unwrap();
    store.change(&[id(1)], &Change::Retry(later(30))).await.unwrap();
    nothing_due(&store, "mx:x.example", later(29)).await;
    drop(lease_one(&store, "mx:x.example", later(30)).await);
}

async fn a_retry_of_what_is_being_tried_follows_when_that_is_over(store: Store) {
    store.commit(id(1), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    let lease = lease_one(&store, "mx:x.example", start()).await;
    assert_eq!(store.change(&[id(1)], &Change::Retry(later(1))).await.unwrap(), [id(1)]);
    nothing_due(&store, "mx:x.example", later(1)).await;
    let changes = all(&lease, |status| deferred(later(600), status));
    store.settle(lease, changes, Vec::new()).await.unwrap();
    let now = later(1).max(Clock::real().now());
    let lease = lease_one(&store, "mx:x.example", now).await;
    let changes = all(&lease, |status| deferred(now.after(Span::hours(9)), status));
    store.settle(lease, changes, Vec::new()).await.unwrap();
    nothing_due(&store, "mx:x.example", now.after(Span::hours(8))).await;
}

async fn a_removed_message_is_gone_even_while_it_is_tried(store: Store) {
    store.commit(id(1), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    let lease = lease_one(&store, "mx:x.example", start()).await;
    assert_eq!(store.change(&[id(1)], &Change::Remove).await.unwrap(), [id(1)]);
    let changes = all(&lease, |status| ended(Phase::Returned, status));
    let report = draft(&["sender@here.example"], start(), b"sorry");
    store.settle(lease, changes, vec![(id(2), report)]).await.unwrap();
    assert!(store.show(id(1)).await.unwrap().is_none());
    assert!(store.show(id(2)).await.unwrap().is_none(), "its end was the removal");
    assert!(store.change(&[id(1)], &Change::Release).await.unwrap().is_empty());
}

fn order() -> ReturnOrder {
    ReturnOrder { by: "anna".into(), reason: Some("no games".into()), since: start() }
}

async fn a_message_to_be_returned_is_tried_by_nobody_and_leased_whole(store: Store) {
    let to = ["a@x.example", "b@here.example", "c@y.example"];
    store.commit(id(1), draft(&to, start(), b"x")).await.unwrap();
    store.commit(id(2), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    let hold = Hold { by: "op".into(), reason: None, since: start() };
    store.change(&[id(1)], &Change::Hold(hold)).await.unwrap();
    assert!(store.ordered(9).is_empty());
    let done = store.change(&[id(1), id(9)], &Change::Return(order())).await.unwrap();
    assert_eq!((done, store.ordered(9)), (vec![id(1)], vec![id(1)]));
    store.change(&[id(1)], &Change::Release).await.unwrap();
    nothing_due(&store, "drop", later(600)).await;
    assert_eq!(lease_one(&store, "mx:x.example", start()).await.id, id(2));
    let lease = store.lease_message(id(1)).await.unwrap().unwrap();
    assert_eq!(lease.returning.as_ref(), Some(&order()));
    assert_eq!(lease.places().collect::<Vec<_>>(), [0, 1, 2]);
    assert!(store.ordered(9).is_empty(), "it is under way");
    assert!(store.lease_message(id(1)).await.unwrap().is_none());
    drop(lease);
    assert_eq!(store.ordered(9), [id(1)]);
    let lease = store.lease_message(id(1)).await.unwrap().unwrap();
    let changes = all(&lease, |status| ended(Phase::Returned, status));
    let report = draft(&["sender@here.example"], start(), b"sorry");
    store.settle(lease, changes, vec![(id(3), report)]).await.unwrap();
    assert!(store.show(id(1)).await.unwrap().is_none() && store.ordered(9).is_empty());
    assert_eq!(lease_one(&store, "drop", start()).await.id, id(3));
    assert!(store.lease_message(id(1)).await.unwrap().is_none());
}

async fn whoever_is_tried_when_a_return_is_ordered_follows_after_the_attempt(store: Store) {
    store.commit(id(1), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    let tried = lease_one(&store, "mx:x.example", start()).await;
    store.change(&[id(1)], &Change::Return(order())).await.unwrap();
    assert!(store.ordered(9).is_empty());
    let changes = all(&tried, |status| deferred(later(60), status));
    store.settle(tried, changes, Vec::new()).await.unwrap();
    nothing_due(&store, "mx:x.example", later(60)).await;
    assert_eq!(store.ordered(9), [id(1)]);
    let lease = store.lease_message(id(1)).await.unwrap().unwrap();
    assert_eq!(lease.due[0].1.attempts, 1, "what it came to is known");
}

async fn the_oldest_message_of_each_route_is_known(store: Store) {
    for (number, to) in [(1, &["a@x.example"][..]), (2, &["a@y.example", "b@x.example"])] {
        store.commit(id(number), draft(to, start(), b"x")).await.unwrap();
    }
    let oldest = || {
        let mut oldest = store.oldest_by_route();
        oldest.sort();
        oldest
    };
    let (x, y) = (route("mx:x.example"), route("mx:y.example"));
    assert_eq!(oldest(), [(x.clone(), id(1)), (y.clone(), id(2))]);
    store.change(&[id(1)], &Change::Remove).await.unwrap();
    assert_eq!(oldest(), [(x, id(2)), (y, id(2))]);
}

async fn a_redirected_message_waits_for_the_chosen_host_at_once(store: Store) {
    let to = ["a@x.example", "b@here.example"];
    store.commit(id(1), draft(&to, start(), b"x")).await.unwrap();
    let lease = lease_one(&store, "mx:x.example", start()).await;
    let changes = all(&lease, |status| deferred(later(600), status));
    store.settle(lease, changes, Vec::new()).await.unwrap();
    let host = SmartHost::parse("hub.example:2525").unwrap();
    let change = Change::Redirect(host.clone(), later(1));
    assert_eq!(store.change(&[id(1), id(9)], &change).await.unwrap(), [id(1)]);
    let names: Vec<_> = store.routes().into_iter().map(|count| count.route).collect();
    assert_eq!(names, [route("host:hub.example:2525")]);
    let filter =
        Filter { exact_domain: Some(Domain::parse("x.example").unwrap()), ..Filter::default() };
    assert_eq!(store.list(&filter, None, 9).await.unwrap().len(), 1, "a list finds it as before");
    store.set_table(table(&["x.example"]));
    while store.counts().recovering {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let lease = lease_one(&store, "host:hub.example:2525", later(1)).await;
    assert_eq!((lease.via.clone(), lease.due.len()), (Some(host), 2));
    assert_eq!(lease.due[0].1.attempts, 1);
}

async fn lists_are_by_id_filtered_and_paged(store: Store) {
    for number in 0..20 {
        let to = if number % 2 == 0 { "even@x.example" } else { "odd@sub.y.example" };
        store.commit(id(number), draft(&[to], start(), b"body")).await.unwrap();
    }
    let ids = |messages: Vec<super::Message>| -> Vec<QueueId> {
        messages.into_iter().map(|message| message.id).collect()
    };
    let everything = Filter::default();
    let first = ids(store.list(&everything, None, 15).await.unwrap());
    assert_eq!(first, (0..15).map(id).collect::<Vec<_>>());
    let rest = ids(store.list(&everything, Some(id(14)), 15).await.unwrap());
    assert_eq!(rest, (15..20).map(id).collect::<Vec<_>>());
    let odd = Filter { domain: Some(Domain::parse("y.example").unwrap()), ..Filter::default() };
    let odd = ids(store.list(&odd, Some(id(3)), 2).await.unwrap());
    assert_eq!(odd, [id(5), id(7)]);
    let exactly = |domain: &str| {
        let exact_domain = Some(Domain::parse(domain).unwrap());
        Filter { exact_domain, ..Filter::default() }
    };
    let odd = ids(store.list(&exactly("sub.y.example"), Some(id(3)), 3).await.unwrap());
    assert_eq!(odd, [id(5), id(7), id(9)]);
    assert!(store.list(&exactly("y.example"), None, 3).await.unwrap().is_empty());
    let mut leases = store.lease(&route("mx:x.example"), Pick::Due(start()), 1).await.unwrap();
    let leased = leases.remove(0);
    let hold = Hold { by: "op".into(), reason: None, since: start() };
    store.change(&[id(2)], &Change::Hold(hold)).await.unwrap();
    let even = ids(store.list(&exactly("x.example"), None, 3).await.unwrap());
    assert_eq!(even, [id(0), id(2), id(4)], "also what is held and what is under way");
    drop(leased);
}

async fn another_table_moves_waiting_mail(store: Store) {
    store.commit(id(1), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    store.commit(id(2), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    let mut leases = store.lease(&route("mx:x.example"), Pick::Due(start()), 1).await.unwrap();
    let leased = leases.remove(0);
    store.set_table(table(&["x.example"]));
    while store.counts().recovering {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let moved = lease_one(&store, "drop", start()).await;
    assert_ne!(moved.id, leased.id, "what is being tried is left where it is");
    drop(leased);
    drop(lease_one(&store, "drop", start()).await);
    nothing_due(&store, "mx:x.example", start()).await;
    assert_eq!(store.routes().len(), 1);
}

async fn aged_mail_is_leased_though_it_is_not_due(store: Store) {
    store.commit(id(1), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    let lease = lease_one(&store, "mx:x.example", start()).await;
    let changes = all(&lease, |status| deferred(later(600), status));
    store.settle(lease, changes, Vec::new()).await.unwrap();
    let name = route("mx:x.example");
    let pick = |pick| store.lease(&name, pick, 10);
    assert!(pick(Pick::Aged(start())).await.unwrap().is_empty(), "it is not old enough");
    assert_eq!(pick(Pick::Aged(later(1))).await.unwrap().len(), 1);
    let mut untold = pick(Pick::Untold(later(1))).await.unwrap();
    let lease = untold.remove(0);
    let changes = all(&lease, |status| RecipientStatus { delay_told: true, ..status.clone() });
    store.settle(lease, changes, Vec::new()).await.unwrap();
    assert!(pick(Pick::Untold(later(1))).await.unwrap().is_empty());
    assert_eq!(pick(Pick::Aged(later(1))).await.unwrap().len(), 1);
}

async fn outcomes_nobody_waits_for_hold_at_once(store: Store) {
    for number in 1..4 {
        store.commit(id(number), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    }
    let leases = store.lease(&route("mx:x.example"), Pick::Due(start()), 10).await;
    for lease in leases.unwrap() {
        let changes = all(&lease, |status| ended(Phase::Delivered, status));
        store.settle_later(lease, changes);
    }
    nothing_due(&store, "mx:x.example", later(60)).await;
    store.close().await;
    assert_eq!(store.counts().messages, 0);
    let refused = store.commit(id(9), draft(&["a@x.example"], start(), b"x")).await;
    assert!(refused.is_err(), "a closed store takes nothing");
}

async fn large_bodies_come_back_whole(store: Store) {
    let octets: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1] ^ 0x5a).collect();
    let mut writer = store.large_body().await.unwrap();
    for piece in octets.chunks(70_001) {
        writer.append(piece).await.unwrap();
    }
    let body = Body::File(writer.finish().await.unwrap());
    assert_eq!(body.size(), octets.len() as u64);
    let draft = Draft { envelope: envelope(&["a@x.example"], start()), body };
    store.commit(id(1), draft).await.unwrap();
    let lease = lease_one(&store, "mx:x.example", start()).await;
    assert_eq!(lease.size, octets.len() as u64);
    assert!(lease.open().read_all().await.unwrap() == octets);
}

async fn an_id_is_taken_once(store: Store) {
    store.commit(id(1), draft(&["a@x.example"], start(), b"x")).await.unwrap();
    assert!(store.commit(id(1), draft(&["b@x.example"], start(), b"y")).await.is_err());
    assert_eq!(store.highest_id(), id(1));
}

/// Runs every story over one arm.
macro_rules! stories {
    ($arm:ident: $make:expr => $($story:ident),* $(,)?) => {
        mod $arm {
            use super::*;

            $(
                #[tokio::test]
                async fn $story() {
                    let (store, _kept) = $make();
                    super::$story(store).await;
                }
            )*
        }
    };
}

/// Names the stories once for all arms.
macro_rules! arms {
    ($($arm:ident: $make:expr;)*) => {
        $(stories!($arm: $make =>
            a_message_is_leased_once_read_and_gone_when_delivered,
            a_dropped_lease_is_due_again,
            a_deferred_recipient_is_due_at_its_moment_and_not_before,
            routes_of_one_message_are_leased_and_settled_apart,
            a_settlement_and_its_report_come_together,
            a_held_message_is_not_tried_until_released,
            a_message_may_be_held_from_its_first_moment,
            a_retry_now_beats_the_schedule,
            a_retry_of_what_is_being_tried_follows_when_that_is_over,
            a_retry_for_later_of_what_is_being_tried_is_not_made_sooner,
            a_removed_message_is_gone_even_while_it_is_tried,
            a_message_to_be_returned_is_tried_by_nobody_and_leased_whole,
            whoever_is_tried_when_a_return_is_ordered_follows_after_the_attempt,
            the_oldest_message_of_each_route_is_known,
            a_redirected_message_waits_for_the_chosen_host_at_once,
            lists_are_by_id_filtered_and_paged,
            another_table_moves_waiting_mail,
            aged_mail_is_leased_though_it_is_not_due,
            outcomes_nobody_waits_for_hold_at_once,
            large_bodies_come_back_whole,
            priority_is_leased_first,
            one_sender_does_not_hold_up_another,
            large_mail_comes_last_in_a_lease_and_may_be_left_out,
            small_mail_is_named_while_large_mail_waits,
            mail_that_was_not_tried_keeps_its_place,
            what_becomes_of_a_message_elsewhere_costs_it_no_place,
            mail_waits_for_its_release,
            mail_for_later_is_not_in_the_way_of_aged_mail,
            overdue_mail_is_named,
            an_id_is_taken_once,
        );)*
    };
}

fn in_memory() -> (Store, ()) {
    (
        Store::Memory(Arc::new(super::memory::Memory::new(
            table(&[]),
            Clock::real(),
            Arc::default(),
        ))),
        (),
    )
}

fn on(disk: Disk, directory: &Path) -> Store {
    Store::open(disk, settings(directory), surroundings()).unwrap()
}

fn on_disk() -> (Store, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    (on(Disk::Real, home.path()), home)
}

fn on_modelled_disk() -> (Store, ()) {
    (on(Disk::Modelled(Arc::new(Modelled::new(1))), Path::new("/spool/Queue")), ())
}

arms! {
    memory: in_memory;
    log: on_disk;
    log_on_modelled_disk: on_modelled_disk;
}
