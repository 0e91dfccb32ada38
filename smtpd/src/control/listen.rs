//! The control socket, and what a connection to it may cost.
//!
//! In: connections. Out: requests for the router, each with the credentials of its connection.
//! Bounds: connections in all and for each user, octets and fields of a header, time to send one
//! and to wait between requests, time without progress while an answer is taken.

use std::path::Path;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::stall::Unstalled;
use crate::local::{Credentials, ListenError, Listener, Place, Places, Socket};
use crate::observe::{Level, Log};
use crate::receive::Inquiry;

/// How many connections there may be.
const CONNECTIONS_MAX: usize = 256;
/// How many of them one user may have, so that one cannot keep the others out.
const CONNECTIONS_OF_USER_MAX: usize = 64;
/// How many there may be about people's own mail, and how many of one user: each may search the whole
/// trace.
const INQUIRIES_MAX: usize = 8;
const INQUIRIES_OF_USER_MAX: usize = 2;
/// How long a client may take for a header, and between two requests.
const HEADER_WAIT: Duration = Duration::from_secs(10);
/// The longest header.
const HEADER_OCTETS_MAX: usize = 80 * 1024;
/// The most fields of a header.
const FIELDS_MAX: usize = 64;
/// How long a client may leave an answer untaken.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long requests may go on after the daemon was asked to stop.
const DRAIN: Duration = Duration::from_secs(2);

/// Which door a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The control socket.
    Control,
    /// The submit socket: somebody asks about his own mail.
    Submit,
}

/// Opens the control socket with mode 0660, for a group if it exists.
pub(super) fn open(path: &Path, group: &str) -> Result<Listener, ListenError> {
    Listener::open(Socket { path, mode: 0o660, group: Some(group) })
}

/// Serves requests until `stop` turns true; then lets those in progress end.
pub(super) async fn serve(
    listener: Listener,
    router: Router,
    log: Log,
    mut inquiries: mpsc::Receiver<Inquiry>,
    mut stop: watch::Receiver<bool>,
) {
    let (places, own_places) = (Places::default(), Places::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
            Some(Inquiry { stream, credentials }) = inquiries.recv() => {
                // Without a place the connection ends here: it has nothing to lose but a question.
                let place = own_places.take(credentials.uid, INQUIRIES_MAX, INQUIRIES_OF_USER_MAX);
                if let Some(place) = place {
                    let router = router.clone().layer(Extension(credentials));
                    let router = router.layer(Extension(Door::Submit));
                    connections.spawn(converse(stream, router, place, stop.clone()));
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                log.line(Level::Warn, "control-failed").word("error", error).send();
                // Descriptors have run out: others need time to give some back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some((credentials, place)) = admit(&stream, &places) else {
            log.line(Level::Warn, "control-full").send();
            continue;
        };
        let router = router.clone().layer(Extension(credentials)).layer(Extension(Door::Control));
        connections.spawn(converse(stream, router, place, stop.clone()));
    }
    // What has not ended by now is broken off when the set is dropped.
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, ended).await.is_err() {
        log.line(Level::Info, "control-cut").word("connections", connections.len()).send();
    }
}

fn admit(stream: &UnixStream, places: &Places) -> Option<(Credentials, Place)> {
    let credentials = Credentials::of(stream)?;
    let place = places.take(credentials.uid, CONNECTIONS_MAX, CONNECTIONS_OF_USER_MAX)?;
    Some((credentials, place))
}

async fn converse(
    stream: UnixStream,
    router: Router,
    place: Place,
    mut stop: watch::Receiver<bool>,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT)
        .max_buf_size(HEADER_OCTETS_MAX)
        .max_headers(FIELDS_MAX);
    let stream = TokioIo::new(Unstalled::new(stream, STALL_MAX));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // How a client's connection ends is the client's business.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
    drop(place);
}

/// Waits for the word to stop, or for the end of whoever could say it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}
