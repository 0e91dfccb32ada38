//! Pickup against the careless and the hostile: only regular files with one link are taken, bad files go to
//! Badmail with line and reason, nothing outside is read, moved or deleted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use mailroot_tests::message::tagged;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::wait;

fn site() -> Site {
    Site::start(Setup::new().key("store.pickup.poll", "100ms").key("store.pickup.settle", "0ms"))
}

fn pickup(site: &Site, name: &str) -> PathBuf {
    site.spool("default", "Pickup").join(name)
}

/// Puts a good file in and waits until it came out: everything put in before it was looked at.
fn pass(site: &Site, tag: &str) {
    let before = site.dropped("default").len();
    let staged = site.home().join(tag);
    let head = format!("X-Sender: a@client.test\r\nX-Receiver: x@{LOCAL_DOMAIN}\r\n");
    fs::write(&staged, [head.as_bytes(), &tagged(tag)].concat()).unwrap();
    fs::rename(&staged, pickup(site, &format!("{tag}.eml"))).unwrap();
    wait::until("the good file in Drop", || {
        let dropped = site.dropped("default");
        (dropped.len() > before && dropped.iter().any(|stored| stored.fields("X-Tag") == [tag]))
            .then_some(())
    });
}

#[test]
fn links_pipes_and_directories_are_left_alone() {
    let site = site();
    let secret = site.home().join("secret");
    let letter =
        format!("X-Sender: a@client.test\r\nX-Receiver: x@{LOCAL_DOMAIN}\r\n\r\nsecret\r\n");
    fs::write(&secret, &letter).unwrap();
    symlink(&secret, pickup(&site, "link.eml")).unwrap();
    fs::hard_link(&secret, pickup(&site, "hard.eml")).unwrap();
    nix::unistd::mkfifo(&pickup(&site, "fifo.eml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(pickup(&site, "dir.eml")).unwrap();
    fs::write(pickup(&site, "dir.eml").join("inside.eml"), &letter).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(pickup(&site, "socket.eml")).unwrap();

    pass(&site, "first");
    pass(&site, "second");

    assert_eq!(site.dropped("default").len(), 2, "only the good files");
    assert_eq!(fs::read_to_string(&secret).unwrap(), letter, "the secret is as it was");
    assert!(pickup(&site, "dir.eml").join("inside.eml").is_file());
    for stored in site.dropped("default") {
        assert!(!stored.text().contains("secret"), "{}", stored.text());
    }
}

#[test]
fn a_bad_file_ends_in_badmail_with_line_and_reason() {
    let site = site();
    fs::write(site.home().join("bad"), "From: a@client.test\r\nToo: x@local.test\r\n\r\nhello\r\n")
        .unwrap();
    fs::rename(site.home().join("bad"), pickup(&site, "bad.eml")).unwrap();

    let row = wait::until("the bad file in Badmail", || {
        let rows = site.control().json(&["badmail", "list"]);
        rows.as_array().and_then(|rows| rows.first().cloned())
    });

    assert!(row["reason"].as_str().unwrap().contains("pickup"), "{row}");
    let shown = site.ctl(&["badmail", "show", row["id"].as_str().unwrap()]).ok();
    assert!(shown.contains("bad.eml"), "{shown}");
    assert!(shown.contains("recipient"), "{shown}");
    assert!(!pickup(&site, "bad.eml").exists());
    pass(&site, "after");
}

#[test]
fn a_file_without_a_sender_takes_the_default_one() {
    let site = Site::start(
        Setup::new()
            .key("store.pickup.poll", "100ms")
            .key("store.pickup.settle", "0ms")
            .key("messages.default_sender", "app@client.test"),
    );
    let staged = site.home().join("bare");
    fs::write(&staged, format!("X-Receiver: x@{LOCAL_DOMAIN}\r\nSubject: bare\r\n\r\nhello\r\n"))
        .unwrap();
    fs::rename(&staged, pickup(&site, "bare.eml")).unwrap();
    let dropped = site.await_dropped(1);
    assert!(dropped[0].text().contains("app@client.test"), "{}", dropped[0].text());
}

#[test]
fn a_file_that_cannot_be_read_stays_and_is_told_once() {
    let site = site();
    if mailroot_tests::skip::root() {
        // Root reads everything: the file must simply be taken.
        return pass(&site, "root");
    }
    fs::write(pickup(&site, "shut.eml"), tagged("shut")).unwrap();
    fs::set_permissions(pickup(&site, "shut.eml"), fs::Permissions::from_mode(0o000)).unwrap();
    wait::until("a word about it", || site.log().contains("chmod").then_some(()));
    // Files that are written in place are found by a look at the directory, as this one was.
    for name in ["one.eml", "two.eml"] {
        fs::write(pickup(&site, name), tagged(name)).unwrap();
        wait::until("a file to be taken", || (!pickup(&site, name).exists()).then_some(()));
    }
    assert!(pickup(&site, "shut.eml").exists());
    assert_eq!(site.log().matches("chmod").count(), 1);
}

#[test]
fn odd_names_and_empty_files_harm_nobody() {
    let site = site();
    let letter = format!("X-Sender: a@client.test\r\nX-Receiver: x@{LOCAL_DOMAIN}\r\n\r\nodd\r\n");
    for name in
        ["new\nline.eml", "\u{1b}[31mred.eml", &"x".repeat(255), "..eml", "-rf.eml", " .eml"]
    {
        fs::write(site.home().join("staged"), &letter).unwrap();
        fs::rename(site.home().join("staged"), pickup(&site, name)).unwrap();
    }
    fs::write(pickup(&site, "empty.eml"), "").unwrap();
    pass(&site, "after");

    for line in site.log().lines() {
        assert!(line.bytes().all(|octet| !octet.is_ascii_control()), "{line:?}");
    }
}

#[test]
fn a_file_that_grows_is_taken_when_it_rests_and_whole() {
    let site =
        Site::start(Setup::new().key("store.pickup.poll", "50ms").key("store.pickup.settle", "1s"));
    use std::io::Write;
    let mut file = fs::File::create(pickup(&site, "grows.eml")).unwrap();
    write!(file, "X-Sender: a@client.test\r\nX-Receiver: x@{LOCAL_DOMAIN}\r\nX-Tag: grows\r\n\r\n")
        .unwrap();
    for number in 0..20 {
        writeln!(file, "line {number}\r").unwrap();
        file.flush().unwrap();
        std::thread::yield_now();
    }
    drop(file);

    let dropped = site.await_dropped(1);

    assert!(dropped[0].text().contains("line 19"), "{}", dropped[0].text());
}

#[test]
fn pickup_headers_in_smtp_data_are_only_text() {
    let site = site();
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let octets =
        [b"X-Sender: evil@client.test\r\nX-Receiver: victim@local.test\r\n", &tagged("smtp")[..]]
            .concat();
    let reply = talk.message("a@client.test", &["only@local.test"], &octets).unwrap();
    assert_eq!(reply.code, 250);

    let dropped = site.await_dropped(1);

    assert_eq!(dropped.len(), 1);
    let head = dropped[0].text();
    assert_eq!(dropped[0].fields("Return-Path"), ["<a@client.test>"]);
    assert_eq!(
        dropped[0].fields("X-Receiver").first().map(String::as_str),
        Some("only@local.test"),
        "{head}"
    );
}

#[test]
fn a_paused_server_takes_no_files_also_after_a_change_of_its_settings() {
    let site = site();
    pass(&site, "before");
    site.ctl(&["server", "pause", "default"]).ok();
    let letter = format!("X-Sender: a@client.test\r\nX-Receiver: x@{LOCAL_DOMAIN}\r\n\r\nx\r\n");
    fs::write(pickup(&site, "paused.eml"), letter).unwrap();
    site.ctl(&["server", "set", "default", "store.pickup.poll=50ms"]).ok();
    let listed = site.control().json(&["pickup", "list"]);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["state"]),
        (&"paused.eml".into(), &"waiting".into())
    );
    site.ctl(&["server", "resume", "default"]).ok();
    site.await_dropped(2);
}
