//! When mail is tried again, when its sender is told of a delay, and when it is given up.
//!
//! In: how often a recipient was tried, when its message was accepted, a random number. Out: a
//! moment. Every wait counts from the attempt before it and is never cut short: chance only adds
//! to it, so that no peer sees one message more than once in an interval, and mail that failed
//! together does not come back together.

use std::borrow::Cow;

use mailroot_common::units::{Span, Timestamp};

use super::envelope::{Envelope, Notify};
use super::recipient::RecipientStatus;
use crate::route::domain::Held;
use crate::route::table::RouteName;

/// Quick retries before the list proper: the original's phase for glitches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quick {
    /// How many of them.
    pub count: u32,
    /// The wait before each.
    pub wait: Span,
}

/// The times of one kind of delivery, outbound or local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The wait after the first failed attempt, after the second and so on; the last repeats.
    /// An empty list waits [`Schedule::WAIT_MIN`].
    pub retry: Vec<Span>,
    /// Retries that come before the list; profile `iis6` only.
    pub quick: Option<Quick>,
    /// Tell the sender when mail has waited this long; absent is never.
    pub delay_notice: Option<Span>,
    /// Give up when mail has waited this long.
    pub expire: Span,
    /// How much chance may add to a wait, in percent of it.
    pub jitter_percent: u8,
}

impl Schedule {
    /// The shortest wait between two attempts, whatever the list says: a wait of nothing would
    /// have a failing peer called without pause (CVE-1999-0419).
    pub const WAIT_MIN: Span = Span::seconds(1);

    /// The default schedule of mail that leaves this machine.
    #[must_use]
    pub fn outbound() -> Self {
        let retry = [1, 5, 15, 30, 60, 240].map(Span::minutes).to_vec();
        Self { retry, ..Self::local() }
    }

    /// The default schedule of mail for Drop.
    #[must_use]
    pub fn local() -> Self {
        Self {
            retry: vec![Span::minutes(5)],
            quick: None,
            delay_notice: Some(Span::hours(12)),
            expire: Span::days(4),
            jitter_percent: 10,
        }
    }

    /// The wait after this many attempts, the first being 1, before chance adds to it.
    #[must_use]
    pub fn wait(&self, attempts: u32) -> Span {
        let mut place = attempts.saturating_sub(1);
        if let Some(quick) = self.quick {
            if place < quick.count {
                return quick.wait.max(Self::WAIT_MIN);
            }
            place -= quick.count;
        }
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let wait = self.retry.get(place).or_else(|| self.retry.last()).copied();
        wait.unwrap_or_default().max(Self::WAIT_MIN)
    }

    /// When to try again after this many attempts, the last of which ended now.
    #[must_use]
    pub fn next_attempt(&self, attempts: u32, now: Timestamp, random: u64) -> Timestamp {
        let wait = self.wait(attempts);
        let room = wait.as_millis() / 100 * u64::from(self.jitter_percent);
        // The highest bits of the product: an even spread over 0..=room without division.
        let extra = (u128::from(random) * (u128::from(room) + 1)) >> 64;
        now.after(wait).after(Span::millis(u64::try_from(extra).unwrap_or(room)))
    }

    /// The moment a message's time is up. When it was accepted is told by the clock as it goes
    /// now, here and below: that is the envelope's moment unless somebody set the clock since.
    #[must_use]
    pub fn expires_at(&self, accepted_at: Timestamp) -> Timestamp {
        accepted_at.after(self.expire)
    }

    /// The moment the sender is to be told that this recipient's mail is delayed; absent if it was
    /// told, does not want to be, or has no address. Never after the message's time is up.
    #[must_use]
    pub fn delay_notice_at(
        &self,
        envelope: &Envelope,
        accepted_at: Timestamp,
        recipient: usize,
        status: &RecipientStatus,
    ) -> Option<Timestamp> {
        let wanted = notify(envelope, recipient).delay && !envelope.sender.is_null();
        let after = self.delay_notice.filter(|&after| after < self.expire)?;
        (wanted && !status.delay_told && !status.phase.is_end()).then(|| accepted_at.after(after))
    }
}

/// What the sender wants to hear about this recipient.
pub(super) fn notify(envelope: &Envelope, recipient: usize) -> Notify {
    let said = envelope.recipients.get(recipient).and_then(|recipient| recipient.notify);
    said.unwrap_or(Notify::UNSAID)
}

/// The schedules of one virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedules {
    /// For mail that leaves this machine.
    pub outbound: Schedule,
    /// For mail that goes to Drop.
    pub local: Schedule,
}

impl Schedules {
    /// The schedule on a route whose mail is held like this, if it is. Of mail that waits to be asked
    /// for, nobody is told that it is late.
    #[must_use]
    pub fn on(&self, route: &RouteName, held: Option<&Held>) -> Cow<'_, Schedule> {
        if route.is_drop() {
            return Cow::Borrowed(&self.local);
        }
        match held {
            Some(held) => {
                let expire = held.keep;
                Cow::Owned(Schedule { expire, delay_notice: None, ..self.outbound.clone() })
            }
            None => Cow::Borrowed(&self.outbound),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use mailroot_common::address::{Mailbox, ReversePath};
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;
    use crate::queue::envelope::{BodyKind, Origin, Recipient, Via};
    use crate::queue::recipient::{MessageState, Phase};
    use crate::route::table::RouteName;

    /// A message accepted at the first moment, to as many recipients as there are wishes.
    pub(crate) fn envelope(sender: &str, wishes: &[Option<Notify>]) -> Envelope {
        let recipient = |(place, notify): (usize, &Option<Notify>)| Recipient {
            notify: *notify,
            ..Recipient::plain(Mailbox::parse(&format!("r{place}@there.example")).unwrap())
        };
        Envelope {
            hold: None,
            tls_optional: false,
            sender: ReversePath::parse(sender).unwrap(),
            recipients: wishes.iter().enumerate().map(recipient).collect(),
            accepted_at: START,
            body: BodyKind::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
            hops: 1,
            origin: Origin {
                via: Via::Smtp,
                client: Some("192.0.2.1".parse().unwrap()),
                helo: None,
                session: None,
                source: None,
                user: None,
                uid: None,
                checks: None,
            },
            message_id: None,
            subject: None,
            wishes: crate::queue::wishes::Wishes::default(),
        }
    }

    pub(crate) const START: Timestamp = Timestamp::from_millis(1_763_000_000_000);

    fn iis6() -> Schedule {
        Schedule {
            retry: [15, 30, 60, 240].map(Span::minutes).to_vec(),
            quick: Some(Quick { count: 3, wait: Span::minutes(1) }),
            expire: Span::days(2),
            ..Schedule::outbound()
        }
    }

    #[test]
    fn waits_follow_the_list_and_its_last_repeats() {
        let waits = [1, 2, 3, 4, 5, 6, 7, u32::MAX].map(|n| Schedule::outbound().wait(n));
        assert_eq!(waits, [1, 5, 15, 30, 60, 240, 240, 240].map(Span::minutes));
        let waits = [1, 2, 3, 4, 5, 6, 7, 8, 9].map(|n| iis6().wait(n));
        assert_eq!(waits, [1, 1, 1, 15, 30, 60, 240, 240, 240].map(Span::minutes));
        assert_eq!(Schedule::local().wait(9), Span::minutes(5));
    }

    #[test]
    fn no_wait_is_shorter_than_a_second_even_if_the_list_says_so() {
        for retry in [vec![], vec![Span::millis(0)]] {
            let schedule = Schedule { retry, ..Schedule::local() };
            assert_eq!(schedule.wait(1), Schedule::WAIT_MIN);
        }
    }

    #[test]
    fn notice_is_for_those_who_want_it_and_were_not_told() {
        let schedule = Schedule::outbound();
        let envelope = envelope("a@b.example", &[None, Some(Notify::NEVER)]);
        let mut status = MessageState::fresh(&envelope).recipients[0].clone();
        let accepted_at = START.after(Span::days(30));
        let at = |place, status: &RecipientStatus| {
            schedule.delay_notice_at(&envelope, accepted_at, place, status)
        };
        assert_eq!(at(0, &status), Some(accepted_at.after(Span::hours(12))), "by the clock now");
        assert_eq!(at(1, &status), None, "NEVER asks for no notice");
        status.delay_told = true;
        assert_eq!(at(0, &status), None);
        status.delay_told = false;
        status.phase = Phase::Returned;
        assert_eq!(at(0, &status), None);
    }

    #[test]
    fn notice_that_would_come_with_the_expiry_is_not_given() {
        let envelope = envelope("a@b.example", &[None]);
        let status = &MessageState::fresh(&envelope).recipients[0];
        let schedule = Schedule { delay_notice: Some(Span::days(4)), ..Schedule::outbound() };
        assert_eq!(schedule.delay_notice_at(&envelope, START, 0, status), None);
    }

    #[test]
    fn drop_has_the_local_schedule_and_held_mail_is_kept_for_its_own_time() {
        let both = Schedules { outbound: Schedule::outbound(), local: Schedule::local() };
        let on = |route: &str, held| both.on(&RouteName::from_text(route), held);
        assert_eq!(*on("drop", None), both.local);
        assert_eq!(*on("mx:drop", None), both.outbound);
        let held = Held {
            by_etrn: true,
            asked_from: vec![],
            queue: None,
            fetchers: vec![],
            keep: Span::days(10),
        };
        let kept = on("etrn:x.test", Some(&held));
        assert_eq!((kept.expire, kept.delay_notice), (Span::days(10), None));
        assert_eq!(kept.retry, both.outbound.retry);
    }

    proptest! {
        #[test]
        fn chance_only_lengthens_a_wait_and_at_most_as_configured(
            attempts in any::<u32>(), random in any::<u64>(), percent in 0_u8..=100,
        ) {
            let schedule = Schedule { jitter_percent: percent, ..iis6() };
            let wait = schedule.wait(attempts).as_millis();
            let real = schedule.next_attempt(attempts, START, random).since(START).as_millis();
            prop_assert!(wait <= real && real <= wait + wait * u64::from(percent) / 100);
        }
    }

    #[test]
    fn chance_reaches_both_ends_of_its_range() {
        let schedule = Schedule::outbound();
        let after = |random| schedule.next_attempt(1, START, random).since(START);
        assert_eq!(after(0), Span::minutes(1));
        assert_eq!(after(u64::MAX), Span::seconds(66));
    }
}
