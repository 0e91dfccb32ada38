//! Addresses: what is accepted reads back as itself, and never holds what would end a line, a path or
//! a field.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailroot_common::address::{Domain, Host, LocalPart, Mailbox, ReversePath};
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|text: &str| {
    if let Ok(mailbox) = Mailbox::parse(text) {
        let written = mailbox.to_string();
        assert_eq!(Mailbox::parse(&written).as_ref(), Ok(&mailbox));
        assert!(!written.contains(['\r', '\n', '\0']));
        assert!(mailbox.local().as_str().len() <= 64);
        assert_eq!(written.parse().as_ref(), Ok(&mailbox));
        assert_eq!(stored(&mailbox), mailbox);
        assert_eq!(mailbox.is_ascii(), written.is_ascii());
        let again = Mailbox::new(mailbox.local().clone(), mailbox.host().clone());
        assert_eq!(again, mailbox);
        if let Some(domain) = mailbox.domain() {
            assert_eq!(Domain::parse(domain.as_str()).as_ref(), Ok(domain));
            assert!(
                domain.as_str().bytes().all(|o| o.is_ascii_graphic() && !o.is_ascii_uppercase())
            );
        }
    }
    if let Ok(path) = ReversePath::parse(text) {
        assert_eq!(ReversePath::parse(&path.to_string()).as_ref(), Ok(&path));
        assert_eq!(path.mailbox().is_none(), path.is_null());
        assert_eq!(stored(&path), path);
    }
    local_part(text);
    if let Ok(host) = Host::parse(text) {
        assert_eq!(Host::parse(&host.to_string()).as_ref(), Ok(&host));
        assert_eq!(host.domain().is_none(), text.starts_with('['));
    }
    if let Ok(domain) = Domain::parse(text) {
        assert_eq!(stored(&domain), domain);
        let parent = domain.as_str().split_once('.').map(|(_, parent)| Domain::parse(parent));
        if let Some(Ok(parent)) = parent {
            assert!(domain.is_below(&parent) && !parent.is_below(&domain));
        }
        assert!(!domain.is_below(&domain));
    }
});

/// What the store keeps of a value and reads again.
fn stored<T: Serialize + DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_string(value).expect("an address is text");
    serde_json::from_str(&text).expect("what was written is read")
}

/// Quotes and escapes are spelling: without them the same characters are meant.
fn local_part(text: &str) {
    let Ok(local) = LocalPart::parse(text) else { return };
    assert_eq!(local.as_str(), text);
    let meant = local.unquoted();
    let quoted = meant.replace('\\', "\\\\").replace('"', "\\\"");
    let again = LocalPart::parse(&format!("\"{quoted}\""));
    assert!(again.is_ok_and(|again| again.unquoted() == meant) || quoted.len() > 62);
}
