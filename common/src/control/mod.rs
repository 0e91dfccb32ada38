//! Request and response bodies of the control interface.
//!
//! The interface is HTTP/1.1 with JSON on a Unix socket. This is the one place that both programs
//! read it from: one file per noun, [`problem`] for what is answered when something is wrong, and
//! [`selector`] for how objects are chosen. Within a version fields and members are only added,
//! and a reader ignores what it does not know, so that an old tool can talk to a new daemon.
//!
//! Times are RFC 3339 in UTC, sizes are octets, spans are seconds.

pub mod badmail;
pub mod certificate;
pub mod config;
pub mod decision;
mod described;
pub mod dkim;
pub mod doctor;
pub mod domain;
pub mod edit;
pub mod etrn;
pub mod files;
pub mod ldap;
pub mod log;
pub mod metrics;
pub mod orders;
pub mod path;
pub mod problem;
pub mod queue;
pub mod replay;
pub mod selector;
pub mod server;
pub mod session;
pub mod smarthost;
pub mod stats;
pub mod status;
pub mod tls;
pub mod trace;
pub mod user;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Timestamp;

pub use crate::config::control::Role;
pub use badmail::{BadmailEntry, BadmailMessage, Requeue};
pub use certificate::{AcmeState, AcmeWish, Certificate, NewCertificate};
pub use config::{ConfigReport, ConfigTrouble, Reloaded, Severity};
pub use decision::{
    AccessEntry, AccessList, Decision, Judgement, Outcome, Question, SenderOutside, Way,
};
pub use dkim::{DkimKey, DkimRecord, NewDkimKey, RecordState};
pub use doctor::{Check, Level};
pub use domain::{Domain, DomainDetail, DomainKind, NewDomain};
pub use edit::{
    CloneServer, ConfigDiff, ConfigFiles, Edited, FileText, KeyEdit, KeyEdits, Rename, Revision,
    Seal, Terms,
};
pub use etrn::{EtrnAnswer, EtrnRequest};
pub use files::{DropEntry, PickupCheck, PickupEntry, PickupRecipient};
pub use ldap::{LdapPassword, LdapTest};
pub use log::{LogRaised, LogState, LogTarget, LogWish};
pub use metrics::{Metric, MetricKind, Part, Sample};
pub use orders::{
    DestinationPause, FutureHold, FutureHoldRequest, FutureReleaseRequest, Orders, PauseRequest,
};
pub use problem::{Kind, Problem};
pub use queue::{
    Adopted, Attempt, QueueEntry, QueueMessage, QueueRecipient, QueueState, QueueVerb,
    RecipientState, Redirect,
};
pub use replay::{Different, Replay};
pub use selector::{Matcher, Selector, SelectorError};
pub use server::{NewServer, QueueCounts, Server, ServerDetail, ServerState, Setting, Verb};
pub use session::{DialogueLine, Direction, Session, Spoken};
pub use smarthost::{
    DeviceCode, DeviceState, SmartHost, SmartHostCall, SmartHostState, SmartHostWish,
};
pub use stats::{Destination, DestinationState, LimitBy, OutboundLimit, Stats, StatsBy};
pub use status::{OperatorEntry, Status, Version, Warning};
pub use tls::{TlsHost, TlsReport, TlsReportState, TlsReportWish, TlsReportsBegun};
pub use trace::{
    Advice, Refused, Step, TraceDialogue, TraceEntry, TraceEvent, TraceRecipient, TraceRecord,
};
pub use user::{NewUser, PasswordAnswer, PasswordQuestion, User, UserChanged, UserWish};

/// The version of the interface; it stands in every path.
pub const API_VERSION: u32 = 1;

/// The media type of a list that is sent one JSON object per line.
pub const JSON_LINES: &str = "application/jsonl";

/// The control socket of an installed daemon.
pub const SOCKET: &str = "/run/mailroot/control.sock";

/// The control socket below the directory of `--home`.
pub const SOCKET_BELOW_HOME: &str = "run/control.sock";

/// Where the submit socket is, unless a home is given.
pub const SUBMIT_SOCKET: &str = "/run/mailroot/submit.sock";

/// Where it is below a home.
pub const SUBMIT_SOCKET_BELOW_HOME: &str = "run/submit.sock";

/// Asks for a change to the chosen objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Which objects. A selector that names no condition is refused.
    pub selector: Selector,
    /// Why, for the log and for whoever is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether ids that name nothing any more are no errors: whoever asks has them from a list. For
    /// messages of the queue.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub if_exists: bool,
    /// When messages are to be tried, for the verb retry; now if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// What became of a change to several objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// How many objects were chosen.
    pub matched: u64,
    /// How many were changed.
    pub changed: u64,
    /// The octets of the changed objects, where they have a size.
    #[serde(default)]
    pub bytes: u64,
    /// The ids of the changed objects, at most [`Changed::IDS_MAX`].
    #[serde(default)]
    pub ids: Vec<String>,
    /// Chosen objects that were gone before they could be changed, which is no failure.
    #[serde(default)]
    pub gone: u64,
    /// What whoever asked should know besides, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Those that could not be changed, at most [`Changed::IDS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failure>,
}

impl Changed {
    /// How many ids an answer names, so that a change of a million messages has a bounded answer.
    pub const IDS_MAX: usize = 1_000;

    /// Counts one changed object.
    pub fn add(&mut self, id: &impl ToString, bytes: u64) {
        self.matched += 1;
        self.changed += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.ids.len() < Self::IDS_MAX {
            self.ids.push(id.to_string());
        }
    }

    /// Counts one object that was chosen by a condition, and gone when it was to be changed.
    pub fn add_gone(&mut self) {
        self.matched += 1;
        self.gone += 1;
    }

    /// How many could not be changed although they are there, or were asked for by name.
    #[must_use]
    pub const fn failures(&self) -> u64 {
        self.matched.saturating_sub(self.changed).saturating_sub(self.gone)
    }

    /// Counts one object that could not be changed.
    pub fn add_failure(&mut self, id: &impl ToString, problem: &Problem) {
        self.matched += 1;
        if self.failed.len() < Self::IDS_MAX {
            self.failed.push(Failure {
                id: id.to_string(),
                code: problem.code.to_string(),
                detail: problem.detail.to_string(),
            });
        }
    }

    /// Adds the counts of another answer, for a change that was asked for in parts.
    pub fn merge(&mut self, other: Self) {
        self.matched += other.matched;
        self.changed += other.changed;
        self.gone += other.gone;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.ids.extend(other.ids);
        self.failed.extend(other.failed);
        self.notes.extend(other.notes);
        self.notes.dedup();
    }
}

/// One object that could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// Its id.
    pub id: String,
    /// The code of the problem, such as `queue.not_found`.
    pub code: String,
    /// What was wrong.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_include_those_below_them() {
        assert!(Role::Admin > Role::Operator && Role::Operator > Role::Viewer);
    }

    #[test]
    fn an_answer_to_a_change_names_a_bounded_number_of_ids() {
        let mut changed = Changed::default();
        for number in 0..2_000 {
            changed.add(&number, 10);
        }
        assert_eq!((changed.matched, changed.changed, changed.bytes), (2_000, 2_000, 20_000));
        assert_eq!(changed.ids.len(), Changed::IDS_MAX);
    }

    #[test]
    fn unknown_members_are_ignored() {
        let text = r#"{"matched":1,"changed":1,"bytes":5,"ids":["X"],"of_the_future":true}"#;
        let changed: Changed = serde_json::from_str(text).unwrap();
        assert_eq!(changed.ids, ["X"]);
    }
}
