//! A list on its way out, row by row.

use std::io::{self, Write};

use mailroot_common::control::{Kind, Problem};

use super::shape::{FormError, find};
use super::table::{Kind as TextKind, Layout, Text};
use super::{Cell, Column, Form, Row, Shape, escape, json, yaml};

/// How many rows are looked at before the widths of a table's columns stand.
const ROWS_LOOKED_AT: usize = 100;

/// A list being printed.
pub(crate) struct List<'out, T: Row> {
    out: &'out mut dyn Write,
    shape: &'out Shape,
    columns: Vec<&'static Column<T>>,
    template: Vec<Piece<T>>,
    order: Option<(&'static Column<T>, bool)>,
    /// Rows kept until they can be sorted.
    kept: Vec<T>,
    /// Rows of a table whose widths are not known yet.
    waiting: Vec<Vec<Text>>,
    layout: Option<Layout>,
    rows: u64,
}

enum Piece<T: 'static> {
    Text(String),
    Value(&'static Column<T>),
}

impl<'out, T: Row> List<'out, T> {
    /// Begins a list in the wished form.
    ///
    /// # Errors
    ///
    /// A problem of kind usage when a wish names a column that does not exist.
    pub(crate) fn begin(shape: &'out Shape, out: &'out mut dyn Write) -> Result<Self, Problem> {
        let wish = |error: FormError| Problem::new("output", Kind::Usage, error.to_string());
        let template = match &shape.form {
            Form::Template(text) => read_template(text).map_err(wish)?,
            _ => Vec::new(),
        };
        Ok(Self {
            columns: shape.choose().map_err(wish)?,
            order: shape.order().map_err(wish)?,
            template,
            kept: Vec::new(),
            waiting: Vec::new(),
            layout: None,
            rows: 0,
            out,
            shape,
        })
    }

    /// Whether no further row would be printed.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.order.is_none() && self.shape.limit.is_some_and(|limit| self.rows >= limit)
    }

    /// Prints a row, or keeps it until it can be.
    ///
    /// # Errors
    ///
    /// Standard output's.
    pub(crate) fn push(&mut self, row: T) -> io::Result<()> {
        if self.order.is_some() {
            self.kept.push(row);
            return Ok(());
        }
        self.print(&row)
    }

    /// Has what was printed be seen now; a table still takes its widths from the first rows.
    ///
    /// # Errors
    ///
    /// Standard output's.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the list; says how many rows it had.
    ///
    /// # Errors
    ///
    /// Standard output's.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        if let Some((column, backwards)) = self.order.take() {
            let mut kept = std::mem::take(&mut self.kept);
            kept.sort_by_cached_key(|row| (column.cell)(row));
            if backwards {
                kept.reverse();
            }
            for row in &kept {
                self.print(row)?;
            }
        }
        match self.shape.form {
            Form::Table | Form::Wide => self.print_waiting()?,
            Form::Json if self.rows == 0 => self.out.write_all(b"[]\n")?,
            Form::Json => self.out.write_all(b"\n]\n")?,
            Form::Yaml if self.rows == 0 => self.out.write_all(b"[]\n")?,
            Form::Csv if self.rows == 0 => self.print_csv_header()?,
            Form::Csv | Form::Yaml | Form::Plain | Form::Jsonl | Form::Name => {}
            Form::Template(_) | Form::Nagios => {}
        }
        self.out.flush()?;
        Ok(self.rows)
    }

    fn print(&mut self, row: &T) -> io::Result<()> {
        if self.is_full() {
            return Ok(());
        }
        match self.shape.form {
            Form::Table | Form::Wide => self.print_table_row(row)?,
            Form::Plain => {
                let values: Vec<_> = self.values(row).collect();
                writeln!(self.out, "{}", values.join("\t"))?;
            }
            Form::Csv => {
                if self.rows == 0 {
                    self.print_csv_header()?;
                }
                let values: Vec<_> = self.values(row).map(quoted).collect();
                write!(self.out, "{}\r\n", values.join(","))?;
            }
            Form::Json => {
                let before = if self.rows == 0 { "[\n" } else { ",\n" };
                write!(self.out, "{before}{}", json(row))?;
            }
            Form::Jsonl => writeln!(self.out, "{}", json(row))?,
            Form::Yaml => self.out.write_all(yaml(&[row]).as_bytes())?,
            Form::Name => writeln!(self.out, "{}", escape(&row.id()))?,
            // Only doctor is let have it, and that makes no list of it.
            Form::Nagios => {}
            Form::Template(_) => {
                for piece in &self.template {
                    match piece {
                        Piece::Text(text) => self.out.write_all(text.as_bytes())?,
                        Piece::Value(column) => {
                            let value = (column.cell)(row).for_programs(self.shape.time);
                            self.out.write_all(value.as_bytes())?;
                        }
                    }
                }
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn values(&self, row: &T) -> impl Iterator<Item = String> {
        self.columns.iter().map(|column| (column.cell)(row).for_programs(self.shape.time))
    }

    fn print_csv_header(&mut self) -> io::Result<()> {
        if self.shape.no_headers {
            return Ok(());
        }
        let names: Vec<_> = self.columns.iter().map(|column| column.name).collect();
        write!(self.out, "{}\r\n", names.join(","))
    }

    fn print_table_row(&mut self, row: &T) -> io::Result<()> {
        let shape = self.shape;
        let cells = self.columns.iter().map(|column| {
            let cell: Cell = (column.cell)(row);
            (cell.for_people(shape.now, shape.time, shape.utc), kind(&cell))
        });
        let cells: Vec<_> = cells.collect();
        match &self.layout {
            Some(layout) => self.out.write_all(layout.line(&cells).as_bytes()),
            None => {
                self.waiting.push(cells);
                if self.waiting.len() >= ROWS_LOOKED_AT { self.print_waiting() } else { Ok(()) }
            }
        }
    }

    /// Prints the header and the rows that waited for widths. An empty table prints nothing.
    fn print_waiting(&mut self) -> io::Result<()> {
        let mut rows = std::mem::take(&mut self.waiting);
        let Some(first) = rows.first() else {
            return Ok(());
        };
        if !self.shape.no_headers {
            let named = self.columns.iter().zip(first);
            let headers = named
                .map(|(column, (_, kind))| (column.name.to_uppercase().replace('_', " "), *kind));
            let headers = headers.collect();
            rows.insert(0, headers);
        }
        let layout = Layout::of(&rows, self.shape.width, self.shape.colour);
        for row in &rows {
            self.out.write_all(layout.line(row).as_bytes())?;
        }
        self.layout = Some(layout);
        Ok(())
    }
}

fn kind(cell: &Cell) -> TextKind {
    match cell {
        Cell::State(_) => TextKind::State,
        _ if cell.is_number() => TextKind::Number,
        _ => TextKind::Words,
    }
}

/// Prints rows that are all there.
///
/// # Errors
///
/// Wishes that cannot be met, and standard output's errors.
pub(crate) fn print_all<T: Row>(
    rows: Vec<T>,
    shape: &Shape,
    out: &mut dyn Write,
) -> Result<u64, Problem> {
    let mut list = List::begin(shape, out)?;
    rows.into_iter().try_for_each(|row| list.push(row)).map_err(crate::io_problem)?;
    list.finish().map_err(crate::io_problem)
}

/// RFC 4180 section 2.
fn quoted(value: String) -> String {
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value
    }
}

fn read_template<T: Row>(text: &str) -> Result<Vec<Piece<T>>, FormError> {
    let brace = || FormError::Brace(text.to_owned());
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => plain.push('\n'),
                Some('t') => plain.push('\t'),
                Some('0') => plain.push('\0'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            '{' | '}' if chars.peek() == Some(&c) => {
                chars.next();
                plain.push(c);
            }
            '{' => {
                let name: String = chars.by_ref().take_while(|&c| c != '}').collect();
                if !text.contains(&format!("{{{name}}}")) {
                    return Err(brace());
                }
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(Piece::Value(find(&name)?));
            }
            '}' => return Err(brace()),
            other => plain.push(other),
        }
    }
    pieces.push(Piece::Text(plain));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use mailroot_common::units::Timestamp;
    use serde::Serialize;

    use super::super::table::COLUMN_WIDTH_MAX;
    use super::*;

    #[derive(Serialize)]
    struct Fruit {
        name: &'static str,
        weight: u64,
        note: &'static str,
    }

    impl Row for Fruit {
        const COLUMNS: &'static [Column<Self>] = &[
            Column::always("name", |fruit| Cell::text(fruit.name)),
            Column::always("weight", |fruit| Cell::Size(fruit.weight)),
            Column::wide("note", |fruit| Cell::text(fruit.note)),
            Column::asked("letters", |fruit| Cell::Count(fruit.name.len() as u64)),
        ];

        fn id(&self) -> String {
            self.name.to_owned()
        }
    }

    fn fruits() -> Vec<Fruit> {
        vec![
            Fruit { name: "plum", weight: 40, note: "a, \"b\"" },
            Fruit { name: "pear\u{1b}[31m", weight: 2_048, note: "" },
            Fruit { name: "fig", weight: 7, note: "ripe" },
        ]
    }

    fn shape(form: &str) -> Shape {
        let form = form.parse().unwrap();
        Shape { form, utc: true, now: Timestamp::from_millis(0), ..Shape::default() }
    }

    fn printed(rows: Vec<Fruit>, shape: &Shape) -> String {
        let mut out = Vec::new();
        print_all(rows, shape, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_form_prints_the_same_rows() {
        for (form, text) in [
            (
                "table",
                "NAME          WEIGHT\nplum             40B\npear\\x1b[31m  2.0KiB\nfig               7B\n",
            ),
            (
                "wide",
                "NAME          WEIGHT  NOTE\nplum             40B  a, \"b\"\npear\\x1b[31m  2.0KiB  -\nfig               7B  ripe\n",
            ),
            ("plain", "plum\t40\npear\\x1b[31m\t2048\nfig\t7\n"),
            (
                "csv",
                "name,weight,note\r\nplum,40,\"a, \"\"b\"\"\"\r\npear\\x1b[31m,2048,\r\nfig,7,ripe\r\n",
            ),
            (
                "json",
                "[\n{\"name\":\"plum\",\"weight\":40,\"note\":\"a, \\\"b\\\"\"},\n{\"name\":\"pear\\u001b[31m\",\"weight\":2048,\"note\":\"\"},\n{\"name\":\"fig\",\"weight\":7,\"note\":\"ripe\"}\n]\n",
            ),
            (
                "jsonl",
                "{\"name\":\"plum\",\"weight\":40,\"note\":\"a, \\\"b\\\"\"}\n{\"name\":\"pear\\u001b[31m\",\"weight\":2048,\"note\":\"\"}\n{\"name\":\"fig\",\"weight\":7,\"note\":\"ripe\"}\n",
            ),
            ("name", "plum\npear\\x1b[31m\nfig\n"),
            ("template={letters}:{{{name}}}\\n", "4:{plum}\n9:{pear\\x1b[31m}\n3:{fig}\n"),
        ] {
            assert_eq!(printed(fruits(), &shape(form)), text, "{form}");
        }
        let yaml = printed(fruits(), &shape("yaml"));
        let read: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(read[1]["name"], "pear\u{1b}[31m");
        assert_eq!(read.as_array().unwrap().len(), 3);
    }

    #[test]
    fn an_empty_list_is_an_empty_list() {
        for (form, text) in [
            ("table", ""),
            ("plain", ""),
            ("json", "[]\n"),
            ("jsonl", ""),
            ("yaml", "[]\n"),
            ("csv", "name,weight,note\r\n"),
            ("name", ""),
            ("template={name}", ""),
        ] {
            assert_eq!(printed(Vec::new(), &shape(form)), text, "{form}");
        }
    }

    #[test]
    fn columns_headers_order_and_limit_are_heeded() {
        let with = |form: &str, change: fn(&mut Shape)| {
            let mut shape = shape(form);
            change(&mut shape);
            printed(fruits(), &shape)
        };
        assert_eq!(with("plain", |s| s.columns = Some("weight".into())), "40\n2048\n7\n");
        assert_eq!(
            with("plain", |s| s.columns = Some("+letters,-weight".into())).lines().last(),
            Some("fig\t3")
        );
        assert_eq!(with("name", |s| s.sort = Some("weight".into())), "fig\nplum\npear\\x1b[31m\n");
        assert_eq!(
            with("name", |s| {
                s.sort = Some("-weight".into());
                s.limit = Some(1);
            }),
            "pear\\x1b[31m\n"
        );
        assert_eq!(with("name", |s| s.limit = Some(2)).lines().count(), 2);
        assert_eq!(with("table", |s| s.no_headers = true).lines().count(), 3);
        assert_eq!(with("csv", |s| s.no_headers = true).lines().count(), 3);
    }

    #[test]
    fn wishes_that_cannot_be_met_are_usage_errors() {
        for wish in ["template={nme}", "template={name", "template=name}"] {
            let problem = List::<Fruit>::begin(&shape(wish), &mut Vec::new()).err().unwrap();
            assert_eq!(problem.exit, 2, "{wish}");
        }
        let sort = Shape { sort: Some("taste".to_owned()), ..shape("table") };
        let problem = List::<Fruit>::begin(&sort, &mut Vec::new()).err().unwrap();
        assert!(problem.detail.contains("name, weight, note, letters"), "{}", problem.detail);
    }

    #[test]
    fn a_terminal_gets_lines_that_fit() {
        let mut shape = shape("wide");
        shape.width = Some(30);
        let long = Fruit {
            name: "a-very-long-name-of-a-fruit-that-nobody-eats-often",
            weight: 1,
            note: "and more words than fit",
        };
        for line in printed(vec![long], &shape).lines().skip(1) {
            assert!(
                line.chars().count() <= usize::from(COLUMN_WIDTH_MAX) + 2 + 6 + 2 + 8,
                "{line:?}"
            );
            assert!(line.contains('…') && line.ends_with('…'), "{line:?}");
        }
    }

    #[test]
    fn a_table_flows_after_its_first_rows() {
        let shape = shape("table");
        let mut out = Vec::new();
        let mut list = List::begin(&shape, &mut out).unwrap();
        for _ in 0..=ROWS_LOOKED_AT {
            list.push(Fruit { name: "kiwi", weight: 1, note: "" }).unwrap();
        }
        assert!(list.waiting.is_empty());
        assert_eq!(list.finish().unwrap(), ROWS_LOOKED_AT as u64 + 1);
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), ROWS_LOOKED_AT + 2);
    }
}
