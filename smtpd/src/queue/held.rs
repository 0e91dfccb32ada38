//! Mail that waits until a host asks for it (ETRN): which routes are open, and until when.
//!
//! A route is opened for the mail that waits on it; whoever delivers closes it when that has had its
//! turn. Which routes are open survives a restart.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::control::DestinationPause;
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::route::table::{RouteName, Table};
use smtpd_core::smtp::etrn::Etrn;

use super::{Filter, Message, Queue, ReadError};
use crate::observe::{Level, Log};

/// Messages that are hurried in one go.
const BATCH: usize = 1_000;
/// How often it is looked whether all mail is known.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why mail on a route is not tried.
#[derive(Clone, Debug)]
pub enum Rest {
    /// An operator has paused the destination.
    Paused(DestinationPause),
    /// It waits to be asked for.
    Held,
    /// A host of its domain has come for it.
    Fetched,
}

impl Rest {
    /// Why, for people.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Paused(pause) => pause.words(),
            Self::Held => "held until a host of the domain asks for it (ETRN, ATRN)".to_owned(),
            Self::Fetched => "a host of the domain is fetching its mail (ATRN)".to_owned(),
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

impl Queue {
    /// Why mail on a route is not tried now; nothing if it may be.
    #[must_use]
    pub fn rest_of(&self, route: &RouteName, now: Timestamp) -> Option<Rest> {
        let paused = self.orders().pause_of(route, now).map(Rest::Paused);
        let held = || route.held_domain().and_then(|_| self.0.openings.rest_of(route));
        paused.or_else(held)
    }

    /// Sends the held mail that a client asks for, if it may: what waits for a later attempt too.
    /// Returns when the wish will survive a restart.
    pub async fn ask_for(&self, etrn: &Etrn, client: IpAddr, table: &Table, log: &Log) -> Asked {
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
        self.open_routes(routes, log).await;
        Asked::Opened(messages)
    }

    /// Opens routes of held mail until what waits on them has had its turn. Returns when that will
    /// survive a restart; if it cannot be written down the log is told, and it holds until then.
    pub async fn open_routes(&self, routes: Vec<RouteName>, log: &Log) {
        routes.iter().for_each(|route| self.0.openings.begin(route));
        self.0.openings.keep().await;
        let (queue, log) = (self.clone(), log.clone());
        tokio::spawn(async move { queue.hurry_all(routes, &log).await });
    }

    /// Goes on with the openings that were written down before the restart, once all mail is known.
    pub(super) fn reopen(&self, log: Log) {
        let routes = self.0.openings.all();
        if routes.is_empty() {
            return;
        }
        let queue = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            while let Some(inner) = queue.upgrade() {
                if !inner.store.counts().recovering {
                    return Self(inner).hurry_all(routes, &log).await;
                }
                let clock = inner.clock.clone();
                drop(inner);
                clock.sleep(LOOK_EVERY).await;
            }
        });
    }

    async fn hurry_all(&self, routes: Vec<RouteName>, log: &Log) {
        for route in routes {
            self.hurry_held(&route, log).await;
            self.0.openings.end_making(&route);
        }
    }

    /// Has held mail of a route tried now that waits for a later attempt; the log is told if that
    /// cannot be.
    pub async fn hurry_held(&self, route: &RouteName, log: &Log) {
        if let Err(error) = self.hurry(route).await {
            let line = log.line(Level::Error, "etrn-failed").word("route", route);
            line.word("error", &error).send();
        }
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
        self.0.openings.take_news()
    }

    /// Closes the open routes whose mail has had its turn; returns them.
    pub fn close_if(&self, is_done: impl Fn(&RouteName) -> bool) -> Vec<RouteName> {
        let done = self.0.openings.close_if(is_done);
        if !done.is_empty() {
            // Until that is written the restart finds them open, which harms nobody.
            let queue = self.clone();
            tokio::spawn(async move { queue.0.openings.keep().await });
        }
        done
    }

    /// Waits until routes may be newly open, or connections were handed over. For one caller at a time.
    pub async fn opened(&self) {
        self.0.openings.changed().await;
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
    use mailroot_common::units::ByteSize;

    use super::super::Settings;
    use super::*;
    use crate::clock::Clock;
    use crate::disk::{Disk, Modelled};
    use crate::store::conformance::{draft, start, table};
    use smtpd_core::route::domain::{Held, Pattern, RemoteDomain};

    fn holding(patterns: &[(&str, &str, Option<&str>)]) -> Arc<Table> {
        let mut settings = table(&[]).settings().clone();
        settings.remote_domains = patterns
            .iter()
            .map(|(pattern, from, queue)| RemoteDomain {
                held: Some(Held {
                    by_etrn: true,
                    fetchers: Vec::new(),
                    asked_from: vec![mailroot_common::net::Network::parse(from).unwrap()],
                    queue: queue.map(ToOwned::to_owned),
                    keep: mailroot_common::units::Span::days(10),
                }),
                ..RemoteDomain::plain(Pattern::parse(pattern).unwrap())
            })
            .collect();
        Arc::new(Table::new(settings).unwrap())
    }

    #[tokio::test]
    async fn held_mail_is_opened_to_those_who_may_ask_and_closed_when_it_had_its_turn() {
        let table = holding(&[
            ("branch.example", "192.0.2.1", None),
            ("*.sea.example", "192.0.2.2", Some("ships")),
        ]);
        let queue = Queue::in_memory(Clock::simulated(start(), 1), Arc::clone(&table));
        for to in ["a@branch.example", "b@branch.example", "a@x.sea.example", "a@y.sea.example"] {
            queue.accept(draft(&[to], start(), b"x")).await.unwrap();
        }
        let ask = async |text: &str, client: &str| {
            let etrn = Etrn::parse(text).unwrap();
            queue.ask_for(&etrn, client.parse().unwrap(), &table, &Log::quiet()).await
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
            assert_eq!(ask(text, client).await, expected, "{text} {client}");
        }
        assert!(rests("etrn:branch.example").is_none() && rests("etrn:x.sea.example").is_none());
        assert_eq!(queue.newly_open().len(), 3);
        assert!(queue.close_if(|_| true).is_empty());
        assert!(rests("etrn:branch.example").is_none(), "its mail is still being hurried");
        while queue.0.openings.is_being_made() {
            queue.opened().await;
        }
        assert!(queue.close_if(|_| true).is_empty());
        assert!(rests("etrn:branch.example").is_none(), "nobody has heard that it is ready");
        assert_eq!(queue.newly_open().len(), 3);
        assert_eq!(queue.close_if(|route| route.as_str() != "etrn:x.sea.example").len(), 2);
        assert!(rests("etrn:branch.example").is_some());
        assert!(rests("etrn:x.sea.example").is_none(), "it has not had its turn");
    }

    #[tokio::test]
    async fn what_was_asked_for_is_open_after_a_restart_until_it_had_its_turn() {
        let table = holding(&[("branch.example", "192.0.2.1", None)]);
        let disk = Disk::Modelled(Arc::new(Modelled::new(3)));
        let open = async || {
            let settings = Settings {
                server: "test".into(),
                directory: "/spool/Queue".into(),
                segment_size: ByteSize::kib(64),
                min_free: ByteSize::bytes(0),
            };
            let clock = Clock::simulated(start(), 1);
            let (log, counters) = (Log::quiet(), Arc::default());
            Queue::open_on(disk.clone(), settings, clock, log, counters, Arc::clone(&table))
                .await
                .unwrap()
        };
        let route = RouteName::from_text("etrn:branch.example");
        let queue = open().await;
        queue.accept(draft(&["a@branch.example"], start(), b"x")).await.unwrap();
        let etrn = Etrn::parse("branch.example").unwrap();
        let client = "192.0.2.1".parse().unwrap();
        let asked = queue.ask_for(&etrn, client, &table, &Log::quiet()).await;
        assert_eq!(asked, Asked::Opened(1));
        queue.close().await;
        drop(queue);

        let queue = open().await;
        assert!(queue.rest_of(&route, start()).is_none());
        assert!(queue.close_if(|_| true).is_empty(), "its mail may not be known yet");
        while queue.0.openings.is_being_made() {
            queue.opened().await;
        }
        assert_eq!(queue.newly_open(), std::slice::from_ref(&route));
        assert_eq!(queue.close_if(|_| true), std::slice::from_ref(&route));
        queue.0.openings.keep().await;
        queue.close().await;
        drop(queue);
        assert!(open().await.rest_of(&route, start()).is_some());
    }
}
