//! `/v1/queue`: messages that wait.

use std::collections::BTreeSet;
use std::io;

use axum::Extension;
use axum::body::Bytes;
use axum::response::Response;
use mailroot_common::control::{
    Change, Changed, DestinationPause, Kind, Problem, QueueMessage, QueueVerb, Selector,
};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use serde::Deserialize;
use smtpd_core::queue::recipient::{Hold, ReturnOrder};
use smtpd_core::route::table::RouteName;
use smtpd_core::trace::event::Text;
use smtpd_core::trace::note::Note;

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use super::choose::{Place, Search, details, entry, one, queues, servers};
use super::extract::{Path, Query};
use super::gate::tell;
use super::lines::{End, Lines, json_lines, octets};
use crate::queue::{BodyReader, CommitError, Queue, Rest};

/// How many messages one change of the store is about.
pub(super) const CHANGED_AT_ONCE: usize = 1_000;
/// The longest reason.
const REASON_OCTETS_MAX: usize = 1_000;
/// The longest header that is shown.
const HEADER_OCTETS_MAX: usize = 1 << 20;

/// The part of a list's query that is no selector.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Page {
    limit: Option<u64>,
}

impl Page {
    /// How many are wanted, at most so many.
    pub(super) fn most(&self, most: usize) -> usize {
        self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(most).min(most)
    }
}

/// The chosen ones, one JSON object per line, sent as they are found.
pub(super) async fn list(
    app: App,
    Query(selector): Query<Selector>,
    Query(page): Query<Page>,
) -> Result<Response, Refused> {
    let matcher = selector.compile()?;
    let places = queues(&servers(&app, matcher.server())?);
    let now = app.service.clock().now();
    let mut search = Search::within(&app.reach, places, matcher, now).await?;
    let first = search.next().await?;
    Ok(json_lines(move |mut lines| async move {
        let mut next = first;
        let mut left = page.limit.unwrap_or(u64::MAX);
        while let Some(found) = next {
            match push_page(&mut lines, &search, &found, &mut left).await {
                Ok(()) if left == 0 => break,
                Ok(()) => {}
                Err(end) => return Err((lines, end)),
            }
            next = match search.next().await {
                Ok(next) => next,
                Err(error) => return Err((lines, End::Broken(io::Error::other(error)))),
            };
        }
        Ok(lines)
    }))
}

async fn push_page(
    lines: &mut Lines,
    search: &Search,
    found: &[(usize, crate::queue::Message)],
    left: &mut u64,
) -> Result<(), End> {
    for (place, message) in found {
        if *left == 0 {
            break;
        }
        *left -= 1;
        lines.push(&entry(&search.places()[*place], message, search.now())).await?;
    }
    Ok(lines.flush().await?)
}

/// One with everything known of it but its content.
pub(super) async fn show(app: App, Path(id): Path<String>) -> Answer<QueueMessage> {
    let places = queues(&app.all());
    let now = app.service.clock().now();
    let (place, message) = one(places, &id, now).await?;
    object(details(&place, &message, now))
}

/// Which octets are wanted.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Part {
    #[serde(default)]
    headers: bool,
}

/// The octets of one, or of its header.
pub(super) async fn content(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(part): Query<Part>,
) -> Result<Response, Refused> {
    let places = queues(&app.all());
    let (place, message) = one(places, &id, app.service.clock().now()).await?;
    let gone = || Problem::new("queue", Kind::NotFound, format!("message {id} has just gone"));
    let reader = place.queue.read(message.id).ok_or_else(gone)?;
    let id = message.id.to_string();
    let part_word = if part.headers { "header" } else { "all" };
    tell(&app, "content-read", &place.server, Some(&id), &caller).word("part", part_word).send();
    Ok(octets(move |lines| send_content(lines, reader, part.headers)))
}

async fn send_content(
    mut lines: Lines,
    mut reader: BodyReader,
    header_only: bool,
) -> Result<Lines, (Lines, End)> {
    if header_only {
        return match reader.read_header(HEADER_OCTETS_MAX).await {
            Ok(header) => match lines.octets(&header).await {
                Ok(()) => Ok(lines),
                Err(gone) => Err((lines, gone.into())),
            },
            Err(error) => Err((lines, End::Broken(error))),
        };
    }
    loop {
        match reader.next().await {
            Ok(None) => return Ok(lines),
            Ok(Some(piece)) => {
                if let Err(gone) = lines.octets(piece).await {
                    return Err((lines, gone.into()));
                }
            }
            Err(error) => return Err((lines, End::Broken(error))),
        }
    }
}

/// Flush, retry, hold, release, remove, bounce.
pub(super) async fn verb(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(verb): Path<String>,
    body: Bytes,
) -> Answer<Changed> {
    let verb: QueueVerb = verb.parse().map_err(|error| usage(format!("{error}")))?;
    let Change { selector, reason, if_exists, at } = read(&body)?;
    if at.is_some() && verb != QueueVerb::Retry {
        return Err(usage("at is a moment to retry at"));
    }
    let reason = reason.map(read_reason).transpose()?;
    // Whoever names the domain means its mail, also where that waits to be asked for.
    let opens = selector.domain.is_some();
    let matcher = selector.compile_for_change()?;
    let by_name = !matcher.ids().is_empty() && !if_exists;
    let now = app.service.clock().now();
    let servers = servers(&app, matcher.server())?;
    let mut search = Search::begin(queues(&servers), matcher, now).await?;
    let chosen = gather(&mut search).await?;
    let deed = Deed { verb, by: caller.name.clone(), reason, now, at: at.unwrap_or(now), by_name };
    let mut changed = Changed::default();
    for (place, chosen) in search.places().iter().zip(&chosen) {
        if chosen.messages.is_empty() {
            continue;
        }
        let done = perform(&place.queue, &deed, &chosen.messages, &mut changed).await?;
        let server = servers.iter().find(|server| server.name().as_str() == place.server);
        if let (QueueVerb::Flush | QueueVerb::Retry, Some(server)) = (verb, server) {
            if opens && at.is_none() {
                let held = chosen.routes.iter().filter(|route| route.held_domain().is_some());
                place.queue.open_routes(held.cloned().collect(), app.service.log()).await;
            }
            if at.is_none() {
                server.flush(&chosen.routes.iter().cloned().collect::<Vec<_>>());
            }
            changed.notes.extend(resting(place, &chosen.routes, deed.at));
        }
        tell_of(&app, &caller, &deed, &place.server, &done);
        remember(&app, &deed, &place.server, &done);
    }
    for id in &search.missing {
        count_gone(&mut changed, &deed, id);
    }
    object(changed)
}

/// A reason that fits into a record, a report and a line of the log.
pub(super) fn read_reason(text: String) -> Result<String, Refused> {
    if text.len() > REASON_OCTETS_MAX || text.chars().any(char::is_control) {
        let words = format!("a reason is one line of at most {REASON_OCTETS_MAX} octets");
        return Err(usage(words));
    }
    Ok(text)
}

/// The destinations that rest all the same at the moment of the attempt.
fn resting(place: &Place, routes: &BTreeSet<RouteName>, at: Timestamp) -> Vec<String> {
    let note = |route: &RouteName| {
        match place.queue.rest_of(route, at)? {
        Rest::Paused(DestinationPause { destination: name, .. }) => Some(format!(
            "{name} stays paused; smtpctl queue resume --destination '{name}' ends that"
        )),
        Rest::Held | Rest::Fetched => route.held_domain().map(|name| {
            format!("mail for {name} is held until it is asked for; smtpctl queue retry --domain {name} sends it now")
        }),
    }
    };
    let notes: BTreeSet<String> = routes.iter().filter_map(note).collect();
    notes.into_iter().collect()
}

/// What is to be done to messages.
#[derive(Debug)]
struct Deed {
    verb: QueueVerb,
    by: String,
    reason: Option<String>,
    now: Timestamp,
    /// When they are to be tried.
    at: Timestamp,
    /// Whether the messages were named by their ids: then one that is not there is an error. One
    /// that a condition chose and that went out meanwhile has only done what it was to do.
    by_name: bool,
}

fn count_gone(changed: &mut Changed, deed: &Deed, id: &str) {
    if deed.by_name {
        changed.add_failure(&id, &gone(id));
    } else {
        changed.add_gone();
    }
}

/// The chosen messages of one queue.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) messages: Vec<(QueueId, u64)>,
    routes: BTreeSet<RouteName>,
}

/// Finds all before anything is changed, so that a change cannot run after its own tail.
pub(super) async fn gather(search: &mut Search) -> Result<Vec<Chosen>, Refused> {
    let mut all: Vec<_> = search.places().iter().map(|_| Chosen::default()).collect();
    while let Some(found) = search.next().await? {
        for (place, message) in found {
            let chosen = &mut all[place];
            chosen.messages.push((message.id, message.size));
            for (number, _) in message.waiting() {
                if let Some(route) = message.routes.get(number)
                    && !chosen.routes.contains(route)
                {
                    chosen.routes.insert(route.clone());
                }
            }
        }
    }
    Ok(all)
}

async fn perform(
    queue: &Queue,
    deed: &Deed,
    messages: &[(QueueId, u64)],
    changed: &mut Changed,
) -> Result<Vec<QueueId>, CommitError> {
    let mut all_done = Vec::new();
    for part in messages.chunks(CHANGED_AT_ONCE) {
        let ids: Vec<_> = part.iter().map(|(id, _)| *id).collect();
        let mut done = match deed.verb {
            QueueVerb::Flush | QueueVerb::Retry => queue.retry(&ids, deed.at).await?,
            QueueVerb::Release => queue.release(&ids).await?,
            QueueVerb::Remove => queue.remove(&ids).await?,
            QueueVerb::Bounce => {
                let (by, reason) = (deed.by.clone(), deed.reason.clone());
                queue.give_up(&ids, ReturnOrder { by, reason, since: deed.now }).await?
            }
            QueueVerb::Hold => {
                let hold =
                    Hold { by: deed.by.clone(), reason: deed.reason.clone(), since: deed.now };
                queue.hold(&ids, hold).await?
            }
        };
        done.sort_unstable();
        for (id, size) in part {
            if done.binary_search(id).is_ok() {
                changed.add(id, *size);
            } else {
                count_gone(changed, deed, &id.to_string());
            }
        }
        all_done.append(&mut done);
    }
    Ok(all_done)
}

/// One line for each message whose state changed; an earlier attempt is no change of state.
fn tell_of(app: &App, caller: &Caller, deed: &Deed, server: &str, done: &[QueueId]) {
    let event = match deed.verb {
        QueueVerb::Hold => "held",
        QueueVerb::Release => "released",
        QueueVerb::Remove => "removed",
        QueueVerb::Bounce => "return-ordered",
        QueueVerb::Flush | QueueVerb::Retry => {
            let id = if let [id] = done { Some(id.to_string()) } else { None };
            let line = tell(app, "scheduled", server, id.as_deref(), caller);
            return line.word("messages", done.len()).send();
        }
    };
    for id in done {
        tell(app, event, server, Some(&id.to_string()), caller)
            .maybe("reason", deed.reason.as_ref())
            .send();
    }
}

/// Has the trace remember each message that something was done to.
fn remember(app: &App, deed: &Deed, server: &str, done: &[QueueId]) {
    let word = match deed.verb {
        QueueVerb::Hold => "held",
        QueueVerb::Release => "released",
        QueueVerb::Remove => "removed",
        QueueVerb::Flush | QueueVerb::Retry => "scheduled",
        QueueVerb::Bounce => "given-up",
    };
    for id in done {
        let note = Note::new(word, server, deed.now).id(*id).text(Text::By, &deed.by);
        app.service.trace().record(note.maybe(Text::Reason, deed.reason.as_ref()));
    }
}

pub(super) fn gone(id: &str) -> Problem {
    Problem::new("queue", Kind::NotFound, format!("there is no message {id} in the queue"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::queue::{Body, Draft};
    use crate::store::conformance::{envelope, start, table};

    #[tokio::test(start_paused = true)]
    async fn messages_that_went_out_since_they_were_chosen_are_errors_only_if_named() {
        let verbs = [
            QueueVerb::Flush,
            QueueVerb::Retry,
            QueueVerb::Hold,
            QueueVerb::Release,
            QueueVerb::Remove,
            QueueVerb::Bounce,
        ];
        for verb in verbs {
            for by_name in [false, true] {
                let queue = Queue::in_memory(Clock::simulated(start(), 1), table(&[]));
                let mut chosen = Vec::new();
                for _ in 0..3 {
                    let envelope = envelope(&["a@x.example"], start());
                    let draft = Draft { envelope, body: Body::Memory(b"x".to_vec()) };
                    chosen.push((queue.accept(draft).await.unwrap(), 1));
                }
                queue.remove(&[chosen[1].0]).await.unwrap();
                let by = "somebody".to_owned();
                let deed = Deed { verb, by, reason: None, now: start(), at: start(), by_name };
                let mut changed = Changed::default();
                perform(&queue, &deed, &chosen, &mut changed).await.unwrap();
                assert_eq!((changed.matched, changed.changed), (3, 2), "{verb:?}");
                let counts = (changed.gone, changed.failures(), changed.failed.len());
                assert_eq!(counts, if by_name { (0, 1, 1) } else { (1, 0, 0) }, "{verb:?}");
            }
        }
    }
}
