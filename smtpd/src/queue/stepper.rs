//! A queue without threads, for tests that decide when its work is done.

use std::sync::Arc;

use mailroot_common::units::ByteSize;
use smtpd_core::route::table::Table;
use tokio::sync::Notify;

use super::{Openings, Orders, Queue};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::observe::Log;
use crate::store::memory::Memory;
use crate::store::{self, OpenError, Store, Surroundings};

impl Queue {
    /// A queue on a modelled disk without threads; the test drives the store it also gets.
    pub(crate) fn stepped(
        disk: Disk,
        directory: &std::path::Path,
        clock: Clock,
        table: Arc<Table>,
    ) -> Result<(Self, Stepper), OpenError> {
        let settings = store::Settings {
            segment_size: store::Settings::SEGMENT_SIZE_MIN,
            min_free: ByteSize::bytes(0),
            holder: "a test".into(),
            directory: directory.to_owned(),
        };
        let work = Arc::new(Notify::new());
        let around = Surroundings {
            table,
            work: Arc::clone(&work),
            clock: clock.clone(),
            journal: Log::quiet(),
            counters: Arc::default(),
        };
        let (store, log) = Store::stepped(disk, settings, around)?;
        Ok((
            Self::over(store, clock, work, (Orders::in_memory(), Openings::default())),
            Stepper(log),
        ))
    }

    /// The store in memory, to ask it for faults; nothing if the queue is on disk.
    pub(crate) fn memory(&self) -> Option<&Memory> {
        match &self.0.store {
            Store::Log(_) => None,
            Store::Memory(memory) => Some(memory),
        }
    }
}

/// Does the work of a queue that has no threads.
#[derive(Clone, Debug)]
pub(crate) struct Stepper(Arc<store::log::Log>);

impl Stepper {
    /// Does everything that is due; says whether the disk still has power.
    pub(crate) fn step(&self) -> bool {
        self.0.step()
    }

    /// Waits for something to do.
    pub(crate) async fn wait(&self) {
        self.0.submitted().await;
    }
}
