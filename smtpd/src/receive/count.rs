//! Which counter a refusal moves, and how it is remembered.

use std::net::IpAddr;

use smtpd_core::smtp::refusal::Refusal;
use smtpd_core::smtp::server::{End, Rejection, Stage};
use smtpd_core::trace::event::{Number, Text};
use smtpd_core::trace::note::Note;

use super::Parts;
use super::message::Client;
use super::session::Session;
use crate::observe::{Counters, Level};

/// Counts what was refused, where somebody wants to know how often.
pub(super) fn count(counters: &Counters, refusal: Refusal) {
    let counter = match refusal {
        Refusal::AccessDenied => &counters.connections_denied,
        Refusal::TooManyConnections => &counters.connections_over_max,
        Refusal::TooManyFromClient => &counters.connections_over_client_max,
        Refusal::RelayDenied => &counters.relay_denied,
        Refusal::UnknownSender => &counters.senders_unknown,
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
        Refusal::FilterRefused => &counters.filter_refused,
        Refusal::FilterDeferred | Refusal::FilterClosed => &counters.filter_deferred,
        Refusal::FilterUnavailable => &counters.filter_unavailable,
        Refusal::TooManyHops => &counters.hops_met,
        Refusal::StorageFull => &counters.no_room,
        Refusal::LocalTrouble => &counters.store_trouble,
        Refusal::Fault => &counters.panics,
        _ => return,
    };
    counter.add_one();
}

impl Session<'_> {
    /// Counts a refusal, tells the log of it, and has it remembered.
    pub(super) fn on_rejection(&self, rejection: &Rejection) {
        let Client { inner, session, .. } = self.client;
        let refusal = rejection.refusal;
        count(&inner.parts.counters, refusal);
        // What is no command is of no interest but to the client, unless it ends the session.
        let ends = self.server.end() == Some(End::Refused(refusal));
        let level =
            if rejection.stage == Stage::Command && !ends { Level::Debug } else { Level::Info };
        let helo = self.server.hello().map_or("", |hello| hello.name.as_str());
        let mut line = inner.parts.log.line(level, "reject");
        line = line
            .word("server", &inner.parts.name)
            .word("client", self.live.client().ip())
            .word("port", self.live.client().port())
            .maybe("uid", self.client.uid())
            .word("sid", session)
            .word("stage", rejection.stage.as_str())
            .word("code", refusal.code())
            .word("dsn", refusal.enhanced())
            .word("reason", refusal.reason())
            .text("helo", helo);
        if let Some(sender) = &rejection.sender {
            line = line.word("from", format_args!("<{sender}>"));
        }
        if let Some(recipient) = &rejection.recipient {
            line = line.word("to", format_args!("<{recipient}>"));
        }
        line.send();
        if level == Level::Debug {
            return;
        }
        let client = self.live.client().ip();
        record(&inner.parts, client, rejection.stage, refusal, |note| {
            note.text(Text::Session, session)
                .maybe(Text::Helo, Some(helo).filter(|helo| !helo.is_empty()))
                .maybe(Text::From, rejection.sender.as_ref())
                .maybe(Text::To, rejection.recipient.as_ref())
        });
    }
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
