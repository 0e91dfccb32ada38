//! `/v1/queue/orders`: destinations that are paused, and rules that hold mail yet to come.

use axum::Extension;
use axum::body::Bytes;
use mailroot_common::control::{
    DestinationPause, FutureHold, FutureHoldRequest, FutureReleaseRequest, Kind, Orders,
    PauseRequest, Problem, Selector,
};
use mailroot_common::units::{Span, Timestamp};

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use super::choose::{Place, ambiguous, queues, servers};
use super::gate::tell;
use super::queue::read_reason;
use crate::queue::OrderError;

/// The longest pattern of a destination.
const DESTINATION_OCTETS_MAX: usize = 1_000;

impl From<OrderError> for Refused {
    fn from(error: OrderError) -> Self {
        let kind = match &error {
            OrderError::Selector(_) => Kind::Usage,
            OrderError::TooMany => Kind::Conflict,
            OrderError::Write(_) => Kind::Failed,
        };
        Self(Problem::new("queue", kind, error.to_string()))
    }
}

/// Everything in force.
pub(super) async fn list(app: App) -> Answer<Orders> {
    let now = app.service.clock().now();
    let mut all = Orders::default();
    for place in queues(&app.all()) {
        let orders = place.queue.orders().list(now);
        all.pauses.extend(orders.pauses.into_iter().map(|pause| counted(&place, pause)));
        let named = |hold| FutureHold { server: place.server.clone(), ..hold };
        all.holds.extend(orders.holds.into_iter().map(named));
    }
    object(all)
}

/// A pause with its server and the mail that waits for its destination.
fn counted(place: &Place, pause: DestinationPause) -> DestinationPause {
    let routes = place.queue.routes();
    let meant = routes.iter().filter(|count| crate::queue::Orders::concerns(&pause, &count.route));
    let messages = meant.map(|count| count.messages).sum();
    DestinationPause { server: place.server.clone(), messages, ..pause }
}

fn read_end(span: Option<&String>, now: Timestamp) -> Result<Option<Timestamp>, Refused> {
    let parsed = span.map(|text| Span::parse(text)).transpose();
    let parsed = parsed.map_err(|error| usage(format!("--for: {error}")))?;
    Ok(parsed.map(|span| now.after(span)))
}

fn read_destination(request: &PauseRequest) -> Result<&str, Refused> {
    let text = request.destination.as_str();
    if text.is_empty() || text.len() > DESTINATION_OCTETS_MAX || text.chars().any(char::is_control)
    {
        return Err(usage("a destination is a domain, a host, or a pattern with * and ?"));
    }
    Ok(text)
}

fn places(app: &App, server: Option<&str>) -> Result<Vec<Place>, Refused> {
    let places = queues(&servers(app, server)?);
    if places.is_empty() {
        return Err(Problem::new("server", Kind::Unavailable, "no queue is open").into());
    }
    Ok(places)
}

/// Makes no new attempts at a destination.
pub(super) async fn pause(
    app: App,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<Vec<DestinationPause>> {
    let request: PauseRequest = read(&body)?;
    let destination = read_destination(&request)?.to_owned();
    let now = app.service.clock().now();
    let until = read_end(request.span.as_ref(), now)?;
    let reason = request.reason.clone().map(read_reason).transpose()?;
    let mut done = Vec::new();
    for place in places(&app, request.server.as_deref())? {
        let pause = DestinationPause {
            server: String::new(),
            destination: destination.clone(),
            by: caller.name.clone(),
            reason: reason.clone(),
            since: now,
            until,
            messages: 0,
        };
        place.queue.orders().pause(pause.clone(), now).await?;
        let line = tell(&app, "destination-paused", &place.server, None, &caller);
        let line = line.word("destination", &destination).maybe("until", until.as_ref());
        line.maybe("reason", reason.as_ref()).send();
        done.push(counted(&place, pause));
    }
    object(done)
}

/// Makes attempts at a destination again.
pub(super) async fn resume(
    app: App,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<Vec<DestinationPause>> {
    let request: PauseRequest = read(&body)?;
    let destination = read_destination(&request)?;
    let now = app.service.clock().now();
    let mut done = Vec::new();
    for place in places(&app, request.server.as_deref())? {
        for ended in place.queue.orders().resume(destination, request.exactly, now).await? {
            let line = tell(&app, "destination-resumed", &place.server, None, &caller);
            line.word("destination", &ended.destination).send();
            done.push(counted(&place, ended));
        }
    }
    if done.is_empty() {
        let detail = format!("no destination {destination} is paused");
        return Err(Problem::new("queue", Kind::NotFound, detail)
            .hint("smtpctl queue pause --list names them")
            .into());
    }
    for server in servers(&app, request.server.as_deref())? {
        server.heed_orders();
    }
    object(done)
}

/// Holds mail yet to come.
pub(super) async fn hold(
    app: App,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<Vec<FutureHold>> {
    let request: FutureHoldRequest = read(&body)?;
    let Selector { from, to, domain, client, .. } = request.selector.clone();
    let selector = Selector { from, to, domain, client, ..Selector::default() };
    let server = request.selector.server.clone();
    if (Selector { server: server.clone(), ..selector.clone() }) != request.selector {
        let detail = "mail yet to come is chosen by from, to, domain and client only";
        return Err(usage(detail));
    }
    selector.compile_for_change()?;
    let now = app.service.clock().now();
    let until = read_end(request.span.as_ref(), now)?;
    let reason = request.reason.clone().map(read_reason).transpose()?;
    let mut done = Vec::new();
    for place in places(&app, server.as_deref())? {
        let rule = FutureHold {
            id: place.queue.new_id(),
            server: String::new(),
            selector: selector.clone(),
            by: caller.name.clone(),
            reason: reason.clone(),
            since: now,
            until,
        };
        place.queue.orders().hold(rule.clone(), now).await?;
        let id = rule.id.to_string();
        let line = tell(&app, "hold-ordered", &place.server, Some(&id), &caller);
        let line = line.text("mail", selector.words()).maybe("until", until.as_ref());
        line.maybe("reason", reason.as_ref()).send();
        done.push(FutureHold { server: place.server.clone(), ..rule });
    }
    object(done)
}

/// Ends rules. What they held stays held.
pub(super) async fn release(
    app: App,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<Vec<FutureHold>> {
    let request: FutureReleaseRequest = read(&body)?;
    let now = app.service.clock().now();
    let places = places(&app, request.server.as_deref())?;
    let mut chosen: Vec<(usize, FutureHold)> = Vec::new();
    for text in &request.ids {
        let text = text.to_uppercase();
        let mut fits = Vec::new();
        for (number, place) in places.iter().enumerate() {
            let holds = place.queue.orders().list(now).holds;
            let fit = holds.into_iter().filter(|hold| hold.id.to_string().starts_with(&text));
            fits.extend(fit.map(|hold| (number, hold)));
        }
        match fits.len() {
            0 => {
                let detail = format!("no rule {text} holds mail yet to come");
                return Err(Problem::new("queue", Kind::NotFound, detail)
                    .hint("smtpctl queue hold --list names them")
                    .into());
            }
            1 => chosen.append(&mut fits),
            _ => return Err(ambiguous(&text, fits.iter().map(|(_, hold)| hold.id)).into()),
        }
    }
    let mut done = Vec::new();
    for (number, rule) in chosen {
        let place = &places[number];
        if place.queue.orders().release(&rule, now).await? {
            let id = rule.id.to_string();
            tell(&app, "hold-ended", &place.server, Some(&id), &caller).send();
            done.push(FutureHold { server: place.server.clone(), ..rule });
        }
    }
    object(done)
}
