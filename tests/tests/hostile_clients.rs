//! Clients that try what other servers fell to: old verbs, messages of absurd shape, words for a shell, lines
//! without an end, connections torn down. Each hears one answer for each command, and the daemon keeps nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::stranger::UID_NOBODY;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, program, skip, wait};

/// A server whose patience is not what is tested.
fn patient() -> Setup {
    Setup::new().key("general.max_errors", "unlimited").key("limits.idle_commands", "unlimited")
}

fn greeted(site: &Site) -> Talk {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk
}

#[test]
fn a_refused_line_is_answered_once_and_the_next_is_understood() {
    let site = Site::start(patient());
    let mut talk = greeted(&site);
    let long = format!("ETRN {}", "e".repeat(900));
    for line in [
        "X-EXPS GSSAPI",
        "XEXCH50 4 2",
        "X-LINK2STATE LAST CHUNK={00000001} MULTI (5) ({0}) {(0)}",
        "XCLIENT ADDR=192.0.2.1",
        "XFORWARD NAME=friend.test",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 25",
        "DEBUG",
        "WIZ",
        "SHELL",
        "TURN",
        "ATRN branch.test",
        "ETRN ../../etc/passwd",
        "ETRN \"a\" 'b' #`id`",
        &long,
        "EXPN root",
        "AUTH NTLM TlRMTVNTUAABAAAA",
        "AUTH EXTERNAL ////",
        "AUTH GSSAPI ////",
        "STARTTLS now",
        "RCPT TO:<x@local.test>",
        "DATA",
        "MAIL FROM:<a@b@client.test>",
        "MAIL FROM:<a@client.test> AUTH=a+0D+0AX-Forged:+201",
        "MAIL FROM:<a@client.test> BODY=9BIT",
        "MAIL FROM:<a@client.test> RET=ALL",
        "MAIL FROM:<a@client.test> SIZE=-1",
        "",
    ] {
        talk.send(format!("{line}\r\nNOOP\r\n").as_bytes()).unwrap();
        let refused = talk.reply().unwrap();
        assert!(refused.code >= 500, "{line}: {refused}");
        let next = talk.reply().unwrap();
        assert_eq!(next.code, 250, "{line}: {next}");
    }
    talk.expect("QUIT", 221);
    assert!(talk.rest().unwrap().is_empty());
}

#[test]
fn five_hundred_commands_in_one_write_are_answered_in_their_order() {
    let site = Site::start(patient());
    let mut talk = greeted(&site);
    let four = format!(
        "MAIL FROM:<a@client.test>\r\nRCPT TO:<bad@@>\r\nRCPT TO:<x@{LOCAL_DOMAIN}>\r\nRSET\r\n"
    );
    talk.send(four.repeat(125).as_bytes()).unwrap();
    for round in 0..125 {
        let codes: Vec<u16> = (0..4).map(|_| talk.reply().unwrap().code).collect();
        assert_eq!(codes, [250, 501, 250, 250], "{round}");
    }
    talk.expect("NOOP", 250);
}

/// Messages that made others hang, crash or change them, and whether they are fit to travel.
fn shapes() -> Vec<(&'static str, Vec<u8>, Option<bool>)> {
    let field = |text: String| [text.as_bytes(), b"\r\n\r\nbody\r\n"].concat();
    let part = |number: usize| {
        format!("Content-Type: multipart/mixed; boundary=b{number}\r\n\r\n--b{number}\r\n")
    };
    let continued: String = (0..2000).map(|n| format!(";\r\n name*{n}*=utf-8''%41")).collect();
    let boundary = "b".repeat(900);
    vec![
        ("20,000 fields", field(vec!["X-A: b"; 20_000].join("\r\n")), None),
        ("a field of 1 MB", field(format!("X-A: {}", "b".repeat(1 << 20))), None),
        ("50,000 folds", field(format!("X-A: b{}", "\r\n b".repeat(50_000))), None),
        ("40,000 brackets", field(format!("To: {}", "<".repeat(40_000))), None),
        ("parts 3,000 deep", (0..3000).map(part).collect::<String>().into_bytes(), Some(true)),
        (
            "messages 3,000 deep",
            "Content-Type: message/rfc822\r\n\r\n".repeat(3000).into_bytes(),
            Some(true),
        ),
        (
            "a boundary without an end",
            field(format!("Content-Type: multipart/mixed;\r\n boundary=\"{boundary}\r\n\r\n--b")),
            Some(true),
        ),
        (
            "2,000 parts of a name",
            field(format!("Content-Disposition: attachment{continued}")),
            Some(true),
        ),
        ("eight bits", field("Subject: gr\u{fc}\u{df}e".to_owned()), Some(true)),
        ("no UTF-8", b"Subject: x\r\n\r\n\xff\xfe\xc0\x80\r\n".to_vec(), Some(true)),
        ("NUL", b"Subject: x\r\n\r\na\0b\r\n".to_vec(), Some(false)),
        ("a line of 2 MB", [&b"Subject: x\r\n\r\n"[..], &[b'x'; 2 << 20], b"\r\n"].concat(), None),
    ]
}

#[test]
fn a_message_of_any_shape_is_taken_as_it_is_or_refused_once() {
    let site = Site::start(patient());
    let mut talk = greeted(&site);
    let mut taken = Vec::new();
    for (name, octets, fit) in shapes() {
        let to = format!("x@{LOCAL_DOMAIN}");
        let reply = talk.message("a@client.test", &[&to], &octets).unwrap();
        assert!(reply.code == 250 || reply.code >= 500, "{name}: {reply}");
        assert!(fit.is_none_or(|fit| fit == (reply.code == 250)), "{name}: {reply}");
        talk.expect("NOOP", 250);
        if reply.code == 250 {
            taken.push((name, octets));
        }
    }
    let dropped = site.await_dropped(taken.len());
    for (name, octets) in &taken {
        assert!(dropped.iter().any(|stored| stored.octets.ends_with(octets)), "{name}");
    }
    assert!(site.runs());
}

#[test]
fn no_program_is_started_and_no_file_named_with_words_of_mail() {
    let site = Site::start(patient());
    let mut talk = greeted(&site);
    let words = [
        "\"|touch pwned\"",
        "\"; touch pwned;\"",
        "\"$(touch pwned)\"",
        "\"../../pwned\"",
        "/etc/pwned",
        "${run{touch$IFS/pwned}}",
        "`touch$IFS/pwned`",
        "-Xpwned",
    ];
    for word in words {
        let (from, to) = (format!("{word}@client.test"), format!("{word}@{LOCAL_DOMAIN}"));
        let reply = talk.message(&from, &[&to], &tagged("words")).unwrap();
        assert_eq!(reply.code, 250, "{word}: {reply}");
    }
    site.await_dropped(words.len());

    let by_id = |name: &str| {
        let stem = name.strip_suffix(".eml").unwrap_or_default();
        stem.len() == 12 && stem.bytes().all(|octet| octet.is_ascii_alphanumeric())
    };
    for file in fs::read_dir(site.spool("default", "Drop")).unwrap().flatten() {
        let name = file.file_name().into_string().unwrap();
        assert!(name.starts_with('.') || by_id(&name), "{name}");
    }
    for task in fs::read_dir(format!("/proc/{}/task", site.pid())).unwrap().flatten() {
        // A task may have ended, and a kernel may have been built without the file.
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        assert!(children.trim().is_empty(), "{children}");
    }
}

#[test]
fn no_core_file_would_be_written() {
    let site = Site::prepare(patient());
    site.under(&["prlimit", "--core=1048576"]);
    site.launch();
    let limits = fs::read_to_string(format!("/proc/{}/limits", site.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let numbers: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(numbers, ["0", "0"], "{core}");
}

#[test]
fn nobody_but_root_may_look_into_its_memory() {
    if !skip::root() {
        return skip::note("what the memory of the daemon shows", "needs root");
    }
    let site = Site::start_as(UID_NOBODY, patient());
    // A file of its memory is the daemon's user's where that user may look into it.
    let owner = |name: &str| fs::metadata(format!("/proc/{}/{name}", site.pid())).unwrap().uid();
    assert_eq!([owner("mem"), owner("environ"), owner("maps")], [0; 3]);
    let read = program::run(
        Command::new("cat")
            .arg(format!("/proc/{}/environ", site.pid()))
            .uid(UID_NOBODY)
            .gid(UID_NOBODY),
        b"",
    );
    assert!(read.exited(1).err.contains("Permission denied"));
    site.ctl(&["status"]).ok();
}

#[test]
fn whoever_starts_it_as_root_is_told() {
    if !skip::root() {
        return skip::note("what root is told who starts the daemon", "needs root");
    }
    let site = Site::start(patient());
    site.logged(&["event=runs-as-root", "CAP_NET_BIND_SERVICE"]);
    let said = fs::read_to_string(site.home().join("errors")).unwrap();
    assert!(said.contains("smtpd: warning: it runs as root"), "{said}");
    let other = Site::start_as(UID_NOBODY, patient());
    assert!(!other.log().contains("runs-as-root"));
    assert!(!fs::read_to_string(other.home().join("errors")).unwrap().contains("as root"));
}

#[test]
fn no_descriptor_would_be_inherited() {
    /// `FD_CLOEXEC`, as the kernel shows it among the flags of an open file.
    const CLOEXEC: u32 = 0o2_000_000;
    if !skip::root() {
        return skip::note("descriptors of the daemon", MAY_NOT_LOOK);
    }
    let sink = Peer::accepting(ports::local());
    let site = Site::start(patient().smart_host(sink.address()));
    let mut talk = greeted(&site);
    for to in ["b@far.test", &format!("x@{LOCAL_DOMAIN}")] {
        assert_eq!(talk.message("a@client.test", &[to], &tagged("x")).unwrap().code, 250);
    }
    sink.await_received(1);
    let _asked = site.ctl(&["status"]).ok();
    let mut seen = 0;
    for open in fs::read_dir(format!("/proc/{}/fdinfo", site.pid())).unwrap().flatten() {
        let number: u32 = open.file_name().to_str().unwrap().parse().unwrap();
        let link = |of: &str| fs::read_link(format!("/proc/{of}/fd/{number}")).ok();
        // It may have been closed meanwhile. The standard ones are meant for children, and others may come from
        // whoever started this test.
        let Ok(text) = fs::read_to_string(open.path()) else { continue };
        let what = link(&site.pid().to_string());
        if number <= 2 || what.is_some() && what == link("self") {
            continue;
        }
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let flags = u32::from_str_radix(flags, 8).unwrap();
        assert!(flags & CLOEXEC != 0, "descriptor {number}, {what:?}: {text}");
        seen += 1;
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn a_line_without_an_end_takes_no_memory() {
    /// Far less than what is sent, far more than what the daemon needs by the way.
    const GROWTH_MAX_KIB: u64 = 8 << 10;
    let site = Site::start(patient().key("access.basic.enabled", "true"));
    let mut talk = greeted(&site);
    let before = site.memory_kib("VmHWM");
    let piece = vec![b'x'; 1 << 20];
    for (beginning, pieces) in [("", 24), ("AUTH PLAIN ", 1), ("MAIL FROM:<", 4)] {
        talk.send(beginning.as_bytes()).unwrap();
        for _ in 0..pieces {
            talk.send(&piece).unwrap();
        }
        talk.send(b"\r\nNOOP\r\n").unwrap();
        let refused = talk.reply().unwrap();
        assert!(refused.code >= 500, "{beginning}: {refused}");
        assert_eq!(talk.reply().unwrap().code, 250, "{beginning}");
    }
    let grown = site.memory_kib("VmHWM") - before;
    assert!(grown <= GROWTH_MAX_KIB, "{grown} KiB");
}

/// Who is not root may not look into the daemon.
const MAY_NOT_LOOK: &str = "only root may look into the daemon";

fn descriptors(site: &Site) -> usize {
    fs::read_dir(format!("/proc/{}/fd", site.pid())).unwrap().count()
}

#[test]
fn connections_that_are_torn_down_leave_nothing_behind() {
    if !skip::root() {
        return skip::note("connections that are torn down", MAY_NOT_LOOK);
    }
    let site = Site::start(
        patient()
            .key("general.max_connections", "unlimited")
            .key("general.max_connections_per_client", "unlimited"),
    );
    let mut steady = greeted(&site);
    let before = descriptors(&site);
    for _ in 0..500 {
        let stream = TcpStream::connect(site.address()).unwrap();
        // A greeting that is not read: to close then is to reset.
        assert_ne!(stream.peek(&mut [0]).unwrap(), 0);
    }
    // Beside the sessions the daemon opens files of its own as it likes.
    wait::until("few descriptors", || (descriptors(&site) <= before + 20).then_some(()));
    wait::until("no session but one", || {
        let listed = site.control().json(&["session", "list"]);
        (listed.as_array().map(Vec::len) == Some(1)).then_some(())
    });
    steady.expect("NOOP", 250);
}
