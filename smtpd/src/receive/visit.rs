//! A session's place among the others, from the first word to the last.

use std::sync::Arc;
use std::time::Duration;

use smtpd_core::policy::limit::Seat;
use smtpd_core::smtp::refusal::Refusal;
use smtpd_core::smtp::server::End;
use tokio::io::AsyncWriteExt;

use super::caught::Caught;
use super::listener::Entry;
use super::registry::Live;
use super::session::converse;
use super::{Inner, Inquiry, LocalUser, Settings, count, lock};
use crate::local::Place;
use crate::net::Stream;
use crate::observe::Level;

/// How long a client may take to hear that its session has failed.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A session's place among the others, given back however the session ends.
pub(super) struct Visit {
    pub(super) inner: Arc<Inner>,
    pub(super) live: Arc<Live>,
    seat: Option<Seat>,
    /// The user of this machine who came by the submit socket.
    pub(super) local: Option<Arc<LocalUser>>,
    _place: Option<Place>,
    /// How the session begins.
    pub(super) entry: Entry,
}

impl Visit {
    pub(super) fn begin(inner: Arc<Inner>, seat: Seat, live: Arc<Live>, entry: Entry) -> Self {
        inner.registry.add(Arc::clone(&live));
        Self { inner, live, seat: Some(seat), local: None, _place: None, entry }
    }

    pub(super) fn of_local(
        inner: Arc<Inner>,
        live: Arc<Live>,
        user: Arc<LocalUser>,
        place: Place,
    ) -> Self {
        inner.registry.add(Arc::clone(&live));
        let entry = Entry::Clear;
        Self { inner, live, seat: None, local: Some(user), _place: Some(place), entry }
    }

    /// The client speaks another protocol from here on; without a listener to it, its end is near.
    fn hand_over(&self, stream: Stream) {
        if let (Some(local), Stream::Unix(stream)) = (&self.local, stream) {
            let inquiry = Inquiry { stream, credentials: local.credentials };
            // When too many wait, the connection ends: a question can be asked again.
            let _ = self.inner.parts.inquiries.try_send(inquiry);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            lock(&self.inner.counts).leave(seat);
        }
        self.inner.registry.remove(self.live.id);
    }
}

/// Attends to a client until one side ends the session. A panic ends this session only.
pub(super) async fn attend(visit: Visit, mut stream: Stream, settings: Arc<Settings>) {
    let ended = Caught::new(converse(&visit, &mut stream, settings)).await;
    if matches!(ended, Ok(Some(End::Inquiry))) {
        visit.hand_over(stream);
    } else if ended.is_err() {
        count::count(&visit.inner.parts.counters, Refusal::Fault);
        let line = visit.inner.parts.log.line(Level::Error, "session-fault");
        line.word("server", &visit.inner.parts.name)
            .word("sid", visit.live.id)
            .word("client", visit.live.client().ip())
            .send();
        let mut words = Vec::new();
        Refusal::Fault.write(&mut words);
        // The client may be gone; there is nothing else to do for it.
        let _ = tokio::time::timeout(LAST_WORDS, stream.write_all(&words)).await;
    }
}
