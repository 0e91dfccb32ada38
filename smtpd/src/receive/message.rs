//! One message on its way from a session to the queue.
//!
//! In: the machine's body octets as they come. Out: a draft with our trace field in front, made
//! durable. A body stays in memory while it is small and there is memory for it; else it goes
//! to a file of the queue while it arrives, so that a message costs the same whatever its size.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::message::header::{self, HeaderEnd, HeaderFacts};
use smtpd_core::message::received::{self, Entry, Protocol, Tls, Trace};
use smtpd_core::policy::relay::{RelayPolicy, RelayRule};
use smtpd_core::policy::{Facts, NameFact};
use smtpd_core::queue::envelope::{BodyKind, Envelope, Origin, Recipient, Via};
use smtpd_core::sender::SpfFinding;
use smtpd_core::smtp::refusal::Refusal;
use smtpd_core::smtp::server::{self as machine, Server};
use smtpd_core::trace::note::{Admission, Note};

use super::filter::Arrived;
use super::secure::Certificate;
use super::told::Peer;
use super::vouch::{Looked, Vouch};
use super::{Inner, LocalUser, Settings};
use crate::filter::{amend, recipients_by};
use crate::milter::{Milters, Work};
use crate::observe::{Follow, Level};
use crate::queue::{Body, CommitError, Draft, LargeBodyWriter};
use crate::users::User;

/// Bodies under this size do not wait for their share of `limits.body_memory`; the number of
/// sessions bounds them.
const SMALL_OCTETS: usize = 16 << 10;
/// How many messages of a session its client stays to see.
const FOLLOWED_MAX: usize = 100;
/// How much of a body that goes to a file gathers in memory first.
const PIECE_OCTETS: usize = 64 << 10;
/// What our own fields may add without a body in memory passing the store's bound.
const MEMORY_OCTETS_MAX: usize = Body::MEMORY_MAX - received::PREFIX_OCTETS_MAX;

/// What a session knows of its client besides the dialogue.
#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) inner: &'a Inner,
    pub(super) settings: &'a Settings,
    pub(super) facts: Facts,
    pub(super) session: mailroot_common::id::SessionId,
    /// The user of this machine it is, if it came by the submit socket.
    pub(super) local: Option<Arc<LocalUser>>,
    pub(super) peer: Peer,
    /// What the session is protected by.
    pub(super) tls: Option<Tls>,
    /// What it has shown of itself with a good certificate.
    pub(super) certificate: Option<Box<Certificate>>,
    /// Who has logged in.
    pub(super) user: Option<Arc<User>>,
    /// Whose verifier the client was shown, while it proves that it knows the password.
    pub(super) asked: Option<Arc<User>>,
}

/// The body that is arriving.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    memory: &'a AtomicU64,
    large: Option<Large>,
    /// The file could not be written; the rest of the body is taken and forgotten.
    failed: Option<Refusal>,
    /// Octets counted into the memory of all sessions.
    counted: u64,
    /// The rule that let a recipient of the message in; one that let a stranger's in, if there is.
    pub(super) rule: Option<RelayRule>,
    /// What was found about the sender before the message came.
    pub(super) spf: Option<SpfFinding>,
    /// Messages of this session that its client stays to see.
    followed: Vec<Follow>,
}

/// A body that goes to a file.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) id: QueueId,
    pub(super) facts: HeaderFacts,
    pub(super) writer: LargeBodyWriter,
    pub(super) eight_bit: bool,
    /// Octets of our own fields in front of it.
    pub(super) front: u64,
    /// Octets of its header behind them.
    pub(super) header: u64,
    /// What is found about its sender, if that is looked at.
    pub(super) vouch: Option<Vouch>,
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}

impl<'a> Incoming<'a> {
    /// Nothing has come yet; `memory` counts the octets that all sessions hold.
    pub(super) fn new(memory: &'a AtomicU64) -> Self {
        let followed = Vec::new();
        Self { memory, large: None, failed: None, counted: 0, rule: None, spf: None, followed }
    }

    /// Remembers the rule that let a recipient in.
    pub(super) fn note_rule(&mut self, rule: RelayRule) {
        if self.rule.is_none() || rule != RelayRule::LocalDomain {
            self.rule = Some(rule);
        }
    }

    /// Looks at what has come; takes it to a file if it is too much for memory.
    pub(super) async fn on_octets(&mut self, client: &Client<'_>, server: &mut Server) {
        if server.body_octets().is_none() {
            self.forget();
            return;
        }
        let here = server.body().len();
        if self.failed.is_some() {
            server.body_taken();
        } else if self.large.is_some() {
            if here >= PIECE_OCTETS {
                self.append(client, server, 0).await;
            }
        } else if here > SMALL_OCTETS && !self.fits(client, here) {
            self.begin_large(client, server).await;
        }
    }

    /// Counts the body into the memory of all sessions; false if it has to go to a file.
    fn fits(&mut self, client: &Client<'_>, here: usize) -> bool {
        let more = (here as u64).saturating_sub(self.counted);
        let all = self.memory.fetch_add(more, Ordering::Relaxed) + more;
        self.counted += more;
        here <= MEMORY_OCTETS_MAX && all <= client.settings.body_memory_max
    }

    /// Nothing of the message is wanted any more, or all of it is stored.
    pub(super) fn forget(&mut self) {
        self.uncount();
        self.large = None;
        self.failed = None;
    }

    fn uncount(&mut self) {
        if self.counted > 0 {
            self.memory.fetch_sub(mem::take(&mut self.counted), Ordering::Relaxed);
        }
    }

    async fn begin_large(&mut self, client: &Client<'_>, server: &mut Server) {
        let facts = header::scan(server.body(), client.settings.session.body.header_max);
        // Our fields stand in front and depend on the header, whose size is limited.
        let limit = client.settings.session.body.header_max;
        if facts.end == HeaderEnd::Open && server.body().len() < limit {
            return;
        }
        let id = client.inner.parts.queue.new_id();
        let vouch = client.begin_to_vouch(server, &facts);
        let mut front = Vec::with_capacity(received::PREFIX_OCTETS_MAX);
        if let Some(vouch) = &vouch {
            front.resize(vouch.room(), b' ');
        }
        client.write_front(server, id, &facts, &mut front);
        let at = front.len() as u64;
        let (written, header) = match &vouch {
            Some(vouch) => {
                let written = vouch.write_header(server.body(), &mut front);
                (written, front.len() as u64 - at)
            }
            None => (0, facts.header_octets as u64),
        };
        let begun = match client.inner.parts.queue.large_body().await {
            Ok(mut writer) => writer.append(&front).await.map(|()| writer),
            Err(error) => Err(error),
        };
        match begun {
            Ok(writer) => {
                self.large =
                    Some(Large { id, facts, writer, eight_bit: false, front: at, header, vouch });
                self.append(client, server, written).await;
            }
            Err(error) => self.fail(client, &error, server),
        }
        self.uncount();
    }

    /// Takes what has come behind the octets that were written already.
    async fn append(&mut self, client: &Client<'_>, server: &mut Server, written: usize) {
        let Some(large) = &mut self.large else { return };
        large.eight_bit |= !server.body().is_ascii();
        let octets = server.body().get(written..).unwrap_or_default();
        if let Some(vouch) = &mut large.vouch {
            vouch.push(octets);
        }
        match large.writer.append(octets).await {
            Ok(()) => server.body_taken(),
            Err(error) => self.fail(client, &error, server),
        }
    }

    fn fail(&mut self, client: &Client<'_>, error: &CommitError, server: &mut Server) {
        self.large = None;
        self.failed = Some(client.trouble(error));
        server.body_taken();
    }

    /// Makes the complete message durable.
    pub(super) async fn keep(
        &mut self,
        client: &Client<'_>,
        server: &mut Server,
        filters: &mut Milters,
    ) -> Result<QueueId, Refusal> {
        if self.large.is_some() {
            self.append(client, server, 0).await;
        }
        if let Some(refusal) = self.failed {
            return Err(refusal);
        }
        let spf = self.spf.as_ref();
        let arrived = match self.large.take() {
            Some(large) => Box::pin(client.filter_large(server, large, (filters, spf))).await?,
            None if filters.are_none() => client.assemble(server, spf).await?,
            None => Box::pin(client.filter(server, filters, spf)).await?,
        };
        let Arrived { id, facts, body, eight_bit, work, checks } = arrived;
        if facts.hops >= client.settings.hops_max {
            return Err(Refusal::TooManyHops);
        }
        let size = body.size();
        let recipients = match recipients_by(&work, server.take_recipients()) {
            Ok(wanted) => client.follow_aliases(id, wanted).await?,
            Err(named) => {
                let mut envelope =
                    client.envelope(server, id, named, facts).ok_or(Refusal::LocalTrouble)?;
                envelope.origin.checks = checks;
                let why = (work.discarded_by.as_deref(), self.rule.as_ref());
                client.discarded((id, size), &envelope, why);
                return Ok(id);
            }
        };
        let mut envelope =
            client.envelope(server, id, recipients, facts).ok_or(Refusal::LocalTrouble)?;
        amend(&work, &mut envelope);
        envelope.origin.checks = checks;
        if eight_bit && envelope.body == BodyKind::SevenBit {
            // Many clients send what they did not declare; the next hop is told what it is.
            envelope.body = BodyKind::EightBitMime;
        }
        let line = client.received_line(id, &envelope, size);
        let note = client.note(id, &envelope, size, self.rule.as_ref());
        let draft = Draft { envelope, body };
        if server.is_verbose() && self.followed.len() < FOLLOWED_MAX {
            self.followed.push(client.inner.parts.dialogues.follow(id));
        }
        client.inner.parts.queue.accept_as(id, draft).await.map_err(|e| client.trouble(&e))?;
        line.send();
        if let Some(note) = note {
            client.inner.parts.trace.record(note);
        }
        client.inner.parts.counters.messages_received.add_one();
        client.inner.parts.counters.octets_received.add(size);
        Ok(id)
    }
}

impl Client<'_> {
    /// What the machine goes by for it.
    pub(super) fn rules(&self, now: Timestamp) -> &Arc<machine::Settings> {
        match &self.local {
            Some(_) => &self.settings.local,
            None => self.settings.rules_for(&self.facts, now),
        }
    }

    /// What its recipients are judged by.
    pub(super) fn relay(&self) -> &RelayPolicy {
        match &self.local {
            Some(_) => self.settings.submission.relay(),
            None => &self.settings.relay,
        }
    }

    /// A body that is in memory, with our fields in front: the one copy it is stored from.
    async fn assemble(
        &self,
        server: &mut Server,
        spf: Option<&SpfFinding>,
    ) -> Result<Arrived, Refusal> {
        let facts = header::scan(server.body(), self.settings.session.body.header_max);
        let id = self.inner.parts.queue.new_id();
        let eight_bit = !server.body().is_ascii();
        let mut octets = Vec::with_capacity(server.body().len() + FRONT_OCTETS);
        let mut checks = None;
        if let Some(Looked { field, header, words }) = self.look(server, &facts, spf).await? {
            octets.extend_from_slice(&field);
            self.write_front(server, id, &facts, &mut octets);
            octets.extend_from_slice(&header);
            octets.extend_from_slice(server.body().get(facts.header_octets..).unwrap_or_default());
            checks = Some(words);
        } else {
            self.write_front(server, id, &facts, &mut octets);
            octets.extend_from_slice(server.body());
        }
        server.body_taken();
        let body = Body::Memory(octets);
        Ok(Arrived { id, facts, body, eight_bit, work: Work::default(), checks })
    }

    pub(super) fn write_front(
        &self,
        server: &Server,
        id: QueueId,
        facts: &HeaderFacts,
        out: &mut Vec<u8>,
    ) {
        let host = &self.settings.session.host;
        let now = self.inner.parts.clock.now();
        let (helo, esmtp) = server.hello().map_or(("", false), |h| (h.name.as_str(), h.esmtp));
        let utf8 = server.transaction().is_some_and(|transaction| transaction.smtputf8);
        let only_recipient = match server.transaction().map(|t| t.recipients.as_slice()) {
            Some([recipient]) => Some(&recipient.mailbox),
            _ => None,
        };
        let protocol = if esmtp {
            let (tls, authenticated) = (self.tls.is_some(), self.user.is_some());
            Protocol::Esmtp { tls, authenticated, utf8 }
        } else {
            Protocol::Smtp
        };
        let name = self.name();
        let entry = match &self.local {
            Some(local) => {
                Entry::Submit { user: self.settings.submission.names_user.then_some(&local.name) }
            }
            None => Entry::Smtp {
                helo,
                name,
                client: self.facts.client,
                unverified: self.settings.reverse_dns && !self.is_verified(helo),
                protocol,
                tls: self.tls,
            },
        };
        let priority = server.transaction().map(|it| it.wishes.priority).unwrap_or_default();
        Trace { entry, by: host, id: Some(id), only_recipient, priority, at: now }.write(out);
        let date = (self.settings.add_date && !facts.has_date).then_some(now);
        let message_id = self.adds_message_id(facts).then_some(id);
        received::write_missing(out, date, message_id, host);
        if facts.needs_empty_line() {
            out.extend_from_slice(b"\r\n");
        }
    }

    fn adds_message_id(&self, facts: &HeaderFacts) -> bool {
        self.settings.add_message_id && !facts.has_message_id
    }

    /// The client's name, if DNS was asked and gave one that leads back.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.facts.name {
            NameFact::Names(names) => names.first().map(|name| name.as_str()),
            NameFact::Unknown | NameFact::None => None,
        }
    }

    fn is_verified(&self, helo: &str) -> bool {
        match &self.facts.name {
            NameFact::Names(names) => names.iter().any(|n| n.as_str().eq_ignore_ascii_case(helo)),
            NameFact::Unknown | NameFact::None => false,
        }
    }

    fn envelope(
        &self,
        server: &Server,
        id: QueueId,
        recipients: Vec<Recipient>,
        facts: HeaderFacts,
    ) -> Option<Envelope> {
        let host = &self.settings.session.host;
        let added_id = self.adds_message_id(&facts).then(|| received::message_id(id, host));
        let transaction = server.transaction()?;
        let accepted_at = self.inner.parts.clock.now();
        Some(Envelope {
            hold: None,
            sender: transaction.return_path(),
            recipients,
            accepted_at,
            body: transaction.body,
            smtputf8: transaction.smtputf8,
            ret: transaction.ret,
            envid: transaction.envid.clone(),
            hops: facts.hops + 1,
            origin: Origin {
                via: if self.local.is_some() { Via::Submit } else { Via::Smtp },
                client: self.local.is_none().then_some(self.facts.client),
                helo: server.hello().map(|hello| hello.name.clone()),
                session: Some(self.session),
                source: None,
                user: self.user_name().map(str::to_owned),
                uid: self.uid(),
                checks: None,
            },
            // Whoever requires TLS has not meant it (RFC 8689 section 4.1).
            tls_optional: facts.tls_optional && !transaction.wishes.require_tls,
            message_id: facts.message_id.or(added_id),
            subject: facts.subject,
            wishes: transaction.wishes,
        })
    }

    fn received_line(
        &self,
        id: QueueId,
        envelope: &Envelope,
        size: u64,
    ) -> crate::observe::Line<'_> {
        let log = &self.inner.parts.log;
        // Where there are several, what becomes of each names it.
        let only = match &*envelope.recipients {
            [only] => Some(only),
            _ => None,
        };
        let line = log
            .line(Level::Info, "received")
            .word("server", &self.inner.parts.name)
            .word("id", id)
            .word("sid", self.session)
            .word("client", self.facts.client)
            .word("via", envelope.origin.via.as_str())
            .word("size", size)
            .word("nrcpt", envelope.recipients.len())
            .maybe("tls", self.tls.map(|tls| tls.version))
            .maybe("cert", self.certificate.as_ref().map(|it| &it.fingerprint))
            .word("user", self.user_name().unwrap_or("-"))
            .maybe("uid", self.uid())
            .word("from", format_args!("<{}>", envelope.sender))
            .maybe("to", only.map(|only| format!("<{}>", only.mailbox)))
            .text("msgid", envelope.message_id.as_deref().unwrap_or_default())
            .text("subject", envelope.subject.as_deref().unwrap_or_default());
        let line = match &envelope.origin.checks {
            Some(checks) => line.text("checks", checks),
            None => line,
        };
        match envelope.wishes {
            wishes if wishes.are_none() => line,
            wishes => line.text("wishes", wishes),
        }
    }

    /// What is remembered of the message; nothing where nothing is.
    pub(super) fn note(
        &self,
        id: QueueId,
        envelope: &Envelope,
        size: u64,
        rule: Option<&RelayRule>,
    ) -> Option<Note> {
        let parts = &self.inner.parts;
        let admitted = Admission {
            rule: rule.map(|rule| rule as &dyn std::fmt::Display),
            name: self.name(),
            subjects: parts.trace.wants_subjects(),
            tls: self.tls.map(|tls| tls.version),
            certificate: self.certificate.as_ref().map(|it| &*it.fingerprint),
        };
        let is_on = parts.trace.is_on();
        is_on.then(|| Note::received(&parts.name, id, envelope, size, admitted))
    }

    /// What the peer hears when the queue cannot do its part; the operator hears all of it.
    pub(super) fn trouble(&self, error: &CommitError) -> Refusal {
        let refusal = match error {
            error if error.is_full() => Refusal::StorageFull,
            error if error.is_of_the_message() => Refusal::EnvelopeTooLarge,
            _ => Refusal::LocalTrouble,
        };
        let line = self.inner.parts.log.line(Level::Error, "not-stored");
        line.word("server", &self.inner.parts.name)
            .word("sid", self.session)
            .word("reason", refusal.reason())
            .word("error", error)
            .send();
        refusal
    }
}

/// What our fields take in an ordinary message.
pub(super) const FRONT_OCTETS: usize = 512;
