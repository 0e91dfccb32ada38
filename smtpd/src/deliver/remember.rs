//! What the trace is told of delivery: outcomes, and the reports they cause.

use std::sync::Arc;

use mailroot_common::config::trace::Dialogues;
use mailroot_common::id::QueueId;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::outcome::RemoteHost;
use smtpd_core::queue::recipient::RecipientStatus;
use smtpd_core::trace::event::{Number, Text};
use smtpd_core::trace::note::{Admission, Cause, Note};

use super::Settings;
use super::room::Room;
use crate::queue::{Draft, Lease};

/// Remembers where a recipient of a lease stands now, and by which way it got there.
pub(super) fn status(
    room: &Room,
    settings: &Settings,
    lease: &Lease,
    place: usize,
    status: &RecipientStatus,
) {
    let recipient = lease.envelope.recipients.get(place).filter(|_| room.trace.is_on());
    let Some(recipient) = recipient else { return };
    let before = lease.due.binary_search_by_key(&place, |(place, _)| *place);
    let before = before.ok().and_then(|found| lease.due.get(found));
    let is_tried = before.is_none_or(|(_, before)| before.attempts != status.attempts);
    let cause = if is_tried { Cause::Attempt } else { Cause::Age };
    let to = &recipient.mailbox;
    let route = recipient.route_name(&settings.table, &lease.envelope.sender);
    let at = room.clock.now();
    if let Some(note) = Note::outcome(&room.server, lease.id, at, to, &route, (status, cause)) {
        // What is counted over many messages must not have to look for the beginning of each.
        let note = note.number(Number::Size, lease.size);
        room.trace.record(note.text(Text::From, &lease.envelope.sender));
    }
}

/// Remembers what was said to a host about a message, where that is to be remembered.
pub(super) fn dialogue(room: &Room, id: QueueId, host: &RemoteHost, said: &str, failed: bool) {
    let is_wanted = match room.trace.wants_dialogues() {
        Dialogues::Off => false,
        Dialogues::Failed => failed,
        Dialogues::All => true,
    };
    if is_wanted || room.dialogues.is_followed(id) {
        let at = room.clock.now();
        room.trace.record(Note::dialogue(&room.server, id, at, "out", host, said));
    }
}

/// Reports that are about to be sent, each to be remembered once it has its id: as a message of its
/// own, and in the story of the message that it is about.
pub(super) fn reports<'a>(
    room: &'a Room,
    about: QueueId,
    envelope: &Arc<Envelope>,
    drafts: &[Draft],
) -> Vec<impl FnOnce(QueueId) + Send + use<'a>> {
    let remembered = |draft: &Draft| {
        let (report, size) = (draft.envelope.clone(), draft.body.size());
        let envelope = Arc::clone(envelope);
        move |id: QueueId| {
            if room.trace.is_on() {
                let server = &*room.server;
                let subjects = room.trace.wants_subjects();
                let admitted = Admission { subjects, ..Admission::default() };
                room.trace.record(Note::received(server, id, &report, size, admitted));
                let note = Note::new("report", server, report.accepted_at).id(about);
                let note = note.number(Number::Other, id.as_u64());
                room.trace.record(note.text(Text::To, &envelope.sender));
            }
        }
    };
    drafts.iter().map(remembered).collect()
}

/// A message that the directory has made of another and that is about to be kept, to be remembered once
/// it has its id.
pub(super) fn onward<'a>(room: &'a Room, draft: &Draft) -> impl FnOnce(QueueId) + Send + use<'a> {
    let (envelope, size) = (draft.envelope.clone(), draft.body.size());
    move |id: QueueId| {
        if room.trace.is_on() {
            let subjects = room.trace.wants_subjects();
            let admitted = Admission { subjects, ..Admission::default() };
            room.trace.record(Note::received(&room.server, id, &envelope, size, admitted));
        }
    }
}
