//! The table of everything that can be asked: method, path, role, and who answers.
//!
//! The router, the roles and the interface's description of itself are made from it, so that none
//! of them can know an endpoint that another does not.

use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use mailroot_common::config::control::Role;
use mailroot_common::control::badmail::{BadmailEntry, BadmailMessage};
use mailroot_common::control::edit::{
    CloneServer, ConfigDiff, ConfigFiles, Edited, FileText, KeyEdits, Rename, Revision, Seal,
};
use mailroot_common::control::server::VerbRequest;
use mailroot_common::control::{
    AccessList, Adopted, Change, Changed, Check, ConfigReport, Decision, DestinationPause,
    DialogueLine, Domain, DomainDetail, DropEntry, FutureHold, FutureHoldRequest,
    FutureReleaseRequest, NewDomain, NewServer, Orders, PauseRequest, PickupCheck, PickupEntry,
    Question, QueueEntry, QueueMessage, Redirect, Refused, Reloaded, Requeue, Server, ServerDetail,
    Session, Setting, Status, TraceEntry, TraceRecord, Version, path,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::{
    App, adopt, badmail, config, decide, doctor, domain, drop, openapi, orders, pickup, queue,
    redirect, server, session, status, trace,
};

/// Describes a type to other people's tools.
pub(super) type Shape = fn(&mut SchemaGenerator) -> Schema;

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What an answer is made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gives {
    /// One JSON object or array.
    Json(Shape),
    /// One JSON object per line.
    Lines(Shape),
    /// The octets of a message.
    Octets,
}

/// What a request is made of, besides its path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    /// Nothing.
    Nothing,
    /// A selector in the query.
    Selector,
    /// A JSON object.
    Body(Shape),
    /// The terms of a change in the query.
    Terms,
    /// Both: an object, and the terms of a change.
    Change(Shape),
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
    ($(
        $method:ident $path:ident $role:ident $takes:ident $(($in:ty))?
            => $gives:ident $(($out:ty))?, $handler:expr, $summary:literal;
    )*) => {
        /// All of them.
        pub(super) const ENDPOINTS: &[Endpoint] = &[$(Endpoint {
            method: endpoints!(@method $method),
            path: path::$path,
            role: Role::$role,
            summary: $summary,
            takes: Takes::$takes $((of::<$in>))?,
            gives: Gives::$gives $((of::<$out>))?,
            route: || $method($handler),
        }),*];
    };
    (@method get) => { Method::GET };
    (@method post) => { Method::POST };
    (@method delete) => { Method::DELETE };
    (@method patch) => { Method::PATCH };
    (@method put) => { Method::PUT };
}

endpoints! {
    get VERSION Viewer Nothing => Json(Version), status::version, "Which daemon answers";
    get OPENAPI Viewer Nothing => Json(Value), openapi::document, "This description";
    get STATUS Viewer Nothing => Json(Status), status::status, "The state of everything";
    post RELOAD Admin Nothing => Json(Reloaded), config::reload,
        "Read the configuration again; all of it, or nothing changes";
    get CONFIG_CHECK Viewer Nothing => Json(ConfigReport), config::check,
        "Check the configuration files as they lie there";
    get CONFIG Viewer Nothing => Json(Vec<Setting>), config::show, "The keys of mailroot.yaml";
    patch CONFIG Admin Change(KeyEdits) => Json(Edited), config::edit,
        "Change keys of mailroot.yaml";
    get CONFIG_FILES Operator Nothing => Json(ConfigFiles), config::files, "The texts of all files";
    put CONFIG_FILES Admin Change(ConfigFiles) => Json(Edited), config::put_files,
        "Replace all files";
    get CONFIG_HISTORY Viewer Nothing => Json(Vec<Revision>), config::history,
        "What was in force, newest first";
    get CONFIG_REVISION Operator Nothing => Json(ConfigFiles), config::revision,
        "The texts of all files at a revision";
    get CONFIG_DIFF Operator Nothing => Json(ConfigDiff), config::diff,
        "What differs between two revisions, or a revision and what lies on disk";
    post CONFIG_ROLLBACK Admin Terms => Json(Edited), config::roll_back, "Go back to a revision";
    post CONFIG_CONFIRM Admin Nothing => Json(Edited), config::confirm,
        "Keep the change that is on trial";
    get CONFIG_LOCK Viewer Nothing => Json(Seal), config::seal,
        "Whether edits are refused, and with which words";
    put CONFIG_LOCK Admin Body(Seal) => Json(Seal), config::set_seal,
        "Refuse edits, or welcome them again";
    get SERVERS Viewer Nothing => Json(Vec<Server>), server::list, "The virtual servers";
    post SERVERS Admin Change(NewServer) => Json(Server), server::create, "Make a virtual server";
    get SERVER Viewer Nothing => Json(ServerDetail), server::show,
        "One virtual server and its settings";
    patch SERVER Admin Change(KeyEdits) => Json(Edited), server::edit,
        "Change keys of a virtual server";
    put SERVER Admin Change(FileText) => Json(Edited), server::put,
        "Replace a virtual server's file, or make one";
    delete SERVER Admin Terms => Json(Edited), server::delete, "Take a virtual server away";
    post SERVER_CLONE Admin Change(CloneServer) => Json(Server), server::copy,
        "Make a copy of a virtual server";
    post SERVER_RENAME Admin Change(Rename) => Json(Edited), server::rename,
        "Give a virtual server another name";
    post SERVER_VERB Operator Body(VerbRequest) => Json(Server), server::verb,
        "start, stop, pause or resume a virtual server";
    post DOCTOR_STORAGE Operator Nothing => Json(Vec<Check>), doctor::storage,
        "Look at the storage of a virtual server, and measure it";
    post DOCTOR_NETWORK Operator Nothing => Json(Vec<Check>), doctor::network,
        "Look at listeners, names and smart hosts of a virtual server";
    post DECIDE Viewer Body(Question) => Json(Decision), decide::decide,
        "What a virtual server would decide about a client and a recipient";
    get ACCESS Viewer Nothing => Json(AccessList), decide::list,
        "Who may connect, or who may relay";
    get DOMAINS Viewer Nothing => Json(Vec<Domain>), domain::list,
        "The domains of a virtual server";
    post DOMAINS Admin Change(NewDomain) => Json(Domain), domain::add, "Add a domain";
    get DOMAIN Viewer Nothing => Json(DomainDetail), domain::show, "One domain and its settings";
    patch DOMAIN Admin Change(KeyEdits) => Json(Edited), domain::edit, "Change keys of a domain";
    post DOMAIN_DEFAULT Admin Terms => Json(Edited), domain::promote,
        "Make an alias the default domain";
    delete DOMAIN Admin Terms => Json(Domain), domain::remove, "Remove a domain";
    get SESSIONS Viewer Selector => Lines(Session), session::list, "SMTP sessions";
    get SESSIONS_DIALOGUE Operator Selector => Lines(DialogueLine), session::dialogue,
        "What is said in sessions, line by line, until they end; an empty line now and then";
    post SESSIONS_KILL Operator Body(Change) => Json(Changed), session::kill, "End sessions";
    get QUEUE Viewer Selector => Lines(QueueEntry), queue::list, "Messages that wait";
    post QUEUE_ADOPT Operator Octets => Json(Adopted), adopt::adopt,
        "Put a file of the form of Pickup into the queue";
    get QUEUE_ORDERS Viewer Nothing => Json(Orders), orders::list,
        "Paused destinations, and rules that hold mail yet to come";
    post QUEUE_PAUSE Operator Body(PauseRequest) => Json(Vec<DestinationPause>), orders::pause,
        "Make no new attempts at a destination";
    post QUEUE_RESUME Operator Body(PauseRequest) => Json(Vec<DestinationPause>), orders::resume,
        "Make attempts at a destination again";
    post QUEUE_HOLD_FUTURE Operator Body(FutureHoldRequest) => Json(Vec<FutureHold>), orders::hold,
        "Hold mail yet to come";
    post QUEUE_RELEASE_FUTURE Operator Body(FutureReleaseRequest) => Json(Vec<FutureHold>),
        orders::release, "End rules that hold mail yet to come";
    get QUEUE_MESSAGE Viewer Nothing => Json(QueueMessage), queue::show, "One message that waits";
    get QUEUE_CONTENT Operator Nothing => Octets, queue::content,
        "The octets of a message; headers=true for its header only";
    post QUEUE_VERB Operator Body(Change) => Json(Changed), queue::verb,
        "flush, retry, hold, release, remove or bounce messages";
    post QUEUE_REDIRECT Operator Body(Redirect) => Json(Changed), redirect::redirect,
        "Send messages by another host, to another address or by another virtual server";
    get BADMAIL Viewer Selector => Lines(BadmailEntry), badmail::list, "Messages in Badmail";
    get BADMAIL_MESSAGE Viewer Nothing => Json(BadmailMessage), badmail::show,
        "One message in Badmail";
    get BADMAIL_CONTENT Operator Nothing => Octets, badmail::content,
        "The octets of a message in Badmail";
    post BADMAIL_REQUEUE Operator Body(Requeue) => Json(Changed), badmail::requeue,
        "Put messages back into the queue";
    post BADMAIL_PURGE Operator Body(Change) => Json(Changed), badmail::purge,
        "Delete messages from Badmail";
    get TRACE Viewer Selector => Lines(TraceEntry), trace::list,
        "What became of messages, the newest first";
    get TRACE_REFUSED Viewer Selector => Lines(Refused), trace::refused,
        "Who was turned away, the newest first";
    get TRACE_RECORD Viewer Nothing => Json(TraceRecord), trace::record, "What the trace holds";
    get DROP Viewer Selector => Lines(DropEntry), drop::list, "Messages in Drop";
    get DROP_MESSAGE Viewer Nothing => Json(DropEntry), drop::show, "One message in Drop";
    get DROP_CONTENT Operator Nothing => Octets, drop::content, "The octets of a message in Drop";
    post DROP_PURGE Operator Body(Change) => Json(Changed), drop::purge,
        "Delete messages from Drop";
    get PICKUP Viewer Nothing => Json(Vec<PickupEntry>), pickup::list,
        "Files that wait in Pickup";
    post PICKUP_CHECK Viewer Octets => Json(PickupCheck), pickup::check,
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
    found.is_some_and(|endpoint| matches!(endpoint.takes, Takes::Octets))
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
                 GET /v1/config, GET /v1/config/history, GET /v1/config/lock, \
                 GET /v1/servers, GET /v1/servers/{server}, POST /v1/servers/{server}/decide, \
                 GET /v1/servers/{server}/access/{list}, \
                 GET /v1/servers/{server}/domains, \
                 GET /v1/servers/{server}/domains/{domain}, \
                 GET /v1/sessions, GET /v1/queue, GET /v1/queue/orders, GET /v1/queue/{id}, \
                 GET /v1/badmail, \
                 GET /v1/badmail/{id}, GET /v1/trace, GET /v1/trace/refused, \
                 GET /v1/trace/record, GET /v1/drop, GET /v1/drop/{id}, GET /v1/pickup, \
                 POST /v1/pickup/check",
            ),
            (
                "operator",
                "GET /v1/config/files, GET /v1/config/history/{revision}, GET /v1/config/diff, \
                 POST /v1/servers/{server}/{verb}, POST /v1/servers/{server}/doctor/storage, \
                 POST /v1/servers/{server}/doctor/network, \
                 GET /v1/sessions/dialogue, POST /v1/sessions/kill, POST /v1/queue/do/adopt, \
                 POST /v1/queue/do/pause, POST /v1/queue/do/resume, \
                 POST /v1/queue/do/hold-future, POST /v1/queue/do/release-future, \
                 GET /v1/queue/{id}/content, POST /v1/queue/do/{verb}, \
                 POST /v1/queue/do/redirect, \
                 GET /v1/badmail/{id}/content, POST /v1/badmail/do/requeue, \
                 POST /v1/badmail/do/purge, GET /v1/drop/{id}/content, POST /v1/drop/do/purge",
            ),
            (
                "admin",
                "POST /v1/reload, PATCH /v1/config, PUT /v1/config/files, \
                 POST /v1/config/rollback/{revision}, POST /v1/config/confirm, \
                 PUT /v1/config/lock, POST /v1/servers, PATCH /v1/servers/{server}, \
                 PUT /v1/servers/{server}, DELETE /v1/servers/{server}, \
                 POST /v1/servers/{server}/clone, POST /v1/servers/{server}/rename, \
                 POST /v1/servers/{server}/domains, \
                 PATCH /v1/servers/{server}/domains/{domain}, \
                 POST /v1/servers/{server}/domains/{domain}/default, \
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
