//! Power cuts by the hundred: random work on the log over a modelled disk, cut at a random
//! operation or hurt by errors, recovered, and compared with what was promised.
//!
//! The log runs without threads: the test drives committer and keeper step by step, so a seed
//! repeats a run exactly. What was acknowledged must be found as it was acknowledged, or as a later
//! change that was under way says; what was never acknowledged may be found or not, but whole; a
//! settlement and its report are found together or not at all; what was removed stays away.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use mailroot_common::id::QueueId;
use mailroot_common::units::{Span, Timestamp};
use smtpd_core::queue::outcome::RemoteHost;
use smtpd_core::queue::recipient::{Hold, Phase, RecipientStatus};
use smtpd_core::route::table::RouteName;
use tokio::sync::oneshot::error::TryRecvError;

use super::super::conformance::{deferred, draft, ended, route, settings, start, surroundings};
use super::super::{Change, Filter, Lease, Pick};
use super::commit::{NewMessage, Task};
use super::committer::Progress;
use super::keeper::Kept;
use super::segments::Use;
use super::{Log, Opened};
use crate::disk::{Disk, Modelled};

mod expected;
mod lives;

use expected::{Expected, Known, Pending, What};

const HOME: &str = "/spool/Queue";
const ROUTES: [&str; 4] = ["mx:a.example", "mx:b.example", "mx:c.example", "drop"];
const ADDRESSES: [&str; 4] = ["x@a.example", "y@b.example", "z@c.example", "w@here.example"];

struct World {
    random: fastrand::Rng,
    model: Arc<Modelled>,
    now: Timestamp,
    last_id: u64,
    known: BTreeMap<QueueId, Known>,
    pending: Vec<Pending>,
    /// (settled message, recipient, step, report): both or neither.
    pairs: Vec<(QueueId, usize, usize, QueueId)>,
    /// Refused while the power was on; must never be found once something later was acknowledged.
    refused: Vec<QueueId>,
    never: HashSet<QueueId>,
    cuts: u32,
    recycles: u64,
    /// Whether the process before was killed, and the machine ran on.
    killed: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            model: Arc::new(Modelled::new(seed ^ 0x5eed)),
            now: start(),
            last_id: QueueId::at_millis(start().as_millis()).as_u64(),
            known: BTreeMap::new(),
            pending: Vec::new(),
            pairs: Vec::new(),
            refused: Vec::new(),
            never: HashSet::new(),
            cuts: 0,
            recycles: 0,
            killed: false,
        }
    }

    fn open(&mut self) -> Arc<Log> {
        loop {
            let disk = Disk::Modelled(Arc::clone(&self.model));
            match Log::open(disk, settings(Path::new(HOME)), surroundings()) {
                Ok(log) => return log,
                Err(error) => {
                    // Only a planned fault may keep the store from opening.
                    assert!(self.random.bool() || !error.to_string().is_empty());
                    if self.model.is_off() {
                        self.cuts += 1;
                        self.model.power_on();
                    } else {
                        self.model.kill();
                    }
                    self.model.plan_nothing();
                }
            }
        }
    }

    fn new_id(&mut self) -> QueueId {
        self.last_id += 1 + self.random.u64(..3);
        QueueId::from_u64(self.last_id)
    }

    fn new_message(&mut self, log: &Log) -> (QueueId, NewMessage, Known) {
        let id = self.new_id();
        let count = if self.random.u8(..4) == 0 { self.random.usize(1..5) } else { 1 };
        let to: Vec<&str> = (0..count).map(|_| ADDRESSES[self.random.usize(..4)]).collect();
        let most = if self.random.u8(..10) == 0 { 14_000 } else { 1500 };
        let body: Vec<u8> = (0..self.random.usize(..most)).map(|_| self.random.u8(..)).collect();
        let draft = draft(&to, self.now, &body);
        let message = NewMessage::new(id, draft, &log.clock.past(), log.table.load_full()).unwrap();
        let expected = || Expected::at((Phase::Waiting, 0));
        let known = Known {
            body,
            accepted: false,
            removal_asked: false,
            removed: false,
            recipients: (0..count).map(|_| expected()).collect(),
        };
        (id, message, known)
    }

    fn submit(&mut self, log: &Log, task: Task, what: What) {
        if let Ok(answer) = log.gather.submit(task) {
            self.pending.push(Pending { answer, what });
        }
    }

    fn accept(&mut self, log: &Log) {
        let (id, message, known) = self.new_message(log);
        self.known.insert(id, known);
        self.submit(log, Task::Accept(message), What::Accept(id));
    }

    fn lease(&mut self, log: &Arc<Log>) {
        let name: RouteName = route(ROUTES[self.random.usize(..4)]);
        let pick = match self.random.u8(..6) {
            0 => Pick::Aged(self.now),
            _ => Pick::Due(self.now),
        };
        let max = self.random.usize(1..6);
        for lease in lease_now(log, &name, pick, max) {
            self.attempt(log, lease);
        }
    }

    /// Comes to some end with a lease.
    fn attempt(&mut self, log: &Arc<Log>, mut lease: Lease) {
        let id = lease.id;
        let known = self.known.get(&id).expect("only what was handed in is leased");
        assert!(known.body.len() as u64 == lease.size, "{id} has the size it had");
        for (place, status) in &lease.due {
            let last = known.recipients[*place].history.last().unwrap();
            assert_eq!(*last, (status.phase, status.attempts), "{id} {place} as settled last");
        }
        if self.random.bool() {
            let host = RemoteHost { name: "mx.example".into(), address: None, port: 25, tls: None };
            let places: Vec<usize> = lease.places().collect();
            lease.mark_sending(&places, &host);
            for place in places {
                let expected = &mut self.known.get_mut(&id).unwrap().recipients[place];
                // The disk may have refused the mark; then nobody knows.
                (expected.marked, expected.under_way) = (true, lease.mark.is_some());
            }
        }
        if self.random.u8(..8) == 0 {
            return;
        }
        let report = self.random.u8(..5) == 0;
        let phase = if report { Phase::Returned } else { Phase::Delivered };
        let until = self.now.after(Span::minutes(self.random.u64(1..30)));
        let mut changes = Vec::new();
        for (place, status) in &lease.due {
            let change = match self.random.u8(..4) {
                0 if !report => deferred(until, status),
                _ => ended(phase, status),
            };
            changes.push((*place, change));
        }
        self.settle(log, &mut lease, changes, report);
    }

    fn settle(
        &mut self,
        log: &Arc<Log>,
        lease: &mut Lease,
        changes: Vec<(usize, RecipientStatus)>,
        report: bool,
    ) {
        let id = lease.id;
        let mut steps = Vec::new();
        let known = self.known.get_mut(&id).unwrap();
        for (place, status) in &changes {
            let expected = &mut known.recipients[*place];
            expected.history.push((status.phase, status.attempts));
            expected.under_way = false;
            steps.push((*place, expected.history.len() - 1));
        }
        let places = lease.places().collect();
        lease.disarm();
        if !report && self.random.u8(..3) == 0 {
            log.settle_later(lease, changes);
            return;
        }
        let mut reports = Vec::new();
        let report = report.then(|| {
            let (report, message, known) = self.new_message(log);
            self.known.insert(report, known);
            let (place, step) = steps[0];
            self.pairs.push((id, place, step, report));
            reports.push(message);
            report
        });
        let task = Task::Settle { id, places, changes, reports, mark: lease.mark };
        self.submit(log, task, What::Settle { id, steps, report });
    }

    fn operate(&mut self, log: &Arc<Log>) {
        let Some(id) = self.random_id() else { return };
        match self.random.u8(..5) {
            0 if log.index().contains(id) => {
                self.known.get_mut(&id).unwrap().removal_asked = true;
                self.submit(
                    log,
                    Task::Change { id, change: Change::Remove, pinned: false },
                    What::Remove(id),
                );
            }
            1 | 2 => {
                let release = self.random.bool();
                let hold = Hold { by: "anna".into(), reason: None, since: self.now };
                let change = if release { Change::Release } else { Change::Hold(hold) };
                if log.pin_one(id) {
                    self.submit(log, Task::Change { id, change, pinned: true }, What::Hold);
                }
            }
            _ => self.check_body(log, id),
        }
    }

    fn random_id(&mut self) -> Option<QueueId> {
        let count = self.known.len();
        (count > 0).then(|| *self.known.keys().nth(self.random.usize(..count)).unwrap())
    }

    fn check_body(&self, log: &Arc<Log>, id: QueueId) {
        if !log.index().contains(id) {
            return;
        }
        match log.open_body(id) {
            Ok(Opened::Small(body)) => assert!(*body == self.known[&id].body, "{id} is altered"),
            Ok(Opened::Large(_)) => unreachable!("the bodies of this test are small"),
            Err(error) => assert!(self.model.is_off(), "{id} cannot be read: {error}"),
        }
    }

    /// Takes in what was answered.
    fn hear(&mut self) {
        let mut acknowledged = false;
        for mut pending in std::mem::take(&mut self.pending) {
            match pending.answer.try_recv() {
                Ok(Ok(())) => {
                    acknowledged = true;
                    self.acknowledge(&pending.what);
                }
                Ok(Err(_)) => {
                    if let What::Accept(id) = pending.what
                        && !self.model.is_off()
                    {
                        self.refused.push(id);
                    }
                }
                Err(TryRecvError::Empty) => self.pending.push(pending),
                Err(TryRecvError::Closed) => {}
            }
        }
        if acknowledged {
            self.never.extend(self.refused.drain(..));
        }
    }

    fn acknowledge(&mut self, what: &What) {
        match what {
            What::Accept(id) => self.known.get_mut(id).unwrap().accepted = true,
            What::Remove(id) => self.known.get_mut(id).unwrap().removed = true,
            What::Settle { id, steps, report } => {
                let known = self.known.get_mut(id).unwrap();
                if known.removal_asked {
                    return;
                }
                for (place, step) in steps {
                    let expected = &mut known.recipients[*place];
                    expected.acknowledged = expected.acknowledged.max(*step);
                }
                if let Some(report) = report {
                    self.known.get_mut(report).unwrap().accepted = true;
                }
            }
            What::Hold => {}
        }
    }

    fn work(&mut self, log: &Arc<Log>, steps: u32) {
        let mut ebb = false;
        for step in 0..steps {
            if self.model.is_off() {
                break;
            }
            if step % 60 == 0 {
                // At times mail only leaves: then segments hold removals and little else.
                ebb = self.random.bool();
            }
            match self.random.u8(..20) {
                0..5 if ebb => self.lease(log),
                0..5 => self.accept(log),
                5..9 => self.lease(log),
                9 => self.operate(log),
                10..15 => {
                    log.commit_step();
                    self.hear();
                }
                15 => self.now = self.now.after(Span::minutes(7)),
                _ => {
                    log.keep_step();
                }
            }
        }
        self.hear();
    }

    /// Lets the log finish what it has begun, while nothing goes wrong.
    fn settle_down(&mut self, log: &Arc<Log>) {
        self.model.plan_nothing();
        let mut idle = 0;
        for _ in 0..10_000 {
            let committed = log.commit_step();
            self.hear();
            let at_rest = committed == Progress::Idle && log.keep_step() == Kept::Idle;
            idle = if at_rest { idle + 1 } else { 0 };
            // The first rest may be the keeper's, after the disk had refused it something.
            if idle == 2 {
                break;
            }
        }
        assert!(self.pending.is_empty() || self.model.is_off(), "everything is answered");
        let index = log.index();
        self.recycles =
            self.recycles.max(index.segments.iter().map(|s| s.generation >> 32).max().unwrap());
        let size = log.settings.segment_size;
        let taken = index.segments.iter().count() as u64 * size;
        let allowed = 2 * index.segments.live + 4 * size;
        assert!(
            taken <= allowed,
            "disk {taken}, live {}, {:?}",
            index.segments.live,
            index.segments.iter().map(|s| (s.usage, s.live, s.needed_removals)).collect::<Vec<_>>()
        );
        assert!(index.segments.count(Use::Unread) == 0);
    }

    /// Compares what is found after a recovery with what was promised, and goes on from there.
    fn compare(&mut self, log: &Arc<Log>) {
        for step in 0.. {
            if log.index().recovered {
                break;
            }
            let (kept, committed) = (log.keep_step(), log.commit_step());
            assert!(step < 100_000, "recovery does not end: {kept:?}, {committed:?}");
        }
        assert_eq!(log.index().damaged, 0, "loss of power is not damage");
        let found: BTreeMap<QueueId, _> = log
            .list_now(&Filter::default(), None, usize::MAX)
            .into_iter()
            .map(|message| (message.id, message))
            .collect();
        assert_eq!(found.len(), log.index().len(), "every message found can be read");
        for (id, place, step, report) in std::mem::take(&mut self.pairs) {
            let known = &self.known[&id];
            if known.removal_asked || self.known[&report].removal_asked {
                continue;
            }
            let settled = match found.get(&id) {
                None => true,
                Some(message) => {
                    let status = &message.state.recipients[place];
                    let expected = &known.recipients[place];
                    let after = Expected {
                        history: expected.history[step..].to_vec(),
                        ..Expected::at(expected.history[step])
                    };
                    Expected { marked: expected.marked, ..after }
                        .may_be((status.phase, status.attempts))
                }
            };
            let reported = found.contains_key(&report)
                || self.known[&report].recipients.iter().any(|one| one.history.len() > 1);
            assert_eq!(settled, reported, "{id} and its report {report}");
        }
        for (id, known) in &mut self.known {
            let Some(message) = found.get(id) else {
                let ended = known.recipients.iter().all(|expected| {
                    expected.history[expected.acknowledged..]
                        .iter()
                        .any(|(phase, _)| phase.is_end())
                });
                assert!(!known.accepted || ended || known.removal_asked, "{id} is lost: {known:?}");
                continue;
            };
            assert!(!self.never.contains(id), "{id} was refused and is there");
            assert!(!known.removed, "{id} was removed and is back");
            known.accepted = true;
            for (expected, status) in known.recipients.iter_mut().zip(&message.state.recipients) {
                let now = (status.phase, status.attempts);
                assert!(expected.may_be(now), "{id}: {now:?} cannot follow {expected:?}");
                let known = self.killed && expected.under_way;
                assert!(!known || status.is_undecided(), "{id}: an attempt was under way");
                *expected = Expected { marked: expected.marked, ..Expected::at(now) };
            }
            let all_over = known.recipients.iter().all(|one| one.history[0].0.is_end());
            assert!(!all_over, "{id} has reached its end and is back");
        }
        self.known.retain(|id, _| found.contains_key(id));
        for id in found.keys() {
            self.check_body(log, *id);
        }
        self.last_id = self.last_id.max(log.index().highest.as_u64());
        self.refused.clear();
    }
}

fn lease_now(log: &Arc<Log>, route: &RouteName, pick: Pick, max: usize) -> Vec<Lease> {
    let (ids, missing) = log.look(route, pick, max);
    let loaded = log.load_all(&missing);
    log.hand_out(route, pick, &ids, loaded)
}
