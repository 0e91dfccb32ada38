//! Where everything is found: the paths of the interface.
//!
//! Constants name fixed paths and the router's patterns; functions fill in a name, encoded, so
//! that a name with a slash cannot reach another path.

use std::fmt::Write;

/// Whether the daemon answers, and which one it is.
pub const VERSION: &str = "/v1/version";
/// What the interface consists of, as an OpenAPI document.
pub const OPENAPI: &str = "/v1/openapi.json";
/// The state of everything.
pub const STATUS: &str = "/v1/status";
/// Who may give orders.
pub const OPERATORS: &str = "/v1/operators";
/// Read the configuration again.
pub const RELOAD: &str = "/v1/reload";
/// Check the configuration files as they lie on disk, without applying them.
pub const CONFIG_CHECK: &str = "/v1/config/check";
/// The keys of `mailroot.yaml` with their values.
pub const CONFIG: &str = "/v1/config";
/// The texts of all files.
pub const CONFIG_FILES: &str = "/v1/config/files";
/// What was in force, newest first.
pub const CONFIG_HISTORY: &str = "/v1/config/history";
/// The texts of all files at a revision (router's pattern).
pub const CONFIG_REVISION: &str = "/v1/config/history/{revision}";
/// What differs between two revisions.
pub const CONFIG_DIFF: &str = "/v1/config/diff";
/// Go back to a revision (router's pattern).
pub const CONFIG_ROLLBACK: &str = "/v1/config/rollback/{revision}";
/// Give all files their usual form.
pub const CONFIG_FORMAT: &str = "/v1/config/format";
/// Keep the change that is on trial.
pub const CONFIG_CONFIRM: &str = "/v1/config/confirm";
/// The lock of the configuration.
pub const CONFIG_LOCK: &str = "/v1/config/lock";
/// The virtual servers.
pub const SERVERS: &str = "/v1/servers";
/// One virtual server (router's pattern).
pub const SERVER: &str = "/v1/servers/{server}";
/// Start, stop, pause, resume (router's pattern).
pub const SERVER_VERB: &str = "/v1/servers/{server}/{verb}";
/// Make a copy of a virtual server (router's pattern).
pub const SERVER_CLONE: &str = "/v1/servers/{server}/clone";
/// Give a virtual server another name (router's pattern).
pub const SERVER_RENAME: &str = "/v1/servers/{server}/rename";
/// Look at the storage of a virtual server, and measure it (router's pattern).
pub const DOCTOR_STORAGE: &str = "/v1/servers/{server}/doctor/storage";
/// Look at listeners, names and smart hosts of a virtual server (router's pattern).
pub const DOCTOR_NETWORK: &str = "/v1/servers/{server}/doctor/network";
/// Ask another host for mail that it holds for us (router's pattern).
pub const ETRN: &str = "/v1/servers/{server}/etrn";
/// A look at the directory of a virtual server.
pub const LDAP_TEST: &str = "/v1/servers/{server}/ldap/test";
/// The password that a virtual server binds to its directory with (router's pattern).
pub const LDAP_PASSWORD: &str = "/v1/servers/{server}/ldap/password";
/// What a virtual server would decide (router's pattern).
pub const DECIDE: &str = "/v1/servers/{server}/decide";
/// Who may connect (`connect`) or relay (`relay`) (router's pattern).
pub const ACCESS: &str = "/v1/servers/{server}/access/{list}";
/// The domains of a virtual server (router's pattern).
pub const DOMAINS: &str = "/v1/servers/{server}/domains";
/// One domain (router's pattern).
pub const DOMAIN: &str = "/v1/servers/{server}/domains/{domain}";
/// Make an alias the default domain (router's pattern).
pub const DOMAIN_DEFAULT: &str = "/v1/servers/{server}/domains/{domain}/default";
/// The keys that a virtual server signs mail with (router's pattern).
pub const DKIM: &str = "/v1/servers/{server}/dkim";
/// What DNS says of the keys of a domain (router's pattern).
pub const DKIM_RECORDS: &str = "/v1/servers/{server}/dkim/{domain}/records";
/// One key (router's pattern).
pub const DKIM_KEY: &str = "/v1/servers/{server}/dkim/{domain}/{selector}";
/// Smart hosts that have names.
pub const SMARTHOSTS: &str = "/v1/smarthosts";
/// One of them (router's pattern).
pub const SMARTHOST: &str = "/v1/smarthosts/{name}";
/// Call one, without mail (router's pattern).
pub const SMARTHOST_TEST: &str = "/v1/smarthosts/{name}/test";
/// A code with which a person signs in (router's pattern).
pub const SMARTHOST_DEVICE: &str = "/v1/smarthosts/{name}/device";
/// Whether the person has signed in (router's pattern).
pub const SMARTHOST_DEVICE_POLL: &str = "/v1/smarthosts/{name}/device/poll";
/// Hosts that have proved who they are.
pub const TLS_HOSTS: &str = "/v1/tls-hosts";
/// One of them (router's pattern).
pub const TLS_HOST: &str = "/v1/tls-hosts/{host}";
/// What other domains are to be told of TLS.
pub const TLS_REPORTS: &str = "/v1/tls-reports";
/// The reports about one domain (router's pattern).
pub const TLS_REPORT: &str = "/v1/tls-reports/{domain}";
/// Send reports now.
pub const TLS_REPORTS_SEND: &str = "/v1/tls-reports/do/send";
/// Certificates that clients are shown.
pub const CERTIFICATES: &str = "/v1/certificates";
/// One of them (router's pattern).
pub const CERTIFICATE: &str = "/v1/certificates/{name}";
/// Asks for a certificate anew.
pub const CERTIFICATE_RENEW: &str = "/v1/certificates/{name}/renew";
/// Users who may log in.
pub const USERS: &str = "/v1/users";
/// One of them (router's pattern).
pub const USER: &str = "/v1/users/{name}";
/// Whether a password is a user's (router's pattern).
pub const USER_VERIFY: &str = "/v1/users/{name}/verify";
/// Sessions of all servers.
pub const SESSIONS: &str = "/v1/sessions";
/// What is said in sessions, as it is said.
pub const SESSIONS_DIALOGUE: &str = "/v1/sessions/dialogue";
/// End sessions.
pub const SESSIONS_KILL: &str = "/v1/sessions/kill";
/// The queues of all servers, one JSON object per line.
pub const QUEUE: &str = "/v1/queue";
/// One message (router's pattern).
pub const QUEUE_MESSAGE: &str = "/v1/queue/{id}";
/// The octets of one message (router's pattern).
pub const QUEUE_CONTENT: &str = "/v1/queue/{id}/content";
/// Flush, retry, hold, release, remove, bounce (router's pattern).
pub const QUEUE_VERB: &str = "/v1/queue/do/{verb}";
/// Send messages another way.
pub const QUEUE_REDIRECT: &str = "/v1/queue/do/redirect";
/// Put a file of the form of Pickup into the queue; its name and the virtual server stand in the query.
pub const QUEUE_ADOPT: &str = "/v1/queue/do/adopt";
/// Paused destinations, and rules that hold mail yet to come.
pub const QUEUE_ORDERS: &str = "/v1/queue/orders";
/// Pause a destination.
pub const QUEUE_PAUSE: &str = "/v1/queue/do/pause";
/// End the pause of a destination.
pub const QUEUE_RESUME: &str = "/v1/queue/do/resume";
/// Hold mail yet to come.
pub const QUEUE_HOLD_FUTURE: &str = "/v1/queue/do/hold-future";
/// End a rule that holds mail yet to come.
pub const QUEUE_RELEASE_FUTURE: &str = "/v1/queue/do/release-future";
/// Badmail of all servers.
pub const BADMAIL: &str = "/v1/badmail";
/// One message in Badmail (router's pattern).
pub const BADMAIL_MESSAGE: &str = "/v1/badmail/{id}";
/// The octets of one message in Badmail (router's pattern).
pub const BADMAIL_CONTENT: &str = "/v1/badmail/{id}/content";
/// Put messages back into the queue.
pub const BADMAIL_REQUEUE: &str = "/v1/badmail/do/requeue";
/// Delete messages from Badmail.
pub const BADMAIL_PURGE: &str = "/v1/badmail/do/purge";
/// What became of messages, one JSON object per line.
pub const TRACE: &str = "/v1/trace";
/// The same with what was said over SMTP, one JSON object per line.
pub const TRACE_DIALOGUES: &str = "/v1/trace/dialogues";
/// Who was turned away, one JSON object per line.
pub const TRACE_REFUSED: &str = "/v1/trace/refused";
/// What the trace holds.
pub const TRACE_RECORD: &str = "/v1/trace/record";
/// What was sent, counted from the trace.
pub const STATS: &str = "/v1/stats";
/// The ways that mail takes out, one JSON object per line.
pub const DESTINATIONS: &str = "/v1/destinations";
/// What is counted and measured, for Prometheus.
pub const METRICS: &str = "/v1/metrics";
/// Where the log goes, and how much is told.
pub const LOG: &str = "/v1/log";
/// Tell more for a while.
pub const LOG_LEVEL: &str = "/v1/log/level";
/// Open the file of the log anew.
pub const LOG_REOPEN: &str = "/v1/log/do/reopen";
/// Drop of all servers, one JSON object per line.
pub const DROP: &str = "/v1/drop";
/// One message in Drop (router's pattern).
pub const DROP_MESSAGE: &str = "/v1/drop/{id}";
/// The octets of one message in Drop (router's pattern).
pub const DROP_CONTENT: &str = "/v1/drop/{id}/content";
/// Delete messages from Drop.
pub const DROP_PURGE: &str = "/v1/drop/do/purge";
/// Files that wait in Pickup.
pub const PICKUP: &str = "/v1/pickup";
/// Read a file as Pickup would; its name and the virtual server stand in the query.
pub const PICKUP_CHECK: &str = "/v1/pickup/check";

/// Fills the names of a pattern in, in order, each percent-encoded.
///
/// Names beyond the pattern's places are ignored; a place without a name stays as it is and is
/// answered with 404.
#[must_use]
pub fn fill(pattern: &str, names: &[&str]) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut names = names.iter();
    for part in pattern.split('/').skip(1) {
        out.push('/');
        match names.as_slice().first() {
            Some(name) if part.starts_with('{') => {
                encode(name, &mut out);
                names.next();
            }
            _ => out.push_str(part),
        }
    }
    out
}

/// Writes `text` so that it can stand in a path segment or in a query (RFC 3986 section 2.1).
pub fn encode(text: &str, out: &mut String) {
    for octet in text.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(octet));
            }
            _ => {
                let done = write!(out, "%{octet:02X}");
                debug_assert!(done.is_ok(), "writing into a String cannot fail");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(
            fill(DOMAIN, &["default", "*.a.example"]),
            "/v1/servers/default/domains/%2A.a.example"
        );
        assert_eq!(fill(SERVER, &["../x?y#z"]), "/v1/servers/..%2Fx%3Fy%23z");
        assert_eq!(fill(SERVER_VERB, &["a b", "pause"]), "/v1/servers/a%20b/pause");
    }
}
