//! How much mail a lane sends at once, and how fast.

use smtpd_core::route::domain::Limits;

use super::*;

/// The usual house, with limits for the domains that a pattern means.
fn limited(pattern: &str, limits: Limits) -> House {
    House::new(|settings| {
        let domain = RemoteDomain {
            limits,
            route: RemoteRoute::Mx,
            ..RemoteDomain::plain(Pattern::parse(pattern).unwrap())
        };
        let of_table = settings.table.settings().clone();
        let of_table = table::Settings { remote_domains: vec![domain], ..of_table };
        settings.table = Arc::new(Table::new(of_table).unwrap());
    })
}

#[tokio::test(start_paused = true)]
async fn a_host_that_asks_for_less_is_left_alone_and_its_mail_waits_untried() {
    for words in ["421 4.7.0 try again later", "450 4.7.28 unusual rate of mail", "432 4.3.2 busy"]
    {
        let house = House::new(|_| {});
        let script = Script::with(&format!("MAIL {words}")).times(20);
        let peer = house.peer("x.test", 10, "192.0.2.1", script);
        for _ in 0..200 {
            house.accept("a@src.test", &["b@x.test"]).await;
        }
        house.until("the first answer", async |house| house.log().contains("deferred")).await;
        house.clock.sleep(Duration::from_secs(5)).await;
        let view = house.deliver.lanes().remove(0);
        assert!(matches!(view.state, LaneState::BackingOff { failures: 1, .. }), "{view:?}");
        assert!(view.last.unwrap().text.contains(words.rsplit(' ').next().unwrap()));
        house.until_empty().await;
        let deferred = house.log().matches("event=deferred").count();
        assert_eq!(deferred, 20, "{words}: each answer is about one message");
        assert_eq!(peer.mail().len(), 200);
        let passed = house.clock.now().since(START);
        assert!(passed >= Span::hours(3) && passed < Span::hours(12), "{passed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_carried_enough_is_followed_by_the_next_at_once() {
    let house = House::new(|_| {});
    let script = Script::with("MAIL 421 4.7.0 Too many messages here").after_messages(3);
    let peer = house.peer("x.test", 10, "192.0.2.1", script);
    for _ in 0..30 {
        house.accept("a@src.test", &["b@x.test"]).await;
    }
    house.until_empty().await;
    assert_eq!((peer.mail().len(), house.counters.destinations_slowed.value()), (30, 0));
    assert!(house.clock.now().since(START) < Span::minutes(2));
}

#[tokio::test(start_paused = true)]
async fn mail_leaves_at_its_rate() {
    let rate = Some(mailroot_common::rate::Rate::per_minute(30));
    let house = limited("x.test", Limits { rate, ..Limits::default() });
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest());
    let other = house.peer("y.test", 10, "192.0.2.2", Script::honest());
    for _ in 0..65 {
        house.accept("a@src.test", &["b@x.test"]).await;
        house.accept("a@src.test", &["b@y.test"]).await;
    }
    house.until("the unlimited one", async |_| other.mail().len() == 65).await;
    assert!(peer.mail().len() < 15, "{}", peer.mail().len());
    house.until_empty().await;
    let passed = house.clock.now().since(START);
    assert!(passed >= Span::seconds(119) && passed < Span::seconds(130), "{passed}");
    assert!(!house.log().contains("event=deferred"), "waiting for a turn is no delay");
}

#[tokio::test(start_paused = true)]
async fn lanes_of_one_entry_share_its_connections() {
    let limits = Limits { connections: Some(2), ..Limits::default() };
    let house = limited("*.x.test", limits);
    let peers = [
        house.peer("a.x.test", 10, "192.0.2.1", Script::honest()),
        house.peer("b.x.test", 10, "192.0.2.2", Script::honest()),
        house.peer("c.x.test", 10, "192.0.2.3", Script::honest()),
    ];
    for n in 0..40 {
        for name in ["a", "b", "c"] {
            house.accept(&format!("{n}@src.test"), &[&format!("b@{name}.x.test")]).await;
        }
    }
    house
        .until("all of it", async |house| {
            let open = house.deliver.sessions().len();
            assert!(open <= 2, "{open} at once");
            house.queue.counts().messages == 0
        })
        .await;
    assert!(peers.iter().all(|peer| peer.mail().len() == 40));
    assert!(!house.log().contains("event=deferred"), "waiting for a turn is no delay");
}

#[tokio::test(start_paused = true)]
async fn nobody_looks_again_and_again_for_mail_while_large_mail_waits() {
    let house = House::new(|settings| settings.connections_per_route = 4);
    let script = Script::with("MAIL FROM:<large@ silence");
    let peer = house.peer("x.test", 10, "192.0.2.1", script);
    for _ in 0..6 {
        house.accept_octets("large@src.test", "b@x.test", LARGE_OCTETS).await;
    }
    for round in 1..=30 {
        house.accept("a@src.test", &["b@x.test"]).await;
        let before = house.clock.now();
        house.until("small mail goes", async |_| peer.mail().len() == round).await;
        assert!(house.clock.now().since(before) < Span::seconds(1));
        house.clock.sleep(Duration::from_secs(1)).await;
        let lanes = house.deliver.lanes();
        assert_eq!(lanes[0].workers, 2, "those that carry large mail: {lanes:?}");
    }
}
