//! Whole files and what is said about them.

use std::sync::Arc;

use super::domains::{Hold, Release};
use super::lane_limits::LaneLimits;
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

/// Code, line and column of something found.
type Spot = (&'static str, usize, usize);

/// Everything found in a server file.
fn found(text: &str) -> Vec<Spot> {
    let diagnostics = match server(text) {
        Ok((_, warnings)) => warnings,
        Err(diagnostics) => diagnostics,
    };
    let place = |diagnostic: &Diagnostic| {
        diagnostic
            .place()
            .map_or((diagnostic.code, 0, 0), |at| (diagnostic.code, at.line, at.column))
    };
    diagnostics.iter().map(place).collect()
}

/// Bad bodies, which begin on line 3, and the places of what is wrong with them.
const BAD: &[(&str, &[Spot])] = &[
    ("genral: {}\n", &[("E0107", 3, 1)]),
    ("general: {listen: 25}\n", &[("E0306", 3, 19)]),
    ("general: {listen: '127.0.0.1:025'}\n", &[("E0306", 3, 19)]),
    ("general: {listen: '127.0.0.1:65536'}\n", &[("E0306", 3, 19)]),
    ("general: {listen: 010.0.0.1:25}\n", &[("E0306", 3, 19)]),
    ("general:\n  listen:\n    - 127.0.0.1:25\n    - 127.0.0.1:25\n", &[("E0412", 6, 7)]),
    ("general:\n  listen: []\n", &[("W0415", 4, 11)]),
    ("general:\n  max_connections: 0\n", &[("E0204", 4, 20)]),
    ("general:\n  max_connections: 0x10\n", &[("E0202", 4, 20)]),
    ("general:\n  max_connections: 0100\n", &[("E0202", 4, 20)]),
    ("general:\n  max_connections: -1\n", &[("E0202", 4, 20)]),
    ("general:\n  max_connections: 1e3\n", &[("E0202", 4, 20)]),
    ("general:\n  max_connections: 99999999999\n", &[("E0202", 4, 20)]),
    ("general:\n  max_connections: never\n", &[("E0202", 4, 20)]),
    ("general:\n  max_connections:\n", &[("E0103", 4, 3)]),
    ("general:\n  max_connections: [1]\n", &[("E0106", 4, 20)]),
    ("general:\n  idle_timeout: 5\n", &[("E0203", 4, 17)]),
    ("general:\n  idle_timeout: 5 min\n", &[("E0203", 4, 17)]),
    ("general:\n  idle_timeout: 0s\n", &[("E0204", 4, 17)]),
    ("general:\n  banner: \"a\\r\\n250 ok\"\n", &[("E0211", 4, 11)]),
    ("general:\n  extensions: [PIPELINING, PIPELINE]\n", &[("E0206", 4, 28)]),
    ("general:\n  extensions: BINARYMIME\n", &[("E0416", 4, 15)]),
    ("general: nothing\n", &[("E0105", 3, 10)]),
    ("access:\n  relay: {policy: allexcept}\n", &[("E0206", 4, 19)]),
    ("access:\n  relay: {list: [300.1.1.1]}\n", &[("E0307", 4, 18)]),
    ("access:\n  relay: {list: ['a b']}\n", &[("E0307", 4, 18)]),
    ("access:\n  relay: {list: ['\u{ff11}0.0.0.1']}\n", &[("E0307", 4, 18)]),
    (
        "access:\n  relay: {list: [{net: 10.0.0.1/8, coment: x}]}\n",
        &[("E0305", 4, 24), ("E0107", 4, 36)],
    ),
    ("access:\n  relay: {list: [{comment: x}]}\n", &[("E0104", 4, 18)]),
    ("access:\n  connect: {list: mx.example.net}\n", &[("W0311", 4, 19)]),
    ("access:\n  reverse_dns: maybe\n", &[("E0201", 4, 16)]),
    ("messages: {max_size: 35}\n", &[("E0205", 3, 22)]),
    ("messages: {max_size: 35 apples}\n", &[("E0205", 3, 22)]),
    ("messages: {max_size: 1B}\n", &[("E0204", 3, 22)]),
    ("messages: {max_size: 99999999999999TiB}\n", &[("E0205", 3, 22)]),
    ("messages: {max_size: 1GiB}\n", &[("E0406", 3, 22)]),
    ("messages: {max_size: unlimited}\n", &[("E0406", 3, 22)]),
    ("messages: {max_session_size: 1MiB}\n", &[("E0406", 3, 30)]),
    ("messages: {ndr_copy_to: postmaster}\n", &[("E0302", 3, 25)]),
    ("messages: {fix: dates}\n", &[("E0206", 3, 17)]),
    ("delivery: {smart_host: 'relay.example:'}\n", &[("E0303", 3, 24)]),
    ("delivery: {smart_host: 'relay.example:0'}\n", &[("E0303", 3, 24)]),
    ("delivery: {smart_host: 'a b'}\n", &[("E0303", 3, 24)]),
    ("delivery: {smart_host: '300.1.2.3'}\n", &[("E0303", 3, 24)]),
    ("delivery: {smart_host: '[::1'}\n", &[("E0303", 3, 24)]),
    ("delivery: {smart_host: '127.0.0.1'}\n", &[("E0414", 3, 24)]),
    ("delivery: {direct_first: on_dns_failure}\n", &[("E0411", 3, 26)]),
    ("delivery: {source: [10.0.0.1, 10.0.0.2]}\n", &[("E0413", 3, 31)]),
    ("delivery: {ip_version: 5}\n", &[("E0206", 3, 24)]),
    ("delivery: {max_hops: 0}\n", &[("E0204", 3, 22)]),
    ("delivery: {fqdn: -bad}\n", &[("E0301", 3, 18)]),
    ("delivery:\n  outbound: {retry: []}\n", &[("E0408", 4, 21)]),
    ("delivery:\n  outbound: {retry: [1m, 0s]}\n", &[("E0204", 4, 26)]),
    ("delivery:\n  outbound: {retry: [1m, forever]}\n", &[("E0203", 4, 26)]),
    ("delivery:\n  outbound: {expire: 1h}\n", &[("W0409", 4, 22)]),
    ("delivery:\n  outbound: {quick_retries: 3}\n", &[("E0410", 4, 29)]),
    ("delivery:\n  connections: {per_domain: 2000}\n", &[("E0407", 4, 29)]),
    ("delivery:\n  connections: {max: 10}\n", &[("E0407", 4, 22)]),
    ("store: {root: ../other}\n", &[("E0210", 3, 15)]),
    ("store: {segment_size: 1KiB}\n", &[("E0204", 3, 23)]),
    ("profile: iis5\n", &[("E0206", 3, 10)]),
    ("enabled: ja\n", &[("E0201", 3, 10)]),
];

#[test]
fn every_bad_value_is_found_at_its_place() {
    for (body, expected) in BAD {
        let text = with_body(body);
        for error in server(&text).err().unwrap_or_default() {
            assert!(!error.helps.is_empty(), "says nothing of what to do: {error}");
        }
        assert_eq!(
            found(&text),
            *expected,
            "{text}\n{:?}",
            server(&text).err().map(|d| render_all(&d))
        );
    }
}

/// Whole files with bad domains.
const BAD_DOMAINS: &[(&str, &[Spot])] = &[
    ("", &[("E0403", 0, 0)]),
    ("domains: []\n", &[("E0403", 2, 10)]),
    ("domains: example.net\n", &[("E0106", 2, 10)]),
    ("domains:\n  - {name: a.example, type: alias}\n", &[("E0403", 3, 3)]),
    ("domains:\n  - {name: a.example, type: defualt}\n", &[("E0206", 3, 29)]),
    ("domains:\n  - {name: a.example}\n", &[("E0104", 3, 5)]),
    ("domains:\n  - {type: default}\n", &[("E0104", 3, 5)]),
    ("domains:\n  - {name: a..example, type: default}\n", &[("E0301", 3, 12)]),
    ("domains:\n  - {name: '*.a.example', type: default}\n", &[("E0405", 3, 12)]),
    (
        "domains:\n  - {name: a.example, type: default}\n  - {name: b.example, type: default}\n",
        &[("E0402", 4, 29)],
    ),
    (
        "domains:\n  - {name: a.example, type: default}\n  - {name: A.Example, type: alias}\n",
        &[("E0401", 4, 12)],
    ),
    (
        "domains:\n  - {name: a.example, type: default, relay: true}\n  - {name: b.example, type: alias, drop: {}}\n",
        &[("E0404", 3, 45), ("E0404", 4, 42)],
    ),
    (
        "domains:\n  - {name: a.example, type: default}\n  - {name: b.example, type: remote, route: []}\n",
        &[("E0303", 4, 44)],
    ),
    (
        "domains:\n  - {name: a.example, type: default}\n  - {name: b.example, type: remote, helo_only: yes, tls: verify}\n",
        &[("E0435", 4, 58)],
    ),
    (
        "domains:\n  - {name: a.example, type: default}\n  - {name: b.example, type: remote, route: smarthost:isp, tls: off}\n",
        &[("E0436", 4, 64)],
    ),
];

#[test]
fn bad_domains_are_found_at_their_places() {
    for (body, expected) in BAD_DOMAINS {
        let text = format!("version: 1\n{body}");
        let said = server(&text).err().map(|d| render_all(&d)).unwrap_or_default();
        let without_place: Vec<_> = found(&text)
            .into_iter()
            .map(
                |(code, line, column)| {
                    if body.is_empty() { (code, 0, 0) } else { (code, line, column) }
                },
            )
            .collect();
        assert_eq!(without_place, *expected, "{text}\n{said}");
    }
}

#[test]
fn all_errors_of_a_file_come_at_once_in_the_order_of_the_file() {
    let text = with_body(
        "general:\n  listen: nowhere\n  idle_timeout: 5\nmessages:\n  max_siz: 1MiB\n  max_size: 5\n",
    );
    assert_eq!(
        found(&text),
        [("E0306", 4, 11), ("E0203", 5, 17), ("E0107", 7, 3), ("E0205", 8, 13)]
    );
}

#[test]
fn an_open_relay_needs_a_listener_that_others_reach_and_can_be_insisted_on() {
    let relay = |listen: &str, relay: &str| {
        with_body(&format!("general: {{listen: {listen}}}\naccess: {{relay: {{{relay}}}}}\n"))
    };
    assert!(found(&relay("127.0.0.1:25", "list: 0.0.0.0/0")).is_empty());
    assert_eq!(found(&relay("10.0.0.1:25", "list: 0.0.0.0/0")), [("E0310", 4, 24)]);
    assert_eq!(found(&relay("0.0.0.0:25", "policy: all-except")), [("E0310", 4, 26)]);
    assert_eq!(
        found(&relay("10.0.0.1:25", "list: 0.0.0.0/0, i_want_an_open_relay: true")),
        [("W0310", 4, 24)]
    );
    let halves = "list: [10.0.0.0/8, 128.0.0.0/1, 0.0.0.0/1, \"::1\"]";
    assert_eq!(found(&relay("10.0.0.1:25", halves)), [("E0310", 4, 37)]);
    let by_default = with_body("profile: iis6\naccess: {relay: {list: [\"::/0\"]}}\n");
    assert_eq!(found(&by_default), [("E0310", 4, 25)]);
}

#[test]
fn words_are_words_and_booleans_are_booleans() {
    let text = with_body(
        "description: no\nenabled: off\naccess: {reverse_dns: YES}\ngeneral: {banner: 1.10}\n",
    );
    let (config, warnings) = server(&text).unwrap();
    assert!(warnings.is_empty());
    assert_eq!(config.description.as_deref(), Some("no"));
    assert!(!config.enabled && config.access.reverse_dns);
    assert_eq!(config.general.banner, "1.10");
}

#[test]
fn lists_of_one_may_be_scalars_and_words_stand_for_no_limit() {
    let text = with_body(
        "general: {listen: \"[::1]:25\", max_connections: unlimited}\n\
         access: {relay: {list: {net: 10.1.0.0/16, comment: LAN}}}\n\
         delivery:\n  outbound: {retry: 10m, delay_notice: never}\n  connections: {reuse: never}\n\
         messages: {max_session_size: unlimited, badmail: {keep: unlimited}}\n",
    );
    let (config, warnings) = server(&text).unwrap();
    assert!(warnings.is_empty(), "{}", render_all(&warnings));
    let listen = general::Listen::plain("[::1]:25".parse().unwrap());
    assert_eq!(config.general.listen, [listen]);
    assert_eq!(config.general.max_connections, Limit::Unlimited);
    assert_eq!(config.access.relay.list[0].comment.as_deref(), Some("LAN"));
    assert_eq!(config.delivery.outbound.retry, [crate::units::Span::minutes(10)]);
    assert_eq!(config.delivery.outbound.delay_notice, Wait::Never);
    assert_eq!(config.delivery.connections.reuse, Wait::Never);
    assert_eq!(config.messages.badmail.keep, Limit::Unlimited);
}

#[test]
fn domains_carry_what_their_type_has() {
    let text = "version: 1
domains:
- name: example.net
  type: default
  drop: {quota: 1GiB, format: maildir, dir: Inbox}
- {name: example.org, type: alias}
- name: \"*.corp.example\"
  type: remote
  relay: true
  helo_only: true
  route: [hub.corp.example, \"[192.0.2.7]:26\", 192.0.2.8]
- {name: plain.example, type: remote}
";
    let (config, warnings) = server(text).unwrap();
    assert!(warnings.is_empty());
    let DomainKind::Default(drop) = &config.domains[0].kind else { panic!("{:?}", config.domains) };
    assert_eq!(drop.quota, Limit::At(crate::units::ByteSize::gib(1)));
    assert!(config.domains[1].is_local() && !config.domains[2].is_local());
    let DomainKind::Remote {
        relay: true, helo_only: true, route: DomainRoute::Hosts(hosts), ..
    } = &config.domains[2].kind
    else {
        panic!("{:?}", config.domains)
    };
    let hosts: Vec<String> = hosts.iter().map(Hop::to_string).collect();
    assert_eq!(hosts, ["hub.corp.example", "[192.0.2.7]:26", "[192.0.2.8]"]);
    assert_eq!(config.domains[2].name.to_string(), "*.corp.example");
    assert!(matches!(
        config.domains[3].kind,
        DomainKind::Remote {
            relay: false,
            helo_only: false,
            route: DomainRoute::Mx,
            in_doubt: None,
            tls: None,
            hold: Hold { release: Release::Off, .. },
            limits: LaneLimits { connections: None, rate: None, recipients: None }
        }
    ));
}

#[test]
fn the_service_file_is_read_and_checked() {
    let text = "---\nversion: 1\nservice: {hostname: Relay1.Example.net, threads: 4, min_free: 1GiB}\n\
        control:\n  operators:\n    - root\n    - \"%mailroot-operators\"\n    - {who: anna, role: viewer}\n\
        dns: {resolvers: [127.0.0.1:5353, \"::1\", \"[::1]:54\"], timeout: 2s}\n\
        logging: {target: file, file: /var/log/m.log, format: json, level: debug}\n";
    let (config, warnings) = parse_service(text, "mailroot.yaml").unwrap();
    assert!(warnings.is_empty());
    assert_eq!(config.service.hostname.as_ref().unwrap().as_str(), "relay1.example.net");
    assert_eq!(config.service.threads, Auto::Count(4));
    assert_eq!(config.control.operators[2].role, control::Role::Viewer);
    let dns::Resolvers::List(list) = &config.dns.resolvers else { panic!("{:?}", config.dns) };
    let list: Vec<String> = list.iter().map(ToString::to_string).collect();
    assert_eq!(list, ["127.0.0.1:5353", "[::1]:53", "[::1]:54"]);
    assert_eq!(parse_service("version: 1", "m").unwrap().0.dns.resolvers, dns::Resolvers::System);

    for (bad, code) in [
        ("", "E0101"),
        ("service: {}\n", "E0101"),
        ("version: 2\n", "E0102"),
        ("version: \n", "E0102"),
        ("version: 1\nlogging: {target: file}\n", "E0104"),
        ("version: 1\nservice: {store: spool}\n", "E0210"),
        ("version: 1\ncontrol: {operators: ['%']}\n", "E0308"),
        ("version: 1\ncontrol: {operators: [{who: a, role: king}]}\n", "E0206"),
        ("version: 1\ndns: {resolvers: []}\n", "E0309"),
        ("version: 1\ndns: {resolvers: dns.example}\n", "E0309"),
        ("version: 1\nhttp: {}\n", "E0107"),
    ] {
        let found = parse_service(bad, "mailroot.yaml").unwrap_err();
        let codes: Vec<_> = found.iter().map(|diagnostic| diagnostic.code).collect();
        assert_eq!(codes, [code], "{bad}");
    }
}

#[test]
fn smart_hosts_have_what_they_need() {
    let service = |body: &str| {
        let text = format!("version: 1\nsmart_hosts:\n  isp: {body}\n");
        parse_service(&text, "mailroot.yaml")
    };
    let of = |body: &str| {
        let (config, warnings) = service(body).unwrap();
        assert!(warnings.is_empty(), "{body}");
        let keys = config.smart_hosts.into_values().next().unwrap();
        let hosts: Vec<String> = keys.hosts().iter().map(ToString::to_string).collect();
        (hosts.join(", "), keys.tls.word(), keys.auth.require_tls)
    };
    let told = |hosts: &str, tls, secret| (hosts.to_owned(), tls, secret);
    assert_eq!(of("{host: a.example}"), told("a.example", "verify", true));
    assert_eq!(of("{host: \"[::1]\", port: 2525, tls: off}"), told("[::1]:2525", "off", true));
    assert_eq!(of("{preset: m365}"), told("smtp.office365.com:587", "verify", true));
    let both = "{host: a.example, tls: implicit, backup: [b.example, \"c.example:465\"]}";
    assert_eq!(of(both), told("a.example:465, b.example, c.example:465", "implicit", true));
    let login = "{host: a.example, auth: {method: basic, user: me, password: {file: isp}}}";
    assert_eq!(of(login), told("a.example", "verify", true));

    for (bad, code) in [
        ("{}", "E0104"),
        ("{tls: off}", "E0104"),
        ("{host: \"a.example:25\"}", "E0303"),
        ("{host: a.example, pin: abc}", "E0312"),
        ("{host: a.example, auth: {method: basic, user: me}}", "E0104"),
        ("{host: a.example, auth: {method: basic, password: {env: X}}}", "E0104"),
        ("{host: a.example, auth: {user: me}}", "E0433"),
        (
            "{host: a.example, tls: off, auth: {method: basic, user: me, password: {file: isp}}}",
            "E0433",
        ),
        ("{host: a.example, auth: {mechanisms: []}}", "E0434"),
    ] {
        let found = service(bad).unwrap_err();
        let codes: Vec<_> = found.iter().map(|diagnostic| diagnostic.code).collect();
        assert_eq!(codes, [code], "{bad}");
    }
    let bad_name = parse_service("version: 1\nsmart_hosts: {1isp: {host: a.example}}\n", "m");
    assert_eq!(bad_name.unwrap_err()[0].code, "E0432");
}

#[test]
fn tickets_are_for_hosts_with_names_and_for_builds_that_know_them() {
    let absent: &[&str] = if cfg!(feature = "gssapi") { &[] } else { &["E0370"] };
    for (host, user, wrong) in [
        ("a.example", "user: relay@A.EXAMPLE", None),
        ("a.example", "user: relay@A.EXAMPLE, password: {file: isp}", None),
        ("\"[192.0.2.1]\"", "user: relay@A.EXAMPLE", Some("E0371")),
        ("a.example", "require_tls: true", Some("E0104")),
        ("a.example", "user: relay@A.EXAMPLE, mechanisms: [PLAIN]", Some("E0433")),
    ] {
        let auth = format!("auth: {{method: integrated, {user}}}");
        let text = format!("version: 1\nsmart_hosts: {{isp: {{host: {host}, {auth}}}}}\n");
        let found = parse_service(&text, "mailroot.yaml").err().unwrap_or_default();
        let mut codes: Vec<_> = found.iter().map(|diagnostic| diagnostic.code).collect();
        codes.sort_unstable();
        let mut wanted = [absent, wrong.as_slice()].concat();
        wanted.sort_unstable();
        assert_eq!(codes, wanted, "{text}");
    }
}

#[test]
fn a_secret_in_the_file_is_refused_and_never_shown() {
    for place in ["hunter2", "{file: ../hunter2}", "{file: .hunter2}", "{vault: hunter2}", "{}"] {
        let auth = format!("auth: {{method: basic, user: me, password: {place}}}");
        let text = format!("version: 1\nsmart_hosts: {{isp: {{host: a.example, {auth}}}}}\n");
        let found = parse_service(&text, "mailroot.yaml").unwrap_err();
        assert!(found.iter().any(|it| ["E0313", "E0107"].contains(&it.code)), "{place}");
        if place == "hunter2" {
            assert!(!render_all(&found).contains("hunter2"));
        }
    }
}

/// The original's defaults as its dossier gives them (`iis-smtp.md` 1.2 to 1.5, 2.1 and 3.2).
const ORIGINAL: &[(&str, &str)] = &[
    ("general.listen", "0.0.0.0:25"),           // ServerBindings ":25:"
    ("general.max_connections", "unlimited"),   // MaxConnections
    ("general.idle_timeout", "10m"),            // ConnectionTimeout 600 s
    ("general.max_errors", "unlimited"),        // MaxSmtpErrors
    ("access.reverse_dns", "false"),            // EnableReverseDnsLookup
    ("access.tls.mode", "off"),                 // no certificate
    ("access.anonymous", "true"),               // AuthFlags
    ("access.basic.enabled", "false"),          // AuthFlags
    ("access.basic.mechanisms", "LOGIN"),       // AUTH=LOGIN
    ("access.relay.authenticated", "true"),     // RelayForAuth
    ("access.connect.policy", "all-except"),    // IPSecurity: empty, all may connect
    ("access.connect.list", "none"),            // IPSecurity
    ("access.relay.policy", "only"),            // RelayIpList
    ("access.relay.list", "none"),              // RelayIpList
    ("messages.max_size", "2MiB"),              // MaxMessageSize 2097152
    ("messages.max_session_size", "10MiB"),     // MaxSessionSize 10485760
    ("messages.max_per_connection", "20"),      // MaxBatchedMessages
    ("messages.max_recipients", "100"),         // MaxRecipients
    ("messages.ndr_copy_to", "none"),           // SendNdrTo
    ("messages.ndr_full_message", "true"),      // ux.md 3.3
    ("messages.badmail.keep", "unlimited"),     // nothing ever purges it
    ("messages.badmail.max_size", "unlimited"), // MaxBadMailFolderSize
    ("delivery.outbound.retry", "15m, 30m, 1h, 4h"), // SmtpRemoteProgressiveRetry
    ("delivery.outbound.delay_notice", "12h"),  // SmtpRemoteDelayExpireMinutes 720
    ("delivery.outbound.expire", "2d"),         // SmtpRemoteNDRExpireMinutes 2880
    ("delivery.outbound.quick_retries", "3"),   // SmtpRemoteRetryThreshold
    ("delivery.local.retry", "1h"),             // LocalRetryInterval 60 min
    ("delivery.local.delay_notice", "12h"),     // SmtpLocalDelayExpireMinutes 720
    ("delivery.local.expire", "2d"),            // SmtpLocalNDRExpireMinutes 2880
    ("delivery.connections.max", "1000"),       // MaxOutConnections
    ("delivery.connections.per_domain", "100"), // MaxOutConnectionsPerDomain
    ("delivery.connections.timeout", "10m"),    // RemoteTimeout 600 s
    ("delivery.connections.port", "25"),        // RemoteSmtpPort
    ("delivery.ip_version", "4"),
    ("delivery.max_hops", "15"),            // HopCount
    ("delivery.masquerade_domain", "none"), // MasqueradeDomain
    ("delivery.smart_host", "none"),        // SmartHost
    ("delivery.direct_first", "never"),     // SmartHostType 0
    ("store.pickup.enabled", "true"),       // ShouldPickupMail
    ("store.pickup.x_headers", "true"),
    ("store.pickup.dot_stuffed", "true"), // SmtpDotStuffPickupDirFiles
];

/// Ours, as `ux.md` 3.3 gives them.
const OURS: &[(&str, &str)] = &[
    ("general.listen", "127.0.0.1:25, [::1]:25"),
    ("general.max_connections", "1000"),
    ("general.max_connections_per_client", "50"),
    ("general.idle_timeout", "5m"),
    ("general.banner", "ESMTP"),
    ("access.anonymous", "true"),
    ("access.basic.enabled", "false"),
    ("access.basic.require_tls", "true"),
    ("access.auth_failures.max", "5"),
    ("access.auth_failures.delay", "2s"),
    ("access.relay.authenticated", "true"),
    ("access.tls.certificate", "auto"),
    ("access.tls.mode", "optional"),
    ("access.connect.policy", "all-except"),
    ("access.connect.list", "none"),
    ("access.relay.policy", "only"),
    ("access.relay.list", "127.0.0.0/8, ::1"),
    ("messages.max_size", "35MiB"),
    ("messages.max_session_size", "350MiB"),
    ("messages.max_per_connection", "20"),
    ("messages.max_recipients", "1000"),
    ("messages.ndr_full_message", "false"),
    ("messages.fix", "date, message-id, line-ends"),
    ("messages.badmail.keep", "30d"),
    ("messages.badmail.max_size", "1GiB"),
    ("delivery.outbound.retry", "1m, 5m, 15m, 30m, 1h, 4h"),
    ("delivery.outbound.delay_notice", "12h"),
    ("delivery.outbound.expire", "4d"),
    ("delivery.local.retry", "5m"),
    ("delivery.connections.max", "1000"),
    ("delivery.connections.per_domain", "20"),
    ("delivery.connections.timeout", "10m"),
    ("delivery.connections.connect", "30s"),
    ("delivery.connections.greeting", "5m"),
    ("delivery.connections.data_end", "10m"),
    ("delivery.connections.reuse", "30s"),
    ("delivery.ip_version", "any"),
    ("delivery.max_hops", "100"),
    ("store.pickup.poll", "5s"),
    ("store.pickup.settle", "1s"),
    ("store.segment_size", "64MiB"),
];

#[test]
fn both_profiles_have_the_defaults_of_their_sources() {
    for (profile, column) in [(Profile::Iis6, ORIGINAL), (Profile::Modern, OURS)] {
        let effective = ServerConfig::defaults(profile).effective();
        for (key, expected) in column {
            let row = effective.iter().find(|row| row.key == *key).expect(key);
            assert_eq!((row.value.as_str(), row.default.as_str()), (*expected, *expected), "{key}");
        }
    }
}

#[test]
fn every_key_is_documented_once_and_its_defaults_keep_its_bounds() {
    for keys in [ServiceConfig::keys(), ServerConfig::keys()] {
        let mut names: Vec<&str> = keys.iter().map(|key| key.key.as_str()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for key in &keys {
            assert!(key.doc.ends_with('.') && key.doc.len() > 15, "{key:?}");
            assert!(!key.modern.is_empty() && !key.iis6.is_empty(), "{key:?}");
        }
    }
}

/// Defaults written out as a file are the same configuration.
#[test]
fn every_default_can_be_written_and_read_back() {
    for (profile, word) in [(Profile::Modern, "modern"), (Profile::Iis6, "iis6")] {
        let defaults = ServerConfig::defaults(profile);
        let mut text = format!("version: 1\nprofile: {word}\n{DOMAINS}");
        let mut sections: std::collections::BTreeMap<String, Vec<String>> = Default::default();
        for row in defaults.effective() {
            let Some((section, key)) = row.key.rsplit_once('.') else { continue };
            let listed = [
                "list",
                "smart_host",
                "source",
                "fix",
                "retry",
                "listen",
                "extensions",
                "mechanisms",
                "algorithms",
            ];
            let value = match row.value.as_str() {
                "none" | "system" if listed.contains(&key) => "[]".to_owned(),
                "none"
                | "tls.min_version"
                | "of the schema"
                | "required"
                | "service.hostname"
                | "delivery.fqdn"
                | "the server's name below service.store" => continue,
                list if listed.contains(&key) => format!("['{}']", list.replace(", ", "', '")),
                value => format!("'{value}'"),
            };
            if key != "quick_retries" || profile == Profile::Iis6 {
                sections.entry(section.to_owned()).or_default().push(format!("{key}: {value}"));
            }
        }
        for (section, keys) in &sections {
            assert!(section.split('.').count() <= 2, "{section}");
            if !section.contains('.') {
                text.push_str(&format!("{section}:\n"));
                let inner = format!("{section}.");
                for (sub, keys) in sections.iter().filter(|(name, _)| name.starts_with(&inner)) {
                    text.push_str(&format!("  {}: {{{}}}\n", &sub[inner.len()..], keys.join(", ")));
                }
                keys.iter().for_each(|key| text.push_str(&format!("  {key}\n")));
            }
        }
        let (mut read, warnings) = server(&text).unwrap_or_else(|d| panic!("{}", render_all(&d)));
        assert!(warnings.is_empty(), "{}", render_all(&warnings));
        read.origins = Origins::default();
        read.domains.clear();
        assert_eq!(read, defaults, "{text}");
    }
}

#[test]
fn what_is_in_force_names_its_origin() {
    let text = with_body("messages:\n  max_recipients: 50\n");
    let (config, _) = server(&text).unwrap();
    let rows = config.effective();
    let row = |key: &str| rows.iter().find(|row| row.key == key).unwrap();
    let recipients = row("messages.max_recipients");
    assert_eq!(recipients.value, "50");
    assert_eq!((recipients.default.as_str(), recipients.iis_default.as_str()), ("1000", "100"));
    let origin = recipients.origin.as_deref().unwrap();
    assert_eq!(origin, "/etc/mailroot/servers.d/default.yaml:4");
    assert_eq!(row("messages.max_size").origin, None);
    assert_eq!(row("domains[0].name").value, "example.net");
    assert_eq!(row("delivery.fqdn").value, "service.hostname");
}

#[test]
fn a_diagnostic_is_data_for_editors_as_well() {
    let text = with_body("delivery: {max_hops: 0}\n");
    let value = serde_json::to_value(one_error(&text)).unwrap();
    assert_eq!(value["code"], "E0204");
    assert_eq!(value["place"]["line"], 3);
    assert_eq!(value["octets"], serde_json::json!([78, 79]));
    assert_eq!(&text[78..79], "0");
}

#[test]
fn text_of_a_file_reaches_no_terminal_raw() {
    let text = with_body("general: {banner: \"\\x1b[2Jx\"}\nmessages: {\"k\\x1b]0;x\\x07\": 1}\n");
    let said = render_all(&server(&text).unwrap_err());
    assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
    // U+009B begins an escape sequence as well.
    for text in ["a: \u{9b}2Jx\n".to_owned(), with_body("ge\u{9b}2Jneral: {}\n")] {
        let said = render_all(&server(&text).unwrap_err());
        assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
    }
}

#[test]
fn of_endless_errors_the_first_are_told_and_the_rest_counted() {
    let mut text = "version: 1\ndomains:\n  - {name: a.example, type: default}\n".to_owned();
    (0..300).for_each(|n| text.push_str(&format!("  - {{name: d{n}.example, type: alais}}\n")));
    let found = server(&text).unwrap_err();
    assert_eq!(found.len(), 101);
    assert_eq!(found[100].title, "200 more in /etc/mailroot/servers.d/default.yaml");
    assert_eq!(found[100].code, "E0199");
}

#[test]
fn endless_warnings_hide_no_error_and_are_none() {
    let source = Arc::new(Source { name: "default.yaml".to_owned(), text: String::new() });
    let mut reader = section::Reader::new(source, Vec::new());
    (0..102).for_each(|_| reader.report(Diagnostic::warning("W0311", "a name")));
    reader.report(Diagnostic::error("E0107", "an unknown key"));
    let (found, _) = reader.finish();
    let codes: Vec<&str> = found.iter().map(|one| one.code).collect();
    assert_eq!(codes.iter().filter(|&&code| code == "W0311").count(), 100);
    assert!(codes.contains(&"E0107") && codes.contains(&"W0199") && !codes.contains(&"E0199"));
}

#[test]
fn endless_double_keys_before_a_syntax_error_are_bounded_too() {
    let text = format!("version: 1\n{}general: [\n", "enabled: true\n".repeat(400));
    let found = server(&text).unwrap_err();
    assert!(found.len() <= 101, "{}", found.len());
    assert!(found.iter().any(|one| one.code != "E0108"), "the syntax error is among them");
}

mod generated {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &str = "# é ünï\nversion: 1\nprofile: iis6\ngeneral:\n  listen: [127.0.0.1:25, \"[::1]:25\"]\n  \
        idle_timeout: 5m   # wähle\naccess: {relay: {list: [{net: 10.0.0.0/8, comment: \"ü\"}, 0.0.0.0/0]}}\n\
        delivery:\n  smart_host: a.example:25\n  outbound: {retry: [1m, 2m], quick_retries: 2}\n\
        domains:\n- {name: a.example, type: default}\n- name: '*.b.example'\n  type: remote\n  route: [c, d:26]\n";

    proptest! {
        /// Errors about any text can be shown, in any file.
        #[test]
        fn a_damaged_file_is_read_or_explained(
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, "[ -~é\\n\\t]{0,3}"), 1..6),
        ) {
            let mut text: Vec<char> = WHOLE.chars().collect();
            for (at, kind, with) in changes {
                let at = at.index(text.len());
                match kind {
                    0 => { text.remove(at); }
                    1 => text.truncate(at.max(1)),
                    2 => { text.splice(at..at, with.chars()); }
                    _ => { let end = (at + 3).min(text.len()); text.splice(at..end, with.chars()); }
                }
                text.push('\n');
            }
            let text: String = text.into_iter().collect();
            let said = match server(&text) {
                Ok((_, warnings)) => warnings,
                Err(found) => {
                    prop_assert!(found.iter().any(|d| d.severity == Severity::Error));
                    found
                }
            };
            for diagnostic in &said {
                prop_assert!(diagnostic.render().contains(diagnostic.code));
                prop_assert!(!diagnostic.helps.is_empty(), "{}", diagnostic);
            }
            let _ = parse_service(&text, "mailroot.yaml").map_err(|found| render_all(&found));
        }
    }
}

#[test]
fn listeners_have_a_kind_of_their_own() {
    let text = "general:\n  listen: [10.0.0.1:25, {address: \"[::1]:465\", tls: implicit}]\n";
    let (config, _) = server(&with_body(text)).unwrap();
    let [plain, implicit] = config.general.listen[..] else { panic!("{:?}", config.general) };
    assert_eq!(plain, general::Listen::plain("10.0.0.1:25".parse().unwrap()));
    assert_eq!(implicit.tls, general::ListenTls::Implicit);
    // As it is shown it can be written.
    let shown: Vec<String> = config.effective()[3].items.clone();
    let again = format!("general:\n  listen: [{}]\n", shown.join(", "));
    let (again, _) = server(&with_body(&again)).unwrap_or_else(|d| panic!("{}", render_all(&d)));
    assert_eq!(again.general.listen, config.general.listen);
    assert_eq!(one_error(&with_body("general:\n  listen: [{tls: implicit}]\n")).code, "E0104");
}

#[test]
fn tls_and_logins_must_fit_together() {
    for (body, code) in [
        (
            "general:\n  listen: [{address: 10.0.0.1:465, tls: implicit}]\naccess:\n  tls: {mode: off}\n",
            "E0392",
        ),
        ("access:\n  tls: {certificate: []}\n", "E0393"),
        ("access:\n  tls: {mode: off}\n  basic: {enabled: true}\n", "E0394"),
        ("access:\n  basic: {enabled: true, mechanisms: []}\n", "E0395"),
        ("access:\n  anonymous: false\n", "E0396"),
    ] {
        assert_eq!(one_error(&with_body(body)).code, code, "{body}");
    }
    let insecure = "access:\n  basic: {enabled: true, require_tls: false}\n";
    let (_, warnings) = server(&with_body(insecure)).unwrap();
    assert_eq!(warnings[0].code, "W0472");
}

#[test]
fn certificates_have_names_and_whole_paths() {
    let codes = |text: &str| {
        let text = format!("version: 1\ntls: {{certificates: {text}}}\n");
        let found = parse_service(&text, "mailroot.yaml").err().unwrap_or_default();
        found.iter().map(|it| it.code).collect::<Vec<_>>()
    };
    assert!(codes("{relay1: {chain: /a, key: /b}}").is_empty());
    assert_eq!(codes("{auto: {chain: /a, key: /b}}"), ["E0390"]);
    assert_eq!(codes("{Relay: {chain: /a, key: /b}}"), ["E0390"]);
    assert_eq!(codes("{relay1: {chain: a, key: /b}}"), ["E0210"]);
    assert_eq!(codes("{relay1: {chain: /a}}"), ["E0104"]);
    assert!(codes("{relay1: {acme: [mx.example.net, mail.example.net]}}").is_empty());
    assert_eq!(codes("{relay1: {acme: mx.example.net, chain: /a, key: /b}}"), ["E0374"]);
    assert_eq!(codes("{relay1: {acme: []}}"), ["E0374"]);
    assert_eq!(codes("{relay1: {acme: \"*.example.net\"}}").len(), 1);
}

#[test]
fn an_authority_is_asked_under_tls_and_answered_somewhere() {
    let codes = |text: &str| {
        let text = format!("version: 1\ntls: {{acme: {text}}}\n");
        let found = parse_service(&text, "mailroot.yaml").err().unwrap_or_default();
        found.iter().map(|it| it.code).collect::<Vec<_>>()
    };
    assert!(codes("{directory: \"https://ca.corp.example/dir\", trust: /ca.pem}").is_empty());
    assert_eq!(codes("{directory: \"http://ca.corp.example/dir\"}"), ["E0316"]);
    assert_eq!(codes("{trust: ca.pem}"), ["E0210"]);
    assert_eq!(codes("{listen: []}"), ["E0375"]);
}
