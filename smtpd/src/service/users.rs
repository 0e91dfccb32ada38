//! Users who may log in: what is known of them, and their changes.

use std::net::Ipv4Addr;
use std::sync::Arc;

use mailroot_common::control::selector::AddressPattern;
use mailroot_common::control::{self, PasswordAnswer, UserChanged};
use mailroot_common::rate::Rate;
use zeroize::Zeroizing;

use super::{Service, ServiceError};
use crate::users::{Logins, Secret, User, UserChange, UserError};

impl Service {
    /// All of them, by name.
    #[must_use]
    pub fn users(&self) -> Vec<control::User> {
        self.0.users.list().iter().map(|(user, logins)| describe(user, logins)).collect()
    }

    /// Adds one.
    ///
    /// # Errors
    ///
    /// [`ServiceError::User`]; nothing was changed.
    pub async fn add_user(
        &self,
        name: String,
        secret: Secret,
        send_as: Vec<AddressPattern>,
        quota: Option<Rate>,
    ) -> Result<control::User, ServiceError> {
        let users = self.0.users.clone();
        let user = blocking(move || users.add(&name, secret, send_as, quota)).await?;
        Ok(describe(&user, &Logins::default()))
    }

    /// Changes one. Sessions of a user who may not log in any more, has another password or other
    /// addresses are ended.
    ///
    /// # Errors
    ///
    /// [`ServiceError::User`]; nothing was changed.
    pub async fn set_user(
        &self,
        name: &str,
        change: UserChange,
    ) -> Result<UserChanged, ServiceError> {
        let UserChange { secret, enabled, send_as, .. } = &change;
        let ends = secret.is_some() || *enabled == Some(false) || send_as.is_some();
        let (users, name) = (self.0.users.clone(), name.to_owned());
        let user = blocking(move || users.set(&name, change)).await?;
        let sessions_ended = if ends { self.end_sessions_of(&user.name) } else { 0 };
        Ok(UserChanged { user: self.describe_user(&user), sessions_ended })
    }

    /// Takes one away, and ends the sessions there are.
    ///
    /// # Errors
    ///
    /// [`ServiceError::User`]; nothing was changed.
    pub async fn remove_user(&self, name: &str) -> Result<UserChanged, ServiceError> {
        let (users, name) = (self.0.users.clone(), name.to_owned());
        let user = blocking(move || users.remove(&name)).await?;
        let sessions_ended = self.end_sessions_of(&user.name);
        Ok(UserChanged { user: describe(&user, &Logins::default()), sessions_ended })
    }

    /// Whether a login with this password would be taken.
    pub async fn verify_user(&self, name: &str, password: String) -> PasswordAnswer {
        // Operators stand in a line of their own.
        let nowhere = Ipv4Addr::UNSPECIFIED.into();
        match self.0.users.check(name, Zeroizing::new(password), nowhere).await {
            Ok(_) => PasswordAnswer { good: true, reason: None },
            Err(why) => PasswordAnswer { good: false, reason: Some(why.as_str().to_owned()) },
        }
    }

    fn end_sessions_of(&self, name: &str) -> u64 {
        self.all().iter().map(|server| server.kill_sessions_of(name)).sum()
    }

    fn describe_user(&self, user: &User) -> control::User {
        let all = self.0.users.list();
        let logins = all.iter().find(|(other, _)| other.name == user.name).map(|(_, it)| *it);
        describe(user, &logins.unwrap_or_default())
    }
}

fn describe(user: &User, logins: &Logins) -> control::User {
    control::User {
        name: user.name.clone(),
        enabled: user.enabled,
        send_as: user.send_as.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        quota: user.quota.map(|quota| quota.to_string()),
        password_since: user.password_since,
        last_login: logins.last.map(|(at, _)| at),
        last_client: logins.last.map(|(_, client)| client),
        failed: logins.failed,
    }
}

async fn blocking(
    change: impl FnOnce() -> Result<Arc<User>, UserError> + Send + 'static,
) -> Result<Arc<User>, ServiceError> {
    match tokio::task::spawn_blocking(change).await {
        Ok(done) => Ok(done?),
        // A task that panicked: nothing was put in force.
        Err(error) => Err(UserError::Unread(error.to_string()).into()),
    }
}
