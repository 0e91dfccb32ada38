//! What the service may read of what root may.
//!
//! Root sees a file as good that the service cannot open. Where the caller is root and the service is the packages'
//! own, the file is tried as its user and in its groups, by the rights of the file and of every directory.

use std::ffi::CString;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist};

/// Whom the packages make.
const NAME: &str = "_mailroot";
/// The groups that the unit adds.
const GROUPS: [&str; 3] = ["mailroot-pickup", "mailroot-drop", "mailroot-operators"];

/// Who the service runs as.
#[derive(Clone, Debug)]
pub(crate) struct ServiceUser {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl ServiceUser {
    /// The packages' own; nothing where nobody can tell: only root can try, and a home is anybody's.
    pub(crate) fn of(home: Option<&Path>) -> Option<Self> {
        if home.is_some() || !geteuid().is_root() {
            return None;
        }
        let user = User::from_name(NAME).ok().flatten()?;
        let mut groups = getgrouplist(&CString::new(NAME).ok()?, user.gid).ok()?;
        let of_unit = GROUPS.iter().filter_map(|name| Group::from_name(name).ok().flatten());
        groups.extend(of_unit.map(|group| group.gid));
        Some(Self { uid: user.uid, gid: user.gid, groups })
    }

    /// What is to be said of a file that it cannot read; nothing where it can, or where nobody can tell.
    pub(crate) fn cannot_read(&self, file: &Path) -> Option<String> {
        let file = std::path::absolute(file).ok().filter(|file| file.exists())?;
        (!self.can_read(&file)?).then(|| {
            let shown = mailroot_common::shell::quoted(&file.display().to_string());
            format!("the service's user {NAME} cannot read it; whose rights do not let him: namei -l {shown}")
        })
    }

    /// Whether it can; nothing if that cannot be tried.
    fn can_read(&self, file: &Path) -> Option<bool> {
        let mut test = match (self.uid, self.gid) == (geteuid(), getegid()) {
            true => Command::new("test"),
            false => {
                let list: Vec<String> = self.groups.iter().map(ToString::to_string).collect();
                let mut other = Command::new("setpriv");
                other.args([format!("--reuid={}", self.uid), format!("--regid={}", self.gid)]);
                match list.is_empty() {
                    true => other.arg("--clear-groups"),
                    false => other.arg(format!("--groups={}", list.join(","))),
                };
                other.args(["--", "test"]);
                other
            }
        };
        test.arg("-r").arg(file).current_dir("/");
        test.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match test.status().ok()?.code()? {
            0 => Some(true),
            1 => Some(false),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn rights_of_a_file_and_its_directory_count() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("aliases");
        fs::write(&file, "root: you@x.test\n").unwrap();
        let grant = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        // Root may read everything: somebody who has no rights of his own stands for the service.
        let is_root = geteuid().is_root();
        let (uid, gid) = match is_root {
            true => (Uid::from_raw(65534), Gid::from_raw(65534)),
            false => (geteuid(), getegid()),
        };
        let service = ServiceUser { uid, gid, groups: vec![Gid::from_raw(12_345)] };
        for (directory, mode, expected) in
            [(0o755, 0o644, true), (0o755, 0o000, false), (0o000, 0o644, false)]
        {
            grant(&file, mode).unwrap();
            grant(place.path(), directory).unwrap();
            assert_eq!(service.can_read(&file), Some(expected), "{directory:o} {mode:o}");
            grant(place.path(), 0o755).unwrap();
        }
        if is_root {
            grant(&file, 0o640).unwrap();
            assert_eq!(service.can_read(&file), Some(false));
            chown(&file, None, Some(12_345)).unwrap();
            assert_eq!(service.can_read(&file), Some(true), "its groups count");
        }
        grant(&file, 0o000).unwrap();
        let told = service.cannot_read(&file);
        assert!(told.unwrap().contains("namei -l /"));
        assert_eq!(service.cannot_read(Path::new("/nowhere/at/all")), None);
    }
}
