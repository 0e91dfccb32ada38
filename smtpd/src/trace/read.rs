//! Reading blocks: heads and filters one after the other, events only where they may be wanted.
//!
//! Damage costs no more than the blocks that it touches, with one exception: where the first block's octet
//! that tells the form is another, the file counts as one of another version and is passed over whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use smtpd_core::trace::block::{Front, HEAD_OCTETS, Head, is_of_another_form, next_magic};
use smtpd_core::trace::want::Want;

/// What is read at once while heads are looked at: a head and its filter, or several small blocks.
const WINDOW: usize = 8 << 10;

/// What a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks whose heads were looked at.
    pub looked_at: u64,
    /// Blocks whose events were not read, because what was wanted could not be there.
    pub passed_over: u64,
    /// Blocks, or gaps between them, that could not be read.
    pub damaged: u64,
}

/// Where a block is in its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) head: Head,
}

/// A file of the record, up to a length.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    length: u64,
    /// Octets of the file, and where they begin.
    window: Vec<u8>,
    window_at: u64,
}

impl Reader {
    pub(super) fn new(file: File, length: u64) -> Self {
        Self { file, length, window: Vec::new(), window_at: 0 }
    }

    /// The octets at a place, as many as wanted unless the file ends before.
    fn octets(&mut self, at: u64, wanted: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let wanted = wanted.min(left);
        let offset = at.checked_sub(self.window_at).and_then(|offset| usize::try_from(offset).ok());
        let offset = match offset {
            Some(offset) if offset + wanted <= self.window.len() => offset,
            _ => {
                self.window.resize(wanted.max(WINDOW).min(left), 0);
                self.file.read_exact_at(&mut self.window, at)?;
                self.window_at = at;
                0
            }
        };
        Ok(self.window.get(offset..).unwrap_or_default())
    }

    /// Hands every block with a good head to `visit`, with its filter, until that says enough.
    pub(super) fn each(
        &mut self,
        damaged: &mut u64,
        mut visit: impl FnMut(Place, &[u8]) -> bool,
    ) -> io::Result<()> {
        let (mut at, mut wanted) = (0, HEAD_OCTETS);
        while at < self.length {
            let length = self.length;
            let octets = self.octets(at, wanted)?;
            if at == 0 && is_of_another_form(octets) {
                // Another version wrote it; it goes when it is old.
                return Ok(());
            }
            let fits = |octets: usize| at + octets as u64 <= length;
            match Head::read(octets) {
                Front::Block(head) if fits(head.octets()) => {
                    let filter = octets.get(HEAD_OCTETS..HEAD_OCTETS + head.filter);
                    if !visit(Place { at, head }, filter.unwrap_or_default()) {
                        return Ok(());
                    }
                    (at, wanted) = (at + head.octets() as u64, HEAD_OCTETS);
                }
                Front::Short(more) if fits(more) => wanted = more,
                Front::Block(_) | Front::Short(_) | Front::Broken => {
                    let Some(next) = self.next_block(at)? else {
                        // The end was torn by a crash; nobody misses more than was not written.
                        return Ok(());
                    };
                    *damaged += 1;
                    (at, wanted) = (next, HEAD_OCTETS);
                }
            }
        }
        Ok(())
    }

    /// Where the next magic stands behind a place.
    fn next_block(&mut self, mut at: u64) -> io::Result<Option<u64>> {
        while at < self.length {
            let octets = self.octets(at, 8 * WINDOW)?;
            if let Some(place) = next_magic(octets) {
                return Ok(Some(at + place as u64));
            }
            // A magic may lie across the end of what was read.
            at += (octets.len().saturating_sub(4) as u64).max(1);
        }
        Ok(None)
    }

    /// The events of a block; nothing if they are damaged.
    pub(super) fn events(&self, place: &Place) -> Option<Vec<u8>> {
        let mut packed = vec![0; place.head.packed];
        let at = place.at + (HEAD_OCTETS + place.head.filter) as u64;
        self.file.read_exact_at(&mut packed, at).ok()?;
        place.head.unpack(&packed)
    }
}

/// The places of blocks that may have what is wanted, in the order of the file.
pub(super) fn places(reader: &mut Reader, want: &Want, counts: &mut Counts) -> Vec<Place> {
    let mut found = Vec::new();
    let mut damaged = 0;
    let read = reader.each(&mut damaged, |place, filter| {
        counts.looked_at += 1;
        if want.may_be_in(&place.head, filter) {
            found.push(place);
        } else {
            counts.passed_over += 1;
        }
        true
    });
    // A file that cannot be read further has told what it could.
    counts.damaged += damaged + u64::from(read.is_err());
    found
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};
    use smtpd_core::trace::block::{Builder, MAGIC};
    use smtpd_core::trace::note::Note;

    use super::*;

    const BLOCKS: usize = 20;
    /// Where a file tells its form.
    const FORM_AT: usize = MAGIC.len() - 1;

    /// Small blocks behind one another, and where each ends.
    fn blocks() -> (Vec<u8>, Vec<usize>) {
        let (mut octets, mut ends) = (Vec::new(), Vec::new());
        for number in 0..BLOCKS as u64 {
            let mut builder = Builder::default();
            let at = mailroot_common::units::Timestamp::from_millis(number);
            let note = Note::new("held", "default", at);
            let note = note.id(mailroot_common::id::QueueId::from_u64(number)).finish();
            assert!(builder.take(&mut note.as_slice()));
            octets.extend(builder.seal());
            ends.push(octets.len());
        }
        (octets, ends)
    }

    fn read(octets: &[u8]) -> (usize, Counts) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(octets).unwrap();
        let mut counts = Counts::default();
        let mut reader = Reader::new(file, octets.len() as u64);
        let found = places(&mut reader, &Want::default(), &mut counts);
        (found.iter().filter(|place| reader.events(place).is_some()).count(), counts)
    }

    #[test]
    fn a_file_of_another_form_is_passed_over_and_is_no_damage() {
        let (mut octets, _) = blocks();
        octets[FORM_AT] = b'T';
        assert_eq!(read(&octets), (0, Counts::default()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn damage_that_leaves_the_form_alone_costs_no_more_than_the_blocks_that_it_touches(
            places in proptest::collection::vec((any::<u16>(), 1_u8..), 0..4),
        ) {
            let (mut octets, _) = blocks();
            for (place, flip) in &places {
                let place = usize::from(*place) % octets.len();
                let place = if place == FORM_AT { 0 } else { place };
                octets[place] ^= flip;
            }
            let (good, _) = read(&octets);
            prop_assert!(good + places.len() >= BLOCKS, "{good} of {BLOCKS}: {places:?}");
        }

        #[test]
        fn a_file_cut_anywhere_gives_its_whole_blocks(cut in any::<u16>()) {
            let (octets, ends) = blocks();
            let length = usize::from(cut) % octets.len();
            let (good, counts) = read(&octets[..length]);
            prop_assert!(good == ends.iter().filter(|end| **end <= length).count());
            prop_assert!(counts.damaged == 0, "what a crash tears is not damage");
        }
    }
}
