//! Directories of servers, which are removed when they are not needed any more.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Outcome;

/// The directory that holds all others of this run.
pub(crate) struct Scratch {
    root: Directory,
    next: AtomicU32,
}

/// A directory that is removed with all it holds when this is dropped.
pub(crate) struct Directory(PathBuf);

impl Scratch {
    /// Makes it below `parent`.
    pub(crate) fn below(parent: &Path) -> Outcome<Self> {
        let path = parent.join(format!("mailroot-bench-{}", std::process::id()));
        // Postfix's users must get through it.
        DirBuilder::new()
            .mode(0o755)
            .create(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Self { root: Directory(path), next: AtomicU32::new(0) })
    }

    /// A new, empty directory.
    pub(crate) fn directory(&self) -> Outcome<Directory> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.root.path().join(number.to_string());
        DirBuilder::new().mode(0o755).create(&path)?;
        Ok(Directory(path))
    }
}

impl Directory {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}
