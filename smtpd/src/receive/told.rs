//! A named host tells for whom it speaks (XCLIENT): from then on the session is that client's.
//!
//! The client is judged as if it had called, by its address alone: its name is looked up here, and what the
//! named host has proved of itself, a login or a certificate, is not the client's, before and afterwards.

use std::net::{IpAddr, SocketAddr};

use smtpd_core::smtp::xclient::Told;

use super::judge::{gather, may_connect};
use super::session::Session;
use super::{Settings, listener, proxy};
use crate::observe::Level;

/// How the client of a session is at its other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// It has called.
    Caller,
    /// A named host has told of it: what the connection proves is that host's.
    Told,
    /// We have called it.
    Called,
}

impl Settings {
    /// Whether a host may tell for whom it speaks (`access.xclient_from`).
    pub(super) fn may_tell(&self, host: IpAddr) -> bool {
        self.tellers.iter().any(|network| network.contains(host))
    }
}

/// Who the client is then.
fn client_of(told: &Told, before: SocketAddr) -> SocketAddr {
    match told.address {
        None => SocketAddr::new(before.ip(), told.port.unwrap_or_else(|| before.port())),
        Some(address) => {
            let address = address.unwrap_or(proxy::NOBODY.ip());
            SocketAddr::new(address, told.port.unwrap_or_default())
        }
    }
}

impl Session<'_> {
    /// Answers the machine's question.
    pub(super) async fn introduce(&mut self) {
        let (inner, settings) = (self.client.inner, self.client.settings);
        let Some(told) = self.server.told().cloned() else { return };
        let host = self.live.client();
        let client = client_of(&told, host);
        let line =
            inner.parts.log.line(Level::Info, "client-told").word("server", &inner.parts.name);
        let line = line.word("sid", self.live.id).word("by", host.ip()).word("client", client.ip());
        line.word("port", client.port()).maybe("helo", told.hello.as_deref()).send();
        self.client.facts = gather(inner, settings, client.ip()).await;
        self.client.peer = Peer::Told;
        (self.client.user, self.client.asked, self.client.certificate) = (None, None, None);
        #[cfg(feature = "gssapi")]
        {
            self.ticket = None;
        }
        self.live.show_client(client);
        self.live.show_certificate(None);
        self.helo_shown = false;
        let wall = inner.parts.clock.now();
        let verdict =
            may_connect(settings, &self.client.facts, wall).and_then(|()| match told.address {
                Some(_) => listener::charge(inner, settings, client),
                None => Ok(()),
            });
        self.server.introduced(verdict, inner.parts.clock.elapsed());
        let rules = self.client.rules(wall).clone();
        self.server.adopt(rules);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_stays_and_nobody_has_no_address() {
        let host = "192.0.2.1:25".parse().unwrap();
        for (words, client) in [
            ("ADDR=198.51.100.7 PORT=4711", "198.51.100.7:4711"),
            ("ADDR=198.51.100.7", "198.51.100.7:0"),
            ("ADDR=IPV6:2001:db8::7", "[2001:db8::7]:0"),
            ("ADDR=[UNAVAILABLE]", "0.0.0.0:0"),
            ("PORT=4711", "192.0.2.1:4711"),
            ("HELO=a.test", "192.0.2.1:25"),
        ] {
            let told = Told::parse(words).unwrap();
            assert_eq!(client_of(&told, host).to_string(), client, "{words}");
        }
    }
}
