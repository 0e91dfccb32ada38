//! `/v1/trace`: what became of messages, and who was turned away.
//!
//! The search waits for the disk in a thread of its own and hands over story by story; here the
//! present is put on top of each: where the message stands in the queue, how its lane fares, and
//! what that means.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::response::Response;
use mailroot_common::config::ServerName;
use mailroot_common::control::{
    Kind, Problem, QueueState, Refused as TurnedAway, Selector, TraceEntry, TraceEvent,
    TraceRecipient, TraceRecord,
};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use serde::Serialize;
use smtpd_core::queue::outcome::Outcome;
use smtpd_core::route::table::RouteName;
use smtpd_core::trace::explain::{Case, Lane, explain, explain_refusal};
use smtpd_core::trace::story::{Story, state};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::App;
use super::answer::{Answer, Refused, object};
use super::caller::{Caller, Reach};
use super::choose::{ambiguous, recipient_state, refuse_beginnings};
use super::extract::Query;
use super::gate::tell;
use super::lines::{End, Lines, json_lines};
use super::queue::Page;
use crate::deliver::{LaneState, LaneView};
use crate::queue::Message;
use crate::trace::SearchError;
use crate::virtual_server::VirtualServer;

/// How many stories one answer tells.
const STORIES_MAX: usize = 100_000;
/// How many refusals one answer tells.
const REFUSALS_MAX: usize = 100_000;
/// How many findings may wait to be sent.
const AHEAD: usize = 16;

impl From<SearchError> for Refused {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Selector(error) => error.into(),
            SearchError::Ambiguous { text, ids } => ambiguous(&text, ids.into_iter()).into(),
        }
    }
}

/// The stories of the chosen messages, the newest first, one JSON object per line.
pub(super) async fn list(
    app: App,
    Query(selector): Query<Selector>,
    Query(page): Query<Page>,
) -> Result<Response, Refused> {
    stories(app, selector, page, false).await
}

/// The same with what was said about each message over SMTP; the log keeps who asked for that of others.
pub(super) async fn with_dialogues(
    app: App,
    Extension(caller): Extension<Caller>,
    Query(selector): Query<Selector>,
    Query(page): Query<Page>,
) -> Result<Response, Refused> {
    if !matches!(app.reach, Reach::Own(_)) {
        let ids = Some(selector.ids.join(",")).filter(|ids| !ids.is_empty());
        let server = selector.server.as_deref().unwrap_or("all");
        tell(&app, "dialogues-read", server, ids.as_deref(), &caller).send();
    }
    stories(app, selector, page, true).await
}

async fn stories(
    app: App,
    selector: Selector,
    page: Page,
    dialogue: bool,
) -> Result<Response, Refused> {
    let (matcher, now) = (selector.compile()?, app.service.clock().now());
    refuse_beginnings(&app.reach, &matcher)?;
    let named = matcher.ids().to_vec();
    let mut left = page.most(STORIES_MAX);
    let sees_all = app.reach == Reach::All;
    let most = if sees_all { left } else { STORIES_MAX };
    let scan = match app.reach {
        Reach::Own(uid) => Some(app.scans.enter(uid).await?),
        Reach::All | Reach::Nothing | Reach::Servers(_) => None,
    };
    let mut search = app.service.trace().search().await;
    let (sender, found) = mpsc::channel(AHEAD);
    let reach = app.reach.clone();
    let searching = tokio::task::spawn_blocking(move || {
        // It counts until it has ended, whether or not anybody is left to hear of it.
        let _scan = scan;
        let hearer = sender.clone();
        search.while_wanted(move || !hearer.is_closed());
        search.stories(&matcher, now, most, |entry| {
            if !sees(&reach, &entry.server) || !reach.sees_mail_of(entry.uid) {
                // Nobody may be left to hear of what he may see.
                return !sender.is_closed();
            }
            left = left.saturating_sub(1);
            sender.blocking_send(entry).is_ok() && (sees_all || left > 0)
        })
    });
    let mut present = Present::new(app, now);
    let mut found = Findings::begin(found, searching).await?;
    if found.first.is_none() && selector.is_ids_only() {
        found.first = present.in_queue(named.first()).await;
    }
    Ok(json_lines(move |mut lines| async move {
        while let Some(mut entry) = found.next().await {
            if !dialogue {
                entry.dialogues.clear();
            }
            let told = present.complete(entry).await;
            if let Err(end) = found.send(&mut lines, &told).await {
                return Err((lines, end));
            }
        }
        Ok(lines)
    }))
}

/// Who was turned away, the newest first, one JSON object per line.
pub(super) async fn refused(
    app: App,
    Query(selector): Query<Selector>,
    Query(page): Query<Page>,
) -> Result<Response, Refused> {
    let (matcher, now) = (selector.compile()?, app.service.clock().now());
    let mut left = page.most(REFUSALS_MAX);
    let mut search = app.service.trace().search().await;
    let (sender, found) = mpsc::channel(AHEAD);
    let reach = app.reach.clone();
    let searching = tokio::task::spawn_blocking(move || {
        let hearer = sender.clone();
        search.while_wanted(move || !hearer.is_closed());
        search.refusals(&matcher, now, |refused: TurnedAway| {
            if !sees(&reach, &refused.server) {
                return true;
            }
            left = left.saturating_sub(1);
            let advice = explain_refusal(&refused);
            sender.blocking_send(TurnedAway { advice, ..refused }).is_ok() && left > 0
        })
    });
    let mut found = Findings::begin(found, searching).await?;
    Ok(json_lines(move |mut lines| async move {
        while let Some(refused) = found.next().await {
            if let Err(end) = found.send(&mut lines, &refused).await {
                return Err((lines, end));
            }
        }
        Ok(lines)
    }))
}

/// What the trace holds.
pub(super) async fn record(app: App) -> Answer<TraceRecord> {
    let mut search = app.service.trace().search().await;
    let record = tokio::task::spawn_blocking(move || search.record()).await;
    object(record.map_err(|_| stopping())?)
}

/// Whether what is told of a server may be seen.
pub(super) fn sees(reach: &Reach, server: &str) -> bool {
    *reach == Reach::All || ServerName::parse(server).is_ok_and(|name| reach.covers(&name))
}

pub(super) fn stopping() -> Problem {
    Problem::new("trace", Kind::Unavailable, "the daemon is stopping")
}

/// What a search hands over.
struct Findings<T> {
    first: Option<T>,
    rest: mpsc::Receiver<T>,
}

impl<T> Findings<T> {
    /// Waits for the first, so that what is wrong with the search shows before anything is sent.
    async fn begin(
        mut rest: mpsc::Receiver<T>,
        searching: JoinHandle<Result<(), SearchError>>,
    ) -> Result<Self, Refused> {
        let first = rest.recv().await;
        if first.is_none() {
            searching.await.map_err(|_| stopping())??;
        }
        Ok(Self { first, rest })
    }

    async fn next(&mut self) -> Option<T> {
        match self.first.take() {
            Some(first) => Some(first),
            None => self.rest.recv().await,
        }
    }

    /// Sends one; whoever waits sees each as it is found.
    async fn send(&self, lines: &mut Lines, told: &(impl Serialize + Sync)) -> Result<(), End> {
        lines.push(told).await?;
        if self.rest.is_empty() { Ok(lines.flush().await?) } else { Ok(()) }
    }
}

/// The state of things at the moment of the question.
struct Present {
    app: App,
    now: Timestamp,
    servers: HashMap<String, Option<Around>>,
    /// Hosts that took mail lately; looked for once, where a story asks for them.
    elsewhere: Option<Vec<(String, Timestamp)>>,
}

/// What a virtual server knows besides its messages; asked once for an answer.
struct Around {
    server: Arc<VirtualServer>,
    lanes: HashMap<RouteName, LaneView>,
    waiting: HashMap<RouteName, u64>,
}

impl Around {
    fn look(server: Arc<VirtualServer>) -> Self {
        let lanes = server.lanes().into_iter().map(|lane| (lane.route.clone(), lane));
        let routes = server.queue().map(|queue| queue.routes()).unwrap_or_default();
        let waiting = routes.into_iter().map(|count| (count.route, count.messages)).collect();
        Self { lanes: lanes.collect(), waiting, server }
    }

    fn lane(&self, route: &RouteName) -> Lane {
        let view = self.lanes.get(route);
        let (until, failures) = match view.map(|view| view.state) {
            Some(LaneState::BackingOff { until, failures }) => (Some(until), failures),
            Some(LaneState::Idle | LaneState::Active) | None => (None, 0),
        };
        Lane {
            route: route.to_string(),
            failures,
            until,
            waiting: self.waiting.get(route).copied().unwrap_or_default(),
            last: view.and_then(|view| view.last.as_ref()).filter(|_| failures > 0).map(event),
        }
    }
}

impl Present {
    fn new(app: App, now: Timestamp) -> Self {
        Self { app, now, servers: HashMap::new(), elsewhere: None }
    }

    /// Hosts that took mail lately.
    async fn look_elsewhere(&mut self) -> &[(String, Timestamp)] {
        // Whose mail it was, only who sees everything may guess.
        if self.elsewhere.is_none() && self.app.reach == Reach::All {
            let mut search = self.app.service.trace().search().await;
            let looking = tokio::task::spawn_blocking(move || search.latest_deliveries());
            // Without an answer nothing is said of others.
            self.elsewhere = looking.await.ok();
        }
        self.elsewhere.as_deref().unwrap_or_default()
    }

    fn around(&mut self, name: &str) -> Option<&Around> {
        if !self.servers.contains_key(name) {
            let known =
                ServerName::parse(name).ok().and_then(|name| self.app.service.server(&name));
            self.servers.insert(name.to_owned(), known.map(Around::look));
        }
        self.servers.get(name).and_then(Option::as_ref)
    }

    /// A message that waits and is not in the trace: it came before there was one.
    async fn in_queue(&self, id: Option<&String>) -> Option<TraceEntry> {
        let id = QueueId::parse(id?).ok()?;
        for server in self.app.all() {
            let Some(queue) = server.queue() else { continue };
            if let Ok(Some(message)) = queue.show(id).await
                && self.app.reach.sees_mail_of(message.envelope.origin.uid)
            {
                let server = server.name().to_string();
                return Some(TraceEntry { server, ..Story::new(id).finish() });
            }
        }
        None
    }

    /// Puts the present on top of a story.
    async fn complete(&mut self, mut entry: TraceEntry) -> TraceEntry {
        let (now, is_owner) = (self.now, matches!(self.app.reach, Reach::Own(_)));
        let Some(around) = self.around(&entry.server) else {
            let (server, lane, hold, elsewhere) = (None, None, None, &[]);
            let case = Case { entry: &entry, server, lane, hold, elsewhere, now };
            entry.advice = explain(&case);
            return entry;
        };
        let (mut lane, mut hold) = (None, None);
        if let Some(queue) = around.server.queue() {
            match queue.show(entry.id).await {
                Ok(Some(message)) => {
                    put_on_top(&mut entry, &message, around);
                    lane = waiting_route(&message).map(|route| around.lane(route));
                    hold = message.state.hold.is_some().then(|| message.reason()).flatten();
                }
                Ok(None) => forget_waiting(&mut entry),
                // What cannot be read now, or is being written, stands where the story left it.
                Err(_) => {}
            }
        }
        let server = Some(around.server.state());
        if is_owner && let Some(lane) = &mut lane {
            // How much mail of others waits there, and what was said of it, is not his to know.
            lane.waiting = 0;
            lane.last = None;
        }
        let (lane, hold) = (lane.as_ref(), hold.as_deref());
        let of_lane = || lane.and_then(|lane| lane.last.as_ref());
        let last = entry.events.last().or_else(of_lane);
        let is_out_of_reach = last.is_some_and(|last| last.stage.as_deref() == Some("connect"));
        let elsewhere = if is_out_of_reach { self.look_elsewhere().await } else { &[] };
        entry.advice = explain(&Case { entry: &entry, server, lane, hold, elsewhere, now });
        entry
    }
}

fn waiting_route(message: &Message) -> Option<&RouteName> {
    message.waiting().find_map(|(place, _)| message.routes.get(place))
}

fn put_on_top(entry: &mut TraceEntry, message: &Message, around: &Around) {
    let standing = message.standing();
    entry.state = standing.as_str().to_owned();
    let all = message.envelope.recipients.iter().zip(&message.state.recipients);
    let recipient = |(recipient, status)| TraceRecipient {
        address: mailbox(recipient),
        state: recipient_state(status).as_str().to_owned(),
    };
    entry.recipients = all.map(recipient).collect();
    entry.accepted_at.get_or_insert(message.envelope.accepted_at);
    entry.size.get_or_insert(message.size);
    entry.from.get_or_insert_with(|| message.envelope.sender.to_string());
    if standing != QueueState::Active {
        entry.next_attempt_at = message.next_attempt_at();
    }
    if let Some(route) = waiting_route(message) {
        let schedule = around.server.schedule(route);
        let begins_at = message.envelope.begins_at();
        entry.release_at = message.awaits_release();
        entry.expires_at = Some(schedule.expires_at(begins_at));
        entry.told_at = message.waiting().find_map(|(place, status)| {
            schedule.delay_notice_at(&message.envelope, begins_at, place, status)
        });
    }
}

fn mailbox(recipient: &smtpd_core::queue::envelope::Recipient) -> String {
    recipient.mailbox.to_string()
}

/// What is not in the queue does not wait, whatever was recorded last.
fn forget_waiting(entry: &mut TraceEntry) {
    for recipient in &mut entry.recipients {
        if ["retry", "in_doubt"].contains(&recipient.state.as_str()) {
            "unknown".clone_into(&mut recipient.state);
        }
    }
    state(&entry.recipients, &entry.events).clone_into(&mut entry.state);
}

/// An outcome as an event.
fn event(outcome: &Outcome) -> TraceEvent {
    TraceEvent {
        at: outcome.at,
        event: "deferred".to_owned(),
        host: outcome.host.as_ref().map(ToString::to_string),
        code: outcome.code.map(|code| code.as_u16().into()),
        status: Some(outcome.status.to_string()),
        text: Some(outcome.text.clone()),
        stage: Some(outcome.stage.as_str().to_owned()),
        ..TraceEvent::default()
    }
}
