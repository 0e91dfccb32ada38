//! Logins whose passwords this machine's PAM judges: the real library with rules of the test (pam_wrapper), and
//! modules that know users (pam_matrix) or say what they are told to (pam_debug).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, program, skip};

const WHAT: &str = "logins by PAM";
const PASSWORD: &str = "correct horse";

/// A library, wherever this machine has it.
fn library(name: &str) -> Option<PathBuf> {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]
        .into_iter()
        .flat_map(|place| {
            [Path::new(place).join(name), Path::new(place).join("security").join(name)]
        })
        .find(|path| path.exists())
}

fn setup(peer: &Peer, backends: &str) -> Setup {
    Setup::new()
        .smart_host(peer.address())
        .key("access.relay.list", "[]")
        .key("access.basic.enabled", "true")
        .key("access.basic.backends", backends)
        .key("access.basic.require_tls", "false")
        .key("access.auth_failures.delay", "0s")
}

/// Whether the daemon was built with the feature. If not, it says so, and names it.
fn knows_pam() -> bool {
    let checked = Site::prepare(setup(&Peer::accepting(ports::local()), "[pam]")).run(&["--check"]);
    let said = format!("{}{}", checked.out, checked.err);
    let knows = !said.contains("E0389");
    assert!(knows || said.contains("needs the feature pam") && checked.code != 0, "{said}");
    knows
}

struct World {
    site: Site,
    peer: Peer,
}

impl World {
    /// A service with these rules; a path of a module stands for its name.
    fn new(rules: &str, keys: &[(&str, &str)]) -> Option<Self> {
        let absent = |why: &str| {
            skip::note(WHAT, why);
            None
        };
        if !knows_pam() {
            return absent("smtpd was built without its feature pam");
        }
        let found = (
            library("libpam_wrapper.so"),
            library("pam_wrapper/pam_matrix.so"),
            library("pam_debug.so"),
        );
        let (Some(wrapper), Some(matrix), Some(debug)) = found else {
            return absent("libpam-wrapper is not installed");
        };
        let peer = Peer::accepting(ports::local());
        let setup = setup(&peer, "[users, pam]");
        let setup = keys.iter().fold(setup, |setup, (key, value)| setup.key(key, value));
        let site = Site::prepare(setup);
        let place = site.home().join("pam.d");
        fs::create_dir(&place).unwrap();
        let users = site.home().join("passdb");
        fs::write(&users, format!("ada:{PASSWORD}:mailroot\nbob:{PASSWORD}:login\n")).unwrap();
        let rules = rules
            .replace("MATRIX", &format!("{} passdb={}", matrix.display(), users.display()))
            .replace("DEBUG", &debug.display().to_string());
        fs::write(place.join("mailroot"), rules).unwrap();
        site.under(&[
            "env",
            &format!("LD_PRELOAD={}", wrapper.display()),
            "PAM_WRAPPER=1",
            &format!("PAM_WRAPPER_SERVICE_DIR={}", place.display()),
        ]);
        site.launch();
        let add = ["user", "add", "local", "--password-stdin"];
        site.control().input(&format!("{PASSWORD}\n")).run(&add).ok();
        Some(Self { site, peer })
    }

    fn hello(&self) -> Talk {
        let mut talk = self.site.talk();
        talk.expect("EHLO client.test", 250);
        talk
    }

    fn says(&self, name: &str, password: &str) -> u16 {
        self.hello().say(&plain(name, password)).code
    }
}

/// `AUTH PLAIN` with its one word.
fn plain(user: &str, password: &str) -> String {
    let mut encode = Command::new("base64");
    let word = format!("\0{user}\0{password}");
    let encoded = program::run(encode.arg("-w0"), word.as_bytes()).ok();
    format!("AUTH PLAIN {encoded}")
}

#[test]
fn pam_says_whose_password_it_is_and_whether_the_account_may_be_used() {
    let rules = "auth required MATRIX\naccount required MATRIX\n";
    let keys = [("access.auth_failures.max", "2")];
    let Some(world) = World::new(rules, &keys) else { return };
    let mut talk = world.hello();
    talk.expect(&plain("Ada", PASSWORD), 235);
    let sent = talk.message("anybody@far.test", &["b@far.test"], &tagged("by ada")).unwrap();
    assert_eq!(sent.code, 250);
    assert_eq!(world.peer.await_received(1)[0].recipients(), ["b@far.test"]);
    world.site.logged(&["event=login ", "mech=PLAIN", "user=\"ada\""]);
    assert_eq!(world.says("local", PASSWORD), 235, "our own users are asked for first");
    // Bob has an account for something else.
    for (name, password) in [("ada", "wrong"), ("nobody", PASSWORD), ("bob", PASSWORD)] {
        let mut talk = world.hello();
        let said = talk.say(&plain(name, password));
        assert_eq!((said.code, said.enhanced()), (535, Some("5.7.8")), "{name}: {said}");
        talk.expect("MAIL FROM:<a@client.test>", 250);
        talk.expect("RCPT TO:<b@far.test>", 550);
    }
    assert_eq!(world.says("ada", "wrong"), 535);
    assert_eq!(world.says("ada", PASSWORD), 535, "shut out");
    world.site.logged(&["event=login-failed", "reason=banned", "user=\"ada\""]);
    assert!(!world.site.log().contains(PASSWORD));
}

#[test]
fn where_pam_gives_no_answer_nobody_is_refused_and_nobody_is_shut_out() {
    let rules = "auth required DEBUG auth=authinfo_unavail\naccount required DEBUG acct=success\n";
    let keys = [("access.auth_failures.max", "2")];
    let Some(world) = World::new(rules, &keys) else { return };
    for _ in 0..4 {
        let said = world.hello().say(&plain("ada", PASSWORD));
        assert_eq!((said.code, said.enhanced()), (454, Some("4.7.0")), "{said}");
    }
    world.site.logged(&["event=password-not-judged", "backend=pam", "reason="]);
    assert_eq!(world.says("local", PASSWORD), 235);
    assert!(!world.site.log().contains("event=login-failed"));
    // A service without rules says nothing either.
    fs::remove_file(world.site.home().join("pam.d/mailroot")).unwrap();
    assert_ne!(world.says("ada", PASSWORD), 235);
}

#[test]
fn an_account_that_is_over_lets_nobody_in() {
    for code in ["acct_expired", "new_authtok_reqd", "perm_denied"] {
        let rules =
            format!("auth required DEBUG auth=success\naccount required DEBUG acct={code}\n");
        let Some(world) = World::new(&rules, &[]) else { return };
        assert_eq!(world.says("ada", PASSWORD), 535, "{code}");
        assert_eq!(world.says("ada", ""), world.says("nobody", ""), "no password is none");
    }
}

#[test]
fn a_module_that_hangs_holds_up_neither_mail_nor_the_end() {
    let rules = "auth required pam_exec.so quiet /bin/sleep 60\naccount required DEBUG\n";
    let Some(world) = World::new(rules, &[]) else { return };
    let mut waiting: Vec<Talk> = (0..2).map(|_| world.hello()).collect();
    for talk in &mut waiting {
        talk.send(format!("{}\r\n", plain("ada", PASSWORD)).as_bytes()).unwrap();
    }
    let mut talk = world.hello();
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect("RCPT TO:<b@local.test>", 250);
    // The daemon ends without it.
    world.site.stop();
}

#[test]
fn what_pam_cannot_be_asked_is_told() {
    let peer = Peer::accepting(ports::local());
    let check = |backends: &str, service: &str| {
        let setup = setup(&peer, backends).key("access.basic.pam_service", service);
        let checked = Site::prepare(setup).run(&["--check"]);
        format!("{}{}", checked.out, checked.err)
    };
    for service in ["../shadow", "a/b", "\"\"", "\"a b\""] {
        assert!(check("[pam]", service).contains("E0379"), "{service}");
    }
    let said = check("[pam, users]", "mailroot");
    assert!(said.contains("E0339") && said.contains("PAM knows every name"), "{said}");
}
