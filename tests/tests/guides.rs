//! The guides of `docs/`: every command in them is done, and what they show of its output is what it prints.
//!
//! What a page shows is written anew with `MAILROOT_WRITE_MAN=1` where it differs, as tables of the manual are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mailroot_tests::guide::{Block, Changing, blocks, shown_anew};
use mailroot_tests::manual::World;
use mailroot_tests::program::Finished;
use mailroot_tests::{program, skip, wait};

/// Why a block may be left out, and how many of each page are. Whoever adds one counts it here.
const NOT_RUN: &[(&str, &str, usize)] = &[
    ("applications.md", "it needs .NET", 1),
    ("cron.md", "it asks for the password at a terminal", 1),
    ("cron.md", "it installs a package", 1),
    ("from-windows.md", "on Windows", 1),
    ("google-workspace.md", "it asks a provider", 1),
    ("microsoft-365.md", "it asks a provider", 3),
    ("packaging.md", "it builds for minutes", 2),
    ("packaging.md", "it needs podman", 1),
    ("pickup.md", "it changes a user of the system", 1),
    ("quick-start.md", "it binds an address of a LAN", 1),
    ("quick-start.md", "it changes a user of the system", 1),
    ("quick-start.md", "it installs a package", 1),
    ("quick-start.md", "it names the domain of a new service", 1),
    ("rarely-online.md", "it asks for the password at a terminal", 1),
    ("security.md", "it asks an authority on the Internet", 1),
    ("two-machines.md", "another machine over ssh", 1),
    ("upgrades.md", "it installs a package", 1),
];

fn folder() -> PathBuf {
    program::repository().join("docs")
}

fn read(name: &str) -> String {
    let path = folder().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Follows a page from its first block to its last.
fn follow(name: &str, world: &World) {
    let mut page = read(name);
    let changing = Changing::new();
    let count = blocks(&page).len();
    for number in 0..count {
        let block = blocks(&page).swap_remove(number);
        let place = format!("docs/{name}:{}", block.line);
        if let Some(file) = &block.file {
            let text = world.desk.really(None, &block.text);
            fs::write(world.desk.work().join(file), text).unwrap();
        } else if block.not_run.is_some() {
            can_be_meant(world, &block, &place);
        } else if block.language != "sh" {
            panic!("{place}: a block of {:?} that nothing reads", block.language);
        } else if let Some(needed) = block.needs.as_ref().filter(|it| program::find(it).is_none()) {
            skip::note("an example of the guides", &format!("{needed} is not installed"));
        } else if let Some(printed) = run(world, &block, &changing, &place) {
            page = shown_anew(&page, &block, &printed);
        }
    }
    if page != read(name) {
        fs::write(folder().join(name), page).unwrap();
    }
}

/// Runs a block; what it printed, if the page is to show that from now on.
fn run(world: &World, block: &Block, changing: &Changing, place: &str) -> Option<String> {
    let machine = block.machine.as_deref();
    let attempt = || {
        let done = world.desk.run(machine, &block.text);
        let printed = world.desk.as_written(machine, &done.out);
        let fits = match &block.shown {
            None => true,
            Some(shown) => changing.is_shown(shown, &printed),
        };
        (done, printed, fits)
    };
    let mut last: Option<(Finished, String, bool)> = None;
    let writes = std::env::var_os("MAILROOT_WRITE_MAN").is_some();
    let patience = if writes { Duration::from_secs(5) } else { wait::PATIENCE };
    wait::within(patience, || {
        let tried = attempt();
        let enough = !block.repeats || tried.2 && tried.0.code == block.exits;
        last = Some(tried);
        enough.then_some(())
    });
    let (done, printed, fits) = last.unwrap();
    assert_eq!(done.code, block.exits, "{place}: {done}");
    if fits {
        return None;
    }
    if writes {
        return Some(printed);
    }
    let shown = block.shown.as_deref().unwrap_or_default();
    panic!(
        "{place} shows\n{shown}\nbut this came:\n{printed}\nin words that stay:\n{:#?}",
        changing.settled(&printed)
    );
}

/// A block that is not run: each `smtpctl` in it must at least be one that could be meant.
fn can_be_meant(world: &World, block: &Block, place: &str) {
    let text = block.text.replace("\\\n", " ");
    let commands = text.lines().flat_map(|line| line.split(" && ")).flat_map(|it| it.split(" | "));
    for command in commands.map(|it| it.trim().trim_start_matches("sudo ")) {
        let is_ours = command.starts_with("smtpctl ");
        if !is_ours || ["-H ", "smtpctl top", "$("].iter().any(|it| command.contains(it)) {
            continue;
        }
        let done = world.desk.run_nowhere(command);
        // What would be asked for at a terminal is no fault of the line.
        let asks = done.out.contains("nobody can be asked");
        assert!(done.code != 2 || asks, "{place}: {done}");
    }
}

macro_rules! guides {
    ($($name:ident $page:literal $world:ident;)*) => {
        const PAGES: &[&str] = &[$($page),*];
        $(#[test] fn $name() {
            if skip::root() {
                follow($page, &World::$world());
            } else {
                skip::note("the guides", "their reader is root");
            }
        })*
    };
}

guides! {
    quick_start "quick-start.md" relay;
    cron "cron.md" relay;
    microsoft_365 "microsoft-365.md" relay;
    google_workspace "google-workspace.md" relay;
    pickup "pickup.md" relay;
    from_windows "from-windows.md" relay;
    where_is_my_mail "where-is-my-mail.md" relay;
    rarely_online "rarely-online.md" hub_and_branch;
    two_machines "two-machines.md" relay;
    monitoring "monitoring.md" relay;
    security "security.md" relay;
    backup "backup.md" relay;
    upgrades "upgrades.md" relay;
    applications "applications.md" relay;
    printers "printers.md" relay;
    access "access.md" relay;
    replies "replies.md" relay;
    packaging "packaging.md" relay;
}

#[test]
fn every_guide_is_followed_and_named_in_the_list() {
    let list = read("README.md");
    let mut there: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    there.sort();
    let mut known: Vec<&str> = PAGES.to_vec();
    known.sort_unstable();
    assert_eq!(there, known);
    for page in PAGES {
        assert!(list.contains(&format!("({page})")), "docs/README.md does not name {page}");
    }
}

#[test]
fn what_is_not_run_is_counted_and_says_why() {
    let mut found: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for &page in PAGES {
        let text = read(page);
        for reason in blocks(&text).into_iter().filter_map(|block| block.not_run) {
            *found.entry((page, reason)).or_default() += 1;
        }
    }
    let found: Vec<(&str, String, usize)> =
        found.into_iter().map(|((page, reason), count)| (page, reason, count)).collect();
    let known: Vec<(&str, String, usize)> =
        NOT_RUN.iter().map(|&(page, reason, count)| (page, reason.to_owned(), count)).collect();
    assert_eq!(
        found, known,
        "blocks that are not run are listed in NOT_RUN of this file, in order"
    );
}

#[test]
fn links_between_pages_lead_somewhere() {
    for page in PAGES.iter().chain(&["README.md", "../README.md"]) {
        let text = read(page);
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap();
            let is_elsewhere = target.is_empty() || target.contains("://");
            let file = folder().join(page).parent().unwrap().join(target);
            assert!(is_elsewhere || file.exists(), "docs/{page} links to {target}");
        }
    }
}
