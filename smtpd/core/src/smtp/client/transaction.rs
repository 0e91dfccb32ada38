//! One message for one peer: what is asked, what can be sent, and what became of it.

use std::collections::HashSet;
use std::io::Write;

use mailroot_common::address::{Host, ReversePath};
use mailroot_common::status::{Class, EnhancedCode};

use super::super::extension::{PeerExtensions, PeerSize};
use super::super::reply::Reply;
use super::{Ending, Fate, Finished};
use crate::queue::envelope::{BodyKind, Notify, Recipient, Ret};
use crate::queue::outcome::{AttemptResult, Stage};
use crate::queue::wishes::{By, ByMode, Priority};

/// One message for one peer.
#[derive(Clone, Debug)]
pub struct Transaction<'a> {
    /// MAIL FROM.
    pub sender: &'a ReversePath,
    /// RCPT TO, with the wishes for reports.
    pub recipients: Vec<&'a Recipient>,
    /// The sender's name for the transaction, in xtext.
    pub envid: Option<&'a str>,
    /// How much of the message reports return.
    pub ret: Option<Ret>,
    /// The message's octets.
    pub size: u64,
    /// What the body is.
    pub body: BodyKind,
    /// Whether the header has characters beyond ASCII; addresses are looked at anyway.
    pub smtputf8: bool,
    /// The time that is left (RFC 2852).
    pub by: Option<By>,
    /// Its priority (RFC 6710).
    pub priority: Priority,
    /// Whether it goes under TLS all the way or not at all (RFC 8689).
    pub require_tls: bool,
}

/// What is said of a host that could not be trusted to hand such a message on (RFC 8689).
pub const NO_REQUIRETLS: &str =
    "the message is to go under TLS all the way, which the host does not offer (REQUIRETLS)";
/// Recipients given to one peer in one transaction when it names no limit: what every server
/// must take (RFC 5321 section 4.5.3.1.8).
const RECIPIENTS_UNSAID: usize = 100;
/// Recipients in one transaction, whatever the peer would take.
const RECIPIENTS_MAX: usize = 1000;

impl Transaction<'_> {
    /// Why this peer cannot be given the message at all.
    pub(super) fn obstacle(&self, peer: &PeerExtensions, is_secured: bool) -> Option<Ending> {
        let failed = |subject, detail, text: String| {
            Some(Ending::local(Stage::Mail, EnhancedCode::permanent(subject, detail), text))
        };
        if self.require_tls && !is_secured {
            return failed(7, 10, "the message is not to be sent without TLS (REQUIRETLS)".into());
        }
        if self.require_tls && !peer.require_tls {
            return failed(7, 30, NO_REQUIRETLS.into());
        }
        if let PeerSize::AtMost(limit) = peer.size
            && self.size > limit.as_u64()
        {
            let text =
                format!("the message has {} octets, the host takes {}", self.size, limit.as_u64());
            return failed(3, 4, text);
        }
        match self.body {
            BodyKind::EightBitMime if !peer.eight_bit_mime => {
                return failed(6, 3, "the host does not take 8-bit messages (8BITMIME)".into());
            }
            BodyKind::BinaryMime if !peer.binary_mime => {
                return failed(6, 3, "the host does not take binary messages (BINARYMIME)".into());
            }
            BodyKind::SevenBit | BodyKind::EightBitMime | BodyKind::BinaryMime => {}
        }
        let sender_ascii = self.sender.mailbox().is_none_or(|mailbox| mailbox.is_ascii());
        if !peer.smtputf8 && (self.smtputf8 || !sender_ascii) {
            return failed(6, 7, "the host does not take SMTPUTF8 messages".into());
        }
        self.too_late(peer)
    }

    /// Why a message that is wanted back rather than late is not given to this peer (RFC 2852
    /// section 4): it would not know, or has said that it needs longer.
    fn too_late(&self, peer: &PeerExtensions) -> Option<Ending> {
        let left = self.by.filter(|by| by.mode == ByMode::Return)?.seconds;
        let (detail, text) = match peer.deliver_by {
            None => {
                let text = "the host cannot be asked to deliver in time or not at all (DELIVERBY)";
                (EnhancedCode::permanent(3, 3), text.to_owned())
            }
            Some(least) if i64::from(left) >= i64::from(least).max(1) => return None,
            Some(least) => {
                let text = format!("{left}s are left, the host wants at least {}s", least.max(1));
                (EnhancedCode::permanent(4, 7), text)
            }
        };
        Some(Ending::local(Stage::Mail, detail, text))
    }

    /// Which recipients go into this transaction: places in the list. The others have their fate
    /// already.
    fn choose(&self, peer: &PeerExtensions, fates: &mut [Option<Fate>]) -> Vec<usize> {
        let most = peer.recipients_max.map_or(RECIPIENTS_UNSAID, |most| most as usize);
        let most = most.min(RECIPIENTS_MAX);
        let domains_most = peer.recipient_domains_max.map_or(usize::MAX, |most| most as usize);
        let mut domains: HashSet<&Host> = HashSet::new();
        let mut chosen = Vec::with_capacity(self.recipients.len().min(most));
        for (place, recipient) in self.recipients.iter().enumerate() {
            if !peer.smtputf8 && !recipient.mailbox.is_ascii() {
                let text = "the host does not take addresses beyond ASCII (SMTPUTF8)";
                let status = EnhancedCode::permanent(6, 7);
                fates[place] = Some(Fate::Ended(Ending::local(Stage::Rcpt, status, text)));
                continue;
            }
            let mut fits = chosen.len() < most;
            if fits && domains_most != usize::MAX {
                let host = recipient.mailbox.host();
                fits = domains.contains(host) || domains.len() < domains_most;
                if fits {
                    domains.insert(host);
                }
            }
            if fits {
                chosen.push(place);
            } else {
                fates[place] = Some(Fate::Unsent);
            }
        }
        chosen
    }

    /// Appends MAIL with the parameters the peer understands.
    pub(super) fn write_mail(&self, peer: &PeerExtensions, chosen: &[usize], out: &mut Vec<u8>) {
        put(out, format_args!("MAIL FROM:<{}>", self.sender));
        if peer.size != PeerSize::Unknown {
            put(out, format_args!(" SIZE={}", self.size));
        }
        match self.body {
            BodyKind::SevenBit => {}
            BodyKind::EightBitMime => out.extend_from_slice(b" BODY=8BITMIME"),
            BodyKind::BinaryMime => out.extend_from_slice(b" BODY=BINARYMIME"),
        }
        let beyond_ascii = self.smtputf8
            || self.sender.mailbox().is_some_and(|mailbox| !mailbox.is_ascii())
            || chosen.iter().any(|&place| !self.recipients[place].mailbox.is_ascii());
        if beyond_ascii {
            out.extend_from_slice(b" SMTPUTF8");
        }
        if peer.dsn {
            match self.ret {
                Some(Ret::Full) => out.extend_from_slice(b" RET=FULL"),
                Some(Ret::Headers) => out.extend_from_slice(b" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = self.envid {
                put(out, format_args!(" ENVID={envid}"));
            }
        }
        if let (Some(by), Some(_)) = (self.by, peer.deliver_by) {
            put(out, format_args!(" BY={by}"));
        }
        if peer.mt_priority && self.priority != Priority::NORMAL {
            put(out, format_args!(" MT-PRIORITY={}", self.priority));
        }
        if self.require_tls {
            out.extend_from_slice(b" REQUIRETLS");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Appends RCPT for the recipient at this place.
    pub(super) fn write_rcpt(&self, peer: &PeerExtensions, place: usize, out: &mut Vec<u8>) {
        let recipient = self.recipients[place];
        put(out, format_args!("RCPT TO:<{}>", recipient.mailbox));
        if peer.dsn {
            if let Some(notify) = self.notify(peer, recipient) {
                write_notify(notify, out);
            }
            if let Some(orcpt) = &recipient.orcpt {
                put(out, format_args!(" ORCPT={orcpt}"));
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// What the peer is to tell the sender. One that is not told by when the message is wanted tells of
    /// delay (RFC 2852 section 4.1.4.2), unless that time is up or nothing is to be told.
    fn notify(&self, peer: &PeerExtensions, recipient: &Recipient) -> Option<Notify> {
        let is_wanted = |by: By| by.mode == ByMode::Notify && by.seconds > 0;
        if peer.deliver_by.is_some() || !self.by.is_some_and(is_wanted) {
            return recipient.notify;
        }
        match recipient.notify {
            Some(Notify::NEVER) => Some(Notify::NEVER),
            Some(notify) => Some(Notify { delay: true, ..notify }),
            None => Some(Notify { success: false, failure: true, delay: true }),
        }
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing into a vector cannot fail");
}

fn write_notify(notify: Notify, out: &mut Vec<u8>) {
    let wishes =
        [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    out.extend_from_slice(b" NOTIFY=");
    if notify == Notify::NEVER {
        out.extend_from_slice(b"NEVER");
        return;
    }
    let mut first = true;
    for (_, word) in wishes.iter().filter(|(wished, _)| *wished) {
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(word.as_bytes());
    }
}

/// How the body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// DATA, dots stuffed.
    Data,
    /// BDAT, as it is.
    Bdat,
}

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// MAIL, RCPT and DATA are being answered.
    Envelope,
    /// The body is being sent.
    Body,
    /// The body's end has been sent, or a lone dot that takes the transaction back.
    End,
}

/// A transaction under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) progress: Progress,
    pub(super) transport: Transport,
    pub(super) chosen: Vec<usize>,
    /// Fates known so far, by place in the list.
    fates: Vec<Option<Fate>>,
    accepted: Vec<usize>,
    dsn: bool,
    deliver_by: bool,
    /// RCPT commands not yet answered.
    pub(super) unanswered: usize,
}

impl Running {
    pub(super) fn new(transaction: &Transaction<'_>, peer: &PeerExtensions) -> Self {
        let mut fates = vec![None; transaction.recipients.len()];
        let chosen = transaction.choose(peer, &mut fates);
        // Counted octets need no search for dots, on either side (RFC 3030).
        let transport = if peer.chunking { Transport::Bdat } else { Transport::Data };
        Self {
            progress: Progress::Envelope,
            transport,
            unanswered: chosen.len(),
            accepted: Vec::with_capacity(chosen.len()),
            chosen,
            fates,
            dsn: peer.dsn,
            deliver_by: peer.deliver_by.is_some(),
        }
    }

    /// The recipients that wait for the body, by their places in the list.
    pub(super) fn accepted(&self) -> &[usize] {
        &self.accepted
    }

    /// Whether a recipient waits for the body.
    pub(super) fn has_accepted(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// Takes the reply to the RCPT of the recipient at this place.
    pub(super) fn on_rcpt(&mut self, place: usize, reply: Reply) {
        self.unanswered = self.unanswered.saturating_sub(1);
        if self.fates[place].is_some() {
            return; // MAIL was refused; this reply says nothing new
        }
        if reply.class() == Class::Success {
            self.accepted.push(place);
        } else if self.has_accepted() && is_too_many(&reply) {
            self.fates[place] = Some(Fate::Unsent);
        } else {
            self.fates[place] = Some(Fate::Ended(Ending::from_reply(reply, Stage::Rcpt)));
        }
    }

    /// Ends the attempt in the same way for every recipient that has no fate yet.
    pub(super) fn end_all(&mut self, ending: &Ending) {
        self.accepted.clear();
        for fate in self.fates.iter_mut().filter(|fate| fate.is_none()) {
            *fate = Some(Fate::Ended(ending.clone()));
        }
    }

    /// Gives back every recipient that has no fate yet.
    pub(super) fn give_back(&mut self) {
        self.accepted.clear();
        for fate in self.fates.iter_mut().filter(|fate| fate.is_none()) {
            *fate = Some(Fate::Untried);
        }
    }

    /// The connection is of no use any more. `tried` says whether the transaction counts as an
    /// attempt; `decided` that the peer itself said how it ends.
    pub(super) fn break_off(&mut self, cause: &Ending, tried: bool, decided: bool) {
        match self.progress {
            Progress::Envelope if !tried => self.give_back(),
            Progress::Envelope => self.end_all(cause),
            Progress::Body => self.end_all(&cause.at_stage(Stage::Data)),
            Progress::End => {
                let mut ending = cause.at_stage(Stage::End);
                if !decided {
                    ending.result = AttemptResult::InDoubt;
                }
                self.end_all(&ending);
            }
        }
    }

    /// The transaction's result, once every recipient has its fate.
    pub(super) fn finish(self) -> Finished {
        let fates = self.fates.into_iter().map(|fate| fate.unwrap_or(Fate::Untried)).collect();
        Finished { fates, dsn: self.dsn, deliver_by: self.deliver_by }
    }
}

/// Whether the reply to RCPT means "no more in this transaction": 452, and 552 as old servers
/// say it (RFC 5321 section 4.5.3.1.10), unless the enhanced code speaks of something else.
fn is_too_many(reply: &Reply) -> bool {
    let enhanced = reply.enhanced();
    match reply.code().as_u16() {
        452 => enhanced.is_none_or(|code| {
            code == EnhancedCode::transient(5, 3)
                || code == EnhancedCode::transient(3, 1)
                || code == EnhancedCode::transient(0, 0)
        }),
        552 => enhanced.is_none_or(|code| code == EnhancedCode::permanent(5, 3)),
        _ => false,
    }
}
