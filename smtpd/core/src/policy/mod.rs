//! Who may connect, relay and how much: facts in, a verdict out.
//!
//! Policy never waits and never looks anything up. Whoever drives the session gathers the facts
//! first; a fact that could not be had is itself a fact, [`NameFact::Unknown`], and a rule that
//! needs it answers [`Verdict::Defer`], so that a broken resolver neither opens nor closes a door.
//!
//! The words of a refusal are not ours: a [`Reason`] is given, and the table of
//! [`crate::smtp::refusal`] holds what a peer is told.

use std::net::IpAddr;

use mailroot_common::address::{Domain, Mailbox};

use self::relay::RelayRule;

pub mod access;
pub mod client;
pub mod connect;
pub mod guess;
pub mod hits;
pub mod limit;
pub mod quota;
pub mod relay;
pub mod submission;

/// What is known of a client when it is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its address; IPv4 in IPv6's clothing counts as IPv4.
    pub client: IpAddr,
    /// What DNS says about its name.
    pub name: NameFact,
    /// Who it has proved to be: a login, or the user at the other end of the submit socket.
    pub authenticated: Option<String>,
    /// What its certificate proves, if it showed a good one.
    pub certificate: Option<Certified>,
}

/// What makes a client's certificate a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certified {
    /// It is on the list of those that are known by themselves.
    Pinned,
    /// An issuer that is trusted vouches for it.
    Trusted,
}

impl Certified {
    /// The word of the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Trusted => "trusted",
        }
    }
}

impl Facts {
    /// A client of which only the address is known; no list that was asked has names in it.
    #[must_use]
    pub fn of_address(client: IpAddr) -> Self {
        Self { client, name: NameFact::None, authenticated: None, certificate: None }
    }
}

/// What DNS says about a client's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameFact {
    /// DNS did not answer in time, or with an error that may pass.
    Unknown,
    /// It has no name, or none that leads back to its address.
    None,
    /// Names of its PTR records whose address records lead back to its address. Others must not
    /// be here: whoever owns an address can call it what he likes.
    Names(Vec<Domain>),
}

/// Why a client is turned away; what it is told stands in [`crate::smtp::refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The connection list does not let it in.
    AccessDenied,
    /// The recipient is not ours and it may not relay.
    RelayDenied,
    /// A list has DNS names in it, and DNS did not answer.
    NameUnknown,
    /// The virtual server has as many connections as it may.
    TooManyConnections,
    /// The client has as many connections as one may.
    TooManyFromClient,
    /// It has not logged in, and must.
    AnonymousForbidden,
}

/// Proof that policy let this recipient in. Only [`relay::RelayPolicy::judge`] makes one, so an
/// envelope cannot name a recipient nobody was asked about.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    mailbox: Mailbox,
    rule: RelayRule,
}

impl Admitted {
    /// The recipient.
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// The rule that let it in.
    #[must_use]
    pub fn rule(&self) -> &RelayRule {
        &self.rule
    }

    /// The recipient, for the envelope.
    #[must_use]
    pub fn into_mailbox(self) -> Mailbox {
        self.mailbox
    }

    /// The rule that let it in, for the trace.
    #[must_use]
    pub fn into_rule(self) -> RelayRule {
        self.rule
    }
}

/// A refusal and the rule behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What the peer is told, in short.
    pub reason: Reason,
    /// The entry of the list that decided, for the log; absent if none matched or none was asked.
    pub entry: Option<access::Entry>,
}

impl Denial {
    /// A refusal that no single entry decided.
    #[must_use]
    pub const fn plain(reason: Reason) -> Self {
        Self { reason, entry: None }
    }
}

/// The answer of a policy. `P` is the proof that goes with a yes.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<P = Admitted> {
    /// Yes.
    Admit(P),
    /// Not now: a fact could not be had, or a limit is met. The peer should try again.
    Defer(Denial),
    /// Not ever, as the configuration stands.
    Refuse(Denial),
}
