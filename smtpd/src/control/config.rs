//! `POST /v1/reload` and `GET /v1/config/check`.

use axum::Extension;
use axum::extract::State;
use mailroot_common::control::{ConfigReport, Kind, Problem, Reloaded};

use super::App;
use super::answer::{Answer, object};
use super::caller::Caller;

/// Reads the configuration again: all of it, or nothing changes.
pub(super) async fn reload(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Answer<Reloaded> {
    object(app.service.reload(&caller.name).await?)
}

/// Checks the files as they lie there.
pub(super) async fn check(State(app): State<App>) -> Answer<ConfigReport> {
    let service = app.service.clone();
    let checked = tokio::task::spawn_blocking(move || service.check_config()).await;
    let failed = |_| Problem::new("config", Kind::Failed, "the check broke off");
    object(checked.map_err(failed)?)
}
