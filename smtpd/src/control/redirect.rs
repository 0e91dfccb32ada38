//! `/v1/queue/do/redirect`: messages that wait are sent another way.
//!
//! Another host is a note in the message's own record. Another address or another virtual server
//! make a new message of it, see [`super::resubmit`].

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use mailroot_common::address::{Host, Mailbox};
use mailroot_common::control::{Changed, Kind, Problem, Redirect};
use mailroot_common::id::QueueId;
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::route::table::Route;
use smtpd_core::trace::event::Text;
use smtpd_core::trace::note::{Admission, Note};

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use super::choose::{Place, Search, queues, servers};
use super::gate::tell;
use super::queue::{CHANGED_AT_ONCE, gather, gone};
use super::resubmit::{Aim, resubmit};
use crate::virtual_server::VirtualServer;

/// How long all attempts that are under way may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where messages are sent.
#[derive(Clone, Debug)]
enum Way {
    Host(SmartHost),
    Anew(Aim),
}

/// Sends the chosen ones another way.
pub(super) async fn redirect(
    app: App,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<Changed> {
    let request: Redirect = read(&body)?;
    let way = read_way(&app, &request)?;
    let matcher = request.change.selector.compile_for_change()?;
    let by_name = !matcher.ids().is_empty() && !request.change.if_exists;
    let servers = servers(&app, matcher.server())?;
    let now = app.service.clock().now();
    let mut search = Search::begin(queues(&servers), matcher, now).await?;
    let chosen = gather(&mut search).await?;
    let mut changed = Changed::default();
    let task = Task { app: &app, caller: &caller, by_name };
    let until = app.service.clock().elapsed() + PATIENCE;
    for (place, chosen) in search.places().iter().zip(&chosen) {
        let server = servers.iter().find(|server| server.name().as_str() == place.server);
        match &way {
            Way::Host(host) => {
                task.by_host(place, server, &chosen.messages, host, &mut changed).await?;
            }
            Way::Anew(aim) => {
                task.anew(place, &chosen.messages, aim, until, &mut changed).await;
            }
        }
    }
    for id in &search.missing {
        task.count_gone(&mut changed, id);
    }
    object(changed)
}

/// What is the same for all chosen messages.
struct Task<'a> {
    app: &'a App,
    caller: &'a Caller,
    /// Whether the messages were named by their ids: then one that is not there is an error.
    by_name: bool,
}

impl Task<'_> {
    fn count_gone(&self, changed: &mut Changed, id: &str) {
        if self.by_name {
            changed.add_failure(&id, &gone(id));
        } else {
            changed.add_gone();
        }
    }

    /// Has the trace remember what was done to a message.
    fn remember(&self, word: &'static str, place: &Place, id: QueueId, what: &str) {
        let now = self.app.service.clock().now();
        let note = Note::new(word, &place.server, now).id(id).text(Text::By, &self.caller.name);
        self.app.service.trace().record(note.text(Text::Reason, what));
    }

    /// Has the trace remember a message that was made of another.
    async fn remember_new(&self, place: &Place, id: QueueId) {
        let trace = self.app.service.trace();
        // One that has gone out meanwhile is known by its outcome.
        if let Ok(Some(new)) = place.queue.show(id).await {
            let admitted = Admission { subjects: trace.wants_subjects(), ..Admission::default() };
            trace.record(Note::received(&place.server, id, &new.envelope, new.size, admitted));
        }
    }

    async fn by_host(
        &self,
        place: &Place,
        server: Option<&Arc<VirtualServer>>,
        messages: &[(QueueId, u64)],
        host: &SmartHost,
        changed: &mut Changed,
    ) -> Result<(), Refused> {
        for part in messages.chunks(CHANGED_AT_ONCE) {
            let ids: Vec<_> = part.iter().map(|(id, _)| *id).collect();
            let now = self.app.service.clock().now();
            let mut done = place.queue.redirect(&ids, host.clone(), now).await?;
            done.sort_unstable();
            for (id, size) in part {
                let text = id.to_string();
                if done.binary_search(id).is_ok() {
                    changed.add(id, *size);
                    let line =
                        tell(self.app, "redirected", &place.server, Some(&text), self.caller);
                    line.word("host", host).send();
                    self.remember("redirected", place, *id, &format!("to {host}"));
                } else {
                    self.count_gone(changed, &text);
                }
            }
        }
        if let (Some(server), false) = (server, messages.is_empty()) {
            server.flush(&[Route::to_host(host.clone()).name()]);
        }
        Ok(())
    }

    async fn anew(
        &self,
        place: &Place,
        messages: &[(QueueId, u64)],
        aim: &Aim,
        until: Duration,
        changed: &mut Changed,
    ) {
        for (id, size) in messages {
            let text = id.to_string();
            match resubmit(place, *id, aim, self.app.service.clock(), until).await {
                Ok(Some(new)) => {
                    changed.add(&new, *size);
                    let line =
                        tell(self.app, "redirected", &place.server, Some(&text), self.caller);
                    let line = line.word("new-id", new);
                    let goal = match aim {
                        Aim::Address(mailbox) => {
                            line.word("to", mailbox).send();
                            format!("goes on to {mailbox} as {new}")
                        }
                        Aim::Server(other) => {
                            line.word("new-server", &other.server).send();
                            format!("goes on in server {} as {new}", other.server)
                        }
                    };
                    self.remember("removed", place, *id, &goal);
                    self.remember_new(
                        if let Aim::Server(other) = aim { other } else { place },
                        new,
                    )
                    .await;
                }
                Ok(None) => self.count_gone(changed, &text),
                Err(Refused(problem)) => changed.add_failure(&text, &problem),
            }
        }
    }
}

fn read_way(app: &App, request: &Redirect) -> Result<Way, Refused> {
    match (&request.to_host, &request.to_address, &request.to_server) {
        (Some(host), None, None) => {
            let mut host = SmartHost::parse(host).map_err(|error| usage(error.to_string()))?;
            if let SmartHost::Host { host: Host::Address(_), port } = &mut host {
                // Told apart from mail whose recipient names the same address.
                *port = port.or(Some(25));
            }
            Ok(Way::Host(host))
        }
        (None, Some(address), None) => {
            let mailbox = Mailbox::parse(address).map_err(|error| usage(error.to_string()))?;
            Ok(Way::Anew(Aim::Address(mailbox)))
        }
        (None, None, Some(name)) => {
            let place = queues(&servers(app, Some(name))?).pop().ok_or_else(|| {
                let detail = format!("server {name} has no queue: it never started");
                Problem::new("server", Kind::Unavailable, detail)
            })?;
            Ok(Way::Anew(Aim::Server(place)))
        }
        _ => Err(usage("exactly one of to_host, to_address and to_server is needed")),
    }
}
