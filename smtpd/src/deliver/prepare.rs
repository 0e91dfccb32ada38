//! What a message leaves with: another `From` where rules say so, signatures over what leaves, and a seal over
//! both.
//!
//! In: leased messages on their way to another host. Out: the same, with what takes the place of their
//! beginning; or for now an end with words, because mail that is to be signed or sealed never leaves without.
//! All are done once for an attempt. A server that has neither rules for `From` nor keys pays nothing;
//! any other looks at the header of what it sends.

use std::io;
use std::sync::Arc;

use mailroot_common::status::EnhancedCode;
use mailroot_common::units::Timestamp;
use smtpd_core::message::header::{self, HeaderEnd};
use smtpd_core::message::rewrite::rewrite_from;
use smtpd_core::queue::outcome::{Outcome, Stage};

use super::Settings;
use super::finish::finish;
use super::front::Front;
use super::job::Job;
use super::room::Room;
use super::sign::digest_of;
use crate::queue::BodyReader;

/// The longest header that is changed or signed.
const HEADER_OCTETS_MAX: usize = 1 << 20;

/// Prepares each message. One that cannot be signed ends here for now.
pub(super) async fn prepare_all(room: &Arc<Room>, settings: &Settings, jobs: &mut [Job]) {
    if settings.signing.is_off() && !settings.senders.touches_header() {
        return;
    }
    let now = room.clock.now();
    for job in jobs.iter_mut().filter(|job| job.is_open()) {
        match prepare(settings, job, now).await {
            Ok(front) => job.front = front.map(Arc::new),
            Err(why) => {
                let text = format!("the message cannot be signed and waits: {why}");
                let status = EnhancedCode::transient(7, 5);
                job.end_all(&Outcome::local(now, Stage::Sign, status, text));
                finish(room, job).await;
            }
        }
    }
}

/// What one message begins with; nothing if it leaves as it is.
async fn prepare(settings: &Settings, job: &Job, now: Timestamp) -> Result<Option<Front>, String> {
    let Some(lease) = &job.lease else { return Ok(None) };
    let mut reader = lease.open();
    let beginning = read_beginning(&mut reader).await.map_err(|error| unreadable(&error))?;
    let facts = header::scan(&beginning, HEADER_OCTETS_MAX);
    let end = match facts.end {
        HeaderEnd::Open if beginning.len() >= HEADER_OCTETS_MAX => {
            return Err(format!("its header has more than {HEADER_OCTETS_MAX} octets"));
        }
        HeaderEnd::Open => beginning.len(),
        HeaderEnd::EmptyLine | HeaderEnd::NotField => facts.header_octets,
    };
    let (stored, rest) = beginning.split_at(end);
    let (senders, table) = (&settings.senders, &settings.table);
    let is_touched = senders.touches_header();
    let replace = |author: &_| senders.header(author, table);
    let rewritten = is_touched.then(|| rewrite_from(stored, replace)).flatten();
    let leaving = rewritten.as_deref().unwrap_or(stored);
    let signing = &settings.signing;
    let (keys, plan) = (signing.keys_for(settings, job, leaving, now), signing.plan(job, leaving));
    let mut octets = Vec::new();
    if !keys.is_empty() || plan.is_some() {
        let digest = digest_of(rest, &mut reader).await.map_err(|error| unreadable(&error))?;
        octets = signing.sign(&keys, leaving, &digest, now).await?;
        if let Some(plan) = plan {
            let header = [&octets, leaving].concat();
            let set = signing.seal(&plan, &header, &digest, now).await?;
            octets.splice(..0, set);
        }
    }
    let replaces = if rewritten.is_some() { end as u64 } else { 0 };
    octets.extend(rewritten.unwrap_or_default());
    Ok((!octets.is_empty()).then_some(Front { octets, replaces }))
}

fn unreadable(error: &io::Error) -> String {
    format!("it cannot be read here: {error}")
}

/// The octets up to the end of the header, and some behind it.
async fn read_beginning(reader: &mut BodyReader) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    while let Some(piece) = reader.next().await? {
        octets.extend_from_slice(piece);
        let is_over = header::scan(&octets, HEADER_OCTETS_MAX).end != HeaderEnd::Open;
        if is_over || octets.len() >= HEADER_OCTETS_MAX {
            break;
        }
    }
    Ok(octets)
}
