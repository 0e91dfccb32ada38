//! One form for configuration files: indentation by two, one blank behind colons and dashes, no empty
//! lines in a row.
//!
//! In: a text that can be read. Out: the same text with other blanks. Order, quotes, braces, comments and
//! whatever stands inside them stay. Two proofs are made before anything is handed out: without
//! its blanks the new text is the old one, octet by octet, and its values are those of the old one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::super::diagnostic::{Diagnostic, Source};
use super::super::node::{Key, Kind, Node};
use super::parse;

/// How much deeper each level stands, in columns.
const STEP: usize = 2;

/// The text in its usual form.
///
/// # Errors
///
/// What is wrong with the text; also that it has a shape whose form would not be safe to change.
pub fn format(source: &Arc<Source>) -> Result<String, Vec<Diagnostic>> {
    let old = read(source)?;
    let text = Layout::of(&source.text, &old).text();
    let form = || {
        let title = format!("{} has a shape that is not formatted", source.name);
        vec![
            Diagnostic::error("E0321", title).help("it is good as it is; write it in plain blocks"),
        ]
    };
    let new = Arc::new(Source { name: source.name.clone(), text });
    let again = read(&new).map_err(|_| form())?;
    let is_proved = bare(&new.text).eq(bare(&source.text)) && is_same(&old, &again);
    if is_proved { Ok(new.text.clone()) } else { Err(form()) }
}

fn read(source: &Arc<Source>) -> Result<Node, Vec<Diagnostic>> {
    let (node, duplicates) = parse(source)?;
    if duplicates.is_empty() { Ok(node) } else { Err(duplicates) }
}

/// What is not blank.
fn bare(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| !c.is_whitespace())
}

/// Whether two trees have the same values, wherever they stand.
fn is_same(one: &Node, other: &Node) -> bool {
    match (&one.kind, &other.kind) {
        (Kind::List(ones), Kind::List(others)) => {
            ones.len() == others.len() && ones.iter().zip(others).all(|(a, b)| is_same(a, b))
        }
        (Kind::Map(ones), Kind::Map(others)) => {
            let is_pair =
                |(a, b): (&(Key, Node), &(Key, Node))| a.0.text == b.0.text && is_same(&a.1, &b.1);
            ones.len() == others.len() && ones.iter().zip(others).all(is_pair)
        }
        (one, other) => one == other,
    }
}

/// Where each line of a text is to stand, and which blanks within lines are to be one.
struct Layout<'t> {
    text: &'t str,
    /// Where each line begins.
    starts: Vec<usize>,
    /// The indentation of lines that begin something, by line.
    indents: BTreeMap<usize, usize>,
    /// Lines that go on with what a line before began, and that line.
    within: BTreeMap<usize, usize>,
    /// Blanks to be replaced by one.
    gaps: Vec<Range<usize>>,
}

impl<'t> Layout<'t> {
    fn of(text: &'t str, root: &Node) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(ends).collect();
        let (indents, within) = (BTreeMap::new(), BTreeMap::new());
        let mut layout = Self { text, starts, indents, within, gaps: Vec::new() };
        layout.block(root, 0);
        layout.gaps.sort_by_key(|gap| gap.start);
        layout
    }

    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }

    fn is_flow(&self, node: &Node) -> bool {
        let is_structure = matches!(node.kind, Kind::List(_) | Kind::Map(_));
        is_structure && matches!(self.text.as_bytes().get(node.span.start), Some(b'[' | b'{'))
    }

    /// A value whose own lines stand in this column.
    fn block(&mut self, node: &Node, indent: usize) {
        if self.is_flow(node) || matches!(node.kind, Kind::Scalar { .. }) {
            return self.inline(node, indent);
        }
        match &node.kind {
            Kind::Map(pairs) => {
                for (key, value) in pairs {
                    self.pair(key, value, indent);
                }
            }
            Kind::List(items) => {
                for item in items {
                    self.item(item, indent);
                }
            }
            Kind::Scalar { .. } => {}
        }
    }

    fn pair(&mut self, key: &Key, value: &Node, indent: usize) {
        self.begin(key.span.start, indent);
        if value.span == key.span {
            return;
        }
        if self.line(value.span.start) == self.line(key.span.start) {
            let colon = self.text[key.span.end..value.span.start].find(':');
            if let Some(colon) = colon.map(|at| key.span.end + at) {
                self.gap(colon + 1..value.span.start);
            }
        }
        self.block(value, indent + STEP);
    }

    fn item(&mut self, item: &Node, indent: usize) {
        let start = self.starts[self.line(item.span.start)];
        let before = &self.text[start..item.span.start];
        // An empty item has the place of its dash.
        let is_empty = self.text.as_bytes().get(item.span.start) == Some(&b'-')
            && item.is_empty()
            && item.span.len() == 1;
        if is_empty {
            return self.begin(item.span.start, indent);
        }
        match before.rfind('-').filter(|at| before[at + 1..].trim().is_empty()) {
            Some(dash) => {
                self.begin(start + dash, indent);
                self.gap(start + dash + 1..item.span.start);
            }
            None => {
                // The dash stands alone, on a line before.
                let lines = (0..self.line(item.span.start)).rev();
                let dash = lines.into_iter().find(|line| self.content(*line).starts_with('-'));
                if let Some(dash) = dash {
                    let at = self.starts[dash] + self.margin(dash);
                    self.begin(at, indent);
                }
            }
        }
        self.block(item, indent + STEP);
    }

    /// A value that stands on a line with others, or goes on over lines in brackets.
    fn inline(&mut self, node: &Node, indent: usize) {
        let first = self.line(node.span.start);
        if self.text[self.starts[first]..node.span.start].trim().is_empty() {
            self.begin(node.span.start, indent);
        }
        for line in first + 1..=self.line(node.span.end.saturating_sub(1).max(node.span.start)) {
            self.within.insert(line, first);
        }
    }

    /// What begins here stands in this column, unless something before it on its line decides that.
    fn begin(&mut self, at: usize, indent: usize) {
        let line = self.line(at);
        if self.text[self.starts[line]..at].trim().is_empty() {
            self.indents.entry(line).or_insert(indent);
        }
    }

    fn gap(&mut self, gap: Range<usize>) {
        if &self.text[gap.clone()] != " " {
            self.gaps.push(gap);
        }
    }

    fn raw(&self, line: usize) -> &'t str {
        let end = self.starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        &self.text[self.starts[line]..end]
    }

    fn content(&self, line: usize) -> &'t str {
        self.raw(line).trim()
    }

    fn margin(&self, line: usize) -> usize {
        let raw = self.raw(line);
        raw.len() - raw.trim_start().len()
    }

    /// The column for a line that was found to begin nothing: a comment, or the rest of brackets.
    fn follow(&self, line: usize) -> usize {
        let moved = |from: usize| {
            let to = self.indents.get(&from).copied().unwrap_or_else(|| self.margin(from));
            (self.margin(line) + to).saturating_sub(self.margin(from))
        };
        if let Some(first) = self.within.get(&line) {
            return moved(*first);
        }
        let margin = self.margin(line);
        let next = self.indents.range(line + 1..).next();
        if let Some((_, indent)) = next.filter(|(next, _)| self.margin(**next) == margin) {
            return *indent;
        }
        // What stands above it, up to the beginning of the section that it lies in.
        let mut above = self.indents.range(..line).rev();
        let holder = above.find(|(above, _)| self.margin(**above) <= margin);
        match (holder, next) {
            (Some((above, indent)), _) if self.margin(*above) == margin => *indent,
            (_, Some((_, indent))) | (Some((_, indent)), None) => *indent,
            (None, None) => 0,
        }
    }

    fn text(&self) -> String {
        let mut out = String::with_capacity(self.text.len());
        let mut is_gap = true;
        for line in 0..self.starts.len() {
            let content = self.content(line);
            if content.is_empty() {
                if !is_gap {
                    out.push('\n');
                }
                is_gap = true;
                continue;
            }
            is_gap = false;
            let indent = self.indents.get(&line).copied().unwrap_or_else(|| self.follow(line));
            out.push_str(&" ".repeat(indent));
            self.push_content(line, &mut out);
            out.push('\n');
        }
        while out.ends_with("\n\n") {
            out.pop();
        }
        out
    }

    fn push_content(&self, line: usize, out: &mut String) {
        let mut at = self.starts[line] + self.margin(line);
        let end = at + self.content(line).len();
        let first = self.gaps.partition_point(|gap| gap.start < at);
        for gap in self.gaps[first..].iter().take_while(|gap| gap.end <= end) {
            out.push_str(&self.text[at..gap.start]);
            out.push(' ');
            at = gap.end;
        }
        out.push_str(&self.text[at..end]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use proptest::prelude::{prop, prop_assert, proptest};

    use super::*;

    fn formatted(text: &str) -> String {
        format(&Arc::new(Source { name: "x.yaml".to_owned(), text: text.to_owned() })).unwrap()
    }

    #[test]
    fn blanks_are_put_right_and_comments_stay() {
        let text = "\n\nversion:   1   \r\n# all\r\ngeneral:\n      # who\n      listen:\n      -   127.0.0.1:25   # here\n\n\n\n      - \"[::1]:25\"\n      max_connections:  5\n   # the end of it\ndomains:\n-  name: a.example\n   type: default   # ours\n   drop: {dir:  Letters,\n          quota: 1GiB}\n- {name: b.example, type: alias}\n\n";
        let expected = "version: 1\n# all\ngeneral:\n  # who\n  listen:\n    - 127.0.0.1:25   # here\n\n    - \"[::1]:25\"\n  max_connections: 5\n# the end of it\ndomains:\n  - name: a.example\n    type: default   # ours\n    drop: {dir:  Letters,\n           quota: 1GiB}\n  - {name: b.example, type: alias}\n";
        assert_eq!(formatted(text), expected);
        assert_eq!(formatted(expected), expected);
    }

    #[test]
    fn odd_shapes_keep_their_values() {
        for text in [
            "",
            "# nothing but this",
            "---\na: 1\n",
            "a:\n   -\n     b: 1\n     c: 2\n   -  d: 1\n",
            "a:\n  - - 1\n    - 2\n  -   - 3\n",
            "a:\n      {b: 1,\n   c: [2,\n  3]}\nd:\n  # none\ne: '# no comment'  # but this\n",
            "a:\n    - # empty\n    - \n",
            "a: \"two  blanks\"\nb:   'it''s'\n",
            "a:\n - b: 1\n\n   # to c\n   c: 2\n # to a\n - b: 3\n",
            "a:\n    - b\n      # to b\n\n# the end\n",
        ] {
            let once = formatted(text);
            assert_eq!(formatted(&once), once, "{text:?}");
            assert!(bare(&once).eq(bare(text)), "{text:?}");
        }
    }

    #[test]
    fn a_comment_at_the_end_stays_where_its_section_is() {
        let text = "a:\n    - b\n    # to the list\n\n# the end\n";
        assert_eq!(formatted(text), "a:\n  - b\n  # to the list\n\n# the end\n");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let broken = Arc::new(Source { name: "x.yaml".to_owned(), text: "a: [1\n".to_owned() });
        assert!(!format(&broken).unwrap_err().is_empty());
    }

    proptest! {
        #[test]
        fn any_file_is_formatted_without_loss(
            lines in prop::collection::vec(
                prop::sample::select(vec![
                    "", "# word", "a:", "b:  1", "  c: 2", "  - x", "-   y", "    d: {e: 1,", "      f: 2}",
                    "   # far", "  g:", "     - h: 1", "       i:  2",
                ]),
                0..14,
            ),
        ) {
            let text = lines.join("\n");
            let source = Arc::new(Source { name: "x.yaml".to_owned(), text: text.clone() });
            if read(&source).is_ok() {
                let once = format(&source);
                prop_assert!(once.is_ok(), "{text:?}");
                let once = once.unwrap();
                prop_assert!(formatted(&once) == once, "{text:?} {once:?}");
            }
        }
    }
}
