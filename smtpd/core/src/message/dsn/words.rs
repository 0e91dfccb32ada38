//! The first part of a report: words for people.
//!
//! It says in this order what happened to the message, for each recipient who said what, and what
//! to do about it. The remote's words stand as they came, on lines of their own, so that nobody
//! takes them for ours.

use std::fmt::Write as _;

use mailroot_common::status::EnhancedCode;

use super::encode::{Encoding, printable, quoted_printable, status};
use super::{Case, Kind, Part, Report};
use crate::queue::outcome::{Outcome, Stage};

/// Writes the part.
pub(super) fn write(report: &Report<'_>, cases: &[Case<'_>]) -> Part {
    let mut text = opening(report, cases.len() == 1);
    for case in cases {
        let result = write!(text, "\r\n<{}>\r\n", case.recipient.mailbox)
            .and_then(|()| tell(&mut text, report, case));
        result.expect("writing to a string cannot fail");
    }
    let (content_type, description) = ("text/plain; charset=utf-8", "Notification");
    let is_ascii = text.is_ascii();
    let octets = text.into_bytes();
    if is_ascii {
        let encoding = Encoding::SevenBit;
        return Part { content_type, description, encoding, octets };
    }
    let octets = quoted_printable(&octets, usize::MAX);
    Part { content_type, description, encoding: Encoding::QuotedPrintable, octets }
}

fn opening(report: &Report<'_>, single: bool) -> String {
    let whom = if single { "this recipient" } else { "these recipients" };
    let all_in_doubt = report.recipients.iter().all(|(_, status)| status.doubted);
    let news = match report.kind {
        Kind::Failure if all_in_doubt => format!(
            "It is not known whether your message has reached {whom}. It will not be tried again."
        ),
        Kind::Failure => {
            format!("Your message could not be delivered to {whom}. It will not be tried again.")
        }
        Kind::Delay => format!(
            "Your message has not been delivered to {whom} yet.\r\n\
             This is a warning only: you do not need to send it again.\r\n\
             Delivery is tried until {}.",
            report.retry_until.to_rfc5322()
        ),
        Kind::Success => {
            format!("You asked to hear of the delivery of your message. This is about {whom}.")
        }
    };
    let host = report.host;
    let mut text =
        format!("This report was written by the mail system at {host}.\r\n\r\n{news}\r\n\r\n");
    // An encoded subject would be noise here; the header is returned with the report anyway.
    let subject = report.envelope.subject.as_deref().map(|subject| printable(subject.trim(), 250));
    if let Some(subject) = subject.filter(|subject| !subject.contains("=?")) {
        text.push_str(&format!("    Subject:  {subject}\r\n"));
    }
    text.push_str(&format!("    Accepted: {}\r\n", report.envelope.accepted_at.to_rfc5322()));
    if let Some(by) = report.envelope.wishes.deliver_by {
        text.push_str(&format!("    Wanted by: {}\r\n", by.at.to_rfc5322()));
    }
    text.push_str(&format!("    Log id:   {}\r\n", report.id));
    text
}

fn tell(text: &mut String, report: &Report<'_>, case: &Case<'_>) -> std::fmt::Result {
    let kind = report.kind;
    let outcome = case.outcome;
    let host = outcome.host.as_ref().map(|host| printable(&host.to_string(), 400));
    let host = host.as_deref().unwrap_or("the next host");
    match kind {
        Kind::Success if case.is_relayed() && report.envelope.wishes.deliver_by.is_some() => {
            write!(text, "    It was handed to {host} on its way.\r\n")?;
        }
        Kind::Success if case.is_relayed() => {
            write!(
                text,
                "    It was handed to {host},\r\n    which does not report what becomes of it. \
                 You may or may not hear more.\r\n"
            )?;
        }
        Kind::Success if case.is_expanded() => text.push_str(
            "    It went on to everybody whom this address stands for.\r\n    \
             You hear more only of those who cannot be reached.\r\n",
        ),
        Kind::Success => text.push_str("    It was delivered.\r\n"),
        Kind::Failure | Kind::Delay => write!(text, "    {}\r\n", happened(outcome, host))?,
    }
    for line in case.said() {
        match outcome.code {
            Some(code) => {
                write!(text, "        {code} {} {}\r\n", outcome.status, line.trim_end())?
            }
            None => write!(text, "        {}\r\n", line.trim_end())?,
        }
    }
    if case.status.doubted && kind != Kind::Success {
        write!(
            text,
            "    The recipient may have the message all the same: it was being sent when the\r\n    \
             connection ended, and the other side had not answered yet.\r\n"
        )?;
    }
    if kind == Kind::Failure {
        // What was said last is a better guide than that the time is up.
        let reason = if outcome.code.is_some() { outcome.status } else { status(outcome) };
        write!(text, "    {}\r\n", advice(reason))?;
    }
    Ok(())
}

/// What happened, up to the words that follow.
fn happened(outcome: &Outcome, host: &str) -> String {
    let replied = outcome.code.is_some();
    match outcome.stage {
        Stage::Expiry | Stage::Deadline if replied => {
            let at = outcome.at.to_rfc5322();
            format!("Its time is up. The last answer, from {host} at {at}, was:")
        }
        Stage::Expiry | Stage::Deadline => {
            "Its time is up. The last attempt came to this:".to_owned()
        }
        Stage::Operator => "An operator of this mail system ended it:".to_owned(),
        Stage::Route => "No way to the recipient was found:".to_owned(),
        Stage::Sign => "It could not be signed by this mail system:".to_owned(),
        Stage::Dns => "The recipient's domain could not be looked up:".to_owned(),
        Stage::Connect => format!("No connection was made to {host}:"),
        Stage::Drop => "It could not be written to the Drop directory:".to_owned(),
        Stage::Directory => "The directory of this mail system says:".to_owned(),
        Stage::Tls => format!("The connection to {host} could not be protected:"),
        Stage::Login => format!("We could not log in at {host}:"),
        Stage::Greeting | Stage::Hello | Stage::Mail | Stage::Rcpt | Stage::Data | Stage::End
            if !replied =>
        {
            format!("The conversation with {host} went wrong:")
        }
        Stage::Greeting | Stage::Hello => format!("{host} did not want to talk to us:"),
        Stage::Mail => format!("{host} said about the sender:"),
        Stage::Rcpt => format!("{host} said about the recipient:"),
        Stage::Data | Stage::End => format!("{host} said about the message:"),
    }
}

/// What the sender can do about a failure, by its enhanced code (RFC 3463 and the IANA registry).
fn advice(status: EnhancedCode) -> &'static str {
    match (status.subject(), status.detail()) {
        (1, 0 | 1 | 3 | 6) => {
            "Look for a typing error in the address, or ask the recipient for the right one."
        }
        (1, 2 | 10) => "Look for a typing error behind the @: that domain does not take mail.",
        (1, 7 | 8) => "The other side does not accept your own address: ask your administrator.",
        (2, 4) => "The list cannot be used: show this report to whoever keeps it.",
        (2, 2) => "The recipient's mailbox is full: try again later, or another way.",
        (2, 3) | (3, 4) => "The message is too large: send it in parts, or another way.",
        (2, _) => "The recipient's mailbox takes no mail: reach the recipient another way.",
        (4, 4) => "Look for a typing error behind the @: no host was found for that domain.",
        (4, 6) => "The message went in circles: show this report to your administrator.",
        (4, 7) => "The other side could not be reached in time: send the message again later.",
        (4, _) => "The other side could not be reached: send the message again later.",
        (6, _) => "The other side cannot take this kind of content: send it in another form.",
        (7, 5) => {
            "A signature could not be made or checked: show this report to your administrator."
        }
        (7, _) => "The other side refuses by its rules: show this report to your administrator.",
        _ => "If it is not clear what to do, show this report to your administrator.",
    }
}
