//! Files in memory that behave as badly as disks may, from a seed.
//!
//! While the power is on, reads see every write. When a test cuts the power, only what was synced
//! is sure: of the rest each sector of 512 octets is kept or lost by lot (a lost one keeps its old
//! content, which in a recycled file is a stale record), names made, changed or removed since the
//! last sync of their directory are kept or lost by lot, and every handle of the dead process
//! refuses to work. A test can have the n-th operation fail, the disk be full, or the power fail
//! in the middle of the n-th operation.
//!
//! A failed sync behaves as Linux does: part of the data may be on disk, the rest is forgotten,
//! and the next sync says yes without writing it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use mailroot_common::units::ByteSize;

use super::{Kind, Metadata, Open, Space, parent};

const SECTOR: usize = 512;

/// What goes wrong at an operation that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with this error; a write or a sync may have been done in part.
    Error(io::ErrorKind),
    /// The power fails: this operation and all after it fail until [`Modelled::power_on`].
    Cut,
}

/// A disk in memory.
#[derive(Debug)]
pub struct Modelled(Mutex<State>);

#[derive(Debug)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since the last sync of their directory, in order.
    renames: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    locks: HashSet<u64>,
    /// Counts power cuts; handles of an earlier one are dead.
    boot: u64,
    off: bool,
    /// Operations that changed something, so far.
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    capacity: u64,
    unreadable: bool,
    random: fastrand::Rng,
}

#[derive(Debug, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

/// One atomic change: a name goes, a name comes, or both (a rename).
#[derive(Debug)]
struct NameChange {
    removed: Option<PathBuf>,
    added: Option<(PathBuf, u64)>,
}

impl NameChange {
    fn touches(&self, directory: &Path) -> bool {
        let added = self.added.as_ref().map(|(path, _)| path);
        [self.removed.as_ref(), added].into_iter().flatten().any(|path| parent(path) == directory)
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        if let Some(path) = &self.removed {
            names.remove(path);
        }
        if let Some((path, inode)) = &self.added {
            names.insert(path.clone(), *inode);
        }
    }
}

/// An open file of a modelled disk.
#[derive(Debug)]
pub struct Handle {
    disk: Arc<Modelled>,
    inode: u64,
    boot: u64,
    locked: std::sync::atomic::AtomicBool,
}

impl Inode {
    fn resize(&mut self, len: usize) {
        let (from, to) = (self.content.len().min(len), self.content.len().max(len));
        self.content.resize(len, 0);
        self.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
    }

    fn write(&mut self, octets: &[u8], at: usize) {
        let end = at + octets.len();
        if end > self.content.len() {
            self.resize(end);
        }
        self.content[at..end].copy_from_slice(octets);
        self.dirty.extend(at / SECTOR..end.div_ceil(SECTOR));
    }

    /// Brings some of the changed sectors to the disk and forgets which were changed.
    fn settle(&mut self, mut kept: impl FnMut() -> bool) {
        let whole = kept();
        let mut len = if whole { self.content.len() } else { self.durable.len() };
        let sectors: Vec<usize> =
            std::mem::take(&mut self.dirty).into_iter().filter(|_| kept()).collect();
        for sector in sectors {
            let begin = sector * SECTOR;
            let end = self.content.len().min(begin + SECTOR);
            if begin < end {
                if self.durable.len() < end {
                    self.durable.resize(end, 0);
                }
                self.durable[begin..end].copy_from_slice(&self.content[begin..end]);
                len = len.max(end);
            }
        }
        self.durable.resize(len, 0);
    }
}

impl State {
    /// Counts an operation that changes something, and lets it fail if that is its lot.
    fn operate(&mut self) -> io::Result<()> {
        self.alive()?;
        self.operations += 1;
        match self.faults.remove(&self.operations) {
            None => Ok(()),
            Some(Fault::Error(kind)) => Err(kind.into()),
            Some(Fault::Cut) => {
                self.off = true;
                Err(io::Error::other("the power failed"))
            }
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, removed: Option<PathBuf>, added: Option<(PathBuf, u64)>) {
        let change = NameChange { removed, added };
        change.apply(&mut self.names);
        self.renames.push(change);
    }

    fn used(&self) -> u64 {
        self.inodes.values().map(|inode| inode.content.len() as u64).sum()
    }

    fn forget_unnamed(&mut self) {
        let named: HashSet<u64> =
            self.names.values().chain(self.durable_names.values()).copied().collect();
        let renamed: HashSet<u64> =
            self.renames.iter().filter_map(|change| change.added.as_ref()).map(|a| a.1).collect();
        self.inodes.retain(|inode, _| named.contains(inode) || renamed.contains(inode));
    }
}

impl Modelled {
    /// An empty disk whose lots are drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(State {
            inodes: BTreeMap::new(),
            next_inode: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renames: Vec::new(),
            directories: BTreeSet::new(),
            locks: HashSet::new(),
            boot: 0,
            off: false,
            operations: 0,
            faults: BTreeMap::new(),
            capacity: u64::MAX,
            unreadable: false,
            random: fastrand::Rng::with_seed(seed),
        }))
    }

    /// How many operations changed something so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Has the operation that is `after` changing operations away go wrong; 1 is the next one.
    pub fn plan(&self, after: u64, fault: Fault) {
        let mut state = self.lock();
        let at = state.operations + after;
        state.faults.insert(at, fault);
    }

    /// Takes back every planned fault.
    pub fn plan_nothing(&self) {
        self.lock().faults.clear();
    }

    /// Limits the octets of all files together; writes beyond fail as on a full disk.
    pub fn set_capacity(&self, octets: u64) {
        self.lock().capacity = octets;
    }

    /// Lets every reading of an open file fail, or work again.
    pub fn refuse_reads(&self, refuse: bool) {
        self.lock().unreadable = refuse;
    }

    /// Cuts the power: nothing works until [`Modelled::power_on`].
    pub fn cut(&self) {
        self.lock().off = true;
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().off
    }

    /// Starts the machine again after a cut: what was not synced is kept or lost by lot.
    pub fn power_on(&self) {
        let mut state = self.lock();
        let mut random = fastrand::Rng::with_seed(state.random.u64(..));
        let chance = [0.0, 0.5, 0.9, 1.0][random.usize(..4)];
        for change in std::mem::take(&mut state.renames) {
            if random.f64() < chance {
                change.apply(&mut state.durable_names);
            }
        }
        for inode in state.inodes.values_mut() {
            let chance = [0.0, 0.5, 0.9, 1.0][random.usize(..4)];
            inode.settle(|| random.f64() < chance);
            inode.content = inode.durable.clone();
        }
        state.names = state.durable_names.clone();
        state.forget_unnamed();
        state.locks.clear();
        state.faults.clear();
        state.off = false;
        state.boot += 1;
    }

    /// Ends every handle as the death of a process would, without loss of what was written.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.locks.clear();
        state.boot += 1;
    }

    /// Changes octets on the disk behind everybody's back.
    ///
    /// # Errors
    ///
    /// If there is no such file.
    pub fn damage(&self, path: &Path, at: u64, with: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let mut state = self.lock();
        let inode = state.find(path)?;
        let inode = state.inodes.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        let at = usize::try_from(at).map_err(io::Error::other)?;
        with(&mut inode.content[at..]);
        inode.durable.clone_from(&inode.content);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(self: &Arc<Self>, path: &Path, how: Open) -> io::Result<Handle> {
        let mut state = self.lock();
        state.alive()?;
        let existing = state.names.get(path).copied();
        let inode = match (existing, how) {
            (Some(_), Open::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, Open::CreateNew | Open::Create) => {
                state.operate()?;
                if !state.directories.contains(parent(path)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let inode = state.next_inode;
                state.next_inode += 1;
                state.inodes.insert(inode, Inode::default());
                state.change_name(None, Some((path.to_owned(), inode)));
                inode
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        let boot = state.boot;
        drop(state);
        Ok(Handle { disk: Arc::clone(self), inode, boot, locked: false.into() })
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        let inode = state.find(from)?;
        state.change_name(Some(from.to_owned()), Some((to.to_owned(), inode)));
        Ok(())
    }

    pub(super) fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.find(path)?;
        state.operate()?;
        state.change_name(Some(path.to_owned()), None);
        Ok(())
    }

    /// Nobody reads the mode of a modelled file; the call can fail all the same.
    pub(super) fn set_mode(&self, path: &Path, _mode: u32) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        state.find(path).map(drop)
    }

    pub(super) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        let changes = std::mem::take(&mut state.renames);
        let (synced, rest) = changes.into_iter().partition(|change| change.touches(path));
        state.renames = rest;
        let synced: Vec<NameChange> = synced;
        synced.iter().for_each(|change| change.apply(&mut state.durable_names));
        state.forget_unnamed();
        Ok(())
    }

    pub(super) fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        // Directories are made before anything is promised; modelling their loss finds nothing.
        state.directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let state = self.lock();
        state.alive()?;
        if !state.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let files = state.names.keys().chain(&state.directories);
        Ok(files
            .filter(|name| parent(name) == path && *name != path)
            .filter_map(|name| name.file_name().map(OsString::from))
            .collect())
    }

    pub(super) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let state = self.lock();
        state.alive()?;
        if state.directories.contains(path) {
            return Ok(describe(Kind::Directory, 0));
        }
        let inode = state.find(path)?;
        let len = state.inodes.get(&inode).map_or(0, |inode| inode.content.len() as u64);
        Ok(describe(Kind::File, len))
    }

    #[expect(clippy::unnecessary_wraps, reason = "the other arm asks the system")]
    pub(super) fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = self.lock();
        let total = state.capacity;
        let free = total.saturating_sub(state.used());
        let (free, total) = (ByteSize::bytes(free), ByteSize::bytes(total));
        Ok(Space { free, total, files_free: None })
    }
}

fn describe(kind: Kind, len: u64) -> Metadata {
    Metadata { kind, len, modified: SystemTime::UNIX_EPOCH, links: 1, owner: 0, mode: 0o600 }
}

impl Handle {
    /// The state of the disk, if the process that opened this handle still lives.
    fn lock(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        state.alive()?;
        if state.boot != self.boot {
            return Err(io::Error::other("the process that opened this file is dead"));
        }
        Ok(state)
    }

    pub(super) fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.lock()?;
        if state.unreadable {
            return Err(io::Error::other("the disk does not give it"));
        }
        let inode = state.inodes.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let Some(rest) = inode.content.get(at..) else { return Ok(0) };
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    pub(super) fn write_all_at(&self, octets: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.lock()?;
        let fate = state.operate();
        let part = match &fate {
            Ok(()) => octets.len(),
            Err(_) => state.random.usize(..=octets.len()),
        };
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let len = state.inodes.get(&self.inode).map_or(0, |inode| inode.content.len());
        let growth = (at + part).saturating_sub(len) as u64;
        if state.used().saturating_add(growth) > state.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = state.inodes.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        inode.write(&octets[..part], at);
        fate
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        let mut state = self.lock()?;
        let fate = state.operate();
        let off = state.off;
        let mut random = fastrand::Rng::with_seed(state.random.u64(..));
        let inode = state.inodes.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        match &fate {
            Ok(()) => inode.settle(|| true),
            // When the power fails, the lots are drawn at the next start.
            Err(_) if off => {}
            Err(_) => inode.settle(|| random.bool()),
        }
        fate
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        let state = self.lock()?;
        Ok(state.inodes.get(&self.inode).map_or(0, |inode| inode.content.len() as u64))
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.lock()?;
        state.operate()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let inode = state.inodes.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        inode.resize(len);
        Ok(())
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.len().map(|len| describe(Kind::File, len))
    }

    pub(super) fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.lock()?;
        let taken = state.locks.insert(self.inode);
        if taken {
            self.locked.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(taken)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.locked.load(std::sync::atomic::Ordering::Relaxed) {
            let mut state = self.disk.lock();
            if state.boot == self.boot {
                state.locks.remove(&self.inode);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Disk;
    use super::*;

    fn disk(seed: u64) -> (Arc<Modelled>, Disk) {
        let model = Arc::new(Modelled::new(seed));
        let disk = Disk::Modelled(Arc::clone(&model));
        disk.create_dir_all(Path::new("/d")).unwrap();
        (model, disk)
    }

    #[test]
    fn synced_content_and_names_survive_and_nothing_else_is_sure() {
        let (mut lost_name, mut lost_content, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let (model, disk) = disk(seed);
            let safe = disk.open(Path::new("/d/safe"), Open::CreateNew).unwrap();
            safe.write_all_at(&[1; 2048], 0).unwrap();
            safe.sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            safe.write_all_at(&[2; 1024], 1024).unwrap();
            disk.open(Path::new("/d/unsafe"), Open::CreateNew).unwrap().sync_all().unwrap();
            model.cut();
            assert!(safe.sync_data().is_err());
            model.power_on();
            assert!(safe.sync_data().is_err(), "handles of the dead do nothing");
            let now = disk.read(Path::new("/d/safe"), 4096).unwrap();
            assert_eq!(now[..1024], [1; 1024]);
            lost_content += usize::from(now[1024..] == [1; 1024]);
            torn += usize::from(now[1024] != now[2047]);
            lost_name += usize::from(disk.open(Path::new("/d/unsafe"), Open::Read).is_err());
        }
        assert!((20..180).contains(&lost_name), "{lost_name}");
        assert!((20..180).contains(&lost_content), "{lost_content}");
        assert!(torn > 10, "{torn}");
    }

    #[test]
    fn a_sync_after_a_failed_one_says_yes_and_the_data_is_gone() {
        let mut lost = 0;
        for seed in 0..50 {
            let (model, disk) = disk(seed);
            let file = disk.open(Path::new("/d/f"), Open::CreateNew).unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_all_at(&[7; 4096], 0).unwrap();
            model.plan(1, Fault::Error(io::ErrorKind::Other));
            assert!(file.sync_data().is_err());
            file.sync_data().unwrap();
            model.cut();
            model.power_on();
            lost += usize::from(disk.read(Path::new("/d/f"), 8192).unwrap() != [7; 4096]);
        }
        assert!(lost > 40, "{lost}");
    }

    #[test]
    fn a_full_disk_and_planned_faults_refuse() {
        let (model, disk) = disk(1);
        model.set_capacity(1000);
        let file = disk.open(Path::new("/d/f"), Open::CreateNew).unwrap();
        file.write_all_at(&[0; 900], 0).unwrap();
        let full = file.write_all_at(&[0; 200], 900).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        model.plan(2, Fault::Cut);
        file.sync_data().unwrap();
        assert!(disk.rename(Path::new("/d/f"), Path::new("/d/g")).is_err());
        assert!(model.is_off() && file.len().is_err());
    }
}
