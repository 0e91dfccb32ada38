//! The second part of a report: fields for programs (RFC 3464 section 2, RFC 6533 section 4).

use std::fmt::Write as _;

use mailroot_common::address::Mailbox;

use super::encode::{Encoding, address_xtext, ascii, printable, status};
use super::{Case, Kind, Part, Report};
use crate::queue::dispose::EXPIRED;
use crate::smtp::xtext::from_xtext;

/// The longest text of a field that the sender chose.
const CHOSEN_OCTETS_MAX: usize = 500;

/// Writes the part. Only reports about internationalized mail may go beyond ASCII; in the others
/// such characters are written as `\x{20AC}`.
pub(super) fn write(report: &Report<'_>, cases: &[Case<'_>]) -> Part {
    let mut fields = Fields { text: String::new(), global: report.envelope.smtputf8 };
    fields.add("Reporting-MTA", &format!("dns; {}", report.host));
    if let Some(envid) = report.envelope.envid.as_deref().and_then(from_xtext) {
        fields.add("Original-Envelope-Id", &printable(&envid, CHOSEN_OCTETS_MAX));
    }
    if let Some(helo) = report.envelope.origin.helo.as_deref() {
        fields.add("Received-From-MTA", &format!("dns; {}", printable(helo, CHOSEN_OCTETS_MAX)));
    }
    fields.add("Arrival-Date", &report.envelope.accepted_at.to_rfc5322());
    if let Some(by) = report.envelope.wishes.deliver_by {
        fields.add("Deliver-By-Date", &by.at.to_rfc5322());
    }
    let wishes = &report.envelope.wishes;
    if let Some(span) = wishes.held_for {
        // RFC 4865 section 5.1.2, as are the words.
        fields.add("Future-Release-Request", &format!("for;{}", span.as_millis() / 1000));
    } else if let Some(at) = wishes.release_at {
        fields.add("Future-Release-Request", &format!("until;{at}"));
    }
    for case in cases {
        fields.text.push_str("\r\n");
        fields.add_recipient(report, case);
    }
    let encoding = if fields.text.is_ascii() { Encoding::SevenBit } else { Encoding::EightBit };
    let content_type = if report.envelope.smtputf8 {
        "message/global-delivery-status"
    } else {
        "message/delivery-status"
    };
    let description = "Delivery report";
    Part { content_type, description, encoding, octets: fields.text.into_bytes() }
}

struct Fields {
    text: String,
    global: bool,
}

impl Fields {
    fn add(&mut self, name: &str, value: &str) {
        let value = if self.global { value.to_owned() } else { ascii(value) };
        write!(self.text, "{name}: {value}\r\n").expect("writing to a string cannot fail");
    }

    fn add_recipient(&mut self, report: &Report<'_>, case: &Case<'_>) {
        if let Some(original) = case.recipient.orcpt.as_deref().and_then(original_recipient) {
            self.add("Original-Recipient", &original);
        }
        let address = self.address(&case.recipient.mailbox);
        self.add("Final-Recipient", &address);
        self.add("Action", action(report.kind, case));
        let status = match report.kind {
            // RFC 2852 section 4: what is late is so for its time, whatever the last attempt came to.
            Kind::Delay if case.status.deadline_told => EXPIRED,
            Kind::Delay | Kind::Failure | Kind::Success => status(case.outcome),
        };
        self.add("Status", &status.to_string());
        if let (Some(_), Some(host)) = (case.outcome.code, &case.outcome.host) {
            self.add("Remote-MTA", &format!("dns; {}", printable(&host.name, CHOSEN_OCTETS_MAX)));
        }
        self.add_diagnostic(case);
        if case.status.attempts > 0 {
            self.add("Last-Attempt-Date", &case.outcome.at.to_rfc5322());
        }
        if report.kind == Kind::Delay {
            self.add("Will-Retry-Until", &report.retry_until.to_rfc5322());
        }
    }

    /// The words that decided; each line of a reply is a line of the folded field. Words of ours
    /// are marked as such: they are no reply of any protocol.
    fn add_diagnostic(&mut self, case: &Case<'_>) {
        let mut value = match case.outcome.code {
            Some(code) => format!("smtp; {code} {} ", case.outcome.status),
            None => "x-mailroot; ".to_owned(),
        };
        for (place, line) in case.said().iter().enumerate() {
            if place > 0 {
                value.push_str("\r\n ");
            }
            // Folded last, because characters beyond ASCII may have grown.
            let line = if self.global { line.clone() } else { ascii(line) };
            value.push_str(&fold(line.trim()));
        }
        self.add("Diagnostic-Code", &value);
    }

    fn address(&self, mailbox: &Mailbox) -> String {
        match (mailbox.is_ascii(), self.global) {
            (true, _) => format!("rfc822; {mailbox}"),
            (false, true) => format!("utf-8; {mailbox}"),
            (false, false) => format!("utf-8; {}", address_xtext(&mailbox.to_string())),
        }
    }
}

/// Breaks a line that is too long for a message. No piece begins with a blank: a line of blanks
/// alone would pass for the end of the fields.
fn fold(line: &str) -> String {
    const FOLD_OCTETS: usize = 900;
    let mut out = String::with_capacity(line.len());
    let mut width = 0;
    for c in line.chars() {
        if width + c.len_utf8() > FOLD_OCTETS {
            if c.is_whitespace() {
                continue;
            }
            out.push_str("\r\n ");
            width = 0;
        }
        width += c.len_utf8();
        out.push(c);
    }
    out
}

/// ORCPT as a field: `type;address` with the address decoded; absent if it is not well formed.
fn original_recipient(orcpt: &str) -> Option<String> {
    let (kind, address) = orcpt.split_once(';')?;
    let is_atom = |o: u8| o.is_ascii_alphanumeric() || o == b'-';
    if kind.is_empty() || kind.len() > 32 || !kind.bytes().all(is_atom) {
        return None;
    }
    // The type utf-8 may stand unencoded in a transaction with SMTPUTF8 (RFC 6533 section 3).
    let address = if address.is_ascii() { from_xtext(address)? } else { address.to_owned() };
    let address = printable(&address, CHOSEN_OCTETS_MAX);
    (!address.is_empty()).then(|| format!("{kind}; {address}"))
}

fn action(kind: Kind, case: &Case<'_>) -> &'static str {
    match kind {
        Kind::Failure => "failed",
        Kind::Delay => "delayed",
        Kind::Success if case.is_relayed() => "relayed",
        Kind::Success if case.is_expanded() => "expanded",
        Kind::Success => "delivered",
    }
}
