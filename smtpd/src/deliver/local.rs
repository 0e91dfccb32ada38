//! Mail for our own domains: into the Drop directory.

use std::sync::Arc;

use smtpd_core::queue::outcome::{Outcome, Stage};

use super::Settings;
use super::finish::finish;
use super::job::Job;
use super::room::Room;
use crate::drop::DropError;
use crate::queue::Lease;

/// Puts the jobs into Drop. They share the waits for the disk as far as they were written before
/// the first of them is finished.
pub(super) async fn deliver(room: &Arc<Room>, settings: &Settings, jobs: &mut [Job]) {
    for job in jobs {
        let result = match &job.lease {
            Some(lease) => put(settings, lease).await,
            None => continue,
        };
        let now = room.clock.now();
        let outcome = match result {
            Ok(name) => {
                let status = mailroot_common::status::EnhancedCode::success(0, 0);
                Outcome::local(now, Stage::Drop, status, format!("filed as {name}"))
            }
            Err(error) => error.outcome(now),
        };
        job.end_all(&outcome);
        finish(room, job).await;
    }
}

async fn put(settings: &Settings, lease: &Lease) -> Result<String, DropError> {
    let places: Vec<usize> = lease.places().collect();
    let mut incoming = settings.drop.begin(lease.id, &lease.envelope, &places, lease.size);
    let mut reader = lease.open();
    let failed = |error| DropError::Body(Arc::new(error));
    if reader.size() != lease.size {
        return Err(failed(std::io::Error::other("the message was removed")));
    }
    while let Some(piece) = reader.next().await.map_err(failed)? {
        incoming.append(piece).await?;
    }
    incoming.finish().await
}
