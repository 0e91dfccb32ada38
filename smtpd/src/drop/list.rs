//! What lies in a Drop directory, for people. Whoever reads Drop takes files away at any time, so
//! what vanishes while it is looked at is passed over.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use mailroot_common::units::Timestamp;

use super::{DropDirectory, Format};
use crate::directory::{Directory, FileKind};

/// How much of a file is read to find its envelope.
const FRONT_OCTETS: u64 = 16 * 1024;

/// A message in Drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The message's id, and which part of its recipients.
    pub stem: String,
    /// The file.
    pub path: PathBuf,
    /// Octets.
    pub size: u64,
    /// When it was written.
    pub at: Timestamp,
    /// The sender that the file names.
    pub from: Option<String>,
    /// The recipients that the file names.
    pub to: Vec<String>,
}

impl DropDirectory {
    /// Everything in it, in the order of names.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn list(&self) -> io::Result<Vec<Dropped>> {
        let settings = self.settings().clone();
        let list = move || {
            let mut found = Vec::new();
            for place in places(&settings.directory, settings.format)? {
                let mut names: Vec<OsString> = Vec::new();
                place.each_name(|name| {
                    names.push(name);
                    true
                })?;
                found.extend(names.iter().filter_map(|name| look(&place, name, settings.format)));
            }
            found.sort_unstable_by(|a: &Dropped, b| a.stem.cmp(&b.stem));
            Ok(found)
        };
        tokio::task::spawn_blocking(list).await.map_err(io::Error::other)?
    }

    /// Opens a message for reading, if it is still there.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn open(&self, dropped: &Dropped) -> io::Result<File> {
        self.at(dropped, |place, name| place.read(name)).await
    }

    /// Deletes a message.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn remove(&self, dropped: &Dropped) -> io::Result<()> {
        self.at(dropped, |place, name| place.remove(name)).await
    }

    async fn at<T: Send + 'static>(
        &self,
        dropped: &Dropped,
        deed: impl FnOnce(&Directory, &OsStr) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let path = dropped.path.clone();
        let work = move || {
            let nowhere = || io::Error::from(io::ErrorKind::NotFound);
            let place = Directory::open(path.parent().ok_or_else(nowhere)?)?;
            deed(&place, path.file_name().ok_or_else(nowhere)?)
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }
}

/// Where messages lie.
fn places(directory: &std::path::Path, format: Format) -> io::Result<Vec<Directory>> {
    let opened = |path: PathBuf| match Directory::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    };
    let names: &[&str] = match format {
        Format::Eml => &[""],
        Format::Maildir => &["new", "cur"],
    };
    let found: io::Result<Vec<_>> = names.iter().map(|name| opened(directory.join(name))).collect();
    Ok(found?.into_iter().flatten().collect())
}

/// A file that is one of ours, with its envelope.
fn look(place: &Directory, name: &OsStr, format: Format) -> Option<Dropped> {
    let facts = place.facts(name).ok()?;
    if facts.kind != FileKind::Regular || name.as_bytes().starts_with(b".") {
        return None;
    }
    let text = name.to_str()?;
    let stem = match format {
        Format::Eml => text.strip_suffix(".eml")?,
        Format::Maildir => text.split('.').nth(1)?,
    };
    let mut front = Vec::new();
    place.read(name).ok()?.take(FRONT_OCTETS).read_to_end(&mut front).ok()?;
    let (from, to) = envelope(&front);
    let path = place.path().join(name);
    let at = Timestamp::from_millis(facts.modified_millis);
    Some(Dropped { stem: stem.to_owned(), path, size: facts.size, at, from, to })
}

/// The fields we put in front, which end where the message's own header begins.
fn envelope(front: &[u8]) -> (Option<String>, Vec<String>) {
    let text = String::from_utf8_lossy(front);
    let mut from = None;
    let mut to = Vec::new();
    for line in text.lines() {
        if let Some(sender) = line.strip_prefix("X-Sender: ") {
            from = Some(sender.trim_start_matches("<>").to_owned());
        } else if let Some(recipient) = line.strip_prefix("X-Receiver: ") {
            to.push(recipient.to_owned());
        } else {
            break;
        }
    }
    (from, to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::drop::Settings;
    use crate::observe::Log;
    use crate::store::conformance::start;

    #[tokio::test]
    async fn messages_are_found_read_and_deleted_in_both_forms() {
        for (format, place, name) in [
            (Format::Eml, "", "6FZK5D3VYE2S-2.eml"),
            (Format::Maildir, "new", "1763000000.6FZK5D3VYE2S-2.host"),
        ] {
            let root = tempfile::tempdir().unwrap();
            let place = root.path().join(place);
            std::fs::create_dir_all(&place).unwrap();
            let octets = "X-Sender: <>\r\nX-Receiver: a@b.example\r\nX-Receiver: c@d.example\r\n\
                          Received: x\r\nX-Receiver: e@f.example\r\n\r\n";
            std::fs::write(place.join(name), octets).unwrap();
            std::fs::write(place.join(".draft.eml"), "x").unwrap();
            let settings = Settings {
                server: "default".to_owned(),
                directory: root.path().to_owned(),
                format,
                quota: None,
                host: "host".to_owned(),
            };
            let drop = DropDirectory::new(settings, Clock::simulated(start(), 1), Log::quiet());
            let found = drop.list().await.unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].stem, "6FZK5D3VYE2S-2");
            assert_eq!(found[0].from.as_deref(), Some(""));
            assert_eq!(found[0].to, ["a@b.example", "c@d.example"]);
            let mut text = String::new();
            drop.open(&found[0]).await.unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, octets);
            drop.remove(&found[0]).await.unwrap();
            assert!(drop.list().await.unwrap().is_empty());
            assert!(drop.remove(&found[0]).await.is_ok(), "whoever was quicker did the same");
        }
    }
}
