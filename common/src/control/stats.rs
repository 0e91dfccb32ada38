//! What was sent, from the trace; and the destinations that mail waits for.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::queue::Attempt;
use crate::units::{Span, Timestamp};

/// What recipients are counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatsBy {
    /// The virtual server.
    #[default]
    Server,
    /// Where they were sent: a domain, a host, or `drop`.
    Destination,
    /// The sender's address.
    Sender,
    /// The hour in which it happened, in UTC.
    Hour,
    /// Nothing: all together.
    Service,
}

impl StatsBy {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Server, Self::Destination, Self::Sender, Self::Hour, Self::Service];

    /// The word of the interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Destination => "destination",
            Self::Sender => "sender",
            Self::Hour => "hour",
            Self::Service => "service",
        }
    }
}

impl fmt::Display for StatsBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is not a [`StatsBy`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not server, destination, sender, hour or service")]
pub struct StatsByError(pub String);

impl FromStr for StatsBy {
    type Err = StatsByError;

    fn from_str(text: &str) -> Result<Self, StatsByError> {
        Self::ALL
            .into_iter()
            .find(|by| by.as_str() == text)
            .ok_or_else(|| StatsByError(text.to_owned()))
    }
}

/// What became of the recipients of one group. Further groups are only counted once there are
/// [`Stats::GROUPS_MAX`]; they are together in one that is named [`Stats::OTHERS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// What they have in common.
    pub group: String,
    /// Recipients delivered to, at other hosts or in Drop.
    pub sent: u64,
    /// Attempts that are to be made again, by recipient.
    pub deferred: u64,
    /// Recipients that mail was returned for, or put into Badmail.
    pub failed: u64,
    /// Octets sent: the size of each message, once for each of its recipients.
    pub bytes: u64,
    /// From acceptance to delivery: half of those sent took no longer. Within an eighth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<Span>,
    /// 95 of 100 took no longer. Within an eighth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95: Option<Span>,
    /// 99 of 100 took no longer. Within an eighth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<Span>,
}

impl Stats {
    /// How many groups are told apart.
    pub const GROUPS_MAX: usize = 10_000;
    /// The name of those beyond.
    pub const OTHERS: &'static str = "(others)";
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DestinationState {
    /// Mail waits for its time, or none is there.
    Idle,
    /// Mail is under way.
    Active,
    /// It could not be reached.
    Backoff,
    /// An operator has paused it.
    Paused,
}

impl DestinationState {
    /// The word of the interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Backoff => "backoff",
            Self::Paused => "paused",
        }
    }
}

/// Who set a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitBy {
    /// The configuration, or its default.
    #[default]
    Configuration,
    /// The preset of the smart host.
    Preset,
    /// The destination, by what it took and refused: fewer for now than may be.
    Learned,
}

/// What limits the mail that leaves for a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutboundLimit {
    /// Connections at the same time that are allowed now.
    pub connections: u64,
    /// Who says so.
    pub connections_by: LimitBy,
    /// Connections that are allowed at most.
    pub connections_max: u64,
    /// Messages in a time, such as `30/min`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// Who says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_by: Option<LimitBy>,
    /// The remote domain's entry that it stands in, if it does in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Until when nothing is sent there, because it could not be reached or asked for less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests_until: Option<Timestamp>,
}

impl LimitBy {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Preset => "preset",
            Self::Learned => "learned",
        }
    }
}

impl OutboundLimit {
    /// For people: what is used of it, and who set it, such as `2 of 3 (preset), 30/min (preset)`.
    #[must_use]
    pub fn words(&self, used: u64) -> String {
        let mut words = format!("{used} of {} ({}", self.connections, self.connections_by.as_str());
        if self.connections_by == LimitBy::Learned {
            words.push_str(&format!(", at most {}", self.connections_max));
        }
        words.push(')');
        if let (Some(rate), Some(by)) = (&self.rate, self.rate_by) {
            words.push_str(&format!(", {rate} ({})", by.as_str()));
        }
        words
    }
}

/// One way that mail takes out of a virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Destination {
    /// The virtual server.
    pub server: String,
    /// The domain, the host, or `drop`.
    pub destination: String,
    /// The route as traces name it.
    pub route: String,
    /// What it does.
    pub state: DestinationState,
    /// Workers that carry its mail, each with at most one connection.
    pub connections: u64,
    /// What limits the mail that leaves for it; absent for Drop, and where nothing left since the
    /// virtual server began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<OutboundLimit>,
    /// Messages with a recipient that waits for it.
    pub messages: u64,
    /// When the next of them is tried; absent if all are held or being tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// When the oldest message that waits was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_at: Option<Timestamp>,
    /// How often in a row it could not be reached.
    #[serde(default)]
    pub failures: u64,
    /// What the last failure to reach it came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Attempt>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_tells_what_is_used_and_who_set_it() {
        let limit = OutboundLimit {
            connections: 5,
            connections_by: LimitBy::Learned,
            connections_max: 20,
            rate: Some("30/min".to_owned()),
            rate_by: Some(LimitBy::Preset),
            ..OutboundLimit::default()
        };
        assert_eq!(limit.words(2), "2 of 5 (learned, at most 20), 30/min (preset)");
        let plain = OutboundLimit { connections: 20, connections_max: 20, ..Default::default() };
        assert_eq!(plain.words(0), "0 of 20 (configuration)");
    }

    #[test]
    fn words_are_read_back_as_written() {
        for by in StatsBy::ALL {
            assert_eq!(by.as_str().parse(), Ok(by));
            assert_eq!(serde_json::to_value(by).unwrap(), by.as_str());
        }
        assert!("Server".parse::<StatsBy>().is_err());
    }
}
