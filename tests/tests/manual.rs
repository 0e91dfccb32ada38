//! The manual pages against the programs: every option of the daemon is described, every page is clean, and
//! every command under EXAMPLES is done.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use mailroot_common::config::{ServerConfig, ServiceConfig};
use mailroot_tests::desk::Desk;
use mailroot_tests::manual::World;
use mailroot_tests::{program, skip, wait};

fn page(name: &str) -> String {
    let path = program::repository().join("man").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn help(name: &str, arguments: &[&str]) -> String {
    program::run(
        Command::new(program::ours(name)).args(arguments).arg("--help").env_remove("MAILROOT_HOME"),
        b"",
    )
    .ok()
}

/// The long options that a help text names at the beginning of its lines.
fn options(help: &str) -> BTreeSet<String> {
    help.lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split("--").nth(1))
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect())
        .filter(|name: &String| !name.is_empty())
        .collect()
}

/// mdoc writes `--home` as `-home` after its flag macro; prose may write it plainly.
fn describes(page: &str, option: &str) -> bool {
    let plain = format!("--{option}");
    let macro_form = format!("Fl -{option}");
    let escaped = option.replace('-', "\\-");
    page.contains(&plain) || page.contains(&macro_form) || page.contains(&format!("Fl -{escaped}"))
}

#[test]
fn smtpd_8_describes_every_option_and_no_other() {
    let page = page("smtpd.8");
    let options = options(&help("smtpd", &[]));
    assert!(options.contains("home") && options.contains("check"), "{options:?}");
    for option in options.iter().filter(|option| !["help", "version"].contains(&option.as_str())) {
        assert!(describes(&page, option), "smtpd.8 does not describe --{option}");
    }
    for word in page.split("Fl -").skip(1) {
        let name: String =
            word.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        if name.len() > 1 {
            assert!(options.contains(&name), "smtpd.8 describes --{name}, which is not there");
        }
    }
}

#[test]
fn every_page_is_clean_mdoc() {
    let Some(mandoc) = program::find("mandoc") else {
        return skip::note("mandoc", "mandoc is not installed");
    };
    let folder = program::repository().join("man");
    let mut pages = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let linted =
            program::run(Command::new(&mandoc).args(["-Tlint", "-Wstyle"]).arg(&path), b"");
        let complaints: Vec<&str> = linted
            .out
            .lines()
            // A date in the future of the page's build and a page that is not installed here are no faults.
            .filter(|line| !line.contains("referenced manual not found"))
            .collect();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        pages += 1;
    }
    assert!(pages >= 30, "{pages} manual pages");
}

/// A command of a page: its line, the exit codes that are as they should be, or why it is not run.
struct Example {
    line: String,
    codes: Vec<i32>,
    not_run: Option<String>,
}

/// A check that finds something has not failed, and a list that is empty matches nothing.
const USUAL: [i32; 3] = [0, 3, 10];

/// The commands under EXAMPLES. A comment before one says `not run: REASON` or `exits N`.
fn examples(page: &str) -> Vec<Example> {
    let Some((_, section)) = page.split_once(".Sh EXAMPLES\n") else { return Vec::new() };
    let section = section.split("\n.Sh ").next().unwrap();
    let mut found = Vec::new();
    let mut remark = "";
    for line in section.lines() {
        if let Some(told) = line.strip_prefix(".\\\" ") {
            remark = told;
        }
        let command = line.strip_prefix(".Dl $ ").or_else(|| line.strip_prefix(".Dl # "));
        let Some(command) = command else { continue };
        let plain = command.replace("\\e", "\\").replace("\\(dq", "\"").replace("\\&", "");
        let codes = remark
            .strip_prefix("exits ")
            .map_or_else(|| USUAL.to_vec(), |code| vec![code.parse().unwrap()]);
        let not_run = remark.strip_prefix("not run: ").map(str::to_owned);
        found.push(Example { line: plain, codes, not_run });
        remark = "";
    }
    found
}

/// What examples speak of: a message that waits, one in Badmail, one in Drop, and files in the folder.
fn prepare(world: &mut World) {
    let run = |world: &World, lines: &str| world.desk.run(None, lines).ok();
    run(world, "smtpctl server create printers --listen 127.0.0.1:0");
    run(world, "smtpctl send --from app@example.net --to al@slow.example");
    run(world, "smtpctl send --to you@example.net --wait");
    let file = "From: erp@example.net\\nTo: bob@partner.example\\nSubject: Invoice\\n\\nHello.\\n";
    run(world, &format!("printf '{file}' > invoice.eml"));
    run(world, "printf 'hello\\n' > bad; mv bad /var/spool/mailroot/default/Pickup/bad.eml");
    for (beginning, list) in [("6FZK", "queue list --reason greylisted"), ("6FZB", "badmail list")]
    {
        let id = wait::until(list, || {
            let listed = world.desk.run(None, &format!("smtpctl {list} -o name"));
            listed.out.lines().next().filter(|_| listed.code == 0).map(str::to_owned)
        });
        world.desk.stands_for(beginning, &id);
    }
}

/// Does what pages say, one after the other, in one world.
fn follow(names: &[&str]) {
    let mut world = World::relay();
    prepare(&mut world);
    for name in names {
        let examples = examples(&page(name));
        assert!(!examples.is_empty(), "man/{name} has no examples");
        for example in examples.iter().filter(|example| example.not_run.is_none()) {
            let done = world.desk.run(None, &example.line);
            assert!(example.codes.contains(&done.code), "man/{name}: {}: {done}", example.line);
        }
    }
}

macro_rules! examples {
    ($($name:ident [$($page:literal),+];)*) => {
        const FOLLOWED: &[&[&str]] = &[$(&[$($page),+]),*];
        $(#[test] fn $name() { follow(&[$($page),+]); })*
    };
}

examples! {
    overviews_are_true ["mailroot.7", "smtpd.8", "mailroot-log.5", "mailroot-metrics.5",
        "mailroot-security.7", "mailroot-control.7", "mailroot-from-exim.7",
        "mailroot-from-postfix.7", "mailroot-from-opensmtpd.7", "sendmail.8",
        "mailroot-errors.7", "mailroot-iis.7", "mailq.1", "newaliases.1", "aliases.5"];
    pages_of_health_and_doors_are_true ["smtpctl-doctor.8", "smtpctl-session.8",
        "smtpctl-trace.8", "smtpctl-pickup.8", "mailroot-store.5"];
    pages_of_mail_are_true ["smtpctl.8", "smtpctl-badmail.8", "smtpctl-queue.8"];
    pages_of_rights_are_true ["smtpctl-access.8", "smtpctl-user.8", "smtpctl-cert.8"];
    pages_of_ways_are_true ["smtpctl-domain.8", "smtpctl-smarthost.8"];
    pages_of_settings_are_true ["smtpctl-server.8", "smtpctl-config.8"];
}

#[test]
fn every_page_with_examples_is_followed() {
    let folder = program::repository().join("man");
    let names = fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut with: Vec<String> = names.filter(|name| !examples(&page(name)).is_empty()).collect();
    with.sort();
    let mut followed = FOLLOWED.concat();
    followed.sort_unstable();
    assert_eq!(with, followed);
    let all = followed.iter().flat_map(|name| examples(&page(name)));
    let left_out: Vec<String> =
        all.filter_map(|it| it.not_run.map(|why| format!("{}: {why}", it.line))).collect();
    assert_eq!(left_out.len(), NOT_RUN, "examples that are not run:\n{}", left_out.join("\n"));
}

/// How many examples are not run; each says why in its page.
const NOT_RUN: usize = 9;

#[test]
fn what_the_dictionaries_name_is_there() {
    let desk = Desk::new();
    let keys: Vec<String> =
        ServerConfig::keys().into_iter().chain(ServiceConfig::keys()).map(|it| it.key).collect();
    for name in ["exim", "opensmtpd", "postfix"].map(|it| format!("mailroot-from-{it}.7")) {
        let page = page(&name);
        for line in page.lines() {
            if let Some(command) = line.strip_prefix(".Li ").filter(|it| it.starts_with("smtpctl"))
            {
                let done = desk.run_nowhere(command);
                assert_ne!(done.code, 2, "man/{name}: {done}");
            } else if let Some(key) = line.strip_prefix(".Cm ") {
                assert!(keys.iter().any(|known| known == key), "man/{name}: there is no key {key}");
            }
        }
    }
}
