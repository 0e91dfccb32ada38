//! `messages:` - how large mail may be, and what happens to mail that cannot be delivered.

use std::path::PathBuf;

use super::choice::choice;
use super::milter::Milter;
use super::section::section;
use super::value::Limit;
use crate::address::Mailbox;
use crate::units::{ByteSize, Span};

section! {
    /// Sizes and counts, copies of reports, and the Badmail directory.
    pub struct Messages {
        /// The largest message accepted; offered to clients as SIZE.
        max_size: Limit<ByteSize> = Limit::At(ByteSize::mib(35)), Limit::At(ByteSize::kib(2048)),
            in ByteSize::kib(1)..=ByteSize::gib(1024);
        /// The most one session may send; the session is closed when it is reached. At least
        /// messages.max_size.
        max_session_size: Limit<ByteSize> =
            Limit::At(ByteSize::mib(350)), Limit::At(ByteSize::kib(10240)),
            in ByteSize::kib(1)..=ByteSize::gib(1024);
        /// Messages sent over one outbound connection. When it is reached, another connection is
        /// opened.
        max_per_connection: Limit<u32> = Limit::At(20), Limit::At(20), in 1..=2_000_000_000;
        /// Recipients of one message. Further ones hear 452 and are sent again by the client;
        /// outbound, the rest goes in another transaction. Users of this machine may name 10,000 in
        /// any case.
        max_recipients: Limit<u32> = Limit::At(1000), Limit::At(100), in 1..=2_000_000_000;
        /// The sender of messages in Pickup that name none: without X-Sender, From and Sender. Where
        /// it is not set, they end in Badmail.
        default_sender: Option<Mailbox> = None, None;
        /// Gets a copy of every non-delivery report.
        ndr_copy_to: Option<Mailbox> = None, None;
        /// Whether reports carry the whole message back, or its header only.
        ndr_full_message: bool = false, true;
        /// How far ahead clients that may relay can have a message sent (FUTURERELEASE); 0s turns
        /// it off.
        future_release: Span = Span::days(60), Span::ZERO, in Span::ZERO..=Span::days(9999);
        /// The least time that clients must give a message that is to be returned if it is not delivered
        /// in time (DELIVERBY with the mode R); offered to them. 0s means any.
        deliver_by_min: Span = Span::ZERO, Span::ZERO, in Span::ZERO..=Span::days(1);
        /// What is repaired: a missing Date, a missing Message-ID, and in Pickup and local
        /// submission line ends. Over SMTP bare CR and LF are always refused.
        fix: Vec<Fix> =
            vec![Fix::Date, Fix::MessageId, Fix::LineEnds], vec![Fix::Date, Fix::MessageId];
        /// Programs that look at mail before it is accepted (milters, such as Rspamd, ClamAV and OpenDKIM),
        /// one after the other: inet:HOST:PORT or unix:/PATH. They are asked about mail that comes over SMTP; about
        /// that of programs of this machine (sendmail and Pickup) those are asked that have local: true. What one
        /// of them refuses in Pickup ends in Badmail, and what it puts off waits there for
        /// delivery.local.expire. Each answer may take timeout (30s), all of them about one
        /// message ten times as long; when it is complete all milters together have 5 minutes. Where there is no
        /// answer, on_failure says whether mail waits (defer) or goes on without (accept).
        milters: Vec<Milter> = Vec::new(), Vec::new();
    }
    sections {
        /// Where mail ends that can be neither delivered nor returned.
        badmail: Badmail;
    }
}

section! {
    /// How long undeliverable mail is kept. The oldest goes first.
    pub struct Badmail {
        /// Where it lies: a path, or a directory in the mail root.
        dir: PathBuf = PathBuf::from("Badmail"), PathBuf::from("Badmail");
        /// How long a message stays in Badmail.
        keep: Limit<Span> = Limit::At(Span::days(30)), Limit::Unlimited,
            in Span::minutes(1)..=Span::days(9999);
        /// How large Badmail may become.
        max_size: Limit<ByteSize> = Limit::At(ByteSize::gib(1)), Limit::Unlimited,
            in ByteSize::mib(1)..=ByteSize::gib(1 << 20);
    }
}

choice! {
    /// Something missing or wrong in a message that Mailroot repairs.
    pub enum Fix {
        /// Adds a Date field.
        Date = "date",
        /// Adds a Message-ID field.
        MessageId = "message-id",
        /// Turns bare LF into CRLF; Pickup and local submission only.
        LineEnds = "line-ends",
    }
}
