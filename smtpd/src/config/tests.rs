//! Directories of files, loaded, started and changed.

use std::fs;
use std::path::Path;

use mailroot_common::address::Domain;
use mailroot_common::config::delivery::{InDoubt, TlsMode};
use mailroot_common::config::domains::Release;
use mailroot_common::config::general::Listen;
use mailroot_common::config::{DomainName, Hop, Profile, ServerName};
use mailroot_common::net::Network;
use mailroot_common::rate::Rate;

use super::*;
use crate::disk::{Disk, Fault, Modelled};
use mailroot_common::units::Timestamp;

struct Home {
    dir: tempfile::TempDir,
    paths: Paths,
}

const SERVICE: &str = "version: 1\n";

fn home(servers: &[(&str, &str)]) -> Home {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(Some(dir.path())).unwrap();
    fs::create_dir_all(&paths.servers_dir).unwrap();
    fs::write(&paths.service_file, SERVICE).unwrap();
    let home = Home { dir, paths };
    for (name, text) in servers {
        home.put(name, text);
    }
    home
}

impl Home {
    fn put(&self, server: &str, text: &str) {
        fs::write(self.paths.server_file(&name(server)), text).unwrap();
    }

    fn text(&self, server: &str) -> String {
        fs::read_to_string(self.paths.server_file(&name(server))).unwrap()
    }

    /// The errors as people see them, without this test's directory.
    fn said(&self, failed: &Failed) -> String {
        failed.to_string().replace(&*self.dir.path().to_string_lossy(), "")
    }

    fn editor(&self) -> Editor {
        Editor::new(self.paths.clone(), Note::default())
    }
}

fn name(text: &str) -> ServerName {
    ServerName::parse(text).unwrap()
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn listening(address: &str) -> String {
    format!(
        "version: 1\ngeneral:\n  listen:\n    - {address}\n\
         domains: [{{name: example.net, type: default}}]\n"
    )
}

#[test]
fn a_first_start_writes_files_without_a_warning_and_a_second_keeps_them() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(Some(&dir.path().join("new"))).unwrap();
    let started = start(&paths, Timestamp::default()).unwrap();
    let first = started.first_start.unwrap();
    assert_eq!(first.listen, "127.0.0.1:2525");
    assert!(started.loaded.warnings.is_empty(), "{:?}", started.loaded.warnings);
    let server = &started.loaded.servers[&name("default")];
    let listen = Listen::plain("127.0.0.1:2525".parse().unwrap());
    assert_eq!(server.general.listen, [listen]);
    let text = fs::read_to_string(&first.files[1]).unwrap();
    assert!(text.lines().count() < 15, "{text}");

    let again = start(&paths, Timestamp::default()).unwrap();
    assert!(again.first_start.is_none() && again.degraded.is_none());
    assert_eq!(again.loaded.revision, started.loaded.revision);
}

#[test]
fn an_address_used_by_two_servers_is_shown_in_both_files() {
    let home = home(&[
        ("default", &listening("10.1.0.5:25                   # LAN side")),
        ("printers", &listening("10.1.0.5:25")),
    ]);
    let expected = r#"error[E0412]: address used twice
 --> /etc/servers.d/printers.yaml:4:7
  |
4 |     - 10.1.0.5:25
  |       ^^^^^^^^^^^ already taken
  |
 ::: /etc/servers.d/default.yaml:4:7
  |
4 |     - 10.1.0.5:25                   # LAN side
  |       ----------- by server "default""#;
    assert_eq!(home.said(&load(&home.paths).unwrap_err()), expected);
}

#[test]
fn an_address_of_all_takes_every_other_with_its_port() {
    for (one, other, clash) in [
        ("0.0.0.0:25", "10.1.0.5:25", true),
        ("'[::]:25'", "10.1.0.5:25", true),
        ("0.0.0.0:25", "'[::1]:25'", false),
        ("0.0.0.0:25", "10.1.0.5:26", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
    ] {
        let home = home(&[("a", &listening(one)), ("b", &listening(other))]);
        assert_eq!(load(&home.paths).is_err(), clash, "{one} {other}");
    }
}

#[test]
fn a_server_that_is_not_enabled_takes_no_address() {
    let off = format!("enabled: false\n{}", listening("127.0.0.1:25"));
    let home = home(&[("a", &listening("127.0.0.1:25")), ("b", &off)]);
    assert!(load(&home.paths).is_ok());
}

#[test]
fn errors_of_all_files_come_in_one_run() {
    let home = home(&[
        ("a", &listening("127.0.0.1").replace("version", "versoin")),
        ("b", "version: 1\ndomains: [{name: b.example, type: alias}]\n"),
        ("c", "version: [\n"),
    ]);
    fs::write(&home.paths.service_file, "version: 1\nservice: {hostnmae: a}\n").unwrap();
    fs::write(home.paths.servers_dir.join("Bad Name.yaml"), SERVICE).unwrap();
    let failed = load(&home.paths).unwrap_err();
    fs::remove_file(home.paths.servers_dir.join("Bad Name.yaml")).unwrap();
    let codes = |failed: &Failed| failed.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>();
    assert_eq!(codes(&failed), ["E0421", "E0107", "E0107", "E0101", "E0306", "E0403", "E0014"]);
    let failed = load(&home.paths).unwrap_err();
    assert_eq!(codes(&failed), ["E0107", "E0107", "E0101", "E0306", "E0403", "E0014"]);
}

#[test]
fn what_is_no_readable_text_is_named() {
    let home = home(&[]);
    fs::create_dir(home.paths.servers_dir.join("dir.yaml")).unwrap();
    fs::write(home.paths.servers_dir.join("latin.yaml"), b"version: 1\nx: \xe4\n").unwrap();
    fs::write(home.paths.servers_dir.join("huge.yaml"), vec![b'x'; 10_000_000]).unwrap();
    fs::write(home.paths.servers_dir.join(".hidden.yaml"), "nonsense: [").unwrap();
    fs::write(home.paths.servers_dir.join("old.yaml.bak"), "nonsense: [").unwrap();
    let said = home.said(&load(&home.paths).unwrap_err());
    for part in [
        "/etc/servers.d/dir.yaml is not a regular file",
        "/etc/servers.d/huge.yaml is larger than 1MiB",
        "--> /etc/servers.d/latin.yaml:2:4",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("hidden") && !said.contains("bak"), "{said}");
}

#[test]
fn two_servers_cannot_share_a_mail_root_nor_drop_into_a_pickup() {
    let root = |root: &str, port| format!("store: {{root: {root}}}\n{}", listening(port));
    let one = home(&[("a", &root("x", "127.0.0.1:1")), ("b", &root("x/./y", "127.0.0.1:2"))]);
    assert!(one.said(&load(&one.paths).unwrap_err()).contains("E0423"));
    let two = home(&[(
        "a",
        "version: 1\ndomains:\n  - {name: a.example, type: default, drop: {dir: Pickup/sub}}\n",
    )]);
    assert!(two.said(&load(&two.paths).unwrap_err()).contains("E0424"));
}

#[test]
fn a_broken_file_at_start_lets_the_last_good_state_run() {
    let good = listening("127.0.0.1:2600");
    let home = home(&[("default", &good)]);
    let revision = start(&home.paths, Timestamp::default()).unwrap().loaded.revision;
    home.put("default", "version: 1\nbroken");
    let started = start(&home.paths, Timestamp::default()).unwrap();
    assert_eq!(started.loaded.revision, revision);
    assert!(started.degraded.unwrap().to_string().contains("default.yaml:2:1"));
    assert!(load(&home.paths).is_err());
    assert!(matches!(
        home.editor().add_alias_domain(&name("default"), &domain("x.example")),
        Err(EditError::Broken(_))
    ));
}

#[test]
fn a_broken_first_configuration_starts_nothing() {
    let home = home(&[("default", "version: 2\n")]);
    assert!(start(&home.paths, Timestamp::default()).is_err());
}

const COMMENTED: &str = "\
# ours
version: 1

domains:   # all of them
  - {name: example.net, type: default}   # the first

  # partners
  - name: partner.example
    type: remote    # theirs
    relay: yes

# the end
";

#[test]
fn domains_are_added_and_removed_without_touching_other_lines() {
    let home = home(&[("default", COMMENTED)]);
    let (editor, server) = (home.editor(), name("default"));
    let change = editor.add_alias_domain(&server, &domain("example.org")).unwrap();
    assert_eq!(home.text("default"), COMMENTED, "nothing is written before apply");
    assert!(
        change.diff().contains("\n+  - {name: example.org, type: alias}\n"),
        "{}",
        change.diff()
    );
    let loaded = change.apply().unwrap();
    let added = COMMENTED
        .replace("    relay: yes\n", "    relay: yes\n  - {name: example.org, type: alias}\n");
    assert_eq!(home.text("default"), added);
    assert_eq!(load(&home.paths).unwrap(), loaded);

    let spec = RemoteDomainSpec {
        name: DomainName::parse("*.corp.example").unwrap(),
        relay: true,
        helo_only: true,
        route: vec![Hop::parse("hub.example:26").unwrap(), Hop::parse("[::1]").unwrap()],
        in_doubt: Some(InDoubt::Return),
        tls: Some(TlsMode::Off),
        release: Release::Both,
        etrn_from: vec![Network::parse("192.0.2.0/24").unwrap()],
        atrn_users: vec!["branch".to_owned()],
        connections: Some(3),
        rate: Some(Rate::per_minute(30)),
    };
    let loaded = editor.add_remote_domain(&server, &spec).unwrap().apply().unwrap();
    assert_eq!(loaded.servers[&server].domains.len(), 4);
    assert!(home.text("default").contains(
        "\n  - {name: \"*.corp.example\", type: remote, relay: true, helo_only: true, \
         route: [hub.example:26, \"[::1]\"], in_doubt: return, tls: \"off\", \
         hold: {release: both, atrn_users: branch, etrn_from: 192.0.2.0/24}, \
         limits: {connections: 3, rate: 30/min}}\n"
    ));
    for gone in ["*.corp.example", "example.org", "partner.example"] {
        let gone = DomainName::parse(gone).unwrap();
        editor.remove_domain(&server, &gone).unwrap().apply().unwrap();
    }
    let partner = "  - name: partner.example\n    type: remote    # theirs\n    relay: yes\n";
    assert_eq!(home.text("default"), COMMENTED.replace(partner, ""));
}

#[test]
fn changes_that_make_no_sense_are_refused_by_name() {
    let home = home(&[("default", COMMENTED)]);
    let (editor, server) = (home.editor(), name("default"));
    let exact = |text: &str| DomainName::parse(text).unwrap();
    assert!(matches!(
        editor.add_alias_domain(&server, &domain("partner.example")),
        Err(EditError::DomainExists { .. })
    ));
    assert!(matches!(
        editor.remove_domain(&server, &exact("example.net")),
        Err(EditError::DefaultDomain { .. })
    ));
    assert!(matches!(
        editor.remove_domain(&server, &exact("nobody.example")),
        Err(EditError::NoDomain { .. })
    ));
    assert!(matches!(
        editor.remove_domain(&name("other"), &exact("nobody.example")),
        Err(EditError::NoServer(_))
    ));
    assert_eq!(home.text("default"), COMMENTED);
}

#[test]
fn a_server_is_created_whole_or_not_at_all() {
    let home = home(&[("default", &listening("127.0.0.1:25"))]);
    let mut spec = ServerSpec {
        listen: vec!["127.0.0.1:2526".to_owned(), "[::1]:2526".to_owned()],
        domain: domain("printers.example"),
        root: Some("/srv/mail printers".to_owned()),
        smart_host: vec![Hop::parse("relay.example:587").unwrap()],
        profile: Profile::Iis6,
        enabled: false,
        template: None,
    };
    let printers = name("printers");
    let loaded = home.editor().create_server(&printers, &spec).unwrap().apply().unwrap();
    let config = &loaded.servers[&printers];
    assert_eq!((config.profile, config.enabled), (Profile::Iis6, false));
    assert_eq!(config.general.listen.len(), 2);
    assert_eq!(config.store.root.as_deref(), Some(Path::new("/srv/mail printers")));
    assert_eq!(config.delivery.smart_host, spec.smart_host);
    assert_eq!(load(&home.paths).unwrap(), loaded);
    assert!(matches!(
        home.editor().create_server(&printers, &spec),
        Err(EditError::ServerExists(_))
    ));
    spec =
        ServerSpec { listen: vec!["127.0.0.1:25".to_owned()], root: None, enabled: true, ..spec };
    let refused = home.editor().create_server(&name("third"), &spec).unwrap_err();
    assert!(matches!(&refused, EditError::Refused(_)), "{refused}");
    assert!(!home.paths.server_file(&name("third")).exists());
}

#[test]
fn one_change_at_a_time() {
    let home = home(&[("default", COMMENTED)]);
    let (editor, server) = (home.editor(), name("default"));
    let first = editor.add_alias_domain(&server, &domain("a.example")).unwrap();
    assert!(matches!(editor.add_alias_domain(&server, &domain("b.example")), Err(EditError::Busy)));
    drop(first);
    assert!(editor.add_alias_domain(&server, &domain("b.example")).is_ok());
}

#[test]
fn a_change_keeps_the_mode_of_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let home = home(&[("default", COMMENTED)]);
    let path = home.paths.server_file(&name("default"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    home.editor()
        .add_alias_domain(&name("default"), &domain("a.example"))
        .unwrap()
        .apply()
        .unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o664);
    let left = fs::read_dir(&home.paths.servers_dir).unwrap().count();
    assert_eq!(left, 1, "no draft is left behind");
}

#[test]
fn the_history_keeps_each_state_once() {
    let home = home(&[("default", COMMENTED)]);
    start(&home.paths, Timestamp::default()).unwrap();
    start(&home.paths, Timestamp::default()).unwrap();
    let states = || fs::read_dir(home.paths.state.join("history")).unwrap().count();
    assert_eq!(states(), 1);
    let change = home.editor().add_alias_domain(&name("default"), &domain("a.example")).unwrap();
    change.apply().unwrap();
    assert_eq!(states(), 2);
}

#[test]
fn a_file_that_is_a_link_is_read_and_not_replaced() {
    let home = home(&[]);
    let real = home.dir.path().join("managed.yaml");
    fs::write(&real, COMMENTED).unwrap();
    std::os::unix::fs::symlink(&real, home.paths.server_file(&name("default"))).unwrap();
    assert_eq!(load(&home.paths).unwrap().servers.len(), 1);
    assert!(matches!(
        home.editor().add_alias_domain(&name("default"), &domain("a.example")),
        Err(EditError::ByHand { .. })
    ));
}

#[test]
fn a_server_file_made_by_hand_is_kept_by_a_first_start() {
    let home = home(&[("default", COMMENTED)]);
    fs::remove_file(&home.paths.service_file).unwrap();
    let started = start(&home.paths, Timestamp::default()).unwrap();
    assert!(started.first_start.is_none());
    assert_eq!(home.text("default"), COMMENTED);
}

/// A home on a disk that forgets what was not synced.
fn modelled(seed: u64) -> (std::sync::Arc<Modelled>, Paths) {
    let model = std::sync::Arc::new(Modelled::new(seed));
    let disk = Disk::Modelled(std::sync::Arc::clone(&model));
    let paths = Paths::new(Some(Path::new("/home"))).unwrap().on(disk.clone());
    disk.create_dir_all(&paths.servers_dir).unwrap();
    let draft = Path::new("/home/etc/draft");
    disk.replace(&paths.service_file, draft, SERVICE.as_bytes()).unwrap();
    let file = paths.server_file(&name("default"));
    let draft = paths.servers_dir.join("draft");
    disk.replace(&file, &draft, COMMENTED.as_bytes()).unwrap();
    (model, paths)
}

#[test]
fn a_change_is_there_whole_or_not_at_all_wherever_the_power_fails() {
    let (mut done, mut undone) = (0, 0);
    for seed in 0..40 {
        for after in 1..20 {
            let (model, paths) = modelled(seed);
            start(&paths, Timestamp::default()).unwrap();
            let change = Editor::new(paths.clone(), Note::default())
                .add_alias_domain(&name("default"), &domain("a.example"))
                .unwrap();
            model.plan(after, Fault::Cut);
            let promised = change.apply().is_ok() && !model.is_off();
            model.cut();
            model.power_on();
            let started = start(&paths, Timestamp::default()).unwrap();
            assert!(started.degraded.is_none(), "seed {seed}, operation {after}");
            let domains = started.loaded.servers[&name("default")].domains.len();
            assert!(domains == 3 || (domains == 2 && !promised), "seed {seed}, operation {after}");
            if domains == 3 { done += 1 } else { undone += 1 }
        }
    }
    assert!(done > 100 && undone > 100, "{done} {undone}");
}

#[test]
fn a_first_start_that_loses_power_is_made_up_for_by_the_next() {
    for seed in 0..20 {
        for after in 1..16 {
            let model = std::sync::Arc::new(Modelled::new(seed));
            let disk = Disk::Modelled(std::sync::Arc::clone(&model));
            let paths = Paths::new(Some(Path::new("/home"))).unwrap().on(disk);
            model.plan(after, Fault::Cut);
            let cut = start(&paths, Timestamp::default()).is_err();
            model.cut();
            model.power_on();
            let started = start(&paths, Timestamp::default()).unwrap();
            assert!(started.degraded.is_none());
            assert_eq!(started.loaded.servers.len(), 1, "cut: {cut}");
        }
    }
}

#[test]
fn a_change_that_cannot_be_written_changes_nothing() {
    let (model, paths) = modelled(1);
    let editor = Editor::new(paths.clone(), Note::default());
    let add = || editor.add_alias_domain(&name("default"), &domain("a.example")).unwrap();
    let before = load(&paths).unwrap();
    model.set_capacity(10);
    let error = add().apply().unwrap_err();
    assert!(matches!(&error, EditError::Write { path, .. } if path.ends_with("default.yaml")));
    assert_eq!(load(&paths).unwrap(), before);
    model.set_capacity(u64::MAX);
    assert_ne!(add().apply().unwrap(), before);
}

#[test]
fn what_is_needed_to_trust_and_be_trusted_is_looked_at_before_mail_is() {
    let home = home(&[("default", "version: 1\ndomains: [{name: a.example, type: default}]\n")]);
    let trust = home.dir.path().join("trust.pem");
    let text = format!(
        "version: 1\ntls: {{trust: {}}}\nsmart_hosts:\n  isp: {{host: isp.example, certificate: {{file: isp.pem}}}}\n",
        trust.display(),
    );
    fs::write(&home.paths.service_file, text).unwrap();
    let codes = || {
        let warnings = load(&home.paths).unwrap().warnings;
        let about = |it: &&mailroot_common::config::Diagnostic| it.code.starts_with("W044");
        warnings.iter().filter(about).map(|it| it.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(), ["W0441", "W0442"]);
    let now = crate::clock::Clock::real().now();
    let made = crate::tls::generate::self_signed(&["a.example".to_owned()], now).unwrap();
    fs::write(&trust, &made.chain).unwrap();
    assert_eq!(codes(), ["W0442"]);
    let both = String::from_utf8([&made.chain[..], &made.key[..]].concat()).unwrap();
    Secrets::in_directory(&home.paths.secrets_dir).keep_text("isp.pem", &both).unwrap();
    assert_eq!(codes(), Vec::<&str>::new());
}

#[test]
fn certificates_that_cannot_be_shown_or_not_for_long_are_told() {
    let home = home(&[("default", "version: 1\ndomains: [{name: a.example, type: default}]\n")]);
    let [chain, key] = ["one.pem", "one.key"].map(|name| home.dir.path().join(name));
    let text = format!(
        "version: 1\ntls:\n  certificates:\n    one: {{chain: {}, key: {}}}\n",
        chain.display(),
        key.display()
    );
    fs::write(&home.paths.service_file, text).unwrap();
    let codes = || {
        let warnings = load(&home.paths).unwrap().warnings;
        let about = |it: &&mailroot_common::config::Diagnostic| it.code.starts_with("W047");
        warnings.iter().filter(about).map(|it| it.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(), ["W0470"]);
    let now = crate::clock::Clock::real().now();
    for (age, expected) in [(0, vec![]), (3 * 365 - 5, vec!["W0471"])] {
        let then = Timestamp::from_millis(now.as_millis() - age * 24 * 3600 * 1000);
        let made = crate::tls::generate::self_signed(&["a.example".to_owned()], then).unwrap();
        fs::write(&chain, &made.chain).unwrap();
        fs::write(&key, &*made.key).unwrap();
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(codes(), expected);
    }
    home.put("default", "version: 1\ndomains: [{name: a.example, type: default}]\naccess: {tls: {certificate: tow}}\n");
    let failed = load(&home.paths).unwrap_err();
    assert!(failed.to_string().contains("there is no certificate tow"), "{failed}");
}
