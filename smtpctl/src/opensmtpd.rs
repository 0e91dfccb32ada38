//! Words of OpenSMTPD's `smtpctl`, which has the same name, so that old scripts keep working.
//!
//! One table from their words to ours, applied before the command line is read. None of ours
//! begins like one of theirs.

use std::ffi::{OsStr, OsString};

use mailroot_common::control::{Kind, Problem};

/// Their words; our words, where `ID` stands for what follows theirs (`all` for everything).
const TABLE: &[(&[&str], &[&str])] = &[
    (&["show", "queue"], &["queue", "list", "-o", "plain"]),
    (&["show", "status"], &["status"]),
    (&["show", "stats"], &["stats", "-o", "plain"]),
    (&["monitor"], &["stats", "--watch=1s"]),
    (&["show", "routes"], &["queue", "summary", "--by", "destination"]),
    (&["show", "relays"], &["queue", "summary", "--by", "destination"]),
    (&["show", "hosts"], &["queue", "summary", "--by", "destination"]),
    (&["show", "hoststats"], &["queue", "summary", "--by", "destination"]),
    (&["show", "envelope"], &["queue", "show", "ID"]),
    (&["show", "message"], &["queue", "show", "--content", "ID"]),
    (&["schedule"], &["queue", "retry", "ID"]),
    (&["remove"], &["queue", "remove", "--yes", "ID"]),
    (&["pause", "mta"], &["service", "pause", "--outbound"]),
    (&["resume", "mta"], &["service", "resume", "--outbound"]),
    (&["pause", "smtp"], &["service", "pause", "--inbound"]),
    (&["resume", "smtp"], &["service", "resume", "--inbound"]),
    (&["pause", "mda"], &["service", "pause", "--local"]),
    (&["resume", "mda"], &["service", "resume", "--local"]),
    (&["log", "brief"], &["logs", "level", "configured"]),
    (&["log", "verbose"], &["logs", "level", "debug"]),
    (&["discover"], &["queue", "adopt"]),
    (&["encrypt"], &["user", "hash"]),
    (&["pause", "envelope"], &["queue", "hold", "ID"]),
    (&["resume", "envelope"], &["queue", "release", "ID"]),
];

/// Their words for which there is none of ours, and what does the same.
const POINTERS: &[(&str, &str)] = &[
    ("untrace", "smtpctl logs level configured; more is told with logs level debug"),
    ("spf", "smtpctl doctor spf looks at the records of your domains; for others: dig TXT DOMAIN"),
];

/// Rewrites a command line, the program's name first, if it begins with OpenSMTPD's words.
///
/// # Errors
///
/// A problem of kind usage if their word needs an id and none follows.
pub fn rewrite(line: Vec<OsString>) -> Result<Vec<OsString>, Problem> {
    let begin = options(&line);
    let words = line.get(begin..).unwrap_or_default();
    if let Some((their, ours)) = POINTERS.iter().find(|(their, _)| begins(words, &[their])) {
        let detail = format!("smtpctl {their} is a word of OpenSMTPD that is none here");
        return Err(Problem::new("client", Kind::Usage, detail).hint(*ours));
    }
    let Some((theirs, ours)) = TABLE.iter().find(|(theirs, _)| begins(words, theirs)) else {
        return Ok(line);
    };
    let mut rest = words[theirs.len()..].iter().cloned();
    let mut out: Vec<OsString> = line[..begin].to_vec();
    for word in *ours {
        if *word != "ID" {
            out.push(word.into());
            continue;
        }
        let id = rest.next().ok_or_else(|| {
            let detail = format!("smtpctl {} needs an id", theirs.join(" "));
            Problem::new("client", Kind::Usage, detail)
                .hint(format!("ours is: smtpctl {}", ours.join(" ")))
        })?;
        out.push(if id == OsStr::new("all") { "--all".into() } else { id });
    }
    out.extend(rest);
    Ok(out)
}

/// Where the command begins: behind the program's name and options of ours.
fn options(line: &[OsString]) -> usize {
    const WITH_VALUE: [&str; 8] =
        ["--home", "--socket", "-s", "--server", "-o", "--output", "-H", "--host"];
    let mut at = 1;
    while let Some(word) = line.get(at).and_then(|word| word.to_str())
        && word.starts_with('-')
    {
        at += if WITH_VALUE.contains(&word) { 2 } else { 1 };
    }
    at.min(line.len())
}

fn begins(words: &[OsString], theirs: &[&str]) -> bool {
    words.len() >= theirs.len() && words.iter().zip(theirs).all(|(word, their)| word == their)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    fn rewritten(line: &str) -> String {
        let words = std::iter::once("smtpctl").chain(line.split_whitespace()).map(Into::into);
        let out: Vec<_> = rewrite(words.collect()).unwrap();
        out[1..].join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn their_words_become_ours() {
        for (theirs, ours) in [
            ("show queue", "queue list -o plain"),
            ("show status", "status"),
            ("show envelope 6FZK3QB27N5C", "queue show 6FZK3QB27N5C"),
            ("show message 6FZK3QB27N5C", "queue show --content 6FZK3QB27N5C"),
            ("schedule 6FZK3QB27N5C", "queue retry 6FZK3QB27N5C"),
            ("schedule all", "queue retry --all"),
            ("remove all", "queue remove --yes --all"),
            ("pause mta", "service pause --outbound"),
            ("resume smtp", "service resume --inbound"),
            ("pause mda", "service pause --local"),
            ("log brief", "logs level configured"),
            ("log verbose", "logs level debug"),
            ("discover /x", "queue adopt /x"),
            ("pause envelope 6FZK3QB27N5C", "queue hold 6FZK3QB27N5C"),
            ("resume envelope all -q", "queue release --all -q"),
            ("--home /x -q show queue", "--home /x -q queue list -o plain"),
            ("--home=/x schedule all", "--home=/x queue retry --all"),
            ("show stats", "stats -o plain"),
            ("monitor", "stats --watch=1s"),
            ("encrypt", "user hash"),
        ] {
            assert_eq!(rewritten(theirs), ours);
            let line = std::iter::once("smtpctl").chain(ours.split(' '));
            assert!(Args::try_parse_from(line).is_ok(), "{ours}");
        }
    }

    #[test]
    fn our_words_stay() {
        for line in
            ["", "queue list", "status", "-q", "--home", "-s show list", "server resume x", "show"]
        {
            assert_eq!(rewritten(line), line);
        }
        for line in ["remove", "untrace smtp", "spf walk"] {
            let words = std::iter::once("smtpctl").chain(line.split(' ')).map(Into::into);
            assert_eq!(rewrite(words.collect()).unwrap_err().exit, 2, "{line}");
        }
    }
}
