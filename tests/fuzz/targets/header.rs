//! Headers: any octets are scanned within bounds; taking fields out leaves every other octet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtpd_core::message::header::{self, HeaderEnd};

fuzz_target!(|octets: &[u8]| {
    let facts = header::scan(octets, octets.len());
    assert!(facts.header_octets <= octets.len());
    for text in facts.subject.iter().chain(&facts.message_id) {
        assert!(text.len() <= header::TEXT_OCTETS_MAX && !text.contains(char::is_control));
    }

    // The fields lie one behind the other from the first octet to the header's end.
    let mut at = 0;
    let mut fields = header::fields(octets);
    let mut kept = Vec::new();
    for field in &mut fields {
        assert_eq!(field.whole.start, at);
        assert!(field.value.start > at && field.value.end <= field.whole.end);
        at = field.whole.end;
        if !field.is("Bcc") && !field.is("X-Sender") {
            kept.extend_from_slice(&octets[field.whole]);
        }
    }
    let empty_line = usize::from(fields.end() == HeaderEnd::EmptyLine);
    assert!(fields.position() >= at && fields.position() - at <= 2 * empty_line);

    kept.extend_from_slice(&octets[at..]);
    assert_eq!(&*header::without(octets, &["bcc", "x-sender"]), &kept[..]);
});
