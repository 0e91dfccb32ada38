//! Mail that a host of its domain comes for with a connection of its own (ATRN, RFC 2645).
//!
//! Whoever receives claims the routes and hands the connection over; whoever delivers sends what
//! waits on them over it. While a route is claimed its mail leaves no other way. A claim ends with the
//! session, however that ends; nothing of it is kept.

use std::fmt;
use std::net::SocketAddr;
use std::sync::PoisonError;

use mailroot_common::address::Domain;
use mailroot_common::id::SessionId;
use smtpd_core::queue::outcome::Protection;
use smtpd_core::route::domain::RemoteDomain;
use smtpd_core::route::table::{RouteName, Table, TlsPolicy};
use tokio::sync::{oneshot, watch};

use super::Queue;
use crate::net::Stream;

/// Why mail cannot be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFetch {
    /// The user may not have it, or not all of it.
    Denied,
    /// Some of it leaves under TLS only, and the connection is not.
    NeedsTls,
    /// Somebody is fetching it.
    Busy,
    /// None waits.
    Nothing,
    /// Not all mail is known yet: the queue is being read.
    Unknown,
}

/// Who comes for mail, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Fetcher<'a> {
    /// Who has logged in.
    pub user: &'a str,
    /// Whether the connection is under TLS.
    pub is_secured: bool,
    /// What is done about TLS where the entry of a domain says nothing.
    pub usual_tls: TlsPolicy,
}

impl Fetcher<'_> {
    fn may_have(&self, entry: &RemoteDomain) -> bool {
        entry.held.as_ref().is_some_and(|held| held.may_fetch(self.user))
    }

    /// Whether the connection is good enough for the mail of an entry. Who it is was proved by the
    /// login, so that no certificate is asked for.
    fn is_safe_for(&self, entry: &RemoteDomain) -> bool {
        self.is_secured || entry.tls.unwrap_or(self.usual_tls) < TlsPolicy::Required
    }
}

/// Routes whose mail one session fetches. Given back when it is dropped.
pub struct Claim {
    queue: Queue,
    routes: Vec<RouteName>,
    /// How many messages wait on them.
    messages: u64,
}

impl Claim {
    /// The routes.
    #[must_use]
    pub fn routes(&self) -> &[RouteName] {
        &self.routes
    }

    /// How many messages waited on them when they were claimed, due or not.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claim").field(&self.routes).finish()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.queue.0.openings.unclaim(&self.routes);
    }
}

/// How far a fetch may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leave {
    /// To its end.
    Go,
    /// No further messages.
    Finish,
    /// Not at all.
    Cut,
}

/// How whoever handed a connection over ends what is done with it.
#[derive(Debug)]
pub struct Leash(watch::Sender<Leave>);

impl Leash {
    /// What is under way may end, but nothing else is begun.
    pub fn finish(&self) {
        self.0.send_replace(Leave::Finish);
    }

    /// What is under way is given up.
    pub fn cut(&self) {
        self.0.send_replace(Leave::Cut);
    }
}

/// A leash from its other end.
#[derive(Clone, Debug)]
pub struct Leashed(watch::Receiver<Leave>);

impl Leashed {
    /// Whether nothing further is to begin.
    #[must_use]
    pub fn is_pulled(&self) -> bool {
        *self.0.borrow() > Leave::Go || self.0.has_changed().is_err()
    }

    /// Waits until all is to be given up.
    pub async fn cut(&mut self) {
        // A session that is gone means the same.
        let _ = self.0.wait_for(|leave| *leave == Leave::Cut).await;
    }
}

/// A connection that was handed over, with the mail that is to leave by it.
#[derive(Debug)]
pub struct Fetch {
    /// The routes whose mail leaves by it.
    pub claim: Claim,
    /// The connection. Its host greets next.
    pub stream: Stream,
    /// The session it was.
    pub session: SessionId,
    /// The host.
    pub peer: SocketAddr,
    /// Set if the connection is under TLS.
    pub tls: Option<Protection>,
    /// Who has logged in.
    pub user: String,
    /// Ends it.
    pub leashed: Leashed,
    /// Told how many messages were sent, when all is over.
    pub done: oneshot::Sender<u32>,
}

impl Queue {
    /// Claims the mail of domains for a user, or of all that he may fetch if none is named.
    ///
    /// # Errors
    ///
    /// [`NoFetch`]; nothing is claimed then.
    pub fn claim(
        &self,
        fetcher: Fetcher<'_>,
        domains: &[Domain],
        table: &Table,
    ) -> Result<Claim, NoFetch> {
        let all = &table.settings().remote_domains;
        let his: Vec<&RemoteDomain> = all.iter().filter(|entry| fetcher.may_have(entry)).collect();
        let may_have =
            |domain: &Domain| table.remote(domain).is_some_and(|it| fetcher.may_have(it));
        if his.is_empty() || !domains.iter().all(may_have) {
            return Err(NoFetch::Denied);
        }
        let is_safe = match domains {
            // What he gets must not depend on what happens to wait.
            [] => his.iter().all(|entry| fetcher.is_safe_for(entry)),
            named => {
                named.iter().filter_map(|it| table.remote(it)).all(|it| fetcher.is_safe_for(it))
            }
        };
        if !is_safe {
            return Err(NoFetch::NeedsTls);
        }
        if self.counts().recovering {
            return Err(NoFetch::Unknown);
        }
        let is_meant = |route: &RouteName| {
            let domain = route.held_domain().and_then(|name| Domain::parse(name).ok());
            let named = |it: &Domain| domains.is_empty() || domains.contains(it);
            domain.is_some_and(|it| named(&it) && may_have(&it))
        };
        let mut counts = self.routes();
        // What an operator has paused stays, whoever comes for it.
        let now = self.0.clock.now();
        let is_paused = |route: &RouteName| self.orders().pause_of(route, now).is_some();
        counts.retain(|count| {
            count.messages > 0 && is_meant(&count.route) && !is_paused(&count.route)
        });
        let messages = counts.iter().map(|count| count.messages).sum();
        let routes: Vec<RouteName> = counts.into_iter().map(|count| count.route).collect();
        if routes.is_empty() {
            return Err(NoFetch::Nothing);
        }
        match self.0.openings.claim(&routes) {
            true => Ok(Claim { queue: self.clone(), routes, messages }),
            false => Err(NoFetch::Busy),
        }
    }

    /// Hands a connection over to whoever delivers.
    pub fn hand_over(&self, fetch: Fetch) {
        self.0.fetches.lock().unwrap_or_else(PoisonError::into_inner).push(fetch);
        self.0.openings.tell();
    }

    /// Connections that were handed over since this was asked last; [`Queue::opened`] ends when there
    /// may be some.
    #[must_use]
    pub fn take_fetches(&self) -> Vec<Fetch> {
        std::mem::take(&mut *self.0.fetches.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A leash and its other end.
#[must_use]
pub fn leash() -> (Leash, Leashed) {
    let (hand, collar) = watch::channel(Leave::Go);
    (Leash(hand), Leashed(collar))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mailroot_common::units::Span;
    use smtpd_core::route::domain::{Held, Pattern};

    use super::super::Rest;
    use super::*;
    use crate::clock::Clock;
    use crate::observe::Log;
    use crate::store::conformance::{draft, start, table};

    fn held(pattern: &str, users: &[&str]) -> RemoteDomain {
        let fetchers = users.iter().map(|&user| user.to_owned()).collect();
        let (asked_from, queue, keep) = (Vec::new(), None, Span::days(10));
        let held = Held { by_etrn: true, asked_from, queue, keep, fetchers };
        RemoteDomain { held: Some(held), ..RemoteDomain::plain(Pattern::parse(pattern).unwrap()) }
    }

    /// In clear text, where TLS is optional.
    fn user(name: &str) -> Fetcher<'_> {
        Fetcher { user: name, is_secured: false, usual_tls: TlsPolicy::Optional }
    }

    async fn holding() -> (Queue, Arc<Table>) {
        let mut settings = table(&[]).settings().clone();
        settings.remote_domains = vec![
            held("branch.example", &["ada"]),
            held("*.sea.example", &["ada", "Bob"]),
            held("empty.example", &["ada"]),
            held("nobody.example", &[]),
        ];
        let table = Arc::new(Table::new(settings).unwrap());
        let queue = Queue::in_memory(Clock::simulated(start(), 1), Arc::clone(&table));
        for to in ["a@branch.example", "b@branch.example", "a@x.sea.example", "a@nobody.example"] {
            queue.accept(draft(&[to], start(), b"x")).await.unwrap();
        }
        (queue, table)
    }

    #[tokio::test]
    async fn a_user_claims_what_he_may_have_and_all_or_nothing_of_what_he_names() {
        let (queue, table) = holding().await;
        for (user, domains, expected) in [
            ("ada", "", Ok(3)),
            ("ADA", "branch.example", Ok(2)),
            ("bob", "", Ok(1)),
            ("bob", "x.sea.example", Ok(1)),
            ("bob", "y.sea.example", Err(NoFetch::Nothing)),
            ("ada", "empty.example", Err(NoFetch::Nothing)),
            ("ada", "empty.example,branch.example", Ok(2)),
            ("bob", "x.sea.example,branch.example", Err(NoFetch::Denied)),
            ("ada", "nobody.example", Err(NoFetch::Denied)),
            ("ada", "sea.example", Err(NoFetch::Denied)),
            ("ada", "elsewhere.example", Err(NoFetch::Denied)),
            ("eve", "", Err(NoFetch::Denied)),
        ] {
            let names = domains.split(',').filter(|name| !name.is_empty());
            let names: Vec<Domain> = names.map(|name| Domain::parse(name).unwrap()).collect();
            let claimed = queue.claim(self::user(user), &names, &table);
            let claimed = claimed.map(|claim| claim.messages());
            assert_eq!(claimed, expected, "{user} {domains}");
        }
    }

    #[tokio::test]
    async fn what_is_claimed_leaves_no_other_way_until_the_claim_ends() {
        let (queue, table) = holding().await;
        let route = RouteName::from_text("etrn:branch.example");
        let rest = || queue.rest_of(&route, start());
        let claim = queue.claim(user("ada"), &[], &table).unwrap();
        assert_eq!(queue.claim(user("bob"), &[], &table).err(), Some(NoFetch::Busy));
        queue.open_routes(vec![route.clone()], &Log::quiet()).await;
        assert!(matches!(rest(), Some(Rest::Fetched)));
        drop(claim);
        assert!(rest().is_none(), "it was asked for by ETRN meanwhile");
        assert!(queue.claim(user("bob"), &[], &table).is_ok());
    }

    #[tokio::test]
    async fn what_leaves_under_tls_only_is_not_claimed_by_a_connection_without() {
        let (queue, table) = holding().await;
        let with = |tls: Option<TlsPolicy>| {
            let mut settings = table.settings().clone();
            settings.remote_domains[0].tls = tls;
            Table::new(settings).unwrap()
        };
        let domain = |name: &str| Domain::parse(name).unwrap();
        let (branch, sea) = ([domain("branch.example")], [domain("x.sea.example")]);
        let both = [domain("branch.example"), domain("x.sea.example")];
        let (optional, required) = (TlsPolicy::Optional, TlsPolicy::Required);
        for (of_entry, usual_tls, domains, is_needed) in [
            (Some(required), optional, &branch[..], true),
            (Some(TlsPolicy::Verify), optional, &branch, true),
            (Some(required), optional, &both, true),
            (Some(required), optional, &[], true),
            (Some(required), optional, &sea, false),
            (None, required, &sea, true),
            (Some(optional), required, &branch, false),
            (None, optional, &[], false),
        ] {
            let table = with(of_entry);
            let ada = Fetcher { usual_tls, ..user("ada") };
            let refused = queue.claim(ada, domains, &table).err();
            let expected = is_needed.then_some(NoFetch::NeedsTls);
            assert_eq!(refused, expected, "{of_entry:?} {usual_tls:?} {domains:?}");
            let secured = Fetcher { is_secured: true, ..ada };
            assert!(queue.claim(secured, domains, &table).is_ok(), "{of_entry:?} {domains:?}");
            let eve = Fetcher { user: "eve", ..ada };
            assert_eq!(queue.claim(eve, domains, &table).err(), Some(NoFetch::Denied));
        }
    }

    #[tokio::test]
    async fn a_leash_whose_hand_is_gone_cuts() {
        let (leash, mut leashed) = leash();
        assert!(!leashed.is_pulled());
        leash.finish();
        assert!(leashed.is_pulled());
        drop(leash);
        leashed.cut().await;
        assert!(leashed.is_pulled());
    }
}
