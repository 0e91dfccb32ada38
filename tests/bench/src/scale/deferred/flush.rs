//! All domains answer, and everything is flushed; meanwhile mail goes to the other domain.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::{OTHER, Site};
use crate::client::{Client, message};
use crate::latency::{delays, percentile};
use crate::load::Sink;
use crate::process;
use crate::report::short;
use crate::rows::PATIENCE;
use crate::scale::{Verdicts, mib, seconds};
use crate::{Outcome, programs};

const FLUSH_MAX: Duration = Duration::from_mins(20);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What a message has on disk besides, once it was asked to be tried again: a record of its state.
const STATE: u64 = 320;
/// As the server has it unless it is told otherwise, with the file system's own blocks.
const SEGMENT_KIB: u64 = (64 << 10) + 64;

pub(super) async fn measure(site: &Site, verdicts: &mut Verdicts) -> Outcome<()> {
    let log = site.server.log();
    let log_before = std::fs::metadata(&log)?.len();
    let disk_full = site.disk_kib();
    let mut watch = site.watch("event=delivered");
    let delivered_before = watch.look()?;
    let _late = Sink::start_on(site.late_port).await?;
    let begun = Instant::now();
    let mut smtpctl = Command::new(programs::mailroot("smtpctl"));
    smtpctl.arg("--home").arg(&site.server.home).args(["queue", "flush"]).kill_on_drop(true);
    // What it could not schedule because it has just gone is no trouble here; the count is below.
    smtpctl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = timeout(PATIENCE, smtpctl.status()).await??;
    verdicts.tell("smtpctl queue flush", format!("{status} after {}", seconds(begun.elapsed())));

    let mut client = Client::open(site.server.port).await?;
    let body = message(4096);
    let (mut others, mut excess) = (0, i64::MIN);
    loop {
        let gone = watch.look()? - delivered_before;
        if gone >= site.messages + others {
            break;
        }
        if begun.elapsed() > FLUSH_MAX {
            return Err(format!("{gone} of {} messages went", site.messages).into());
        }
        let left = site.messages.saturating_sub(gone);
        let live = disk_full * left / site.messages + left * STATE / 1024;
        let allowed = 2 * live + 4 * SEGMENT_KIB;
        excess = excess.max(i64::try_from(site.disk_kib())? - i64::try_from(allowed)?);
        client.send(OTHER, &body).await?;
        others += 1;
        sleep(LOOK_EVERY).await;
    }
    let took = begun.elapsed();
    verdicts.tell("all delivered after", seconds(took));
    verdicts.tell("messages a second", short(site.messages as f64 / took.as_secs_f64()));
    let mut waits = other_delays(&log, log_before)?;
    waits.sort_unstable();
    let parts = [500, 990, 1000].map(|part| percentile(&waits, part));
    verdicts.tell("meanwhile, another domain, ms: 50 %, 99 %, most", parts.join(", "));
    let room = format!("{} MiB below", -excess / 1024);
    verdicts.judge("disk during the flush", room, "2 x live + 4 segments", excess <= 0);
    // What is promised of memory is for mail that waits; here a thousand connections carry it.
    verdicts.tell("memory in the flush, most", mib(process::peak_kib(site.server.pid())?));
    settle_disk(site, verdicts).await
}

/// What is left on disk of an empty queue, once the server has cleaned up.
async fn settle_disk(site: &Site, verdicts: &mut Verdicts) -> Outcome<()> {
    let begun = Instant::now();
    while site.disk_kib() > 4 * SEGMENT_KIB && begun.elapsed() < Duration::from_mins(1) {
        sleep(LOOK_EVERY).await;
    }
    let kib = site.disk_kib();
    verdicts.judge("disk afterwards", mib(kib), "4 segments", kib <= 4 * SEGMENT_KIB);
    Ok(())
}

/// Delays of the other domain's messages in the log from `offset` on.
fn other_delays(log: &std::path::Path, offset: u64) -> Outcome<Vec<Duration>> {
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(OTHER)).collect();
    Ok(delays(&lines.join("\n")))
}
