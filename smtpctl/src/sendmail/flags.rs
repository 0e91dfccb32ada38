//! The command line of `sendmail`, as forty years of callers write it.
//!
//! In: words. Out: what is wanted. Read as getopt(3) would: letters in a cluster, values attached or
//! behind a blank, `--` before addresses. What other programs of this name need and this one does not
//! is passed over; mail matters more than a letter nobody knows.

use std::ffi::OsString;
use std::iter::Peekable;
use std::vec::IntoIter;

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// Hand a message in.
    #[default]
    Deliver,
    /// Speak SMTP over standard input and output (`-bs`).
    Dialogue,
    /// List the queue (`-bp`).
    List,
    /// Look what is wrong in the file of aliases (`-bi`, `-I`).
    Aliases,
    /// Look whether addresses would be taken (`-bv`).
    Verify,
    /// Try mail that waits now (`-q`).
    Flush(Flush),
    /// Nothing: an interval at which a daemon is to do something.
    Nothing,
    /// Tell the version.
    Version,
}

/// Which mail is to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// All.
    All,
    /// This message.
    Id(String),
    /// With this text in a recipient.
    Recipient(String),
    /// With this text in the sender.
    Sender(String),
}

/// A command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// What is to be done.
    pub(super) mode: Mode,
    /// Recipients are in the message (`-t`).
    pub(super) reads_recipients: bool,
    /// A dot alone on a line is content (`-i`).
    pub(super) keeps_dots: bool,
    /// Show what is said (`-v`).
    pub(super) verbose: bool,
    /// The envelope's sender (`-f`, `-r`); empty or `<>` is nobody.
    pub(super) sender: Option<String>,
    /// The sender's name in people's words (`-F`).
    pub(super) name: Option<String>,
    /// What the body is said to be (`-B`).
    pub(super) body: Option<String>,
    /// When reports are wanted (`-N`).
    pub(super) notify: Option<String>,
    /// How much of the message a report returns (`-R`).
    pub(super) returned: Option<String>,
    /// The sender's name for the transaction (`-V`).
    pub(super) envid: Option<String>,
    /// Addresses.
    pub(super) recipients: Vec<String>,
    /// Options nobody knows.
    pub(super) unknown: Vec<String>,
}

/// A command line that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Usage(pub(super) String);

/// Letters whose value is of no use here: the lists of options of other programs of this name.
const IGNORED_WITH_VALUE: &str = "ACLOXhpDM";
/// Letters without a value that are of no use here.
const IGNORED: &str = "mnUGs";

/// Reads a command line without the program's name.
pub(super) fn read(words: Vec<OsString>) -> Result<Flags, Usage> {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| word.into_string().map_err(|_| Usage("an argument is not UTF-8".to_owned())))
        .collect::<Result<_, _>>()?;
    let mut flags = Flags::default();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--" => {
                flags.recipients.extend(words);
                break;
            }
            "--version" => flags.mode = Mode::Version,
            "-" => flags.recipients.push(word),
            _ if word.starts_with("--") => flags.unknown.push(word),
            _ => match word.strip_prefix('-') {
                Some(cluster) => flags.take(cluster, &mut words)?,
                None => flags.recipients.push(word),
            },
        }
    }
    Ok(flags)
}

/// The value of a letter: the rest of its cluster, or the next word.
fn value(
    letter: char,
    rest: &str,
    words: &mut Peekable<IntoIter<String>>,
) -> Result<String, Usage> {
    if rest.is_empty() {
        words.next().ok_or_else(|| Usage(format!("-{letter} needs a value")))
    } else {
        Ok(rest.to_owned())
    }
}

impl Flags {
    fn take(&mut self, cluster: &str, words: &mut Peekable<IntoIter<String>>) -> Result<(), Usage> {
        for (at, letter) in cluster.char_indices() {
            let rest = cluster.get(at + letter.len_utf8()..).unwrap_or_default();
            match letter {
                't' => self.reads_recipients = true,
                'i' => self.keeps_dots = true,
                'I' => self.mode = Mode::Aliases,
                'v' => self.verbose = true,
                _ if IGNORED.contains(letter) => {}
                'd' | 'e' => return Ok(()),
                'q' => {
                    self.mode = flush(rest, words)?;
                    return Ok(());
                }
                'b' | 'f' | 'r' | 'F' | 'B' | 'N' | 'R' | 'V' | 'o' => {
                    return self.set(letter, value(letter, rest, words)?);
                }
                _ if IGNORED_WITH_VALUE.contains(letter) => {
                    return value(letter, rest, words).map(drop);
                }
                _ => self.unknown.push(format!("-{letter}")),
            }
        }
        Ok(())
    }

    fn set(&mut self, letter: char, value: String) -> Result<(), Usage> {
        match letter {
            'b' => self.mode = mode(&value)?,
            'f' | 'r' => self.sender = Some(value),
            'F' => self.name = Some(value),
            'B' => self.body = Some(body(&value)?),
            'N' => self.notify = Some(notify(&value)?),
            'R' => self.returned = Some(returned(&value)?),
            'V' => self.envid = Some(envid(&value)?),
            // -oi is the one of the old options that has a meaning left.
            _ => self.keeps_dots |= value == "i",
        }
        Ok(())
    }
}

fn mode(word: &str) -> Result<Mode, Usage> {
    let refused = |what: &str| Err(Usage(what.to_owned()));
    match word {
        "m" => Ok(Mode::Deliver),
        "s" => Ok(Mode::Dialogue),
        "p" => Ok(Mode::List),
        "i" => Ok(Mode::Aliases),
        "v" => Ok(Mode::Verify),
        "d" | "D" | "l" => refused("the daemon is started with: systemctl start mailroot"),
        "t" => refused("addresses are looked at with: smtpctl route show ADDRESS"),
        "h" | "H" => refused("there is no host status to be shown; see: smtpctl stats"),
        _ => Err(Usage(format!("-b{word} is not known"))),
    }
}

fn flush(rest: &str, words: &mut Peekable<IntoIter<String>>) -> Result<Mode, Usage> {
    let mut chars = rest.chars();
    let Some(first) = chars.next() else { return Ok(Mode::Flush(Flush::All)) };
    let rest = chars.as_str();
    Ok(match first {
        'I' => Mode::Flush(Flush::Id(value('q', rest, words)?)),
        'R' => Mode::Flush(Flush::Recipient(value('q', rest, words)?)),
        'S' => Mode::Flush(Flush::Sender(value('q', rest, words)?)),
        '0'..='9' => Mode::Nothing,
        _ => return Err(Usage(format!("-q{first}{rest} is not known: -q, -qI, -qR and -qS are"))),
    })
}

fn body(word: &str) -> Result<String, Usage> {
    match word.to_ascii_uppercase().as_str() {
        known @ ("7BIT" | "8BITMIME") => Ok(known.to_owned()),
        _ => Err(Usage(format!("-B {word}: write 7BIT or 8BITMIME"))),
    }
}

/// RFC 3461 section 4.1.
fn notify(word: &str) -> Result<String, Usage> {
    let upper = word.to_ascii_uppercase();
    let known = |part: &str| ["SUCCESS", "FAILURE", "DELAY"].contains(&part);
    if upper == "NEVER" || upper.split(',').all(known) {
        return Ok(upper);
    }
    Err(Usage(format!("-N {word}: write never, or some of success,failure,delay")))
}

/// RFC 3461 section 4.3.
fn returned(word: &str) -> Result<String, Usage> {
    match word.to_ascii_uppercase().as_str() {
        known @ ("FULL" | "HDRS") => Ok(known.to_owned()),
        _ => Err(Usage(format!("-R {word}: write full or hdrs"))),
    }
}

/// RFC 3461 section 4.4; what xtext cannot hold is escaped.
fn envid(word: &str) -> Result<String, Usage> {
    if word.is_empty() || word.len() > 100 || !word.is_ascii() {
        return Err(Usage("-V takes 1 to 100 octets of ASCII".to_owned()));
    }
    let mut text = String::new();
    for octet in word.bytes() {
        match octet {
            b'+' | b'=' | 0..=32 | 127 => text.push_str(&format!("+{octet:02X}")),
            _ => text.push(char::from(octet)),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Flags {
        read(line.split_whitespace().map(OsString::from).collect()).unwrap()
    }

    fn refused(line: &str) -> String {
        read(line.split_whitespace().map(OsString::from).collect()).unwrap_err().0
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn every_caller_is_understood() {
        for (line, sender, name, reads, dots, to) in [
            ("-FCronDaemon -i -B8BITMIME -oem root", None, some("CronDaemon"), false, true, "root"),
            (
                "-FCronDaemon -i -odi -oem -oi -t -f root",
                some("root"),
                some("CronDaemon"),
                true,
                true,
                "",
            ),
            ("-FCronDaemon -odi -oem -oi -t", None, some("CronDaemon"), true, true, ""),
            ("-FAnacron -odi root", None, some("Anacron"), false, false, "root"),
            ("-i -B8BITMIME a@b.test", None, None, false, true, "a@b.test"),
            ("-t", None, None, true, false, ""),
            ("-t -i -fa@b.test", some("a@b.test"), None, true, true, ""),
            ("-ti -f a@b.test", some("a@b.test"), None, true, true, ""),
            ("-oi -fa@b.test -t", some("a@b.test"), None, true, true, ""),
            ("-f a@b.test c@d.test", some("a@b.test"), None, false, false, "c@d.test"),
            (
                "-oem -oi -f a@b.test -- c@d.test e@f.test",
                some("a@b.test"),
                None,
                false,
                true,
                "c@d.test e@f.test",
            ),
            ("-i -m -f a@b.test -- c@d.test", some("a@b.test"), None, false, true, "c@d.test"),
            ("-t -oi -oem", None, None, true, true, ""),
            ("-r <> c@d.test", some("<>"), None, false, false, "c@d.test"),
            (
                "-Am -G -U -n -L tag -X /dev/null -C /etc/x -O a=b -h 3 -p smtp -d0.1 -om -o7 -oee -em root",
                None,
                None,
                false,
                false,
                "root",
            ),
        ] {
            let got = flags(line);
            assert_eq!((got.sender, got.name), (sender, name), "{line}");
            assert_eq!((got.reads_recipients, got.keeps_dots), (reads, dots), "{line}");
            assert_eq!(got.recipients.join(" "), to, "{line}");
            assert_eq!((got.mode, got.unknown), (Mode::Deliver, Vec::<String>::new()), "{line}");
        }
    }

    #[test]
    fn modes_are_told_apart() {
        let id = |text: &str| Mode::Flush(Flush::Id(text.to_owned()));
        for (line, mode) in [
            ("-bm x", Mode::Deliver),
            ("-bs", Mode::Dialogue),
            ("-b s", Mode::Dialogue),
            ("-bp", Mode::List),
            ("-bi", Mode::Aliases),
            ("-I", Mode::Aliases),
            ("-bv x", Mode::Verify),
            ("-q", Mode::Flush(Flush::All)),
            ("-qI6FZK", id("6FZK")),
            ("-qI 6FZK", id("6FZK")),
            ("-qR x.test", Mode::Flush(Flush::Recipient("x.test".to_owned()))),
            ("-qSx.test", Mode::Flush(Flush::Sender("x.test".to_owned()))),
            ("-q15m", Mode::Nothing),
            ("--version", Mode::Version),
        ] {
            assert_eq!(flags(line).mode, mode, "{line}");
        }
        for (line, words) in [
            ("-bd", "systemctl start mailroot"),
            ("-bD", "systemctl start mailroot"),
            ("-bt", "smtpctl route show"),
            ("-bh", "smtpctl stats"),
            ("-bH", "smtpctl stats"),
            ("-bz", "not known"),
            ("-f", "needs a value"),
            ("-qX1", "-qI"),
            ("-B binary x", "8BITMIME"),
            ("-N sometimes x", "success"),
            ("-R some x", "full"),
        ] {
            assert!(refused(line).contains(words), "{line}: {}", refused(line));
        }
    }

    #[test]
    fn wishes_for_reports_become_parameters() {
        let got = flags("-N success,failure -R hdrs -V a+b=c -B8bitmime x");
        assert_eq!(got.notify, some("SUCCESS,FAILURE"));
        assert_eq!((got.returned, got.body), (some("HDRS"), some("8BITMIME")));
        assert_eq!(got.envid, some("a+2Bb+3Dc"));
        assert_eq!(flags("-N never x").notify, some("NEVER"));
    }

    #[test]
    fn letters_nobody_knows_do_not_stop_mail() {
        let got = flags("-iYx --fast root");
        assert!(got.keeps_dots);
        assert_eq!(
            (got.unknown.join(" "), got.recipients.join(" ")),
            ("-Y -x --fast".to_owned(), "root".to_owned())
        );
    }
}
