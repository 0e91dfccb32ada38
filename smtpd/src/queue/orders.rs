//! Standing orders: destinations that rest, and rules that hold mail as it comes.
//!
//! In: an operator's wishes, kept in one small file beside the store that is replaced whole, so
//! that they survive a restart. Out: whether a route rests, and whether a message is held from its
//! first moment. Both are asked for every message, so they cost nothing while there is no order.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mailroot_common::control::selector::{Facts, RecipientFacts, SelectorError};
use mailroot_common::control::{DestinationPause, FutureHold, Matcher, Orders as Kept};
use mailroot_common::units::Timestamp;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::recipient::Hold;
use smtpd_core::route::table::RouteName;

use crate::disk::Disk;
use crate::observe::{Level, Log};
use crate::store::{Glob, guard};

/// The file beside the store.
const FILE: &str = "orders.json";
/// Its next state while that is written.
const DRAFT: &str = ".orders";
/// The largest file that is read.
const FILE_OCTETS_MAX: u64 = 8 << 20;
/// How many orders of each kind there may be.
const ORDERS_MAX: usize = 1_000;

/// Why an order was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// A pattern makes no sense.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// There are too many.
    #[error("there are {ORDERS_MAX} orders of this kind already: end some")]
    TooMany,
    /// The file could not be written; nothing was changed.
    #[error("cannot keep the order: {0}")]
    Write(#[from] io::Error),
}

/// The orders of one queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Orders(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Nothing for a queue in memory.
    place: Option<(Disk, PathBuf)>,
    log: Log,
    server: String,
    ready: ArcSwap<Ready>,
    /// Held by whoever changes something.
    changing: tokio::sync::Mutex<()>,
}

/// Orders with their patterns understood.
#[derive(Debug, Default)]
struct Ready {
    pauses: Vec<(Glob, DestinationPause)>,
    holds: Vec<(Matcher, FutureHold)>,
}

impl Ready {
    fn of(kept: Kept) -> Result<Self, SelectorError> {
        let pause = |pause: DestinationPause| (Glob::new(&pause.destination), pause);
        let hold = |hold: FutureHold| Ok::<_, SelectorError>((hold.selector.compile()?, hold));
        Ok(Self {
            pauses: kept.pauses.into_iter().map(pause).collect(),
            holds: kept.holds.into_iter().map(hold).collect::<Result<_, _>>()?,
        })
    }

    fn kept(&self) -> Kept {
        Kept {
            pauses: self.pauses.iter().map(|(_, pause)| pause.clone()).collect(),
            holds: self.holds.iter().map(|(_, hold)| hold.clone()).collect(),
        }
    }
}

fn lasts(until: Option<Timestamp>, now: Timestamp) -> bool {
    until.is_none_or(|until| until > now)
}

/// Whether a pause is about a route. Drop is meant by its own name only.
fn fits(glob: &Glob, pause: &DestinationPause, route: &RouteName) -> bool {
    if route.is_drop() {
        return pause.destination.eq_ignore_ascii_case(RouteName::DROP);
    }
    route.destinations().any(|name| glob.matches(name))
}

impl Orders {
    /// No orders, kept nowhere.
    pub(super) fn in_memory() -> Self {
        Self::over(None, Log::quiet(), String::new(), Ready::default())
    }

    /// Those kept beside the store. A file that cannot be understood is told and counts as none.
    /// Blocks.
    pub(super) fn open(disk: Disk, directory: PathBuf, log: Log, server: String) -> Self {
        let path = directory.join(FILE);
        let read = match disk.read(&path, FILE_OCTETS_MAX) {
            Ok(octets) => serde_json::from_slice::<Kept>(&octets)
                .map_err(|error| error.to_string())
                .and_then(|kept| Ready::of(kept).map_err(|error| error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ready::default()),
            Err(error) => Err(error.to_string()),
        };
        let ready = read.unwrap_or_else(|error| {
            let line = log.line(Level::Error, "orders_unread").word("server", &server);
            line.word("file", path.display()).word("error", error).send();
            Ready::default()
        });
        Self::over(Some((disk, directory)), log, server, ready)
    }

    fn over(place: Option<(Disk, PathBuf)>, log: Log, server: String, ready: Ready) -> Self {
        let (ready, changing) = (ArcSwap::from_pointee(ready), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { place, log, server, ready, changing }))
    }

    /// The orders in force.
    #[must_use]
    pub fn list(&self, now: Timestamp) -> Kept {
        let mut kept = self.0.ready.load().kept();
        kept.pauses.retain(|pause| lasts(pause.until, now));
        kept.holds.retain(|hold| lasts(hold.until, now));
        kept
    }

    /// The pause of a route, if it rests.
    #[must_use]
    pub fn pause_of(&self, route: &RouteName, now: Timestamp) -> Option<DestinationPause> {
        let ready = self.0.ready.load();
        let rests = |(glob, pause): &&(Glob, DestinationPause)| {
            lasts(pause.until, now) && fits(glob, pause, route)
        };
        ready.pauses.iter().find(rests).map(|(_, pause)| pause.clone())
    }

    /// Whether a pause is about a route.
    #[must_use]
    pub fn concerns(pause: &DestinationPause, route: &RouteName) -> bool {
        fits(&Glob::new(&pause.destination), pause, route)
    }

    /// When the next pause ends by itself.
    #[must_use]
    pub fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        let ready = self.0.ready.load();
        let ends = ready.pauses.iter().filter_map(|(_, pause)| pause.until);
        ends.filter(|until| *until > now).min()
    }

    /// Pauses a destination; a pause with the same pattern is replaced.
    ///
    /// # Errors
    ///
    /// [`OrderError`]; nothing is changed then.
    pub async fn pause(&self, pause: DestinationPause, now: Timestamp) -> Result<(), OrderError> {
        let same =
            |other: &DestinationPause| other.destination.eq_ignore_ascii_case(&pause.destination);
        self.change(now, |kept| {
            kept.pauses.retain(|other| !same(other));
            kept.pauses.push(pause.clone());
        })
        .await
    }

    /// Ends the pauses whose pattern is this one or, if not `exactly` this one is meant, fits it;
    /// returns them.
    ///
    /// # Errors
    ///
    /// [`OrderError`]; nothing is changed then.
    pub async fn resume(
        &self,
        destination: &str,
        exactly: bool,
        now: Timestamp,
    ) -> Result<Vec<DestinationPause>, OrderError> {
        let glob = Glob::new(destination);
        let meant = |pause: &DestinationPause| {
            pause.destination.eq_ignore_ascii_case(destination)
                || (!exactly && glob.matches(&pause.destination))
        };
        let mut ended = self.list(now).pauses;
        ended.retain(meant);
        if !ended.is_empty() {
            self.change(now, |kept| kept.pauses.retain(|pause| !meant(pause))).await?;
        }
        Ok(ended)
    }

    /// Holds mail yet to come.
    ///
    /// # Errors
    ///
    /// [`OrderError`]; nothing is changed then.
    pub async fn hold(&self, hold: FutureHold, now: Timestamp) -> Result<(), OrderError> {
        self.change(now, |kept| kept.holds.push(hold.clone())).await
    }

    /// Ends a rule; says whether it was there. What it held stays held.
    ///
    /// # Errors
    ///
    /// [`OrderError`]; nothing is changed then.
    pub async fn release(&self, rule: &FutureHold, now: Timestamp) -> Result<bool, OrderError> {
        let before = self.list(now).holds;
        if !before.iter().any(|hold| hold.id == rule.id) {
            return Ok(false);
        }
        self.change(now, |kept| kept.holds.retain(|hold| hold.id != rule.id)).await?;
        Ok(true)
    }

    /// Durable, then in force. What has ended by itself is forgotten on the way.
    async fn change(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut Kept),
    ) -> Result<(), OrderError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let mut kept = self.list(now);
        change(&mut kept);
        if kept.pauses.len() > ORDERS_MAX || kept.holds.len() > ORDERS_MAX {
            return Err(OrderError::TooMany);
        }
        let octets = serde_json::to_vec_pretty(&kept).map_err(io::Error::other)?;
        let ready = Ready::of(kept)?;
        if let Some((disk, directory)) = self.0.place.clone() {
            let write =
                move || disk.replace(&directory.join(FILE), &directory.join(DRAFT), &octets);
            guard::blocking(write).await??;
        }
        self.0.ready.store(Arc::new(ready));
        Ok(())
    }

    /// The hold a message begins its life with.
    #[must_use]
    pub fn hold_for(&self, envelope: &Envelope, now: Timestamp) -> Option<Hold> {
        let ready = self.0.ready.load();
        if ready.holds.is_empty() {
            return None;
        }
        let from = envelope.sender.to_string();
        let facts = Facts {
            server: &self.0.server,
            from: Some(&from),
            client: envelope.origin.client,
            ..Facts::default()
        };
        let to: Vec<String> = envelope.recipients.iter().map(|to| to.mailbox.to_string()).collect();
        let concerned = |(matcher, hold): &&(Matcher, FutureHold)| {
            let recipients =
                to.iter().map(|address| RecipientFacts { address, ..RecipientFacts::default() });
            lasts(hold.until, now) && matcher.matches(&facts, recipients, now)
        };
        let (_, rule) = ready.holds.iter().find(concerned)?;
        Some(Hold { by: rule.by.clone(), reason: rule.reason.clone(), since: now })
    }

    /// Says that a message was held as it came.
    pub(super) fn tell(&self, id: mailroot_common::id::QueueId, hold: &Hold) {
        let line = self.0.log.line(Level::Info, "held").word("server", &self.0.server);
        let line = line.word("id", id).word("actor", &hold.by);
        match &hold.reason {
            Some(reason) => line.text("reason", reason).send(),
            None => line.send(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mailroot_common::control::Selector;
    use mailroot_common::id::QueueId;
    use mailroot_common::units::Span;

    use super::*;
    use crate::disk::Modelled;
    use crate::store::conformance::{envelope, route, start};

    fn pause(destination: &str, until: Option<Timestamp>) -> DestinationPause {
        DestinationPause {
            server: String::new(),
            destination: destination.to_owned(),
            by: "anna".to_owned(),
            reason: Some("move".to_owned()),
            since: start(),
            until,
            messages: 0,
        }
    }

    fn rule(id: u64, selector: Selector) -> FutureHold {
        FutureHold {
            id: QueueId::from_u64(id),
            server: String::new(),
            selector,
            by: "anna".to_owned(),
            reason: None,
            since: start(),
            until: None,
        }
    }

    fn open(model: &Arc<Modelled>) -> Orders {
        let disk = Disk::Modelled(Arc::clone(model));
        disk.create_dir_all(Path::new("/spool")).unwrap();
        Orders::open(disk, "/spool".into(), Log::quiet(), "default".to_owned())
    }

    #[tokio::test]
    async fn a_destination_rests_until_it_is_resumed_or_its_time_is_over() {
        let (orders, now) = (Orders::in_memory(), start());
        let rests = |name: &str, at| orders.pause_of(&route(name), at).is_some();
        assert!(!rests("mx:slow.example", now));
        orders.pause(pause("*.Example", None), now).await.unwrap();
        let hour = now.after(Span::hours(1));
        orders.pause(pause("hub.test", Some(hour)), now).await.unwrap();
        for (name, is_resting) in [
            ("mx:slow.example", true),
            ("direct:slow.example;helo", true),
            ("mx:example", false),
            ("host:hub.test:25", true),
            ("host:other.test,hub.test", true),
            ("drop", false),
        ] {
            assert_eq!(rests(name, now), is_resting, "{name}");
        }
        assert_eq!(orders.next_end(now), Some(hour));
        assert!(!rests("host:hub.test:25", hour));
        assert_eq!((orders.next_end(hour), orders.list(hour).pauses.len()), (None, 1));
        orders.pause(pause("*", None), now).await.unwrap();
        assert!(rests("mx:any.test", now) && !rests("drop", now), "Drop is meant by name only");
        orders.pause(pause("Drop", None), now).await.unwrap();
        assert!(rests("drop", now));
        assert_eq!(orders.resume("drop", true, now).await.unwrap().len(), 1);
        assert_eq!(orders.resume("*", true, now).await.unwrap().len(), 1);
        assert_eq!(orders.resume("nothing", false, now).await.unwrap().len(), 0);
        assert_eq!(orders.resume("*.example", false, now).await.unwrap().len(), 1);
        assert_eq!(orders.resume("*", false, now).await.unwrap().len(), 1);
        assert!(!rests("mx:slow.example", now));
    }

    #[tokio::test]
    async fn orders_survive_a_loss_of_power_and_a_refused_write_changes_nothing() {
        let model = Arc::new(Modelled::new(1));
        let orders = open(&model);
        orders.pause(pause("a.example", None), start()).await.unwrap();
        let selector = Selector { from: Some("*@b.example".to_owned()), ..Selector::default() };
        orders.hold(rule(7, selector), start()).await.unwrap();
        model.plan(1, crate::disk::Fault::Error(io::ErrorKind::StorageFull));
        assert!(orders.pause(pause("b.example", None), start()).await.is_err());
        let before = orders.list(start());
        assert_eq!(before.pauses.len(), 1);
        model.kill();
        assert_eq!(open(&model).list(start()), before);
        Disk::Modelled(Arc::clone(&model))
            .replace(Path::new("/spool/orders.json"), Path::new("/spool/.x"), b"{")
            .unwrap();
        assert_eq!(open(&model).list(start()), Kept::default(), "told in the log");
    }

    #[tokio::test]
    async fn mail_is_held_by_the_first_rule_that_means_it() {
        let (orders, now) = (Orders::in_memory(), start());
        let mail = envelope(&["a@x.example", "b@sub.y.example"], now);
        assert_eq!(orders.hold_for(&mail, now), None);
        let text = |text: &str| Some(text.to_owned());
        let elsewhere = Selector { domain: text("z.example"), ..Selector::default() };
        orders.hold(rule(1, elsewhere), now).await.unwrap();
        assert_eq!(orders.hold_for(&mail, now), None);
        let both =
            Selector { from: text("sender@*"), domain: text("*.y.example"), ..Selector::default() };
        let until = Some(now.after(Span::hours(1)));
        let meant = FutureHold { until, ..rule(2, both) };
        orders.hold(meant.clone(), now).await.unwrap();
        assert_eq!(orders.hold_for(&mail, now).unwrap().by, "anna");
        assert_eq!(orders.hold_for(&mail, now.after(Span::hours(2))), None);
        let bad = Selector { from: text("/(/"), ..Selector::default() };
        assert!(orders.hold(rule(3, bad), now).await.is_err());
        assert!(orders.release(&meant, now).await.unwrap());
        assert!(!orders.release(&meant, now).await.unwrap());
        assert_eq!(orders.hold_for(&mail, now), None);
    }
}
