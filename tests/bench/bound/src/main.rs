//! The bound: what this machine allows a relay that answers 250 only after a sync.
//!
//! `bound PORT LOG [SINK_PORT CONNECTIONS]` listens on loopback, writes every message to one file
//! and syncs it before it answers; messages that arrive together share a sync. With a sink they
//! are then forwarded over kept-open connections. It has no rules, no log, no index, no retry and
//! no way to read its file again: it is a yardstick, and mail does not belong in it.

mod forward;
mod log;
mod receive;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use crate::forward::Forwarding;
use crate::log::Log;

/// As many as a small machine has cores; the same for every measurement.
const WORKERS: usize = 2;

struct Arguments {
    port: u16,
    log: String,
    sink: Option<(u16, usize)>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [port, log] => Ok(Arguments { port: port.parse()?, log: log.clone(), sink: None }),
        [port, log, sink, connections] => Ok(Arguments {
            port: port.parse()?,
            log: log.clone(),
            sink: Some((sink.parse()?, connections.parse()?)),
        }),
        _ => Err("usage: bound PORT LOG [SINK_PORT CONNECTIONS]".into()),
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let log = Arc::new(Log::create(&arguments.log)?);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    runtime.block_on(async move {
        let forwarding = match arguments.sink {
            Some((port, connections)) => Some(Forwarding::start(port, connections).await?),
            None => None,
        };
        receive::serve(arguments.port, log, forwarding).await?;
        Ok(())
    })
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bound: {error}");
            ExitCode::FAILURE
        }
    }
}
