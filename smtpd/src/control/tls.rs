//! `/v1/tls-hosts`: hosts that have proved who they are, and are not trusted with less.

use axum::Extension;
use mailroot_common::address::Domain;
use mailroot_common::control::{Kind, Problem, TlsHost};

use super::App;
use super::answer::{Answer, object, usage};
use super::caller::Caller;
use super::extract::Path;
use super::gate::tell;

/// All of them, by name.
pub(super) async fn list(app: App) -> Answer<Vec<TlsHost>> {
    object(app.service.tls_hosts())
}

/// Forgets one: it may show any certificate, or none, until it shows a good one again.
pub(super) async fn forget(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(host): Path<String>,
) -> Answer<TlsHost> {
    let name = Domain::parse(&host).map_err(|error| usage(format!("{host:?}: {error}")))?;
    let forgotten = app.service.forget_tls_host(&name).await;
    let forgotten = forgotten.map_err(|error| {
        let detail = format!("{name} is forgotten until the daemon ends: {error}");
        Problem::new("tls", Kind::Failed, detail)
    })?;
    let Some(forgotten) = forgotten else {
        let detail = format!("no certificate of {name} is remembered");
        let problem = Problem::new("tls", Kind::NotFound, detail);
        return Err(problem.hint("smtpctl tls list").into());
    };
    tell(&app, "tls-forgotten", "", None, &caller).word("host", &name).send();
    object(forgotten)
}
