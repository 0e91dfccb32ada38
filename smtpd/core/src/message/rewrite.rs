//! Other addresses in `From`: the header of a message that leaves under another name.
//!
//! In: a header, and for each address in `From` the one to put in its place. Out: the header with
//! these addresses changed and every other octet as it stands, display names and folds included. Where
//! answers would no longer reach the author, the old `From` becomes `Reply-To`, unless there is one.

use mailroot_common::address::Mailbox;

use super::address_list::locate;
use super::header::fields;

/// What stands in an address's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The address.
    pub mailbox: Mailbox,
    /// Answers are to go to the old one.
    pub keeps_answers: bool,
}

/// The header with other addresses in `From`; nothing if none is to change. A `From` that cannot be
/// read stays as it is. Give the header with its empty line.
#[must_use]
pub fn rewrite_from(
    header: &[u8],
    replace: impl Fn(&Mailbox) -> Option<Replacement>,
) -> Option<Vec<u8>> {
    let has_reply_to = fields(header).any(|field| field.is("Reply-To"));
    let mut out: Option<Vec<u8>> = None;
    let (mut from, mut keeps_answers) = (0, !has_reply_to);
    for field in fields(header).filter(|field| field.is("From")) {
        let value = &header[field.value.clone()];
        let Ok(addresses) = locate(value) else { continue };
        let mut wants_answers = false;
        for (mailbox, place) in addresses {
            let Some(replacement) = replace(&mailbox) else { continue };
            let out = out.get_or_insert_with(|| Vec::with_capacity(header.len() + 128));
            out.extend_from_slice(&header[from..field.value.start + place.start]);
            out.extend_from_slice(replacement.mailbox.to_string().as_bytes());
            from = field.value.start + place.end;
            wants_answers |= replacement.keeps_answers;
        }
        if let Some(out) = out.as_mut().filter(|_| wants_answers && keeps_answers) {
            keeps_answers = false;
            out.extend_from_slice(&header[from..field.whole.end]);
            from = field.whole.end;
            out.extend_from_slice(b"Reply-To:");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
    let mut out = out?;
    out.extend_from_slice(&header[from..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(header: &str, keeps_answers: bool) -> Option<String> {
        let replace = |mailbox: &Mailbox| {
            let is_scanner = mailbox.to_string().ends_with("@scan.test");
            let mailbox = Mailbox::parse("s@out.test").unwrap();
            is_scanner.then_some(Replacement { mailbox, keeps_answers })
        };
        rewrite_from(header.as_bytes(), replace).map(|octets| String::from_utf8(octets).unwrap())
    }

    #[test]
    fn only_addresses_change_and_the_old_field_gets_the_answers() {
        for (header, expected) in [
            (
                "A: b\r\nFrom: \"One, <x@scan.test>\"\r\n <a@scan.test>, b@other.test\r\nC: d\r\n\r\n",
                "A: b\r\nFrom: \"One, <x@scan.test>\"\r\n <s@out.test>, b@other.test\r\n\
                 Reply-To: \"One, <x@scan.test>\"\r\n <a@scan.test>, b@other.test\r\nC: d\r\n\r\n",
            ),
            (
                "From: a@scan.test (Scanner)\r\nreply-to: x@y.test\r\n\r\n",
                "From: s@out.test (Scanner)\r\nreply-to: x@y.test\r\n\r\n",
            ),
            (
                "FROM:a @ scan.test , < b@scan.test >\r\n\r\n",
                "FROM:s@out.test , <s@out.test>\r\nReply-To:a @ scan.test , < b@scan.test >\r\n\r\n",
            ),
            (
                "From: a@scan.test\r\nFrom: b@scan.test\r\n\r\n",
                "From: s@out.test\r\nReply-To: a@scan.test\r\nFrom: s@out.test\r\n\r\n",
            ),
        ] {
            assert_eq!(rewritten(header, true).as_deref(), Some(expected));
        }
        assert_eq!(
            rewritten("From: a@scan.test\r\n\r\n", false).as_deref(),
            Some("From: s@out.test\r\n\r\n")
        );
        for header in
            ["From: a@other.test\r\n\r\n", "From: <a@scan.test\r\n\r\n", "To: a@scan.test\r\n\r\n"]
        {
            assert_eq!(rewritten(header, true), None, "{header}");
        }
    }
}
