//! `/v1/log`: where the log goes, and how much it tells.

use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use mailroot_common::control::{Kind, LogState, LogWish, Problem};
use mailroot_common::net::Network;

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use super::gate::tell;
use crate::observe::Level;

/// As it is now.
pub(super) async fn show(app: App) -> Answer<LogState> {
    object(app.service.log_state())
}

/// Tells more for a while, or no longer.
pub(super) async fn raise(
    app: App,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<LogState> {
    let wish: LogWish = read(&body)?;
    let span = wish.seconds.unwrap_or(LogWish::SECONDS);
    if span == 0 || span > LogWish::SECONDS_MAX {
        let most = LogWish::SECONDS_MAX;
        return Err(usage(format!("for: {span} is not from 1 to {most} seconds")));
    }
    let client = wish.client.as_deref().map(Network::parse).transpose();
    let client = client.map_err(|error| usage(format!("client: {error}")))?;
    let level = wish.level.as_deref().map(level).transpose()?;
    if level.is_none() && (client.is_some() || wish.seconds.is_some()) {
        return Err(usage("level is missing".to_owned()));
    }
    let configured = app.service.log().style().level;
    if let Some(level) = level.filter(|level| *level <= configured) {
        let (level, told) = (level.as_str(), configured.as_str());
        let detail = format!("level: {level} tells no more than logging.level, which is {told}");
        let hint = format!("smtpctl config set logging.level={level} has less told");
        return Err(Problem::new("logs", Kind::Usage, detail).hint(hint).into());
    }
    app.service.raise_log(level.map(|level| (level, Duration::from_secs(span), client)));
    let line = tell(&app, "log-level", "", None, &caller);
    line.word("level", level.map_or("configured", Level::as_str))
        .maybe("for", level.map(|_| span))
        .maybe("network", client)
        .send();
    object(app.service.log_state())
}

/// Opens its file anew, after it was moved away.
pub(super) async fn reopen(app: App, Extension(caller): Extension<Caller>) -> Answer<LogState> {
    app.service.reopen_log().await?;
    tell(&app, "log-reopened", "", None, &caller).send();
    object(app.service.log_state())
}

fn level(word: &str) -> Result<Level, Refused> {
    let all = [Level::Error, Level::Warn, Level::Info, Level::Debug];
    let found = all.into_iter().find(|level| level.as_str() == word);
    found.ok_or_else(|| usage(format!("level: {word:?} is not error, warn, info or debug")))
}
