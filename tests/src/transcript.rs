//! Conversations as files: what is sent, and the replies that must come.
//!
//! Each line of `tests/transcripts/*.smtp` begins with a mark:
//!
//! ```text
//! # a comment                        ignored, as empty lines are
//! @ messages.max_recipients: 2       a key of the server file this conversation needs
//! @postfix smtpd_recipient_limit = 2 the same for the run against Postfix, a line of main.cf
//! C: MAIL FROM:<a@client.test>       sent with CRLF
//! R: QUIT\r\nNOOP\r\n                sent as it stands, after \r \n \0 \t \\ \xNN and \e{N}x (N times x)
//! S: 250 2.1.0 sender ok             a reply with this code and this enhanced code; the words are a hint
//! S~ 250                             a reply with this code
//! X:                                 the server must close here
//! ```
//!
//! The greeting is read before the first line, and must be 220 unless the first mark is `S`.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::talk::Talk;

/// One line of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send these octets.
    Send(Vec<u8>),
    /// A reply with this code, and this enhanced code if one is given.
    Expect {
        /// The code.
        code: u16,
        /// The enhanced code.
        enhanced: Option<String>,
    },
    /// The end of the connection.
    End,
}

/// A conversation read from a file.
#[derive(Clone, Debug)]
pub struct Transcript {
    /// The file's name without folder and extension.
    pub name: String,
    /// Keys of the server file.
    pub keys: Vec<(String, String)>,
    /// Lines for Postfix's main.cf.
    pub postfix: Vec<String>,
    /// The steps, with their line numbers.
    pub steps: Vec<(usize, Step)>,
}

/// A reply that was not the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The line of the transcript.
    pub line: usize,
    /// What was expected.
    pub expected: String,
    /// What came.
    pub came: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: expected {}, came {}", self.line, self.expected, self.came)
    }
}

impl Transcript {
    /// Every transcript of the repository, in the order of their names.
    ///
    /// # Panics
    ///
    /// When one cannot be read.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|found| found == "smtp"));
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// Reads one.
    ///
    /// # Panics
    ///
    /// When a line is not understood.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut transcript =
            Self { name, keys: Vec::new(), postfix: Vec::new(), steps: Vec::new() };
        for (index, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
            let number = index + 1;
            transcript.take(number, line).unwrap_or_else(|| {
                panic!("{}:{number}: {line:?} is not a line of a transcript", path.display())
            });
        }
        transcript
    }

    fn take(&mut self, number: usize, line: &str) -> Option<()> {
        if line.is_empty() || line.starts_with('#') {
            return Some(());
        }
        if let Some(setting) = line.strip_prefix("@postfix ") {
            self.postfix.push(setting.to_owned());
            return Some(());
        }
        if let Some(key) = line.strip_prefix("@ ") {
            let (key, value) = key.split_once(": ")?;
            self.keys.push((key.to_owned(), value.to_owned()));
            return Some(());
        }
        let (mark, rest) = line.split_at_checked(2)?;
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        let step = match mark {
            "C:" => Step::Send([rest.as_bytes(), b"\r\n"].concat()),
            "R:" => Step::Send(unescape(rest)?),
            "S:" => {
                let mut words = rest.split(' ');
                let code = words.next()?.parse().ok()?;
                let enhanced = words.next().filter(|word| is_enhanced(word)).map(str::to_owned);
                Step::Expect { code, enhanced }
            }
            "S~" => Step::Expect { code: rest.split(' ').next()?.parse().ok()?, enhanced: None },
            "X:" => Step::End,
            _ => return None,
        };
        self.steps.push((number, step));
        Some(())
    }

    /// Plays it against a server; every difference, with its line. With `codes_only`, enhanced codes
    /// are not compared. A reply that has not come after `patience` is taken for none.
    #[must_use]
    pub fn play(
        &self,
        address: SocketAddr,
        codes_only: bool,
        patience: Duration,
    ) -> Vec<Difference> {
        match Talk::connect(address) {
            Ok(talk) => self.play_over(talk, codes_only, patience),
            Err(error) => vec![difference(0, "a connection", &error.to_string())],
        }
    }

    /// The same over a connection whose greeting has not been read.
    #[must_use]
    pub fn play_over(
        &self,
        mut talk: Talk,
        codes_only: bool,
        patience: Duration,
    ) -> Vec<Difference> {
        talk.wait_for_replies(patience);
        let mut differences = Vec::new();
        if self.begins_behind_the_greeting() {
            match talk.reply() {
                Ok(reply) if reply.code == 220 => {}
                other => differences.push(difference(0, "a greeting", &came(&other))),
            }
        }
        differences.extend(self.go_on(talk, codes_only));
        differences
    }

    /// Whether its first line is about what comes after the greeting.
    #[must_use]
    pub fn begins_behind_the_greeting(&self) -> bool {
        !matches!(self.steps.first(), Some((_, Step::Expect { .. } | Step::End)))
    }

    /// Plays it in a session that has been greeted.
    #[must_use]
    pub fn go_on(&self, mut talk: Talk, codes_only: bool) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (line, step) in &self.steps {
            match step {
                Step::Send(octets) => {
                    // If the server is gone, the next reply tells.
                    let _sent = talk.send(octets);
                }
                Step::Expect { code, enhanced } => {
                    let reply = talk.reply();
                    let fits = reply.as_ref().is_ok_and(|reply| {
                        let same = enhanced.as_deref() == reply.enhanced();
                        reply.code == *code && (codes_only || enhanced.is_none() || same)
                    });
                    if !fits {
                        let expected =
                            format!("{code} {}", enhanced.as_deref().unwrap_or_default());
                        differences.push(difference(*line, expected.trim_end(), &came(&reply)));
                    }
                    if reply.is_err() {
                        return differences;
                    }
                }
                Step::End => match talk.rest() {
                    Ok(octets) if octets.is_empty() => {}
                    Ok(octets) => {
                        let text = String::from_utf8_lossy(&octets).into_owned();
                        differences.push(difference(*line, "the end", &text));
                    }
                    Err(error) => {
                        differences.push(difference(*line, "the end", &error.to_string()));
                    }
                },
            }
        }
        differences
    }
}

fn difference(line: usize, expected: &str, came: &str) -> Difference {
    Difference { line, expected: expected.to_owned(), came: came.to_owned() }
}

fn came(reply: &std::io::Result<crate::talk::Reply>) -> String {
    match reply {
        Ok(reply) => reply.to_string(),
        Err(error) => format!("no reply ({error})"),
    }
}

fn is_enhanced(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u16>().is_ok())
}

/// Replaces the escapes of an `R:` line; `None` if one is not understood.
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        if octet != b'\\' {
            out.push(octet);
            continue;
        }
        let (&kind, after) = rest.split_first()?;
        rest = after;
        match kind {
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b'\\' => out.push(b'\\'),
            b'x' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            b'e' => {
                let end = rest.iter().position(|&octet| octet == b'}')?;
                let count: usize = std::str::from_utf8(rest.get(1..end)?).ok()?.parse().ok()?;
                let repeated = *rest.get(end + 1)?;
                out.extend(std::iter::repeat_n(repeated, count));
                rest = &rest[end + 2..];
            }
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{Step, Transcript, unescape};

    #[test]
    fn escapes_become_the_octets_they_name() {
        assert_eq!(unescape(r"a\r\n\0\x41\\\e{3}z").as_deref(), Some(&b"a\r\n\0A\\zzz"[..]));
        assert_eq!(unescape(r"\q"), None);
    }

    #[test]
    fn every_transcript_of_the_repository_is_understood_and_expects_something() {
        for transcript in Transcript::all() {
            let expects =
                transcript.steps.iter().any(|(_, step)| matches!(step, Step::Expect { .. }));
            assert!(expects, "{}", transcript.name);
        }
    }
}
