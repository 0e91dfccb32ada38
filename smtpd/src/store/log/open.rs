//! Opens a store: takes its lock, looks at every header, finds where the log ended, and begins a
//! new segment. Old mail is read afterwards, in the background ([`super::recover`]).

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use smtpd_core::route::table::Table;
use tokio::sync::{Notify, watch};

use super::committer::{Committer, Previous};
use super::index::Index;
use super::keeper::Keeper;
use super::scan::{Tail, Window, find_tail};
use super::segment::{Found, SegmentFile, SegmentHeader};
use super::segments::Use;
use super::sending::Sending;
use super::{Log, Settings, large};
use crate::clock::Clock;
use crate::disk::{Disk, File, Open};
use crate::observe::{Counters, Level, Log as Journal};

const LOCK: &str = "lock";
/// Where what is damaged is kept for people.
pub(super) const DAMAGED: &str = "damaged";

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by {holder}: stop that one first", .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who has it, as it wrote of itself.
        holder: String,
    },
    /// The disk refused.
    #[error("cannot open the queue in {}: {source}", .path.display())]
    Disk {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The size of a segment makes no sense.
    #[error("segments of {0} octets are too small, 65536 is the least")]
    SegmentSize(u64),
}

/// What a store works with besides its disk.
#[derive(Debug)]
pub struct Surroundings {
    /// Where mail goes.
    pub table: Arc<Table>,
    /// Notified when mail may have become due.
    pub work: Arc<Notify>,
    /// The time.
    pub clock: Clock,
    /// Where it says what happened to it.
    pub journal: Journal,
    /// Where it counts what it did.
    pub counters: Arc<Counters>,
}

/// A segment that was written before the start.
struct Old {
    file: Arc<SegmentFile>,
    header: SegmentHeader,
}

/// What the directory holds.
#[derive(Default)]
struct Inventory {
    old: Vec<Old>,
    spare: Vec<Old>,
    unreadable: u64,
    large_highest: u64,
}

impl Log {
    /// Opens the store in a directory, which is made if it does not exist. Nothing runs in the background until the store is started.
    pub(in super::super) fn open(
        disk: Disk,
        settings: Settings,
        around: Surroundings,
    ) -> Result<Arc<Self>, OpenError> {
        if settings.segment_size < Settings::SEGMENT_SIZE_MIN {
            return Err(OpenError::SegmentSize(settings.segment_size));
        }
        let directory = settings.directory.clone();
        let trouble = |source| OpenError::Disk { path: directory.clone(), source };
        disk.create_dir_all(&directory).map_err(trouble)?;
        let lock = lock(&disk, &settings)?;
        let inventory = inventory(&disk, &settings, &around.journal).map_err(trouble)?;
        let log = Self::assemble(disk, settings, around, lock, inventory);
        let log = log.map_err(trouble)?;
        // The header of a new segment says how the last one ended, before anything else happens.
        let opened = log.next_segment(&mut log.committer(), false);
        opened.map_err(|error| trouble(io::Error::other(error)))?;
        Ok(Arc::new(log))
    }

    fn assemble(
        disk: Disk,
        settings: Settings,
        around: Surroundings,
        lock: File,
        inventory: Inventory,
    ) -> io::Result<Self> {
        let Surroundings { table, work, clock, journal, counters } = around;
        let Inventory { mut old, spare, unreadable, large_highest } = inventory;
        old.sort_unstable_by_key(|segment| segment.header.generation);
        let tail = newest_tail(&old, &journal)?;
        let mut ends: HashMap<u64, u64> = HashMap::new();
        for Old { header, .. } in &old {
            ends.insert(header.previous, header.previous_end);
        }
        let mut index = Index::new(Arc::clone(&table), clock.clone());
        index.damaged = unreadable;
        let mut previous = Previous::default();
        let mut last_batch = 0;
        let mut generation = 0;
        for Old { file, header } in &old {
            let generation = header.generation;
            index.segments.add(Arc::clone(file), Use::Unread, generation);
            let segment = index.segments.get_mut(file.number).expect("it was added just now");
            segment.end = ends.get(&generation).copied();
            segment.guards = (header.void_batch != 0).then_some(header.previous);
            index.highest = index.highest.max(header.highest_id);
            last_batch = header.last_batch.max(last_batch);
        }
        if let (Some(Old { file, header }), Some(tail)) = (old.last(), tail) {
            let segment = index.segments.get_mut(file.number).expect("it was added just now");
            segment.end = Some(tail.end);
            index.highest = index.highest.max(tail.highest);
            last_batch = tail.last_batch.max(tail.void_batch);
            let (end, void_batch) = (tail.end, tail.void_batch);
            previous = Previous { generation: header.generation, end, void_batch };
        }
        let generations = old.iter().chain(&spare).map(|it| it.header.generation);
        generation = generations.fold(generation, u64::max);
        for Old { file, header } in spare {
            index.segments.add(file, Use::Spare, header.generation);
        }
        let uses = (generation >> 32) + 1;
        let first_large = large::first_number(uses, large_highest);
        let free = disk.space(&settings.directory)?.free;
        let (sending, marks) = Sending::open(&disk, &settings.directory)?;
        Ok(Self {
            sending,
            large: AtomicU64::new(first_large),
            keeper: Mutex::new(Keeper::new(first_large - 1, marks)),
            floor: AtomicU64::new(settings.min_free.as_u64()),
            settings,
            disk,
            journal,
            counters,
            work,
            clock,
            table: ArcSwap::new(table),
            gather: super::Gather::default(),
            committer: Mutex::new(Committer::new(previous, last_batch)),
            index: Mutex::new(index),
            recovered: watch::Sender::new(false),
            uses: AtomicU64::new(uses),
            free: AtomicU64::new(free.as_u64()),
            trouble: Mutex::default(),
            bell: super::Bell::default(),
            threads: Mutex::new(Vec::new()),
            lock: Mutex::new(Some(lock)),
        })
    }
}

/// Takes the lock, or says who has it.
fn lock(disk: &Disk, settings: &Settings) -> Result<File, OpenError> {
    let trouble = |source| OpenError::Disk { path: settings.directory.clone(), source };
    let path = settings.directory.join(LOCK);
    let file = disk.open(&path, Open::Create).map_err(trouble)?;
    if !file.try_lock().map_err(trouble)? {
        let holder = disk.read(&path, 1000).unwrap_or_default();
        let holder = String::from_utf8_lossy(&holder);
        let holder = match holder.trim() {
            "" => "another process".to_owned(),
            text => text.to_owned(),
        };
        return Err(OpenError::Locked { path: settings.directory.clone(), holder });
    }
    let holder = format!("process {} ({})\n", std::process::id(), settings.holder);
    file.set_len(0).and_then(|()| file.write_all_at(holder.as_bytes(), 0)).map_err(trouble)?;
    Ok(file)
}

/// Opens every segment; puts aside what is none.
///
/// What was taken from the directory between two lives cannot be known in full. A segment that was
/// cut short still has its header, which says how long it was; one that was cut to nothing or
/// overwritten with zeros looks like one that was being made, which is no damage. If one with a
/// higher number is in use, which is rarely made before this one was finished, it is told. A
/// segment that was deleted is not missed: each header names the generation before its own, but
/// that one may have been recycled since, and nothing lists what there should be. The names of a
/// directory are for the file system to keep, and for whoever backs it up.
fn inventory(disk: &Disk, settings: &Settings, journal: &Journal) -> io::Result<Inventory> {
    let directory = settings.directory.as_path();
    let mut found = Inventory::default();
    let mut changed = false;
    let mut blank = Vec::new();
    for name in disk.list(directory)? {
        let Some(name) = name.to_str() else { continue };
        if let Some(number) = large::number_of(name) {
            found.large_highest = found.large_highest.max(number);
        }
        let Some(number) = SegmentFile::number_of(name) else { continue };
        match SegmentFile::open(disk, directory, number)? {
            Found::Segment(file, header) if header.in_use => {
                if file.cut > 0 {
                    found.unreadable += 1;
                    let line = journal.line(Level::Error, "segment_cut");
                    line.word("file", file.path.display()).word("octets", file.cut).send();
                }
                found.old.push(Old { file, header });
            }
            Found::Segment(file, header) if file.len == settings.segment_size => {
                found.spare.push(Old { file, header });
            }
            // One of another size that nothing is in.
            Found::Segment(..) => {
                disk.unlink(&directory.join(name))?;
                changed = true;
            }
            Found::Unfinished => {
                blank.push((number, directory.join(name)));
                changed = true;
            }
            Found::Unreadable(path) => {
                let aside = directory.join(DAMAGED);
                disk.create_dir_all(&aside)?;
                disk.rename(&path, &aside.join(name))?;
                disk.sync_dir(&aside)?;
                found.unreadable += 1;
                changed = true;
                let line = journal.line(Level::Error, "segment_unreadable");
                line.word("file", path.display()).word("kept_in", aside.display()).send();
            }
        }
    }
    let newest = found.old.iter().map(|segment| segment.file.number).max();
    for (number, path) in blank {
        if newest.is_some_and(|newest| number < newest) {
            let line = journal.line(Level::Warn, "segment_emptied");
            line.word("file", path.display()).send();
        }
        disk.unlink(&path)?;
    }
    if changed {
        disk.sync_dir(directory)?;
    }
    Ok(found)
}

/// Where the newest segment ends. It is synced first: what a process that died had written but
/// not synced must be as durable as the rest before anything is built on it.
fn newest_tail(old: &[Old], journal: &Journal) -> io::Result<Option<Tail>> {
    let Some(Old { file, header }) = old.last() else { return Ok(None) };
    file.file.sync_data()?;
    let mut window = Window::new(file);
    let tail = find_tail(&mut window, header.generation, header.last_batch)?;
    if tail.void_batch != 0 {
        let line = journal.line(Level::Warn, "torn_batch_dropped");
        line.word("batch", tail.void_batch).word("file", file.path.display()).send();
    }
    Ok(Some(tail))
}
