//! `/v1/sessions`: SMTP sessions, in both directions.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::response::Response;
use mailroot_common::control::selector::Facts;
use mailroot_common::control::{
    Change, Changed, Kind, Matcher, Problem, Selector, Session, Spoken,
};
use mailroot_common::units::Timestamp;
use tokio::time::timeout;

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use super::choose::{ambiguous, servers};
use super::extract::Query;
use super::gate::tell;
use super::lines::json_lines;
use super::queue::Page;
use super::trace::sees;

/// How long nothing is sent while nothing is said: whoever has gone shows when something is sent.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// The chosen ones, one JSON object per line.
pub(super) async fn list(app: App, Query(selector): Query<Selector>) -> Result<Response, Refused> {
    let matcher = selector.compile()?;
    let mut found = Vec::new();
    for server in servers(&app, matcher.server())? {
        found.extend(server.sessions());
    }
    let (found, _) = choose(found, &matcher, app.service.clock().now())?;
    Ok(json_lines(|mut lines| async move {
        for session in &found {
            if let Err(end) = lines.push(session).await {
                return Err((lines, end));
            }
        }
        Ok(lines)
    }))
}

/// Ends the chosen ones with 421.
pub(super) async fn kill(
    app: App,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<Changed> {
    let Change { selector, reason, .. } = read(&body)?;
    let matcher = selector.compile_for_change()?;
    let words = reason.unwrap_or_else(|| format!("ended by {}", caller.name));
    let servers = servers(&app, matcher.server())?;
    let mut found = Vec::new();
    for server in &servers {
        found.extend(server.sessions());
    }
    let (found, missing) = choose(found, &matcher, app.service.clock().now())?;
    let mut changed = Changed::default();
    for session in &found {
        let server = servers.iter().find(|server| server.name().as_str() == session.server);
        let is_ended = match server {
            Some(server) => server.kill_session(session.id),
            None => false,
        };
        if is_ended {
            changed.add(&session.id, 0);
            let id = session.id.to_string();
            tell(&app, "session-ended", &session.server, Some(&id), &caller)
                .text("reason", &words)
                .send();
        } else {
            changed.add_failure(&session.id, &gone(&session.id.to_string()));
        }
    }
    for id in missing {
        changed.add_failure(&id, &gone(&id));
    }
    object(changed)
}

/// What is said in the chosen ones, as it is said: in those with the ids that are named until they
/// end, otherwise in all that come, until whoever asked goes.
pub(super) async fn dialogue(
    app: App,
    Extension(caller): Extension<Caller>,
    Query(selector): Query<Selector>,
    Query(page): Query<Page>,
) -> Result<Response, Refused> {
    let matcher = selector.compile()?;
    let Selector { ids, client, server, .. } = selector.clone();
    if selector != (Selector { ids, client, server, ..Selector::default() }) {
        return Err(usage("dialogues are chosen by id, client and server only"));
    }
    let servers = servers(&app, matcher.server())?;
    let now = app.service.clock().now();
    let (wants, reach) = (matcher.clone(), app.reach.clone());
    // Whoever ends between the list and the first word is not missed.
    let mut listening = app.service.dialogues().listen(move |party| {
        let (id, client) = (party.id.to_string(), Some(party.peer.ip()));
        let facts = Facts { id: &id, server: &party.server, client, ..Facts::default() };
        sees(&reach, &party.server) && wants.matches(&facts, [], now)
    });
    let mut awaited = BTreeSet::new();
    if !matcher.ids().is_empty() {
        let mut all = Vec::new();
        for server in &servers {
            all.extend(server.sessions());
        }
        let (found, missing) = choose(all, &matcher, now)?;
        if let Some(id) = missing.first() {
            return Err(gone(id).into());
        }
        awaited.extend(found.iter().map(|session| session.id));
    }
    let ids = matcher.ids().join(",");
    let ids = Some(&*ids).filter(|ids| !ids.is_empty());
    tell(&app, "sessions-watched", matcher.server().unwrap_or("all"), ids, &caller).send();
    let (mut left, is_endless) = (page.most(usize::MAX), awaited.is_empty());
    Ok(json_lines(move |mut lines| async move {
        while left > 0 && (is_endless || !awaited.is_empty()) {
            match timeout(SILENCE_MAX, listening.next()).await {
                Ok(Some(line)) => {
                    if line.what == Spoken::End {
                        awaited.remove(&line.id);
                    }
                    left -= 1;
                    if let Err(end) = lines.push(&line).await {
                        return Err((lines, end));
                    }
                }
                Ok(None) => break,
                Err(_) => lines.push_empty(),
            }
            if listening.is_empty()
                && let Err(gone) = lines.flush().await
            {
                return Err((lines, gone.into()));
            }
        }
        Ok(lines)
    }))
}

fn gone(id: &str) -> Problem {
    Problem::new("session", Kind::NotFound, format!("there is no session {id}"))
}

/// Those that are chosen, and the ids that name none.
fn choose(
    sessions: Vec<Session>,
    matcher: &Matcher,
    now: Timestamp,
) -> Result<(Vec<Session>, Vec<String>), Refused> {
    let mut missing = Vec::new();
    for id in matcher.ids() {
        let all = sessions.iter().map(|session| session.id.to_string());
        let fit: Vec<_> = all.filter(|whole| whole.starts_with(id.as_str())).collect();
        match fit.len() {
            0 => missing.push(id.clone()),
            1 => {}
            _ => return Err(ambiguous(id, fit.into_iter()).into()),
        }
    }
    let is_chosen = |session: &Session| {
        let id = session.id.to_string();
        let peer = session.peer.parse::<std::net::SocketAddr>().ok();
        let facts = Facts {
            id: &id,
            server: &session.server,
            state: &session.state,
            at: Some(session.since),
            client: peer.map(|peer| peer.ip()),
            ..Facts::default()
        };
        matcher.matches(&facts, [], now)
    };
    Ok((sessions.into_iter().filter(is_chosen).collect(), missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, peer: &str) -> Session {
        serde_json::from_value(serde_json::json!({
            "id": id, "server": "default", "direction": "in", "peer": peer, "state": "idle",
            "since": "2026-11-24T09:00:00Z"
        }))
        .unwrap()
    }

    fn chosen(selector: &Selector) -> Result<(Vec<String>, Vec<String>), u8> {
        let sessions = vec![
            session("7QK2M9", "10.1.0.7:40000"),
            session("7QK2MF", "[2001:db8::1]:25"),
            session("8QK000", "10.2.0.1:1"),
        ];
        let now = Timestamp::parse("2026-11-24T10:00:00Z").unwrap();
        let found = choose(sessions, &selector.compile().unwrap(), now);
        let (found, missing) = found.map_err(|Refused(problem)| problem.exit)?;
        Ok((found.iter().map(|session| session.id.to_string()).collect(), missing))
    }

    #[test]
    fn sessions_are_chosen_by_id_client_and_age() {
        let text = |text: &str| Some(text.to_owned());
        let ids = |found: Result<(Vec<String>, Vec<String>), u8>| found.unwrap().0;
        assert_eq!(ids(chosen(&Selector::default())).len(), 3);
        assert_eq!(ids(chosen(&Selector::id("8qk0"))), ["8QK000"]);
        let lan = Selector { client: text("10.0.0.0/8"), ..Selector::default() };
        assert_eq!(ids(chosen(&lan)), ["7QK2M9", "8QK000"]);
        let young = Selector { newer_than: text("30m"), ..Selector::default() };
        assert_eq!(ids(chosen(&young)).len(), 0);
    }

    #[test]
    fn unknown_ids_are_told_and_ambiguous_ones_refused() {
        assert_eq!(chosen(&Selector::id("9999")), Ok((Vec::new(), vec!["9999".to_owned()])));
        assert_eq!(chosen(&Selector::id("7QK2")), Err(2));
    }
}
