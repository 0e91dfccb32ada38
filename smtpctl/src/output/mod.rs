//! What is printed, in every form of `-o`.
//!
//! In: rows, one by one as they arrive, or one object. Out: text on standard output. A list is
//! never held whole unless it must be sorted; a table takes its widths from the first rows and
//! flows from then on, so that the first of a hundred thousand messages shows at once.
//!
//! Text of strangers passes through here on its way to a terminal: [`escape`] takes control
//! characters and those that turn the direction of writing out of every form.

mod cell;
mod colour;
mod list;
mod shape;
mod table;

use std::fmt::Write as _;

use serde::Serialize;

pub(crate) use cell::{Cell, TimeForm, clock_time, human_duration, human_size, human_span};
pub(crate) use colour::{Meaning, When, painted};
pub(crate) use list::{List, print_all};
pub(crate) use shape::{Form, Shape};

/// When a column is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// In tables, and everywhere else.
    Always,
    /// In wide tables and CSV.
    Wide,
    /// When asked for by name.
    Asked,
}

/// One column of a list.
#[derive(Debug)]
pub(crate) struct Column<T> {
    /// Its name for `--columns`, `--sort` and templates; in capitals its header.
    pub(crate) name: &'static str,
    /// When it is shown.
    pub(crate) show: Show,
    /// The value of a row.
    pub(crate) cell: fn(&T) -> Cell,
}

impl<T> Column<T> {
    /// A column of every table.
    #[must_use]
    pub(crate) const fn always(name: &'static str, cell: fn(&T) -> Cell) -> Self {
        Self { name, show: Show::Always, cell }
    }

    /// A column of wide tables.
    #[must_use]
    pub(crate) const fn wide(name: &'static str, cell: fn(&T) -> Cell) -> Self {
        Self { name, show: Show::Wide, cell }
    }

    /// A column that is shown when asked for.
    #[must_use]
    pub(crate) const fn asked(name: &'static str, cell: fn(&T) -> Cell) -> Self {
        Self { name, show: Show::Asked, cell }
    }
}

/// Something that lists consist of.
pub(crate) trait Row: Serialize + Sized + 'static {
    /// All columns, in the order of the table.
    const COLUMNS: &'static [Column<Self>];

    /// What `-o name` prints, and what other commands take.
    fn id(&self) -> String;
}

/// Makes text safe to show: what could steer a terminal or turn the writing is written `\x1b`.
#[must_use]
pub(crate) fn escape(text: &str) -> String {
    if !text.contains(is_unsafe) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        let done = match c {
            '\n' => out.write_str("\\n"),
            '\t' => out.write_str("\\t"),
            '\r' => out.write_str("\\r"),
            c if is_unsafe(c) && u32::from(c) < 256 => write!(out, "\\x{:02x}", u32::from(c)),
            c if is_unsafe(c) => write!(out, "\\u{{{:x}}}", u32::from(c)),
            c => out.write_char(c),
        };
        debug_assert!(done.is_ok(), "writing into a String cannot fail");
    }
    out
}

/// Control characters, and the ones of Unicode that turn or hide writing.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// JSON on one line. What `serde_json` leaves raw though a terminal obeys it (DEL, C1, direction
/// of writing) can only stand within strings there, and is escaped.
#[must_use]
pub(crate) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|error| {
        serde_json::Value::String(format!("cannot be written: {error}")).to_string()
    });
    escape_json(&text)
}

/// JSON for people to read.
#[must_use]
pub(crate) fn json_pretty(value: &impl Serialize) -> String {
    match serde_json::to_string_pretty(value) {
        // Line ends stand between the members here, never within a string.
        Ok(text) => text.lines().map(escape_json).collect::<Vec<_>>().join("\n"),
        Err(_) => json(value),
    }
}

fn escape_json(text: &str) -> String {
    if !text.contains(is_unsafe) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let done = write!(out, "\\u{unit:04x}");
                debug_assert!(done.is_ok(), "writing into a String cannot fail");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// YAML; ends with a line end.
#[must_use]
pub(crate) fn yaml(value: &impl Serialize) -> String {
    let text = serde_yaml::to_string(value);
    text.unwrap_or_else(|error| format!("# cannot be written: {}\n", escape(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(escape("plain ü ✓"), "plain ü ✓");
        assert_eq!(
            escape("\u{1b}[2J\u{9b}31m\u{202e}x\ny\t\r\0"),
            "\\x1b[2J\\x9b31m\\u{202e}x\\ny\\t\\r\\x00"
        );
        let hostile = "a\u{1b}]0;x\u{7}b\u{9b}31m\u{7f}\u{202e}\u{feff}";
        for text in [json(&hostile), json_pretty(&[hostile]), escape(hostile)] {
            assert!(!text.replace('\n', "").contains(is_unsafe), "{text:?}");
        }
        assert_eq!(serde_json::from_str::<String>(&json(&hostile)).unwrap(), hostile);
        assert_eq!(
            serde_json::from_str::<Vec<String>>(&json_pretty(&[hostile])).unwrap(),
            [hostile]
        );
        let yaml = yaml(&[hostile]);
        assert!(!yaml.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{7f}']), "{yaml:?}");
    }
}
