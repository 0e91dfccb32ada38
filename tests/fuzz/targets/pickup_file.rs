//! Pickup files: any octets become a message without secrets or a fault with words; reading in
//! pieces makes no difference, and no line end is left that is not CRLF.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtpd_core::message::header;
use smtpd_core::message::line_ends::LineEnds;
use smtpd_core::message::pickup::{Settings, parse};

fuzz_target!(|input: (bool, bool, u8, &[u8])| {
    let (x_headers, dot_stuffed, cut, octets) = input;
    let settings =
        Settings { x_headers, header_octets_max: 4096, recipients_max: 10, default_sender: None };

    let mut whole = Vec::new();
    let mut ends = LineEnds::new(true, dot_stuffed);
    ends.feed(octets, &mut whole).expect("line ends are fixed");
    ends.finish(&mut whole).expect("line ends are fixed");
    let mut pieces = Vec::new();
    let mut ends = LineEnds::new(true, dot_stuffed);
    for piece in octets.chunks(usize::from(cut) + 1) {
        ends.feed(piece, &mut pieces).expect("line ends are fixed");
    }
    ends.finish(&mut pieces).expect("line ends are fixed");
    assert_eq!(whole, pieces);
    for (place, octet) in whole.iter().enumerate() {
        match octet {
            b'\r' => assert_eq!(whole.get(place + 1), Some(&b'\n')),
            b'\n' => assert_eq!(place.checked_sub(1).map(|before| whole[before]), Some(b'\r')),
            _ => {}
        }
    }

    match parse(&whole, true, &settings) {
        Ok(parsed) => {
            let parsed = parsed.expect("a whole file is read or refused");
            assert!((1..=10).contains(&parsed.recipients.len()));
            assert!(parsed.body_start <= whole.len());
            for field in header::fields(&parsed.header) {
                assert!(!["Bcc", "Resent-Bcc", "Return-Path"].iter().any(|name| field.is(name)));
            }
            // What goes on is read again as the same header.
            assert_eq!(header::scan(&parsed.header, parsed.header.len()), parsed.facts);
            assert_eq!(parsed.facts.header_octets, parsed.header.len());
        }
        Err(fault) => assert!(!fault.to_string().contains(['\r', '\n'])),
    }
});
