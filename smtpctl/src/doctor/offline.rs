//! What can be told without the daemon: whether its files could be read.

use mailroot_common::config::{Diagnostic, Severity};
use mailroot_common::control::{Check, Level};

use crate::files::{self, Found};
use crate::tool::Tool;

/// The files, each by itself. What concerns several of them only the daemon can tell.
pub(super) fn config(tool: &Tool) -> Vec<Check> {
    let check = |level, text: String| Check::new(level, "config", "files", text);
    let all = match files::all(tool.global.home.as_deref()) {
        Ok(all) => all,
        Err(why) => return vec![check(Level::Fail, why)],
    };
    let mut checks = Vec::new();
    for Found { name, diagnostics } in &all {
        let is_wrong = |it: &&Diagnostic| it.severity == Severity::Error;
        for found in diagnostics {
            let level = if is_wrong(&found) { Level::Fail } else { Level::Warn };
            let line = found.place().map(|place| format!(":{}", place.line)).unwrap_or_default();
            let told = check(level, format!("{name}{line}: {}", found.title));
            checks.push(match found.helps.first() {
                Some(help) => told.hint(help.clone()),
                None => told,
            });
        }
    }
    if checks.is_empty() {
        let count = crate::change::counted(all.len() as u64, "file");
        checks.push(check(Level::Ok, format!("{count} can be read, each by itself")));
    }
    checks
}
