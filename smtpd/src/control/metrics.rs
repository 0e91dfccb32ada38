//! `/v1/metrics`: counters and gauges in the words of Prometheus.
//!
//! Counters of virtual servers are told by [`FAMILIES`], which has each of them once; what goes up and
//! down is read when it is asked for. A caller who may see single servers only is told of these.

use std::collections::BTreeMap;
use std::sync::Arc;

use mailroot_common::control::{
    Metric, MetricKind, Part, Sample, Server, ServerState, SmartHostState, Status,
};
use mailroot_common::units::Timestamp;

use super::App;
use super::answer::{Answer, object};
use super::caller::Reach;
use crate::observe::Seen;
use crate::virtual_server::VirtualServer;

/// A metric made of counters: its name, what it tells, the name of the label that tells its counters
/// apart, and each counter with its value of that label.
struct Family {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    of: &'static [(&'static str, &'static str)],
}

macro_rules! families {
    ($($name:literal $help:literal $label:literal { $($counter:literal $value:literal,)+ })+) => {
        const FAMILIES: &[Family] = &[$(Family {
            name: $name,
            help: $help,
            label: $label,
            of: &[$(($counter, $value),)+],
        },)+];
    };
}

families! {
    "mailroot_connections_total" "Connections that were made." "direction" {
        "connections" "inbound",
        "outbound_connections" "outbound",
    }
    "mailroot_connection_errors_total" "Connections that failed." "direction" {
        "outbound_failures" "outbound",
    }
    "mailroot_connections_refused_total" "Connections of clients that were turned away." "reason" {
        "connections_denied" "access",
        "connections_over_max" "max_connections",
        "connections_over_client_max" "max_connections_per_client",
    }
    "mailroot_descriptors_exhausted_total" "Times a listener paused because descriptors ran out." "" {
        "descriptors_exhausted" "",
    }
    "mailroot_tls_sessions_total" "Handshakes of clients." "result" {
        "tls_sessions" "ok",
        "tls_failed" "failed",
    }
    "mailroot_auth_attempts_total" "Logins of clients." "result" {
        "logins" "ok",
        "logins_failed" "failed",
    }
    "mailroot_messages_received_total" "Messages accepted, by whatever door." "" {
        "messages_received" "",
    }
    "mailroot_message_bytes_total" "Octets of messages." "direction" {
        "octets_received" "inbound",
    }
    "mailroot_messages_refused_total" "Messages that were refused." "reason" {
        "size_refused" "size",
        "shape_refused" "shape",
        "bare_line_ends" "bare_line_ends",
        "hops_met" "hops",
        "senders_unknown" "unknown_sender",
        "no_room" "store_full",
        "store_trouble" "store",
    }
    "mailroot_filtered_total" "Senders, recipients and messages that milters did not let go on." "result" {
        "filter_refused" "refused",
        "filter_deferred" "deferred",
        "filter_unavailable" "unheard",
        "messages_discarded" "discarded",
    }
    "mailroot_recipients_refused_total" "Recipients that were refused or put off." "reason" {
        "relay_denied" "relay",
        "recipients_unknown" "unknown",
        "recipients_not_looked_up" "not_looked_up",
        "recipients_refused" "max_recipients",
    }
    "mailroot_sessions_closed_total" "Sessions of clients that were closed by us." "reason" {
        "session_size_met" "max_session_size",
        "errors_met" "max_errors",
        "idle_commands_met" "idle_commands",
        "idle_timeouts" "idle_timeout",
        "session_time_met" "max_session_time",
        "too_slow" "too_slow",
        "panics" "fault",
    }
    "mailroot_command_lines_too_long_total" "Command lines that were too long." "" {
        "command_lines_too_long" "",
    }
    "mailroot_pickup_files_total" "Files of Pickup." "result" {
        "pickup_taken" "taken",
        "pickup_bad" "bad",
    }
    "mailroot_recipients_total" "What attempts came to, by recipient." "result" {
        "recipients_delivered" "delivered",
        "recipients_dropped" "dropped",
        "recipients_resolved" "resolved",
        "recipients_deferred" "deferred",
        "recipients_failed" "failed",
        "recipients_expired" "expired",
        "recipients_in_doubt" "in_doubt",
    }
    "mailroot_destinations_slowed_total" "Destinations that asked for less mail." "" {
        "destinations_slowed" "",
    }
    "mailroot_reports_total" "Reports to senders." "" {
        "reports" "",
    }
    "mailroot_badmailed_total" "Messages put into Badmail." "" {
        "badmail" "",
    }
    "mailroot_clock_jumps_total" "Times the wall clock was set by minutes or more." "" {
        "clock_jumps" "",
    }
    "mailroot_store_batches_total" "Batches that the store wrote, each with one sync." "" {
        "store_batches" "",
    }
    "mailroot_store_segments_total" "Segments of the store." "event" {
        "segments_made" "made",
        "segments_recycled" "recycled",
        "segments_compacted" "compacted",
    }
    "mailroot_ldap_lookups_total" "Look-ups in the directory." "result" {
        "ldap_found" "found",
        "ldap_not_found" "not_found",
        "ldap_failed" "failed",
        "ldap_cached" "cached",
    }
    "mailroot_ldap_connections_total" "Connections to directories." "" {
        "ldap_connections" "",
    }
}

/// All of them.
pub(super) async fn list(app: App) -> Answer<Vec<Metric>> {
    let whole = app.reach == Reach::All;
    let servers = app.all();
    let status = app.service.status(&servers, whole).await;
    let mut metrics = of_servers(&status);
    let counters: Vec<(String, BTreeMap<&str, u64>)> = servers
        .iter()
        .map(|server| (server.name().to_string(), server.counters().list().collect()))
        .collect();
    metrics.extend(FAMILIES.iter().map(|family| family.of(&counters)));
    metrics.extend(of_directories(&servers));
    if whole {
        metrics.extend(of_service(&app, &status));
    }
    object(metrics)
}

impl Family {
    fn of(&self, servers: &[(String, BTreeMap<&str, u64>)]) -> Metric {
        let samples = servers.iter().flat_map(|(server, counters)| {
            self.of.iter().filter_map(move |(counter, value)| {
                let count = counters.get(counter)?;
                let mut labels = vec![("server", server.as_str())];
                labels.extend((!self.label.is_empty()).then_some((self.label, *value)));
                Some(sample(&labels, number(*count)))
            })
        });
        metric(self.name, MetricKind::Counter, self.help, samples)
    }
}

fn metric(
    name: &str,
    kind: MetricKind,
    help: &str,
    samples: impl IntoIterator<Item = Sample>,
) -> Metric {
    let samples = samples.into_iter().collect();
    Metric { name: name.to_owned(), kind, help: help.to_owned(), samples }
}

fn sample(labels: &[(&str, &str)], value: f64) -> Sample {
    let label = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    Sample { labels: labels.iter().map(label).collect(), value, part: None }
}

/// What is told of the directories that virtual servers ask, if they do.
fn of_directories(servers: &[Arc<VirtualServer>]) -> [Metric; 2] {
    let asking = || servers.iter().filter(|server| server.config().ldap.enabled);
    let open = asking().map(|server| {
        let count = server.counters().ldap_open.value();
        sample(&[("server", server.name().as_str())], number(count))
    });
    let times =
        asking().flat_map(|it| histogram(it.name().as_str(), &it.counters().ldap_times.seen()));
    [
        metric(
            "mailroot_ldap_connections",
            MetricKind::Gauge,
            "Connections to directories that there are.",
            open,
        ),
        metric(
            "mailroot_ldap_lookup_duration_seconds",
            MetricKind::Histogram,
            "How long look-ups in the directory took, those left out whose answer was known.",
            times,
        ),
    ]
}

/// The values of a histogram of a virtual server.
fn histogram(server: &str, seen: &Seen) -> Vec<Sample> {
    let bucket = |most: &str, count: u64| Sample {
        part: Some(Part::Bucket),
        ..sample(&[("server", server), ("le", most)], number(count))
    };
    let within =
        seen.within.iter().map(|(most, count)| bucket(&most.as_secs_f64().to_string(), *count));
    let mut samples: Vec<Sample> = within.collect();
    samples.push(bucket("+Inf", seen.count));
    for (part, value) in [(Part::Sum, seen.sum.as_secs_f64()), (Part::Count, number(seen.count))] {
        samples.push(Sample { part: Some(part), ..sample(&[("server", server)], value) });
    }
    samples
}

#[expect(clippy::cast_precision_loss, reason = "counts above 2^53 lose their last digits")]
const fn number(count: u64) -> f64 {
    count as f64
}

fn seconds(at: Timestamp) -> f64 {
    number(at.as_millis()) / 1_000.0
}

/// What goes up and down in virtual servers.
fn of_servers(status: &Status) -> Vec<Metric> {
    let each = |of: fn(&Server) -> Option<f64>| {
        let one = move |server: &Server| Some(sample(&[("server", &server.name)], of(server)?));
        status.servers.iter().filter_map(one).collect::<Vec<_>>()
    };
    let divided = |label: &str, of: fn(&Server) -> Vec<(&'static str, u64)>| {
        let mut samples = Vec::new();
        for server in &status.servers {
            samples.extend(of(server).into_iter().map(|(value, count)| {
                sample(&[("server", &server.name), (label, value)], number(count))
            }));
        }
        samples
    };
    let oldest = status.servers.iter().map(|server| {
        let age = server.queue.oldest_at.map(|at| status.now.since(at).as_duration());
        sample(&[("server", &server.name)], age.unwrap_or_default().as_secs_f64())
    });
    let gauge = |name, help, samples| metric(name, MetricKind::Gauge, help, samples);
    vec![
        gauge(
            "mailroot_server_up",
            "Whether a virtual server runs; one that is paused does not.",
            each(|it| Some(f64::from(u8::from(it.state == ServerState::Running)))),
        ),
        gauge(
            "mailroot_connections",
            "Connections that there are.",
            divided("direction", |it| {
                vec![("inbound", it.sessions_in), ("outbound", it.sessions_out)]
            }),
        ),
        gauge(
            "mailroot_queue_messages",
            "Messages that wait: all, those with an attempt behind them, those that are held.",
            divided("queue", |it| {
                let queue = &it.queue;
                vec![("all", queue.messages), ("retry", queue.retry), ("held", queue.held)]
            }),
        ),
        gauge(
            "mailroot_queue_bytes",
            "Octets of the messages that wait.",
            each(|it| Some(number(it.queue.bytes))),
        ),
        metric(
            "mailroot_queue_oldest_age_seconds",
            MetricKind::Gauge,
            "How long the oldest message waits; 0 if none does.",
            oldest,
        ),
        gauge(
            "mailroot_badmail_messages",
            "Messages in Badmail.",
            each(|it| Some(number(it.badmail))),
        ),
        gauge(
            "mailroot_store_free_bytes",
            "Room on the disk of the queue.",
            each(|it| it.free_bytes.map(number)),
        ),
    ]
}

/// What is told of the service as a whole.
fn of_service(app: &App, status: &Status) -> Vec<Metric> {
    let one = |name, kind, help, value| metric(name, kind, help, [sample(&[], value)]);
    let traced = ["trace_events", "trace_dropped", "trace_damaged_blocks"];
    let traced = traced.into_iter().filter_map(|name| {
        let count = status.counters.get(name)?;
        let what = name.trim_start_matches("trace_").trim_end_matches("_blocks");
        Some(sample(&[("what", what)], number(*count)))
    });
    let hosts = status.smart_hosts.iter().map(|host| {
        let is_up = host.state != SmartHostState::Down;
        sample(&[("name", &host.name)], f64::from(u8::from(is_up)))
    });
    let certificates = app.service.certificates().into_iter().filter_map(|certificate| {
        Some(sample(&[("name", &certificate.name)], seconds(certificate.not_after?)))
    });
    let (counter, gauge) = (MetricKind::Counter, MetricKind::Gauge);
    let (had, failed) = app.service.acme_counts();
    vec![
        metric("mailroot_trace_total", counter, "Events of the trace, and parts of it.", traced),
        metric(
            "mailroot_smart_host_up",
            gauge,
            "Whether nothing speaks against a smart host.",
            hosts,
        ),
        metric(
            "mailroot_acme_requests_total",
            counter,
            "Certificates that were asked of an authority, by what came of it.",
            [
                sample(&[("result", "issued")], number(had)),
                sample(&[("result", "failed")], number(failed)),
            ],
        ),
        metric(
            "mailroot_certificate_expiry_timestamp_seconds",
            gauge,
            "When a certificate that is shown to clients ends.",
            certificates,
        ),
        one(
            "mailroot_config_revision",
            gauge,
            "The revision of the configuration in force.",
            number(status.config_revision),
        ),
        one(
            "mailroot_warnings",
            gauge,
            "What needs a person, as smtpctl status tells it.",
            number(status.warnings.len() as u64),
        ),
        metric(
            "mailroot_build_info",
            gauge,
            "The version of the daemon.",
            [sample(&[("version", &status.version)], 1.0)],
        ),
        one(
            "process_start_time_seconds",
            gauge,
            "When the daemon began.",
            seconds(status.started_at),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Counters;

    #[test]
    fn every_counter_is_in_one_family() {
        let mut told: Vec<&str> =
            FAMILIES.iter().flat_map(|family| family.of.iter().map(|(name, _)| *name)).collect();
        let mut all: Vec<&str> = Counters::default().list().map(|(name, _)| name).collect();
        told.sort_unstable();
        all.sort_unstable();
        assert_eq!(told, all);
        for family in FAMILIES {
            assert_eq!(family.label.is_empty(), family.of[0].1.is_empty(), "{}", family.name);
        }
    }

    #[test]
    fn counters_carry_their_server_and_what_tells_them_apart() {
        let counters = BTreeMap::from([("connections", 3), ("outbound_connections", 1)]);
        let metric = FAMILIES[0].of(&[("lan".to_owned(), counters)]);
        assert!(
            metric
                .to_text()
                .contains("\nmailroot_connections_total{direction=\"inbound\",server=\"lan\"} 3\n")
        );
        assert_eq!(metric.samples.len(), 2);
    }
}
