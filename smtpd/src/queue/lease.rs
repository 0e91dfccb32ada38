//! Taking mail to try it: which of it, in which order.

use std::pin::pin;

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::route::table::RouteName;

use super::Queue;
use crate::store::{Lease, Pick, ReadError, guard};

impl Queue {
    /// Takes up to `max` messages of a route that are due at `now`, those of higher priority first,
    /// among equals one sender's after the other's; a large one ends them.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the disk cannot be read.
    pub async fn lease(
        &self,
        route: &RouteName,
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<Lease>, ReadError> {
        guard::wait(pin!(self.0.store.lease(route, Pick::Due(now), max))).await
    }

    /// The same as [`Queue::lease`], but no large message. The route is named again for small mail then, as
    /// soon as a lease came back with all there was; whoever leaves large mail waiting comes back for it.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn lease_small(
        &self,
        route: &RouteName,
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<Lease>, ReadError> {
        guard::wait(pin!(self.0.store.lease(route, Pick::SmallDue(now), max))).await
    }

    /// Takes up to `max` messages of a route that were accepted before a moment, due or not: for
    /// the end of their time while the route is backing off.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the disk cannot be read.
    pub async fn lease_aged(
        &self,
        route: &RouteName,
        accepted_before: Timestamp,
        max: usize,
    ) -> Result<Vec<Lease>, ReadError> {
        guard::wait(pin!(self.0.store.lease(route, Pick::Aged(accepted_before), max))).await
    }

    /// The same as [`Queue::lease_aged`], but only recipients whose sender was not yet told of the
    /// delay.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the disk cannot be read.
    pub async fn lease_untold(
        &self,
        route: &RouteName,
        accepted_before: Timestamp,
        max: usize,
    ) -> Result<Vec<Lease>, ReadError> {
        guard::wait(pin!(self.0.store.lease(route, Pick::Untold(accepted_before), max))).await
    }

    /// Takes everybody of one message who waits and is not being tried, whatever their routes and
    /// moments, held or not; nothing if there is nobody.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the message cannot be read.
    pub async fn lease_message(&self, id: QueueId) -> Result<Option<Lease>, ReadError> {
        guard::wait(pin!(self.0.store.lease_message(id))).await
    }
}
