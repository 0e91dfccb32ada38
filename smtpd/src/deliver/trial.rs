//! Calling a host as mail would, to see whether it answers and lets us in. No mail is sent.

use std::time::Duration;

use smtpd_core::queue::outcome::{Outcome, RemoteHost};
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::route::table::Route;
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
        let room = &self.0;
        let settings = room.settings.load_full();
        let mut targets = Targets::new(&Route::to_host(host));
        let calls = async {
            for _ in 0..ADDRESSES_MAX {
                let target = targets.next(&settings, room.clock.random()).await?;
                match Connection::open(room, &settings, &target).await {
                    Ok(connection) => return Some(connection),
                    Err(ending) => targets.note(ending, Some(target.host())),
                }
            }
            None
        };
        let found = timeout(PATIENCE, calls).await;
        let Some(connection) = found.ok().flatten() else {
            return Err(targets.verdict(room.clock.now()));
        };
        let answered = connection.answered();
        tokio::spawn(connection.close());
        Ok(answered)
    }
}

impl Connection {
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
