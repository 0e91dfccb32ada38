//! What is found is told in a field, and refuses what it may refuse.

use super::report::without_results;
use super::spf::tests::Zone;
use super::*;
use crate::message::header;
use crate::sender::dkim::Verified;

const ALL: Wanted =
    Wanted { spf: true, dkim: true, dmarc: true, arc: true, refuse_spf: true, refuse_dmarc: true };

fn identity(sender: &str) -> Identity {
    let sender = ReversePath::parse(sender).unwrap();
    Identity::new([192, 0, 2, 1].into(), "mail.a.example", &sender)
}

/// A message with signatures that are of the right form and of nobody.
fn header_with(signatures: usize) -> String {
    let signature =
        "DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=x; h=from; bh=AQID; b=AQ/D\"(\r\n";
    signature.replace("\"(", "").repeat(signatures) + "From: joe@a.example\r\n\r\n"
}

fn found(zone: &[&str], header: &str, sender: &str, wanted: Wanted) -> (Findings, String) {
    let mut examination = Examination::begin(header.as_bytes(), wanted);
    examination.push(b"text\r\n");
    let identity = identity(sender);
    let room = examination.room(&identity, "mx.test");
    let examined = examination.finish();
    let verify = |_: &dkim::Key, _: &[u8; 32], _: &[u8]| Verified::Differs;
    let now = Timestamp::from_millis(0);
    let (found, _) =
        Zone::new(zone).settle(|book| examined.judge(book, (&identity, None), now, &verify));
    let mut kept = Vec::new();
    found.write("mx.test", Some(room), &mut kept);
    assert_eq!(kept.len(), room, "{found:?}");
    assert_eq!(header::fields(&kept).count(), 1);
    assert!(kept.split(|&octet| octet == b'\n').all(|line| line.len() <= 998));
    let mut field = Vec::new();
    found.write("mx.test", None, &mut field);
    (found, String::from_utf8(field).unwrap())
}

#[test]
fn findings_are_told_one_to_a_line() {
    let zone = ["a.example TXT v=spf1 ip4:192.0.2.1 -all", "_dmarc.a.example TXT v=DMARC1; p=none"];
    let (found, field) = found(&zone, &header_with(1), "joe@a.example", ALL);
    assert_eq!(
        field,
        "Authentication-Results: mx.test;\r\n\
         \tspf=pass smtp.mailfrom=a.example;\r\n\
         \tdkim=fail reason=\"the body does not agree with the signature\" header.d=a.example \
         header.s=x header.b=\"AQ/D\";\r\n\
         \tdmarc=pass (p=none) header.from=a.example;\r\n\
         \tarc=none\r\n"
    );
    assert_eq!(found.summary(), "spf=pass dkim=fail(a.example) dmarc=pass arc=none");
}

#[test]
fn a_report_has_no_sender_but_the_name_of_its_client() {
    let zone = ["mail.a.example TXT v=spf1 ip4:192.0.2.1 -all"];
    let wanted = Wanted { spf: true, ..Wanted::default() };
    let (_, field) = found(&zone, "From: joe@a.example\r\n\r\n", "", wanted);
    assert_eq!(
        field,
        "Authentication-Results: mx.test;\r\n\tspf=pass smtp.helo=mail.a.example\r\n"
    );
    let zone = ["_dmarc.a.example TXT v=DMARC1; p=reject", zone[0]];
    let wanted = Wanted { dmarc: true, ..Wanted::default() };
    let (it, field) = found(&zone, "From: joe@a.example\r\n\r\n", "", wanted);
    assert_eq!(it.dmarc.unwrap().result, DmarcResult::Pass, "{field}");
    assert!(field.contains("dkim=none;"), "{field}");
}

#[test]
fn only_the_first_signatures_are_looked_at() {
    let wanted = Wanted { dkim: true, ..Wanted::default() };
    let (few, _) = found(&[], &header_with(SIGNATURES_MAX), "joe@a.example", wanted);
    assert!(!few.more_signatures);
    let (many, field) = found(&[], &header_with(5000), "joe@a.example", wanted);
    assert_eq!((many.dkim.len(), many.more_signatures), (SIGNATURES_MAX, true));
    assert!(field.ends_with("(more were not looked at)\r\n"), "{field}");
}

#[test]
fn mail_is_refused_only_where_that_was_asked_for_and_the_domain_wants_it() {
    let admit = |zone: &[&str], wanted| {
        found(zone, &header_with(0), "joe@a.example", wanted).0.admit(&wanted)
    };
    let spf = ["a.example TXT v=spf1 -all"];
    let dmarc = ["_dmarc.a.example TXT v=DMARC1; p=reject"];
    let mild = ["_dmarc.a.example TXT v=DMARC1; p=quarantine"];
    let marked = Wanted { refuse_spf: false, refuse_dmarc: false, ..ALL };
    assert_eq!(admit(&spf, ALL), Err(Refusal::SpfFailed));
    assert_eq!(admit(&dmarc, ALL), Err(Refusal::DmarcFailed));
    for (zone, wanted) in [
        (&spf, marked),
        (&dmarc, marked),
        (&mild, ALL),
        (&["a.example TXT v=spf1 ~all"], ALL),
        (&["a.example TXT !"], ALL),
        (&["_dmarc.a.example TXT !"], ALL),
    ] {
        assert_eq!(admit(zone, wanted), Ok(()), "{zone:?}");
    }
}

#[test]
fn mail_without_an_author_who_can_be_read_is_refused_where_dmarc_refuses() {
    let many = (0..5).map(|number| format!("x@a{number}.example")).collect::<Vec<_>>().join(", ");
    let many = format!("From: {many}\r\n\r\n");
    let refuse = Wanted { dmarc: true, refuse_dmarc: true, ..Wanted::default() };
    for header in [
        "From: joe@a.example <\r\n\r\n",
        "From: \"joe@a.example\r\n\r\n",
        "From: joe\r\n\r\n",
        "From: all:;\r\n\r\n",
        "From:\r\n\r\n",
        "From: joe@b.example\r\nFrom: joe@a.example <\r\n\r\n",
        "Subject: x\r\n\r\n",
        "Subject: x\r\njunk\r\nFrom: joe@b.example\r\n\r\n",
        "",
        &many,
    ] {
        let (it, _) = found(&[], header, "joe@b.example", refuse);
        assert_eq!(it.admit(&refuse), Err(Refusal::AuthorUnreadable), "{header}");
        let mark = Wanted { refuse_dmarc: false, ..refuse };
        let (it, field) = found(&[], header, "joe@b.example", mark);
        assert_eq!(it.admit(&mark), Ok(()));
        assert!(field.contains("dmarc=permerror"), "{field}");
    }
    let (it, _) = found(&[], "From: Joe <joe@b.example>\r\n\r\n", "joe@b.example", refuse);
    assert_eq!(it.admit(&refuse), Ok(()));
}

#[test]
fn nobodys_address_is_on_no_list_and_not_refused_for_that() {
    let sender = ReversePath::parse("joe@a.example").unwrap();
    for client in ["0.0.0.0", "::"] {
        let identity = Identity::new(client.parse().unwrap(), "mail.a.example", &sender);
        let zone = Zone::new(&["a.example TXT v=spf1 -all"]);
        let (found, asked) = zone.settle(|book| identity.judge(book));
        assert_eq!((found.result, found.admit(&ALL), asked), (SpfResult::None, Ok(()), 0));
    }
}

#[test]
fn results_that_bear_our_name_are_taken_out() {
    for (value, ours) in [
        ("mx.test; spf=pass", true),
        (" MX.TEST 1; none", true),
        ("\r\n\t(a \\) comment (nested)) mx.test(x); none", true),
        ("\"mx.te\\st\"; none", true),
        ("mx.test.; none", true),
        ("mx.test", true),
        ("mx.test.example; none", false),
        ("other.test; x=mx.test", false),
        ("(mx.test) other.test; none", false),
        ("", false),
        ("(((", false),
    ] {
        let text = format!("Authentication-Results:{value}\r\nFrom: a@b\r\n\r\n");
        let kept = without_results(text.as_bytes(), "mx.test");
        assert_eq!(kept.starts_with(b"From"), ours, "{value:?}");
        assert!(kept.ends_with(b"From: a@b\r\n\r\n"));
    }
}

#[test]
fn nothing_of_a_stranger_breaks_the_field() {
    let header = "DKIM-Signature: v=1; a=rsa-sha256; d=a.example;\r\n s=x_y; h=from; bh=AQID; b=a\"(\r\n \r\n\
        DKIM-Signature: nonsense;;\r\n\tspf=pass\r\nFrom: joe@a.example\r\n\r\n";
    let (found, field) = found(&[], header, "joe@a.example", ALL);
    assert_eq!(found.dkim.len(), 2);
    assert!(
        field.contains("dkim=neutral reason=\"the signature cannot be read\" header.d=a.example")
    );
    assert_eq!(field.matches('(').count(), field.matches(')').count());
    assert_eq!(field.matches('"').count() % 2, 0, "{field}");
}
