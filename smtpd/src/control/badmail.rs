//! `/v1/badmail`: messages that could be neither delivered nor returned.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::response::Response;
use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::control::selector::{Facts, RecipientFacts};
use mailroot_common::control::{
    BadmailEntry, BadmailMessage, Change, Changed, Kind, Matcher, Problem, Requeue, Selector,
};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::trace::event::{Number, Text};
use smtpd_core::trace::note::{Admission, Note};

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use super::choose::{ambiguous, servers};
use super::extract::{Path, Query};
use super::gate::tell;
use super::lines::{End, Lines, json_lines, octets};
use super::requeue::{Wish, put_back};
use crate::badmail::{Badmail, Entry};
use crate::virtual_server::VirtualServer;

/// How many files are looked at at once.
const PAGE: usize = 1_000;
/// How much of a file is read at once.
const PIECE: usize = 64 * 1024;

/// A Badmail directory and its virtual server.
struct Place {
    server: Arc<VirtualServer>,
    badmail: Badmail,
}

fn places(app: &App, server: Option<&str>) -> Result<Vec<Place>, Refused> {
    let servers = servers(app, server)?.into_iter();
    Ok(servers
        .filter_map(|server| server.badmail().map(|badmail| Place { server, badmail }))
        .collect())
}

/// The chosen ones with the place of each, newest first, server after server; and the ids that
/// name none.
async fn choose(
    places: &[Place],
    matcher: &Matcher,
    now: Timestamp,
) -> Result<(Vec<(usize, Entry)>, Vec<String>), Refused> {
    let mut all = Vec::new();
    let mut seen = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let mut after = None;
        loop {
            let page = place.badmail.list(after, PAGE).await?;
            after = page.last().map(|entry| entry.name.clone());
            if !matcher.ids().is_empty() {
                seen.extend(page.iter().map(|entry| entry.name.clone()));
            }
            let server = place.server.name().as_str();
            let chosen = page.into_iter().filter(|entry| is_chosen(matcher, entry, server, now));
            all.extend(chosen.map(|entry| (number, entry)));
            if after.is_none() {
                break;
            }
        }
    }
    let mut missing = Vec::new();
    for id in matcher.ids() {
        let fit: Vec<_> = seen.iter().filter(|name| name.starts_with(id.as_str())).collect();
        // A message and its later parts (`ID` and `ID-2`) begin alike: the whole name means one.
        match fit.len() {
            0 => missing.push(id.clone()),
            1 => {}
            _ if fit.contains(&id) => {
                all.retain(|(_, entry)| entry.name == *id || !entry.name.starts_with(id.as_str()));
            }
            _ => return Err(ambiguous(id, fit.into_iter()).into()),
        }
    }
    Ok((all, missing))
}

fn is_chosen(matcher: &Matcher, entry: &Entry, server: &str, now: Timestamp) -> bool {
    if matcher.takes_everything() {
        return true;
    }
    let record = entry.record.as_ref();
    let from = record.and_then(|record| record.sender.as_ref()).map(ToString::to_string);
    let envelope = record.and_then(|record| record.envelope.as_ref());
    let facts = Facts {
        id: &entry.name,
        server,
        state: "",
        at: Some(record.map_or(entry.written_at, |record| record.at)),
        size: Some(entry.size),
        from: from.as_deref(),
        subject: envelope.and_then(|envelope| envelope.subject.as_deref()),
        client: envelope.and_then(|envelope| envelope.origin.client),
    };
    let words = record.map(|record| format!("{} {}", record.reason, record.detail));
    let mut addresses: Vec<_> = record.map_or_else(Vec::new, |record| {
        record.recipients.iter().map(|concerned| concerned.mailbox.to_string()).collect()
    });
    if addresses.is_empty() {
        // A message without recipients still has a reason to be chosen by.
        addresses.push(String::new());
    }
    let recipients = addresses.iter().map(|address| RecipientFacts {
        address,
        reason: words.as_deref(),
        code: None,
        ..RecipientFacts::default()
    });
    matcher.matches(&facts, recipients, now)
}

/// The one message meant, with the place it lies in.
async fn one(app: &App, id: &str) -> Result<(Place, Entry), Refused> {
    let mut places = places(app, None)?;
    let matcher = Selector::id(id).compile()?;
    let (mut found, _) = choose(&places, &matcher, app.service.clock().now()).await?;
    let (place, entry) = found.pop().ok_or_else(|| gone(id))?;
    Ok((places.swap_remove(place), entry))
}

fn gone(id: &str) -> Problem {
    Problem::new("badmail", Kind::NotFound, format!("there is no message {id} in Badmail"))
}

/// The chosen ones, one JSON object per line.
pub(super) async fn list(app: App, Query(selector): Query<Selector>) -> Result<Response, Refused> {
    let matcher = selector.compile()?;
    let places = places(&app, matcher.server())?;
    let (found, _) = choose(&places, &matcher, app.service.clock().now()).await?;
    Ok(json_lines(|mut lines| async move {
        for (place, found) in &found {
            if let Err(end) = lines.push(&entry(places[*place].server.name().as_str(), found)).await
            {
                return Err((lines, end));
            }
        }
        Ok(lines)
    }))
}

/// One with everything known of it but its content.
pub(super) async fn show(app: App, Path(id): Path<String>) -> Answer<BadmailMessage> {
    let (place, found) = one(&app, &id).await?;
    let (found, report) = place.badmail.show(&found.name).await?;
    let directory = &place.badmail.settings().directory;
    object(BadmailMessage {
        entry: entry(place.server.name().as_str(), &found),
        file: directory.join(format!("{}.eml", found.name)).display().to_string(),
        source: found.record.as_ref().and_then(|record| record.source.clone()),
        report,
    })
}

/// The octets of one.
pub(super) async fn content(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let (place, found) = one(&app, &id).await?;
    let (found, file) = place.badmail.requeue(&found.name).await?;
    let server = place.server.name().as_str();
    tell(&app, "content-read", server, Some(&found.name), &caller).word("part", "all").send();
    Ok(octets(move |lines| send_file(lines, file)))
}

pub(super) async fn send_file(mut lines: Lines, mut file: File) -> Result<Lines, (Lines, End)> {
    loop {
        match read_piece(file).await {
            Ok((_, piece)) if piece.is_empty() => return Ok(lines),
            Ok((rest, piece)) => {
                file = rest;
                if let Err(gone) = lines.octets(&piece).await {
                    return Err((lines, gone.into()));
                }
            }
            Err(error) => return Err((lines, End::Broken(error))),
        }
    }
}

/// The next octets of a file, none at its end; read off the reactor.
pub(super) async fn read_piece(mut file: File) -> io::Result<(File, Vec<u8>)> {
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
        Ok((file, piece))
    });
    read.await.map_err(io::Error::other)?
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
    for (place, entry) in found {
        let Place { server, badmail } = &places[place];
        match badmail.remove(&entry.name).await {
            Ok(_) => {
                changed.add(&entry.name, entry.size);
                let server = server.name().as_str();
                tell(&app, "badmail-removed", server, Some(&entry.name), &caller)
                    .maybe("reason", reason.as_ref())
                    .send();
            }
            Err(error) => changed.add_failure(&entry.name, &Refused::from(error).0),
        }
    }
    for id in missing {
        changed.add_failure(&id, &gone(&id));
    }
    object(changed)
}

/// Puts the chosen ones back into the queue.
pub(super) async fn requeue(
    app: App,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<Changed> {
    let request: Requeue = read(&body)?;
    let wish = read_wish(&request)?;
    let matcher = request.change.selector.compile_for_change()?;
    let places = places(&app, matcher.server())?;
    let (found, missing) = choose(&places, &matcher, app.service.clock().now()).await?;
    let mut changed = Changed::default();
    for (place, entry) in found {
        let Place { server, badmail } = &places[place];
        let Some(queue) = server.queue() else { continue };
        match put_back(badmail, &queue, &entry.name, &wish, app.service.clock().now()).await {
            Ok((id, envelope, size)) => {
                changed.add(&id, entry.size);
                remember(&app, server.name().as_str(), id, &envelope, size, &caller);
                let server = server.name().as_str();
                tell(&app, "requeued", server, Some(&id.to_string()), &caller)
                    .word("source", &entry.name)
                    .send();
            }
            Err(Refused(problem)) => changed.add_failure(&entry.name, &problem),
        }
    }
    for id in missing {
        changed.add_failure(&id, &gone(&id));
    }
    object(changed)
}

/// Has the trace remember the message's new life, and where the old one went.
fn remember(app: &App, server: &str, id: QueueId, envelope: &Envelope, size: u64, caller: &Caller) {
    let trace = app.service.trace();
    let admitted = Admission { subjects: trace.wants_subjects(), ..Admission::default() };
    trace.record(Note::received(server, id, envelope, size, admitted));
    let name = envelope.origin.source.as_deref().unwrap_or_default();
    let old = name.get(..QueueId::DIGITS).and_then(|text| QueueId::parse(text).ok());
    if let Some(old) = old {
        let note = Note::new("requeued", server, envelope.accepted_at).id(old);
        trace.record(note.number(Number::Other, id.as_u64()).text(Text::By, &caller.name));
    }
}

fn read_wish(request: &Requeue) -> Result<Wish, Refused> {
    let mailbox = |text: &String| Mailbox::parse(text).map_err(|error| usage(error.to_string()));
    let path = |text: &String| ReversePath::parse(text).map_err(|error| usage(error.to_string()));
    Ok(Wish {
        to: request.to.iter().map(mailbox).collect::<Result<_, _>>()?,
        from: request.from.as_ref().map(path).transpose()?,
    })
}

fn entry(server: &str, found: &Entry) -> BadmailEntry {
    let record = found.record.as_ref();
    BadmailEntry {
        id: found.name.clone(),
        server: server.to_owned(),
        at: record.map_or(found.written_at, |record| record.at),
        size: found.size,
        from: record.and_then(|record| record.sender.as_ref()).map(ToString::to_string),
        to: record.map_or_else(Vec::new, |record| {
            record.recipients.iter().map(|concerned| concerned.mailbox.to_string()).collect()
        }),
        reason: record.map_or("unknown", |record| record.reason.as_str()).to_owned(),
        detail: record.map_or_else(
            || "its .envelope file is missing or spoilt".to_owned(),
            |record| record.detail.clone(),
        ),
    }
}
