//! Columns for people, laid out by comfy-table: no boxes, two blanks between columns.
//!
//! Widths come from the first rows, so that a long list flows. On a terminal what does not fit is
//! cut with a mark; elsewhere nothing is cut, and a column grows for the row that needs it.

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, Width, presets,
};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::painted;

/// A cell's text, and what it is.
pub(super) type Text = (String, Kind);

/// What the text of a cell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Words.
    Words,
    /// A number, which stands to the right.
    Number,
    /// The word of a state, which may have a colour.
    State,
}

/// How wide a column of a terminal's table may be, unless it is the last.
pub(super) const COLUMN_WIDTH_MAX: u16 = 40;
/// The least that is left of the last column on a narrow terminal.
const LAST_WIDTH_MIN: u16 = 8;
const GUTTER: u16 = 2;

/// The columns of one table.
#[derive(Debug)]
pub(super) struct Layout {
    widths: Vec<u16>,
    /// How wide the terminal is, if it is one.
    terminal: Option<u16>,
    /// Whether states have their colour.
    colour: bool,
}

impl Layout {
    /// Widths for these rows, the first of which may be the headers.
    pub(super) fn of(rows: &[Vec<Text>], terminal: Option<u16>, colour: bool) -> Self {
        let mut widths = grid(rows).column_max_content_widths();
        if terminal.is_some() {
            let headers = grid(rows.get(..1).unwrap_or_default()).column_max_content_widths();
            for (width, header) in widths.iter_mut().zip(headers) {
                *width = (*width).min(COLUMN_WIDTH_MAX.max(header));
            }
        }
        Self { widths, terminal, colour }
    }

    /// One row as a line, ended by LF.
    ///
    /// A list has a hundred thousand rows, and nearly all of them are plain: those need no table.
    pub(super) fn line(&self, row: &[Text]) -> String {
        let plain = self.plain_line(row);
        let line = plain.unwrap_or_else(|| self.lines(std::slice::from_ref(&row.to_vec())));
        if self.colour { self.painted(&line, row) } else { line }
    }

    /// The line of a row with its states in their colours. Whatever was cut has none.
    fn painted(&self, line: &str, row: &[Text]) -> String {
        let mut out = String::with_capacity(line.len() + 16);
        let (mut rest, mut begins, mut used) = (line, 0_u16, 0_u16);
        for (place, (text, kind)) in row.iter().enumerate() {
            let here = u16::try_from(text.width()).unwrap_or(u16::MAX);
            while used < begins
                && let Some(c) = rest.chars().next()
            {
                out.push(c);
                rest = &rest[c.len_utf8()..];
                used = used.saturating_add(u16::try_from(c.width().unwrap_or(0)).unwrap_or(0));
            }
            if *kind == Kind::State
                && let Some(after) = rest.strip_prefix(text.as_str())
            {
                out.push_str(&painted(text, true));
                (rest, used) = (after, used.saturating_add(here));
            }
            begins = begins.saturating_add(self.room(place, here, begins)).saturating_add(GUTTER);
        }
        out + rest
    }

    /// What [`Layout::lines`] makes of a row of ASCII that fits; nothing for others.
    fn plain_line(&self, row: &[Text]) -> Option<String> {
        let mut line = String::with_capacity(160);
        let mut used = 0;
        for (place, (text, kind)) in row.iter().enumerate() {
            let right = *kind == Kind::Number;
            if !text.is_ascii() {
                return None;
            }
            let here = u16::try_from(text.len()).unwrap_or(u16::MAX);
            let is_last = place + 1 == self.widths.len();
            let room = self.room(place, here, used);
            let blanks = usize::from(room.checked_sub(here)?);
            if right {
                line.extend(std::iter::repeat_n(' ', blanks));
            }
            line.push_str(text);
            if !is_last {
                let gutter = usize::from(GUTTER) + if right { 0 } else { blanks };
                line.extend(std::iter::repeat_n(' ', gutter));
            }
            used = used.saturating_add(room).saturating_add(GUTTER);
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        Some(line)
    }

    /// How wide a column is for content of this width, behind others that took so much.
    fn room(&self, place: usize, here: u16, used: u16) -> u16 {
        let known = self.widths[place];
        match self.terminal {
            Some(total) if place + 1 == self.widths.len() => {
                total.saturating_sub(used).max(LAST_WIDTH_MIN).min(known.max(here))
            }
            Some(_) => known,
            None => known.max(here),
        }
    }

    /// The rows as lines, each ended by LF, without colours.
    fn lines(&self, rows: &[Vec<Text>]) -> String {
        let mut table = grid(rows);
        let content = table.column_max_content_widths();
        let mut used = 0;
        for (place, column) in table.column_iter_mut().enumerate() {
            let here = content[place];
            let is_last = place + 1 == self.widths.len();
            let room = self.room(place, here, used);
            let gutter = if is_last { 0 } else { GUTTER };
            column.set_padding((0, gutter));
            let width = Width::Fixed(room.max(1).saturating_add(gutter));
            column.set_constraint(ColumnConstraint::Absolute(width));
            used = used.saturating_add(room).saturating_add(gutter);
        }
        let mut lines = String::new();
        for line in table.lines() {
            lines.push_str(line.trim_end());
            lines.push('\n');
        }
        lines
    }
}

fn grid(rows: &[Vec<Text>]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_truncation_indicator("…");
    table.force_no_tty();
    for row in rows {
        let cells = row.iter().map(|(text, kind)| {
            let align = match kind {
                Kind::Number => CellAlignment::Right,
                Kind::Words | Kind::State => CellAlignment::Left,
            };
            Cell::new(text).set_alignment(align)
        });
        let mut row = Row::from(cells.collect::<Vec<_>>());
        row.max_height(1);
        table.add_row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_need_no_table_look_as_if_they_had_one() {
        let row = |texts: [&str; 4]| {
            let kind = |text: &str| match text {
                "retry" => Kind::State,
                text if text.starts_with(char::is_numeric) => Kind::Number,
                _ => Kind::Words,
            };
            texts.map(|text| (text.to_owned(), kind(text))).to_vec()
        };
        let rows = [
            row(["ID", "SIZE", "FROM", "REASON"]),
            row(["D2288TX3R000", "1.1KiB", "a@client.test", "451 4.7.1 Greylisted"]),
            row(["D2288TX3R001", "12", "-", "-"]),
            row(["X", "0", "somebody@a.much.longer.domain.than.those.before.test", "12"]),
            row(["", "1", "", ""]),
            row(["b\u{fc}ro", "2", "retry", "\u{4e2d}\u{6587}"]),
            row(["retry", "2", "retrying", "retry"]),
            row(["D2288TX3R002", "1", "b\u{fc}ro@client.test", "no"]),
            row(["D2288TX3R003", "7", "a@client.test", &"long words ".repeat(30)]),
        ];
        let mut plain = 0;
        for terminal in [None, Some(200), Some(80), Some(45), Some(20)] {
            let layout = Layout::of(&rows[..3], terminal, false);
            let coloured = Layout::of(&rows[..3], terminal, true);
            for row in &rows {
                let table = layout.lines(std::slice::from_ref(row));
                assert_eq!(layout.line(row), table, "{row:?} {terminal:?}");
                let painted = coloured.line(row);
                assert_eq!(painted.replace("\u{1b}[33m", "").replace("\u{1b}[0m", ""), table);
                let states = row.iter().filter(|(_, kind)| *kind == Kind::State).count();
                assert_eq!(painted.matches("\u{1b}[33mretry\u{1b}[0m").count(), states);
                plain += usize::from(layout.plain_line(row).is_some());
            }
        }
        assert!(plain > rows.len() * 2, "{plain}");
    }

    #[test]
    fn a_message_to_thousands_breaks_no_table() {
        for filler in ["a", "\u{fc}"] {
            let to = filler.repeat(200_000);
            for terminal in [None, Some(80)] {
                let row = vec![(to.clone(), Kind::Words), ("1".to_owned(), Kind::Number)];
                let line = Layout::of(std::slice::from_ref(&row), terminal, true).line(&row);
                assert!(line.ends_with("1\n"), "{}", line.len());
                let is_whole = line.starts_with(&to);
                assert!(is_whole || terminal.is_some() || filler != "a", "{}", line.len());
            }
        }
    }
}
