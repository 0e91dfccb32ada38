//! TLS and logins: what is said, and what a peer's answer to it comes to.

use std::sync::Arc;
use std::time::Duration;

use super::super::*;
use super::settings;
use crate::queue::outcome::{AttemptResult, Stage};

const NOW: Duration = Duration::ZERO;

/// A client that has heard the greeting and this reply to its EHLO.
fn greeted(tls: Tls, login: Option<LoginRule>, offers: &[&str]) -> Client {
    let settings = Settings { tls, login, ..(*settings()).clone() };
    let mut client = Client::new(Arc::new(settings), NOW);
    client.on_octets(b"220 mx.test\r\n", NOW);
    assert_eq!(said(&mut client), "EHLO relay.test\r\n");
    offer(&mut client, offers);
    client
}

fn offer(client: &mut Client, offers: &[&str]) {
    let lines: String = offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
    client.on_octets(format!("250-mx.test\r\n{lines}250 HELP\r\n").as_bytes(), NOW);
}

fn said(client: &mut Client) -> String {
    String::from_utf8(std::mem::take(client.output())).unwrap()
}

fn failure(client: &mut Client) -> Ending {
    match client.poll() {
        Some(Action::Failed(ending)) => ending,
        other => panic!("{other:?} is no failure"),
    }
}

const LOGIN: Option<LoginRule> = Some(LoginRule { in_clear_text: false });
const OPEN_LOGIN: Option<LoginRule> = Some(LoginRule { in_clear_text: true });

#[test]
fn tls_is_asked_for_where_it_is_offered_and_all_begins_anew() {
    for tls in [Tls::Optional, Tls::Required] {
        let mut client = greeted(tls, None, &["STARTTLS", "SIZE 7", "DSN"]);
        assert_eq!(said(&mut client), "STARTTLS\r\n");
        client.on_octets(b"220 go ahead\r\n", NOW);
        assert_eq!(client.poll(), Some(Action::StartTls));
        assert!(!client.is_secured());
        client.secured(NOW);
        assert!(client.is_secured());
        assert!(!client.peer().dsn, "what was said in clear text counts no more");
        assert_eq!(said(&mut client), "EHLO relay.test\r\n");
        offer(&mut client, &["STARTTLS"]);
        assert_eq!(client.poll(), Some(Action::Ready), "it is not asked for twice");
    }
}

#[test]
fn a_session_that_may_be_clear_goes_on_without() {
    for offers in [&[][..], &["STARTTLS"]] {
        let mut client = greeted(Tls::Off, None, offers);
        assert_eq!(client.poll(), Some(Action::Ready));
    }
    let mut client = greeted(Tls::Optional, None, &["DSN"]);
    assert_eq!(client.poll(), Some(Action::Ready));
    let mut client = greeted(Tls::Optional, None, &["STARTTLS"]);
    client.on_octets(b"454 4.7.0 no key\r\n", NOW);
    assert_eq!(client.poll(), Some(Action::Ready));
    assert!(!client.is_secured());
}

#[test]
fn where_tls_is_required_mail_waits_without_it() {
    let mut client = greeted(Tls::Required, None, &["DSN"]);
    let ending = failure(&mut client);
    assert_eq!((ending.stage, ending.result), (Stage::Tls, AttemptResult::Deferred));
    assert_eq!(ending.status.to_string(), "4.7.4");
    assert_eq!(said(&mut client), "QUIT\r\n");

    let mut client = greeted(Tls::Required, None, &["STARTTLS"]);
    client.on_octets(b"501 5.5.4 not today\r\n", NOW);
    let ending = failure(&mut client);
    assert_eq!(ending.result, AttemptResult::Deferred);
    assert!(ending.text.contains("not today"), "{}", ending.text);

    // A peer that knows only HELO has no STARTTLS.
    let settings = Settings { tls: Tls::Required, ..(*settings()).clone() };
    let mut client = Client::new(Arc::new(settings), NOW);
    client.on_octets(b"220 mx.test\r\n502 what?\r\n250 hello\r\n", NOW);
    assert_eq!(failure(&mut client).stage, Stage::Tls);
}

#[test]
fn octets_behind_the_reply_to_starttls_end_the_session() {
    for tls in [Tls::Optional, Tls::Required] {
        let mut client = greeted(tls, None, &["STARTTLS"]);
        client.on_octets(b"220 go ahead\r\n250 injected\r\n", NOW);
        let ending = failure(&mut client);
        assert_eq!((ending.stage, ending.result), (Stage::Tls, AttemptResult::Deferred));
        assert!(client.is_closed());
    }
}

#[test]
fn a_failed_handshake_is_told_in_the_drivers_words() {
    let mut client = greeted(Tls::Required, None, &["STARTTLS"]);
    client.on_octets(b"220 go ahead\r\n", NOW);
    assert_eq!(client.poll(), Some(Action::StartTls));
    client.not_secured("the certificate has expired");
    let ending = failure(&mut client);
    assert_eq!(ending.text, "TLS failed: the certificate has expired");
    assert_eq!(ending.status.to_string(), "4.7.5");
}

#[test]
fn a_connection_under_tls_from_the_start_never_asks_for_it() {
    let mut client = greeted(Tls::Implicit, LOGIN, &["STARTTLS", "AUTH PLAIN"]);
    assert!(client.is_secured());
    assert_eq!(client.poll(), Some(Action::LogIn));
}

#[test]
fn no_secret_is_sent_without_tls_and_no_mail_without_the_login() {
    let mut client = greeted(Tls::Optional, LOGIN, &["AUTH PLAIN"]);
    let ending = failure(&mut client);
    assert_eq!((ending.stage, ending.result), (Stage::Login, AttemptResult::Deferred));
    assert!(ending.text.contains("not sent without TLS"), "{}", ending.text);
    assert_eq!(said(&mut client), "QUIT\r\n");

    let mut client = greeted(Tls::Implicit, LOGIN, &["DSN"]);
    let ending = failure(&mut client);
    assert!(ending.text.contains("offers no AUTH"), "{}", ending.text);
    assert_eq!(ending.result, AttemptResult::Deferred);
}

#[test]
fn a_login_goes_by_the_words_of_the_standard() {
    for (first, line) in [
        (Some(&b"\0me\0secret"[..]), "AUTH PLAIN AG1lAHNlY3JldA==\r\n"),
        (Some(&b""[..]), "AUTH PLAIN =\r\n"),
        (None, "AUTH PLAIN\r\n"),
    ] {
        let mut client = greeted(Tls::Off, OPEN_LOGIN, &["AUTH LOGIN PLAIN"]);
        assert_eq!(client.poll(), Some(Action::LogIn));
        assert_eq!(client.peer().auth, ["LOGIN", "PLAIN"]);
        client.authenticate("PLAIN", first, NOW);
        assert_eq!(said(&mut client), line);
        client.on_octets(b"334 Y2hhbGxlbmdl\r\n", NOW);
        assert_eq!(client.poll(), Some(Action::Challenge(b"challenge".to_vec())));
        client.respond(b"", NOW);
        assert_eq!(said(&mut client), "\r\n");
        client.on_octets(b"235 2.7.0 welcome\r\n", NOW);
        assert_eq!(client.poll(), Some(Action::LoggedIn));
        client.logged_in();
        assert_eq!(client.poll(), Some(Action::Ready));
        assert!(client.is_logged_in());
    }
}

#[test]
fn a_first_response_too_long_for_its_line_waits_for_the_peer() {
    let mut client = greeted(Tls::Off, OPEN_LOGIN, &["AUTH XOAUTH2"]);
    assert_eq!(client.poll(), Some(Action::LogIn));
    client.authenticate("XOAUTH2", Some(&[b'x'; 10_000]), NOW);
    assert_eq!(said(&mut client), "AUTH XOAUTH2\r\n");
    client.on_octets(b"334 \r\n", NOW);
    assert!(said(&mut client).starts_with("eHh4"));
    assert_eq!(client.poll(), None);
}

#[test]
fn a_refused_login_holds_the_mail_and_keeps_the_hosts_words() {
    for (reply, status) in [
        (&b"535 5.7.8 bad password\r\n"[..], "4.7.8"),
        (b"454 4.7.0 try later\r\n", "4.7.0"),
        (b"535 bad password\r\n", "4.0.0"),
    ] {
        let mut client = greeted(Tls::Off, OPEN_LOGIN, &["AUTH PLAIN"]);
        assert_eq!(client.poll(), Some(Action::LogIn));
        client.authenticate("PLAIN", Some(b"\0me\0x"), NOW);
        client.on_octets(reply, NOW);
        let ending = failure(&mut client);
        assert_eq!((ending.stage, ending.result), (Stage::Login, AttemptResult::Deferred));
        assert_eq!(ending.status.to_string(), status);
        assert!(ending.code.is_some() && ending.text.starts_with("the login was refused"));
    }
}

#[test]
fn a_peer_that_makes_no_sense_is_left() {
    let mut client = greeted(Tls::Off, OPEN_LOGIN, &["AUTH PLAIN"]);
    assert_eq!(client.poll(), Some(Action::LogIn));
    client.authenticate("PLAIN", None, NOW);
    client.on_octets(b"334 *nonsense*\r\n", NOW);
    assert_eq!(failure(&mut client).stage, Stage::Login);

    let mut client = greeted(Tls::Off, OPEN_LOGIN, &["AUTH PLAIN"]);
    assert_eq!(client.poll(), Some(Action::LogIn));
    client.authenticate("PLAIN", None, NOW);
    client.on_octets(b"354 go on\r\n", NOW);
    assert_eq!(failure(&mut client).stage, Stage::Login);

    // The peer took the login and has not shown that it knows the secret.
    let mut client = greeted(Tls::Off, OPEN_LOGIN, &["AUTH PLAIN"]);
    assert_eq!(client.poll(), Some(Action::LogIn));
    client.authenticate("PLAIN", None, NOW);
    client.on_octets(b"235 2.7.0 welcome\r\n", NOW);
    assert_eq!(client.poll(), Some(Action::LoggedIn));
    client.give_up_login(&LoginError::Challenge);
    assert_eq!(failure(&mut client).stage, Stage::Login);
}
