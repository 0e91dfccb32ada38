//! The trace: what became of every message, kept for a while after it is gone.
//!
//! [`note`] and [`event`] are one event, written where it happens and read by queries; [`filter`]
//! answers "not here" about many events at once, and [`block`] is how they lie on disk: packed, with
//! a filter in front, so that a query reads what it needs. [`want`] turns a selector into questions
//! for filters, [`story`] puts the events of one message together, and [`explain`] says why it went
//! that way and what to do.

pub mod block;
pub mod event;
pub mod explain;
pub mod filter;
pub mod note;
pub mod story;
pub mod want;
