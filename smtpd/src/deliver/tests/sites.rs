//! Domains whose mail goes to the same hosts.

use super::*;

const DOMAINS: usize = 40;

impl House {
    /// Domains that have the same hosts.
    fn hosted(&self, domains: usize) {
        for n in 0..domains {
            self.dns.add_mx(&domain(&format!("d{n}.test")), 10, Some(domain("mx.big.test")));
        }
        self.dns.add_address(&domain("mx.big.test"), "192.0.2.1".parse().unwrap());
    }

    async fn write_to_all(&self, domains: usize) {
        for n in 0..domains {
            self.accept("a@src.test", &[&format!("b@d{n}.test")]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn domains_with_the_same_hosts_share_its_connections() {
    let house = House::new(|settings| settings.connections_per_route = 3);
    house.hosted(DOMAINS);
    let peer = Peer::start(&house.net, "192.0.2.1:25", Script::honest());
    for _ in 0..5 {
        house.write_to_all(DOMAINS).await;
    }
    house.until_empty().await;
    assert_eq!(peer.mail().len(), 5 * DOMAINS);
    assert_eq!(peer.most_open(), 3);
    assert!(!house.log().contains("event=deferred"), "{}", house.log());
    assert!(house.clock.now().since(START) < Span::seconds(60), "nobody waits in vain");
}

#[tokio::test(start_paused = true)]
async fn busy_domain_does_not_keep_the_others_of_its_site_out() {
    let house = House::new(|settings| settings.connections_per_route = 1);
    house.hosted(2);
    let peer = Peer::start(&house.net, "192.0.2.1:25", Script::honest());
    let pause = DestinationPause {
        server: String::new(),
        destination: "*".to_owned(),
        by: "anna".to_owned(),
        reason: None,
        since: START,
        until: Some(START.after(Span::hours(1))),
        messages: 0,
    };
    house.queue.orders().pause(pause, START).await.unwrap();
    for n in 0..2_000 {
        house.accept("a@src.test", &[&format!("u{n}@d0.test")]).await;
    }
    house.accept("a@src.test", &["b@d1.test"]).await;
    house.until_empty().await;
    let order: Vec<String> = peer.mail().into_iter().flat_map(|mail| mail.recipients).collect();
    let place = order.iter().position(|to| to == "<b@d1.test>").unwrap();
    assert!(place < 600, "{place}");
}

#[tokio::test(start_paused = true)]
async fn one_domain_asks_for_all_how_a_dead_site_fares() {
    let house = House::new(|_| {});
    house.hosted(DOMAINS);
    house.write_to_all(DOMAINS).await;
    house.clock.sleep(Duration::from_hours(1)).await;
    let tries = house.counters.outbound_failures.value();
    assert!((3..=15).contains(&tries), "{tries} calls in an hour for {DOMAINS} domains");
    let lanes = house.deliver.lanes();
    let words = |lane: &LaneView| lane.last.as_ref().map(|last| last.text.to_string());
    assert!(lanes.iter().all(|it| words(it).as_deref() == Some("connection refused")), "{lanes:?}");
    let peer = Peer::start(&house.net, "192.0.2.1:25", Script::honest());
    let back = house.clock.now();
    // Few were tried so far and wait by the schedule; the others go when the site answers.
    house.until("most are delivered", async |_| peer.mail().len() >= DOMAINS - 15).await;
    let passed = house.clock.now().since(back);
    assert!(passed < Span::minutes(17), "one retry of the site: {passed}");
    house.until_empty().await;
    assert_eq!(peer.mail().len(), DOMAINS);
}

#[tokio::test(start_paused = true)]
async fn mail_behind_a_dead_site_is_returned_when_its_time_is_up() {
    let house = House::new(|settings| settings.schedules.outbound.expire = Span::hours(6));
    house.hosted(DOMAINS);
    house.peer("src.test", 10, "192.0.2.9", Script::honest());
    house.write_to_all(DOMAINS).await;
    house.until_empty().await;
    assert_eq!(house.log().matches("event=expired").count(), DOMAINS, "{}", house.log());
}

#[tokio::test(start_paused = true)]
async fn what_one_domain_is_asked_holds_for_all_of_its_site() {
    let house = House::new(|_| {});
    house.hosted(2);
    let script = Script::with("MAIL 421 4.7.0 too much mail, slow down").after_messages(0);
    let peer = Peer::start(&house.net, "192.0.2.1:25", script);
    house.accept("a@src.test", &["b@d0.test"]).await;
    house
        .until("the first is asked for less", async |house| {
            house.counters.destinations_slowed.value() == 1
        })
        .await;
    let sessions = peer.sessions();
    house.accept("a@src.test", &["b@d0.test"]).await;
    house.accept("a@src.test", &["b@d1.test"]).await;
    house.clock.sleep(Duration::from_secs(10)).await;
    assert_eq!(peer.sessions(), sessions, "the other domain waits as well");
    house.clock.sleep(Duration::from_secs(60)).await;
    assert!(peer.sessions() > sessions, "and asks again");
}

#[tokio::test(start_paused = true)]
async fn domain_that_moves_away_is_free_of_its_old_site() {
    let house = House::new(|_| {});
    house.hosted(2);
    house.write_to_all(2).await;
    house.clock.sleep(Duration::from_mins(30)).await;
    house.dns.set_mx(&domain("d1.test"), 10, Some(domain("mx.own.test")));
    house.dns.add_address(&domain("mx.own.test"), "192.0.2.2".parse().unwrap());
    let own = Peer::start(&house.net, "192.0.2.2:25", Script::honest());
    house.until("the mail has moved", async |_| own.mail().len() == 1).await;
    assert!(house.clock.now().since(START) < Span::hours(5));
}

/// The usual house, with an entry for one of the domains.
fn with_entry(entry: impl FnOnce(RemoteDomain) -> RemoteDomain) -> House {
    House::new(|settings| {
        let plain = RemoteDomain::plain(Pattern::parse("d0.test").unwrap());
        let domain = entry(RemoteDomain { route: RemoteRoute::Mx, ..plain });
        let of_table = settings.table.settings().clone();
        let of_table = table::Settings { remote_domains: vec![domain], ..of_table };
        settings.table = Arc::new(Table::new(of_table).unwrap());
    })
}

#[tokio::test(start_paused = true)]
async fn what_one_domain_demands_of_its_hosts_is_no_matter_of_the_others() {
    let house = with_entry(|it| RemoteDomain { tls: Some(TlsPolicy::Required), ..it });
    house.hosted(2);
    let peer = Peer::start(&house.net, "192.0.2.1:25", Script::honest());
    house.accept("a@src.test", &["b@d1.test"]).await;
    house.until("a connection idles", async |_| peer.mail().len() == 1).await;
    house.accept("a@src.test", &["b@d0.test"]).await;
    house.until("it counts as tried", async |house| house.log().contains("event=deferred")).await;
    assert!(house.log().contains("STARTTLS"), "{}", house.log());
    let before = house.clock.now();
    house.accept("a@src.test", &["c@d1.test"]).await;
    house.until("the other domain goes on", async |_| peer.mail().len() == 2).await;
    assert!(house.clock.now().since(before) < Span::seconds(10));
    assert_eq!(house.log().matches("event=deferred").count(), 1, "and it is not tried in a circle");
}

#[tokio::test(start_paused = true)]
async fn limit_of_one_domain_is_no_limit_of_its_site() {
    let limits = smtpd_core::route::domain::Limits { connections: Some(1), ..Default::default() };
    let house = with_entry(|it| RemoteDomain { limits, ..it });
    house.hosted(2);
    let peer = Peer::start(&house.net, "192.0.2.1:25", Script::honest());
    for n in 0..400 {
        house.accept("a@src.test", &[&format!("u{n}@d0.test")]).await;
        house.accept("a@src.test", &[&format!("u{n}@d1.test")]).await;
    }
    house.until_empty().await;
    assert_eq!(peer.mail().len(), 800);
    assert!(peer.most_open() > 2, "{}", peer.most_open());
    assert!(house.clock.now().since(START) < Span::seconds(60));
}

#[tokio::test(start_paused = true)]
async fn large_mail_leaves_half_of_a_site_to_other_mail_whatever_lanes_it_is_on() {
    let house = House::new(|settings| settings.connections_per_route = 4);
    house.hosted(8);
    // Large mail takes as long as the host wants.
    let script = Script::with("MAIL FROM:<large@ silence");
    let peer = Peer::start(&house.net, "192.0.2.1:25", script);
    for n in 0..6 {
        house.accept_octets("large@src.test", &format!("l@d{n}.test"), LARGE_OCTETS).await;
    }
    house.clock.sleep(Duration::from_secs(1)).await;
    for _ in 0..5 {
        house.write_to_all(8).await;
    }
    house.until("the small mail is there", async |_| peer.mail().len() == 40).await;
    let passed = house.clock.now().since(START);
    assert!(passed < Span::seconds(30), "nothing waits for large mail: {passed} {}", house.log());
    // When one is given up, another is tried: nobody is forgotten.
    let tried = |house: &House| {
        let log = house.log();
        (0..6).filter(|n| log.contains(&format!("to=<l@d{n}.test>"))).count()
    };
    house.until("all were tried", async |house| tried(house) == 6).await;
    assert!(house.clock.now().since(START) < Span::minutes(30));
}
