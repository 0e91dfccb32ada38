//! What a virtual server says of itself to the control interface.

use std::sync::atomic::Ordering;

use mailroot_common::address::Domain;
use mailroot_common::config::domains::Release;
use mailroot_common::config::lane_limits::LaneLimits;
use mailroot_common::config::{DomainEntry, DomainKind, DomainRoute, Profile, ServerConfig};
use mailroot_common::control::{self, Direction, QueueCounts, ServerDetail, Session, Setting};
use mailroot_common::units::Timestamp;
use smtpd_core::queue::retry::Schedule;
use smtpd_core::route::loopback::AddressRule;
use smtpd_core::route::table::RouteName;

use super::{VirtualServer, rules, settings};

impl VirtualServer {
    /// The name it goes by.
    #[must_use]
    pub fn host(&self) -> Domain {
        settings::host(&self.config(), &self.shared.load()).clone()
    }

    /// Which addresses that strangers name are not called.
    #[must_use]
    pub fn address_rule(&self) -> AddressRule {
        settings::addresses(&self.config(), Vec::new())
    }

    /// What a list of servers shows.
    pub async fn describe(&self) -> control::Server {
        let (config, shared, standing) = (self.config(), self.shared.load_full(), self.standing());
        let queue = self.queue();
        let counts = queue.as_ref().map(crate::queue::Queue::counts).unwrap_or_default();
        let now = shared.clock.now();
        let orders = queue.as_ref().map(|queue| queue.orders().list(now)).unwrap_or_default();
        let badmail = match self.badmail() {
            Some(badmail) => badmail.totals().await.map_or(0, |totals| totals.messages),
            None => 0,
        };
        let windows = self.windows.load();
        let bound = windows.as_ref().map(|open| open.receiver.addresses());
        let asked = || config.general.listen.iter().map(|door| door.address).collect();
        let listen: Vec<std::net::SocketAddr> = bound.unwrap_or_else(asked);
        control::Server {
            name: self.name.to_string(),
            state: standing.state,
            trouble: standing.trouble,
            reason: standing.reason,
            listen: listen.iter().map(ToString::to_string).collect(),
            domain: rules::default_domain(&config).map(ToString::to_string).unwrap_or_default(),
            smart_host: smart_host(&config),
            auth: config.access.ways().map(str::to_owned).collect(),
            profile: match config.profile {
                Profile::Modern => "modern".to_owned(),
                Profile::Iis6 => "iis6".to_owned(),
            },
            sessions_in: windows.as_ref().map_or(0, |open| open.receiver.sessions().len() as u64),
            sessions_out: windows.as_ref().map_or(0, |open| open.deliver.sessions().len() as u64),
            queue: QueueCounts {
                messages: counts.messages,
                retry: counts.tried,
                held: counts.held,
                bytes: counts.octets,
                oldest_at: counts.oldest.map(|id| Timestamp::from_millis(id.as_millis())),
            },
            pauses: orders.pauses,
            future_holds: orders.holds.len() as u64,
            badmail,
            mail_root: shared.mail_root.display().to_string(),
            free_bytes: queue.and_then(|queue| queue.free()).map(|free| free.as_u64()),
        }
    }

    /// When its mail is tried again and given up.
    #[must_use]
    pub fn schedule(&self, route: &RouteName) -> Schedule {
        let config = self.config();
        let schedules = rules::schedules(&config);
        // The table is asked about held mail only, so it is not made for other routes.
        let domain = rules::default_domain(&config).filter(|_| route.held_domain().is_some());
        let table = domain.and_then(|domain| rules::table(&config, domain, None).ok());
        let held = table.as_ref().and_then(|table| table.held(route));
        schedules.on(route, held).into_owned()
    }

    /// What `server show` shows.
    pub async fn detail(&self, file: String) -> ServerDetail {
        let server = self.describe().await;
        let (config, shared) = (self.config(), self.shared.load_full());
        let mut settings: Vec<Setting> =
            config.effective().into_iter().map(Setting::from).collect();
        for setting in &mut settings {
            match setting.key.as_str() {
                "general.listen" if has_free_port(&config) => {
                    setting.comes_to(listed(&server.listen))
                }
                "store.root" => setting.comes_to(&*server.mail_root),
                "delivery.fqdn" if config.delivery.fqdn.is_none() => {
                    setting.comes_to(shared.hostname.as_str());
                }
                _ => {}
            }
        }
        ServerDetail {
            server,
            file,
            settings,
            counters: self.counters.list().map(|(name, count)| (name.to_owned(), count)).collect(),
        }
    }

    /// Its sessions, in both directions.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        let windows = self.windows.load();
        let Some(open) = windows.as_ref() else { return Vec::new() };
        let server = || self.name.to_string();
        let inbound = open.receiver.sessions().into_iter().map(|entry| Session {
            id: entry.id,
            server: server(),
            direction: Direction::In,
            peer: entry.client.to_string(),
            name: entry.helo,
            user: entry.user,
            tls: entry.tls.map(str::to_owned),
            certificate: entry.certificate,
            state: entry.standing.as_str().to_owned(),
            messages: entry.messages,
            bytes: entry.octets,
            limit: None,
            limit_used: None,
            since: entry.since,
        });
        let views = open.deliver.sessions().into_iter();
        let with_limits = views.map(|view| (open.deliver.limit_of(&view).unzip(), view));
        let outbound = with_limits.map(|((limit_used, limit), view)| Session {
            id: view.id,
            server: server(),
            direction: Direction::Out,
            peer: match view.host.address {
                Some(address) => std::net::SocketAddr::new(address, view.host.port).to_string(),
                None => view.host.to_string(),
            },
            name: Some(view.host.name.clone()),
            user: view.user.get().cloned(),
            tls: view.tls.get().map(ToString::to_string),
            certificate: None,
            state: "connected".to_owned(),
            messages: view.messages.load(Ordering::Relaxed).into(),
            bytes: 0,
            limit,
            limit_used,
            since: view.since,
        });
        inbound.chain(outbound).collect()
    }

    /// Its domains, in the order of the file.
    #[must_use]
    pub fn domains(&self) -> Vec<control::Domain> {
        let config = self.config();
        let routes = self.queue().map(|queue| queue.routes()).unwrap_or_default();
        let queued = |domain: &DomainEntry| {
            let ends = format!(":{}", domain.name);
            let here = |route: &str| match domain.kind {
                DomainKind::Default(_) => route == "drop",
                DomainKind::Alias => false,
                DomainKind::Remote { .. } => {
                    route.split(';').next().is_some_and(|way| way.ends_with(&ends))
                }
            };
            routes
                .iter()
                .filter(|count| here(count.route.as_str()))
                .map(|count| count.messages)
                .sum()
        };
        config
            .domains
            .iter()
            .map(|domain| describe_domain(domain, self.name.as_str(), queued(domain)))
            .collect()
    }
}

/// Whether the system chooses a port, so that only the address bound tells it.
fn has_free_port(config: &ServerConfig) -> bool {
    config.general.listen.iter().any(|door| door.address.port() == 0)
}

/// Addresses as the value of their key shows them.
fn listed(addresses: &[String]) -> String {
    if addresses.is_empty() { "none".to_owned() } else { addresses.join(", ") }
}

fn smart_host(config: &ServerConfig) -> Option<String> {
    let hosts: Vec<String> = config.delivery.smart_host.iter().map(ToString::to_string).collect();
    (!hosts.is_empty()).then(|| hosts.join(", "))
}

/// `3 connections, 30/min`, if anything is limited.
fn limits_of(limits: &LaneLimits) -> Option<String> {
    let words = [
        limits.connections.map(|most| format!("{most} connections")),
        limits.rate.map(|rate| rate.to_string()),
        limits.recipients.map(|most| format!("{most} recipients")),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn describe_domain(entry: &DomainEntry, server: &str, queued: u64) -> control::Domain {
    let local = |kind| control::Domain {
        name: entry.name.to_string(),
        kind,
        server: server.to_owned(),
        relay: None,
        route: "Drop".to_owned(),
        helo_only: false,
        in_doubt: None,
        tls: None,
        held: false,
        released_by: None,
        limits: None,
        queued,
    };
    match &entry.kind {
        DomainKind::Default(_) => local(control::DomainKind::Default),
        DomainKind::Alias => local(control::DomainKind::Alias),
        DomainKind::Remote { relay, helo_only, route, in_doubt, tls, hold, limits } => {
            let route = match route {
                DomainRoute::Mx => "mx".to_owned(),
                DomainRoute::Hosts(hosts) => {
                    hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                }
            };
            control::Domain {
                relay: Some(*relay),
                route,
                helo_only: *helo_only,
                in_doubt: in_doubt.map(|it| it.word().to_owned()),
                tls: tls.map(|it| it.word().to_owned()),
                held: hold.release != Release::Off,
                released_by: hold.release.commands().map(str::to_owned),
                limits: limits_of(limits),
                ..local(control::DomainKind::Remote)
            }
        }
    }
}
