//! Mail that waits until a host asks for it (ETRN): which routes are open, and until when.
//!
//! A route is opened for the mail that waits on it; whoever delivers closes it when that has had its
//! turn. Nothing of this is kept: after a restart the mail waits to be asked for again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mailroot_common::address::Domain;
use mailroot_common::control::DestinationPause;
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::route::table::{RouteName, Table};
use smtpd_core::smtp::etrn::Etrn;
use tokio::sync::Notify;

use super::{Filter, Message, Queue, ReadError};
use crate::observe::{Level, Log};

/// Messages that are hurried in one go.
const BATCH: usize = 1_000;

/// Why mail on a route is not tried.
#[derive(Clone, Debug)]
pub enum Rest {
    /// An operator has paused the destination.
    Paused(DestinationPause),
    /// It waits to be asked for.
    Held,
}

impl Rest {
    /// Why, for people.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Paused(pause) => pause.words(),
            Self::Held => "held until a host of the domain asks for it (ETRN)".to_owned(),
        }
    }
}

/// Whether mail is asked for that this client may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It may have none that was asked for.
    Refused,
    /// This many messages are on their way now.
    Opened(u64),
}

/// Which routes are open.
#[derive(Debug, Default)]
pub(super) struct Openings {
    routes: Mutex<HashMap<RouteName, Opening>>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Opening {
    /// How many still hurry its mail.
    makers: u32,
    /// Whoever delivers has not heard of it since something changed.
    is_news: bool,
}

impl Openings {
    fn lock(&self) -> MutexGuard<'_, HashMap<RouteName, Opening>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self, route: &RouteName) -> bool {
        self.lock().contains_key(route)
    }

    fn begin(&self, route: &RouteName) {
        let mut routes = self.lock();
        let opening = routes.entry(route.clone()).or_default();
        opening.makers += 1;
        opening.is_news = true;
        drop(routes);
        self.changed.notify_one();
    }

    fn end_making(&self, route: &RouteName) {
        if let Some(opening) = self.lock().get_mut(route) {
            opening.makers = opening.makers.saturating_sub(1);
            opening.is_news = true;
        }
        self.changed.notify_one();
    }
}

impl Queue {
    /// Why mail on a route is not tried now; nothing if it may be.
    #[must_use]
    pub fn rest_of(&self, route: &RouteName, now: Timestamp) -> Option<Rest> {
        let paused = self.orders().pause_of(route, now).map(Rest::Paused);
        let held = || route.held_domain().is_some() && !self.0.openings.is_open(route);
        paused.or_else(|| held().then_some(Rest::Held))
    }

    /// Sends the held mail that a client asks for, if it may: what waits for a later attempt too.
    /// Returns at once.
    #[must_use]
    pub fn ask_for(&self, etrn: &Etrn, client: IpAddr, table: &Table, log: &Log) -> Asked {
        let known = table.settings().remote_domains.iter().any(|entry| {
            entry.held.as_ref().is_some_and(|held| held.may_ask(client))
                && could_mean(etrn, entry, table)
        });
        if !known {
            return Asked::Refused;
        }
        let meant = |route: &RouteName| {
            let domain = Domain::parse(route.held_domain()?).ok()?;
            let held = table.held(route).filter(|held| held.may_ask(client))?;
            etrn.means(&domain, held.queue.as_deref()).then_some(())
        };
        let mut counts = self.routes();
        counts.retain(|count| meant(&count.route).is_some());
        let messages = counts.iter().map(|count| count.messages).sum();
        let routes: Vec<RouteName> = counts.into_iter().map(|count| count.route).collect();
        self.open_routes(routes, log);
        Asked::Opened(messages)
    }

    /// Opens routes of held mail until what waits on them has had its turn. Returns at once.
    pub fn open_routes(&self, routes: Vec<RouteName>, log: &Log) {
        routes.iter().for_each(|route| self.0.openings.begin(route));
        let (queue, log) = (self.clone(), log.clone());
        tokio::spawn(async move {
            for route in routes {
                if let Err(error) = queue.hurry(&route).await {
                    let line = log.line(Level::Error, "etrn-failed").word("route", &route);
                    line.word("error", &error).send();
                }
                queue.0.openings.end_making(&route);
            }
        });
    }

    /// Has mail of a route tried now that waits for a later attempt.
    async fn hurry(&self, route: &RouteName) -> Result<(), ReadError> {
        let filter = Filter { route: Some(route.clone()), ..Filter::default() };
        let mut after = None;
        loop {
            let page = self.list(&filter, after, BATCH).await?;
            let now = self.0.clock.now();
            let later = |message: &&Message| message.next_attempt_at().is_some_and(|at| at > now);
            let ids: Vec<QueueId> = page.iter().filter(later).map(|message| message.id).collect();
            // A store that cannot record it has said so; the mail keeps its moment.
            if ids.is_empty() || self.retry(&ids, now).await.is_ok() {
                after = page.last().map(|message| message.id);
            }
            if page.len() < BATCH {
                return Ok(());
            }
        }
    }

    /// Routes that were opened, or are ready to be emptied, since this was asked last.
    #[must_use]
    pub fn newly_open(&self) -> Vec<RouteName> {
        let mut routes = self.0.openings.lock();
        let news = routes.iter_mut().filter(|(_, opening)| opening.is_news);
        news.map(|(route, opening)| {
            opening.is_news = false;
            route.clone()
        })
        .collect()
    }

    /// Closes the open routes whose mail has had its turn; returns them.
    pub fn close_if(&self, is_done: impl Fn(&RouteName) -> bool) -> Vec<RouteName> {
        let mut routes = self.0.openings.lock();
        let done = routes
            .extract_if(|route, opening| !opening.is_news && opening.makers == 0 && is_done(route));
        done.map(|(route, _)| route).collect()
    }

    /// Waits until routes may be newly open. For one caller at a time.
    pub async fn opened(&self) {
        self.0.openings.changed.notified().await;
    }
}

/// Whether an entry speaks of domains that are asked for.
fn could_mean(etrn: &Etrn, entry: &smtpd_core::route::domain::RemoteDomain, table: &Table) -> bool {
    let queue = entry.held.as_ref().and_then(|held| held.queue.as_deref());
    match etrn {
        Etrn::Domain(name) => table.remote(name).is_some_and(|found| found == entry),
        Etrn::Below(name) => entry.pattern.is_within(name),
        Etrn::Queue(name) => queue.is_some_and(|queue| queue.eq_ignore_ascii_case(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::conformance::{draft, start, table};
    use smtpd_core::route::domain::{Held, Pattern, RemoteDomain};

    fn holding(patterns: &[(&str, &str, Option<&str>)]) -> std::sync::Arc<Table> {
        let mut settings = table(&[]).settings().clone();
        settings.remote_domains = patterns
            .iter()
            .map(|(pattern, from, queue)| RemoteDomain {
                held: Some(Held {
                    asked_from: vec![mailroot_common::net::Network::parse(from).unwrap()],
                    queue: queue.map(ToOwned::to_owned),
                    keep: mailroot_common::units::Span::days(10),
                }),
                ..RemoteDomain::plain(Pattern::parse(pattern).unwrap())
            })
            .collect();
        std::sync::Arc::new(Table::new(settings).unwrap())
    }

    #[tokio::test]
    async fn held_mail_is_opened_to_those_who_may_ask_and_closed_when_it_had_its_turn() {
        let table = holding(&[
            ("branch.example", "192.0.2.1", None),
            ("*.sea.example", "192.0.2.2", Some("ships")),
        ]);
        let queue = Queue::in_memory(Clock::simulated(start(), 1), std::sync::Arc::clone(&table));
        for to in ["a@branch.example", "b@branch.example", "a@x.sea.example", "a@y.sea.example"] {
            queue.accept(draft(&[to], start(), b"x")).await.unwrap();
        }
        let ask = |text: &str, client: &str| {
            let etrn = Etrn::parse(text).unwrap();
            queue.ask_for(&etrn, client.parse().unwrap(), &table, &Log::quiet())
        };
        let rests = |route: &str| {
            queue.rest_of(&RouteName::from_text(route), start()).map(|rest| rest.words())
        };
        assert!(rests("etrn:branch.example").unwrap().contains("ETRN"));
        assert!(rests("mx:branch.example").is_none());
        for (text, client, expected) in [
            ("branch.example", "192.0.2.2", Asked::Refused),
            ("other.example", "192.0.2.1", Asked::Refused),
            ("#nothing", "192.0.2.2", Asked::Refused),
            ("#SHIPS", "192.0.2.1", Asked::Refused),
            ("z.sea.example", "192.0.2.2", Asked::Opened(0)),
            ("x.sea.example", "192.0.2.2", Asked::Opened(1)),
            ("@sea.example", "192.0.2.2", Asked::Opened(2)),
            ("#ships", "192.0.2.2", Asked::Opened(2)),
            ("branch.example", "192.0.2.1", Asked::Opened(2)),
        ] {
            assert_eq!(ask(text, client), expected, "{text} {client}");
        }
        assert!(rests("etrn:branch.example").is_none() && rests("etrn:x.sea.example").is_none());
        assert_eq!(queue.newly_open().len(), 3);
        assert!(queue.close_if(|_| true).is_empty());
        assert!(rests("etrn:branch.example").is_none(), "its mail is still being hurried");
        while queue.0.openings.lock().values().any(|opening| opening.makers > 0) {
            queue.opened().await;
        }
        assert!(queue.close_if(|_| true).is_empty());
        assert!(rests("etrn:branch.example").is_none(), "nobody has heard that it is ready");
        assert_eq!(queue.newly_open().len(), 3);
        assert_eq!(queue.close_if(|route| route.as_str() != "etrn:x.sea.example").len(), 2);
        assert!(rests("etrn:branch.example").is_some());
        assert!(rests("etrn:x.sea.example").is_none(), "it has not had its turn");
    }
}
