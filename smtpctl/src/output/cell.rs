//! One value of a row, and how it reads in each form.

use mailroot_common::units::{Span, Timestamp};

/// How moments are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TimeForm {
    /// How long ago, or how long until.
    #[default]
    Relative,
    /// RFC 3339, in local time unless --utc.
    Iso,
    /// Seconds since 1970.
    Unix,
}

/// A value before it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    /// Nothing: `-` in a table, empty elsewhere. Sorts before everything.
    Nothing,
    /// A number.
    Count(u64),
    /// Octets.
    Size(u64),
    /// A duration.
    Lasting(Span),
    /// A moment in the past.
    Ago(Timestamp),
    /// A moment to come.
    Until(Timestamp),
    /// Words.
    Text(String),
    /// The word of a state, which may have a colour.
    State(&'static str),
}

impl Cell {
    /// Words.
    #[must_use]
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Words, or nothing.
    #[must_use]
    pub(crate) fn maybe(text: Option<&str>) -> Self {
        text.map_or(Self::Nothing, Self::text)
    }

    /// Whether the value stands at the right edge of its column.
    #[must_use]
    pub(crate) const fn is_number(&self) -> bool {
        match self {
            Self::Count(_) | Self::Size(_) | Self::Lasting(_) | Self::Ago(_) | Self::Until(_) => {
                true
            }
            Self::Nothing | Self::Text(_) | Self::State(_) => false,
        }
    }

    /// For people; escaped.
    #[must_use]
    pub(crate) fn for_people(&self, now: Timestamp, time: TimeForm, utc: bool) -> String {
        match self {
            Self::Nothing => "-".to_owned(),
            Self::Count(count) => count.to_string(),
            Self::Size(size) => human_size(*size),
            Self::Lasting(span) => human_duration(*span),
            Self::Ago(at) if time == TimeForm::Relative => human_span(now.since(*at)),
            Self::Until(at) if time == TimeForm::Relative && *at <= now => "now".to_owned(),
            Self::Until(at) if time == TimeForm::Relative => human_span(at.since(now)),
            Self::Ago(at) | Self::Until(at) => moment(*at, time, utc),
            Self::State(word) => (*word).to_owned(),
            Self::Text(text) if text.is_empty() => "-".to_owned(),
            Self::Text(text) => super::escape(text),
        }
    }

    /// For programs: whole numbers, RFC 3339; escaped.
    #[must_use]
    pub(crate) fn for_programs(&self, time: TimeForm) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Count(number) | Self::Size(number) => number.to_string(),
            Self::Lasting(span) => span.as_duration().as_secs_f64().to_string(),
            Self::Ago(at) | Self::Until(at) => match time {
                TimeForm::Unix => moment(*at, time, true),
                TimeForm::Relative | TimeForm::Iso => at.to_string(),
            },
            Self::State(word) => (*word).to_owned(),
            Self::Text(text) => super::escape(text),
        }
    }
}

fn moment(at: Timestamp, time: TimeForm, utc: bool) -> String {
    if time == TimeForm::Unix {
        return (at.as_millis() / 1_000).to_string();
    }
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(moment) if !utc => {
            let local = moment.to_zoned_datetime(jiff::tz::TimeZone::system());
            local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
        }
        _ => at.to_string(),
    }
}

/// The time of a moment's day, with the day where that is not the day of `now`.
#[must_use]
pub(crate) fn clock_time(at: Timestamp, now: Timestamp, utc: bool) -> String {
    let zone = if utc { jiff::tz::TimeZone::UTC } else { jiff::tz::TimeZone::system() };
    let local = |moment: Timestamp| {
        let millis = i64::try_from(moment.as_millis()).unwrap_or(i64::MAX);
        let moment = jiff::Timestamp::from_millisecond(millis).ok()?;
        Some(moment.to_zoned_datetime(zone.clone()))
    };
    let (Some(at), Some(now)) = (local(at), local(now)) else { return at.to_string() };
    let form = if at.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    at.strftime(form).to_string()
}

/// The largest unit that is reached, and one more digit while it is small: `1.2KiB`, `88KiB`.
#[must_use]
pub(crate) fn human_size(size: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((name, unit)) = UNITS.iter().find(|(_, unit)| size >= *unit) else {
        return if size == 0 { "0".to_owned() } else { format!("{size}B") };
    };
    let (whole, tenth) = (size / unit, (size % unit) * 10 / unit);
    if whole < 10 { format!("{whole}.{tenth}{name}") } else { format!("{whole}{name}") }
}

/// As [`human_span`], more exact below ten seconds: `12ms`, `0.8s`, `12s`, `11m`.
pub(crate) fn human_duration(span: Span) -> String {
    match span.as_millis() {
        millis @ 0..100 => format!("{millis}ms"),
        millis @ 100..10_000 => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        _ => human_span(span),
    }
}

/// The largest unit that is reached: `41m`, `2h`, `3d`.
#[must_use]
pub(crate) fn human_span(span: Span) -> String {
    let seconds = span.as_millis() / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_763_000_000_000);

    #[test]
    fn people_see_rounded_sizes_and_spans() {
        let ago = |millis| Cell::Ago(Timestamp::from_millis(NOW.as_millis() - millis));
        let until = |millis| Cell::Until(Timestamp::from_millis(NOW.as_millis() + millis));
        for (cell, text) in [
            (Cell::Nothing, "-"),
            (Cell::text(""), "-"),
            (Cell::Count(12), "12"),
            (Cell::Size(0), "0"),
            (Cell::Size(1_023), "1023B"),
            (Cell::Size(1_300), "1.2KiB"),
            (Cell::Size(90_112), "88KiB"),
            (Cell::Size(24 << 20), "24MiB"),
            (Cell::Lasting(Span::millis(870)), "0.8s"),
            (Cell::Lasting(Span::millis(12)), "12ms"),
            (Cell::Lasting(Span::seconds(12)), "12s"),
            (ago(41 * 60_000), "41m"),
            (ago(0), "0s"),
            (until(0), "now"),
            (until(7_300_000), "2h"),
            (until(3 * 86_400_000), "3d"),
        ] {
            assert_eq!(cell.for_people(NOW, TimeForm::Relative, true), text);
        }
    }

    #[test]
    fn times_of_today_need_no_date() {
        let at = |millis| Timestamp::from_millis(NOW.as_millis() - millis);
        assert_eq!(clock_time(at(0), NOW, true), "02:13:20");
        assert_eq!(clock_time(at(86_400_000), NOW, true), "2025-11-12 02:13:20");
    }

    #[test]
    fn programs_read_durations_as_seconds() {
        assert_eq!(Cell::Lasting(Span::millis(870)).for_programs(TimeForm::Relative), "0.87");
        assert_eq!(Cell::Lasting(Span::minutes(11)).for_programs(TimeForm::Unix), "660");
    }

    #[test]
    fn moments_have_three_forms() {
        let cell = Cell::Ago(Timestamp::from_millis(1_763_000_000_250));
        assert_eq!(cell.for_people(NOW, TimeForm::Iso, true), "2025-11-13T02:13:20.250Z");
        assert_eq!(cell.for_people(NOW, TimeForm::Unix, true), "1763000000");
        assert_eq!(cell.for_programs(TimeForm::Relative), "2025-11-13T02:13:20.250Z");
        assert_eq!(cell.for_programs(TimeForm::Unix), "1763000000");
    }
}
