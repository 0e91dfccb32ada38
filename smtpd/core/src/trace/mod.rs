//! The trace: what became of every message, kept for a while after it is gone.
//!
//! [`note`] and [`event`] are one event, written where it happens and read by queries; [`filter`]
//! answers "not here" about many events at once, and [`block`] is how they lie on disk: packed, with
//! a filter in front, so that a query reads what it needs. [`want`] turns a selector into questions
//! for filters, [`story`] puts the events of one message together, [`explain`] says why it went that
//! way and what to do, and [`stats`] counts over many messages.

pub mod block;
pub mod event;
pub mod explain;
pub mod filter;
pub mod note;
pub mod stats;
pub mod story;
pub mod want;
