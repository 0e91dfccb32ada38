//! What is kept of reports over a restart: a file of what is counted, and one of what is due, a line of
//! JSON each; both replaced whole.
//!
//! What is due is written first: a death between the two has a period end twice, and the second time
//! its reports are there already.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use mailroot_common::address::Domain;
use mailroot_common::units::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use smtpd_core::tls_report::count::octets_of_domain;
use smtpd_core::tls_report::{Counted, Period};

use super::Due;
use crate::disk::Disk;
use crate::observe::{Level, Log};

/// The largest file that is read: all that there is room for, each octet of it written as two.
const FILE_OCTETS_MAX: u64 = 2 * super::OCTETS_MAX as u64;

#[derive(Clone, Debug)]
pub(super) struct Files {
    disk: Disk,
    directory: PathBuf,
}

/// A domain of the period that runs.
#[derive(Serialize, Deserialize)]
struct Line {
    begins: Timestamp,
    domain: Domain,
    counted: Counted,
}

impl Files {
    pub(super) const fn new(disk: Disk, directory: PathBuf) -> Self {
        Self { disk, directory }
    }

    pub(super) fn directory(&self) -> std::path::Display<'_> {
        self.directory.display()
    }

    fn current(&self) -> PathBuf {
        self.directory.join("current")
    }

    fn due(&self) -> PathBuf {
        self.directory.join("due")
    }

    /// What was counted, and what is due; what there is no room for is left out.
    pub(super) fn read(&self, log: &Log) -> (Option<Period>, Vec<Due>) {
        let mut room = super::OCTETS_MAX;
        let due: Vec<Due> = self.lines(&self.due(), log, &mut room, Due::octets);
        let mut current: Option<Period> = None;
        let octets = |line: &Line| octets_of_domain(&line.domain) + line.counted.octets();
        for Line { begins, domain, counted } in self.lines(&self.current(), log, &mut room, octets)
        {
            let period = current.get_or_insert_with(|| Period::beginning(begins));
            period.domains.insert(domain, counted);
        }
        (current, due)
    }

    fn lines<T: DeserializeOwned>(
        &self,
        file: &Path,
        log: &Log,
        room: &mut usize,
        octets_of: impl Fn(&T) -> usize,
    ) -> Vec<T> {
        let octets = match self.disk.read(file, FILE_OCTETS_MAX) {
            Ok(octets) => octets,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    let line = log.line(Level::Error, "tls-report-lost");
                    line.word("file", file.display()).text("error", error).send();
                }
                return Vec::new();
            }
        };
        let mut fits = |found: &T| {
            let left = room.checked_sub(octets_of(found));
            *room = left.unwrap_or(*room);
            left.is_some()
        };
        let lines = octets.split(|octet| *octet == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok()).filter(|it| fits(it)).collect()
    }

    pub(super) fn write(&self, current: Option<&Period>, due: &[Due]) -> io::Result<()> {
        if self.disk.metadata(&self.directory).is_err() {
            self.disk.create_dir_all(&self.directory)?;
            self.disk.sync_dir(self.directory.parent().unwrap_or(&self.directory))?;
        }
        self.replace(&self.due(), due.iter())?;
        let lines = current.into_iter().flat_map(|period| {
            period.domains.iter().map(|(domain, counted)| Line {
                begins: period.begins,
                domain: domain.clone(),
                counted: counted.clone(),
            })
        });
        self.replace(&self.current(), lines)
    }

    fn replace<T: Serialize>(&self, file: &Path, lines: impl Iterator<Item = T>) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        self.disk.replace(file, &file.with_extension("new"), &text)
    }
}
