//! Clients that come for mail of theirs: by ETRN it is sent elsewhere, by ATRN over the connection they
//! have made, which is handed to whoever delivers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use smtpd_core::queue::outcome::{Protection, Verified};
use smtpd_core::smtp::refusal::Refusal;
use smtpd_core::smtp::server::Standing;
use tokio::sync::oneshot;

use super::Receiver;
use super::listener::{self, Entry};
use super::message::Client;
use super::registry::{Live, Order};
use super::session::Session;
use super::visit::{self, Visit};
use crate::net::Stream;
use crate::observe::Level;
use crate::queue::{Asked, Fetch, Fetcher, Leash, NoFetch, leash};
use crate::tls::spoken;

impl Receiver {
    /// Attends to a host that we have called and that is the client now. Its mail is taken as that of
    /// any client is; only whether it may connect is not asked.
    ///
    /// # Errors
    ///
    /// Why there is no room for it.
    pub fn adopt(&self, stream: Stream, host: SocketAddr) -> Result<(), Refusal> {
        let inner = &self.0;
        let settings = inner.settings.load_full();
        let seat = listener::seat(inner, &settings, host)?;
        let id = inner.parts.session_ids.next();
        let live = Arc::new(Live::new(id, host, inner.parts.clock.now()));
        let visit = Visit::begin(Arc::clone(inner), seat, live, Entry::Adopted);
        tokio::spawn(visit::attend(visit, stream, settings));
        Ok(())
    }
}

impl Session<'_> {
    /// The connection is one of ours, perhaps under TLS already.
    pub(super) fn adopt(&mut self) {
        let Some(tls) = spoken(self.stream) else { return };
        self.client.tls = Some(tls);
        self.live.show_tls(tls.version);
        self.server.secured(self.client.inner.parts.clock.elapsed());
    }

    /// A host asks for the mail that is held for it.
    pub(super) async fn ask_for_mail(&self) -> Result<u64, Refusal> {
        let Client { inner, session, settings, .. } = self.client;
        let etrn = self.server.asked_for().ok_or(Refusal::NodeNotAllowed)?;
        let (client, log) = (self.live.client().ip(), &inner.parts.log);
        match inner.parts.queue.ask_for(etrn, client, &settings.table, log).await {
            Asked::Refused => Err(Refusal::NodeNotAllowed),
            Asked::Opened(messages) => {
                let line = log.line(Level::Info, "etrn").word("server", &inner.parts.name);
                let line = line.word("client", client).word("sid", session);
                line.word("node", etrn).word("messages", messages).send();
                Ok(messages)
            }
        }
    }

    /// A user wants to have mail over this connection.
    pub(super) fn claim_mail(&mut self) -> Result<(), Refusal> {
        let Client { inner, settings, ref user, tls, .. } = self.client;
        let user = user.as_ref().ok_or(Refusal::AuthenticationRequired)?;
        let domains = self.server.fetched().unwrap_or_default();
        let (is_secured, usual_tls) = (tls.is_some(), settings.outbound_tls);
        let fetcher = Fetcher { user: &user.name, is_secured, usual_tls };
        let claim = inner.parts.queue.claim(fetcher, domains, &settings.table);
        self.claim = Some(claim.map_err(|why| match why {
            NoFetch::Denied => Refusal::FetchDenied,
            NoFetch::NeedsTls => Refusal::TlsRequired,
            NoFetch::Busy => Refusal::FetchBusy,
            NoFetch::Nothing => Refusal::NoMailWaits,
            NoFetch::Unknown => Refusal::FetchUnavailable,
        })?);
        Ok(())
    }

    /// Hands the connection over, and waits until all that was to leave by it has left, or it is gone.
    /// The session keeps its place among the others meanwhile, and hears what they hear.
    pub(super) async fn hand_over(&mut self) {
        let Client { inner, session, tls, .. } = self.client;
        let (Some(claim), Some(user)) = (self.claim.take(), &self.client.user) else { return };
        let parts = &inner.parts;
        let line = parts.log.line(Level::Info, "atrn").word("server", &parts.name);
        let line = line.word("client", self.live.client().ip()).word("sid", session);
        line.text("user", &user.name).word("messages", claim.messages()).send();
        self.live.show(Standing::Reversed, self.server.messages());
        let (leash, leashed) = leash();
        let (done, over) = oneshot::channel();
        parts.queue.hand_over(Fetch {
            claim,
            stream: std::mem::replace(self.stream, Stream::Gone),
            session,
            peer: self.live.client(),
            tls: tls.map(|tls| Protection { version: tls.version.into(), verified: Verified::No }),
            user: user.name.clone(),
            leashed,
            done,
        });
        self.wait_for_end(over, &leash).await;
    }

    async fn wait_for_end(&self, mut over: oneshot::Receiver<u32>, leash: &Leash) {
        let time_is_up = tokio::time::sleep(self.time_left());
        tokio::pin!(time_is_up);
        let mut is_up = false;
        loop {
            match self.live.order() {
                Order::None => {}
                Order::Stop => leash.finish(),
                Order::Kill => leash.cut(),
            }
            tokio::select! {
                // Whether it was told how much was sent or is gone without a word: it is over.
                _ = &mut over => return,
                () = self.live.told() => {}
                () = &mut time_is_up, if !is_up => {
                    is_up = true;
                    leash.finish();
                }
            }
        }
    }

    fn time_left(&self) -> Duration {
        self.client.settings.session.session_time
    }
}
