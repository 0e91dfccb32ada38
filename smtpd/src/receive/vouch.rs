//! What is found about who sends a stranger's message, while it arrives.
//!
//! In: sender, header and body of a message whose client may not relay. Out: the findings, as the field
//! that goes in front of the message and as a few words, or a refusal. Where nothing is to be looked at,
//! and for clients that are known, nothing here costs more than a look at a flag.

use std::sync::Arc;

use smtpd_core::message::header::HeaderFacts;
use smtpd_core::sender::{Examination, Identity, SpfFinding, without_results};
use smtpd_core::smtp::refusal::Refusal;
use smtpd_core::smtp::server::Server;

use super::message::Client;
use super::session::Session;
use super::told::Peer;
use crate::sender::Checks;

impl Session<'_> {
    /// Whether mail in the name of the sender may come from this client, where that is asked at once.
    pub(super) async fn vouch_for_sender(&mut self) -> Result<(), Refusal> {
        self.incoming.spf = self.client.vouch_for_sender(&self.server).await?;
        Ok(())
    }
}

/// A message that is being looked at.
#[derive(Debug)]
pub(super) struct Vouch {
    examination: Examination,
    identity: Identity,
    /// The name that results are given under.
    host: Arc<str>,
    /// Octets of the header.
    header_octets: usize,
}

/// How long the field with the findings is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// As long as it must be.
    AsNeeded,
    /// As long as the room that was kept for it.
    Kept,
}

impl Client<'_> {
    /// How mail of this client is looked at; nothing for one that is known, or that passes on the mail that
    /// we have called it for.
    fn checks(&self) -> Option<&Checks> {
        let checks = self.settings.senders.as_deref()?;
        if self.local.is_some() || self.user.is_some() || self.peer == Peer::Called {
            return None;
        }
        let now = self.inner.parts.clock.now();
        self.settings.relay.is_surely_no_submitter(&self.facts, now).then_some(checks)
    }

    fn identity(&self, server: &Server) -> Option<Identity> {
        let helo = server.hello().map_or("", |hello| hello.name.as_str());
        let transaction = server.transaction()?;
        Some(Identity::new(self.facts.client, helo, &transaction.sender))
    }

    /// Whether the client may send in the name of the sender, where mail is refused for that at once.
    pub(super) async fn vouch_for_sender(
        &self,
        server: &Server,
    ) -> Result<Option<SpfFinding>, Refusal> {
        let Some(checks) = self.checks().filter(|checks| checks.wanted.refuse_spf) else {
            return Ok(None);
        };
        let Some(identity) = self.identity(server) else { return Ok(None) };
        let found = Box::pin(checks.spf(&identity)).await;
        found.admit(&checks.wanted).map(|()| Some(found))
    }

    /// Begins to look at a message whose header has come, if it is looked at.
    pub(super) fn begin_to_vouch(&self, server: &Server, facts: &HeaderFacts) -> Option<Vouch> {
        let checks = self.checks()?;
        let identity = self.identity(server)?;
        let header = server.body().get(..facts.header_octets).unwrap_or_default();
        let examination = Examination::begin(header, checks.wanted);
        let (host, header_octets) = (Arc::clone(&checks.host), facts.header_octets);
        Some(Vouch { examination, identity, host, header_octets })
    }

    /// Looks at a message that is in memory, if it is to be looked at.
    pub(super) async fn look(
        &self,
        server: &Server,
        facts: &HeaderFacts,
        spf: Option<&SpfFinding>,
    ) -> Result<Option<Looked>, Refusal> {
        let Some(mut vouch) = self.begin_to_vouch(server, facts) else { return Ok(None) };
        vouch.push(server.body().get(facts.header_octets..).unwrap_or_default());
        let mut header = Vec::new();
        vouch.write_header(server.body(), &mut header);
        let Vouched { field, words } = self.vouch(vouch, Room::AsNeeded, spf).await?;
        Ok(Some(Looked { field, header, words }))
    }

    /// What was found about a message that is complete, unless it is refused for it.
    pub(super) async fn vouch(
        &self,
        vouch: Vouch,
        room: Room,
        spf: Option<&SpfFinding>,
    ) -> Result<Vouched, Refusal> {
        let checks = self.settings.senders.as_deref().ok_or(Refusal::LocalTrouble)?;
        let room = (room == Room::Kept).then(|| vouch.room());
        let Vouch { examination, identity, .. } = vouch;
        let examined = examination.finish().trusting(&checks.trusted);
        let now = self.inner.parts.clock.now();
        let found = Box::pin(checks.judge(&examined, &identity, spf, now)).await;
        found.admit(&checks.wanted)?;
        let mut field = Vec::new();
        found.write(&checks.host, room, &mut field);
        Ok(Vouched { field, words: found.summary() })
    }
}

impl Vouch {
    /// Octets to be kept free in front of the message for what will be found.
    pub(super) fn room(&self) -> usize {
        self.examination.room(&self.identity, &self.host)
    }

    /// Writes the header without results that bear our name; how many octets of the message that was.
    pub(super) fn write_header(&self, message: &[u8], out: &mut Vec<u8>) -> usize {
        let header = message.get(..self.header_octets).unwrap_or_default();
        out.extend_from_slice(&without_results(header, &self.host));
        header.len()
    }

    /// Takes a piece of the body.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.examination.push(piece);
    }
}

/// A message in memory that was looked at.
#[derive(Debug)]
pub(super) struct Looked {
    /// The field with the findings, with its line end.
    pub(super) field: Vec<u8>,
    /// The message's header, without results that bear our name.
    pub(super) header: Vec<u8>,
    /// The findings in a few words.
    pub(super) words: String,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Vouched {
    /// The field, with its line end and as long as the room for it.
    pub(super) field: Vec<u8>,
    /// The same in a few words.
    pub(super) words: String,
}
