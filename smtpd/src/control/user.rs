//! `/v1/users`: users who may log in to send mail.

use axum::Extension;
use axum::body::Bytes;
use mailroot_common::control::selector::AddressPattern;
use mailroot_common::control::user::is_user_name;
use mailroot_common::control::{
    NewUser, PasswordAnswer, PasswordQuestion, User, UserChanged, UserWish,
};
use mailroot_common::password::is_password;
use mailroot_common::rate::Rate;
use zeroize::Zeroizing;

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use super::extract::Path;
use super::gate::tell;
use crate::users::{Secret, UserChange};

/// All of them.
pub(super) async fn list(app: App) -> Answer<Vec<User>> {
    object(app.service.users())
}

/// A new one.
pub(super) async fn add(
    app: App,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<User> {
    let wish: NewUser = read(&body)?;
    check_name(&wish.name)?;
    let secret = read_secret(wish.password, wish.hash.as_deref())?
        .ok_or_else(|| usage("a user has a password, or a hash in its place"))?;
    let send_as = patterns(&wish.send_as)?;
    let quota = wish.quota.as_deref().map(read_quota).transpose()?.flatten();
    let user = app.service.add_user(wish.name, secret, send_as, quota).await?;
    tell(&app, "user-added", "*", Some(&user.name), &caller).send();
    object(user)
}

/// Other settings of one.
pub(super) async fn set(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<UserChanged> {
    let wish: UserWish = read(&body)?;
    let secret = read_secret(wish.password, wish.hash.as_deref())?;
    let send_as = wish.send_as.as_deref().map(patterns).transpose()?;
    let quota = wish.quota.as_deref().map(read_quota).transpose()?;
    let change = UserChange { secret, enabled: wish.enabled, send_as, quota };
    let changed = app.service.set_user(&name, change).await?;
    tell(&app, "user-changed", "*", Some(&changed.user.name), &caller).send();
    object(changed)
}

/// `none` stands for no quota.
fn read_quota(text: &str) -> Result<Option<Rate>, Refused> {
    match text {
        "none" => Ok(None),
        rate => Rate::parse(rate).map(Some).map_err(|error| {
            usage(format!("{error}: write 500/d, also per s, min and h; or none"))
        }),
    }
}

/// The end of one.
pub(super) async fn remove(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer<UserChanged> {
    let changed = app.service.remove_user(&name).await?;
    tell(&app, "user-removed", "*", Some(&changed.user.name), &caller).send();
    object(changed)
}

/// Whether a password is a user's.
pub(super) async fn verify(
    app: App,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<PasswordAnswer> {
    let PasswordQuestion { password } = read(&body)?;
    object(app.service.verify_user(&name, password).await)
}

fn check_name(name: &str) -> Result<(), Refused> {
    if !is_user_name(name) {
        return Err(usage(format!(
            "{name:?} cannot be the name of a user: use at most 64 of a-z, 0-9 and ._@+-"
        )));
    }
    Ok(())
}

fn read_secret(password: Option<String>, hash: Option<&str>) -> Result<Option<Secret>, Refused> {
    match (password.map(Zeroizing::new), hash) {
        (Some(_), Some(_)) => Err(usage("say a password or a hash, not both")),
        (None, None) => Ok(None),
        (None, Some(hash)) => match hash.parse() {
            Ok(kept) => Ok(Some(Secret::Kept(kept))),
            Err(error) => Err(usage(error.to_string())),
        },
        (Some(password), None) if is_password(&password) => Ok(Some(Secret::Password(password))),
        (Some(_), None) => Err(usage("a password is one line of at most 1000 octets")),
    }
}

fn patterns(texts: &[String]) -> Result<Vec<AddressPattern>, Refused> {
    let read =
        |text: &String| AddressPattern::parse(text).map_err(|error| usage(error.to_string()));
    texts.iter().map(read).collect()
}
