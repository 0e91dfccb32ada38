//! Passwords of users at whichever directory server answers. No connection of the pool is used for them, and
//! none of theirs comes into it.

use smtpd_core::ldap::message::{Ended, code};

use super::super::Means;
use super::super::connection::{Connection, DirectoryError};
use super::{Outage, Pool, lock};

impl Pool {
    /// Tries a password of an entry at the first server that answers. That it is wrong is no fault of the
    /// server.
    pub(in crate::ldap) async fn try_password(
        &self,
        means: &Means,
        dn: &str,
        password: &str,
    ) -> Result<Ended, Outage> {
        let askable = lock(&self.health).askable(means.clock.elapsed());
        let mut last = None;
        for server in askable {
            let Some(address) = self.keys.server.get(server) else { continue };
            means.counters.ldap_connections.add_one();
            let tried = Connection::try_password(means, &self.keys, address, (dn, password)).await;
            let error = match tried {
                Ok(ended) if matches!(ended.code, code::BUSY | code::UNAVAILABLE) => {
                    DirectoryError::Bind(ended)
                }
                Ok(ended) => {
                    self.note_answer(means, server);
                    return Ok(ended);
                }
                Err(error) => error,
            };
            self.note_failure(means, server, &error);
            last = Some(self.outage(server, &error));
        }
        Err(last.unwrap_or_else(|| Outage(lock(&self.health).trouble().to_owned())))
    }
}
