//! Outcome in, next state out: what becomes of each recipient after an attempt, or without one.
//!
//! Each recipient reaches exactly one end: delivered, returned to the sender, in Badmail, or
//! removed by an operator. This file decides the first three and which of them the sender is to be
//! told about; the store records the new states together with the reports, so that neither can
//! happen without the other.
//!
//! Two rules shape it. A report about a report would never end: failed mail of the null sender
//! goes to Badmail instead. And the remote's words are never thinned: a recipient that is given up
//! for its age keeps the words, codes and host of what kept it waiting.

use mailroot_common::status::EnhancedCode;
use mailroot_common::units::Timestamp;

use super::envelope::{Envelope, Notify};
use super::outcome::{AttemptResult, Outcome, Stage};
use super::recipient::{Phase, RecipientStatus, ReturnOrder};
use super::retry::{Schedule, notify};
use super::wishes::ByMode;

/// What is done with a recipient whose connection, or our own process, died between the end of the
/// body and the reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InDoubtPolicy {
    /// It is tried again, after our own death at once, else by the schedule; it may then get the
    /// message twice.
    #[default]
    Retry,
    /// It waits until an operator wants it tried or removed.
    Hold,
    /// It is given up, and the report says that it is not known whether it has the message.
    Return,
}

/// How mail is treated: its times, and what is done with each recipient, by place, if it is in doubt.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// The times.
    pub schedule: &'a Schedule,
    /// When the message's time began, by the clock as it goes now: when it was accepted or released,
    /// unless somebody set the clock since.
    pub accepted_at: Timestamp,
    /// When the time is up that the sender named, by the clock as it goes now; absent if there is
    /// none, or a host before us has told.
    pub deadline: Option<Timestamp>,
    /// Asked for recipients in doubt only.
    pub in_doubt: &'a (dyn Fn(usize) -> InDoubtPolicy + Sync),
}

/// What becomes of the recipients asked about. All numbers are places in the envelope's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disposition {
    /// The new status of every recipient that changed, each once.
    pub statuses: Vec<(usize, RecipientStatus)>,
    /// Failed, and the sender is to be told.
    pub failed: Vec<usize>,
    /// Delayed, and the sender is to be told, now and never again.
    pub delayed: Vec<usize>,
    /// Delivered, and the sender asked to be told. What was written to Drop is reported as
    /// delivered, what a next hop without DSN took as relayed.
    pub succeeded: Vec<usize>,
    /// Failed mail of the null sender: to be kept in Badmail.
    pub badmail: Vec<usize>,
}

impl Disposition {
    /// Leaves reports of success to the next hop: it announced DSN and was given the sender's
    /// wishes, so it will tell the sender itself (RFC 3461 section 5.2.1).
    #[must_use]
    pub fn leaving_success_to_next_hop(mut self) -> Self {
        self.succeeded.clear();
        self
    }

    /// Tells the sender also of these recipients that the next hop took them over, unless it wants no
    /// report at all (RFC 2852 section 4).
    #[must_use]
    pub fn telling_of_relay(mut self, envelope: &Envelope, relayed: &[usize]) -> Self {
        if relayed.is_empty() || envelope.sender.is_null() {
            return self;
        }
        let wanted =
            |place: &usize| relayed.contains(place) && notify(envelope, *place) != Notify::NEVER;
        let told = std::mem::take(&mut self.succeeded);
        let places = self.statuses.iter().map(|(place, _)| *place);
        self.succeeded = places.filter(|place| told.contains(place) || wanted(place)).collect();
        self
    }

    /// Whether the sender is to be told anything.
    #[must_use]
    pub fn wants_report(&self) -> bool {
        !(self.failed.is_empty() && self.delayed.is_empty() && self.succeeded.is_empty())
    }

    /// The new statuses of the recipients on one of the lists, as a report wants them.
    #[must_use]
    pub fn statuses_of(&self, list: &[usize]) -> Vec<(usize, &RecipientStatus)> {
        // Both are in the order of the decisions, so one walk finds all.
        let mut wanted = list.iter().peekable();
        let listed = |(place, _): &&(usize, RecipientStatus)| wanted.next_if_eq(&place).is_some();
        self.statuses.iter().filter(listed).map(|(place, status)| (*place, status)).collect()
    }

    /// The new status of a recipient, if it changed.
    #[must_use]
    pub fn status(&self, recipient: usize) -> Option<&RecipientStatus> {
        self.statuses.iter().find(|(place, _)| *place == recipient).map(|(_, status)| status)
    }

    /// Records the end of a recipient that failed for good.
    fn fail(&mut self, envelope: &Envelope, recipient: usize, mut status: RecipientStatus) {
        status.phase = if envelope.sender.is_null() {
            self.badmail.push(recipient);
            Phase::Badmail
        } else {
            if notify(envelope, recipient).failure {
                self.failed.push(recipient);
            }
            Phase::Returned
        };
        self.statuses.push((recipient, status));
    }

    /// Records a recipient that goes on waiting, and the notice of it that may be due.
    fn wait(&mut self, case: &Case<'_>, recipient: usize, mut status: RecipientStatus) {
        let notice = case.notice_at(recipient, &status);
        let late = case.wants_word_of_lateness(recipient, &status);
        if late || notice.is_some_and(|at| at <= case.now) {
            status.delay_told = true;
            status.deadline_told |= late;
            self.delayed.push(recipient);
        }
        self.statuses.push((recipient, status));
    }
}

/// What all recipients of one decision have in common.
struct Case<'a> {
    envelope: &'a Envelope,
    now: Timestamp,
    accepted_at: Timestamp,
    /// The deadline that has passed, if it has.
    missed: Option<ByMode>,
    schedule: &'a Schedule,
}

impl<'a> Case<'a> {
    fn new(envelope: &'a Envelope, now: Timestamp, rules: Rules<'a>) -> Self {
        let Rules { schedule, accepted_at, deadline, .. } = rules;
        let by = envelope.wishes.deliver_by;
        let missed = by.filter(|_| deadline.is_some_and(|at| at <= now)).map(|by| by.mode);
        Self { envelope, now, accepted_at, missed, schedule }
    }

    fn notice_at(&self, recipient: usize, status: &RecipientStatus) -> Option<Timestamp> {
        self.schedule.delay_notice_at(self.envelope, self.accepted_at, recipient, status)
    }

    fn is_expired(&self) -> bool {
        self.is_withdrawn() || self.schedule.expires_at(self.accepted_at) <= self.now
    }

    /// Whether the sender wants the message back rather than late.
    fn is_withdrawn(&self) -> bool {
        self.missed == Some(ByMode::Return)
    }

    fn wants_word_of_lateness(&self, recipient: usize, status: &RecipientStatus) -> bool {
        self.missed == Some(ByMode::Notify)
            && !status.deadline_told
            && !status.phase.is_end()
            && !self.envelope.sender.is_null()
            && notify(self.envelope, recipient).delay
    }
}

/// Decides what becomes of recipients after an attempt.
///
/// `before` holds the states the attempt began with, `outcomes` what it came to; both may name any
/// part of the recipients in any order. An outcome for a recipient that is not in `before`, has
/// reached its end, or had an outcome earlier in the list changes nothing: an end is reached once.
/// `random` spreads the next attempt; all recipients of one call share it, so that they travel
/// together again. Call once for each host that took or refused recipients, because
/// [`Disposition::leaving_success_to_next_hop`] depends on the host.
#[must_use]
pub fn dispose(
    envelope: &Envelope,
    before: &[(usize, RecipientStatus)],
    outcomes: &[(usize, Outcome)],
    now: Timestamp,
    rules: Rules<'_>,
    random: u64,
) -> Disposition {
    let case = Case::new(envelope, now, rules);
    let mut waiting = vec![None; envelope.recipients.len()];
    for (recipient, status) in before.iter().filter(|(_, status)| !status.phase.is_end()) {
        if let Some(place) = waiting.get_mut(*recipient) {
            *place = Some(status);
        }
    }
    let mut disposition = Disposition::default();
    for (recipient, outcome) in outcomes {
        let Some(status) = waiting.get_mut(*recipient).and_then(Option::take) else { continue };
        let mut status = status.clone();
        status.attempts = status.attempts.saturating_add(1);
        status.doubted |= status.phase == Phase::InDoubt;
        status.last = Some(outcome.clone());
        if outcome.result == AttemptResult::InDoubt {
            let policy = (rules.in_doubt)(*recipient);
            after_doubt(&case, &mut disposition, *recipient, status, policy, random);
        } else {
            after_attempt(&case, &mut disposition, *recipient, status, outcome.result, random);
        }
    }
    disposition
}

/// Decides about recipients that our own death left in doubt: the store knows that they are, but
/// not what the configuration wants done. Those to be tried again are not in the answer.
#[must_use]
pub fn settle_doubts(
    envelope: &Envelope,
    before: &[(usize, RecipientStatus)],
    now: Timestamp,
    rules: Rules<'_>,
) -> Disposition {
    let case = Case::new(envelope, now, rules);
    let mut disposition = Disposition::default();
    for (recipient, status) in before.iter().filter(|(_, status)| status.is_undecided()) {
        let policy = (rules.in_doubt)(*recipient);
        if policy != InDoubtPolicy::Retry {
            after_doubt(&case, &mut disposition, *recipient, status.clone(), policy, 0);
        }
    }
    disposition
}

fn after_doubt(
    case: &Case<'_>,
    disposition: &mut Disposition,
    recipient: usize,
    mut status: RecipientStatus,
    policy: InDoubtPolicy,
    random: u64,
) {
    status.doubted = true;
    match policy {
        InDoubtPolicy::Retry => {
            // Once in doubt, always in doubt: a later failure to connect does not tell whether
            // the first try arrived.
            status.phase = Phase::InDoubt;
            let result = AttemptResult::InDoubt;
            after_attempt(case, disposition, recipient, status, result, random);
        }
        InDoubtPolicy::Hold => {
            // No notice of delay: it would say until when the message is tried.
            status.phase = Phase::InDoubt;
            status.next_attempt = RecipientStatus::AT_OPERATORS_WORD;
            disposition.statuses.push((recipient, status));
        }
        InDoubtPolicy::Return => disposition.fail(case.envelope, recipient, status),
    }
}

fn after_attempt(
    case: &Case<'_>,
    disposition: &mut Disposition,
    recipient: usize,
    mut status: RecipientStatus,
    result: AttemptResult,
    random: u64,
) {
    match result {
        AttemptResult::Delivered => {
            status.phase = Phase::Delivered;
            if notify(case.envelope, recipient).success && !case.envelope.sender.is_null() {
                disposition.succeeded.push(recipient);
            }
            disposition.statuses.push((recipient, status));
        }
        AttemptResult::Failed => disposition.fail(case.envelope, recipient, status),
        AttemptResult::Deferred | AttemptResult::InDoubt if case.is_expired() => {
            status.last = Some(expired(case, status.last.as_ref()));
            disposition.fail(case.envelope, recipient, status);
        }
        AttemptResult::Deferred | AttemptResult::InDoubt => {
            status.next_attempt = case.schedule.next_attempt(status.attempts, case.now, random);
            disposition.wait(case, recipient, status);
        }
    }
}

/// Decides about recipients that are not tried now because their lane is known to be in trouble:
/// those whose time is up are given up, those that have waited long get their notice of delay.
/// Recipients to whom neither happens are not in the answer.
///
/// `lane` is what the lane's last attempt came to. It speaks for recipients that were never tried
/// themselves, or not since. Without a recent failure of the lane do not call this: mail that grew
/// old while the daemon was down deserves one more attempt, whose outcome [`dispose`] judges.
#[must_use]
pub fn expire(
    envelope: &Envelope,
    before: &[(usize, RecipientStatus)],
    lane: Option<&Outcome>,
    now: Timestamp,
    rules: Rules<'_>,
) -> Disposition {
    let case = Case::new(envelope, now, rules);
    let mut seen = vec![false; envelope.recipients.len()];
    let mut disposition = Disposition::default();
    for (recipient, status) in before {
        let fresh = seen.get_mut(*recipient).is_some_and(|seen| !std::mem::replace(seen, true));
        if !fresh || status.phase.is_end() {
            continue;
        }
        let is_due = |at: Timestamp| at <= now;
        let mut status = status.clone();
        status.doubted |= status.phase == Phase::InDoubt;
        if case.is_expired() {
            status.last = Some(expired(&case, latest(status.last.as_ref(), lane)));
            disposition.fail(envelope, *recipient, status);
        } else if case.notice_at(*recipient, &status).is_some_and(is_due)
            || case.wants_word_of_lateness(*recipient, &status)
        {
            status.last = latest(status.last.as_ref(), lane).cloned();
            disposition.wait(&case, *recipient, status);
        }
    }
    disposition
}

/// Decides about recipients that nobody is trying when the time that the sender named has passed:
/// they are given up or the sender is told, as it wished. Recipients to whom neither happens are not
/// in the answer. `lane` says what the last attempt on a recipient's lane came to.
#[must_use]
pub fn meet_deadline(
    envelope: &Envelope,
    before: &[(usize, RecipientStatus)],
    lane: &dyn Fn(usize) -> Option<Outcome>,
    now: Timestamp,
    rules: Rules<'_>,
) -> Disposition {
    let case = Case::new(envelope, now, rules);
    let mut disposition = Disposition::default();
    for (recipient, status) in before {
        // Of those that an operator is to decide about it is not known whether they are late.
        if status.phase.is_end() || status.awaits_operator() {
            continue;
        }
        let mut status = status.clone();
        status.doubted |= status.phase == Phase::InDoubt;
        if case.is_withdrawn() {
            let lane = lane(*recipient);
            status.last = Some(expired(&case, latest(status.last.as_ref(), lane.as_ref())));
            disposition.fail(envelope, *recipient, status);
        } else if case.wants_word_of_lateness(*recipient, &status) {
            let lane = lane(*recipient);
            let known = latest(status.last.as_ref(), lane.as_ref()).cloned();
            let late = || Outcome::local(now, Stage::Deadline, EXPIRED, NEVER_TRIED);
            status.last = Some(known.unwrap_or_else(late));
            disposition.wait(&case, *recipient, status);
        }
    }
    disposition
}

/// Gives up everybody who waits, because an operator decided so; `outcome` says in which words.
#[must_use]
pub fn give_up(
    envelope: &Envelope,
    before: &[(usize, RecipientStatus)],
    outcome: &Outcome,
) -> Disposition {
    let mut disposition = Disposition::default();
    for (recipient, status) in before.iter().filter(|(_, status)| !status.phase.is_end()) {
        let mut status = status.clone();
        status.doubted |= status.phase == Phase::InDoubt;
        status.last = Some(outcome.clone());
        disposition.fail(envelope, *recipient, status);
    }
    disposition
}

/// What an operator's order to return a message comes to: 5.7.1, in the operator's words.
#[must_use]
pub fn returned_by_operator(order: &ReturnOrder, now: Timestamp) -> Outcome {
    let words = order.reason.as_deref().unwrap_or("the message was returned by an operator");
    Outcome::local(now, Stage::Operator, EnhancedCode::permanent(7, 1), words)
}

fn latest<'a>(own: Option<&'a Outcome>, lane: Option<&'a Outcome>) -> Option<&'a Outcome> {
    match (own, lane) {
        (Some(own), Some(lane)) => Some(if lane.at > own.at { lane } else { own }),
        (own, lane) => own.or(lane),
    }
}

/// The outcome of giving up for age: what was last said, when and by whom stays, the stage says why
/// it ended.
fn expired(case: &Case<'_>, last: Option<&Outcome>) -> Outcome {
    let (stage, status) = match case.is_withdrawn() {
        true => (Stage::Deadline, WITHDRAWN),
        false => (Stage::Expiry, EXPIRED),
    };
    let last = last.cloned();
    let last = last.unwrap_or_else(|| Outcome::local(case.now, stage, status, NEVER_TRIED));
    Outcome { result: AttemptResult::Failed, stage, ..last }
}

/// Delivery time expired (RFC 3463 section 3.5).
pub const EXPIRED: EnhancedCode = EnhancedCode::transient(4, 7);
/// The same where the sender wants the message back rather than late (RFC 2852 section 4).
pub const WITHDRAWN: EnhancedCode = EnhancedCode::permanent(4, 7);

const NEVER_TRIED: &str = "no attempt was made in time";

#[cfg(test)]
mod tests {
    use mailroot_common::status::ReplyCode;
    use mailroot_common::units::Span;
    use proptest::collection::vec;
    use proptest::prelude::{
        Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };

    use super::*;
    use crate::queue::envelope::Notify;
    use crate::queue::outcome::RemoteHost;
    use crate::queue::recipient::MessageState;
    use crate::queue::retry::tests::{START, envelope};
    use crate::queue::wishes::DeliverBy;

    /// A message that is wanted within an hour.
    fn timed(sender: &str, mode: ByMode, wishes: &[Option<Notify>]) -> Envelope {
        let mut envelope = envelope(sender, wishes);
        envelope.wishes.deliver_by =
            Some(DeliverBy { at: START.after(Span::hours(1)), mode, trace: false });
        envelope
    }

    fn in_time(schedule: &Schedule) -> Rules<'_> {
        Rules { deadline: Some(START.after(Span::hours(1))), ..rules(schedule) }
    }

    #[test]
    fn what_is_wanted_back_rather_than_late_is_returned_when_its_time_is_up() {
        let (schedule, envelope) =
            (Schedule::outbound(), timed("a@b.example", ByMode::Return, &[None]));
        let rules = in_time(&schedule);
        let said = |_| Some(outcome(AttemptResult::Deferred, START));
        let meet = |now| meet_deadline(&envelope, &fresh(&envelope), &said, now, rules);
        assert_eq!(meet(START.after(Span::minutes(59))), Disposition::default());
        let late = START.after(Span::hours(1));
        let d = meet(late);
        let last = d.status(0).unwrap().last.clone().unwrap();
        assert_eq!((d.failed.as_slice(), d.status(0).unwrap().phase), (&[0][..], Phase::Returned));
        assert_eq!((last.stage, last.result), (Stage::Deadline, AttemptResult::Failed));
        assert_eq!(last.text, "words of the remote", "the lane's words are kept");
        let d = meet_deadline(&envelope, &fresh(&envelope), &|_| None, late, rules);
        assert_eq!(d.status(0).unwrap().last.as_ref().unwrap().status, WITHDRAWN);

        let attempt = [(0, outcome(AttemptResult::Deferred, late))];
        let d = dispose(&envelope, &fresh(&envelope), &attempt, late, rules, 0);
        assert_eq!(d.failed, [0], "an attempt that goes on beyond the time ends there");
        let attempt = [(0, outcome(AttemptResult::Delivered, late))];
        let d = dispose(&envelope, &fresh(&envelope), &attempt, late, rules, 0);
        assert_eq!(d.status(0).unwrap().phase, Phase::Delivered, "what arrived has arrived");

        let unheard = timed("", ByMode::Return, &[None]);
        let d = meet_deadline(&unheard, &fresh(&unheard), &|_| None, late, rules);
        assert_eq!((d.badmail.as_slice(), d.wants_report()), (&[0][..], false));
    }

    #[test]
    fn of_what_is_late_the_sender_is_told_once_and_trying_goes_on() {
        let (schedule, quiet) = (Schedule::outbound(), Some(Notify::NEVER));
        let envelope = timed("a@b.example", ByMode::Notify, &[None, quiet]);
        let (late, rules) = (START.after(Span::hours(1)), in_time(&schedule));
        let d = meet_deadline(&envelope, &fresh(&envelope), &|_| None, late, rules);
        assert_eq!((d.delayed.as_slice(), d.statuses.len()), (&[0][..], 1));
        let told = d.status(0).unwrap();
        assert_eq!((told.phase, told.attempts), (Phase::Waiting, 0));
        assert_eq!(told.last.as_ref().unwrap().status, EXPIRED);
        let again = meet_deadline(&envelope, &d.statuses, &|_| None, late, rules);
        assert_eq!(again, Disposition::default());
        let attempt = [(0, outcome(AttemptResult::Deferred, late))];
        let after = dispose(&envelope, &d.statuses, &attempt, late, rules, 0);
        assert!(after.delayed.is_empty() && !after.status(0).unwrap().phase.is_end());
        let first = dispose(&envelope, &fresh(&envelope), &attempt, late, rules, 0);
        assert_eq!(first.delayed, [0], "an attempt that ends beyond the time tells as well");

        // A notice of delay that came before does not stand in for it.
        let mut before = fresh(&envelope);
        before[0].1.delay_told = true;
        let d = meet_deadline(&envelope, &before, &|_| None, late, rules);
        assert_eq!(d.delayed, [0]);
    }

    #[test]
    fn a_relay_is_told_of_to_whoever_wants_reports_at_all() {
        let wishes = [None, Some(Notify::NEVER), Some(SUCCESS_ONLY), None];
        let envelope = timed("a@b.example", ByMode::Notify, &wishes);
        let outcomes: Vec<_> =
            (0..4).map(|place| (place, outcome(AttemptResult::Delivered, START))).collect();
        let schedule = Schedule::outbound();
        let before = fresh(&envelope);
        let decide = || dispose(&envelope, &before, &outcomes, START, rules(&schedule), 0);
        assert_eq!(decide().telling_of_relay(&envelope, &[]).succeeded, [2]);
        assert_eq!(decide().telling_of_relay(&envelope, &[3, 1, 0]).succeeded, [0, 2, 3]);
        let report = timed("", ByMode::Notify, &wishes);
        assert_eq!(decide().telling_of_relay(&report, &[0]).succeeded, [2]);
    }

    const SUCCESS_ONLY: Notify = Notify { success: true, failure: false, delay: false };

    fn outcome(result: AttemptResult, at: Timestamp) -> Outcome {
        let (code, status) = match result {
            AttemptResult::Delivered => (250, EnhancedCode::success(0, 0)),
            AttemptResult::Failed => (550, EnhancedCode::permanent(1, 1)),
            AttemptResult::Deferred | AttemptResult::InDoubt => {
                (452, EnhancedCode::transient(2, 2))
            }
        };
        let host =
            RemoteHost { name: "mx.there.example".to_owned(), address: None, port: 25, tls: None };
        Outcome {
            at,
            result,
            status,
            code: Some(ReplyCode::new(code)),
            text: "words of the remote".to_owned(),
            host: Some(host),
            stage: Stage::Rcpt,
        }
    }

    fn rules(schedule: &Schedule) -> Rules<'_> {
        Rules { schedule, accepted_at: START, deadline: None, in_doubt: &|_| InDoubtPolicy::Retry }
    }

    fn fresh(envelope: &Envelope) -> Vec<(usize, RecipientStatus)> {
        MessageState::fresh(envelope).recipients.into_iter().enumerate().collect()
    }

    /// One attempt for one recipient: phase, failed, delayed, succeeded, badmail.
    fn one(
        sender: &str,
        notify: Option<Notify>,
        result: AttemptResult,
        age: Span,
    ) -> (Phase, bool, bool, bool, bool) {
        let envelope = envelope(sender, &[notify]);
        let now = START.after(age);
        let (before, outcomes) = (fresh(&envelope), [(0, outcome(result, now))]);
        let d = dispose(&envelope, &before, &outcomes, now, rules(&Schedule::outbound()), 0);
        assert_eq!(d.statuses.len(), 1);
        let listed = |list: &Vec<usize>| !list.is_empty();
        (
            d.status(0).unwrap().phase,
            listed(&d.failed),
            listed(&d.delayed),
            listed(&d.succeeded),
            listed(&d.badmail),
        )
    }

    #[test]
    fn each_wish_and_sender_gets_the_end_and_report_of_the_table() {
        use AttemptResult::{Deferred, Delivered, Failed, InDoubt};
        const NO: bool = false;
        const YES: bool = true;
        let never = Some(Notify::NEVER);
        let success = Some(SUCCESS_ONLY);
        let all = Some(Notify { success: true, failure: true, delay: true });
        let sender = "a@b.example";
        let (young, late, old) = (Span::minutes(1), Span::hours(13), Span::days(4));
        // sender, NOTIFY, result, age -> phase, failed, delayed, succeeded, badmail
        for (from, notify, result, age, end) in [
            (sender, None, Delivered, young, (Phase::Delivered, NO, NO, NO, NO)),
            (sender, success, Delivered, young, (Phase::Delivered, NO, NO, YES, NO)),
            (sender, all, Delivered, old, (Phase::Delivered, NO, NO, YES, NO)),
            ("", all, Delivered, young, (Phase::Delivered, NO, NO, NO, NO)),
            (sender, None, Failed, young, (Phase::Returned, YES, NO, NO, NO)),
            (sender, all, Failed, young, (Phase::Returned, YES, NO, NO, NO)),
            (sender, success, Failed, young, (Phase::Returned, NO, NO, NO, NO)),
            (sender, never, Failed, young, (Phase::Returned, NO, NO, NO, NO)),
            ("", None, Failed, young, (Phase::Badmail, NO, NO, NO, YES)),
            ("", never, Failed, young, (Phase::Badmail, NO, NO, NO, YES)),
            (sender, None, Deferred, young, (Phase::Waiting, NO, NO, NO, NO)),
            (sender, None, Deferred, late, (Phase::Waiting, NO, YES, NO, NO)),
            (sender, success, Deferred, late, (Phase::Waiting, NO, NO, NO, NO)),
            (sender, never, Deferred, late, (Phase::Waiting, NO, NO, NO, NO)),
            ("", None, Deferred, late, (Phase::Waiting, NO, NO, NO, NO)),
            (sender, None, Deferred, old, (Phase::Returned, YES, NO, NO, NO)),
            (sender, never, Deferred, old, (Phase::Returned, NO, NO, NO, NO)),
            ("", None, Deferred, old, (Phase::Badmail, NO, NO, NO, YES)),
            (sender, None, InDoubt, young, (Phase::InDoubt, NO, NO, NO, NO)),
            (sender, None, InDoubt, late, (Phase::InDoubt, NO, YES, NO, NO)),
            (sender, None, InDoubt, old, (Phase::Returned, YES, NO, NO, NO)),
        ] {
            assert_eq!(one(from, notify, result, age), end, "{from:?} {notify:?} {result:?} {age}");
        }
    }

    #[test]
    fn deferred_recipient_waits_its_interval_and_keeps_the_words() {
        let envelope = envelope("a@b.example", &[None]);
        let mut before = fresh(&envelope);
        let mut now = START;
        for minutes in [1, 5, 15, 30, 60, 240, 240] {
            let outcomes = [(0, outcome(AttemptResult::Deferred, now))];
            let d = dispose(&envelope, &before, &outcomes, now, rules(&Schedule::outbound()), 0);
            let status = d.status(0).unwrap().clone();
            assert_eq!(status.next_attempt.since(now), Span::minutes(minutes));
            assert_eq!(status.last.as_ref(), Some(&outcomes[0].1));
            now = status.next_attempt;
            before = vec![(0, status)];
        }
        assert_eq!(before[0].1.attempts, 7);
    }

    #[test]
    fn in_doubt_stays_in_doubt_until_its_end() {
        let envelope = envelope("a@b.example", &[None]);
        let mut before = fresh(&envelope);
        for (result, phase) in [
            (AttemptResult::InDoubt, Phase::InDoubt),
            (AttemptResult::Deferred, Phase::InDoubt),
            (AttemptResult::Delivered, Phase::Delivered),
        ] {
            let outcomes = [(0, outcome(result, START))];
            before = dispose(&envelope, &before, &outcomes, START, rules(&Schedule::outbound()), 0)
                .statuses;
            assert_eq!(before[0].1.phase, phase);
        }
    }

    #[test]
    fn in_doubt_is_held_or_returned_where_that_is_wanted() {
        let envelope = envelope("a@b.example", &[None, None, None]);
        let policies = [InDoubtPolicy::Retry, InDoubtPolicy::Hold, InDoubtPolicy::Return];
        let schedule = Schedule::outbound();
        let in_doubt = |place: usize| policies[place];
        let wanted = Rules { in_doubt: &in_doubt, ..rules(&schedule) };
        let doubt = [0, 1, 2].map(|place| (place, outcome(AttemptResult::InDoubt, START)));
        let live = dispose(&envelope, &fresh(&envelope), &doubt, START, wanted, 0);
        assert_eq!(live.failed, [2]);
        let phases: Vec<Phase> = live.statuses.iter().map(|(_, status)| status.phase).collect();
        assert_eq!(phases, [Phase::InDoubt, Phase::InDoubt, Phase::Returned]);
        let held: Vec<bool> =
            live.statuses.iter().map(|(_, status)| status.awaits_operator()).collect();
        assert_eq!(held, [false, true, false]);
        assert!(live.statuses.iter().all(|(_, status)| status.doubted && status.attempts == 1));

        // The same, where the store found out at its start.
        let mut found = fresh(&envelope);
        for (place, status) in &mut found {
            status.phase = Phase::InDoubt;
            status.attempts = 1;
            status.last = Some(doubt[*place].1.clone());
        }
        let settled = settle_doubts(&envelope, &found, START, wanted);
        assert_eq!(settled.statuses, live.statuses[1..]);
        let again = settle_doubts(&envelope, &settled.statuses, START, wanted);
        assert_eq!(again, Disposition::default(), "what an operator wants tried is tried");
    }

    #[test]
    fn expiry_keeps_codes_words_and_host_and_names_its_stage() {
        let envelope = envelope("a@b.example", &[None, None, None]);
        let mut before = fresh(&envelope);
        let own = outcome(AttemptResult::Deferred, START.after(Span::hours(2)));
        before[1].1.last = Some(own.clone());
        let lane =
            Outcome { text: "lane".to_owned(), at: START.after(Span::hours(1)), ..own.clone() };
        let now = START.after(Span::days(4));
        let d = expire(&envelope, &before, Some(&lane), now, rules(&Schedule::outbound()));
        assert_eq!(d.failed, [0, 1, 2]);
        assert_eq!(
            d.statuses_of(&[0, 2]).iter().map(|(place, _)| *place).collect::<Vec<_>>(),
            [0, 2]
        );
        let end = |last: &Outcome| Outcome {
            result: AttemptResult::Failed,
            stage: Stage::Expiry,
            ..last.clone()
        };
        assert_eq!(d.status(0).unwrap().last, Some(end(&lane)), "never tried: the lane's words");
        assert_eq!(d.status(1).unwrap().last, Some(end(&own)), "tried after the lane: its own");

        let alone = expire(&envelope, &before[..1], None, now, rules(&Schedule::outbound()));
        let last = alone.status(0).unwrap().last.clone().unwrap();
        assert_eq!(
            (last.result, last.status, last.stage),
            (AttemptResult::Failed, EXPIRED, Stage::Expiry)
        );
    }

    #[test]
    fn an_operators_order_ends_everybody_who_waits_in_the_operators_words() {
        let order =
            ReturnOrder { by: "anna".into(), reason: Some("no games".into()), since: START };
        let words = returned_by_operator(&order, START);
        assert_eq!(words.to_string(), "5.7.1 no games");
        let plain = ReturnOrder { reason: None, ..order };
        assert!(!returned_by_operator(&plain, START).text.contains("anna"));

        let three = envelope("a@b.example", &[None, Some(Notify::NEVER), None]);
        let mut before = fresh(&three);
        before[0].1.phase = Phase::InDoubt;
        before[2].1.phase = Phase::Delivered;
        let d = give_up(&three, &before, &words);
        assert_eq!((d.failed.clone(), d.statuses.len(), d.badmail.len()), (vec![0], 2, 0));
        let first = d.status(0).unwrap();
        assert!(first.doubted && first.phase == Phase::Returned && first.attempts == 0);
        assert_eq!(first.last.as_ref(), Some(&words));
        assert_eq!(d.status(1).unwrap().phase, Phase::Returned, "whoever wants no report has none");

        let nobody = envelope("", &[None]);
        let d = give_up(&nobody, &fresh(&nobody), &words);
        assert_eq!((d.badmail.clone(), d.wants_report()), (vec![0], false));
    }

    #[test]
    fn mail_in_a_troubled_lane_gets_one_notice_and_no_change_before_it() {
        let envelope = envelope("a@b.example", &[None, Some(Notify::NEVER)]);
        let before = fresh(&envelope);
        let schedule = Schedule::outbound();
        let early =
            expire(&envelope, &before, None, START.after(Span::hours(11)), rules(&schedule));
        assert_eq!(early, Disposition::default());
        let now = START.after(Span::hours(12));
        let notice = expire(&envelope, &before, None, now, rules(&schedule));
        assert_eq!(notice.delayed, [0]);
        assert_eq!(notice.status(0).unwrap().next_attempt, before[0].1.next_attempt);
        assert!(notice.wants_report());
        let again = expire(&envelope, &notice.statuses, None, now, rules(&schedule));
        assert_eq!(again, Disposition::default());
    }

    #[test]
    fn next_hop_with_dsn_reports_success_itself_and_nothing_else() {
        let envelope = envelope("a@b.example", &[Some(SUCCESS_ONLY), None]);
        let outcomes = [
            (0, outcome(AttemptResult::Delivered, START)),
            (1, outcome(AttemptResult::Failed, START)),
        ];
        let d = dispose(
            &envelope,
            &fresh(&envelope),
            &outcomes,
            START,
            rules(&Schedule::outbound()),
            0,
        );
        assert_eq!(d.succeeded, [0]);
        let d = d.leaving_success_to_next_hop();
        assert_eq!((d.succeeded.len(), d.failed.clone(), d.statuses.len()), (0, vec![1], 2));
    }

    #[test]
    fn time_counts_from_acceptance_by_the_clock_as_it_goes_now() {
        let envelope = envelope("a@b.example", &[None]);
        let schedule = Schedule::outbound();
        let now = START.after(Span::days(3650));
        let outcomes = [(0, outcome(AttemptResult::Deferred, now))];
        for (age, phase, told) in [
            (Span::hours(1), Phase::Waiting, false),
            (Span::hours(13), Phase::Waiting, true),
            (Span::days(4), Phase::Returned, false),
        ] {
            let accepted_at = Timestamp::from_millis(now.as_millis() - age.as_millis());
            let rules = Rules { accepted_at, ..rules(&schedule) };
            let d = dispose(&envelope, &fresh(&envelope), &outcomes, now, rules, 0);
            let status = d.status(0).unwrap();
            assert_eq!((status.phase, status.delay_told), (phase, told), "{age:?}");
            let waiting = expire(&envelope, &fresh(&envelope), None, now, rules);
            assert_eq!(waiting.statuses.is_empty(), age < Span::hours(12), "{age:?}");
        }
    }

    #[test]
    fn clock_set_back_ends_nothing_and_keeps_the_interval() {
        let envelope = envelope("a@b.example", &[None]);
        let now = Timestamp::from_millis(1);
        let outcomes = [(0, outcome(AttemptResult::Deferred, now))];
        let d =
            dispose(&envelope, &fresh(&envelope), &outcomes, now, rules(&Schedule::outbound()), 0);
        let status = d.status(0).unwrap();
        assert_eq!(
            (status.phase, status.next_attempt.since(now)),
            (Phase::Waiting, Span::minutes(1))
        );
    }

    fn results() -> impl Strategy<Value = AttemptResult> {
        prop_oneof![
            Just(AttemptResult::Delivered),
            Just(AttemptResult::Deferred),
            Just(AttemptResult::Failed),
            Just(AttemptResult::InDoubt),
        ]
    }

    proptest! {
        #[test]
        fn every_recipient_ends_exactly_once_whatever_happens(
            sender in prop_oneof![Just(""), Just("a@b.example")],
            wishes in vec(proptest::option::of(any::<(bool, bool, bool)>()), 1..6),
            steps in vec((vec((0_usize..8, results()), 0..8), 0_u64..400, any::<bool>()), 1..40),
            random in any::<u64>(),
        ) {
            let wish = |(success, failure, delay)| Notify { success, failure, delay };
            let wishes: Vec<_> = wishes.into_iter().map(|said| said.map(wish)).collect();
            let envelope = envelope(sender, &wishes);
            let schedule = Schedule::outbound();
            let mut states = MessageState::fresh(&envelope).recipients;
            let mut ends = vec![0; states.len()];
            let mut notices = vec![0; states.len()];
            let mut now = START;
            // The last step is an attempt that fails after the time is up: nothing outlives it.
            let last = ((0..8).map(|r| (r, AttemptResult::Deferred)).collect(), 6000, false);
            for (results, minutes, aged) in steps.into_iter().chain([last]) {
                now = now.after(Span::minutes(minutes));
                let before: Vec<_> = states.iter().cloned().enumerate().collect();
                let outcomes: Vec<_> =
                    results.into_iter().map(|(r, result)| (r, outcome(result, now))).collect();
                let d = if aged {
                    expire(&envelope, &before, outcomes.first().map(|(_, o)| o), now, rules(&schedule))
                } else {
                    dispose(&envelope, &before, &outcomes, now, rules(&schedule), random)
                };
                let mut told = d.failed.clone();
                told.extend(&d.badmail);
                for (recipient, status) in &d.statuses {
                    prop_assert!(!states[*recipient].phase.is_end(), "an end is never left");
                    ends[*recipient] += i32::from(status.phase.is_end());
                    let failed = matches!(status.phase, Phase::Returned | Phase::Badmail);
                    prop_assert!(failed || !told.contains(recipient));
                    prop_assert_eq!(status.phase == Phase::Badmail, d.badmail.contains(recipient));
                    prop_assert!(!(sender.is_empty() && d.wants_report()), "no report to nobody");
                    if !status.phase.is_end() && !aged {
                        let wait = schedule.wait(status.attempts);
                        prop_assert!(status.next_attempt >= now.after(wait));
                    }
                    states[*recipient] = status.clone();
                }
                d.delayed.iter().for_each(|&r| notices[r] += 1);
            }
            prop_assert!(ends.iter().all(|&count| count == 1), "{ends:?}");
            prop_assert!(notices.iter().all(|&count| count <= 1), "{notices:?}");
        }
    }
}
