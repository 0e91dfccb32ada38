//! A wall clock that is set while mail waits: waits and ages are what they would have been.

use super::*;

const DAY: i64 = 86_400_000;
const JUMPS: [i64; 4] = [DAY, -DAY, 3650 * DAY, -3650 * DAY];

/// One message that was tried once and waits, and a jump.
async fn waiting(script: &str, by: i64) -> (House, Peer, Peer) {
    let house = House::new(|_| {});
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::with(script));
    let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
    house.accept("a@src.test", &["b@x.test"]).await;
    house.until("an attempt", async |_| peer.sessions() == 1).await;
    house.clock.sleep(Duration::from_secs(5)).await;
    house.clock.jump_by(by);
    (house, peer, sender)
}

/// Hours, counted in whole ones, until the condition holds.
async fn hours_until(house: &House, condition: impl Fn() -> bool) -> u32 {
    for hours in 0..200 {
        if condition() {
            return hours;
        }
        house.clock.sleep(Duration::from_hours(1)).await;
    }
    panic!("it never came: {}", house.log());
}

#[tokio::test(start_paused = true)]
async fn mail_is_tried_again_after_the_wait_it_had_wherever_the_clock_goes() {
    for by in JUMPS {
        for script in ["RCPT 450 4.2.1 grey", "GREETING 421 4.3.2 busy"] {
            let (house, peer, _sender) = waiting(script, by).await;
            let since = house.clock.elapsed();
            house.until("another attempt", async |_| peer.sessions() == 2).await;
            let waited = house.clock.elapsed().saturating_sub(since);
            assert!(waited > Duration::from_secs(50), "{by} {script}: {waited:?}");
            assert!(waited < Duration::from_secs(120), "{by} {script}: {waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_jump_brings_no_notice_and_no_end_before_their_time() {
    for by in JUMPS {
        for script in ["RCPT 450 4.2.1 grey", "GREETING 421 4.3.2 busy"] {
            let (house, _peer, sender) = waiting(script, by).await;
            let place = format!("{by} {script}");
            let noticed = hours_until(&house, || !sender.mail().is_empty()).await;
            assert!(sender.mail()[0].body.contains("Action: delayed"), "{place}");
            assert!((12..17).contains(&noticed), "{place}: after {noticed} hours");
            let ended = noticed + hours_until(&house, || sender.mail().len() > 1).await;
            assert!(sender.mail()[1].body.contains("Action: failed"), "{place}");
            // A moment that a clock set back shows again is taken for the later one.
            let end_max = if by == -DAY { 101 + 24 } else { 101 };
            assert!((96..end_max).contains(&ended), "{place}: after {ended} hours");
            house.until_empty().await;
            assert_eq!(sender.mail().len(), 2, "{place}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn mail_accepted_after_a_jump_lives_as_long_as_any() {
    for by in JUMPS {
        let (house, peer, _sender) = waiting("RCPT TO:<never@ 450 4.2.1 grey", by).await;
        house.until("the first is gone", async |_| peer.mail().len() == 1).await;
        house.accept("a@src.test", &["never@x.test", "b@x.test"]).await;
        house.until("the one that can", async |_| peer.mail().len() == 2).await;
        let ended = hours_until(&house, || house.queue.counts().messages == 0).await;
        assert!((96..101).contains(&ended), "{by}: after {ended} hours");
    }
}

#[tokio::test(start_paused = true)]
async fn a_jump_is_said_and_counted_once() {
    for (by, said) in [(DAY, "by=+86400.000"), (-DAY, "by=-86400.000")] {
        let (house, peer, _sender) = waiting("RCPT 450 4.2.1 grey", by).await;
        house.until("another attempt", async |_| peer.sessions() == 2).await;
        house.clock.sleep(Duration::from_hours(1)).await;
        let log = house.log();
        assert_eq!(log.matches("event=clock_jumped").count(), 1, "{log}");
        assert!(log.contains(said), "{log}");
        assert_eq!(house.counters.clock_jumps.value(), 1);
    }
}
