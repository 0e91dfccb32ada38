//! `send --via pickup`: the message as an application would put it into Pickup.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mailroot_common::control::{Kind, Problem, Selector, ServerDetail, TraceEntry, path};
use mailroot_common::id::QueueId;

use crate::listing::limited;
use crate::smtp::Parcel;
use crate::tool::{Tool, now};

/// How often it is looked whether the file was taken.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Among how many of the newest messages it is looked for.
const LOOKED_AT: u64 = 1_000;
/// The directory's group, which the file gets, is the service's too; the service is another user.
const FILE_MODE: u32 = 0o660;

/// Puts the file there; its name.
pub(super) fn put(server: &ServerDetail, parcel: &Parcel) -> Result<String, Problem> {
    let is = |key: &str, value: &str| {
        server.settings.iter().any(|setting| setting.key == key && setting.value == value)
    };
    let name = &server.server.name;
    if is("store.pickup.enabled", "false") {
        let detail = format!("the virtual server {name} takes no files from Pickup");
        return Err(Problem::new("send", Kind::Unavailable, detail)
            .hint(format!("smtpctl server set {name} store.pickup.enabled=true")));
    }
    let octets = text(parcel, is("store.pickup.dot_stuffed", "true"));
    let directory = Path::new(&server.server.mail_root).join("Pickup");
    let name = format!("smtpctl-{}-{}.eml", now().as_millis(), std::process::id());
    write(&directory, &name, &octets).map_err(|error| {
        let detail = format!("cannot write into {}: {error}", directory.display());
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => Kind::NotPermitted,
            _ => Kind::Failed,
        };
        Problem::new("send", kind, detail)
    })?;
    Ok(name)
}

/// Under another name first, so that it is whole when it is there.
fn write(directory: &Path, name: &str, octets: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".smtpctl-").tempfile_in(directory)?;
    file.write_all(octets)?;
    file.as_file().set_permissions(Permissions::from_mode(FILE_MODE))?;
    file.as_file().sync_all()?;
    let to: PathBuf = directory.join(name);
    file.persist_noclobber(to).map_err(|error| error.error)?;
    Ok(())
}

/// The envelope in front of the message.
fn text(parcel: &Parcel, is_stuffed: bool) -> Vec<u8> {
    let mut octets = format!("X-Sender: <{}>\r\n", parcel.sender).into_bytes();
    for to in &parcel.recipients {
        octets.extend_from_slice(format!("X-Receiver: <{to}>\r\n").as_bytes());
    }
    for line in parcel.message.split_inclusive(|&octet| octet == b'\n') {
        if is_stuffed && line.first() == Some(&b'.') {
            octets.push(b'.');
        }
        octets.extend_from_slice(line);
    }
    octets
}

/// The id that the file got when it was taken; nothing if that is not known in time.
pub(super) async fn taken(
    tool: &mut Tool,
    file: &str,
    wait: Duration,
) -> Result<Option<QueueId>, Problem> {
    let begun = Instant::now();
    let selector = Selector { newer_than: Some("1h".to_owned()), ..Selector::default() };
    let path = limited(path::TRACE, &selector, Some(LOOKED_AT));
    loop {
        let mut found = None;
        let take = |entry: TraceEntry| {
            if entry.source.as_deref() == Some(file) {
                found = Some(entry.id);
            }
            Ok(found.is_none())
        };
        tool.daemon().await?.lines(&path, take).await?;
        // What is behind the end of a list that was left is not read.
        if found.is_some() || begun.elapsed() >= wait {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_may_read_the_file_by_its_group() {
        let pickup = tempfile::tempdir().unwrap();
        write(pickup.path(), "a.eml", b"x").unwrap();
        let mode = std::fs::metadata(pickup.path().join("a.eml")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert_eq!(std::fs::read_dir(pickup.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_envelope_stands_in_front_and_dots_are_doubled_where_that_is_wanted() {
        let parcel = Parcel {
            sender: "a@x.example".to_owned(),
            recipients: vec!["b@x.example".to_owned()],
            message: b"Subject: x\r\n\r\n.\r\n".to_vec(),
            wishes: Vec::new(),
        };
        let begin = "X-Sender: <a@x.example>\r\nX-Receiver: <b@x.example>\r\nSubject: x\r\n\r\n";
        let of = |is_stuffed| String::from_utf8(text(&parcel, is_stuffed)).unwrap();
        assert_eq!(of(false), format!("{begin}.\r\n"));
        assert_eq!(of(true), format!("{begin}..\r\n"));
    }
}
