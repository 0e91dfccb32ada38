//! Large numbers of everything: what Mailroot promises about them, and whether it holds.
//!
//! The client is this process and the server another one, so that memory is the server's alone.

mod dead;
mod deferred;
mod dns;
mod handshakes;
mod idle;
mod large;
mod list;
mod logins;
mod slow_clients;
mod submit;

use std::time::Duration;

use crate::Outcome;
use crate::options::Options;
use crate::report::Table;
use crate::scratch::Scratch;

/// Runs the measurement called `name`.
pub(crate) async fn measure(name: &str, options: &Options, scratch: &Scratch) -> Outcome<()> {
    let home = scratch.directory()?;
    let verdicts = match name {
        "idle" => idle::measure(options, home.path()).await?,
        "idle-tls" => idle::measure_under_tls(options, home.path()).await?,
        "handshakes" => handshakes::measure(options, home.path()).await?,
        "logins" => logins::measure(options, home.path()).await?,
        "dead" => dead::measure(options, home.path()).await?,
        "deferred" => deferred::measure(options, home.path()).await?,
        "large" => large::measure(options, home.path()).await?,
        "list" => list::measure(options, home.path()).await?,
        "slow-clients" => slow_clients::measure(options, home.path()).await?,
        "submit" => submit::measure(options, home.path()).await?,
        _ => return Err(format!("{name} is no measurement").into()),
    };
    verdicts.print(options)
}

/// What was measured, and what must hold.
pub(crate) struct Verdicts {
    table: Table,
    broken: bool,
}

impl Verdicts {
    fn new(title: &str) -> Self {
        Self { table: Table::new(title, &["what", "measured", "must", ""]), broken: false }
    }

    /// A figure with a limit.
    fn judge(&mut self, what: &str, measured: String, must: &str, holds: bool) {
        eprintln!("{what}: {measured}");
        self.broken |= !holds;
        let verdict = if holds { "holds" } else { "BROKEN" };
        self.table.row(vec![what.to_owned(), measured, must.to_owned(), verdict.to_owned()]);
    }

    /// A figure without one.
    fn tell(&mut self, what: &str, measured: String) {
        eprintln!("{what}: {measured}");
        self.table.row(vec![what.to_owned(), measured, String::new(), String::new()]);
    }

    fn print(self, options: &Options) -> Outcome<()> {
        self.table.print(options);
        if self.broken { Err("a limit is broken".into()) } else { Ok(()) }
    }
}

fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
