//! Mappings and lists, in block style by indentation and in flow style by brackets.

use std::collections::HashMap;

use super::DEPTH_MAX;
use super::cursor::{Cursor, Reading, Style};
use crate::config::diagnostic::Diagnostic;
use crate::config::node::{Key, Kind, Node};

impl Cursor<'_> {
    /// The one document of the text. A text without content is an empty mapping.
    pub(super) fn document(&mut self) -> Reading<Node> {
        if self.next_content()? && self.at_marker("---") {
            self.pos += 3;
            self.end_of_line()?;
        }
        if !self.next_content()? {
            return Ok(Node { span: 0..0, kind: Kind::Map(Vec::new()) });
        }
        let column = self.column();
        let node = self.block(column)?;
        if self.next_content()? {
            self.refuse_marker()?;
            return self.error(
                "E0004",
                "this line stands further left or right than its neighbours",
                self.pos..self.line_end(),
                "indented unlike the lines above",
                "indent the keys of one section alike",
            );
        }
        Ok(node)
    }

    fn at_marker(&self, marker: &str) -> bool {
        self.column() == 0
            && self.text[self.pos..].starts_with(marker)
            && self.is_gap(self.pos + marker.len())
    }

    fn refuse_marker(&self) -> Reading<()> {
        let directive = self.column() == 0 && self.peek() == b'%';
        if directive || self.at_marker("---") || self.at_marker("...") {
            return self.error(
                "E0011",
                "a file is one document",
                self.pos..self.line_end(),
                "begins or ends another",
                "remove this line; each virtual server has a file of its own",
            );
        }
        Ok(())
    }

    fn descend(&mut self) -> Reading<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let title = format!("values lie more than {DEPTH_MAX} deep within each other");
            return self.error(
                "E0012",
                title,
                self.pos..self.pos + 1,
                "too deep",
                "no setting is nested so deep",
            );
        }
        Ok(())
    }

    /// A value in block style whose first character is at the cursor, in this column.
    fn block(&mut self, column: usize) -> Reading<Node> {
        self.refuse_marker()?;
        self.descend()?;
        let node = if self.peek() == b'-' && self.is_gap(self.pos + 1) {
            self.block_list(column)?
        } else if matches!(self.peek(), b'[' | b'{') {
            self.inline()?
        } else {
            let start = self.pos;
            let node = self.scalar(Style::Block)?;
            let end = self.pos;
            self.skip_blanks()?;
            if self.is_colon(self.pos, Style::Block) {
                self.pos = start;
                self.block_map(column)?
            } else {
                self.pos = end;
                self.end_of_line()?;
                node
            }
        };
        self.depth -= 1;
        Ok(node)
    }

    fn block_list(&mut self, column: usize) -> Reading<Node> {
        let start = self.pos;
        let mut items = Vec::new();
        loop {
            let dash = self.pos;
            self.pos += 1;
            self.skip_blanks()?;
            items.push(if self.ends_line(self.pos) {
                self.value_below(column + 1, dash..dash + 1)?
            } else {
                let inner = self.column();
                self.block(inner)?
            });
            let end = self.pos;
            let more = self.next_content()?;
            let here = self.column();
            if more && here > column {
                return self.stray_line();
            }
            let next = more && here == column && self.peek() == b'-' && self.is_gap(self.pos + 1);
            if !next {
                return Ok(Node { span: start..end, kind: Kind::List(items) });
            }
        }
    }

    /// A value on the lines below its key or dash, at least in this column, or nothing.
    fn value_below(&mut self, least: usize, owner: std::ops::Range<usize>) -> Reading<Node> {
        let back = self.pos;
        if self.next_content()? {
            let column = self.column();
            let list_of_key =
                column + 1 == least && self.peek() == b'-' && self.is_gap(self.pos + 1);
            let under_key = self.octet(owner.start) != b'-' || !self.is_gap(owner.start + 1);
            if column >= least || (list_of_key && under_key) {
                return self.block(column);
            }
        }
        self.pos = back;
        Ok(Node { span: owner, kind: Kind::Scalar { text: String::new(), plain: true } })
    }

    fn block_map(&mut self, column: usize) -> Reading<Node> {
        let start = self.pos;
        let mut pairs = Pairs::default();
        loop {
            let key = self.key(Style::Block)?;
            self.skip_blanks()?;
            let value = if self.ends_line(self.pos) {
                self.value_below(column + 1, key.span.clone())?
            } else {
                self.inline()?
            };
            let end = self.pos;
            pairs.push(key, value, self);
            let more = self.next_content()?;
            let here = self.column();
            if more && here > column {
                return self.stray_line();
            }
            if !more || here < column {
                return Ok(Node { span: start..end, kind: Kind::Map(pairs.pairs) });
            }
            self.refuse_marker()?;
            if self.peek() == b'-' && self.is_gap(self.pos + 1) {
                return self.error(
                    "E0004",
                    "a list item stands among keys",
                    self.pos..self.line_end(),
                    "to which key does it belong?",
                    "indent the list deeper than its key",
                );
            }
        }
    }

    fn stray_line<T>(&self) -> Reading<T> {
        self.error(
            "E0004",
            "this line is indented deeper than the one it follows",
            self.pos..self.line_end(),
            "belongs to nothing above",
            "indent it like its neighbours; a value must stand on one line",
        )
    }

    /// A key and its colon.
    fn key(&mut self, style: Style) -> Reading<Key> {
        let start = self.pos;
        if matches!(self.peek(), b'[' | b'{') {
            let end = self.line_end();
            return self.error(
                "E0007",
                "a key is a word",
                start..end,
                "not a word",
                "write  key: value",
            );
        }
        let node = self.scalar(style)?;
        let Kind::Scalar { text, plain } = node.kind else {
            return self.error(
                "E0007",
                "a key is a word",
                node.span,
                "not a word",
                "write  key: value",
            );
        };
        self.skip_blanks()?;
        let quoted_colon = !plain && style == Style::Flow && self.peek() == b':';
        if !self.is_colon(self.pos, style) && !quoted_colon {
            let missing = node.span;
            let (label, help) =
                ("no colon after it", "write  key: value  with a blank after the colon");
            return self.error("E0013", "a key with its value belongs here", missing, label, help);
        }
        self.pos += 1;
        if text == "<<" {
            let help = "write the keys out";
            return self.error("E0007", "merge keys are not used here", node.span, "merge", help);
        }
        Ok(Key { text, span: node.span })
    }

    /// A value behind its key, or a whole flow value: the line ends after it.
    fn inline(&mut self) -> Reading<Node> {
        let node = self.flow_value(Style::Block)?;
        self.skip_blanks()?;
        if self.is_colon(self.pos, Style::Block) && node.text().is_some() {
            let help = "put the value in quotes, or begin the inner key on a new line";
            let span = node.span.start..self.pos + 1;
            return self.error("E0006", "a second key stands on this line", span, "a key?", help);
        }
        self.end_of_line()?;
        Ok(node)
    }

    fn flow_value(&mut self, style: Style) -> Reading<Node> {
        match self.peek() {
            b'[' => self.flow_list(),
            b'{' => self.flow_map(),
            _ => self.scalar(style),
        }
    }

    /// After an item: true if another may follow, false after the closing bracket.
    fn flow_more(&mut self, close: u8, open: usize) -> Reading<bool> {
        let more = self.next_content()?;
        match self.peek() {
            b',' => {
                self.pos += 1;
                Ok(true)
            }
            octet if octet == close => {
                self.pos += 1;
                Ok(false)
            }
            _ if !more => self.unclosed(open),
            _ => {
                let title = format!("a comma or {} belongs here", char::from(close));
                let end = self.line_end();
                self.error(
                    "E0014",
                    title,
                    self.pos..end,
                    "unexpected",
                    "put values with such signs in quotes",
                )
            }
        }
    }

    fn unclosed<T>(&self, open: usize) -> Reading<T> {
        self.error(
            "E0014",
            "this bracket is never closed",
            open..open + 1,
            "opened here",
            "close it",
        )
    }

    fn flow_list(&mut self) -> Reading<Node> {
        self.descend()?;
        let open = self.pos;
        let mut items = Vec::new();
        self.pos += 1;
        loop {
            if !self.next_content()? {
                return self.unclosed(open);
            }
            if self.peek() == b']' {
                self.pos += 1;
                break;
            }
            items.push(self.flow_value(Style::Flow)?);
            if !self.flow_more(b']', open)? {
                break;
            }
        }
        self.depth -= 1;
        Ok(Node { span: open..self.pos, kind: Kind::List(items) })
    }

    fn flow_map(&mut self) -> Reading<Node> {
        self.descend()?;
        let open = self.pos;
        let mut pairs = Pairs::default();
        self.pos += 1;
        loop {
            if !self.next_content()? {
                return self.unclosed(open);
            }
            if self.peek() == b'}' {
                self.pos += 1;
                break;
            }
            let key = self.key(Style::Flow)?;
            if !self.next_content()? {
                return self.unclosed(open);
            }
            let value = if matches!(self.peek(), b',' | b'}') {
                let kind = Kind::Scalar { text: String::new(), plain: true };
                Node { span: key.span.clone(), kind }
            } else {
                self.flow_value(Style::Flow)?
            };
            pairs.push(key, value, self);
            if !self.flow_more(b'}', open)? {
                break;
            }
        }
        self.depth -= 1;
        Ok(Node { span: open..self.pos, kind: Kind::Map(pairs.pairs) })
    }
}

/// The pairs of a mapping under way, with an index so that a large one stays linear.
#[derive(Default)]
struct Pairs {
    pairs: Vec<(Key, Node)>,
    places: HashMap<String, usize>,
}

impl Pairs {
    fn push(&mut self, key: Key, value: Node, cursor: &mut Cursor<'_>) {
        if let Some(&first) = self.places.get(&key.text) {
            let title = format!("the key \"{}\" stands twice", key.text);
            let before = self.pairs[first].0.span.clone();
            cursor.duplicates.push(
                Diagnostic::error("E0108", title)
                    .at(cursor.source, key.span, "second time")
                    .at(cursor.source, before, "first time")
                    .help("remove one of them"),
            );
            return;
        }
        self.places.insert(key.text.clone(), self.pairs.len());
        self.pairs.push((key, value));
    }
}
