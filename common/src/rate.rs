//! How much mail in how long: `30/min`.

use std::fmt;
use std::time::Duration;

/// So many messages in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    messages: u32,
    per: Per,
}

/// The spans that rates are given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Per {
    Second,
    Minute,
    Hour,
    Day,
}

const WORDS: [(&str, Per); 4] =
    [("s", Per::Second), ("min", Per::Minute), ("h", Per::Hour), ("d", Per::Day)];

/// A text that is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a rate")]
pub struct RateError(String);

impl Rate {
    /// So many messages a minute.
    #[must_use]
    pub const fn per_minute(messages: u32) -> Self {
        Self { messages, per: Per::Minute }
    }

    /// Reads `30/min`; also per `s`, `h` and `d`. Nothing at all is no rate.
    ///
    /// # Errors
    ///
    /// [`RateError`] with the text.
    pub fn parse(text: &str) -> Result<Self, RateError> {
        let read = || {
            let (messages, unit) = text.split_once('/')?;
            let messages = messages.parse().ok().filter(|&messages| messages > 0)?;
            let (_, per) = WORDS.iter().find(|(word, _)| *word == unit)?;
            Some(Self { messages, per: *per })
        };
        read().ok_or_else(|| RateError(text.to_owned()))
    }

    /// How long one message takes at the even pace.
    #[must_use]
    pub fn step(self) -> Duration {
        self.span() / self.messages
    }

    /// The span that it is given in.
    #[must_use]
    pub const fn span(self) -> Duration {
        match self.per {
            Per::Second => Duration::from_secs(1),
            Per::Minute => Duration::from_mins(1),
            Per::Hour => Duration::from_hours(1),
            Per::Day => Duration::from_hours(24),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = WORDS.iter().find(|(_, per)| *per == self.per).map_or("min", |(word, _)| word);
        write!(f, "{}/{word}", self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for (text, step) in [
            ("30/min", Duration::from_secs(2)),
            ("10/s", Duration::from_millis(100)),
            ("1/h", Duration::from_hours(1)),
            ("10000/d", Duration::from_millis(8640)),
        ] {
            let rate = Rate::parse(text).unwrap();
            assert_eq!((rate.to_string().as_str(), rate.step()), (text, step));
        }
        for bad in ["", "30", "30/", "/min", "0/min", "30/minute", "-1/s", "5000000000/s", "1/1h"] {
            assert_eq!(Rate::parse(bad), Err(RateError(bad.to_owned())));
        }
    }
}
