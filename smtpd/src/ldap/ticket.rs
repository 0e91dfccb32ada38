//! A bind by Kerberos (RFC 4513 section 5.2, RFC 4752): a ticket for the server instead of a password.

use mailroot_common::config::ldap::{Ldap, LdapServer};

use super::Means;
use super::connection::{Connection, DirectoryError};

impl Connection {
    /// Shows a ticket for the server, and has it show who it is.
    #[cfg(feature = "gssapi")]
    pub(super) async fn bind_by_ticket(
        &mut self,
        means: &Means,
        keys: &Ldap,
        server: &LdapServer,
    ) -> Result<(), DirectoryError> {
        use smtpd_core::ldap::message::code;

        use super::connection::read_password;
        use crate::kerberos::{Holder, NAME, Negotiation, TicketError};

        let failed = |why: TicketError| match why.is_refusal() {
            true => DirectoryError::Realm(why.to_string()),
            false => DirectoryError::Ticket(why.to_string()),
        };
        let password = match &keys.password {
            Some(place) => Some(read_password(means, place).await?),
            None => None,
        };
        let holder = Holder { principal: keys.bind_name(), password };
        // Active Directory can insist on that, and a server that does not look at it passes it over.
        let binding = self.end_point();
        let login = Negotiation::start("ldap", holder, &server.host, binding).await;
        let mut login = login.map_err(failed)?;
        let mut words = login.first();
        loop {
            let (ended, said) = self.step(NAME, &words).await?;
            match ended.code {
                code::SUCCESS if login.is_over() => return Ok(()),
                code::SUCCESS => {
                    let why = "the server says yes before it has shown who it is";
                    return Err(DirectoryError::Ticket(why.to_owned()));
                }
                // A login of which everything was said answers no more.
                code::BIND_GOES_ON => words = login.answer(&said).map_err(failed)?,
                _ => return Err(DirectoryError::Bind(ended)),
            }
        }
    }

    /// The configuration asks for this only where it can be done.
    #[cfg(not(feature = "gssapi"))]
    #[expect(clippy::unused_async, reason = "with the feature it waits for a ticket")]
    pub(super) async fn bind_by_ticket(
        &mut self,
        _means: &Means,
        _keys: &Ldap,
        _server: &LdapServer,
    ) -> Result<(), DirectoryError> {
        Err(DirectoryError::Ticket("smtpd was built without its feature gssapi".to_owned()))
    }
}
