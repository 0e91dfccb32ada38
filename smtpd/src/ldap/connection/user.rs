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
    /// Tries a password of an entry, within the time that a server may take, and under TLS alone.
    pub(in crate::ldap) async fn try_password(
        means: &Means,
        keys: &Ldap,
        server: &LdapServer,
        (dn, password): (&str, &str),
    ) -> Result<Ended, DirectoryError> {
        // A server says yes to both, whoever it is (RFC 4513 sections 5.1.1 and 5.1.2).
        if dn.is_empty() || password.is_empty() {
            return Err(DirectoryError::Unnamed);
        }
        if !server.is_secure && keys.tls == LdapTls::Off {
            return Err(DirectoryError::Clear);
        }
        let patience = keys.timeout.as_duration();
        let trying = async {
            let mut it = Self::reach(means, keys, server).await?;
            let id = it.next_id();
            let request = Zeroizing::new(message::bind(id, dn, password));
            it.stream.write_all(&request).await?;
            it.stream.flush().await?;
            match it.read(id).await? {
                (Answer::Bind(ended, _), _) => Ok((it, ended)),
                _ => Err(DirectoryError::Unexpected),
            }
        };
        let tried = tokio::time::timeout(patience, trying).await;
        let (connection, ended) = tried.unwrap_or(Err(DirectoryError::TimedOut(patience)))?;
        connection.close(LEAVE).await;
        Ok(ended)
    }
}
