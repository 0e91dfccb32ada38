//! A code with which a person signs in somewhere else (RFC 8628), for hosts without a browser.
//!
//! The code that the endpoint knows stays here; whoever asked is told only what the person needs.

use std::time::Duration;

use mailroot_common::config::SmartHostName;
use mailroot_common::config::oauth::TokenSource;
use mailroot_common::units::Timestamp;
use smtpd_core::oauth::answer::{self, Refusal};
use smtpd_core::oauth::request::Wish;

use super::{TokenError, Tokens, lock, refused};

/// By how much the wait grows when an endpoint is asked too often (RFC 8628 section 3.5).
const SLOWER: Duration = Duration::from_secs(5);

/// A code that waits for a person.
pub(super) struct Device {
    device_code: String,
    source: TokenSource,
    interval: Duration,
    /// When the endpoint may be asked again, in the clock's time.
    next: Duration,
    /// When the code ends, in the clock's time.
    until: Duration,
}

/// What the person needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCode {
    /// What is to be written.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// How long the code is good.
    pub span: Duration,
    /// How long to wait before the first question about it.
    pub wait: Duration,
}

/// Whether the person has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Not yet; how long to wait before the next question.
    Pending(Duration),
    /// Yes; when the token ends that was given.
    Done(Timestamp),
}

impl Tokens {
    /// Asks for a code. One that waits already is forgotten.
    ///
    /// # Errors
    ///
    /// [`TokenError`].
    pub async fn ask_for_code(
        &self,
        name: &SmartHostName,
        source: &TokenSource,
    ) -> Result<DeviceCode, TokenError> {
        let at = source.device_endpoint.as_ref().ok_or(TokenError::NoDeviceEndpoint)?;
        let answer = self.post(at, source, Wish::DeviceCode).await?;
        let code = answer::code(answer.status, &answer.body).map_err(|it| refused(at, it))?;
        let now = self.cache.0.clock.elapsed();
        let device = Device {
            device_code: code.device_code,
            source: source.clone(),
            interval: code.interval,
            next: now + code.interval,
            until: now + code.span,
        };
        lock(&self.cache.entry(name).state).device = Some(device);
        let (user_code, verification_uri) = (code.user_code, code.verification_uri);
        Ok(DeviceCode { user_code, verification_uri, span: code.span, wait: code.interval })
    }

    /// Asks whether the person has signed in, but not more often than the endpoint allows.
    ///
    /// # Errors
    ///
    /// [`TokenError`]; then the code is used up, unless the endpoint could not be reached.
    pub async fn poll_code(&self, name: &SmartHostName) -> Result<Polled, TokenError> {
        // What is given once must be kept, also if whoever asks goes away.
        let (tokens, name) = (self.clone(), name.clone());
        let asking = tokio::spawn(async move { tokens.poll_once(&name).await });
        asking.await.unwrap_or(Err(TokenError::Lost))
    }

    async fn poll_once(&self, name: &SmartHostName) -> Result<Polled, TokenError> {
        let entry = self.cache.entry(name);
        let _turn = entry.turn.lock().await;
        let clock = &self.cache.0.clock;
        let (device_code, source) = {
            let mut state = lock(&entry.state);
            let now = clock.elapsed();
            let device = state.device.take_if(|device| now >= device.until);
            if device.is_some() {
                return Err(TokenError::NoCode);
            }
            let device = state.device.as_mut().ok_or(TokenError::NoCode)?;
            if now < device.next {
                return Ok(Polled::Pending(device.next - now));
            }
            device.next = now + device.interval;
            (device.device_code.clone(), device.source.clone())
        };
        let asked_at = clock.now();
        let wish = Wish::DeviceToken(&device_code);
        let answer = self.post(&source.token_endpoint, &source, wish).await?;
        match answer::token(answer.status, &answer.body) {
            Ok(granted) => {
                lock(&entry.state).device = None;
                if granted.refresh_token.is_none() {
                    return Err(TokenError::ForOnce);
                }
                let token = self.take(name, &source, &entry, granted, asked_at).await;
                Ok(Polled::Done(token.until))
            }
            Err(refusal @ (Refusal::Pending | Refusal::SlowDown)) => {
                let mut state = lock(&entry.state);
                let device = state.device.as_mut().ok_or(TokenError::NoCode)?;
                if refusal == Refusal::SlowDown {
                    device.interval += SLOWER;
                    device.next += SLOWER;
                }
                Ok(Polled::Pending(device.interval))
            }
            Err(refusal) => {
                lock(&entry.state).device = None;
                Err(refused(&source.token_endpoint, refusal))
            }
        }
    }
}
