//! What the daemon says of itself, its files and what waits, turned into findings.

use std::collections::BTreeMap;

use mailroot_common::control::{
    Check, ConfigReport, Level, Problem, QueueEntry, QueueState, Server, Severity, Status, path,
};

use crate::output::human_span;
use crate::tool::Tool;

/// The most reasons for waiting that are told.
const REASONS_MAX: usize = 5;

/// Whether the daemon is well.
pub(super) async fn service(tool: &mut Tool) -> Result<Vec<Check>, Problem> {
    let status: Status = tool.daemon().await?.get(path::STATUS).await?;
    let text = format!(
        "mailroot {} runs for {} (pid {})",
        status.version,
        human_span(status.now.since(status.started_at)),
        status.pid
    );
    let mut checks = vec![Check::new(Level::Ok, "service", "runs", text)];
    // What is wrong with servers and files is told by their own topics.
    let own = |code: &str| !code.starts_with("config.") && !code.starts_with("server.");
    for warning in status.warnings.iter().filter(|warning| own(&warning.code)) {
        let check = Check::new(Level::Warn, "service", "warning", &*warning.text);
        checks.push(match &warning.hint {
            Some(hint) => check.hint(&**hint),
            None => check,
        });
    }
    Ok(checks)
}

/// The files as they lie there.
pub(super) async fn config(tool: &mut Tool) -> Result<Vec<Check>, Problem> {
    let report: ConfigReport = tool.daemon().await?.get(path::CONFIG_CHECK).await?;
    let status: Status = tool.daemon().await?.get(path::STATUS).await?;
    let mut checks = Vec::new();
    for trouble in &report.troubles {
        let level = match trouble.severity {
            Severity::Error => Level::Fail,
            Severity::Warning => Level::Warn,
        };
        let place = match trouble.file.as_str() {
            "" => String::new(),
            file => format!("{file}:{}:{}: ", trouble.line, trouble.column),
        };
        let check = Check::new(level, "config", "files", format!("{place}{}", trouble.message));
        checks.push(match &trouble.hint {
            Some(hint) => check.hint(&**hint),
            None => check,
        });
    }
    let edited = |code: &str| matches!(code, "config.edited" | "config.trial");
    for warning in status.warnings.iter().filter(|warning| edited(&warning.code)) {
        let check = Check::new(Level::Warn, "config", "force", &*warning.text);
        checks.push(check.hint(warning.hint.clone().unwrap_or_default()));
    }
    if checks.is_empty() {
        let text = format!("revision {} is good and in force", status.config_revision);
        checks.push(Check::new(Level::Ok, "config", "files", text));
    }
    Ok(checks)
}

/// What waits, and why.
pub(super) async fn queue(tool: &mut Tool) -> Result<Vec<Check>, Problem> {
    let servers: Vec<Server> = tool.daemon().await?.get(path::SERVERS).await?;
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    let (mut waiting, mut held) = (0_u64, 0_u64);
    let wanted = tool.global.server.clone();
    let path = match &wanted {
        Some(name) => format!("{}?server={name}", path::QUEUE),
        None => path::QUEUE.to_owned(),
    };
    let take = |entry: QueueEntry| {
        waiting += 1;
        match entry.state {
            QueueState::Held => held += 1,
            QueueState::Retry => {
                let reason = entry.reason.unwrap_or_else(|| "no reason on record".to_owned());
                *reasons.entry(reason).or_default() += 1;
            }
            _ => {}
        }
        Ok(true)
    };
    tool.daemon().await?.lines(&path, take).await?;
    let mut checks = Vec::new();
    let mut by_count: Vec<_> = reasons.into_iter().collect();
    by_count.sort_by(|(_, a), (_, b)| b.cmp(a));
    for (reason, count) in by_count.into_iter().take(REASONS_MAX) {
        let text = format!("{} deferred: {reason}", crate::change::counted(count, "message"));
        let check = Check::new(Level::Warn, "queue", "deferred", text);
        checks.push(check.hint("smtpctl queue list --state retry; then smtpctl queue show ID"));
    }
    if held > 0 {
        let text = format!("{} held", crate::change::counted(held, "message"));
        let check = Check::new(Level::Warn, "queue", "held", text);
        checks.push(check.hint("smtpctl queue list --state held; queue release lets them go"));
    }
    let is_meant = |server: &&Server| wanted.as_ref().is_none_or(|name| server.name == *name);
    for server in servers.iter().filter(is_meant).filter(|server| server.badmail > 0) {
        let text = format!("{} in Badmail", crate::change::counted(server.badmail, "message"));
        let mut check = Check::new(Level::Warn, "queue", "badmail", text);
        check.server = Some(server.name.clone());
        checks.push(check.hint("smtpctl badmail list tells why; badmail requeue or purge"));
    }
    if checks.is_empty() {
        let text =
            format!("{} under way, none deferred", crate::change::counted(waiting, "message"));
        checks.push(Check::new(Level::Ok, "queue", "deferred", text));
    }
    Ok(checks)
}
