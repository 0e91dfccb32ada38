//! Pages of `docs/` as a reader follows them: their fenced blocks, and how what a command printed is compared
//! with what the page shows.
//!
//! Behind the language of a fence stand words that a reader never sees: `on NAME` for the machine,
//! `exits N`, `repeat` for what takes a moment, `needs PROGRAM`, `no-run REASON`, `file NAME` for what is
//! written to a file. A `text` block is what the `sh` block before it prints.

use regex::Regex;

/// A fenced block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The line of its fence, from 1.
    pub line: usize,
    /// The first word behind the fence.
    pub language: String,
    /// On which machine it is run; the first one if absent.
    pub machine: Option<String>,
    /// The exit code it ends with.
    pub exits: i32,
    /// Whether it is run again until what it prints is as shown.
    pub repeats: bool,
    /// A program that it needs, and that is not everywhere.
    pub needs: Option<String>,
    /// Why it is not run.
    pub not_run: Option<String>,
    /// The file that it is written to.
    pub file: Option<String>,
    /// What stands in it.
    pub text: String,
    /// What the page shows of what it prints.
    pub shown: Option<String>,
}

/// The fenced blocks of a page, each `text` block with the one before it.
///
/// # Panics
///
/// When a fence has words that mean nothing, or does not end.
#[must_use]
pub fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut last_end = 0;
    while let Some((number, line)) = lines.next() {
        let Some(words) = line.strip_prefix("```") else { continue };
        let mut block = fence(words, number + 1);
        loop {
            let (at, line) = lines.next().unwrap_or_else(|| panic!("line {}: no end", number + 1));
            if line == "```" {
                last_end = at;
                break;
            }
            block.text.push_str(line);
            block.text.push('\n');
        }
        match found.last_mut() {
            Some(before) if block.language == "text" && before.language == "sh" => {
                assert!(before.shown.is_none(), "line {}: a second text block", block.line);
                before.shown = Some(block.text);
            }
            _ => found.push(block),
        }
    }
    assert!(last_end < page.lines().count(), "{last_end}");
    found
}

fn fence(words: &str, line: usize) -> Block {
    let mut words = words.split(' ');
    let language = words.next().unwrap_or_default().to_owned();
    assert!(!language.is_empty(), "line {line}: a fence without a language");
    let mut block = Block { line, language, ..Block::default() };
    while let Some(word) = words.next() {
        let mut value = || {
            let value = words.next();
            value.unwrap_or_else(|| panic!("line {line}: {word} without a value")).to_owned()
        };
        match word {
            "on" => block.machine = Some(value()),
            "exits" => block.exits = value().parse().unwrap(),
            "repeat" => block.repeats = true,
            "needs" => block.needs = Some(value()),
            "file" => block.file = Some(value()),
            "no-run" => {
                block.not_run = Some(words.by_ref().collect::<Vec<_>>().join(" "));
            }
            _ => panic!("line {line}: {word:?} means nothing behind a fence"),
        }
    }
    block
}

/// The page with what a block prints put in the place of what it shows.
///
/// # Panics
///
/// When the page has no such block.
#[must_use]
pub fn shown_anew(page: &str, block: &Block, printed: &str) -> String {
    let lines: Vec<&str> = page.lines().collect();
    let from = block.line + block.text.lines().count() + 1;
    let fence = lines[from..].iter().position(|line| *line == "```text").unwrap() + from;
    let end = lines[fence + 1..].iter().position(|line| *line == "```").unwrap() + fence + 1;
    let mut out: Vec<&str> = lines[..=fence].to_vec();
    out.extend(printed.trim_end().lines().map(str::trim_end));
    out.extend(&lines[end..]);
    out.join("\n") + "\n"
}

/// What differs from run to run, by words that stay.
pub struct Changing(Vec<(Regex, &'static str)>);

impl Default for Changing {
    fn default() -> Self {
        Self::new()
    }
}

impl Changing {
    /// Ids, moments, spans, sizes, ports, process ids and the version.
    ///
    /// # Panics
    ///
    /// Never: the expressions are constant.
    #[must_use]
    pub fn new() -> Self {
        let rows = [
            (r"\b[0-9A-Z]{12}\b", "ID"),
            (r"\bsid=\w+", "sid=SID"),
            (r"\bmsgid=\S+", "msgid=MSGID"),
            (r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z?)?", "MOMENT"),
            (r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w{3} +\d+ ", "DAY "),
            (r"\b\d\d:\d\d:\d\d(?:\.\d+)?\b", "CLOCK"),
            (r"\b(?:pid)([ =])\d+", "pid${1}N"),
            (r"\b(port|delay|size|octets|rev|ppid)=[\d.]+", "${1}=N"),
            (r"\b\d+(?:\.\d+)?(?:[KMGT]i)?B\b", "SIZE"),
            (r"\b(?:\d+(?:\.\d+)? ?(?:µs|ms|s|m|h|d|w))+\b", "SPAN"),
            (r"\bmailroot \d+\.\d+\.\d+\b", "mailroot VERSION"),
            (r"[ \t]+", " "),
        ];
        Self(rows.map(|(expression, word)| (Regex::new(expression).unwrap(), word)).into())
    }

    /// The lines of a text that are not empty, in the form that stays.
    #[must_use]
    pub fn settled(&self, text: &str) -> Vec<String> {
        let settle = |line: &str| {
            let mut line = line.trim().to_owned();
            for (expression, word) in &self.0 {
                line = expression.replace_all(&line, *word).into_owned();
            }
            line
        };
        text.lines().map(settle).filter(|line| !line.is_empty()).collect()
    }

    /// Whether a program printed what a page shows; a line `...` stands for any lines.
    #[must_use]
    pub fn is_shown(&self, shown: &str, printed: &str) -> bool {
        fits(&self.settled(shown), &self.settled(printed))
    }
}

fn fits(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "..." => {
            (0..=printed.len()).any(|skipped| fits(rest, &printed[skipped..]))
        }
        Some((first, rest)) => printed.first() == Some(first) && fits(rest, &printed[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_their_words_and_what_is_shown_of_them() {
        let page = "a\n```sh on hub exits 3\nx\ny\n```\nprints\n```text\nz 1s\n```\n```sh no-run needs root\nsu\n```\n";
        let found = blocks(page);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].machine.as_deref(), found[0].exits, found[0].line),
            (Some("hub"), 3, 2)
        );
        assert_eq!((found[0].text.as_str(), found[0].shown.as_deref()), ("x\ny\n", Some("z 1s\n")));
        assert_eq!(found[1].not_run.as_deref(), Some("needs root"));
        let anew = shown_anew(page, &found[0], "z 2s\nmore\n");
        assert!(anew.contains("```text\nz 2s\nmore\n```\n```sh no-run"), "{anew}");
    }

    #[test]
    fn what_changes_is_alike_and_nothing_else_is() {
        let changing = Changing::new();
        let shown = "D25JSA850000  a@b.example  246B\n  13:43:54  delivered\n";
        assert!(changing.is_shown(shown, "D25JSV71G000 a@b.example 1.5KiB\n 01:02:03 delivered\n"));
        assert!(!changing.is_shown(shown, "D25JSV71G000 a@c.example 246B\n 01:02:03 delivered\n"));
        assert!(!changing.is_shown(shown, "D25JSV71G000 a@b.example 246B\n"));
        assert!(changing.is_shown("one\n...\nfour\n", "one\ntwo\nthree\nfour\n"));
        assert!(!changing.is_shown("one\n...\nfour\n", "one\ntwo\n"));
        assert!(changing.is_shown("for 2d4h (pid 7)", "for 1s (pid 4711)"));
    }
}
