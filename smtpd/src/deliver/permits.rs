//! What a connection needs leave for: the limit of its entry or smart host, and its site.

use smtpd_core::route::domain::Limits;

use super::Settings;
use super::aim::Target;
use super::limits::{Limited, Permit};
use super::room::Room;
use super::session::Connection;
use super::site::{Refused, SitePermit};

/// Leave to have a connection; given back when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Permits {
    limit: Option<Permit>,
    site: Option<SitePermit>,
}

/// Why a connection may not be opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// A limit that others share is used up.
    Limit,
    /// The site is left alone, or has as many as it may have.
    Site,
}

impl Permits {
    /// The connection was answered.
    pub(super) fn note_connected(&mut self) {
        if let Some(site) = &mut self.site {
            site.note_connected();
        }
    }

    /// The connection carries nothing and waits for more, or does so no longer.
    pub(super) fn note_idle(&mut self, is_idle: bool) {
        if let Some(site) = &mut self.site {
            site.note_idle(is_idle);
        }
    }

    /// Keeps the site's leave for what follows.
    pub(super) fn into_site(self) -> Option<SitePermit> {
        self.site
    }
}

impl Room {
    /// Leave to have a connection. Leave of the same site that is held already, or promised, is used
    /// first.
    ///
    /// # Errors
    ///
    /// What leaves no room for it.
    pub(super) async fn enter(
        &self,
        settings: &Settings,
        target: &Target,
        held: &mut Option<SitePermit>,
    ) -> Result<Permits, NoRoom> {
        let mut permits = Permits::default();
        let mut most = settings.connections_per_route;
        if let Some(Limited { name, limits: Limits { connections: Some(limit), .. } }) =
            &target.limited
        {
            permits.limit = Some(self.limits.enter(name, *limit).ok_or(NoRoom::Limit)?);
            // An entry may say more than others get. If it says less, that is no matter of its site.
            most = most.max(usize::try_from(*limit).unwrap_or(usize::MAX));
        }
        let Some(site) = &target.site else { return Ok(permits) };
        let held = held.take().filter(|held| held.is_for(site));
        if held.as_ref().is_some_and(SitePermit::is_leave) {
            permits.site = held;
            return Ok(permits);
        }
        let now = self.clock.elapsed();
        let mut found = site.enter(held, most, now);
        if matches!(found, Err(Refused::Full))
            && let Some(idle) = self.reuse.take_of_site(site)
        {
            idle.make_way().await;
            found = site.enter(None, most, now);
        }
        permits.site = Some(found.map_err(|_| NoRoom::Site)?);
        Ok(permits)
    }
}

impl Connection {
    /// Takes the connection's leave away, for the one that takes its place.
    pub(super) fn take_permits(&mut self) -> Permits {
        std::mem::take(&mut self.permits)
    }
}
