//! What is kept of policies over a restart: one file for each domain, one line of JSON, replaced whole.
//!
//! A policy that is known protects the domain while somebody keeps us from asking for it again, so it
//! must outlive us. One that was enforced is remembered for a while beyond its end: mail is careful where
//! the next one cannot be had. Their number is bounded: the files are read at the start, and those that
//! say nothing any more, or are beyond the bound, are removed.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;

use mailroot_common::address::Domain;
use mailroot_common::units::Timestamp;
use smtpd_core::route::sts::Known;

use crate::disk::Disk;

/// Policies that are kept.
pub(super) const KEPT_MAX: usize = 2_000;
/// Files that are looked at to choose those from: more are there only if somebody has put them there.
const FOUND_MAX: usize = 2 * KEPT_MAX;
/// The largest file that is read: a policy of so many hosts with the longest names.
const FILE_OCTETS_MAX: u64 = 64 * 1024;

/// The directory of the files. It is made when it is needed.
#[derive(Clone, Debug)]
pub(super) struct Files {
    disk: Disk,
    directory: PathBuf,
}

impl Files {
    pub(super) const fn new(disk: Disk, directory: PathBuf) -> Self {
        Self { disk, directory }
    }

    /// What holds still, and what was enforced lately. What cannot be read counts as not known.
    pub(super) fn read(&self, now: Timestamp) -> Vec<(Domain, Known)> {
        let names = self.disk.list(&self.directory).unwrap_or_default();
        let mut found = Vec::new();
        for name in &names {
            match self.read_one(name, now) {
                Some(known) if found.len() < FOUND_MAX => found.push(known),
                // Left behind by a death, over, damaged, or too many: none of them is of use.
                _ => self.disk.unlink(&self.directory.join(name)).unwrap_or_default(),
            }
        }
        found.sort_by_key(|(_, known)| (known.is_over(now), Reverse(known.at)));
        for (domain, _) in found.split_off(found.len().min(KEPT_MAX)) {
            // As above.
            self.forget(&domain).unwrap_or_default();
        }
        found
    }

    fn read_one(&self, name: &OsStr, now: Timestamp) -> Option<(Domain, Known)> {
        let domain = Domain::parse(name.to_str()?).ok()?;
        let octets = self.disk.read(&self.directory.join(name), FILE_OCTETS_MAX).ok()?;
        let known: Known = serde_json::from_slice(&octets).ok()?;
        (now < known.missed_until()).then_some((domain, known))
    }

    /// Keeps a policy durably. A domain whose name is too long for a file is refused by the system, and
    /// its policy holds until the daemon ends.
    pub(super) fn keep(&self, domain: &Domain, known: &Known) -> io::Result<()> {
        if self.disk.metadata(&self.directory).is_err() {
            self.disk.create_dir_all(&self.directory)?;
            self.disk.sync_dir(self.directory.parent().unwrap_or(&self.directory))?;
        }
        let line = serde_json::to_vec(known)?;
        // No domain begins with a dot, so that a draft is never taken for one.
        let draft = self.directory.join(format!(".{domain}"));
        self.disk.replace(&self.directory.join(domain.as_str()), &draft, &line)
    }

    pub(super) fn forget(&self, domain: &Domain) -> io::Result<()> {
        self.disk.unlink(&self.directory.join(domain.as_str()))
    }
}
