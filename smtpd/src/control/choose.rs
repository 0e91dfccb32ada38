//! Finding the messages that a selector means, in the queues of one or of all virtual servers.
//!
//! In: a selector. Out: messages, page by page, in the order of their ids, server after server, so
//! that a list of a million messages never stands in memory. Beginnings of ids are resolved first;
//! one that fits several messages is an error that names them.

use std::sync::Arc;

use mailroot_common::address::Domain;
use mailroot_common::control::queue::{Attempt, QueueRecipient, RecipientState};
use mailroot_common::control::selector::{Facts, RecipientFacts, id_range};
use mailroot_common::control::{Kind, Matcher, Problem, QueueEntry, QueueMessage};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::envelope::BodyKind;
use smtpd_core::queue::outcome::{AttemptResult, Outcome};
use smtpd_core::queue::recipient::{Phase, RecipientStatus};
use smtpd_core::queue::wishes::ByMode;
use smtpd_core::route::table::RouteName;
use tokio::task::JoinHandle;

use super::App;
use super::answer::Refused;
use super::caller::Reach;
use crate::queue::{Filter, Message, Queue, ReadError, Rest};
use crate::service::ServiceError;
use crate::virtual_server::VirtualServer;

/// The first page is small, so that its first line is sent at once.
const FIRST_PAGE: usize = 50;
/// The pages after it.
const PAGE: usize = 500;
/// How many messages an ambiguous beginning of an id is shown to fit.
const CANDIDATES_MAX: usize = 10;

/// The virtual servers that a selector means.
pub(super) fn servers(app: &App, server: Option<&str>) -> Result<Vec<Arc<VirtualServer>>, Refused> {
    let Some(name) = server else {
        return Ok(app.all());
    };
    let name = super::server::read_name(name)?;
    if !app.reach.covers(&name) {
        let detail = format!("you are no operator of the virtual server {name}");
        return Err(Problem::new("caller", Kind::NotPermitted, detail).into());
    }
    let found = app.service.server(&name);
    Ok(vec![found.ok_or(ServiceError::NoServer(name))?])
}

/// The queues of these servers; those that are stopped have none.
pub(super) fn queues(servers: &[Arc<VirtualServer>]) -> Vec<Place> {
    let place = |server: &Arc<VirtualServer>| {
        let queue = server.queue()?;
        Some(Place { server: server.name().to_string(), queue })
    };
    servers.iter().filter_map(place).collect()
}

/// A queue and the name of its server.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) server: String,
    pub(super) queue: Queue,
}

/// A search that goes on page by page.
#[derive(Debug)]
pub(super) struct Search {
    places: Vec<Place>,
    matcher: Matcher,
    /// Whose mail is looked for.
    reach: Reach,
    /// What the queue can choose by itself; the matcher looks at the rest.
    filter: Filter,
    now: Timestamp,
    /// The ids asked for, with the place of each; every message if absent.
    named: Option<Vec<(usize, QueueId)>>,
    /// Ids that name nothing.
    pub(super) missing: Vec<String>,
    place: usize,
    after: Option<QueueId>,
    page: usize,
    /// The next page, being read while this one is sent.
    ahead: Option<JoinHandle<Result<Vec<Message>, ReadError>>>,
}

impl Search {
    /// Begins a search for the mail that somebody may see.
    pub(super) async fn within(
        reach: &Reach,
        places: Vec<Place>,
        matcher: Matcher,
        now: Timestamp,
    ) -> Result<Self, Refused> {
        refuse_beginnings(reach, &matcher)?;
        let search = Self::begin(places, matcher, now).await?;
        Ok(Self { reach: reach.clone(), ..search })
    }

    /// Begins a search.
    pub(super) async fn begin(
        places: Vec<Place>,
        matcher: Matcher,
        now: Timestamp,
    ) -> Result<Self, Refused> {
        let domain = matcher.domain().and_then(|domain| Domain::parse(&domain).ok());
        let mut search = Self {
            filter: Filter { exact_domain: domain, ..Filter::default() },
            places,
            matcher,
            reach: Reach::All,
            now,
            named: None,
            missing: Vec::new(),
            place: 0,
            after: None,
            page: FIRST_PAGE,
            ahead: None,
        };
        if !search.matcher.ids().is_empty() {
            search.resolve().await?;
        }
        Ok(search)
    }

    /// The moment that ages are counted from.
    pub(super) const fn now(&self) -> Timestamp {
        self.now
    }

    /// The queues searched.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    async fn resolve(&mut self) -> Result<(), Refused> {
        let mut named = Vec::new();
        for text in self.matcher.ids().to_vec() {
            let found = candidates(&self.places, &text).await?;
            match found.as_slice() {
                [] => self.missing.push(text),
                [one] => named.push(*one),
                several => return Err(ambiguous(&text, several.iter().map(|(_, id)| *id)).into()),
            }
        }
        // The order of a list, whatever that of the ids; each message once.
        named.sort_unstable();
        named.dedup();
        named.reverse();
        self.named = Some(named);
        Ok(())
    }

    /// Begins to read the page that comes next; nothing at the end.
    fn read_page(&self) -> Option<JoinHandle<Result<Vec<Message>, ReadError>>> {
        let queue = self.places.get(self.place)?.queue.clone();
        let (filter, after, limit) = (self.filter.clone(), self.after, self.page);
        Some(tokio::spawn(async move { queue.list(&filter, after, limit).await }))
    }

    /// The next messages with the place of their queue; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<(usize, Message)>>, ReadError> {
        if let Some(named) = &mut self.named {
            let mut found = Vec::new();
            let page = named.split_off(named.len().saturating_sub(PAGE));
            for (place, id) in page.into_iter().rev() {
                let message = self.places[place].queue.show(id).await?;
                let message = message.filter(|message| self.chooses(message, place));
                found.extend(message.map(|message| (place, message)));
            }
            let is_end = self.named.as_ref().is_none_or(Vec::is_empty);
            return Ok(if found.is_empty() && is_end { None } else { Some(found) });
        }
        let place = self.place;
        let Some(reading) = self.ahead.take().or_else(|| self.read_page()) else {
            return Ok(None);
        };
        let limit = std::mem::replace(&mut self.page, PAGE);
        let mut page = match reading.await {
            Ok(page) => page?,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The daemon ends, and the answer with it.
            Err(_) => return Ok(None),
        };
        if page.len() < limit {
            self.place += 1;
            self.after = None;
        } else {
            self.after = page.last().map(|message| message.id);
            self.ahead = self.read_page();
        }
        page.retain(|message| self.chooses(message, place));
        Ok(Some(page.into_iter().map(|message| (place, message)).collect()))
    }

    fn chooses(&self, message: &Message, place: usize) -> bool {
        self.reach.sees_mail_of(message.envelope.origin.uid)
            && is_chosen(&self.matcher, message, &self.places[place].server, self.now)
    }
}

/// Whoever sees his own mail alone must name ids whole: what else begins with a text is not his to know.
pub(super) fn refuse_beginnings(reach: &Reach, matcher: &Matcher) -> Result<(), Problem> {
    let is_whole = |id: &String| QueueId::parse(id).is_ok();
    match reach {
        Reach::Own(_) if !matcher.ids().iter().all(is_whole) => {
            let detail = "ids of your own mail are written whole";
            Err(Problem::new("selector", Kind::Usage, detail))
        }
        Reach::Own(_) | Reach::Nothing | Reach::All | Reach::Servers(_) => Ok(()),
    }
}

/// The messages whose ids begin with a text, a few of them if they are many.
async fn candidates(places: &[Place], text: &str) -> Result<Vec<(usize, QueueId)>, Refused> {
    let mut found = Vec::new();
    if text.contains('-') {
        // The name of a message in Badmail.
        return Ok(found);
    }
    let (first, last) = id_range(text)?;
    for (number, place) in places.iter().enumerate() {
        if first == last {
            if place.queue.show(first).await?.is_some() {
                found.push((number, first));
            }
            continue;
        }
        let before = first.as_u64().checked_sub(1).map(QueueId::from_u64);
        let page = place.queue.list(&Filter::default(), before, CANDIDATES_MAX).await?;
        let ids = page.iter().map(|message| message.id).filter(|id| (first..=last).contains(id));
        found.extend(ids.map(|id| (number, id)));
    }
    Ok(found)
}

/// The error for a beginning that fits several ids.
pub(super) fn ambiguous<T: std::fmt::Display>(
    text: &str,
    candidates: impl Iterator<Item = T>,
) -> Problem {
    Problem::new("selector", Kind::Usage, format!("{text} is the beginning of several ids"))
        .word("ambiguous")
        .items(candidates.take(CANDIDATES_MAX))
}

/// The one message meant.
pub(super) async fn one(
    places: Vec<Place>,
    id: &str,
    now: Timestamp,
) -> Result<(Place, Message), Refused> {
    let selector = mailroot_common::control::Selector::id(id);
    let mut search = Search::begin(places, selector.compile()?, now).await?;
    let found = search.next().await?.unwrap_or_default().pop();
    let (place, message) = found.ok_or_else(|| {
        Problem::new("queue", Kind::NotFound, format!("there is no message {id} in the queue"))
            .hint(format!("smtpctl trace {id} tells what became of it"))
    })?;
    Ok((search.places[place].clone(), message))
}

fn is_chosen(matcher: &Matcher, message: &Message, server: &str, now: Timestamp) -> bool {
    if matcher.takes_everything() {
        return true;
    }
    let (id, from) = (message.id.to_string(), message.envelope.sender.to_string());
    let facts = Facts {
        id: &id,
        server,
        state: message.standing().as_str(),
        at: Some(message.envelope.accepted_at),
        size: Some(message.size),
        from: Some(&from),
        subject: message.envelope.subject.as_deref(),
        client: message.envelope.origin.client,
    };
    if !matcher.asks_recipients() {
        return matcher.matches(&facts, [], now);
    }
    let awaited = message.awaits_release().and_then(|_| message.reason());
    let texts: Vec<_> = message
        .waiting()
        .map(|(place, status)| {
            let address = message.envelope.recipients[place].mailbox.to_string();
            let words = status.last.as_ref().map(ToString::to_string);
            let words = words.or_else(|| awaited.clone());
            let last = status.last.as_ref();
            let code = last.map(|last| last.status.to_string());
            let route = message.routes.get(place);
            let names: Vec<&str> = route.into_iter().flat_map(RouteName::destinations).collect();
            (address, words, code, names, last.is_some_and(Outcome::is_network_error))
        })
        .collect();
    let recipients = texts.iter().map(|(address, reason, code, names, failed)| RecipientFacts {
        address,
        reason: reason.as_deref(),
        code: code.as_deref(),
        destinations: names,
        network_error: *failed,
    });
    matcher.matches(&facts, recipients, now)
}

/// A message as a list shows it.
pub(super) fn entry(place: &Place, message: &Message, now: Timestamp) -> QueueEntry {
    let mailbox = |place: usize| message.envelope.recipients[place].mailbox.clone();
    QueueEntry {
        id: message.id,
        server: place.server.clone(),
        state: message.standing(),
        accepted_at: message.envelope.accepted_at,
        size: message.size,
        from: message.envelope.sender.clone(),
        to: message.waiting().map(|(place, _)| mailbox(place)).collect(),
        attempts: message.attempts(),
        next_attempt_at: message.next_attempt_at(),
        reason: rest(place, message, now).or_else(|| message.reason()),
    }
}

/// Why the destination that the message waits for is not tried, in words.
fn rest(place: &Place, message: &Message, now: Timestamp) -> Option<String> {
    if !message.state.is_free() {
        return None;
    }
    let routes = message.waiting().filter_map(|(number, _)| message.routes.get(number));
    let rest = routes.filter_map(|route| place.queue.rest_of(route, now)).next()?;
    Some(match (rest, message.reason()) {
        (rest @ Rest::Held, Some(last)) => format!("{}; last time: {last}", rest.words()),
        (rest, _) => rest.words(),
    })
}

/// A message with everything known of it.
pub(super) fn details(place: &Place, message: &Message, now: Timestamp) -> QueueMessage {
    let envelope = &message.envelope;
    let recipients = envelope.recipients.iter().zip(&message.state.recipients).enumerate();
    QueueMessage {
        entry: entry(place, message, now),
        via: envelope.origin.via.as_str().to_owned(),
        client: envelope.origin.client,
        helo: envelope.origin.helo.clone(),
        session: envelope.origin.session,
        source: envelope.origin.source.clone(),
        checks: envelope.origin.checks.clone(),
        message_id: envelope.message_id.clone(),
        subject: envelope.subject.clone(),
        envid: envelope.envid.clone(),
        release_at: envelope.wishes.release_at,
        deliver_by: envelope.wishes.deliver_by.map(|by| by.at),
        if_late: envelope.wishes.deliver_by.map(|by| match by.mode {
            ByMode::Return => "return".to_owned(),
            ByMode::Notify => "tell".to_owned(),
        }),
        priority: envelope.wishes.priority.as_i8(),
        require_tls: envelope.wishes.require_tls,
        body: match envelope.body {
            BodyKind::SevenBit => "7bit",
            BodyKind::EightBitMime => "8bitmime",
            BodyKind::BinaryMime => "binarymime",
        }
        .to_owned(),
        smtputf8: envelope.smtputf8,
        hops: envelope.hops,
        recipients: recipients
            .map(|(place, (recipient, status))| QueueRecipient {
                address: recipient.mailbox.clone(),
                state: recipient_state(status),
                route: message.routes.get(place).map(ToString::to_string),
                attempts: status.attempts,
                next_attempt_at: status.next_attempt(),
                last: status.last.as_ref().map(attempt),
            })
            .collect(),
    }
}

pub(super) const fn recipient_state(status: &RecipientStatus) -> RecipientState {
    match status.phase {
        Phase::Waiting if status.attempts == 0 => RecipientState::Queued,
        Phase::Waiting => RecipientState::Retry,
        Phase::InDoubt => RecipientState::InDoubt,
        Phase::Delivered => RecipientState::Delivered,
        Phase::Returned => RecipientState::Returned,
        Phase::Badmail => RecipientState::Badmail,
        Phase::Removed => RecipientState::Removed,
    }
}

/// An outcome as an answer tells it.
pub(super) fn attempt(outcome: &Outcome) -> Attempt {
    Attempt {
        at: outcome.at,
        result: match outcome.result {
            AttemptResult::Delivered => "delivered",
            AttemptResult::Deferred => "deferred",
            AttemptResult::Failed => "failed",
            AttemptResult::InDoubt => "in_doubt",
        }
        .to_owned(),
        code: outcome.code,
        status: outcome.status,
        text: outcome.text.clone(),
        host: outcome.host.as_ref().map(ToString::to_string),
        stage: outcome.stage.as_str().to_owned(),
    }
}
