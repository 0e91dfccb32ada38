//! What is on the screen, and what a key does to it.

use mailroot_common::control::Selector;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::look::{Entry, Listing, Look, News};

/// The longest filter.
const FILTER_CHARS_MAX: usize = 100;

/// Which table is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum View {
    /// The ways that mail takes out.
    #[default]
    Destinations,
    /// Messages that wait.
    Queue,
    /// SMTP sessions.
    Sessions,
    /// Badmail.
    Badmail,
}

impl View {
    /// Its name for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Destinations => "destinations",
            Self::Queue => "queue",
            Self::Sessions => "sessions",
            Self::Badmail => "badmail",
        }
    }
}

/// What a key asks of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Leave the terminal.
    Leave,
    /// Look at another table.
    See(View),
    /// Fetch one object in full.
    Open(View, String),
    /// End a session.
    Kill(String),
    /// Try mail again at once.
    Flush(Box<Selector>),
}

/// What the keys go to.
#[derive(Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Table,
    Filter,
    Question(String, Deed),
    Detail(Page),
    Help,
}

/// One object in full.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) title: String,
    pub(super) lines: Vec<String>,
    pub(super) first: usize,
}

/// What lies over or below the table.
pub(super) enum Front<'a> {
    /// Nothing.
    Table,
    /// The filter is being typed.
    Filter,
    /// A question to be answered.
    Question(&'a str),
    /// One object in full.
    Detail(&'a Page),
    /// What the keys do.
    Help,
}

/// What is on the screen.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// The virtual server that is shown alone.
    server: Option<String>,
    /// Whether states have their colours.
    pub(super) colour: bool,
    /// The table wanted.
    pub(super) view: View,
    /// What rows must hold.
    pub(super) filter: String,
    /// How things were when the daemon last said so.
    pub(super) look: Look,
    /// Why it says nothing.
    pub(super) lost: Option<String>,
    /// What became of the last order.
    pub(super) told: Option<String>,
    /// The row chosen, by its place among those shown.
    pub(super) chosen: usize,
    /// How many rows fit; known once it was drawn.
    pub(super) height: usize,
    /// What was chosen, so that it stays chosen when rows move.
    chosen_id: Option<String>,
    mode: Mode,
}

impl Screen {
    pub(super) fn new(server: Option<String>, colour: bool) -> Self {
        Self { server, colour, ..Self::default() }
    }

    pub(super) fn front(&self) -> Front<'_> {
        match &self.mode {
            Mode::Table => Front::Table,
            Mode::Filter => Front::Filter,
            Mode::Question(question, _) => Front::Question(question),
            Mode::Detail(page) => Front::Detail(page),
            Mode::Help => Front::Help,
        }
    }

    /// The table, if it is the one wanted.
    pub(super) fn listing(&self) -> Option<&Listing> {
        (self.look.view == self.view).then_some(&self.look.listing)
    }

    /// The rows that the filter leaves.
    pub(super) fn rows(&self) -> Vec<&Entry> {
        let wanted = self.filter.to_lowercase();
        let has = |entry: &&Entry| {
            entry.cells.iter().any(|(text, _)| text.to_lowercase().contains(&wanted))
        };
        self.listing().map(|listing| listing.rows.iter().filter(has).collect()).unwrap_or_default()
    }

    /// Takes news in.
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Look(look) => {
                self.look = *look;
                self.lost = None;
                self.find_chosen();
            }
            News::Lost(why) => self.lost = Some(why),
            News::Done(words) => self.told = Some(words),
            News::Detail(title, lines) => {
                self.mode = Mode::Detail(Page { title, lines, first: 0 });
            }
        }
    }

    /// What was chosen stays so; if it has gone, what has its place.
    fn find_chosen(&mut self) {
        let rows = self.rows();
        let found = self.chosen_id.as_ref().and_then(|id| rows.iter().position(|it| it.id == *id));
        let last = rows.len().saturating_sub(1);
        let chosen = found.unwrap_or(self.chosen).min(last);
        let id = rows.get(chosen).map(|it| it.id.clone());
        (self.chosen, self.chosen_id) = (chosen, id);
    }

    fn choose(&mut self, place: usize) {
        self.chosen = place;
        self.chosen_id = None;
        self.find_chosen();
    }

    /// Does what a key means here; what it asks of others.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Deed> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            return Some(Deed::Leave);
        }
        match std::mem::take(&mut self.mode) {
            Mode::Table => self.press_table(key.code),
            Mode::Filter => {
                self.press_filter(key.code);
                None
            }
            Mode::Question(_, deed) => match key.code {
                KeyCode::Char('y' | 'Y') => Some(deed),
                _ => {
                    self.told = Some("nothing was done".to_owned());
                    None
                }
            },
            Mode::Detail(page) => {
                self.press_page(page, key.code);
                None
            }
            Mode::Help => None,
        }
    }

    fn press_table(&mut self, key: KeyCode) -> Option<Deed> {
        self.told = None;
        let page = self.height.max(1);
        match key {
            KeyCode::Esc if !self.filter.is_empty() => {
                self.filter.clear();
                self.find_chosen();
            }
            KeyCode::Esc | KeyCode::Char('x') => return Some(Deed::Leave),
            KeyCode::Char('d') => return Some(self.see(View::Destinations)),
            KeyCode::Char('q') => return Some(self.see(View::Queue)),
            KeyCode::Char('s') => return Some(self.see(View::Sessions)),
            KeyCode::Char('b') => return Some(self.see(View::Badmail)),
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Char('k') => self.ask_kill(),
            KeyCode::Char('f') => return self.flush(),
            KeyCode::Enter => return self.open(),
            KeyCode::Up => self.choose(self.chosen.saturating_sub(1)),
            KeyCode::Down => self.choose(self.chosen + 1),
            KeyCode::PageUp => self.choose(self.chosen.saturating_sub(page)),
            KeyCode::PageDown => self.choose(self.chosen + page),
            KeyCode::Home => self.choose(0),
            KeyCode::End => self.choose(usize::MAX),
            _ => {}
        }
        None
    }

    fn press_filter(&mut self, key: KeyCode) {
        self.mode = Mode::Filter;
        match key {
            KeyCode::Enter => self.mode = Mode::Table,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Table;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < FILTER_CHARS_MAX => {
                self.filter.push(c);
            }
            _ => {}
        }
        self.find_chosen();
    }

    fn press_page(&mut self, mut page: Page, key: KeyCode) {
        let step = self.height.max(1);
        let last = page.lines.len().saturating_sub(1);
        page.first = match key {
            KeyCode::Up => page.first.saturating_sub(1),
            KeyCode::Down => page.first + 1,
            KeyCode::PageUp => page.first.saturating_sub(step),
            KeyCode::PageDown | KeyCode::Char(' ') => page.first + step,
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => return,
        }
        .min(last);
        self.mode = Mode::Detail(page);
    }

    fn see(&mut self, view: View) -> Deed {
        if self.view != view {
            self.view = view;
            self.filter.clear();
            self.choose(0);
        }
        Deed::See(view)
    }

    fn chosen_entry(&self) -> Option<&Entry> {
        self.rows().get(self.chosen).copied()
    }

    fn ask_kill(&mut self) {
        let chosen = self.chosen_entry().map(|entry| entry.id.clone());
        match (self.view, chosen) {
            (View::Sessions, Some(id)) => {
                self.mode = Mode::Question(format!("close session {id}? (y/n)"), Deed::Kill(id));
            }
            (View::Sessions, None) => self.told = Some("there is no session to close".to_owned()),
            _ => self.told = Some("k closes a session: s shows them".to_owned()),
        }
    }

    /// One message is tried at once; all mail of a server only after a question.
    fn flush(&mut self) -> Option<Deed> {
        let selector = self.chosen_entry().and_then(|entry| entry.flush.clone());
        let Some(selector) = selector else {
            self.told = Some("f tries a message or a destination again: q or d".to_owned());
            return None;
        };
        if selector.is_ids_only() {
            return Some(Deed::Flush(Box::new(selector)));
        }
        let what = match (&selector.domain, &selector.server) {
            (Some(domain), _) => format!("mail for {domain}"),
            (None, Some(server)) => format!("all mail of the server {server}"),
            (None, None) => "all mail".to_owned(),
        };
        let deed = Deed::Flush(Box::new(selector));
        self.mode = Mode::Question(format!("try {what} now? (y/n)"), deed);
        None
    }

    fn open(&mut self) -> Option<Deed> {
        let entry = self.chosen_entry()?;
        let (title, lines) = (entry.id.clone(), entry.detail.clone());
        if lines.is_empty() {
            return Some(Deed::Open(self.view, title));
        }
        self.mode = Mode::Detail(Page { title, lines, first: 0 });
        None
    }

    /// Whose mail is shown.
    pub(super) fn whose(&self) -> &str {
        self.server.as_deref().unwrap_or("all servers")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::output::Meaning;

    pub(in crate::top) fn look(view: View, rows: &[[&str; 3]]) -> News {
        let entry = |[id, state, words]: &[&str; 3]| Entry {
            id: (*id).to_owned(),
            cells: [id, state, words]
                .iter()
                .map(|text| ((**text).to_owned(), Meaning::of(text)))
                .collect(),
            flush: (view == View::Queue).then(|| Selector::id(*id)),
            detail: Vec::new(),
        };
        let columns = ["ID", "STATE", "REASON"].map(|name| (name.to_owned(), false));
        let listing = Listing { columns: columns.to_vec(), rows: rows.iter().map(entry).collect() };
        let head = ["mailroot".to_owned(), "queue".to_owned()];
        News::Look(Box::new(Look { head, warning: None, listing, view }))
    }

    fn press(screen: &mut Screen, keys: &str) -> Option<Deed> {
        let mut last = None;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                'v' => KeyCode::Down,
                '^' => KeyCode::Up,
                c => KeyCode::Char(c),
            };
            last = screen.press(KeyEvent::new(code, KeyModifiers::NONE));
        }
        last
    }

    fn shown(screen: &Screen) -> Vec<&str> {
        screen.rows().iter().map(|entry| entry.id.as_str()).collect()
    }

    #[test]
    fn what_is_chosen_stays_chosen_when_rows_move() {
        let mut screen = Screen::new(None, true);
        assert_eq!(press(&mut screen, "q"), Some(Deed::See(View::Queue)));
        assert!(shown(&screen).is_empty(), "nothing is known of this table yet");
        screen.hear(look(View::Queue, &[["A", "retry", ""], ["B", "retry", ""]]));
        press(&mut screen, "v");
        screen.hear(look(View::Queue, &[["C", "retry", ""], ["A", "retry", ""], ["B", "", ""]]));
        assert_eq!(press(&mut screen, "f"), Some(Deed::Flush(Box::new(Selector::id("B")))));
        screen.hear(look(View::Queue, &[["C", "retry", ""], ["A", "retry", ""]]));
        assert_eq!(press(&mut screen, "\n"), Some(Deed::Open(View::Queue, "A".to_owned())));
        press(&mut screen, "vvv^");
        assert_eq!(press(&mut screen, "\n"), Some(Deed::Open(View::Queue, "C".to_owned())));
    }

    #[test]
    fn a_filter_leaves_rows_that_hold_it_and_goes_with_escape() {
        let mut screen = Screen::new(None, true);
        press(&mut screen, "q");
        screen.hear(look(View::Queue, &[["A", "retry", "Greylisted"], ["B", "held", "x"]]));
        press(&mut screen, "/GREY");
        assert_eq!(shown(&screen), ["A"]);
        assert_eq!(press(&mut screen, "\nf"), Some(Deed::Flush(Box::new(Selector::id("A")))));
        assert_eq!(press(&mut screen, "\u{1b}"), None);
        assert_eq!(shown(&screen), ["A", "B"]);
        assert_eq!(press(&mut screen, "\u{1b}"), Some(Deed::Leave));
    }

    #[test]
    fn a_session_is_closed_only_after_yes() {
        let mut screen = Screen::new(None, true);
        assert_eq!(press(&mut screen, "k"), None);
        assert!(screen.told.as_ref().unwrap().contains("s shows them"));
        press(&mut screen, "s");
        screen.hear(look(View::Sessions, &[["7QK2MF", "idle", ""]]));
        assert_eq!(press(&mut screen, "kn"), None);
        assert_eq!(press(&mut screen, "ky"), Some(Deed::Kill("7QK2MF".to_owned())));
    }

    #[test]
    fn a_page_is_turned_and_put_away() {
        let mut screen = Screen::new(None, true);
        let lines = (0..30).map(|line| line.to_string()).collect();
        screen.hear(News::Detail("A".to_owned(), lines));
        screen.height = 10;
        press(&mut screen, "v  ");
        assert!(matches!(screen.front(), Front::Detail(page) if page.first == 21));
        press(&mut screen, "  ");
        assert!(matches!(screen.front(), Front::Detail(page) if page.first == 29));
        press(&mut screen, "\u{1b}");
        assert!(matches!(screen.front(), Front::Table));
    }
}
