//! `/v1/stats` and `/v1/destinations`: what was sent, and by which ways mail goes out.

use std::collections::BTreeMap;

use axum::response::Response;
use mailroot_common::control::{Destination, DestinationState, Stats, StatsBy};
use mailroot_common::units::{Span, Timestamp};
use serde::Deserialize;
use smtpd_core::route::table::RouteName;
use smtpd_core::trace::stats::Count;

use super::App;
use super::answer::{Answer, Refused, object, usage};
use super::choose::{attempt, servers};
use super::extract::Query;
use super::lines::json_lines;
use super::queue::Page;
use super::trace::{sees, stopping};
use crate::deliver::{LaneState, LaneView};
use crate::virtual_server::VirtualServer;

/// How far back is counted unless the query says.
const SINCE: Span = Span::days(1);
/// How many destinations one answer tells.
const DESTINATIONS_MAX: usize = 100_000;

/// What is to be counted.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wish {
    #[serde(default)]
    by: StatsBy,
    since: Option<String>,
    server: Option<String>,
}

/// The virtual server that a query means.
#[derive(Debug, Default, Deserialize)]
pub(super) struct OfServer {
    server: Option<String>,
}

/// What was sent, by what recipients have in common. The trace is read once, block by block.
pub(super) async fn stats(
    app: App,
    Query(Wish { by, since, server }): Query<Wish>,
) -> Answer<Vec<Stats>> {
    let since = since.as_deref().map_or(Ok(SINCE), Span::parse);
    let since = since.map_err(|error| usage(format!("since: {error}")))?;
    servers(&app, server.as_deref())?;
    let now = app.service.clock().now().as_millis();
    let from = Timestamp::from_millis(now.saturating_sub(since.as_millis()));
    let reach = app.reach.clone();
    let mut search = app.service.trace().search().await;
    let counting = tokio::task::spawn_blocking(move || {
        let mut count = Count::new(by);
        search.events_since(from, |event| {
            let is_meant = server.as_deref().is_none_or(|server| event.server == server);
            if is_meant && sees(&reach, event.server) {
                count.add(event);
            }
        });
        count.finish()
    });
    object(counting.await.map_err(|_| stopping())?)
}

/// The ways that mail takes out, the most mail first, one JSON object per line.
pub(super) async fn destinations(
    app: App,
    Query(OfServer { server }): Query<OfServer>,
    Query(page): Query<Page>,
) -> Result<Response, Refused> {
    let now = app.service.clock().now();
    let mut all = Vec::new();
    for server in servers(&app, server.as_deref())? {
        let counting = tokio::task::spawn_blocking(move || of_server(&server, now));
        all.extend(counting.await.map_err(|_| stopping())?);
    }
    all.sort_by_key(|it| std::cmp::Reverse((it.messages, it.connections)));
    all.truncate(page.most(DESTINATIONS_MAX));
    Ok(json_lines(|mut lines| async move {
        for destination in &all {
            if let Err(end) = lines.push(destination).await {
                return Err((lines, end));
            }
        }
        Ok(lines)
    }))
}

/// Every route that mail waits for, or that something is known of.
fn of_server(server: &VirtualServer, now: Timestamp) -> Vec<Destination> {
    let Some(queue) = server.queue() else { return Vec::new() };
    let mut found: BTreeMap<RouteName, Destination> = BTreeMap::new();
    for count in queue.routes() {
        let mut destination = nothing(server, &count.route);
        destination.messages = count.messages;
        destination.next_attempt_at = count.next_due;
        found.insert(count.route, destination);
    }
    for (route, id) in queue.oldest_by_route() {
        if let Some(destination) = found.get_mut(&route) {
            destination.oldest_at = Some(Timestamp::from_millis(id.as_millis()));
        }
    }
    for lane in server.lanes() {
        let route = lane.route.clone();
        let destination = found.entry(route).or_insert_with_key(|route| nothing(server, route));
        put_lane(destination, &lane);
    }
    for (route, destination) in &mut found {
        if queue.rest_of(route, now).is_some() {
            destination.state = DestinationState::Paused;
        }
    }
    found.into_values().collect()
}

fn nothing(server: &VirtualServer, route: &RouteName) -> Destination {
    Destination {
        server: server.name().to_string(),
        destination: route.destinations().next().unwrap_or_default().to_owned(),
        route: route.to_string(),
        state: DestinationState::Idle,
        connections: 0,
        limit: None,
        messages: 0,
        next_attempt_at: None,
        oldest_at: None,
        failures: 0,
        last: None,
    }
}

fn put_lane(destination: &mut Destination, lane: &LaneView) {
    destination.state = match lane.state {
        LaneState::Idle => DestinationState::Idle,
        LaneState::Active => DestinationState::Active,
        LaneState::BackingOff { until, failures } => {
            destination.failures = failures.into();
            // The lane as a whole waits, whenever its messages are due.
            destination.next_attempt_at = destination.next_attempt_at.max(Some(until));
            DestinationState::Backoff
        }
    };
    destination.connections = lane.workers as u64;
    destination.limit.clone_from(&lane.limit);
    destination.last = lane.last.as_ref().map(attempt);
}
