//! Answers that are sent while they are found: one JSON object per line, or plain octets.
//!
//! A bounded channel stands between finding and sending, so that a slow client slows the search
//! down instead of filling memory; when the client goes, the search ends.

use std::future::Future;
use std::io;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use mailroot_common::control::JSON_LINES;
use serde::Serialize;

/// How much is gathered before it is sent.
const GATHERED: usize = 32 * 1024;
/// How many pieces may wait for the client.
const PIECES_MAX: usize = 4;

/// An answer being sent.
pub(super) struct Lines {
    sender: Sender<Bytes, io::Error>,
    gathered: Vec<u8>,
}

/// The client has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// Why an answer breaks off in its middle.
pub(super) enum End {
    /// Nobody takes it any more.
    Gone,
    /// It cannot be continued; the client sees the connection break.
    Broken(io::Error),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Lines {
    /// Adds an object.
    pub(super) async fn push(&mut self, object: &impl Serialize) -> Result<(), End> {
        let written = serde_json::to_writer(&mut self.gathered, object);
        written.map_err(|error| End::Broken(error.into()))?;
        self.gathered.push(b'\n');
        if self.gathered.len() >= GATHERED { Ok(self.flush().await?) } else { Ok(()) }
    }

    /// Adds a line without an object, which shows whether anybody is there.
    pub(super) fn push_empty(&mut self) {
        self.gathered.push(b'\n');
    }

    /// Adds octets.
    pub(super) async fn octets(&mut self, octets: &[u8]) -> Result<(), Gone> {
        self.gathered.extend_from_slice(octets);
        if self.gathered.len() >= GATHERED { self.flush().await } else { Ok(()) }
    }

    /// Sends what was gathered.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.gathered));
        self.sender.send_data(piece).await.map_err(|_| Gone)
    }
}

/// An answer of JSON lines that `produce` fills.
pub(super) fn json_lines<F>(produce: impl FnOnce(Lines) -> F + Send + 'static) -> Response
where
    F: Future<Output = Result<Lines, (Lines, End)>> + Send,
{
    let body = stream(produce);
    ([(header::CONTENT_TYPE, JSON_LINES)], body).into_response()
}

/// An answer of octets that `produce` fills.
pub(super) fn octets<F>(produce: impl FnOnce(Lines) -> F + Send + 'static) -> Response
where
    F: Future<Output = Result<Lines, (Lines, End)>> + Send,
{
    let body = stream(produce);
    ([(header::CONTENT_TYPE, "message/rfc822")], body).into_response()
}

fn stream<F>(produce: impl FnOnce(Lines) -> F + Send + 'static) -> Body
where
    F: Future<Output = Result<Lines, (Lines, End)>> + Send,
{
    let (sender, channel) = Channel::<Bytes, io::Error>::new(PIECES_MAX);
    tokio::spawn(async move {
        match produce(Lines { sender, gathered: Vec::new() }).await {
            // A client that has gone needs no last piece.
            Ok(mut lines) => drop(lines.flush().await),
            Err((_, End::Gone)) => {}
            Err((lines, End::Broken(error))) => lines.sender.abort(error),
        }
    });
    Body::new(channel)
}
