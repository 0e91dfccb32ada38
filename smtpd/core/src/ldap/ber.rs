//! The encoding of LDAP (BER as RFC 4511 section 5.1 restricts it): elements of a tag, a definite
//! length and content. Tags have one octet in everything that LDAP says.

/// Why octets are no element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BerError {
    /// They end in the middle of one.
    #[error("an element ends too early")]
    Short,
    /// The tag has several octets, or the length is indefinite or longer than any we take.
    #[error("an element has a tag or a length that LDAP does not have")]
    Form,
    /// Another element belongs here.
    #[error("an element has another tag than belongs there")]
    Tag,
    /// A number is too large.
    #[error("a number is too large")]
    Number,
}

/// Tags of the universal class.
pub mod tag {
    /// BOOLEAN
    pub const BOOLEAN: u8 = 0x01;
    /// INTEGER
    pub const INTEGER: u8 = 0x02;
    /// OCTET STRING
    pub const OCTETS: u8 = 0x04;
    /// ENUMERATED
    pub const ENUMERATED: u8 = 0x0a;
    /// SEQUENCE
    pub const SEQUENCE: u8 = 0x30;
    /// SET
    pub const SET: u8 = 0x31;
}

/// Writes elements.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// What was written.
    #[must_use]
    pub fn into_octets(self) -> Vec<u8> {
        self.out
    }

    /// An element with this content.
    pub fn octets(&mut self, tag: u8, content: &[u8]) {
        self.out.push(tag);
        self.length(content.len());
        self.out.extend_from_slice(content);
    }

    /// An element made of others.
    pub fn inside(&mut self, tag: u8, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.octets(tag, &inner.out);
    }

    /// A number, as short as it can be.
    pub fn number(&mut self, tag: u8, number: u32) {
        let all = u64::from(number).to_be_bytes();
        // The first bit is the sign.
        let is_needless = |pair: &[u8]| pair[0] == 0 && pair[1] < 0x80;
        let skipped = all.windows(2).take_while(|pair| is_needless(pair)).count();
        self.octets(tag, &all[skipped..]);
    }

    /// A yes or no.
    pub fn boolean(&mut self, tag: u8, is_so: bool) {
        self.octets(tag, &[if is_so { 0xff } else { 0 }]);
    }

    fn length(&mut self, length: usize) {
        match u8::try_from(length) {
            Ok(short) if short < 0x80 => self.out.push(short),
            _ => {
                let all = (length as u64).to_be_bytes();
                let skipped = all.iter().take_while(|octet| **octet == 0).count();
                let count = u8::try_from(all.len() - skipped).unwrap_or(8);
                self.out.push(0x80 | count);
                self.out.extend_from_slice(&all[skipped..]);
            }
        }
    }
}

/// The most octets that a length is written in: 4 GiB, far beyond any limit of ours.
const LENGTH_OCTETS_MAX: usize = 4;

/// How many octets the first element takes, head included; nothing if that is not known yet.
///
/// # Errors
///
/// [`BerError::Form`].
pub fn extent(octets: &[u8]) -> Result<Option<u64>, BerError> {
    let (Some(tag), Some(first)) = (octets.first(), octets.get(1)) else { return Ok(None) };
    if tag & 0x1f == 0x1f {
        return Err(BerError::Form);
    }
    if *first < 0x80 {
        return Ok(Some(2 + u64::from(*first)));
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > LENGTH_OCTETS_MAX {
        return Err(BerError::Form);
    }
    let Some(length) = octets.get(2..2 + count) else { return Ok(None) };
    let length = length.iter().fold(0, |sum: u64, octet| sum << 8 | u64::from(*octet));
    Ok(Some(2 + count as u64 + length))
}

/// Reads elements one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins at the first.
    #[must_use]
    pub const fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    /// Whether there are no more.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next.
    #[must_use]
    pub fn tag(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next element: its tag and its content.
    ///
    /// # Errors
    ///
    /// [`BerError`].
    pub fn any(&mut self) -> Result<(u8, &'a [u8]), BerError> {
        let tag = self.tag().ok_or(BerError::Short)?;
        let extent = extent(self.rest)?.ok_or(BerError::Short)?;
        let extent = usize::try_from(extent).map_err(|_| BerError::Short)?;
        let (element, rest) = self.rest.split_at_checked(extent).ok_or(BerError::Short)?;
        let length_octets = match element.get(1) {
            Some(first) if *first >= 0x80 => usize::from(first & 0x7f),
            _ => 0,
        };
        self.rest = rest;
        Ok((tag, element.get(2 + length_octets..).unwrap_or_default()))
    }

    /// The content of the next element, which must have this tag.
    ///
    /// # Errors
    ///
    /// [`BerError`].
    pub fn octets(&mut self, tag: u8) -> Result<&'a [u8], BerError> {
        if self.tag().is_some_and(|found| found != tag) {
            return Err(BerError::Tag);
        }
        self.any().map(|(_, content)| content)
    }

    /// The elements within the next one, which must have this tag.
    ///
    /// # Errors
    ///
    /// [`BerError`].
    pub fn inside(&mut self, tag: u8) -> Result<Self, BerError> {
        self.octets(tag).map(Self::new)
    }

    /// The next element as a number that is not negative.
    ///
    /// # Errors
    ///
    /// [`BerError`].
    pub fn number(&mut self, tag: u8) -> Result<u32, BerError> {
        let octets = self.octets(tag)?;
        if octets.is_empty() || octets.len() > 5 || octets[0] >= 0x80 {
            return Err(BerError::Number);
        }
        let sum = octets.iter().fold(0, |sum: u64, octet| sum << 8 | u64::from(*octet));
        u32::try_from(sum).map_err(|_| BerError::Number)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_and_lengths_are_as_short_as_they_can_be() {
        for (number, octets) in [
            (0, &[2, 1, 0][..]),
            (127, &[2, 1, 127]),
            (128, &[2, 2, 0, 128]),
            (256, &[2, 2, 1, 0]),
            (u32::MAX, &[2, 5, 0, 255, 255, 255, 255]),
        ] {
            let mut writer = Writer::default();
            writer.number(tag::INTEGER, number);
            assert_eq!(writer.into_octets(), octets);
            assert_eq!(Reader::new(octets).number(tag::INTEGER), Ok(number));
        }
        for (length, head) in
            [(127, &[4, 127][..]), (128, &[4, 0x81, 128]), (300, &[4, 0x82, 1, 44])]
        {
            let mut writer = Writer::default();
            writer.octets(tag::OCTETS, &vec![b'x'; length]);
            let octets = writer.into_octets();
            assert!(octets.starts_with(head));
            assert_eq!(extent(&octets), Ok(Some(octets.len() as u64)));
            assert_eq!(Reader::new(&octets).octets(tag::OCTETS).unwrap().len(), length);
        }
    }

    #[test]
    fn what_is_not_known_yet_is_not_guessed() {
        assert_eq!(extent(&[]), Ok(None));
        assert_eq!(extent(&[0x30]), Ok(None));
        assert_eq!(extent(&[0x30, 0x82, 1]), Ok(None));
        assert_eq!(extent(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), Ok(Some(0xffff_ffff + 6)));
        for bad in [&[0x30, 0x80][..], &[0x30, 0x85, 0, 0, 0, 0, 1], &[0x1f, 1], &[0x3f, 0x81]] {
            assert_eq!(extent(bad), Err(BerError::Form), "{bad:?}");
        }
        assert_eq!(Reader::new(&[4, 2, 1]).any(), Err(BerError::Short));
        assert_eq!(Reader::new(&[4, 0]).octets(tag::INTEGER), Err(BerError::Tag));
        assert_eq!(Reader::new(&[2, 1, 0x80]).number(tag::INTEGER), Err(BerError::Number));
    }

    proptest! {
        #[test]
        fn no_octets_are_too_strange_to_be_read(octets in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut reader = Reader::new(&octets);
            let mut content = 0;
            while let Ok((_, inner)) = reader.any() {
                content += inner.len();
            }
            prop_assert!(content <= octets.len());
        }
    }
}
