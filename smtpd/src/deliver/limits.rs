//! Limits that lanes share: those of a smart host, also over virtual servers, and those of a remote
//! domain's entry.
//!
//! A lane asks before it leases how many messages may go, and a connection is counted from before
//! it is opened until it is closed, idle ones included.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroot_common::config::SmartHostName;
use mailroot_common::rate::Rate;
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

impl Settings {
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
