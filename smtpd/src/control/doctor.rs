//! `/v1/servers/{server}/doctor/…`: what a queue's disk is good for, and whether what the server
//! depends on in the network is there.
//!
//! One look at a time: two measurements of a disk would measure each other. That of a disk ends by
//! itself within about two seconds, also when whoever asked has gone; the store goes on meanwhile,
//! and shares the disk.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use mailroot_common::address::Mailbox;
use mailroot_common::control::{Check, Kind, Level, Problem};
use smtpd_core::storage::{mount, speed};
use tokio::sync::Semaphore;

use super::App;
use super::answer::{Answer, object};
use super::caller::Caller;
use super::extract::Path;
use super::gate::tell;
use super::server::read_name;
use crate::clock::Clock;
use crate::disk::{Disk, ground::ground, probe};
use crate::queue::Queue;
use crate::service::ServiceError;
use crate::trace::{Seen, Senders, Traffic};
use crate::virtual_server::Sender;

/// How long syncs are measured.
const SPAN: Duration = Duration::from_millis(1_800);
/// How long a disk that is stuck is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &str = "storage";

/// The right to measure.
#[derive(Clone, Debug)]
pub(super) struct Turn(Arc<Semaphore>);

impl Default for Turn {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// Looks at the file system and the disk of a queue, and measures them.
pub(super) async fn storage(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer<Vec<Check>> {
    let name = read_name(&name)?;
    let server = app.service.server(&name).ok_or_else(|| ServiceError::NoServer(name.clone()))?;
    let (Some(queue), Some(directory)) = (server.queue(), server.queue_directory()) else {
        let detail = format!("the queue of {name} was not opened since the daemon started");
        let problem = Problem::new("doctor", Kind::Unavailable, detail).word("no_queue");
        return Err(problem.hint(format!("smtpctl server show {name} tells why")).into());
    };
    let turn = Arc::clone(&app.turn.0).try_acquire_owned().map_err(|_| {
        Problem::new("doctor", Kind::Conflict, "a measurement is under way")
            .word("busy")
            .hint("it ends within a few seconds; ask again then")
    })?;
    tell(&app, "storage-measured", name.as_str(), None, &caller).send();
    let clock = app.service.clock().clone();
    let examined = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        examine(&clock, &queue, &directory)
    });
    let mut checks = match tokio::time::timeout(PATIENCE, examined).await {
        Ok(Ok(checks)) => checks,
        Ok(Err(error)) => {
            return Err(Problem::new("doctor", Kind::Failed, error.to_string()).into());
        }
        Err(_) => {
            let detail = format!("the disk did not end a sync within {} s", PATIENCE.as_secs());
            return Err(Problem::new("doctor", Kind::TimedOut, detail).into());
        }
    };
    for check in &mut checks {
        check.server = Some(name.to_string());
    }
    object(checks)
}

/// Looks at listeners, names, smart hosts and senders.
pub(super) async fn network(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer<Vec<Check>> {
    let name = read_name(&name)?;
    let server = app.service.server(&name).ok_or_else(|| ServiceError::NoServer(name.clone()))?;
    let _turn = Arc::clone(&app.turn.0).try_acquire_owned().map_err(|_| {
        Problem::new("doctor", Kind::Conflict, "another look is being taken")
            .word("busy")
            .hint("it ends within a minute; ask again then")
    })?;
    tell(&app, "network-probed", name.as_str(), None, &caller).send();
    let mut checks = server.probe().await;
    let senders = recent_senders(&app, name.as_str()).await;
    checks.extend(server.check_senders(senders).await);
    object(checks)
}

/// Who sent mail to a server lately, those with the most first.
async fn recent_senders(app: &App, server: &str) -> Vec<Sender> {
    let mut search = app.service.trace().search().await;
    let reading = tokio::task::spawn_blocking(move || Traffic::of(&mut search, Senders::Together));
    // What cannot be read now tells of nobody.
    let traffic = reading.await.unwrap_or_default();
    let of_server = traffic.senders.into_iter().filter(|((name, _), _)| name == server);
    let sender = |seen: Seen| {
        let address = Mailbox::parse(&seen.address?).ok()?;
        Some(Sender { address, messages: seen.count })
    };
    let mut senders: Vec<Sender> = of_server.filter_map(|(_, seen)| sender(seen)).collect();
    senders.sort_by(|a, b| {
        let key = |it: &Sender| (std::cmp::Reverse(it.messages), it.address.to_string());
        key(a).cmp(&key(b))
    });
    senders
}

/// Blocks.
fn examine(clock: &Clock, queue: &Queue, directory: &std::path::Path) -> Vec<Check> {
    let fail = |name, text| Check::new(Level::Fail, TOPIC, name, text);
    let mut checks = Vec::new();
    let mut device = None;
    match ground(directory) {
        Ok(ground) => {
            device = ground.device;
            match &ground.mount {
                Some(mount) => checks.extend(mount::judge(mount)),
                None => {
                    let text = format!("the mount of {} cannot be told", directory.display());
                    checks.push(Check::new(Level::Warn, TOPIC, "file_system", text));
                }
            }
        }
        Err(error) => {
            checks.push(fail("file_system", format!("{}: {error}", directory.display())));
        }
    }
    checks.extend(device.as_ref().and_then(mount::judge_device));
    if let Err(unready) = queue.ready() {
        // What little room is left belongs to the mail.
        let text = format!("new mail is refused, and nothing was measured: {unready}");
        checks.push(fail("ready", text));
        return checks;
    }
    match probe::measure(&Disk::Real, clock, directory, SPAN) {
        Ok(measured) => checks.extend(speed::judge(&measured, device.is_some())),
        Err(error) => {
            checks.push(fail("probe", format!("{}: {error}", directory.display())));
        }
    }
    checks
}
