//! Counters of one virtual server: what happened, and which limits were met how often.

use std::sync::atomic::{AtomicU64, Ordering};

use super::measures::{Gauge, Histogram};

/// Defines the counters once: their fields, and their names for listings.
macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counters since the virtual server started, which only grow, and what is measured besides.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: Counter,)*
            /// How long look-ups in the directory took that were not known.
            pub ldap_times: Histogram,
            /// Connections to directories that there are.
            pub ldap_open: Gauge,
        }

        impl Counters {
            /// Every counter with its name, in the order of the table.
            pub fn list(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.value()),)*].into_iter()
            }
        }
    };
}

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// Counts several.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

counters! {
    /// Connections accepted.
    connections,
    /// Connections refused by `access.connect`.
    connections_denied,
    /// Connections refused because `general.max_connections` was met.
    connections_over_max,
    /// Connections refused because `general.max_connections_per_client` was met.
    connections_over_client_max,
    /// Times the listener paused because descriptors ran out.
    descriptors_exhausted,
    /// Sessions of clients that came under TLS.
    tls_sessions,
    /// Connections of clients whose handshake failed, or met `limits.handshake_time`.
    tls_failed,
    /// Logins of clients.
    logins,
    /// Logins of clients that were refused.
    logins_failed,
    /// Messages accepted, by whatever door.
    messages_received,
    /// Octets of those messages.
    octets_received,
    /// Recipients refused because they may not be relayed to.
    relay_denied,
    /// Recipients refused because the directory knows none such.
    recipients_unknown,
    /// Senders refused because the directory knows none such.
    senders_unknown,
    /// Senders and recipients put off because no directory answered.
    recipients_not_looked_up,
    /// Messages refused because `messages.max_size` was met.
    size_refused,
    /// Sessions closed because `messages.max_session_size` was met.
    session_size_met,
    /// Recipients refused because `messages.max_recipients` was met.
    recipients_refused,
    /// Sessions closed because `general.max_errors` was met.
    errors_met,
    /// Sessions closed because `limits.idle_commands` was met.
    idle_commands_met,
    /// Command lines that were too long.
    command_lines_too_long,
    /// Sessions closed because `general.idle_timeout` was met.
    idle_timeouts,
    /// Sessions closed because `general.max_session_time` was met.
    session_time_met,
    /// Sessions closed because the client sent its message too slowly.
    too_slow,
    /// Messages refused because a line or the header was too long.
    shape_refused,
    /// Messages refused because a bare CR or LF stood in them.
    bare_line_ends,
    /// Senders, recipients and messages that a milter refused.
    filter_refused,
    /// Those that a milter put off.
    filter_deferred,
    /// Those that waited because a milter could not be heard.
    filter_unavailable,
    /// Messages that a milter had forgotten.
    messages_discarded,
    /// Messages refused because `delivery.max_hops` was met.
    hops_met,
    /// Messages refused because the store had no room.
    no_room,
    /// Messages refused because the store could not write.
    store_trouble,
    /// Sessions ended by a fault of ours.
    panics,
    /// Pickup files taken.
    pickup_taken,
    /// Pickup files put into Badmail.
    pickup_bad,
    /// Recipients delivered to other hosts.
    recipients_delivered,
    /// Recipients delivered into Drop.
    recipients_dropped,
    /// Recipients whose mail the directory sent on to others.
    recipients_resolved,
    /// Attempts that ended in "not now", by recipient.
    recipients_deferred,
    /// Destinations that asked for less mail and were left alone for a while.
    destinations_slowed,
    /// Recipients that failed for good.
    recipients_failed,
    /// Recipients whose time was up.
    recipients_expired,
    /// Recipients whose connection, or this service, ended before the final reply.
    recipients_in_doubt,
    /// Reports written.
    reports,
    /// Messages kept in Badmail.
    badmail,
    /// Times the wall clock jumped by minutes or more, because somebody set it.
    clock_jumps,
    /// Batches the store wrote, each with one sync.
    store_batches,
    /// Segments the store filled with zeros.
    segments_made,
    /// Segments of which nothing was needed any more, made ready to be written again.
    segments_recycled,
    /// Segments out of which compaction moved what was alive.
    segments_compacted,
    /// Look-ups in the directory that found an entry.
    ldap_found,
    /// Look-ups that found none.
    ldap_not_found,
    /// Look-ups that no directory answered.
    ldap_failed,
    /// Look-ups that were not needed, because the answer was known.
    ldap_cached,
    /// Connections to directories made.
    ldap_connections,
    /// Outbound connections made.
    outbound_connections,
    /// Outbound connections that failed.
    outbound_failures,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_listed_with_its_value() {
        let counters = Counters::default();
        counters.relay_denied.add_one();
        counters.octets_received.add(4096);
        let list: Vec<_> = counters.list().collect();
        assert!(list.contains(&("relay_denied", 1)) && list.contains(&("octets_received", 4096)));
    }
}
