//! `/v1/smarthosts`: smart hosts that have names.

use axum::body::Bytes;
use axum::extract::Extension;
use mailroot_common::config::SmartHostName;
use mailroot_common::control::{
    Check, DeviceCode, DeviceState, Edited, Kind, Level, Problem, SmartHost, SmartHostCall,
    SmartHostWish,
};

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use super::extract::Path;
use super::gate::tell;
use super::server::read_name;
use super::terms::Wanted;

/// All of them.
pub(super) async fn list(app: App) -> Answer<Vec<SmartHost>> {
    object(app.service.smart_hosts())
}

/// A new one, or other settings.
pub(super) async fn set(
    app: App,
    Path(name): Path<String>,
    Wanted(asked): Wanted,
    body: Bytes,
) -> Answer<Edited> {
    let name = read_smart_host(&name)?;
    let wish: SmartHostWish = read(&body)?;
    let server = wish.server.as_deref().map(read_name).transpose()?;
    if server.is_none() && (wish.direct_first.is_some() || !wish.server_edits.is_empty()) {
        return Err(usage("direct_first and server_edits are said of a server, and none is named"));
    }
    object(app.service.set_smart_host(&name, &wish, server.as_ref(), &asked).await?)
}

/// The end of one.
pub(super) async fn remove(
    app: App,
    Path(name): Path<String>,
    Wanted(asked): Wanted,
) -> Answer<Edited> {
    object(app.service.remove_smart_host(&read_smart_host(&name)?, &asked).await?)
}

/// A call as mail would make it, without mail.
pub(super) async fn test(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<Vec<Check>> {
    let name = read_smart_host(&name)?;
    let SmartHostCall { server, new_token } = read(&body)?;
    let server = server.as_deref().map(read_name).transpose()?;
    let found = app.service.caller_of(&name, server.as_ref())?;
    tell(&app, "smart-host-called", found.name().as_str(), None, &caller).send();
    let token = app.service.check_token(&name, new_token).await?;
    // Without a token the call would come to the same end.
    if let Some(token) = token.as_ref().filter(|token| token.level != Level::Ok) {
        return object(vec![token.clone()]);
    }
    let check = found.call_smart_host(&name).await.ok_or_else(|| {
        let detail = format!("virtual server {} does not run, and cannot call", found.name());
        Problem::new("server", Kind::Unavailable, detail).hint("choose another with -s")
    })?;
    object(token.into_iter().chain([check]).collect())
}

/// A code with which a person signs in.
pub(super) async fn ask_for_code(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer<DeviceCode> {
    let name = read_smart_host(&name)?;
    tell(&app, "sign-in-asked", "*", Some(name.as_str()), &caller).send();
    object(app.service.ask_for_code(&name).await?)
}

/// Whether the person has signed in.
pub(super) async fn poll_code(app: App, Path(name): Path<String>) -> Answer<DeviceState> {
    object(app.service.poll_code(&read_smart_host(&name)?).await?)
}

fn read_smart_host(text: &str) -> Result<SmartHostName, Refused> {
    SmartHostName::parse(text).ok_or_else(|| {
        usage(format!(
            "{text:?} cannot name a smart host: use a-z, 0-9, - and _, beginning with a letter"
        ))
    })
}
