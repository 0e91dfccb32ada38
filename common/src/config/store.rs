//! `store:` - where a virtual server keeps its mail, and its Pickup directory.

use std::path::PathBuf;

use super::section::section;
use crate::units::{ByteSize, Span};

section! {
    /// The mail root with its directories Pickup, Queue, Drop and Badmail.
    pub struct Store {
        /// The mail root. A relative path lies below service.store.
        root: Option<PathBuf> = None, None, shown "the server's name below service.store";
        /// Size of one segment of the queue's log. It applies to segments made from now on. What is
        /// recorded of a message fits into one: about 1 KiB for each recipient. A message that has more
        /// is refused with 552.
        segment_size: ByteSize = ByteSize::mib(64), ByteSize::mib(64),
            in ByteSize::kib(64)..=ByteSize::gib(1);
    }
    sections {
        /// The directory that applications put messages into.
        pickup: Pickup;
    }
}

section! {
    /// How files in Pickup are found and read.
    pub struct Pickup {
        /// Whether files in Pickup are sent.
        enabled: bool = true, true;
        /// How often the directory is searched for files that were not announced by the kernel.
        poll: Span = Span::seconds(5), Span::seconds(5), in Span::millis(10)..=Span::hours(1);
        /// How long a file must rest unchanged before it is taken, unless it was moved in.
        settle: Span = Span::seconds(1), Span::seconds(1), in Span::millis(0)..=Span::hours(1);
        /// Whether X-Sender and X-Receiver give the envelope. They are removed in any case.
        x_headers: bool = true, true;
        /// Whether lines that begin with a dot carry a second one, as files of .NET programs for
        /// the original do.
        dot_stuffed: bool = false, true;
    }
}
