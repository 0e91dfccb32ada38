//! Names of messages and sessions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Crockford's base 32: no I, L, O, U, so that a number read aloud is typed right.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A text that is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id: {digits} letters and digits are expected")]
pub struct IdError {
    text: String,
    digits: usize,
}

fn write_digits(f: &mut fmt::Formatter<'_>, number: u64, digits: u32) -> fmt::Result {
    for place in (0..digits).rev() {
        let digit = (number >> (place * 5)) & 31;
        fmt::Write::write_char(f, char::from(ALPHABET[digit as usize]))?;
    }
    Ok(())
}

fn read_digits(text: &str, digits: usize) -> Result<u64, IdError> {
    let bad = || IdError { text: text.to_owned(), digits };
    if text.len() != digits {
        return Err(bad());
    }
    text.bytes().try_fold(0_u64, |number, octet| {
        let digit = match octet.to_ascii_uppercase() {
            b'I' | b'L' => 1,
            b'O' => 0,
            upper => ALPHABET.iter().position(|&a| a == upper).ok_or_else(bad)? as u64,
        };
        Ok(number << 5 | digit)
    })
}

/// Defines an id written with a fixed count of base-32 digits.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $digits:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u64);

        impl $name {
            /// How many characters the id has when written.
            pub const DIGITS: usize = $digits;
            /// The largest id.
            pub const MAX: Self = Self((1 << ($digits * 5)) - 1);

            /// The id with this number; bits above those that fit are dropped.
            #[must_use]
            pub const fn from_u64(number: u64) -> Self {
                Self(number & Self::MAX.0)
            }

            /// The number.
            #[must_use]
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// Reads the written form; small letters and the look-alikes O, I, L are understood.
            ///
            /// # Errors
            ///
            /// [`IdError`] with the text.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                read_digits(text, $digits).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_digits(f, self.0, $digits)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// The name of one message from its acceptance to its end, also across restarts: 60 bits,
    /// the milliseconds since 1970 in the upper 42 and a counter in the lower 18, so that names
    /// sort by time.
    QueueId, 12
}

id! {
    /// The name of one session, unique while the daemon runs.
    SessionId, 6
}

impl QueueId {
    /// The smallest id of a moment, given in milliseconds since 1970.
    #[must_use]
    pub const fn at_millis(millis: u64) -> Self {
        Self::from_u64(millis << 18)
    }

    /// The moment it was made, in milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 >> 18
    }

    /// The id after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::from_u64(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_twelve_digits_and_sort_by_time() {
        let early = QueueId::at_millis(1_763_000_000_000);
        let late = QueueId::at_millis(1_763_000_000_001);
        assert_eq!(early.to_string().len(), 12);
        assert!(early < early.next() && early.next() < late);
        assert!(early.to_string() < late.to_string());
        assert_eq!(QueueId::parse(&early.to_string()), Ok(early));
    }

    #[test]
    fn look_alikes_and_small_letters_are_understood() {
        assert_eq!(QueueId::parse("oil000000000"), QueueId::parse("011000000000"));
        assert_eq!(SessionId::parse("7qk2m9").unwrap().to_string(), "7QK2M9");
        for bad in ["", "7QK2M", "7QK2M99", "7QK2MU", "7QK2M-"] {
            assert!(SessionId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
