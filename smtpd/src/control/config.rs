//! `/v1/config` and `/v1/reload`: the files, their history, and who may change them.

use axum::Extension;
use axum::body::Bytes;
use mailroot_common::control::{
    ConfigDiff, ConfigFiles, ConfigReport, Edited, KeyEdits, Kind, Problem, Reloaded, Revision,
    Seal, Setting, Terms,
};
use serde::Deserialize;

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use super::extract::{Path, Query};
use super::terms::Wanted;
use crate::config::{self, EditError};
use crate::service::{Asked, ROLLBACK, Service, ServiceError};

/// How many revisions are listed unless fewer are asked for: all that are kept.
const REVISIONS_MAX: usize = 1_000;

/// Reads the configuration again: all of it, or nothing changes.
pub(super) async fn reload(app: App, Extension(caller): Extension<Caller>) -> Answer<Reloaded> {
    object(app.service.reload(&caller.name).await?)
}

/// Does what reads files, beside the runtime.
async fn aside<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(Service) -> T + Send + 'static,
) -> Result<T, Refused> {
    let service = app.service.clone();
    let done = tokio::task::spawn_blocking(move || work(service)).await;
    let failed = |_| Problem::new("config", Kind::Failed, "the work broke off");
    Ok(done.map_err(failed)?)
}

/// Checks the files as they lie there.
pub(super) async fn check(app: App) -> Answer<ConfigReport> {
    object(aside(&app, |service| service.check_config()).await?)
}

/// The keys of `mailroot.yaml`.
pub(super) async fn show(app: App) -> Answer<Vec<Setting>> {
    let active = app.service.active();
    let paths = app.service.paths();
    let mut settings: Vec<Setting> =
        active.service.effective().into_iter().map(Setting::from).collect();
    let config = &active.service;
    for setting in &mut settings {
        match setting.key.as_str() {
            "service.hostname" => setting.comes_to(active.hostname.as_str()),
            "service.store" if config.service.store.is_none() => {
                setting.comes_to(paths.spool.display().to_string());
            }
            "control.socket" if config.control.socket.is_none() => {
                setting.comes_to(paths.control_socket.display().to_string());
            }
            _ => {}
        }
    }
    object(settings)
}

/// Other values for them.
pub(super) async fn edit(app: App, Wanted(asked): Wanted, body: Bytes) -> Answer<Edited> {
    let KeyEdits { edits } = read(&body)?;
    object(app.service.edit_keys(None, &edits, &asked).await?)
}

/// The texts in force.
pub(super) async fn files(app: App) -> Answer<ConfigFiles> {
    object(app.service.active().texts())
}

/// Other texts for all files. A lock of the configuration is no obstacle: whoever sends the whole
/// of it manages the host.
pub(super) async fn put_files(app: App, Wanted(asked): Wanted, body: Bytes) -> Answer<Edited> {
    let asked = Asked { unsealed: true, ..asked };
    object(app.service.put_config(read(&body)?, &asked).await?)
}

/// How many are wanted.
#[derive(Debug, Deserialize)]
pub(super) struct Limit {
    #[serde(default)]
    limit: Option<usize>,
}

/// What was in force, newest first.
pub(super) async fn history(
    app: App,
    Query(Limit { limit }): Query<Limit>,
) -> Answer<Vec<Revision>> {
    let limit = limit.unwrap_or(REVISIONS_MAX).min(REVISIONS_MAX);
    object(aside(&app, move |service| config::revisions(service.paths(), limit)).await?)
}

/// The texts of a revision.
pub(super) async fn revision(app: App, Path(revision): Path<String>) -> Answer<ConfigFiles> {
    let number = read_revision(&revision)?;
    let found = aside(&app, move |service| config::texts(service.paths(), number)).await?;
    object(found.ok_or_else(|| ServiceError::from(EditError::NoRevision(number)))?)
}

fn read_revision(text: &str) -> Result<u64, Refused> {
    text.parse().map_err(|_| usage(format!("{text:?} is no revision: write a number")))
}

/// Between what.
#[derive(Debug, Deserialize)]
pub(super) struct Between {
    from: Option<u64>,
    to: Option<u64>,
}

/// What differs between two revisions; from the one in force, to what lies there.
pub(super) async fn diff(
    app: App,
    Query(Between { from, to }): Query<Between>,
) -> Answer<ConfigDiff> {
    let compared = aside(&app, move |service| {
        let from = from.unwrap_or_else(|| service.active().revision);
        config::compare(service.paths(), from, to)
    });
    object(compared.await?.map_err(ServiceError::from)?)
}

/// Goes back to a revision.
pub(super) async fn roll_back(
    app: App,
    Path(revision): Path<String>,
    Wanted(asked): Wanted,
) -> Answer<Edited> {
    let asked = Asked { how: ROLLBACK, ..asked };
    object(app.service.roll_back(read_revision(&revision)?, &asked).await?)
}

/// Gives all files their usual form.
pub(super) async fn format(app: App, Wanted(asked): Wanted) -> Answer<Edited> {
    let mut asked = asked;
    asked.terms.message.get_or_insert_with(|| "formatted".to_owned());
    object(app.service.format_config(&asked).await?)
}

/// Keeps the change that is on trial.
pub(super) async fn confirm(app: App, Extension(caller): Extension<Caller>) -> Answer<Edited> {
    let revision = app.service.confirm(&caller.name).await?;
    object(Edited { changed: true, revision, ..Edited::default() })
}

/// Whether edits are refused, and with which words.
pub(super) async fn seal(app: App) -> Answer<Seal> {
    object(Seal { reason: config::seal(app.service.paths()) })
}

/// Locks or unlocks.
pub(super) async fn set_seal(
    app: App,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<Seal> {
    let seal: Seal = read(&body)?;
    if let Some(reason) = &seal.reason
        && (reason.trim().is_empty() || reason.len() > Terms::MESSAGE_MAX)
    {
        let max = Terms::MESSAGE_MAX;
        return Err(usage(format!("say why in at most {max} octets")));
    }
    app.service.seal(seal.reason.as_deref(), &caller.name).await?;
    object(seal)
}
