//! `/v1/servers/{server}/decide` and `…/access`: what a virtual server would decide, and by which
//! lists.

use axum::body::Bytes;
use mailroot_common::address::Mailbox;
use mailroot_common::control::{AccessList, Decision, Kind, Problem, Question};

use super::App;
use super::answer::{Answer, object, read, usage};
use super::extract::Path;
use super::server::read_name;
use crate::service::ServiceError;

/// Judges a client and a recipient as a session would.
pub(super) async fn decide(app: App, Path(server): Path<String>, body: Bytes) -> Answer<Decision> {
    let name = read_name(&server)?;
    let Question { client, to, from, look_up } = read(&body)?;
    let client = client
        .map(|text| text.parse().map_err(|_| usage(format!("{text:?} is no address of a client"))))
        .transpose()?;
    let mailbox = |text: String| Mailbox::parse(&text).map_err(|error| usage(error.to_string()));
    let (to, from) = (to.map(mailbox).transpose()?, from.map(mailbox).transpose()?);
    if client.is_none() && to.is_none() {
        return Err(usage("nothing is asked: name a client, a recipient, or both"));
    }
    let server = app.service.server(&name).ok_or(ServiceError::NoServer(name))?;
    let decided = server.decide(client, to.as_ref(), from.as_ref(), look_up).await;
    object(decided.map_err(|error| Problem::new("server", Kind::Failed, error.to_string()))?)
}

/// One of its lists.
pub(super) async fn list(
    app: App,
    Path((server, list)): Path<(String, String)>,
) -> Answer<AccessList> {
    let name = read_name(&server)?;
    let server = app.service.server(&name).ok_or(ServiceError::NoServer(name))?;
    let found = server.access_list(&list);
    let detail = || format!("{list:?} is no list: connect or relay");
    object(found.ok_or_else(|| Problem::new("access", Kind::NotFound, detail()))?)
}
