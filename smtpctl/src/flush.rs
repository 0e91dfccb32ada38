//! `queue flush --wait`: tries mail now, and waits for what comes of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mailroot_common::control::{Kind, Problem, QueueEntry, QueueState, Selector, path};
use mailroot_common::id::QueueId;
use serde::Serialize;

use crate::change::{LISTED_MAX, counted, parts};
use crate::listing::limited;
use crate::output::{Cell, Column, Row, escape};
use crate::tool::Tool;

/// How many messages are waited for at most.
const AWAITED_MAX: usize = 100_000;
/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How many reasons are named.
const REASONS_MAX: usize = 5;

/// Messages that are to be tried, with the attempts that were made at each.
pub(crate) type Awaited = BTreeMap<QueueId, u32>;

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Outcome {
    /// How many were to be tried.
    tried: usize,
    /// How many have left the queue, delivered or returned.
    left: usize,
    /// How many are to be tried once more.
    deferred: usize,
    /// How many were not tried in time.
    waiting: usize,
    /// Why they are deferred, and how often.
    reasons: BTreeMap<String, u64>,
}

impl Row for Outcome {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("tried", |it| Cell::Count(it.tried as u64)),
        Column::always("left", |it| Cell::Count(it.left as u64)),
        Column::always("deferred", |it| Cell::Count(it.deferred as u64)),
        Column::always("waiting", |it| Cell::Count(it.waiting as u64)),
    ];

    fn id(&self) -> String {
        self.tried.to_string()
    }
}

/// The chosen messages as they stand, without those that are held: they are not tried.
pub(crate) async fn chosen(tool: &mut Tool, selector: &Selector) -> Result<Awaited, Problem> {
    let rows = listed(tool, selector).await?;
    let tried = rows.into_iter().filter(|entry| entry.state != QueueState::Held);
    Ok(tried.map(|entry| (entry.id, entry.attempts)).collect())
}

async fn listed(tool: &mut Tool, selector: &Selector) -> Result<Vec<QueueEntry>, Problem> {
    let mut rows = Vec::new();
    for part in parts(selector.clone(), LISTED_MAX) {
        let left = (AWAITED_MAX - rows.len()) as u64;
        let path = limited(path::QUEUE, &part, Some(left));
        let take = |entry: QueueEntry| {
            rows.push(entry);
            Ok(rows.len() < AWAITED_MAX)
        };
        tool.daemon().await?.lines(&path, take).await?;
        if rows.len() >= AWAITED_MAX {
            break;
        }
    }
    Ok(rows)
}

/// Waits until each was tried or has left the queue.
pub(crate) async fn wait(
    tool: &mut Tool,
    awaited: &Awaited,
    patience: Duration,
) -> Result<u8, Problem> {
    let begun = Instant::now();
    let all = Selector { server: tool.global.server.clone(), ..Selector::default() };
    let outcome = loop {
        let rows = listed(tool, &all).await?;
        let outcome = judge(awaited, &rows);
        if outcome.waiting == 0 || begun.elapsed() >= patience {
            break outcome;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let code = match &outcome {
        Outcome { waiting: 1.., .. } => Kind::TimedOut.exit_code(),
        Outcome { deferred: 0, .. } => 0,
        Outcome { left: 0, .. } => Kind::Failed.exit_code(),
        _ => Kind::Partly.exit_code(),
    };
    tool.print_object(outcome, |outcome| format!("{}\n", escape(&words(outcome))))?;
    Ok(code)
}

fn judge(awaited: &Awaited, rows: &[QueueEntry]) -> Outcome {
    let mut outcome = Outcome { tried: awaited.len(), ..Outcome::default() };
    let there: BTreeMap<QueueId, &QueueEntry> = rows.iter().map(|row| (row.id, row)).collect();
    for (id, attempts) in awaited {
        match there.get(id) {
            None => outcome.left += 1,
            Some(entry) if entry.attempts > *attempts && entry.state == QueueState::Retry => {
                outcome.deferred += 1;
                let reason = entry.reason.clone().unwrap_or_default();
                *outcome.reasons.entry(reason).or_insert(0) += 1;
            }
            Some(_) => outcome.waiting += 1,
        }
    }
    outcome
}

fn words(outcome: &Outcome) -> String {
    let mut reasons: Vec<(&String, &u64)> = outcome.reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let named =
        reasons.iter().take(REASONS_MAX).map(|(reason, count)| format!("{count}x {reason}"));
    let named = named.collect::<Vec<_>>().join("; ");
    let why = if named.is_empty() { String::new() } else { format!(" ({named})") };
    let waiting = match outcome.waiting {
        0 => String::new(),
        waiting => format!(", {waiting} not tried in time"),
    };
    let tried = counted(outcome.tried as u64, "message");
    format!(
        "{tried}: {} left the queue, {} deferred again{why}{waiting}",
        outcome.left, outcome.deferred
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, attempts: u32, state: &str) -> QueueEntry {
        serde_json::from_value(serde_json::json!({
            "id": id, "server": "default", "state": state, "accepted_at": "2026-11-24T13:56:10Z",
            "size": 1, "from": "", "to": ["b@x.example"], "attempts": attempts,
            "reason": "451 4.7.1 later"
        }))
        .unwrap()
    }

    #[test]
    fn what_came_of_each_is_counted() {
        let ids = ["6FZK5D3VYE2S", "6FZK5D3VYE2T", "6FZK5D3VYE2V"];
        let awaited: Awaited = ids.iter().map(|id| (QueueId::parse(id).unwrap(), 1)).collect();
        let outcome = judge(&awaited, &[entry(ids[1], 2, "retry"), entry(ids[2], 1, "active")]);
        assert_eq!((outcome.left, outcome.deferred, outcome.waiting), (1, 1, 1));
        assert_eq!(
            words(&outcome),
            "3 messages: 1 left the queue, 1 deferred again (1x 451 4.7.1 later), 1 not tried in time"
        );
    }
}
