//! EHLO replies of a peer: read without trust, the same as by a slow reader, and bounded; ours are
//! read by our own reader as they are meant.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailroot_common::units::{ByteSize, Span, Timestamp};
use smtpd_core::smtp::extension::{Bounds, Extension, Offer, PeerExtensions, PeerSize};

fuzz_target!(|text: &str| {
    let lines: Vec<&str> = text.lines().collect();
    let peer = PeerExtensions::parse(lines.iter().copied());
    let has = |keyword: &str| lines.iter().any(|line| first(line).eq_ignore_ascii_case(keyword));
    assert_eq!(peer.pipelining, has("PIPELINING"));
    assert_eq!(peer.eight_bit_mime, has("8BITMIME"));
    assert_eq!(peer.chunking, has("CHUNKING"));
    assert_eq!(peer.binary_mime, has("BINARYMIME") && has("CHUNKING"));
    assert_eq!(peer.smtputf8, has("SMTPUTF8"));
    assert_eq!(peer.dsn, has("DSN"));
    assert_eq!(peer.enhanced_status_codes, has("ENHANCEDSTATUSCODES"));
    assert_eq!(peer.starttls, has("STARTTLS"));
    assert_eq!(peer.size == PeerSize::Unknown, !has("SIZE"));
    if let PeerSize::AtMost(limit) = peer.size {
        assert!(limit > ByteSize::bytes(0), "a peer that takes nothing is not believed");
    }
    assert!(peer.deliver_by.is_none_or(|least| least <= 999_999_999 && has("DELIVERBY")));
    assert!(!peer.mt_priority || has("MT-PRIORITY"));
    for limit in [peer.recipients_max, peer.mails_max, peer.recipient_domains_max] {
        assert!(limit.is_none_or(|limit| (1..=999_999).contains(&limit)));
        assert!(limit.is_none() || has("LIMITS"));
    }
    assert!(peer.auth.len() <= 64, "bounded");
    for (place, mechanism) in peer.auth.iter().enumerate() {
        assert!(!mechanism.is_empty() && !mechanism.contains(|c: char| c.is_ascii_whitespace()));
        assert!(!mechanism.bytes().any(|octet| octet.is_ascii_lowercase()));
        assert!(!peer.auth[..place].contains(mechanism), "each once");
    }

    ours(text);
});

fn first(line: &str) -> &str {
    line.split_ascii_whitespace().next().unwrap_or_default()
}

fn ours(text: &str) {
    let offer: Offer = text.split_ascii_whitespace().filter_map(Extension::named).collect();
    let size_max = u64::try_from(text.len()).ok().filter(|size| *size > 0).map(ByteSize::bytes);
    let (release_max, now) = (Span::days(60), Timestamp::from_millis(1_764_000_000_000));
    let deliver_by_min = Span::seconds(30);
    let bounds = Bounds { size_max, recipients_max: 100, release_max, deliver_by_min, now };
    let lines: Vec<String> = offer.lines(bounds).map(|line| line.to_string()).collect();
    let peer = PeerExtensions::parse(lines.iter().map(String::as_str));
    for extension in Extension::ALL {
        let said = lines.iter().any(|line| first(line) == extension.keyword());
        assert_eq!(said, offer.has(extension));
    }
    assert_eq!(peer.binary_mime, offer.has(Extension::BinaryMime));
    assert_eq!(peer.smtputf8, offer.has(Extension::SmtpUtf8));
    assert_eq!(peer.deliver_by, offer.has(Extension::DeliverBy).then_some(30));
    assert_eq!(peer.mt_priority, offer.has(Extension::MtPriority));
    assert_eq!(peer.recipients_max, offer.has(Extension::Limits).then_some(100));
    let expected = match (offer.has(Extension::Size), size_max) {
        (false, _) => PeerSize::Unknown,
        (true, None) => PeerSize::Unlimited,
        (true, Some(limit)) => PeerSize::AtMost(limit),
    };
    assert_eq!(peer.size, expected);
}
