//! TLS of clients, as `testssl.sh` sees it: nothing that it calls worse than low, at either door.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use mailroot_tests::certificates::Authority;
use mailroot_tests::setup::{HOSTNAME, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::testssl::{self, Door, Finding};
use mailroot_tests::{ports, skip};

/// What is looked at each time: protocols, whose choice counts and what it is, the certificate, keys for one
/// session alone, renegotiation, compression, tickets. All the rest at full size.
const CHECKS: [&str; 7] = ["-p", "-P", "-S", "-f", "-R", "-C", "-T"];

#[test]
fn nothing_worse_than_low_is_found_at_either_door() {
    let authority = Authority::new();
    let identity = authority.sign_server(HOSTNAME);
    let place = tempfile::tempdir().unwrap();
    let (chain, key) = identity.apart(place.path(), "good");
    let at_once = ports::local();
    let setup = Setup::new()
        .implicit_tls(at_once)
        .service("tls.certificates.good.chain", &chain.display().to_string())
        .service("tls.certificates.good.key", &key.display().to_string())
        .key("access.tls.certificate", "good")
        .key("general.max_connections_per_client", "unlimited");
    let site = Site::start(setup);
    let checks: &[&str] = if skip::full() { &[] } else { &CHECKS };
    let trust = authority.file();
    for (door, address) in [(Door::Starttls, site.address()), (Door::Implicit, at_once)] {
        let Some(found) = testssl::look(address, door, (HOSTNAME, &trust), checks) else {
            return skip::note("TLS as testssl.sh sees it", testssl::ABSENT);
        };
        let is = |id: &str, words: &str| {
            found.iter().any(|one| one.id == id && one.words.contains(words))
        };
        assert!(is("TLS1_3", "offered") && is("TLS1_2", "offered"), "it saw no TLS: {found:?}");
        let bad: Vec<&Finding> = found.iter().filter(|one| one.is_bad()).collect();
        assert!(bad.is_empty(), "{door:?}: {bad:#?}");
    }
    assert!(!fs::read_to_string(site.home().join("log")).unwrap().contains("session-fault"));
}
