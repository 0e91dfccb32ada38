//! Addresses: what is accepted reads back as itself, and never holds what would end a line, a path or
//! a field.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailroot_common::address::{Domain, Mailbox, ReversePath};

fuzz_target!(|text: &str| {
    if let Ok(mailbox) = Mailbox::parse(text) {
        let written = mailbox.to_string();
        assert_eq!(Mailbox::parse(&written).as_ref(), Ok(&mailbox));
        assert!(!written.contains(['\r', '\n', '\0']));
        assert!(mailbox.local().as_str().len() <= 64);
        if let Some(domain) = mailbox.domain() {
            assert_eq!(Domain::parse(domain.as_str()).as_ref(), Ok(domain));
            assert!(domain.as_str().bytes().all(|o| o.is_ascii_graphic() && !o.is_ascii_uppercase()));
        }
    }
    if let Ok(path) = ReversePath::parse(text) {
        assert_eq!(ReversePath::parse(&path.to_string()), Ok(path));
    }
});
