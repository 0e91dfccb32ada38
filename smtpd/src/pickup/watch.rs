//! Hears from the kernel what happens in the Pickup directory.
//!
//! Notices make mail fast, nothing depends on them: they may overflow, and some file systems give
//! none. The periodic search finds what they missed.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A watch on one directory.
#[derive(Debug)]
pub(super) struct Watch(AsyncFd<Handle>);

#[derive(Debug)]
struct Handle(Inotify);

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[expect(unsafe_code, reason = "tokio asks for this promise; it has no safe door for inotify")]
fn register(handle: Handle) -> io::Result<AsyncFd<Handle>> {
    // SAFETY: the handle owns its descriptor, always names the same one, and closes it only when
    // it is dropped, which the `AsyncFd` that owns it does last.
    Ok(unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE)? })
}

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// A file was moved in under its final name: it is complete.
    MovedIn(OsString),
    /// Something else happened that the next search should see.
    Stirred,
}

impl Watch {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mask = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DONT_FOLLOW;
        inotify.add_watch(path, mask)?;
        Ok(Self(register(Handle(inotify))?))
    }

    /// Waits for the next notices.
    pub(super) async fn next(&self) -> io::Result<Vec<Notice>> {
        loop {
            let mut ready = self.0.readable().await?;
            match self.0.get_ref().0.read_events() {
                Ok(events) => {
                    let notice = |event: nix::sys::inotify::InotifyEvent| match event.name {
                        Some(name) if event.mask.contains(AddWatchFlags::IN_MOVED_TO) => {
                            Notice::MovedIn(name)
                        }
                        _ => Notice::Stirred,
                    };
                    return Ok(events.into_iter().map(notice).collect());
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn moved_files_are_named_and_written_ones_stir() {
        let root = tempfile::tempdir().unwrap();
        let watch = Watch::new(root.path()).unwrap();
        std::fs::write(root.path().join(".tmp.1"), "x").unwrap();
        assert!(watch.next().await.unwrap().contains(&Notice::Stirred));
        std::fs::rename(root.path().join(".tmp.1"), root.path().join("a.eml")).unwrap();
        let mut heard = watch.next().await.unwrap();
        heard.retain(|notice| *notice != Notice::Stirred);
        assert_eq!(heard, [Notice::MovedIn("a.eml".into())]);
        assert!(Watch::new(&root.path().join("none")).is_err());
    }
}
