//! `/v1/operators`: who may give orders, and about what.

use mailroot_common::config::control::Operator;
use mailroot_common::control::OperatorEntry;

use super::App;
use super::answer::{Answer, object};
use super::caller::Reach;

/// Those of the service as a whole first, then server by server; a caller who may see single
/// servers only is told of these.
pub(super) async fn list(app: App) -> Answer<Vec<OperatorEntry>> {
    let operators = app.service.operators();
    let mut all = Vec::new();
    if app.reach == Reach::All {
        all.extend(operators.service.iter().map(|operator| entry(operator, None)));
    }
    for (server, list) in &operators.servers {
        if app.reach.covers(server) {
            all.extend(list.iter().map(|operator| entry(operator, Some(server.to_string()))));
        }
    }
    object(all)
}

fn entry(operator: &Operator, server: Option<String>) -> OperatorEntry {
    let (who, role) = (operator.who.to_string(), operator.role.word().to_owned());
    OperatorEntry { who, role, server }
}
