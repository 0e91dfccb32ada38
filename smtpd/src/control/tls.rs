//! `/v1/tls-hosts`: hosts that have proved who they are, and are not trusted with less; `/v1/tls-reports`:
//! what other domains are told of TLS.

use axum::Extension;
use axum::body::Bytes;
use mailroot_common::address::Domain;
use mailroot_common::control::{Kind, Problem, TlsHost, TlsReport, TlsReportWish, TlsReportsBegun};
use serde_json::Value;

use super::App;
use super::answer::{Answer, object, read, usage};
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

/// What is counted of TLS for other domains, and what waits.
pub(super) async fn reports(app: App) -> Answer<Vec<TlsReport>> {
    object(app.service.tls_reports())
}

/// The reports about a domain as they are sent.
pub(super) async fn report(app: App, Path(domain): Path<String>) -> Answer<Vec<Value>> {
    let name = Domain::parse(&domain).map_err(|error| usage(format!("{domain:?}: {error}")))?;
    let reports = app.service.tls_reports_about(&name)?;
    let reports: Vec<Value> =
        reports.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    if reports.is_empty() {
        let detail = format!("no connection to hosts of {name} was counted");
        let problem = Problem::new("tls", Kind::NotFound, detail);
        return Err(problem.hint("smtpctl tls report list").into());
    }
    object(reports)
}

/// Sends reports now, in the background.
pub(super) async fn send(
    app: App,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<TlsReportsBegun> {
    let wish: TlsReportWish = read(&body)?;
    let domain = wish.domain.as_deref().map(Domain::parse).transpose();
    let domain = domain.map_err(|error| usage(format!("domain: {error}")))?;
    let reports = app.service.hasten_tls_reports(domain.as_ref())?;
    let line = tell(&app, "tls-reports-hastened", "", None, &caller);
    line.word("reports", reports).send();
    object(TlsReportsBegun { reports })
}
