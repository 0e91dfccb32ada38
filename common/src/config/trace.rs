//! `trace:` - how much is remembered of what became of mail.

use super::choice::choice;
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
        /// Whether what was said over SMTP is remembered as well, line by line, for smtpctl trace
        /// --dialogue. Secrets are left out, messages are counted, and of a long dialogue the beginning and
        /// the end are kept. It costs some speed and much of max_size.
        dialogues: Dialogues = Dialogues::Off, Dialogues::Off;
    }
}

choice! {
    /// Which dialogues are remembered.
    pub enum Dialogues {
        /// None.
        Off = "off",
        /// Those of attempts to send a message that did not succeed.
        Failed = "failed",
        /// Those of all messages, on their way in and on their way out.
        All = "all",
    }
}
