//! Limits that lanes share: those of a smart host, also over virtual servers, and those of a remote
//! domain's entry.
//!
//! A lane asks before it leases how many messages may go, and a connection is counted from before
//! it is opened until it is closed, idle ones included.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroot_common::config::SmartHostName;
use mailroot_common::config::lane_limits::LaneLimits;
use mailroot_common::config::smart_hosts::SmartHostKeys;
use mailroot_common::control::{LimitBy, OutboundLimit};
use mailroot_common::rate::Rate;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::pace::Pace;
use smtpd_core::route::domain::Limits;
use smtpd_core::route::table::RouteName;

use super::Settings;

/// The limits of a service, as far as they are used. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SharedLimits(Arc<Mutex<HashMap<Arc<str>, Used>>>);

/// What is used of one.
#[derive(Debug, Default)]
struct Used {
    pace: Pace,
    open: u32,
}

/// Limits, and under which name they are shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Limited {
    pub(super) name: Arc<str>,
    pub(super) limits: Limits,
}

/// Leave to have a connection; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    name: Arc<str>,
    all: SharedLimits,
}

impl SharedLimits {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Used>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets up to `wanted` messages go; the error is how long to wait for the next.
    pub(super) fn take(
        &self,
        name: &Arc<str>,
        rate: Rate,
        wanted: usize,
        now: Duration,
    ) -> Result<usize, Duration> {
        self.lock().entry(Arc::clone(name)).or_default().pace.take(rate, wanted, now)
    }

    /// Takes back what did not go.
    pub(super) fn give_back(&self, name: &Arc<str>, rate: Rate, unused: usize) {
        if let Some(used) = self.lock().get_mut(name).filter(|_| unused > 0) {
            used.pace.give_back(rate, unused);
        }
    }

    /// How many connections there are under a limit.
    pub(super) fn open(&self, name: &Arc<str>) -> u32 {
        self.lock().get(name).map_or(0, |used| used.open)
    }

    /// Leave to have one more connection, unless there are as many as may be.
    pub(super) fn enter(&self, name: &Arc<str>, most: u32) -> Option<Permit> {
        let mut all = self.lock();
        let used = all.entry(Arc::clone(name)).or_default();
        if used.open >= most {
            return None;
        }
        used.open += 1;
        Some(Permit { name: Arc::clone(name), all: self.clone() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(used) = self.all.lock().get_mut(&self.name) {
            used.open = used.open.saturating_sub(1);
        }
    }
}

/// What may leave for a destination at most, by the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    pub(super) connections: u64,
    pub(super) connections_by: LimitBy,
    pub(super) rate: Option<(Rate, LimitBy)>,
}

impl Allowed {
    /// The same, with the connections that it gets now.
    pub(super) fn with(self, earned: usize, rests_until: Option<Timestamp>) -> OutboundLimit {
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        let is_learned = earned < self.connections;
        OutboundLimit {
            connections: earned.min(self.connections),
            connections_by: if is_learned { LimitBy::Learned } else { self.connections_by },
            connections_max: self.connections,
            rate: self.rate.map(|(rate, _)| rate.to_string()),
            rate_by: self.rate.map(|(_, by)| by),
            rests_until,
            entry: None,
        }
    }
}

impl Settings {
    /// What is allowed for mail on a route.
    pub(super) fn allowed(&self, route: &RouteName) -> Allowed {
        let limits = self.table.limits(route).unwrap_or_default();
        self.allowed_by(route.smart_host().as_ref(), limits)
    }

    /// What is allowed for mail by a smart host, or where these limits hold.
    pub(super) fn allowed_by(&self, name: Option<&SmartHostName>, limits: Limits) -> Allowed {
        let keys = name.and_then(|name| self.smart_hosts.get(name));
        let (connections, rate) = match keys.map(SmartHostKeys::lane_limits) {
            Some(keys) => (keys.connections, keys.rate),
            None => (limits.connections, limits.rate),
        };
        let by = |is_said: &dyn Fn(&LaneLimits) -> bool| match keys {
            Some(keys) if !is_said(&keys.limits) => LimitBy::Preset,
            Some(_) | None => LimitBy::Configuration,
        };
        Allowed {
            connections: connections.map_or_else(
                || self.connections_per_route.try_into().unwrap_or(u64::MAX),
                u64::from,
            ),
            connections_by: match connections {
                Some(_) => by(&|said| said.connections.is_some()),
                None => LimitBy::Configuration,
            },
            rate: rate.map(|rate| (rate, by(&|said| said.rate.is_some()))),
        }
    }

    /// The limits that hold on a route, if there are any.
    pub(super) fn limited(&self, server: &str, route: &RouteName) -> Option<Limited> {
        if let Some(name) = route.smart_host() {
            return self.limited_smart_host(&name);
        }
        let limits = self.table.limits(route)?;
        let name = format!("{server}/{}", route.limited_by().unwrap_or_default()).into();
        Some(Limited { name, limits })
    }

    /// The limits of a smart host, if it has any.
    pub(super) fn limited_smart_host(&self, name: &SmartHostName) -> Option<Limited> {
        let keys = self.smart_hosts.get(name)?.lane_limits();
        let limits =
            Limits { connections: keys.connections, rate: keys.rate, recipients: keys.recipients };
        let name = format!("{}{name}", SmartHostName::PREFIX).into();
        (!limits.is_none()).then_some(Limited { name, limits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_until_they_are_closed() {
        let (all, name): (_, Arc<str>) = (SharedLimits::default(), "smarthost:isp".into());
        let first = all.enter(&name, 2).unwrap();
        let second = all.clone().enter(&name, 2).unwrap();
        assert!(all.enter(&name, 2).is_none(), "also by way of a copy");
        assert!(all.enter(&"other".into(), 1).is_some());
        drop(first);
        let third = all.enter(&name, 2);
        assert!(third.is_some() && all.enter(&name, 2).is_none());
        drop((second, third));
        assert!(all.enter(&name, 1).is_some());
    }

    #[test]
    fn what_did_not_go_is_taken_back() {
        let (all, name): (_, Arc<str>) = (SharedLimits::default(), "a".into());
        let rate = Rate::per_minute(6);
        assert_eq!(all.take(&name, rate, 5, Duration::ZERO), Ok(1));
        assert!(all.take(&name, rate, 5, Duration::ZERO).is_err());
        all.give_back(&name, rate, 1);
        assert_eq!(all.take(&name, rate, 5, Duration::ZERO), Ok(1));
    }
}
