//! The story of a message as people read it: events with their times, then why and what to do.

use std::fmt::Write as _;

use mailroot_common::control::{Advice, Direction, TraceDialogue, TraceEntry, TraceEvent};
use mailroot_common::units::Timestamp;

use crate::output::{Cell, Shape, TimeForm, clock_time, escape, human_size, human_span};

/// Events that are told where there are more: the first and the last.
const FIRST: usize = 6;
const LAST: usize = 8;
/// How many recipients the first line names.
const NAMED: usize = 3;
/// How wide sentences are where there is no terminal.
const WIDTH: u16 = 100;
/// The blanks in front of sentences and commands.
const INDENT: usize = 5;

/// One message's story, ended by LF.
pub(crate) fn story(entry: &TraceEntry, shape: &Shape) -> String {
    let mut text = String::new();
    line(&mut text, &head(entry));
    let several = entry.recipients.len() > 1;
    let mut lines = Vec::new();
    let mut before: Option<&TraceEvent> = None;
    for event in &entry.events {
        let routed = event.route.as_ref().filter(|route| {
            let earlier = entry.events.iter().take_while(|other| !std::ptr::eq(*other, event));
            let same =
                |other: &TraceEvent| other.to == event.to && other.route.as_ref() == Some(route);
            !earlier.filter(|other| other.to == event.to && other.route.is_some()).any(same)
        });
        if let Some(route) = routed {
            let to = if several { event.to.as_deref() } else { None };
            let to = to.map(|to| format!("{to}  ")).unwrap_or_default();
            lines.push((event.at, "routed", format!("{to}by {route}")));
        }
        lines.push((event.at, word(event), told(entry, event, before, several)));
        before = Some(event);
    }
    let all = lines.len();
    for (number, (at, word, said)) in lines.into_iter().enumerate() {
        if all > FIRST + LAST + 1 && (FIRST..all - LAST).contains(&number) {
            if number == FIRST {
                let hidden = all - FIRST - LAST;
                line(&mut text, &format!("  … {hidden} more; -o json has all"));
            }
            continue;
        }
        line(&mut text, &format!("  {}  {word:<9}  {said}", time(at, shape)));
    }
    if entry.left_out > 0 {
        line(&mut text, &format!("  … {} more are not told", entry.left_out));
    }
    for dialogue in &entry.dialogues {
        text.push_str(&said(dialogue, shape));
    }
    if let Some(now) = present(entry, shape) {
        line(&mut text, &now);
    }
    if let Some(known) = &entry.advice {
        text.push_str(&advice(known, shape));
    }
    text
}

fn line(text: &mut String, words: &str) {
    let done = writeln!(text, "{}", escape(words.trim_end()));
    debug_assert!(done.is_ok(), "writing into a String cannot fail");
}

fn time(at: Timestamp, shape: &Shape) -> String {
    match shape.time {
        TimeForm::Relative => clock_time(at, shape.now, shape.utc),
        TimeForm::Iso | TimeForm::Unix => {
            Cell::Ago(at).for_people(shape.now, shape.time, shape.utc)
        }
    }
}

/// `6FZK3QB27N5C  app@x.example -> al@slow.example  1.2KiB  "Invoice 2291"  server default`.
fn head(entry: &TraceEntry) -> String {
    let from = match entry.from.as_deref() {
        Some("") => "<>",
        Some(from) => from,
        None => "?",
    };
    if entry.from.is_none() && entry.recipients.is_empty() {
        return format!("{}  server {}", entry.id, entry.server);
    }
    let to: Vec<_> = entry.recipients.iter().take(NAMED).map(|to| to.address.as_str()).collect();
    let more = entry.recipients.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let to = if to.is_empty() { "?".to_owned() } else { to.join(", ") };
    let size = entry.size.map(|size| format!("  {}", human_size(size))).unwrap_or_default();
    let subject = entry.subject.as_ref().map(|it| format!("  \"{it}\"")).unwrap_or_default();
    format!("{}  {from} -> {to}{more}{size}{subject}  server {}", entry.id, entry.server)
}

/// `  14:02:31  said       to mx1.partner.example[192.0.2.20]:25`, and the lines of it.
fn said(dialogue: &TraceDialogue, shape: &Shape) -> String {
    let way = match dialogue.direction {
        Direction::In => "by",
        Direction::Out => "to",
    };
    let mut text = String::new();
    line(&mut text, &format!("  {}  said       {way} {}", time(dialogue.at, shape), dialogue.peer));
    for words in &dialogue.lines {
        line(&mut text, &format!("            {words}"));
    }
    text
}

fn word(event: &TraceEvent) -> &str {
    match event.event.as_str() {
        "in_doubt" => "in doubt",
        "dropped" => "delivered",
        other => other,
    }
}

fn told(
    entry: &TraceEntry,
    event: &TraceEvent,
    before: Option<&TraceEvent>,
    several: bool,
) -> String {
    let by = || {
        let reason = event.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("by {}{reason}", event.by.as_deref().unwrap_or("-"))
    };
    match event.event.as_str() {
        "received" => received(entry),
        "report" => {
            let to = event.to.as_deref().filter(|to| !to.is_empty()).unwrap_or("<>");
            let id = event.other.map(|id| format!(" as {id}")).unwrap_or_default();
            format!("to {to}{id}")
        }
        "requeued" => {
            let id = event.other.map(|id| format!("as {id} ")).unwrap_or_default();
            format!("{id}{}", by())
        }
        "held" | "released" | "removed" | "scheduled" | "given-up" | "redirected" | "discarded" => {
            by()
        }
        _ => outcome(event, before, several),
    }
}

fn received(entry: &TraceEntry) -> String {
    let via = entry.via.as_deref().unwrap_or("-");
    let mut text = match (via, &entry.source) {
        ("pickup", Some(file)) => format!("as the Pickup file {file}"),
        ("requeue", Some(old)) => format!("from Badmail, where it was {old}"),
        ("report", _) => "as a report of ours".to_owned(),
        _ => {
            let client = entry.client.as_deref().unwrap_or("-");
            let name = entry.name.as_ref().or(entry.helo.as_ref());
            let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
            let tls = entry.events.first().and_then(|event| event.tls.as_ref());
            let tls = tls.map(|tls| format!(" under {tls}")).unwrap_or_default();
            let user = entry.user.as_ref().map(|user| format!(", logged in as {user}"));
            let user = user.unwrap_or_default();
            let shown = entry.certificate.as_ref().map(|it| format!(", with the certificate {it}"));
            let shown = shown.unwrap_or_default();
            format!("from {client}{name} by {}{tls}{shown}{user}", via.to_uppercase())
        }
    };
    if let Some(rule) = &entry.rule {
        text.push_str(&format!(", let in by {rule}"));
    }
    if let Some(checks) = &entry.checks {
        text.push_str(&format!(", {checks}"));
    }
    if let Some(wishes) = &entry.wishes {
        text.push_str(&format!(", wanted: {wishes}"));
    }
    text
}

fn outcome(event: &TraceEvent, before: Option<&TraceEvent>, several: bool) -> String {
    let is_same = before.is_some_and(|before| {
        before.event == event.event
            && before.to == event.to
            && before.host == event.host
            && before.code == event.code
            && before.text == event.text
    });
    let to = if several { event.to.as_deref() } else { None };
    let to = to.map(|to| format!("{to}  ")).unwrap_or_default();
    let said = if is_same {
        "same".to_owned()
    } else {
        let host = event.host.as_ref().map(|host| format!("{host}  ")).unwrap_or_default();
        let tls = event.tls.as_ref().map(|tls| format!("({tls})  ")).unwrap_or_default();
        format!("{host}{tls}{event}")
    };
    let by_age = ["delayed", "expired"].contains(&event.event.as_str());
    let attempt = match event.attempt.filter(|_| !by_age) {
        Some(attempt) if attempt > 1 || event.event == "deferred" => {
            format!("  (attempt {attempt})")
        }
        _ => String::new(),
    };
    format!("{to}{said}{attempt}")
}

/// `  next try  14:22:30 (in 19m), sender is told at 01:21:00, given up at …`, or its state.
fn present(entry: &TraceEntry, shape: &Shape) -> Option<String> {
    let waits = ["queued", "active", "retry", "in_doubt", "held"].contains(&entry.state.as_str());
    if !waits {
        return None;
    }
    let mut text = match entry.next_attempt_at {
        Some(at) if at <= shape.now => "  next try  now".to_owned(),
        Some(at) => {
            let wait = human_span(at.since(shape.now));
            format!("  next try  {} (in {wait})", time(at, shape))
        }
        None => format!("  now       {}", entry.state.replace('_', " ")),
    };
    if let Some(at) = entry.told_at.filter(|at| *at > shape.now) {
        text.push_str(&format!(", sender is told at {}", time(at, shape)));
    }
    if let Some(at) = entry.expires_at {
        text.push_str(&format!(", given up at {}", time(at, shape)));
    }
    Some(text)
}

/// `Why` and `Do`.
pub(crate) fn advice(advice: &Advice, shape: &Shape) -> String {
    let mut text = String::new();
    let width = usize::from(shape.width.unwrap_or(WIDTH)).max(40);
    let mut word = "Why";
    for part in wrapped(&escape(&advice.why), width - INDENT) {
        line(&mut text, &format!("{word:<INDENT$}{part}"));
        word = "";
    }
    let longest = advice.steps.iter().map(|step| step.command.chars().count()).max().unwrap_or(0);
    word = "Do";
    for step in &advice.steps {
        line(&mut text, &format!("{word:<INDENT$}{:<longest$}  {}", step.command, step.purpose));
        word = "";
    }
    text
}

/// Lines of at most so many characters, divided at blanks.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(last) if last.chars().count() + 1 + word.chars().count() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        let now = Timestamp::parse("2026-11-24T14:03:30Z").unwrap();
        Shape { now, utc: true, ..Shape::default() }
    }

    fn entry() -> TraceEntry {
        serde_json::from_value(serde_json::json!({
            "id": "6FZK3QB27N5C", "server": "default", "state": "retry",
            "accepted_at": "2026-11-24T13:21:00Z", "size": 1_228, "from": "app@example.net",
            "recipients": [{"address": "al@slow.example", "state": "retry"}],
            "via": "smtp", "client": "10.1.0.7", "name": "app1.example.net",
            "rule": "relay list 10.1.0.0/16", "subject": "Invoice \u{1b}[2J2291",
            "events": [
                {"at": "2026-11-24T13:21:00Z", "event": "received"},
                {"at": "2026-11-24T13:21:30Z", "event": "deferred", "to": "al@slow.example",
                 "attempt": 1, "route": "mx:slow.example", "status": "4.4.1",
                 "text": "connection timed out", "host": "mx.slow.example[198.51.100.9]:25"},
                {"at": "2026-11-24T13:22:30Z", "event": "deferred", "to": "al@slow.example",
                 "attempt": 2, "route": "mx:slow.example", "status": "4.4.1",
                 "text": "connection timed out", "host": "mx.slow.example[198.51.100.9]:25"},
                {"at": "2026-11-24T13:30:00Z", "event": "scheduled", "by": "anna"}
            ],
            "next_attempt_at": "2026-11-24T14:22:30Z", "told_at": "2026-11-25T01:21:00Z",
            "expires_at": "2026-11-28T13:21:00Z",
            "advice": {"why": "mx.slow.example does not answer.",
                "do": [{"command": "smtpctl queue retry 6FZK3QB27N5C", "purpose": "try now"}]}
        }))
        .unwrap()
    }

    #[test]
    fn a_story_reads_from_its_beginning_to_what_can_be_done() {
        assert_eq!(
            story(&entry(), &shape()),
            "6FZK3QB27N5C  app@example.net -> al@slow.example  1.1KiB  \"Invoice \\x1b[2J2291\"  server default\n\
             \x20 13:21:00  received   from 10.1.0.7 (app1.example.net) by SMTP, let in by relay list 10.1.0.0/16\n\
             \x20 13:21:30  routed     by mx:slow.example\n\
             \x20 13:21:30  deferred   mx.slow.example[198.51.100.9]:25  4.4.1 connection timed out  (attempt 1)\n\
             \x20 13:22:30  deferred   same  (attempt 2)\n\
             \x20 13:30:00  scheduled  by anna\n\
             \x20 next try  14:22:30 (in 19m), sender is told at 2026-11-25 01:21:00, given up at 2026-11-28 13:21:00\n\
             Why  mx.slow.example does not answer.\n\
             Do   smtpctl queue retry 6FZK3QB27N5C  try now\n"
        );
    }

    #[test]
    fn long_stories_are_cut_in_their_middle_and_long_sentences_between_words() {
        let mut long = entry();
        let deferred = long.events[1].clone();
        long.events.extend(std::iter::repeat_n(deferred, 50));
        long.advice = Some(Advice { why: "many words ".repeat(20), steps: Vec::new() });
        let text = story(&long, &Shape { width: Some(60), ..shape() });
        assert!(text.contains("… 41 more"), "{text}");
        assert!(text.lines().count() < 30, "{text}");
        let why: Vec<_> = text.lines().skip_while(|line| !line.starts_with("Why")).collect();
        assert!(why.len() > 2 && why.iter().all(|line| line.len() <= 60), "{why:?}");
    }

    #[test]
    fn several_recipients_are_told_apart() {
        let mut mixed = entry();
        mixed.recipients.push(mixed.recipients[0].clone());
        mixed.recipients[1].address = "bob@partner.example".to_owned();
        let text = story(&mixed, &shape());
        assert!(text.contains("-> al@slow.example, bob@partner.example"), "{text}");
        assert!(text.contains("deferred   al@slow.example  mx.slow"), "{text}");
    }
}
