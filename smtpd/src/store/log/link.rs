//! What ties a message to the routes it waits on: 16 octets for each.

use mailroot_common::units::Timestamp;
use smtpd_core::queue::wishes::Priority;

use super::plan::Plan;

#[derive(Debug)]
pub(super) enum Links {
    One(Link),
    Many(Box<[Link]>),
}

impl Links {
    pub(super) fn all(&self) -> &[Link] {
        match self {
            Self::One(link) => std::slice::from_ref(link),
            Self::Many(links) => links,
        }
    }

    pub(super) fn all_mut(&mut self) -> &mut [Link] {
        match self {
            Self::One(link) => std::slice::from_mut(link),
            Self::Many(links) => links,
        }
    }
}

/// A message on one of its routes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) route: u32,
    pub(super) flags: u32,
    /// When it is due there; [`NEVER`] while it is leased or held; its turn if it is [`READY`].
    pub(super) due: Timestamp,
}

pub(super) const NEVER: Timestamp = Timestamp::from_millis(u64::MAX);
/// The senders of all its waiting recipients were told of the delay.
pub(super) const TOLD: u32 = 1;
/// An operator wants an attempt at `due`, whatever the schedule says.
pub(super) const WANTED: u32 = 2;
/// It is due and has its sender's turn.
pub(super) const READY: u32 = 4;
/// It is large.
pub(super) const LARGE: u32 = 8;
/// Where the sender's number begins in the flags.
const SENDER_SHIFT: u32 = 8;
/// Where the priority begins in the flags.
const PRIORITY_SHIFT: u32 = 24;

impl Link {
    pub(super) fn flags(plan: &Plan) -> u32 {
        let priority = u32::from(plan.priority.as_i8().to_le_bytes()[0]);
        let sender = u32::from(plan.sender) << SENDER_SHIFT;
        priority << PRIORITY_SHIFT | sender | if plan.told { TOLD } else { 0 }
    }

    /// The number of the message's sender, which few others have.
    pub(super) fn sender(&self) -> u16 {
        let [_, low, high, _] = self.flags.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// When it is due, whatever its turn; nothing while it is leased or held.
    pub(super) fn due(&self) -> Option<Timestamp> {
        match self.flags & READY {
            0 => Some(self.due).filter(|due| *due != NEVER),
            _ => Some(Timestamp::from_millis(0)),
        }
    }

    /// Its turn, if it is ready.
    pub(super) fn turn(&self) -> Option<u64> {
        (self.flags & READY != 0).then_some(self.due.as_millis())
    }

    /// Whether an operator wants an attempt once the one that is being made, or a hold, is over.
    pub(super) fn is_wanted_after_this(&self) -> bool {
        self.due == NEVER && self.flags & WANTED != 0
    }

    /// Has it wait for a moment.
    pub(super) fn wait_until(&mut self, due: Timestamp) {
        self.flags &= !READY;
        self.due = due;
    }

    pub(super) fn priority(&self) -> Priority {
        let [.., octet] = self.flags.to_le_bytes();
        Priority::try_from(i8::from_le_bytes([octet])).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use smtpd_core::route::table::RouteName;

    use super::*;

    #[test]
    fn a_link_remembers_every_priority_beside_its_flags() {
        for number in -9..=9 {
            let priority = Priority::try_from(number).unwrap();
            for told in [false, true] {
                let route = RouteName::from_text("mx:a.example");
                let plan = Plan { route, due: None, told, priority, sender: 0xbeef, turn: None };
                let flags = Link::flags(&plan) | WANTED | READY | LARGE;
                let link = Link { route: 0, flags, due: NEVER };
                let read = (link.priority(), flags & TOLD != 0, link.sender());
                assert_eq!(read, (priority, told, 0xbeef));
            }
        }
    }
}
