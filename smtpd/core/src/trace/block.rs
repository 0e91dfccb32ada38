//! A block of the trace: many events packed, with what a query must know to pass it over.
//!
//! ```text
//! magic 4 | packed 4 | plain 4 | events 4 | filter 4 | first 8 | last 8 | lowest id 8 | highest id 8
//! checksum of all that and the filter 4 | checksum of the packed events 4 | filter | packed events
//! ```
//!
//! Numbers are little-endian. A block is written once and never changed. What does not check out is
//! passed over, and reading goes on at the next magic.

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;

use super::event::Event;
use super::filter::{self, FILTER_OCTETS_MAX, Key};

/// What every block begins with.
pub const MAGIC: [u8; 4] = *b"\xB1Mr2";
/// What blocks of every form begin with.
const FAMILY: &[u8] = b"\xB1Mr";
/// The octets before the filter.
pub const HEAD_OCTETS: usize = 60;
/// Events are gathered up to this size before they are packed, in octets.
pub const PLAIN_OCTETS: usize = 128 << 10;
/// No block has more, packed or plain, in octets.
pub const OCTETS_MAX: usize = 64 << 20;

/// What stands before the events of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Octets of the packed events.
    pub packed: usize,
    /// Octets of the events.
    pub plain: usize,
    /// How many events there are.
    pub events: u32,
    /// Octets of the filter.
    pub filter: usize,
    /// The time of the earliest event.
    pub first: Timestamp,
    /// The time of the latest event.
    pub last: Timestamp,
    /// The lowest id of a message; above [`Head::highest`] if no event has one.
    pub lowest: QueueId,
    /// The highest id of a message.
    pub highest: QueueId,
    head_sum: u32,
    packed_sum: u32,
}

/// What the front of a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// A block with a good head. Its filter may be used.
    Block(Head),
    /// The beginning of a block, of which this many octets are needed to know more.
    Short(usize),
    /// No block.
    Broken,
}

impl Head {
    /// Octets of the whole block.
    #[must_use]
    pub const fn octets(&self) -> usize {
        HEAD_OCTETS + self.filter + self.packed
    }

    /// Looks at the front of `octets`.
    #[must_use]
    pub fn read(octets: &[u8]) -> Front {
        let Some(head) = octets.first_chunk::<HEAD_OCTETS>() else {
            let begins = MAGIC.iter().zip(octets).all(|(magic, octet)| magic == octet);
            return if begins { Front::Short(HEAD_OCTETS) } else { Front::Broken };
        };
        let Some(found) = Self::parse(head) else { return Front::Broken };
        let Some(filter) = octets.get(HEAD_OCTETS..HEAD_OCTETS + found.filter) else {
            return Front::Short(HEAD_OCTETS + found.filter);
        };
        let sum = crc32c::crc32c_append(crc32c::crc32c(&head[..SUMMED]), filter);
        if sum == found.head_sum { Front::Block(found) } else { Front::Broken }
    }

    fn parse(head: &[u8; HEAD_OCTETS]) -> Option<Self> {
        let mut rest = head.strip_prefix(&MAGIC)?;
        let mut small = || {
            let (number, after) = rest.split_first_chunk::<4>()?;
            rest = after;
            Some(u32::from_le_bytes(*number))
        };
        let (packed, plain, events, filter) = (small()?, small()?, small()?, small()?);
        let mut large = || {
            let (number, after) = rest.split_first_chunk::<8>()?;
            rest = after;
            Some(u64::from_le_bytes(*number))
        };
        let (first, last, lowest, highest) = (large()?, large()?, large()?, large()?);
        let (head_sum, packed_sum) = rest.split_first_chunk::<4>()?;
        let bounded = |octets: u32, most: usize| {
            usize::try_from(octets).ok().filter(|&octets| octets <= most)
        };
        Some(Self {
            packed: bounded(packed, OCTETS_MAX)?,
            plain: bounded(plain, OCTETS_MAX)?,
            events,
            filter: bounded(filter, FILTER_OCTETS_MAX)?,
            first: Timestamp::from_millis(first),
            last: Timestamp::from_millis(last),
            lowest: QueueId::from_u64(lowest),
            highest: QueueId::from_u64(highest),
            head_sum: u32::from_le_bytes(*head_sum),
            packed_sum: u32::from_le_bytes(*packed_sum.first_chunk::<4>()?),
        })
    }

    /// Unpacks the events; nothing if they are damaged.
    #[must_use]
    pub fn unpack(&self, packed: &[u8]) -> Option<Vec<u8>> {
        if packed.len() != self.packed || crc32c::crc32c(packed) != self.packed_sum {
            return None;
        }
        lz4_flex::block::decompress(packed, self.plain).ok()
    }
}

/// The octets of the head that its checksum covers.
const SUMMED: usize = HEAD_OCTETS - 8;

/// Events that are being gathered.
#[derive(Debug)]
pub struct Builder {
    plain: Vec<u8>,
    keys: Vec<Key>,
    events: u32,
    first: Timestamp,
    last: Timestamp,
    lowest: QueueId,
    highest: QueueId,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            plain: Vec::new(),
            keys: Vec::new(),
            events: 0,
            first: Timestamp::from_millis(u64::MAX),
            last: Timestamp::default(),
            lowest: QueueId::MAX,
            highest: QueueId::from_u64(0),
        }
    }
}

impl Builder {
    /// Whether there are no events.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// How many events there are.
    #[must_use]
    pub const fn events(&self) -> u32 {
        self.events
    }

    /// Whether it is time to seal.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.plain.len() >= PLAIN_OCTETS
    }

    /// The events so far.
    #[must_use]
    pub fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// Takes one event from the front of `octets`, which is left behind it; false if none stands
    /// there.
    pub fn take(&mut self, octets: &mut &[u8]) -> bool {
        let before = *octets;
        let Some(event) = Event::take(octets) else { return false };
        filter::keys(&event, &mut self.keys);
        self.events += 1;
        self.first = self.first.min(event.at);
        self.last = self.last.max(event.at);
        if let Some(id) = event.id() {
            self.lowest = self.lowest.min(id);
            self.highest = self.highest.max(id);
        }
        self.plain.extend_from_slice(&before[..before.len() - octets.len()]);
        true
    }

    /// Makes a block of what was gathered, and begins anew.
    #[must_use]
    pub fn seal(&mut self) -> Vec<u8> {
        let filter = filter::build(&mut self.keys);
        let packed = lz4_flex::block::compress(&self.plain);
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes();
        let mut out = Vec::with_capacity(HEAD_OCTETS + filter.len() + packed.len());
        out.extend_from_slice(&MAGIC);
        for number in [small(packed.len()), small(self.plain.len())] {
            out.extend_from_slice(&number);
        }
        out.extend_from_slice(&self.events.to_le_bytes());
        out.extend_from_slice(&small(filter.len()));
        let (first, last) = (self.first.as_millis(), self.last.as_millis());
        for number in [first, last, self.lowest.as_u64(), self.highest.as_u64()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let sum = crc32c::crc32c_append(crc32c::crc32c(&out), &filter);
        out.extend_from_slice(&sum.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&packed).to_le_bytes());
        out.extend_from_slice(&filter);
        out.extend_from_slice(&packed);
        self.plain.clear();
        self.keys.clear();
        let (plain, keys) = (std::mem::take(&mut self.plain), std::mem::take(&mut self.keys));
        *self = Self { plain, keys, ..Self::default() };
        out
    }
}

/// Whether these octets begin a block of another form than ours.
#[must_use]
pub fn is_of_another_form(octets: &[u8]) -> bool {
    octets.starts_with(FAMILY) && octets.len() >= MAGIC.len() && !octets.starts_with(&MAGIC)
}

/// The place of the next magic behind the first octet, where reading may go on after damage.
#[must_use]
pub fn next_magic(octets: &[u8]) -> Option<usize> {
    memchr::memmem::find(octets.get(1..)?, &MAGIC).map(|place| place + 1)
}

#[cfg(test)]
mod tests {
    use super::super::event::Text;
    use super::super::note::Note;
    use super::*;

    fn sealed(count: u64) -> Vec<u8> {
        let mut builder = Builder::default();
        for number in 0..count {
            let note = Note::new("delivered", "default", Timestamp::from_millis(1_000 + number))
                .id(QueueId::from_u64(7 + number))
                .text(Text::To, format_args!("user{number}@x.example"));
            assert!(builder.take(&mut note.finish().as_slice()));
        }
        builder.seal()
    }

    #[test]
    fn a_block_tells_its_bounds_and_gives_its_events_back() {
        let block = sealed(500);
        let Front::Block(head) = Head::read(&block) else { panic!("a block") };
        assert_eq!((head.events, head.octets()), (500, block.len()));
        assert_eq!((head.first.as_millis(), head.last.as_millis()), (1_000, 1_499));
        assert_eq!((head.lowest.as_u64(), head.highest.as_u64()), (7, 506));
        let filter = &block[HEAD_OCTETS..HEAD_OCTETS + head.filter];
        assert!(filter::may_have(filter, Key::address("user77@x.example")));
        assert!(!filter::may_have(filter, Key::address("user777@x.example")));
        let plain = head.unpack(&block[HEAD_OCTETS + head.filter..]).unwrap();
        assert_eq!(Event::all(&plain).count(), 500);
        assert!(plain.len() > block.len() * 2, "{} became {}", plain.len(), block.len());
    }

    #[test]
    fn a_torn_or_damaged_block_is_noticed() {
        let block = sealed(20);
        for length in 0..HEAD_OCTETS {
            assert_eq!(Head::read(&block[..length]), Front::Short(HEAD_OCTETS), "{length}");
        }
        let Front::Block(head) = Head::read(&block) else { panic!("a block") };
        for place in 0..HEAD_OCTETS + head.filter {
            let mut bad = block.clone();
            bad[place] ^= 0x10;
            let noticed = match Head::read(&bad) {
                // The checksum of the events is checked when they are.
                Front::Block(head) => head.unpack(&bad[HEAD_OCTETS + head.filter..]).is_none(),
                Front::Short(_) | Front::Broken => true,
            };
            assert!(noticed, "{place}");
        }
        let mut bad = block.clone();
        *bad.last_mut().unwrap() ^= 1;
        assert_eq!(head.unpack(&bad[HEAD_OCTETS + head.filter..]), None);
        let two = [&block[..30], &block[..]].concat();
        assert_eq!(next_magic(&two), Some(30));
    }
}
