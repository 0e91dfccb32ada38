//! Calling a host as mail would, to see whether it answers and lets us in, or to ask it for mail of
//! ours. No mail is sent.

use std::time::Duration;

use mailroot_common::status::EnhancedCode;
use smtpd_core::queue::outcome::{Outcome, RemoteHost, Stage};
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::route::table::Route;
use smtpd_core::smtp::client::{Action, Ending};
use smtpd_core::smtp::etrn::Etrn;
use smtpd_core::smtp::reply::Reply;
use tokio::time::timeout;

use super::Deliver;
use super::session::Connection;
use super::target::Targets;

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

    async fn call(&self, host: SmartHost) -> Result<Connection, Outcome> {
        let room = &self.0;
        let settings = room.settings.load_full();
        let mut targets = Targets::new(&Route::to_host(host), None, None);
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
        if !self.client.is_idle() {
            return None;
        }
        self.client.ask_for(wish, self.room.clock.elapsed());
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
