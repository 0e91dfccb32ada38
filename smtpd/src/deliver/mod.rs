//! Delivering: mail that is due leaves, each route in its own lane.
//!
//! In: leases of due mail from the queue. Out: outcomes back to the queue, with the reports they
//! cause, and one log line for each change of state.
//!
//! ```text
//! dispatch   which routes have due mail          lane      how many workers, when to back off
//! site       what stands behind domains          health    how a destination fares
//! worker     one batch after the other           attempt   hosts one after the other
//! opening    from an address to a session           target     from a next hop to addresses        session   octets to and from one host
//! aim        an address, and how it is called
//! login      our name, or our token, there       reuse     idle connections
//! prepare    another From, signatures               sign      keys, and what they sign
//! front      what leaves before the message         limits    what lanes share
//! permits    leave to have a connection          fetch     hosts that have come for their mail
//! local      into the Drop directory              directory  who gets mail for our domains
//! finish     outcomes to the queue, reports      age       mail that waits behind trouble
//! remember   outcomes to the trace
//! returning  mail an operator gives up           trial     a call without mail
//! trust      what a host must prove               deadline  mail whose sender named a time
//! strict     what senders want of TLS               seal      our part of a chain (ARC)
//! tls_report what others are told of that
//! ```
//!
//! A worker carries mail of one lane in small batches over one connection, without a task or a lock
//! per message: that is where the speed comes from. A destination that cannot be reached is tried by
//! one message at a time, at growing intervals, however much mail waits for it.

mod age;
mod aim;
mod attempt;
mod deadline;
mod directory;
mod dispatch;
mod fetch;
mod finish;
mod front;
mod health;
mod job;
mod lane;
mod limits;
mod local;
mod login;
mod opening;
mod permits;
mod prepare;
mod remember;
mod returning;
mod reuse;
mod room;
mod seal;
mod session;
mod sign;
mod site;
mod strict;
mod target;
#[cfg(test)]
mod tests;
mod tls_report;
mod trial;
mod trust;
mod worker;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::{Domain, Mailbox};
use mailroot_common::config::SmartHostName;
use mailroot_common::config::smart_hosts::{AuthMethod, SmartHostKeys, SmartHosts};
use mailroot_common::control::OutboundLimit;
use smtpd_core::queue::dispose::InDoubtPolicy;
use smtpd_core::queue::envelope::Recipient;
use smtpd_core::queue::retry::{Schedule, Schedules};
use smtpd_core::route::loopback::AddressRule;
use smtpd_core::route::sender::SenderRules;
use smtpd_core::route::table::{RouteName, Table, TlsPolicy};
use smtpd_core::smtp::client::{self, LoginRule, Timeouts};

pub use lane::{LaneState, LaneView};
pub use limits::SharedLimits;
pub use session::SessionView;
pub use sign::Signing;
pub use trial::{Answered, Reversed};

use self::aim::Target;
use self::opening::Mode;
use self::room::Room;
use crate::badmail::Badmail;
use crate::clock::Clock;
use crate::config::Secrets;
use crate::drop::DropDirectory;
use crate::ldap::Directory;
use crate::mta_sts::MtaSts;
use crate::net::Net;
use crate::oauth::Tokens;
use crate::observe::{Counters, Dialogues, Log, SessionIds};
use crate::queue::{Lease, Queue};
use crate::resolve::{Family, Resolver};
use crate::tls::{ClientTls, Recall};
use crate::tls_report::Ledger;
use crate::trace::Trace;

/// What the operator decided about delivery.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which domains are ours, and the next hops.
    pub table: Arc<Table>,
    /// When to try again, to tell of delay, to give up.
    pub schedules: Schedules,
    /// What is done with recipients in doubt, unless their domain's entry in the table says.
    pub in_doubt: InDoubtPolicy,
    /// Our name: in EHLO, in reports, and what makes an MX record name us.
    pub host: Domain,
    /// Further names of ours that MX records may carry.
    pub other_names: Vec<Domain>,
    /// Under which addresses senders are known to other hosts.
    pub senders: SenderRules,
    /// Received fields after which a message is taken to be in a loop.
    pub max_hops: u32,
    /// Asks DNS.
    pub resolver: Resolver,
    /// Which addresses of hosts are used.
    pub family: Family,
    /// Which addresses of hosts are not.
    pub addresses: AddressRule,
    /// Our addresses for outbound connections; the first of the right kind is used.
    pub sources: Vec<IpAddr>,
    /// The port of hosts that were named without one.
    pub port: u16,
    /// What connections come under TLS with.
    pub tls: ClientTls,
    /// How mail is protected where neither its domain nor its smart host says.
    pub tls_policy: TlsPolicy,
    /// The smart hosts that have names.
    pub smart_hosts: Arc<SmartHosts>,
    /// Passwords.
    pub secrets: Secrets,
    /// Tokens.
    pub tokens: Tokens,
    /// Hosts that have proved who they are, if that is remembered.
    pub recall: Option<Recall>,
    /// What sessions are counted in, for reports about TLS, if there are any.
    pub tls_reports: Option<Ledger>,
    /// Whether TLSA records of other hosts are heeded.
    pub dane: bool,
    /// Policies of other domains, if they are kept to.
    pub mta_sts: Option<MtaSts>,
    /// What mail is signed with.
    pub signing: Arc<Signing>,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait in a session.
    pub timeouts: Timeouts,
    /// Connections at the same time.
    pub connections_max: usize,
    /// Connections at the same time for one route.
    pub connections_per_route: usize,
    /// Messages over one connection.
    pub messages_per_connection: u32,
    /// How long an idle connection is kept; not at all if absent.
    pub reuse: Option<Duration>,
    /// Who knows the recipients of our own domains, if somebody does.
    pub directory: Option<Directory>,
    /// Where mail for our own domains ends.
    pub drop: DropDirectory,
    /// Where mail ends that can be neither delivered nor returned.
    pub badmail: Badmail,
    /// Gets a copy of every report of failure.
    pub ndr_copy_to: Option<Mailbox>,
    /// Whether reports return the whole message when the sender did not say.
    pub ndr_full_message: bool,
}

impl Settings {
    /// What is done with this recipient if it is in doubt.
    fn in_doubt(&self, recipient: &Mailbox) -> InDoubtPolicy {
        let entry = recipient.domain().and_then(|domain| self.table.remote(domain));
        entry.and_then(|entry| entry.in_doubt).unwrap_or(self.in_doubt)
    }

    /// When mail on a route is tried again and given up.
    fn schedule(&self, route: &RouteName) -> Cow<'_, Schedule> {
        self.schedules.on(route, self.table.held(route))
    }

    /// Whether the mail of a lease lies on this route.
    fn is_on(&self, lease: &Lease, route: &RouteName) -> bool {
        let to = lease.places().next().and_then(|place| lease.envelope.recipients.get(place));
        let name = |to: &Recipient| to.route_name(&self.table, &lease.envelope.sender);
        lease.via.is_some() || to.is_none_or(|to| name(to) == *route)
    }

    fn is_our_name(&self, name: &Domain) -> bool {
        *name == self.host || self.other_names.contains(name)
    }

    /// The smart host that a target belongs to.
    fn smart_host(&self, target: &Target) -> Option<&SmartHostKeys> {
        self.smart_hosts.get(target.smart_host.as_ref()?)
    }

    fn client(&self, target: &Target, mode: Mode) -> Arc<client::Settings> {
        let auth = self.smart_host(target).map(|keys| &keys.auth);
        let auth = auth.filter(|auth| auth.method != AuthMethod::None);
        Arc::new(client::Settings {
            name: self.host.to_string(),
            helo_only: mode.helo_only,
            tls: mode.tls.of_session(),
            login: auth.map(|auth| LoginRule {
                // A token opens more than this host, so it leaves the machine under TLS only (RFC 6750).
                in_clear_text: !auth.require_tls
                    && (!auth.method.wants_token() || target.at.ip().is_loopback()),
            }),
            recipients_max: target.limited.as_ref().and_then(|it| it.limits.recipients),
            timeouts: self.timeouts,
        })
    }
}

/// What delivery works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The virtual server's name, for the log.
    pub server: Arc<str>,
    /// Where mail waits.
    pub queue: Queue,
    /// The network.
    pub net: Net,
    /// Time and chance.
    pub clock: Clock,
    /// The log.
    pub log: Log,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Gives sessions of all virtual servers their names.
    pub session_ids: Arc<SessionIds>,
    /// Who listens to sessions.
    pub dialogues: Dialogues,
    /// What is remembered of mail.
    pub trace: Trace,
    /// Limits that virtual servers share.
    pub limits: SharedLimits,
}

/// Delivery of one virtual server, running. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Deliver(Arc<Room>);

impl Deliver {
    /// Starts delivering, on the Tokio runtime of the caller.
    #[must_use]
    pub fn start(parts: Parts, settings: Settings) -> Self {
        let room = Arc::new(Room::new(parts, settings));
        tokio::spawn(dispatch::run(Arc::clone(&room)));
        Self(room)
    }

    /// From now on new attempts go by these settings; those under way end by the old ones. The
    /// queue is told of a new table by whoever made it.
    pub fn reconfigure(&self, settings: Settings) {
        self.0.settings.store(Arc::new(settings));
        // Idle connections were made by the old ones; hanging up is all the goodbye they get.
        self.0.reuse.clear();
        self.0.sites.look_again();
        self.0.look_again();
    }

    /// Stops: no new attempts, those under way may go on for `patience`, then they are given up.
    /// Whatever was not decided is due again at the next start.
    pub async fn stop(&self, patience: Duration) {
        self.0.stop(patience).await;
    }

    /// Ends the back-off of a route, or of all, so that due mail is tried at once.
    pub fn flush(&self, route: Option<&RouteName>) {
        self.0.flush(route);
    }

    /// Has all lanes looked at: an operator's orders have changed.
    pub fn look_again(&self) {
        self.0.look_again();
    }

    /// The lanes with mail under way or backing off.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneView> {
        self.0.lanes()
    }

    /// What may leave for a smart host that nothing was learned of.
    #[must_use]
    pub fn allowed_by(&self, name: &SmartHostName) -> OutboundLimit {
        self.0.allowed_by(name)
    }

    /// How many connections count against the limit that a session is under, and what that is now;
    /// nothing where each destination has its own, or the host stands alone.
    #[must_use]
    pub fn limit_of(&self, view: &SessionView) -> Option<(u64, OutboundLimit)> {
        self.0.limit_of(view)
    }

    /// The outbound connections, idle ones included.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<SessionView>> {
        self.0.sessions()
    }
}
