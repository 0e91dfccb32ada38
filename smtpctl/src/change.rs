//! The manners of commands that change several objects.
//!
//! A change without a selector is refused. `--dry-run` prints what would change. What cannot be
//! undone and concerns more than one object is asked for once, with count and samples; where
//! nobody can be asked, `--yes` must say so. What was shown is what is changed: the ids, not the
//! conditions, go to the daemon after a question.

use std::time::Duration;

use mailroot_common::control::selector::IDS_MAX;
use mailroot_common::control::{Changed, Kind, Problem, Selector};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::io_problem;
use crate::output::{List, Row, Shape, human_size};
use crate::tool::{Tool, stdout};

/// A change may concern a million messages.
const WAIT: Duration = Duration::from_secs(600);
/// How many ids the query of one list names: 16 octets each, and a path is under 64 KiB.
pub(crate) const LISTED_MAX: usize = 2_000;
/// How many objects a question shows.
const SAMPLES: usize = 3;

/// Options of every change.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ChangeOptions {
    /// Print what would change, and change nothing.
    #[arg(long, help_heading = "Options")]
    pub(crate) dry_run: bool,
    /// Do not ask.
    #[arg(short, long, help_heading = "Options")]
    pub(crate) yes: bool,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    /// Where the objects are listed.
    pub(crate) list: &'static str,
    /// Where the change is asked for.
    pub(crate) path: String,
    /// `remove`.
    pub(crate) verb: &'static str,
    /// `removed`.
    pub(crate) done: &'static str,
    /// `message`.
    pub(crate) noun: &'static str,
    /// Whether it cannot be undone.
    pub(crate) is_final: bool,
}

/// Does it. `body` makes a request out of a selector, and of whether what it names by id may have
/// gone: that is so where conditions were turned into ids by a question.
pub(crate) async fn change<T, B>(
    tool: &mut Tool,
    deed: &Deed,
    options: &ChangeOptions,
    mut selector: Selector,
    body: impl Fn(Selector, bool) -> B,
) -> Result<u8, Problem>
where
    T: Row + DeserializeOwned,
    B: Serialize,
{
    if selector.is_empty() {
        let detail = format!("nothing is chosen to {}", deed.verb);
        return Err(Problem::new("selector", Kind::Usage, detail)
            .hint("give an id or a condition such as --to or --older-than, or --all"));
    }
    if options.dry_run {
        return dry_run::<T>(tool, deed, &selector).await;
    }
    let by_name = !selector.ids.is_empty();
    let one = selector.is_ids_only() && selector.ids.len() == 1;
    if deed.is_final && !options.yes && !one {
        selector = confirm::<T>(tool, deed, selector).await?;
    }
    let if_exists = !by_name && !selector.ids.is_empty();
    let changed = ask_for(tool, &deed.path, selector, |part| body(part, if_exists)).await?;
    report(tool, deed, &changed)
}

/// Asks for a change, in parts where many are named.
pub(crate) async fn ask_for<B: Serialize>(
    tool: &mut Tool,
    path: &str,
    selector: Selector,
    body: impl Fn(Selector) -> B,
) -> Result<Changed, Problem> {
    let mut changed = Changed::default();
    for part in parts(selector, IDS_MAX) {
        changed.merge(tool.daemon().await?.post(path, &body(part), WAIT).await?);
    }
    Ok(changed)
}

fn report(tool: &Tool, deed: &Deed, changed: &Changed) -> Result<u8, Problem> {
    if changed.matched == 0 {
        return verdict(deed, changed).map(|()| 0);
    }
    let size = match changed.bytes {
        0 => String::new(),
        bytes => format!(" ({})", human_size(bytes)),
    };
    let gone = match changed.gone {
        0 => String::new(),
        gone => format!(", {gone} had gone before"),
    };
    let words = format!("{} {}{size}{gone}", counted(changed.changed, deed.noun), deed.done);
    tool.say_done(changed, &words)?;
    changed.notes.iter().for_each(|note| tool.note(note));
    verdict(deed, changed).map(|()| 0)
}

/// What is wrong with a change: that it concerned nothing, or not all that was named.
pub(crate) fn verdict(deed: &Deed, changed: &Changed) -> Result<(), Problem> {
    if changed.matched == 0 {
        let detail = format!("no {} matched, nothing was {}", deed.noun, deed.done);
        return Err(Problem::new(deed.noun, Kind::NotFound, detail));
    }
    if changed.failures() == 0 {
        return Ok(());
    }
    let left = counted(changed.failures(), deed.noun);
    let items = changed.failed.iter().map(|failure| format!("{}: {}", failure.id, failure.detail));
    let detail = format!("{left} could not be {}", deed.done);
    let absent = changed.failed.iter().all(|failure| failure.code.ends_with(".not_found"));
    let kind = match changed.changed {
        0 if absent => Kind::NotFound,
        0 => Kind::Failed,
        _ => Kind::Partly,
    };
    Err(Problem::new(deed.noun, kind, detail).items(items))
}

async fn dry_run<T: Row + DeserializeOwned>(
    tool: &mut Tool,
    deed: &Deed,
    selector: &Selector,
) -> Result<u8, Problem> {
    let shape = tool.shape.clone();
    let mut out = stdout();
    let mut list = List::begin(&shape, &mut out)?;
    let mut count = 0;
    let mut take = |row: T| {
        count += 1;
        list.push(row).map(|()| true).map_err(io_problem)
    };
    for part in parts(selector.clone(), LISTED_MAX) {
        let path = with_query(deed.list, &part);
        tool.daemon().await?.lines(&path, &mut take).await?;
    }
    list.finish().map_err(io_problem)?;
    if count == 0 {
        let detail = format!("no {} matches", deed.noun);
        return Err(Problem::new(deed.noun, Kind::NotFound, detail));
    }
    tool.note(&format!("would {} {}; nothing was changed", deed.verb, counted(count, deed.noun)));
    Ok(0)
}

/// Asks the person. The answer names exactly what was counted.
async fn confirm<T: Row + DeserializeOwned>(
    tool: &mut Tool,
    deed: &Deed,
    selector: Selector,
) -> Result<Selector, Problem> {
    let mut ids = Vec::new();
    let mut samples = Vec::new();
    for part in parts(selector.clone(), LISTED_MAX) {
        let path = with_query(deed.list, &part);
        let client = tool.daemon().await?;
        let take = |row: T| {
            ids.push(row.id());
            if samples.len() < SAMPLES {
                samples.push(row);
            }
            Ok(true)
        };
        client.lines(&path, take).await?;
    }
    if ids.len() > 1 {
        let count = counted(ids.len() as u64, deed.noun);
        if !tool.can_ask() {
            let detail = format!("this would {} {count}, and nobody can be asked", deed.verb);
            return Err(Problem::new(deed.noun, Kind::Usage, detail)
                .hint("look with --dry-run, then say --yes"));
        }
        show_samples(samples, tool)?;
        if !tool.ask(&format!("{} {count}?", deed.verb))? {
            return Err(Problem::new(deed.noun, Kind::Usage, "nothing was changed"));
        }
    }
    if ids.is_empty() {
        let detail = format!("no {} matches", deed.noun);
        return Err(Problem::new(deed.noun, Kind::NotFound, detail));
    }
    Ok(Selector { ids, server: selector.server, ..Selector::default() })
}

fn show_samples<T: Row>(samples: Vec<T>, tool: &Tool) -> Result<(), Problem> {
    let shape = Shape { now: tool.shape.now, width: tool.shape.width, ..Shape::default() };
    crate::output::print_all(samples, &shape, &mut std::io::stderr()).map(|_| ())
}

/// Divides the ids of a selector among several requests.
pub(crate) fn parts(selector: Selector, ids_max: usize) -> Vec<Selector> {
    if selector.ids.len() <= ids_max {
        return vec![selector];
    }
    let rest = Selector { ids: Vec::new(), ..selector.clone() };
    selector.ids.chunks(ids_max).map(|ids| Selector { ids: ids.to_vec(), ..rest.clone() }).collect()
}

/// The path of a list with its conditions.
pub(crate) fn with_query(path: &str, selector: &Selector) -> String {
    match selector.to_query() {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// `1 message`, `2 messages`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_ids_are_asked_for_in_parts() {
        let selector = Selector {
            ids: vec!["6FZK".to_owned(); IDS_MAX * 2 + 1],
            server: Some("lan".to_owned()),
            ..Selector::default()
        };
        let sizes: Vec<_> = parts(selector, IDS_MAX).iter().map(|part| part.ids.len()).collect();
        assert_eq!(sizes, [IDS_MAX, IDS_MAX, 1]);
        assert_eq!(parts(Selector::default(), 1).len(), 1);
    }

    #[test]
    fn one_is_one_and_two_are_several() {
        assert_eq!(counted(1, "message"), "1 message");
        assert_eq!(counted(0, "session"), "0 sessions");
    }
}
