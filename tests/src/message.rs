//! Messages as they lie in files and arrive at peers: header fields and bodies, octet for octet.

use std::fs;
use std::path::{Path, PathBuf};

/// A message read from a file.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The file.
    pub path: PathBuf,
    /// All of its octets.
    pub octets: Vec<u8>,
}

impl Stored {
    /// Every file with this extension in a directory, in the order of their names.
    ///
    /// # Panics
    ///
    /// Never; a file that vanishes meanwhile is left out.
    #[must_use]
    pub fn read_all(directory: &Path, extension: &str) -> Vec<Self> {
        let mut paths: Vec<PathBuf> = fs::read_dir(directory)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        paths.retain(|path| {
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
            !hidden && path.is_file() && path.extension().is_some_and(|found| found == extension)
        });
        paths.sort();
        paths
            .into_iter()
            .filter_map(|path| fs::read(&path).ok().map(|octets| Self { path, octets }))
            .collect()
    }

    /// Every file in a folder of a maildir; none if it is not there yet.
    ///
    /// # Panics
    ///
    /// Never; a file that vanishes meanwhile is left out.
    #[must_use]
    pub fn in_maildir(folder: &Path) -> Vec<Self> {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        paths.sort();
        paths
            .into_iter()
            .filter_map(|path| fs::read(&path).ok().map(|octets| Self { path, octets }))
            .collect()
    }

    /// The values of a header field, unfolded.
    #[must_use]
    pub fn fields(&self, name: &str) -> Vec<String> {
        fields(&self.octets, name)
    }

    /// What follows the empty line.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        body(&self.octets)
    }

    /// The whole as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.octets).into_owned()
    }
}

/// The values of every header field of this name, unfolded, in order.
#[must_use]
pub fn fields(octets: &[u8], name: &str) -> Vec<String> {
    let header = &octets[..header_end(octets)];
    let text = String::from_utf8_lossy(header).replace("\r\n", "\n");
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = found.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((key, value)) = line.split_once(':') {
            found.push((key.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let wanted = name.to_ascii_lowercase();
    found.into_iter().filter(|(key, _)| *key == wanted).map(|(_, value)| value).collect()
}

/// What follows the empty line that ends the header.
#[must_use]
pub fn body(octets: &[u8]) -> &[u8] {
    let end = header_end(octets);
    let rest = &octets[end..];
    rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")).unwrap_or(rest)
}

fn header_end(octets: &[u8]) -> usize {
    let mut start = 0;
    while start < octets.len() {
        let end = octets[start..]
            .iter()
            .position(|&octet| octet == b'\n')
            .map_or(octets.len(), |found| start + found + 1);
        if matches!(&octets[start..end], b"\n" | b"\r\n") {
            return start;
        }
        start = end;
    }
    octets.len()
}

/// A small message with a tag that no other message carries.
#[must_use]
pub fn tagged(tag: &str) -> Vec<u8> {
    format!(
        "From: <sender@client.test>\r\nTo: <someone@{}>\r\nSubject: {tag}\r\nX-Tag: {tag}\r\n\
         Date: Mon, 24 Nov 2025 10:00:00 +0000\r\nMessage-ID: <{tag}@client.test>\r\n\r\nbody of {tag}\r\n",
        crate::setup::LOCAL_DOMAIN
    )
    .into_bytes()
}

/// A message that shows every change an honest relay must not make: leading dots, long lines, eight-bit
/// octets, trailing blanks, empty lines at both ends.
#[must_use]
pub fn awkward(tag: &str) -> Vec<u8> {
    let mut octets = tagged(tag);
    octets.extend_from_slice(b".\r\n..\r\n.leading dot\r\n...three\r\n");
    octets.extend_from_slice(b"trailing blanks \t \r\n\r\n\r\nFrom the start\r\n>From quoted\r\n");
    octets.extend_from_slice("Gr\u{fc}\u{df}e \u{2709}\r\n".as_bytes());
    octets.extend(std::iter::repeat_n(b'x', 998));
    octets.extend_from_slice(b"\r\n\x01\x7f control\r\n=20=3D soft=\r\n break\r\n\r\n");
    octets
}
