//! Sizes, spans of time and moments, as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a size or a span.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A number stands alone; both readings are offered.
    #[error("{kind} needs a unit: write {text}{first} or {text}{second}")]
    Bare {
        /// What was expected, such as "a duration".
        kind: &'static str,
        /// The number.
        text: String,
        /// One unit it could have meant.
        first: &'static str,
        /// Another unit it could have meant.
        second: &'static str,
    },
    /// The text has another shape.
    #[error("{text:?} is not {kind} such as {example}")]
    Shape {
        /// What was expected.
        kind: &'static str,
        /// The text.
        text: String,
        /// A good one.
        example: &'static str,
    },
    /// The number does not fit.
    #[error("{0:?} is too large")]
    Range(String),
}

/// A count of octets, always written with a unit (`64KiB`, `35MiB`, `10MB`, `200B`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ByteSize(u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// This many octets.
    #[must_use]
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// This many times 1024 octets.
    #[must_use]
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// This many times 1024² octets.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// This many times 1024³ octets.
    #[must_use]
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The count of octets.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Reads a whole number with a unit.
    ///
    /// # Errors
    ///
    /// [`UnitError`], offering both readings of a bare number.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let kind = "a size";
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shape = || UnitError::Shape { kind, text: text.to_owned(), example: "35MiB" };
        if number.is_empty() {
            return Err(shape());
        }
        if unit.is_empty() {
            let text = text.to_owned();
            return Err(UnitError::Bare { kind, text, first: "KiB", second: "MiB" });
        }
        let (_, factor) = SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))
            .ok_or_else(shape)?;
        number
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(*factor))
            .map(Self)
            .ok_or_else(|| UnitError::Range(text.to_owned()))
    }
}

/// The largest binary unit that leaves a whole number; one that [`ByteSize::parse`] reads back.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole =
            SIZE_UNITS[..4].iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit));
        match whole {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A length of time, written `90s`, `15m`, `4h`, `4d`, `1w` or joined as in `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span(Duration);

const SPAN_UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("ms", 1),
    ("m", 60_000),
    ("s", 1_000),
];

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self::millis(0);

    /// This many milliseconds.
    #[must_use]
    pub const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }

    /// This many seconds.
    #[must_use]
    pub const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// This many minutes.
    #[must_use]
    pub const fn minutes(count: u64) -> Self {
        Self::seconds(count * 60)
    }

    /// This many hours.
    #[must_use]
    pub const fn hours(count: u64) -> Self {
        Self::minutes(count * 60)
    }

    /// This many days of 24 hours.
    #[must_use]
    pub const fn days(count: u64) -> Self {
        Self::hours(count * 24)
    }

    /// The same as the standard library's type.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// Whole milliseconds; lengths beyond 292 million years do not occur.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// Reads one or more numbers, each with its unit, without blanks.
    ///
    /// # Errors
    ///
    /// [`UnitError`], offering both readings of a bare number.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let kind = "a duration";
        let shape = || UnitError::Shape { kind, text: text.to_owned(), example: "15m or 1h30m" };
        if !text.is_empty() && text.bytes().all(|o| o.is_ascii_digit()) {
            let text = text.to_owned();
            return Err(UnitError::Bare { kind, text, first: "s", second: "m" });
        }
        let (mut rest, mut millis) = (text, 0_u64);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(letters);
            let (_, factor) =
                SPAN_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(shape)?;
            if number.is_empty() {
                return Err(shape());
            }
            millis = number
                .parse::<u64>()
                .ok()
                .and_then(|count| count.checked_mul(*factor))
                .and_then(|part| millis.checked_add(part))
                .filter(|&sum| sum <= Self::MILLIS_MAX)
                .ok_or_else(|| UnitError::Range(text.to_owned()))?;
            rest = tail;
        }
        if text.is_empty() { Err(shape()) } else { Ok(Self::millis(millis)) }
    }

    /// 9,999 days, the original's upper bound, so that no sum of moments can overflow.
    const MILLIS_MAX: u64 = 9_999 * 86_400_000;
}

/// The parts from the largest unit down, such as `1h30m`; one that [`Span::parse`] reads back.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in
            [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]
        {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

/// A moment: whole milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment this many milliseconds after 1970 began.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970 began.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment after a span.
    #[must_use]
    pub fn after(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.as_millis()))
    }

    /// How long ago `earlier` was; nothing if it lies ahead (the clock may have been set back).
    #[must_use]
    pub fn since(self, earlier: Self) -> Span {
        Span::millis(self.0.saturating_sub(earlier.0))
    }

    /// The date form of mail headers, in UTC (RFC 5322 section 3.3).
    #[must_use]
    pub fn to_rfc5322(self) -> String {
        self.format("%a, %d %b %Y %H:%M:%S +0000")
    }

    /// Reads RFC 3339, such as `2026-11-24T09:30:00.000Z`.
    ///
    /// # Errors
    ///
    /// [`UnitError::Shape`] with the text.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        text.parse::<jiff::Timestamp>()
            .ok()
            .and_then(|moment| u64::try_from(moment.as_millisecond()).ok())
            .map(Self)
            .ok_or_else(|| UnitError::Shape {
                kind: "a moment",
                text: text.to_owned(),
                example: "2026-11-24T09:30:00Z",
            })
    }

    fn format(self, form: &str) -> String {
        self.moment().strftime(form).to_string()
    }

    fn moment(self) -> jiff::Timestamp {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX)
    }
}

/// RFC 3339 in UTC with milliseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.moment())
    }
}

/// Serialises a type as its `Display` text and reads it back with `parse`.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl FromStr for $name {
            type Err = UnitError;

            fn from_str(text: &str) -> Result<Self, UnitError> {
                Self::parse(text)
            }
        }
    )*};
}

as_text!(ByteSize, Span, Timestamp);

/// In the control interface sizes are numbers of octets.
impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}

/// In the control interface spans are numbers of seconds.
impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit_and_round_trip() {
        assert_eq!(ByteSize::parse("35MiB"), Ok(ByteSize::mib(35)));
        assert_eq!(ByteSize::parse("10MB"), Ok(ByteSize::bytes(10_000_000)));
        for text in ["0B", "1B", "64KiB", "35MiB", "3GiB", "1500B"] {
            assert_eq!(ByteSize::parse(text).unwrap().to_string(), text);
        }
        assert!(matches!(ByteSize::parse("2048"), Err(UnitError::Bare { .. })));
        assert!(matches!(ByteSize::parse("99999999999TiB"), Err(UnitError::Range(_))));
        for bad in ["", "MiB", "1.5MiB", "-1MiB", "1XiB"] {
            assert!(matches!(ByteSize::parse(bad), Err(UnitError::Shape { .. })), "{bad:?}");
        }
    }

    #[test]
    fn spans_need_a_unit_and_round_trip() {
        assert_eq!(Span::parse("1h30m"), Ok(Span::minutes(90)));
        assert_eq!(Span::parse("1w"), Ok(Span::days(7)));
        for text in ["0s", "250ms", "90m", "4d", "1d2h3m4s5ms"] {
            assert_eq!(Span::parse(&Span::parse(text).unwrap().to_string()), Span::parse(text));
        }
        assert!(matches!(Span::parse("15"), Err(UnitError::Bare { .. })));
        assert!(matches!(Span::parse("99999d"), Err(UnitError::Range(_))));
        for bad in ["", "m", "1x", "1h30", "-1h", "1h 30m"] {
            assert!(matches!(Span::parse(bad), Err(UnitError::Shape { .. })), "{bad:?}");
        }
    }

    #[test]
    fn moments_are_written_as_rfc_3339_and_rfc_5322() {
        let moment = Timestamp::parse("2026-11-24T09:30:00.250Z").unwrap();
        assert_eq!(moment.to_string(), "2026-11-24T09:30:00.250Z");
        assert_eq!(moment.to_rfc5322(), "Tue, 24 Nov 2026 09:30:00 +0000");
        assert_eq!(moment.since(moment.after(Span::hours(1))), Span::default());
    }
}
