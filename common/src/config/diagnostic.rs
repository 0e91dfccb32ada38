//! What is wrong with a configuration, said in the form of a compiler.
//!
//! In: places in source texts. Out: text with file, line, column, the quoted line and a caret, or
//! the same as data for editors. A diagnostic owns what it points at, so that errors of several
//! files travel together and are shown in one run.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// A configuration file: the name shown to people, and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name, as errors show it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// The line and column of an octet, both counted from one, columns in characters.
    #[must_use]
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|&octet| octet == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration works, but perhaps not as meant.
    Warning,
}

/// A place in a file and what to say beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The file.
    pub source: Arc<Source>,
    /// Octets from the start of the text.
    pub span: Range<usize>,
    /// Said beside the carets.
    pub text: String,
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable code such as `E0107`.
    pub code: &'static str,
    /// One sentence.
    pub title: String,
    /// Places; the first is where the fault lies, the others belong to it.
    pub labels: Vec<Label>,
    /// What to do, so that it can be pasted where possible.
    pub helps: Vec<String>,
    /// What else to know.
    pub notes: Vec<String>,
}

/// Where a diagnostic points, as editors want it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// Counted from one.
    pub line: usize,
    /// Counted from one, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Diagnostic {
    /// A configuration that must be refused.
    #[must_use]
    pub fn error(code: &'static str, title: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, title.into())
    }

    /// A configuration that may surprise.
    #[must_use]
    pub fn warning(code: &'static str, title: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, title.into())
    }

    fn new(severity: Severity, code: &'static str, title: String) -> Self {
        Self { severity, code, title, labels: Vec::new(), helps: Vec::new(), notes: Vec::new() }
    }

    /// Adds a place; the first one added is the fault's own.
    #[must_use]
    pub fn at(mut self, source: &Arc<Source>, span: Range<usize>, text: impl Into<String>) -> Self {
        self.labels.push(Label { source: Arc::clone(source), span, text: text.into() });
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.helps.push(text.into());
        self
    }

    /// Adds what else to know.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// Where the fault lies, unless it lies in no file.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let label = self.labels.first()?;
        let (line, column) = label.source.position(label.span.start);
        Some(Place { file: label.source.name.clone(), line, column })
    }

    /// The text for people: several lines, no colours, no newline at the end.
    #[must_use]
    pub fn render(&self) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(shown(&self.title)).id(self.code);
        let mut group = Group::with_title(title);
        let mut sources: Vec<&Arc<Source>> = Vec::new();
        for label in &self.labels {
            if !sources.iter().any(|source| Arc::ptr_eq(source, &label.source)) {
                sources.push(&label.source);
            }
        }
        for source in sources {
            let mut snippet = Snippet::source(quoted(&source.text)).path(source.name.as_str());
            for (number, label) in self.labels.iter().enumerate() {
                if Arc::ptr_eq(source, &label.source) {
                    let kind =
                        if number == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
                    snippet = snippet.annotation(
                        kind.span(clipped(source, &label.span)).label(shown(&label.text)),
                    );
                }
            }
            group = group.element(snippet);
        }
        for help in &self.helps {
            group = group.element(Level::HELP.message(shown(help)));
        }
        for note in &self.notes {
            group = group.element(Level::NOTE.message(shown(note)));
        }
        Renderer::plain().render(&[group])
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Diagnostic", 7)?;
        out.serialize_field("severity", &self.severity)?;
        out.serialize_field("code", self.code)?;
        out.serialize_field("message", &self.title)?;
        out.serialize_field("place", &self.place())?;
        out.serialize_field("octets", &self.labels.first().map(|l| (l.span.start, l.span.end)))?;
        out.serialize_field("help", &self.helps)?;
        out.serialize_field("note", &self.notes)?;
        out.end()
    }
}

/// All diagnostics as one text, in their order, an empty line between two.
#[must_use]
pub fn render_all(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n\n")
}

/// A source as a terminal may see it. The renderer shows the control characters of ASCII as
/// pictures but lets the others pass, and U+009B begins an escape sequence. What stands for them
/// has as many octets, so that places stay right.
fn quoted(text: &str) -> Cow<'_, str> {
    let beyond_ascii = |c: char| matches!(c, '\u{80}'..='\u{9f}');
    if text.contains(beyond_ascii) { text.replace(beyond_ascii, "¿").into() } else { text.into() }
}

/// Text from a file as a terminal may see it: no control characters, no endless lines.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 400;
    let clean = annotate_snippets::normalize_untrusted_str(text);
    match clean.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", &clean[..at]),
        None => clean,
    }
}

/// The part of a span on its first line, on character boundaries, at least one octet where the
/// text has one.
fn clipped(source: &Source, span: &Range<usize>) -> Range<usize> {
    let text = &source.text;
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let line_end = text[start..].find(['\n', '\r']).map_or(text.len(), |at| start + at);
    let mut end = span.end.clamp(start, line_end);
    if end == start {
        end = text[start..line_end].chars().next().map_or(start, |c| start + c.len_utf8());
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}
