//! Names of routes: the canonical text of a way out. Queues and lanes are keyed by it.

use std::fmt;
use std::sync::Arc;

use mailroot_common::config::SmartHostName;
use serde::{Deserialize, Serialize};

/// The canonical text of a route, such as `drop`, `mx:example.com` or `host:relay.example:587`.
///
/// Cheap to clone. Routes are equal exactly if their names are, within one table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RouteName(pub(super) Arc<str>);

impl RouteName {
    /// The name under which local mail waits.
    pub const DROP: &'static str = "drop";

    /// A name read back from a record or typed by an operator; it need not exist in any table.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What an operator calls it: the domain, or each host with and without its port; `drop`.
    pub fn destinations(&self) -> impl Iterator<Item = &str> {
        let text = self.0.split_once(';').map_or(&*self.0, |(text, _)| text);
        let rest = text.split_once(':').map_or(text, |(_, rest)| rest);
        rest.split(',').flat_map(|host| {
            let end = host.rfind(']').map_or(0, |end| end + 1);
            let bare = host.get(end..).and_then(|tail| tail.rfind(':')).map(|at| &host[..end + at]);
            let named = host.strip_prefix(SmartHostName::PREFIX).and_then(SmartHostName::parse);
            let bare =
                if named.is_some() { host.split_once(':').map(|(_, name)| name) } else { bare };
            [Some(host), bare].into_iter().flatten()
        })
    }

    /// The domain whose mail waits here until it is asked for, if this is such a route.
    #[must_use]
    pub fn held_domain(&self) -> Option<&str> {
        let rest = self.0.strip_prefix(HELD)?;
        Some(rest.split_once(';').map_or(rest, |(domain, _)| domain))
    }

    /// The pattern of the remote domain whose limits hold here, if any do.
    #[must_use]
    pub fn limited_by(&self) -> Option<&str> {
        self.0.split_once(LIMITED).map(|(_, pattern)| pattern)
    }

    /// The smart host with a name that mail on this route goes to first, if it does.
    #[must_use]
    pub fn smart_host(&self) -> Option<SmartHostName> {
        let first = self.0.strip_prefix("host:")?.split([',', ';']).next()?;
        SmartHostName::parse(first.strip_prefix(SmartHostName::PREFIX)?)
    }

    /// Whether this is a way to hosts that were named, instead of those of a domain.
    #[must_use]
    pub fn is_to_hosts(&self) -> bool {
        self.0.starts_with("host:")
    }

    /// Whether this is the way into Drop.
    #[must_use]
    pub fn is_drop(&self) -> bool {
        &*self.0 == Self::DROP
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands in names of routes before the entry whose limits hold.
pub(super) const LIMITED: &str = ";limit=";

/// What the names of routes begin with whose mail waits to be asked for.
pub(super) const HELD: &str = "etrn:";
