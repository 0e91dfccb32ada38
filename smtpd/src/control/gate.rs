//! The one door of the interface: who may ask what, from where, and how much.
//!
//! In: a request and the credentials of its connection. Out: the same request with its body read
//! whole and its [`Caller`] known, or a refusal. Which role a request needs is said by the table of
//! [`endpoint`]; what is not in the table is for admins.
//! Browsers are refused (Origin, Referer, a foreign Host), because a page that a person has open
//! must not be able to give orders in their name.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mailroot_common::config::ServerName;
use mailroot_common::control::{Kind, Problem, path};

use super::App;
use super::answer::Refused;
use super::caller::{Caller, Reach};
use super::endpoint;
use super::listen::Door;
use crate::local::Credentials;
use crate::observe::{Level, Line};

/// The largest body of a request: ten thousand ids fit.
const BODY_OCTETS_MAX: usize = 1 << 20;
/// How long a client may take to send its body.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// Begins the line that tells of a deed. The service itself tells of changes of its configuration
/// and of its virtual servers.
pub(super) fn tell<'app>(
    app: &'app App,
    event: &'static str,
    server: &str,
    id: Option<&str>,
    caller: &Caller,
) -> Line<'app> {
    app.service
        .log()
        .line(Level::Info, event)
        .word("server", server)
        .maybe("id", id)
        .word("actor", &caller.name)
        .word("role", caller.role.word())
        .word("uid", caller.credentials.uid)
        .maybe("pid", caller.credentials.pid)
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
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let matched = matched.as_ref().map_or("", MatchedPath::as_str);
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let (caller, reach) = match request.extensions().get::<Door>().copied() {
        Some(Door::Submit) => {
            if !endpoint::is_for_owners(&method, matched) {
                let detail = "the submit socket answers questions about one's own mail alone";
                return Err(Problem::new("caller", Kind::NotPermitted, detail).into());
            }
            app.judge.owner(credentials).await
        }
        Some(Door::Control) | None => judge(app, credentials, (&method, &uri), matched).await?,
    };
    let streams = endpoint::takes_octets(&method, matched);
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(caller);
    parts.extensions.insert(reach);
    if streams {
        return Ok(Request::from_parts(parts, body));
    }
    let body = read_body(body).await?;
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// Who asks over the control socket, if they may.
async fn judge(
    app: &App,
    credentials: Credentials,
    (method, uri): (&Method, &Uri),
    matched: &str,
) -> Result<(Caller, Reach), Problem> {
    let need = endpoint::need(method, matched);
    let named = named_server(uri.path());
    let admitted =
        app.judge.admit(credentials, &app.service.operators(), need, named.as_ref()).await;
    admitted.inspect_err(|problem| {
        let line = app.service.log().line(Level::Warn, "control-refused");
        line.word("uid", credentials.uid)
            .maybe("pid", credentials.pid)
            .word("method", method)
            // So that an address in it is known as one.
            .text("path", uri.path().replace("%40", "@"))
            .word("reason", problem)
            .send();
    })
}

/// The virtual server that a path names. A name has no character that would be encoded, so one
/// that is encoded names none.
fn named_server(path: &str) -> Option<ServerName> {
    let below = path.strip_prefix(path::SERVERS)?.strip_prefix('/')?;
    ServerName::parse(below.split('/').next()?).ok()
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

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn the_server_of_a_path_is_found_or_nobody_is_meant() {
        let name = |path| named_server(path).map(|name| name.to_string());
        assert_eq!(name("/v1/servers/lan/stop").as_deref(), Some("lan"));
        assert_eq!(name("/v1/servers/lan").as_deref(), Some("lan"));
        for other in ["/v1/servers", "/v1/servers/", "/v1/servers/%6can", "/v1/queue/lan"] {
            assert_eq!(name(other), None, "{other}");
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
