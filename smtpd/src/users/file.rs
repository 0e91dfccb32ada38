//! The file of users: one object, replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use mailroot_common::control::selector::AddressPattern;
use mailroot_common::units::Timestamp;
use serde::{Deserialize, Serialize};

use super::password::Kept;
use super::{All, User};

/// The largest file that is read: ten thousand users of a kibibyte each, and room to spare.
const OCTETS_MAX: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Whole {
    version: u32,
    users: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    enabled: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    send_as: Vec<String>,
    password_since: Timestamp,
    password: Kept,
}

pub(super) fn read(path: &Path) -> io::Result<All> {
    let size = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(All::new()),
        other => other?.len(),
    };
    if size > OCTETS_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let whole: Whole = serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)?;
    if whole.version != 1 {
        return Err(io::Error::other("it is of a later version of this program"));
    }
    let user = |entry: Entry| -> io::Result<(String, Arc<User>)> {
        let patterns = entry.send_as.iter().map(|text| AddressPattern::parse(text));
        let user = User {
            name: entry.name.clone(),
            enabled: entry.enabled,
            send_as: patterns.collect::<Result<_, _>>().map_err(io::Error::other)?,
            password_since: entry.password_since,
            kept: entry.password,
        };
        Ok((entry.name, Arc::new(user)))
    };
    whole.users.into_iter().map(user).collect()
}

pub(super) fn write(path: &Path, all: &All) -> io::Result<()> {
    let entry = |user: &Arc<User>| Entry {
        name: user.name.clone(),
        enabled: user.enabled,
        send_as: user.send_as.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        password_since: user.password_since,
        password: user.kept.clone(),
    };
    let whole = Whole { version: 1, users: all.values().map(entry).collect() };
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec_pretty(&whole).map_err(io::Error::other)?)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}
