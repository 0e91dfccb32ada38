//! What domains are told of the TLS that mail to them met (TLS-RPT, RFC 8460).
//!
//! ```text
//! count    sessions of a span of time, by domain and policy      form    the report, as JSON
//! record   where a domain wants its reports                      mail    the message that carries one
//! ```
//!
//! Who may be mailed is a stranger's choice, as is what hosts answer: domains, policies and details are
//! bounded, and so is every text.

pub mod count;
pub mod form;
pub mod mail;
pub mod record;

pub use count::{Counted, Failure, FailureKind, Period, Policy, PolicyKind, Tally};
