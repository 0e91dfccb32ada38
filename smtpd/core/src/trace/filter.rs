//! Answers "surely not here" about the keys of a block (a Bloom filter).
//!
//! A key is the hash of an id, an address, a domain, a client or a piece of a subject. Hash and filter
//! lie on disk, so their arithmetic never changes but with the magic of blocks.

use std::net::IpAddr;

use mailroot_common::id::QueueId;

use super::event::Event;

/// Bits for each key: about one key in a hundred is said to be there although it is not.
const BITS_PER_KEY: usize = 10;
/// How many bits a key sets.
const BITS_SET: u64 = 7;
/// The octets of a piece of a subject. Shorter ones are in every block, longer ones would leave more
/// questions without a piece.
const PIECE_OCTETS: usize = 4;
/// How many octets a filter has at most; beyond, it says "perhaps" more often.
pub const FILTER_OCTETS_MAX: usize = 64 << 10;

/// A key: the hash of what is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    /// A message.
    #[must_use]
    pub fn id(id: QueueId) -> Self {
        Self::of(b'i', &id.as_u64().to_le_bytes())
    }

    /// A sender or recipient, however its letters are written.
    #[must_use]
    pub fn address(text: &str) -> Self {
        Self::of_text(b'a', text)
    }

    /// A domain of a sender or recipient.
    #[must_use]
    pub fn domain(text: &str) -> Self {
        Self::of_text(b'd', text)
    }

    /// That somebody was turned away.
    #[must_use]
    pub fn refusal() -> Self {
        Self::of(b'r', b"")
    }

    /// The pieces of a text in small letters that stands somewhere in a subject; none if it is too
    /// short to have any.
    pub fn pieces(text: &str) -> impl Iterator<Item = Self> {
        text.as_bytes().windows(PIECE_OCTETS).map(|piece| Self::of(b's', piece))
    }

    /// A client, or the network of this length around it.
    #[must_use]
    pub fn network(address: IpAddr, length: u8) -> Self {
        let (mut octets, bits) = match address.to_canonical() {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let unwanted = 128 - u32::from(length.min(bits));
        octets = octets.checked_shr(unwanted).and_then(|it| it.checked_shl(unwanted)).unwrap_or(0);
        let mut text = [0; 18];
        text[..16].copy_from_slice(&octets.to_be_bytes());
        text[16..].copy_from_slice(&[length, bits]);
        Self::of(b'c', &text)
    }

    fn of_text(kind: u8, text: &str) -> Self {
        if text.is_ascii() {
            let mut hash = Hash::new(kind);
            text.bytes().for_each(|octet| hash.add(octet.to_ascii_lowercase()));
            return hash.finish();
        }
        Self::of(kind, text.to_lowercase().as_bytes())
    }

    fn of(kind: u8, octets: &[u8]) -> Self {
        let mut hash = Hash::new(kind);
        octets.iter().for_each(|&octet| hash.add(octet));
        hash.finish()
    }

    fn places(self, bits: u64) -> impl Iterator<Item = u64> {
        let (first, step) = (self.0, self.0.rotate_left(32) | 1);
        (0..BITS_SET).map(move |turn| first.wrapping_add(step.wrapping_mul(turn)) % bits)
    }
}

/// FNV-1a with its bits mixed at the end, because the filter uses all of them.
struct Hash(u64);

impl Hash {
    fn new(kind: u8) -> Self {
        let mut hash = Self(0xcbf2_9ce4_8422_2325);
        hash.add(kind);
        hash
    }

    fn add(&mut self, octet: u8) {
        self.0 = (self.0 ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn finish(self) -> Key {
        let mut mixed = self.0;
        for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
            mixed = (mixed ^ (mixed >> 33)).wrapping_mul(factor);
        }
        Key(mixed ^ (mixed >> 33))
    }
}

/// The lengths of networks that every client is known by, besides its own address.
pub const NETWORKS: [(u8, u8); 6] = [(32, 24), (32, 16), (32, 8), (128, 64), (128, 48), (128, 32)];

/// Adds the keys by which an event is found.
pub fn keys(event: &Event<'_>, keys: &mut Vec<Key>) {
    keys.extend(event.id().map(Key::id));
    for address in event.from.iter().chain(&event.to) {
        keys.push(Key::address(address));
        keys.extend(address.rsplit_once('@').map(|(_, domain)| Key::domain(domain)));
    }
    if event.is_refusal() {
        keys.push(Key::refusal());
    }
    if let Some(subject) = event.subject {
        // Letter by letter, as patterns are compared.
        let small: String = subject.chars().flat_map(char::to_lowercase).collect();
        keys.extend(Key::pieces(&small));
    }
    if let Some(client) = event.client.and_then(|client| client.parse::<IpAddr>().ok()) {
        let bits = if client.to_canonical().is_ipv4() { 32 } else { 128 };
        keys.push(Key::network(client, bits));
        let around = NETWORKS.iter().filter(|(family, _)| *family == bits);
        keys.extend(around.map(|(_, length)| Key::network(client, *length)));
    }
}

/// The filter of these keys, as it lies on disk.
#[must_use]
pub fn build(keys: &mut Vec<Key>) -> Vec<u8> {
    keys.sort_unstable();
    keys.dedup();
    let octets = (keys.len() * BITS_PER_KEY).div_ceil(8).clamp(8, FILTER_OCTETS_MAX);
    let mut filter = vec![0_u8; octets];
    let bits = octets as u64 * 8;
    for key in keys.iter() {
        for place in key.places(bits) {
            if let Some(octet) = usize::try_from(place / 8).ok().and_then(|at| filter.get_mut(at)) {
                *octet |= 1 << (place % 8);
            }
        }
    }
    filter
}

/// Whether a key may be among those of a filter.
#[must_use]
pub fn may_have(filter: &[u8], key: Key) -> bool {
    let bits = filter.len() as u64 * 8;
    bits == 0
        || key.places(bits).all(|place| {
            let octet = usize::try_from(place / 8).ok().and_then(|at| filter.get(at));
            octet.is_some_and(|octet| octet & (1 << (place % 8)) != 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> Key {
        Key::address(&format!("user{number}@x{}.example", number % 50))
    }

    #[test]
    fn what_is_there_is_found_and_little_else() {
        let mut keys: Vec<Key> = (0..2_000).map(address).collect();
        let filter = build(&mut keys);
        assert!((0..2_000).all(|number| may_have(&filter, address(number))));
        let wrong = (2_000..12_000).filter(|&number| may_have(&filter, address(number))).count();
        assert!(wrong < 250, "{wrong} of 10,000");
        assert!(filter.len() < 2_600, "{}", filter.len());
    }

    #[test]
    fn letters_are_alike_and_kinds_are_not() {
        assert_eq!(Key::address("Al@Slow.Example"), Key::address("al@slow.example"));
        assert_eq!(Key::domain("B\u{dc}RO.example"), Key::domain("b\u{fc}ro.example"));
        assert_ne!(Key::address("x.example"), Key::domain("x.example"));
    }

    #[test]
    fn clients_are_known_by_their_networks() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let octets = super::super::note::Note::refused("s", ip("10.1.2.3"), Default::default());
        let octets = octets.finish();
        let mut found = Vec::new();
        keys(&Event::take(&mut octets.as_slice()).unwrap(), &mut found);
        for (text, length) in [("10.1.2.3", 32), ("10.1.2.200", 24), ("10.1.77.1", 16)] {
            assert!(found.contains(&Key::network(ip(text), length)), "{text}/{length}");
        }
        assert!(!found.contains(&Key::network(ip("10.1.3.3"), 24)));
        assert_ne!(Key::network(ip("::"), 0), Key::network(ip("0.0.0.0"), 0));
        assert_eq!(Key::network(ip("::ffff:10.1.2.3"), 32), Key::network(ip("10.1.2.3"), 32));
    }

    #[test]
    fn subjects_are_known_by_their_pieces() {
        let note = super::super::note::Note::new("received", "s", Default::default());
        let octets =
            note.text(super::super::event::Text::Subject, "Rechnung \u{dc}ber 2291").finish();
        let mut found = Vec::new();
        keys(&Event::take(&mut octets.as_slice()).unwrap(), &mut found);
        let has = |text: &str| Key::pieces(text).all(|key| found.contains(&key));
        assert!(has("rechnung \u{fc}ber 2291") && has("ung \u{fc}") && has("abc"));
        assert!(!has("2292") && !has("rechnungen"));
    }

    #[test]
    fn the_arithmetic_is_that_of_files_on_disk() {
        assert_eq!(Key::domain("x.example").0, 6_967_588_277_636_619_211);
    }
}
