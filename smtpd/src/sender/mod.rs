//! Asks DNS whether mail is from whom it says, and compares signatures with keys.
//!
//! In: what [`smtpd_core::sender`] judges. Out: findings. Its book of answers is filled here, within two
//! bounds for each message: so many questions, and so much time. What is not answered by then counts as
//! unknown, which refuses nothing.

mod verify;

use std::sync::Arc;
use std::time::Duration;

use mailroot_common::units::Timestamp;
use smtpd_core::sender::book::{Book, Nothing, Question};
use smtpd_core::sender::{Examined, Findings, Identity, SpfFinding, Wanted};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::verify::verify;
use crate::resolve::{Allowance, Resolver};

/// Questions that one message may cause; honest ones cause about twenty.
const QUESTIONS_MAX: u32 = 200;

/// How the mail of strangers is looked at.
#[derive(Clone, Debug)]
pub struct Checks {
    /// What is looked at, and what is done about it.
    pub wanted: Wanted,
    /// The name that the results are given under (`senders.name`).
    pub host: Arc<str>,
    /// How long all questions of one look may take (`senders.timeout`).
    pub patience: Duration,
    /// Who is asked.
    pub resolver: Resolver,
}

impl Checks {
    /// What SPF says about a sender.
    pub async fn spf(&self, identity: &Identity) -> SpfFinding {
        settle(&self.resolver, self.patience, |book| identity.judge(book)).await
    }

    /// What is found about a message. `spf` is what was found before.
    pub async fn judge(
        &self,
        examined: &Examined,
        identity: &Identity,
        spf: Option<&SpfFinding>,
        now: Timestamp,
    ) -> Findings {
        let judge = |book: &mut Book| examined.judge(book, (identity, spf), now, &verify);
        settle(&self.resolver, self.patience, judge).await
    }
}

/// Asks a judge, and DNS for what he wants, until he has an answer. Each round answers all that was
/// wanted, if only as unknown, and a judge wants a bounded number of things.
pub async fn settle<T>(
    resolver: &Resolver,
    patience: Duration,
    mut judge: impl FnMut(&mut Book) -> Option<T>,
) -> T {
    let mut book = Book::default();
    let left = Arc::new(Allowance::of(QUESTIONS_MAX));
    let end = Instant::now() + patience;
    loop {
        if let Some(said) = judge(&mut book) {
            return said;
        }
        let wanted = book.take_wanted();
        ask(resolver, wanted, &left, end, &mut book).await;
    }
}

async fn ask(
    resolver: &Resolver,
    wanted: Vec<Question>,
    left: &Arc<Allowance>,
    end: Instant,
    book: &mut Book,
) {
    let mut asking = JoinSet::new();
    for question in wanted {
        book.enter(question.clone(), Err(Nothing::Unknown));
        if Instant::now() >= end {
            continue;
        }
        let (resolver, left) = (resolver.clone(), Arc::clone(left));
        asking.spawn(async move {
            let answer = resolver.look_up(&question, &left).await;
            (question, answer)
        });
    }
    while let Ok(Some(answered)) = timeout_at(end, asking.join_next()).await {
        if let Ok((question, answer)) = answered {
            book.enter(question, answer);
        }
    }
}

#[cfg(test)]
mod tests;
