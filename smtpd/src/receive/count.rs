//! Which counter a refusal moves, and how it is remembered.

use std::net::IpAddr;

use smtpd_core::smtp::refusal::Refusal;
use smtpd_core::smtp::server::Stage;
use smtpd_core::trace::event::{Number, Text};
use smtpd_core::trace::note::Note;

use super::Parts;
use crate::observe::Counters;

/// Counts what was refused, where somebody wants to know how often.
pub(super) fn count(counters: &Counters, refusal: Refusal) {
    let counter = match refusal {
        Refusal::AccessDenied => &counters.connections_denied,
        Refusal::TooManyConnections => &counters.connections_over_max,
        Refusal::TooManyFromClient => &counters.connections_over_client_max,
        Refusal::RelayDenied => &counters.relay_denied,
        Refusal::UnknownRecipient => &counters.recipients_unknown,
        Refusal::DirectoryUnavailable => &counters.recipients_not_looked_up,
        Refusal::TooLarge | Refusal::ChunkTooLarge | Refusal::EnvelopeTooLarge => {
            &counters.size_refused
        }
        Refusal::SessionTooLarge => &counters.session_size_met,
        Refusal::TooManyRecipients => &counters.recipients_refused,
        Refusal::TooManyErrors => &counters.errors_met,
        Refusal::TooManyCommands => &counters.idle_commands_met,
        Refusal::Idle => &counters.idle_timeouts,
        Refusal::SessionTooLong => &counters.session_time_met,
        Refusal::TooSlow => &counters.too_slow,
        Refusal::LineTooLong => &counters.command_lines_too_long,
        Refusal::MessageLineTooLong | Refusal::HeaderTooLarge => &counters.shape_refused,
        Refusal::BareLineEnd | Refusal::BareLineEndInChunk | Refusal::BareLineEndInCommand => {
            &counters.bare_line_ends
        }
        Refusal::TooManyHops => &counters.hops_met,
        Refusal::StorageFull => &counters.no_room,
        Refusal::LocalTrouble => &counters.store_trouble,
        Refusal::Fault => &counters.panics,
        _ => return,
    };
    counter.add_one();
}

/// Has a refusal remembered, with what `more` adds to it.
pub(super) fn record(
    parts: &Parts,
    client: IpAddr,
    stage: Stage,
    refusal: Refusal,
    more: impl FnOnce(Note) -> Note,
) {
    if parts.trace.is_on() {
        let note = Note::refused(&parts.name, client, parts.clock.now())
            .text(Text::Stage, stage.as_str())
            .number(Number::Code, refusal.code().as_u16().into())
            .text(Text::Status, refusal.enhanced())
            .text(Text::Reason, refusal.reason());
        parts.trace.record_refusal(more(note));
    }
}
