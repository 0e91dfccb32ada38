//! Debian's pyspf, which judges senders by the records that a test hands to it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::NamedTempFile;

use crate::program;

/// What is to be installed where it is missing.
pub const ABSENT: &str = "python3-spf is not installed";

const PYTHON: &str = "/usr/bin/python3";

/// Whether it is there.
#[must_use]
pub fn is_here() -> bool {
    Path::new(PYTHON).exists()
        && program::run(Command::new(PYTHON).args(["-c", "import spf"]), b"").code == 0
}

const PROGRAM: &str = "
import sys, json, spf
asked = json.load(open(sys.argv[1]))
zone = {}
for name, kind, value in asked['records']:
    if kind == 'TXT':
        value = [value.encode()]
    if kind == 'MX':
        preference, host = value.split(' ')
        value = (int(preference), host.rstrip('.'))
    if kind == 'PTR':
        value = value.rstrip('.')
    zone.setdefault((name, kind), []).append(value)
def look_up(name, kind, strict=True, timeout=20):
    return [((name, kind), value) for value in zone.get((name, kind), [])]
spf.DNSLookup = look_up
json.dump([spf.check2(i=client, s=sender, h=helo, timeout=10, querytime=0)[0]
           for client, sender, helo in asked['claims']], sys.stdout)
";

/// What these records (name, kind, value) say to each claim (client, sender, HELO).
///
/// # Panics
///
/// When Python does not answer.
#[must_use]
pub fn judge(
    records: &[(String, &str, String)],
    claims: &[(String, String, String)],
) -> Vec<String> {
    let mut asked = NamedTempFile::new().unwrap();
    let text = json!({"records": records, "claims": claims}).to_string();
    asked.write_all(text.as_bytes()).unwrap();
    let mut python = Command::new(PYTHON);
    let out = program::run(python.args(["-c", PROGRAM]).arg(asked.path()), b"").ok();
    serde_json::from_str(&out).unwrap()
}

/// What the records made at random lead to.
const HELPERS: &[(&str, &str, &str)] = &[
    ("us.h.test", "A", "203.0.113.1"),
    ("us.h.test", "AAAA", "2001:db8::7"),
    ("near.h.test", "A", "203.0.113.200"),
    ("far.h.test", "A", "198.51.100.1"),
    ("six.h.test", "AAAA", "2001:db8::1"),
    ("mail.h.test", "MX", "10 far.h.test."),
    ("mail.h.test", "MX", "20 us.h.test."),
    ("away.h.test", "MX", "10 far.h.test."),
    ("203.0.113.1.e.h.test", "A", "127.0.0.2"),
    ("1.113.0.203.in-addr.e.h.test", "A", "127.0.0.2"),
    ("pass.h.test", "TXT", "v=spf1 ip4:203.0.113.1 -all"),
    ("fail.h.test", "TXT", "v=spf1 -ip4:203.0.113.0/24 +all"),
    ("loop.h.test", "TXT", "v=spf1 include:loop.h.test -all"),
    ("bad.h.test", "TXT", "v=spf1 a:%{z}.h.test"),
    ("other.h.test", "TXT", "some other text"),
    ("two.h.test", "TXT", "v=spf1 -all"),
    ("two.h.test", "TXT", "v=spf1 +all"),
    ("deep.h.test", "TXT", "v=spf1 include:fail.h.test a:far.h.test redirect=pass.h.test"),
    ("1.113.0.203.in-addr.arpa", "PTR", "us.h.test."),
];

const TERMS: &[&str] = &[
    "a:us.h.test",
    "a:near.h.test",
    "a:near.h.test/24",
    "a:near.h.test/25",
    "a:far.h.test",
    "a:six.h.test",
    "a:none.h.test",
    "a",
    "mx",
    "mx:mail.h.test",
    "mx:away.h.test/1",
    "mx:none.h.test",
    "ip4:203.0.113.1",
    "ip4:203.0.113.0/30",
    "ip4:198.51.100.0/24",
    "ip6:::1",
    "ip6:2001:db8::/32",
    "include:pass.h.test",
    "include:fail.h.test",
    "include:loop.h.test",
    "include:bad.h.test",
    "include:other.h.test",
    "include:none.h.test",
    "include:two.h.test",
    "include:deep.h.test",
    "exists:%{i}.e.h.test",
    "exists:%{ir}.%{v}.e.h.test",
    "exists:%{l}.none.h.test",
    "ptr:h.test",
    "ptr:none.test",
    "exists:%{d1r}.h.test",
    "a:%{l}.h.test",
    "x-mod=%{s}",
    "all:x",
    "ip4:1.2.3",
    "a:us.h.test/33",
    "a:us",
    "mx//129",
    "moo",
];
/// How many of the terms, the last, break a record.
const BROKEN: usize = 7;

const ENDS: &[&str] = &[
    "-all",
    "~all",
    "?all",
    "+all",
    "",
    "redirect=pass.h.test",
    "redirect=fail.h.test",
    "redirect=none.h.test",
    "redirect=deep.h.test",
    "redirect=loop.h.test",
];

/// Domains `d0.test`, `d1.test` and so on, with records made at random out of what is easy to get wrong,
/// behind what they lead to: name, kind and value of each record.
#[must_use]
pub fn random_zone(count: usize) -> Vec<(String, &'static str, String)> {
    let helper = |&(name, kind, value): &(&str, &'static str, &str)| {
        (name.to_owned(), kind, value.to_owned())
    };
    let mut zone: Vec<_> = HELPERS.iter().map(helper).collect();
    let mut random = fastrand::Rng::with_seed(7208);
    for number in 0..count {
        let mut record = "v=spf1".to_owned();
        for _ in 0..random.usize(0..5) {
            // Terms that break the record are few, or nothing else would be seen.
            let most = if random.usize(0..12) == 0 { TERMS.len() } else { TERMS.len() - BROKEN };
            let term = TERMS[random.usize(0..most)];
            let mark =
                if term.contains('=') { "" } else { ["", "-", "~", "?", "+"][random.usize(0..5)] };
            let _infallible = write!(record, " {mark}{term}");
        }
        let _infallible = write!(record, " {}", ENDS[random.usize(0..ENDS.len())]);
        zone.push((format!("d{number}.test"), "TXT", record.trim_end().to_owned()));
    }
    zone
}
