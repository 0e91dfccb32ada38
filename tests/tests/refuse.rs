//! Nobody relays who may not: 44 forms of an address, proved at the sink and not only by the reply; the
//! connection list; what decides between them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::ports;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;

/// A setup in which this client may not relay, and everything that leaves would reach the sink.
fn closed(sink: &Peer) -> Setup {
    Setup::new().smart_host(sink.address()).key("access.relay.list", "[192.0.2.0/24]")
}

/// MAIL and RCPT lines, octets included, that must not make mail leave. `US` is our domain, `THEM` another.
const FORMS: &[(&str, &str, &[u8])] = &[
    ("plain", "a@client.test", b"<x@THEM>"),
    ("upper case", "a@client.test", b"<X@THEM.>"),
    ("no brackets", "a@client.test", b"x@THEM"),
    ("trailing dot", "a@client.test", b"<x@THEM.>"),
    ("source route", "a@client.test", b"<@US:x@THEM>"),
    ("source route chain", "a@client.test", b"<@US,@relay.test:x@THEM>"),
    ("user@us@them", "a@client.test", b"<x@US@THEM>"),
    ("user@them@us", "a@client.test", b"<x@THEM@US>"),
    ("IPv4 literal", "a@client.test", b"<x@[192.0.2.9]>"),
    ("IPv6 literal", "a@client.test", b"<x@[IPv6:2001:db8::9]>"),
    ("bare address", "a@client.test", b"<x@192.0.2.9>"),
    ("ends like us", "a@client.test", b"<x@notUS>"),
    ("begins like us", "a@client.test", b"<x@US.THEM>"),
    ("below us", "a@client.test", b"<x@sub.US>"),
    ("comment", "a@client.test", b"<x@THEM(US)>"),
    ("comma", "a@client.test", b"<x@THEM,y@US>"),
    ("semicolon", "a@client.test", b"<x@THEM;@US>"),
    ("space", "a@client.test", b"<x@THEM @US>"),
    ("NUL", "a@client.test", b"<x@THEM\0@US>"),
    ("CR", "a@client.test", b"<x@THEM\r@US>"),
    ("colon", "a@client.test", b"<x@THEM:@US>"),
    ("homograph", "a@client.test", "<x@loc\u{430}l.test>".as_bytes()),
    ("fullwidth", "a@client.test", "<x@THEM\u{ff0e}US>".as_bytes()),
    ("ideographic dot", "a@client.test", "<x@THEM\u{3002}US>".as_bytes()),
    ("percent", "a@client.test", b"<x%THEM@US>"),
    ("percent twice", "a@client.test", b"<x%THEM%relay.test@US>"),
    ("percent without domain", "a@client.test", b"<x%THEM>"),
    ("bang", "a@client.test", b"<THEM!x@US>"),
    ("bang without domain", "a@client.test", b"<THEM!x>"),
    ("quoted at", "a@client.test", b"<\"x@THEM\"@US>"),
    ("quoted percent", "a@client.test", b"<\"x%THEM\"@US>"),
    ("quoted only", "a@client.test", b"<\"x@THEM\">"),
    ("escaped at", "a@client.test", b"<x\\@THEM@US>"),
    ("encapsulated", "a@client.test", b"<IMCEASMTP-x+40THEM@US>"),
    ("encapsulated lower", "a@client.test", b"<imceasmtp-x+40THEM@US>"),
    ("null sender", "", b"<x@THEM>"),
    ("local sender", "ops@US", b"<x@THEM>"),
    ("postmaster sender", "postmaster", b"<x@THEM>"),
    ("localhost sender", "root@localhost", b"<x@THEM>"),
    ("literal sender", "a@[127.0.0.1]", b"<x@THEM>"),
    ("two paths", "a@client.test", b"<x@US> <x@THEM>"),
    ("route to self", "a@client.test", b"<@THEM:x@US@THEM>"),
    ("parameter", "a@client.test", b"<x@THEM> ORCPT=rfc822;x@US"),
    ("brackets within", "a@client.test", b"<<x@US>x@THEM>"),
];

fn filled(form: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = form;
    while let Some(&octet) = rest.first() {
        if let Some(after) = rest.strip_prefix(b"THEM") {
            out.extend_from_slice(b"other.test");
            rest = after;
        } else if let Some(after) = rest.strip_prefix(b"US") {
            out.extend_from_slice(LOCAL_DOMAIN.as_bytes());
            rest = after;
        } else {
            out.push(octet);
            rest = &rest[1..];
        }
    }
    out
}

#[test]
fn no_form_of_an_address_relays() {
    assert_eq!(FORMS.len(), 44);
    let sink = Peer::accepting(ports::local());
    let site = Site::start(closed(&sink));
    let mut accepted = Vec::new();
    for (name, sender, form) in FORMS {
        for hello in ["client.test", LOCAL_DOMAIN] {
            let mut talk = site.talk();
            talk.expect(&format!("EHLO {hello}"), 250);
            let sender = sender.replace("US", LOCAL_DOMAIN);
            if talk.say(&format!("MAIL FROM:<{sender}>")).code != 250 {
                continue;
            }
            talk.send(&[b"RCPT TO:", &filled(form)[..], b"\r\n"].concat()).unwrap();
            let Ok(reply) = talk.reply() else { continue };
            if reply.code != 250 {
                assert!((400..600).contains(&reply.code), "{name}: {reply}");
                continue;
            }
            // An accepted form must be one that stays here: send it and see.
            talk.expect("DATA", 354);
            let tag = format!("form {name} as {hello}").replace(' ', "-");
            talk.send(&mailroot_tests::talk::stuffed(&tagged(&tag))).unwrap();
            assert_eq!(talk.reply().unwrap().code, 250, "{name}");
            accepted.push(tag);
        }
    }

    site.await_empty_queue();
    let stayed = site.dropped("default");
    assert_eq!(sink.received().len(), 0, "mail left: {:?}", sink.received());
    assert_eq!(sink.sessions(), 0, "a connection was opened");
    for tag in accepted {
        assert!(stayed.iter().any(|stored| stored.fields("X-Tag") == [tag.as_str()]), "{tag}");
    }
}

#[test]
fn a_proxy_line_and_xclient_change_nothing() {
    let sink = Peer::accepting(ports::local());
    let site = Site::start(closed(&sink));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for line in ["XCLIENT ADDR=192.0.2.1 NAME=friend.test", "PROXY TCP4 192.0.2.1 192.0.2.2 1 25"] {
        let reply = talk.say(line);
        assert!(reply.code >= 500, "{line}: {reply}");
    }
    talk.expect("MAIL FROM:<a@client.test>", 250);
    let refused = talk.expect("RCPT TO:<x@other.test>", 550);
    assert_eq!(refused.enhanced(), Some("5.7.1"));

    let mut talk = Talk::connect(site.address()).unwrap();
    talk.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n").unwrap();
    let first = talk.reply().unwrap();
    assert_eq!(first.code, 220);
    let reply = talk.reply();
    assert!(reply.is_err() || reply.as_ref().is_ok_and(|reply| reply.code >= 500), "{reply:?}");
    assert_eq!(sink.sessions(), 0);
}

#[test]
fn the_relay_list_names_who_may_or_who_may_not() {
    for (policy, list, code) in [
        ("only", "[127.0.0.0/8]", 250),
        ("only", "[192.0.2.0/24]", 550),
        ("only", "[\"::ffff:127.0.0.1\"]", 250),
        ("all-except", "[127.0.0.1]", 550),
    ] {
        let sink = Peer::accepting(ports::local());
        let setup = Setup::new()
            .smart_host(sink.address())
            .key("access.relay.policy", policy)
            .key("access.relay.list", list);
        let site = Site::prepare(setup);
        if site.run(&["--check"]).code != 0 {
            // A list form that is refused is safe; which are, the configuration suite says.
            assert_eq!(code, 250, "{policy} {list} must be a good configuration");
            continue;
        }
        site.launch();
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        talk.expect("MAIL FROM:<a@client.test>", 250);
        talk.expect("RCPT TO:<x@other.test>", code);
    }
}

#[test]
fn a_remote_domain_with_relay_is_open_to_anyone_and_only_as_far_as_its_name_reaches() {
    let sink = Peer::accepting(ports::local());
    let setup = closed(&sink)
        .domain("{name: partner.test, type: remote, relay: true}")
        .domain("{name: \"*.corp.test\", type: remote, relay: true}")
        .domain("{name: shut.test, type: remote}");
    let site = Site::start(setup);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    for (address, code) in [
        ("x@partner.test", 250),
        ("x@PARTNER.TEST", 250),
        ("x@a.corp.test", 250),
        ("x@a.b.corp.test", 250),
        ("x@corp.test", 550),
        ("x@notcorp.test", 550),
        ("x@sub.partner.test", 550),
        ("x@shut.test", 550),
        (&format!("anyone@{LOCAL_DOMAIN}"), 250),
    ] {
        talk.expect(&format!("RCPT TO:<{address}>"), code);
    }
}

#[test]
fn a_client_on_the_connection_list_is_turned_away_before_it_says_anything() {
    let site = Site::prepare(
        Setup::new()
            .key("access.connect.policy", "all-except")
            .key("access.connect.list", "[{net: 127.0.0.1, comment: this test}]"),
    );
    site.spawn(&[]);
    let reply = mailroot_tests::wait::until("a reply", || {
        Talk::connect(site.address()).ok().and_then(|mut talk| {
            let reply = talk.reply().ok()?;
            Some((reply, talk.rest().unwrap_or_default()))
        })
    });

    assert_eq!(reply.0.code, 554, "{}", reply.0);
    assert_eq!(reply.0.enhanced(), Some("5.7.1"));
    assert!(reply.1.is_empty());
    let line = site.logged(&["event=reject", "reason=access-denied"]);
    assert!(line.contains("client=127.0.0.1"), "{line}");
}

#[test]
fn a_refusal_is_logged_on_one_line_that_the_client_cannot_forge() {
    let sink = Peer::accepting(ports::local());
    for form in ["logfmt", "json"] {
        let site = Site::prepare(closed(&sink));
        site.launch_with(&["--log", form]);
        let mut talk = site.talk();
        let forged = "EHLO x\"client=9.9.9.9\"event=received\u{1b}[31m";
        let _any_answer = talk.say(forged);
        talk.expect("EHLO client.test", 250);
        talk.expect("MAIL FROM:<\"a\\\" event=received client=9.9.9.9\"@client.test>", 250);
        talk.expect("RCPT TO:<x@other.test>", 550);

        let line = site.logged(&["relay-denied"]);

        assert!(line.bytes().all(|octet| !octet.is_ascii_control()), "{line:?}");
        if form == "json" {
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["client"], "127.0.0.1");
            assert_eq!(value["event"], "reject");
        } else {
            assert!(line.starts_with("event=reject server=default"), "{line}");
            let client = line.find(" client=127.0.0.1 ").unwrap();
            let said = line.find("9.9.9.9").unwrap();
            assert!(client < said, "what a peer may choose stands last: {line}");
        }
        for line in site.log().lines() {
            assert!(line.bytes().all(|octet| !octet.is_ascii_control()), "{line:?}");
        }
    }
}
