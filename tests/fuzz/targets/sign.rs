//! Signatures: which fields of a header are covered, and in which form, is what a verifier finds by the field
//! that says so; a body in pieces has the form that it has as a whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailroot_common::address::Domain;
use mailroot_common::config::Selector;
use mailroot_common::config::dkim::usual_headers;
use mailroot_common::units::Timestamp;
use smtpd_core::message::header;
use smtpd_core::message::sign::{Algorithm, Covered, Draft, Signer, SimpleBody};

fuzz_target!(|octets: &[u8]| {
    let header = &octets[..header::scan(octets, octets.len()).header_octets];
    fields(header);
    // The last octet says how the body is cut.
    let Some((&cut, body)) = octets.split_last() else { return };
    in_pieces(body, usize::from(cut) + 1);
});

/// What a verifier does (RFC 6376 section 5.4.2): the fields of `h=`, each name from the last field up.
fn fields(header: &[u8]) {
    let covered = Covered::of(header, &usual_headers());
    let (domain, selector) = (Domain::parse("a.test").unwrap(), Selector::parse("s1").unwrap());
    let (algorithm, at) = (Algorithm::Ed25519Sha256, Timestamp::from_millis(1_764_000_000_000));
    let signer = Signer { domain: &domain, selector: &selector, algorithm, at };
    let draft = Draft::new(&signer, &covered, &[7; 32]);
    let signed = draft.to_be_signed(&covered);
    let field = String::from_utf8(draft.finish(&[9; 64])).expect("it is ASCII");
    assert!(field.ends_with("\r\n") && field.split("\r\n").all(|line| line.len() <= 998));
    assert!(!field.replace("\r\n\t", "").trim_end().contains(char::is_control));

    let value: String = field["DKIM-Signature:".len()..].split_whitespace().collect();
    let tag = |name: &str| {
        let mut tags = value.split(';').filter_map(|tag| tag.split_once('='));
        tags.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).expect("it is there")
    };
    let all: Vec<header::Field<'_>> = header::fields(header).collect();
    let mut used = vec![false; all.len()];
    let mut expected = Vec::new();
    let names = tag("h");
    for name in names.split(':') {
        let last = (0..all.len()).rev().find(|&place| !used[place] && all[place].is(name));
        if let Some(place) = last {
            used[place] = true;
            expected.extend(relaxed(&header[all[place].whole.clone()]));
        }
    }
    // Every From is covered, and one that is put before them would be noticed.
    let from = all.iter().filter(|field| field.is("From")).count();
    assert_eq!(names.split(':').filter(|name| name.eq_ignore_ascii_case("From")).count(), from + 1);
    let (fields, own) = signed.split_at(expected.len());
    assert_eq!(fields, expected);
    let unsigned = field.replace(&field[field.find("\tb=").unwrap() + 3..], "");
    assert_eq!(own, relaxed(unsigned.as_bytes()).strip_suffix(b"\r\n").unwrap());
}

/// A field in relaxed form (RFC 6376 section 3.4.2), step by step.
fn relaxed(field: &[u8]) -> Vec<u8> {
    let colon = field.iter().position(|&octet| octet == b':').expect("it is a field");
    let mut name = field[..colon].to_ascii_lowercase();
    while matches!(name.last(), Some(b' ' | b'\t')) {
        name.pop();
    }
    let unfolded = field[colon + 1..].iter().filter(|octet| !matches!(octet, b'\r' | b'\n'));
    let unfolded: Vec<u8> = unfolded.copied().collect();
    let words = unfolded.split(|octet| matches!(octet, b' ' | b'\t'));
    let words: Vec<&[u8]> = words.filter(|word| !word.is_empty()).collect();
    [name, b":".to_vec(), words.join(&b' '), b"\r\n".to_vec()].concat()
}

/// RFC 6376 section 3.4.3.
fn in_pieces(body: &[u8], size: usize) {
    let mut whole = body;
    while let Some(rest) = whole.strip_suffix(b"\r\n") {
        whole = rest;
    }
    let whole = [whole, b"\r\n"].concat();
    let (mut form, mut out) = (SimpleBody::default(), Vec::new());
    for piece in body.chunks(size) {
        form.push(piece, |octets| out.extend_from_slice(octets));
    }
    form.finish(|octets| out.extend_from_slice(octets));
    assert_eq!(out, whole);
}
