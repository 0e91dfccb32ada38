//! Tells whether a file that was not moved in is complete: nothing about it changes any more.
//!
//! Closing a file does not say so, for scripts append in several steps. So a file must rest: either
//! the kernel's change time, which its owner cannot set, lies far enough back, or we have seen the
//! same file unchanged for that long (the wall clock may have been set).

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use mailroot_common::units::Timestamp;

use crate::directory::FileFacts;

/// The files that are being watched for rest.
#[derive(Debug, Default)]
pub(super) struct Settling {
    seen: HashMap<OsString, (FileFacts, Duration)>,
}

impl Settling {
    /// Looks at a file. `None` if it rests for at least `span`, else how long it takes until it
    /// may. `now` and `elapsed` are the wall clock and the one that never jumps.
    pub(super) fn look(
        &mut self,
        name: &OsStr,
        facts: &FileFacts,
        span: Duration,
        now: Timestamp,
        elapsed: Duration,
    ) -> Option<Duration> {
        let changed = Timestamp::from_millis(facts.changed_millis);
        // The file system's clock ticks in steps of some milliseconds behind the wall clock.
        let by_kernel = now.since(changed).as_duration();
        let by_us = match self.seen.get(name) {
            Some((same, since)) if same == facts => elapsed.saturating_sub(*since),
            _ => {
                self.seen.insert(name.to_owned(), (*facts, elapsed));
                Duration::ZERO
            }
        };
        let rested = by_kernel.max(by_us);
        if rested >= span {
            self.seen.remove(name);
            return None;
        }
        Some(span.saturating_sub(rested))
    }

    /// Forgets files that are not there any more.
    pub(super) fn retain(&mut self, is_there: impl Fn(&OsStr) -> bool) {
        self.seen.retain(|name, _| is_there(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::FileKind;

    const SECOND: Duration = Duration::from_secs(1);

    fn facts(size: u64, changed_millis: u64) -> FileFacts {
        FileFacts {
            kind: FileKind::Regular,
            size,
            links: 1,
            identity: (1, 1),
            uid: 0,
            mode: 0o644,
            modified_millis: 0,
            changed_millis,
        }
    }

    fn look(settling: &mut Settling, facts: &FileFacts, millis: u64) -> Option<Duration> {
        let elapsed = Duration::from_millis(millis);
        let now = Timestamp::from_millis(10_000 + millis);
        settling.look(OsStr::new("a"), facts, SECOND, now, elapsed)
    }

    #[test]
    fn file_that_changed_long_ago_rests_at_once() {
        let mut settling = Settling::default();
        assert_eq!(look(&mut settling, &facts(5, 9_000), 0), None);
        let wait = look(&mut settling, &facts(5, 9_400), 0);
        assert_eq!(wait, Some(Duration::from_millis(400)));
    }

    #[test]
    fn growing_file_starts_again() {
        let mut settling = Settling::default();
        assert_eq!(look(&mut settling, &facts(5, 10_000), 0), Some(SECOND));
        assert_eq!(look(&mut settling, &facts(6, 10_900), 900), Some(SECOND));
        assert_eq!(look(&mut settling, &facts(6, 10_900), 1_900), None);
    }

    #[test]
    fn change_time_in_the_future_does_not_keep_a_file_for_ever() {
        let mut settling = Settling::default();
        let ahead = facts(5, 99_000_000);
        assert_eq!(look(&mut settling, &ahead, 0), Some(SECOND));
        assert_eq!(look(&mut settling, &ahead, 1_000), None);
    }

    #[test]
    fn files_that_are_gone_are_forgotten() {
        let mut settling = Settling::default();
        assert!(look(&mut settling, &facts(5, 10_000), 0).is_some());
        settling.retain(|_| false);
        assert!(settling.seen.is_empty());
    }
}
