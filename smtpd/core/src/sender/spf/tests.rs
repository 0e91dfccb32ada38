//! Claims are judged as RFC 7208 has it, within its limits.

use std::collections::HashMap;

use super::super::book::{Answer, Found, Question};
use super::*;

/// A made-up DNS: lines of `name TYPE value`; a value `!` cannot be told.
pub(crate) struct Zone(HashMap<Question, Answer>);

impl Zone {
    pub(crate) fn new(lines: &[&str]) -> Self {
        let mut found: HashMap<Question, Answer> = HashMap::new();
        for line in lines {
            let mut words = line.splitn(3, ' ');
            let (name, kind, value) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            let question = match kind {
                "TXT" => Question::Texts(name.to_owned()),
                "A" => Question::Addresses { name: name.to_owned(), v4: true },
                "AAAA" => Question::Addresses { name: name.to_owned(), v4: false },
                "MX" => Question::Hosts(name.to_owned()),
                "PTR" => Question::Names(name.parse().unwrap()),
                _ => panic!("{line}"),
            };
            if value == "!" {
                found.insert(question, Err(Nothing::Unknown));
                continue;
            }
            let one = match kind {
                "TXT" => Found::Texts(vec![value.to_owned()]),
                "A" | "AAAA" => Found::Addresses(vec![value.parse().unwrap()]),
                _ => Found::Names(vec![value.to_owned()]),
            };
            match (found.get_mut(&question), one) {
                (Some(Ok(Found::Texts(all))), Found::Texts(one)) => all.extend(one),
                (Some(Ok(Found::Addresses(all))), Found::Addresses(one)) => all.extend(one),
                (Some(Ok(Found::Names(all))), Found::Names(one)) => all.extend(one),
                (_, one) => drop(found.insert(question, Ok(one))),
            }
        }
        Self(found)
    }

    /// What a judge says once everything that it wants was answered, and how much that was.
    pub(crate) fn settle<T>(&self, mut judge: impl FnMut(&mut Book) -> Option<T>) -> (T, usize) {
        let (mut book, mut asked) = (Book::default(), 0);
        loop {
            if let Some(said) = judge(&mut book) {
                return (said, asked);
            }
            let wanted = book.take_wanted();
            assert!(!wanted.is_empty(), "it waits for nothing");
            asked += wanted.len();
            assert!(asked < 1000, "it asks without end");
            for question in wanted {
                let answer = self.0.get(&question).cloned().unwrap_or(Err(Nothing::Absent));
                book.enter(question, answer);
            }
        }
    }
}

fn judged(zone: &[&str], client: &str) -> (SpfResult, usize) {
    let claim = Claim {
        client: client.parse().unwrap(),
        helo: "mail.a.example",
        domain: "a.example",
        local: "joe",
    };
    Zone::new(zone).settle(|book| check(book, claim))
}

#[track_caller]
fn says(zone: &[&str], client: &str, expected: SpfResult) {
    assert_eq!(judged(zone, client).0, expected, "{zone:?} {client}");
}

const ONE: &str = "192.0.2.1";

#[test]
fn a_domain_without_one_good_record_says_nothing_or_is_at_fault() {
    says(&[], ONE, SpfResult::None);
    says(&["a.example TXT hello"], ONE, SpfResult::None);
    says(&["a.example TXT !"], ONE, SpfResult::TempError);
    says(&["a.example TXT v=spf1"], ONE, SpfResult::Neutral);
    says(&["a.example TXT v=spf1 -all", "a.example TXT v=spf1 -all"], ONE, SpfResult::PermError);
    says(&["a.example TXT v=spf1 ip4:192.0.2.1 moo"], ONE, SpfResult::PermError);
    let claim = Claim { client: ONE.parse().unwrap(), helo: "x", domain: "example", local: "a" };
    let zone = Zone::new(&["example TXT v=spf1 +all"]);
    assert_eq!(zone.settle(|book| check(book, claim)), (SpfResult::None, 0));
}

#[test]
fn the_first_match_decides() {
    let zone = ["a.example TXT v=spf1 ip4:192.0.2.0/28 ?ip6:2001:db8::/32 ~ip4:192.0.2.16 -all"];
    says(&zone, ONE, SpfResult::Pass);
    says(&zone, "::ffff:192.0.2.1", SpfResult::Pass);
    says(&zone, "192.0.2.16", SpfResult::SoftFail);
    says(&zone, "2001:db8::1", SpfResult::Neutral);
    says(&zone, "198.51.100.1", SpfResult::Fail);
}

#[test]
fn names_and_mail_hosts_are_compared_by_their_bits() {
    let zone = [
        "a.example TXT v=spf1 a/24 a:b.example//64 mx -all",
        "a.example A 192.0.2.200",
        "b.example AAAA 2001:db8::1",
        "b.example A 198.51.100.7",
        "a.example MX m1.example",
        "a.example MX m2.example",
        "m2.example A 203.0.113.9",
    ];
    says(&zone, ONE, SpfResult::Pass);
    says(&zone, "198.51.100.7", SpfResult::Pass);
    says(&zone, "198.51.100.8", SpfResult::Fail);
    says(&zone, "203.0.113.9", SpfResult::Pass);
    says(&["a.example TXT v=spf1 a -all", "a.example A !"], ONE, SpfResult::TempError);
    says(&["a.example TXT v=spf1 mx -all", "a.example MX !"], ONE, SpfResult::TempError);
}

#[test]
fn others_records_are_included_and_followed() {
    let with = |other: &str, client: &str| {
        let zone =
            ["a.example TXT v=spf1 include:b.example -all", &format!("b.example TXT {other}")];
        judged(&zone, client).0
    };
    assert_eq!(with("v=spf1 ip4:192.0.2.1 -all", ONE), SpfResult::Pass);
    assert_eq!(with("v=spf1 -ip4:192.0.2.1 +all", ONE), SpfResult::Fail);
    assert_eq!(with("hello", ONE), SpfResult::PermError);
    assert_eq!(with("!", ONE), SpfResult::TempError);
    assert_eq!(with("v=spf1 moo", ONE), SpfResult::PermError);
    says(&["a.example TXT v=spf1 redirect=b.example"], ONE, SpfResult::PermError);
    let zone = [
        "a.example TXT v=spf1 redirect=b.example",
        "b.example TXT v=spf1 a",
        "b.example A 192.0.2.1",
    ];
    says(&zone, ONE, SpfResult::Pass);
}

#[test]
fn macros_and_names_of_the_client_are_filled_in() {
    let zone = [
        "a.example TXT v=spf1 exists:%{ir}.%{l}.%{h}.%{d} ptr:c.example -all",
        "1.2.0.192.joe.mail.a.example.a.example A 127.0.0.2",
        "192.0.2.2 PTR x.c.example",
        "x.c.example A 192.0.2.2",
        "192.0.2.3 PTR y.c.example",
        "192.0.2.4 PTR notc.example",
        "notc.example A 192.0.2.4",
    ];
    says(&zone, ONE, SpfResult::Pass);
    says(&zone, "192.0.2.2", SpfResult::Pass);
    says(&zone, "192.0.2.3", SpfResult::Fail);
    says(&zone, "192.0.2.4", SpfResult::Fail);
    let zone = [
        "a.example TXT v=spf1 exists:%{p}.p.example exists:%{i}.%{v}.i.example -all",
        "unknown.p.example A 127.0.0.2",
    ];
    says(&zone, ONE, SpfResult::Pass);
    let six =
        "2.0.0.1.0.d.b.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.ip6.i.example A 127.0.0.2";
    let zone = ["a.example TXT v=spf1 exists:%{i}.%{v}.i.example -all", six];
    says(&zone, "2001:db8::1", SpfResult::Pass);
}

#[test]
fn ten_terms_may_ask_and_two_questions_may_find_nothing() {
    let many = |count: usize| {
        let terms: Vec<String> = (0..count).map(|number| format!("a:h{number}.example")).collect();
        let mut zone = vec![format!("a.example TXT v=spf1 {} ip4:192.0.2.1", terms.join(" "))];
        zone.extend((0..count).map(|number| format!("h{number}.example A 198.51.100.1")));
        let zone: Vec<&str> = zone.iter().map(String::as_str).collect();
        judged(&zone, ONE).0
    };
    assert_eq!((many(10), many(11)), (SpfResult::Pass, SpfResult::PermError));
    let voids = |count: usize| {
        let terms: Vec<String> = (0..count).map(|number| format!("a:h{number}.example")).collect();
        judged(&[&format!("a.example TXT v=spf1 {} +all", terms.join(" "))], ONE).0
    };
    assert_eq!((voids(2), voids(3)), (SpfResult::Pass, SpfResult::PermError));
    says(&["a.example TXT v=spf1 include:a.example"], ONE, SpfResult::PermError);
    says(&["a.example TXT v=spf1 redirect=a.example"], ONE, SpfResult::PermError);
}

#[test]
fn no_record_asks_without_end() {
    let terms: Vec<String> = (0..20).map(|number| format!("mx:m{number}.example")).collect();
    let mut zone = vec![format!("a.example TXT v=spf1 {} -all", terms.join(" "))];
    for number in 0..20 {
        zone.extend((0..10).map(|host| format!("m{number}.example MX h{host}.m{number}.example")));
        zone.extend((0..10).map(|host| format!("h{host}.m{number}.example A 198.51.100.1")));
    }
    let zone: Vec<&str> = zone.iter().map(String::as_str).collect();
    let (said, asked) = judged(&zone, ONE);
    assert_eq!(said, SpfResult::PermError);
    assert!(asked <= 1 + 10 * 11, "{asked} questions");
    let mut zone = vec!["a.example TXT v=spf1 mx -all".to_owned()];
    zone.extend((0..11).map(|host| format!("a.example MX h{host}.example")));
    let zone: Vec<&str> = zone.iter().map(String::as_str).collect();
    assert_eq!(judged(&zone, ONE), (SpfResult::PermError, 2));
}
