//! From outcomes to the queue: new states, reports, Badmail, and a log line for each recipient.
//!
//! States and the reports they cause are recorded in one step, so that neither exists without the
//! other. What goes to Badmail lies there before its state says so.

use std::fmt;
use std::sync::Arc;

use mailroot_common::address::ReversePath;
use mailroot_common::id::QueueId;
use mailroot_common::units::{Span, Timestamp};
use smtpd_core::message::dsn::{self, HEADER_OCTETS_MAX, Kind, Original};
use smtpd_core::queue::dispose::{
    Disposition, InDoubtPolicy, Rules, dispose, meet_deadline, settle_doubts,
};
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::outcome::{AttemptResult, Outcome, Stage};
use smtpd_core::queue::recipient::{Phase, RecipientStatus};
use smtpd_core::queue::retry::Schedule;
use smtpd_core::queue::wishes::ByMode;

use super::Settings;
use super::job::{Ended, Job};
use super::remember;
use super::room::Room;
use crate::badmail::{BadmailError, Concerned, Reason, Record};
use crate::clock::Past;
use crate::observe::{Level, Line};
use crate::queue::{Body, Draft, Lease};

/// How long a message waits that could not be put into Badmail.
const BADMAIL_RETRY: Span = Span::minutes(5);

/// Records what the attempt came to for the job's recipients, and lets go of its lease.
pub(super) async fn finish(room: &Room, job: &mut Job) {
    let Some(lease) = job.lease.take() else { return };
    let settings = room.settings.load_full();
    let past = room.clock.past();
    let schedule = settings.schedule(&job.route);
    let random = room.clock.random();
    let is_doubt = |ended: &&Ended| ended.outcome.result == AttemptResult::InDoubt;
    let doubts = job.ended.iter().filter(is_doubt).count();
    room.counters.recipients_in_doubt.add(doubts as u64);
    let envelope = Arc::clone(&lease.envelope);
    let in_doubt = in_doubt(&settings, &envelope);
    let rules = rules(&past, &envelope, &schedule, &in_doubt);
    let (relieved, ours): (Vec<Ended>, Vec<Ended>) =
        std::mem::take(&mut job.ended).into_iter().partition(|ended| ended.dsn);
    let relayed: Vec<usize> =
        relieved.iter().chain(&ours).filter(|it| it.tells_of_relay).map(|it| it.place).collect();
    let decide = |ended: Vec<Ended>| {
        let outcomes: Vec<(usize, Outcome)> =
            ended.into_iter().map(|ended| (ended.place, ended.outcome)).collect();
        dispose(&envelope, &lease.due, &outcomes, past.now, rules, random)
    };
    let mut disposition = decide(ours);
    if !relieved.is_empty() {
        let more = decide(relieved).leaving_success_to_next_hop();
        disposition.statuses.extend(more.statuses);
        disposition.failed.extend(more.failed);
        disposition.delayed.extend(more.delayed);
        disposition.badmail.extend(more.badmail);
    }
    let disposition = disposition.telling_of_relay(&envelope, &relayed);
    let besides = Besides { made: job.made.take(), ..Besides::default() };
    record(room, &settings, lease, disposition, besides).await;
}

/// Decides about recipients that our own death left in doubt, where they are not simply tried again;
/// lets go of the lease if there are any.
pub(super) async fn finish_doubts(room: &Room, settings: &Settings, job: &mut Job) {
    let undecided = |lease: &Lease| lease.due.iter().any(|(_, status)| status.is_undecided());
    let Some(lease) = job.lease.take_if(|lease| undecided(lease)) else { return };
    let envelope = Arc::clone(&lease.envelope);
    let in_doubt = in_doubt(settings, &envelope);
    let past = room.clock.past();
    let schedule = settings.schedule(&job.route);
    let rules = rules(&past, &envelope, &schedule, &in_doubt);
    let disposition = settle_doubts(&envelope, &lease.due, past.now, rules);
    if disposition.statuses.is_empty() {
        job.lease = Some(lease);
    } else {
        record(room, settings, lease, disposition, Besides::default()).await;
    }
}

/// Returns what the sender wants back rather than late, before it is tried, or tells it; lets go of
/// the lease if that is so.
pub(super) async fn finish_late(room: &Room, settings: &Settings, job: &mut Job) {
    let is_timed = |lease: &Lease| lease.envelope.deadline().is_some();
    let Some(lease) = job.lease.take_if(|lease| is_timed(lease)) else { return };
    let envelope = Arc::clone(&lease.envelope);
    let in_doubt = in_doubt(settings, &envelope);
    let past = room.clock.past();
    let schedule = settings.schedule(&job.route);
    let rules = rules(&past, &envelope, &schedule, &in_doubt);
    let words = room.last_words(&job.route);
    let disposition = meet_deadline(&envelope, &lease.due, &|_| words.clone(), past.now, rules);
    if disposition.statuses.is_empty() {
        job.lease = Some(lease);
    } else {
        record(room, settings, lease, disposition, Besides::default()).await;
    }
}

/// How a message is treated whose time began when its envelope says, by the clock as it was then.
pub(super) fn rules<'a>(
    past: &Past,
    envelope: &Envelope,
    schedule: &'a Schedule,
    in_doubt: &'a (dyn Fn(usize) -> InDoubtPolicy + Sync),
) -> Rules<'a> {
    let accepted_at = past.as_of_now(envelope.begins_at());
    Rules { schedule, accepted_at, deadline: deadline(past, envelope), in_doubt }
}

/// When the time is up that the sender named, by the clock as it goes now.
pub(super) fn deadline(past: &Past, envelope: &Envelope) -> Option<Timestamp> {
    envelope.deadline().map(|at| past.due(envelope.accepted_at, at))
}

pub(super) fn in_doubt(
    settings: &Settings,
    envelope: &Envelope,
) -> impl Fn(usize) -> InDoubtPolicy {
    |place| {
        let recipient = envelope.recipients.get(place);
        recipient.map_or(settings.in_doubt, |recipient| settings.in_doubt(&recipient.mailbox))
    }
}

/// What is recorded together with a disposition.
#[derive(Debug, Default)]
pub(super) struct Besides {
    /// Changes that are no news.
    pub(super) quiet: Vec<(usize, RecipientStatus)>,
    /// The message in the place of recipients who end.
    pub(super) made: Option<Box<Draft>>,
}

/// Records a disposition with what it causes. Says whether all that was decided came to be.
pub(super) async fn record(
    room: &Room,
    settings: &Settings,
    lease: Lease,
    mut disposition: Disposition,
    besides: Besides,
) -> bool {
    let Besides { quiet, made } = besides;
    let mut complete = true;
    if !disposition.badmail.is_empty()
        && let Err(error) = Box::pin(put_into_badmail(room, settings, &lease, &disposition)).await
    {
        trouble(room, lease.id, "badmail-failed", &error);
        postpone_badmail(&mut disposition, room.clock.now());
        complete = false;
    }
    let (id, envelope) = (lease.id, lease.envelope.clone());
    for (place, status) in &disposition.statuses {
        log_status(room, id, &envelope, *place, status);
        count_status(room, status);
        remember::status(room, settings, &lease, *place, status);
    }
    if !disposition.wants_report() && disposition.badmail.is_empty() && made.is_none() {
        let mut changes = disposition.statuses;
        changes.extend(quiet);
        room.queue.settle_later(lease, changes);
        return complete;
    }
    let reports = write_reports(room, settings, &lease, &disposition).await;
    let (kinds, mut reports): (Vec<Kind>, Vec<Draft>) = reports.into_iter().unzip();
    let facts: Vec<Made> = reports.iter().map(Made::of).collect();
    let count = reports.len() as u64;
    let notes = remember::reports(room, id, &envelope, &reports);
    let onward =
        made.as_ref().map(|draft| (Box::new(remember::onward(room, draft)), Made::of(draft)));
    reports.extend(made.map(|draft| *draft));
    let mut changes = disposition.statuses;
    changes.extend(quiet);
    match room.queue.settle(lease, changes, reports).await {
        Ok(mut ids) => {
            room.counters.reports.add(count);
            if let (Some((remember, facts)), Some(new)) = (onward, ids.get(notes.len()).copied()) {
                remember(new);
                facts.tell(made_line(room, "sent-on", new).word("of", id)).send();
                ids.truncate(notes.len());
            }
            for (((report, remember), kind), facts) in
                ids.into_iter().zip(notes).zip(kinds).zip(facts)
            {
                remember(report);
                let line = made_line(room, "report", report).word("about", id);
                let line = facts.tell(line.word("kind", kind.word()));
                line.word("to", Angled(&envelope.sender)).send();
            }
        }
        Err(error) => {
            trouble(room, id, "settle-failed", &error);
            room.pause();
            complete = false;
        }
    }
    complete
}

/// What is told of a message that was made of another.
struct Made {
    size: u64,
    recipients: usize,
    sender: ReversePath,
}

impl Made {
    fn of(draft: &Draft) -> Self {
        Self {
            size: draft.body.size(),
            recipients: draft.envelope.recipients.len(),
            sender: draft.envelope.sender.clone(),
        }
    }

    fn tell<'a>(&self, line: Line<'a>) -> Line<'a> {
        let line = line.word("size", self.size).word("nrcpt", self.recipients);
        line.word("from", Angled(&self.sender))
    }
}

fn made_line<'a>(room: &'a Room, event: &str, id: QueueId) -> Line<'a> {
    room.log.line(Level::Info, event).word("server", &room.server).word("id", id)
}

fn trouble(room: &Room, id: QueueId, event: &str, error: &dyn fmt::Display) {
    room.log
        .line(Level::Error, event)
        .word("server", &room.server)
        .word("id", id)
        .word("error", error)
        .send();
}

async fn put_into_badmail(
    room: &Room,
    settings: &Settings,
    lease: &Lease,
    disposition: &Disposition,
) -> Result<(), BadmailError> {
    let statuses = disposition.statuses_of(&disposition.badmail);
    let recipients: Vec<Concerned> = statuses
        .iter()
        .filter_map(|(place, status)| {
            let mailbox = lease.envelope.recipients.get(*place)?.mailbox.clone();
            Some(Concerned { mailbox, place: *place, outcome: status.last.clone() })
        })
        .collect();
    let last = recipients.iter().rev().find_map(|concerned| concerned.outcome.as_ref());
    let loops = last.is_some_and(|outcome| outcome.stage == Stage::Route && is_loop(outcome));
    let record = Record {
        id: lease.id,
        at: room.clock.now(),
        reason: if loops { Reason::HopCount } else { Reason::NdrOfDsn },
        detail: last.map(Outcome::to_string).unwrap_or_default(),
        sender: Some(lease.envelope.sender.clone()),
        recipients,
        source: lease.envelope.origin.source.clone(),
        envelope: Some((*lease.envelope).clone()),
    };
    let mut incoming = settings.badmail.begin(record);
    let mut reader = lease.open();
    let failed = |source| BadmailError::Files {
        path: settings.badmail.settings().directory.clone(),
        source,
    };
    while let Some(piece) = reader.next().await.map_err(failed)? {
        incoming.append(piece).await?;
    }
    incoming.finish().await.map(drop)
}

fn is_loop(outcome: &Outcome) -> bool {
    outcome.status == mailroot_common::status::EnhancedCode::permanent(4, 6)
}

/// Recipients that should lie in Badmail and do not go on waiting for it.
fn postpone_badmail(disposition: &mut Disposition, now: Timestamp) {
    let places = std::mem::take(&mut disposition.badmail);
    for (place, status) in &mut disposition.statuses {
        if places.contains(place) {
            status.phase = Phase::Waiting;
            status.next_attempt = now.after(BADMAIL_RETRY);
        }
    }
}

async fn write_reports(
    room: &Room,
    settings: &Settings,
    lease: &Lease,
    disposition: &Disposition,
) -> Vec<(Kind, Draft)> {
    let mut drafts = Vec::new();
    let lists = [
        (Kind::Failure, &disposition.failed),
        (Kind::Delay, &disposition.delayed),
        (Kind::Success, &disposition.succeeded),
    ];
    for (kind, list) in lists {
        if list.is_empty() {
            continue;
        }
        let by_default = settings.ndr_full_message;
        let whole = Original::wants_whole(kind, &lease.envelope, by_default, lease.size);
        let read = if whole {
            lease.open().read_all().await
        } else {
            lease.read_header(HEADER_OCTETS_MAX).await
        };
        // A report that quotes nothing is better than none: trying again would meet the same.
        let octets = read.unwrap_or_else(|error| {
            trouble(room, lease.id, "unreadable", &error);
            Vec::new()
        });
        let original = if whole { Original::Whole(&octets) } else { Original::Header(&octets) };
        let past = room.clock.past();
        let accepted_at = past.as_of_now(lease.envelope.begins_at());
        let expires_at = settings.schedules.outbound.expires_at(accepted_at);
        let withdrawn_at = match lease.envelope.wishes.deliver_by {
            Some(by) if by.mode == ByMode::Return => deadline(&past, &lease.envelope),
            Some(_) | None => None,
        };
        let written = dsn::write(&dsn::Report {
            kind,
            id: lease.id,
            envelope: &lease.envelope,
            recipients: &disposition.statuses_of(list),
            original,
            host: &settings.host,
            default_domain: settings.table.default_domain(),
            copy_to: settings.ndr_copy_to.as_ref(),
            retry_until: withdrawn_at.map_or(expires_at, |at| at.min(expires_at)),
            now: past.now,
            random: room.clock.random(),
        });
        if let Some(written) = written {
            let body = Body::Memory(written.octets);
            drafts.push((kind, Draft { envelope: written.envelope, body }));
        }
    }
    drafts
}

fn count_status(room: &Room, status: &RecipientStatus) {
    let counters = &room.counters;
    let last = status.last.as_ref();
    match status.phase {
        Phase::Delivered if last.is_some_and(|last| last.stage == Stage::Drop) => {
            counters.recipients_dropped.add_one();
        }
        Phase::Delivered if last.is_some_and(|last| last.stage == Stage::Directory) => {
            counters.recipients_resolved.add_one();
        }
        Phase::Delivered => counters.recipients_delivered.add_one(),
        Phase::Waiting | Phase::InDoubt => counters.recipients_deferred.add_one(),
        Phase::Returned | Phase::Badmail if last.is_some_and(|last| last.stage.is_age()) => {
            counters.recipients_expired.add_one();
        }
        Phase::Returned | Phase::Badmail => counters.recipients_failed.add_one(),
        Phase::Removed => {}
    }
}

/// One line for one recipient's new state.
fn log_status(
    room: &Room,
    id: QueueId,
    envelope: &Envelope,
    place: usize,
    status: &RecipientStatus,
) {
    let (Some(last), Some(recipient)) = (&status.last, envelope.recipients.get(place)) else {
        return;
    };
    let event = match status.phase {
        Phase::Delivered if last.stage == Stage::Directory => "resolved",
        Phase::Delivered => "delivered",
        Phase::Waiting | Phase::InDoubt => "deferred",
        Phase::Returned | Phase::Badmail if last.stage.is_age() => "expired",
        Phase::Returned | Phase::Badmail => "bounced",
        Phase::Removed => return,
    };
    let line = room
        .log
        .line(Level::Info, event)
        .word("server", &room.server)
        .word("id", id)
        .word("rcpt", place + 1);
    let line = relay(line, last);
    let line = match status.phase {
        Phase::Waiting | Phase::InDoubt => {
            let line = line.word("try", status.attempts);
            match status.next_attempt() {
                Some(at) => line.word("next", at),
                None => line,
            }
        }
        _ => line,
    };
    let line = line.word("delay", Seconds(last.at.since(envelope.accepted_at)));
    let line = line.word("dsn", last.status);
    let line = match (status.phase, last.result) {
        (Phase::Delivered, _) => line,
        (_, AttemptResult::InDoubt) => line.word("reason", "in-doubt"),
        _ => line.word("reason", last.stage.as_str()),
    };
    line.word("to", Angled(&recipient.mailbox)).text("reply", last).send();
}

fn relay<'a>(line: Line<'a>, last: &Outcome) -> Line<'a> {
    match (&last.host, last.stage) {
        (Some(host), _) => match &host.tls {
            Some(tls) => line
                .word("relay", host)
                .word("tls", &tls.version)
                .word("verified", tls.verified.as_str()),
            None => line.word("relay", host),
        },
        (None, Stage::Drop) => line.word("relay", "drop"),
        (None, Stage::Directory) => line.word("relay", "directory"),
        (None, _) => line,
    }
}

/// An address in angle brackets.
struct Angled<T>(T);

impl<T: fmt::Display> fmt::Display for Angled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

/// Seconds with milliseconds.
struct Seconds(Span);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        write!(f, "{}.{:03}", millis / 1000, millis % 1000)
    }
}
