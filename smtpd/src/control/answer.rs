//! From results to HTTP: problems, objects, and the errors of the rooms below.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use mailroot_common::control::problem::MEDIA_TYPE;
use mailroot_common::control::selector::SelectorError;
use mailroot_common::control::{Kind, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::badmail::BadmailError;
use crate::config::EditError;
use crate::queue::{CommitError, ReadError};
use crate::service::ServiceError;
use crate::users::UserError;

/// A problem on its way out.
#[derive(Debug)]
pub(super) struct Refused(pub(super) Problem);

/// What a handler answers with.
pub(super) type Answer<T> = Result<Json<T>, Refused>;

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], Json(self.0)).into_response()
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<SelectorError> for Refused {
    fn from(error: SelectorError) -> Self {
        Self(Problem::new("selector", Kind::Usage, error.to_string()))
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        Self(Problem::new("queue", Kind::Failed, error.to_string()))
    }
}

impl From<CommitError> for Refused {
    fn from(error: CommitError) -> Self {
        Self(Problem::new("queue", Kind::Failed, error.to_string()))
    }
}

impl From<BadmailError> for Refused {
    fn from(error: BadmailError) -> Self {
        let kind = match &error {
            BadmailError::Unknown(_) => Kind::NotFound,
            BadmailError::Stopping => Kind::Unavailable,
            BadmailError::Files { .. } => Kind::Failed,
        };
        Self(Problem::new("badmail", kind, error.to_string()))
    }
}

impl From<ServiceError> for Refused {
    fn from(error: ServiceError) -> Self {
        let text = error.to_string();
        Self(match error {
            ServiceError::NoServer(_) => {
                Problem::new("server", Kind::NotFound, text).hint("smtpctl server list names them")
            }
            ServiceError::NobodyToCall => {
                Problem::new("server", Kind::NotFound, text).hint("smtpctl server create makes one")
            }
            ServiceError::Config(failed) => {
                invalid("the configuration has errors; the one before stays in force", &failed)
            }
            ServiceError::Edit(error) => edit_problem(error),
            ServiceError::Start { .. } => {
                Problem::new("server", Kind::Failed, text).word("not_started")
            }
            ServiceError::Token { .. } => Problem::new("smarthost", Kind::Failed, text)
                .word("token")
                .hint("look at its settings with smtpctl smarthost show"),
            ServiceError::NoTokens(_) => Problem::new("smarthost", Kind::Conflict, text)
                .word("no_tokens")
                .hint("smtpctl smarthost login has it log in by tokens"),
            ServiceError::NotAskedFor(_) => Problem::new("cert", Kind::Conflict, text)
                .word("not_acme")
                .hint("smtpctl cert request has it asked for; others are renewed where they come from"),
            ServiceError::NoTlsReports => Problem::new("tls", Kind::Conflict, text).hint(
                "smtpctl config set tls.reports.contact=NAME@DOMAIN tls.reports.enabled=true",
            ),
            ServiceError::User(error) => user_problem(&error, text),
            ServiceError::Resolver(_) => Problem::new("config", Kind::ConfigInvalid, text),
            ServiceError::Address { .. } => Problem::new("config", Kind::ConfigInvalid, text)
                .word("address")
                .hint("nothing was changed; choose another address, or free this one"),
            ServiceError::Log(_) => Problem::new("config", Kind::ConfigInvalid, text)
                .word("log_file")
                .hint("nothing was changed; make its directory, or name another file"),
            ServiceError::QueueLeft { .. } => Problem::new("server", Kind::Conflict, text)
                .word("queue_left")
                .hint("let it empty, or say --discard-queue (discard_queue=true)"),
            ServiceError::QueueStays { .. } => Problem::new("server", Kind::Conflict, text)
                .word("queue_stays")
                .hint("let it empty, or send it on: smtpctl queue redirect --to-server"),
            ServiceError::OnTrial { .. } => Problem::new("config", Kind::Conflict, text)
                .word("on_trial")
                .hint("smtpctl config confirm keeps it"),
            ServiceError::NoTrial => Problem::new("config", Kind::NotFound, text).word("no_trial"),
        })
    }
}

fn user_problem(error: &UserError, text: String) -> Problem {
    let kind = match error {
        UserError::Unknown(_) => Kind::NotFound,
        UserError::Exists(_) => return Problem::new("user", Kind::Conflict, text).word("exists"),
        UserError::TooMany => Kind::Conflict,
        UserError::Password(_) | UserError::Write { .. } | UserError::Unread(_) => Kind::Failed,
    };
    Problem::new("user", kind, text)
}

fn invalid(text: &str, failed: &crate::config::Failed) -> Problem {
    let items = failed.diagnostics.iter().map(ToString::to_string);
    Problem::new("config", Kind::ConfigInvalid, text).items(items)
}

fn edit_problem(error: EditError) -> Problem {
    let text = error.to_string();
    match error {
        EditError::Broken(failed) => {
            invalid("the configuration files have errors; correct them first", &failed)
        }
        EditError::Refused(failed) => {
            invalid("the change would make the configuration wrong; nothing was changed", &failed)
        }
        EditError::NoServer(_) => {
            Problem::new("server", Kind::NotFound, text).hint("smtpctl server list names them")
        }
        EditError::ServerExists(_) => Problem::new("server", Kind::Conflict, text).word("exists"),
        EditError::NoDomain { .. } => Problem::new("domain", Kind::NotFound, text),
        EditError::DomainExists { .. } => {
            Problem::new("domain", Kind::Conflict, text).word("exists")
        }
        EditError::DefaultDomain { .. } => {
            Problem::new("domain", Kind::Conflict, text).word("is_default")
        }
        EditError::NoSmartHost(_) => Problem::new("smarthost", Kind::NotFound, text)
            .hint("smtpctl smarthost list names them"),
        EditError::NoCertificate(_) => {
            Problem::new("cert", Kind::NotFound, text).hint("smtpctl cert list names them")
        }
        EditError::CertificateElsewhere(_) => Problem::new("cert", Kind::Conflict, text)
            .hint("smtpctl cert show names the files; they are looked at when they change"),
        EditError::CertificateUnfit(_) => Problem::new("cert", Kind::ConfigInvalid, text),
        EditError::DkimExists(_) => Problem::new("dkim", Kind::Conflict, text)
            .word("exists")
            .hint("choose another selector: two keys of a domain both sign"),
        EditError::NoDkim { .. } => {
            Problem::new("dkim", Kind::NotFound, text).hint("smtpctl dkim list names them")
        }
        EditError::NoAlias(_) => Problem::new("domain", Kind::Conflict, text).word("no_alias"),
        EditError::Key(_) => Problem::new("config", Kind::Usage, text)
            .word("key")
            .hint("smtpctl config show lists them, with -s NAME those of a virtual server"),
        EditError::NoItem(_) => Problem::new("config", Kind::NotFound, text).word("no_item"),
        EditError::Changed { .. } => Problem::new("config", Kind::Conflict, text)
            .word("changed")
            .hint("look at smtpctl config history, then try again"),
        EditError::NoRevision(_) => Problem::new("config", Kind::NotFound, text)
            .word("no_revision")
            .hint("smtpctl config history lists them"),
        EditError::Sealed(_) => Problem::new("config", Kind::NotPermitted, text)
            .word("locked")
            .hint("an admin unlocks it with: smtpctl config unlock"),
        EditError::InTheWay(_) => Problem::new("server", Kind::Conflict, text).word("in_the_way"),
        EditError::ByHand { .. } => Problem::new("config", Kind::Failed, text).word("by_hand"),
        EditError::Busy => Problem::new("config", Kind::Conflict, text).word("busy"),
        EditError::Write { .. } => Problem::new("config", Kind::Failed, text),
    }
}

/// Reads the body of a request.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| usage(format!("the body: {error}")))
}

/// A request that makes no sense.
pub(super) fn usage(detail: impl Into<Box<str>>) -> Refused {
    Refused(Problem::new("request", Kind::Usage, detail))
}

/// An object as the answer.
pub(super) fn object<T: Serialize>(value: T) -> Answer<T> {
    Ok(Json(value))
}

/// For paths that name nothing.
pub(super) async fn no_such_path() -> Refused {
    Refused(Problem::new("request", Kind::NotFound, "there is no such path"))
}

/// For paths that are asked in another way than they answer.
pub(super) async fn no_such_method() -> Refused {
    let detail = "this path does not know that method";
    Refused(Problem::new("request", Kind::Usage, detail).word("no_method"))
}

#[cfg(test)]
mod tests {
    use mailroot_common::config::{DomainName, ServerName};

    use super::*;

    #[test]
    fn errors_of_the_rooms_have_codes_that_clients_rely_on() {
        let server = || ServerName::parse("lan").unwrap();
        let domain = || DomainName::parse("a.example").unwrap();
        let edits = [
            (EditError::ServerExists(server()), "server.exists", 7),
            (EditError::NoServer(server()), "server.not_found", 3),
            (EditError::DomainExists { server: server(), domain: domain() }, "domain.exists", 7),
            (EditError::NoDomain { server: server(), domain: domain() }, "domain.not_found", 3),
            (
                EditError::DefaultDomain { server: server(), domain: domain() },
                "domain.is_default",
                7,
            ),
            (EditError::Busy, "config.busy", 7),
        ];
        for (error, code, exit) in edits {
            let Refused(problem) = ServiceError::from(error).into();
            assert_eq!((&*problem.code, problem.exit), (code, exit));
        }
        let Refused(problem) = ServiceError::NoServer(server()).into();
        assert_eq!((&*problem.code, problem.status), ("server.not_found", 404));
        let Refused(problem) = BadmailError::Unknown("X".to_owned()).into();
        assert_eq!((&*problem.code, problem.exit), ("badmail.not_found", 3));
    }
}
