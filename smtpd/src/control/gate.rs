//! The one door of the interface: who may ask what, from where, and how much.
//!
//! In: a request and the credentials of its connection. Out: the same request with its body read
//! whole and its [`Caller`] known, or a refusal. The role a request needs follows from its method
//! and path in one table, so that a new path is for admins until somebody decides otherwise.
//! Browsers are refused (Origin, Referer, a foreign Host), because a page that a person has open
//! must not be able to give orders in their name.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mailroot_common::config::control::Role;
use mailroot_common::control::{Kind, Problem};

use super::App;
use super::answer::Refused;
use super::caller::{Caller, Credentials};
use crate::observe::{Level, Line};

/// The largest body of a request: ten thousand ids fit.
const BODY_OCTETS_MAX: usize = 1 << 20;
/// How long a client may take to send its body.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// Begins the line that tells of an operator's deed. The service itself tells of changes of its
/// configuration and of its virtual servers.
pub(super) fn tell<'app>(app: &'app App, caller: &Caller, action: &'static str) -> Line<'app> {
    app.service
        .log()
        .line(Level::Info, "operator")
        .word("actor", &caller.name)
        .word("role", caller.role.word())
        .word("uid", caller.credentials.uid)
        .maybe("pid", caller.credentials.pid)
        .word("action", action)
}

/// The layer around every handler.
pub(super) async fn pass(State(app): State<App>, request: Request, next: Next) -> Response {
    match admit(&app, request).await {
        Ok(request) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

async fn admit(app: &App, request: Request) -> Result<Request, Refused> {
    refuse_browsers(request.headers())?;
    let credentials = request.extensions().get::<Credentials>().copied();
    let credentials = credentials.ok_or_else(|| {
        Problem::new("caller", Kind::NotPermitted, "the connection has no credentials")
    })?;
    let needed = needed(request.method(), request.uri().path());
    let admitted = app.people.admit(credentials, &app.service.operators(), needed).await;
    let caller: Caller = admitted.inspect_err(|problem| {
        let line = app.service.log().line(Level::Warn, "control-refused");
        line.word("uid", credentials.uid)
            .maybe("pid", credentials.pid)
            .word("method", request.method())
            .text("path", request.uri().path())
            .word("reason", problem)
            .send();
    })?;
    let (mut parts, body) = request.into_parts();
    let body = read_body(body).await?;
    parts.extensions.insert(caller);
    Ok(Request::from_parts(parts, Body::from(body)))
}

async fn read_body(body: Body) -> Result<Bytes, Refused> {
    let read = tokio::time::timeout(BODY_WAIT, to_bytes(body, BODY_OCTETS_MAX)).await;
    match read {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => {
            let detail = format!("the body is over {BODY_OCTETS_MAX} octets, or broken: {error}");
            Err(Problem::new("request", Kind::Usage, detail).into())
        }
        Err(_) => {
            Err(Problem::new("request", Kind::TimedOut, "the body did not arrive in time").into())
        }
    }
}

fn refuse_browsers(headers: &HeaderMap) -> Result<(), Refused> {
    let foreign = |what: &str| {
        let detail =
            format!("requests with {what} are refused: this interface is not for browsers");
        Err(Refused(Problem::new("request", Kind::NotPermitted, detail)))
    };
    if headers.contains_key(header::ORIGIN) {
        return foreign("Origin");
    }
    if headers.contains_key(header::REFERER) {
        return foreign("Referer");
    }
    let hosts: Vec<_> = headers.get_all(header::HOST).iter().collect();
    let is_ours = |host: &[u8]| matches!(host, b"" | b"localhost" | b"mailroot");
    if hosts.len() > 1 || hosts.iter().any(|host| !is_ours(host.as_bytes())) {
        return foreign("a Host other than localhost");
    }
    Ok(())
}

/// The role that a request needs.
fn needed(method: &Method, path: &str) -> Role {
    if method == Method::GET || method == Method::HEAD {
        return if path.ends_with("/content") { Role::Operator } else { Role::Viewer };
    }
    if method != Method::POST {
        return Role::Admin;
    }
    let parts: Vec<_> = path.split('/').skip(2).collect();
    match parts.as_slice() {
        ["servers", _, "start" | "stop" | "pause" | "resume"]
        | ["sessions", "kill"]
        | ["queue", "do", _]
        | ["badmail", "do", _] => Role::Operator,
        _ => Role::Admin,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn every_verb_needs_its_role() {
        let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
        for (method, path, role) in [
            (&get, "/v1/version", Role::Viewer),
            (&get, "/v1/status", Role::Viewer),
            (&get, "/v1/config/check", Role::Viewer),
            (&get, "/v1/servers", Role::Viewer),
            (&get, "/v1/servers/default", Role::Viewer),
            (&get, "/v1/servers/default/domains", Role::Viewer),
            (&get, "/v1/sessions", Role::Viewer),
            (&get, "/v1/queue", Role::Viewer),
            (&get, "/v1/queue/6FZK", Role::Viewer),
            (&get, "/v1/queue/6FZK/content", Role::Operator),
            (&get, "/v1/badmail", Role::Viewer),
            (&get, "/v1/badmail/6FZK", Role::Viewer),
            (&get, "/v1/badmail/6FZK/content", Role::Operator),
            (&post, "/v1/servers/default/start", Role::Operator),
            (&post, "/v1/servers/default/stop", Role::Operator),
            (&post, "/v1/servers/default/pause", Role::Operator),
            (&post, "/v1/servers/default/resume", Role::Operator),
            (&post, "/v1/sessions/kill", Role::Operator),
            (&post, "/v1/queue/do/flush", Role::Operator),
            (&post, "/v1/queue/do/remove", Role::Operator),
            (&post, "/v1/badmail/do/requeue", Role::Operator),
            (&post, "/v1/badmail/do/purge", Role::Operator),
            (&post, "/v1/reload", Role::Admin),
            (&post, "/v1/servers", Role::Admin),
            (&post, "/v1/servers/default/domains", Role::Admin),
            (&delete, "/v1/servers/default/domains/a.example", Role::Admin),
            (&post, "/v1/of/the/future", Role::Admin),
            (&Method::PUT, "/v1/queue", Role::Admin),
        ] {
            assert_eq!(needed(method, path), role, "{method} {path}");
        }
    }

    #[test]
    fn browsers_are_refused() {
        for (name, value, refused) in [
            ("host", "localhost", false),
            ("host", "mailroot", false),
            ("host", "evil.example", true),
            ("host", "localhost.evil.example", true),
            ("origin", "null", true),
            ("origin", "http://localhost", true),
            ("referer", "http://localhost/", true),
            ("accept", "*/*", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static(value),
            );
            assert_eq!(refuse_browsers(&headers).is_err(), refused, "{name}: {value}");
        }
        let mut two = HeaderMap::new();
        two.append("host", HeaderValue::from_static("localhost"));
        two.append("host", HeaderValue::from_static("localhost"));
        assert!(refuse_browsers(&two).is_err());
    }
}
