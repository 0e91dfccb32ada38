//! Who may send to whom: the relay decision, asked for every recipient.
//!
//! The order is the original's, and the first rule that speaks decides: mail for our own domains is
//! taken from anybody; so is mail for a remote domain that is marked for relaying; a client that
//! has logged in may relay; so may one by its certificate, where that is enough, and a client that
//! the relay list lets in; all other mail is refused. The sender's address is not even an argument, because anybody can write any.
//!
//! Only the text right of the last `@` is looked at. `user%other@ours`, `other!user@ours` and
//! `"user@other"@ours` are mail for ours, and [`crate::route::table`] routes by the same text, so
//! no spelling is local here and remote there.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use mailroot_common::address::Mailbox;
use mailroot_common::units::Timestamp;

use super::access::{Entry, List, Listed, Mode};
use super::{Admitted, Certified, Denial, Facts, Reason, Verdict};
use crate::queue::envelope::Recipient;
use crate::route::domain::{Pattern, RemoteDomain};
use crate::route::table::Table;

/// The rule that let a recipient in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayRule {
    /// The recipient's domain is ours.
    LocalDomain,
    /// This remote domain is marked for relaying.
    RemoteDomain(Pattern),
    /// The client has logged in.
    Authenticated,
    /// The client has shown a certificate that is enough.
    Certificate(Certified),
    /// The client is on the relay list, by this entry.
    List(Entry),
    /// The relay list is "all except", and the client is not on it.
    NotExcepted,
}

/// For the log and for `route show`.
impl fmt::Display for RelayRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalDomain => f.write_str("local domain"),
            Self::RemoteDomain(pattern) => write!(f, "remote domain {pattern}"),
            Self::Authenticated => f.write_str("authenticated"),
            Self::Certificate(how) => write!(f, "certificate {}", how.as_str()),
            Self::List(entry) => write!(f, "relay list {entry}"),
            Self::NotExcepted => f.write_str("relay list all-except"),
        }
    }
}

/// Proof that a client may begin a message.
#[derive(Debug, PartialEq, Eq)]
pub struct MayBegin(());

/// What makes a policy an open relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The relay list means all except a few.
    AllExcept,
    /// This entry of the relay list covers strangers.
    Entry(Entry),
    /// This remote domain is marked for relaying and covers a whole top-level domain.
    RemoteDomain(Pattern),
}

/// For messages to the operator: what opens the relay.
impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllExcept => f.write_str("policy all-except lets everybody relay"),
            Self::Entry(entry) => write!(f, "entry {entry} lets strangers relay"),
            Self::RemoteDomain(pattern) => {
                write!(f, "remote domain {pattern} relays to a whole top-level domain")
            }
        }
    }
}

/// Whose certificate is enough to relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayCertificates {
    /// Nobody's.
    #[default]
    None,
    /// One that is listed.
    Pinned,
    /// That one, and one that a trusted issuer vouches for.
    Trusted,
}

impl RelayCertificates {
    const fn takes(self, how: Certified) -> bool {
        match (self, how) {
            (Self::Pinned | Self::Trusted, Certified::Pinned)
            | (Self::Trusted, Certified::Trusted) => true,
            (Self::None, _) | (Self::Pinned, Certified::Trusted) => false,
        }
    }
}

/// The relay settings of one virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayPolicy {
    /// Who may relay without a login.
    pub list: List,
    /// Whether a login is enough.
    pub authenticated: bool,
    /// Which certificates are enough.
    pub certificates: RelayCertificates,
    /// Whether clients may send at all without a login.
    pub anonymous: bool,
}

impl RelayPolicy {
    /// Judges a client at MAIL, before it has named anybody.
    pub fn judge_sender(&self, facts: &Facts) -> Verdict<MayBegin> {
        if self.anonymous || facts.authenticated.is_some() {
            Verdict::Admit(MayBegin(()))
        } else {
            Verdict::Refuse(Denial::plain(Reason::AnonymousForbidden))
        }
    }

    /// What the list says of a client. One that a balancer does not tell is on neither of its sides.
    fn look_up(&self, facts: &Facts, now: Timestamp) -> (Mode, Listed<'_>) {
        match facts.client.is_unspecified() {
            true => (Mode::Only, Listed::No),
            false => (self.list.mode, self.list.find(facts, now)),
        }
    }

    /// Judges one recipient.
    pub fn judge(
        &self,
        facts: &Facts,
        recipient: &Mailbox,
        table: &Table,
        now: Timestamp,
    ) -> Verdict {
        if !self.anonymous && facts.authenticated.is_none() {
            return Verdict::Refuse(Denial::plain(Reason::AnonymousForbidden));
        }
        let admit = |rule| Verdict::Admit(Admitted { mailbox: recipient.clone(), rule });
        if let Some(domain) = recipient.domain() {
            if table.is_local(domain) {
                return admit(RelayRule::LocalDomain);
            }
            if let Some(remote) = table.remote(domain).filter(|remote| remote.relay) {
                return admit(RelayRule::RemoteDomain(remote.pattern.clone()));
            }
        }
        if self.authenticated && facts.authenticated.is_some() {
            return admit(RelayRule::Authenticated);
        }
        if let Some(how) = facts.certificate.filter(|how| self.certificates.takes(*how)) {
            return admit(RelayRule::Certificate(how));
        }
        let denied = |entry| Denial { reason: Reason::RelayDenied, entry };
        match self.look_up(facts, now) {
            (Mode::Only, Listed::By(entry)) => admit(RelayRule::List(entry.clone())),
            (Mode::AllExcept, Listed::No) => admit(RelayRule::NotExcepted),
            (Mode::Only, Listed::No) => Verdict::Refuse(denied(None)),
            (Mode::AllExcept, Listed::By(entry)) => Verdict::Refuse(denied(Some(entry.clone()))),
            (_, Listed::Unknown) => Verdict::Defer(Denial::plain(Reason::NameUnknown)),
        }
    }

    /// Whether the client may send to anybody, and so may ask for more than strangers may.
    #[must_use]
    pub fn is_submitter(&self, facts: &Facts, now: Timestamp) -> bool {
        if facts.authenticated.is_some() && self.authenticated {
            return true;
        }
        let is_certified = facts.certificate.is_some_and(|how| self.certificates.takes(how));
        let is_listed = match self.look_up(facts, now) {
            (Mode::Only, Listed::By(_)) | (Mode::AllExcept, Listed::No) => true,
            (Mode::Only, Listed::No) | (Mode::AllExcept, Listed::By(_)) | (_, Listed::Unknown) => {
                false
            }
        };
        (is_listed || is_certified) && (self.anonymous || facts.authenticated.is_some())
    }

    /// Whether the client may certainly not send to anybody. Where DNS does not say who it is, it may be
    /// one of those who may.
    #[must_use]
    pub fn is_surely_no_submitter(&self, facts: &Facts, now: Timestamp) -> bool {
        let may_be_listed = matches!(self.look_up(facts, now), (_, Listed::Unknown))
            && (self.anonymous || facts.authenticated.is_some());
        !may_be_listed && !self.is_submitter(facts, now)
    }

    /// Whether mail from this address to this recipient is a stranger's, taken only because anybody
    /// may send to the recipient's domain, or to an address of ours that the directory or an alias
    /// leads there.
    /// Nobody vouches for what stands in it.
    #[must_use]
    pub fn is_strangers(
        &self,
        client: IpAddr,
        recipient: &Recipient,
        table: &Table,
        now: Timestamp,
    ) -> bool {
        let remote = recipient.mailbox.domain().and_then(|domain| table.remote(domain));
        let is_led_here = recipient.resolved || recipient.forwarded;
        if !is_led_here && remote.is_none_or(|remote| !remote.relay) {
            return false;
        }
        match self.look_up(&Facts::of_address(client), now) {
            (Mode::Only, Listed::By(_)) | (Mode::AllExcept, Listed::No) => false,
            (Mode::Only, Listed::No) | (Mode::AllExcept, Listed::By(_)) | (_, Listed::Unknown) => {
                true
            }
        }
    }

    /// What lets strangers relay, if anything does. The configuration asks before it takes effect
    /// on an address that strangers can reach.
    #[must_use]
    pub fn opening(&self, remote_domains: &[RemoteDomain]) -> Option<Opening> {
        if !self.anonymous {
            return None;
        }
        if self.list.mode == Mode::AllExcept {
            return Some(Opening::AllExcept);
        }
        if let Some(line) = self.list.lines.iter().find(|line| covers_strangers(&line.entry)) {
            return Some(Opening::Entry(line.entry.clone()));
        }
        let wide = |remote: &&RemoteDomain| remote.relay && is_public_suffix(&remote.pattern);
        let wide = remote_domains.iter().find(wide)?;
        Some(Opening::RemoteDomain(wide.pattern.clone()))
    }
}

/// Whether an entry covers more than any one owner has: an IPv4 network larger than /8, a network
/// larger than /19 of the IPv6 addresses that are given out, or all names below a public top-level
/// domain.
fn covers_strangers(entry: &Entry) -> bool {
    const GIVEN_OUT: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
    match entry {
        Entry::Name(pattern) => is_public_suffix(pattern),
        Entry::Network(network) => match network.as_ipnet() {
            IpNet::V4(net) => net.prefix_len() < 8,
            IpNet::V6(net) => {
                net.prefix_len() < 19 && (GIVEN_OUT.contains(&net) || net.contains(&GIVEN_OUT))
            }
        },
    }
}

/// Whether a wildcard covers a whole top-level domain that anybody can have a name in.
fn is_public_suffix(pattern: &Pattern) -> bool {
    /// Names that no public registry gives out (RFC 2606, RFC 6762 appendix G, RFC 8375).
    const PRIVATE: [&str; 13] = [
        "corp",
        "example",
        "home",
        "internal",
        "intranet",
        "invalid",
        "lan",
        "local",
        "localdomain",
        "localhost",
        "mail",
        "private",
        "test",
    ];
    match pattern {
        Pattern::Exact(_) => false,
        Pattern::Below(suffix) => {
            !suffix.as_str().contains('.') && !PRIVATE.contains(&suffix.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::address::{Domain, ReversePath};

    use super::*;
    use crate::policy::NameFact;
    use crate::route::domain::RemoteRoute;
    use crate::route::smart_host::SmartHost;
    use crate::route::table::{DirectFirst, Settings};

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn remote(pattern: &str, relay: bool) -> RemoteDomain {
        RemoteDomain { relay, ..RemoteDomain::plain(Pattern::parse(pattern).unwrap()) }
    }

    fn table() -> Table {
        let hub = RemoteRoute::Hosts(vec![SmartHost::parse("hub.example").unwrap()]);
        Table::new(Settings {
            default_domain: domain("ours.example"),
            alias_domains: vec![domain("alias.example")],
            sender_routes: Vec::new(),
            remote_domains: vec![
                remote("*.partner.example", true),
                RemoteDomain { route: hub, ..remote("closed.partner.example", false) },
                remote("closed.example", false),
            ],
            smart_hosts: vec![SmartHost::parse("isp.example").unwrap()],
            direct_first: DirectFirst::Never,
        })
        .unwrap()
    }

    fn policy(mode: Mode, entries: &[&str]) -> RelayPolicy {
        let lines = entries.iter().map(|text| Entry::parse(text).unwrap().into()).collect();
        RelayPolicy {
            list: List { mode, lines },
            authenticated: true,
            certificates: RelayCertificates::None,
            anonymous: true,
        }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

    fn stranger() -> Facts {
        Facts::of_address("198.51.100.9".parse().unwrap())
    }

    /// The answer in one word or two, as the log has it.
    fn ask(policy: &RelayPolicy, facts: &Facts, recipient: &str) -> String {
        match policy.judge(facts, &Mailbox::parse(recipient).unwrap(), &table(), NOW) {
            Verdict::Admit(admitted) => {
                assert_eq!(admitted.mailbox().to_string(), recipient);
                admitted.rule().to_string()
            }
            Verdict::Defer(denial) => format!("defer {:?}", denial.reason),
            Verdict::Refuse(denial) => format!("refuse {:?}", denial.reason),
        }
    }

    #[test]
    fn sessions_and_domains_follow_the_table_of_the_original() {
        let inside = Facts::of_address("10.1.2.3".parse().unwrap());
        let user = Facts { authenticated: Some("ada".to_owned()), ..stranger() };
        let only = policy(Mode::Only, &["10.0.0.0/8"]);
        let except = policy(Mode::AllExcept, &["10.0.0.0/8"]);
        let no_login = RelayPolicy { authenticated: false, ..only.clone() };
        let login_only = RelayPolicy { anonymous: false, ..only.clone() };
        let denied = "refuse RelayDenied";
        let closed = "refuse AnonymousForbidden";
        let (local, wild) = ("local domain", "remote domain *.partner.example");
        for (policy, facts, answers) in [
            (&only, &stranger(), [local, wild, denied]),
            (&only, &inside, [local, wild, "relay list 10.0.0.0/8"]),
            (&only, &user, [local, wild, "authenticated"]),
            (&except, &stranger(), [local, wild, "relay list all-except"]),
            (&except, &inside, [local, wild, denied]),
            (&except, &user, [local, wild, "authenticated"]),
            (&no_login, &user, [local, wild, denied]),
            (&login_only, &stranger(), [closed; 3]),
            (&login_only, &inside, [closed; 3]),
            (&login_only, &user, [local, wild, "authenticated"]),
        ] {
            let may_relay = !answers[2].starts_with("refuse");
            assert_eq!(policy.is_submitter(facts, NOW), may_relay, "{policy:?} {facts:?}");
            let recipients = ["a@ours.example", "a@x.partner.example", "a@other.example"];
            assert_eq!(
                recipients.map(|to| ask(policy, facts, to)),
                answers,
                "{policy:?} {facts:?}"
            );
        }
        assert_eq!(
            login_only.judge_sender(&inside),
            Verdict::Refuse(Denial::plain(Reason::AnonymousForbidden))
        );
        assert!(matches!(login_only.judge_sender(&user), Verdict::Admit(_)));
        assert!(matches!(only.judge_sender(&stranger()), Verdict::Admit(_)));
    }

    #[test]
    fn a_certificate_lets_relay_only_where_its_kind_is_enough() {
        let denied = "refuse RelayDenied";
        for (certificates, none, pinned, trusted) in [
            (RelayCertificates::None, denied, denied, denied),
            (RelayCertificates::Pinned, denied, "certificate pinned", denied),
            (RelayCertificates::Trusted, denied, "certificate pinned", "certificate trusted"),
        ] {
            let open = RelayPolicy { certificates, ..policy(Mode::Only, &["10.0.0.0/8"]) };
            let closed = RelayPolicy { anonymous: false, ..open.clone() };
            for (certificate, answer) in [
                (None, none),
                (Some(Certified::Pinned), pinned),
                (Some(Certified::Trusted), trusted),
            ] {
                let facts = Facts { certificate, ..stranger() };
                assert_eq!(ask(&open, &facts, "a@other.example"), answer, "{open:?}");
                assert_eq!(open.is_submitter(&facts, NOW), answer != denied, "{open:?}");
                assert_eq!(ask(&open, &facts, "a@ours.example"), "local domain");
                // Where a login is asked for, a certificate alone is none.
                let answer = ask(&closed, &facts, "a@other.example");
                assert_eq!(answer, "refuse AnonymousForbidden");
                assert!(!closed.is_submitter(&facts, NOW));
            }
        }
    }

    #[test]
    fn a_client_whose_name_is_not_known_now_is_no_stranger_for_certain() {
        let named = policy(Mode::Only, &["10.0.0.0/8", "*.friend.example"]);
        let login_only = RelayPolicy { anonymous: false, ..named.clone() };
        let unknown = Facts { name: NameFact::Unknown, ..stranger() };
        let nameless = Facts { name: NameFact::None, ..stranger() };
        let inside = Facts::of_address("10.1.2.3".parse().unwrap());
        for (policy, facts, expected) in [
            (&named, &unknown, false),
            (&named, &nameless, true),
            (&named, &inside, false),
            (&login_only, &unknown, true),
            (&policy(Mode::Only, &["10.0.0.0/8"]), &unknown, true),
        ] {
            assert_eq!(policy.is_surely_no_submitter(facts, NOW), expected, "{policy:?} {facts:?}");
        }
        assert!(!named.is_submitter(&unknown, NOW), "nor may it ask for more than strangers may");
    }

    #[test]
    fn mail_is_a_strangers_where_only_the_recipients_domain_lets_it_through() {
        let only = policy(Mode::Only, &["10.0.0.0/8"]);
        let except = policy(Mode::AllExcept, &["10.0.0.0/8"]);
        for (policy, client, recipient, expected) in [
            (&only, "198.51.100.9", "a@x.partner.example", true),
            (&only, "10.1.2.3", "a@x.partner.example", false),
            (&only, "198.51.100.9", "a@closed.example", false),
            (&only, "198.51.100.9", "a@other.example", false),
            (&except, "198.51.100.9", "a@x.partner.example", false),
            (&except, "10.1.2.3", "a@x.partner.example", true),
            (&except, "0.0.0.0", "a@x.partner.example", true),
        ] {
            let (client, to) = (client.parse().unwrap(), Mailbox::parse(recipient).unwrap());
            let found = policy.is_strangers(client, &Recipient::plain(to), &table(), NOW);
            assert_eq!(found, expected, "{client} {recipient}");
        }
        let forward = Mailbox::parse("a@other.example").unwrap();
        let plain = Recipient::plain(forward);
        let resolved = Recipient { resolved: true, ..plain.clone() };
        let forwarded = Recipient { forwarded: true, ..plain };
        for recipient in [resolved, forwarded] {
            let is_strangers = |client: &str| {
                only.is_strangers(client.parse().unwrap(), &recipient, &table(), NOW)
            };
            assert!(is_strangers("198.51.100.9") && !is_strangers("10.1.2.3"));
        }
    }

    #[test]
    fn no_spelling_of_an_address_lets_a_stranger_relay() {
        let policy = policy(Mode::Only, &["127.0.0.0/8", "::1"]);
        let denied = "refuse RelayDenied";
        let local = "local domain";
        for (recipient, answer) in [
            ("victim@other.example", denied),
            ("VICTIM@OTHER.EXAMPLE", denied),
            ("victim@[192.0.2.1]", denied),
            ("victim@[127.0.0.1]", denied),
            ("victim@[IPv6:2001:db8::1]", denied),
            ("victim@[IPv6:::ffff:127.0.0.1]", denied),
            ("victim@192.0.2.1", denied),
            ("victim@other.ours.example", denied),
            ("victim@notours.example", denied),
            ("victim@ours.example.other.example", denied),
            ("victim@ours.example-other.example", denied),
            ("victim@partner.example", denied),
            ("victim@badpartner.example", denied),
            ("victim@closed.partner.example", denied),
            ("victim@closed.example", denied),
            ("victim@xpartner.example", denied),
            ("victim@оurs.example", denied),
            ("victim@other。example", denied),
            ("ours.example!victim@other.example", denied),
            ("victim%ours.example@other.example", denied),
            ("\"victim@ours.example\"@other.example", denied),
            ("\"\"@other.example", denied),
            ("postmaster@other.example", denied),
            ("victim%other.example@ours.example", local),
            ("victim%other.example%x@ours.example", local),
            ("\"victim%other.example\"@ours.example", local),
            ("other.example!victim@ours.example", local),
            ("a!other.example!victim@alias.example", local),
            ("\"victim@other.example\"@ours.example", local),
            ("\"victim\\@other.example\"@ours.example", local),
            ("\"<victim@other.example>\"@ours.example", local),
            ("IMCEASMTP-victim+40other+2Eexample@ours.example", local),
            ("IMCEASMTP=victim@ours.example", local),
        ] {
            let mailbox = Mailbox::parse(recipient).unwrap();
            let said = ask(&policy, &stranger(), &mailbox.to_string());
            assert_eq!(said, answer, "{recipient}");
            if answer == local {
                assert!(table().route_name(&ReversePath::Null, &mailbox).is_drop(), "{recipient}");
            }
        }
    }

    #[test]
    fn forms_that_are_no_mailbox_never_reach_the_decision() {
        for recipient in [
            "victim@ours.example@other.example",
            "victim@other.example@ours.example",
            "@ours.example:victim@other.example",
            "@ours.example,@x.example:victim@other.example",
            "victim@other.example.",
            "victim@ours.example.",
            "victim@other.example(ours.example)",
            "victim@other.example,a@ours.example",
            "victim@other.example;a@ours.example",
            "victim@other.example a@ours.example",
            "victim@other.example\0@ours.example",
            "victim@other.example\r\n@ours.example",
            "victim@other.example:25",
            "<victim@other.example>",
            "victim\\@other.example@ours.example",
            "victim@[192.0.2.1",
            "victim%[192.0.2.1]@ours.example",
            "victim@",
            "@ours.example",
        ] {
            assert!(Mailbox::parse(recipient).is_err(), "{recipient}");
        }
    }

    #[test]
    fn mapped_clients_match_ipv4_entries_and_no_others() {
        let policy = policy(Mode::Only, &["127.0.0.0/8", "10.0.0.0/8"]);
        for (client, answer) in [
            ("127.0.0.1", "relay list 127.0.0.0/8"),
            ("::ffff:127.0.0.1", "relay list 127.0.0.0/8"),
            ("::ffff:10.9.8.7", "relay list 10.0.0.0/8"),
            ("::ffff:198.51.100.9", "refuse RelayDenied"),
            ("::10.9.8.7", "refuse RelayDenied"),
            ("::1", "refuse RelayDenied"),
            ("64:ff9b::a09:807", "refuse RelayDenied"),
        ] {
            let facts = Facts::of_address(client.parse().unwrap());
            assert_eq!(ask(&policy, &facts, "a@other.example"), answer, "{client}");
        }
    }

    #[test]
    fn unknown_name_defers_only_what_the_name_would_decide() {
        let policy = policy(Mode::Only, &["10.0.0.0/8", "*.corp.example"]);
        let unknown = Facts { name: NameFact::Unknown, ..stranger() };
        assert_eq!(ask(&policy, &unknown, "a@ours.example"), "local domain");
        assert_eq!(ask(&policy, &unknown, "a@other.example"), "defer NameUnknown");
        let inside = Facts { client: "10.1.1.1".parse().unwrap(), ..unknown };
        assert_eq!(ask(&policy, &inside, "a@other.example"), "relay list 10.0.0.0/8");
        let forged = NameFact::Names(vec![domain("corp.example")]);
        assert_eq!(
            ask(&policy, &Facts { name: forged, ..stranger() }, "a@other.example"),
            "refuse RelayDenied"
        );
    }

    #[test]
    fn what_opens_a_relay_is_named() {
        let entry = |text: &str| Some(Opening::Entry(Entry::parse(text).unwrap()));
        for (policy, opening) in [
            (policy(Mode::Only, &[]), None),
            (policy(Mode::Only, &["127.0.0.0/8", "::1", "10.0.0.0/8", "2001:db8::/32"]), None),
            (policy(Mode::Only, &["*.corp.example.com", "mail", "*.lan", "fd00::/8"]), None),
            (policy(Mode::Only, &["10.0.0.0/8", "0.0.0.0/0"]), entry("0.0.0.0/0")),
            (policy(Mode::Only, &["::/0"]), entry("::/0")),
            (policy(Mode::Only, &["0.0.0.0/1", "128.0.0.0/1"]), entry("0.0.0.0/1")),
            (policy(Mode::Only, &["2000::/3"]), entry("2000::/3")),
            (policy(Mode::Only, &["2a00::/12"]), entry("2a00::/12")),
            (policy(Mode::Only, &["::ffff:0:0/96"]), entry("0.0.0.0/0")),
            (policy(Mode::Only, &["*.com"]), entry("*.com")),
            (policy(Mode::AllExcept, &["10.0.0.0/8"]), Some(Opening::AllExcept)),
            (RelayPolicy { anonymous: false, ..policy(Mode::AllExcept, &[]) }, None),
        ] {
            assert_eq!(policy.opening(&[]), opening, "{policy:?}");
        }
        let closed = policy(Mode::Only, &[]);
        assert_eq!(closed.opening(&[remote("*.com", false), remote("*.corp.example", true)]), None);
        let pattern = Pattern::parse("*.com").unwrap();
        let open = Some(Opening::RemoteDomain(pattern));
        assert_eq!(closed.opening(&[remote("*.com", true)]), open);
    }
}
