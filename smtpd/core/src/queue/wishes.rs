//! What a sender wants besides the delivery itself: not before a moment, not after another, before or
//! after other mail, under TLS all the way.
//!
//! In: what MAIL said. Out: moments by the wall clock, fixed when the message was accepted, and what
//! is left of them for the next hop.

use std::fmt;

use mailroot_common::units::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::envelope::is_default;

/// The wishes of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// By when it is to be delivered, and what is done if it is not (RFC 2852).
    #[serde(rename = "by", default, skip_serializing_if = "Option::is_none")]
    pub deliver_by: Option<DeliverBy>,
    /// Not to be tried before this moment (RFC 4865).
    #[serde(rename = "rel", default, skip_serializing_if = "Option::is_none")]
    pub release_at: Option<Timestamp>,
    /// The time that moment was said as, if it was: HOLDFOR, not HOLDUNTIL.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub held_for: Option<Span>,
    /// Among the mail of one route it goes before that of lower priority (RFC 6710).
    #[serde(rename = "p", default, skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// Not to be sent but under TLS to hosts that prove who they are and will do the same (RFC 8689).
    #[serde(rename = "tls", default, skip_serializing_if = "is_default")]
    pub require_tls: bool,
}

impl Wishes {
    /// Whether there are any.
    #[must_use]
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is to be sent only when it is too late already (RFC 4865 section 5.2.2).
    #[must_use]
    pub fn are_at_odds(&self) -> bool {
        match (self.release_at, self.deliver_by) {
            (Some(release), Some(by)) => release > by.at,
            _ => false,
        }
    }
}

/// For the log and the trace: `not before 2026-12-01T08:00:00.000Z; priority 3`.
impl fmt::Display for Wishes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        if let Some(at) = self.release_at {
            write!(f, "not before {at}")?;
            gap = "; ";
        }
        if let Some(by) = self.deliver_by {
            write!(f, "{gap}by {by}")?;
            gap = "; ";
        }
        if self.priority != Priority::NORMAL {
            write!(f, "{gap}priority {}", self.priority)?;
            gap = "; ";
        }
        if self.require_tls {
            write!(f, "{gap}TLS all the way")?;
        }
        Ok(())
    }
}

/// What is done when the time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ByMode {
    /// The message is returned.
    #[serde(rename = "R")]
    Return,
    /// The sender is told, and trying goes on.
    #[serde(rename = "N")]
    Notify,
}

/// The BY parameter of MAIL as it stands (RFC 2852 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// Seconds that are left. With [`ByMode::Notify`] it may be none, or less: then the sender was
    /// told already.
    pub seconds: i32,
    /// What is done when they have passed.
    pub mode: ByMode,
    /// Whether the sender is to hear of each host that takes the message over.
    pub trace: bool,
}

impl By {
    /// The most seconds the grammar has room for, in either direction.
    pub const SECONDS_MAX: i32 = 999_999_999;

    /// Reads `seconds;R`, `seconds;N`, either with a `T` behind it.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let (seconds, mode) = value.split_once(';')?;
        let (sign, digits) = match seconds.as_bytes().first()? {
            b'-' => (-1, seconds.get(1..)?),
            b'+' => (1, seconds.get(1..)?),
            _ => (1, seconds),
        };
        if !(1..=9).contains(&digits.len()) || !digits.bytes().all(|o| o.is_ascii_digit()) {
            return None;
        }
        let seconds = sign * digits.parse::<i32>().ok()?;
        let (mode, trace) = match mode.to_ascii_uppercase().as_str() {
            "R" => (ByMode::Return, false),
            "RT" => (ByMode::Return, true),
            "N" => (ByMode::Notify, false),
            "NT" => (ByMode::Notify, true),
            _ => return None,
        };
        let makes_sense = seconds > 0 || mode == ByMode::Notify;
        makes_sense.then_some(Self { seconds, mode, trace })
    }

    /// Whether the message would be returned sooner than after this span.
    #[must_use]
    pub fn is_shorter_than(self, least: Span) -> bool {
        let span = Span::seconds(self.seconds.max(0).unsigned_abs().into());
        self.mode == ByMode::Return && span < least
    }

    /// The wish as it is kept, for a message whose MAIL came at this moment.
    #[must_use]
    pub fn counted_from(self, begin: Timestamp) -> DeliverBy {
        let Self { seconds, mode, trace } = self;
        let span = Span::seconds(seconds.unsigned_abs().into());
        let at = match seconds > 0 {
            true => begin.after(span),
            false => Timestamp::from_millis(begin.as_millis().saturating_sub(span.as_millis())),
        };
        DeliverBy { at, mode, trace }
    }
}

/// As RFC 2852 section 4 writes it: `3600;RT`.
impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            ByMode::Return => 'R',
            ByMode::Notify => 'N',
        };
        write!(f, "{};{mode}{}", self.seconds, if self.trace { "T" } else { "" })
    }
}

/// By when a message is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverBy {
    /// The moment, by the clock as it was when MAIL came.
    #[serde(rename = "at")]
    pub at: Timestamp,
    /// What is done when it has come.
    #[serde(rename = "m")]
    pub mode: ByMode,
    /// Whether the sender is to hear of each host that takes the message over.
    #[serde(rename = "t", default, skip_serializing_if = "is_default")]
    pub trace: bool,
}

impl DeliverBy {
    /// What the next hop is told at a moment, if the time is up at `deadline` by the same clock.
    #[must_use]
    pub fn left(self, deadline: Timestamp, now: Timestamp) -> By {
        let (deadline, now) = (deadline.as_millis(), now.as_millis());
        let seconds = deadline.abs_diff(now) / 1000;
        let seconds = i32::try_from(seconds).unwrap_or(By::SECONDS_MAX).min(By::SECONDS_MAX);
        let seconds = if deadline > now { seconds } else { -seconds };
        By { seconds, mode: self.mode, trace: self.trace }
    }
}

/// `2026-12-01T08:00:00.000Z, else returned`, or `else the sender is told`.
impl fmt::Display for DeliverBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let otherwise = match self.mode {
            ByMode::Return => "returned",
            ByMode::Notify => "the sender is told",
        };
        write!(f, "{}, else {otherwise}{}", self.at, if self.trace { ", traced" } else { "" })
    }
}

/// How long a message is to be held back (RFC 4865), as MAIL said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldBack {
    /// HOLDFOR: for a time from now on.
    For(Span),
    /// HOLDUNTIL: until a moment.
    Until(Timestamp),
}

impl HoldBack {
    /// HOLDFOR: one to nine digits, the first not zero.
    #[must_use]
    pub fn parse_for(value: &str) -> Option<Self> {
        let digits = value.bytes().all(|o| o.is_ascii_digit()) && !value.starts_with('0');
        let seconds = digits.then(|| value.parse().ok()).flatten().filter(|_| value.len() <= 9)?;
        Some(Self::For(Span::seconds(seconds)))
    }

    /// HOLDUNTIL: a moment of RFC 3339 in UTC, such as `2026-12-01T08:00:00Z`.
    #[must_use]
    pub fn parse_until(value: &str) -> Option<Self> {
        // Calendars have more forms than this; here is one.
        let pattern = b"dddd-dd-ddTdd:dd:dd";
        let whole = value.get(..pattern.len())?;
        let fits = whole.bytes().zip(pattern).all(|(octet, wanted)| match wanted {
            b'd' => octet.is_ascii_digit(),
            wanted => octet.eq_ignore_ascii_case(wanted),
        });
        let rest = value.get(pattern.len()..)?.strip_suffix(['Z', 'z'])?;
        let fraction = match rest.strip_prefix('.') {
            Some(digits) => {
                (1..=9).contains(&digits.len()) && digits.bytes().all(|o| o.is_ascii_digit())
            }
            None => rest.is_empty(),
        };
        (fits && fraction).then(|| Timestamp::parse(value).ok()).flatten().map(Self::Until)
    }

    /// The moment of release of a message whose MAIL comes now.
    #[must_use]
    pub fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::For(span) => now.after(span),
            Self::Until(at) => at,
        }
    }

    /// The time, if it was said as one.
    #[must_use]
    pub fn span(self) -> Option<Span> {
        match self {
            Self::For(span) => Some(span),
            Self::Until(_) => None,
        }
    }

    /// Whether that moment lies ahead, and no more than `most`.
    #[must_use]
    pub fn is_within(self, now: Timestamp, most: Span) -> bool {
        let at = self.moment(now);
        now < at && at.since(now) <= most
    }
}

/// A priority of RFC 6710: from -9, the lowest, to 9.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(try_from = "i8", into = "i8")]
pub struct Priority(i8);

impl Priority {
    /// The highest.
    pub const MAX: Self = Self(9);
    /// Where nothing was said.
    pub const NORMAL: Self = Self(0);

    /// Reads the MT-PRIORITY parameter: a digit, before any but 0 perhaps a minus sign.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let priority = match value.as_bytes() {
            [digit @ b'0'..=b'9'] => i8::try_from(digit - b'0').ok()?,
            [b'-', digit @ b'1'..=b'9'] => -i8::try_from(digit - b'0').ok()?,
            _ => return None,
        };
        Some(Self(priority))
    }

    /// The number.
    #[must_use]
    pub const fn as_i8(self) -> i8 {
        self.0
    }
}

impl TryFrom<i8> for Priority {
    type Error = String;

    fn try_from(number: i8) -> Result<Self, String> {
        match number {
            -9..=9 => Ok(Self(number)),
            _ => Err(format!("{number} is no priority")),
        }
    }
}

impl From<Priority> for i8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

    #[test]
    fn by_is_read_as_the_standard_writes_it_and_not_otherwise() {
        for (value, seconds, mode, trace) in [
            ("1;R", 1, ByMode::Return, false),
            ("+3600;rt", 3600, ByMode::Return, true),
            ("0;N", 0, ByMode::Notify, false),
            ("-999999999;NT", -999_999_999, ByMode::Notify, true),
        ] {
            assert_eq!(By::parse(value), Some(By { seconds, mode, trace }), "{value}");
        }
        for value in [
            "",
            ";R",
            "1",
            "1;",
            "0;R",
            "-1;R",
            "1;T",
            "1;TR",
            "1;RN",
            "1000000000;R",
            "--1;N",
            "1 ;R",
            "1;R;",
            "+;R",
            "1.5;R",
            "\u{661};R",
        ] {
            assert_eq!(By::parse(value), None, "{value}");
        }
    }

    #[test]
    fn what_is_left_counts_down_and_below_nothing() {
        let by = By::parse("60;NT").unwrap().counted_from(NOW);
        assert_eq!(by.at, NOW.after(Span::seconds(60)));
        let left = |seconds| by.left(by.at, NOW.after(Span::seconds(seconds))).to_string();
        assert_eq!([0, 59, 60, 75].map(left), ["60;NT", "1;NT", "0;NT", "-15;NT"]);
        let past = By::parse("-60;N").unwrap().counted_from(NOW);
        assert_eq!(past.left(past.at, NOW).to_string(), "-60;N");
    }

    #[test]
    fn a_message_is_held_for_a_time_or_until_a_moment_and_neither_is_past_or_too_far() {
        let most = Span::days(60);
        let is_taken = |hold: Option<HoldBack>| hold.unwrap().is_within(NOW, most);
        let minute = HoldBack::parse_for("60").unwrap();
        assert_eq!(minute.moment(NOW), NOW.after(Span::minutes(1)));
        assert!(is_taken(Some(minute)) && is_taken(HoldBack::parse_for("5184000")));
        assert!(!is_taken(HoldBack::parse_for("5184001")));
        assert!(is_taken(HoldBack::parse_until("2025-11-24T17:00:00.25z")), "{NOW}");
        assert!(!is_taken(HoldBack::parse_until("2025-11-24T15:00:00Z")), "{NOW}");
        assert!(!is_taken(HoldBack::parse_until("2026-11-24T00:00:00Z")));
        for value in ["", "0", "01", "-1", "+1", "1s", "1000000000"] {
            assert_eq!(HoldBack::parse_for(value), None, "{value}");
        }
        for value in [
            "",
            "2025-11-24",
            "2025-11-24T17:00:00",
            "2025-11-24T17:00:00+01:00",
            "2025-13-24T17:00:00Z",
            "2025-11-24 17:00:00Z",
            "2025-11-24T17:00Z",
            "2025-11-24T17:00:00.Z",
        ] {
            assert_eq!(HoldBack::parse_until(value), None, "{value}");
        }
    }

    #[test]
    fn mail_that_is_late_before_it_is_sent_makes_no_sense() {
        let wishes = |by: &str, hold: &str| Wishes {
            deliver_by: By::parse(by).map(|by| by.counted_from(NOW)),
            release_at: HoldBack::parse_for(hold).map(|hold| hold.moment(NOW)),
            ..Wishes::default()
        };
        for (by, hold, at_odds) in [
            ("60;R", "61", true),
            ("60;N", "61", true),
            ("0;N", "1", true),
            ("60;R", "60", false),
            ("61;N", "60", false),
            ("60;R", "", false),
            ("", "60", false),
        ] {
            assert_eq!(wishes(by, hold).are_at_odds(), at_odds, "{by} {hold}");
        }
    }

    #[test]
    fn priorities_are_one_digit_with_a_sign() {
        assert_eq!(
            ["-9", "-1", "0", "9"].map(|v| Priority::parse(v).unwrap().as_i8()),
            [-9, -1, 0, 9]
        );
        for value in ["", "-", "-0", "+1", "10", "-10", "a"] {
            assert_eq!(Priority::parse(value), None, "{value}");
        }
    }

    #[test]
    fn wishes_come_back_from_the_record_and_no_wishes_take_no_room() {
        let none: Wishes = serde_json::from_str("{}").unwrap();
        assert_eq!(
            (none, serde_json::to_string(&none).unwrap().as_str()),
            (Wishes::default(), "{}")
        );
        let all = Wishes {
            deliver_by: Some(By::parse("5;RT").unwrap().counted_from(NOW)),
            release_at: Some(NOW),
            held_for: HoldBack::parse_for("60").and_then(HoldBack::span),
            priority: Priority::parse("-3").unwrap(),
            require_tls: true,
        };
        assert!(all.to_string().ends_with("; priority -3; TLS all the way"));
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Wishes>(&text).unwrap(), all);
        assert!(serde_json::from_str::<Wishes>(r#"{"p":10}"#).is_err());
    }
}
