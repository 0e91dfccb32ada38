//! Whether the clock of this machine can be trusted: mail is tried, given up and told by it.

use std::fs;
use std::path::Path;

use mailroot_common::control::{Check, Level, Problem, Status, TraceRecord, path};
use mailroot_common::units::{Span, Timestamp};

use crate::output::human_span;
use crate::tool::Tool;

/// What systemd-timesyncd leaves behind once the clock is right.
const TIMESYNC_MARK: &str = "/run/systemd/timesync/synchronized";
/// Programs that keep a clock, as the kernel names them: at most 15 characters.
const KEEPERS: [&str; 8] = [
    "chronyd",
    "ntpd",
    "ntp-daemon",
    "openntpd",
    "ptp4l",
    "phc2sys",
    "timemaster",
    "systemd-timesyn",
];
/// How far events may lie in the future: clocks are corrected by less.
const AHEAD_MAX: Span = Span::minutes(5);

pub(super) async fn time(tool: &mut Tool) -> Result<Vec<Check>, Problem> {
    let status: Status = tool.daemon().await?.get(path::STATUS).await?;
    let record: TraceRecord = tool.daemon().await?.get(path::TRACE_RECORD).await?;
    let jumped = |(name, count): (&String, &u64)| name.contains("clock").then_some(*count);
    let jumps = status.counters.iter().filter_map(jumped).sum();
    let mut checks = vec![kept_here()];
    checks.extend(went_back(record.until, status.now));
    checks.extend(jumps_check(jumps));
    Ok(checks)
}

/// Whether anybody keeps the clock of this machine.
pub(super) fn kept_here() -> Check {
    kept(Path::new("/"))
}

fn check(level: Level, name: &str, text: impl Into<String>) -> Check {
    Check::new(level, "time", name, text)
}

/// Whether anybody keeps the clock, as far as that can be seen below a root directory.
fn kept(root: &Path) -> Check {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    if at(TIMESYNC_MARK).exists() {
        return check(Level::Ok, "kept", "systemd-timesyncd has set the clock right");
    }
    let comm = |process: fs::DirEntry| fs::read_to_string(process.path().join("comm")).ok();
    let processes = fs::read_dir(at("/proc")).into_iter().flatten().flatten();
    let mut names = processes.filter_map(comm).map(|name| name.trim().to_owned());
    match names.find(|name| KEEPERS.contains(&name.as_str())) {
        Some(name) if name == "systemd-timesyn" => {
            check(Level::Warn, "kept", "systemd-timesyncd runs, but has not set the clock yet")
                .hint(
                    "timedatectl timesync-status tells why; does a firewall let port 123/udp out?",
                )
        }
        Some(name) => check(Level::Ok, "kept", format!("{name} keeps the clock")),
        None if at("/run/systemd/system").exists() => {
            check(Level::Warn, "kept", "nobody keeps the clock of this machine right")
                .hint("systemctl enable --now systemd-timesyncd, or install chrony")
        }
        None => {
            check(Level::Ok, "kept", "no time service is seen; the host of a container has one")
        }
    }
}

/// Whether the trace tells of a future that the clock has left.
fn went_back(latest: Option<Timestamp>, now: Timestamp) -> Option<Check> {
    let ahead = latest?.since(now);
    (ahead > AHEAD_MAX).then(|| {
        let text = format!(
            "the trace has events that lie {} in the future: the clock was wrong, or it is now",
            human_span(ahead)
        );
        check(Level::Warn, "back", text)
            .hint("compare with: date --utc; what waits is tried by the clock as it is now")
    })
}

fn jumps_check(jumps: u64) -> Option<Check> {
    (jumps > 0).then(|| {
        let times = if jumps == 1 { "once".to_owned() } else { format!("{jumps} times") };
        let text = format!("the clock was set {times} since the daemon started");
        check(Level::Warn, "jumps", text)
            .hint("let a time service slew it; see clock_jumped in the log")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn whoever_keeps_the_clock_is_named() {
        let level = |files: &[(&str, &str)]| {
            let found = kept(root(files).path());
            (found.level, found.text)
        };
        let systemd = ("run/systemd/system/x", "");
        assert_eq!(level(&[("proc/7/comm", "chronyd\n"), systemd]).0, Level::Ok);
        assert_eq!(level(&[("run/systemd/timesync/synchronized", ""), systemd]).0, Level::Ok);
        let waiting = level(&[("proc/7/comm", "systemd-timesyn\n"), systemd]);
        assert!(waiting.0 == Level::Warn && waiting.1.contains("not set the clock yet"));
        let nobody = level(&[("proc/7/comm", "bash\n"), systemd]);
        assert!(nobody.0 == Level::Warn && nobody.1.starts_with("nobody keeps"));
        assert_eq!(level(&[("proc/7/comm", "bash\n")]).0, Level::Ok);
    }

    #[test]
    fn a_clock_that_went_back_shows_in_the_trace() {
        let at = Timestamp::from_millis;
        assert_eq!(went_back(None, at(0)), None);
        assert_eq!(went_back(Some(at(200_000)), at(0)), None);
        let found = went_back(Some(at(7_200_000)), at(0)).unwrap();
        assert!(found.text.contains("2h in the future"), "{}", found.text);
        assert_eq!(jumps_check(0), None);
        assert!(jumps_check(1).unwrap().text.contains("set once"));
    }
}
