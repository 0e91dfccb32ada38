//! What counts as one client: one IPv4 address, or one IPv6 network of 64 bits. That is the smallest
//! piece of IPv6 that is ever given out, so that nobody is a crowd by himself.

use std::net::{IpAddr, Ipv6Addr};

/// One client, whichever of its addresses it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    /// The one with this address. IPv4 in IPv6's clothing counts as IPv4.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}
