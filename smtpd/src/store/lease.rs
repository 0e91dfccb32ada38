//! A lease: one message's due recipients, ours alone until the lease is settled or dropped.

use std::io;
use std::sync::Arc;

use mailroot_common::id::QueueId;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::outcome::RemoteHost;
use smtpd_core::queue::recipient::{RecipientStatus, ReturnOrder};
use smtpd_core::queue::turns::is_large;
use smtpd_core::route::smart_host::SmartHost;

use super::body::BodyReader;
use super::log::Log;
use super::memory::Memory;

/// The right to try recipients of one message. Dropping it without settling makes them due again.
#[derive(Debug)]
pub struct Lease {
    /// The message.
    pub id: QueueId,
    /// Its envelope.
    pub envelope: Arc<Envelope>,
    /// The leased recipients, by their place in the envelope, as they stand.
    pub due: Vec<(usize, RecipientStatus)>,
    /// Octets of the body.
    pub size: u64,
    /// The host an operator chose for the message.
    pub via: Option<SmartHost>,
    /// Set if an operator wants the message returned; only [`super::Store::lease_message`] gives
    /// such a lease.
    pub returning: Option<ReturnOrder>,
    pub(super) holder: Holder,
    /// Where it is marked that the end of the message is on its way.
    pub(super) mark: Option<u32>,
}

/// Who takes the recipients back.
#[derive(Debug)]
pub(super) enum Holder {
    /// Nobody: the lease was settled.
    Nobody,
    /// The store on disk, and the content if it is at hand.
    Log(Arc<Log>, Option<Arc<Vec<u8>>>),
    /// The store in memory.
    Memory(Arc<Memory>),
}

impl Lease {
    /// Whether these are all that there was when up to `max` messages were asked for. A large message
    /// ends a lease, whatever there is behind it.
    #[must_use]
    pub fn are_all(leases: &[Self], max: usize) -> bool {
        leases.len() < max && leases.last().is_none_or(|last| !is_large(last.size))
    }

    /// A reader of the body, from its start.
    #[must_use]
    pub fn open(&self) -> BodyReader {
        let reader = match &self.holder {
            Holder::Nobody => None,
            Holder::Log(_, Some(body)) => Some(BodyReader::memory(Arc::clone(body))),
            Holder::Log(log, None) => Some(BodyReader::log(Arc::clone(log), self.id, self.size)),
            Holder::Memory(memory) => memory.read(self.id),
        };
        reader.unwrap_or_else(|| BodyReader::gone(self.id))
    }

    /// The header of the message, at most `max` octets of it.
    ///
    /// # Errors
    ///
    /// Those of [`BodyReader::next`].
    pub async fn read_header(&self, max: usize) -> io::Result<Vec<u8>> {
        self.open().read_header(max).await
    }

    /// The places of the leased recipients.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        self.due.iter().map(|(place, _)| *place)
    }

    /// Notes, for whoever starts after our death, that the end of the message is about to leave for
    /// these recipients. The note ends with the record of what became of them.
    pub fn mark_sending(&mut self, places: &[usize], host: &RemoteHost) {
        if let Holder::Log(log, _) = &self.holder {
            self.mark = log.mark_sending(self.id, self.mark, places, host);
        }
    }

    /// Makes the drop of this lease do nothing.
    pub(super) fn disarm(&mut self) {
        self.holder = Holder::Nobody;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.holder, Holder::Nobody) {
            Holder::Nobody => {}
            Holder::Log(log, _) => log.give_back(self.id, self.places()),
            Holder::Memory(memory) => memory.give_back(self.id, self.places()),
        }
    }
}
