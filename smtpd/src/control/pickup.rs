//! `/v1/pickup`: files that wait in Pickup, and what would become of one.

use axum::body::Body;
use mailroot_common::control::{Kind, PickupCheck, PickupEntry, Problem};
use mailroot_common::units::Timestamp;

use super::App;
use super::adopt::{Source, one_server, receive};
use super::answer::{Answer, Refused, object, usage};
use super::extract::Query;
use crate::pickup::{State as Standing, Waiting};

/// How many files of a directory are listed.
const LISTED_MAX: usize = 10_000;

/// Everything that waits, server after server.
pub(super) async fn list(app: App) -> Answer<Vec<PickupEntry>> {
    let mut all = Vec::new();
    for server in app.all() {
        let Some(pickup) = server.watched_pickup().await else { continue };
        let listed = pickup.list(LISTED_MAX).await.map_err(|error| {
            let detail = format!("cannot read Pickup of {}: {error}", server.name());
            Refused::from(Problem::new("pickup", Kind::Failed, detail))
        })?;
        all.extend(listed.into_iter().map(|waiting| entry(server.name().as_str(), waiting)));
    }
    object(all)
}

fn entry(server: &str, waiting: Waiting) -> PickupEntry {
    let (state, reason) = match waiting.state {
        Standing::BeingWritten => ("being_written", None),
        Standing::Waiting => ("waiting", None),
        Standing::Claimed => ("claimed", None),
        Standing::Left(why) => ("left", Some(why)),
    };
    PickupEntry {
        name: waiting.name,
        server: server.to_owned(),
        size: waiting.size,
        uid: waiting.uid,
        at: Timestamp::from_millis(waiting.modified_millis),
        state: state.to_owned(),
        reason,
    }
}

/// Reads a file as Pickup would, and changes nothing.
pub(super) async fn check(
    app: App,
    Query(source): Query<Source>,
    body: Body,
) -> Answer<PickupCheck> {
    let Source { name, server } = source;
    let server = one_server(&app, server.as_deref())?;
    let never = || Problem::new("server", Kind::Unavailable, "the server never started");
    let pickup = server.pickup().ok_or_else(never)?;
    let directory = server.queue_directory().ok_or_else(never)?;
    let file = receive(body, &directory, &name, pickup.size_max()).await?;
    let checked = pickup.check(file, &name).await;
    let mut checked = checked.map_err(|error| usage(error.to_string()))?;
    for to in &mut checked.to {
        to.route = server.route_of(&checked.from, &to.address).map(|route| route.to_string());
    }
    object(checked)
}
