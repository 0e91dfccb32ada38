//! The target itself, in the place of the room whose files it reads.

#[path = "../../../../smtpd/src/store/log/record.rs"]
mod record;
#[path = "../../../../smtpd/src/store/log/scan.rs"]
mod scan;
#[path = "../../../../smtpd/src/store/log/segment.rs"]
mod segment;

use std::path::Path;
use std::sync::Arc;

use mailroot_common::id::QueueId;
use mailroot_fuzz::{Choices, split};

use self::record::{BATCH_END, BLOCK, Batch, HEADER, Header, Kind, Label, Part, is_whole};
use self::scan::{Sound, Step, Walk, Window, find_tail};
use self::segment::{FIRST, Found, SegmentFile, SegmentHeader};
use crate::disk::{Disk, Modelled};

const GENERATION: u64 = 7;
const SEGMENT: u64 = 64 << 10;

/// A record as it was handed in, and where it came to lie.
struct Written {
    at: u64,
    batch: u64,
    kind: Kind,
    id: QueueId,
    meta: Vec<u8>,
    body: Vec<u8>,
}

pub(crate) fn run(input: &[u8]) {
    let (octets, mut choices) = split(input);
    let disk = Disk::Modelled(Arc::new(Modelled::new(1)));
    let home = Path::new("/q");
    disk.create_dir_all(home).expect("a disk that works");
    let segment = SegmentFile::create(&disk, home, 3, SEGMENT).expect("a disk that works");
    let header = SegmentHeader {
        in_use: true,
        generation: GENERATION,
        highest_id: QueueId::from_u64(9),
        previous: 6,
        previous_end: FIRST,
        void_batch: 0,
        last_batch: 4,
    };
    segment.write_header(&header).expect("a disk that works");
    let (written, end) = fill(&segment, octets, &mut choices);
    let whole = read(&segment, Some(end));
    assert_eq!(whole.len(), written.len(), "all that was written is found");
    assert!(whole.iter().all(|(_, damage)| !damage));
    for (frame, record) in whole.iter().filter_map(|(frame, _)| *frame).zip(&written) {
        same(&segment, &frame, record);
    }
    let mut window = Window::new(&segment);
    let tail = find_tail(&mut window, GENERATION, 4).expect("a disk that works");
    let last = written.last().map_or(4, |record| record.batch);
    assert_eq!((tail.end, tail.last_batch, tail.void_batch), (end, last, 0));

    damage(&segment, octets, &mut choices, end);
    for limit in [None, Some(end)] {
        for frame in read(&segment, limit).iter().filter_map(|(frame, _)| *frame) {
            let record = written.iter().find(|record| record.at == frame.at);
            same(&segment, &frame, record.expect("a record where none was written"));
        }
    }
    let mut window = Window::new(&segment);
    let tail = find_tail(&mut window, GENERATION, 4).expect("a disk that works");
    assert!(tail.end >= FIRST && tail.end <= end, "the end lies within what was written");
    assert!(tail.last_batch <= last && tail.void_batch <= last);
    match SegmentFile::open(&disk, home, 3).expect("a disk that works") {
        Found::Segment(_, found) => assert_eq!(found, header, "another header"),
        Found::Unreadable(_) | Found::Unfinished => {}
    }
    raw(octets);
}

/// Writes batches of records made of the octets, as the committer does.
fn fill(segment: &SegmentFile, octets: &[u8], choices: &mut Choices<'_>) -> (Vec<Written>, u64) {
    let (mut out, mut at, mut number, mut rest) = (Vec::new(), FIRST, 4, octets);
    let mut batch = Batch::default();
    for _ in 0..1 + choices.below(4) {
        batch.clear();
        number += 1;
        let begin = out.len();
        for _ in 0..1 + choices.below(3) {
            let (meta, behind) = choices.piece(rest);
            let (body, behind) = choices.piece(behind);
            rest = behind;
            let (meta, body) = (&meta[..meta.len().min(4000)], &body[..body.len().min(4000)]);
            let kind = [Kind::Message, Kind::State, Kind::Removed][choices.below(3)];
            let id = QueueId::from_u64(choices.octet().into());
            let flags = choices.octet() & !record::DAMAGED;
            let label = Label { kind, flags, id, version: 1, size: body.len() as u64 };
            let (place, len) = batch.push(label, Part::new(meta), Part::new(body));
            assert_eq!(len, record::frame_len(meta.len() as u64, body.len() as u64));
            let (meta, body) = (meta.to_vec(), body.to_vec());
            out.push(Written { at: at + place, batch: number, kind, id, meta, body });
        }
        if at + batch.len() > SEGMENT {
            out.truncate(begin);
            break;
        }
        if choices.rarely(60) {
            batch.stamp(GENERATION + 1, number + 5);
        }
        let octets = batch.stamp(GENERATION, number);
        segment.file.write_all_at(octets, at).expect("a disk that works");
        at += batch.len();
    }
    (out, at)
}

/// Every frame and every stretch of damage a walk comes across.
fn read(segment: &SegmentFile, end: Option<u64>) -> Vec<(Option<Sound>, bool)> {
    let mut window = Window::new(segment);
    let mut walk = Walk::new(window.len(), GENERATION, end);
    let mut out = Vec::new();
    let mut last = 0;
    loop {
        match walk.next(&mut window).expect("a disk that works") {
            Step::Frame(frame) => {
                assert!(frame.at >= FIRST && frame.at >= last, "it goes forward");
                last = frame.at + 8;
                let meta = window.meta(&frame).expect("a disk that works");
                assert_eq!(meta.len(), frame.header.meta_len as usize);
                out.push((Some(frame), false));
            }
            Step::Damage { at, len } => {
                assert!(at >= FIRST && at + len <= SEGMENT.max(end.unwrap_or(0)));
                out.push((None, true));
            }
            Step::End => return out,
        }
        assert!(out.len() <= usize::try_from(SEGMENT).unwrap_or(0) / HEADER, "it ends");
    }
}

/// A frame that is believed is the one that was written, and so is its body if it is believed.
fn same(segment: &SegmentFile, frame: &Sound, record: &Written) {
    let header = &frame.header;
    assert_eq!((frame.at, header.batch, header.kind), (record.at, record.batch, record.kind));
    assert_eq!((header.id, header.generation), (record.id, GENERATION));
    let mut window = Window::new(segment);
    assert_eq!(window.meta(frame).expect("a disk that works"), record.meta);
    let mut body = vec![0; header.body_len as usize];
    let at = frame.at + header.body_at();
    segment.file.read_exact_at(&mut body, at).expect("a frame lies within its file");
    if header.body_matches(&body) {
        assert_eq!(body, record.body, "a damaged body is believed");
    }
}

/// Changes octets of the segment: a few, a torn sector, or a copy of another place.
fn damage(segment: &SegmentFile, octets: &[u8], choices: &mut Choices<'_>, end: u64) {
    for _ in 0..choices.below(4) {
        let spread = usize::try_from(end).unwrap_or(0);
        let at = (choices.below(256) * 256 + choices.below(256)) % spread;
        let with: Vec<u8> = match choices.below(4) {
            0 => vec![choices.octet()],
            1 => vec![0; 512],
            2 => octets.iter().copied().take(64).collect(),
            _ => {
                let mut copy = vec![0; 512.min(spread - at)];
                let from = u64::from(choices.octet()) * 8 % end;
                let _ = segment.file.read_at(&mut copy, from);
                copy
            }
        };
        let with = &with[..with.len().min(spread - at)];
        segment.file.write_all_at(with, at as u64).expect("a disk that works");
    }
    let mut page = vec![0; usize::try_from(BLOCK).unwrap_or(0)];
    segment.file.read_exact_at(&mut page, 0).expect("a disk that works");
}

/// Any octets as a header.
fn raw(octets: &[u8]) {
    if let Some(header) = Header::read(octets) {
        assert!(header.frame_len() >= HEADER as u64 && header.frame_len() % 8 == 0);
        let _ = (is_whole(octets, &header), header.body_matches(octets));
        let _ = header.flags & BATCH_END;
    }
}
