//! Columns for people, laid out by comfy-table: no boxes, two blanks between columns.
//!
//! Widths come from the first rows, so that a long list flows. On a terminal what does not fit is
//! cut with a mark; elsewhere nothing is cut, and a column grows for the row that needs it.

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, Width, presets,
};

/// A cell's text, and whether it is a number, which stands to the right.
pub(super) type Text = (String, bool);

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
}

impl Layout {
    /// Widths for these rows, the first of which may be the headers.
    pub(super) fn of(rows: &[Vec<Text>], terminal: Option<u16>) -> Self {
        let mut widths = grid(rows).column_max_content_widths();
        if terminal.is_some() {
            let headers = grid(rows.get(..1).unwrap_or_default()).column_max_content_widths();
            for (width, header) in widths.iter_mut().zip(headers) {
                *width = (*width).min(COLUMN_WIDTH_MAX.max(header));
            }
        }
        Self { widths, terminal }
    }

    /// The rows as lines, each ended by LF.
    pub(super) fn lines(&self, rows: &[Vec<Text>]) -> String {
        let mut table = grid(rows);
        let content = table.column_max_content_widths();
        let mut used = 0;
        for (place, column) in table.column_iter_mut().enumerate() {
            let (known, here) = (self.widths[place], content[place]);
            let is_last = place + 1 == self.widths.len();
            let room = match self.terminal {
                Some(total) if is_last => {
                    total.saturating_sub(used).max(LAST_WIDTH_MIN).min(known.max(here))
                }
                Some(_) => known,
                None => known.max(here),
            };
            let gutter = if is_last { 0 } else { GUTTER };
            column.set_padding((0, gutter));
            let width = Width::Fixed(room.max(1) + gutter);
            column.set_constraint(ColumnConstraint::Absolute(width));
            used += room + gutter;
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
        let cells = row.iter().map(|(text, right)| {
            let align = if *right { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(text).set_alignment(align)
        });
        let mut row = Row::from(cells.collect::<Vec<_>>());
        row.max_height(1);
        table.add_row(row);
    }
    table
}
