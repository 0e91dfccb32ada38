//! Lists, printed row by row as they arrive, so that neither side holds a whole one.

use mailroot_common::control::{Problem, Selector};
use serde::de::DeserializeOwned;

use crate::change::{LISTED_MAX, parts, with_query};
use crate::io_problem;
use crate::output::{List, Row};
use crate::tool::{Tool, stdout};

/// The path of a list with its conditions, and with how many are wanted at most.
pub(crate) fn limited(path: &str, selector: &Selector, limit: Option<u64>) -> String {
    let mut path = with_query(path, selector);
    if let Some(limit) = limit {
        path.push_str(if path.contains('?') { "&limit=" } else { "?limit=" });
        path.push_str(&limit.to_string());
    }
    path
}

/// Prints what is chosen of what everybody may see of his own.
pub(crate) async fn list_own<T: Row + DeserializeOwned>(
    tool: &mut Tool,
    path: &str,
    selector: Selector,
    limit: Option<u64>,
) -> Result<u8, Problem> {
    tool.daemon_of_all().await?;
    list::<T>(tool, path, selector, limit).await
}

/// Prints what is chosen. The daemon is told how many are wanted, unless they are to be sorted.
pub(crate) async fn list<T: Row + DeserializeOwned>(
    tool: &mut Tool,
    path: &str,
    selector: Selector,
    limit: Option<u64>,
) -> Result<u8, Problem> {
    let shape = tool.shape.clone();
    let limit = limit.or(shape.limit).filter(|_| shape.sort.is_none());
    let mut out = stdout();
    let mut list = List::begin(&shape, &mut out)?;
    for part in parts(selector, LISTED_MAX) {
        let take = |row: T| {
            list.push(row).map_err(io_problem)?;
            Ok(!list.is_full())
        };
        tool.daemon().await?.lines(&limited(path, &part, limit), take).await?;
    }
    list.finish().map_err(io_problem)?;
    Ok(0)
}
