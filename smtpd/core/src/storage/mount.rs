//! Mounts: read from the kernel's table, and judged by what is known of file systems and options.

use mailroot_common::control::doctor::{Check, Level};

use super::TOPIC;

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: String,
    /// The number of its device, `major:minor`.
    pub device: String,
    /// Its kind, such as `ext4`.
    pub kind: String,
    /// What is mounted: a device, a server's directory, a word.
    pub source: String,
    /// The options of the mount and of the file system, each once.
    pub options: Vec<String>,
}

/// The mount that a path without links lies on, from the text of `/proc/self/mountinfo`.
///
/// Lines that cannot be read are passed over. Of several mounts over one place the last one counts.
#[must_use]
pub fn mount_of(table: &str, path: &str) -> Option<Mount> {
    let mounts = table.lines().filter_map(read_line).filter(|mount| holds(&mount.point, path));
    mounts.reduce(|best, mount| if mount.point.len() >= best.point.len() { mount } else { best })
}

/// Whether `path` is `point` or below it.
fn holds(point: &str, path: &str) -> bool {
    let rest = path.strip_prefix(point.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Reads one line of proc(5): id, parent, device, root, point, options, optional words up to a
/// hyphen, kind, source, options of the file system.
fn read_line(line: &str) -> Option<Mount> {
    let mut words = line.split(' ');
    let device = words.nth(2)?.to_owned();
    let point = unescape(words.nth(1)?);
    let of_mount = words.next()?;
    words.by_ref().find(|word| *word == "-")?;
    let (kind, source) = (words.next()?.to_owned(), unescape(words.next()?));
    let mut options: Vec<String> = Vec::new();
    for option in of_mount.split(',').chain(words.next().unwrap_or_default().split(',')) {
        let option = unescape(option);
        if !option.is_empty() && !options.contains(&option) {
            options.push(option);
        }
    }
    Some(Mount { point, device, kind, source, options })
}

/// Blanks and backslashes stand as three octal digits in the table.
fn unescape(word: &str) -> String {
    let mut octets = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let number = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match number.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(octet) => {
                octets.push(octet);
                rest = &after[3..];
            }
            None => {
                octets.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// What is known of a kind of file system.
enum Known {
    /// Syncs reach the disk, names after a sync of their directory.
    Good,
    /// This may lose mail, or may not be known to keep it.
    Doubt(&'static str),
}

const IN_MEMORY: &str = "it lies in memory: mail does not survive a loss of power, nor a restart of the machine; \
     move the mail root to a disk";
const NO_JOURNAL: &str =
    "it has no journal: a loss of power may damage names that were safe; use ext4 or XFS";
const NFS: &str = "a sync asks the server, whose export must have the option sync and a disk that keeps \
     what it took; when the server is away, mail stands still";
const SMB: &str =
    "a sync asks the server, and many answer before their disk has it; nothing here can tell";
const NINE_P: &str = "a sync asks the host of this machine, and whether that reaches its disk depends on how it \
     serves the directory; nothing here can tell";
const FUSE: &str =
    "a program stands between mail and disk, and whether it passes syncs on is its own affair";
const OVERLAY: &str = "names and syncs are kept by the file system of the upper layer, which is not seen from here, \
     and a container's layer goes with the container; give the mail root a volume of its own";
const UNKNOWN: &str = "nothing is known here of what it keeps when the power is lost";

fn known(kind: &str) -> Known {
    match kind {
        "ext4" | "ext3" | "xfs" | "btrfs" | "f2fs" | "jfs" | "zfs" | "bcachefs" => Known::Good,
        "tmpfs" | "ramfs" | "rootfs" | "devtmpfs" | "hugetlbfs" => Known::Doubt(IN_MEMORY),
        "ext2" | "vfat" | "msdos" | "exfat" => Known::Doubt(NO_JOURNAL),
        "nfs" | "nfs4" => Known::Doubt(NFS),
        "cifs" | "smb3" | "smbfs" => Known::Doubt(SMB),
        "9p" | "virtiofs" => Known::Doubt(NINE_P),
        "overlay" | "aufs" => Known::Doubt(OVERLAY),
        fuse if fuse.starts_with("fuse") => Known::Doubt(FUSE),
        _ => Known::Doubt(UNKNOWN),
    }
}

/// An option of a file system, what it does, and what to do.
struct Risk {
    kinds: &'static [&'static str],
    options: &'static [&'static str],
    level: Level,
    name: &'static str,
    text: &'static str,
    hint: &'static str,
}

const RISKS: &[Risk] = &[
    Risk {
        kinds: &[],
        options: &["nobarrier", "barrier=0", "barrier=none", "fsync_mode=nobarrier"],
        level: Level::Warn,
        name: "barriers",
        text: "syncs do not empty the write cache of the device, so that a loss of power loses mail that was \
             answered with 250",
        hint: "unless the cache is known to keep what it holds (a battery), mount it without this option",
    },
    Risk {
        kinds: &["ext3", "ext4"],
        options: &["data=writeback"],
        level: Level::Warn,
        name: "data_order",
        text: "after a loss of power, files that were growing may hold old content of the disk",
        hint: "what was synced is kept, and damage is found by checksums; data=ordered avoids it",
    },
    Risk {
        kinds: &["overlay"],
        options: &["volatile", "fsync=volatile"],
        level: Level::Warn,
        name: "volatile",
        text: "syncs are left out, so that a loss of power loses mail that was answered with 250",
        hint: "give the mail root a volume of its own",
    },
    Risk {
        kinds: &["f2fs"],
        options: &["fsync_mode=posix"],
        level: Level::Warn,
        name: "names",
        text: "syncs of files do not keep the names of files that were made before",
        hint: "mount it with fsync_mode=strict",
    },
    Risk {
        kinds: &[],
        options: &["ro"],
        level: Level::Fail,
        name: "read_only",
        text: "nothing can be written",
        hint: "look for errors of the disk in the kernel's log, then mount it for writing",
    },
];

/// What is to be known of a mount that mail lies on.
#[must_use]
pub fn judge(mount: &Mount) -> Vec<Check> {
    let check = |level, name: &str, text: String| Check::new(level, TOPIC, name, text);
    let text = format!(
        "{} at {}, {} ({})",
        mount.kind,
        mount.point,
        mount.source,
        mount.options.join(",")
    );
    let mut checks = vec![match known(&mount.kind) {
        Known::Good => check(Level::Ok, "file_system", text),
        Known::Doubt(hint) => check(Level::Warn, "file_system", text).hint(hint),
    }];
    for risk in RISKS {
        let concerns = risk.kinds.is_empty() || risk.kinds.contains(&&*mount.kind);
        let found = mount.options.iter().find(|option| risk.options.contains(&&***option));
        if let (true, Some(option)) = (concerns, found) {
            let text = format!("option {option}: {}", risk.text);
            checks.push(check(risk.level, risk.name, text).hint(risk.hint));
        }
    }
    checks.extend(mount.options.iter().filter_map(|option| note(mount, option)));
    checks
}

/// Options that look as if they mattered.
fn note(mount: &Mount, option: &str) -> Option<Check> {
    let (name, words) = match option {
        "sync" | "dirsync" => ("sync", "every write waits for the disk, not only those that must"),
        commit if commit.starts_with("commit=") && mount.kind.starts_with("ext") => (
            "commit",
            "that span concerns only what nobody synced; accepted mail is synced before its 250",
        ),
        _ => return None,
    };
    Some(Check::new(Level::Ok, TOPIC, name, format!("option {option}: {words}")))
}

/// What the kernel says of a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its name, such as `sda`.
    pub name: String,
    /// `write back` or `write through`.
    pub write_cache: Option<String>,
    /// Whether single writes can pass its cache.
    pub fua: Option<bool>,
}

/// What is to be known of a device that mail lies on.
#[must_use]
pub fn judge_device(device: &Device) -> Option<Check> {
    let words = match (device.write_cache.as_deref()?, device.fua) {
        ("write back", Some(true)) => "write back, which each sync empties or passes by (FUA)",
        ("write back", _) => "write back, which each sync empties",
        ("write through", _) => {
            "write through: the kernel takes it that writes are safe once the device took them, \
             and sends it no order to empty a cache"
        }
        _ => return None,
    };
    let text = format!("{}: its write cache is {words}", device.name);
    Some(Check::new(Level::Ok, TOPIC, "write_cache", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
22 21 0:21 / /proc rw - proc proc rw
40 21 8:1 / /var/spool rw,noatime shared:3 master:2 - xfs /dev/sda1 rw,attr2
41 40 0:50 / /var/spool/mail\\040root rw - tmpfs tmpfs rw,size=10240k
42 40 8:17 / /var/spool rw,relatime - ext4 /dev/sdb1 rw,data=writeback,nobarrier
rubbish
43 21 0:51 / /mnt rw";

    fn mount(kind: &str, options: &str) -> Mount {
        let options = options.split(',').map(str::to_owned).collect();
        let (point, source) = ("/".to_owned(), "/dev/sda1".to_owned());
        Mount { point, device: "8:1".to_owned(), kind: kind.to_owned(), source, options }
    }

    fn found(kind: &str, options: &str) -> String {
        let checks = judge(&mount(kind, options));
        let words: Vec<_> =
            checks.iter().map(|check| format!("{} {}", check.level, check.name)).collect();
        words.join(", ")
    }

    #[test]
    fn a_path_lies_on_the_last_of_the_deepest_mounts_above_it() {
        let at = |path: &str| mount_of(TABLE, path).map(|mount| (mount.kind, mount.device));
        let some = |kind: &str, device: &str| Some((kind.to_owned(), device.to_owned()));
        assert_eq!(at("/"), some("ext4", "254:0"));
        assert_eq!(at("/home/x"), some("ext4", "254:0"));
        assert_eq!(at("/var/spool"), some("ext4", "8:17"));
        assert_eq!(at("/var/spool/mailroot/Queue"), some("ext4", "8:17"));
        assert_eq!(at("/var/spoolers"), some("ext4", "254:0"));
        assert_eq!(at("/var/spool/mail root/Queue"), some("tmpfs", "0:50"));
        assert_eq!(at("/procedure"), some("ext4", "254:0"));
        assert_eq!(mount_of("", "/"), None);
        let spool = mount_of(TABLE, "/var/spool").unwrap();
        assert_eq!(spool.options, ["rw", "relatime", "data=writeback", "nobarrier"]);
        assert_eq!(spool.source, "/dev/sdb1");
    }

    #[test]
    fn hostile_tables_are_read_without_harm() {
        for word in ["\\", "\\04", "\\999", "\\377\\377", "a\\040b", "ü\\1ü"] {
            let _text = unescape(word);
        }
        assert_eq!(unescape("a\\040b\\134c"), "a b\\c");
        assert_eq!(unescape("\\8"), "\\8");
        assert_eq!(read_line("1 2 3 / / rw -"), None);
    }

    #[test]
    fn what_breaks_the_promise_is_warned_of() {
        for (kind, options, words) in [
            ("ext4", "rw,relatime", "ok file_system"),
            ("xfs", "rw", "ok file_system"),
            ("tmpfs", "rw", "warn file_system"),
            ("nfs4", "rw", "warn file_system"),
            ("fuse.sshfs", "rw", "warn file_system"),
            ("overlay", "rw,volatile", "warn file_system, warn volatile"),
            ("newfs", "rw", "warn file_system"),
            ("ext4", "rw,nobarrier", "ok file_system, warn barriers"),
            (
                "ext4",
                "rw,barrier=0,data=writeback",
                "ok file_system, warn barriers, warn data_order",
            ),
            ("ext4", "rw,commit=300,sync", "ok file_system, ok commit, ok sync"),
            ("btrfs", "rw,commit=300", "ok file_system"),
            ("ext4", "ro", "ok file_system, fail read_only"),
        ] {
            assert_eq!(found(kind, options), words, "{kind} {options}");
        }
    }

    #[test]
    fn a_write_cache_is_told_where_it_is_known() {
        let device = |cache: Option<&str>| Device {
            name: "sda".to_owned(),
            write_cache: cache.map(str::to_owned),
            fua: Some(false),
        };
        let told = |cache| judge_device(&device(cache)).map(|check| check.text);
        assert!(told(Some("write back")).unwrap().contains("write back"));
        assert!(told(Some("write through")).unwrap().contains("no order"));
        assert_eq!(told(Some("write sideways")), None);
        assert_eq!(told(None), None);
    }
}
