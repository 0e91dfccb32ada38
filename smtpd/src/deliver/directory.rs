//! Mail for our own domains that a directory sends on: to an entry's other name, to a forward, to the
//! members of a group.
//!
//! Those whom the directory names become the recipients of a new message, which is durable in the
//! same record as the end of the old recipients: neither exists without the other. They are not looked
//! up again, so that no circle of the directory becomes one of mail.

use std::collections::HashSet;

use mailroot_common::address::{Domain, Mailbox};
use mailroot_common::config::ldap::UnknownRecipient;
use mailroot_common::status::EnhancedCode;
use smtpd_core::ldap::expand::{self, Flaw, Resolution, key};
use smtpd_core::queue::envelope::{Envelope, Notify, Recipient};
use smtpd_core::queue::outcome::{Outcome, Stage};
use smtpd_core::route::smart_host::SmartHost;

use super::Settings;
use super::job::Job;
use super::room::Room;
use crate::ldap::{Directory, ELSEWHERE};
use crate::queue::{Draft, Lease};

/// The most addresses that the log and the trace name.
const TOLD: usize = 10;

/// Bad destination mailbox address (RFC 3463 section 3.2).
const UNKNOWN: EnhancedCode = EnhancedCode::permanent(1, 1);
/// Mailing list expansion problem (section 3.3).
const NO_LIST: EnhancedCode = EnhancedCode::permanent(2, 4);
/// Routing loop detected (section 3.5).
const CIRCLE: EnhancedCode = EnhancedCode::permanent(4, 6);
/// Directory server failure (section 3.5).
const NO_DIRECTORY: EnhancedCode = EnhancedCode::transient(4, 3);
/// Other mail system status (section 3.4).
const TROUBLE: EnhancedCode = EnhancedCode::transient(3, 0);
/// Destination address valid (section 3.2).
const SENT_ON: EnhancedCode = EnhancedCode::success(1, 5);

/// A recipient whose mail goes on.
struct Onward {
    place: usize,
    to: Vec<expand::Recipient>,
    is_group: bool,
    /// Entries that should get it too and cannot.
    missing: Vec<Box<str>>,
}

impl Onward {
    /// Whether the address only stands for another one.
    fn is_alias(&self) -> bool {
        !self.is_group && self.to.len() == 1 && self.missing.is_empty()
    }

    fn words(&self) -> String {
        let told = self.to.iter().take(TOLD).map(ToString::to_string);
        let told = told.collect::<Vec<_>>().join(", ");
        let more = match self.to.len().saturating_sub(TOLD) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what = if self.is_group { "a group, sent on to" } else { "sent on to" };
        format!("{what} {told}{more}")
    }

    /// How it ends: a success, unless somebody does not get it, of which the sender is to hear.
    fn end(&self) -> (EnhancedCode, String) {
        if self.missing.is_empty() {
            return (SENT_ON, self.words());
        }
        let missing = self.missing.iter().take(TOLD).map(|dn| &**dn).collect::<Vec<_>>().join("; ");
        let more = match self.missing.len().saturating_sub(TOLD) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let words = format!("{}, but not to {missing}{more}, {ELSEWHERE}", self.words());
        (NO_LIST, words)
    }
}

/// Looks up the recipients of a job. Those whose mail does not stay here end, as far as the directory
/// answers, and the job has the message for those who get it instead.
pub(super) async fn resolve(
    room: &Room,
    settings: &Settings,
    directory: &Directory,
    job: &mut Job,
) {
    let is_local = |domain: &Domain| settings.table.is_local(domain);
    let places: Vec<usize> = job.lease.iter().flat_map(Lease::places).collect();
    let (mut onward, mut staying) = (Vec::new(), Vec::new());
    for place in places {
        let Some(recipient) = job.envelope.recipients.get(place) else { continue };
        let to = recipient.mailbox.clone();
        if recipient.resolved {
            staying.push(to);
            continue;
        }
        let (status, text) = match directory.resolve(&to, &is_local).await {
            Ok(Resolution::To { recipients, is_group, missing, .. }) => {
                onward.push(Onward { place, to: recipients, is_group, missing });
                continue;
            }
            Ok(Resolution::Unknown) if directory.unknown() != UnknownRecipient::Deliver => {
                (UNKNOWN, "the directory knows no such recipient".to_owned())
            }
            Ok(Resolution::Here | Resolution::Unknown) => {
                staying.push(to);
                continue;
            }
            Ok(Resolution::Flawed(flaw)) => {
                let status = if flaw == Flaw::Circle { CIRCLE } else { NO_LIST };
                (status, flaw.to_string())
            }
            Err(outage) => (NO_DIRECTORY, format!("no directory answers: {outage}")),
        };
        let outcome = Outcome::local(room.clock.now(), Stage::Directory, status, text);
        job.end(place, outcome, false);
    }
    // A name that stands for another keeps its sender's wishes, also where a group leads there too.
    onward.sort_by_key(|one: &Onward| !one.is_alias());
    if !onward.is_empty() {
        send_on(room, directory, job, &onward, &staying).await;
    }
}

/// Makes the new message, and ends those whom it was made for.
async fn send_on(
    room: &Room,
    directory: &Directory,
    job: &mut Job,
    onward: &[Onward],
    staying: &[Mailbox],
) {
    let made = make(room, directory, job, onward, staying).await;
    let now = room.clock.now();
    for one in onward {
        match &made {
            Ok(made) => {
                let (status, words) = one.end();
                let outcome = Outcome::local(now, Stage::Directory, status, words);
                job.end(one.place, outcome, made.relieved.contains(&one.place));
            }
            Err(why) => {
                let outcome = Outcome::local(now, Stage::Directory, TROUBLE, why);
                job.end(one.place, outcome, false);
            }
        }
    }
    job.made = made.ok().and_then(|made| made.draft);
}

/// What is made of recipients whose mail goes on.
struct Made {
    /// The new message; none if everybody has it by the old one.
    draft: Option<Box<Draft>>,
    /// Places of names that stand for another: their senders hear of the delivery from there (RFC 3461
    /// section 5.2.7.2).
    relieved: Vec<usize>,
}

/// Makes it. The error is for people.
async fn make(
    room: &Room,
    directory: &Directory,
    job: &Job,
    onward: &[Onward],
    staying: &[Mailbox],
) -> Result<Made, String> {
    let mut made = Made { draft: None, relieved: Vec::new() };
    let Some(lease) = &job.lease else { return Ok(made) };
    let mut seen: HashSet<Box<str>> = staying.iter().map(key).collect();
    let mut recipients = Vec::new();
    for one in onward {
        let Some(old) = job.envelope.recipients.get(one.place) else { continue };
        for to in one.to.iter().filter(|to| seen.insert(key(&to.mailbox))) {
            if one.is_alias() {
                made.relieved.push(one.place);
            }
            let stays_so = to.is_known || directory.unknown() == UnknownRecipient::Deliver;
            recipients.push(Recipient {
                mailbox: to.mailbox.clone(),
                notify: if one.is_alias() { old.notify } else { old.notify.map(of_member) },
                orcpt: old.original(),
                resolved: stays_so,
                forwarded: old.forwarded,
                via: to.via.clone().map(|host| SmartHost::Host { host, port: None }),
            });
        }
    }
    if recipients.is_empty() {
        return Ok(made);
    }
    // What settles mail may use the last room of the disk; what makes more of it may not.
    room.queue.ready().map_err(|why| format!("no room for the new message: {why}"))?;
    let body = room.queue.copy_of(lease).await.map_err(|why| format!("the message {why}"))?;
    let mut envelope = Envelope { recipients, hold: None, ..(*job.envelope).clone() };
    envelope.smtputf8 |= envelope.recipients.iter().any(|to| !to.mailbox.is_ascii());
    envelope.origin.source = Some(lease.id.to_string());
    envelope.hold = room.queue.orders().hold_for(&envelope, room.clock.now());
    made.draft = Some(Box::new(Draft { envelope, body }));
    Ok(made)
}

/// What a member's host is to report: of success the sender hears once, that the list was expanded (RFC
/// 3461 section 5.2.7.3).
fn of_member(notify: Notify) -> Notify {
    Notify { success: false, ..notify }
}
