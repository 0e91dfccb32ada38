//! What the index knows of a message's state by itself, in one octet.

use smtpd_core::queue::recipient::MessageState;

const HELD: u8 = 1;
const AWAITING: u8 = 2;
const RETURNING: u8 = 4;
const REDIRECTED: u8 = 8;

/// What operators want of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing(u8);

impl Standing {
    pub(super) fn of(state: &MessageState) -> Self {
        let flag = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
        Self(
            flag(HELD, state.hold.is_some())
                | flag(AWAITING, state.awaits_operator())
                | flag(RETURNING, state.returning.is_some())
                | flag(REDIRECTED, state.via.is_some()),
        )
    }

    /// Held and nothing else.
    pub(super) const fn held() -> Self {
        Self(HELD)
    }

    /// An operator holds the message.
    pub(super) const fn is_held(self) -> bool {
        self.0 & HELD != 0
    }

    /// A recipient in doubt waits for an operator's word.
    pub(super) const fn is_awaiting(self) -> bool {
        self.0 & AWAITING != 0
    }

    /// An operator wants the message returned.
    pub(super) const fn is_returning(self) -> bool {
        self.0 & RETURNING != 0
    }

    /// An operator chose a host: its routes are not those of the table.
    pub(super) const fn is_redirected(self) -> bool {
        self.0 & REDIRECTED != 0
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::units::Timestamp;
    use smtpd_core::queue::recipient::{Hold, ReturnOrder};
    use smtpd_core::route::smart_host::SmartHost;

    use super::*;

    #[test]
    fn states_of_the_time_before_orders_are_read_and_new_ones_come_back_whole() {
        let old = r#"{"r":[{"p":"waiting","n":2,"at":"2026-11-24T09:00:00Z"}]}"#;
        let state: MessageState = serde_json::from_str(old).unwrap();
        assert_eq!(Standing::of(&state), Standing::default());
        let since = Timestamp::from_millis(0);
        let ordered = MessageState {
            hold: Some(Hold { by: "anna".into(), reason: None, since }),
            returning: Some(ReturnOrder { by: "anna".into(), reason: None, since }),
            via: Some(SmartHost::parse("[192.0.2.1]:2525").unwrap()),
            ..state
        };
        let text = serde_json::to_string(&ordered).unwrap();
        let read: MessageState = serde_json::from_str(&text).unwrap();
        assert_eq!(read, ordered);
        let standing = Standing::of(&read);
        assert!(standing.is_held() && standing.is_returning() && standing.is_redirected());
        assert!(!standing.is_awaiting());
    }
}
