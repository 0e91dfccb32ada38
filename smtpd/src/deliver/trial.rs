//! Calling a host as mail would, to see whether it answers and lets us in, or to ask it for mail of
//! ours: to be sent to us by itself, or over the same connection. No mail is sent.

use std::net::SocketAddr;
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::status::{Class, EnhancedCode};
use smtpd_core::queue::outcome::{Outcome, RemoteHost, Stage};
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::route::table::Route;
use smtpd_core::smtp::client::{Action, Client, Ending};
use smtpd_core::smtp::etrn::Etrn;
use smtpd_core::smtp::reply::Reply;
use tokio::time::timeout;

use super::Deliver;
use super::session::Connection;
use super::strict::TlsWish;
use super::target::Targets;
use crate::net::Stream;

/// The most addresses that are called.
const ADDRESSES_MAX: usize = 4;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a host answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The host that would get the mail.
    pub host: RemoteHost,
    /// The extensions it offers that matter to people.
    pub offers: Vec<String>,
    /// Whether it knows us by a login.
    pub logged_in: bool,
}

/// A connection that we have made and on which the host is the client now.
#[derive(Debug)]
pub struct Reversed {
    /// The connection, under TLS or not.
    pub stream: Stream,
    /// The host.
    pub peer: SocketAddr,
}

impl Deliver {
    /// Calls the first host of the operator's choice that answers, up to where mail would begin.
    ///
    /// # Errors
    ///
    /// Why none of them could be used, as mail would hear it.
    pub async fn try_host(&self, host: SmartHost) -> Result<Answered, Outcome> {
        let connection = self.call(host).await?;
        let answered = connection.answered();
        tokio::spawn(connection.close());
        Ok(answered)
    }

    /// Asks the first host of the operator's choice that answers to send us mail that it holds; what
    /// it said to each wish.
    ///
    /// # Errors
    ///
    /// Why none of them could be asked.
    pub async fn ask_for_mail(
        &self,
        host: SmartHost,
        wishes: &[Etrn],
    ) -> Result<(RemoteHost, Vec<Reply>), Outcome> {
        let mut connection = self.call(host).await?;
        let host = connection.host.clone();
        let failed = |why: &str| {
            let status = EnhancedCode::permanent(5, 1);
            let ending = Ending::local(Stage::Hello, status, why);
            ending.into_outcome(self.0.clock.now(), Some(host.clone()))
        };
        if !connection.client.peer().etrn {
            tokio::spawn(connection.close());
            return Err(failed("the host does not offer ETRN"));
        }
        let mut replies = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let asked = timeout(PATIENCE, connection.ask_for(wish)).await.ok().flatten();
            let gone = || failed("the host hung up, or did not answer in time");
            replies.push(asked.ok_or_else(gone)?);
        }
        tokio::spawn(connection.close());
        Ok((host, replies))
    }

    /// Asks a host of the operator's choice for mail of domains, or of all that it holds for us, over the
    /// same connection (RFC 2645); what it said, and the connection on which we are to greet next if that
    /// was good.
    ///
    /// # Errors
    ///
    /// Why it could not be asked.
    pub async fn fetch_mail(
        &self,
        host: SmartHost,
        domains: &[Domain],
    ) -> Result<(RemoteHost, Reply, Option<Reversed>), Outcome> {
        let mut connection = self.call(host).await?;
        let host = connection.host.clone();
        let failed = |detail, why: &str| {
            let ending = Ending::local(Stage::Login, EnhancedCode::permanent(5, detail), why);
            ending.into_outcome(self.0.clock.now(), Some(host.clone()))
        };
        if !connection.client.is_logged_in() {
            tokio::spawn(connection.close());
            return Err(failed(
                1,
                "mail is fetched by whoever has logged in: set auth of the smart host",
            ));
        }
        let now = self.0.clock.elapsed();
        let asked = connection.ask(|client| client.ask_to_reverse(domains, now)).await;
        let reply =
            asked.ok_or_else(|| failed(0, "the host hung up, or did not answer in time"))?;
        if reply.class() != Class::Success {
            tokio::spawn(connection.close());
            return Ok((host, reply, None));
        }
        if !connection.client.is_idle() {
            return Err(failed(0, "the host went on where we are to greet"));
        }
        let stream = std::mem::replace(&mut connection.stream, Stream::Gone);
        let reversed = Reversed { stream, peer: connection.target.at };
        Ok((host, reply, Some(reversed)))
    }

    async fn call(&self, host: SmartHost) -> Result<Box<Connection>, Outcome> {
        let room = &self.0;
        let settings = room.settings.load_full();
        let mut targets = Targets::new(&Route::to_host(host), None, None, TlsWish::Usual);
        let calls = async {
            for _ in 0..ADDRESSES_MAX {
                let target = targets.next(&settings, room.clock.random()).await?;
                match Connection::open(room, &settings, &target).await {
                    Ok(connection) => return Some(connection),
                    Err(why) => targets.note_failure(&settings, why, &target),
                }
            }
            None
        };
        let found = timeout(PATIENCE, calls).await;
        found.ok().flatten().ok_or_else(|| targets.verdict(room.clock.now()))
    }
}

impl Connection {
    /// What the host says when it is asked for mail; nothing if it hangs up.
    async fn ask_for(&mut self, wish: &Etrn) -> Option<Reply> {
        let now = self.room.clock.elapsed();
        self.ask(|client| client.ask_for(wish, now)).await
    }

    async fn ask(&mut self, say: impl FnOnce(&mut Client)) -> Option<Reply> {
        if !self.client.is_idle() {
            return None;
        }
        say(&mut self.client);
        loop {
            self.flush().await;
            match self.client.poll() {
                Some(Action::Answered(reply)) => return Some(reply),
                Some(Action::Close) => return None,
                Some(_) => {}
                None if self.client.is_closed() => return None,
                None => self.read().await,
            }
        }
    }

    fn answered(&self) -> Answered {
        let peer = self.client.peer();
        let mut offers = Vec::new();
        for (word, offered) in [
            ("PIPELINING", peer.pipelining),
            ("8BITMIME", peer.eight_bit_mime),
            ("SMTPUTF8", peer.smtputf8),
            ("DSN", peer.dsn),
            ("STARTTLS", peer.starttls),
        ] {
            if offered {
                offers.push(word.to_owned());
            }
        }
        if !peer.auth.is_empty() {
            offers.push(format!("AUTH {}", peer.auth.join(" ")));
        }
        Answered { host: self.host.clone(), offers, logged_in: self.client.is_logged_in() }
    }
}
