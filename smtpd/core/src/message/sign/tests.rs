//! Fields are covered and written as RFC 6376 has it.

use proptest::prelude::*;

use super::*;

/// The message of RFC 8463 appendix A.3, without its signatures.
const MESSAGE: &[u8] = b"From: Joe SixPack <joe@football.example.com>\r\n\
    To: Suzie Q <suzie@shopping.example.net>\r\n\
    Subject: Is dinner ready?\r\n\
    Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
    Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\nHi.\r\n";

fn names(text: &str) -> Vec<FieldName> {
    text.split_whitespace().map(|name| FieldName::parse(name).unwrap()).collect()
}

fn covered(header: &[u8], wanted: &str) -> (String, String) {
    let covered = Covered::of(header, &names(wanted));
    (covered.names.join(":"), String::from_utf8(covered.canonical).unwrap())
}

#[test]
fn fields_are_covered_from_the_last_up_and_from_once_more() {
    let header = b"Subject: one\r\nFROM : a\r\n\t <a@b.example> \t\r\nsubject:two \r\nX: y\r\n\r\n";
    let (names, canonical) = covered(header, "Subject Date from subject");
    assert_eq!(names, "From:From:Subject:Subject");
    assert_eq!(canonical, "from:a <a@b.example>\r\nsubject:two\r\nsubject:one\r\n");
    assert_eq!(covered(b"X: y\r\n\r\n", "X"), ("From:X".to_owned(), "x:y\r\n".to_owned()));
}

#[test]
fn the_author_is_who_stands_in_from_and_else_the_sender() {
    let sender = ReversePath::parse("x@envelope.example").unwrap();
    for (header, expected) in [
        ("From: A <a@One.example>, b@two.example\r\n\r\n", Some("one.example")),
        ("from:\r\n (c) a@one.example\r\n\r\n", Some("one.example")),
        ("Subject: x\r\n\r\n", Some("envelope.example")),
        ("From: nobody\r\n\r\n", Some("envelope.example")),
        ("From: a@[192.0.2.1]\r\n\r\n", None),
        ("no header\r\n", None),
    ] {
        let found = author_domain(header.as_bytes(), &sender);
        assert_eq!(found.as_ref().map(Domain::as_str), expected, "{header:?}");
    }
    assert_eq!(author_domain(b"Subject: x\r\n\r\n", &ReversePath::Null), None);
}

#[test]
fn the_field_says_what_was_signed_in_lines_of_bounded_length() {
    let domain = Domain::parse("football.example.com").unwrap();
    let selector = Selector::parse("brisbane").unwrap();
    let at = Timestamp::from_millis(1_528_637_909_123);
    let signer =
        Signer { domain: &domain, selector: &selector, algorithm: Algorithm::Ed25519Sha256, at };
    let covered = Covered::of(MESSAGE, &names("From Subject Date To Message-ID"));
    let draft = Draft::new(&signer, &covered, &[0; 32]);
    let signed = String::from_utf8(draft.to_be_signed(&covered)).unwrap();
    assert!(signed.starts_with("from:Joe SixPack <joe@football.example.com>\r\nsubject:Is dinner"));
    let last = signed.lines().last().unwrap();
    assert_eq!(
        last,
        "dkim-signature:v=1; a=ed25519-sha256; c=relaxed/simple; d=football.example.com; \
         s=brisbane; t=1528637909; h=From:From:Subject:Date:To:Message-ID; \
         bh=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=; b="
    );
    assert!(!signed.ends_with("\r\n"));
    let field = String::from_utf8(draft.finish(&[7; 512])).unwrap();
    assert!(field.ends_with("\r\n") && !field.contains("l="));
    assert!(field.lines().all(|line| line.len() <= 78), "{field}");
    assert_eq!(fields(field.as_bytes()).count(), 1);
}

#[test]
fn records_are_compared_by_their_keys() {
    let record = record_text(Algorithm::Ed25519Sha256, &[1; 32]);
    assert!(record.starts_with("v=DKIM1; k=ed25519; p=AQEB"));
    let key = record.rsplit('=').nth(1).unwrap();
    for (other, same) in [
        (record.clone(), true),
        (format!("p={key} = ;k=ed25519"), true),
        (format!("v=DKIM1; p={key}="), false),
        ("v=DKIM1; k=ed25519; p=".to_owned(), false),
        ("v=spf1 -all".to_owned(), false),
    ] {
        assert_eq!(is_same_key(&record, &other), same, "{other}");
    }
    assert!(!is_same_key("p=", "p="), "a key that was revoked is none");
}

/// The rule as the standard words it (section 3.4.2), step by step.
fn slow_relaxed(name: &str, value: &str) -> String {
    let unfolded = value.replace("\r\n", "");
    let mut reduced = unfolded.replace('\t', " ");
    while reduced.contains("  ") {
        reduced = reduced.replace("  ", " ");
    }
    format!("{}:{}", name.to_lowercase(), reduced.trim_matches(' '))
}

proptest! {
    #[test]
    fn relaxed_fields_agree_with_the_words_of_the_standard(
        value in "([ \ta:\u{e9}]{0,3}|\r\n[ \t]a?){0,9}"
    ) {
        let mut out = Vec::new();
        relax_parts(b"X-Name", value.as_bytes(), &mut out);
        prop_assert_eq!(String::from_utf8(out).unwrap(), slow_relaxed("X-Name", &value));
    }

    #[test]
    fn any_octets_can_be_covered(octets: Vec<u8>) {
        let covered = Covered::of(&octets, &names("From To"));
        prop_assert!(covered.canonical.len() <= octets.len() * 2 + 16);
    }
}
