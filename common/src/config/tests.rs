//! Whole files and what is said about them.

use super::*;

fn server(text: &str) -> Parsed<ServerConfig> {
    named("default", text)
}

fn named(name: &str, text: &str) -> Parsed<ServerConfig> {
    let file = format!("/etc/mailroot/servers.d/{name}.yaml");
    parse_server(&ServerName::parse(name).unwrap(), text, &file)
}

fn one_error(text: &str) -> Diagnostic {
    let mut found = server(text).unwrap_err();
    assert_eq!(found.len(), 1, "{}", render_all(&found));
    found.remove(0)
}

const DOMAINS: &str = "domains: [{name: example.net, type: default}]\n";

/// `body` with what every file needs, so that the line numbers of `body` begin at 3.
fn with_body(body: &str) -> String {
    format!("version: 1\n{DOMAINS}{body}")
}

#[test]
fn an_unknown_key_is_shown_with_the_nearest_one() {
    let text = with_body("messages:\n  max_recipient: 500\n");
    let expected = r#"error[E0107]: unknown key "max_recipient" in messages
 --> /etc/mailroot/servers.d/default.yaml:4:3
  |
4 |   max_recipient: 500
  |   ^^^^^^^^^^^^^ not a setting of this section
  |
  = help: did you mean "max_recipients"?"#;
    assert_eq!(one_error(&text).render(), expected);
}

#[test]
fn a_duration_without_unit_is_shown_with_both_readings() {
    let text = with_body("delivery:\n  outbound:\n    retry: [15, 30, 60, 240]\n");
    let expected = r"error[E0203]: a duration needs a unit
 --> /etc/mailroot/servers.d/default.yaml:5:13
  |
5 |     retry: [15, 30, 60, 240]
  |             ^^ seconds? minutes?
  |
  = help: IIS counted minutes; write [15m, 30m, 1h, 4h]";
    assert_eq!(one_error(&text).render(), expected);
}

#[test]
fn an_open_relay_is_shown_with_the_listener_that_makes_it_one() {
    let text = with_body(
        "general:\n  listen:\n    - 127.0.0.1:25\n    - 10.1.0.5:25                   # LAN side\n\
         access:\n  relay:\n    list:\n      - 0.0.0.0/0\n",
    );
    let expected = r#"error[E0310]: this makes "default" an open relay
  --> /etc/mailroot/servers.d/default.yaml:10:9
   |
 6 |     - 10.1.0.5:25                   # LAN side
   |       ----------- reachable from other hosts
...
10 |       - 0.0.0.0/0
   |         ^^^^^^^^^ everyone may relay, without login
   |
   = help: list your own networks and remove this entry
   = note: to insist, add  i_want_an_open_relay: true  to access.relay"#;
    assert_eq!(one_error(&text).render(), expected);
}

#[test]
fn host_bits_are_shown_with_both_readings() {
    let text = with_body("access:\n  relay:\n    list: 10.1.2.3/16\n");
    let expected = r"error[E0305]: 10.1.2.3/16 has host bits set
 --> /etc/mailroot/servers.d/default.yaml:5:11
  |
5 |     list: 10.1.2.3/16
  |           ^^^^^^^^^^^ address or network?
  |
  = help: did you mean the network 10.1.0.0/16 or the single host 10.1.2.3?";
    assert_eq!(one_error(&text).render(), expected);
}
