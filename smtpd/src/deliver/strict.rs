//! What senders want of the protection of their mail (RFC 8689).
//!
//! `TLS-Required: No` has mail go without what others demand rather than not at all. REQUIRETLS has it
//! go under TLS, to a host that is beyond doubt the right one and that promises the same for the next
//! hop, or not at all: then the sender hears of it at once. Mail with REQUIRETLS goes apart from other
//! mail of its lane, and what keeps it back is held against nobody else's.

use std::sync::Arc;

use mailroot_common::address::Domain;
use mailroot_common::status::EnhancedCode;
use smtpd_core::queue::outcome::{AttemptResult, Stage};
use smtpd_core::route::mx::MxRecord;
use smtpd_core::route::table::{Route, TlsPolicy};
use smtpd_core::smtp::client::{Ending, NO_REQUIRETLS};

use super::Settings;
use super::attempt::{Report, attempt};
use super::job::Job;
use super::room::Room;
use super::session::Connection;
use super::site::SitePermit;
use super::trust::OfDomain;
use super::worker::Working;
use crate::resolve::{Allowance, LookupError};

/// Encryption needed (RFC 7504, RFC 8689 section 4.2.1).
const NEEDS_TLS: EnhancedCode = EnhancedCode::permanent(7, 10);
/// REQUIRETLS needed (RFC 8689 section 4.2.1).
const NEEDS_REQUIRETLS: EnhancedCode = EnhancedCode::permanent(7, 30);

/// What the senders of mail want of its protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsWish {
    /// Nothing.
    Usual,
    /// That it is sent without what others demand rather than not at all.
    Relaxed,
    /// That it is sent under TLS all the way or not at all.
    Strict,
}

impl TlsWish {
    /// By which policy others are asked for their demands; by `off` nobody is.
    pub(super) const fn heeded(self, policy: TlsPolicy) -> TlsPolicy {
        match self {
            Self::Usual => policy,
            Self::Relaxed => TlsPolicy::Off,
            Self::Strict => TlsPolicy::Verify,
        }
    }

    /// By which policy hosts are called.
    pub(super) const fn raised(self, policy: TlsPolicy) -> TlsPolicy {
        match self {
            Self::Usual | Self::Relaxed => policy,
            Self::Strict => TlsPolicy::Verify,
        }
    }

    /// Whether a host that DNS has named may be called.
    ///
    /// # Errors
    ///
    /// Why not: anybody could have named it.
    pub(super) fn vouched(self, of_domain: &OfDomain, host: &Domain) -> Result<(), Ending> {
        if self != Self::Strict || of_domain.vouches_for(host) {
            return Ok(());
        }
        Err(unvouched(of_domain.domain(), host))
    }

    /// Makes a refusal of a failure of TLS, where there is to be TLS.
    pub(super) fn judge(self, ending: &mut Ending) {
        if self == Self::Strict && ending.stage == Stage::Tls {
            ending.status = NEEDS_TLS;
            ending.result = AttemptResult::Failed;
            ending.text = format!("{} (REQUIRETLS)", ending.text);
        }
    }

    /// Why a host that has let us in gets no such mail.
    pub(super) fn shortcoming(self, connection: &Connection) -> Option<Ending> {
        let lacks = self == Self::Strict && !connection.client.peer().require_tls;
        lacks.then(|| Ending::local(Stage::Hello, NEEDS_REQUIRETLS, NO_REQUIRETLS))
    }
}

fn unvouched(domain: &Domain, host: &Domain) -> Ending {
    let text = format!(
        "nobody vouches for {host} as a host of {domain}: its MX records are not signed (DNSSEC), and no \
         MTA-STS policy names it (REQUIRETLS)"
    );
    Ending::local(Stage::Tls, NEEDS_TLS, text)
}

/// The MX records of a name of the operator's, if they are beyond doubt.
///
/// # Errors
///
/// Why none of its hosts may be called.
pub(super) async fn strict_mx(
    settings: &Settings,
    name: &Domain,
    allowance: &Allowance,
) -> Result<Result<Vec<MxRecord>, LookupError>, Ending> {
    match settings.resolver.mx(name, allowance).await {
        Ok(found) if found.is_secure || found.value.is_empty() => Ok(Ok(found.value)),
        Ok(found) => {
            let host = found.value.into_iter().find_map(|record| record.exchange);
            Err(unvouched(name, host.as_ref().unwrap_or(name)))
        }
        Err(error) => Ok(Err(error)),
    }
}

/// Tries jobs, as their senders want it.
pub(super) async fn attempt_all(
    room: &Arc<Room>,
    settings: &Settings,
    route: &Route,
    jobs: &mut [Job],
    had: (Option<Box<Connection>>, Option<SitePermit>),
    working: &Working<'_>,
) -> Report {
    if !jobs.iter().any(Job::requires_tls) {
        // Boxed, so that a worker that waits holds no room for it.
        return Box::pin(attempt(room, settings, route, jobs, had, working, TlsWish::Usual)).await;
    }
    // Boxed, because it is rare and as large as all else here.
    Box::pin(attempt_apart(room, settings, route, jobs, had, working)).await
}

/// Tries those that require TLS by themselves, behind the others.
async fn attempt_apart(
    room: &Arc<Room>,
    settings: &Settings,
    route: &Route,
    jobs: &mut [Job],
    had: (Option<Box<Connection>>, Option<SitePermit>),
    working: &Working<'_>,
) -> Report {
    jobs.sort_by_key(Job::requires_tls);
    let count = jobs.iter().take_while(|job| !job.requires_tls()).count();
    let (usual, strict) = jobs.split_at_mut(count);
    let (report, promise) = match usual.is_empty() {
        true => (Report { connection: had.0, ..Report::default() }, had.1),
        false => {
            let wish = TlsWish::Usual;
            (attempt(room, settings, route, usual, had, working, wish).await, None)
        }
    };
    if report.no_room.is_some() || room.is_given_up() {
        return report;
    }
    // Where it is as good as the others want it, it is found again; else it makes way.
    if let Some(connection) = report.connection {
        room.reuse.keep(connection, settings, &room.settings);
    }
    let had = (None, promise);
    let apart = attempt(room, settings, route, strict, had, working, TlsWish::Strict).await;
    if let Some(connection) = apart.connection {
        room.reuse.keep(connection, settings, &room.settings);
    }
    Report { connection: None, no_room: apart.no_room }
}
