//! One request: the account, the order, the proof that the names are ours, and the certificate.

use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use smtpd_core::acme::Wanted;
use zeroize::Zeroizing;

use super::challenge::Answers;
use super::kept::{self, Kept};
use super::web::Web;
use super::{AcmeError, Means};
use crate::observe::{Level, Log};
use crate::tls::Texts;

/// How long the authority may take to look at our answers, and then to sign.
const POLL: Duration = Duration::from_mins(2);
/// The end of the type of a problem: the authority does not know us.
const UNKNOWN_ACCOUNT: &str = ":accountDoesNotExist";
/// The most of what an authority says at once that is told.
const WORDS_CHARS_MAX: usize = 1_000;

/// One request and what it needs.
pub(super) struct Request<'a> {
    pub(super) means: &'a Means,
    pub(super) wanted: &'a Wanted,
    pub(super) kept: &'a Kept,
    pub(super) log: &'a Log,
}

impl Request<'_> {
    /// Makes it. An account that the authority does not know any more is replaced.
    pub(super) async fn run(&self) -> Result<Texts, AcmeError> {
        let answers = Answers::listen(&self.means.https.net, &self.means.listen)?;
        let order = match self.order(&self.account().await?).await {
            Err(error) if is_unknown(&error) => self.order(&self.new_account().await?).await,
            other => other,
        };
        let mut order = order.map_err(|error| self.refused(&error))?;
        self.prove(&mut order, &answers).await?;
        self.fetch(&mut order).await
    }

    /// Our account with the authority, as it was kept, or a new one.
    async fn account(&self) -> Result<Account, AcmeError> {
        let kept = self.kept.account().unwrap_or_else(|reason| {
            self.log.line(Level::Warn, "acme-account-unread").text("reason", reason).send();
            None
        });
        let Some(kept) = kept.filter(|kept| kept.directory == self.wanted.directory) else {
            return self.new_account().await;
        };
        let is_told = kept.email == self.means.email;
        let copy = copy(&kept.credentials);
        let account = Account::builder_with_http(self.web()).from_credentials(kept.credentials);
        let account = account.await.map_err(|error| self.refused(&error))?;
        if is_told {
            return Ok(account);
        }
        let contact = self.contact();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        match account.update_contacts(&contact).await {
            Ok(()) => self.keep(copy.ok_or(AcmeError::Account)?).await?,
            Err(error) if is_unknown(&error) => return self.new_account().await,
            Err(error) => return Err(self.refused(&error)),
        }
        Ok(account)
    }

    async fn new_account(&self) -> Result<Account, AcmeError> {
        let contact = self.contact();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wish = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let made = Account::builder_with_http(self.web());
        let made = made.create(&wish, self.wanted.directory.clone(), None).await;
        let (account, credentials) = made.map_err(|error| self.refused(&error))?;
        self.keep(credentials).await?;
        let line = self.log.line(Level::Info, "acme-account");
        line.word("authority", &self.wanted.directory).word("account", cut(account.id())).send();
        Ok(account)
    }

    async fn keep(&self, credentials: AccountCredentials) -> Result<(), AcmeError> {
        let (directory, email) = (self.wanted.directory.clone(), self.means.email.clone());
        let (kept, account) = (self.kept.clone(), kept::Account { directory, email, credentials });
        let keeping = tokio::task::spawn_blocking(move || kept.keep_account(&account));
        keeping.await.map_err(std::io::Error::other).flatten().map_err(AcmeError::Keep)
    }

    fn contact(&self) -> Option<String> {
        self.means.email.as_ref().map(|email| format!("mailto:{email}"))
    }

    fn web(&self) -> Box<Web> {
        let directory = self.wanted.directory.clone();
        Box::new(Web { https: self.means.https.clone(), directory })
    }

    async fn order(&self, account: &Account) -> Result<Order, Error> {
        let names = self.wanted.names.iter();
        let names: Vec<Identifier> = names.map(|name| Identifier::Dns(name.clone())).collect();
        account.new_order(&NewOrder::new(&names)).await
    }

    /// Answers the authority's questions, and waits until it has looked.
    async fn prove(&self, order: &mut Order, answers: &Answers) -> Result<(), AcmeError> {
        let mut open = order.authorizations();
        while let Some(next) = open.next().await {
            let mut authorization = next.map_err(|error| self.refused(&error))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let name = cut(&authorization.identifier().to_string());
            let challenge = authorization.challenge(ChallengeType::Http01);
            let mut challenge = challenge.ok_or(AcmeError::NoHttp01(name))?;
            answers.add(&challenge.token, challenge.key_authorization().as_str());
            if let Err(error) = challenge.set_ready().await {
                // It may have looked already, and say so in its answer.
                let why = self.reason(order).await.ok_or_else(|| self.refused(&error))?;
                return Err(AcmeError::NotProved { why, here: answers.words() });
            }
        }
        let policy = RetryPolicy::new().timeout(POLL);
        let status = order.poll_ready(&policy).await;
        match status {
            Ok(OrderStatus::Ready | OrderStatus::Valid | OrderStatus::Processing) => Ok(()),
            Ok(OrderStatus::Pending) | Err(Error::Timeout(_)) => {
                Err(AcmeError::Late(answers.words()))
            }
            Ok(OrderStatus::Invalid) | Err(Error::Api(_)) => {
                let why = self.reason(order).await;
                let why = why.or_else(|| status.err().map(|error| words(&error)));
                let why = why.unwrap_or_else(|| "it gives no reason".to_owned());
                Err(AcmeError::NotProved { why, here: answers.words() })
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    /// Why the authority found a name not to be ours: name and reason of the first.
    async fn reason(&self, order: &mut Order) -> Option<String> {
        let mut all = order.authorizations();
        while let Some(next) = all.next().await {
            let mut authorization = next.ok()?;
            let state = authorization.refresh().await.ok()?;
            let mut failures = state.challenges.iter().filter_map(|it| it.error.as_ref());
            if let Some(problem) = failures.next() {
                let why = format!("{}: {}", state.identifier(), problem_words(problem));
                return Some(cut(&why));
            }
        }
        None
    }

    /// Has a new key signed.
    async fn fetch(&self, order: &mut Order) -> Result<Texts, AcmeError> {
        let unfit = |error: rcgen::Error| AcmeError::Unfit(error.to_string());
        let mut params = CertificateParams::new(self.wanted.names.clone()).map_err(unfit)?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate().map_err(unfit)?;
        let wish = params.serialize_request(&key).map_err(unfit)?;
        order.finalize_csr(wish.der()).await.map_err(|error| self.refused(&error))?;
        let policy = RetryPolicy::new().timeout(POLL);
        let chain = order.poll_certificate(&policy).await.map_err(|error| self.refused(&error))?;
        let key = Zeroizing::new(key.serialize_pem().into_bytes());
        Ok(Texts { chain: chain.into_bytes(), key })
    }

    fn refused(&self, error: &Error) -> AcmeError {
        AcmeError::Authority { at: self.wanted.directory.clone(), why: words(error) }
    }
}

/// Credentials are read once by the library and kept once by us.
fn copy(credentials: &AccountCredentials) -> Option<AccountCredentials> {
    serde_json::from_value(serde_json::to_value(credentials).ok()?).ok()
}

fn is_unknown(error: &Error) -> bool {
    match error {
        Error::Api(problem) => {
            problem.r#type.as_deref().is_some_and(|it| it.ends_with(UNKNOWN_ACCOUNT))
        }
        _ => false,
    }
}

/// What went wrong, in the authority's own words where it has said any.
fn words(error: &Error) -> String {
    cut(&match error {
        Error::Api(problem) => problem_words(problem),
        Error::Other(inner) => inner.to_string(),
        other => other.to_string(),
    })
}

/// As much of a text as is told.
fn cut(text: &str) -> String {
    text.chars().take(WORDS_CHARS_MAX).collect()
}

fn problem_words(problem: &instant_acme::Problem) -> String {
    let detail = problem.detail.as_deref().unwrap_or("it gives no reason");
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.rsplit(':').next().filter(|kind| !kind.is_empty());
    kind.map_or_else(|| detail.to_owned(), |kind| format!("{detail} ({kind})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_quoted_within_bounds() {
        let problem = |detail: &str| {
            let problem = serde_json::json!({ "type": "urn:a:rateLimited", "detail": detail });
            Error::Api(serde_json::from_value(problem).unwrap())
        };
        assert_eq!(words(&problem("wait")), "wait (rateLimited)");
        assert_eq!(words(&problem(&"\u{e4}".repeat(200_000))).chars().count(), WORDS_CHARS_MAX);
    }
}
