//! A look at what the server depends on beyond its disk: its listeners, its name, its smart hosts, and
//! who may use it.
//!
//! Connections are opened and closed again after the greeting; no mail is sent. Every wait is
//! bounded, and so is the number of hosts that are tried.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mailroot_common::address::{Domain, Host};
use mailroot_common::config::access::{Policy, Who};
use mailroot_common::config::general::{Listen, ListenTls};
use mailroot_common::config::{Hop, ServerConfig, SmartHostName};
use mailroot_common::control::{Check, Level, ServerState};
use smtpd_core::queue::outcome::{Outcome, RemoteHost, Stage, Verified};
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::smtp::etrn::Etrn;
use smtpd_core::smtp::reply::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rooms::Inlets;
use super::{Shared, VirtualServer, rules, settings};
use crate::deliver::{Deliver, Reversed};
use crate::resolve::{Allowance, Family};
use crate::tls::Proof;

/// How long a host has to take the connection, and again to greet.
const WAIT: Duration = Duration::from_secs(3);
/// The longest greeting that is read.
const GREETING_OCTETS_MAX: usize = 512;
/// The most smart hosts that are tried.
const HOSTS_MAX: usize = 4;

impl VirtualServer {
    /// What was found, each with what to do.
    pub async fn probe(&self) -> Vec<Check> {
        let (config, shared) = (self.config(), self.shared.load_full());
        // At once, so that one that nobody answers holds up no other.
        let (mut checks, fqdn, dane, smart_hosts, directory, dkim, published) = tokio::join!(
            self.listeners(&shared),
            fqdn(&config, &shared),
            dane(&shared),
            self.smart_hosts(&config),
            self.check_directory(),
            self.check_dkim(),
            self.check_published()
        );
        checks.push(fqdn);
        checks.extend(dane.into_iter().chain(smart_hosts).chain(directory));
        checks.extend(dkim.into_iter().chain(published));
        checks.extend(self.check_certificates());
        checks.push(relay(&config));
        for check in &mut checks {
            check.server = Some(self.name().to_string());
        }
        checks
    }

    /// Whether the smart hosts can be found, and let us in.
    async fn smart_hosts(&self, config: &ServerConfig) -> Vec<Check> {
        let deliver = self.windows.load().as_ref().map(|open| open.deliver.clone());
        let Some(deliver) = deliver else { return Vec::new() };
        let mut checks = Vec::new();
        for host in rules::smart_hosts(&config.delivery.smart_host).into_iter().take(HOSTS_MAX) {
            checks.push(smart_host(&deliver, host).await);
        }
        checks
    }

    /// Calls a smart host that has a name, as mail would; nothing if this server does not run.
    pub async fn call_smart_host(&self, name: &SmartHostName) -> Option<Check> {
        let deliver = self.windows.load().as_ref().map(|open| open.deliver.clone())?;
        let check = smart_host(&deliver, SmartHost::Named(name.clone())).await;
        Some(Check { server: Some(self.name().to_string()), ..check })
    }

    /// Asks a host for mail of ours; nothing if this server is not running.
    pub async fn ask_for_mail(
        &self,
        hop: &Hop,
        wishes: &[Etrn],
    ) -> Option<Result<(RemoteHost, Vec<Reply>), Outcome>> {
        let deliver = self.windows.load().as_ref().map(|open| open.deliver.clone())?;
        let host = rules::smart_hosts(std::slice::from_ref(hop)).pop()?;
        Some(deliver.ask_for_mail(host, wishes).await)
    }

    /// Has a host send us mail over a connection of ours, and takes it as from any client; nothing if this
    /// server is not running.
    pub async fn fetch_mail(
        &self,
        hop: &Hop,
        domains: &[Domain],
    ) -> Option<Result<(RemoteHost, Reply), Outcome>> {
        let rooms = |open: &Inlets| (open.deliver.clone(), open.receiver.clone());
        let (deliver, receiver) = self.inlets.lock().await.as_ref().map(rooms)?;
        let host = rules::smart_hosts(std::slice::from_ref(hop)).pop()?;
        Some(match deliver.fetch_mail(host, domains).await {
            Ok((called, reply, None)) => Ok((called, reply)),
            Ok((called, reply, Some(Reversed { stream, peer }))) => {
                match receiver.adopt(stream, peer) {
                    Ok(()) => Ok((called, reply)),
                    Err(refusal) => {
                        let now = self.shared.load().clock.now();
                        let words = format!("it agreed, and we cannot: {}", refusal.words());
                        Err(Outcome::local(now, Stage::Connect, refusal.enhanced(), words))
                    }
                }
            }
            Err(outcome) => Err(outcome),
        })
    }

    async fn listeners(&self, shared: &Shared) -> Vec<Check> {
        let check = |level, text: String| Check::new(level, "ports", "listener", text);
        match (self.state(), self.trouble()) {
            (_, Some(trouble)) => {
                let hint = format!("see to it, then: smtpctl server start {}", self.name());
                return vec![check(Level::Fail, trouble).hint(hint)];
            }
            (ServerState::Stopped | ServerState::Paused, None) => {
                let (state, reason) = (self.state().as_str(), self.standing().reason);
                let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                let verb = if self.state() == ServerState::Paused { "resume" } else { "start" };
                let text = format!("the server is {state}{why}; no mail is taken");
                let hint = format!("smtpctl server {verb} {}", self.name());
                return vec![check(Level::Warn, text).hint(hint)];
            }
            _ => {}
        }
        let bound = self.windows.load().as_ref().map(|open| open.receiver.doors());
        let mut checks = Vec::new();
        for door in bound.unwrap_or_default() {
            let address = door.address;
            let door = Listen { address: reachable(address), ..door };
            checks.push(match greeting(door, shared).await {
                Ok(line) if line.starts_with("220") => {
                    check(Level::Ok, format!("{address} answers: {line}"))
                }
                Ok(line) => check(Level::Warn, format!("{address} answers: {line}")).hint(
                    "this host is refused or too many are connected; see smtpctl session list",
                ),
                Err(error) => check(Level::Fail, format!("{address} does not answer: {error}"))
                    .hint("a firewall of this host may be in the way, or the daemon is overloaded"),
            });
        }
        if checks.is_empty() {
            checks.push(check(Level::Warn, "the server listens nowhere".to_owned()));
        }
        checks
    }
}

/// An address of all stands for one of its addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Connects, reads the first line, and takes its leave.
async fn greeting(door: Listen, shared: &Shared) -> io::Result<String> {
    let late = |what: &str| {
        io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {} s", WAIT.as_secs()))
    };
    let mut stream = tokio::time::timeout(WAIT, shared.net.connect(door.address, None))
        .await
        .map_err(|_| late("no connection"))??;
    if door.tls == ListenTls::Implicit {
        let host = Host::Address(door.address.ip());
        let secured = shared.tls.secure(stream, &host, Proof::None, None);
        let secured =
            tokio::time::timeout(WAIT, secured).await.map_err(|_| late("no handshake"))?;
        stream = secured.map_err(io::Error::other)?.stream;
    }
    let mut octets = Vec::new();
    let read = async {
        let mut piece = [0; GREETING_OCTETS_MAX];
        while !octets.contains(&b'\n') && octets.len() < GREETING_OCTETS_MAX {
            match stream.read(&mut piece).await? {
                0 => break,
                count => octets.extend_from_slice(&piece[..count]),
            }
        }
        // Whoever does not wait for the answer loses nothing.
        stream.write_all(b"QUIT\r\n").await
    };
    tokio::time::timeout(WAIT, read).await.map_err(|_| late("no greeting"))??;
    let line = String::from_utf8_lossy(&octets);
    match line.lines().next() {
        Some(line) => Ok(line.chars().filter(|c| !c.is_control()).take(200).collect()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up without a word")),
    }
}

/// Whether DNS can tell which certificates are good. Mail goes without that as well, so that nothing is
/// wrong where it cannot.
async fn dane(shared: &Shared) -> Option<Check> {
    if !shared.dane {
        return None;
    }
    let check = |text: String| Check::new(Level::Ok, "dns", "dane", text);
    let hint = "a validating resolver on this machine, such as unbound, named in dns.resolvers, makes \
                DNS trusted; tls.dane: false ends the wish";
    Some(match shared.resolver.validates().await {
        Ok(true) => check("the resolver validates: DANE is used".to_owned()),
        Ok(false) => {
            let text = "the resolver does not vouch for the root zone: DANE is used only for what it \
                        vouches for";
            check(text.to_owned()).hint(hint)
        }
        Err(why) => check(format!("DANE is not used: {why}")).hint(hint),
    })
}

/// Whether the name in our greeting can be looked up.
async fn fqdn(config: &ServerConfig, shared: &Shared) -> Check {
    let name = settings::host(config, shared);
    let check = |level, text: String| Check::new(level, "dns", "fqdn", text);
    match shared.resolver.addresses(name, Family::Any, &Allowance::default()).await {
        Ok(found) if !found.is_empty() => {
            let addresses: Vec<String> = found.iter().map(ToString::to_string).collect();
            check(Level::Ok, format!("{name} has the addresses {}", addresses.join(", ")))
        }
        Ok(_) => check(Level::Warn, format!("{name} has no address in DNS")).hint(FQDN_HINT),
        Err(error) => check(Level::Warn, error.to_string()).hint(FQDN_HINT),
    }
}

const FQDN_HINT: &str = "others look up the name in our greeting, and some refuse mail from one that \
                         DNS does not know; set delivery.fqdn or service.hostname";

/// Whether a smart host can be found and lets us in.
async fn smart_host(deliver: &Deliver, host: SmartHost) -> Check {
    let name = host.to_string();
    let check = |level, text: String| Check::new(level, "smarthost", "reach", text);
    match deliver.try_host(host).await {
        Ok(answered) => {
            let tls = match &answered.host.tls {
                Some(tls) if tls.verified != Verified::No => {
                    format!(", {}, certificate verified", tls.version)
                }
                Some(tls) => format!(", {}, certificate not checked", tls.version),
                None => ", in clear text".to_owned(),
            };
            let login = if answered.logged_in { ", logged in" } else { "" };
            check(Level::Ok, format!("smart host {name} answers: {}{tls}{login}", answered.host))
        }
        Err(outcome) => {
            let hint = match outcome.stage {
                Stage::Dns => {
                    "is the name right? smtpctl server set NAME delivery.smart_host=HOST:PORT"
                }
                Stage::Route => "smtpctl smarthost list shows those that have names",
                Stage::Tls => {
                    "tls: required does not check the certificate, pin: knows it by its key; \
                     tls.trust names who may vouch for it"
                }
                Stage::Login => {
                    "set the password anew: smtpctl smarthost passwd NAME; where tokens are used: \
                     smtpctl smarthost login NAME"
                }
                _ => {
                    "is the port right (587 for most providers; 465 needs tls: implicit), the host \
                     up, and does a firewall let it out?"
                }
            };
            let at = outcome.host.as_ref().map(|host| format!("{host}: ")).unwrap_or_default();
            let level = if outcome.stage == Stage::Dns { Level::Warn } else { Level::Fail };
            check(level, format!("smart host {name} takes no mail: {at}{}", outcome.text))
                .hint(hint)
        }
    }
}

/// Who may send mail onward, and from where they could.
fn relay(config: &ServerConfig) -> Check {
    let relay = &config.access.relay;
    let is_public = config.general.listen.iter().any(|door| !door.address.ip().is_loopback());
    let strangers = |entry: &mailroot_common::config::access::ListEntry| match &entry.who {
        Who::Network(network) => !network.is_loopback(),
        Who::Name(_) | Who::Below(_) => true,
    };
    let check = |level, text: &str| Check::new(level, "relay", "list", text);
    match relay.policy {
        Policy::AllExcept if is_public => {
            check(Level::Fail, "everyone may relay but those on the list")
                .hint("smtpctl relay policy --only, then allow your own networks")
        }
        Policy::Only if is_public && !relay.list.iter().any(strangers) => {
            check(Level::Warn, "other hosts can connect and none of them may relay")
                .hint("smtpctl relay allow NETWORK lets those of a network")
        }
        _ if is_public => check(Level::Ok, "not an open relay"),
        _ => check(Level::Ok, "only this host can connect"),
    }
}
