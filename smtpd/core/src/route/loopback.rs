//! Which addresses mail may not be sent to.
//!
//! Addresses found through MX are written by strangers: with them a stranger could make us talk
//! to services that listen on this machine or on its links only. Our own listeners are refused
//! whoever wrote the address, because that is a mail loop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Why an address is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// One of our own listeners.
    #[error("it is this server itself: the mail would loop")]
    Ourselves,
    /// An address of this machine.
    #[error("it is a loopback address (delivery.allow_loopback permits it)")]
    Loopback,
    /// An address of a link.
    #[error("it is a link-local address (delivery.allow_loopback permits it)")]
    LinkLocal,
    /// An address of a network that is not the world's.
    #[error("it is an address of a private network (delivery.allow_loopback permits it)")]
    Private,
    /// 0.0.0.0/8 or `::`.
    #[error("it is the unspecified address")]
    Unspecified,
    /// Broadcast or multicast.
    #[error("it is not the address of one host")]
    NotOneHost,
}

/// The rule, made from the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRule {
    /// Let loopback and link-local addresses found by MX be used.
    pub allow_loopback: bool,
    /// Where this virtual server listens. An unspecified address stands for every address of
    /// `own_addresses`.
    pub listeners: Vec<SocketAddr>,
    /// The machine's addresses; loopback addresses need not be listed.
    pub own_addresses: Vec<IpAddr>,
}

/// Who named the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// DNS, for a recipient's domain.
    Mx,
    /// DNS, for a request to the web that a stranger wants us to make: what he could not ask himself we do
    /// not ask in his stead.
    Web,
    /// The configuration, as an address or a host to look up.
    Operator,
}

impl AddressRule {
    /// Whether mail may be sent there.
    ///
    /// # Errors
    ///
    /// [`Refused`]: why not.
    pub fn check(&self, address: IpAddr, port: u16, found_by: FoundBy) -> Result<(), Refused> {
        let address = address.to_canonical();
        if self.listeners.iter().any(|listener| self.is_ours(*listener, address, port)) {
            return Err(Refused::Ourselves);
        }
        let unspecified = match address {
            IpAddr::V4(v4) => v4.octets()[0] == 0,
            IpAddr::V6(v6) => v6.is_unspecified(),
        };
        if unspecified {
            return Err(Refused::Unspecified);
        }
        if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(Refused::NotOneHost);
        }
        if found_by == FoundBy::Operator || self.allow_loopback {
            return Ok(());
        }
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if address.is_loopback() {
            Err(Refused::Loopback)
        } else if link_local {
            Err(Refused::LinkLocal)
        } else if found_by == FoundBy::Web && is_private(address) {
            Err(Refused::Private)
        } else {
            Ok(())
        }
    }

    fn is_ours(&self, listener: SocketAddr, address: IpAddr, port: u16) -> bool {
        let at = listener.ip().to_canonical();
        if listener.port() != port {
            return false;
        }
        if at.is_unspecified() {
            let own = address.is_loopback()
                || address.is_unspecified()
                || self.own_addresses.iter().any(|own| own.to_canonical() == address);
            return own && address.is_ipv4() == at.is_ipv4();
        }
        // Connecting to the unspecified address reaches loopback.
        at == address || (address.is_unspecified() && at.is_loopback())
    }
}

/// RFC 1918, RFC 6598 and RFC 4193.
const fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let octets = v4.octets();
            v4.is_private() || (octets[0] == 100 && octets[1] & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_have_us_ask_nobody_of_a_private_network() {
        let rule = AddressRule::default();
        for (address, expected) in [
            ("10.1.2.3", Err(Refused::Private)),
            ("192.168.0.1", Err(Refused::Private)),
            ("172.31.0.1", Err(Refused::Private)),
            ("172.32.0.1", Ok(())),
            ("100.64.0.1", Err(Refused::Private)),
            ("100.128.0.1", Ok(())),
            ("fd00::1", Err(Refused::Private)),
            ("::ffff:10.1.2.3", Err(Refused::Private)),
            ("2001:db8::1", Ok(())),
            ("127.0.0.1", Err(Refused::Loopback)),
        ] {
            assert_eq!(check(&rule, address, 443, FoundBy::Web), expected, "{address}");
            if expected == Err(Refused::Private) {
                assert_eq!(check(&rule, address, 25, FoundBy::Mx), Ok(()), "{address}");
            }
        }
    }

    fn check(rule: &AddressRule, address: &str, port: u16, by: FoundBy) -> Result<(), Refused> {
        rule.check(address.parse().unwrap(), port, by)
    }

    #[test]
    fn addresses_of_this_machine_and_its_links_are_refused_when_mx_names_them() {
        let rule = AddressRule::default();
        for (address, refused) in [
            ("127.0.0.1", Refused::Loopback),
            ("127.9.9.9", Refused::Loopback),
            ("::1", Refused::Loopback),
            ("::ffff:127.0.0.1", Refused::Loopback),
            ("169.254.1.1", Refused::LinkLocal),
            ("::ffff:169.254.1.1", Refused::LinkLocal),
            ("fe80::1", Refused::LinkLocal),
            ("0.0.0.0", Refused::Unspecified),
            ("0.1.2.3", Refused::Unspecified),
            ("::", Refused::Unspecified),
            ("::ffff:0.0.0.0", Refused::Unspecified),
            ("255.255.255.255", Refused::NotOneHost),
            ("224.0.0.1", Refused::NotOneHost),
            ("ff02::1", Refused::NotOneHost),
        ] {
            assert_eq!(check(&rule, address, 25, FoundBy::Mx), Err(refused), "{address}");
        }
        for address in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1"] {
            assert_eq!(check(&rule, address, 25, FoundBy::Mx), Ok(()), "{address}");
        }
    }

    #[test]
    fn operators_may_name_loopback_and_link_local_but_no_nonsense() {
        let rule = AddressRule::default();
        let allowing = AddressRule { allow_loopback: true, ..AddressRule::default() };
        for address in ["127.0.0.1", "::1", "169.254.1.1", "fe80::1"] {
            assert_eq!(check(&rule, address, 25, FoundBy::Operator), Ok(()), "{address}");
            assert_eq!(check(&allowing, address, 25, FoundBy::Mx), Ok(()), "{address}");
        }
        for address in ["0.0.0.0", "::", "255.255.255.255"] {
            assert!(check(&allowing, address, 25, FoundBy::Operator).is_err(), "{address}");
        }
    }

    #[test]
    fn our_own_listeners_are_refused_whoever_names_them() {
        let rule = AddressRule {
            allow_loopback: true,
            listeners: vec!["127.0.0.1:2525".parse().unwrap(), "0.0.0.0:25".parse().unwrap()],
            own_addresses: vec!["192.0.2.7".parse().unwrap()],
        };
        let ours = [("127.0.0.1", 2525), ("192.0.2.7", 25), ("127.0.0.1", 25), ("0.0.0.0", 2525)];
        for (address, port) in ours {
            let refused = check(&rule, address, port, FoundBy::Operator);
            assert_eq!(refused, Err(Refused::Ourselves), "{address}:{port}");
        }
        for (address, port) in
            [("127.0.0.1", 26), ("192.0.2.8", 25), ("192.0.2.7", 2525), ("::1", 25)]
        {
            assert_eq!(check(&rule, address, port, FoundBy::Mx), Ok(()), "{address}:{port}");
        }
    }
}
