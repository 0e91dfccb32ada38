//! The process itself: descriptors it may have, signals it hears, words to its supervisor.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Descriptors kept for everything that is not a session: logs, segments, sockets, directories.
pub const DESCRIPTORS_RESERVED: u64 = 128;

/// Sets the mask so that files are private unless a mode says otherwise.
pub fn make_files_private() {
    umask(Mode::from_bits_truncate(0o027));
}

/// Keeps what this process has in memory, passwords and keys among it, to itself: the system writes no core
/// file of it, nor hands one to a program, which the limit alone does not prevent; and nobody but root may look
/// into it, other programs of its own user neither.
pub fn keep_memory_to_ourselves() {
    // A sandbox that forbids the questions has a limit of its own.
    let _forbidden = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _forbidden = set_dumpable(false);
}

/// Whether this process may do everything, which the daemon has no need of.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Raises the soft limit of descriptors to the hard one and says what holds now; `None` if the
/// system does not tell (a sandbox may forbid the question).
#[must_use]
pub fn raise_descriptor_limit() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return Some(hard);
    }
    Some(soft)
}

/// The addresses of this machine, so that mail is not sent in circles; none if the sandbox forbids
/// the question (it needs a netlink socket).
#[must_use]
pub fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect()
}

/// What the supervisor or the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT: stop gracefully.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: open the log file again.
    ReopenLog,
}

/// The signals that ask for something.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user: Signal,
}

impl Signals {
    /// Begins to listen; from now on these signals no longer end the process by themselves.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next request.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Stop,
            _ = self.interrupt.recv() => Request::Stop,
            _ = self.hang_up.recv() => Request::Reload,
            _ = self.user.recv() => Request::ReopenLog,
        }
    }
}

/// Tells the supervisor that the service answers. Without a supervisor nothing happens.
pub fn tell_ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells the supervisor that the service stops.
pub fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells the supervisor that the daemon makes progress.
pub fn tell_alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    // A supervisor that does not listen changes nothing for the mail.
    let _ = sd_notify::notify(states);
}

/// How often the supervisor wants to hear [`tell_alive`]: half of its limit. `None` if it does not.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Whether standard output is connected to the journal: the variable names device and inode of what a
/// service was started with, and is there as well where that was replaced.
#[must_use]
pub fn stdout_is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let stat = nix::sys::stat::fstat(io::stdout());
    stat.is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The unit of systemd that this process belongs to, if it is one.
#[must_use]
pub fn unit() -> Option<String> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    unit_in(&groups)
}

fn unit_in(groups: &str) -> Option<String> {
    let names = groups.lines().flat_map(|line| line.rsplit('/'));
    names.into_iter().find(|name| name.ends_with(".service")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_the_last_service_of_its_group() {
        let group = "0::/system.slice/system-mail.slice/mailroot.service\n";
        assert_eq!(unit_in(group).as_deref(), Some("mailroot.service"));
        assert_eq!(unit_in("0::/user.slice/session-1.scope\n"), None);
    }

    #[test]
    fn own_addresses_hold_no_wildcard() {
        assert!(own_addresses().iter().all(|address| !address.is_unspecified()));
    }

    #[test]
    fn the_soft_limit_reaches_the_hard_one() {
        let now = raise_descriptor_limit();
        let hard = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard);
        assert_eq!(now, hard);
    }
}
