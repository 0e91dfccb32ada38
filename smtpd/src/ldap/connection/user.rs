//! A bind as a user, over a connection of its own that is asked nothing and then closed: nobody else's
//! question is ever answered with his rights.

use std::time::Duration;

use mailroot_common::config::ldap::{Ldap, LdapServer, LdapTls};
use smtpd_core::ldap::message::{self, Answer, Ended};
use tokio::io::AsyncWriteExt;
use zeroize::Zeroizing;

use super::super::Means;
use super::{Connection, DirectoryError};

/// How long leave is taken.
const LEAVE: Duration = Duration::from_secs(1);

impl Connection {
    /// Opens one for a password of a user, within this time, and under TLS alone.
    pub(in crate::ldap) async fn for_password(
        means: &Means,
        keys: &Ldap,
        server: &LdapServer,
        patience: Duration,
    ) -> Result<Self, DirectoryError> {
        if !server.is_secure && keys.tls == LdapTls::Off {
            return Err(DirectoryError::Clear);
        }
        let reached = tokio::time::timeout(patience, Self::reach(means, keys, server)).await;
        reached.unwrap_or(Err(DirectoryError::TimedOut(patience)))
    }

    /// Tries a password of an entry on one of [`Connection::for_password`], within this time.
    pub(in crate::ldap) async fn try_password(
        mut self,
        (dn, password): (&str, &str),
        patience: Duration,
    ) -> Result<Ended, DirectoryError> {
        // A server says yes to both, whoever it is (RFC 4513 sections 5.1.1 and 5.1.2).
        if dn.is_empty() || password.is_empty() {
            return Err(DirectoryError::Unnamed);
        }
        let trying = async {
            let id = self.next_id();
            let request = Zeroizing::new(message::bind(id, dn, password));
            self.stream.write_all(&request).await?;
            self.stream.flush().await?;
            match self.read(id).await? {
                (Answer::Bind(ended, _), _) => Ok(ended),
                _ => Err(DirectoryError::Unexpected),
            }
        };
        let tried = tokio::time::timeout(patience, trying).await;
        let ended = tried.unwrap_or(Err(DirectoryError::TimedOut(patience)))?;
        self.close(LEAVE).await;
        Ok(ended)
    }
}
