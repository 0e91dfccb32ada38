//! Every conversation of `tests/transcripts` once more under TLS, and behind a login under TLS: neither makes
//! a difference to what is answered.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mailroot_tests::ports;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::talk::{Talk, auth_plain};
use mailroot_tests::transcript::{Difference, Transcript};
use mailroot_tests::wait::PATIENCE;

const USER: (&str, &str) = ("ada", "correct horse");

/// Conversations about the way to TLS, which is behind us here.
const OF_CLEAR_TEXT: [&str; 2] = ["starttls-required", "unknown-and-unoffered"];
/// Conversations about what comes before a login, or is counted from the beginning of a session.
const OF_STRANGERS: [&str; 3] = ["auth-order", "hello-is-asked-for", "idle-commands"];
/// Conversations with a server that knows no logins.
const WITHOUT_LOGINS: [&str; 1] = ["unknown-parameters"];
/// Logins, which give nobody the right to relay.
const LOGINS: [(&str, &str); 2] =
    [("access.basic.enabled", "true"), ("access.relay.authenticated", "false")];

struct Server {
    site: Site,
    secure: SocketAddr,
}

/// A server with the keys of a conversation and others, which speaks TLS at once at a further address.
fn server(keys: &[(String, String)], more: &[(&str, &str)]) -> Server {
    let secure = ports::local();
    let setup = keys
        .iter()
        .filter(|(key, _)| key != "domains")
        .fold(Setup::new(), |setup, (key, value)| setup.key(key, value))
        .only_domains(&["{name: example.com, type: default}"])
        .implicit_tls(secure)
        .smart_host(ports::local());
    let site = Site::start(more.iter().fold(setup, |setup, (key, value)| setup.key(key, value)));
    let (name, password) = USER;
    let add = ["user", "add", name, "--password-stdin"];
    site.control().input(&format!("{password}\n")).run(&add).ok();
    Server { site, secure }
}

/// A session of ours whose greeting has not been read.
fn begin(server: &Server) -> Talk {
    Talk::under_tls(server.secure).unwrap()
}

/// A session of a user, which has been greeted.
fn log_in(server: &Server) -> Talk {
    let mut talk = begin(server);
    assert_eq!(talk.reply().unwrap().code, 220);
    talk.expect("EHLO client.test", 250);
    let (name, password) = USER;
    talk.expect(&auth_plain(name, password), 235);
    talk
}

/// Plays those that are not left out, each at the server that it needs; what was answered otherwise.
fn play(
    left_out: &[&str],
    more: &[(&str, &str)],
    how: impl Fn(&Transcript, &Server) -> Vec<Difference>,
) -> Vec<String> {
    let mut servers: BTreeMap<Vec<(String, String)>, Server> = BTreeMap::new();
    let mut complaints = Vec::new();
    let all = Transcript::all();
    for name in left_out {
        assert!(all.iter().any(|transcript| transcript.name == *name), "there is no {name}");
    }
    for transcript in all.iter().filter(|it| !left_out.contains(&it.name.as_str())) {
        let server = servers
            .entry(transcript.keys.clone())
            .or_insert_with(|| server(&transcript.keys, more));
        for difference in how(transcript, server) {
            complaints.push(format!("{}.smtp: {difference}", transcript.name));
        }
    }
    for server in servers.values() {
        assert!(server.site.runs(), "the daemon ended");
    }
    complaints
}

#[test]
fn under_tls_every_conversation_goes_as_it_goes_in_clear_text() {
    let complaints = play(&OF_CLEAR_TEXT, &[], |transcript, server| {
        transcript.play_over(begin(server), false, PATIENCE)
    });
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn behind_a_login_every_conversation_goes_as_it_goes_without() {
    let left_out = [&OF_CLEAR_TEXT[..], &OF_STRANGERS, &WITHOUT_LOGINS].concat();
    let complaints = play(&left_out, &LOGINS, |transcript, server| {
        if !transcript.begins_behind_the_greeting() {
            return Vec::new();
        }
        transcript.go_on(log_in(server), false)
    });
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
