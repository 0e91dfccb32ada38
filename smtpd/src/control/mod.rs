//! The control interface: HTTP/1.1 with JSON on a Unix socket, and nowhere else.
//!
//! In: requests of operators, known by the credentials of their connection, and of users who
//! ask about their own mail over the submit socket. Out: answers in the
//! words of `mailroot_common::control`. [`listen`] bounds what a connection may cost, [`caller`]
//! knows who asks, [`endpoint`] is the table of what can be asked and by whom, [`gate`] refuses the
//! rest and browsers; then one file per noun calls [`crate::service::Service`]. Every change is logged with its person.
//!
//! Nothing a client sends ends more than its own connection.

mod adopt;
mod answer;
mod badmail;
mod caller;
mod certificate;
mod choose;
mod config;
mod decide;
mod dkim;
mod doctor;
mod domain;
mod drop;
mod endpoint;
mod etrn;
mod extract;
mod gate;
mod ldap;
mod lines;
mod listen;
mod log;
mod metrics;
mod openapi;
mod operators;
mod orders;
mod pickup;
mod queue;
mod redirect;
mod requeue;
mod resubmit;
mod scans;
mod server;
mod session;
mod smarthost;
mod stall;
mod stats;
mod status;
mod terms;
mod tls;
mod trace;
mod user;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::service::Service;
use crate::virtual_server::VirtualServer;
use caller::Reach;

use crate::local::ListenError;

/// The group whose members may connect, where it exists. Who may do what is decided by role.
const GROUP: &str = "mailroot-operators";

/// The interface at work.
#[derive(Debug)]
pub struct Control {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Control {
    /// Opens the control socket and serves it.
    ///
    /// # Errors
    ///
    /// [`ListenError`], saying what to do.
    pub fn listen(service: Service) -> Result<Self, ListenError> {
        let active = service.active();
        let configured = active.service.control.socket.as_deref();
        let socket = configured.unwrap_or_else(|| &service.paths().control_socket);
        let listener = listen::open(socket, GROUP)?;
        let (stop, stopped) = watch::channel(false);
        let (log, inquiries) = (service.log().clone(), service.inquiries());
        let task = tokio::spawn(listen::serve(listener, router(service), log, inquiries, stopped));
        Ok(Self { stop, task })
    }

    /// Closes the socket; requests in progress have two seconds to end.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // A panic in the task was told by the panic itself.
        let _ = self.task.await;
    }
}

/// What every handler is given: the service, as far as the caller may see it.
#[derive(Clone, Debug)]
struct App {
    service: Service,
    judge: caller::Judge,
    turn: doctor::Turn,
    scans: scans::Scans,
    reach: Reach,
}

impl App {
    /// The virtual servers the request may touch.
    fn all(&self) -> Vec<Arc<VirtualServer>> {
        let mut all = self.service.all();
        all.retain(|server| self.reach.covers(server.name()));
        all
    }
}

/// The service with the reach of this request, which the gate found.
impl FromRequestParts<Self> for App {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Self) -> Result<Self, Infallible> {
        let reach = parts.extensions.get::<Reach>().cloned().unwrap_or_default();
        Ok(Self { reach, ..app.clone() })
    }
}

/// The whole interface over a service.
fn router(service: Service) -> Router {
    let app = App {
        service,
        judge: caller::Judge::default(),
        turn: doctor::Turn::default(),
        scans: scans::Scans::default(),
        reach: Reach::default(),
    };
    endpoint::ENDPOINTS
        .iter()
        .fold(Router::new(), |router, endpoint| router.route(endpoint.path, (endpoint.route)()))
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
        .layer(axum::middleware::from_fn_with_state(app.clone(), gate::pass))
        .with_state(app)
}

#[cfg(test)]
mod tests;
