//! `queue flush --wait`: tries mail now, and waits for what comes of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mailroot_common::control::{Change, Kind, Problem, QueueEntry, QueueState, Selector, path};
use mailroot_common::id::QueueId;
use serde::Serialize;

use crate::change::{Deed, LISTED_MAX, ask_for, counted, parts, verdict, with_query};
use crate::listing::limited;
use crate::output::{Cell, Column, Row, escape};
use crate::tool::Tool;

/// How many messages are waited for at most.
const AWAITED_MAX: u64 = 100_000;
/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How many times as long as a look takes nobody looks.
const RESTS: u32 = 4;
/// How many reasons are named.
const REASONS_MAX: usize = 5;

/// Messages that are to be tried, with the attempts that were made at each.
type Awaited = BTreeMap<QueueId, u32>;

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

/// Tries the chosen messages now, and waits until each was tried or has left the queue.
pub(crate) async fn run(
    tool: &mut Tool,
    deed: &Deed,
    selector: Selector,
    patience: Duration,
) -> Result<u8, Problem> {
    let awaited = chosen(tool, &selector).await?;
    let body = |selector| Change { selector, ..Change::default() };
    let changed = ask_for(tool, &deed.path, selector, body).await?;
    changed.notes.iter().for_each(|note| tool.note(note));
    let verdict = verdict(deed, &changed);
    if changed.changed == 0 && verdict.is_err() {
        return verdict.map(|()| 0);
    }
    let code = wait(tool, awaited, patience).await?;
    verdict.map(|()| code)
}

/// The chosen messages as they stand, without those that are held: they are not tried.
async fn chosen(tool: &mut Tool, selector: &Selector) -> Result<Awaited, Problem> {
    let (mut awaited, mut room) = (Awaited::new(), AWAITED_MAX);
    for part in parts(selector.clone(), LISTED_MAX) {
        let path = limited(path::QUEUE, &part, Some(room));
        let take = |entry: QueueEntry| {
            room = room.saturating_sub(1);
            if entry.state != QueueState::Held {
                awaited.insert(entry.id, entry.attempts);
            }
            Ok(true)
        };
        tool.daemon().await?.lines(&path, take).await?;
        if room == 0 {
            tool.note(&format!("at most the first {AWAITED_MAX} messages are waited for"));
            break;
        }
    }
    Ok(awaited)
}

/// Waits until each was tried or has left the queue.
async fn wait(tool: &mut Tool, mut awaited: Awaited, patience: Duration) -> Result<u8, Problem> {
    let begun = Instant::now();
    let mut outcome = Outcome { tried: awaited.len(), ..Outcome::default() };
    loop {
        let looked = Instant::now();
        look(tool, &mut awaited, &mut outcome).await?;
        if awaited.is_empty() || begun.elapsed() >= patience {
            break;
        }
        let rest = LOOK_EVERY.max(looked.elapsed() * RESTS);
        tokio::time::sleep(rest.min(patience.saturating_sub(begun.elapsed()))).await;
    }
    outcome.waiting = awaited.len();
    let code = match &outcome {
        Outcome { waiting: 1.., .. } => Kind::TimedOut.exit_code(),
        Outcome { deferred: 0, .. } => 0,
        Outcome { left: 0, .. } => Kind::Failed.exit_code(),
        _ => Kind::Partly.exit_code(),
    };
    tool.print_object(outcome, |outcome| format!("{}\n", escape(&words(outcome))))?;
    Ok(code)
}

/// Looks at what is still awaited, and at nothing else.
async fn look(tool: &mut Tool, awaited: &mut Awaited, it: &mut Outcome) -> Result<(), Problem> {
    let ids: Vec<QueueId> = awaited.keys().copied().collect();
    for part in ids.chunks(LISTED_MAX) {
        let selector = Selector {
            ids: part.iter().map(QueueId::to_string).collect(),
            server: tool.global.server.clone(),
            ..Selector::default()
        };
        let mut there = BTreeMap::new();
        let take = |entry: QueueEntry| {
            there.insert(entry.id, entry);
            Ok(true)
        };
        tool.daemon().await?.lines(&with_query(path::QUEUE, &selector), take).await?;
        part.iter().for_each(|id| judge(*id, there.get(id), awaited, it));
    }
    Ok(())
}

/// Counts a message that was tried or has left the queue; it is awaited no longer.
fn judge(id: QueueId, there: Option<&QueueEntry>, awaited: &mut Awaited, outcome: &mut Outcome) {
    let Some(entry) = there else {
        awaited.remove(&id);
        outcome.left += 1;
        return;
    };
    let is_at_rest = !matches!(entry.state, QueueState::Queued | QueueState::Active);
    if is_at_rest && awaited.get(&id).is_some_and(|attempts| entry.attempts > *attempts) {
        awaited.remove(&id);
        outcome.deferred += 1;
        let reason = entry.reason.clone().unwrap_or_else(|| entry.state.as_str().to_owned());
        *outcome.reasons.entry(reason).or_insert(0) += 1;
    }
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
        let ids = ["6FZK5D3VYE2S", "6FZK5D3VYE2T", "6FZK5D3VYE2V", "6FZK5D3VYE2W", "6FZK5D3VYE2X"];
        let ids = ids.map(|id| QueueId::parse(id).unwrap());
        let mut awaited: Awaited = ids.iter().map(|id| (*id, 1)).collect();
        let mut outcome = Outcome { tried: ids.len(), ..Outcome::default() };
        let rows = [
            None,
            Some(entry("6FZK5D3VYE2T", 2, "retry")),
            Some(entry("6FZK5D3VYE2V", 1, "active")),
            Some(entry("6FZK5D3VYE2W", 2, "in_doubt")),
            Some(entry("6FZK5D3VYE2X", 2, "active")),
        ];
        for (id, row) in ids.iter().zip(&rows) {
            judge(*id, row.as_ref(), &mut awaited, &mut outcome);
        }
        outcome.waiting = awaited.len();
        assert_eq!(awaited.keys().copied().collect::<Vec<_>>(), [ids[2], ids[4]]);
        assert_eq!((outcome.left, outcome.deferred, outcome.waiting), (1, 2, 2));
        assert_eq!(
            words(&outcome),
            "5 messages: 1 left the queue, 2 deferred again (2x 451 4.7.1 later), 2 not tried in time"
        );
    }
}
