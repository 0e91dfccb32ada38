//! `trace:` - how much is remembered of what became of mail.

use super::section::section;
use crate::units::{ByteSize, Span};

section! {
    /// What smtpctl trace reads: what became of every message, also of those that are long gone.
    pub struct Trace {
        /// How long it is remembered.
        keep: Span = Span::days(14), Span::days(14), in Span::hours(1)..=Span::days(3650);
        /// What it may take of the disk. The oldest goes first.
        max_size: ByteSize = ByteSize::gib(1), ByteSize::gib(1),
            in ByteSize::mib(1)..=ByteSize::gib(1024);
        /// Whether the subjects of messages are remembered, so that they can be found by them.
        subjects: bool = true, true;
    }
}
