//! The table of everything that can be asked: method, path, role, and who answers.
//!
//! The router, the roles and the interface's description of itself are made from it, so that none
//! of them can know an endpoint that another does not.

use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post};
use mailroot_common::config::control::Role;
use mailroot_common::control::path;

use super::{
    App, adopt, badmail, config, doctor, domain, drop, openapi, orders, pickup, queue, redirect,
    server, session, status,
};

/// What an answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    /// One JSON object or array.
    Json,
    /// One JSON object per line.
    Lines,
    /// The octets of a message.
    Octets,
}

/// What a request is made of, besides its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing.
    Nothing,
    /// A selector in the query.
    Selector,
    /// A JSON object of this name in `mailroot-common::control`.
    Body(&'static str),
    /// The octets of a message, which the handler takes as they arrive.
    Octets,
}

/// One endpoint.
pub(super) struct Endpoint {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) role: Role,
    pub(super) summary: &'static str,
    pub(super) takes: Takes,
    pub(super) gives: Gives,
    pub(super) route: fn() -> MethodRouter<App>,
}

macro_rules! endpoints {
    ($($method:ident $path:ident $role:ident $takes:expr => $gives:ident, $handler:expr, $summary:literal;)*) => {
        /// All of them.
        pub(super) const ENDPOINTS: &[Endpoint] = &[$(Endpoint {
            method: endpoints!(@method $method),
            path: path::$path,
            role: Role::$role,
            summary: $summary,
            takes: $takes,
            gives: Gives::$gives,
            route: || $method($handler),
        }),*];
    };
    (@method get) => { Method::GET };
    (@method post) => { Method::POST };
    (@method delete) => { Method::DELETE };
}

endpoints! {
    get VERSION Viewer Takes::Nothing => Json, status::version, "Which daemon answers";
    get OPENAPI Viewer Takes::Nothing => Json, openapi::document, "This description";
    get STATUS Viewer Takes::Nothing => Json, status::status, "The state of everything";
    post RELOAD Admin Takes::Nothing => Json, config::reload,
        "Read the configuration again; all of it, or nothing changes";
    get CONFIG_CHECK Viewer Takes::Nothing => Json, config::check,
        "Check the configuration files as they lie there";
    get SERVERS Viewer Takes::Nothing => Json, server::list, "The virtual servers";
    post SERVERS Admin Takes::Body("NewServer") => Json, server::create, "Make a virtual server";
    get SERVER Viewer Takes::Nothing => Json, server::show, "One virtual server and its settings";
    post SERVER_VERB Operator Takes::Body("VerbRequest") => Json, server::verb,
        "start, stop, pause or resume a virtual server";
    post DOCTOR_STORAGE Operator Takes::Nothing => Json, doctor::storage,
        "Look at the storage of a virtual server, and measure it";
    get DOMAINS Viewer Takes::Nothing => Json, domain::list, "The domains of a virtual server";
    post DOMAINS Admin Takes::Body("NewDomain") => Json, domain::add, "Add a domain";
    delete DOMAIN Admin Takes::Nothing => Json, domain::remove, "Remove a domain";
    get SESSIONS Viewer Takes::Selector => Lines, session::list, "SMTP sessions";
    post SESSIONS_KILL Operator Takes::Body("Change") => Json, session::kill, "End sessions";
    get QUEUE Viewer Takes::Selector => Lines, queue::list, "Messages that wait";
    post QUEUE_ADOPT Operator Takes::Octets => Json, adopt::adopt,
        "Put a file of the form of Pickup into the queue";
    get QUEUE_ORDERS Viewer Takes::Nothing => Json, orders::list,
        "Paused destinations, and rules that hold mail yet to come";
    post QUEUE_PAUSE Operator Takes::Body("PauseRequest") => Json, orders::pause,
        "Make no new attempts at a destination";
    post QUEUE_RESUME Operator Takes::Body("PauseRequest") => Json, orders::resume,
        "Make attempts at a destination again";
    post QUEUE_HOLD_FUTURE Operator Takes::Body("FutureHoldRequest") => Json, orders::hold,
        "Hold mail yet to come";
    post QUEUE_RELEASE_FUTURE Operator Takes::Body("FutureReleaseRequest") => Json, orders::release,
        "End rules that hold mail yet to come";
    get QUEUE_MESSAGE Viewer Takes::Nothing => Json, queue::show, "One message that waits";
    get QUEUE_CONTENT Operator Takes::Nothing => Octets, queue::content,
        "The octets of a message; headers=true for its header only";
    post QUEUE_VERB Operator Takes::Body("Change") => Json, queue::verb,
        "flush, retry, hold, release, remove or bounce messages";
    post QUEUE_REDIRECT Operator Takes::Body("Redirect") => Json, redirect::redirect,
        "Send messages by another host, to another address or by another virtual server";
    get BADMAIL Viewer Takes::Selector => Lines, badmail::list, "Messages in Badmail";
    get BADMAIL_MESSAGE Viewer Takes::Nothing => Json, badmail::show, "One message in Badmail";
    get BADMAIL_CONTENT Operator Takes::Nothing => Octets, badmail::content,
        "The octets of a message in Badmail";
    post BADMAIL_REQUEUE Operator Takes::Body("Requeue") => Json, badmail::requeue,
        "Put messages back into the queue";
    post BADMAIL_PURGE Operator Takes::Body("Change") => Json, badmail::purge,
        "Delete messages from Badmail";
    get DROP Viewer Takes::Selector => Lines, drop::list, "Messages in Drop";
    get DROP_MESSAGE Viewer Takes::Nothing => Json, drop::show, "One message in Drop";
    get DROP_CONTENT Operator Takes::Nothing => Octets, drop::content,
        "The octets of a message in Drop";
    post DROP_PURGE Operator Takes::Body("Change") => Json, drop::purge,
        "Delete messages from Drop";
    get PICKUP Viewer Takes::Nothing => Json, pickup::list, "Files that wait in Pickup";
    post PICKUP_CHECK Viewer Takes::Octets => Json, pickup::check,
        "Read a file as Pickup would, and change nothing";
}

/// The role that a method of a path needs. What is not in the table is for admins, who alone are
/// told that it is not there.
pub(super) fn role(method: &Method, path: &str) -> Role {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let found = ENDPOINTS.iter().find(|it| it.method == *method && it.path == path);
    found.map_or(Role::Admin, |endpoint| endpoint.role)
}

/// Whether the handler takes the body of a request as it arrives.
pub(super) fn takes_octets(method: &Method, path: &str) -> bool {
    let found = ENDPOINTS.iter().find(|it| it.method == *method && it.path == path);
    found.is_some_and(|endpoint| endpoint.takes == Takes::Octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_needs_its_role() {
        for (role_word, endpoints) in [
            (
                "viewer",
                "GET /v1/version, GET /v1/openapi.json, GET /v1/status, GET /v1/config/check, \
                 GET /v1/servers, GET /v1/servers/{server}, GET /v1/servers/{server}/domains, \
                 GET /v1/sessions, GET /v1/queue, GET /v1/queue/orders, GET /v1/queue/{id}, GET /v1/badmail, \
                 GET /v1/badmail/{id}, GET /v1/drop, GET /v1/drop/{id}, GET /v1/pickup, \
                 POST /v1/pickup/check",
            ),
            (
                "operator",
                "POST /v1/servers/{server}/{verb}, POST /v1/servers/{server}/doctor/storage, \
                 POST /v1/sessions/kill, POST /v1/queue/do/adopt, \
                 POST /v1/queue/do/pause, POST /v1/queue/do/resume, \
                 POST /v1/queue/do/hold-future, POST /v1/queue/do/release-future, \
                 GET /v1/queue/{id}/content, POST /v1/queue/do/{verb}, \
                 POST /v1/queue/do/redirect, \
                 GET /v1/badmail/{id}/content, POST /v1/badmail/do/requeue, \
                 POST /v1/badmail/do/purge, GET /v1/drop/{id}/content, POST /v1/drop/do/purge",
            ),
            (
                "admin",
                "POST /v1/reload, POST /v1/servers, POST /v1/servers/{server}/domains, \
                 DELETE /v1/servers/{server}/domains/{domain}",
            ),
        ] {
            let of_role = ENDPOINTS.iter().filter(|it| it.role.word() == role_word);
            let found: Vec<_> = of_role.map(|it| format!("{} {}", it.method, it.path)).collect();
            assert_eq!(found.join(", "), endpoints, "{role_word}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_for_admins() {
        assert_eq!(role(&Method::PUT, "/v1/queue"), Role::Admin);
        assert_eq!(role(&Method::GET, ""), Role::Admin);
        assert_eq!(role(&Method::HEAD, "/v1/queue"), Role::Viewer);
    }
}
