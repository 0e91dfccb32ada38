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
    AccessList, Adopted, Certificate, Change, Changed, Check, ConfigReport, Decision, Destination,
    DestinationPause, DeviceCode, DeviceState, DialogueLine, DkimKey, DkimRecord, Domain,
    DomainDetail, DropEntry, EtrnAnswer, EtrnRequest, FutureHold, FutureHoldRequest,
    FutureReleaseRequest, LdapPassword, LdapTest, LogState, LogWish, Metric, NewCertificate,
    NewDkimKey, NewDomain, NewServer, NewUser, OperatorEntry, Orders, PasswordAnswer,
    PasswordQuestion, PauseRequest, PickupCheck, PickupEntry, Question, QueueEntry, QueueMessage,
    Redirect, Refused, Reloaded, Requeue, Server, ServerDetail, Session, Setting, SmartHost,
    SmartHostCall, SmartHostWish, Stats, Status, TlsHost, TlsReport, TlsReportWish,
    TlsReportsBegun, TraceEntry, TraceRecord, User, UserChanged, UserWish, Version, path,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::{
    App, adopt, badmail, certificate, config, decide, dkim, doctor, domain, drop, etrn, ldap, log,
    metrics, openapi, operators, orders, pickup, queue, redirect, server, session, smarthost,
    stats, status, tls, trace, user,
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

/// Where a caller must have the role that an endpoint needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Anywhere.
    Anyone,
    /// On the service as a whole.
    Service,
    /// On the virtual server that the path names, or on the service.
    Named,
    /// On one virtual server at least; the request sees and touches only those where it is so.
    Chosen,
}

/// One endpoint.
pub(super) struct Endpoint {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) role: Role,
    pub(super) scope: Scope,
    pub(super) summary: &'static str,
    pub(super) takes: Takes,
    pub(super) gives: Gives,
    pub(super) route: fn() -> MethodRouter<App>,
}

macro_rules! endpoints {
    ($(
        $method:ident $path:ident $role:ident $scope:ident $takes:ident $(($in:ty))?
            => $gives:ident $(($out:ty))?, $handler:expr, $summary:literal;
    )*) => {
        /// All of them.
        pub(super) const ENDPOINTS: &[Endpoint] = &[$(Endpoint {
            method: endpoints!(@method $method),
            path: path::$path,
            role: Role::$role,
            scope: Scope::$scope,
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
    get VERSION Viewer Anyone Nothing => Json(Version), status::version, "Which daemon answers";
    get OPENAPI Viewer Anyone Nothing => Json(Value), openapi::document, "This description";
    get STATUS Viewer Chosen Nothing => Json(Status), status::status, "The state of everything";
    get OPERATORS Viewer Chosen Nothing => Json(Vec<OperatorEntry>), operators::list,
        "Who may give orders, and about what";
    post RELOAD Admin Service Nothing => Json(Reloaded), config::reload,
        "Read the configuration again; all of it, or nothing changes";
    get CONFIG_CHECK Viewer Service Nothing => Json(ConfigReport), config::check,
        "Check the configuration files as they lie there";
    get CONFIG Viewer Service Nothing => Json(Vec<Setting>), config::show, "The keys of mailroot.yaml";
    patch CONFIG Admin Service Change(KeyEdits) => Json(Edited), config::edit,
        "Change keys of mailroot.yaml";
    get CONFIG_FILES Operator Service Nothing => Json(ConfigFiles), config::files, "The texts of all files";
    put CONFIG_FILES Admin Service Change(ConfigFiles) => Json(Edited), config::put_files,
        "Replace all files";
    get CONFIG_HISTORY Viewer Service Nothing => Json(Vec<Revision>), config::history,
        "What was in force, newest first";
    get CONFIG_REVISION Operator Service Nothing => Json(ConfigFiles), config::revision,
        "The texts of all files at a revision";
    get CONFIG_DIFF Operator Service Nothing => Json(ConfigDiff), config::diff,
        "What differs between two revisions, or a revision and what lies on disk";
    post CONFIG_ROLLBACK Admin Service Terms => Json(Edited), config::roll_back, "Go back to a revision";
    post CONFIG_FORMAT Admin Service Terms => Json(Edited), config::format,
        "Give all files their usual form; values and comments stay";
    post CONFIG_CONFIRM Admin Service Nothing => Json(Edited), config::confirm,
        "Keep the change that is on trial";
    get CONFIG_LOCK Viewer Service Nothing => Json(Seal), config::seal,
        "Whether edits are refused, and with which words";
    put CONFIG_LOCK Admin Service Body(Seal) => Json(Seal), config::set_seal,
        "Refuse edits, or welcome them again";
    get SERVERS Viewer Chosen Nothing => Json(Vec<Server>), server::list, "The virtual servers";
    post SERVERS Admin Service Change(NewServer) => Json(Server), server::create, "Make a virtual server";
    get SERVER Viewer Named Nothing => Json(ServerDetail), server::show,
        "One virtual server and its settings";
    patch SERVER Admin Named Change(KeyEdits) => Json(Edited), server::edit,
        "Change keys of a virtual server";
    put SERVER Admin Service Change(FileText) => Json(Edited), server::put,
        "Replace a virtual server's file, or make one";
    delete SERVER Admin Service Terms => Json(Edited), server::delete, "Take a virtual server away";
    post SERVER_CLONE Admin Service Change(CloneServer) => Json(Server), server::copy,
        "Make a copy of a virtual server";
    post SERVER_RENAME Admin Service Change(Rename) => Json(Edited), server::rename,
        "Give a virtual server another name";
    post SERVER_VERB Operator Named Body(VerbRequest) => Json(Server), server::verb,
        "start, stop, pause or resume a virtual server";
    post DOCTOR_STORAGE Operator Named Nothing => Json(Vec<Check>), doctor::storage,
        "Look at the storage of a virtual server, and measure it";
    post DOCTOR_NETWORK Operator Named Nothing => Json(Vec<Check>), doctor::network,
        "Look at listeners, names and smart hosts of a virtual server";
    post ETRN Operator Named Body(EtrnRequest) => Json(Vec<EtrnAnswer>), etrn::ask,
        "Ask another host for mail that it holds for us";
    post LDAP_TEST Operator Named Body(LdapTest) => Json(Vec<Check>), ldap::test,
        "Call the directory servers of a virtual server, and look an address up";
    put LDAP_PASSWORD Admin Named Change(LdapPassword) => Json(Edited), ldap::set_password,
        "Give a virtual server another password for its directory";
    post DECIDE Viewer Named Body(Question) => Json(Decision), decide::decide,
        "What a virtual server would decide about a client and a recipient";
    get ACCESS Viewer Named Nothing => Json(AccessList), decide::list,
        "Who may connect, or who may relay";
    get DOMAINS Viewer Named Nothing => Json(Vec<Domain>), domain::list,
        "The domains of a virtual server";
    post DOMAINS Admin Named Change(NewDomain) => Json(Domain), domain::add, "Add a domain";
    get DOMAIN Viewer Named Nothing => Json(DomainDetail), domain::show, "One domain and its settings";
    patch DOMAIN Admin Named Change(KeyEdits) => Json(Edited), domain::edit, "Change keys of a domain";
    post DOMAIN_DEFAULT Admin Named Terms => Json(Edited), domain::promote,
        "Make an alias the default domain";
    delete DOMAIN Admin Named Terms => Json(Domain), domain::remove, "Remove a domain";
    get DKIM Viewer Named Nothing => Json(Vec<DkimKey>), dkim::list,
        "The keys that a virtual server signs mail with";
    post DKIM Admin Named Change(NewDkimKey) => Json(Edited), dkim::create,
        "Make a key and sign mail with it";
    get DKIM_RECORDS Viewer Named Nothing => Json(Vec<DkimRecord>), dkim::records,
        "The records that publish the keys of a domain, and whether DNS has them";
    delete DKIM_KEY Admin Named Terms => Json(Edited), dkim::remove, "Sign no more with a key";
    get SMARTHOSTS Viewer Service Nothing => Json(Vec<SmartHost>), smarthost::list,
        "Smart hosts that have names";
    patch SMARTHOST Admin Service Change(SmartHostWish) => Json(Edited), smarthost::set,
        "Make a smart host, or change one";
    delete SMARTHOST Admin Service Terms => Json(Edited), smarthost::remove,
        "Take a smart host away";
    post SMARTHOST_TEST Operator Service Body(SmartHostCall) => Json(Vec<Check>), smarthost::test,
        "Call a smart host as mail would, without mail";
    post SMARTHOST_DEVICE Admin Service Nothing => Json(DeviceCode), smarthost::ask_for_code,
        "Ask for a code with which a person signs in, so that a smart host's tokens can be had";
    post SMARTHOST_DEVICE_POLL Admin Service Nothing => Json(DeviceState), smarthost::poll_code,
        "Whether the person has signed in";
    get TLS_HOSTS Viewer Service Nothing => Json(Vec<TlsHost>), tls::list,
        "Hosts that have proved who they are, and are not trusted with less";
    delete TLS_HOST Operator Service Nothing => Json(TlsHost), tls::forget,
        "Let such a host show any certificate again, or none";
    get TLS_REPORTS Viewer Service Nothing => Json(Vec<TlsReport>), tls::reports,
        "What is counted of TLS for other domains, and the reports that wait";
    get TLS_REPORT Viewer Service Nothing => Json(Vec<Value>), tls::report,
        "The reports about a domain, in the form of RFC 8460";
    post TLS_REPORTS_SEND Operator Service Body(TlsReportWish) => Json(TlsReportsBegun), tls::send,
        "Send reports about TLS now";
    get CERTIFICATES Viewer Service Nothing => Json(Vec<Certificate>), certificate::list,
        "Certificates that clients are shown";
    put CERTIFICATE Admin Service Change(NewCertificate) => Json(Edited), certificate::put,
        "Keep a certificate, or another in its place";
    delete CERTIFICATE Admin Service Terms => Json(Edited), certificate::remove,
        "Take a certificate away";
    post CERTIFICATE_RENEW Admin Service Nothing => Json(Certificate), certificate::renew,
        "Ask the authority for a certificate anew";
    get USERS Viewer Service Nothing => Json(Vec<User>), user::list, "Users who may log in";
    post USERS Admin Service Body(NewUser) => Json(User), user::add, "Add a user";
    patch USER Admin Service Body(UserWish) => Json(UserChanged), user::set, "Change a user";
    delete USER Admin Service Nothing => Json(UserChanged), user::remove, "Take a user away";
    post USER_VERIFY Admin Service Body(PasswordQuestion) => Json(PasswordAnswer), user::verify,
        "Whether a login with this password would be taken";
    get SESSIONS Viewer Chosen Selector => Lines(Session), session::list, "SMTP sessions";
    get SESSIONS_DIALOGUE Operator Chosen Selector => Lines(DialogueLine), session::dialogue,
        "What is said in sessions, line by line, until they end; an empty line now and then";
    post SESSIONS_KILL Operator Chosen Body(Change) => Json(Changed), session::kill, "End sessions";
    get QUEUE Viewer Chosen Selector => Lines(QueueEntry), queue::list, "Messages that wait";
    post QUEUE_ADOPT Operator Chosen Octets => Json(Adopted), adopt::adopt,
        "Put a file of the form of Pickup into the queue";
    get QUEUE_ORDERS Viewer Chosen Nothing => Json(Orders), orders::list,
        "Paused destinations, and rules that hold mail yet to come";
    post QUEUE_PAUSE Operator Chosen Body(PauseRequest) => Json(Vec<DestinationPause>), orders::pause,
        "Make no new attempts at a destination";
    post QUEUE_RESUME Operator Chosen Body(PauseRequest) => Json(Vec<DestinationPause>), orders::resume,
        "Make attempts at a destination again";
    post QUEUE_HOLD_FUTURE Operator Chosen Body(FutureHoldRequest) => Json(Vec<FutureHold>), orders::hold,
        "Hold mail yet to come";
    post QUEUE_RELEASE_FUTURE Operator Chosen Body(FutureReleaseRequest) => Json(Vec<FutureHold>),
        orders::release, "End rules that hold mail yet to come";
    get QUEUE_MESSAGE Viewer Chosen Nothing => Json(QueueMessage), queue::show, "One message that waits";
    get QUEUE_CONTENT Operator Chosen Nothing => Octets, queue::content,
        "The octets of a message; headers=true for its header only";
    post QUEUE_VERB Operator Chosen Body(Change) => Json(Changed), queue::verb,
        "flush, retry, hold, release, remove or bounce messages";
    post QUEUE_REDIRECT Operator Chosen Body(Redirect) => Json(Changed), redirect::redirect,
        "Send messages by another host, to another address or by another virtual server";
    get BADMAIL Viewer Chosen Selector => Lines(BadmailEntry), badmail::list, "Messages in Badmail";
    get BADMAIL_MESSAGE Viewer Chosen Nothing => Json(BadmailMessage), badmail::show,
        "One message in Badmail";
    get BADMAIL_CONTENT Operator Chosen Nothing => Octets, badmail::content,
        "The octets of a message in Badmail";
    post BADMAIL_REQUEUE Operator Chosen Body(Requeue) => Json(Changed), badmail::requeue,
        "Put messages back into the queue";
    post BADMAIL_PURGE Operator Chosen Body(Change) => Json(Changed), badmail::purge,
        "Delete messages from Badmail";
    get TRACE Viewer Chosen Selector => Lines(TraceEntry), trace::list,
        "What became of messages, the newest first";
    get TRACE_DIALOGUES Operator Chosen Selector => Lines(TraceEntry), trace::with_dialogues,
        "What became of messages, and what was said about them over SMTP";
    get TRACE_REFUSED Viewer Chosen Selector => Lines(Refused), trace::refused,
        "Who was turned away, the newest first";
    get TRACE_RECORD Viewer Service Nothing => Json(TraceRecord), trace::record, "What the trace holds";
    get STATS Viewer Chosen Nothing => Json(Vec<Stats>), stats::stats,
        "What was sent, counted from the trace";
    get DESTINATIONS Viewer Chosen Nothing => Lines(Destination), stats::destinations,
        "The ways that mail takes out, the most mail first";
    get METRICS Viewer Chosen Nothing => Json(Vec<Metric>), metrics::list,
        "What is counted and measured, in the words of Prometheus";
    get LOG Viewer Service Nothing => Json(LogState), log::show,
        "Where the log goes, and how much it tells";
    put LOG_LEVEL Operator Service Body(LogWish) => Json(LogState), log::raise,
        "Have the log tell more for a while";
    post LOG_REOPEN Operator Service Nothing => Json(LogState), log::reopen,
        "Open the file of the log anew, after it was moved away";
    get DROP Viewer Chosen Selector => Lines(DropEntry), drop::list, "Messages in Drop";
    get DROP_MESSAGE Viewer Chosen Nothing => Json(DropEntry), drop::show, "One message in Drop";
    get DROP_CONTENT Operator Chosen Nothing => Octets, drop::content, "The octets of a message in Drop";
    post DROP_PURGE Operator Chosen Body(Change) => Json(Changed), drop::purge,
        "Delete messages from Drop";
    get PICKUP Viewer Chosen Nothing => Json(Vec<PickupEntry>), pickup::list,
        "Files that wait in Pickup";
    post PICKUP_CHECK Viewer Chosen Octets => Json(PickupCheck), pickup::check,
        "Read a file as Pickup would, and change nothing";
}

/// The role that a method of a path needs, and where. What is not in the table is for admins, who
/// alone are told that it is not there.
pub(super) fn need(method: &Method, path: &str) -> (Role, Scope) {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let found = ENDPOINTS.iter().find(|it| it.method == *method && it.path == path);
    found.map_or((Role::Admin, Scope::Service), |endpoint| (endpoint.role, endpoint.scope))
}

/// Whether users may ask it about their own mail over the submit socket. The handlers of these look
/// at [`super::caller::Reach::sees_mail_of`] for every message.
pub(super) fn is_for_owners(method: &Method, path: &str) -> bool {
    method == Method::GET && [path::QUEUE, path::TRACE, path::TRACE_DIALOGUES].contains(&path)
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
                "GET /v1/version, GET /v1/openapi.json, GET /v1/status, GET /v1/operators, GET /v1/config/check, \
                 GET /v1/config, GET /v1/config/history, GET /v1/config/lock, \
                 GET /v1/servers, GET /v1/servers/{server}, POST /v1/servers/{server}/decide, \
                 GET /v1/servers/{server}/access/{list}, \
                 GET /v1/servers/{server}/domains, \
                 GET /v1/servers/{server}/domains/{domain}, \
                 GET /v1/servers/{server}/dkim, GET /v1/servers/{server}/dkim/{domain}/records, \
                 GET /v1/smarthosts, GET /v1/tls-hosts, GET /v1/tls-reports, \
                 GET /v1/tls-reports/{domain}, GET /v1/certificates, GET /v1/users, \
                 GET /v1/sessions, GET /v1/queue, GET /v1/queue/orders, GET /v1/queue/{id}, \
                 GET /v1/badmail, \
                 GET /v1/badmail/{id}, GET /v1/trace, GET /v1/trace/refused, \
                 GET /v1/trace/record, GET /v1/stats, GET /v1/destinations, \
                 GET /v1/metrics, GET /v1/log, \
                 GET /v1/drop, GET /v1/drop/{id}, GET /v1/pickup, \
                 POST /v1/pickup/check",
            ),
            (
                "operator",
                "GET /v1/config/files, GET /v1/config/history/{revision}, GET /v1/config/diff, \
                 POST /v1/servers/{server}/{verb}, POST /v1/servers/{server}/doctor/storage, \
                 POST /v1/servers/{server}/doctor/network, POST /v1/servers/{server}/etrn, \
                 POST /v1/servers/{server}/ldap/test, \
                 POST /v1/smarthosts/{name}/test, DELETE /v1/tls-hosts/{host}, \
                 POST /v1/tls-reports/do/send, \
                 GET /v1/sessions/dialogue, \
                 POST /v1/sessions/kill, POST /v1/queue/do/adopt, \
                 POST /v1/queue/do/pause, POST /v1/queue/do/resume, \
                 POST /v1/queue/do/hold-future, POST /v1/queue/do/release-future, \
                 GET /v1/queue/{id}/content, POST /v1/queue/do/{verb}, \
                 POST /v1/queue/do/redirect, \
                 GET /v1/badmail/{id}/content, POST /v1/badmail/do/requeue, \
                 POST /v1/badmail/do/purge, GET /v1/trace/dialogues, \
                 PUT /v1/log/level, POST /v1/log/do/reopen, \
                 GET /v1/drop/{id}/content, POST /v1/drop/do/purge",
            ),
            (
                "admin",
                "POST /v1/reload, PATCH /v1/config, PUT /v1/config/files, \
                 POST /v1/config/rollback/{revision}, POST /v1/config/format, POST /v1/config/confirm, \
                 PUT /v1/config/lock, POST /v1/servers, PATCH /v1/servers/{server}, \
                 PUT /v1/servers/{server}, DELETE /v1/servers/{server}, \
                 POST /v1/servers/{server}/clone, POST /v1/servers/{server}/rename, \
                 PUT /v1/servers/{server}/ldap/password, \
                 POST /v1/servers/{server}/domains, \
                 PATCH /v1/servers/{server}/domains/{domain}, \
                 POST /v1/servers/{server}/domains/{domain}/default, \
                 DELETE /v1/servers/{server}/domains/{domain}, \
                 POST /v1/servers/{server}/dkim, \
                 DELETE /v1/servers/{server}/dkim/{domain}/{selector}, \
                 PATCH /v1/smarthosts/{name}, DELETE /v1/smarthosts/{name}, \
                 POST /v1/smarthosts/{name}/device, \
                 POST /v1/smarthosts/{name}/device/poll, \
                 PUT /v1/certificates/{name}, DELETE /v1/certificates/{name}, \
                 POST /v1/certificates/{name}/renew, POST /v1/users, \
                 PATCH /v1/users/{name}, DELETE /v1/users/{name}, \
                 POST /v1/users/{name}/verify",
            ),
        ] {
            let of_role = ENDPOINTS.iter().filter(|it| it.role.word() == role_word);
            let found: Vec<_> = of_role.map(|it| format!("{} {}", it.method, it.path)).collect();
            assert_eq!(found.join(", "), endpoints, "{role_word}");
        }
    }

    #[test]
    fn users_ask_for_three_lists_about_their_own_mail() {
        let of_owners = ENDPOINTS.iter().filter(|it| is_for_owners(&it.method, it.path));
        let found: Vec<_> = of_owners.map(|it| format!("{} {}", it.method, it.path)).collect();
        assert_eq!(found.join(", "), "GET /v1/queue, GET /v1/trace, GET /v1/trace/dialogues");
        assert!(!is_for_owners(&Method::POST, path::QUEUE) && !is_for_owners(&Method::GET, ""));
    }

    #[test]
    fn what_is_not_in_the_table_is_for_admins() {
        assert_eq!(need(&Method::PUT, "/v1/queue"), (Role::Admin, Scope::Service));
        assert_eq!(need(&Method::GET, ""), (Role::Admin, Scope::Service));
        assert_eq!(need(&Method::HEAD, "/v1/queue"), (Role::Viewer, Scope::Chosen));
    }

    #[test]
    fn a_role_on_one_server_opens_nothing_of_the_service() {
        for endpoint in ENDPOINTS {
            let names = endpoint.path.contains("{server}");
            let whole = endpoint.path.starts_with("/v1/config") || endpoint.path == path::RELOAD;
            match endpoint.scope {
                Scope::Named => assert!(names, "{}", endpoint.path),
                Scope::Chosen => assert!(!names && !whole, "{}", endpoint.path),
                Scope::Anyone => assert!(endpoint.method == Method::GET, "{}", endpoint.path),
                Scope::Service => {}
            }
        }
        let of_service = ENDPOINTS
            .iter()
            .filter(|it| it.scope == Scope::Service && it.path.starts_with(path::SERVERS))
            .map(|it| format!("{} {}", it.method, it.path));
        assert_eq!(
            of_service.collect::<Vec<_>>().join(", "),
            "POST /v1/servers, PUT /v1/servers/{server}, DELETE /v1/servers/{server}, \
             POST /v1/servers/{server}/clone, POST /v1/servers/{server}/rename"
        );
    }
}
