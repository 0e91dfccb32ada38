//! Configuration texts: both files are read in bounded time, and every error has a place within
//! the text, a title and words that a terminal can bear.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use mailroot_common::config::ServerName;
use mailroot_common::config::diagnostic::{Diagnostic, Severity, render_all};
use mailroot_common::config::parse_server;
use mailroot_common::config::parse_service;

fuzz_target!(|text: &str| -> Corpus {
    // The limit of the daemon is far above; beyond a few KiB only time is lost here.
    if text.len() > 16 * 1024 {
        return Corpus::Reject;
    }
    match parse_service(text, "mailroot.yaml") {
        Ok((config, warnings)) => {
            check(&warnings, text, Severity::Warning);
            assert!(!config.effective().is_empty());
        }
        Err(errors) => check_errors(&errors, text),
    }
    let name = ServerName::parse("default").expect("a name");
    match parse_server(&name, text, "default.yaml") {
        Ok((config, warnings)) => {
            check(&warnings, text, Severity::Warning);
            assert!(!config.effective().is_empty());
        }
        Err(errors) => check_errors(&errors, text),
    }
    Corpus::Keep
});

fn check_errors(found: &[Diagnostic], text: &str) {
    assert!(found.iter().any(|one| one.severity == Severity::Error), "refused without a reason");
    check(found, text, Severity::Error);
}

fn check(found: &[Diagnostic], text: &str, worst: Severity) {
    let lines = text.split('\n').count();
    assert!(found.len() <= 202, "the number of errors and warnings is bounded");
    let mut octets = 0;
    for one in found {
        // The last of very many says how many more there are.
        if one.code.ends_with("0199") {
            assert!(found.len() > 100 && one.labels.is_empty());
            continue;
        }
        assert!(worst == Severity::Error || one.severity == worst);
        let place = one.place().expect("every error has a place");
        assert!((1..=lines).contains(&place.line), "{place}");
        assert!(place.column >= 1 && !one.title.is_empty() && !one.code.is_empty());
        for label in &one.labels {
            assert!(text.get(label.span.clone()).is_some(), "{one:?}");
        }
        let shown = one.to_string();
        let data = serde_json::to_value(one).expect("a diagnostic is data");
        assert_eq!(data["place"]["line"], place.line);
        assert!(place.to_string().contains(".yaml:"));
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        octets += shown.len();
    }
    assert!(render_all(found).len() >= octets);
    // Each error shows a few lines of the text, and no line endlessly.
    assert!(octets <= (found.len() + 1) * (4096 + 8 * text.len()), "{octets}");
}
