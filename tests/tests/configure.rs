//! The configuration as `smtpctl` changes it: edits that leave the rest of a file alone, the history
//! and the way back, trials, and virtual servers made, renamed and deleted while mail flows.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::Ordering;

use mailroot_tests::account::tag;
use mailroot_tests::load::{Load, Shape};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::ports;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{program, wait};
use serde_json::Value;

fn text(site: &Site, server: &str) -> String {
    fs::read_to_string(site.home().join(format!("etc/servers.d/{server}.yaml"))).unwrap()
}

fn get(site: &Site, server: &str, key: &str) -> String {
    site.ctl(&["config", "get", key, "-s", server]).ok().trim().to_owned()
}

fn revision(site: &Site) -> u64 {
    site.control().json(&["status"])["config_revision"].as_u64().unwrap()
}

/// The size that a server announces to a client.
fn announced(address: SocketAddr) -> String {
    let mut talk = Talk::connect(address).unwrap();
    assert_eq!(talk.reply().unwrap().code, 220);
    let reply = talk.expect("EHLO client.test", 250).to_string();
    reply.lines().find(|line| line.contains("SIZE")).unwrap().to_owned()
}

#[test]
fn a_key_is_set_at_once_and_only_its_line_changes() {
    let site = Site::start(Setup::new());
    let before = text(&site, "default");
    let dry = site.ctl(&["server", "set", "default", "messages.max_size=7MiB", "--dry-run"]);
    assert!(dry.clone().ok().contains("+  max_size: 7MiB"), "{dry}");
    assert_eq!(text(&site, "default"), before, "a dry run writes nothing");

    let silent = site.ctl(&["server", "set", "default", "messages.max_size=7MiB"]).ok();
    assert!(silent.is_empty(), "scripts hear nothing: {silent}");
    assert!(announced(site.address()).contains(&(7 << 20).to_string()));
    let after = text(&site, "default");
    assert_eq!(after, format!("{before}messages:\n  max_size: 7MiB\n"));
    assert_eq!(get(&site, "default", "messages.max_size"), "7MiB");

    let again = site.control().json(&["server", "set", "default", "messages.max_size=7MiB"]);
    assert_eq!(again["changed"], false);
    assert_eq!(text(&site, "default"), after);
    let _unset = site.ctl(&["server", "unset", "default", "messages.max_size"]).ok();
    assert_eq!(text(&site, "default"), before);
}

#[test]
fn listeners_come_and_go_without_harm_to_a_session() {
    let site = Site::start(Setup::new());
    let mut open = site.talk();
    open.expect("EHLO client.test", 250);
    let second = ports::local();
    let add = format!("general.listen+={second}");
    let _added = site.ctl(&["server", "set", "default", &add]).ok();
    assert!(announced(second).contains("SIZE"));
    let remove = format!("general.listen-={second}");
    let _removed = site.ctl(&["server", "set", "default", &remove]).ok();
    wait::until("the listener is gone", || Talk::connect(second).err().map(|_| ()));
    open.expect("NOOP", 250);

    // An address that somebody else has is refused before anything is written.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let wish = format!("general.listen+={}", taken.local_addr().unwrap());
    let before = text(&site, "default");
    let refused = site.ctl(&["server", "set", "default", &wish]).exited(6);
    assert!(refused.err.contains("cannot listen"), "{refused}");
    assert_eq!(text(&site, "default"), before);
}

#[test]
fn a_change_that_would_be_wrong_is_refused_with_the_line() {
    let site = Site::start(Setup::new());
    let before = text(&site, "default");
    for (words, exit, said) in [
        (&["messages.max_size=7"][..], 6, "a size needs a unit"),
        (&["messages.max_recipient=5"][..], 2, "did you mean messages.max_recipients?"),
        (&["messages.max_size"][..], 2, "KEY=VALUE"),
        (&["access.relay.list-=192.0.2.1"][..], 3, "has no item"),
        (&["messages.max_size+=5MiB"][..], 2, "takes one value"),
        (&["description=x", "general.idle_timeout=never"][..], 6, "idle_timeout"),
    ] {
        let line = [&["server", "set", "default"], words].concat();
        let refused = site.ctl(&line).exited(exit);
        assert!(refused.err.contains(said), "{refused}");
    }
    let open = site
        .ctl(&[
            "server",
            "set",
            "default",
            "general.listen+=0.0.0.0:0",
            "access.relay.list+=0.0.0.0/0",
        ])
        .exited(6);
    assert!(open.err.contains("open relay"), "{open}");
    let _unknown = site.ctl(&["server", "set", "nobody", "description=x"]).exited(3);
    assert_eq!(text(&site, "default"), before);
}

#[test]
fn the_history_knows_who_and_leads_back() {
    let site = Site::start(Setup::new());
    let first = revision(&site);
    let before = text(&site, "default");
    let set = ["server", "set", "default", "description=one", "--message", "a reason"];
    let _set = site.ctl(&set).ok();
    // An edit by hand shows as waiting, and becomes a revision of its own when another comes.
    let path = site.home().join("etc/servers.d/default.yaml");
    fs::write(&path, text(&site, "default").replace("description: one", "description: two"))
        .unwrap();
    let status = site.ctl(&["status", "--check"]).exited(10);
    assert!(status.out.contains("edited and not loaded"), "{status}");
    assert!(site.ctl(&["config", "diff"]).ok().contains("+description: two"));
    let _set = site.ctl(&["config", "set", "service.min_free=2MiB"]).ok();

    let history = site.control().json(&["config", "history"]);
    let told: Vec<(&str, &str)> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["how"].as_str().unwrap(), it["changes"][0].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(told[0].0, "smtpctl");
    assert!(told[0].1.starts_with("service: service.min_free"), "{told:?}");
    assert_eq!(told[1], ("file edit", "default: description one -> two"));
    assert_eq!(told[2], ("smtpctl", "default: description none -> one"));
    assert_eq!(history[2]["message"], "a reason");
    assert!(!history[2]["who"].as_str().unwrap().is_empty());

    let _back = site.ctl(&["config", "rollback", &first.to_string()]).ok();
    assert_eq!(text(&site, "default"), before, "to the octet");
    assert_eq!(revision(&site), first + 4);
    let _back = site.ctl(&["config", "rollback", "0"]).ok();
    assert_eq!(get(&site, "default", "description"), "two");
    let _unknown = site.ctl(&["config", "rollback", "999"]).exited(3);
}

#[test]
fn a_broken_file_is_healed_by_going_back() {
    let site = Site::start(Setup::new());
    let good = text(&site, "default");
    let path = site.home().join("etc/servers.d/default.yaml");
    fs::write(&path, "version: [\n").unwrap();
    let refused = site.ctl(&["server", "set", "default", "description=x"]).exited(6);
    assert!(refused.err.contains("default.yaml"), "{refused}");
    let _back = site.ctl(&["config", "rollback", &revision(&site).to_string()]).ok();
    assert_eq!(text(&site, "default"), good);
    let _well = site.ctl(&["status", "--check"]).ok();
}

#[test]
fn whoever_expects_another_revision_changes_nothing() {
    let site = Site::start(Setup::new());
    let seen = revision(&site).to_string();
    let set =
        |text: &str| site.ctl(&["server", "set", "default", text, "--expect-revision", &seen]);
    let _first = set("description=one").ok();
    let second = set("description=two").exited(7);
    assert!(second.err.contains("not"), "{second}");
    assert_eq!(get(&site, "default", "description"), "one");
}

#[test]
fn a_trial_ends_by_itself_unless_it_is_confirmed() {
    let site = Site::start(Setup::new());
    let _tried = site.ctl(&["server", "set", "default", "description=one", "--try", "1s"]).ok();
    wait::until("the change is taken back", || {
        (get(&site, "default", "description") == "none").then_some(())
    });
    let how = site.control().json(&["config", "history", "--limit", "1"])[0]["how"].clone();
    assert_eq!(how, "trial over");

    let _tried = site.ctl(&["server", "set", "default", "description=two", "--try", "1h"]).ok();
    let other = site.ctl(&["server", "set", "default", "description=three"]).exited(7);
    assert!(other.err.contains("on trial"), "{other}");
    // It also ends over a restart: the note of it is on disk.
    site.stop();
    site.launch();
    assert!(site.ctl(&["status", "--check"]).exited(10).out.contains("on trial"));
    let _kept = site.ctl(&["config", "confirm"]).ok();
    let _well = site.ctl(&["status", "--check"]).ok();
    assert_eq!(get(&site, "default", "description"), "two");
    let _nothing = site.ctl(&["config", "confirm"]).exited(3);
}

#[test]
fn a_locked_configuration_refuses_edits_with_its_words() {
    let site = Site::start(Setup::new());
    let export = site.ctl(&["config", "export"]).ok();
    let _locked = site.ctl(&["config", "lock", "managed elsewhere"]).ok();
    let refused = site.ctl(&["server", "set", "default", "description=x"]).exited(4);
    assert!(refused.err.contains("managed elsewhere"), "{refused}");
    // Whoever manages the host applies the whole.
    let file = site.home().join("export.yaml");
    fs::write(&file, export.replacen("version: 1", "version: 1\n  # managed", 1)).unwrap();
    let _applied = site.ctl(&["config", "apply", "-f", file.to_str().unwrap()]).ok();
    let service = fs::read_to_string(site.home().join("etc/mailroot.yaml")).unwrap();
    assert!(service.contains("# managed"), "{service}");
    let _unlocked = site.ctl(&["config", "unlock"]).ok();
    let _set = site.ctl(&["server", "set", "default", "description=x"]).ok();
}

#[test]
fn an_export_is_applied_whole_with_every_comment() {
    let site = Site::start(Setup::new());
    let before = text(&site, "default");
    let file = site.home().join("export.yaml");
    fs::write(&file, site.ctl(&["config", "export"]).ok()).unwrap();
    let listen = ports::local().to_string();
    let _made = site.ctl(&["server", "create", "lan", "--listen", &listen]).ok();
    let _set = site.ctl(&["server", "set", "default", "description=x"]).ok();
    let _applied = site.ctl(&["config", "apply", "-f", file.to_str().unwrap()]).ok();
    assert_eq!(text(&site, "default"), before);
    assert_eq!(site.control().json(&["server", "list"]).as_array().map(Vec::len), Some(1));
    let _bad = site.ctl(&["config", "apply", "-f", "/nonexistent"]).exited(3);
}

#[test]
fn domains_are_changed_renamed_and_promoted() {
    let site = Site::start(Setup::new());
    let _added = site.ctl(&["domain", "add", "alias", "second.test"]).ok();
    let _added = site.ctl(&["domain", "add", "remote", "far.test", "--relay"]).ok();
    let _set = site.ctl(&["domain", "set", "far.test", "route=hub.test:26", "helo_only=yes"]).ok();
    let shown = site.control().json(&["domain", "show", "far.test"]);
    assert_eq!((&shown["route"], &shown["helo_only"]), (&"hub.test:26".into(), &true.into()));
    let _unset = site.ctl(&["domain", "set", "far.test", "helo_only="]).ok();
    assert_eq!(site.control().json(&["domain", "show", "far.test"])["helo_only"], false);
    let _wrong = site.ctl(&["domain", "set", "far.test", "drop.quota=1GiB"]).exited(6);
    let _none = site.ctl(&["domain", "set", "nowhere.test", "relay=yes"]).exited(3);

    let _default = site.ctl(&["domain", "default", "second.test"]).ok();
    let kinds = || -> Vec<(String, String)> {
        let rows = site.control().json(&["domain", "list"]);
        let word = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        rows.as_array().unwrap().iter().map(|row| (word(row, "name"), word(row, "kind"))).collect()
    };
    assert!(kinds().contains(&("second.test".to_owned(), "default".to_owned())), "{:?}", kinds());
    assert!(kinds().contains(&(LOCAL_DOMAIN.to_owned(), "alias".to_owned())), "{:?}", kinds());
    let _renamed = site.ctl(&["domain", "rename", "second.test", "third.test"]).ok();
    let _remote = site.ctl(&["domain", "default", "far.test"]).exited(7);

    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message("a@client.test", &["b@third.test"], &tagged("x")).unwrap().code, 250);
    site.await_dropped(1);
}

#[test]
fn the_lists_of_clients_are_changed_and_explained() {
    let site = Site::start(Setup::new());
    let relay = |words: &[&str]| site.ctl(&[&["relay"], words].concat());
    let decision = |words: &[&str]| site.control().json(words);
    let denied = relay(&["test", "--client", "192.0.2.9"]).exited(10);
    assert!(denied.out.contains("refused") && denied.out.contains("550 5.7.1"), "{denied}");
    let _allowed = relay(&["allow", "192.0.2.0/24", "--comment", "the \"LAN\", east"]).ok();
    let allowed = relay(&["test", "--client", "192.0.2.9"]).ok();
    assert!(allowed.contains("relay list 192.0.2.0/24"), "{allowed}");
    assert!(allowed.contains("default.yaml:"), "it names the line: {allowed}");
    let list = site.control().json(&["relay", "list"]);
    let entries = list["entries"].as_array().unwrap();
    let entry = entries.iter().find(|it| it["entry"] == "192.0.2.0/24").unwrap();
    assert_eq!(entry["comment"], "the \"LAN\", east");
    assert!(entries.len() > 1, "those of the default stay: {list}");
    let again = site.control().json(&["relay", "allow", "192.0.2.0/24"]);
    assert_eq!(again["changed"], false);
    let _denied = relay(&["deny", "192.0.2.0/24"]).ok();
    let _denied = relay(&["test", "--client", "192.0.2.9"]).exited(10);
    let _absent = relay(&["remove", "192.0.2.0/24"]).exited(3);
    let _content = relay(&["remove", "192.0.2.0/24", "--if-exists"]).ok();
    let wrong = relay(&["allow", "192.0.2.1/24"]).exited(6);
    assert!(wrong.err.contains("host bits"), "{wrong}");

    // A deny list acts on the next connection.
    let _denied = site.ctl(&["access", "deny", "127.0.0.1"]).ok();
    let mut talk = Talk::connect(site.address()).unwrap();
    assert_eq!(talk.reply().unwrap().code, 554);
    let tested = site.ctl(&["access", "test", "--client", "127.0.0.1"]).exited(10);
    assert!(tested.out.contains("connection list 127.0.0.1"), "{tested}");
    let _allowed = site.ctl(&["access", "allow", "127.0.0.1"]).ok();
    assert!(announced(site.address()).contains("SIZE"));

    let _remote = site
        .ctl(&["domain", "add", "remote", "*.corp.test", "--relay", "--route", "[192.0.2.7]:26"])
        .ok();
    let shown = decision(&["route", "show", "eve@sales.corp.test", "--client", "192.0.2.9"]);
    assert_eq!(shown["way"]["domain"], "*.corp.test");
    assert_eq!(shown["way"]["hop"], "[192.0.2.7]:26");
    assert_eq!(shown["relay"]["outcome"], "allowed");
    assert!(shown["way"]["origin"].as_str().unwrap().contains("default.yaml:"), "{shown}");
    let local = site.ctl(&["route", "show", &format!("a@{LOCAL_DOMAIN}")]).ok();
    assert!(local.contains("Drop"), "{local}");
    let other = site.ctl(&["route", "show", "a@nowhere.test", "--no-dns"]).ok();
    assert!(other.contains("MX of nowhere.test"), "{other}");
    let _bad = site.ctl(&["route", "show", "nonsense"]).exited(2);
}

/// A site with mail in its queue that nobody takes.
fn holding() -> (Site, Peer) {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt => Answer::say("451 4.7.1 later"),
        _ => Answer::Accept,
    });
    let site =
        Site::start(Setup::new().smart_host(peer.address()).key("delivery.outbound.retry", "[1h]"));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message("a@client.test", &["b@far.test"], &tagged("x")).unwrap().code, 250);
    (site, peer)
}

#[test]
fn a_renamed_server_keeps_its_mail() {
    let (site, _peer) = holding();
    let list = || site.control().json(&["queue", "list"])[0]["id"].clone();
    wait::until("the first attempt", || {
        let row = site.control().json(&["queue", "list"]);
        (row[0]["attempts"].as_u64() > Some(0)).then_some(())
    });
    let id = list();
    let _renamed = site.ctl(&["server", "rename", "default", "lan"]).ok();
    assert_eq!(list(), id);
    assert!(site.home().join("spool/lan/Queue").is_dir());
    assert!(!site.home().join("spool/default").exists());
    assert!(announced(site.address()).contains("SIZE"));
    let listen = ports::local().to_string();
    let _made = site.ctl(&["server", "create", "other", "--listen", &listen]).ok();
    let _taken = site.ctl(&["server", "rename", "other", "lan"]).exited(7);
}

#[test]
fn a_server_that_holds_mail_is_not_deleted_by_the_way() {
    let (site, _peer) = holding();
    let refused = site.ctl(&["server", "delete", "default"]).exited(7);
    assert!(refused.err.contains("1 queued message"), "{refused}");
    assert_eq!(site.control().json(&["server", "list"])[0]["state"], "running");
    let _asked = site.ctl(&["server", "delete", "default", "--discard-queue"]).exited(2);
    let line = ["server", "delete", "default", "--discard-queue", "--purge-store", "--yes"];
    let _deleted = site.ctl(&line).ok();
    assert!(!site.home().join("spool/default").exists());
    assert!(!site.home().join("etc/servers.d/default.yaml").exists());
    let _gone = site.ctl(&["server", "delete", "default"]).exited(3);
    let _content = site.ctl(&["server", "delete", "default", "--if-exists"]).ok();
}

#[test]
fn a_copy_has_listeners_and_mail_of_its_own() {
    let site = Site::start(Setup::new());
    let _set = site.ctl(&["server", "set", "default", "messages.max_size=9MiB"]).ok();
    let listen = ports::local();
    let _copy =
        site.ctl(&["server", "clone", "default", "lan", "--listen", &listen.to_string()]).ok();
    assert!(announced(listen).contains(&(9 << 20).to_string()));
    assert!(site.home().join("spool/lan/Queue").is_dir());
    let file = site.home().join("lan.yaml");
    fs::write(&file, text(&site, "lan").replace("9MiB", "8MiB")).unwrap();
    let _applied = site.ctl(&["server", "apply", "-f", file.to_str().unwrap()]).ok();
    assert!(announced(listen).contains(&(8 << 20).to_string()));
    let again = site.control().json(&["server", "apply", "-f", file.to_str().unwrap()]);
    assert_eq!(again["changed"], false);

    let _off = site.ctl(&["server", "stop", "lan", "--persist"]).ok();
    assert_eq!(get(&site, "lan", "enabled"), "false");
    site.stop();
    site.launch();
    let state = |name: &str| site.control().json(&["server", "show", name])["state"].clone();
    assert_eq!((state("lan"), state("default")), ("stopped".into(), "running".into()));
    let _on = site.ctl(&["server", "start", "lan", "--persist"]).ok();
    assert_eq!(state("lan"), "running");
}

#[test]
fn schemas_and_settings_are_there_for_other_tools() {
    let site = Site::start(Setup::new());
    for file in ["service", "server"] {
        let schema = site.control().json(&["config", "schema", file]);
        assert_eq!(schema["additionalProperties"], false, "{schema}");
    }
    let iis = site.ctl(&["config", "show", "-s", "default", "--iis"]).ok();
    let hops = iis.lines().find(|line| line.starts_with("delivery.max_hops")).unwrap();
    assert!(hops.contains("100") && hops.contains("15"), "{hops}");
    let changed = site.control().json(&["config", "show", "-s", "default", "--changed"]);
    let is_written = |row: &Value| row["origin"].as_str().unwrap().contains("default.yaml:");
    assert!(changed.as_array().unwrap().iter().all(is_written), "{changed}");
    let _none = site.ctl(&["config", "get", "no.such.key"]).exited(3);
}

#[test]
fn servers_made_changed_renamed_and_deleted_disturb_no_other() {
    let site = Site::start(Setup::new());
    let shape = Shape { clients: 10, per_connection: 50, filling: 200 };
    let load = Load::start(site.address(), shape, |number| format!("n{number}@{LOCAL_DOMAIN}"));
    let listen = ports::local().to_string();
    for round in 0..10 {
        let _made = site.ctl(&["server", "create", "lan", "--listen", &listen]).ok();
        let size = format!("messages.max_size={}MiB", 10 + round);
        let _set = site.ctl(&["server", "set", "default", &size]).ok();
        let _paused = site.ctl(&["server", "pause", "lan"]).ok();
        let _renamed = site.ctl(&["server", "rename", "lan", "wan"]).ok();
        let _reloaded = site.ctl(&["reload"]).ok();
        let _deleted = site.ctl(&["server", "delete", "wan", "--purge-store", "--yes"]).ok();
    }
    wait::until("load", || (load.account.acknowledged() >= 100).then_some(()));
    let broken = load.broken.load(Ordering::SeqCst);
    let account = load.stop();
    site.await_empty_queue();
    assert_eq!(broken, 0, "sessions were dropped");
    let arrived: Vec<String> =
        site.dropped("default").iter().map(|stored| tag(&stored.octets)).collect();
    let balance = account.balance(&arrived);
    assert!(balance.lost.is_empty(), "{:?}", balance.lost);
    assert_eq!(balance.duplicates, 0);
}

#[test]
fn a_shell_completes_words_and_the_names_of_the_moment() {
    let site = Site::start(Setup::new());
    let _made = site.ctl(&["server", "create", "lan", "--disabled", "--domain", "lan.test"]).ok();
    let script = site.home().join("completion");
    fs::write(&script, site.ctl(&["completion", "bash"]).ok()).unwrap();
    let complete = |words: &str| -> Vec<String> {
        let smtpctl = program::ours("smtpctl");
        let shell = format!(
            "PATH={}:$PATH; export MAILROOT_HOME={}; source {}; COMP_WORDS=(smtpctl {words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9; \
             _clap_complete_smtpctl smtpctl \"${{COMP_WORDS[$COMP_CWORD]}}\" 2>/dev/null; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            smtpctl.parent().unwrap().display(),
            site.home().display(),
            script.display(),
        );
        let done = program::run(Command::new("bash").args(["-c", &shell]), b"").ok();
        done.lines().map(|word| word.trim().to_owned()).collect()
    };
    assert!(complete("serv").contains(&"server".to_owned()), "{:?}", complete("serv"));
    let names = complete("server show ''");
    assert!(
        names.contains(&"lan".to_owned()) && names.contains(&"default".to_owned()),
        "{names:?}"
    );
    let domains = complete("-s lan domain show ''");
    assert!(domains.contains(&"lan.test".to_owned()), "{domains:?}");
    site.stop();
    assert!(!complete("server show ''").contains(&"lan".to_owned()), "nobody can be asked");
}
