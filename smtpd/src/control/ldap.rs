//! `/v1/servers/{server}/ldap/…`: a look at the directory of a virtual server, and the password for it.

use axum::body::Bytes;
use axum::extract::Extension;
use mailroot_common::address::Mailbox;
use mailroot_common::control::{Check, Edited, LdapPassword, LdapTest};

use super::App;
use super::answer::{Answer, object, read, usage};
use super::caller::Caller;
use super::extract::Path;
use super::gate::tell;
use super::server::read_name;
use super::terms::Wanted;

/// Calls the directory servers, and looks an address up.
pub(super) async fn test(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(server): Path<String>,
    body: Bytes,
) -> Answer<Vec<Check>> {
    let found = app.service.known(&read_name(&server)?)?;
    let LdapTest { address } = read(&body)?;
    let mailbox = |text: String| Mailbox::parse(&text).map_err(|error| usage(error.to_string()));
    let address = address.map(mailbox).transpose()?;
    tell(&app, "directory-called", found.name().as_str(), None, &caller).send();
    object(found.test_directory(address.as_ref()).await)
}

/// Another password, and perhaps another name to bind with.
pub(super) async fn set_password(
    app: App,
    Path(server): Path<String>,
    Wanted(asked): Wanted,
    body: Bytes,
) -> Answer<Edited> {
    let wish: LdapPassword = read(&body)?;
    object(app.service.set_directory_password(&read_name(&server)?, &wish, &asked).await?)
}
