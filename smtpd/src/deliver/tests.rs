//! Delivery against made-up peers on a made-up network, in made-up time.

mod clock;
mod lanes;
mod peer;
mod simulation;
mod sites;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::{Domain, Mailbox, ReversePath};
use mailroot_common::config::Profile;
use mailroot_common::config::section::Section as _;
use mailroot_common::config::tls::Tls;
use mailroot_common::control::{DestinationPause, Selector, TraceEntry};
use mailroot_common::id::QueueId;
use mailroot_common::units::{ByteSize, Span, Timestamp};
use smtpd_core::policy::access::List;
use smtpd_core::policy::relay::{RelayCertificates, RelayPolicy};
use smtpd_core::queue::dispose::InDoubtPolicy;
use smtpd_core::queue::envelope::{BodyKind, Envelope, Notify, Origin, Recipient, Via};
use smtpd_core::queue::outcome::AttemptResult;
use smtpd_core::queue::recipient::Phase;
use smtpd_core::queue::retry::{Schedule, Schedules};
use smtpd_core::queue::turns::LARGE_OCTETS;
use smtpd_core::route::domain::{Held, Pattern, RemoteDomain, RemoteRoute};
use smtpd_core::route::loopback::AddressRule;
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::route::table::{self, DirectFirst, Table};
use smtpd_core::smtp::client::Timeouts;
use smtpd_core::smtp::etrn::Etrn;

use super::*;
use crate::badmail;
use crate::drop;
use crate::https::Https;
use crate::net::SimulatedNet;
use crate::oauth::{Cache, Tokens};
use crate::observe::{Format, Level, SessionIds, Sink};
use crate::queue::{Asked, Body, Draft};
use crate::resolve::SimulatedDns;
use peer::{Peer, Script};

const START: Timestamp = Timestamp::from_millis(1_763_000_000_000);

/// A running delivery with everything around it.
struct House {
    deliver: Deliver,
    queue: Queue,
    net: Net,
    dns: SimulatedDns,
    clock: Clock,
    counters: Arc<Counters>,
    trace: Trace,
    lines: Sink,
    folder: tempfile::TempDir,
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn table(smart_hosts: &[&str], direct_first: DirectFirst) -> Arc<Table> {
    let smart_hosts = smart_hosts.iter().map(|text| SmartHost::parse(text).unwrap()).collect();
    Arc::new(
        Table::new(table::Settings {
            default_domain: domain("home.test"),
            alias_domains: Vec::new(),
            sender_routes: Vec::new(),
            remote_domains: Vec::new(),
            smart_hosts,
            direct_first,
        })
        .unwrap(),
    )
}

fn envelope(sender: &str, recipients: &[&str], accepted_at: Timestamp) -> Envelope {
    let recipient = |text: &&str| Recipient::plain(Mailbox::parse(text).unwrap());
    Envelope {
        hold: None,
        tls_optional: false,
        sender: ReversePath::parse(sender).unwrap(),
        recipients: recipients.iter().map(recipient).collect(),
        accepted_at,
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        hops: 1,
        origin: Origin {
            via: Via::Smtp,
            client: None,
            helo: None,
            session: None,
            source: None,
            user: None,
            uid: None,
            checks: None,
        },
        message_id: None,
        subject: None,
        wishes: smtpd_core::queue::wishes::Wishes::default(),
    }
}

/// The usual settings, with Drop and Badmail in a folder.
fn relay_policy() -> RelayPolicy {
    RelayPolicy {
        list: List::default(),
        authenticated: true,
        certificates: RelayCertificates::None,
        anonymous: true,
    }
}

fn settings(
    folder: &std::path::Path,
    clock: &Clock,
    log: &Log,
    counters: &Arc<Counters>,
    dns: &SimulatedDns,
) -> Settings {
    let drop = drop::Settings {
        server: "test".into(),
        directory: folder.join("Drop"),
        format: drop::Format::Eml,
        quota: None,
        host: "home.test".into(),
    };
    let badmail = badmail::Settings {
        server: "test".into(),
        directory: folder.join("Badmail"),
        keep: None,
        max_size: None,
    };
    let badmail = Badmail::new(badmail, clock.clone(), log.clone(), Arc::clone(counters));
    Settings {
        directory: None,
        table: table(&[], DirectFirst::Never),
        schedules: Schedules {
            outbound: Schedule { jitter_percent: 0, ..Schedule::outbound() },
            local: Schedule { jitter_percent: 0, ..Schedule::local() },
        },
        in_doubt: InDoubtPolicy::Retry,
        host: domain("relay.home.test"),
        other_names: Vec::new(),
        senders: SenderRules::default(),
        max_hops: 100,
        resolver: Resolver::Simulated(dns.clone()),
        family: Family::Any,
        addresses: AddressRule::default(),
        sources: Vec::new(),
        port: 25,
        tls: ClientTls::new(&Tls::defaults(Profile::Modern)),
        tls_policy: TlsPolicy::Optional,
        smart_hosts: Arc::default(),
        secrets: Secrets::in_directory(folder),
        tokens: Tokens::new(
            Cache::new(folder, clock.clone(), log.clone()),
            Https {
                net: Net::Simulated(SimulatedNet::default()),
                resolver: Resolver::Simulated(dns.clone()),
                tls: ClientTls::new(&Tls::defaults(Profile::Modern)),
            },
            Secrets::in_directory(folder),
        ),
        recall: None,
        tls_reports: None,
        dane: true,
        mta_sts: None,
        signing: Arc::new(Signing::new(&[], Secrets::in_directory(folder), relay_policy())),
        connect_timeout: Duration::from_secs(30),
        timeouts: Timeouts::default(),
        connections_max: 100,
        connections_per_route: 20,
        messages_per_connection: 20,
        reuse: Some(Duration::from_secs(30)),
        drop: DropDirectory::new(drop, clock.clone(), log.clone()),
        badmail,
        ndr_copy_to: None,
        ndr_full_message: false,
    }
}

impl House {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        Self::on(Net::Simulated(SimulatedNet::default()), change)
    }

    fn on(net: Net, change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["Drop", "Badmail"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let clock = Clock::simulated(START, 7);
        let (log, lines) = Log::captured(Format::Logfmt, Level::Info, clock.clone());
        let counters = Arc::new(Counters::default());
        let dns = SimulatedDns::default();
        let mut settings = settings(folder.path(), &clock, &log, &counters, &dns);
        change(&mut settings);
        let queue = Queue::in_memory(clock.clone(), Arc::clone(&settings.table));
        let path = folder.path().join("trace");
        let keys = crate::trace::Settings {
            keep: Span::days(14),
            max_size: ByteSize::mib(1),
            subjects: true,
            dialogues: mailroot_common::config::trace::Dialogues::Off,
        };
        let trace = Trace::open(path, keys, clock.clone(), log.clone()).unwrap();
        let parts = Parts {
            server: "test".into(),
            queue: queue.clone(),
            net: net.clone(),
            clock: clock.clone(),
            log,
            counters: Arc::clone(&counters),
            session_ids: Arc::new(SessionIds::beginning_at(1)),
            dialogues: Default::default(),
            trace: trace.clone(),
            limits: SharedLimits::default(),
        };
        let deliver = Deliver::start(parts, settings);
        Self { deliver, queue, net, dns, clock, counters, trace, lines, folder }
    }

    /// A peer that takes mail for the domain.
    fn peer(&self, of: &str, preference: u16, address: &str, script: Script) -> Peer {
        let name = domain(&format!("mx{preference}.{of}"));
        self.dns.add_mx(&domain(of), preference, Some(name.clone()));
        self.dns.add_address(&name, address.parse().unwrap());
        Peer::start(&self.net, &format!("{address}:25"), script)
    }

    async fn accept(&self, sender: &str, recipients: &[&str]) -> QueueId {
        self.accept_with(sender, recipients, |_| {}).await
    }

    async fn accept_with(
        &self,
        sender: &str,
        recipients: &[&str],
        change: impl FnOnce(&mut Envelope),
    ) -> QueueId {
        let mut envelope = envelope(sender, recipients, self.clock.now());
        change(&mut envelope);
        let body = match envelope.body {
            BodyKind::SevenBit => "From: a@src.test\r\nSubject: hello\r\n\r\n.dot\r\n".as_bytes(),
            _ => "From: a@src.test\r\nSubject: hello\r\n\r\ngr\u{fc}n\r\n".as_bytes(),
        };
        let draft = Draft { envelope, body: Body::Memory(body.to_vec()) };
        self.queue.accept(draft).await.unwrap()
    }

    /// The same with a body of so many octets.
    async fn accept_octets(&self, sender: &str, recipient: &str, octets: u64) {
        let envelope = envelope(sender, &[recipient], self.clock.now());
        let body = vec![b'x'; usize::try_from(octets).unwrap()];
        let draft = Draft { envelope, body: Body::Memory(body) };
        self.queue.accept(draft).await.unwrap();
    }

    /// Waits, in made-up time, until the condition holds.
    async fn until(&self, what: &str, condition: impl AsyncFn(&Self) -> bool) {
        for _ in 0..500_000 {
            if condition(self).await {
                return;
            }
            self.clock.sleep(Duration::from_millis(200)).await;
        }
        panic!("{what}: {}", self.lines.text());
    }

    /// What the trace tells of mail to an address, the newest first.
    async fn stories(&self, to: &str) -> Vec<TraceEntry> {
        let selector = Selector { to: Some(to.to_owned()), ..Selector::default() };
        let (matcher, mut found) = (selector.compile().unwrap(), Vec::new());
        let take = |entry| {
            found.push(entry);
            true
        };
        self.trace.search().await.stories(&matcher, self.clock.now(), 10, take).unwrap();
        found
    }

    async fn until_empty(&self) {
        self.until("the queue is empty", async |house| house.queue.counts().messages == 0).await;
    }

    fn log(&self) -> String {
        self.lines.text()
    }

    fn files(&self, name: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path().join(name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[tokio::test(start_paused = true)]
async fn message_reaches_the_most_preferred_host() {
    let house = House::new(|_| {});
    let first = house.peer("x.test", 10, "192.0.2.1", Script::honest());
    let second = house.peer("x.test", 20, "192.0.2.2", Script::honest());
    let id = house.accept("a@src.test", &["b@x.test", "c@x.test"]).await;
    house.until_empty().await;
    let mail = first.mail();
    assert_eq!(mail.len(), 1);
    assert_eq!(mail[0].sender, "<a@src.test>");
    assert_eq!(mail[0].recipients, ["<b@x.test>", "<c@x.test>"]);
    assert_eq!(mail[0].body, "From: a@src.test\r\nSubject: hello\r\n\r\n.dot\r\n");
    assert_eq!(second.sessions(), 0);
    let log = house.log();
    assert!(log.contains(&format!("event=delivered server=test id={id} rcpt=2")), "{log}");
    assert!(log.contains("relay=mx10.x.test[192.0.2.1]:25"), "{log}");
    assert!(log.contains("to=<c@x.test> reply=\"250 2.0.0 taken\""), "{log}");
    assert_eq!(house.counters.recipients_delivered.value(), 2);
}

#[tokio::test(start_paused = true)]
async fn every_host_is_asked_before_not_now_counts() {
    for fault in [
        "GREETING 421 4.3.2 busy",
        "GREETING 554 5.7.1 go away",
        "MAIL 451 4.3.0 hm",
        "RCPT 450 4.2.0 grey",
        "DATA 451 4.3.0 hm",
        "END 452 4.3.1 full",
        "EHLO 451 4.3.0 hm",
        "MAIL close",
        "GREETING close",
    ] {
        let house = House::new(|_| {});
        let first = house.peer("x.test", 10, "192.0.2.1", Script::with(fault));
        let second = house.peer("x.test", 20, "192.0.2.2", Script::honest());
        house.accept("a@src.test", &["b@x.test"]).await;
        house.until_empty().await;
        assert!(first.sessions() >= 1, "{fault}");
        assert_eq!(second.mail().len(), 1, "{fault}: {}", house.log());
        assert!(!house.log().contains("event=deferred"), "{fault}: {}", house.log());
    }
}

#[tokio::test(start_paused = true)]
async fn host_that_hangs_up_at_ehlo_is_called_again_with_helo() {
    let house = House::new(|_| {});
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::with("EHLO close"));
    house.accept("a@src.test", &["b@x.test"]).await;
    house.until_empty().await;
    assert_eq!((peer.mail().len(), peer.sessions()), (1, 2));
    assert!(peer.saw("HELO relay.home.test"));
}

#[tokio::test(start_paused = true)]
async fn refusal_is_reported_with_the_words_of_the_host() {
    let house = House::new(|settings| {
        settings.ndr_copy_to = Some(Mailbox::parse("watch@src.test").unwrap());
    });
    let fault = "RCPT TO:<no@ 550 5.1.1 no such user here";
    house.peer("x.test", 10, "192.0.2.1", Script::with(fault));
    let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
    house.accept("a@src.test", &["no@x.test", "yes@x.test"]).await;
    house.until_empty().await;
    let mail = sender.mail();
    assert_eq!(mail.len(), 1);
    assert_eq!((mail[0].sender.as_str(), mail[0].recipients.len()), ("<>", 2));
    assert!(mail[0].body.contains("no such user here"), "{}", mail[0].body);
    assert!(!mail[0].body.contains("yes@x.test"));
    let log = house.log();
    assert!(log.contains("event=bounced"), "{log}");
    assert!(log.contains("reply=\"550 5.1.1 no such user here\""), "{log}");
    assert_eq!(house.counters.reports.value(), 1);
}

#[tokio::test(start_paused = true)]
async fn refused_message_that_cannot_be_read_is_reported_and_holds_nobody_up() {
    let house = House::new(|_| {});
    let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
    house.dns.add_mx(&domain("x.test"), 10, Some(domain("mx.x.test")));
    house.dns.add_address(&domain("mx.x.test"), "192.0.2.1".parse().unwrap());
    let id = house.accept("a@src.test", &["b@x.test"]).await;
    house.until("deferred", async |house| house.log().contains("event=deferred")).await;
    house.queue.memory().unwrap().lose_body(id);
    let fault = Script::with("RCPT 550 5.1.1 nobody");
    let _peer = Peer::start(&house.net, "192.0.2.1:25", fault);

    house.until("refused", async |house| house.log().contains("event=bounced")).await;
    let refused_at = house.clock.now();
    house.accept("a@src.test", &["c@src.test"]).await;
    house.until_empty().await;

    assert!(house.clock.now().since(refused_at) < Span::seconds(5), "{}", house.log());
    assert_eq!(house.log().matches("event=bounced").count(), 1);
    assert!(house.log().contains("event=unreadable"), "{}", house.log());
    assert!(sender.mail().iter().any(|mail| mail.body.contains("550 5.1.1 nobody")));
}

#[tokio::test(start_paused = true)]
async fn undeliverable_report_ends_in_badmail_and_never_bounces() {
    let house = House::new(|_| {});
    house.peer("x.test", 10, "192.0.2.1", Script::with("RCPT 550 5.1.1 nobody"));
    house.accept("", &["b@x.test"]).await;
    house.until_empty().await;
    let files = house.files("Badmail");
    assert_eq!(files.len(), 3, "{files:?}");
    let reason = files.iter().find(|name| name.ends_with(".reason")).unwrap();
    let text = std::fs::read_to_string(house.folder.path().join("Badmail").join(reason)).unwrap();
    assert!(text.contains("nobody"), "{text}");
    assert_eq!(house.counters.reports.value(), 0);
}

#[tokio::test(start_paused = true)]
async fn greylisted_message_comes_again_by_the_schedule_and_only_then() {
    let house = House::new(|_| {});
    let peer =
        house.peer("x.test", 10, "192.0.2.1", Script::with("RCPT 450 4.7.1 come back").times(2));
    let id = house.accept("a@src.test", &["b@x.test"]).await;
    house.until("deferred", async |house| house.log().contains("event=deferred")).await;
    let shown = house.queue.show(id).await.unwrap().unwrap();
    let status = &shown.state.recipients[0];
    assert_eq!(status.attempts, 1);
    assert_eq!(status.last.as_ref().unwrap().text, "come back");
    house.until_empty().await;
    assert_eq!(peer.mail().len(), 1);
    // One minute, then five.
    let passed = house.clock.now().since(START);
    assert!(passed >= Span::minutes(6) && passed < Span::minutes(7), "{passed}");
    assert_eq!(house.log().matches("event=deferred").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn dead_destination_is_asked_by_one_message_at_a_time() {
    let house = House::new(|_| {});
    house.dns.add_mx(&domain("x.test"), 10, Some(domain("mx.x.test")));
    house.dns.add_address(&domain("mx.x.test"), "192.0.2.1".parse().unwrap());
    for _ in 0..50 {
        house.accept("a@src.test", &["b@x.test"]).await;
    }
    house.clock.sleep(Duration::from_hours(1)).await;
    let tries = house.counters.outbound_failures.value();
    assert!((3..=8).contains(&tries), "{tries} in an hour");
    let lanes = house.deliver.lanes();
    assert!(matches!(lanes[0].state, LaneState::BackingOff { failures: 3.., .. }), "{lanes:?}");
    assert_eq!(lanes[0].last.as_ref().unwrap().text, "connection refused");
    let peer = Peer::start(&house.net, "192.0.2.1:25", Script::honest());
    house.deliver.flush(None);
    house.until_empty().await;
    assert_eq!(peer.mail().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn host_that_lets_few_in_gets_few_connections_and_all_mail() {
    let house = House::new(|settings| settings.messages_per_connection = 1000);
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest().sessions_max(2));
    for n in 0..200 {
        house.accept("a@src.test", &[&format!("u{n}@x.test")]).await;
    }
    house.until_empty().await;
    assert_eq!(peer.mail().len(), 200);
    assert!(!house.log().contains("event=deferred"), "{}", house.log());
    assert!(house.clock.now().since(START) < Span::seconds(30));
}

#[tokio::test(start_paused = true)]
async fn mail_of_a_paused_destination_is_not_tried_and_grows_too_old() {
    let house = House::new(|settings| settings.schedules.outbound.expire = Span::hours(6));
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest());
    let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
    let pause = DestinationPause {
        server: String::new(),
        destination: "x.*".to_owned(),
        by: "anna".to_owned(),
        reason: Some("new hardware".to_owned()),
        since: START,
        until: Some(START.after(Span::hours(8))),
        messages: 0,
    };
    house.queue.orders().pause(pause, START).await.unwrap();
    house.accept("a@src.test", &["b@x.test"]).await;
    house.until_empty().await;
    let passed = house.clock.now().since(START);
    assert!(passed >= Span::hours(6) && passed < Span::hours(7), "{passed}");
    let report = sender.mail()[0].body.clone();
    assert!(report.contains("paused: new hardware") && !report.contains("anna"), "{report}");
    house.accept("a@src.test", &["c@x.test"]).await;
    house.until_empty().await;
    let passed = house.clock.now().since(START);
    assert!(passed >= Span::hours(8) && passed < Span::hours(9), "{passed}");
    assert_eq!(peer.mail().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn held_mail_is_kept_for_its_own_time_and_tried_once_each_time_it_is_asked_for() {
    let house = House::new(|settings| {
        settings.schedules.outbound.expire = Span::hours(6);
        let held = Held {
            by_etrn: true,
            asked_from: Vec::new(),
            queue: None,
            fetchers: Vec::new(),
            keep: Span::days(10),
        };
        let domain = RemoteDomain {
            held: Some(held),
            route: RemoteRoute::Mx,
            ..RemoteDomain::plain(Pattern::parse("x.test").unwrap())
        };
        let of_table = settings.table.settings().clone();
        let of_table = table::Settings { remote_domains: vec![domain], ..of_table };
        settings.table = Arc::new(Table::new(of_table).unwrap());
    });
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::with("RCPT 451 4.2.1 busy").times(1));
    let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
    house.accept("a@src.test", &["b@x.test"]).await;
    let etrn = Etrn::parse("x.test").unwrap();
    let ask = async || {
        let client = "192.0.2.1".parse().unwrap();
        let table = Arc::clone(&house.deliver.0.settings.load().table);
        house.queue.ask_for(&etrn, client, &table, &Log::quiet()).await
    };
    house.clock.sleep(Duration::from_hours(48)).await;
    assert!(peer.sessions() == 0 && sender.mail().is_empty(), "not tried, and nobody is told");
    assert_eq!(ask().await, Asked::Opened(1));
    house.until("the refusal", async |house| house.log().contains("451")).await;
    house.clock.sleep(Duration::from_hours(48)).await;
    assert_eq!((peer.mail().len(), house.log().matches("event=deferred").count()), (0, 1));
    assert_eq!(ask().await, Asked::Opened(1));
    house.until_empty().await;
    assert_eq!(peer.mail().len(), 1);
    house.accept("a@src.test", &["c@x.test"]).await;
    house.clock.sleep(Duration::from_hours(10 * 24 - 1)).await;
    assert_eq!(house.queue.counts().messages, 1);
    house.clock.sleep(Duration::from_hours(2)).await;
    house.until_empty().await;
    let mail = sender.mail();
    assert_eq!(mail.len(), 1, "no delay was told");
    assert!(mail[0].body.contains("has asked for its mail (ETRN, ATRN)"), "{}", mail[0].body);
}

#[tokio::test(start_paused = true)]
async fn mail_behind_a_dead_destination_is_returned_when_its_time_is_up() {
    let house = House::new(|settings| {
        settings.schedules.outbound.expire = Span::hours(6);
        settings.schedules.outbound.delay_notice = Some(Span::hours(2));
    });
    house.dns.add_mx(&domain("x.test"), 10, Some(domain("mx.x.test")));
    house.dns.add_address(&domain("mx.x.test"), "192.0.2.1".parse().unwrap());
    let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
    for _ in 0..30 {
        house.accept("a@src.test", &["b@x.test"]).await;
    }
    house.until_empty().await;
    let passed = house.clock.now().since(START);
    assert!(passed >= Span::hours(6) && passed < Span::hours(7), "{passed}");
    let mail = sender.mail();
    let count = |word: &str| mail.iter().filter(|mail| mail.body.contains(word)).count();
    assert_eq!((count("(Delay)"), count("(Failure)")), (30, 30));
    assert!(mail.iter().all(|mail| mail.body.contains("connection refused")));
    assert_eq!(house.log().matches("event=expired").count(), 30);
    let one = house.stories("b@x.test").await.remove(0);
    let at = |word: &str| {
        let found = one.events.iter().rev().find(|event| event.event == word);
        found.map(|event| event.at.since(START)).unwrap_or_default()
    };
    assert!(at("delayed") >= Span::hours(2) && at("delayed") < Span::hours(3), "{one:?}");
    assert!(at("expired") >= Span::hours(6), "{one:?}");
    assert_eq!(one.events.iter().filter(|event| event.event == "report").count(), 2, "{one:?}");
    assert!(one.events.is_sorted_by_key(|event| event.at), "{one:?}");
}

#[tokio::test(start_paused = true)]
async fn connection_lost_after_the_end_leaves_the_recipient_in_doubt_until_it_is_taken() {
    let house = House::new(|_| {});
    let other = house.peer("x.test", 20, "192.0.2.2", Script::honest());
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::with("END close").times(1));
    let id = house.accept("a@src.test", &["b@x.test"]).await;
    house.until("in doubt", async |house| house.log().contains("reason=in-doubt")).await;
    let shown = house.queue.show(id).await.unwrap().unwrap();
    assert_eq!(shown.state.recipients[0].phase, Phase::InDoubt);
    assert_eq!(other.mail().len(), 0, "no other host is asked at once: it may be there already");
    house.until_empty().await;
    assert_eq!(peer.mail().len(), 1);
    assert_eq!(house.counters.recipients_in_doubt.value(), 1);
}

#[tokio::test(start_paused = true)]
async fn in_doubt_waits_for_an_operator_or_is_returned_where_that_is_wanted() {
    let house = House::new(|settings| {
        let ask = Pattern::parse("ask.test").unwrap();
        let domain = RemoteDomain {
            in_doubt: Some(InDoubtPolicy::Hold),
            route: RemoteRoute::Mx,
            ..RemoteDomain::plain(ask)
        };
        let of_table = settings.table.settings().clone();
        let of_table = table::Settings { remote_domains: vec![domain], ..of_table };
        settings.table = Arc::new(Table::new(of_table).unwrap());
        settings.in_doubt = InDoubtPolicy::Return;
    });
    let asked = house.peer("ask.test", 10, "192.0.2.1", Script::with("END close").times(1));
    let other = house.peer("x.test", 10, "192.0.2.2", Script::with("END close").times(1));
    let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
    let held = house.accept("a@src.test", &["b@ask.test"]).await;
    house.accept("a@src.test", &["c@x.test"]).await;
    house.until("the report", async |_| sender.mail().len() == 1).await;
    let report = sender.mail()[0].body.clone();
    assert!(report.contains("It is not known whether your message has reached"), "{report}");
    assert_eq!(other.sessions(), 1, "what was returned is not tried again");

    house.clock.sleep(Duration::from_hours(24 * 6)).await;
    let shown = house.queue.show(held).await.unwrap().unwrap();
    assert!(shown.state.recipients[0].awaits_operator(), "it neither is tried nor expires");
    assert_eq!((asked.sessions(), sender.mail().len()), (1, 1));
    assert_eq!(house.queue.retry(&[held], house.clock.now()).await.unwrap(), [held]);
    house.until_empty().await;
    assert_eq!(asked.mail().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_messages_use_several_connections_and_few_messages_each() {
    let house = House::new(|settings| settings.messages_per_connection = 7);
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest());
    for n in 0..100 {
        house.accept("a@src.test", &[&format!("u{n}@x.test")]).await;
    }
    house.until_empty().await;
    let mut recipients: Vec<String> =
        peer.mail().into_iter().flat_map(|mail| mail.recipients).collect();
    recipients.sort();
    recipients.dedup();
    assert_eq!(recipients.len(), 100, "each once");
    assert_eq!(peer.mail().len(), 100);
    assert!(peer.sessions() >= 15, "{}", peer.sessions());
    assert!(peer.most_in_a_session() <= 7);
}

#[tokio::test(start_paused = true)]
async fn peer_that_closes_after_some_messages_gets_the_rest_on_new_sessions() {
    for fault in ["MAIL 421 4.3.2 enough", "MAIL close", "RCPT close"] {
        let house = House::new(|_| {});
        let script = Script::with(fault).after_messages(3);
        let peer = house.peer("x.test", 10, "192.0.2.1", script);
        for n in 0..20 {
            house.accept("a@src.test", &[&format!("u{n}@x.test")]).await;
        }
        house.until_empty().await;
        assert_eq!(peer.mail().len(), 20, "{fault}: no loss, no duplicate");
        assert!(!house.log().contains("event=deferred"), "{fault}: {}", house.log());
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connection_is_used_again_within_its_time() {
    let house = House::new(|_| {});
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest());
    for wait in [1, 10, 100] {
        house.accept("a@src.test", &["b@x.test"]).await;
        house.until_empty().await;
        house.clock.sleep(Duration::from_secs(wait)).await;
    }
    assert_eq!(peer.sessions(), 1);
    house.accept("a@src.test", &["b@x.test"]).await;
    house.until_empty().await;
    assert_eq!((peer.sessions(), peer.mail().len()), (2, 4));
    assert_eq!(house.deliver.sessions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn recipients_over_the_limit_go_in_further_transactions() {
    let house = House::new(|_| {});
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest().recipients_max(3));
    let names: Vec<String> = (0..10).map(|n| format!("u{n}@x.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    house.accept("a@src.test", &names).await;
    house.until_empty().await;
    let counts: Vec<usize> = peer.mail().iter().map(|mail| mail.recipients.len()).collect();
    assert_eq!(counts, [3, 3, 3, 1]);
    assert_eq!(peer.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_dns_says_decides_between_now_later_and_never() {
    let house = House::new(|_| {});
    let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
    house.dns.add_mx(&domain("null.test"), 0, None);
    house.dns.add_mx(&domain("loop.test"), 10, Some(domain("relay.home.test")));
    house.dns.add_mx(&domain("inside.test"), 10, Some(domain("mx.inside.test")));
    house.dns.add_address(&domain("mx.inside.test"), "127.0.0.1".parse().unwrap());
    house.dns.set_out_of_order(&domain("sick.test"), true);
    for (of, status) in [
        ("nx.test", "5.1.2"),
        ("null.test", "5.1.10"),
        ("loop.test", "5.4.6"),
        ("inside.test", "5.4.4"),
    ] {
        let before = sender.mail().len();
        house.accept("a@src.test", &[&format!("b@{of}")]).await;
        house.until_empty().await;
        let mail = sender.mail();
        assert_eq!(mail.len(), before + 1, "{of}");
        assert!(mail[before].body.contains(&format!("Status: {status}")), "{}", mail[before].body);
    }
    let id = house.accept("a@src.test", &["b@sick.test"]).await;
    house.until("deferred", async |house| house.log().contains("event=deferred")).await;
    let shown = house.queue.show(id).await.unwrap().unwrap();
    let last = shown.state.recipients[0].last.clone().unwrap();
    assert_eq!((last.result, last.status.to_string().as_str()), (AttemptResult::Deferred, "4.4.3"));
}

#[tokio::test(start_paused = true)]
async fn all_mail_for_a_domain_that_does_not_exist_is_returned_at_once() {
    let house = House::new(|_| {});
    let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
    for n in 0..50 {
        house.accept("a@src.test", &[&format!("u{n}@nx.test")]).await;
        if n % 5 == 0 {
            house.until("one came back", async |_| !sender.mail().is_empty()).await;
        }
    }
    house.until_empty().await;
    assert_eq!(sender.mail().len(), 50);
    let passed = house.clock.now().since(START);
    assert!(passed < Span::minutes(1), "{passed}");
}

#[tokio::test(start_paused = true)]
async fn smart_hosts_are_tried_in_order_and_may_be_on_loopback() {
    let house = House::new(|settings| {
        let hosts = ["[127.0.0.1]:2626", "second.test:2525"];
        settings.table = table(&hosts, DirectFirst::Never);
    });
    house.dns.add_address(&domain("second.test"), "192.0.2.5".parse().unwrap());
    let second = Peer::start(&house.net, "192.0.2.5:2525", Script::honest());
    house.accept("a@src.test", &["b@x.test", "c@y.test"]).await;
    house.until_empty().await;
    assert_eq!(second.mail()[0].recipients.len(), 2, "one route, one transaction");
    let first = Peer::start(&house.net, "127.0.0.1:2626", Script::honest());
    house.clock.sleep(Duration::from_mins(1)).await;
    house.accept("a@src.test", &["b@x.test"]).await;
    house.until_empty().await;
    assert_eq!(first.mail().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn direct_first_turns_to_the_smart_host_as_its_rule_says() {
    for (rule, dns_fails, reaches) in [
        (DirectFirst::OnDnsFailure, true, true),
        (DirectFirst::OnDnsFailure, false, false),
        (DirectFirst::OnAnyTemporaryFailure, true, true),
        (DirectFirst::OnAnyTemporaryFailure, false, true),
    ] {
        let house = House::new(|settings| settings.table = table(&["[192.0.2.7]"], rule));
        let smart = Peer::start(&house.net, "192.0.2.7:25", Script::honest());
        if !dns_fails {
            house.peer("x.test", 10, "192.0.2.1", Script::with("RCPT 451 4.3.0 not now"));
        }
        house.accept("a@src.test", &["b@x.test"]).await;
        house.clock.sleep(Duration::from_secs(30)).await;
        assert_eq!(smart.mail().len(), usize::from(reaches), "{rule:?} {dns_fails}");
    }
}

#[tokio::test(start_paused = true)]
async fn mail_for_ourselves_is_filed_in_drop() {
    let house = House::new(|_| {});
    let id = house.accept("a@src.test", &["b@home.test", "c@home.test"]).await;
    house.until_empty().await;
    assert_eq!(house.files("Drop"), [format!("{id}.eml")]);
    assert!(house.log().contains("relay=drop"), "{}", house.log());
    assert_eq!(house.counters.recipients_dropped.value(), 2);
}

#[tokio::test(start_paused = true)]
async fn eight_bit_message_is_never_sent_raw() {
    let house = House::new(|_| {});
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest().offers(&["PIPELINING"]));
    let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
    house.accept_with("a@src.test", &["b@x.test"], |e| e.body = BodyKind::EightBitMime).await;
    house.until_empty().await;
    assert_eq!(peer.mail().len(), 0);
    assert!(sender.mail()[0].body.contains("Status: 5.6.3"), "{}", sender.mail()[0].body);
    // Declared so, but plain: it can go.
    house.accept_with("a@src.test", &["b@x.test"], |envelope| envelope.smtputf8 = true).await;
    house.until_empty().await;
    assert_eq!(peer.mail().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn large_message_travels_in_pieces_and_arrives_whole() {
    for offers in [&["PIPELINING"][..], &["PIPELINING", "CHUNKING"], &["CHUNKING"]] {
        let house = House::new(|_| {});
        let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest().offers(offers));
        let text = format!("Subject: x\r\n\r\n{}", ".line of the message\r\n".repeat(50_000));
        let envelope = envelope("a@src.test", &["b@x.test"], house.clock.now());
        let draft = Draft { envelope, body: Body::Memory(text.clone().into_bytes()) };
        house.queue.accept(draft).await.unwrap();
        house.until_empty().await;
        assert!(peer.mail()[0].body == text, "{offers:?}");
        assert_eq!(peer.saw("BDAT"), offers.contains(&"CHUNKING"));
    }
}

#[tokio::test]
async fn mail_crosses_the_real_network() {
    let listener = Net::Real.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = listener.local_addr().unwrap();
    let house = House::on(Net::Real, |settings| {
        let host = format!("[127.0.0.1]:{}", at.port());
        settings.table = table(&[&host], DirectFirst::Never);
    });
    let peer = Peer::start_on(listener, Script::honest());
    for n in 0..50 {
        house.accept("a@src.test", &[&format!("u{n}@x.test")]).await;
    }
    house.until_empty().await;
    assert_eq!(peer.mail().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn masquerade_changes_our_own_senders_only() {
    let house = House::new(|settings| settings.senders.masquerade = Some(domain("public.test")));
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest());
    for sender in ["app@home.test", "other@src.test", ""] {
        house.accept(sender, &["b@x.test"]).await;
        house.until_empty().await;
    }
    let senders: Vec<String> = peer.mail().into_iter().map(|mail| mail.sender).collect();
    assert_eq!(senders, ["<app@public.test>", "<other@src.test>", "<>"]);
}

#[tokio::test(start_paused = true)]
async fn success_is_reported_by_the_last_host_that_knows_how() {
    for (offers, reports) in [(&["PIPELINING", "DSN"][..], 0), (&["PIPELINING"], 1)] {
        let house = House::new(|_| {});
        house.peer("x.test", 10, "192.0.2.1", Script::honest().offers(offers));
        let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
        let all = Notify { success: true, failure: true, delay: true };
        house
            .accept_with("a@src.test", &["b@x.test"], |e| e.recipients[0].notify = Some(all))
            .await;
        house.until_empty().await;
        assert_eq!(sender.mail().len(), reports, "{offers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn message_that_goes_in_circles_is_returned() {
    let house = House::new(|_| {});
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest());
    let sender = house.peer("src.test", 10, "192.0.2.9", Script::honest());
    house.accept_with("a@src.test", &["b@x.test"], |envelope| envelope.hops = 101).await;
    house.until_empty().await;
    assert_eq!((peer.sessions(), sender.mail().len()), (0, 1));
    assert!(sender.mail()[0].body.contains("Status: 5.4.6"));
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_attempts_end_and_gives_the_rest_back() {
    let house = House::new(|_| {});
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::with("END silence"));
    let id = house.accept("a@src.test", &["b@x.test"]).await;
    house.until("begun", async |_| peer.saw("DATA")).await;
    let before = house.clock.elapsed();
    house.deliver.stop(Duration::from_secs(10)).await;
    assert!(house.clock.elapsed() - before <= Duration::from_secs(16));
    let shown = house.queue.show(id).await.unwrap().unwrap();
    assert_eq!(shown.state.recipients[0].phase, Phase::InDoubt);
    let other = house.accept("a@src.test", &["c@x.test"]).await;
    house.clock.sleep(Duration::from_hours(1)).await;
    let shown = house.queue.show(other).await.unwrap().unwrap();
    assert_eq!(shown.state.recipients[0].attempts, 0, "nothing begins after the stop");
}
