//! `/v1/queue/do/adopt`: a file of the form of Pickup, handed in over the control socket.
//!
//! Its octets go into a file without a name as they arrive, so that no size costs memory; then the
//! Pickup room reads it as one of its own.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use http_body_util::BodyExt;
use mailroot_common::control::{Adopted, Kind, Problem};
use mailroot_common::units::ByteSize;
use serde::Deserialize;

use super::App;
use super::answer::{Answer, Refused, object, usage};
use super::caller::Caller;
use super::choose::servers;
use super::extract::Query;
use super::gate::tell;
use crate::pickup::AdoptError;
use crate::virtual_server::VirtualServer;

/// The longest name of a file.
const NAME_OCTETS_MAX: usize = 255;

/// What the query says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Source {
    #[serde(default)]
    pub(super) name: String,
    pub(super) server: Option<String>,
}

/// Takes one file.
pub(super) async fn adopt(
    app: App,
    Extension(caller): Extension<Caller>,
    Query(source): Query<Source>,
    body: Body,
) -> Answer<Adopted> {
    let Source { name, server } = source;
    if name.is_empty() || name.len() > NAME_OCTETS_MAX || name.contains(char::is_control) {
        return Err(usage("the file needs a name"));
    }
    let server = one_server(&app, server.as_deref())?;
    let never = || Problem::new("server", Kind::Unavailable, "the server never started");
    let pickup = server.pickup().ok_or_else(never)?;
    let queue = server.queue().ok_or_else(never)?;
    let trouble = |text: String| Problem::new("queue", Kind::Failed, text);
    queue.ready().map_err(|unready| trouble(unready.to_string()))?;
    let directory = server.queue_directory().ok_or_else(never)?;
    let limit = pickup.size_max();
    let file = receive(body, &directory, &name, limit).await?;
    let (id, size) = pickup.adopt(file, &name).await.map_err(|error| match error {
        AdoptError::Bad(text) => Problem::new("file", Kind::Usage, text),
        AdoptError::Stuck(text) => trouble(text),
    })?;
    tell(&app, "adopted", server.name().as_str(), Some(&id.to_string()), &caller)
        .text("file", &name)
        .send();
    object(Adopted { id, server: server.name().to_string(), size })
}

pub(super) fn one_server(app: &App, name: Option<&str>) -> Result<Arc<VirtualServer>, Refused> {
    let found = servers(app, Some(name.unwrap_or("default")))?;
    let absent = || Problem::new("server", Kind::NotFound, "there is no such virtual server");
    found.into_iter().next().ok_or_else(|| absent().into())
}

/// The body of a request as a file without a name, read from its start.
pub(super) async fn receive(
    mut body: Body,
    directory: &Path,
    name: &str,
    limit: ByteSize,
) -> Result<File, Refused> {
    let failed =
        |error: io::Error| Problem::new("file", Kind::Failed, format!("cannot keep it: {error}"));
    let path = directory.to_owned();
    let made = tokio::task::spawn_blocking(move || nameless(&path)).await;
    let mut file = made.map_err(io::Error::other).and_then(|made| made).map_err(failed)?;
    let mut octets: u64 = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| usage(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        octets = octets.saturating_add(data.len() as u64);
        if octets > limit.as_u64() {
            return Err(usage(format!("{name} is larger than {limit} (messages.max_size)")));
        }
        let written = tokio::task::spawn_blocking(move || {
            file.write_all(&data)?;
            Ok(file)
        });
        file = written.await.map_err(io::Error::other).and_then(|done| done).map_err(failed)?;
    }
    file.rewind().map_err(failed)?;
    Ok(file)
}

/// A file that goes when it is closed.
fn nameless(directory: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    use nix::fcntl::OFlag;

    let flags = OFlag::O_TMPFILE.bits();
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(flags).open(directory)
}
