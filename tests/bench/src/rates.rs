//! All rows, round after round: the programs take turns, so that what else happens on the machine
//! falls on all of them.

use std::collections::HashMap;

use crate::Outcome;
use crate::options::Options;
use crate::report::{Table, median, short};
use crate::rows::{Measured, Row};
use crate::scratch::Scratch;
use crate::server::Program;

type Results = HashMap<(usize, Program), Vec<Measured>>;

/// Measures every row that is asked for, and prints medians.
pub(crate) async fn measure(options: &Options, scratch: &Scratch) -> Outcome<()> {
    let rows = Row::all(options);
    let mut results = Results::new();
    for round in 0..options.rounds {
        for (place, row) in rows.iter().enumerate() {
            for turn in 0..Program::ALL.len() {
                // Whoever begins in one round comes later in the next.
                let program = Program::ALL[(turn + round) % Program::ALL.len()];
                if row.under_tls && program == Program::Bound {
                    continue;
                }
                let home = scratch.directory()?;
                let measured = row.measure(program, home.path(), options).await?;
                eprintln!(
                    "round {} {row}: {} {}/s, {} CPU s per 1,000",
                    round + 1,
                    program.name(),
                    short(measured.per_second),
                    short(measured.cpu_per_thousand),
                );
                results.entry((place, program)).or_default().push(measured);
            }
        }
    }
    print(options, &rows, &results);
    Ok(())
}

fn print(options: &Options, rows: &[Row], results: &Results) {
    let of = |place: usize, program: Program, value: fn(&Measured) -> f64| {
        let measured = results.get(&(place, program)).map(Vec::as_slice).unwrap_or_default();
        median(measured.iter().map(value).collect()).unwrap_or(f64::NAN)
    };
    let mut rates = Table::new(
        &format!("Messages a second, median of {} rounds", options.rounds),
        &["row", "Bound", "Mailroot", "Postfix", "Mailroot / Bound", "Mailroot / Postfix"],
    );
    let mut costs = Table::new(
        "CPU seconds of the server per 1,000 messages; memory in MiB",
        &["row", "Bound", "Mailroot", "Postfix", "Bound, MiB", "Mailroot, MiB", "Postfix, MiB"],
    );
    for (place, row) in rows.iter().enumerate() {
        let [bound, mailroot, postfix] =
            Program::ALL.map(|program| of(place, program, |measured| measured.per_second));
        rates.row(vec![
            row.to_string(),
            short(bound),
            short(mailroot),
            short(postfix),
            short(mailroot / bound),
            short(mailroot / postfix),
        ]);
        let mut cells = vec![row.to_string()];
        cells.extend(Program::ALL.map(|it| short(of(place, it, |it| it.cpu_per_thousand))));
        let mib = |it: &Measured| it.memory_kib as f64 / 1024.0;
        cells.extend(Program::ALL.map(|it| short(of(place, it, mib))));
        costs.row(cells);
    }
    rates.print(options);
    costs.print(options);
}
