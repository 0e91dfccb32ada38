//! The Pickup directory as applications see it: files go in, messages come out.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::config::milter::{MilterAddress, OnFailure};
use mailroot_common::units::ByteSize;
use smtpd_core::message::pickup;
use smtpd_core::queue::envelope::Via;
use smtpd_core::route::table::{self, DirectFirst, Table};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::badmail::{self, Reason};
use crate::net::{Net, SimulatedNet};
use crate::observe::{Format, Level, Sink};
use crate::queue::{Filter, Message};
use crate::resolve::{Resolver, SimulatedDns};

const GOOD: &str = "From: erp@example.net\nTo: bob@partner.example\nBcc: boss@example.net\n\
    Subject: Invoice\n\nhello\n";

/// A virtual server's Pickup and Badmail in a directory, with a queue in memory.
struct Site {
    root: tempfile::TempDir,
    queue: Queue,
    badmail: Badmail,
    pickup: Pickup,
    lines: Sink,
    net: Net,
}

impl Site {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["Pickup", "Badmail"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let mut settings = Settings {
            server: "default".to_owned(),
            fqdn: "mail.example.net".to_owned(),
            directory: root.path().join("Pickup"),
            poll: Span::millis(20),
            settle: Span::millis(50),
            rules: Rules {
                parse: pickup::Settings {
                    x_headers: true,
                    header_octets_max: 64 << 10,
                    recipients_max: 100,
                    default_sender: None,
                },
                dot_stuffed: false,
                fix_line_ends: true,
                add_date: true,
                add_message_id: true,
                size_max: ByteSize::mib(4),
                hops_max: 15,
            },
            local_domains: Vec::new(),
            milters: Vec::new(),
            patience: Span::days(2),
        };
        change(&mut settings);
        let table = Table::new(table::Settings {
            default_domain: Domain::parse("example.net").unwrap(),
            alias_domains: Vec::new(),
            sender_routes: Vec::new(),
            remote_domains: Vec::new(),
            smart_hosts: Vec::new(),
            direct_first: DirectFirst::Never,
        });
        let clock = Clock::real();
        let (log, lines) = Log::captured(Format::Logfmt, Level::Info, clock.clone());
        let queue = Queue::in_memory(clock.clone(), Arc::new(table.unwrap()));
        let badmail = Badmail::new(
            badmail::Settings {
                server: "default".to_owned(),
                directory: root.path().join("Badmail"),
                keep: None,
                max_size: None,
            },
            clock.clone(),
            log.clone(),
            Arc::default(),
        );
        let net = Net::Simulated(SimulatedNet::default());
        let parts = Parts {
            queue: queue.clone(),
            badmail: badmail.clone(),
            clock,
            log,
            counters: Arc::default(),
            trace: Trace::off(),
            aliases: AliasFile::off(),
            taken: Arc::default(),
            net: net.clone(),
            resolver: Resolver::Simulated(SimulatedDns::default()),
        };
        let pickup = Pickup::new(settings, parts);
        Self { root, queue, badmail, pickup, lines, net }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("Pickup").join(name)
    }

    /// Puts a file in as the manual advises.
    fn move_in(&self, name: &str, octets: impl AsRef<[u8]>) {
        std::fs::write(self.path(".being-written"), octets).unwrap();
        std::fs::rename(self.path(".being-written"), self.path(name)).unwrap();
    }

    fn start(&self) -> Running {
        let (stop, stopped) = oneshot::channel::<()>();
        let pickup = self.pickup.clone();
        let task = tokio::spawn(async move {
            pickup
                .run(async {
                    let _ = stopped.await;
                })
                .await;
        });
        Running { stop, task }
    }

    async fn messages(&self) -> Vec<Message> {
        self.queue.list(&Filter::default(), None, 10_000).await.unwrap()
    }

    async fn content(&self, message: &Message) -> String {
        let octets = self.queue.read(message.id).unwrap().read_all().await.unwrap();
        String::from_utf8(octets).unwrap()
    }

    /// The only message, once it is there and its file is gone.
    async fn the_message(&self) -> Message {
        until(async || self.messages().await.len() == 1 && self.is_empty(".claimed")).await;
        self.messages().await.pop().unwrap()
    }

    fn is_empty(&self, name: &str) -> bool {
        std::fs::read_dir(self.path(name)).is_ok_and(|mut names| names.next().is_none())
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

async fn until(is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it comes to pass");
}

#[tokio::test]
async fn moved_file_becomes_a_message_with_what_it_lacked() {
    let site = Site::new();
    let running = site.start();
    until(async || site.path(".claimed").exists()).await;
    site.move_in("invoice.eml", GOOD);
    let message = site.the_message().await;

    let envelope = &message.envelope;
    let recipients: Vec<_> = envelope.recipients.iter().map(|r| r.mailbox.to_string()).collect();
    assert_eq!(recipients, ["bob@partner.example", "boss@example.net"]);
    assert_eq!(envelope.sender.to_string(), "erp@example.net");
    assert_eq!((envelope.origin.via, envelope.hops), (Via::Pickup, 1));
    assert_eq!(envelope.origin.source.as_deref(), Some("invoice.eml"));
    let text = site.content(&message).await;
    let id = message.id;
    let first = format!("Received: by mail.example.net (Mailroot Pickup) id {id};\r\n\t");
    assert!(text.starts_with(&first), "{text}");
    assert!(text.contains("\r\nDate: ") && !text.contains("boss"), "{text}");
    let rest = format!(
        "Message-ID: <{id}@mail.example.net>\r\nFrom: erp@example.net\r\n\
         To: bob@partner.example\r\nSubject: Invoice\r\n\r\nhello\r\n"
    );
    assert!(text.ends_with(&rest), "{text}");
    let line = format!(
        "event=received server=default id={id} via=pickup size={} nrcpt=2 \
         from=<erp@example.net> msgid=<{id}@mail.example.net> subject=\"Invoice\" \
         file=\"invoice.eml\"\n",
        text.len()
    );
    assert_eq!(site.lines.text(), line);
    assert!(!site.path("invoice.eml").exists());
    running.stop().await;
}

#[tokio::test]
async fn written_file_is_taken_when_it_rests_and_unfinished_names_never() {
    let site = Site::new();
    let running = site.start();
    std::fs::write(site.path(".hidden.eml"), GOOD).unwrap();
    std::fs::write(site.path("upload.tmp"), GOOD).unwrap();
    std::fs::write(site.path("plain.txt"), GOOD).unwrap();
    let message = site.the_message().await;
    assert_eq!(message.envelope.origin.source.as_deref(), Some("plain.txt"));
    let list = site.pickup.list(10).await.unwrap();
    let found: Vec<_> = list.iter().map(|w| (w.name.as_str(), &w.state)).collect();
    assert_eq!(
        found,
        [(".hidden.eml", &State::BeingWritten), ("upload.tmp", &State::BeingWritten)]
    );
    running.stop().await;
}

#[tokio::test]
async fn bad_file_goes_to_badmail_with_line_and_reason_and_the_rest_goes_on() {
    let site = Site::new();
    let bad = "From: erp@example.net\nDate: x\nToo: ops@example.net\n\nhi\n";
    site.move_in("report\nx.eml", bad);
    site.move_in("empty.eml", "");
    site.move_in("good.eml", GOOD);
    let running = site.start();
    site.the_message().await;
    until(async || site.badmail.list(None, 10).await.unwrap().len() == 2).await;

    let kept = site.badmail.list(None, 10).await.unwrap();
    let entry = kept.iter().find(|entry| entry.size > 0).unwrap();
    let record = entry.record.as_ref().unwrap();
    assert_eq!(record.reason, Reason::BadPickupFile);
    assert_eq!(
        record.detail,
        "reportx.eml: line 3 \"Too: ops@example.net\" is not a recipient header; \
         no To, Cc, Bcc or X-Receiver"
    );
    let source = record.source.as_ref().unwrap();
    assert!(source.starts_with("Pickup/reportx.eml, written by uid "), "{source}");
    let (_, mut file) = site.badmail.requeue(&entry.name).await.unwrap();
    let mut content = String::new();
    io::Read::read_to_string(&mut file, &mut content).unwrap();
    assert_eq!(content, bad, "as it was put in");
    assert!(site.lines.text().contains("event=badmail server=default id="));
    running.stop().await;
    assert!(site.is_empty(".claimed"));
}

#[tokio::test]
async fn what_is_no_file_is_left_listed_and_logged_once() {
    let site = Site::new();
    let secret = site.root.path().join("secret");
    std::fs::write(&secret, GOOD).unwrap();
    symlink(&secret, site.path("link.eml")).unwrap();
    std::fs::hard_link(&secret, site.path("hard.eml")).unwrap();
    std::fs::create_dir(site.path("dir.eml")).unwrap();
    nix::unistd::mkfifo(&site.path("fifo.eml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let running = site.start();
    let left = async || {
        let list = site.pickup.list(10).await.unwrap();
        list.into_iter().filter(|w| matches!(w.state, State::Left(_))).count()
    };
    until(async || left().await == 4).await;
    // Several searches later each was still logged once, and a good file passes them by.
    site.move_in("good.eml", GOOD);
    site.the_message().await;
    running.stop().await;

    let text = site.lines.text();
    for (name, why) in [
        ("link.eml", "is a symbolic link, not a file: remove it"),
        ("hard.eml", "has 2 names: a hard link is not taken, put a copy there"),
        ("dir.eml", "is a directory, not a file: remove it"),
        ("fifo.eml", "is a FIFO, socket or device, not a file: remove it"),
    ] {
        let line = format!(
            "event=pickup-left level=warn server=default file=\"{name}\" reason=\"{why}\"\n"
        );
        assert_eq!(text.matches(&line).count(), 1, "{text}");
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), GOOD);
}

#[tokio::test]
async fn claims_of_an_earlier_run_are_resumed() {
    let site = Site::new();
    std::fs::create_dir(site.path(".claimed")).unwrap();
    std::fs::write(site.path(".claimed/CTM6JK8W0000.old.eml"), GOOD).unwrap();
    let running = site.start();
    let message = site.the_message().await;
    assert_eq!(message.envelope.origin.source.as_deref(), Some("old.eml"));
    running.stop().await;
}

#[tokio::test]
async fn file_waits_as_a_claim_while_the_queue_cannot_write() {
    let site = Site::new();
    site.queue.memory().unwrap().refuse(&[io::ErrorKind::Other]);
    let running = site.start();
    site.move_in("a.eml", GOOD);
    site.the_message().await;
    running.stop().await;
    let text = site.lines.text();
    assert_eq!(text.matches("event=pickup-failed level=error").count(), 1, "{text}");
    assert_eq!(text.matches("event=received").count(), 1, "{text}");
}

#[tokio::test]
async fn directory_that_goes_and_comes_back_does_not_double_a_stuck_claim() {
    // Two that are one would be refused in turn: the last refusal must meet either of them.
    for refusals in [30, 31] {
        let site = Site::new();
        site.queue.memory().unwrap().refuse(&vec![io::ErrorKind::Other; refusals]);
        let running = site.start();
        site.move_in("a.eml", GOOD);
        until(async || site.lines.text().contains("event=pickup-failed")).await;
        let away = site.root.path().join("away");
        std::fs::rename(site.path(""), &away).unwrap();
        until(async || site.lines.text().contains("cannot use")).await;
        std::fs::rename(&away, site.path("")).unwrap();
        site.the_message().await;
        running.stop().await;
        assert_eq!(site.messages().await.len(), 1);
        assert!(!site.lines.text().contains("cannot read"), "{}", site.lines.text());
    }
}

#[tokio::test]
async fn nothing_is_claimed_while_the_queue_has_no_room() {
    let site = Site::new();
    site.queue.memory().unwrap().refuse(&[io::ErrorKind::StorageFull]);
    let running = site.start();
    site.move_in("a.eml", GOOD);
    until(async || site.lines.text().contains("no room")).await;
    assert!(site.path("a.eml").exists());
    // The next writing verb, whosever it is, meets the full disk; then there is room again.
    assert!(site.queue.retry(&[], Clock::real().now()).await.is_err());
    site.the_message().await;
    running.stop().await;
}

#[tokio::test]
async fn bad_file_waits_as_a_claim_while_badmail_is_missing() {
    let site = Site::new();
    std::fs::remove_dir(site.root.path().join("Badmail")).unwrap();
    let running = site.start();
    site.move_in("bad.eml", "nothing");
    until(async || site.lines.text().contains("event=pickup-failed")).await;
    site.move_in("good.eml", GOOD);
    until(async || site.messages().await.len() == 1).await;
    std::fs::create_dir(site.root.path().join("Badmail")).unwrap();
    until(async || site.badmail.totals().await.unwrap().messages == 1).await;
    running.stop().await;
    assert!(site.is_empty(".claimed"));
}

#[tokio::test]
async fn bad_file_whose_claim_comes_again_is_kept_once() {
    let site = Site::new();
    std::fs::create_dir(site.path(".claimed")).unwrap();
    let claim = format!(".claimed/{}.bad.eml", site.queue.new_id());
    for life in 1..=2 {
        std::fs::write(site.path(&claim), "nothing").unwrap();
        let running = site.start();
        until(async || site.is_empty(".claimed")).await;
        running.stop().await;
        assert_eq!(site.badmail.totals().await.unwrap().messages, 1, "life {life}");
    }
}

#[tokio::test]
async fn missing_directory_is_named_once_and_used_when_it_comes() {
    let site = Site::new();
    std::fs::remove_dir(site.path("")).unwrap();
    symlink("/tmp", site.root.path().join("Pickup")).unwrap();
    let running = site.start();
    until(async || site.lines.text().contains("event=pickup-failed")).await;
    std::fs::remove_file(site.root.path().join("Pickup")).unwrap();
    std::fs::create_dir(site.path("")).unwrap();
    site.move_in("a.eml", GOOD);
    site.the_message().await;
    running.stop().await;
    assert!(!Path::new("/tmp/.claimed").exists());
    assert!(site.lines.text().matches("event=pickup-failed").count() <= 2);
}

#[tokio::test]
async fn large_file_is_passed_on_in_pieces() {
    let site = Site::new();
    let lines = "0123456789abcdef\n".repeat(60_000);
    site.move_in("large.eml", format!("{GOOD}{lines}"));
    let running = site.start();
    let message = site.the_message().await;
    let text = site.content(&message).await;
    assert!(text.ends_with(&format!("\r\n\r\nhello\r\n{}", lines.replace('\n', "\r\n"))));
    assert_eq!(message.size, text.len() as u64);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_files_are_all_taken_once() {
    let site = Site::new();
    for n in 0..150 {
        site.move_in(&format!("{n}.eml"), format!("X-N: {n}\n{GOOD}"));
    }
    let running = site.start();
    for n in 150..300 {
        site.move_in(&format!("{n}.eml"), format!("X-N: {n}\n{GOOD}"));
    }
    until(async || site.messages().await.len() >= 300 && site.is_empty(".claimed")).await;
    running.stop().await;
    let mut sources: Vec<_> = site
        .messages()
        .await
        .into_iter()
        .map(|message| message.envelope.origin.source.clone().unwrap())
        .collect();
    sources.sort();
    sources.dedup();
    assert_eq!(sources.len(), 300);
    assert_eq!(site.messages().await.len(), 300);
}

#[tokio::test]
async fn message_that_goes_in_circles_ends_in_badmail() {
    let site = Site::with(|settings| settings.rules.hops_max = 3);
    site.move_in("loop.eml", format!("{}{GOOD}", "Received: x\n".repeat(3)));
    let running = site.start();
    until(async || site.badmail.totals().await.unwrap().messages == 1).await;
    running.stop().await;
    let kept = site.badmail.list(None, 1).await.unwrap();
    assert_eq!(kept[0].record.as_ref().unwrap().reason, Reason::HopCount);
}

/// A milter at 192.0.2.7, and how long files may wait for it.
fn milter(patience: Span) -> impl FnOnce(&mut Settings) {
    move |settings| {
        settings.patience = patience;
        settings.milters = vec![Milter {
            address: MilterAddress::parse("inet:192.0.2.7:1").unwrap(),
            timeout: Span::hours(1),
            on_failure: OnFailure::Defer,
            local: true,
        }];
    }
}

#[tokio::test]
async fn nobody_who_stops_waits_for_a_milter_and_its_file_stays_a_claim() {
    let site = Site::with(milter(Span::ZERO));
    let listener = site.net.listen("192.0.2.7:1".parse().unwrap()).unwrap();
    let running = site.start();
    until(async || site.path(".claimed").exists()).await;
    site.move_in("invoice.eml", GOOD);
    let (_silent, _) = listener.accept().await.unwrap();
    tokio::time::timeout(Duration::from_secs(120), running.stop()).await.unwrap();
    assert!(site.messages().await.is_empty() && !site.is_empty(".claimed"));
    assert!(site.badmail.list(None, 10).await.unwrap().is_empty());
    assert!(!site.lines.text().contains("pickup-failed"), "{}", site.lines.text());
}

#[tokio::test]
async fn files_that_are_put_off_rest_and_the_log_hears_of_it_once() {
    let site = Site::with(milter(Span::days(2)));
    let running = site.start();
    until(async || site.path(".claimed").exists()).await;
    let tries = || site.lines.text().matches("event=milter-failed").count();
    for number in 1..=3 {
        // It is found by a later search, that takes up again what has rested.
        std::fs::write(site.path(&format!("{number}.eml")), GOOD).unwrap();
        until(async || tries() >= number).await;
    }
    running.stop().await;
    assert_eq!(tries(), 3, "{}", site.lines.text());
    assert_eq!(site.lines.text().matches("a milter has it wait").count(), 1);
}

#[tokio::test]
async fn a_file_waits_for_a_milter_that_cannot_be_heard_and_not_for_ever() {
    let site = Site::with(milter(Span::days(2)));
    let running = site.start();
    until(async || site.path(".claimed").exists()).await;
    site.move_in("invoice.eml", GOOD);
    until(async || site.lines.text().contains("a milter has it wait: it cannot be heard")).await;
    assert!(site.messages().await.is_empty() && !site.is_empty(".claimed"));
    running.stop().await;

    let site = Site::with(milter(Span::ZERO));
    let running = site.start();
    until(async || site.path(".claimed").exists()).await;
    site.move_in("invoice.eml", GOOD);
    until(async || site.badmail.list(None, 10).await.is_ok_and(|all| all.len() == 1)).await;
    running.stop().await;
    assert!(site.messages().await.is_empty() && site.is_empty(".claimed"));
}
