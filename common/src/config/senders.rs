//! `senders:` - whether mail from strangers is from whom it says (SPF, DKIM, DMARC, ARC).

use super::choice::choice;
use super::section::section;
use crate::address::Domain;
use crate::units::Span;

section! {
    /// What is looked at in mail from clients that have not logged in and may not relay. What is found goes
    /// into the Authentication-Results field, the log, the trace and queue show. What DNS does not tell
    /// refuses nothing.
    pub struct Senders {
        /// Whether the client may send for the domain of the envelope's sender (RFC 7208); reject refuses MAIL
        /// where that domain says fail.
        spf: Check = Check::Off, Check::Off;
        /// Whether the signatures of the message hold (RFC 6376); the first eight are looked at.
        dkim: Mark = Mark::Off, Mark::Off;
        /// Whether SPF or DKIM vouches for the domain in From (RFC 7489), for which both are looked at; reject
        /// refuses the message where that domain wants it, and one whose From names no author who can be read,
        /// or authors of more than four domains. Mail that it wants in quarantine is marked.
        dmarc: Check = Check::Off, Check::Off;
        /// Whether those who passed the message on vouch for what they found (RFC 8617).
        arc: Mark = Mark::Off, Mark::Off;
        /// The name that the results are given under (authserv-id); it is delivery.fqdn where it is not set.
        /// Results that a stranger gives under this name are taken out.
        name: Option<Domain> = None, None, shown "delivery.fqdn";
        /// How long DNS may take to answer all questions about one message.
        timeout: Span = Span::seconds(20), Span::seconds(20), in Span::seconds(1)..=Span::minutes(5);
    }
}

choice! {
    /// What is done about a finding that can refuse mail.
    pub enum Check {
        /// Not looked at.
        Off = "off",
        /// Written into the message.
        Mark = "mark",
        /// Written into the message, or the message is refused.
        Reject = "reject",
    }
}

choice! {
    /// What is done about a finding that never refuses mail by itself.
    pub enum Mark {
        /// Not looked at.
        Off = "off",
        /// Written into the message.
        Mark = "mark",
    }
}
