//! What the trace is told of delivery: outcomes, and the reports they cause.

use std::fmt;
use std::sync::Arc;

use mailroot_common::id::QueueId;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::recipient::RecipientStatus;
use smtpd_core::trace::event::{Number, Text};
use smtpd_core::trace::note::{Admission, Note};

use super::Settings;
use super::room::Room;
use crate::queue::Draft;

/// Remembers where a recipient stands now, and by which way it got there.
pub(super) fn status(
    room: &Room,
    settings: &Settings,
    id: QueueId,
    envelope: &Envelope,
    place: usize,
    status: &RecipientStatus,
) {
    let Some(recipient) = envelope.recipients.get(place).filter(|_| room.trace.is_on()) else {
        return;
    };
    let to = &recipient.mailbox;
    let route = settings.table.route_name(to);
    let route: &dyn fmt::Display = &route;
    if let Some(note) = Note::outcome(&room.server, id, to, Some(route), status) {
        room.trace.record(note);
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
