//! Which senders users of this machine may give, who hand mail in over the submit socket.

use mailroot_common::address::ReversePath;

use crate::route::table::Table;

/// Which senders they may give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SenderPolicy {
    /// Any.
    #[default]
    Any,
    /// Addresses at our own domains.
    OwnDomain,
    /// Their login name at our own domains.
    LoginName,
}

impl SenderPolicy {
    /// Whether the user of this login name may send as this sender. The null path is nobody's name.
    #[must_use]
    pub fn allows(self, sender: &ReversePath, login: &str, table: &Table) -> bool {
        let Some(mailbox) = sender.mailbox() else { return true };
        let is_ours = mailbox.domain().is_some_and(|domain| table.is_local(domain));
        match self {
            Self::Any => true,
            Self::OwnDomain => is_ours,
            Self::LoginName => is_ours && mailbox.local().as_str() == login,
        }
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::address::Domain;

    use super::*;
    use crate::route::table::{DirectFirst, Settings};

    #[test]
    fn a_policy_looks_at_domain_and_name() {
        let domain = |text| Domain::parse(text).unwrap();
        let table = Table::new(Settings {
            default_domain: domain("ours.test"),
            alias_domains: vec![domain("also.test")],
            remote_domains: Vec::new(),
            smart_hosts: Vec::new(),
            direct_first: DirectFirst::Never,
            sender_routes: Vec::new(),
        })
        .unwrap();
        for (sender, any, own, login) in [
            ("anna@ours.test", true, true, true),
            ("anna@ALSO.test", true, true, true),
            ("Anna@ours.test", true, true, false),
            ("ben@ours.test", true, true, false),
            ("anna@theirs.test", true, false, false),
            ("anna@[127.0.0.1]", true, false, false),
            ("", true, true, true),
        ] {
            let path = ReversePath::parse(sender).unwrap();
            let allows = |policy: SenderPolicy| policy.allows(&path, "anna", &table);
            assert_eq!(allows(SenderPolicy::Any), any, "{sender}");
            assert_eq!(allows(SenderPolicy::OwnDomain), own, "{sender}");
            assert_eq!(allows(SenderPolicy::LoginName), login, "{sender}");
        }
    }
}
