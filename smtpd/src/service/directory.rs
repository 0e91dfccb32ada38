//! The password that a virtual server binds to its directory with.

use mailroot_common::config::ServerName;
use mailroot_common::config::ldap::LdapBind;
use mailroot_common::control::{Edited, KeyEdit, LdapPassword};

use super::change::Asked;
use super::{Service, ServiceError};

/// The file of the password. No smart host has a dot in its name, so that none has this file for its own.
fn password_file(server: &ServerName) -> String {
    format!("{server}.ldap")
}

fn edits(wish: &LdapPassword, file: &str, by_ticket: bool) -> Vec<KeyEdit> {
    let set = |key: &str, value: String| KeyEdit::Set { key: format!("ldap.{key}"), value };
    let user = wish.user.clone().map(|user| set("user", user));
    // A bind by Kerberos has a password as well.
    let bind = (!by_ticket).then(|| set("bind", "simple".to_owned()));
    let password = set("password", format!("{{file: {file}}}"));
    user.into_iter().chain(bind).chain([password]).collect()
}

impl Service {
    /// Has a virtual server bind to its directory with a name and another password, which is kept in a
    /// file that nobody else can read. Servers of the directory that refused the one before are asked
    /// again.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn set_directory_password(
        &self,
        server: &ServerName,
        wish: &LdapPassword,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let file = password_file(server);
        let by_ticket = self.known(server)?.config().ldap.bind == LdapBind::Gssapi;
        let change = self.editor(asked).edit_server(server, &edits(wish, &file, by_ticket))?;
        if asked.terms.dry_run {
            return Ok(self.make(asked, change).await?.edited);
        }
        self.keep_secret(&file, Some(&wish.password))?;
        let edited = self.make(asked, change).await?.edited;
        self.known(server)?.ask_directory_anew();
        Ok(edited)
    }
}
