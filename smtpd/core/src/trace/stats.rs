//! Counting what became of recipients, group by group.
//!
//! In: events, in any order. Out: one [`Stats`] for each group. Memory is bounded: so many groups
//! are told apart, and durations are counted in steps of an eighth, not kept.

use std::collections::HashMap;

use mailroot_common::control::{Stats, StatsBy};
use mailroot_common::units::{Span, Timestamp};

use super::event::Event;
use crate::route::table::RouteName;

/// The characters of a moment's RFC 3339 form that name its hour.
const HOUR_CHARS: usize = 13;
/// Longer than any mail waits; what the clock makes longer counts as this.
const DURATION_MAX: Span = Span::days(3_660);

/// Recipients being counted.
#[derive(Debug)]
pub struct Count {
    by: StatsBy,
    groups: HashMap<String, Group>,
}

#[derive(Debug, Default)]
struct Group {
    stats: Stats,
    durations: Durations,
}

impl Count {
    /// Nothing yet.
    #[must_use]
    pub fn new(by: StatsBy) -> Self {
        Self { by, groups: HashMap::new() }
    }

    /// Counts an event, if it is about what became of a recipient.
    pub fn add(&mut self, event: &Event<'_>) {
        let is_sent = matches!(event.word, "delivered" | "dropped");
        let is_deferred = matches!(event.word, "deferred" | "in_doubt");
        if !is_sent && !is_deferred && !matches!(event.word, "bounced" | "expired" | "badmail") {
            return;
        }
        let group = self.group(event);
        let stats = &mut group.stats;
        if is_deferred {
            stats.deferred += 1;
        } else if is_sent {
            stats.sent += 1;
            stats.bytes = stats.bytes.saturating_add(event.size.unwrap_or_default());
            if let Some(id) = event.id() {
                group.durations.add(event.at.since(Timestamp::from_millis(id.as_millis())));
            }
        } else {
            stats.failed += 1;
        }
    }

    fn group(&mut self, event: &Event<'_>) -> &mut Group {
        let route = RouteName::from_text(event.route.unwrap_or_default());
        let mut name = match self.by {
            StatsBy::Server => event.server.to_owned(),
            StatsBy::Destination => route.destinations().next().unwrap_or_default().to_owned(),
            StatsBy::Sender => match event.from {
                Some("") => "<>".to_owned(),
                from => from.unwrap_or_default().to_owned(),
            },
            StatsBy::Hour => {
                let hour: String = event.at.to_string().chars().take(HOUR_CHARS).collect();
                hour + ":00Z"
            }
            StatsBy::Service => StatsBy::Service.as_str().to_owned(),
        };
        if self.groups.len() >= Stats::GROUPS_MAX && !self.groups.contains_key(&name) {
            Stats::OTHERS.clone_into(&mut name);
        }
        self.groups.entry(name).or_default()
    }

    /// The groups: hours as they passed, else the most sent first, and the rest together last.
    #[must_use]
    pub fn finish(self) -> Vec<Stats> {
        let finish = |(name, group): (String, Group)| Stats {
            group: name,
            p50: group.durations.below(50),
            p95: group.durations.below(95),
            p99: group.durations.below(99),
            ..group.stats
        };
        let mut all: Vec<Stats> = self.groups.into_iter().map(finish).collect();
        let busy = |it: &Stats| match self.by {
            StatsBy::Hour => (0, 0, 0),
            StatsBy::Server | StatsBy::Destination | StatsBy::Sender | StatsBy::Service => {
                (it.sent, it.deferred, it.failed)
            }
        };
        all.sort_unstable_by(|a, b| {
            let is_last = |it: &Stats| it.group == Stats::OTHERS;
            let order = is_last(a).cmp(&is_last(b)).then(busy(b).cmp(&busy(a)));
            order.then_with(|| a.group.cmp(&b.group))
        });
        all
    }
}

/// Durations, counted by steps: eight to each doubling, so that none is wrong by more than an eighth.
#[derive(Debug, Default)]
struct Durations(Vec<u64>);

impl Durations {
    fn add(&mut self, span: Span) {
        let step = step(span.min(DURATION_MAX).as_millis());
        if self.0.len() <= step {
            self.0.resize(step + 1, 0);
        }
        self.0[step] += 1;
    }

    /// What so many of a hundred did not exceed; nothing of nothing.
    fn below(&self, percent: u64) -> Option<Span> {
        let wanted = (self.0.iter().sum::<u64>() * percent).div_ceil(100);
        let mut seen = 0;
        let reached = self.0.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        reached.map(|step| Span::millis(end(step)))
    }
}

/// The step of a duration in milliseconds: itself below sixteen, then its first four bits.
fn step(millis: u64) -> usize {
    let bits = 64 - millis.leading_zeros();
    let shift = bits.saturating_sub(4);
    let first = usize::try_from(millis >> shift).unwrap_or_default();
    shift as usize * 8 + first
}

/// The longest duration of a step.
const fn end(step: usize) -> u64 {
    if step < 16 {
        return step as u64;
    }
    let (shift, first) = (step / 8 - 1, step % 8 + 8);
    ((first as u64 + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use mailroot_common::id::QueueId;

    use super::super::event::{Number, Text};
    use super::super::note::Note;
    use super::*;

    const NOW: u64 = 1_763_003_600_000;

    fn note(word: &'static str, to: u64, took: u64) -> Vec<u8> {
        Note::new(word, "default", Timestamp::from_millis(NOW + took))
            .id(QueueId::at_millis(NOW))
            .text(Text::To, format_args!("a@x{to}.example"))
            .text(Text::Route, format_args!("mx:x{to}.example"))
            .text(Text::From, "")
            .number(Number::Size, 100)
            .finish()
    }

    fn counted(by: StatsBy, notes: &[Vec<u8>]) -> Vec<Stats> {
        let mut count = Count::new(by);
        for note in notes {
            count.add(&Event::take(&mut note.as_slice()).unwrap());
        }
        count.finish()
    }

    #[test]
    fn recipients_are_counted_in_their_groups() {
        let notes = [
            note("received", 1, 0),
            note("delivered", 1, 800),
            note("dropped", 1, 1_000),
            note("deferred", 2, 10),
            note("in_doubt", 2, 10),
            note("bounced", 2, 3_600_000),
            note("badmail", 2, 3_600_000),
            note("expired", 2, 3_600_000),
            note("held", 2, 3_600_000),
        ];
        let stats = |group: &str, sent, deferred, failed, bytes| Stats {
            group: group.to_owned(),
            sent,
            deferred,
            failed,
            bytes,
            p50: (sent > 0).then_some(Span::millis(831)),
            p95: (sent > 0).then_some(Span::millis(1_023)),
            p99: (sent > 0).then_some(Span::millis(1_023)),
        };
        let by_destination = [stats("x1.example", 2, 0, 0, 200), stats("x2.example", 0, 2, 3, 0)];
        assert_eq!(counted(StatsBy::Destination, &notes), by_destination);
        assert_eq!(counted(StatsBy::Server, &notes), [stats("default", 2, 2, 3, 200)]);
        assert_eq!(counted(StatsBy::Service, &notes), [stats("service", 2, 2, 3, 200)]);
        assert_eq!(counted(StatsBy::Sender, &notes), [stats("<>", 2, 2, 3, 200)]);
        let hours: Vec<_> = counted(StatsBy::Hour, &notes).into_iter().map(|it| it.group).collect();
        assert_eq!(hours, ["2025-11-13T03:00Z", "2025-11-13T04:00Z"]);
    }

    #[test]
    fn groups_beyond_the_bound_are_counted_together() {
        let most = Stats::GROUPS_MAX as u64;
        let notes: Vec<_> = (0..most + 5).map(|to| note("delivered", to, 1)).collect();
        let all = counted(StatsBy::Destination, &notes);
        assert_eq!(all.len(), Stats::GROUPS_MAX + 1);
        assert_eq!(all.last().map(|it| (it.group.as_str(), it.sent)), Some((Stats::OTHERS, 5)));
        assert_eq!(all.iter().map(|it| it.sent).sum::<u64>(), most + 5);
    }

    #[test]
    fn a_duration_is_right_within_an_eighth() {
        let mut before = None;
        for millis in
            (0..5_000).chain((5_000..40_000_000).step_by(997)).chain([DURATION_MAX.as_millis()])
        {
            let (step, end) = (step(millis), end(step(millis)));
            assert!(end >= millis && end - millis <= millis / 8, "{millis} {step} {end}");
            assert!(before <= Some(step), "steps go up");
            before = Some(step);
        }
        let mut durations = Durations::default();
        assert_eq!(durations.below(50), None);
        (1..=100).for_each(|seconds| durations.add(Span::seconds(seconds)));
        let half = durations.below(50).unwrap().as_millis();
        assert!((50_000..=57_000).contains(&half), "{half}");
    }
}
