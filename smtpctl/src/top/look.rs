//! Asking the daemon, again and again, and turning what it says into text.
//!
//! Everything that leaves this file as text has been through the escaping of every other output:
//! what strangers said cannot steer the terminal.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use mailroot_common::control::{
    BadmailEntry, BadmailMessage, Change, Changed, Destination, Problem, QueueEntry, QueueMessage,
    Selector, ServerDetail, Session, Stats, StatsBy, Status, path,
};
use mailroot_common::units::{Span, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::screen::{Deed, View};
use crate::change::counted;
use crate::client::{Client, WAIT};
use crate::listing::limited;
use crate::output::{
    Cell, Column, Meaning, Row, Shape, escape, human_duration, human_size, human_span,
};
use crate::stats::with_terms;
use crate::tool::now;

/// How long one look may take.
const LOOK_MAX: Duration = Duration::from_secs(20);
/// Over how long it is told what deliveries took.
const LATELY: &str = "5m";
/// How many rows are asked for; more than anybody reads.
const ROWS_MAX: u64 = 500;

/// What the observer has to tell.
#[derive(Debug)]
pub(super) enum News {
    /// How things are.
    Look(Box<Look>),
    /// The daemon cannot be asked, and why.
    Lost(String),
    /// What became of an order.
    Done(String),
    /// One object in full.
    Detail(String, Vec<String>),
}

/// How things are.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The lines above the table.
    pub(super) head: [String; 2],
    /// What needs a person, in short.
    pub(super) warning: Option<String>,
    /// The table.
    pub(super) listing: Listing,
    /// Which table it is.
    pub(super) view: View,
}

/// A table as text.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The names of the columns, and whether their values stand to the right.
    pub(super) columns: Vec<(String, bool)>,
    /// The rows.
    pub(super) rows: Vec<Entry>,
}

/// One row.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// What names it.
    pub(super) id: String,
    /// Its cells; those that are the words of states have a meaning.
    pub(super) cells: Vec<(String, Option<Meaning>)>,
    /// What flushing it means, if that can be done.
    pub(super) flush: Option<Selector>,
    /// It in full, where that need not be asked for.
    pub(super) detail: Vec<String>,
}

/// A destination with what the trace says of the last minute.
#[derive(Debug, Serialize)]
struct Way {
    destination: Destination,
    sent: u64,
    deferred: u64,
}

impl Row for Way {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("destination", |it| Cell::text(&*it.destination.destination)),
        Column::always("state", |it| Cell::State(it.destination.state.as_str())),
        Column::always("conn", |it| Cell::Count(it.destination.connections)),
        Column::always("sent/m", |it| Cell::Count(it.sent)),
        Column::always("defer/m", |it| Cell::Count(it.deferred)),
        Column::always("queued", |it| Cell::Count(it.destination.messages)),
        Column::always("oldest", |it| it.destination.oldest_at.map_or(Cell::Nothing, Cell::Ago)),
        Column::always("last failure", |it| match &it.destination.last {
            Some(last) => Cell::text(format!("{} {}", last.status, last.text.replace('\n', " / "))),
            None => Cell::Nothing,
        }),
    ];

    fn id(&self) -> String {
        format!("{} {}", self.destination.server, self.destination.route)
    }
}

/// Whoever asks the daemon.
pub(super) struct Observer {
    socket: PathBuf,
    server: Option<String>,
    shape: Shape,
    client: Option<Client>,
    view: View,
    /// Counters at the last look: the daemon's clock, since when it runs, and the counters.
    before: Option<(Timestamp, Timestamp, BTreeMap<String, u64>)>,
}

impl Observer {
    pub(super) fn new(socket: PathBuf, server: Option<String>, shape: Shape) -> Self {
        Self { socket, server, shape, client: None, view: View::default(), before: None }
    }

    /// Looks until nobody listens any more, and does what is ordered in between.
    pub(super) async fn observe(
        mut self,
        interval: Duration,
        mut orders: mpsc::Receiver<Deed>,
        news: mpsc::Sender<News>,
    ) {
        loop {
            let heard = match tokio::time::timeout(LOOK_MAX, self.look()).await {
                Ok(Ok(look)) => News::Look(Box::new(look)),
                Ok(Err(problem)) => self.lost(&problem.detail),
                Err(_) => self.lost(&format!("no answer within {} s", LOOK_MAX.as_secs())),
            };
            if news.send(heard).await.is_err() {
                return;
            }
            let deed = tokio::select! {
                deed = orders.recv() => match deed {
                    Some(deed) => deed,
                    None => return,
                },
                () = tokio::time::sleep(interval) => continue,
            };
            let told = match self.perform(deed).await {
                Ok(told) => told,
                Err(problem) => Some(News::Done(escape(&problem.detail))),
            };
            if let Some(told) = told
                && news.send(told).await.is_err()
            {
                return;
            }
        }
    }

    fn lost(&mut self, why: &str) -> News {
        (self.client, self.before) = (None, None);
        News::Lost(escape(why))
    }

    async fn client(&mut self) -> Result<&mut Client, Problem> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.socket).await?,
        };
        Ok(self.client.insert(client))
    }

    async fn look(&mut self) -> Result<Look, Problem> {
        let mut status: Status = self.client().await?.get(path::STATUS).await?;
        if let Some(name) = self.server.clone() {
            let path = path::fill(path::SERVER, &[&name]);
            let detail: ServerDetail = self.client().await?.get(&path).await?;
            status.counters = detail.counters;
            status.servers.retain(|server| server.name == name);
            status.warnings.retain(|it| it.server.as_ref().is_none_or(|server| *server == name));
        }
        self.shape.now = now();
        let listing = self.list().await?;
        let path = with_terms(LATELY, StatsBy::Service, self.server.as_deref());
        let lately: Vec<Stats> = self.client().await?.get(&path).await?;
        let head = self.head(&status, lately.first());
        let warning = status.warnings.first().map(|first| escape(&first.text));
        self.before = Some((status.now, status.started_at, status.counters));
        Ok(Look { head, warning, listing, view: self.view })
    }

    fn head(&self, status: &Status, lately: Option<&Stats>) -> [String; 2] {
        let whose = self.server.as_deref().unwrap_or("all servers");
        let rate = |names: &[&str]| self.rate(status, names);
        let (taken, sent) =
            (rate(&["messages_received"]), rate(&["recipients_delivered", "recipients_dropped"]));
        let octets = rate(&["octets_received"]);
        let tenths = |rate: Option<f64>| rate.map_or_else(nothing, |rate| format!("{rate:.1}"));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded")]
        let octets = octets.map_or_else(nothing, |rate| human_size(rate as u64));
        let sum = |of: fn(&mailroot_common::control::Server) -> u64| {
            status.servers.iter().map(of).sum::<u64>()
        };
        let time = crate::output::clock_time(status.now, status.now, self.shape.utc);
        let first = format!(
            "mailroot {}  {}   msgs/s in {} out {}   bytes/s in {octets}   {time}",
            escape(&status.version),
            escape(whose),
            tenths(taken),
            tenths(sent),
        );
        let oldest = status.servers.iter().filter_map(|server| server.queue.oldest_at).min();
        let oldest = oldest.map_or_else(nothing, |at| human_span(status.now.since(at)));
        let took = |of: fn(&Stats) -> Option<Span>| {
            lately.and_then(of).map_or_else(nothing, human_duration)
        };
        let second = format!(
            "queue {}  retry {}  held {}  oldest {oldest}  badmail {}  conns in {} out {}  p50 {}  p99 {}",
            sum(|it| it.queue.messages),
            sum(|it| it.queue.retry),
            sum(|it| it.queue.held),
            sum(|it| it.badmail),
            sum(|it| it.sessions_in),
            sum(|it| it.sessions_out),
            took(|it| it.p50),
            took(|it| it.p99),
        );
        [first, second]
    }

    /// How fast counters grew since the last look; nothing at the first and after a restart.
    fn rate(&self, status: &Status, names: &[&str]) -> Option<f64> {
        let (at, started_at, before) = self.before.as_ref()?;
        let seconds = status.now.since(*at).as_duration().as_secs_f64();
        if *started_at != status.started_at || seconds <= 0.0 {
            return None;
        }
        let sum = |counters: &BTreeMap<String, u64>| {
            names.iter().filter_map(|name| counters.get(*name)).sum::<u64>()
        };
        let grown = sum(&status.counters).saturating_sub(sum(before));
        #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
        Some(grown as f64 / seconds)
    }

    async fn list(&mut self) -> Result<Listing, Problem> {
        match self.view {
            View::Destinations => self.destinations().await,
            View::Sessions => {
                let rows: Vec<Session> = self.rows(path::SESSIONS).await?;
                Ok(self.listing(&rows, |session, entry, shape| {
                    let text = crate::session::for_people(session, shape);
                    entry.detail = text.lines().map(str::to_owned).collect();
                }))
            }
            View::Queue => {
                let rows: Vec<QueueEntry> = self.rows(path::QUEUE).await?;
                Ok(self.listing(&rows, |message, entry, _| {
                    entry.flush = Some(Selector::id(message.id.to_string()));
                }))
            }
            View::Badmail => {
                let rows: Vec<BadmailEntry> = self.rows(path::BADMAIL).await?;
                Ok(self.listing(&rows, |_, _, _| {}))
            }
        }
    }

    async fn rows<T: DeserializeOwned>(&mut self, path: &str) -> Result<Vec<T>, Problem> {
        let selector = Selector { server: self.server.clone(), ..Selector::default() };
        let path = limited(path, &selector, Some(ROWS_MAX));
        let mut rows = Vec::new();
        let take = |row: T| {
            rows.push(row);
            Ok(true)
        };
        self.client().await?.lines(&path, take).await?;
        Ok(rows)
    }

    async fn destinations(&mut self) -> Result<Listing, Problem> {
        let ways: Vec<Destination> = self.rows(path::DESTINATIONS).await?;
        let path = with_terms("1m", StatsBy::Destination, self.server.as_deref());
        let minute: Vec<Stats> = self.client().await?.get(&path).await?;
        let minute: HashMap<&str, &Stats> =
            minute.iter().map(|stats| (stats.group.as_str(), stats)).collect();
        let way = |destination: Destination| {
            let stats = minute.get(destination.destination.as_str());
            let (sent, deferred) = stats.map_or((0, 0), |stats| (stats.sent, stats.deferred));
            Way { destination, sent, deferred }
        };
        let ways: Vec<Way> = ways.into_iter().map(way).collect();
        Ok(self.listing(&ways, |Way { destination, .. }, entry, _| {
            entry.flush = Some(mail_for(destination));
            entry.detail = in_full(destination);
        }))
    }

    fn listing<T: Row>(&self, rows: &[T], complete: impl Fn(&T, &mut Entry, &Shape)) -> Listing {
        let shape = &self.shape;
        let columns = || T::COLUMNS.iter().filter(|it| it.show == crate::output::Show::Always);
        let is_number = |column: &Column<T>| rows.iter().any(|row| (column.cell)(row).is_number());
        let entry = |row: &T| {
            let cell = |column: &Column<T>| {
                let cell = (column.cell)(row);
                let meaning = match &cell {
                    Cell::State(word) => Meaning::of(word),
                    _ => None,
                };
                (cell.for_people(shape.now, shape.time, shape.utc), meaning)
            };
            let cells = columns().map(cell).collect();
            let mut entry = Entry { id: row.id(), cells, ..Entry::default() };
            complete(row, &mut entry, shape);
            entry
        };
        let header =
            |column: &Column<T>| (column.name.to_uppercase().replace('_', " "), is_number(column));
        Listing { columns: columns().map(header).collect(), rows: rows.iter().map(entry).collect() }
    }

    /// Does what was ordered; what there is to tell of it.
    async fn perform(&mut self, deed: Deed) -> Result<Option<News>, Problem> {
        match deed {
            Deed::Leave => Ok(None),
            Deed::See(view) => {
                self.view = view;
                Ok(None)
            }
            Deed::Kill(id) => {
                let reason = Some("ended from smtpctl top".to_owned());
                let change = Change { selector: Selector::id(id), reason, ..Change::default() };
                let changed: Changed =
                    self.client().await?.post(path::SESSIONS_KILL, &change, WAIT).await?;
                Ok(Some(told(&changed, "session", "closed")))
            }
            Deed::Flush(selector) => {
                let change = Change { selector: *selector, if_exists: true, ..Change::default() };
                let path = path::fill(path::QUEUE_VERB, &["flush"]);
                let changed: Changed = self.client().await?.post(&path, &change, WAIT).await?;
                Ok(Some(told(&changed, "message", "scheduled now")))
            }
            Deed::Open(View::Badmail, id) => {
                let path = path::fill(path::BADMAIL_MESSAGE, &[&id]);
                let message: BadmailMessage = self.client().await?.get(&path).await?;
                Ok(Some(detail(id, &crate::badmail::for_people(&message))))
            }
            Deed::Open(_, id) => {
                let path = path::fill(path::QUEUE_MESSAGE, &[&id]);
                let message: QueueMessage = self.client().await?.get(&path).await?;
                Ok(Some(detail(id, &crate::queue::for_people(&message, &self.shape))))
            }
        }
    }
}

/// What stands where there is no value.
fn nothing() -> String {
    "-".to_owned()
}

fn detail(id: String, text: &str) -> News {
    News::Detail(id, text.lines().map(str::to_owned).collect())
}

fn told(changed: &Changed, noun: &str, done: &str) -> News {
    let mut words = format!("{} {done}", counted(changed.changed, noun));
    if let Some(failure) = changed.failed.first() {
        words = escape(&failure.detail);
    }
    for note in &changed.notes {
        words.push_str(&format!("; {}", escape(note)));
    }
    News::Done(words)
}

/// The mail that waits for a destination: of a domain its own, of a host what its server has.
fn mail_for(destination: &Destination) -> Selector {
    let server = Some(destination.server.clone());
    if destination.route.starts_with("mx:") {
        let domain = Some(destination.destination.clone());
        return Selector { server, domain, ..Selector::default() };
    }
    Selector { server, all: true, ..Selector::default() }
}

fn in_full(it: &Destination) -> Vec<String> {
    let mut lines = vec![
        format!("destination  {} (server {})", it.destination, it.server),
        format!("route        {}", it.route),
        format!("state        {}", it.state.as_str()),
        match &it.limit {
            Some(limit) => format!("connections  {}", limit.words(it.connections)),
            None => format!("connections  {}", it.connections),
        },
        format!("waiting      {}", counted(it.messages, "message")),
    ];
    if let Some(next) = it.next_attempt_at {
        lines.push(format!("next try     {next}"));
    }
    if it.failures > 0 {
        lines.push(format!("failures     {} in a row", it.failures));
    }
    if let Some(last) = &it.last {
        lines.push(format!("last         {}", crate::queue::attempt_for_people(last)));
    }
    lines.iter().map(|line| escape(line)).collect()
}
