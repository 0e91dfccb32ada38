//! Watches the queue for routes with due mail and hands them to their lanes.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::age::age;
use super::room::Room;

/// How often mail of lanes in trouble is looked through for what has become too old.
const AGE_EVERY: Duration = Duration::from_secs(30);
/// The longest sleep, so that a clock that was set does not leave mail asleep.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Runs until delivery is stopped.
pub(super) async fn run(room: Arc<Room>) {
    let mut lanes_at = room.feed_all();
    let mut age_at = room.clock.elapsed() + AGE_EVERY;
    let mut aging: Option<JoinHandle<()>> = None;
    while !room.is_halted() {
        let due = room.queue.next_due(room.clock.now());
        for route in due.routes {
            let waits_until = room.on_due(route);
            lanes_at = lanes_at.into_iter().chain(waits_until).min();
        }
        let now = room.clock.elapsed();
        if lanes_at.is_some_and(|at| at <= now) {
            lanes_at = room.feed_all();
        }
        if age_at <= now {
            age_at = now + AGE_EVERY;
            lanes_at = room.feed_all();
            if aging.as_ref().is_none_or(JoinHandle::is_finished) {
                aging = Some(tokio::spawn(age(Arc::clone(&room))));
            }
        }
        let mail_in = due.wake_at.map(|at| at.since(room.clock.now()).as_duration());
        let lanes_in = lanes_at.map(|at| at.saturating_sub(now));
        let age_in = age_at.saturating_sub(now);
        let sleep = [mail_in, lanes_in, Some(age_in)].into_iter().flatten().min();
        // A wake-up a moment early would find nothing and turn again at once.
        let sleep = sleep.unwrap_or(SLEEP_MAX).clamp(Duration::from_millis(1), SLEEP_MAX);
        tokio::select! {
            () = room.queue.wait_for_work() => {}
            () = room.again() => lanes_at = room.feed_all(),
            () = room.clock.sleep(sleep) => {}
            () = room.halted() => {}
        }
    }
}
