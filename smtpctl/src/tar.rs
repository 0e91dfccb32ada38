//! Tar archives, as far as exports need them: ordinary files with short names (POSIX ustar). Read
//! are those that other programs make of such files as well.

use std::io::{self, Write};

/// Everything in an archive is padded to this.
const BLOCK: usize = 512;

/// Writes one file. `name` has at most 99 octets; `seconds` is when it was written, since 1970.
pub(crate) fn entry(
    out: &mut impl Write,
    name: &str,
    octets: &[u8],
    seconds: u64,
) -> io::Result<()> {
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    if name.len() > 99 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is too long for tar"));
    }
    put(0, name);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", octets.len()));
    put(136, &format!("{seconds:011o}\0"));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = header.iter().map(|&octet| u32::from(octet)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&header)?;
    out.write_all(octets)?;
    let rest = octets.len().next_multiple_of(BLOCK) - octets.len();
    out.write_all(&[0; BLOCK][..rest])
}

/// Writes the end of an archive.
pub(crate) fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// Why an archive cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TarError {
    /// It ends too early, or has sums that are wrong.
    #[error("the archive is damaged at octet {0}")]
    Damaged(usize),
    /// It holds something else than files and directories.
    #[error("the archive holds {0:?}, which is no ordinary file")]
    NoFile(String),
}

/// Whether a file begins as an archive does.
pub(crate) fn is_archive(octets: &[u8]) -> bool {
    octets.get(257..262) == Some(b"ustar")
}

/// The ordinary files of an archive with their names; directories and notes of the writing program
/// are passed over.
pub(crate) fn files(octets: &[u8]) -> Result<Vec<(String, &[u8])>, TarError> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(header) = octets.get(at..at + BLOCK) {
        if header.iter().all(|octet| *octet == 0) {
            return Ok(found);
        }
        let damaged = || TarError::Damaged(at);
        let number = |field: &[u8]| {
            let digits = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
            usize::from_str_radix(digits, 8).ok()
        };
        let sum: usize = header
            .iter()
            .enumerate()
            .map(
                |(place, octet)| if (148..156).contains(&place) { 32 } else { usize::from(*octet) },
            )
            .sum();
        if !is_archive(header) || number(&header[148..156]) != Some(sum) {
            return Err(damaged());
        }
        let size = number(&header[124..136]).ok_or_else(damaged)?;
        let begin = at + BLOCK;
        let end = begin.checked_add(size).ok_or_else(damaged)?;
        let content = octets.get(begin..end).ok_or_else(damaged)?;
        let name = header[..100].split(|octet| *octet == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        match header[156] {
            b'0' | 0 => found.push((name, content)),
            // Directories, and attributes that some programs write beside files.
            b'5' | b'x' | b'g' => {}
            _ => return Err(TarError::NoFile(name)),
        }
        at = begin + size.next_multiple_of(BLOCK);
    }
    Err(TarError::Damaged(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_whole_blocks_with_sums() {
        let mut out = Vec::new();
        entry(&mut out, "a.eml", b"Subject: x\r\n", 1_763_000_000).unwrap();
        end(&mut out).unwrap();
        assert_eq!(out.len(), 4 * BLOCK);
        assert_eq!(&out[124..136], b"00000000014\0");
        let mut blank = out[..BLOCK].to_vec();
        blank[148..156].fill(b' ');
        let sum: u32 = blank.iter().map(|&octet| u32::from(octet)).sum();
        assert_eq!(&out[148..156], format!("{sum:06o}\0 ").as_bytes());
        assert!(entry(&mut out, &"x".repeat(100), b"", 0).is_err());
    }

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_not() {
        let mut out = Vec::new();
        entry(&mut out, "a.yaml", b"version: 1\n", 1).unwrap();
        entry(&mut out, "servers.d/b.yaml", &[b'x'; 600], 1).unwrap();
        end(&mut out).unwrap();
        let read = files(&out).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].0.as_str(), read[0].1), ("a.yaml", &b"version: 1\n"[..]));
        assert_eq!((read[1].0.as_str(), read[1].1.len()), ("servers.d/b.yaml", 600));
        assert!(is_archive(&out) && !is_archive(b"service: x"));
        // Every shorter one lacks its end, and no octet of a header can be another.
        for len in (0..=out.len() - 2 * BLOCK).step_by(97) {
            assert!(files(&out[..len]).is_err(), "{len}");
        }
        for place in [0, 100, 130, 150, 257] {
            let mut other = out.clone();
            other[place] = other[place].wrapping_add(1);
            assert!(files(&other).is_err(), "{place}");
        }
    }
}
