//! What the targets share: choices that a target draws from the tail of its input.
//!
//! The octets under test come first, so that a dictionary, a transcript and a crash file read as
//! what they are; the choices follow, and the last octet says how many there are. An input that
//! ends with NUL has none: every choice is then zero, which every target reads as "the plain way".

/// Choices drawn from an input, used again from the front when they are used up.
#[derive(Clone, Debug)]
pub struct Choices<'a> {
    octets: &'a [u8],
    at: usize,
}

/// Choices are at most this many.
const CHOICES_MAX: usize = 63;

/// Parts an input into the octets under test and the choices.
#[must_use]
pub fn split(input: &[u8]) -> (&[u8], Choices<'_>) {
    let Some((&count, front)) = input.split_last() else {
        return (&[], Choices { octets: &[], at: 0 });
    };
    let count = usize::from(count).min(CHOICES_MAX).min(front.len());
    let (octets, choices) = front.split_at(front.len() - count);
    (octets, Choices { octets: choices, at: 0 })
}

impl Choices<'_> {
    /// The next choice: any octet.
    pub fn octet(&mut self) -> u8 {
        let octet = self.octets.get(self.at).copied().unwrap_or(0);
        self.at = if self.at + 1 < self.octets.len() { self.at + 1 } else { 0 };
        octet
    }

    /// The next choice as a number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.octet()) % end
    }

    /// Whether the next choice is one of the `few` highest octets: false if there are no choices.
    pub fn rarely(&mut self, few: u8) -> bool {
        self.octet() > u8::MAX - few
    }

    /// Cuts a piece off the front of the octets: all of them for the choice zero.
    pub fn piece<'o>(&mut self, octets: &'o [u8]) -> (&'o [u8], &'o [u8]) {
        let length = match self.octet() {
            0 => octets.len(),
            few @ 1..=127 => usize::from(few),
            many => usize::from(many) * 64,
        };
        octets.split_at(length.min(octets.len()))
    }
}
