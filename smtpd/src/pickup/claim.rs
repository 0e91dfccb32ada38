//! Makes a file of Pickup ours before it is read.
//!
//! Others own the files and may change, link or replace them at any moment. So a file is examined
//! by name, opened without following or waiting, examined again through the open handle, renamed
//! into a directory that only we can enter, and compared once more: what is read is what was
//! examined, and nobody else can reach it by name any more.
//!
//! The claim directory is `.claimed` inside Pickup, not a part of `Queue/`: a rename works only
//! within one file system, and Pickup is the directory that operators put elsewhere. What lies in
//! it at a start was claimed and not yet committed, or committed and not yet removed; it is taken
//! again, so that nothing is lost, and in the second case sent twice.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use mailroot_common::id::QueueId;
use mailroot_common::units::ByteSize;

use crate::directory::{Directory, FileFacts, FileKind};

/// Where claims are, inside Pickup.
pub(super) const CLAIMED: &str = ".claimed";
/// The longest name a file can have.
const NAME_OCTETS_MAX: usize = 255;

/// A file that is ours.
#[derive(Debug)]
pub(super) struct Claimed {
    /// The name it had in Pickup.
    pub(super) name: OsString,
    /// The name it has among the claims.
    pub(super) claim: OsString,
    pub(super) file: File,
    pub(super) facts: FileFacts,
}

/// Why a file is left where it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("is a {}, not a file: remove it", .0.as_str())]
    NotFile(FileKind),
    #[error("has {0} names: a hard link is not taken, put a copy there")]
    Linked(u64),
    #[error("has {size}, more than messages.max_size ({limit})")]
    TooLarge { size: ByteSize, limit: ByteSize },
    #[error("cannot be read ({source}): chmod 0660 {path}")]
    Unreadable { path: String, source: io::Error },
    #[error("cannot be claimed ({0}): check the owner and the attributes of file and directory")]
    Unclaimable(io::Error),
}

impl Refusal {
    /// Whether only a change of the file helps. Otherwise the machine is in trouble (no free
    /// descriptor, a failing disk, a directory of the wrong mode), which passes unseen.
    pub(super) fn lasts_until_it_changes(&self) -> bool {
        match self {
            Self::NotFile(_) | Self::Linked(_) | Self::TooLarge { .. } => true,
            Self::Unreadable { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Unclaimable(_) => false,
        }
    }
}

/// Whether a name is one that people use while they write.
pub(super) fn is_ignored(name: &OsStr) -> bool {
    let octets = name.as_bytes();
    let is_tmp = octets.len() >= 4 && octets[octets.len() - 4..].eq_ignore_ascii_case(b".tmp");
    octets.starts_with(b".") || is_tmp
}

/// Claims the file of this name. `ticket` makes the claim's name unique.
///
/// `None` if it is not there any more, or changed under our hands; then it is looked at again.
pub(super) fn claim(
    pickup: &Directory,
    claimed: &Directory,
    name: &OsStr,
    ticket: QueueId,
    limit: ByteSize,
) -> Result<Option<Claimed>, Refusal> {
    match look(pickup, name, limit)? {
        Some(seen) => take(pickup, claimed, name, ticket, seen),
        None => Ok(None),
    }
}

/// Examines a file by name, opens it and examines it again.
fn look(
    pickup: &Directory,
    name: &OsStr,
    limit: ByteSize,
) -> Result<Option<(File, FileFacts)>, Refusal> {
    let facts = match pickup.facts(name) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(unreadable(pickup, name, source)),
    };
    // Before the opening: opening a device can do something.
    examine(&facts, limit)?;
    let file = match pickup.read(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(unreadable(pickup, name, source)),
    };
    let facts = facts_of(&file).map_err(|source| unreadable(pickup, name, source))?;
    examine(&facts, limit)?;
    Ok(Some((file, facts)))
}

/// Makes a file ours that was examined, if it is still the one of that name and nobody has another way to it.
fn take(
    pickup: &Directory,
    claimed: &Directory,
    name: &OsStr,
    ticket: QueueId,
    (file, facts): (File, FileFacts),
) -> Result<Option<Claimed>, Refusal> {
    let claim = claim_name(ticket, name);
    match pickup.rename(name, claimed, &claim) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Refusal::Unclaimable(error)),
    }
    let is_same = claimed.facts(&claim).is_ok_and(|now| now.identity == facts.identity);
    // A link made since the examination would leave somebody else a way to the file.
    let is_alone = facts_of(&file).is_ok_and(|now| now.links == 1);
    if is_same && is_alone {
        return Ok(Some(Claimed { name: name.to_owned(), claim, file, facts }));
    }
    claimed.rename(&claim, pickup, name).map_err(Refusal::Unclaimable)?;
    Ok(None)
}

/// Opens a claim that an earlier run left.
pub(super) fn resume(
    claimed: &Directory,
    claim: &OsStr,
    limit: ByteSize,
) -> Result<Claimed, Refusal> {
    let file = claimed.read(claim).map_err(|source| unreadable(claimed, claim, source))?;
    let facts = facts_of(&file).map_err(|source| unreadable(claimed, claim, source))?;
    examine(&facts, limit)?;
    let name = original_name(claim);
    Ok(Claimed { name, claim: claim.to_owned(), file, facts })
}

fn facts_of(file: &File) -> io::Result<FileFacts> {
    FileFacts::of(file)
}

fn examine(facts: &FileFacts, limit: ByteSize) -> Result<(), Refusal> {
    if facts.kind != FileKind::Regular {
        return Err(Refusal::NotFile(facts.kind));
    }
    if facts.links != 1 {
        return Err(Refusal::Linked(facts.links));
    }
    let size = ByteSize::bytes(facts.size);
    if size > limit { Err(Refusal::TooLarge { size, limit }) } else { Ok(()) }
}

fn unreadable(directory: &Directory, name: &OsStr, source: io::Error) -> Refusal {
    Refusal::Unreadable { path: directory.path().join(name).display().to_string(), source }
}

/// `TICKET.NAME`, cut to what a name can have.
fn claim_name(ticket: QueueId, name: &OsStr) -> OsString {
    let mut octets = format!("{ticket}.").into_bytes();
    octets.extend_from_slice(name.as_bytes());
    octets.truncate(NAME_OCTETS_MAX);
    OsString::from_vec(octets)
}

/// The number a claim was given; none if the name is not of our making.
pub(super) fn ticket(claim: &OsStr) -> Option<QueueId> {
    claim.to_string_lossy().split('.').next()?.parse().ok()
}

pub(super) fn original_name(claim: &OsStr) -> OsString {
    let octets = claim.as_bytes();
    let start = octets.iter().position(|&o| o == b'.').map_or(0, |dot| dot + 1);
    OsStr::from_bytes(&octets[start..]).to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use nix::errno::Errno;
    use nix::sys::stat::{Mode, SFlag, mknod};
    use nix::unistd::{Uid, mkfifo, setfsuid};

    use super::*;

    const LIMIT: ByteSize = ByteSize::kib(64);

    struct Place {
        root: tempfile::TempDir,
        pickup: Directory,
        claimed: Directory,
    }

    impl Place {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("Pickup")).unwrap();
            let pickup = Directory::open(&root.path().join("Pickup")).unwrap();
            let claimed = pickup.private(CLAIMED).unwrap();
            Self { root, pickup, claimed }
        }

        fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
            self.root.path().join("Pickup").join(name.as_ref())
        }

        fn claim(&self, name: impl AsRef<OsStr>) -> Result<Option<Claimed>, Refusal> {
            claim(&self.pickup, &self.claimed, name.as_ref(), QueueId::from_u64(7), LIMIT)
        }

        fn refusal(&self, name: &str) -> Refusal {
            let refusal = self.claim(name).unwrap_err();
            assert!(self.path(name).symlink_metadata().is_ok(), "{name} is left where it is");
            assert_eq!(std::fs::read_dir(self.path(CLAIMED)).unwrap().count(), 0);
            refusal
        }
    }

    #[test]
    fn file_becomes_ours_and_can_be_resumed() {
        let place = Place::new();
        std::fs::write(place.path("a.eml"), "hello").unwrap();
        let claimed = place.claim("a.eml").unwrap().unwrap();
        assert_eq!((claimed.facts.size, claimed.name.to_str()), (5, Some("a.eml")));
        assert!(!place.path("a.eml").exists());
        assert!(place.claim("a.eml").unwrap().is_none(), "it is gone");
        let resumed = resume(&place.claimed, &claimed.claim, LIMIT).unwrap();
        assert_eq!(resumed.name, "a.eml");
        assert_eq!(resumed.facts.identity, claimed.facts.identity);
    }

    #[test]
    fn symbolic_link_to_a_secret_is_left() {
        let place = Place::new();
        std::fs::write(place.root.path().join("secret"), "s").unwrap();
        symlink(place.root.path().join("secret"), place.path("x.eml")).unwrap();
        assert!(matches!(place.refusal("x.eml"), Refusal::NotFile(FileKind::Link)));
        symlink("nowhere", place.path("y.eml")).unwrap();
        assert!(matches!(place.refusal("y.eml"), Refusal::NotFile(FileKind::Link)));
    }

    #[test]
    fn hard_link_is_left() {
        let place = Place::new();
        std::fs::write(place.root.path().join("theirs"), "s").unwrap();
        std::fs::hard_link(place.root.path().join("theirs"), place.path("x.eml")).unwrap();
        assert!(matches!(place.refusal("x.eml"), Refusal::Linked(2)));
    }

    #[test]
    fn fifo_socket_device_and_directory_are_left_without_waiting() {
        let place = Place::new();
        mkfifo(&place.path("fifo.eml"), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(place.path("socket.eml")).unwrap();
        std::fs::create_dir(place.path("dir.eml")).unwrap();
        assert!(matches!(place.refusal("fifo.eml"), Refusal::NotFile(FileKind::Special)));
        assert!(matches!(place.refusal("socket.eml"), Refusal::NotFile(FileKind::Special)));
        assert!(matches!(place.refusal("dir.eml"), Refusal::NotFile(FileKind::Directory)));
    }

    #[test]
    fn a_real_device_is_left_unopened() {
        let place = Place::new();
        // Whose opening would end in an error: there is no such device.
        let node = nix::sys::stat::makedev(0, 0);
        let made = mknod(&place.path("device.eml"), SFlag::S_IFCHR, Mode::S_IRWXU, node);
        if let Err(refused) = made {
            // Only root can make one.
            assert_eq!(refused, Errno::EPERM);
            return;
        }
        assert!(matches!(place.refusal("device.eml"), Refusal::NotFile(FileKind::Special)));
    }

    /// What happens to a file between the look and the claim, and what lies in its place then.
    type Exchange = fn(&Place);

    #[test]
    fn a_file_exchanged_between_the_look_and_the_claim_is_put_back_unread() {
        let by_another: Exchange = |place| {
            std::fs::write(place.path("new"), "another").unwrap();
            std::fs::rename(place.path("new"), place.path("x.eml")).unwrap();
        };
        let by_a_link: Exchange = |place| {
            std::fs::remove_file(place.path("x.eml")).unwrap();
            symlink(place.root.path().join("secret"), place.path("x.eml")).unwrap();
        };
        let by_a_hard_link: Exchange = |place| {
            std::fs::remove_file(place.path("x.eml")).unwrap();
            std::fs::hard_link(place.root.path().join("secret"), place.path("x.eml")).unwrap();
        };
        let by_a_second_name: Exchange = |place| {
            std::fs::hard_link(place.path("x.eml"), place.root.path().join("way in")).unwrap();
        };
        for exchange in [by_another, by_a_link, by_a_hard_link, by_a_second_name] {
            let place = Place::new();
            std::fs::write(place.root.path().join("secret"), "s").unwrap();
            std::fs::write(place.path("x.eml"), "examined").unwrap();
            let name = OsStr::new("x.eml");
            let seen = look(&place.pickup, name, LIMIT).unwrap().unwrap();
            exchange(&place);
            let ticket = QueueId::from_u64(7);
            let taken = take(&place.pickup, &place.claimed, name, ticket, seen).unwrap();
            assert!(taken.is_none(), "{taken:?}");
            assert!(place.path("x.eml").symlink_metadata().is_ok(), "it lies where it lay");
            assert_eq!(std::fs::read_dir(place.path(CLAIMED)).unwrap().count(), 0);
        }
    }

    #[test]
    fn an_immutable_file_is_left_and_the_words_help() {
        let place = Place::new();
        std::fs::write(place.path("x.eml"), "x").unwrap();
        let attribute = |change: &str| {
            let mut chattr = std::process::Command::new("chattr");
            let done = chattr.arg(change).arg(place.path("x.eml")).output();
            done.is_ok_and(|done| done.status.success())
        };
        if !attribute("+i") {
            eprintln!("only root can, where the file system knows it: nothing was looked at");
            return;
        }
        let refusal = place.claim("x.eml").unwrap_err();
        assert!(attribute("-i"));
        assert!(matches!(refusal, Refusal::Unclaimable(_)), "{refusal}");
        assert!(refusal.to_string().contains("the attributes of file and directory"), "{refusal}");
        assert_eq!(std::fs::read_to_string(place.path("x.eml")).unwrap(), "x");
    }

    #[test]
    fn sparse_file_of_five_gigabytes_is_left_unread() {
        let place = Place::new();
        let file = File::create(place.path("big.eml")).unwrap();
        file.set_len(5_000_000_000).unwrap();
        let refusal = place.refusal("big.eml");
        assert!(matches!(refusal, Refusal::TooLarge { .. }));
        assert_eq!(refusal.to_string(), "has 5000000000B, more than messages.max_size (64KiB)");
    }

    #[test]
    fn odd_names_are_taken_as_they_are() {
        let place = Place::new();
        let long = "n".repeat(251) + ".eml";
        let names = [
            OsString::from("new\nline event=x.eml"),
            OsString::from(&long),
            OsString::from_vec(b"\xff\xfe.eml".to_vec()),
            OsString::from("$(id).eml"),
        ];
        for name in names {
            std::fs::write(place.path(&name), "x").unwrap();
            let claimed = place.claim(&name).unwrap().unwrap();
            assert_eq!(claimed.name, name);
            assert!(claimed.claim.len() <= NAME_OCTETS_MAX);
            place.claimed.remove(&claimed.claim).unwrap();
        }
    }

    #[test]
    fn file_of_mode_zero_is_left_and_the_words_help() {
        let place = Place::new();
        std::fs::write(place.path("secret.eml"), "x").unwrap();
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o000);
        std::fs::set_permissions(place.path("secret.eml"), permissions).unwrap();
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(place.root.path(), permissions).unwrap();
        // Root may read everything; a thread of another user may not.
        let refusal = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                setfsuid(Uid::from_raw(65_534));
                place.claim("secret.eml").unwrap_err()
            });
            other.join().unwrap()
        });
        let expected = format!("chmod 0660 {}", place.path("secret.eml").display());
        assert!(matches!(refusal, Refusal::Unreadable { .. }), "{refusal}");
        assert!(refusal.to_string().ends_with(&expected), "{refusal}");
        assert!(place.path("secret.eml").exists());
    }

    #[test]
    fn only_trouble_of_the_file_itself_waits_for_its_change() {
        let unreadable = |errno: i32| Refusal::Unreadable {
            path: "x".into(),
            source: io::Error::from_raw_os_error(errno),
        };
        assert!(unreadable(nix::libc::EACCES).lasts_until_it_changes());
        for errno in [nix::libc::EMFILE, nix::libc::ENFILE, nix::libc::EIO, nix::libc::ENOMEM] {
            assert!(!unreadable(errno).lasts_until_it_changes(), "{errno}");
        }
        assert!(Refusal::Linked(2).lasts_until_it_changes());
    }

    #[test]
    fn claim_that_cannot_be_made_leaves_the_file() {
        let place = Place::new();
        std::fs::write(place.path("a.eml"), "x").unwrap();
        std::fs::remove_dir(place.path(CLAIMED)).unwrap();
        // The directory of claims is gone: nothing can be renamed into it.
        let result = place.claim("a.eml");
        assert!(matches!(result, Ok(None) | Err(Refusal::Unclaimable(_))));
        assert!(place.path("a.eml").exists());
    }

    #[test]
    fn names_of_files_being_written_are_ignored() {
        for name in [".x", ".tmp.1", "a.tmp", "A.TMP", CLAIMED] {
            assert!(is_ignored(OsStr::new(name)), "{name}");
        }
        for name in ["a.eml", "tmp", "a.tmp.eml", "Email.txt"] {
            assert!(!is_ignored(OsStr::new(name)), "{name}");
        }
    }
}
