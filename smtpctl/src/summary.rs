//! `queue summary`: the messages that wait, counted by what they have in common.
//!
//! The daemon sends the list, message by message; only the groups are kept here. Whoever looks
//! wants to know what stands in the way of most mail, so the largest group comes first.

use std::collections::HashMap;

use mailroot_common::address::Mailbox;
use mailroot_common::control::{Destination, OutboundLimit, Problem, QueueEntry, Selector, path};
use mailroot_common::units::Timestamp;
use serde::{Deserialize, Serialize};

use crate::change::{LISTED_MAX, parts, with_query};
use crate::output::{Cell, Column, Row};
use crate::select::QueueSelection;
use crate::tool::Tool;

/// What messages are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum By {
    /// The domains of the recipients that wait.
    Destination,
    /// The sender's address.
    Sender,
    /// The remote's last words, or why a message is held.
    Reason,
    /// How long they have waited.
    Age,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Summary {
    #[command(flatten)]
    pub(crate) selection: QueueSelection,
    /// What messages are counted by.
    #[arg(long, value_enum, default_value = "destination", help_heading = "Options")]
    by: By,
}

/// Ages in milliseconds up to which messages are counted together, and their names.
const AGES: [(u64, &str); 5] = [
    (5 * 60_000, "under 5m"),
    (60 * 60_000, "5m to 1h"),
    (4 * 3_600_000, "1h to 4h"),
    (24 * 3_600_000, "4h to 1d"),
    (u64::MAX, "over 1d"),
];

/// Messages with something in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    /// What they have in common.
    group: String,
    messages: u64,
    /// Recipients that wait: by destination only those in it.
    recipients: u64,
    /// Octets of all messages together.
    size: u64,
    /// When the oldest was accepted.
    oldest: Timestamp,
}

/// Messages for one domain, with what limits the mail that leaves for it. A domain whose mail goes by a
/// smart host has no limit of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct OfDestination {
    #[serde(flatten)]
    group: Group,
    /// Connections to it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<OutboundLimit>,
}

pub(crate) async fn run(tool: &mut Tool, summary: &Summary) -> Result<u8, Problem> {
    let selector = summary.selection.selector(tool.global.server.as_deref())?;
    let (now, by) = (tool.shape.now, summary.by);
    let groups = count(tool, selector, |entry| groups_of(entry, by, now)).await?;
    if by != By::Destination {
        tool.print_rows(groups)?;
        return Ok(0);
    }
    let known = destinations_known(tool).await?;
    let with_limit = |group: Group| {
        let known = known.get(&group.group);
        OfDestination {
            connections: known.map(|it| it.connections),
            limit: known.and_then(|it| it.limit.clone()),
            group,
        }
    };
    tool.print_rows(groups.into_iter().map(with_limit).collect())?;
    Ok(0)
}

/// The destinations that have limits, by their names: where several virtual servers send to one, the
/// one that has most mail for it.
async fn destinations_known(tool: &mut Tool) -> Result<HashMap<String, Destination>, Problem> {
    let mut known = HashMap::new();
    let mut path = path::DESTINATIONS.to_owned();
    if let Some(server) = tool.global.server.as_deref() {
        path.push_str("?server=");
        path::encode(server, &mut path);
    }
    let take = |destination: Destination| {
        // A domain with an entry may be sent elsewhere, and is known by its entry.
        let entry = destination.limit.as_ref().and_then(|limit| limit.entry.clone());
        let name = entry.unwrap_or_else(|| destination.destination.clone());
        known.entry(name).or_insert(destination);
        Ok(true)
    };
    tool.daemon().await?.lines(&path, take).await?;
    Ok(known)
}

/// Counts the messages that are chosen in each of the groups they belong to.
async fn count(
    tool: &mut Tool,
    selector: Selector,
    groups_of: impl Fn(&QueueEntry) -> Vec<(String, u64)>,
) -> Result<Vec<Group>, Problem> {
    let mut groups: HashMap<String, Group> = HashMap::new();
    for part in parts(selector, LISTED_MAX) {
        let take = |entry: QueueEntry| {
            for (name, recipients) in groups_of(&entry) {
                add(&mut groups, name, recipients, &entry);
            }
            Ok(true)
        };
        tool.daemon().await?.lines(&with_query(path::QUEUE, &part), take).await?;
    }
    Ok(in_order(groups))
}

fn add(groups: &mut HashMap<String, Group>, name: String, recipients: u64, entry: &QueueEntry) {
    let group = groups.entry(name).or_insert_with_key(|name| Group {
        group: name.clone(),
        messages: 0,
        recipients: 0,
        size: 0,
        oldest: entry.accepted_at,
    });
    group.messages += 1;
    group.recipients += recipients;
    group.size += entry.size;
    group.oldest = group.oldest.min(entry.accepted_at);
}

/// The most messages first, then by name.
fn in_order(groups: HashMap<String, Group>) -> Vec<Group> {
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_unstable_by(|a, b| b.messages.cmp(&a.messages).then(a.group.cmp(&b.group)));
    groups
}

/// The groups a message belongs to, with its recipients in each.
fn groups_of(entry: &QueueEntry, by: By, now: Timestamp) -> Vec<(String, u64)> {
    let all = entry.to.len() as u64;
    let name = match by {
        By::Destination => return destinations(&entry.to),
        By::Sender => match entry.from.to_string() {
            from if from.is_empty() => "<>".to_owned(),
            from => from,
        },
        By::Reason => entry.reason.clone().unwrap_or_else(|| "-".to_owned()),
        By::Age => {
            let age = now.as_millis().saturating_sub(entry.accepted_at.as_millis());
            let known = AGES.iter().find(|(most, _)| age < *most);
            known.map_or("over 1d", |(_, name)| name).to_owned()
        }
    };
    vec![(name, all)]
}

fn destinations(to: &[Mailbox]) -> Vec<(String, u64)> {
    let mut found: Vec<(String, u64)> = Vec::new();
    for mailbox in to {
        let name = mailbox.host().to_string();
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => found.push((name, 1)),
        }
    }
    found
}

impl Row for Group {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("group", |it| Cell::text(&*it.group)),
        Column::always("messages", |it| Cell::Count(it.messages)),
        Column::always("recipients", |it| Cell::Count(it.recipients)),
        Column::always("size", |it| Cell::Size(it.size)),
        Column::always("oldest", |it| Cell::Ago(it.oldest)),
    ];

    fn id(&self) -> String {
        self.group.clone()
    }
}

impl Row for OfDestination {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("group", |it| Cell::text(&*it.group.group)),
        Column::always("messages", |it| Cell::Count(it.group.messages)),
        Column::always("recipients", |it| Cell::Count(it.group.recipients)),
        Column::always("size", |it| Cell::Size(it.group.size)),
        Column::always("oldest", |it| Cell::Ago(it.group.oldest)),
        Column::always("limit", |it| match (&it.limit, it.connections) {
            (Some(limit), Some(used)) => Cell::text(limit.words(used)),
            _ => Cell::Nothing,
        }),
        Column::always("rests", |it| {
            let until = it.limit.as_ref().and_then(|limit| limit.rests_until);
            until.map_or(Cell::Nothing, Cell::Until)
        }),
    ];

    fn id(&self) -> String {
        self.group.group.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(to: &[&str], from: &str, accepted_at: &str, reason: Option<&str>) -> QueueEntry {
        serde_json::from_value(serde_json::json!({
            "id": "6FZK5D3VYE2S", "server": "default", "state": "retry", "accepted_at": accepted_at,
            "size": 1000, "from": from, "to": to, "attempts": 1, "reason": reason,
        }))
        .unwrap()
    }

    fn summary(by: By) -> Vec<(String, u64, u64)> {
        let now = Timestamp::parse("2026-11-24T14:00:00Z").unwrap();
        let mut groups = HashMap::new();
        for entry in [
            entry(&["a@x.example", "b@x.example", "c@y.example"], "", "2026-11-24T13:59:00Z", None),
            entry(&["d@y.example"], "e@z.example", "2026-11-24T13:00:00Z", Some("451 later")),
            entry(&["d@y.example"], "e@z.example", "2026-11-20T13:00:00Z", Some("451 later")),
        ] {
            for (name, recipients) in groups_of(&entry, by, now) {
                add(&mut groups, name, recipients, &entry);
            }
        }
        let groups = in_order(groups);
        groups.into_iter().map(|it| (it.group, it.messages, it.recipients)).collect()
    }

    #[test]
    fn messages_are_counted_in_every_group_they_belong_to() {
        let group = |name: &str, messages, recipients| (name.to_owned(), messages, recipients);
        let by_domain = [group("y.example", 3, 3), group("x.example", 1, 2)];
        assert_eq!(summary(By::Destination), by_domain);
        assert_eq!(summary(By::Sender), [group("e@z.example", 2, 2), group("<>", 1, 3)]);
        assert_eq!(summary(By::Reason), [group("451 later", 2, 2), group("-", 1, 3)]);
        let ages = [group("1h to 4h", 1, 1), group("over 1d", 1, 1), group("under 5m", 1, 3)];
        assert_eq!(summary(By::Age), ages);
    }
}
