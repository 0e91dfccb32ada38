//! The terms of a change of the configuration: who asks for it, and what stands in the query.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{IF_MATCH, USER_AGENT};
use axum::http::request::Parts;
use mailroot_common::control::{Kind, Problem, Terms};

use super::answer::{Refused, usage};
use super::caller::Caller;
use super::extract::Query;
use crate::service::Asked;

/// What a handler that changes the configuration is given.
#[derive(Debug)]
pub(super) struct Wanted(pub(super) Asked);

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Query(mut terms) = Query::<Terms>::from_request_parts(parts, state).await?;
        if let Some(revision) = if_match(&parts.headers)? {
            terms.expect = Some(revision);
        }
        check(&terms)?;
        let caller = parts.extensions.get::<Caller>().ok_or_else(|| {
            Problem::new("caller", Kind::NotPermitted, "the connection has no credentials")
        })?;
        let agent = parts.headers.get(USER_AGENT).map(|agent| agent.as_bytes());
        let is_tool = agent.is_some_and(|agent| agent.starts_with(b"smtpctl/"));
        let how = if is_tool { "smtpctl" } else { "api" };
        Ok(Self(Asked { actor: caller.name.clone(), how, terms, unsealed: false }))
    }
}

/// The revision of `If-Match: "43"`; `*` matches any (RFC 9110 section 13.1.1).
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.trim_matches('"').parse();
    number.map(Some).map_err(|_| usage("If-Match must be a revision such as \"43\""))
}

fn check(terms: &Terms) -> Result<(), Refused> {
    if let Some(message) = &terms.message
        && (message.len() > Terms::MESSAGE_MAX || message.chars().any(char::is_control))
    {
        let max = Terms::MESSAGE_MAX;
        return Err(usage(format!("the message must be one line of at most {max} octets")));
    }
    if terms.trial.is_some_and(|trial| !(1..=Terms::TRIAL_MAX).contains(&trial)) {
        return Err(usage("a trial lasts from 1s to 24h"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_names_a_revision() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, text.parse().unwrap());
            if_match(&headers).map_err(|Refused(problem)| problem.exit)
        };
        assert_eq!(read("\"43\""), Ok(Some(43)));
        assert_eq!(read("43"), Ok(Some(43)));
        assert_eq!(read("*"), Ok(None));
        assert_eq!(read("W/\"43\""), Err(2));
    }

    #[test]
    fn terms_are_bounded() {
        let trial = |trial| check(&Terms { trial: Some(trial), ..Terms::default() }).is_ok();
        assert!(trial(1) && trial(86_400) && !trial(0) && !trial(86_401));
        let message = |message: &str| {
            check(&Terms { message: Some(message.to_owned()), ..Terms::default() }).is_ok()
        };
        assert!(message("why not") && !message("a\nb") && !message(&"x".repeat(501)));
    }
}
