//! `/v1/servers`: virtual servers.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use mailroot_common::address::Domain;
use mailroot_common::config::{HostPort, Profile, ServerName};
use mailroot_common::control::server::VerbRequest;
use mailroot_common::control::{Kind, NewServer, Problem, Server, ServerDetail, Verb};
use mailroot_common::units::Span;

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use crate::config::ServerSpec;

/// Reads the name of a server; one that cannot be a name is the name of none.
pub(super) fn read_name(text: &str) -> Result<ServerName, Refused> {
    ServerName::parse(text).map_err(|_| {
        let detail = format!("there is no virtual server {text:?}");
        let hint = "smtpctl server list names them";
        Problem::new("server", Kind::NotFound, detail).hint(hint).into()
    })
}

/// All of them.
pub(super) async fn list(State(app): State<App>) -> Answer<Vec<Server>> {
    object(app.service.servers().await)
}

/// One with its settings.
pub(super) async fn show(State(app): State<App>, Path(name): Path<String>) -> Answer<ServerDetail> {
    object(app.service.detail(&read_name(&name)?).await?)
}

/// Start, stop, pause, resume.
pub(super) async fn verb(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((name, verb)): Path<(String, String)>,
    body: Bytes,
) -> Answer<Server> {
    let verb: Verb = verb.parse().map_err(|error| usage(format!("{error}")))?;
    let name = read_name(&name)?;
    let VerbRequest { reason, span } = read(&body)?;
    let span = span.as_deref().map(Span::parse).transpose();
    let span = span.map_err(|error| usage(format!("for: {error}")))?;
    object(app.service.server_verb(&name, verb, reason, span, &caller.name).await?)
}

/// A new one.
pub(super) async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<Server> {
    let wish: NewServer = read(&body)?;
    let (name, spec) = read_spec(&wish, || app.service.hostname())?;
    object(app.service.create_server(&name, &spec, &caller.name, wish.dry_run).await?)
}

fn read_spec(
    wish: &NewServer,
    hostname: impl FnOnce() -> Domain,
) -> Result<(ServerName, ServerSpec), Refused> {
    let name = ServerName::parse(&wish.name).map_err(|error| usage(error.to_string()))?;
    let domain = match &wish.domain {
        Some(text) => Domain::parse(text).map_err(|error| usage(error.to_string()))?,
        None => hostname(),
    };
    let smart_host = wish.smart_host.as_deref().map(read_host).transpose()?;
    let profile = match wish.profile.as_deref() {
        None | Some("modern") => Profile::Modern,
        Some("iis6") => Profile::Iis6,
        Some(other) => return Err(usage(format!("{other:?} is no profile: modern or iis6"))),
    };
    let spec = ServerSpec {
        listen: wish.listen.clone(),
        domain,
        root: wish.root.clone(),
        smart_host: smart_host.into_iter().collect(),
        profile,
        enabled: !wish.stopped,
    };
    Ok((name, spec))
}

/// Reads `host[:port]`.
pub(super) fn read_host(text: &str) -> Result<HostPort, Refused> {
    HostPort::parse(text)
        .ok_or_else(|| usage(format!("{text:?} is no host: write relay.example:25 or [192.0.2.1]")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostname() -> Domain {
        Domain::parse("relay.example").unwrap()
    }

    #[test]
    fn a_wish_becomes_a_specification() {
        let wish = NewServer { name: "lan".to_owned(), ..NewServer::default() };
        let (name, spec) = read_spec(&wish, hostname).unwrap();
        assert_eq!((name.as_str(), spec.domain), ("lan", hostname()));
        assert!(spec.enabled && spec.smart_host.is_empty());
        let wish = NewServer {
            domain: Some("Example.NET".to_owned()),
            smart_host: Some("isp.example:587".to_owned()),
            profile: Some("iis6".to_owned()),
            stopped: true,
            ..wish
        };
        let (_, spec) = read_spec(&wish, hostname).unwrap();
        assert_eq!(spec.domain.as_str(), "example.net");
        assert_eq!(spec.smart_host[0].port, Some(587));
        assert_eq!((spec.profile, spec.enabled), (Profile::Iis6, false));
    }

    #[test]
    fn a_wish_that_makes_no_sense_is_a_usage_error() {
        let good = NewServer { name: "lan".to_owned(), ..NewServer::default() };
        let text = |text: &str| Some(text.to_owned());
        for wish in [
            NewServer { name: "../etc".to_owned(), ..good.clone() },
            NewServer { domain: text("a b"), ..good.clone() },
            NewServer { smart_host: text("a b"), ..good.clone() },
            NewServer { profile: text("exchange"), ..good },
        ] {
            let Refused(problem) = read_spec(&wish, hostname).unwrap_err();
            assert_eq!(problem.exit, 2, "{wish:?}");
        }
        let Refused(problem) = read_name("../etc").unwrap_err();
        assert_eq!(problem.exit, 3);
    }
}
