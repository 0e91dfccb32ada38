//! The life of a virtual server as a whole: started and stopped, renamed, deleted.

use std::path::PathBuf;
use std::sync::Arc;

use mailroot_common::config::ServerName;
use mailroot_common::control::{self, Edited, KeyEdit, ServerState, Verb};
use mailroot_common::units::Span;

use super::change::Asked;
use super::{Service, ServiceError};
use crate::observe::Level;
use crate::virtual_server::{Ending, VirtualServer};

/// What is asked of a virtual server.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Start, stop, pause or resume.
    pub verb: Verb,
    /// Why, for the log and for status.
    pub reason: Option<String>,
    /// After which a pause ends by itself.
    pub span: Option<Span>,
    /// Whether the server's file is to say so, for start and stop.
    pub persist: bool,
    /// How its sessions end, for stop and pause.
    pub ending: Ending,
}

/// What goes with a server that is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goes {
    /// Its queue, although mail waits in it.
    pub queue: bool,
    /// Its mail root: Pickup, Queue, Drop and Badmail.
    pub store: bool,
}

impl Service {
    /// Starts, stops, pauses or resumes a virtual server: until the daemon ends, or for good where
    /// its file is to say so.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NoServer`], or [`ServiceError::Start`] with what stands in the way.
    pub async fn server_verb(
        &self,
        name: &ServerName,
        turn: Turn,
        asked: &Asked,
    ) -> Result<control::Server, ServiceError> {
        self.known(name)?;
        let Turn { verb, reason, span, persist, ending } = turn;
        if persist {
            let value = (verb == Verb::Start).to_string();
            let edit = KeyEdit::Set { key: "enabled".to_owned(), value };
            self.edit_keys(Some((name, None)), &[edit], asked).await?;
        }
        let _one_at_a_time = self.0.changing.lock().await;
        let server = self.known(name)?;
        match verb {
            Verb::Stop => server.stop_after(reason, ending).await,
            Verb::Pause => {
                server.pause(reason).await;
                server.end_sessions(ending).await;
            }
            Verb::Start | Verb::Resume => self.turn(&server, verb, reason).await?,
        }
        if let (Verb::Pause, Some(span)) = (verb, span) {
            self.resume_after(&server, span);
        }
        let line = self.0.log.line(Level::Info, "server").word("server", name);
        line.word("verb", verb.as_str()).word("actor", &asked.actor).send();
        Ok(server.describe().await)
    }

    /// Ends this pause of a server, and no later one, after a while.
    fn resume_after(&self, server: &Arc<VirtualServer>, span: Span) {
        let (service, server, pause) = (self.clone(), Arc::clone(server), server.pauses());
        tokio::spawn(async move {
            service.clock().sleep(span.as_duration()).await;
            let _one_at_a_time = service.0.changing.lock().await;
            if server.pauses() != pause || server.state() != ServerState::Paused {
                return;
            }
            let line = service.log().line(Level::Info, "server").word("server", server.name());
            match server.resume().await {
                Ok(()) => line.word("verb", "resume").word("actor", "mailroot").send(),
                Err(error) => line.word("verb", "resume").word("error", error).send(),
            }
        });
    }

    pub(super) async fn turn(
        &self,
        server: &VirtualServer,
        verb: Verb,
        reason: Option<String>,
    ) -> Result<(), ServiceError> {
        let failed = |source| ServiceError::Start { server: server.name().clone(), source };
        match verb {
            Verb::Start => server.start().await.map_err(failed),
            Verb::Resume => server.resume().await.map_err(failed),
            Verb::Stop => {
                server.stop(reason).await;
                Ok(())
            }
            Verb::Pause => {
                server.pause(reason).await;
                Ok(())
            }
        }
    }

    /// Gives a virtual server another name; its mail root goes with it where it is named after it.
    /// It is stopped for that and then does what it did before.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn rename_server(
        &self,
        from: &ServerName,
        to: &ServerName,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let change = self.editor(asked).rename_server(from, to)?;
        if asked.terms.dry_run {
            return Ok(self.make(asked, change).await?.edited);
        }
        let server = self.known(from)?;
        let was = server.state();
        server.close().await;
        match self.make(asked, change).await {
            Ok(done) => {
                let renamed = self.known(to)?;
                match was {
                    ServerState::Paused => self.turn(&renamed, Verb::Pause, None).await?,
                    ServerState::Stopped => self.turn(&renamed, Verb::Stop, None).await?,
                    _ => {}
                }
                Ok(done.edited)
            }
            Err(error) => {
                self.go_on(&server, was).await;
                Err(error)
            }
        }
    }

    /// Takes a virtual server away. Its mail root stays unless it is to go.
    ///
    /// # Errors
    ///
    /// [`ServiceError::QueueLeft`] if mail waits in it, or [`ServiceError::Edit`]; nothing was
    /// changed.
    pub async fn delete_server(
        &self,
        name: &ServerName,
        goes: Goes,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let change = self.editor(asked).delete_server(name)?;
        let server = self.known(name)?;
        let refuse = |messages: u64| {
            let left = messages > 0 && !goes.queue;
            left.then(|| ServiceError::QueueLeft { server: name.clone(), messages })
        };
        if let Some(refused) = refuse(waiting(&server)) {
            return Err(refused);
        }
        if asked.terms.dry_run {
            return Ok(self.make(asked, change).await?.edited);
        }
        let was = server.state();
        server.stop(None).await;
        // Mail may have come in until the last session ended.
        if let Some(refused) = refuse(waiting(&server)) {
            self.go_on(&server, was).await;
            return Err(refused);
        }
        let root = server.mail_root();
        let mut edited = match self.make(asked, change).await {
            Ok(done) => done.edited,
            Err(error) => {
                self.go_on(&server, was).await;
                return Err(error);
            }
        };
        if goes.store || goes.queue {
            self.0.roots.forget(name.as_str()).await;
        }
        if goes.store {
            edited.troubles.extend(purge(root).await);
        }
        Ok(edited)
    }

    /// Lets a server do again what it did before a change that came to nothing.
    async fn go_on(&self, server: &Arc<VirtualServer>, was: ServerState) {
        let verb = match was {
            ServerState::Running | ServerState::Starting => Verb::Start,
            ServerState::Paused => Verb::Pause,
            ServerState::Stopped | ServerState::Stopping => return,
        };
        // Paused is a state of a server that was started.
        for verb in [Verb::Start, verb] {
            if let Err(error) = self.turn(server, verb, None).await {
                let line = self.0.log.line(Level::Error, "server-failed");
                line.word("server", server.name()).text("reason", error).send();
                return;
            }
        }
    }
}

/// How many messages wait in a server's queue.
fn waiting(server: &VirtualServer) -> u64 {
    server.queue().map_or(0, |queue| queue.counts().messages)
}

/// Removes a mail root; what went wrong.
async fn purge(root: PathBuf) -> Option<String> {
    let name = root.display().to_string();
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(root)).await;
    match removed {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("cannot remove {name}: {error}")),
        Err(_) => Some(format!("the removal of {name} broke off")),
    }
}
