//! Measures Mailroot beside a bound and Postfix; `run.sh` and `scale.sh` build it and call it.
//!
//! Everything runs on loopback and in a directory of its own. Every wait has an end, and every
//! process that was started is ended by its id, also when the benchmark is interrupted.

mod calls;
mod client;
mod crash;
mod latency;
mod load;
mod options;
mod process;
mod programs;
mod rates;
mod report;
mod rows;
mod scale;
mod scratch;
mod secure;
mod server;
mod tls_sink;
mod watch;

use std::error::Error;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::options::Options;
use crate::scratch::Scratch;

/// What a step of the benchmark came to; an error ends the benchmark with its text.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

async fn run(options: &Options) -> Outcome<()> {
    let scratch = Scratch::below(&options.directory)?;
    match options.command.as_str() {
        "run" => {
            rates::measure(options, &scratch).await?;
            if !options.rates_only {
                calls::measure(options, &scratch).await?;
                latency::measure(options, &scratch).await?;
                crash::measure(options, &scratch).await?;
            }
        }
        other => scale::measure(other, options, &scratch).await?,
    }
    Ok(())
}

/// Waits until somebody wants the benchmark to end.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    // What is dropped here ends its processes and removes its directories.
    tokio::select! {
        outcome = run(&options) => match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        () = interrupted() => {
            eprintln!("interrupted");
            ExitCode::FAILURE
        }
    }
}
