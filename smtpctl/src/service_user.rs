//! What the service may read of what root may.
//!
//! Root sees a file as good that the service cannot open. Where the caller is root and the user exists whom the
//! packages make for the service, the file is tried as that user, by the rights of the file and of every directory.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User, geteuid};

/// Whom the packages make.
const NAME: &str = "_mailroot";

/// What is to be said of a file that the service cannot read; nothing where it can, or where nobody can tell.
pub(crate) fn cannot_read(file: &Path) -> Option<String> {
    if !geteuid().is_root() || !file.exists() {
        return None;
    }
    let user = User::from_name(NAME).ok().flatten()?;
    let can = can_read(file, user.uid, user.gid)?;
    (!can).then(|| {
        let shown = mailroot_common::shell::quoted(&file.display().to_string());
        format!("the service cannot read it, and goes by what it last could: chmod 0644 {shown}")
    })
}

/// Whether a user can; nothing if that cannot be tried.
fn can_read(file: &Path, uid: Uid, gid: Gid) -> Option<bool> {
    let mut test = Command::new("test");
    test.arg("-r").arg(file).uid(uid.as_raw()).gid(gid.as_raw()).current_dir("/");
    test.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    test.status().ok().map(|status| status.success())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use nix::unistd::getegid;

    use super::*;

    #[test]
    fn rights_of_a_file_and_its_directory_count() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("aliases");
        fs::write(&file, "root: you@x.test\n").unwrap();
        let grant = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        // Root may read everything: somebody who has no rights of his own stands for the service.
        let (uid, gid) = match geteuid().is_root() {
            true => (Uid::from_raw(65534), Gid::from_raw(65534)),
            false => (geteuid(), getegid()),
        };
        for (directory, mode, expected) in
            [(0o755, 0o644, true), (0o755, 0o000, false), (0o000, 0o644, false)]
        {
            grant(&file, mode).unwrap();
            grant(place.path(), directory).unwrap();
            assert_eq!(can_read(&file, uid, gid), Some(expected), "{directory:o} {mode:o}");
            grant(place.path(), 0o755).unwrap();
        }
    }
}
