//! mailroot-metrics(5) and mailroot-control(7) against what the daemon says of itself.
//!
//! The lists of both pages are written with `MAILROOT_WRITE_MAN=1`, as those of the keys are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::Command;

use mailroot_tests::setup::{ServerFile, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{mdoc, program};
use serde_json::Value;

/// The page with what stands between two comments written anew.
fn compare(name: &str, what: &str, list: &str) {
    let file = program::repository().join("man").join(name);
    let page = fs::read_to_string(&file).unwrap();
    let (begin, end) = (format!(".\\\" {what}\n"), format!(".\\\" end of {what}\n"));
    let (head, rest) = page.split_once(&begin).unwrap();
    let (_, tail) = rest.split_once(&end).unwrap();
    let wanted = format!("{head}{begin}{list}{end}{tail}");
    if std::env::var_os("MAILROOT_WRITE_MAN").is_some() {
        fs::write(&file, &wanted).unwrap();
        return;
    }
    assert!(
        page == wanted,
        "man/{name} is out of date; write it anew with \
         MAILROOT_WRITE_MAN=1 cargo test -p mailroot-tests --test man_live"
    );
}

/// A value of a metric that depends on the site.
const NAMES: [&str; 3] = ["server", "name", "version"];

fn metric(metric: &Value) -> String {
    let text = |key: &str| metric[key].as_str().unwrap();
    let mut labels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let samples = metric["samples"].as_array().unwrap();
    for (label, value) in samples.iter().filter_map(|it| it["labels"].as_object()).flatten() {
        let values = labels.entry(label).or_default();
        let value = value.as_str().unwrap();
        if !values.contains(&value) && !NAMES.contains(&label.as_str()) {
            values.push(value);
        }
    }
    let mut out = format!(".It Li {}\n{}", text("name"), mdoc::prose(text("help")));
    let mut facts = format!("A {}", text("kind"));
    for (number, (label, values)) in labels.iter().enumerate() {
        facts.push_str(if number == 0 { " by " } else { " and " });
        facts.push_str(label);
        if !values.is_empty() {
            let _ = write!(facts, " ({})", values.join(", "));
        }
    }
    out.push_str(&mdoc::prose(&format!("{facts}.")));
    out
}

fn site() -> Site {
    let hosts = "{isp: {host: smtp.isp.test, tls: off}}";
    Site::start(Setup::new().service("smart_hosts", hosts).with(ServerFile::new("lan")))
}

/// What the control socket answers to GET.
fn asked(site: &Site, path: &str) -> Value {
    let mut curl = Command::new(program::find("curl").expect("curl is installed"));
    curl.args(["-sS", "--unix-socket"]).arg(site.home().join("run/control.sock"));
    let said = program::run(curl.arg(format!("http://localhost{path}")), b"").ok();
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{path}: {error} in {said}"))
}

#[test]
fn the_page_of_metrics_has_each_of_them() {
    let site = site();
    let all = asked(&site, "/v1/metrics");
    let list: String = all.as_array().unwrap().iter().map(metric).collect();
    assert!(list.contains("mailroot_smart_host_up"), "{list}");
    compare("mailroot-metrics.5", "metrics", &list);
}

#[test]
fn the_page_of_the_interface_has_each_endpoint() {
    let site = site();
    let document = asked(&site, "/v1/openapi.json");
    let mut rows = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let text = |key: &str| operation[key].as_str().unwrap();
            let told = format!("{} ({}).", text("summary"), text("x-role"));
            let item = format!(".It Li {} {path}\n{}", method.to_uppercase(), mdoc::prose(&told));
            rows.push((path.clone(), item));
        }
    }
    rows.sort();
    let list: String = rows.into_iter().map(|(_, item)| item).collect();
    compare("mailroot-control.7", "endpoints", &list);
}
