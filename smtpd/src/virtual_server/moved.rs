//! A change that gives a server other directories: what moves, and what would be left behind.

use std::path::Path;

use mailroot_common::config::ServerConfig;

use super::roots::has_segments;
use super::{MailRoot, VirtualServer, settings};

/// What a configuration has elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The mail root, and with it the queue.
    Root,
    /// The Drop directory, and not the mail root.
    Drop,
    /// The Badmail directory alone.
    Badmail,
}

/// Mail in the queue of a mail root that a server is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftBehind {
    /// So many messages.
    Messages(u64),
    /// There is a queue, and it was not opened since the daemon began.
    Unknown,
}

impl VirtualServer {
    /// What this configuration has elsewhere than the server has it now.
    #[must_use]
    pub fn moved_by(&self, root: &Path, config: &ServerConfig) -> Option<Moved> {
        let now = self.places();
        let wanted = settings::places(root, config);
        if wanted.root != now.root {
            Some(Moved::Root)
        } else if wanted.drop != now.drop {
            Some(Moved::Drop)
        } else {
            (wanted.badmail != now.badmail).then_some(Moved::Badmail)
        }
    }

    /// The mail that would be left behind in its queue.
    #[must_use]
    pub fn left_behind(&self) -> LeftBehind {
        if let Some(queue) = self.queue() {
            return LeftBehind::Messages(queue.counts().messages);
        }
        if has_segments(&self.places().queue) {
            LeftBehind::Unknown
        } else {
            LeftBehind::Messages(0)
        }
    }

    /// Its directories: those that are open, else those of its configuration.
    fn places(&self) -> MailRoot {
        let open = self.rooms.load().as_ref().map(|rooms| rooms.root.clone());
        open.unwrap_or_else(|| settings::places(&self.mail_root(), &self.config()))
    }
}
