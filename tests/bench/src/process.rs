//! What a server costs, read from `/proc`: CPU time, memory and the processes it consists of.
//!
//! The CPU time of a tree counts children that have ended too, because whoever waited for them
//! carries it. A process that ends while it is looked at counts as gone.

use std::collections::HashMap;
use std::fs;

use crate::Outcome;

/// The process `root` and all below it.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = stat(pid, 1) {
            children.entry(u32::try_from(parent).unwrap_or(0)).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// CPU seconds, user and system, that the tree has taken so far.
pub(crate) fn cpu_seconds(root: u32) -> Outcome<f64> {
    let hertz = ticks_per_second()?;
    let ticks: u64 = tree(root)
        .into_iter()
        .flat_map(|pid| [11, 12, 13, 14].map(|field| stat(pid, field).unwrap_or(0)))
        .sum();
    Ok(ticks as f64 / hertz)
}

/// The most memory the process ever had, in KiB.
pub(crate) fn peak_kib(pid: u32) -> Outcome<u64> {
    field_kib(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// The memory the process has now, in KiB.
pub(crate) fn resident_kib(pid: u32) -> Outcome<u64> {
    field_kib(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Lets [`peak_kib`] begin anew.
pub(crate) fn forget_peak(pid: u32) -> Outcome<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").map_err(|error| format!("{path}: {error}").into())
}

/// The memory of the tree now in KiB, with pages that are shared divided among those who do.
pub(crate) fn proportional_kib(root: u32) -> u64 {
    let of_one = |pid| field_kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:").unwrap_or(0);
    tree(root).into_iter().map(of_one).sum()
}

fn field_kib(path: &str, name: &str) -> Outcome<u64> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    number.parse().map_err(|_| format!("{path} has no {name}").into())
}

/// A number of `/proc/PID/stat`, counted from the field after the name, which is 0.
fn stat(pid: u32, field: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and brackets; the last bracket ends it.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(field)?.parse().ok()
}

fn ticks_per_second() -> Outcome<f64> {
    nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?
        .map(|ticks| ticks as f64)
        .ok_or_else(|| "the length of a clock tick is not known".into())
}
