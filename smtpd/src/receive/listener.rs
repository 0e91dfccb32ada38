//! Listeners: one task for each address, which lets connections in or says why not.
//!
//! Running out of descriptors must neither end a listener nor make it spin: it pauses, and goes on
//! when sessions have ended. Connections that are turned away cost one short write.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailroot_common::config::general::{Listen, ListenTls};
use smtpd_core::policy::limit::Seat;
use smtpd_core::policy::{self, Verdict};
use smtpd_core::smtp::refusal::Refusal;
use smtpd_core::smtp::server::Stage;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use super::proxy;
use super::registry::Live;
use super::visit::{self, Visit};
use super::{Inner, Receiver, Settings, count, lock};
use crate::net::{Listener, Stream, overlap};
use crate::observe::Level;

/// How long to wait when the system has no more descriptors or memory for connections.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(200);
/// Errors in a row after which even those of single connections are not trusted to pass.
const ERRORS_IN_A_ROW: u32 = 16;
/// How long a client that is turned away may take to hear it.
const TURN_AWAY: Duration = Duration::from_secs(1);

/// How a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A client has called; its session begins in clear text.
    Clear,
    /// A client has called, and TLS begins with the first octet.
    Implicit,
    /// We have called, and the host is the client now (RFC 2645 section 5.3).
    Adopted,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(.source, .address))]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

fn hint(error: &io::Error, address: &SocketAddr) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program or virtual server has it",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have the address",
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE"
        }
        _ => "",
    }
}

/// The open listeners of one virtual server.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<Vec<Open>>);

#[derive(Debug)]
struct Open {
    asked: SocketAddr,
    bound: SocketAddr,
    tls: Arc<Mutex<ListenTls>>,
    task: JoinHandle<()>,
}

impl Open {
    /// What was asked for.
    fn door(&self) -> Listen {
        Listen { address: self.asked, tls: *lock(&self.tls) }
    }

    /// Stops listening; when this returns the address is free.
    async fn close(mut self) {
        self.task.abort();
        // It was told to end, so how it ended says nothing.
        let _ = (&mut self.task).await;
    }
}

/// Nobody listens whom nobody can close any more.
impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listeners {
    pub(super) fn bound(&self) -> Vec<SocketAddr> {
        lock(&self.0).iter().map(|open| open.bound).collect()
    }

    pub(super) async fn close(&self) {
        let all = std::mem::take(&mut *lock(&self.0));
        for open in all {
            open.close().await;
        }
    }

    /// Those bound, with how TLS begins there.
    pub(super) fn doors(&self) -> Vec<Listen> {
        let door = |open: &Open| Listen { address: open.bound, tls: *lock(&open.tls) };
        lock(&self.0).iter().map(door).collect()
    }

    /// Those that were asked for.
    fn asked(&self) -> Vec<Listen> {
        lock(&self.0).iter().map(Open::door).collect()
    }

    /// Takes those out that are not wanted and have the port of one that is.
    fn take_in_the_way_of(&self, wanted: &[Listen]) -> Vec<Open> {
        let is_wanted = |open: &Open| wanted.iter().any(|door| door.address == open.asked);
        let is_hit = |open: &Open| wanted.iter().any(|door| overlap(door.address, open.bound));
        lock(&self.0).extract_if(.., |open| !is_wanted(open) && is_hit(open)).collect()
    }

    /// Binds what is not bound yet, all or nothing; returns what is not wanted any more.
    fn exchange(&self, inner: &Arc<Inner>, wanted: &[Listen]) -> Result<Vec<Open>, ListenError> {
        let mut all = lock(&self.0);
        let mut fresh: Vec<(Listen, SocketAddr, Listener)> = Vec::new();
        for &door in wanted {
            let address = door.address;
            let known = all.iter().any(|open| open.asked == address);
            if known || fresh.iter().any(|(asked, ..)| asked.address == address) {
                continue;
            }
            let failed = |source| ListenError { address, source };
            let listener = inner.parts.net.listen(address).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            fresh.push((door, bound, listener));
        }
        let find = |address: SocketAddr| wanted.iter().find(|door| door.address == address);
        let unwanted = all.extract_if(.., |open| find(open.asked).is_none()).collect();
        for open in &*all {
            // One that stays goes by another kind from the next client on.
            if let Some(door) = find(open.asked) {
                *lock(&open.tls) = door.tls;
            }
        }
        all.extend(fresh.into_iter().map(|(door, bound, listener)| {
            let tls = Arc::new(Mutex::new(door.tls));
            let task = tokio::spawn(accept(Arc::clone(inner), listener, bound, Arc::clone(&tls)));
            Open { asked: door.address, bound, tls, task }
        }));
        Ok(unwanted)
    }

    /// Opens these again besides those that are open, each by itself; one that cannot be is told to the log.
    fn reopen(&self, inner: &Arc<Inner>, doors: &[Listen]) {
        for door in doors {
            let wanted = [self.asked(), vec![*door]].concat();
            if let Err(error) = self.exchange(inner, &wanted) {
                let line = inner.parts.log.line(Level::Error, "listener-lost");
                let line = line.word("server", &inner.parts.name).word("address", door.address);
                line.text("reason", error).send();
            }
        }
    }
}

/// See [`Receiver::listen`].
pub(super) async fn rebind(receiver: &Receiver, doors: &[Listen]) -> Result<(), ListenError> {
    let inner = &receiver.0;
    let unwanted = match inner.listeners.exchange(inner, doors) {
        Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {
            make_way(inner, doors, error).await?
        }
        done => done?,
    };
    close_all(unwanted).await;
    Ok(())
}

/// Once more, after those of our own were closed that stand in the way and are not wanted: the system lets nobody
/// have a port of every address while somebody has that of one. If that does not help they are opened again.
async fn make_way(
    inner: &Arc<Inner>,
    doors: &[Listen],
    error: ListenError,
) -> Result<Vec<Open>, ListenError> {
    let in_the_way = inner.listeners.take_in_the_way_of(doors);
    if in_the_way.is_empty() {
        return Err(error);
    }
    let before: Vec<Listen> = in_the_way.iter().map(Open::door).collect();
    close_all(in_the_way).await;
    inner.listeners.exchange(inner, doors).inspect_err(|_| inner.listeners.reopen(inner, &before))
}

async fn close_all(all: Vec<Open>) {
    for open in all {
        open.close().await;
    }
}

async fn accept(
    inner: Arc<Inner>,
    listener: Listener,
    bound: SocketAddr,
    tls: Arc<Mutex<ListenTls>>,
) {
    let mut errors = 0;
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                errors = 0;
                let implicit = *lock(&tls) == ListenTls::Implicit;
                welcome(&inner, stream, client, implicit).await;
            }
            Err(error) => {
                errors += 1;
                on_error(&inner, bound, &error, errors).await;
            }
        }
    }
}

async fn on_error(inner: &Inner, bound: SocketAddr, error: &io::Error, errors: u32) {
    let exhausted = is_exhausted(error);
    if exhausted && errors == 1 {
        inner.parts.counters.descriptors_exhausted.add_one();
        let line = inner.parts.log.line(Level::Warn, "accept-paused");
        line.word("server", &inner.parts.name).word("address", bound).word("error", error).send();
    }
    // Other errors are those of one connection that was gone before it was accepted.
    if exhausted || errors >= ERRORS_IN_A_ROW {
        inner.parts.clock.sleep(EXHAUSTED_PAUSE).await;
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

/// Lets a connection in as a session of its own, or turns it away. A balancer has to say first for whom it
/// comes.
async fn welcome(inner: &Arc<Inner>, mut stream: Stream, client: SocketAddr, implicit: bool) {
    let client = canonical(client);
    inner.parts.counters.connections.add_one();
    let settings = inner.settings.load();
    if !settings.balancers.iter().any(|network| network.contains(client.ip())) {
        return admit(inner, stream, client, implicit).await;
    }
    match Arc::clone(&inner.balancers).try_acquire_owned() {
        Ok(place) => {
            let inner = Arc::clone(inner);
            tokio::spawn(async move {
                let _place = place;
                behind_balancer(&inner, stream, client, implicit).await;
            });
        }
        Err(_) => {
            let refusal = Refusal::TooManyConnections;
            turn_away(inner, &mut stream, client, refusal, !implicit).await;
        }
    }
}

fn canonical(client: SocketAddr) -> SocketAddr {
    SocketAddr::new(client.ip().to_canonical(), client.port())
}

async fn behind_balancer(
    inner: &Arc<Inner>,
    mut stream: Stream,
    balancer: SocketAddr,
    implicit: bool,
) {
    match proxy::client_behind(&mut stream).await {
        Ok(client) => admit(inner, stream, canonical(client), implicit).await,
        Err(error) => {
            let line = inner.parts.log.line(Level::Warn, "balancer-refused");
            let line = line.word("server", &inner.parts.name).word("client", balancer.ip());
            line.word("port", balancer.port()).text("reason", error).send();
        }
    }
}

async fn admit(inner: &Arc<Inner>, mut stream: Stream, client: SocketAddr, implicit: bool) {
    let settings = inner.settings.load_full();
    let seated = charge(inner, &settings, client).and_then(|()| seat(inner, &settings, client));
    match seated {
        Ok(seat) => {
            let id = inner.parts.session_ids.next();
            let live = Arc::new(Live::new(id, client, inner.parts.clock.now()));
            let entry = if implicit { Entry::Implicit } else { Entry::Clear };
            let visit = Visit::begin(Arc::clone(inner), seat, live, entry);
            tokio::spawn(visit::attend(visit, stream, settings));
        }
        Err(refusal) => {
            // He who expects TLS is not worth it, and could not read anything else.
            turn_away(inner, &mut stream, client, refusal, !implicit).await;
        }
    }
}

/// Closes a connection instead of greeting it, in words if it can read them.
pub(super) async fn turn_away(
    inner: &Inner,
    stream: &mut Stream,
    client: SocketAddr,
    refusal: Refusal,
    can_read: bool,
) {
    count::count(&inner.parts.counters, refusal);
    let line = inner.parts.log.line(Level::Info, "reject");
    line.word("server", &inner.parts.name)
        .word("client", client.ip())
        .word("port", client.port())
        .word("stage", Stage::Connect.as_str())
        .word("code", refusal.code())
        .word("dsn", refusal.enhanced())
        .word("reason", refusal.reason())
        .send();
    count::record(&inner.parts, client.ip(), Stage::Connect, refusal, |note| note);
    if can_read {
        let mut words = Vec::new();
        refusal.write(&mut words);
        // Whoever does not listen is turned away all the same.
        let _ = tokio::time::timeout(TURN_AWAY, stream.write_all(&words)).await;
    }
}

/// Uses one connection of the client's quota.
pub(super) fn charge(
    inner: &Inner,
    settings: &Settings,
    client: SocketAddr,
) -> Result<(), Refusal> {
    let Some(quota) = settings.quota.connections else { return Ok(()) };
    let (who, now) = (policy::client::Client::of(client.ip()), inner.parts.clock.elapsed());
    let charged = lock(&inner.used).connections.charge(who, quota, now);
    charged.map_err(|_| Refusal::ConnectsTooOften)
}

pub(super) fn seat(
    inner: &Inner,
    settings: &Settings,
    client: SocketAddr,
) -> Result<Seat, Refusal> {
    if inner.paused.load(Ordering::Relaxed) || inner.stopped.load(Ordering::Relaxed) {
        return Err(Refusal::Stopping);
    }
    match lock(&inner.counts).enter(client.ip(), settings.connections) {
        Verdict::Admit(seat) => Ok(seat),
        Verdict::Defer(denial) | Verdict::Refuse(denial) => Err(denial.reason.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_fails_says_what_to_do() {
        let error = |kind: io::ErrorKind, address: &str| {
            ListenError { address: address.parse().unwrap(), source: kind.into() }.to_string()
        };
        assert!(error(io::ErrorKind::AddrInUse, "127.0.0.1:25").contains("another program"));
        let denied = error(io::ErrorKind::PermissionDenied, "127.0.0.1:25");
        assert!(denied.contains("127.0.0.1:25") && denied.contains("CAP_NET_BIND_SERVICE"));
    }

    #[test]
    fn only_want_of_resources_pauses_at_once() {
        use nix::errno::Errno;
        let is = |errno: Errno| is_exhausted(&io::Error::from_raw_os_error(errno as i32));
        assert!(is(Errno::EMFILE) && is(Errno::ENFILE));
        assert!(!is(Errno::ECONNABORTED) && !is_exhausted(&io::ErrorKind::Other.into()));
    }
}
