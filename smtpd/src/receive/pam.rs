//! Passwords that this machine's PAM judges: whether they are right, and whether the account may be used.
//!
//! Its modules run within the daemon and wait for whom they like. So each question has a thread of its own, there
//! are few at once, and whoever asks stops waiting; a module that hangs keeps its place until it
//! comes back.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use nonstick::items::ItemsMut;
use nonstick::{
    AuthnFlags, ConversationAdapter, ErrorCode, PamShared, Transaction, TransactionBuilder,
};
use tokio::sync::{Semaphore, oneshot};
use zeroize::Zeroizing;

/// Questions at once.
const AT_ONCE_MAX: usize = 4;

/// Places of those who ask. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE_MAX)))
    }
}

/// What PAM is asked.
pub(super) struct Question {
    /// The name of the service, which names the rules.
    pub(super) service: String,
    /// The user.
    pub(super) name: String,
    /// The password.
    pub(super) password: Zeroizing<String>,
    /// From where the client comes, for modules that look at it.
    pub(super) client: IpAddr,
}

/// What PAM says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The password is right, and the account may be used.
    Right,
    /// One of them is not so.
    Wrong,
    /// Nothing, and why, in its own words.
    Unsaid(String),
}

impl Places {
    /// Asks, when there is a place.
    pub(super) async fn ask(&self, question: Question) -> Said {
        // It is never closed.
        let Ok(place) = Arc::clone(&self.0).acquire_owned().await else {
            return Said::Unsaid("nobody asks any more".to_owned());
        };
        let (tell, told) = oneshot::channel();
        // Not one of the runtime's: the end of the daemon would wait for it.
        let asking = thread::Builder::new().name("pam".to_owned()).spawn(move || {
            let said = judge(&question);
            drop(place);
            // Whoever asked may have stopped waiting.
            let _gone = tell.send(said);
        });
        match asking {
            Ok(_) => {
                told.await.unwrap_or_else(|_| Said::Unsaid("the question broke down".to_owned()))
            }
            Err(error) => Said::Unsaid(format!("no thread can be had: {error}")),
        }
    }
}

/// Says the password to whoever asks for something that is not shown.
struct Words(Zeroizing<String>);

impl ConversationAdapter for Words {
    fn prompt(&self, _request: impl AsRef<OsStr>) -> nonstick::Result<OsString> {
        Err(ErrorCode::ConversationError)
    }

    fn masked_prompt(&self, _request: impl AsRef<OsStr>) -> nonstick::Result<OsString> {
        Ok(OsString::from(self.0.as_str()))
    }

    fn error_msg(&self, _message: impl AsRef<OsStr>) {}

    fn info_msg(&self, _message: impl AsRef<OsStr>) {}
}

fn judge(question: &Question) -> Said {
    // What no account should have, and what a C string cannot hold.
    if question.password.is_empty() || question.password.contains('\0') {
        return Said::Wrong;
    }
    let words = Words(question.password.clone()).into_conversation();
    let begun = TransactionBuilder::new_with_service(&question.service).username(&question.name);
    let mut transaction = match begun.build(words) {
        Ok(transaction) => transaction,
        Err(code) => return Said::Unsaid(code.to_string()),
    };
    let client = OsString::from(question.client.to_string());
    if let Err(code) = transaction.items_mut().set_remote_host(Some(&client)) {
        return Said::Unsaid(code.to_string());
    }
    let flags = AuthnFlags::SILENT | AuthnFlags::DISALLOW_NULL_AUTHTOK;
    let judged = transaction.authenticate(flags);
    match judged.and_then(|()| transaction.account_management(flags)) {
        Ok(()) => Said::Right,
        Err(code) => verdict(code),
    }
}

/// Only answers about this user are a "no".
fn verdict(code: ErrorCode) -> Said {
    match code {
        ErrorCode::AuthenticationError
        | ErrorCode::UserUnknown
        | ErrorCode::MaxTries
        | ErrorCode::AccountExpired
        | ErrorCode::NewAuthTokRequired
        | ErrorCode::AuthTokExpired
        | ErrorCode::CredentialsExpired
        | ErrorCode::PermissionDenied => Said::Wrong,
        _ => Said::Unsaid(code.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_about_the_user_is_a_no() {
        for code in [ErrorCode::AuthenticationError, ErrorCode::AccountExpired] {
            assert_eq!(verdict(code), Said::Wrong);
        }
        for code in [
            ErrorCode::AuthInfoUnavailable,
            ErrorCode::SystemError,
            ErrorCode::OpenError,
            ErrorCode::ConversationError,
            ErrorCode::Abort,
        ] {
            assert!(matches!(verdict(code), Said::Unsaid(_)), "{code:?}");
        }
    }

    #[tokio::test]
    async fn no_password_is_never_right() {
        for password in ["", "a\0b"] {
            let question = Question {
                service: "mailroot-test".to_owned(),
                name: "ada".to_owned(),
                password: Zeroizing::new(password.to_owned()),
                client: IpAddr::from([192, 0, 2, 1]),
            };
            assert_eq!(Places::default().ask(question).await, Said::Wrong);
        }
    }
}
