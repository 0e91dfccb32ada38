//! Sessions over a network in memory, with virtual time and a queue in memory.

use std::io;
use std::net::{IpAddr, SocketAddr};

use mailroot_common::address::Domain;
use mailroot_common::config::backends::PamService;
use mailroot_common::units::Span;
use mailroot_common::units::Timestamp;
use smtpd_core::policy::access::{Entry, List, Mode};
use smtpd_core::policy::guess::Limit;
use smtpd_core::policy::submission::SenderPolicy;
use smtpd_core::queue::envelope::{BodyKind, Via};
use smtpd_core::queue::wishes::Priority;
use smtpd_core::route::table;
use smtpd_core::smtp::body::BodyLimits;
use smtpd_core::smtp::command::Grammar;
use smtpd_core::smtp::extension::Offer;
use smtpd_core::smtp::server::Standing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::local::{Credentials, Places};
use crate::net::{SimulatedNet, Stream};
use crate::observe::{Format, Level, SessionIds, Sink};
use crate::queue::Filter;
use crate::resolve::SimulatedDns;

struct House {
    receiver: Receiver,
    net: Net,
    queue: Queue,
    lines: Sink,
    counters: Arc<Counters>,
    asked: mpsc::Receiver<Inquiry>,
}

const DOOR: &str = "192.0.2.25:25";

fn table() -> Arc<Table> {
    let settings = table::Settings {
        default_domain: Domain::parse("example.com").unwrap(),
        alias_domains: Vec::new(),
        sender_routes: Vec::new(),
        remote_domains: Vec::new(),
        smart_hosts: Vec::new(),
        direct_first: table::DirectFirst::default(),
    };
    Arc::new(Table::new(settings).unwrap())
}

fn settings() -> Settings {
    let relay = List { mode: Mode::Only, lines: vec![Entry::parse("127.0.0.0/8").unwrap().into()] };
    let session = Arc::new(machine::Settings {
        host: "mx.test".to_owned(),
        banner: "ESMTP".to_owned(),
        grammar: Grammar {
            offer: Offer::all(),
            default_domain: Domain::parse("example.com").unwrap(),
            auth: false,
            inquiries: false,
        },
        body: BodyLimits { size_max: 8 << 20, line_max: 2000, header_max: 64 << 10 },
        recipients_max: 100,
        release_max: Span::days(60),
        deliver_by_min: Span::ZERO,
        priority_max: Priority::MAX,
        session_octets_max: u64::MAX,
        errors_max: 20,
        idle_commands_max: 100,
        idle: Duration::from_mins(5),
        session_time: Duration::from_hours(1),
        rate_min: 0,
        tls: machine::Tls::Off,
        logins: machine::Logins::default(),
    });
    let grammar = Grammar { inquiries: true, ..session.grammar.clone() };
    let local = machine::Settings { grammar, ..machine::Settings::clone(&session) };
    Settings {
        quota: ClientQuota::default(),
        balancers: Vec::new(),
        tellers: Vec::new(),
        tokens: None,
        strangers: Arc::clone(&session),
        local: Arc::new(local),
        submission: LocalRules::new(SenderPolicy::OwnDomain, true),
        session,
        tls: None,
        logins: LoginRules {
            delay: Duration::ZERO,
            limit: Limit { failures: 5, ban: None },
            domain: None,
            realms: Vec::new(),
            backends: Vec::new(),
            pam_service: PamService::parse("mailroot").unwrap(),
            directory: None,
        },
        connect: ConnectPolicy::default(),
        relay: RelayPolicy {
            list: relay,
            authenticated: true,
            certificates: policy::relay::RelayCertificates::None,
            anonymous: true,
        },
        tallies: Tallies::default(),
        directory: None,
        senders_directory: None,
        senders: None,
        table: table(),
        connections: ConnectionLimits { total: Some(4), per_client: Some(2) },
        reverse_dns: false,
        outbound_tls: TlsPolicy::Optional,
        hops_max: 3,
        add_date: true,
        add_message_id: true,
        body_memory_max: 64 << 20,
        milters: Arc::from([]),
        resolver: Resolver::Simulated(SimulatedDns::default()),
    }
}

fn doors(addresses: &[SocketAddr]) -> Vec<Listen> {
    addresses.iter().copied().map(Listen::plain).collect()
}

async fn house(settings: Settings) -> House {
    let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000), 1);
    let (log, lines) = Log::captured(Format::Logfmt, Level::Info, clock.clone());
    let net = Net::Simulated(SimulatedNet::default());
    let queue = Queue::in_memory(clock.clone(), table());
    let counters = Arc::new(Counters::default());
    let users_clock = clock.clone();
    let (inquiries, asked) = mpsc::channel(1);
    let parts = Parts {
        name: "default".into(),
        clock,
        net: net.clone(),
        log,
        counters: Arc::clone(&counters),
        queue: queue.clone(),
        session_ids: Arc::new(SessionIds::beginning_at(1)),
        dialogues: Default::default(),
        trace: Trace::off(),
        users: Users::open("/nowhere/users.json".into(), users_clock),
        inquiries,
        aliases: AliasFile::off(),
    };
    let receiver = Receiver::new(parts, settings);
    receiver.listen(&[Listen::plain(DOOR.parse().unwrap())]).await.unwrap();
    House { receiver, net, queue, lines, counters, asked }
}

impl House {
    async fn connect(&self, from: &str) -> Guest {
        let from: IpAddr = from.parse().unwrap();
        let stream = self.net.connect(DOOR.parse().unwrap(), Some(from)).await.unwrap();
        Guest { stream, waiting: Vec::new() }
    }

    /// The content of the only message in the queue.
    async fn content(&self) -> String {
        let all = self.queue.list(&Filter::default(), None, 10).await.unwrap();
        assert_eq!(all.len(), 1);
        let body = self.queue.read(all[0].id).unwrap().read_all().await.unwrap();
        String::from_utf8(body).unwrap()
    }

    /// Waits until all sessions are gone.
    async fn settled(&self) {
        self.receiver.0.registry.empty().await;
    }
}

/// A client.
struct Guest {
    stream: Stream,
    waiting: Vec<u8>,
}

impl Guest {
    async fn send(&mut self, octets: &str) {
        self.stream.write_all(octets.as_bytes()).await.unwrap();
    }

    /// The next reply's last line; empty at the end of the connection.
    async fn reply(&mut self) -> String {
        loop {
            if let Some(end) = self.waiting.windows(2).position(|two| two == b"\r\n") {
                let line = self.waiting.drain(..end + 2).collect();
                let line = String::from_utf8(line).unwrap();
                if line.as_bytes()[3] == b' ' {
                    return line.trim_end().to_owned();
                }
            } else if self.stream.read_buf(&mut self.waiting).await.unwrap_or(0) == 0 {
                return String::new();
            }
        }
    }

    async fn expect(&mut self, expected: &[&str]) {
        for expected in expected {
            let reply = self.reply().await;
            assert!(reply.starts_with(expected), "expected {expected}, came {reply:?}");
        }
    }
}

const HELLO: &str = "EHLO app.test\r\n";
const ENVELOPE: &str = "MAIL FROM:<a@app.test>\r\nRCPT TO:<b@example.com>\r\n";

impl House {
    /// A user of this machine, at the submit socket.
    fn local(&self) -> Guest {
        let (near, far) = UnixStream::pair().unwrap();
        let credentials = Credentials { uid: 4_000_000, gid: 7, pid: None };
        let user = LocalUser { credentials, name: "anna".to_owned() };
        let place = Places::default().take(credentials.uid, 1, 1).unwrap();
        let receiver = self.receiver.clone();
        tokio::spawn(async move { receiver.receive_local(far, user, place).await });
        Guest { stream: Stream::Unix(near), waiting: Vec::new() }
    }
}

#[tokio::test]
async fn a_user_of_this_machine_sends_to_anybody_and_is_known_by_the_kernel() {
    let house = house(settings()).await;
    let mut guest = house.local();
    guest.send("EHLO x\r\nMAIL FROM:<anna@else.test>\r\nMAIL FROM:<anna>\r\n").await;
    guest.send("RCPT TO:<b@far.test>\r\nDATA\r\n").await;
    guest.expect(&["220", "250", "553 5.7.1", "250 2.1.0 <anna@example.com>", "250", "354"]).await;
    guest.send("Subject: x\r\n\r\n.\r\nQUIT\r\n").await;
    guest.expect(&["250 2.6.0", "221", ""]).await;
    let all = house.queue.list(&Filter::default(), None, 10).await.unwrap();
    let origin = &all[0].envelope.origin;
    assert_eq!((origin.via, origin.client, origin.uid), (Via::Submit, None, Some(4_000_000)));
    assert_eq!(origin.user.as_deref(), Some("anna"));
    let content = house.content().await;
    assert!(
        content.starts_with("Received: by mx.test (Mailroot, from user anna) id "),
        "{content}"
    );
    assert!(house.lines.text().contains("via=submit size="), "{}", house.lines.text());
    assert!(house.lines.text().contains("uid=4000000"), "{}", house.lines.text());
}

#[tokio::test]
async fn whoever_asks_about_his_own_mail_is_handed_over_and_strangers_are_not() {
    let mut house = house(settings()).await;
    let mut guest = house.local();
    guest.expect(&["220"]).await;
    guest.send("XQUERY\r\n").await;
    guest.expect(&["220"]).await;
    let inquiry = house.asked.recv().await.unwrap();
    assert_eq!(inquiry.credentials.uid, 4_000_000);
    let mut far = Stream::Unix(inquiry.stream);
    far.write_all(b"200 another protocol\r\n").await.unwrap();
    guest.expect(&["200 another"]).await;

    let mut stranger = house.connect("10.0.0.7").await;
    stranger.send("XQUERY\r\nVERB\r\n").await;
    stranger.expect(&["220", "500", "500"]).await;
}

#[tokio::test]
async fn a_paused_server_turns_users_of_this_machine_away() {
    let house = house(settings()).await;
    house.receiver.pause();
    house.local().expect(&["421", ""]).await;
}

#[tokio::test(start_paused = true)]
async fn message_lies_in_the_queue_with_our_fields_in_front() {
    let house = house(settings()).await;
    let mut guest = house.connect("10.0.0.7").await;
    guest.expect(&["220 mx.test ESMTP"]).await;
    guest.send(HELLO).await;
    guest.send(&format!("{ENVELOPE}DATA\r\n")).await;
    guest.expect(&["250 HELP", "250 2.1.0", "250 2.1.5", "354"]).await;
    guest.send("Subject: hi \u{fc}\r\n\r\n..dot\r\n.\r\nQUIT\r\n").await;
    let reply = guest.reply().await;
    let id = reply.strip_prefix("250 2.6.0 ").unwrap().split(' ').next().unwrap();
    guest.expect(&["221", ""]).await;

    let all = house.queue.list(&Filter::default(), None, 10).await.unwrap();
    assert_eq!(all[0].id.to_string(), id);
    let envelope = &all[0].envelope;
    assert_eq!(envelope.sender.to_string(), "a@app.test");
    assert_eq!((envelope.hops, envelope.origin.via), (1, Via::Smtp));
    assert_eq!(envelope.origin.helo.as_deref(), Some("app.test"));
    assert_eq!(envelope.origin.client, Some("10.0.0.7".parse().unwrap()));
    assert_eq!(envelope.subject.as_deref(), Some("hi \u{fc}"));
    assert_eq!(envelope.body, BodyKind::EightBitMime, "what was not declared is seen");
    let content = house.content().await;
    let size = content.len();
    let content = content.replace("\r\n\t", " ");
    assert!(content.starts_with("Received: from app.test ([10.0.0.7])"), "{content}");
    assert!(content.contains(&format!("ESMTP id {id}")), "{content}");
    assert!(content.contains("for <b@example.com>;"), "{content}");
    assert!(
        content.contains("\r\nDate: ") && content.contains(&format!("Message-ID: <{id}@mx.test>"))
    );
    assert!(content.ends_with("\r\nSubject: hi \u{fc}\r\n\r\n.dot\r\n"), "{content}");

    house.settled().await;
    let lines = house.lines.text();
    let log: Vec<&str> = lines.lines().collect();
    assert_eq!(log[0], "event=connect server=default sid=000001 client=10.0.0.7 port=40000");
    assert_eq!(
        log[1],
        format!(
            "event=received server=default id={id} sid=000001 client=10.0.0.7 via=smtp size={size} \
             nrcpt=1 user=- from=<a@app.test> to=<b@example.com> msgid=\"<{id}@mx.test>\" subject=\"hi \u{fc}\""
        )
    );
    assert!(log[2].starts_with("event=disconnect server=default sid=000001 client=10.0.0.7"));
    assert!(log[2].contains("reason=quit messages=1"), "{}", log[2]);
}

#[tokio::test(start_paused = true)]
async fn fields_that_are_there_are_not_added() {
    let house = house(settings()).await;
    let mut guest = house.connect("10.0.0.7").await;
    guest.send(&format!("HELO x\r\n{ENVELOPE}RCPT TO:<c@example.com>\r\nDATA\r\n")).await;
    guest.send("Date: then\r\nMessage-ID: <m@x>\r\n\r\nx\r\n.\r\n").await;
    guest.expect(&["220", "250 mx.test", "250", "250", "250", "354", "250 2.6.0"]).await;
    let content = house.content().await;
    assert!(content.contains("with SMTP id "), "{content}");
    assert!(!content.contains("for <"), "recipients are not betrayed to each other: {content}");
    assert_eq!(content.matches("Date: ").count(), 1);
    assert_eq!(content.matches("Message-ID: ").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn large_message_goes_through_a_file_and_stays_whole() {
    for memory in [64 << 20, 0] {
        let house = house(Settings { body_memory_max: memory, ..settings() }).await;
        let mut guest = house.connect("10.0.0.7").await;
        guest.send(&format!("{HELLO}{ENVELOPE}DATA\r\n")).await;
        guest.expect(&["220", "250", "250", "250", "354"]).await;
        let text = "Subject: x\r\n\r\n".to_owned() + &"0123456789abcde\r\n".repeat(60_000);
        guest.send(&format!("{text}.\r\n")).await;
        guest.expect(&["250 2.6.0"]).await;
        let content = house.content().await;
        assert!(content.starts_with("Received: ") && content.ends_with(&text));
        assert_eq!(content.matches("Received: ").count(), 1);
        assert_eq!(house.receiver.0.body_memory.load(Ordering::Relaxed), 0);
        // The session goes on, and a small one follows in memory.
        guest.send(&format!("{ENVELOPE}DATA\r\nx\r\n.\r\n")).await;
        guest.expect(&["250", "250", "354", "250 2.6.0"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn large_message_that_is_refused_leaves_nothing() {
    let house = house(settings()).await;
    let mut guest = house.connect("10.0.0.7").await;
    guest.send(&format!("{HELLO}{ENVELOPE}DATA\r\n")).await;
    guest.send(&format!("Subject: x\r\n\r\n{}.\r\n", "0123456789abcde\r\n".repeat(600_000))).await;
    guest.expect(&["220", "250", "250", "250", "354", "552 5.3.4"]).await;
    guest.send("NOOP\r\n").await;
    guest.expect(&["250"]).await;
    assert!(house.queue.list(&Filter::default(), None, 10).await.unwrap().is_empty());
    assert_eq!(house.receiver.0.body_memory.load(Ordering::Relaxed), 0);
    assert_eq!(house.counters.size_refused.value(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_in_a_loop_is_refused() {
    let house = house(settings()).await;
    let mut guest = house.connect("10.0.0.7").await;
    guest.send(&format!("{HELLO}{ENVELOPE}DATA\r\n{}\r\n.\r\n", "Received: x\r\n".repeat(2))).await;
    guest.send(&format!("{ENVELOPE}DATA\r\n{}\r\n.\r\n", "Received: x\r\n".repeat(3))).await;
    guest
        .expect(&["220", "250", "250", "250", "354", "250", "250", "250", "354", "554 5.4.6"])
        .await;
    assert_eq!(house.counters.hops_met.value(), 1);
    assert!(house.lines.text().contains("stage=end code=554 dsn=5.4.6 reason=hops"));
}

#[tokio::test(start_paused = true)]
async fn relaying_is_for_those_on_the_list_and_refusals_are_logged() {
    let house = house(settings()).await;
    let mut guest = house.connect("127.0.0.1").await;
    guest.send(&format!("{HELLO}MAIL FROM:<>\r\nRCPT TO:<x@other.test>\r\n")).await;
    guest.expect(&["220", "250", "250", "250 2.1.5"]).await;
    let mut guest = house.connect("203.0.113.9").await;
    guest.send("EHLO bad client=1.2.3.4\r\nEHLO bad=\r\n").await;
    guest.send("MAIL FROM:<spam@bad.test>\r\nRCPT TO:<x@other.test>\r\nQUIT\r\n").await;
    guest.expect(&["220", "501", "250", "250", "550 5.7.1 <x@other.test>: relaying", "221"]).await;
    let log = house.lines.text();
    let line = log.lines().find(|line| line.contains("relay-denied")).unwrap();
    assert_eq!(
        line,
        "event=reject server=default client=203.0.113.9 port=40000 sid=000002 stage=rcpt code=550 \
         dsn=5.7.1 reason=relay-denied helo=\"bad=\" from=<spam@bad.test> to=<x@other.test>"
    );
    assert_eq!(house.counters.relay_denied.value(), 1);
}

#[tokio::test(start_paused = true)]
async fn denied_clients_hear_554_and_are_closed() {
    let mut settings = settings();
    settings.connect.list =
        List { mode: Mode::AllExcept, lines: vec![Entry::parse("203.0.113.0/24").unwrap().into()] };
    let house = house(settings).await;
    let mut guest = house.connect("203.0.113.9").await;
    guest.expect(&["554 5.7.1", ""]).await;
    house.connect("203.0.114.9").await.expect(&["220"]).await;
    assert_eq!(house.counters.connections_denied.value(), 1);
    assert!(house.lines.text().contains("stage=connect code=554"));
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_when_a_list_has_names() {
    let mut settings = settings();
    settings.relay.list.lines.push(Entry::parse("*.corp.test").unwrap().into());
    settings.reverse_dns = true;
    let dns = SimulatedDns::default();
    dns.add_address(&Domain::parse("a.corp.test").unwrap(), "10.9.9.9".parse().unwrap());
    settings.resolver = Resolver::Simulated(dns);
    let house = house(settings).await;
    for (client, reply) in [("10.9.9.9", "250 2.1.5"), ("10.9.9.8", "550 5.7.1")] {
        let mut guest = house.connect(client).await;
        guest.send(&format!("{HELLO}MAIL FROM:<>\r\nRCPT TO:<x@other.test>\r\n")).await;
        guest.expect(&["220", "250", "250", reply]).await;
    }
    let mut guest = house.connect("10.9.9.9").await;
    guest.send(&format!("{HELLO}{ENVELOPE}DATA\r\nx: y\r\n\r\n.\r\n")).await;
    guest.expect(&["220", "250", "250", "250", "354", "250"]).await;
    let content = house.content().await;
    let expected = "Received: from app.test (a.corp.test [10.9.9.9] unverified)";
    assert!(content.replace("\r\n\t", " ").starts_with(expected), "{content}");
}

#[tokio::test(start_paused = true)]
async fn connections_are_counted_and_places_given_back() {
    let house = house(settings()).await;
    let mut first = house.connect("10.0.0.1").await;
    let mut second = house.connect("10.0.0.1").await;
    first.expect(&["220"]).await;
    second.expect(&["220"]).await;
    house.connect("10.0.0.1").await.expect(&["421 4.7.0", ""]).await;
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut other = house.connect("10.0.0.2").await;
        other.expect(&["220"]).await;
        others.push(other);
    }
    house.connect("10.0.0.3").await.expect(&["421 4.3.2", ""]).await;
    assert_eq!(house.counters.connections_over_client_max.value(), 1);
    assert_eq!(house.counters.connections_over_max.value(), 1);
    drop((first, second, others));
    house.settled().await;
    house.connect("10.0.0.1").await.expect(&["220"]).await;
}

#[tokio::test(start_paused = true)]
async fn silence_is_ended_and_slow_commands_too() {
    let house = house(settings()).await;
    let mut silent = house.connect("10.0.0.1").await;
    silent.expect(&["220", "421 4.4.2", ""]).await;
    let mut slow = house.connect("10.0.0.2").await;
    slow.expect(&["220"]).await;
    let clock = house.receiver.0.parts.clock.clone();
    let began = clock.elapsed();
    while house.counters.idle_timeouts.value() < 2 {
        slow.send("x").await;
        clock.sleep(Duration::from_secs(1)).await;
    }
    assert!(clock.elapsed() - began < Duration::from_mins(6));
    assert!(house.lines.text().contains("reason=idle messages=0"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_given_up() {
    let house = house(settings()).await;
    let mut guest = house.connect("10.0.0.1").await;
    let flood = "RCPT TO:<b@example.com>\r\n".repeat(2000);
    guest.send(&format!("{HELLO}MAIL FROM:<>\r\n")).await;
    let clock = house.receiver.0.parts.clock.clone();
    let writing = async { while guest.stream.write_all(flood.as_bytes()).await.is_ok() {} };
    tokio::select! {
        () = writing => {}
        () = clock.sleep(Duration::from_mins(20)) => {}
    }
    house.settled().await;
    assert!(house.lines.text().contains("reason=connection-lost"), "{}", house.lines.text());
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_a_message_finish_and_ends_the_idle() {
    let house = house(settings()).await;
    let mut idle = house.connect("10.0.0.1").await;
    idle.expect(&["220"]).await;
    let mut busy = house.connect("10.0.0.2").await;
    busy.send(&format!("{HELLO}{ENVELOPE}DATA\r\n")).await;
    busy.expect(&["220", "250", "250", "250", "354"]).await;
    let receiver = house.receiver.clone();
    let stopping = tokio::spawn(async move { receiver.stop(Duration::from_secs(30)).await });
    idle.expect(&["421 4.3.2", ""]).await;
    busy.send("x\r\n.\r\nNOOP\r\n").await;
    busy.expect(&["250 2.6.0", "421 4.3.2", ""]).await;
    stopping.await.unwrap();
    assert!(house.receiver.sessions().is_empty() && house.receiver.addresses().is_empty());
    assert!(house.net.connect(DOOR.parse().unwrap(), None).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_ever() {
    let house = house(settings()).await;
    let mut stuck = house.connect("10.0.0.2").await;
    stuck.send(&format!("{HELLO}{ENVELOPE}DATA\r\n")).await;
    stuck.expect(&["220", "250", "250", "250", "354"]).await;
    house.receiver.stop(Duration::from_secs(30)).await;
    assert!(house.receiver.sessions().is_empty());
    stuck.expect(&["421 4.3.2", ""]).await;
}

#[tokio::test(start_paused = true)]
async fn sessions_are_listed_and_killed() {
    let house = house(settings()).await;
    let mut guest = house.connect("10.0.0.2").await;
    guest.send(&format!("{HELLO}{ENVELOPE}DATA\r\n")).await;
    guest.expect(&["220", "250", "250", "250", "354"]).await;
    let list = house.receiver.sessions();
    assert_eq!((list.len(), list[0].standing), (1, Standing::Body));
    assert_eq!(list[0].helo.as_deref(), Some("app.test"));
    assert_eq!(list[0].octets, (HELLO.len() + ENVELOPE.len() + 6) as u64);
    assert!(house.receiver.kill(list[0].id));
    guest.expect(&["421 4.3.2", ""]).await;
    house.settled().await;
    assert!(!house.receiver.kill(list[0].id), "it is gone");
    assert!(house.queue.list(&Filter::default(), None, 10).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn paused_means_come_again() {
    let house = house(settings()).await;
    let mut before = house.connect("10.0.0.1").await;
    before.expect(&["220"]).await;
    house.receiver.pause();
    house.connect("10.0.0.2").await.expect(&["421 4.3.2", ""]).await;
    before.send("NOOP\r\n").await;
    before.expect(&["250"]).await;
    house.receiver.resume();
    house.connect("10.0.0.2").await.expect(&["220"]).await;
}

#[tokio::test(start_paused = true)]
async fn listening_elsewhere_is_all_or_nothing() {
    let house = house(settings()).await;
    let (door, other) = (DOOR.parse().unwrap(), "192.0.2.26:25".parse().unwrap());
    let taken = "192.0.2.27:25".parse().unwrap();
    let _holder = house.net.listen(taken).unwrap();
    let error = house.receiver.listen(&doors(&[other, taken])).await.unwrap_err();
    assert_eq!(error.address, taken);
    assert_eq!(house.receiver.addresses(), [door]);
    house.receiver.listen(&doors(&[door, other])).await.unwrap();
    assert_eq!(house.receiver.addresses(), [door, other]);
    house.receiver.listen(&doors(&[other])).await.unwrap();
    assert_eq!(house.receiver.addresses(), [other]);
}

#[tokio::test(start_paused = true)]
async fn changed_settings_hold_for_the_next_session() {
    let house = house(settings()).await;
    let mut old = house.connect("10.0.0.1").await;
    old.expect(&["220 mx.test"]).await;
    let mut changed = settings();
    changed.session =
        Arc::new(machine::Settings { host: "new.test".to_owned(), ..(*changed.session).clone() });
    changed.strangers = Arc::clone(&changed.session);
    house.receiver.set(changed);
    house.connect("10.0.0.2").await.expect(&["220 new.test"]).await;
    old.send("HELO x\r\n").await;
    old.expect(&["250 mx.test"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_ours_ends_one_session_only() {
    let mut faulty = settings();
    // No configuration allows such a pace; its sum overflows when the first minute is over.
    faulty.session =
        Arc::new(machine::Settings { rate_min: u64::MAX, ..(*faulty.session).clone() });
    faulty.strangers = Arc::clone(&faulty.session);
    let house = house(faulty).await;
    let mut guest = house.connect("10.0.0.1").await;
    guest.send(&format!("{HELLO}{ENVELOPE}DATA\r\n")).await;
    guest.expect(&["220", "250", "250", "250", "354"]).await;
    house.receiver.0.parts.clock.sleep(Duration::from_secs(50)).await;
    let mut other = house.connect("10.0.0.1").await;
    other.expect(&["220"]).await;
    guest.expect(&["421 4.3.0", ""]).await;
    assert_eq!(house.counters.panics.value(), 1);
    assert_eq!(house.receiver.sessions().len(), 1, "its place is given back");
    other.send("NOOP\r\n").await;
    other.expect(&["250"]).await;
    assert!(house.lines.text().contains("event=session-fault level=error server=default"));
}

#[tokio::test(start_paused = true)]
async fn a_store_without_room_is_452_before_any_body_comes() {
    let house = house(settings()).await;
    house.queue.memory().unwrap().refuse(&[io::ErrorKind::StorageFull]);
    let mut guest = house.connect("10.0.0.1").await;
    guest.send(&format!("{HELLO}MAIL FROM:<a@app.test>\r\nNOOP\r\n")).await;
    guest.expect(&["220", "250", "452 4.3.1", "250"]).await;
    assert_eq!(house.counters.no_room.value(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_in_trouble_is_451_before_any_body_comes() {
    let house = house(settings()).await;
    let mut guest = house.connect("10.0.0.1").await;
    guest.send(&format!("{HELLO}{ENVELOPE}")).await;
    guest.expect(&["220", "250", "250", "250"]).await;
    house.queue.close().await;
    guest.send("DATA\r\nRSET\r\nMAIL FROM:<a@app.test>\r\nNOOP\r\n").await;
    guest.expect(&["451 4.3.0", "250", "451 4.3.0", "250"]).await;
    assert_eq!((house.counters.no_room.value(), house.counters.store_trouble.value()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_4xx_and_the_session_goes_on() {
    let house = house(settings()).await;
    let mut guest = house.connect("10.0.0.1").await;
    guest.send(HELLO).await;
    guest.expect(&["220", "250"]).await;
    for (fault, reply) in [
        (Some(io::ErrorKind::StorageFull), "452 4.3.1"),
        (Some(io::ErrorKind::Other), "451 4.3.0"),
        (None, "250 2.6.0"),
    ] {
        guest.send(&format!("{ENVELOPE}DATA\r\n")).await;
        guest.expect(&["250", "250", "354"]).await;
        house.queue.memory().unwrap().refuse(fault.as_slice());
        guest.send("x\r\n.\r\n").await;
        guest.expect(&[reply]).await;
    }
    assert_eq!((house.counters.no_room.value(), house.counters.store_trouble.value()), (1, 1));
    assert_eq!(house.counters.messages_received.value(), 1);
    assert!(house.lines.text().contains("event=not-stored level=error server=default"));
}
