//! What must go on when something around delivery is wrong.

use smtpd_core::queue::wishes::{ByMode, DeliverBy};

use super::*;
use crate::disk::Disk;
use crate::tls::{Memory, Recall};

/// A dead host for `x.test`.
fn dead(house: &House) {
    house.dns.add_mx(&domain("x.test"), 10, Some(domain("mx.x.test")));
    house.dns.add_address(&domain("mx.x.test"), "192.0.2.1".parse().unwrap());
}

#[tokio::test(start_paused = true)]
async fn connection_made_by_earlier_settings_is_not_used_by_later_ones() {
    let house = House::new(|_| {});
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest());
    house.accept("a@src.test", &["b@x.test"]).await;
    while peer.mail().is_empty() {
        house.clock.sleep(Duration::from_millis(1)).await;
    }
    // The worker has the connection still in its hands, in case more mail comes.
    let mut settings = Settings::clone(&house.deliver.0.settings.load());
    settings.host = domain("new.home.test");
    house.deliver.reconfigure(settings);
    house.clock.sleep(Duration::from_secs(1)).await;
    house.accept("a@src.test", &["b@x.test"]).await;
    house.until_empty().await;
    assert_eq!((peer.sessions(), peer.mail().len()), (2, 2));
    assert!(peer.saw("EHLO new.home.test"));
}

#[tokio::test(start_paused = true)]
async fn kept_connection_is_not_used_where_more_is_demanded_by_now() {
    let mut known = None;
    let house = House::new(|settings| {
        let file = settings.badmail.settings().directory.with_file_name("tls-hosts");
        let clock = Clock::simulated(START, 7);
        let memory = Memory::open(Disk::Real, file, clock, Log::quiet());
        settings.recall = Some(Recall::new(memory, "system", Span::days(30)));
        known.clone_from(&settings.recall);
    });
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest());
    house.accept("a@src.test", &["b@x.test"]).await;
    while peer.mail().is_empty() {
        house.clock.sleep(Duration::from_millis(1)).await;
    }
    // The worker has the connection still in its hands. The host proves itself elsewhere.
    known.unwrap().saw(&domain("mx10.x.test"));
    house.accept("a@src.test", &["b@x.test"]).await;
    house.until("it counts as tried", async |house| house.log().contains("event=deferred")).await;
    assert!(house.log().contains("had a good certificate before"), "{}", house.log());
    assert_eq!(peer.mail().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn notice_of_lateness_that_could_not_be_recorded_is_given_later() {
    let house = House::new(|_| {});
    dead(&house);
    let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
    let at = START.after(Span::minutes(30));
    house
        .accept_with("a@src.test", &["b@x.test"], |envelope| {
            let by = DeliverBy { at, mode: ByMode::Notify, trace: false };
            envelope.wishes.deliver_by = Some(by);
        })
        .await;
    house.clock.sleep(Duration::from_mins(29)).await;
    house.queue.memory().unwrap().refuse(&[std::io::ErrorKind::Other]);
    house.clock.sleep(Duration::from_mins(3)).await;
    assert!(house.log().contains("event=settle-failed"), "{}", house.log());
    let mail = sender.mail();
    assert!(mail.len() == 1 && mail[0].body.contains("Action: delayed"), "{mail:?}");
}

#[tokio::test(start_paused = true)]
async fn much_mail_behind_a_dead_destination_grows_too_old_together() {
    let house = House::new(|settings| {
        settings.schedules.outbound.expire = Span::hours(6);
        settings.schedules.outbound.delay_notice = None;
    });
    dead(&house);
    house.peer("src.test", 10, "192.0.2.9", Script::honest());
    for _ in 0..700 {
        house.accept("a@src.test", &["b@x.test"]).await;
    }
    house.clock.sleep(Span::hours(6).as_duration() + Duration::from_secs(45)).await;
    assert_eq!(house.log().matches("event=expired").count(), 700);
}

#[tokio::test(start_paused = true)]
async fn lane_that_waits_for_a_free_worker_does_not_keep_the_dispatcher_busy() {
    let house = House::new(|settings| settings.connections_max = 1);
    let first = house.peer("x.test", 10, "192.0.2.1", Script::with("END silence").times(1));
    let second = house.peer("y.test", 10, "192.0.2.2", Script::honest());
    house.accept("a@src.test", &["b@x.test"]).await;
    house.until("the first is under way", async |_| first.sessions() == 1).await;
    house.accept("a@src.test", &["b@y.test"]).await;
    house.clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(second.sessions(), 0);
    house.deliver.0.feed_all();
    let wake_at = house.deliver.0.feed_waking();
    assert!(wake_at.is_none_or(|at| at > house.clock.elapsed()), "{wake_at:?}");
    house.until("the second is delivered", async |_| second.mail().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn kept_connections_count_and_the_longest_idle_makes_way() {
    let house = House::new(|settings| settings.connections_max = 3);
    let peers: Vec<Peer> = (0..6)
        .map(|n| {
            let address = format!("192.0.2.{}", n + 1);
            house.peer(&format!("d{n}.test"), 10, &address, Script::honest())
        })
        .collect();
    for (n, peer) in peers.iter().enumerate() {
        house.accept("a@src.test", &[&format!("b@d{n}.test")]).await;
        house.until("it is delivered", async |_| peer.mail().len() == 1).await;
        assert!(house.deliver.sessions().len() <= 3, "after {n}");
    }
    let open: Vec<String> =
        house.deliver.sessions().iter().map(|view| view.host.to_string()).collect();
    assert!(open.iter().any(|host| host.contains("d5.test")), "{open:?}");
    assert!(!open.iter().any(|host| host.contains("d0.test")), "{open:?}");
}

#[tokio::test(start_paused = true)]
async fn lanes_that_wait_for_a_worker_get_one_in_their_order() {
    let house = House::new(|settings| {
        settings.connections_max = 1;
        settings.reuse = None;
    });
    let slow = house.peer("slow.test", 10, "192.0.2.1", Script::with("END silence").times(1));
    house.accept("a@src.test", &["b@slow.test"]).await;
    house.until("the only worker is busy", async |_| slow.sessions() == 1).await;
    let peers: Vec<Peer> = (0..20)
        .map(|n| {
            let address = format!("192.0.2.{}", n + 10);
            house.peer(&format!("d{n}.test"), 10, &address, Script::honest())
        })
        .collect();
    for n in 0..peers.len() {
        house.accept("a@src.test", &[&format!("b@d{n}.test")]).await;
        house.clock.sleep(Duration::from_millis(10)).await;
    }
    house
        .until("all are delivered", async |_| peers.iter().all(|peer| peer.mail().len() == 1))
        .await;
    let log = house.log();
    let order: Vec<usize> = (0..peers.len())
        .map(|n| log.find(&format!("to=<b@d{n}.test> reply=\"250")).unwrap())
        .collect();
    assert!(order.is_sorted(), "{log}");
}
