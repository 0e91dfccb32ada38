//! Asks DNS whether mail is from whom it says, and compares signatures with keys.
//!
//! In: what [`smtpd_core::sender`] judges. Out: findings. Its book of answers is filled here, within two
//! bounds for each message: so many questions, and so much time. What is not answered by then counts as
//! unknown, which refuses nothing.

mod verify;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::units::Timestamp;
use smtpd_core::sender::book::{Answer, Book, Nothing, Question};
use smtpd_core::sender::{Examined, Findings, Identity, SpfFinding, Wanted};
use tokio::task::{Id, JoinSet};
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
    /// Who is believed that has sealed a message on its way (`senders.trusted_sealers`).
    pub trusted: Arc<[Domain]>,
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

/// Asks a judge, and DNS for what he wants, until he has an answer. He is asked again after each answer,
/// so that what hangs holds nothing else up. What is not answered in time is entered as unknown, and a
/// judge wants a bounded number of things.
pub async fn settle<T>(
    resolver: &Resolver,
    patience: Duration,
    judge: impl FnMut(&mut Book) -> Option<T>,
) -> T {
    let left = Arc::new(Allowance::of(QUESTIONS_MAX));
    let look_up = |question: Question| {
        let (resolver, left) = (resolver.clone(), Arc::clone(&left));
        async move { resolver.look_up(&question, &left).await }
    };
    settle_by(look_up, Instant::now() + patience, judge).await
}

async fn settle_by<T, F: Future<Output = Answer> + Send + 'static>(
    look_up: impl Fn(Question) -> F,
    end: Instant,
    mut judge: impl FnMut(&mut Book) -> Option<T>,
) -> T {
    let mut book = Book::default();
    let mut asking = Asking::default();
    loop {
        if let Some(said) = judge(&mut book) {
            return said;
        }
        for question in book.take_wanted() {
            if Instant::now() >= end {
                book.enter(question, Err(Nothing::Unknown));
            } else {
                asking.ask(question, &look_up);
            }
        }
        asking.hear(end, &mut book).await;
    }
}

/// What was asked and is not answered yet.
#[derive(Default)]
struct Asking {
    tasks: JoinSet<Answer>,
    open: HashMap<Id, Question>,
}

impl Asking {
    fn ask<F: Future<Output = Answer> + Send + 'static>(
        &mut self,
        question: Question,
        look_up: impl Fn(Question) -> F,
    ) {
        if !self.open.values().any(|open| *open == question) {
            let task = self.tasks.spawn(look_up(question.clone()));
            self.open.insert(task.id(), question);
        }
    }

    /// Enters the next answer, and those that are there with it. At the end all that is open is unknown.
    async fn hear(&mut self, end: Instant, book: &mut Book) {
        let Ok(mut heard) = timeout_at(end, self.tasks.join_next_with_id()).await else {
            self.tasks.abort_all();
            for (_, question) in self.open.drain() {
                book.enter(question, Err(Nothing::Unknown));
            }
            return;
        };
        while let Some(done) = heard {
            let (id, answer) = done.unwrap_or_else(|error| (error.id(), Err(Nothing::Unknown)));
            if let Some(question) = self.open.remove(&id) {
                book.enter(question, answer);
            }
            heard = self.tasks.try_join_next_with_id();
        }
    }
}

#[cfg(test)]
mod tests;
