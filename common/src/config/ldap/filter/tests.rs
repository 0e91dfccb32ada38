//! Filters, and the addresses that would break out of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn filter(text: &str) -> LdapFilter {
    LdapFilter::parse(text).unwrap()
}

/// Another reading of RFC 4515's escapes than the one of the parser.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut left = text.as_bytes();
    while let [first, rest @ ..] = left {
        left = rest;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let [high, low, rest @ ..] = left else { panic!("{text}") };
        let digit = |o: &u8| char::from(*o).to_digit(16).unwrap();
        out.push(u8::try_from(digit(high) * 16 + digit(low)).unwrap());
        left = rest;
    }
    out
}

#[test]
fn filters_are_shown_as_they_were_written() {
    for text in [
        "(mail={address})",
        "(|(proxyAddresses=smtp:{address})(mail={address}))",
        "(&(objectClass=*)(!(disabled=TRUE))(uid={local})(ou=*{domain}))",
        "(mail={local}@*.example)",
        "(cn=a*b*{local}*d)",
        "(&(age>=1)(age<=2)(cn~={local}))",
        "(&(mail={address})(memberOf:1.2.840.113556.1.4.1941:=CN=x))",
        "(cn:dn:2.4.6:={local})",
        "(:caseExactMatch:={local})",
        "(o:dn:={domain}{local})",
        "(cn=\\2a\\28\\29\\5c\\00\\7b{local})",
    ] {
        assert_eq!(filter(text).to_string(), text);
    }
}

#[test]
fn what_is_no_filter_is_told_with_its_place() {
    for (text, at) in [
        ("mail={address}", 0),
        ("(mail={address}", 15),
        ("(mail={address}))", 16),
        ("(={address})", 1),
        ("(mail)", 5),
        ("(mail={adress})", 6),
        ("(mail=\\2{local})", 6),
        ("(mail=({local})", 6),
        ("(a=x**{local})", 13),
        ("(&)", 2),
        ("(a:=", 4),
    ] {
        let error = LdapFilter::parse(text).unwrap_err();
        assert!(
            matches!(error, FilterError::Syntax { at: found, .. } if found == at),
            "{text}: {error}"
        );
    }
    assert_eq!(
        LdapFilter::parse("(objectClass=*)"),
        Err(FilterError::Nobody("{address} or {local}"))
    );
    assert_eq!(LdapFilter::parse("(o={domain})"), Err(FilterError::Nobody("{address} or {local}")));
    let deep = format!("{}(a={{local}}){}", "(!".repeat(17), ")".repeat(17));
    assert_eq!(LdapFilter::parse(&deep), Err(FilterError::TooLarge));
    let long = format!("(a={}{{local}})", "x".repeat(500));
    assert_eq!(LdapFilter::parse(&long), Err(FilterError::TooLarge));
}

#[test]
fn an_address_breaks_out_of_nothing() {
    let filter = filter("(|(mail={address})(uid={local}))");
    let hostile = Mailbox::parse("\"*)(uid=*))(|(uid=*\"@example.net").unwrap();
    let filled = filter.fill(&hostile);
    let LdapFilter(Node::Or(nodes)) = &filled else { panic!("{filled}") };
    let [Node::Compare(_, _, whole), Node::Compare(_, _, local)] = &nodes[..] else {
        panic!("{filled}")
    };
    assert_eq!(whole.octets(), b"\"*)(uid=*))(|(uid=*\"@example.net");
    assert_eq!(local.octets(), b"*)(uid=*))(|(uid=*");
    let shown = "(|(mail=\"\\2a\\29\\28uid=\\2a\\29\\29\\28|\\28uid=\\2a\"@example.net)\
                 (uid=\\2a\\29\\28uid=\\2a\\29\\29\\28|\\28uid=\\2a))";
    assert_eq!(filled.to_string(), shown);
}

proptest! {
    #[test]
    fn values_survive_another_reading_of_their_escapes(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
        let text = Value::of(&octets).to_string();
        prop_assert!(!text.contains(['*', '(', ')', '\0']));
        prop_assert_eq!(unescape(&text), octets);
    }

    #[test]
    fn no_local_part_changes_the_shape_of_a_filter(local in "[ -~]{0,60}") {
        let quoted = local.replace('\\', "\\\\").replace('"', "\\\"");
        let Ok(address) = Mailbox::parse(&format!("\"{quoted}\"@example.net")) else { return Ok(()) };
        let filled = filter("(&(a=1)(uid={local}))").fill(&address);
        let LdapFilter(Node::And(nodes)) = &filled else { panic!("{filled}") };
        prop_assert_eq!(nodes.len(), 2);
        let text = filled.to_string();
        let value = text.strip_prefix("(&(a=1)(uid=").unwrap().strip_suffix("))").unwrap();
        prop_assert_eq!(unescape(value), address.local().unquoted().into_bytes());
    }

    #[test]
    fn no_text_is_too_strange_to_be_read(text in "\\PC{0,60}") {
        let _read = LdapFilter::parse(&text);
    }
}

#[test]
fn a_filter_for_users_has_a_name_and_nothing_else_that_differs() {
    let filter = LoginFilter::parse("(&(objectClass=user)(|(uid={user})(mail={user})))").unwrap();
    assert_eq!(filter.to_string(), "(&(objectClass=user)(|(uid={user})(mail={user})))");
    for (name, filled) in [
        ("ada", "(&(objectClass=user)(|(uid=ada)(mail=ada)))"),
        ("*", "(&(objectClass=user)(|(uid=\\2a)(mail=\\2a)))"),
        ("a)(uid=*", "(&(objectClass=user)(|(uid=a\\29\\28uid=\\2a)(mail=a\\29\\28uid=\\2a)))"),
    ] {
        assert_eq!(filter.fill(name).to_string(), filled);
    }
    assert_eq!(LoginFilter::parse("(objectClass=*)"), Err(FilterError::Nobody("{user}")));
    let address = LoginFilter::parse("(mail={address})");
    assert_eq!(address, Err(FilterError::Syntax { wanted: "{user}", at: 6 }));
    let user = LdapFilter::parse("(uid={user})");
    let wanted = "{address}, {local} or {domain}";
    assert_eq!(user, Err(FilterError::Syntax { wanted, at: 5 }));
}
