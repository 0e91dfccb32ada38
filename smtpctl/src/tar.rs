//! Tar archives, as far as an export needs them: ordinary files with short names (POSIX ustar).

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
}
