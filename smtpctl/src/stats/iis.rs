//! `stats --iis-names`: what is counted, under the names that it had in the original's Performance
//! Monitor (object "SMTP Server", an instance for each virtual server and `_Total`).
//!
//! Only what Mailroot counts is there; a counter of the original that would always be nought is not.
//! Where the original counted messages and Mailroot recipients, the manual says so.

use mailroot_common::control::{Destination, Problem, Selector, Server, ServerDetail, path};
use serde::Serialize;

use crate::listing::limited;
use crate::output::{Cell, Column, Row};
use crate::tool::Tool;

/// The instance that all others make together.
const TOTAL: &str = "_Total";
/// The destination of mail that stays here.
const DROP: &str = "drop";

/// One value.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Value {
    counter: &'static str,
    instance: String,
    value: u64,
}

impl Row for Value {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("counter", |it| Cell::text(it.counter)),
        Column::always("instance", |it| Cell::text(&*it.instance)),
        Column::always("value", |it| Cell::Count(it.value)),
    ];

    fn id(&self) -> String {
        format!("{}\\{}", self.instance, self.counter)
    }
}

/// What one virtual server says of itself.
struct Instance {
    detail: ServerDetail,
    /// Messages that wait for Drop, and for others.
    waiting: [u64; 2],
}

impl Instance {
    fn count(&self, name: &str) -> u64 {
        self.detail.counters.get(name).copied().unwrap_or_default()
    }

    fn server(&self) -> &Server {
        &self.detail.server
    }
}

/// How a counter is made.
type Count = fn(&Instance) -> u64;

/// The counters, in the order of the original.
const COUNTERS: &[(&str, Count)] = &[
    ("Badmailed Messages (Bad Pickup File)", |it| it.count("pickup_bad")),
    ("Directory Drops Total", |it| it.count("recipients_dropped")),
    ("Inbound Connections Current", |it| it.server().sessions_in),
    ("Inbound Connections Total", |it| it.count("connections")),
    ("Local Queue Length", |it| it.waiting[0]),
    ("Message Bytes Received Total", |it| it.count("octets_received")),
    ("Message Send Retries", |it| it.count("recipients_deferred")),
    ("Messages Delivered Total", |it| it.count("recipients_dropped")),
    ("Messages Received Total", |it| {
        it.count("messages_received").saturating_sub(it.count("pickup_taken"))
    }),
    ("Messages Refused for Size", |it| it.count("size_refused")),
    ("Messages Sent Total", |it| it.count("recipients_delivered")),
    ("NDRs Generated", |it| it.count("reports")),
    ("Outbound Connections Current", |it| it.server().sessions_out),
    ("Outbound Connections Total", |it| it.count("outbound_connections")),
    ("Pickup Directory Messages Retrieved Total", |it| it.count("pickup_taken")),
    ("Remote Queue Length", |it| it.waiting[1].saturating_sub(it.server().queue.retry)),
    ("Remote Retry Queue Length", |it| it.server().queue.retry.min(it.waiting[1])),
    ("Total Connection Errors", |it| it.count("outbound_failures")),
    ("Total messages submitted", |it| it.count("messages_received")),
];

pub(super) async fn run(tool: &mut Tool) -> Result<u8, Problem> {
    let names = match &tool.global.server {
        Some(name) => vec![name.clone()],
        None => {
            let servers: Vec<Server> = tool.daemon().await?.get(path::SERVERS).await?;
            servers.into_iter().map(|server| server.name).collect()
        }
    };
    let mut instances = Vec::new();
    for name in names {
        let path = path::fill(path::SERVER, &[&name]);
        let detail: ServerDetail = tool.daemon().await?.get(&path).await?;
        let selector = Selector { server: Some(name), ..Selector::default() };
        let (mut waiting, path) = ([0, 0], limited(path::DESTINATIONS, &selector, None));
        let take = |destination: Destination| {
            waiting[usize::from(destination.destination != DROP)] += destination.messages;
            Ok(true)
        };
        tool.daemon().await?.lines(&path, take).await?;
        instances.push(Instance { detail, waiting });
    }
    tool.print_rows(values(&instances))?;
    Ok(0)
}

/// All values: instance by instance, and what they are together where there are several.
fn values(instances: &[Instance]) -> Vec<Value> {
    let mut values = Vec::new();
    for instance in instances {
        let name = &instance.server().name;
        values.extend(COUNTERS.iter().map(|(counter, count)| Value {
            counter,
            instance: name.clone(),
            value: count(instance),
        }));
    }
    if instances.len() > 1 {
        values.extend(COUNTERS.iter().map(|(counter, count)| Value {
            counter,
            instance: TOTAL.to_owned(),
            value: instances.iter().map(count).sum(),
        }));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, counters: &[(&str, u64)]) -> Instance {
        let counters: std::collections::BTreeMap<_, _> = counters.iter().copied().collect();
        let detail = serde_json::from_value(serde_json::json!({
            "name": name, "state": "running", "listen": [], "domain": "a.example",
            "profile": "modern", "sessions_in": 2, "sessions_out": 1, "file": "f",
            "queue": {"messages": 5, "retry": 2, "held": 0}, "badmail": 0, "mail_root": "/x",
            "counters": counters,
        }));
        Instance { detail: detail.unwrap(), waiting: [1, 4] }
    }

    #[test]
    fn values_have_the_names_of_the_original() {
        let counters = [("messages_received", 7), ("pickup_taken", 3), ("connections", 9)];
        let all = values(&[instance("default", &counters), instance("lan", &[])]);
        let value = |instance: &str, counter: &str| {
            let found = all.iter().find(|it| it.instance == instance && it.counter == counter);
            found.unwrap().value
        };
        assert_eq!(value("default", "Messages Received Total"), 4);
        assert_eq!(value("default", "Inbound Connections Total"), 9);
        assert_eq!(value("lan", "Remote Queue Length"), 2);
        assert_eq!(value("lan", "Remote Retry Queue Length"), 2);
        assert_eq!(value(TOTAL, "Inbound Connections Current"), 4);
        assert_eq!(values(&[instance("default", &[])]).len(), COUNTERS.len());
    }
}
