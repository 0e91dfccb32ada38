//! The usual server, as `docs/access.md` tells of it and the template `users` makes it: users log in under TLS and
//! send anywhere, strangers bring mail for our own domains, and nobody else's goes through. Clients of other
//! makes try each of the four.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::process::Command;

use mailroot_tests::names::Names;
use mailroot_tests::peer::Peer;
use mailroot_tests::program::{self, Finished};
use mailroot_tests::setup::{HOSTNAME, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::{Talk, auth_plain};
use mailroot_tests::{ports, wait};

const SERVER: &str = "mail";
const PASSWORD: &str = "a long pass phrase";
const USER: &[&str] = &[
    "--auth",
    "PLAIN",
    "--auth-user",
    "ann",
    "--auth-password",
    PASSWORD,
    "--from",
    "ann@example.net",
];
const TO_PARTNER: &[&str] = &["--to", "bob@partner.example"];
const TO_US: &[&str] = &["--to", "ann@example.net"];
/// What swaks ends with where a recipient was refused, a login, and a connection.
const NO_RECIPIENT: i32 = 24;
const NO_LOGIN: i32 = 28;
const NO_GREETING: i32 = 21;

/// The server that the template makes, and the next host of its mail.
struct World {
    site: Site,
    peer: Peer,
    door: SocketAddr,
    /// Where TLS begins at once.
    secure: SocketAddr,
    _names: Names,
}

impl World {
    fn new() -> Self {
        let (peer, names) = (Peer::accepting(ports::local()), Names::serve(|_, _| Vec::new()));
        let resolvers = format!("[\"{}\"]", names.address());
        let site = Site::start(Setup::new().service("dns.resolvers", &resolvers));
        let (door, secure) = (ports::local(), ports::local());
        let (at, next) = (door.to_string(), format!("[127.0.0.1]:{}", peer.address().port()));
        let line = ["server", "create", SERVER, "--from-template", "users", "--listen", &at];
        site.ctl(&[&line[..], &["--domain", "example.net", "--smarthost", &next]].concat()).ok();
        let second = format!("general.listen+={{address: \"{secure}\", tls: implicit}}");
        site.ctl(&["server", "set", SERVER, &second]).ok();
        let add = ["user", "add", "ann", "--send-as", "*@example.net", "--password-stdin"];
        site.control().input(PASSWORD).run(&add).ok();
        for at in [door, secure] {
            wait::until("a door that is open", || Talk::connect(at).ok());
        }
        Self { site, peer, door, secure, _names: names }
    }

    fn swaks(&self, words: &[&[&str]]) -> Finished {
        let server = self.door.to_string();
        let mut command = Command::new("swaks");
        command.args(["--server", &server, "--from", "stranger@else.example"]);
        program::run(command.args(words.concat()), b"")
    }

    /// What a client of OpenSSL's hears that trusts the server's own certificate alone.
    fn openssl(&self, more: &[&str], words: &str) -> Finished {
        let trust = self.site.home().join("state/tls/auto.pem");
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-verify_return_error", "-verify_hostname", HOSTNAME]);
        command.arg("-CAfile").arg(trust).args(more);
        program::run(&mut command, words.as_bytes())
    }

    fn refused(&self, words: &[&[&str]]) {
        let said = self.swaks(words);
        assert_eq!(said.code, NO_RECIPIENT, "{words:?}: {said}");
        assert!(said.out.contains("550 5.7.1 "), "{words:?}: {said}");
    }
}

fn users_log_in_under_tls_and_by_no_other_way(world: &World) {
    let mut talk = Talk::to(world.door);
    let offered = talk.expect("EHLO client.test", 250);
    assert!(!offered.lines.iter().any(|line| line.starts_with("AUTH")), "{offered}");
    talk.expect(&auth_plain("ann", PASSWORD), 538);
    assert_eq!(world.swaks(&[USER, TO_PARTNER]).code, NO_LOGIN, "in clear text");
    let words = "EHLO client.test\nQUIT\n";
    let (door, secure) = (world.door.to_string(), world.secure.to_string());
    for more in [&["-connect", &secure][..], &["-starttls", "smtp", "-connect", &door]] {
        let said = world.openssl(&[more, &["-crlf", "-ign_eof"]].concat(), words);
        assert!(said.out.contains("AUTH ") && said.out.contains("PLAIN"), "{said}");
    }
    let wrong = ["--auth-password", "guess"];
    assert_eq!(world.swaks(&[USER, TO_PARTNER, &["--tls"], &wrong]).code, NO_LOGIN);
}

fn users_send_anywhere_and_as_themselves(world: &World) {
    world.swaks(&[USER, TO_PARTNER, &["--tls"]]).ok();
    let secure = world.secure.to_string();
    world.swaks(&[USER, TO_PARTNER, &["--tls-on-connect", "--server", &secure]]).ok();
    let received = world.peer.await_received(2);
    for message in received {
        assert_eq!(message.recipients(), ["bob@partner.example"]);
        let text = String::from_utf8_lossy(&message.octets).into_owned();
        assert!(text.contains("with ESMTPSA"), "{text}");
    }
    let other = world.swaks(&[USER, TO_PARTNER, &["--tls", "--from", "boss@else.example"]]);
    assert!(other.code != 0 && other.out.contains("553 5.7.1"), "{other}");
    world.site.ctl(&["user", "set", "ann", "--disabled"]).ok();
    assert_eq!(world.swaks(&[USER, TO_PARTNER, &["--tls"]]).code, NO_LOGIN);
    world.site.ctl(&["user", "set", "ann", "--enabled"]).ok();
}

fn strangers_bring_mail_for_us_but_those_whom_we_deny(world: &World) {
    world.swaks(&[TO_US]).ok();
    world.swaks(&[TO_US, &["--tls"]]).ok();
    world.swaks(&[TO_US, &["--from", "<>"]]).ok();
    wait::until("mail in Drop", || (world.site.dropped(SERVER).len() == 3).then_some(()));
    world.site.ctl(&["access", "deny", "127.0.0.66", "-s", SERVER]).ok();
    let denied = world.swaks(&[TO_US, &["--local-interface", "127.0.0.66"]]);
    assert!(denied.code == NO_GREETING && denied.out.contains("554"), "{denied}");
    world.swaks(&[TO_US, &["--local-interface", "127.0.0.67"]]).ok();
}

fn strangers_do_not_relay(world: &World) {
    for from in ["stranger@else.example", "ann@example.net", "postmaster@relay.test", "<>"] {
        for more in [&[][..], &["--tls"], &["--local-interface", "127.0.0.67"]] {
            world.refused(&[TO_PARTNER, &["--from", from], more]);
        }
    }
    for to in
        ["bob%partner.example@example.net@partner.example", "\"bob@partner.example\"@else.example"]
    {
        let said = world.swaks(&[&["--to", to]]);
        assert!(said.code == NO_RECIPIENT, "{to}: {said}");
    }
    // One recipient of ours takes no other with it.
    let both = world.swaks(&[&["--to", "bob@partner.example,ann@example.net"]]).ok();
    assert!(both.contains("550 5.7.1 "), "{both}");
    wait::until("mail in Drop", || (world.site.dropped(SERVER).len() == 5).then_some(()));
    assert_eq!(world.peer.received().len(), 2, "what users sent, and nothing else");
}

#[test]
fn users_send_anywhere_and_strangers_to_our_own_domains_alone() {
    let world = World::new();
    users_log_in_under_tls_and_by_no_other_way(&world);
    users_send_anywhere_and_as_themselves(&world);
    strangers_bring_mail_for_us_but_those_whom_we_deny(&world);
    strangers_do_not_relay(&world);
}
