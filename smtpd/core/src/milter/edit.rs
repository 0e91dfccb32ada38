//! Makes the changes that milters want to a header.
//!
//! In: the header as it came, with its empty line if it has one, and changes in the order they were said.
//! Out: the new header. Fields that nobody touches stay octet for octet. A value that would end its field
//! and begin another one, or the body, is a fault of the milter and not carried out.

use mailroot_common::message::header::{HeaderEnd, fields, scan};

use super::MilterError;
use super::answer::{Change, Field};

/// A field of the header that is being made.
#[derive(Clone, Debug)]
struct Entry {
    name: Vec<u8>,
    /// The whole field with its line end.
    octets: Vec<u8>,
}

/// The header with the changes made; changes of other kinds are passed over. `keeps_blanks` says whether
/// values bring the blank behind the colon along.
///
/// # Errors
///
/// [`MilterError::Form`] for a value that is none, [`MilterError::TooMuch`] beyond `octets_max`.
pub fn edited(
    header: &[u8],
    changes: &[Change],
    keeps_blanks: bool,
    octets_max: usize,
) -> Result<Vec<u8>, MilterError> {
    let mut found = fields(header);
    let mut entries: Vec<Entry> = Vec::new();
    for field in &mut found {
        let octets = header.get(field.whole.clone()).unwrap_or_default();
        entries.push(Entry { name: field.name.to_vec(), octets: octets.to_vec() });
    }
    let last = entries.last().map_or(0, |_| end_of_fields(header));
    let rest = header.get(last..).unwrap_or_default();
    for change in changes {
        match change {
            Change::AddHeader(field) => entries.push(entry(field, keeps_blanks)?),
            Change::InsertHeader(at, field) => {
                let at = usize::try_from(*at).unwrap_or(usize::MAX).min(entries.len());
                entries.insert(at, entry(field, keeps_blanks)?);
            }
            Change::ChangeHeader(number, field) => {
                change_one(&mut entries, *number, field, keeps_blanks)?;
            }
            Change::Body(_)
            | Change::AddRecipient(_)
            | Change::DeleteRecipient(_)
            | Change::Sender(_)
            | Change::Hold(_) => {}
        }
    }
    let octets: usize = entries.iter().map(|it| it.octets.len()).sum::<usize>() + rest.len();
    if octets > octets_max {
        return Err(MilterError::TooMuch);
    }
    let mut out = Vec::with_capacity(octets + 2);
    entries.iter().for_each(|it| out.extend_from_slice(&it.octets));
    // A message without a header gets an empty line behind its first field.
    if last == 0 && rest.is_empty() && !entries.is_empty() {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(rest);
    Ok(out)
}

/// Ends a header that a milter has changed, or behind which it has put another body, with an empty line if
/// it has none: the body may begin with what looks like a field, and where the last field was taken away
/// those that are put in front are parted from the body by nothing else.
pub fn part(header: &mut Vec<u8>) {
    if scan(header, header.len()).end != HeaderEnd::EmptyLine {
        header.extend_from_slice(b"\r\n");
    }
}

/// Where the last field ends.
fn end_of_fields(header: &[u8]) -> usize {
    fields(header).last().map_or(0, |field| field.whole.end)
}

/// Another value for a field, none, or a field more if there are not so many.
fn change_one(
    entries: &mut Vec<Entry>,
    number: u32,
    field: &Field,
    keeps_blanks: bool,
) -> Result<(), MilterError> {
    let same = |it: &Entry| it.name.eq_ignore_ascii_case(&field.name);
    let wanted = usize::try_from(number.max(1)).unwrap_or(usize::MAX) - 1;
    let places = entries.iter().enumerate().filter(|(_, it)| same(it)).map(|(at, _)| at);
    let place = { places }.nth(wanted);
    match (place, field.value.is_empty()) {
        (Some(at), true) => {
            entries.remove(at);
        }
        (Some(at), false) => {
            let new = entry(field, keeps_blanks)?;
            if let Some(old) = entries.get_mut(at) {
                *old = new;
            }
        }
        (None, true) => {}
        (None, false) => entries.push(entry(field, keeps_blanks)?),
    }
    Ok(())
}

/// A field as it is written. Each line but the first must begin with a blank.
fn entry(field: &Field, keeps_blanks: bool) -> Result<Entry, MilterError> {
    let mut octets = field.name.clone();
    octets.push(b':');
    if !keeps_blanks {
        octets.push(b' ');
    }
    let value = field.value.strip_suffix(b"\n").unwrap_or(&field.value);
    for (number, line) in value.split(|octet| *octet == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_fold = matches!(line.first(), Some(b' ' | b'\t'));
        let is_empty = line.iter().all(|octet| matches!(octet, b' ' | b'\t'));
        let is_bad = line.iter().any(|octet| matches!(octet, 0 | b'\r'));
        if is_bad || (number > 0 && (!is_fold || is_empty)) {
            return Err(MilterError::Form('h'));
        }
        if number > 0 {
            octets.extend_from_slice(b"\r\n");
        }
        octets.extend_from_slice(line);
    }
    octets.extend_from_slice(b"\r\n");
    Ok(Entry { name: field.name.clone(), octets })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &[u8] = b"A: 1\r\nB: 2\r\n\t2\r\na: 3\r\n\r\n";

    fn field(name: &str, value: &str) -> Field {
        Field { name: name.into(), value: value.into() }
    }

    fn edit(changes: &[Change]) -> String {
        String::from_utf8(edited(HEADER, changes, false, 1_000).unwrap()).unwrap()
    }

    #[test]
    fn fields_are_added_inserted_changed_and_taken_away_in_order() {
        assert_eq!(edit(&[]).as_bytes(), HEADER);
        assert_eq!(
            edit(&[Change::AddHeader(field("C", "4\n\t5"))]),
            "A: 1\r\nB: 2\r\n\t2\r\na: 3\r\nC: 4\r\n\t5\r\n\r\n"
        );
        let first = Change::InsertHeader(0, field("Z", "0"));
        let second = Change::InsertHeader(1, field("Y", "0"));
        assert_eq!(edit(&[first, second]), "Z: 0\r\nY: 0\r\nA: 1\r\nB: 2\r\n\t2\r\na: 3\r\n\r\n");
        assert_eq!(
            edit(&[Change::InsertHeader(99, field("Z", "0"))]),
            "A: 1\r\nB: 2\r\n\t2\r\na: 3\r\nZ: 0\r\n\r\n"
        );
        assert_eq!(
            edit(&[Change::ChangeHeader(2, field("A", "9"))]),
            "A: 1\r\nB: 2\r\n\t2\r\nA: 9\r\n\r\n"
        );
        assert_eq!(edit(&[Change::ChangeHeader(1, field("b", ""))]), "A: 1\r\na: 3\r\n\r\n");
        assert_eq!(edit(&[Change::ChangeHeader(3, field("A", ""))]).as_bytes(), HEADER);
        assert_eq!(
            edit(&[Change::ChangeHeader(3, field("A", "4"))]),
            "A: 1\r\nB: 2\r\n\t2\r\na: 3\r\nA: 4\r\n\r\n"
        );
        let twice =
            [Change::ChangeHeader(1, field("A", "")), Change::ChangeHeader(1, field("A", ""))];
        assert_eq!(edit(&twice), "B: 2\r\n\t2\r\n\r\n");
    }

    #[test]
    fn messages_without_a_header_or_without_an_end_get_one() {
        let add = [Change::AddHeader(field("X", "y"))];
        assert_eq!(edited(b"", &add, false, 99).unwrap(), b"X: y\r\n\r\n");
        assert_eq!(edited(b"\r\n", &add, false, 99).unwrap(), b"X: y\r\n\r\n");
        assert_eq!(edited(b"A: 1\r\n", &add, true, 99).unwrap(), b"A: 1\r\nX:y\r\n");
    }

    #[test]
    fn a_changed_header_is_parted_from_whatever_body_comes_behind_it() {
        for (before, after) in [
            ("", "\r\n"),
            ("A: 1\r\n", "A: 1\r\n\r\n"),
            ("A: 1\r\n\r\n", "A: 1\r\n\r\n"),
            ("A: 1\n\n", "A: 1\n\n"),
            ("\r\n", "\r\n"),
        ] {
            let mut header = before.as_bytes().to_vec();
            part(&mut header);
            assert_eq!(header, after.as_bytes(), "{before:?}");
            let whole = [&header[..], b"B: x\r\n"].concat();
            assert_eq!(scan(&whole, whole.len()).header_octets, header.len(), "{before:?}");
        }
    }

    #[test]
    fn a_value_cannot_begin_another_field_or_the_body() {
        for value in ["a\nB: c", "a\n\nb", "a\n \n b", "a\rb", "a\0b", "a\r\nB: c"] {
            let add = [Change::AddHeader(field("X", value))];
            assert_eq!(edited(HEADER, &add, false, 999), Err(MilterError::Form('h')), "{value:?}");
        }
        let add = [Change::AddHeader(field("X", &"a".repeat(100)))];
        assert_eq!(edited(HEADER, &add, false, 99), Err(MilterError::TooMuch));
    }

    proptest! {
        #[test]
        fn whatever_is_changed_it_stays_one_header(
            header in "([A-C]: [a-z]{0,5}\r\n){0,5}(\r\n)?",
            wishes in proptest::collection::vec((0_u8..3, 0_u32..6, "[A-C]", "[a-z\n\r ]{0,6}"), 0..6),
        ) {
            let changes: Vec<Change> = wishes.into_iter().map(|(kind, at, name, value)| {
                let field = field(&name, &value);
                match kind {
                    0 => Change::AddHeader(field),
                    1 => Change::InsertHeader(at, field),
                    _ => Change::ChangeHeader(at, field),
                }
            }).collect();
            if let Ok(made) = edited(header.as_bytes(), &changes, false, 10_000) {
                let whole = [&made[..], b"body\r\n"].concat();
                let facts = scan(&whole, whole.len());
                let ended = header.ends_with("\r\n\r\n") || header == "\r\n";
                if ended {
                    prop_assert_eq!(facts.end, HeaderEnd::EmptyLine);
                    prop_assert_eq!(&whole[facts.header_octets..], b"body\r\n");
                }
            }
        }
    }
}
