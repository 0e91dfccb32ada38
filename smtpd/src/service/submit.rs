//! The submit socket: programs of this machine hand in mail, and their users ask what became of it.
//!
//! In: connections, with what the kernel says of the process at the other end. Out: sessions of the
//! virtual server that `submission.server` names. The socket is the service's, so that it stays while
//! virtual servers come and go; whoever opened it, we or the service manager.

use std::sync::Arc;
use std::time::Duration;

use mailroot_common::config::control::Person;
use mailroot_common::config::submission::Submission;
use smtpd_core::smtp::refusal::Refusal;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::mail_name::submit_server;
use super::{Service, lock};
use crate::local::{Credentials, Known, ListenError, Listener, People, Place, Places, Socket};
use crate::observe::Level;
use crate::receive::{Inquiry, LocalUser};
use crate::virtual_server::VirtualServer;

/// What the service manager calls the socket.
const NAME: &str = "submit";
/// Everybody may hand mail in.
const MODE: u32 = 0o666;
/// How long others get to give descriptors back when they have run out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// The submit socket at work.
#[derive(Debug)]
pub struct SubmitSocket {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl SubmitSocket {
    /// Takes the socket over that the service manager opened, or opens one. It is there also while the
    /// configuration lets nobody in, so that a change of that needs no restart.
    ///
    /// # Errors
    ///
    /// [`ListenError`], saying what to do.
    pub fn open(service: &Service) -> Result<Self, ListenError> {
        let path = &service.paths().submit_socket;
        let inherited = Listener::inherited(NAME)
            .map_err(|source| ListenError::System { path: path.clone(), source })?;
        let listener = match inherited {
            Some(listener) => listener,
            None => Listener::open(Socket { path, mode: MODE, group: None })?,
        };
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(service.clone(), listener, stopped));
        Ok(Self { stop, task })
    }

    /// Takes no more connections; sessions go on until their virtual server stops.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // A panic in the task was told by the panic itself.
        let _ = self.task.await;
    }
}

async fn serve(service: Service, listener: Listener, mut stop: watch::Receiver<bool>) {
    let (people, places) = (People::default(), Places::default());
    loop {
        let accepted = tokio::select! {
            biased;
            // A service that is gone means the same.
            _ = stop.wait_for(|&stop| stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => match admit(&service, &stream, &places) {
                Ok((server, credentials, place)) => {
                    let (service, people) = (service.clone(), people.clone());
                    tokio::spawn(attend(service, server, stream, credentials, people, place));
                }
                Err(refusal) => turn_away(&service, &stream, refusal),
            },
            Err(error) => {
                service.0.log.line(Level::Warn, "submit-failed").word("error", error).send();
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

fn admit(
    service: &Service,
    stream: &UnixStream,
    places: &Places,
) -> Result<(Arc<VirtualServer>, Credentials, Place), Refusal> {
    let keys = &service.active().service.submission;
    if !keys.enabled {
        return Err(Refusal::AccessDenied);
    }
    let credentials = Credentials::of(stream).ok_or(Refusal::AccessDenied)?;
    let (all, own) = (keys.max_connections as usize, keys.max_connections_per_user as usize);
    let place = places.take(credentials.uid, all, own).ok_or(Refusal::TooManyConnections)?;
    Ok((service.submit_server().ok_or(Refusal::Stopping)?, credentials, place))
}

/// Whether this user may hand in mail, as the lists say; an answer of the user database that may lack groups
/// decides nothing.
fn may_submit(keys: &Submission, who: Credentials, known: &Known) -> Result<(), Refusal> {
    let Submission { allow, deny, .. } = keys;
    if who.is_ours() || allow.is_empty() && deny.is_empty() {
        return Ok(());
    }
    if !known.is_certain {
        return Err(Refusal::ConnectUnavailable);
    }
    let names = |list: &[Person]| list.iter().any(|it| it.means(&known.name, &known.groups));
    match !names(deny) && (allow.is_empty() || names(allow)) {
        true => Ok(()),
        false => Err(Refusal::AccessDenied),
    }
}

async fn attend(
    service: Service,
    server: Arc<VirtualServer>,
    stream: UnixStream,
    credentials: Credentials,
    people: People,
    place: Place,
) {
    let known = people.look_up(credentials).await;
    let judged = may_submit(&service.active().service.submission, credentials, &known);
    if let Err(refusal) = judged {
        return turn_away(&service, &stream, refusal);
    }
    service.follow_mail_name(&server).await;
    server.attend(stream, LocalUser { credentials, name: known.name }, place).await;
}

/// Says why not, to whoever can hear it at once: nothing is waited for.
fn turn_away(service: &Service, stream: &UnixStream, refusal: Refusal) {
    let uid = Credentials::of(stream).map(|credentials| credentials.uid);
    let line = service.0.log.line(Level::Info, "submit-refused").maybe("uid", uid);
    line.word("reason", refusal.reason()).send();
    let mut words = Vec::new();
    refusal.write(&mut words);
    // Whoever does not hear it sees the end of the connection.
    let _ = stream.try_write(&words);
}

impl Service {
    /// Users of this machine who ask about their own mail, for the one who answers them: whoever asks
    /// for this again gets an end where nobody comes.
    #[must_use]
    pub fn inquiries(&self) -> mpsc::Receiver<Inquiry> {
        std::mem::replace(&mut *lock(&self.0.inquiries.1), mpsc::channel(1).1)
    }

    /// The virtual server that takes mail of this machine's programs.
    fn submit_server(&self) -> Option<Arc<VirtualServer>> {
        self.server(&submit_server(&self.active())?)
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::config::Profile;
    use mailroot_common::config::section::Section as _;

    use super::*;

    #[test]
    fn whoever_is_denied_may_not_and_of_the_others_those_who_are_named() {
        let (user, group) =
            (|it: &str| Person::User(it.into()), |it: &str| Person::Group(it.into()));
        let groups = vec!["staff".to_owned()];
        let anna = Known { name: "anna".to_owned(), groups, is_certain: true };
        let who = Credentials { uid: 4_000_000, gid: 4_000_000, pid: None };
        for (allow, deny, may) in [
            (vec![], vec![], true),
            (vec![user("bob")], vec![], false),
            (vec![user("bob"), group("staff")], vec![], true),
            (vec![], vec![group("staff")], false),
            (vec![user("anna")], vec![group("staff")], false),
            (vec![], vec![user("bob")], true),
        ] {
            let keys = Submission { allow, deny, ..Submission::defaults(Profile::Modern) };
            assert_eq!(may_submit(&keys, who, &anna).is_ok(), may, "{keys:?}");
            let root = Credentials { uid: 0, ..who };
            assert!(may_submit(&keys, root, &anna).is_ok());
            let unsure = Known { is_certain: false, ..anna.clone() };
            let wants_lists = !keys.allow.is_empty() || !keys.deny.is_empty();
            let later = wants_lists.then_some(Refusal::ConnectUnavailable);
            assert_eq!(may_submit(&keys, who, &unsure).err(), later);
        }
    }
}
