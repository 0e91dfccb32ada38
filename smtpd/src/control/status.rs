//! `GET /v1/version` and `/v1/status`.

use mailroot_common::control::{API_VERSION, Status, Version};

use super::App;
use super::answer::{Answer, object};
use super::caller::Reach;

/// Which daemon answers.
pub(super) async fn version() -> Answer<Version> {
    let platform = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    object(Version { version: env!("CARGO_PKG_VERSION").to_owned(), api: API_VERSION, platform })
}

/// The state of everything.
pub(super) async fn status(app: App) -> Answer<Status> {
    object(app.service.status(&app.all(), app.reach == Reach::All).await)
}
