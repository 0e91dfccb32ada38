//! `limits:` - how much of a virtual server's memory and time clients may claim.

use super::section::section;
use super::value::Limit;
use crate::units::{ByteSize, Span};

section! {
    /// Bounds on what clients send that nobody needs to set on an ordinary day.
    pub struct Limits {
        /// Memory for bodies being received by all sessions together. A body that finds no room, or
        /// is larger than 256 KiB, is written to a file at once.
        body_memory: ByteSize = ByteSize::mib(64), ByteSize::mib(64),
            in ByteSize::mib(1)..=ByteSize::gib(64);
        /// The longest line of a message. RFC 5321 asks for 1000 octets; programs send longer ones.
        line_length: ByteSize = ByteSize::kib(64), ByteSize::kib(64),
            in ByteSize::bytes(1000)..=ByteSize::mib(16);
        /// The largest header of a message.
        header_size: ByteSize = ByteSize::kib(256), ByteSize::kib(256),
            in ByteSize::kib(4)..=ByteSize::mib(16);
        /// Commands a client may send without a message coming of them before the session is closed
        /// with 421: HELO, EHLO, RSET, NOOP, HELP, VRFY. A message sets the count back.
        idle_commands: Limit<u32> = Limit::At(100), Limit::Unlimited, in 1..=1_000_000;
        /// What must come of a message in each second, measured over a minute; a slower client is
        /// closed with 421. 0B sets no pace.
        min_rate: ByteSize = ByteSize::bytes(128), ByteSize::bytes(0),
            in ByteSize::bytes(0)..=ByteSize::mib(1);
        /// TLS handshakes that are computed at once. Others wait for their turn, so that a flood of
        /// them does not starve the sessions that run.
        handshakes: u32 = 8, 8, in 1..=1000;
        /// How long a handshake may take, its wait included; then the connection is closed.
        handshake_time: Span = Span::seconds(30), Span::seconds(30),
            in Span::seconds(1)..=Span::minutes(10);
    }
}
