//! `/v1/drop`: messages that lie in Drop.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::response::Response;
use mailroot_common::control::selector::{Facts, RecipientFacts};
use mailroot_common::control::{Change, Changed, DropEntry, Kind, Matcher, Problem, Selector};
use mailroot_common::units::Timestamp;

use super::App;
use super::answer::{Answer, Refused, object, read};
use super::badmail::send_file;
use super::caller::Caller;
use super::choose::{ambiguous, servers};
use super::extract::{Path, Query};
use super::gate::tell;
use super::lines::{json_lines, octets};
use crate::drop::{DropDirectory, Dropped};
use crate::virtual_server::VirtualServer;

/// A Drop directory and its virtual server.
struct Place {
    server: Arc<VirtualServer>,
    directory: DropDirectory,
}

fn places(app: &App, server: Option<&str>) -> Result<Vec<Place>, Refused> {
    let servers = servers(app, server)?.into_iter();
    Ok(servers
        .filter_map(|server| server.drop_directory().map(|directory| Place { server, directory }))
        .collect())
}

/// The chosen ones with the place of each, and the ids that name none.
async fn choose(
    places: &[Place],
    matcher: &Matcher,
    now: Timestamp,
) -> Result<(Vec<(usize, Dropped)>, Vec<String>), Refused> {
    let mut all = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let listed = place.directory.list().await.map_err(|error| {
            let path = place.directory.settings().directory.display();
            Problem::new("drop", Kind::Failed, format!("cannot read {path}: {error}"))
        })?;
        all.extend(listed.into_iter().map(|dropped| (number, dropped)));
    }
    let mut missing = Vec::new();
    for id in matcher.ids() {
        let fit: Vec<_> =
            all.iter().map(|(_, it)| &it.stem).filter(|stem| stem.starts_with(&**id)).collect();
        match fit.len() {
            0 => missing.push(id.clone()),
            1 => {}
            _ if fit.contains(&id) => {}
            _ => return Err(ambiguous(id, fit.into_iter()).into()),
        }
    }
    all.retain(|(place, it)| {
        let exact = matcher.ids().is_empty()
            || matcher.ids().contains(&it.stem)
            || !matcher.ids().iter().any(|id| it.stem.starts_with(&format!("{id}-")));
        exact && is_chosen(matcher, it, places[*place].server.name().as_str(), now)
    });
    Ok((all, missing))
}

fn is_chosen(matcher: &Matcher, dropped: &Dropped, server: &str, now: Timestamp) -> bool {
    let facts = Facts {
        id: &dropped.stem,
        server,
        at: Some(dropped.at),
        size: Some(dropped.size),
        from: dropped.from.as_deref(),
        ..Facts::default()
    };
    let recipients =
        dropped.to.iter().map(|address| RecipientFacts { address, ..RecipientFacts::default() });
    matcher.matches(&facts, recipients, now)
}

async fn one(app: &App, id: &str) -> Result<(Place, Dropped), Refused> {
    let mut places = places(app, None)?;
    let matcher = Selector::id(id).compile()?;
    let (mut found, _) = choose(&places, &matcher, app.service.clock().now()).await?;
    let (place, dropped) = found.pop().ok_or_else(|| gone(id))?;
    Ok((places.swap_remove(place), dropped))
}

fn gone(id: &str) -> Problem {
    Problem::new("drop", Kind::NotFound, format!("there is no message {id} in Drop"))
}

fn entry(server: &str, dropped: &Dropped) -> DropEntry {
    DropEntry {
        id: dropped.stem.clone(),
        server: server.to_owned(),
        file: dropped.path.display().to_string(),
        at: dropped.at,
        size: dropped.size,
        from: dropped.from.clone(),
        to: dropped.to.clone(),
    }
}

/// The chosen ones, one JSON object per line.
pub(super) async fn list(app: App, Query(selector): Query<Selector>) -> Result<Response, Refused> {
    let matcher = selector.compile()?;
    let places = places(&app, matcher.server())?;
    let (found, _) = choose(&places, &matcher, app.service.clock().now()).await?;
    Ok(json_lines(|mut lines| async move {
        for (place, dropped) in &found {
            let server = places[*place].server.name().as_str();
            if let Err(end) = lines.push(&entry(server, dropped)).await {
                return Err((lines, end));
            }
        }
        Ok(lines)
    }))
}

/// One of them.
pub(super) async fn show(app: App, Path(id): Path<String>) -> Answer<DropEntry> {
    let (place, dropped) = one(&app, &id).await?;
    object(entry(place.server.name().as_str(), &dropped))
}

/// The octets of one.
pub(super) async fn content(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let (place, dropped) = one(&app, &id).await?;
    let file = place.directory.open(&dropped).await.map_err(|_| gone(&id))?;
    let server = place.server.name().as_str();
    tell(&app, "content-read", server, Some(&dropped.stem), &caller).word("part", "all").send();
    Ok(octets(move |lines| send_file(lines, file)))
}

/// Deletes the chosen ones.
pub(super) async fn purge(
    app: App,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<Changed> {
    let Change { selector, reason, .. } = read(&body)?;
    let matcher = selector.compile_for_change()?;
    let places = places(&app, matcher.server())?;
    let (found, missing) = choose(&places, &matcher, app.service.clock().now()).await?;
    let mut changed = Changed::default();
    for (place, dropped) in found {
        let Place { server, directory } = &places[place];
        match directory.remove(&dropped).await {
            Ok(()) => {
                changed.add(&dropped.stem, dropped.size);
                let server = server.name().as_str();
                tell(&app, "drop-removed", server, Some(&dropped.stem), &caller)
                    .maybe("reason", reason.as_ref())
                    .send();
            }
            // Whoever reads Drop was quicker.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => changed.add_gone(),
            Err(error) => {
                let problem = Problem::new("drop", Kind::Failed, error.to_string());
                changed.add_failure(&dropped.stem, &problem);
            }
        }
    }
    for id in missing {
        changed.add_failure(&id, &gone(&id));
    }
    object(changed)
}
