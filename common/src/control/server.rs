//! Virtual servers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DestinationPause;
use crate::config::EffectiveKey;
use crate::units::Timestamp;

/// What a virtual server does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// Neither takes nor delivers mail.
    Stopped,
    /// On its way to running.
    Starting,
    /// Takes and delivers mail.
    Running,
    /// Takes no new sessions; delivery goes on.
    Paused,
    /// On its way to stopped.
    Stopping,
}

impl ServerState {
    /// The word of the interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can be asked of a virtual server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Take and deliver mail.
    Start,
    /// End sessions with 421 and stop.
    Stop,
    /// Take no new sessions; deliver on.
    Pause,
    /// Take new sessions again.
    Resume,
}

impl Verb {
    /// The word of the interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// A word that is not a [`Verb`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not start, stop, pause or resume")]
pub struct VerbError(pub String);

impl FromStr for Verb {
    type Err = VerbError;

    fn from_str(text: &str) -> Result<Self, VerbError> {
        [Self::Start, Self::Stop, Self::Pause, Self::Resume]
            .into_iter()
            .find(|verb| verb.as_str() == text)
            .ok_or_else(|| VerbError(text.to_owned()))
    }
}

/// What waits in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueCounts {
    /// All messages.
    pub messages: u64,
    /// Those with an attempt behind them.
    pub retry: u64,
    /// Those held by an operator.
    pub held: u64,
    /// Octets of all messages.
    #[serde(default)]
    pub bytes: u64,
    /// When the oldest was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_at: Option<Timestamp>,
}

/// One virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: ServerState,
    /// Why it is not running, if it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Why it was paused or stopped, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The addresses it listens on, `address:port`; those bound when it runs, else those configured.
    pub listen: Vec<String>,
    /// Its default domain.
    pub domain: String,
    /// Its smart host, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smart_host: Option<String>,
    /// How clients may send: `anonymous`, without a login; `basic`, with a password; `integrated`, with a
    /// ticket of Kerberos.
    #[serde(default)]
    pub auth: Vec<String>,
    /// `modern` or `iis6`.
    pub profile: String,
    /// Sessions of clients.
    pub sessions_in: u64,
    /// Connections to other hosts.
    pub sessions_out: u64,
    /// Its queue.
    pub queue: QueueCounts,
    /// Destinations that an operator has paused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<DestinationPause>,
    /// Rules that hold mail yet to come.
    #[serde(default)]
    pub future_holds: u64,
    /// Messages in Badmail.
    pub badmail: u64,
    /// The directory of Pickup, Queue, Drop and Badmail.
    pub mail_root: String,
    /// Octets free on its file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
}

/// One virtual server with its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerDetail {
    /// What a list says of it.
    #[serde(flatten)]
    pub server: Server,
    /// Its configuration file.
    pub file: String,
    /// Its settings in the order of the manual.
    #[serde(default)]
    pub settings: Vec<Setting>,
    /// What it counted since the daemon started, by the counter's name.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
}

/// One setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Setting {
    /// Its name, such as `messages.max_size`.
    pub key: String,
    /// Its value as it would be written.
    pub value: String,
    /// What the value comes to where it stands for something else: the name of this machine, the addresses
    /// bound, the whole of a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<String>,
    /// `file:line`, or `default`.
    pub origin: String,
    /// The default of its profile.
    #[serde(default)]
    pub default: String,
    /// The default of the original.
    #[serde(default)]
    pub iis_default: String,
}

impl Setting {
    /// Notes what the value comes to, if it is written otherwise.
    pub fn comes_to(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.in_force = (what != self.value).then_some(what);
    }
}

impl From<EffectiveKey> for Setting {
    fn from(key: EffectiveKey) -> Self {
        Self {
            key: key.key,
            value: key.value,
            in_force: None,
            origin: key.origin.unwrap_or_else(|| "default".to_owned()),
            default: key.default,
            iis_default: key.iis_default,
        }
    }
}

/// Asks for a new virtual server. The file is written by the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewServer {
    /// Its name, which becomes the name of its file.
    pub name: String,
    /// The addresses to listen on, `address:port`.
    #[serde(default)]
    pub listen: Vec<String>,
    /// Its default domain; the host's name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The directory of its mail; below the spool if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The smart host, `host[:port]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smart_host: Option<String>,
    /// `modern` (the default) or `iis6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What it is made for: `relay`, `printers`, `internal`, `internet` or `users`; writes keys with reasons
    /// into its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Write the file, but do not start it.
    #[serde(default)]
    pub stopped: bool,
}

/// Why a verb is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerbRequest {
    /// For the log and for `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the server's file is to say so, and it holds beyond the daemon's end. For start and
    /// stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub persist: bool,
    /// To pause: a span such as `10m` after which the server is resumed.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub span: Option<String>,
    /// To stop: a span such as `30s` in which sessions may go on while no new ones are taken; it
    /// stops when they have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<String>,
    /// To stop or to pause: end sessions at once with 421, also those with a message on its way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kill_sessions: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_read_back_as_written() {
        for verb in [Verb::Start, Verb::Stop, Verb::Pause, Verb::Resume] {
            assert_eq!(verb.as_str().parse(), Ok(verb));
        }
        assert!("Start".parse::<Verb>().is_err());
    }
}
