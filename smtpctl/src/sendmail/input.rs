//! Standard input: the message as a program writes it. A job whose output does not end fills no memory.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;

use mailroot_common::units::ByteSize;

use super::{DATA_ERROR, Failure, submit};

/// How much is read before the daemon is asked how much it takes.
const UNASKED_OCTETS: u64 = 32 << 20;
/// The most that is read, where the daemon has no limit or cannot be asked.
const OCTETS_MAX: u64 = 1 << 30;

/// Reads standard input to its end. A person at a terminal may end it by a dot alone on a line.
pub(super) fn read(keeps_dots: bool, socket: &Path) -> Result<Vec<u8>, Failure> {
    let mut stdin = io::stdin().lock();
    if keeps_dots || !stdin.is_terminal() {
        return bounded(&mut stdin, UNASKED_OCTETS, || submit::size_max(socket));
    }
    let mut input = Vec::new();
    loop {
        let start = input.len();
        let read = stdin.read_until(b'\n', &mut input)?;
        if read == 0 || input.get(start..) == Some(b".\n") {
            input.truncate(if read == 0 { input.len() } else { start });
            return Ok(input);
        }
    }
}

/// Reads to the end, but no more than is taken; that is asked only if there is much.
fn bounded(
    from: &mut impl Read,
    unasked: u64,
    taken: impl FnOnce() -> Option<u64>,
) -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    let read = from.by_ref().take(unasked).read_to_end(&mut input)?;
    if read < usize::try_from(unasked).unwrap_or(usize::MAX) {
        return Ok(input);
    }
    let most = taken().unwrap_or(OCTETS_MAX).min(OCTETS_MAX);
    let rest = most.saturating_add(1).saturating_sub(unasked);
    from.by_ref().take(rest).read_to_end(&mut input)?;
    if u64::try_from(input.len()).unwrap_or(u64::MAX) > most {
        let most = ByteSize::bytes(most);
        let words = format!(
            "the message is larger than {most}, which is all that is taken: nobody gets it"
        );
        return Err(Failure { code: DATA_ERROR, words });
    }
    Ok(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(octets: usize, taken: Option<u64>) -> Result<usize, Failure> {
        let given = vec![b'x'; octets];
        bounded(&mut given.as_slice(), 10, || taken).map(|read| read.len())
    }

    #[test]
    fn what_is_too_much_is_refused_and_nothing_is_cut_off() {
        assert_eq!(bounded(&mut [b'x'; 9].as_slice(), 10, || panic!("asked")).unwrap().len(), 9);
        for octets in [10, 11, 20] {
            assert_eq!(read(octets, Some(20)).unwrap(), octets);
            assert_eq!(read(octets, None).unwrap(), octets);
        }
        assert_eq!(read(21, Some(20)).unwrap_err().code, DATA_ERROR);
        assert_eq!(read(10, Some(9)).unwrap_err().code, DATA_ERROR);
    }

    #[test]
    fn an_output_without_an_end_is_no_message() {
        let endless = bounded(&mut io::repeat(b'y'), 10, || Some(1000)).unwrap_err();
        assert!(endless.words.contains("1000B"), "{endless:?}");
    }
}
