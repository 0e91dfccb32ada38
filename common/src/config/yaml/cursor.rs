//! Walks over the text: blanks, comments, line ends, and values of one line.

use std::ops::Range;
use std::sync::Arc;

use crate::config::diagnostic::{Diagnostic, Source};
use crate::config::node::{Kind, Node};

/// What reading a piece comes to; a diagnostic is large, hence the box.
pub(super) type Reading<T> = Result<T, Box<Diagnostic>>;

/// A place in the text.
pub(super) struct Cursor<'s> {
    pub(super) source: &'s Arc<Source>,
    pub(super) text: &'s str,
    pub(super) pos: usize,
    pub(super) depth: usize,
    /// Keys that stand twice; reading goes on after them.
    pub(super) duplicates: Vec<Diagnostic>,
}

/// Where a plain value stands: flow style ends it earlier.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Block,
    Flow,
}

impl<'s> Cursor<'s> {
    pub(super) fn new(source: &'s Arc<Source>) -> Self {
        Self { source, text: &source.text, pos: 0, depth: 0, duplicates: Vec::new() }
    }

    /// The octet at the cursor; zero at the end, which no text contains.
    pub(super) fn peek(&self) -> u8 {
        self.octet(self.pos)
    }

    pub(super) fn octet(&self, at: usize) -> u8 {
        self.text.as_bytes().get(at).copied().unwrap_or(0)
    }

    /// Whether the line, or the text, ends at this octet.
    pub(super) fn ends_line(&self, at: usize) -> bool {
        matches!(self.octet(at), 0 | b'\n' | b'\r')
    }

    /// Whether a word ends before this octet.
    pub(super) fn is_gap(&self, at: usize) -> bool {
        self.ends_line(at) || matches!(self.octet(at), b' ' | b'\t')
    }

    /// Octets from the start of the line to the cursor: only blanks stand before what it is used for.
    pub(super) fn column(&self) -> usize {
        self.pos - self.text[..self.pos].rfind('\n').map_or(0, |at| at + 1)
    }

    pub(super) fn error<T>(
        &self,
        code: &'static str,
        title: impl Into<String>,
        span: Range<usize>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Reading<T> {
        let diagnostic = Diagnostic::error(code, title).at(self.source, span, label).help(help);
        Err(Box::new(diagnostic))
    }

    /// Passes blanks within a line, and a comment if one follows them.
    pub(super) fn skip_blanks(&mut self) -> Reading<()> {
        let start = self.pos;
        while self.peek() == b' ' {
            self.pos += 1;
        }
        if self.peek() == b'\t' {
            return self.error(
                "E0005",
                "a tab stands where blanks belong",
                self.pos..self.pos + 1,
                "tab",
                "indent with blanks; most editors can turn tabs into them",
            );
        }
        let gap = self.pos > start || self.pos == 0 || self.octet(self.pos - 1) == b'\n';
        if self.peek() == b'#' && gap {
            while !self.ends_line(self.pos) {
                self.pos += 1;
            }
        }
        Ok(())
    }

    /// Passes blanks, comments and line ends; false at the end of the text.
    pub(super) fn next_content(&mut self) -> Reading<bool> {
        loop {
            self.skip_blanks()?;
            match self.peek() {
                b'\r' | b'\n' => self.pos += 1,
                0 => return Ok(false),
                _ => return Ok(true),
            }
        }
    }

    /// The rest of the line must be empty or a comment.
    pub(super) fn end_of_line(&mut self) -> Reading<()> {
        self.skip_blanks()?;
        if self.ends_line(self.pos) {
            return Ok(());
        }
        let end = self.line_end();
        let bracket = self.peek() == b':' && self.octet(self.pos - 1) == b']';
        let help = if bracket {
            "an address in brackets needs quotes: \"[::1]:25\""
        } else {
            "put the whole value in quotes, or begin a new line"
        };
        self.error("E0006", "the value ends before its line does", self.pos..end, "left over", help)
    }

    pub(super) fn line_end(&self) -> usize {
        self.text[self.pos..].find(['\n', '\r']).map_or(self.text.len(), |at| self.pos + at)
    }

    /// Refuses what begins like a part of YAML that is not used here.
    pub(super) fn refuse_foreign(&self, style: Style) -> Reading<()> {
        let end = (self.pos..).find(|&at| self.is_gap(at)).unwrap_or(self.pos);
        let word = &self.text[self.pos..end];
        let quoted = format!("if it is meant as it stands, put it in quotes: \"{word}\"");
        let (title, help) = match self.peek() {
            b'&' => ("anchors are not used in configuration files", quoted),
            b'*' => ("aliases are not used in configuration files", quoted),
            b'!' => ("tags are not used in configuration files", quoted),
            b'|' | b'>' => {
                ("a value must stand on one line", "write it behind its key, in quotes".to_owned())
            }
            b'%' | b'@' | b'`' | b'#' => ("a value cannot begin with this character", quoted),
            b'?' if self.is_gap(self.pos + 1) => {
                ("keys are written without ?", "write  key: value".to_owned())
            }
            b':' | b'-' if self.is_gap(self.pos + 1) => {
                ("a value cannot begin with this character", quoted)
            }
            b':' | b'?' if style == Style::Flow => {
                ("a value in brackets or braces cannot begin with this character", quoted)
            }
            b',' | b']' | b'}' => {
                ("a value is missing before this character", "write the value".to_owned())
            }
            _ => return Ok(()),
        };
        self.error("E0007", title, self.pos..end.max(self.pos + 1), "not understood", help)
    }

    /// Reads a value of one line, quoted or plain.
    pub(super) fn scalar(&mut self, style: Style) -> Reading<Node> {
        let start = self.pos;
        let (text, plain) = match self.peek() {
            b'\'' => (self.single_quoted()?, false),
            b'"' => (self.double_quoted()?, false),
            _ => {
                self.refuse_foreign(style)?;
                (self.plain(style)?, true)
            }
        };
        Ok(Node { span: start..self.pos, kind: Kind::Scalar { text, plain } })
    }

    /// Whether a colon at this place ends a key.
    pub(super) fn is_colon(&self, at: usize, style: Style) -> bool {
        let flow_end = style == Style::Flow && b",[]{}".contains(&self.octet(at + 1));
        self.octet(at) == b':' && (self.is_gap(at + 1) || flow_end)
    }

    fn plain(&mut self, style: Style) -> Reading<String> {
        let start = self.pos;
        while !self.ends_line(self.pos) {
            match self.peek() {
                b'#' if self.octet(self.pos.wrapping_sub(1)) == b' ' => break,
                b',' | b'[' | b']' | b'{' | b'}' if style == Style::Flow => break,
                b':' if self.is_colon(self.pos, style) => break,
                b'\t' => self.skip_blanks()?,
                _ => self.pos += 1,
            }
        }
        let text = self.text[start..self.pos].trim_end_matches(' ');
        self.pos = start + text.len();
        Ok(text.to_owned())
    }

    fn open_quote<T>(&self, start: usize) -> Reading<T> {
        self.error(
            "E0009",
            "this quote is not closed on its line",
            start..self.line_end().max(start + 1),
            "opened here",
            "close it on the same line",
        )
    }

    fn single_quoted(&mut self) -> Reading<String> {
        let start = self.pos;
        let mut text = String::new();
        self.pos += 1;
        loop {
            let rest = &self.text[self.pos..];
            let Some(c) = rest.chars().next().filter(|_| !self.ends_line(self.pos)) else {
                return self.open_quote(start);
            };
            self.pos += c.len_utf8();
            if c == '\'' {
                if self.peek() != b'\'' {
                    return Ok(text);
                }
                self.pos += 1;
            }
            text.push(c);
        }
    }

    fn double_quoted(&mut self) -> Reading<String> {
        let start = self.pos;
        let mut text = String::new();
        self.pos += 1;
        loop {
            let rest = &self.text[self.pos..];
            let Some(c) = rest.chars().next().filter(|_| !self.ends_line(self.pos)) else {
                return self.open_quote(start);
            };
            match c {
                '"' => {
                    self.pos += 1;
                    return Ok(text);
                }
                '\\' => text.push(self.escape()?),
                _ => {
                    self.pos += c.len_utf8();
                    text.push(c);
                }
            }
        }
    }

    /// The character that a backslash and what follows it stand for.
    fn escape(&mut self) -> Reading<char> {
        let start = self.pos;
        let digits = match self.octet(start + 1) {
            b'x' => 2,
            b'u' => 4,
            b'U' => 8,
            _ => 0,
        };
        let end = start + 2 + digits;
        let found = match self.octet(start + 1) {
            b'"' => Some('"'),
            b'\\' => Some('\\'),
            b'/' => Some('/'),
            b't' => Some('\t'),
            b'n' => Some('\n'),
            b'r' => Some('\r'),
            b'x' | b'u' | b'U' => self
                .text
                .get(start + 2..end)
                .filter(|text| text.bytes().all(|octet| octet.is_ascii_hexdigit()))
                .and_then(|text| u32::from_str_radix(text, 16).ok())
                .and_then(char::from_u32),
            _ => None,
        };
        let Some(c) = found else {
            let said = self.text.get(start + 1..).and_then(|rest| rest.chars().next());
            return self.error(
                "E0010",
                "this escape is not known",
                start..start + 1 + said.map_or(0, char::len_utf8),
                "after a backslash",
                "write \\\\ for a backslash, or use single quotes",
            );
        };
        self.pos = end;
        Ok(c)
    }
}
