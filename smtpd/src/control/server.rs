//! `/v1/servers`: virtual servers.

use axum::Extension;
use axum::body::Bytes;
use mailroot_common::address::Domain;
use mailroot_common::config::control::Role;
use mailroot_common::config::{Hop, Profile, ServerName};
use mailroot_common::control::server::VerbRequest;
use mailroot_common::control::{
    CloneServer, Edited, FileText, KeyEdits, Kind, NewServer, Problem, Rename, Server,
    ServerDetail, Verb,
};
use mailroot_common::units::Span;
use serde::Deserialize;

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use super::extract::{Path, Query};
use super::terms::Wanted;
use crate::config::{ServerSpec, Template};
use crate::service::{Goes, Turn};
use crate::virtual_server::Ending;

/// The longest wait for sessions of a server that is stopped; nothing else is changed meanwhile.
const DRAIN_MAX: Span = Span::minutes(10);

/// Reads the name of a server; one that cannot be a name is the name of none.
pub(super) fn read_name(text: &str) -> Result<ServerName, Refused> {
    ServerName::parse(text).map_err(|_| {
        let detail = format!("there is no virtual server {text:?}");
        let hint = "smtpctl server list names them";
        Problem::new("server", Kind::NotFound, detail).hint(hint).into()
    })
}

/// All of them.
pub(super) async fn list(app: App) -> Answer<Vec<Server>> {
    let mut servers = Vec::new();
    for server in app.all() {
        servers.push(server.describe().await);
    }
    object(servers)
}

/// One with its settings.
pub(super) async fn show(app: App, Path(name): Path<String>) -> Answer<ServerDetail> {
    object(app.service.detail(&read_name(&name)?).await?)
}

/// Start, stop, pause, resume.
pub(super) async fn verb(
    app: App,
    Extension(caller): Extension<Caller>,
    Path((name, verb)): Path<(String, String)>,
    Wanted(asked): Wanted,
    body: Bytes,
) -> Answer<Server> {
    let verb: Verb = verb.parse().map_err(|error| usage(format!("{error}")))?;
    let name = read_name(&name)?;
    let request: VerbRequest = read(&body)?;
    let ending = read_ending(verb, &request)?;
    let VerbRequest { reason, persist, span, .. } = request;
    if persist && !matches!(verb, Verb::Start | Verb::Stop) {
        return Err(usage(
            "a file can say that a server is started or stopped, not that it is paused",
        ));
    }
    if persist && caller.role < Role::Admin {
        let detail = "only an admin may change what the file says";
        return Err(Problem::new("caller", Kind::NotPermitted, detail).into());
    }
    let span = span.as_deref().map(Span::parse).transpose();
    let span = span.map_err(|error| usage(format!("for: {error}")))?;
    let turn = Turn { verb, reason, span, persist, ending };
    object(app.service.server_verb(&name, turn, &asked).await?)
}

/// How the sessions of a server end that is stopped or paused.
fn read_ending(verb: Verb, request: &VerbRequest) -> Result<Ending, Refused> {
    let drain = request.drain.as_deref().map(Span::parse).transpose();
    let drain = drain.map_err(|error| usage(format!("drain: {error}")))?;
    match (drain, request.kill_sessions) {
        (None, false) => Ok(Ending::Usual),
        (Some(_), true) => Err(usage("sessions are either waited for or ended at once")),
        (Some(_), _) if verb != Verb::Stop => Err(usage("only who stops waits for sessions")),
        (Some(span), _) if span > DRAIN_MAX => {
            Err(usage(format!("drain: sessions are waited for at most {DRAIN_MAX}")))
        }
        (Some(span), _) => Ok(Ending::Drain(span.as_duration())),
        (None, true) if matches!(verb, Verb::Stop | Verb::Pause) => Ok(Ending::Kill),
        (None, true) => Err(usage("sessions are ended when a server is stopped or paused")),
    }
}

/// A new one.
pub(super) async fn create(app: App, Wanted(asked): Wanted, body: Bytes) -> Answer<Server> {
    let (name, spec) = read_spec(&read(&body)?, || app.service.hostname())?;
    object(app.service.create_server(&name, &spec, &asked).await?)
}

/// A copy of one.
pub(super) async fn copy(
    app: App,
    Path(name): Path<String>,
    Wanted(asked): Wanted,
    body: Bytes,
) -> Answer<Server> {
    let CloneServer { to, listen } = read(&body)?;
    let to = ServerName::parse(&to).map_err(|error| usage(error.to_string()))?;
    object(app.service.clone_server(&read_name(&name)?, &to, &listen, &asked).await?)
}

/// Other values for keys of its file.
pub(super) async fn edit(
    app: App,
    Path(name): Path<String>,
    Wanted(asked): Wanted,
    body: Bytes,
) -> Answer<Edited> {
    let KeyEdits { edits } = read(&body)?;
    object(app.service.edit_keys(Some((&read_name(&name)?, None)), &edits, &asked).await?)
}

/// Another text of its file, or its first one.
pub(super) async fn put(
    app: App,
    Path(name): Path<String>,
    Wanted(asked): Wanted,
    body: Bytes,
) -> Answer<Edited> {
    let FileText { text } = read(&body)?;
    let name = ServerName::parse(&name).map_err(|error| usage(error.to_string()))?;
    object(app.service.put_server(&name, &text, &asked).await?)
}

/// Another name.
pub(super) async fn rename(
    app: App,
    Path(name): Path<String>,
    Wanted(asked): Wanted,
    body: Bytes,
) -> Answer<Edited> {
    let Rename { to } = read(&body)?;
    let to = ServerName::parse(&to).map_err(|error| usage(error.to_string()))?;
    object(app.service.rename_server(&read_name(&name)?, &to, &asked).await?)
}

/// What goes with it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Deletion {
    #[serde(default)]
    discard_queue: bool,
    #[serde(default)]
    purge_store: bool,
}

/// Its end.
pub(super) async fn delete(
    app: App,
    Path(name): Path<String>,
    Query(Deletion { discard_queue, purge_store }): Query<Deletion>,
    Wanted(asked): Wanted,
) -> Answer<Edited> {
    let goes = Goes { queue: discard_queue, store: purge_store };
    object(app.service.delete_server(&read_name(&name)?, goes, &asked).await?)
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
    let smart_host = wish.smart_host.as_deref().map(read_hop).transpose()?;
    let profile = match wish.profile.as_deref() {
        None | Some("modern") => Profile::Modern,
        Some("iis6") => Profile::Iis6,
        Some(other) => return Err(usage(format!("{other:?} is no profile: modern or iis6"))),
    };
    let template = wish.template.as_deref().map(Template::named).transpose();
    let spec = ServerSpec {
        template: template.map_err(|error| usage(error.to_string()))?,
        listen: wish.listen.clone(),
        domain,
        root: wish.root.clone(),
        smart_host: smart_host.into_iter().collect(),
        profile,
        enabled: !wish.stopped,
    };
    Ok((name, spec))
}

/// Reads `host[:port]` or `smarthost:NAME`.
pub(super) fn read_hop(text: &str) -> Result<Hop, Refused> {
    Hop::parse(text).ok_or_else(|| {
        usage(format!("{text:?} is no host: write relay.example:25, [192.0.2.1] or smarthost:NAME"))
    })
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
        assert_eq!(spec.smart_host, [Hop::parse("isp.example:587").unwrap()]);
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
            NewServer { template: text("open-relay"), ..good.clone() },
            NewServer { profile: text("exchange"), ..good },
        ] {
            let Refused(problem) = read_spec(&wish, hostname).unwrap_err();
            assert_eq!(problem.exit, 2, "{wish:?}");
        }
        let Refused(problem) = read_name("../etc").unwrap_err();
        assert_eq!(problem.exit, 3);
    }
}
