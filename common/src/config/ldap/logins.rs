//! `ldap.logins:` - users whose passwords the directory judges.

use super::super::choice::choice;
use super::super::diagnostic::Diagnostic;
use super::super::host::parsed_text;
use super::super::section::{Reader, section};
use super::super::server::ServerConfig;
use super::filter::LoginFilter;
use super::{AttributeName, LdapSchema, LdapTls};

section! {
    /// Users whose passwords the directory judges, where access.basic.backends names ldap. A name is looked
    /// up below ldap.base, and a bind is made as the entry that is found, under TLS alone and over a
    /// connection of its own. Referrals are not followed.
    pub struct LdapLogins {
        /// The filter that finds the entry of a user, for the schema custom or instead of the schema's own
        /// (RFC 4515). {user} stands for the name, and can become nothing but a value. With more in it,
        /// such as (&(uid={user})(memberOf=CN=scan,DC=example,DC=net)), fewer may log in. Where it finds
        /// two entries, nobody is let in.
        filter: Option<LoginFilter> = None, None, shown "of the schema";
        /// The attribute that holds the name by which a user is known here once he has logged in, however he
        /// was found: sAMAccountName for the schema active-directory, cn for site-server, otherwise uid. Its
        /// first value that can be the name of a user counts; without one he is not let in. He must not be
        /// able to write it himself.
        name: Option<AttributeName> = None, None, shown "of the schema";
        /// The attributes that hold the addresses of a user.
        addresses: Vec<AttributeName> = Vec::new(), Vec::new(), shown "of the schema";
        /// As whom a user may send: with the addresses that the directory has for him, or as anybody. For
        /// one whom smtpctl user add made by that name, what is said there holds instead.
        send_as: LoginSenders = LoginSenders::Own, LoginSenders::Own;
    }
}

choice! {
    /// As whom a user of the directory may send.
    pub enum LoginSenders {
        /// With his own addresses.
        Own = "own",
        /// As anybody.
        Any = "any",
    }
}

parsed_text! {
    LoginFilter, "LDAP filter for logins", "E0331", |text: &str| Self::parse(text).ok(),
        "write one as in RFC 4515 that has {user} as a value in it: (uid={user})";
}

/// Whether the directory can be given passwords; `span` is where it is named for that.
pub(in crate::config) fn check(
    config: &ServerConfig,
    span: &std::ops::Range<usize>,
    reader: &mut Reader,
) {
    let ldap = &config.ldap;
    if !ldap.enabled {
        let title = "the directory is to judge passwords, and none is asked";
        let diagnostic = Diagnostic::error("E0338", title)
            .at(&reader.source, span.clone(), "ldap.enabled is false")
            .help("write  enabled: true  below ldap, with server and base");
        reader.report(diagnostic);
        return;
    }
    let is_clear = |server: &&super::LdapServer| !server.is_secure && ldap.tls == LdapTls::Off;
    if let Some(server) = ldap.server.iter().find(is_clear) {
        let title = format!("passwords of users would go to {server} in clear text");
        let diagnostic = Diagnostic::error("E0338", title)
            .at(&reader.source, span.clone(), "under TLS alone")
            .help("write ldaps://, or  tls: starttls  below ldap");
        reader.report(diagnostic);
    }
    if ldap.schema == LdapSchema::Custom && ldap.logins.filter.is_none() {
        let diagnostic = Diagnostic::error("E0338", "ldap.logins.filter is missing")
            .at(&reader.source, span.clone(), "how users are found is not said")
            .help("add  logins: {filter: \"(uid={user})\"}  below ldap");
        reader.report(diagnostic);
    }
}
