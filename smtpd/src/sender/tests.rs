//! Messages are judged with real keys, by a made-up DNS, within bounds.

use std::sync::atomic::{AtomicU32, Ordering};

use mailroot_common::address::{Domain, ReversePath};
use smtpd_core::sender::Examination;
use smtpd_core::sender::book::Found;
use smtpd_core::sender::dkim::DkimResult;
use smtpd_core::sender::dmarc::{DmarcResult, Wish};
use smtpd_core::sender::spf::SpfResult;

use super::*;
use crate::resolve::SimulatedDns;

/// The message of RFC 8463 appendix A.3 with its two signatures.
const HEADER: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n \
    d=football.example.com; i=@football.example.com;\r\n \
    q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n \
    subject : date : message-id : from : subject : date;\r\n \
    bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n \
    b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n \
    Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n\
    DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n \
    d=football.example.com; i=@football.example.com;\r\n \
    q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n \
    date : message-id : from : subject : date;\r\n \
    bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n \
    b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n \
    DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n \
    dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\n\
    From: Joe SixPack <joe@football.example.com>\r\n\
    To: Suzie Q <suzie@shopping.example.net>\r\n\
    Subject: Is dinner ready?\r\n\
    Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
    Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\n";
const BODY: &str = "Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";
const ED25519: &str = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const RSA: &str = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08\
    a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5\
    QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";

fn name(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn checks(dns: &SimulatedDns) -> Checks {
    let wanted = Wanted { spf: true, dkim: true, dmarc: true, arc: true, ..Wanted::default() };
    let patience = Duration::from_secs(5);
    let (host, trusted) = ("mx.test".into(), Arc::default());
    Checks { wanted, host, trusted, patience, resolver: Resolver::Simulated(dns.clone()) }
}

async fn judged(dns: &SimulatedDns, header: &str, body: &str) -> Findings {
    let checks = checks(dns);
    let mut examination = Examination::begin(header.as_bytes(), checks.wanted);
    body.as_bytes().chunks(7).for_each(|piece| examination.push(piece));
    let sender = ReversePath::parse("joe@football.example.com").unwrap();
    let identity = Identity::new([192, 0, 2, 1].into(), "mail.football.example.com", &sender);
    let now = Timestamp::from_millis(1_763_648_550_000);
    checks.judge(&examination.finish(), &identity, None, now).await
}

fn dns() -> SimulatedDns {
    let dns = SimulatedDns::default();
    dns.add_text(&name("brisbane._domainkey.football.example.com"), ED25519);
    dns.add_text(&name("test._domainkey.football.example.com"), RSA);
    dns.add_text(&name("_dmarc.football.example.com"), "v=DMARC1; p=reject");
    dns
}

fn results(found: &Findings) -> Vec<DkimResult> {
    found.dkim.iter().map(|one| one.result).collect()
}

#[tokio::test]
async fn the_example_of_the_standard_holds_with_both_keys_and_breaks_when_it_is_changed() {
    let dns = dns();
    let found = judged(&dns, HEADER, BODY).await;
    assert_eq!(results(&found), [DkimResult::Pass, DkimResult::Pass]);
    assert_eq!(found.dmarc.unwrap().result, DmarcResult::Pass);
    assert_eq!(found.spf.unwrap().result, SpfResult::None);

    let blanks = BODY.to_owned() + " \t \r\n\r\n";
    assert_eq!(results(&judged(&dns, HEADER, &blanks).await), [DkimResult::Pass; 2]);
    let longer = BODY.to_owned() + "x\r\n";
    let found = judged(&dns, HEADER, &longer).await;
    assert_eq!(results(&found), [DkimResult::Fail, DkimResult::Fail]);
    assert_eq!(found.dmarc.unwrap().result, DmarcResult::Fail);
    let other = HEADER.replace("Is dinner", "Is lunch");
    assert_eq!(results(&judged(&dns, &other, BODY).await), [DkimResult::Fail; 2]);
    let two = "From: eve@evil.example\r\n".to_owned() + HEADER;
    assert_eq!(results(&judged(&dns, &two, BODY).await), [DkimResult::Fail; 2]);
}

#[tokio::test]
async fn keys_that_are_missing_or_unknown_or_for_something_else_are_told_apart() {
    let dns = SimulatedDns::default();
    let key = name("test._domainkey.football.example.com");
    dns.add_text(&key, "v=DKIM1; p=");
    let found = judged(&dns, HEADER, BODY).await;
    assert_eq!(results(&found), [DkimResult::PermError, DkimResult::PermError]);
    assert_eq!(
        (found.dkim[0].reason, found.dkim[1].reason),
        ("there is no key", "the key was revoked")
    );
    dns.set_out_of_order(&key, true);
    dns.add_text(&name("brisbane._domainkey.football.example.com"), RSA);
    let found = judged(&dns, HEADER, BODY).await;
    assert_eq!(results(&found), [DkimResult::PermError, DkimResult::TempError]);
}

/// What comes of the policy's text, asked of this resolver with this patience and so many questions.
async fn asked(left: u32, patience: Duration) -> Vec<Result<Vec<String>, Nothing>> {
    let resolver = Resolver::Simulated(dns());
    let left = Arc::new(Allowance::of(left));
    let look_up = |question: Question| {
        let (resolver, left) = (resolver.clone(), Arc::clone(&left));
        async move { resolver.look_up(&question, &left).await }
    };
    let names = ["_dmarc.football.example.com", "test._domainkey.football.example.com"];
    let judge = |book: &mut Book| {
        let first = book.texts(names[0])?;
        Some(vec![first, book.texts(names[1])?])
    };
    settle_by(look_up, Instant::now() + patience, judge).await
}

#[tokio::test]
async fn one_message_asks_so_many_questions_and_no_more() {
    let second = Duration::from_secs(5);
    assert!(asked(2, second).await.iter().all(Result::is_ok));
    let one = asked(1, second).await;
    assert!(one[0].is_ok() && one[1] == Err(Nothing::Unknown));
    assert_eq!(asked(2, Duration::ZERO).await, [Err(Nothing::Unknown), Err(Nothing::Unknown)]);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_hangs_holds_up_no_other() {
    let look_up = |question: Question| async move {
        match question {
            Question::Texts(name) if name == "hangs.example" => std::future::pending().await,
            Question::Texts(name) if name == "breaks.example" => panic!("{name}"),
            Question::Texts(name) => Ok(Found::Texts(vec![name])),
            _ => Err(Nothing::Absent),
        }
    };
    let judge = |book: &mut Book| {
        let (hangs, breaks) = (book.texts("hangs.example"), book.texts("breaks.example"));
        let last = (0..5).try_fold(None, |_, step| {
            book.texts(&format!("{step}.example")).map(|found| found.ok())
        });
        Some((hangs?, breaks?, last?))
    };
    let (hangs, breaks, last) =
        settle_by(look_up, Instant::now() + Duration::from_secs(5), judge).await;
    assert_eq!((hangs, breaks), (Err(Nothing::Unknown), Err(Nothing::Unknown)));
    assert_eq!(last, Some(vec!["4.example".to_owned()]));
}

/// What DNS says of a domain that wants mail of names that are none refused, and of a stranger's domain
/// whose record leads on and on.
fn answer(question: &Question) -> Answer {
    let Question::Texts(name) = question else { return Err(Nothing::Absent) };
    let text = match (name.as_str(), name.strip_suffix(".evil.example")) {
        ("_dmarc.a.example", _) => "v=DMARC1; p=none; np=reject".to_owned(),
        ("evil.example", _) => "v=spf1 include:1.evil.example -all".to_owned(),
        (_, Some(step)) if step.parse::<u32>().is_ok_and(|step| step < 9) => {
            let next = step.parse::<u32>().unwrap_or_default() + 1;
            format!("v=spf1 include:{next}.evil.example -all")
        }
        _ => return Err(Nothing::Absent),
    };
    Ok(Found::Texts(vec![text]))
}

/// What is to be done with the stranger's mail that says it is of a name that is none.
async fn wish_for_a_name_that_is_none<F: Future<Output = Answer> + Send + 'static>(
    look_up: impl Fn(Question) -> F,
) -> Wish {
    let wanted = Wanted { dmarc: true, ..Wanted::default() };
    let examined = Examination::begin(b"From: a@nowhere.a.example\r\n\r\n", wanted).finish();
    let sender = ReversePath::parse("eve@evil.example").unwrap();
    let identity = Identity::new([192, 0, 2, 1].into(), "mail.evil.example", &sender);
    let now = Timestamp::from_millis(1_763_648_550_000);
    let judge = |book: &mut Book| examined.judge(book, (&identity, None), now, &verify);
    let found = settle_by(look_up, Instant::now() + Duration::from_secs(5), judge).await;
    let dmarc = found.dmarc.unwrap();
    assert_eq!(dmarc.result, DmarcResult::Fail);
    dmarc.wish
}

#[tokio::test(start_paused = true)]
async fn no_records_of_a_stranger_hide_that_a_name_is_none() {
    let slow = |question: Question| async move {
        match question {
            Question::Texts(name) if name == "evil.example" => std::future::pending().await,
            _ => answer(&question),
        }
    };
    assert_eq!(wish_for_a_name_that_is_none(slow).await, Wish::Reject);
    // His records would ask for more than there may be asked.
    let asked = Arc::new(AtomicU32::new(0));
    let bounded = |question: Question| {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        std::future::ready(if number < 10 { answer(&question) } else { Err(Nothing::Unknown) })
    };
    assert_eq!(wish_for_a_name_that_is_none(bounded).await, Wish::Reject);
    assert!(asked.load(Ordering::Relaxed) > 10);
}
