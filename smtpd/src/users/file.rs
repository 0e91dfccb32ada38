//! The file of users: one object, replaced whole.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use mailroot_common::control::selector::AddressPattern;
use mailroot_common::password::Kept;
use mailroot_common::rate::Rate;
use mailroot_common::units::Timestamp;
use serde::{Deserialize, Serialize};

use super::{All, User};
use crate::config::Secrets;

/// The largest file that is read: ten thousand users of a kibibyte each, and room to spare.
const OCTETS_MAX: u64 = 64 << 20;
/// Rights of others that the file must not grant.
const FOREIGN: u32 = 0o077;

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quota: Option<String>,
    password_since: Timestamp,
    password: Kept,
}

/// The users of a file, none if there is no file. One that others can read is not taken: what
/// passwords are told by is all that a guesser needs.
pub(super) fn read(path: &Path) -> io::Result<All> {
    let about = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(All::new()),
        other => other?,
    };
    if about.len() > OCTETS_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    if about.mode() & FOREIGN != 0 {
        let words = format!("it is open to others: chmod 600 {}", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
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
            quota: entry
                .quota
                .map(|text| Rate::parse(&text))
                .transpose()
                .map_err(io::Error::other)?,
            password_since: entry.password_since,
            own: None,
            kept: Some(entry.password),
        };
        Ok((entry.name, Arc::new(user)))
    };
    whole.users.into_iter().map(user).collect()
}

pub(super) fn write(path: &Path, all: &All) -> io::Result<()> {
    let entry = |user: &Arc<User>| {
        Some(Entry {
            name: user.name.clone(),
            enabled: user.enabled,
            send_as: user.send_as.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            quota: user.quota.map(|quota| quota.to_string()),
            password_since: user.password_since,
            password: user.kept.clone()?,
        })
    };
    let whole = Whole { version: 1, users: all.values().filter_map(entry).collect() };
    let mut text = serde_json::to_string_pretty(&whole).map_err(io::Error::other)?;
    text.push('\n');
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Secrets::in_directory(path.parent().unwrap_or(path)).keep_text(name, &text)
}
