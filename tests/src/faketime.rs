//! A daemon whose wall clock can be set: libfaketime's, which reads how far it is off from a file each time
//! it is asked. The clock that measures spans is left alone, as it is on a real machine.

use std::fs;
use std::path::PathBuf;

use crate::site::Site;

/// The clock of one site.
#[derive(Debug)]
pub struct Faketime(PathBuf);

impl Faketime {
    /// Has a site that was prepared run by such a clock; nothing if libfaketime is not installed.
    #[must_use]
    pub fn of(site: &Site) -> Option<Self> {
        let library = library()?;
        let clock = Self(site.home().join("offset"));
        site.under(&[
            "env",
            &format!("LD_PRELOAD={}", library.display()),
            &format!("FAKETIME_TIMESTAMP_FILE={}", clock.0.display()),
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]);
        clock.set("+0");
        Some(clock)
    }

    /// Sets the clock off by so much, such as `+1d`.
    ///
    /// # Panics
    ///
    /// If the site's directory cannot be written.
    #[allow(clippy::unwrap_used, reason = "tests")]
    pub fn set(&self, by: &str) {
        fs::write(self.0.with_extension("new"), by).unwrap();
        fs::rename(self.0.with_extension("new"), &self.0).unwrap();
    }
}

fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .chain(["/usr/lib64/faketime/libfaketimeMT.so.1".into()])
        .find(|path| path.exists())
}
