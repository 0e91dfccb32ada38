//! What is asked of the web: policies of other domains, and tokens of smart hosts, as operators see
//! them: given now, or by a person with a code.

use mailroot_common::config::SmartHostName;
use mailroot_common::config::dns::Resolvers;
use mailroot_common::config::oauth::{Grant, TokenSource};
use mailroot_common::config::smart_hosts::SmartHostKeys;
use mailroot_common::control::{Check, DeviceCode, DeviceState, Level};
use mailroot_common::units::{Span, Timestamp};

use super::{Reach, Service, ServiceError};
use crate::config::{EditError, Loaded, Secrets};
use crate::https::Https;
use crate::mta_sts::MtaSts;
use crate::oauth::{Polled, TokenError, Tokens};
use crate::resolve::{self, Resolver};
use crate::tls::ClientTls;

impl Service {
    /// By which means other hosts are found and spoken to.
    pub(super) fn reach(&self, loaded: &Loaded) -> Result<Reach, ServiceError> {
        let dns = &loaded.service.dns;
        let settings = resolve::Settings {
            name_servers: match &dns.resolvers {
                Resolvers::System => Vec::new(),
                Resolvers::List(list) => list.clone(),
            },
            timeout: dns.timeout.as_duration(),
        };
        let log = self.0.log.clone();
        let resolver = Resolver::new(&settings, log).map_err(ServiceError::Resolver)?;
        Ok(Reach { resolver, tls: ClientTls::new(&loaded.service.tls) })
    }

    /// Passwords and other secrets.
    pub(super) fn secrets(&self) -> Secrets {
        Secrets::in_directory(&self.0.paths.secrets_dir)
    }

    /// Gives tokens by these means.
    pub(super) fn tokens_by(&self, reach: &Reach) -> Tokens {
        Tokens::new(self.0.tokens.clone(), self.https_by(reach), self.secrets())
    }

    /// Knows the policies of other domains by these means.
    pub(super) fn policies_by(&self, reach: &Reach) -> MtaSts {
        MtaSts::new(self.0.mta_sts.clone(), self.https_by(reach))
    }

    pub(super) fn https_by(&self, reach: &Reach) -> Https {
        let (net, resolver) = (self.0.net.clone(), reach.resolver.clone());
        Https { net, resolver, tls: reach.tls.clone() }
    }

    /// Gives tokens by the configuration in force.
    fn tokens(&self) -> Result<Tokens, ServiceError> {
        Ok(self.tokens_by(&self.reach(&self.active())?))
    }

    /// When the token of a smart host ends, if there is one.
    pub(super) fn token_until(
        &self,
        name: &SmartHostName,
        keys: &SmartHostKeys,
    ) -> Option<Timestamp> {
        self.0.tokens.until(name, &keys.token_source()?)
    }

    /// Uses rights to ask for tokens that would lapse, where no mail does it: in the background, one after
    /// the other.
    pub fn uphold_rights(&self) {
        let loaded = self.active();
        let hosts = loaded.service.smart_hosts.iter();
        let sources: Vec<(SmartHostName, TokenSource)> = hosts
            .filter_map(|(name, keys)| Some((name.clone(), keys.token_source()?)))
            .filter(|(_, source)| source.grant == Grant::RefreshToken)
            .collect();
        if sources.is_empty() {
            return;
        }
        let Ok(tokens) = self.tokens() else { return };
        tokio::spawn(async move {
            for (name, source) in &sources {
                tokens.uphold(name, source).await;
            }
        });
    }

    /// Whether the right to ask for tokens of a smart host is about to lapse, in words.
    pub(super) fn lapsing_right(&self, name: &SmartHostName) -> Option<String> {
        let source = self.token_source(name).ok()?;
        let lapsing = self.0.tokens.lapsing(name, &source)?;
        let why = lapsing.why.map(|why| format!(": {why}")).unwrap_or_default();
        Some(format!(
            "the right to ask for tokens of {name} was last used on {} and may end on {}{why}",
            lapsing.used, lapsing.until
        ))
    }

    /// Whether a smart host's token can be had, a new one if that is wished; nothing if it logs in
    /// otherwise.
    ///
    /// # Errors
    ///
    /// There is no such smart host.
    pub async fn check_token(
        &self,
        name: &SmartHostName,
        anew: bool,
    ) -> Result<Option<Check>, ServiceError> {
        let loaded = self.active();
        let no_such = || EditError::NoSmartHost(name.clone());
        let keys = loaded.service.smart_hosts.get(name).ok_or_else(no_such)?;
        let Some(source) = keys.token_source() else { return Ok(None) };
        let tokens = self.tokens()?;
        let given = match anew {
            true => tokens.get_new(name, &source).await,
            false => tokens.get(name, &source).await,
        };
        let check = |level, text: String| Check::new(level, "smarthost", "token", text);
        if let (Ok(_), Some(words)) = (&given, self.lapsing_right(name)) {
            let hint = format!("a person signs in anew: smtpctl smarthost login {name}");
            return Ok(Some(check(Level::Warn, words).hint(hint)));
        }
        Ok(Some(match given {
            Ok(token) => {
                let left = token.until.since(self.0.clock.now());
                let left = Span::seconds(left.as_millis() / 1_000);
                let mailbox = keys.auth.login_name().unwrap_or_default();
                let grant = source.grant.word();
                check(
                    Level::Ok,
                    format!("token of {name} for {mailbox} ({grant}), good for {left}"),
                )
            }
            Err(error) => check(Level::Fail, format!("smart host {name} has no token: {error}"))
                .hint("mail for it waits; what follows was not tried"),
        }))
    }

    /// Asks for a code with which a person signs in.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Token`], or there is no such smart host.
    pub async fn ask_for_code(&self, name: &SmartHostName) -> Result<DeviceCode, ServiceError> {
        let source = self.token_source(name)?;
        let code = self.tokens()?.ask_for_code(name, &source).await;
        let code = code.map_err(|source| no_token(name, source))?;
        Ok(DeviceCode {
            user_code: code.user_code,
            verification_uri: code.verification_uri,
            good_for: code.span.as_secs(),
            wait: code.wait.as_secs(),
        })
    }

    /// Whether the person has signed in.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Token`], or there is no such smart host.
    pub async fn poll_code(&self, name: &SmartHostName) -> Result<DeviceState, ServiceError> {
        self.token_source(name)?;
        match self.tokens()?.poll_code(name).await.map_err(|source| no_token(name, source))? {
            Polled::Pending(wait) => {
                Ok(DeviceState { signed_in: false, wait: wait.as_secs().max(1), token_until: None })
            }
            Polled::Done(until) => {
                Ok(DeviceState { signed_in: true, wait: 0, token_until: Some(until) })
            }
        }
    }

    /// Where the tokens of a smart host are had.
    pub(super) fn token_source(&self, name: &SmartHostName) -> Result<TokenSource, ServiceError> {
        let loaded = self.active();
        let no_such = || EditError::NoSmartHost(name.clone());
        let keys = loaded.service.smart_hosts.get(name).ok_or_else(no_such)?;
        keys.token_source().ok_or_else(|| ServiceError::NoTokens(name.clone()))
    }
}

fn no_token(name: &SmartHostName, source: TokenError) -> ServiceError {
    ServiceError::Token { name: name.clone(), source }
}
