//! Passwords of users at whichever directory server answers. No connection of the pool is used for them, and
//! none of theirs comes into it.

use std::time::Duration;

use smtpd_core::ldap::message::{Ended, code};

use super::super::Means;
use super::super::connection::{Connection, DirectoryError};
use super::{Outage, Pool, lock};

impl Pool {
    /// Tries a password of an entry at the first server that answers. What comes of the bind is about that
    /// user, and no fault of the server: everybody else asks it on.
    pub(in crate::ldap) async fn try_password(
        &self,
        means: &Means,
        whose: (&str, &str),
        patience: Duration,
    ) -> Result<Ended, Outage> {
        let askable = lock(&self.health).askable(means.clock.elapsed());
        let mut last = None;
        for server in askable {
            let Some(address) = self.keys.server.get(server) else { continue };
            means.counters.ldap_connections.add_one();
            let reached = Connection::for_password(means, &self.keys, address, patience).await;
            let connection = match reached {
                Ok(connection) => connection,
                Err(error) => {
                    self.note_failure(means, server, &error);
                    last = Some(self.outage(server, &error));
                    continue;
                }
            };
            let error = match connection.try_password(whose, patience).await {
                Ok(ended) if matches!(ended.code, code::BUSY | code::UNAVAILABLE) => {
                    DirectoryError::Bind(ended)
                }
                Ok(ended) => {
                    self.note_answer(means, server);
                    return Ok(ended);
                }
                Err(error) => error,
            };
            last = Some(self.outage(server, &error));
        }
        Err(last.unwrap_or_else(|| Outage(lock(&self.health).trouble().to_owned())))
    }
}
