//! Changes of the configuration that operators ask for: edited, checked, written, put in force.

use std::path::Path;
use std::sync::Arc;

use mailroot_common::address::Domain;
use mailroot_common::config::{DomainName, ServerName};
use mailroot_common::control::{self, ConfigFiles, ConfigTrouble, Edited, KeyEdit, Terms};
use mailroot_common::units::Timestamp;

use super::{Service, ServiceError};
use crate::config::ServerSpec;
use crate::config::{self, Change, EditError, Editor, Loaded, Note, RemoteDomainSpec, Trial};
use crate::virtual_server::VirtualServer;

/// A domain to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainSpec {
    /// Another name of the default domain.
    Alias(Domain),
    /// A domain of other hosts.
    Remote(RemoteDomainSpec),
}

/// Who asks for a change, by which way, and on which terms.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Who.
    pub actor: String,
    /// The way, as [`control::Revision::how`] says.
    pub how: &'static str,
    /// The terms.
    pub terms: Terms,
    /// Whether a lock of the configuration is no obstacle.
    pub unsealed: bool,
}

/// What is changed, and what the answer is about.
pub(super) struct Done {
    pub(super) edited: Edited,
    /// The configuration with the change, also where it was only tried.
    pub(super) loaded: Arc<Loaded>,
}

impl Asked {
    /// A change that the daemon makes itself.
    pub(super) fn by_itself(how: &'static str, actor: &str) -> Self {
        Self { actor: actor.to_owned(), how, unsealed: true, ..Self::default() }
    }
}

impl Service {
    pub(super) fn editor(&self, asked: &Asked) -> Editor {
        let note = Note {
            at: self.0.clock.now(),
            who: asked.actor.clone(),
            how: asked.how.to_owned(),
            changes: Vec::new(),
            message: asked.terms.message.clone(),
        };
        let editor = Editor::new(self.0.paths.clone(), note).expecting(asked.terms.expect);
        if asked.unsealed { editor.unsealed() } else { editor }
    }

    /// Makes a change, unless it is only to be tried.
    pub(super) async fn edit(
        &self,
        asked: &Asked,
        edit: impl FnOnce(&Editor) -> Result<Change, EditError>,
    ) -> Result<Done, ServiceError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let change = edit(&self.editor(asked))?;
        if asked.how != TRIAL_OVER {
            self.check_gone(&change.loaded)?;
        }
        self.make(asked, change).await
    }

    /// Makes a change that was found good. The caller holds the right to change things.
    pub(super) async fn make(&self, asked: &Asked, change: Change) -> Result<Done, ServiceError> {
        let mut edited = Edited {
            changed: change.is_one(),
            dry_run: asked.terms.dry_run,
            revision: change.before.revision,
            changes: change.words(),
            diff: change.diff(),
            reverts_at: None,
            replay: None,
            warnings: change.loaded.warnings.iter().map(ConfigTrouble::from).collect(),
            troubles: Vec::new(),
        };
        self.try_listeners(&change.loaded)?;
        self.try_log(&change.loaded)?;
        let moves = self.check_moves(&change.loaded)?;
        edited.warnings.extend(moves.iter().map(ConfigTrouble::from));
        if asked.terms.dry_run {
            let loaded = Arc::new(change.loaded);
            edited.replay = self.replay(&loaded).await;
            return Ok(Done { edited, loaded });
        }
        let closed = self.close_moving(&change.loaded).await?;
        let done = self.carry_out(asked, change, edited).await;
        let unopened = self.reopen(closed).await;
        done.map(|mut done| {
            done.edited.troubles.extend(unopened);
            done
        })
    }

    async fn carry_out(
        &self,
        asked: &Asked,
        change: Change,
        mut edited: Edited,
    ) -> Result<Done, ServiceError> {
        if !edited.changed {
            // An edit by hand that lies there is adopted, as by any change.
            let loaded = change.loaded.with_revision(edited.revision);
            if *self.active() != loaded {
                edited.troubles = self.activate(loaded, &asked.actor, asked.how).await?.troubles;
            }
            return Ok(Done { edited, loaded: self.active() });
        }
        let back_to = change.before.revision;
        let trial = self.may_try(asked, back_to)?;
        let loaded = change.apply()?;
        edited.revision = loaded.revision;
        if let Some(until) = trial {
            let who = asked.actor.clone();
            self.begin_trial(Trial { revision: loaded.revision, back_to, until, who })?;
            edited.reverts_at = Some(until);
        }
        edited.troubles = self.activate(loaded, &asked.actor, asked.how).await?.troubles;
        Ok(Done { edited, loaded: self.active() })
    }

    /// When a trial would be over; an error if one is on already.
    fn may_try(&self, asked: &Asked, back_to: u64) -> Result<Option<Timestamp>, ServiceError> {
        if ![TRIAL_OVER, ROLLBACK].contains(&asked.how)
            && let Some(trial) = Trial::read(&self.0.paths)
        {
            return Err(ServiceError::OnTrial { revision: trial.revision, back_to: trial.back_to });
        }
        debug_assert!(back_to > 0 || asked.terms.trial.is_none(), "a trial has a way back");
        let wait = asked.terms.trial.map(|seconds| seconds.saturating_mul(1_000));
        let now = self.0.clock.now().as_millis();
        Ok(wait.map(|wait| Timestamp::from_millis(now.saturating_add(wait))))
    }

    /// Writes the file of a new virtual server and starts it, unless it is not enabled. A trial
    /// checks everything and changes nothing.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn create_server(
        &self,
        name: &ServerName,
        spec: &ServerSpec,
        asked: &Asked,
    ) -> Result<control::Server, ServiceError> {
        let done = self.edit(asked, |editor| editor.create_server(name, spec)).await?;
        self.created(name, &done).await
    }

    /// Makes a copy of a virtual server, with other listeners and a mail root of its own.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn clone_server(
        &self,
        from: &ServerName,
        to: &ServerName,
        listen: &[String],
        asked: &Asked,
    ) -> Result<control::Server, ServiceError> {
        let done = self.edit(asked, |editor| editor.clone_server(from, to, listen)).await?;
        self.created(to, &done).await
    }

    async fn created(
        &self,
        name: &ServerName,
        done: &Done,
    ) -> Result<control::Server, ServiceError> {
        if done.edited.dry_run {
            return Ok(self.planned(name, &done.loaded)?.describe().await);
        }
        Ok(self.known(name)?.describe().await)
    }

    /// A server as a configuration would have it, not opened and not listed.
    fn planned(
        &self,
        name: &ServerName,
        loaded: &Loaded,
    ) -> Result<Arc<VirtualServer>, ServiceError> {
        let no_server = || ServiceError::NoServer(name.clone());
        let config = loaded.servers.get(name).ok_or_else(no_server)?;
        let reach = self.reach(loaded)?;
        let shared = self.shared(loaded, &reach, name, config);
        Ok(VirtualServer::new(name.clone(), shared, Arc::clone(config)))
    }

    /// Changes keys of a virtual server, of one of its domains, or of the service where neither is
    /// named.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn edit_keys(
        &self,
        whose: Option<(&ServerName, Option<&DomainName>)>,
        edits: &[KeyEdit],
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        let done = self.edit(asked, |editor| match whose {
            None => editor.edit_service(edits),
            Some((server, None)) => editor.edit_server(server, edits),
            Some((server, Some(domain))) => editor.edit_domain(server, domain, edits),
        });
        Ok(done.await?.edited)
    }

    /// Gives a virtual server this file, whether or not there was one.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn put_server(
        &self,
        name: &ServerName,
        text: &str,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        Ok(self.edit(asked, |editor| editor.put_server(name, text)).await?.edited)
    }

    /// Makes all files be these.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn put_config(
        &self,
        texts: ConfigFiles,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        Ok(self.edit(asked, |editor| editor.put_all(texts)).await?.edited)
    }

    /// Gives all files their usual form.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn format_config(&self, asked: &Asked) -> Result<Edited, ServiceError> {
        Ok(self.edit(asked, Editor::format).await?.edited)
    }

    /// Makes all files be what they were at a revision.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn roll_back(&self, revision: u64, asked: &Asked) -> Result<Edited, ServiceError> {
        let done = self.edit(asked, |editor| editor.roll_back(revision)).await?;
        if !asked.terms.dry_run {
            // Whatever was on trial is so no more.
            let path = Path::new("config.trial").to_owned();
            Trial::end(&self.0.paths).map_err(|source| EditError::Write { path, source })?;
        }
        Ok(done.edited)
    }

    /// Locks the configuration with words that refused people are told, or unlocks it.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`] if it cannot be written.
    pub async fn seal(&self, reason: Option<&str>, actor: &str) -> Result<(), ServiceError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let path = Path::new("config.sealed").to_owned();
        config::set_seal(&self.0.paths, reason)
            .map_err(|source| EditError::Write { path, source })?;
        let line = self.0.log.line(crate::observe::Level::Info, "config-lock");
        line.word("actor", actor).text("reason", reason.unwrap_or("unlocked")).send();
        Ok(())
    }

    /// The domains of a virtual server, in the order of its file.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NoServer`].
    pub fn domains(&self, server: &ServerName) -> Result<Vec<control::Domain>, ServiceError> {
        Ok(self.known(server)?.domains())
    }

    /// A domain with its settings.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NoServer`] or [`EditError::NoDomain`].
    pub fn domain_detail(
        &self,
        server: &ServerName,
        domain: &DomainName,
    ) -> Result<control::DomainDetail, ServiceError> {
        let found = self.domain(server, domain)?;
        let config = self.known(server)?.config();
        let number = config.domains.iter().position(|entry| entry.name == *domain);
        let path = format!("domains[{}].", number.unwrap_or_default());
        let own = |key: mailroot_common::config::EffectiveKey| {
            let name = key.key.strip_prefix(&path)?.to_owned();
            Some(control::Setting { key: name, ..key.into() })
        };
        let settings = config.effective().into_iter().filter_map(own).collect();
        Ok(control::DomainDetail { domain: found, settings })
    }

    /// Adds a domain: another name of the default domain, or one of others with rules of its own.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn add_domain(
        &self,
        server: &ServerName,
        spec: DomainSpec,
        asked: &Asked,
    ) -> Result<control::Domain, ServiceError> {
        let name = match &spec {
            DomainSpec::Alias(domain) => DomainName::Exact(domain.clone()),
            DomainSpec::Remote(remote) => remote.name.clone(),
        };
        let done = self.edit(asked, |editor| match &spec {
            DomainSpec::Alias(domain) => editor.add_alias_domain(server, domain),
            DomainSpec::Remote(remote) => editor.add_remote_domain(server, remote),
        });
        let done = done.await?;
        if done.edited.dry_run {
            let domains = self.planned(server, &done.loaded)?.domains();
            return find(domains, server, &name);
        }
        self.domain(server, &name)
    }

    /// Makes an alias the default domain of its server.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn promote_domain(
        &self,
        server: &ServerName,
        domain: &DomainName,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        Ok(self.edit(asked, |editor| editor.promote_domain(server, domain)).await?.edited)
    }

    /// Removes an alias or remote domain; says what it was.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn remove_domain(
        &self,
        server: &ServerName,
        domain: &DomainName,
        asked: &Asked,
    ) -> Result<control::Domain, ServiceError> {
        let was = self.domain(server, domain);
        self.edit(asked, |editor| editor.remove_domain(server, domain)).await?;
        was
    }

    /// A domain of a virtual server.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NoServer`] or [`EditError::NoDomain`].
    pub fn domain(
        &self,
        server: &ServerName,
        domain: &DomainName,
    ) -> Result<control::Domain, ServiceError> {
        find(self.domains(server)?, server, domain)
    }
}

fn find(
    domains: Vec<control::Domain>,
    server: &ServerName,
    domain: &DomainName,
) -> Result<control::Domain, ServiceError> {
    let name = domain.to_string();
    let unknown = || EditError::NoDomain { server: server.clone(), domain: domain.clone() };
    Ok(domains.into_iter().find(|domain| domain.name == name).ok_or_else(unknown)?)
}

/// How the history names the way back to an earlier revision.
pub const ROLLBACK: &str = "rollback";
/// How the history names the end of a trial.
pub(super) const TRIAL_OVER: &str = "trial over";
