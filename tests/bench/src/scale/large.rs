//! One message of 100 MiB on its way through.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Verdicts, mib, seconds};
use crate::Outcome;
use crate::client::{Client, message};
use crate::load::{self, Load, Sink};
use crate::options::Options;
use crate::process;
use crate::rows::PATIENCE;
use crate::server::{Program, Server, Setup};

const SIZE: usize = 100 << 20;
const MORE_MAX_KIB: u64 = 8 << 10;

pub(super) async fn measure(options: &Options, home: &Path) -> Outcome<Verdicts> {
    let sink = Sink::start().await?;
    let keys = vec![
        ("messages", "max_size: 200MiB".to_owned()),
        ("messages", "max_session_size: 400MiB".to_owned()),
    ];
    let setup = Setup { keys, forwards: true, ..Setup::new(sink.port, options) };
    let server = Server::start(Program::Mailroot, home, &setup).await?;
    let mut watch = server.watch();
    // What every server has after some ordinary mail is not the large message's.
    let ordinary = Load { sessions: 1, messages: 500, size: 4096, open: true, to: load::TO };
    ordinary.send(server.port, PATIENCE).await?;
    watch.until(500, PATIENCE).await?;
    process::forget_peak(server.pid())?;
    let before = process::peak_kib(server.pid())?;
    let mut client = Client::open(server.port).await?;
    let body = message(SIZE);
    let begun = Instant::now();
    client.send("user@sink.test", &body).await?;
    let accepted = begun.elapsed();
    watch.until(501, Duration::from_mins(2)).await?;
    let delivered = begun.elapsed();
    let more = process::peak_kib(server.pid())?.saturating_sub(before);

    let mut verdicts = Verdicts::new("One message of 100 MiB");
    verdicts.judge("more memory", mib(more), "8 MiB", more < MORE_MAX_KIB);
    verdicts.tell("accepted after", seconds(accepted));
    verdicts.tell("delivered after", seconds(delivered));
    server.stop().await?;
    Ok(verdicts)
}
