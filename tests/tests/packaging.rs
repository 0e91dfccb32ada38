//! What packages are made of: scripts, units, the profile, the filter and the first configuration, each looked at by
//! the program that will read it. A whole life of the packages is `tests/packages/run.sh`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mailroot_tests::program::{self, Finished};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::skip;

fn packaging() -> PathBuf {
    program::repository().join("packaging")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A program of the system, or a note that it is missing.
fn tool(name: &str, subject: &str) -> Option<Command> {
    let found = program::find(name);
    if found.is_none() {
        skip::note(subject, &format!("{name} is not installed"));
    }
    found.map(Command::new)
}

/// All files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Scripts that a shell runs, and whether they are for bash.
fn shell_scripts() -> Vec<(PathBuf, bool)> {
    let folders = [packaging(), program::repository().join("tests/packages")];
    let mut found = Vec::new();
    for path in folders.iter().flat_map(|folder| files_below(folder)) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        match text.lines().next() {
            Some("#!/bin/sh") => found.push((path, false)),
            Some("#!/bin/bash") => found.push((path, true)),
            _ => {}
        }
    }
    found
}

#[test]
fn scripts_of_packages_can_be_read_and_are_clean() {
    let scripts = shell_scripts();
    assert!(scripts.len() >= 10, "{scripts:?}");
    for (script, is_bash) in &scripts {
        let shell = if *is_bash { "bash" } else { "sh" };
        program::run(Command::new(shell).arg("-n").arg(script), b"").ok();
    }
    let Some(mut shellcheck) = tool("shellcheck", "scripts of packages") else { return };
    // SC1091: debconf's library is not here. SC2016: text for another shell.
    shellcheck.args(["-e", "SC1091,SC2016"]).args(scripts.iter().map(|(script, _)| script));
    program::run(&mut shellcheck, b"").ok();
}

#[test]
fn the_units_are_understood() {
    let Some(mut analyze) = tool("systemd-analyze", "units") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for name in ["mailroot.service", "mailroot-submit.socket"] {
        // The programs are where the tests built them; nothing else is changed.
        let text = read(&packaging().join("systemd").join(name));
        let daemon = program::ours("smtpd").display().to_string();
        let text = text.replace("/usr/sbin/smtpd", &daemon);
        let text =
            text.replace("/usr/sbin/smtpctl", &program::ours("smtpctl").display().to_string());
        let place = folder.path().join(name);
        fs::write(&place, text).unwrap();
        units.push(place);
    }
    let verified = program::run(analyze.args(["verify", "--man=no"]).args(&units), b"");
    let complaints: Vec<&str> =
        verified.err.lines().filter(|line| line.contains("mailroot")).collect();
    assert!(complaints.is_empty() && verified.code == 0, "{verified}");
}

#[test]
fn the_profile_can_be_read() {
    let Some(mut parser) = tool("apparmor_parser", "the AppArmor profile") else { return };
    let profile = packaging().join("apparmor/usr.sbin.smtpd");
    parser.args(["-Q", "-K", "-I", "/etc/apparmor.d"]);
    program::run(parser.arg(profile), b"").ok();
}

#[test]
fn the_profile_lets_the_unit_run_its_programs() {
    let profile = read(&packaging().join("apparmor/usr.sbin.smtpd"));
    let unit = read(&packaging().join("systemd/mailroot.service"));
    assert!(unit.contains("\nAppArmorProfile=-mailroot\n"), "{unit}");
    assert!(profile.contains("\nprofile mailroot flags="), "{profile}");
    let commands: Vec<&str> = unit.lines().filter(|line| line.starts_with("Exec")).collect();
    assert!(commands.len() >= 2, "{commands:?}");
    for command in commands {
        let program = command.split(['=', ' ']).nth(1).unwrap();
        assert!(profile.contains(&format!("\n  {program} mr,\n")), "{program}: {profile}");
    }
}

#[test]
fn fail2ban_sees_who_guesses_and_who_wants_to_relay_and_nobody_else() {
    if tool("fail2ban-regex", "the filter for Fail2Ban").is_none() {
        return;
    }
    must_be_seen("logfmt", "smtpd[1]: ", ["event=reject", "event=login-failed", "event=connect"]);
    let postfix = ["NOQUEUE: reject: RCPT", "SASL PLAIN authentication failed", "connect from"];
    must_be_seen("postfix", "", postfix);
    must_be_seen("postfix", "mailroot[1]: ", postfix);
}

/// Two of three lines, in a form of the log and behind a prefix, must be seen by the filter.
fn must_be_seen(form: &str, prefix: &str, wanted: [&str; 3]) {
    let mut fail2ban = Command::new(program::find("fail2ban-regex").unwrap());
    let setup = Setup::new()
        .service("logging.format", form)
        .key("access.relay.list", "[]")
        .key("access.basic.enabled", "true")
        .key("access.tls.mode", "optional")
        .key("access.basic.require_tls", "false")
        .key("access.auth_failures.delay", "0s");
    let site = Site::start(setup);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect("RCPT TO:<b@far.test>", 550);
    talk.expect("RCPT TO:<nobody.client=192.0.2.2@local.test>", 250);
    talk.expect("RSET", 250);
    talk.expect("AUTH PLAIN AGV2ZW50PWxvZ2luLWZhaWxlZAB4", 535);
    let lines = wanted.map(|part| site.logged(&[part]));
    let folder = tempfile::tempdir().unwrap();
    let filters = folder.path().join("filter.d");
    fs::create_dir(&filters).unwrap();
    let filter = filters.join("mailroot.conf");
    fs::copy(packaging().join("fail2ban/mailroot.conf"), &filter).unwrap();
    fs::copy("/etc/fail2ban/filter.d/common.conf", filters.join("common.conf")).unwrap();
    let log = folder.path().join("log");
    let stamped = lines.map(|line| format!("Nov 30 06:00:00 relay1 {prefix}{line}\n")).concat();
    fs::write(&log, &stamped).unwrap();
    let found =
        program::run(fail2ban.args(["--print-all-matched", "--raw"]).arg(&log).arg(&filter), b"");
    assert!(found.out.contains("2 matched, 1 missed"), "{stamped}{found}");
    let addresses = program::run(
        Command::new(program::find("fail2ban-regex").unwrap())
            .args(["--raw", "-o", "id"])
            .arg(&log)
            .arg(&filter),
        b"",
    )
    .ok();
    assert!(addresses.lines().all(|line| line == "127.0.0.1"), "{addresses}");
}

/// A home whose configuration the packages' script writes.
struct First {
    home: tempfile::TempDir,
}

impl First {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for directory in ["etc/servers.d", "share", "state"] {
            fs::create_dir_all(home.path().join(directory)).unwrap();
        }
        for file in ["mailroot.yaml", "default.yaml"] {
            fs::copy(packaging().join(file), home.path().join("share").join(file)).unwrap();
        }
        Self { home }
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(packaging().join("first-configuration"));
        for (variable, place) in
            [("MAILROOT_ETC", "etc"), ("MAILROOT_SHARE", "share"), ("MAILROOT_STATE", "state")]
        {
            command.env(variable, self.home.path().join(place));
        }
        command.env("MAILROOT_GROUP", "root").env("MAILROOT_SOCKET", self.home.path().join("none"));
        command.env("MAILROOT_SENDMAIL", self.home.path().join("sendmail"));
        let daemon = program::ours("smtpd").display().to_string();
        let check = format!("{daemon} --home {} --check", self.home.path().display());
        command.env("MAILROOT_CHECK", check);
        program::run(command.args(arguments), b"")
    }

    fn server(&self) -> PathBuf {
        self.home.path().join("etc/servers.d/default.yaml")
    }

    fn check(&self) -> String {
        let mut smtpd = Command::new(program::ours("smtpd"));
        program::run(smtpd.arg("--home").arg(self.home.path()).arg("--check"), b"").ok();
        read(&self.server())
    }
}

#[test]
fn the_first_configuration_is_good_whatever_was_answered() {
    for (answers, words) in [
        (&[][..], ["name: localhost, type: default", "# smart_host:"]),
        (
            &["--mail-name", "host1.example.net"],
            ["name: host1.example.net, type: default", "name: localhost, type: alias"],
        ),
        (
            &["--mail-name", "localhost", "--smart-host", "mail.example.net:587"],
            ["name: localhost, type: default", "  smart_host: \"mail.example.net:587\""],
        ),
        (
            &["--mail-name", "a.example", "--smart-host", "[2001:db8::1]:25"],
            ["name: a.example, type: default", "  smart_host: \"[2001:db8::1]:25\""],
        ),
    ] {
        let first = First::new();
        first.run(answers).ok();
        let text = first.check();
        for word in words {
            assert!(text.contains(word), "{answers:?}: {word} in {text}");
        }
        assert_eq!(
            read(&first.home.path().join("etc/mailroot.yaml")),
            read(&packaging().join("mailroot.yaml"))
        );
    }
}

#[test]
fn a_first_configuration_that_somebody_changed_stays() {
    let first = First::new();
    first.run(&[]).ok();
    first.run(&["--mail-name", "host1.example.net"]).ok();
    first.run(&["--smart-host", "mail.example.net"]).ok();
    let text = first.check();
    assert!(
        text.contains("mail.example.net") && !text.contains("host1"),
        "the last answers: {text}"
    );
    let changed = format!("{text}# ours\n");
    fs::write(first.server(), &changed).unwrap();
    first.run(&[]).ok();
    assert_eq!(first.run(&["--smart-host", "other.example.net"]).code, 3);
    assert_eq!(read(&first.server()), changed);
    fs::rename(first.server(), first.home.path().join("etc/servers.d/lan.yaml")).unwrap();
    first.run(&[]).ok();
    assert!(!first.server().exists(), "whoever has another server wants no second one");
    for bad in ["a b", "x\"", "a,b", "a/b", "-x", "a}"] {
        let refused = First::new().run(&["--smart-host", bad]);
        assert_eq!(refused.code, 2, "{bad}: {refused}");
    }
}

#[test]
fn no_answer_keeps_the_service_from_starting() {
    let first = First::new();
    first.run(&["--mail-name", "HOST1.Example.Net."]).ok();
    let text = first.check();
    assert!(text.contains("name: host1.example.net, type: default"), "{text}");
    let long = format!("{}.example", "a".repeat(64));
    for answers in [["--mail-name", long.as_str()], ["--smart-host", "mail.example.net:99999"]] {
        let first = First::new();
        let refused = first.run(&answers);
        assert_eq!(refused.code, 4, "{refused}");
        assert!(refused.err.contains("cannot be used"), "{refused}");
        let text = first.check();
        assert!(text.contains("name: localhost, type: default"), "{text}");
        assert!(text.contains("# smart_host:"), "{text}");
    }
}

#[test]
fn beside_another_mail_system_the_first_configuration_listens_on_another_port() {
    let first = First::new();
    let sendmail = first.home.path().join("sendmail");
    fs::write(&sendmail, "").unwrap();
    let told = first.run(&[]);
    assert!(told.code == 0 && told.err.contains("port 2525"), "{told}");
    let text = first.check();
    assert!(text.contains("- 127.0.0.1:2525\n") && text.contains("- \"[::1]:2525\"\n"), "{text}");
    fs::remove_file(&sendmail).unwrap();
    first.run(&["--mail-name", "host1.example.net"]).ok();
    let text = first.check();
    assert!(text.contains("- 127.0.0.1:25\n") && text.contains("- \"[::1]:25\"\n"), "{text}");
}

#[test]
fn every_manual_page_is_in_a_package_and_versions_agree() {
    let folder = program::repository();
    let listed = ["deb/mailroot.manpages", "deb/mailroot-mta.manpages"]
        .map(|list| read(&packaging().join(list)))
        .concat();
    let (spec, arch) =
        (read(&packaging().join("rpm/mailroot.spec")), read(&packaging().join("arch/PKGBUILD")));
    for page in files_below(&folder.join("man")) {
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            listed.lines().any(|line| line == format!("man/{name}")),
            "{name} is in no package"
        );
        for (place, text) in [("mailroot.spec", &spec), ("PKGBUILD", &arch)] {
            assert!(text.contains(&name), "{name} is not in {place}");
        }
    }
    for line in read(&packaging().join("deb/mailroot.install")).lines() {
        let source = line.split_whitespace().next().unwrap();
        assert!(source.starts_with("debian/stage/") || folder.join(source).exists(), "{source}");
    }
    let manifest = read(&folder.join("Cargo.toml"));
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    let version = version.trim_matches('"');
    let changelog = read(&packaging().join("deb/changelog"));
    assert!(changelog.starts_with(&format!("mailroot ({version}-")), "{changelog}");
    assert!(arch.contains(&format!("pkgver={version}\n")), "{arch}");
    assert!(spec.contains(&format!("global upstream {version}}}")), "{spec}");
}

#[test]
fn a_hook_says_nothing_where_no_daemon_runs() {
    let hook = packaging().join("hooks/link-up");
    for arguments in [&["eth0", "up"][..], &["ppp0"], &["eth0", "down"], &[]] {
        let ran = program::run(Command::new(&hook).args(arguments), b"");
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{ran}");
    }
}

#[test]
fn the_lists_of_parts_name_what_is_in_the_programs_and_nothing_else() {
    let (Some(mut cargo), Some(_)) = (tool("cargo", "parts"), tool("python3", "parts")) else {
        return;
    };
    cargo.args(["metadata", "--offline", "--locked", "--format-version", "1"]);
    let metadata = program::run(cargo.current_dir(program::repository()), b"").ok();
    let parts = |form: &str| {
        let mut parts = Command::new(packaging().join("parts"));
        parts.arg(form).env("SOURCE_DATE_EPOCH", "1796000000");
        program::run(&mut parts, metadata.as_bytes()).ok()
    };
    let read = |form: &str| -> serde_json::Value { serde_json::from_str(&parts(form)).unwrap() };
    let (cyclonedx, spdx) = (read("cyclonedx"), read("spdx"));
    assert_eq!(cyclonedx["metadata"]["timestamp"], "2026-11-30T00:53:20Z");
    assert_eq!(spdx["creationInfo"]["created"], "2026-11-30T00:53:20Z");
    let names = |list: &serde_json::Value| -> Vec<String> {
        let names = list.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap());
        names.map(str::to_owned).collect()
    };
    for list in [names(&cyclonedx["components"]), names(&spdx["packages"])] {
        let has = |name: &str| list.iter().any(|it| it == name);
        assert!(has("smtpd") && has("rustls") && has("clap"), "{list:?}");
        assert!(!has("proptest") && !has("mail-parser"), "{list:?}");
    }
    let rustls =
        cyclonedx["components"].as_array().unwrap().iter().find(|it| it["name"] == "rustls");
    let rustls = rustls.unwrap();
    assert_eq!(rustls["hashes"][0]["content"].as_str().unwrap().len(), 64, "{rustls}");
    assert!(parts("licences").contains("\nrustls "), "{}", parts("licences"));
    assert_eq!(parts("spdx"), parts("spdx"));
}
