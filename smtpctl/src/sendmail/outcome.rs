//! `sendmail -v`: what is said, and what becomes of the message.
//!
//! In: the daemon's words when the message is durable. Out: lines as other programs of this name print them:
//! what was said to other hosts, and for each recipient what came of the first attempt. It is asked for as
//! any user asks about his own mail. That it cannot be told, or takes too long, is no failure: the message
//! is on disk.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Parser;
use mailroot_common::control::{
    Direction, Kind, Problem, QueueEntry, QueueState, Selector, TraceEntry, TraceEvent, path,
};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;

use super::submit::Audience;
use super::{Name, complain};
use crate::args::Args;
use crate::change::with_query;
use crate::output::{clock_time, escape};
use crate::send::{LOOK_EVERY, id_in};
use crate::tool::{Tool, now};

/// How long the first attempt is waited for.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long its record is waited for.
const RECORD_PATIENCE: Duration = Duration::from_secs(5);

/// A person who looks on.
pub(super) struct Person;

impl Audience for Person {
    fn hear(&mut self, line: &str) {
        // Who does not listen is no reason to lose mail.
        let _ = writeln!(io::stdout(), "{}", escape(line));
    }

    fn stays(&self) -> bool {
        true
    }

    fn see(&mut self, reply: &str) {
        let Some(id) = id_in(reply) else { return };
        match look(id) {
            Ok(lines) => lines.iter().for_each(|line| self.hear(line)),
            Err(problem) => {
                complain(
                    Name::Sendmail,
                    &format!("{id} is queued; what becomes of it: {}", problem.detail),
                );
            }
        }
    }
}

/// Waits for the first attempt, and says what came of it.
fn look(id: QueueId) -> Result<Vec<String>, Problem> {
    let failed =
        |error: String| Problem::new("client", Kind::Failed, format!("cannot start: {error}"));
    let args = Args::try_parse_from(["smtpctl", "trace"]);
    let mut tool = Tool::new(args.map_err(|error| failed(error.to_string()))?.global);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    runtime.block_on(async {
        tool.daemon_of_all().await?;
        let selector = Selector { ids: vec![id.to_string()], ..Selector::default() };
        let begun = Instant::now();
        while awaits_attempt(&mut tool, &selector).await? && begun.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let tried = Instant::now();
        loop {
            let entry = story(&mut tool, path::TRACE, &selector).await?;
            let is_told = entry.as_ref().is_some_and(|entry| entry.events.iter().any(is_outcome));
            let is_over = begun.elapsed() >= PATIENCE || tried.elapsed() >= RECORD_PATIENCE;
            if is_told || is_over {
                let entry = with_dialogues(&mut tool, &selector).await?.or(entry);
                return Ok(
                    entry.map_or_else(Vec::new, |entry| lines(&entry, now(), tool.shape.utc))
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
}

/// Whether no attempt has ended yet.
async fn awaits_attempt(tool: &mut Tool, selector: &Selector) -> Result<bool, Problem> {
    let mut awaits = false;
    let take = |entry: QueueEntry| {
        awaits = matches!(entry.state, QueueState::Queued | QueueState::Active);
        Ok(true)
    };
    tool.daemon().await?.lines(&with_query(path::QUEUE, selector), take).await?;
    Ok(awaits)
}

/// The message's story.
async fn story(
    tool: &mut Tool,
    path: &str,
    selector: &Selector,
) -> Result<Option<TraceEntry>, Problem> {
    let mut found = None;
    let take = |entry: TraceEntry| {
        found = Some(entry);
        Ok(true)
    };
    tool.daemon().await?.lines(&with_query(path, selector), take).await?;
    Ok(found)
}

/// The same with what was said to other hosts; nothing where the caller may not know it. It is asked for
/// once: the daemon's log keeps who reads it.
async fn with_dialogues(
    tool: &mut Tool,
    selector: &Selector,
) -> Result<Option<TraceEntry>, Problem> {
    match story(tool, path::TRACE_DIALOGUES, selector).await {
        Err(problem) if problem.kind() == Kind::NotPermitted => Ok(None),
        told => told,
    }
}

fn is_outcome(event: &TraceEvent) -> bool {
    verdict(&event.event).is_some()
}

/// The word for what came of an attempt.
fn verdict(event: &str) -> Option<&'static str> {
    Some(match event {
        "delivered" | "dropped" => "Sent",
        "deferred" => "Deferred",
        "in_doubt" => "In doubt",
        "bounced" | "expired" => "Failed",
        "badmail" => "In Badmail",
        "held" => "Held",
        "discarded" => "Discarded",
        _ => return None,
    })
}

/// What is shown of a story.
fn lines(entry: &TraceEntry, now: Timestamp, utc: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for dialogue in entry.dialogues.iter().filter(|it| it.direction == Direction::Out) {
        lines.push(format!("Connecting to {}...", dialogue.peer));
        lines.extend(dialogue.lines.iter().map(|line| said(line)));
    }
    for event in &entry.events {
        let Some(verdict) = verdict(&event.event) else { continue };
        let to = event.to.as_deref().unwrap_or("all recipients");
        let words = match event.event.as_str() {
            "dropped" => "put into Drop".to_owned(),
            "held" | "discarded" => format!("by {}", event.by.as_deref().unwrap_or("the service")),
            _ => event.to_string(),
        };
        let host = event.host.as_ref().map(|host| format!(" by {host}")).unwrap_or_default();
        let next = event.next_attempt_at.map(|at| clock_time(at, now, utc));
        let next = next.map(|at| format!("; tried again at {at}")).unwrap_or_default();
        lines.push(format!("{to}... {verdict}: {}{host}{next}", words.trim_end()));
    }
    let is_told = entry.events.iter().any(is_outcome);
    if !is_told {
        let why = entry.advice.as_ref().map(|advice| format!(": {}", advice.why));
        let why = why.unwrap_or_default();
        lines.push(format!("{} was not tried yet ({}){why}", entry.id, entry.state));
    }
    lines
}

/// A line of a dialogue: what we say is marked.
fn said(line: &str) -> String {
    match line.strip_prefix("C: ") {
        Some(words) => format!(">>> {words}"),
        None => line.strip_prefix("S: ").unwrap_or(line).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> TraceEntry {
        serde_json::from_value(serde_json::json!({
            "id": "6FZK3QB27N5C", "server": "default", "state": "retry",
            "recipients": [{"address": "al@slow.example", "state": "retry"}],
            "events": [
                {"at": "2026-11-24T13:21:00Z", "event": "received"},
                {"at": "2026-11-24T13:21:30Z", "event": "delivered", "to": "bo@slow.example",
                 "code": 250, "status": "2.0.0", "text": "ok", "host": "mx[192.0.2.9]:25"},
                {"at": "2026-11-24T13:21:30Z", "event": "deferred", "to": "al@slow.example",
                 "attempt": 1, "code": 451, "status": "4.7.1", "text": "later",
                 "host": "mx[192.0.2.9]:25", "next_attempt_at": "2026-11-24T13:26:30Z"},
                {"at": "2026-11-24T13:21:30Z", "event": "dropped", "to": "root@here.example"}
            ],
            "dialogues": [
                {"at": "2026-11-24T13:21:00Z", "direction": "in", "peer": "127.0.0.1:0", "lines": ["C: x"]},
                {"at": "2026-11-24T13:21:30Z", "direction": "out", "peer": "mx[192.0.2.9]:25",
                 "lines": ["S: 220 mx", "C: EHLO here.example", "   12 octets of a message"]}
            ]
        }))
        .unwrap()
    }

    fn shown(entry: &TraceEntry) -> String {
        let now = Timestamp::parse("2026-11-24T13:21:31Z").unwrap();
        lines(entry, now, true).join("\n")
    }

    #[test]
    fn what_was_said_comes_first_and_then_each_recipient() {
        assert_eq!(
            shown(&entry()),
            "Connecting to mx[192.0.2.9]:25...\n220 mx\n>>> EHLO here.example\n\
             \x20  12 octets of a message\n\
             bo@slow.example... Sent: 250 2.0.0 ok by mx[192.0.2.9]:25\n\
             al@slow.example... Deferred: 451 4.7.1 later by mx[192.0.2.9]:25; tried again at 13:26:30\n\
             root@here.example... Sent: put into Drop"
        );
    }

    #[test]
    fn what_was_discarded_is_told() {
        let mut entry = entry();
        entry.dialogues.clear();
        entry.events = vec![TraceEvent {
            event: "discarded".to_owned(),
            by: Some("milter".to_owned()),
            ..TraceEvent::default()
        }];
        assert_eq!(shown(&entry), "all recipients... Discarded: by milter");
    }

    #[test]
    fn what_was_not_tried_is_said_with_its_reason() {
        let mut entry = entry();
        entry.events.truncate(1);
        entry.dialogues.clear();
        "queued".clone_into(&mut entry.state);
        assert_eq!(shown(&entry), "6FZK3QB27N5C was not tried yet (queued)");
    }
}
