//! What a Drop directory holds, against its quota.
//!
//! Counting means asking for every file, and others take files away unseen. So the sum is counted
//! once and kept up to date with what we add; only when it says "full" is it counted again, at most
//! once a second, so that a full directory costs little.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::directory::{Directory, FileKind};

const RECOUNT_AFTER: Duration = Duration::from_secs(1);

/// The sum, and when it was counted.
#[derive(Debug, Default)]
pub(super) struct Usage {
    octets: u64,
    counted_at: Option<Duration>,
}

impl Usage {
    /// Whether `more` octets fit under `quota`; if they do they count from now on. Otherwise says
    /// how much there is.
    pub(super) fn claim(
        &mut self,
        directories: &[&Directory],
        more: u64,
        quota: u64,
        now: Duration,
    ) -> io::Result<Result<(), u64>> {
        let fits = |octets: u64| octets.saturating_add(more) <= quota;
        let is_old = self.counted_at.is_none_or(|at| now.saturating_sub(at) >= RECOUNT_AFTER);
        if self.counted_at.is_none() || (!fits(self.octets) && is_old) {
            self.octets = count(directories)?;
            self.counted_at = Some(now);
        }
        if !fits(self.octets) {
            return Ok(Err(self.octets));
        }
        self.octets += more;
        Ok(Ok(()))
    }
}

fn count(directories: &[&Directory]) -> io::Result<u64> {
    let mut sum = 0_u64;
    for directory in directories {
        directory.each_name(|name| {
            // Dot-names are files being written, claimed when they began. A file taken away in the
            // meantime does not count.
            if !name.as_bytes().starts_with(b".")
                && let Ok(facts) = directory.facts(&name)
                && facts.kind == FileKind::Regular
            {
                sum = sum.saturating_add(facts.size);
            }
            true
        })?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_away_is_noticed_when_it_matters() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        std::fs::write(root.path().join("a.eml"), [0; 60]).unwrap();
        let mut usage = Usage::default();
        let mut claim = |more, seconds| {
            usage.claim(&[&directory], more, 100, Duration::from_secs(seconds)).unwrap()
        };
        assert_eq!(claim(30, 0), Ok(()));
        assert_eq!(claim(30, 0), Err(90));
        std::fs::remove_file(root.path().join("a.eml")).unwrap();
        assert_eq!(claim(30, 0), Err(90), "not counted again within the second");
        assert_eq!(claim(30, 1), Ok(()));
    }
}
