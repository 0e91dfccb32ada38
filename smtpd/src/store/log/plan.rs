//! What links a message has: the routes it waits on, and when it is due on each.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use mailroot_common::address::ReversePath;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::recipient::MessageState;
use smtpd_core::queue::turns::hash_sender;
use smtpd_core::queue::wishes::Priority;
use smtpd_core::route::table::{RouteName, Table};

use super::super::due_at;
use super::active::Seat;
use crate::clock::Past;

/// What a link is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) route: RouteName,
    pub(super) due: Option<Timestamp>,
    pub(super) told: bool,
    pub(super) priority: Priority,
    pub(super) sender: u16,
    /// The turn it had before it was taken, if it comes back now.
    pub(super) turn: Option<u64>,
}

/// Strangers choose senders, and are not to choose with whom they share a number.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The number that a sender's messages have in common.
fn number(sender: &ReversePath) -> u16 {
    let mut state = KEYS.build_hasher();
    hash_sender(sender, &mut state);
    let [low, high, ..] = state.finish().to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// The links a message needs: one for each route with a recipient that waits.
pub(super) fn plan(
    past: &Past,
    table: &Table,
    envelope: &Envelope,
    state: &MessageState,
    seat: impl Fn(usize) -> Seat,
) -> Vec<Plan> {
    let mut plans: Vec<Plan> = Vec::with_capacity(1);
    // Messages to thousands have few routes or few hits per route; a map pays only from here on.
    let mut places: HashMap<RouteName, usize> = HashMap::new();
    for (place, status) in state.recipients.iter().enumerate() {
        let Some(to) = envelope.recipients.get(place) else { break };
        if status.phase.is_end() {
            continue;
        }
        let seat = seat(place);
        let due = (state.is_free() && !seat.is_leased()).then(|| due_at(past, status));
        let turn = seat.turn_back().filter(|_| due.is_some());
        let route = state.route_name(table, &envelope.sender, to);
        let known = if plans.len() < 8 {
            plans.iter().position(|plan| plan.route == route)
        } else {
            if places.is_empty() {
                places.extend(plans.iter().enumerate().map(|(at, plan)| (plan.route.clone(), at)));
            }
            places.get(&route).copied()
        };
        if let Some(known) = known {
            let plan = &mut plans[known];
            plan.due = [plan.due, due].into_iter().flatten().min();
            plan.told &= status.delay_told;
            plan.turn = [plan.turn, turn].into_iter().flatten().min();
        } else {
            if !places.is_empty() {
                places.insert(route.clone(), plans.len());
            }
            let (told, priority) = (status.delay_told, envelope.wishes.priority);
            let sender = plans.first().map_or_else(|| number(&envelope.sender), |it| it.sender);
            plans.push(Plan { route, due, told, priority, sender, turn });
        }
    }
    plans
}
