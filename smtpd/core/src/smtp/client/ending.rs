//! How an attempt ended: for one recipient, for a transaction, for a connection.

use mailroot_common::status::{Class, EnhancedCode, ReplyCode};
use mailroot_common::units::Timestamp;

use super::super::reply::Reply;
use crate::queue::congestion;
use crate::queue::outcome::{AttemptResult, Outcome, RemoteHost, Stage};

/// Service closing transmission channel (RFC 5321 section 3.8).
const CLOSING: u16 = 421;

/// How an attempt ended for a recipient: an [`Outcome`] that lacks the moment and the host, which
/// the driver knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Delivered, to be tried again, failed, or not to be known.
    pub result: AttemptResult,
    /// The remote's enhanced code, or ours where it gave none.
    pub status: EnhancedCode,
    /// The remote's reply code, if a reply decided.
    pub code: Option<ReplyCode>,
    /// The remote's words, or ours where it said nothing. Printable; lines joined by LF.
    pub text: String,
    /// Where it was decided.
    pub stage: Stage,
}

impl Ending {
    /// The remote decided. A reply without enhanced code gets `x.0.0` of its class.
    #[must_use]
    pub fn from_reply(reply: Reply, stage: Stage) -> Self {
        let class = reply.class();
        let result = match class {
            Class::Success => AttemptResult::Delivered,
            Class::Transient => AttemptResult::Deferred,
            Class::Permanent => AttemptResult::Failed,
        };
        let status = reply.enhanced().unwrap_or_else(|| EnhancedCode::new(class, 0, 0));
        Self { result, status, code: Some(reply.code()), text: reply.into_text(), stage }
    }

    /// We decided, or nobody did: words of ours, and what the class of the status says.
    #[must_use]
    pub fn local(stage: Stage, status: EnhancedCode, text: impl Into<String>) -> Self {
        let result = match status.class() {
            Class::Success => AttemptResult::Delivered,
            Class::Transient => AttemptResult::Deferred,
            Class::Permanent => AttemptResult::Failed,
        };
        Self { result, status, code: None, text: text.into(), stage }
    }

    /// Whether the remote asks to come slower rather than speaking of the message. Where it hangs up
    /// with 421, it does unless the session had carried something.
    #[must_use]
    fn asks_for_less(&self, has_carried: bool) -> bool {
        self.code.is_some_and(|code| {
            let closes = code.as_u16() == CLOSING && !has_carried;
            closes || congestion::asks_for_less(code, self.status, &self.text)
        })
    }

    /// The same words at another stage.
    pub(super) fn at_stage(&self, stage: Stage) -> Self {
        Self { stage, ..self.clone() }
    }

    /// The outcome, at this moment and host.
    #[must_use]
    pub fn into_outcome(self, at: Timestamp, host: Option<RemoteHost>) -> Outcome {
        let Self { result, status, code, text, stage } = self;
        Outcome { at, result, status, code, text, host, stage }
    }
}

/// What became of one recipient of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The attempt has ended for it.
    Ended(Ending),
    /// The peer takes no more recipients in one transaction: send it in a further one.
    Unsent,
    /// The connection broke before this transaction was tried in earnest: use another one.
    Untried,
}

/// A transaction that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// One for each recipient, in the order given.
    pub fates: Vec<Fate>,
    /// Whether the peer has taken over the duty to report (RFC 3461 section 5.2.2).
    pub dsn: bool,
    /// Whether the peer was told the time that is left, if there is one (RFC 2852).
    pub deliver_by: bool,
}

impl Finished {
    /// Whether the peer asked for less, of whichever recipient, in a session that had carried something
    /// or not.
    #[must_use]
    pub fn asks_for_less(&self, has_carried: bool) -> bool {
        self.endings().any(|ending| ending.asks_for_less(has_carried))
    }

    /// Whether the peer took the message for somebody.
    #[must_use]
    pub fn has_progress(&self) -> bool {
        self.endings().any(|ending| ending.result == AttemptResult::Delivered)
    }

    /// Whether the peer took the message for everybody.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let is_taken = |fate: &Fate| match fate {
            Fate::Ended(ending) => ending.result == AttemptResult::Delivered,
            Fate::Unsent | Fate::Untried => false,
        };
        self.fates.iter().all(is_taken)
    }

    fn endings(&self) -> impl Iterator<Item = &Ending> {
        self.fates.iter().filter_map(|fate| match fate {
            Fate::Ended(ending) => Some(ending),
            Fate::Unsent | Fate::Untried => None,
        })
    }
}
