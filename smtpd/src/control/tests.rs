//! The interface over a real socket, with a real service below it, the network excepted.

use std::path::{Path, PathBuf};

use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::config::ServerName;
use mailroot_common::control::{
    Changed, Domain, Problem, QueueEntry, QueueMessage, QueueState, Server, Status,
};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::envelope::{BodyKind, Envelope, Origin, Recipient, Via};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Control;
use crate::badmail::{Badmail, Concerned, Reason, Record};
use crate::clock::Clock;
use crate::config::Paths;
use crate::net::{Net, SimulatedNet};
use crate::observe::{Format, Level, Log, Sink};
use crate::queue::{Body, Draft, Queue};
use crate::service::Service;

const SERVER: &str = "version: 1
general:
  listen: 127.0.0.1:2525     # kept
domains:
  - {name: here.example, type: default}
";

struct Daemon {
    dir: tempfile::TempDir,
    service: Service,
    control: Control,
    log: Sink,
}

impl Daemon {
    /// A daemon whose server `default` is stopped, so that mail stays where a test puts it.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(dir.path())).unwrap();
        std::fs::create_dir_all(&paths.servers_dir).unwrap();
        std::fs::write(&paths.service_file, "version: 1\n").unwrap();
        std::fs::write(paths.servers_dir.join("default.yaml"), SERVER).unwrap();
        let started = crate::config::start(&paths, Timestamp::default()).unwrap();
        let clock = Clock::real();
        let (log, sink) = Log::captured(Format::Logfmt, Level::Info, clock.clone());
        let net = Net::Simulated(SimulatedNet::default());
        let service = Service::start(paths, started, log, clock, net).await;
        let control = Control::listen(service.clone()).unwrap();
        let daemon = Self { dir, service, control, log: sink };
        let stopped: Server = daemon.good("POST", "/v1/servers/default/stop", "{}").await;
        assert_eq!(stopped.state.as_str(), "stopped");
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/control.sock")
    }

    fn queue(&self) -> Queue {
        let name = ServerName::parse("default").unwrap();
        self.service.server(&name).unwrap().queue().unwrap()
    }

    fn badmail(&self) -> Badmail {
        let name = ServerName::parse("default").unwrap();
        self.service.server(&name).unwrap().badmail().unwrap()
    }

    async fn accept(&self, sender: &str, recipient: &str, body: &[u8]) -> QueueId {
        let envelope = envelope(sender, recipient, self.service.clock().now());
        self.queue().accept(Draft { envelope, body: Body::Memory(body.to_vec()) }).await.unwrap()
    }

    /// The body of an answer that must be good.
    async fn good<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> T {
        let (status, body) = ask(&self.socket(), method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The problem of an answer that must be none.
    async fn refused(&self, method: &str, path: &str, body: &str) -> Problem {
        let (status, body) = ask(&self.socket(), method, path, body).await;
        let problem: Problem = serde_json::from_str(&body).unwrap();
        assert_eq!(status, problem.status);
        problem
    }

    async fn listed(&self, query: &str) -> Vec<QueueEntry> {
        let (status, body) = ask(&self.socket(), "GET", &format!("/v1/queue{query}"), "").await;
        assert_eq!(status, 200, "{query}: {body}");
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn changed(&self, verb: &str, body: &str) -> Changed {
        self.good("POST", &format!("/v1/queue/do/{verb}"), body).await
    }

    async fn end(self) {
        self.control.stop().await;
        self.service.stop().await;
        assert!(!self.dir.path().join("run/control.sock").exists());
    }
}

fn envelope(sender: &str, recipient: &str, at: Timestamp) -> Envelope {
    Envelope {
        hold: None,
        tls_optional: false,
        sender: ReversePath::parse(sender).unwrap(),
        recipients: vec![Recipient::plain(Mailbox::parse(recipient).unwrap())],
        accepted_at: at,
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
        subject: Some("Invoice".to_owned()),
        wishes: smtpd_core::queue::wishes::Wishes::default(),
    }
}

/// Asks in HTTP/1.0, whose answers end with the connection; status and body.
async fn ask(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = say(socket, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0), body.to_owned())
}

/// Says something and hears everything that comes back.
async fn say(socket: &Path, octets: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // The daemon may have heard enough before everything is said.
    let _ = stream.write_all(octets).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn servers_and_domains_are_shown_and_changed_live() {
    let daemon = Daemon::start().await;
    let status: Status = daemon.good("GET", "/v1/status", "").await;
    assert_eq!(status.servers[0].name, "default");
    let domain = r#"{"kind":"remote","name":"*.b.example","relay":true,"route":["h.example:26"]}"#;
    let path = "/v1/servers/default/domains";
    let added: Domain = daemon.good("POST", path, domain).await;
    assert_eq!((added.name.as_str(), added.relay), ("*.b.example", Some(true)));
    assert_eq!(&*daemon.refused("POST", path, domain).await.code, "domain.exists");
    let domains: Vec<Domain> = daemon.good("GET", path, "").await;
    assert_eq!(domains.len(), 2);
    let file = std::fs::read_to_string(daemon.dir.path().join("etc/servers.d/default.yaml"));
    assert!(file.unwrap().contains("# kept"));
    let removed: Domain = daemon.good("DELETE", &format!("{path}/%2A.b.example"), "").await;
    assert_eq!(removed.name, "*.b.example");
    let gone = daemon.refused("DELETE", &format!("{path}/%2A.b.example"), "").await;
    assert_eq!(&*gone.code, "domain.not_found");
    let default = daemon.refused("DELETE", &format!("{path}/here.example"), "").await;
    assert_eq!(&*default.code, "domain.is_default");
    assert_eq!(daemon.refused("GET", "/v1/servers/other", "").await.exit, 3);
    assert!(daemon.log.text().contains("event=config"), "{}", daemon.log.text());
    daemon.end().await;
}

#[tokio::test]
async fn a_server_is_tried_created_paused_and_named_once() {
    let daemon = Daemon::start().await;
    let lan = r#"{"name":"lan","listen":["127.0.0.1:2526"],"domain":"lan.example"}"#;
    let planned: Server = daemon.good("POST", "/v1/servers?dry_run=true", lan).await;
    assert_eq!(planned.domain, "lan.example");
    let servers: Vec<Server> = daemon.good("GET", "/v1/servers", "").await;
    assert_eq!(servers.len(), 1, "a trial changes nothing");
    let made: Server = daemon.good("POST", "/v1/servers", lan).await;
    assert_eq!((made.state.as_str(), made.trouble), ("running", None));
    assert_eq!(&*daemon.refused("POST", "/v1/servers", lan).await.code, "server.exists");
    let reason = r#"{"reason":"firmware"}"#;
    let paused: Server = daemon.good("POST", "/v1/servers/lan/pause", reason).await;
    assert_eq!((paused.state.as_str(), paused.reason.as_deref()), ("paused", Some("firmware")));
    assert_eq!(daemon.refused("POST", "/v1/servers/lan/explode", "{}").await.exit, 2);
    let report = daemon.good::<serde_json::Value>("GET", "/v1/config/check", "").await;
    assert_eq!(report["valid"], true);
    let file = daemon.dir.path().join("etc/servers.d/lan.yaml");
    std::fs::write(&file, "version: 1\nnonsense: 1\n").unwrap();
    assert_eq!(daemon.refused("POST", "/v1/reload", "").await.exit, 6);
    let report = daemon.good::<serde_json::Value>("GET", "/v1/config/check", "").await;
    assert_eq!(report["valid"], false);
    daemon.end().await;
}

#[tokio::test]
async fn messages_are_chosen_shown_and_changed() {
    let daemon = Daemon::start().await;
    let first =
        daemon.accept("a@here.example", "x@slow.example", b"Subject: 1\r\n\r\none\r\n").await;
    let second =
        daemon.accept("b@here.example", "y@fast.example", b"Subject: 2\r\n\r\ntwo\r\n").await;
    let ids = |entries: Vec<QueueEntry>| entries.iter().map(|it| it.id).collect::<Vec<_>>();
    assert_eq!(ids(daemon.listed("").await), [first, second]);
    assert_eq!(ids(daemon.listed("?limit=1").await), [first]);
    assert_eq!(ids(daemon.listed("?to=*%40fast.example").await), [second]);
    assert_eq!(ids(daemon.listed("?from=a%40*&domain=fast.example").await), []);
    assert_eq!(ids(daemon.listed(&format!("?ids={second},{first}")).await), [first, second]);
    assert_eq!(daemon.refused("GET", "/v1/queue?older_than=2", "").await.exit, 2);
    assert_eq!(daemon.refused("GET", "/v1/queue?server=other", "").await.exit, 3);
    let beginning = &first.to_string()[..4];
    let problem = daemon.refused("GET", &format!("/v1/queue/{beginning}"), "").await;
    assert_eq!((&*problem.code, problem.items.len()), ("selector.ambiguous", 2));

    let shown: QueueMessage = daemon.good("GET", &format!("/v1/queue/{first}"), "").await;
    assert_eq!(shown.recipients[0].route.as_deref(), Some("mx:slow.example"));
    let (_, content) =
        ask(&daemon.socket(), "GET", &format!("/v1/queue/{first}/content"), "").await;
    assert_eq!(content, "Subject: 1\r\n\r\none\r\n");
    let path = format!("/v1/queue/{first}/content?headers=true");
    assert_eq!(ask(&daemon.socket(), "GET", &path, "").await.1, "Subject: 1\r\n\r\n");

    assert_eq!(daemon.refused("POST", "/v1/queue/do/remove", "{}").await.exit, 2);
    let wish = format!(r#"{{"selector":{{"ids":["{first}"]}},"reason":"legal"}}"#);
    assert_eq!(daemon.changed("hold", &wish).await.ids, [first.to_string()]);
    let held = daemon.listed("?state=held").await;
    assert_eq!((held.len(), held[0].state), (1, QueueState::Held));
    assert!(held[0].reason.as_deref().is_some_and(|reason| reason.contains("legal")));
    assert_eq!(daemon.changed("release", &wish).await.changed, 1);
    let all = r#"{"selector":{"all":true}}"#;
    assert_eq!(daemon.changed("flush", all).await.changed, 2);
    let wish = format!(r#"{{"selector":{{"ids":["{first}","000000000000"]}}}}"#);
    let removed = daemon.changed("remove", &wish).await;
    assert_eq!((removed.matched, removed.changed, removed.failed.len()), (2, 1, 1));
    let wish = format!(r#"{{"selector":{{"ids":["{first}","000000000000"]}},"if_exists":true}}"#);
    let removed = daemon.changed("remove", &wish).await;
    assert_eq!((removed.matched, removed.gone, removed.failed.len()), (2, 2, 0));
    assert_eq!(daemon.refused("GET", &format!("/v1/queue/{first}"), "").await.exit, 3);
    let log = daemon.log.text();
    for event in ["held", "released", "removed", "content-read"] {
        assert!(log.contains(&format!("event={event} server=default id={first} actor=")), "{log}");
    }
    assert!(log.contains("event=scheduled server=default actor="), "{log}");
    daemon.end().await;
}

#[tokio::test]
async fn a_list_longer_than_a_page_is_whole() {
    let daemon = Daemon::start().await;
    let mut ids = Vec::new();
    for _ in 0..1_200 {
        ids.push(daemon.accept("", "x@slow.example", b"\r\n").await);
    }
    ids.sort_unstable();
    let listed = daemon.listed("").await;
    assert_eq!(listed.iter().map(|entry| entry.id).collect::<Vec<_>>(), ids);
    assert_eq!(daemon.listed("?limit=700").await.len(), 700);
    let removed = daemon.changed("remove", r#"{"selector":{"from":"<>"}}"#).await;
    assert_eq!((removed.changed, removed.ids.len()), (1_200, Changed::IDS_MAX));
    assert_eq!(daemon.listed("").await.len(), 0);
    daemon.end().await;
}

#[tokio::test]
async fn badmail_is_shown_put_back_and_purged() {
    let daemon = Daemon::start().await;
    for (number, reason) in [Reason::NdrOfDsn, Reason::BadPickupFile].into_iter().enumerate() {
        let record = Record {
            id: daemon.queue().new_id(),
            at: daemon.service.clock().now(),
            reason,
            detail: "550 5.1.1 no such user".to_owned(),
            sender: Some(ReversePath::Null),
            recipients: vec![Concerned {
                mailbox: Mailbox::parse("web@slow.example").unwrap(),
                place: number,
                outcome: None,
            }],
            source: None,
            envelope: None,
        };
        daemon.badmail().keep(record, b"Subject: x\n\nbody\n".to_vec()).await.unwrap();
    }
    let list = async |query: &str| {
        let (status, body) = ask(&daemon.socket(), "GET", &format!("/v1/badmail{query}"), "").await;
        assert_eq!(status, 200, "{body}");
        let entries = body.lines().map(|line| serde_json::from_str(line).unwrap());
        entries.collect::<Vec<serde_json::Value>>()
    };
    assert_eq!(list("").await.len(), 2);
    let found = list("?reason=bad-pickup").await;
    let id = found[0]["id"].as_str().unwrap().to_owned();
    assert!(id.ends_with("-2"), "{id}");
    let shown: serde_json::Value = daemon.good("GET", &format!("/v1/badmail/{id}"), "").await;
    assert!(shown["report"].as_str().unwrap().contains("bad-pickup-file"));
    let (_, content) = ask(&daemon.socket(), "GET", &format!("/v1/badmail/{id}/content"), "").await;
    assert_eq!(content, "Subject: x\n\nbody\n");

    let wish = format!(r#"{{"selector":{{"ids":["{id}"]}},"to":["new@slow.example"]}}"#);
    let changed: Changed = daemon.good("POST", "/v1/badmail/do/requeue", &wish).await;
    assert_eq!((changed.changed, changed.failed.len()), (1, 0));
    let back = daemon.listed("").await;
    assert_eq!(back[0].to[0].to_string(), "new@slow.example");
    let path = format!("/v1/queue/{}/content", back[0].id);
    assert_eq!(ask(&daemon.socket(), "GET", &path, "").await.1, "Subject: x\r\n\r\nbody\r\n");
    assert_eq!(list("").await.len(), 1);
    let all = r#"{"selector":{"all":true}}"#;
    let purged: Changed = daemon.good("POST", "/v1/badmail/do/purge", all).await;
    assert_eq!((purged.changed, list("").await.len()), (1, 0));
    assert_eq!(daemon.refused("GET", &format!("/v1/badmail/{id}"), "").await.exit, 3);
    daemon.end().await;
}

#[tokio::test]
async fn the_interface_describes_itself() {
    let daemon = Daemon::start().await;
    let document: serde_json::Value = daemon.good("GET", "/v1/openapi.json", "").await;
    assert_eq!(document["openapi"], "3.1.0");
    let remove = &document["paths"]["/v1/queue/do/{verb}"]["post"];
    assert_eq!(remove["x-role"], "operator");
    assert_eq!(remove["parameters"][0]["name"], "verb");
    let list = &document["paths"]["/v1/queue"]["get"];
    let names = list["parameters"].as_array().unwrap().iter().map(|it| it["name"].as_str());
    assert!(names.flatten().any(|name| name == "older_than"));
    // Whatever is described is there: nothing answers that there is no such path or method.
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace("{server}", "nobody").replace("{id}", "000000000000");
            let path = path.replace("{domain}", "a.example").replace("{verb}", "x");
            let path = path.replace("{list}", "relay").replace("{revision}", "1");
            // A dialogue has no end.
            let path = match path.strip_suffix("/dialogue") {
                Some(session) => format!("{session}/dialogue?limit=0"),
                None => path,
            };
            let (_, body) = ask(&daemon.socket(), &method.to_uppercase(), &path, "").await;
            assert!(!body.contains("request.not_found"), "{method} {path}: {body}");
            assert!(!body.contains("request.no_method"), "{method} {path}: {body}");
        }
    }
    daemon.end().await;
}

#[tokio::test]
async fn whatever_a_client_sends_the_daemon_goes_on() {
    let daemon = Daemon::start().await;
    let socket = daemon.socket();
    let huge = [b"GET /v1/status HTTP/1.1\r\nX: ".as_slice(), &[b'a'; 200_000]].concat();
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(500));
    for octets in [
        b"\xff\xff\xff\xff\0\0\0\0\r\n\r\n".as_slice(),
        b"GET\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &huge,
        many.as_bytes(),
    ] {
        let answer = say(&socket, octets).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    for (request, status) in [
        ("GET /v1/status HTTP/1.0\r\nHost: localhost\r\nOrigin: null\r\n\r\n", "403"),
        ("GET /v1/status HTTP/1.0\r\nHost: evil.example\r\n\r\n", "403"),
        ("GET /v2/status HTTP/1.0\r\nHost: localhost\r\n\r\n", "404"),
        ("PATCH /v1/status HTTP/1.0\r\nHost: localhost\r\n\r\n", "400"),
        (
            "POST /v1/queue/do/remove HTTP/1.0\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n{]}",
            "400",
        ),
        ("GET /v1/queue/%2e%2e%2f HTTP/1.0\r\nHost: localhost\r\n\r\n", "400"),
    ] {
        let answer = say(&socket, request.as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request}: {answer}");
    }
    let large = "x".repeat(2 << 20);
    assert_eq!(daemon.refused("POST", "/v1/queue/do/remove", &large).await.exit, 2);
    daemon.end().await;
}

#[tokio::test]
async fn clients_that_hang_take_no_place_from_the_daemon() {
    let daemon = Daemon::start().await;
    let mut hanging = Vec::new();
    for _ in 0..200 {
        let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
        // Those beyond the bound are closed at once.
        let _ = stream.write_all(b"GET /v1/status HT").await;
        hanging.push(stream);
    }
    // The daemon itself does not hang: it hears its operators as soon as there is a place.
    drop(hanging);
    let answered = async { while ask(&daemon.socket(), "GET", "/v1/status", "").await.0 != 200 {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), answered).await.unwrap();
    assert!(daemon.log.text().contains("event=control-full"));
    daemon.end().await;
}
