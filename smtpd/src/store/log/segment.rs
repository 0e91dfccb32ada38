//! Segments: files of one size that are filled with zeros once, written front to back, recycled.
//!
//! The first 4096 octets of a segment are its header, in two copies so that a sector gone bad does
//! not take a segment of mail with it. The header says what use of the file this is (its
//! *generation*, a rising number and a random one; every write of a header takes a new one) and where the segment before it ended, so
//! that a tail torn by loss of power, or voided by a failed sync, stays void for ever.
//!
//! Because the file has its full length and its blocks before it is used, a sync of a batch writes
//! data only, no metadata of the file system.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailroot_common::id::QueueId;

use super::record::{BLOCK, PAGE, read_u32, read_u64};
use crate::disk::{Disk, File, Open};

const MAGIC: [u8; 8] = *b"MRSEGM\x00\x01";
const FORMAT: u32 = 1;
const COPY_AT: usize = 2048;
const HEADER: usize = 72;
/// Where the header says how long the file is, in units of [`UNIT`]; no part of its checksum, because
/// headers of an earlier form have zero there.
const LEN_AT: usize = HEADER - 4;
const UNIT: u64 = 512;
const ZEROS: usize = 1 << 20;
const PREFIX: &str = "segment-";

/// Where records of a segment begin.
pub(super) const FIRST: u64 = BLOCK;

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Whether records of this generation may follow.
    pub(super) in_use: bool,
    /// Which use of the file this is; unique in the store, rising, not to be guessed.
    pub(super) generation: u64,
    /// At least as high as any id given before.
    pub(super) highest_id: QueueId,
    /// The generation of the segment that was written before; 0 if there was none.
    pub(super) previous: u64,
    /// Where that segment's sound batches end.
    pub(super) previous_end: u64,
    /// The number of the batch that is void there; 0 if it ended well.
    pub(super) void_batch: u64,
    /// The number of the last batch before this segment.
    pub(super) last_batch: u64,
}

impl SegmentHeader {
    fn write(&self, len: u64) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        page[0..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        page[12..16].copy_from_slice(&u32::from(self.in_use).to_le_bytes());
        for (place, number) in [
            self.generation,
            self.highest_id.as_u64(),
            self.previous,
            self.previous_end,
            self.void_batch,
            self.last_batch,
        ]
        .into_iter()
        .enumerate()
        {
            page[16 + place * 8..24 + place * 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&page[..HEADER - 8]);
        page[HEADER - 8..HEADER - 4].copy_from_slice(&crc.to_le_bytes());
        // A segment has at most 1 GiB.
        let units = u32::try_from(len / UNIT).unwrap_or(0);
        page[LEN_AT..HEADER].copy_from_slice(&units.to_le_bytes());
        page.copy_within(..HEADER, COPY_AT);
        page
    }

    fn read(page: &[u8]) -> Option<Self> {
        let copies = [Self::read_copy(page), Self::read_copy(page.get(COPY_AT..)?)];
        copies.into_iter().flatten().max_by_key(|header| header.generation)
    }

    /// How long the file was when its header was written. No checksum covers it, so copies that differ
    /// say nothing. 0 if it is not known.
    fn stated_len(page: &[u8]) -> u64 {
        let copies = [page, page.get(COPY_AT..).unwrap_or_default()];
        let stated = copies.map(|copy| Self::read_copy(copy).map(|_| read_u32(copy, LEN_AT)));
        match stated {
            [Some(first), Some(second)] if first != second => 0,
            [Some(one), _] | [None, Some(one)] => u64::from(one) * UNIT,
            [None, None] => 0,
        }
    }

    fn read_copy(page: &[u8]) -> Option<Self> {
        let page = page.get(..HEADER)?;
        let sound = page[0..8] == MAGIC
            && read_u32(page, 8) == FORMAT
            && read_u32(page, HEADER - 8) == crc32c::crc32c(&page[..HEADER - 8]);
        sound.then(|| Self {
            in_use: read_u32(page, 12) == 1,
            generation: read_u64(page, 16),
            highest_id: QueueId::from_u64(read_u64(page, 24)),
            previous: read_u64(page, 32),
            previous_end: read_u64(page, 40),
            void_batch: read_u64(page, 48),
            last_batch: read_u64(page, 56),
        })
    }
}

/// An open segment file. As long as somebody holds one, the segment is not recycled.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Octets, all of them on the disk already.
    pub(super) len: u64,
    /// Octets that were cut off since its header was written.
    pub(super) cut: u64,
}

/// What an existing segment file turned out to be.
#[derive(Debug)]
pub(super) enum Found {
    /// A segment with its header.
    Segment(Arc<SegmentFile>, SegmentHeader),
    /// A file that was being prepared when the process ended: nothing was ever in it.
    Unfinished,
    /// A file whose header cannot be read.
    Unreadable(PathBuf),
}

impl SegmentFile {
    fn path(directory: &Path, number: u32) -> PathBuf {
        directory.join(format!("{PREFIX}{number:06}"))
    }

    /// The number in a segment's file name; nothing for other files.
    pub(super) fn number_of(name: &str) -> Option<u32> {
        name.strip_prefix(PREFIX)?.parse().ok()
    }

    /// Makes a file of `size` octets of zeros that a sync has brought to the disk, name and all.
    pub(super) fn create(
        disk: &Disk,
        directory: &Path,
        number: u32,
        size: u64,
    ) -> io::Result<Arc<Self>> {
        let path = Self::path(directory, number);
        let made = Self::fill(disk, &path, size);
        match made {
            Ok(file) => {
                disk.sync_dir(directory)?;
                Ok(Arc::new(Self { number, path, file, len: size, cut: 0 }))
            }
            Err(error) => {
                // What is left of it would only take room; the next start finds it otherwise.
                disk.unlink(&path).unwrap_or_default();
                Err(error)
            }
        }
    }

    fn fill(disk: &Disk, path: &Path, size: u64) -> io::Result<File> {
        let file = disk.open(path, Open::CreateNew)?;
        let zeros = vec![0; ZEROS];
        let mut at = 0;
        while at < size {
            let count = (size - at).min(ZEROS as u64);
            file.write_all_at(&zeros[..usize::try_from(count).unwrap_or(ZEROS)], at)?;
            // Piece by piece, so that no batch has to wait behind a whole segment of zeros.
            file.sync_all()?;
            at += count;
        }
        Ok(file)
    }

    /// Opens an existing segment and looks at its header.
    pub(super) fn open(disk: &Disk, directory: &Path, number: u32) -> io::Result<Found> {
        let path = Self::path(directory, number);
        let file = disk.open(&path, Open::Write)?;
        let mut page = [0; PAGE];
        let len = file.len()?;
        let begin = usize::try_from(len).map_or(PAGE, |len| len.min(PAGE));
        file.read_exact_at(&mut page[..begin], 0)?;
        Ok(match SegmentHeader::read(&page) {
            Some(header) => {
                let cut = SegmentHeader::stated_len(&page).saturating_sub(len);
                Found::Segment(Arc::new(Self { number, path, file, len, cut }), header)
            }
            None if is_blank(&file, len)? => Found::Unfinished,
            None => Found::Unreadable(path),
        })
    }

    /// Writes a header and brings it to the disk. Every record of an earlier generation is void
    /// once this returns `Ok`; after an error it is unknown which header stands.
    pub(super) fn write_header(&self, header: &SegmentHeader) -> io::Result<()> {
        self.file.write_all_at(&header.write(self.len), 0)?;
        self.file.sync_data()
    }
}

/// Whether a file holds nothing but zeros. Looks at all of it: mail may stand behind a header that
/// was wiped.
fn is_blank(file: &File, len: u64) -> io::Result<bool> {
    let mut octets = vec![0; ZEROS];
    let mut at = 0;
    while at < len {
        let count = usize::try_from(len - at).map_or(ZEROS, |rest| rest.min(ZEROS));
        file.read_exact_at(&mut octets[..count], at)?;
        if octets[..count].iter().any(|octet| *octet != 0) {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Modelled;

    fn header(generation: u64) -> SegmentHeader {
        SegmentHeader {
            in_use: true,
            generation,
            highest_id: QueueId::from_u64(99),
            previous: generation - 1,
            previous_end: 8192,
            void_batch: 0,
            last_batch: 12,
        }
    }

    #[test]
    fn a_header_survives_the_loss_of_one_copy_and_knows_the_length() {
        let model = Arc::new(Modelled::new(1));
        let disk = Disk::Modelled(Arc::clone(&model));
        let home = Path::new("/q");
        disk.create_dir_all(home).unwrap();
        let segment = SegmentFile::create(&disk, home, 3, 65536).unwrap();
        assert!(matches!(SegmentFile::open(&disk, home, 3).unwrap(), Found::Unfinished));
        segment.write_header(&header(5)).unwrap();
        model.damage(&segment.path, 0, |octets| octets[..512].fill(0xff)).unwrap();
        let Found::Segment(_, found) = SegmentFile::open(&disk, home, 3).unwrap() else {
            unreachable!("the second copy is sound")
        };
        assert_eq!(found, header(5));
        segment.file.set_len(20_000).unwrap();
        let Found::Segment(cut, _) = SegmentFile::open(&disk, home, 3).unwrap() else {
            unreachable!("the second copy is sound")
        };
        assert_eq!(cut.cut, 65_536 - 20_000);
        model.damage(&segment.path, 2048, |octets| octets[0] = 0).unwrap();
        assert!(matches!(SegmentFile::open(&disk, home, 3).unwrap(), Found::Unreadable(_)));
    }

    #[test]
    fn a_header_that_was_wiped_does_not_make_a_segment_an_empty_one() {
        let model = Arc::new(Modelled::new(1));
        let disk = Disk::Modelled(Arc::clone(&model));
        let home = Path::new("/q");
        disk.create_dir_all(home).unwrap();
        let segment = SegmentFile::create(&disk, home, 3, 65536).unwrap();
        model.damage(&segment.path, 0, |octets| octets[65535] = 1).unwrap();
        assert!(matches!(SegmentFile::open(&disk, home, 3).unwrap(), Found::Unreadable(_)));
    }

    #[test]
    fn file_names_carry_the_number() {
        assert_eq!(SegmentFile::number_of("segment-000042"), Some(42));
        assert_eq!(SegmentFile::number_of("segment-"), None);
        assert_eq!(SegmentFile::number_of("lock"), None);
    }
}
