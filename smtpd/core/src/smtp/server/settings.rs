//! What the configuration says about sessions.

use std::time::Duration;

use mailroot_common::units::Span;

use crate::queue::wishes::Priority;
use crate::smtp::auth::Mechanism;
use crate::smtp::body::BodyLimits;
use crate::smtp::command::Grammar;

/// What a virtual server's configuration says about its sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our name in the greeting and in the reply to EHLO.
    pub host: String,
    /// The words after our name in the greeting (`general.banner`).
    pub banner: String,
    /// Extensions offered and the domain of addresses without one.
    pub grammar: Grammar,
    /// What a message may be like; a size of `u64::MAX` is "no limit".
    pub body: BodyLimits,
    /// Recipients of one message (`messages.max_recipients`).
    pub recipients_max: u32,
    /// How far ahead a message may be released (`messages.future_release`).
    pub release_max: Span,
    /// The least time that a message must have that is to be returned when it is up
    /// (`messages.deliver_by_min`).
    pub deliver_by_min: Span,
    /// The highest priority that a message may have; higher ones are lowered to it.
    pub priority_max: Priority,
    /// Octets of all messages of one session (`messages.max_session_size`).
    pub session_octets_max: u64,
    /// Errors of one session (`general.max_errors`).
    pub errors_max: u32,
    /// Commands that carry no mail since the last message (`limits.idle_commands`).
    pub idle_commands_max: u32,
    /// How long one waits for a complete command, and for the next octets of a body
    /// (`general.idle_timeout`).
    pub idle: Duration,
    /// How long a session may last (`general.max_session_time`).
    pub session_time: Duration,
    /// Octets a second that a body must come with, measured over [`super::RATE_WINDOW`]
    /// (`limits.min_rate`).
    pub rate_min: u64,
    /// Whether sessions come under TLS (`access.tls.mode`).
    pub tls: Tls,
    /// How clients may log in (`access.basic`).
    pub logins: Logins,
}

/// How clients may log in.
#[derive(Clone, Debug, Default)]
pub struct Logins {
    /// By what; by nothing where there is no login. [`Grammar::auth`] says the same in short.
    pub mechanisms: Vec<Mechanism>,
    /// Whether that is so under TLS alone (`access.basic.require_tls`).
    pub only_under_tls: bool,
    /// How many may be wrong in one session (`access.auth_failures.max`).
    pub failures_max: u32,
}

/// Whether sessions come under TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Never; STARTTLS is not known.
    Off,
    /// Where the client asks for it.
    Optional,
    /// Before any mail.
    Required,
}
