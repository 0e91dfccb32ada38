//! Mail that we fetch (ATRN) and checks of senders: the host that hands it over is not its sender.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::dns::Dns;
use mailroot_tests::message::tagged;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, skip};

const PASSWORD: &str = "correct horse";

#[test]
fn mail_that_we_fetch_is_not_judged_by_the_host_that_hands_it_over() {
    let records = [
        "client.test. 60 IN TXT \"v=spf1 -all\"",
        "_dmarc.client.test. 60 IN TXT \"v=DMARC1; p=reject\"",
    ];
    let Some(dns) = Dns::serve(&records) else {
        return skip::note("fetched mail and checks of senders", "unbound is not installed");
    };
    let held =
        "{name: branch.test, type: remote, relay: true, hold: {release: atrn, atrn_users: branch}}";
    let hub = Site::start(Setup::new().key("access.basic.enabled", "true").domain(held));
    let password = format!("{PASSWORD}\n");
    hub.control().input(&password).run(&["user", "add", "branch", "--password-stdin"]).ok();
    let checks = Setup::new()
        .dns(dns.address(), ports::local().port())
        .key("access.relay.list", "[]")
        .key("senders.spf", "reject")
        .key("senders.dmarc", "reject");
    let branch = Site::start(checks.only_domains(&["{name: branch.test, type: default}"]));
    let host = format!("{}:{}", hub.address().ip(), hub.address().port());
    let words = ["smarthost", "set", &host, "--name", "hub", "--tls", "required"];
    let login = ["--user", "branch", "--password-stdin"];
    branch.control().input(&password).run(&[&words[..], &login].concat()).ok();
    let mut talk = branch.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 550);
    let mut talk = hub.talk();
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("a@client.test", &["a@branch.test"], &tagged("fetched")).unwrap();
    assert_eq!(sent.code, 250);
    branch.ctl(&["etrn", "--atrn", "--smarthost", "hub"]).ok();
    let taken = branch.await_dropped(1);
    assert!(taken[0].fields("Authentication-Results").is_empty(), "{}", taken[0].text());
    hub.await_empty_queue();
}
