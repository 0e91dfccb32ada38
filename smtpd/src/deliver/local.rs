//! Mail for our own domains: into the Drop directory.

use std::sync::Arc;

use mailroot_common::status::EnhancedCode;
use smtpd_core::queue::outcome::{Outcome, Stage};
use tokio::task::JoinSet;

use super::finish::finish;
use super::job::Job;
use super::room::Room;
use super::{Settings, directory};
use crate::drop::{DropError, Incoming};
use crate::queue::Lease;

/// Puts the jobs into Drop. All are written before the first wait for the disk, which they share.
pub(super) async fn deliver(room: &Arc<Room>, settings: &Settings, jobs: &mut [Job]) {
    let mut waits = JoinSet::new();
    for (place, job) in jobs.iter_mut().enumerate() {
        if let Some(asked) = &settings.directory {
            // Boxed, so that mail that nobody is asked about holds no room for it.
            Box::pin(directory::resolve(room, settings, asked, job)).await;
            if job.waiting().is_empty() {
                finish(room, job).await;
                continue;
            }
        }
        let Some(lease) = &job.lease else { continue };
        match write(settings, lease, job.waiting()).await {
            Ok(incoming) => {
                waits.spawn(async move { (place, incoming.finish().await) });
            }
            Err(error) => end(room, job, Err(error)).await,
        }
    }
    while let Some(done) = waits.join_next().await {
        // A wait that broke down leaves its job unfinished: the lease gives the mail back.
        if let Ok((place, result)) = done
            && let Some(job) = jobs.get_mut(place)
        {
            end(room, job, result).await;
        }
    }
}

async fn end(room: &Room, job: &mut Job, result: Result<String, DropError>) {
    let now = room.clock.now();
    let outcome = match result {
        Ok(name) => {
            let text = format!("filed as {name}");
            Outcome::local(now, Stage::Drop, EnhancedCode::success(0, 0), text)
        }
        Err(error) => error.outcome(now),
    };
    job.end_all(&outcome);
    finish(room, job).await;
}

async fn write(
    settings: &Settings,
    lease: &Lease,
    places: &[usize],
) -> Result<Incoming, DropError> {
    let mut incoming = settings.drop.begin(lease.id, &lease.envelope, places, lease.size);
    let mut reader = lease.open();
    let failed = |error| DropError::Body(Arc::new(error));
    if reader.size() != lease.size {
        return Err(failed(std::io::Error::other("the message was removed")));
    }
    while let Some(piece) = reader.next().await.map_err(failed)? {
        incoming.append(piece).await?;
    }
    Ok(incoming)
}
