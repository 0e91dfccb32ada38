//! Watches the queue for routes with due mail and hands them to their lanes.

use std::sync::Arc;
use std::time::Duration;

use mailroot_common::units::Timestamp;
use tokio::task::JoinHandle;

use super::age::age;
use super::fetch;
use super::returning::settle_waiting;
use super::room::Room;
use crate::observe::Level;

/// How often mail of lanes in trouble is looked through for what has become too old.
const AGE_EVERY: Duration = Duration::from_secs(30);
/// The longest sleep, so that a jump of the wall clock is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Runs until delivery is stopped.
pub(super) async fn run(room: Arc<Room>) {
    let mut age_at = room.clock.elapsed() + AGE_EVERY;
    let mut aging: Option<JoinHandle<()>> = None;
    let mut returning: Option<JoinHandle<()>> = None;
    let mut rest_ends: Option<Timestamp> = None;
    while !room.is_halted() {
        follow_clock(&room).await;
        let due = room.queue.next_due(room.clock.now());
        due.routes.into_iter().for_each(|route| room.on_due(route));
        room.heed_openings();
        fetch::begin_all(&room);
        room.feed_woken();
        let lanes_at = room.feed_waking();
        let wall = room.clock.now();
        if rest_ends.is_some_and(|end| end <= wall) {
            room.feed_all();
        }
        rest_ends = room.queue.orders().next_end(wall);
        let rest_in = rest_ends.map(|end| end.since(wall).as_duration());
        let mut trouble_in = None;
        let is_late = due.deadline_at.is_some_and(|at| at <= wall);
        let is_free = returning.as_ref().is_none_or(JoinHandle::is_finished);
        if is_free && (is_late || room.has_ordered()) {
            let pause = room.pause_left();
            if pause.is_zero() {
                returning = Some(tokio::spawn(settle_waiting(Arc::clone(&room))));
            } else {
                trouble_in = Some(pause);
            }
        }
        let now = room.clock.elapsed();
        if age_at <= now {
            age_at = now + AGE_EVERY;
            room.feed_all();
            if aging.as_ref().is_none_or(JoinHandle::is_finished) {
                aging = Some(tokio::spawn(age(Arc::clone(&room))));
            }
        }
        let deadline_at = due.deadline_at.filter(|_| !is_late);
        let mail_at = due.wake_at.into_iter().chain(deadline_at).min();
        let mail_in = mail_at.map(|at| at.since(room.clock.now()).as_duration());
        let lanes_in = lanes_at.map(|at| at.saturating_sub(now));
        let age_in = age_at.saturating_sub(now);
        let sleep =
            [mail_in, lanes_in, trouble_in, rest_in, Some(age_in)].into_iter().flatten().min();
        // A wake-up a moment early would find nothing and turn again at once.
        let sleep = sleep.unwrap_or(SLEEP_MAX).clamp(Duration::from_millis(1), SLEEP_MAX);
        tokio::select! {
            () = room.queue.wait_for_work() => {}
            () = room.queue.opened() => {}
            () = room.again() => room.feed_all(),
            () = room.sooner() => {}
            () = room.sites.bell() => {}
            () = room.clock.sleep(sleep) => {}
            () = room.halted() => {}
        }
    }
}

/// Says and counts how the wall clock jumped, and has the mail follow.
async fn follow_clock(room: &Room) {
    for jump in room.queue.follow_clock().await {
        room.counters.clock_jumps.add_one();
        let line = room.log.line(Level::Warn, "clock_jumped").word("server", &room.server);
        line.word("by", jump).word("from", jump.before).word("to", jump.after).send();
    }
}
