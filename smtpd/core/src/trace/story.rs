//! The story of one message, put together from its events.

use std::collections::BTreeMap;

use mailroot_common::control::{
    Direction, Refused, TraceDialogue, TraceEntry, TraceEvent, TraceRecipient,
};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;

use super::event::{DIALOGUE, Event};

/// How many events of one message are told.
pub const EVENTS_MAX: usize = 5_000;
/// How many of its dialogues are.
pub const DIALOGUES_MAX: usize = 100;

/// Events of one message, gathered in any order.
#[derive(Clone, Debug)]
pub struct Story {
    id: QueueId,
    beginning: Option<Beginning>,
    server: String,
    events: Vec<TraceEvent>,
    dialogues: Vec<TraceDialogue>,
    left_out: u64,
}

/// What is known from the moment the message was accepted.
#[derive(Clone, Debug)]
struct Beginning {
    at: Timestamp,
    size: Option<u64>,
    from: Option<String>,
    to: Vec<String>,
    via: Option<String>,
    client: Option<String>,
    name: Option<String>,
    helo: Option<String>,
    session: Option<String>,
    user: Option<String>,
    certificate: Option<String>,
    uid: Option<u32>,
    rule: Option<String>,
    checks: Option<String>,
    source: Option<String>,
    message_id: Option<String>,
    subject: Option<String>,
    wishes: Option<String>,
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

impl Story {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(id: QueueId) -> Self {
        Self {
            id,
            beginning: None,
            server: String::new(),
            events: Vec::new(),
            dialogues: Vec::new(),
            left_out: 0,
        }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// When the message was accepted: by its story, or by its id.
    #[must_use]
    pub fn accepted_at(&self) -> Timestamp {
        let by_id = Timestamp::from_millis(self.id.as_millis());
        self.beginning.as_ref().map_or(by_id, |beginning| beginning.at)
    }

    /// Takes an event of the message.
    pub fn add(&mut self, event: &Event<'_>) {
        if event.word == DIALOGUE {
            if self.dialogues.len() < DIALOGUES_MAX {
                self.dialogues.push(dialogue(event));
            }
            return;
        }
        if event.is_beginning() {
            self.beginning = Some(Beginning {
                at: event.at,
                size: event.size,
                from: owned(event.from),
                to: event.to.iter().map(|&to| to.to_owned()).collect(),
                via: owned(event.via),
                client: owned(event.client),
                name: owned(event.name),
                helo: owned(event.helo),
                session: owned(event.session),
                user: owned(event.user),
                certificate: owned(event.certificate),
                uid: event.uid.and_then(|uid| uid.parse().ok()),
                rule: owned(event.rule),
                checks: owned(event.checks),
                source: owned(event.source),
                message_id: owned(event.message_id),
                subject: owned(event.subject),
                wishes: owned(event.wishes),
            });
        }
        if self.server.is_empty() {
            event.server.clone_into(&mut self.server);
        }
        if self.events.len() >= EVENTS_MAX && !event.is_beginning() {
            self.left_out += 1;
            return;
        }
        self.events.push(told(event));
    }

    /// The whole story. What the queue says of the message goes on top of it.
    #[must_use]
    pub fn finish(mut self) -> TraceEntry {
        // Delivery may begin before whoever accepted the message has said so.
        self.events.sort_by_key(|event| (event.event != "received", event.at));
        self.dialogues.sort_by_key(|dialogue| dialogue.at);
        let beginning = self.beginning;
        let named = beginning.as_ref().map(|beginning| beginning.to.clone()).unwrap_or_default();
        let recipients = recipients(named, &self.events);
        let of = |value: fn(&Beginning) -> &Option<String>| {
            beginning.as_ref().and_then(|beginning| value(beginning).clone())
        };
        TraceEntry {
            id: self.id,
            server: self.server,
            state: state(&recipients, &self.events).to_owned(),
            accepted_at: beginning.as_ref().map(|beginning| beginning.at),
            size: beginning.as_ref().and_then(|beginning| beginning.size),
            from: of(|it| &it.from),
            via: of(|it| &it.via),
            client: of(|it| &it.client),
            name: of(|it| &it.name),
            helo: of(|it| &it.helo),
            session: of(|it| &it.session),
            user: of(|it| &it.user),
            certificate: of(|it| &it.certificate),
            uid: beginning.as_ref().and_then(|beginning| beginning.uid),
            rule: of(|it| &it.rule),
            checks: of(|it| &it.checks),
            source: of(|it| &it.source),
            message_id: of(|it| &it.message_id),
            subject: of(|it| &it.subject),
            wishes: of(|it| &it.wishes),
            recipients,
            events: self.events,
            dialogues: self.dialogues,
            left_out: self.left_out,
            next_attempt_at: None,
            release_at: None,
            told_at: None,
            expires_at: None,
            advice: None,
        }
    }
}

fn dialogue(event: &Event<'_>) -> TraceDialogue {
    TraceDialogue {
        at: event.at,
        direction: if event.via == Some("in") { Direction::In } else { Direction::Out },
        peer: event.host.unwrap_or_default().to_owned(),
        lines: event.words.unwrap_or_default().lines().map(str::to_owned).collect(),
    }
}

fn told(event: &Event<'_>) -> TraceEvent {
    TraceEvent {
        at: event.at,
        event: event.word.to_owned(),
        to: if event.is_beginning() { None } else { owned(event.to.first().copied()) },
        attempt: event.attempt,
        next_attempt_at: event.next.map(Timestamp::from_millis),
        route: owned(event.route),
        host: owned(event.host),
        tls: owned(event.tls),
        code: event.code,
        status: owned(event.status),
        text: owned(event.words),
        stage: owned(event.stage),
        by: owned(event.by),
        reason: owned(event.reason),
        other: event.other.map(QueueId::from_u64),
    }
}

/// A refusal as it is told.
#[must_use]
pub fn refusal(event: &Event<'_>) -> Refused {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    Refused {
        at: event.at,
        server: event.server.to_owned(),
        client: text(event.client),
        helo: owned(event.helo),
        session: owned(event.session),
        stage: text(event.stage),
        code: event.code.unwrap_or_default(),
        status: text(event.status),
        reason: text(event.reason),
        from: owned(event.from),
        to: owned(event.to.first().copied()),
        advice: None,
    }
}

/// The recipients in the order of the envelope, then those of which only events tell; each with
/// what happened to it last.
fn recipients(named: Vec<String>, events: &[TraceEvent]) -> Vec<TraceRecipient> {
    let mut states: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut removed, mut requeued, mut discarded) = (false, false, false);
    for event in events {
        let state = match event.event.as_str() {
            "delivered" | "dropped" => "delivered",
            "resolved" => "resolved",
            "bounced" | "expired" => "returned",
            "badmail" => "badmail",
            "deferred" | "delayed" => "retry",
            "in_doubt" => "in_doubt",
            "removed" => {
                removed = true;
                continue;
            }
            "requeued" => {
                requeued = true;
                continue;
            }
            "discarded" => {
                discarded = true;
                continue;
            }
            _ => continue,
        };
        if let Some(to) = &event.to {
            states.insert(to, state);
        }
    }
    let mut all = named;
    let more: Vec<_> = states.keys().filter(|to| !all.iter().any(|named| named == *to)).collect();
    let more: Vec<String> = more.into_iter().map(|&to| to.to_owned()).collect();
    all.extend(more);
    let state = |address: &str| match states.get(address) {
        Some(&"retry" | &"in_doubt") | None if removed => "removed",
        Some(&"badmail") if requeued => "requeued",
        Some(state) => state,
        None if discarded => "discarded",
        None => "unknown",
    };
    all.into_iter()
        .map(|address| TraceRecipient { state: state(&address).to_owned(), address })
        .collect()
}

/// The state of a message by those of its recipients: what needs a look before what does not. A file
/// that never was a message has none; then what happened last counts.
#[must_use]
pub fn state(recipients: &[TraceRecipient], events: &[TraceEvent]) -> &'static str {
    const ORDER: [&str; 12] = [
        "in_doubt",
        "retry",
        "queued",
        "unknown",
        "badmail",
        "returned",
        "removed",
        "discarded",
        "requeued",
        "active",
        "resolved",
        "delivered",
    ];
    let has = |state: &&&str| recipients.iter().any(|recipient| recipient.state == **state);
    let last = || {
        let known = |event: &&TraceEvent| ["badmail", "requeued"].contains(&event.event.as_str());
        let last = events.iter().rev().find(known)?;
        Some(if last.event == "badmail" { "badmail" } else { "requeued" })
    };
    ORDER.iter().find(has).copied().or_else(last).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::super::event::{Number, Text};
    use super::super::note::Note;
    use super::*;

    fn story(notes: Vec<Note>) -> TraceEntry {
        let mut story = Story::new(QueueId::from_u64(7));
        for note in notes {
            let octets = note.finish();
            story.add(&Event::take(&mut octets.as_slice()).unwrap());
        }
        story.finish()
    }

    fn note(word: &str, at: u64, to: &str) -> Note {
        Note::new(word, "default", Timestamp::from_millis(at)).text(Text::To, to)
    }

    #[test]
    fn a_story_begins_with_its_beginning_whatever_came_first() {
        let told = story(vec![
            note("deferred", 5, "b@x.test").number(Number::Attempt, 1),
            note("delivered", 2, "a@x.test"),
            note("received", 3, "a@x.test").text(Text::To, "b@x.test").text(Text::From, "s@y.test"),
        ]);
        let words: Vec<_> = told.events.iter().map(|event| event.event.as_str()).collect();
        assert_eq!(words, ["received", "delivered", "deferred"]);
        assert_eq!(told.from.as_deref(), Some("s@y.test"));
        let states: Vec<_> = told.recipients.iter().map(|it| it.state.as_str()).collect();
        assert_eq!((states, told.state.as_str()), (vec!["delivered", "retry"], "retry"));
    }

    #[test]
    fn recipients_end_where_their_last_event_says() {
        for (words, state) in [
            (&["deferred", "delivered"][..], "delivered"),
            (&["deferred", "expired"], "returned"),
            (&["bounced"], "returned"),
            (&["badmail"], "badmail"),
            (&["deferred", "removed"], "removed"),
            (&["badmail", "requeued"], "requeued"),
            (&["received", "discarded"], "discarded"),
            (&["held"], "unknown"),
        ] {
            let events = words.iter().zip(1..).map(|(word, at)| note(word, at, "a@x.test"));
            let told = story(events.collect());
            assert_eq!(told.state, state, "{words:?}");
        }
    }

    #[test]
    fn a_file_that_never_was_a_message_ends_in_badmail() {
        let bare = |word: &str, at| Note::new(word, "default", Timestamp::from_millis(at));
        assert_eq!(story(vec![bare("badmail", 1)]).state, "badmail");
        assert_eq!(story(vec![bare("badmail", 1), bare("requeued", 2)]).state, "requeued");
    }

    #[test]
    fn a_story_without_end_is_cut_and_says_so() {
        let told =
            story((0..EVENTS_MAX as u64 + 3).map(|at| note("deferred", at, "a@x")).collect());
        assert_eq!((told.events.len(), told.left_out), (EVENTS_MAX, 3));
    }
}
