//! The screen on the terminal: two lines of head, one of news, the table, one of keys.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};
use unicode_width::UnicodeWidthStr;

use super::look::{Entry, Listing};
use super::screen::{Front, Page, Screen, View};
use crate::output::Meaning;

/// How wide a column is at most, unless it is the last.
const COLUMN_WIDTH_MAX: u16 = 32;
/// How far a column is narrowed where there is no room.
const COLUMN_WIDTH_MIN: u16 = 8;
const GUTTER: u16 = 2;

const HELP: &str = "\
d  destinations: the ways that mail takes out, and what the last minute brought
q  queue: messages that wait
s  sessions, in both directions
b  badmail

Up, Down, PgUp, PgDn, Home, End  choose a row
Enter  the chosen row in full; Esc puts it away
/      show only rows that hold a text; Esc ends that
f      try the chosen message, or the mail of the chosen destination, now
k      close the chosen session; no accepted message is lost
x, Esc, Ctrl-C  leave

Rates are those since the last look, SENT/M and DEFER/M those of the last minute.
";

/// Draws it.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &mut Screen) {
    let rows = [Constraint::Length(3), Constraint::Min(1), Constraint::Length(1)];
    let [head, body, foot] = Layout::vertical(rows).areas(frame.area());
    screen.height = usize::from(body.height.saturating_sub(1));
    frame.render_widget(Text::from(header(screen)), head);
    match screen.front() {
        Front::Help => frame.render_widget(Paragraph::new(HELP), body),
        Front::Detail(page) => frame.render_widget(in_full(page), body),
        Front::Table | Front::Filter | Front::Question(_) => table(frame, body, screen),
    }
    frame.render_widget(footer(screen), foot);
}

fn header(screen: &Screen) -> Vec<Line<'_>> {
    let [first, second] = &screen.look.head;
    let paint = |meaning| painted(screen, Some(meaning));
    let first = if first.is_empty() {
        Line::from(format!("mailroot  {}", screen.whose()))
    } else {
        Line::from(first.as_str())
    };
    let news = match (&screen.lost, &screen.told, &screen.look.warning) {
        (Some(why), _, _) => {
            Line::styled(format!("no daemon: {why}; waiting for it"), paint(Meaning::Bad))
        }
        (None, Some(told), _) => Line::from(told.as_str()),
        (None, None, Some(warning)) => {
            Line::styled(format!("warning: {warning}"), paint(Meaning::Attention))
        }
        (None, None, None) => Line::default(),
    };
    vec![first.style(Modifier::BOLD), Line::from(second.as_str()), news]
}

fn footer(screen: &Screen) -> Line<'_> {
    let text = match screen.front() {
        Front::Filter => return Line::from(format!("/{}_", screen.filter)),
        Front::Question(question) => {
            return Line::styled(question, Style::from(Modifier::BOLD));
        }
        Front::Help => "any key goes back",
        Front::Detail(_) => "Esc goes back  Up Down PgUp PgDn turn",
        Front::Table => {
            "d destinations  q queue  s sessions  b badmail  / find  f flush  k kill  ? help  x leave"
        }
    };
    Line::styled(text, Style::from(Modifier::DIM))
}

fn in_full(page: &Page) -> Paragraph<'_> {
    let title = Line::styled(page.title.as_str(), Style::from(Modifier::BOLD));
    let lines = page.lines.iter().skip(page.first).map(|line| Line::from(line.as_str()));
    Paragraph::new(std::iter::once(title).chain(lines).collect::<Vec<_>>())
        .wrap(ratatui::widgets::Wrap { trim: false })
}

fn table(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let rows = screen.rows();
    let name = screen.view.name();
    let Some(listing) = screen.listing().filter(|_| !rows.is_empty()) else {
        let words = match (screen.listing(), screen.view, screen.filter.is_empty()) {
            (None, _, _) => format!("{name}: asking"),
            (Some(_), _, false) => format!("{name}: nothing holds {:?}", screen.filter),
            (Some(_), View::Sessions, true) => "no sessions".to_owned(),
            (Some(_), View::Destinations, true) => "no mail is on its way out".to_owned(),
            (Some(_), View::Queue, true) => "no messages wait".to_owned(),
            (Some(_), View::Badmail, true) => "no messages in Badmail".to_owned(),
        };
        return frame.render_widget(Paragraph::new(words), area);
    };
    let widths = widths(listing, &rows, area.width);
    let aligned = |text: &str, is_number: bool| {
        let align = if is_number { Alignment::Right } else { Alignment::Left };
        Text::from(text.to_owned()).alignment(align)
    };
    let header = listing.columns.iter().map(|(name, right)| Cell::from(aligned(name, *right)));
    let row = |entry: &&Entry| {
        let cells = entry.cells.iter().zip(&listing.columns);
        Row::new(cells.map(|((text, meaning), (_, right))| {
            Cell::from(aligned(text, *right)).style(painted(screen, *meaning))
        }))
    };
    let drawn = Table::new(rows.iter().map(row), widths.into_iter().map(Constraint::Length))
        .header(Row::new(header).style(Modifier::BOLD))
        .column_spacing(GUTTER)
        .row_highlight_style(Modifier::REVERSED);
    let mut state = TableState::default().with_selected(screen.chosen);
    frame.render_stateful_widget(drawn, area, &mut state);
}

/// How wide each column is: as its content where there is room, the widest narrowed where not.
fn widths(listing: &Listing, rows: &[&Entry], total: u16) -> Vec<u16> {
    let width = |text: &str| u16::try_from(text.width()).unwrap_or(u16::MAX);
    let last = listing.columns.len().saturating_sub(1);
    let mut widths: Vec<u16> = listing
        .columns
        .iter()
        .enumerate()
        .map(|(place, (name, _))| {
            let cells = rows.iter().filter_map(|row| row.cells.get(place));
            let most = cells.map(|(text, _)| width(text)).max().unwrap_or_default();
            let most = if place == last { most } else { most.min(COLUMN_WIDTH_MAX) };
            most.max(width(name))
        })
        .collect();
    let gutters = GUTTER.saturating_mul(u16::try_from(last).unwrap_or(u16::MAX));
    let room = total.saturating_sub(gutters);
    loop {
        let used = widths.iter().fold(0_u16, |sum, width| sum.saturating_add(*width));
        let over = used.saturating_sub(room);
        let Some(widest) = widths.iter_mut().max().filter(|it| over > 0 && **it > COLUMN_WIDTH_MIN)
        else {
            return widths;
        };
        *widest = widest.saturating_sub(over.min(*widest / 2).max(1)).max(COLUMN_WIDTH_MIN);
    }
}

fn painted(screen: &Screen, meaning: Option<Meaning>) -> Style {
    match meaning.filter(|_| screen.colour) {
        Some(Meaning::Good) => Style::from(Color::Green),
        Some(Meaning::Attention) => Style::from(Color::Yellow),
        Some(Meaning::Bad) => Style::from((Color::Red, Modifier::BOLD)),
        None => Style::default(),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::look::News;
    use super::super::screen::tests::look;
    use super::*;

    fn drawn(screen: &mut Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| {
            let cells = (0..width).map(|x| buffer[(x, y)].symbol());
            cells.collect::<String>().trim_end().to_owned()
        };
        (0..height).map(line).collect()
    }

    #[test]
    fn a_table_fits_and_the_daemons_absence_is_told() {
        let mut screen = Screen::new(None, true);
        screen
            .hear(look(View::Destinations, &[["a.example", "backoff", &"long words ".repeat(20)]]));
        let lines = drawn(&mut screen, 80, 24);
        assert_eq!(lines[0], "mailroot");
        assert_eq!(lines[3], "ID         STATE    REASON");
        assert!(lines[4].starts_with("a.example  backoff  long words long"), "{}", lines[4]);
        assert!(lines[23].ends_with("? help"), "{}", lines[23]);
        screen.hear(News::Lost("gone".to_owned()));
        assert_eq!(drawn(&mut screen, 80, 24)[2], "no daemon: gone; waiting for it");
        for (width, height) in [(1, 1), (20, 4), (300, 100)] {
            assert_eq!(drawn(&mut screen, width, height).len(), usize::from(height));
        }
    }

    #[test]
    fn wide_columns_are_narrowed_until_all_fit() {
        let mut screen = Screen::new(None, true);
        let long = "x".repeat(200);
        screen.hear(look(View::Destinations, &[[&long, &long, &long]]));
        let widths = widths(screen.listing().unwrap(), &screen.rows(), 80);
        assert!(widths.iter().sum::<u16>() <= 76, "{widths:?}");
        assert!(widths.iter().all(|width| *width >= COLUMN_WIDTH_MIN), "{widths:?}");
    }
}
