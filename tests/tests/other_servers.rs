//! Mail to and from other servers as their packages have them: OpenSMTPD and Exim, under TLS and with logins
//! as far as those can.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;

use mailroot_tests::certificates::{Authority, Valid};
use mailroot_tests::exim::{self, Exim, HELD_DOMAIN};
use mailroot_tests::message::tagged;
use mailroot_tests::opensmtpd::{self, OpenSmtpd};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, skip, wait};

const USER: &str = "branch";
const PASSWORD: &str = "correct-horse";

fn send(to: SocketAddr, from: &str, recipient: &str, tag: &str) {
    let mut talk = Talk::to(to);
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message(from, &[recipient], &tagged(tag)).unwrap().code, 250);
}

#[test]
fn opensmtpd_sends_under_tls_with_a_login() {
    let setup = Setup::new()
        .key("access.basic.enabled", "true")
        .key("access.tls.mode", "required")
        .key("access.relay.list", "[]")
        .key("access.anonymous", "false");
    let site = Site::start(setup);
    let words = ["user", "add", USER, "--password-stdin"];
    site.control().input(&format!("{PASSWORD}\n")).run(&words).ok();
    let login = (USER, PASSWORD);
    let Some(other) = OpenSmtpd::start(ports::local(), site.address(), login) else {
        return skip::note("OpenSMTPD as sender", opensmtpd::ABSENT);
    };
    send(other.address(), "a@client.test", "b@local.test", "from-opensmtpd");
    let dropped = site.await_dropped(1);
    assert_eq!(dropped[0].fields("X-Tag"), ["from-opensmtpd"], "{}", other.log());
    let received = dropped[0].fields("Received").remove(0);
    assert!(received.contains("with ESMTPSA"), "{received}");
    site.logged(&["event=login ", "user=\"branch\""]);
}

#[test]
fn opensmtpd_takes_what_we_send() {
    let nobody = ports::local();
    let Some(other) = OpenSmtpd::start(ports::local(), nobody, (USER, PASSWORD)) else {
        return skip::note("OpenSMTPD as receiver", opensmtpd::ABSENT);
    };
    let site = Site::start(Setup::new().smart_host(other.address()));
    send(site.address(), "a@local.test", &format!("b@{}", opensmtpd::DOMAIN), "to-opensmtpd");
    let kept = other.await_kept(1);
    assert_eq!(kept[0].fields("X-Tag"), ["to-opensmtpd"]);
    site.logged(&["event=delivered", "to=<b@keep.test>"]);
    site.await_empty_queue();
}

#[test]
fn exim_takes_mail_under_tls_with_a_login_reports_it_and_sends_what_we_ask_it_for() {
    let (authority, hub, at) = (Authority::new(), ports::local(), ports::local());
    let identity = authority.sign("exim.test", Valid::Now);
    let Some(exim) = Exim::receiving(hub, &identity, (USER, PASSWORD), at) else {
        return skip::note("Exim as receiver", exim::ABSENT);
    };
    let site = Site::start(Setup::new());
    let host = format!("{}:{}", hub.ip(), hub.port());
    let words = ["smarthost", "set", &host, "--name", "hub", "--tls", "required"];
    let login = ["--user", USER, "--password-stdin"];
    site.control().input(&format!("{PASSWORD}\n")).run(&[&words[..], &login].concat()).ok();
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@local.test> ENVID=here", 250);
    talk.expect("RCPT TO:<b@keep.test> NOTIFY=SUCCESS", 250);
    talk.expect("DATA", 354);
    talk.send(b"X-Tag: to-exim\r\n\r\nhello\r\n.\r\n").unwrap();
    assert_eq!(talk.reply().unwrap().code, 250);
    // The message and its report, which it keeps as all other mail.
    let kept = exim.await_kept(2);
    assert!(kept.iter().any(|it| it.fields("X-Tag") == ["to-exim"]), "{}", exim.log());
    let is_report =
        kept.iter().any(|it| it.text().to_lowercase().contains("original-envelope-id: here"));
    assert!(is_report, "{}", exim.log());
    site.logged(&["event=delivered", "to=<b@keep.test>", "tls=TLSv1."]);
    site.await_empty_queue();
    assert!(site.dropped("default").is_empty(), "no report of ours beside theirs");
    assert!(exim.log().contains("A=plain:branch"), "{}", exim.log());

    send(site.address(), "a@local.test", &format!("c@{HELD_DOMAIN}"), "held-there");
    site.await_empty_queue();
    let mut setup = Setup::new().key("general.listen", &format!("\"{at}\""));
    setup.servers[0].address = at;
    let domain = format!("{{name: {HELD_DOMAIN}, type: default}}");
    let branch = Site::start(setup.only_domains(&[&domain]));
    let host = format!("[{}]:{}", hub.ip(), hub.port());
    wait::until("Exim to send it", || {
        // It knows queues by a word of their addresses.
        let asked = branch.ctl(&["etrn", &host, &format!("#{HELD_DOMAIN}")]);
        // It says so while it is at it already.
        assert!(asked.code == 0 || asked.out.contains("458"), "{asked}");
        (branch.dropped("default").len() == 1).then_some(())
    });
}
