//! Networks as they stand in access lists, and the addresses of peers.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor `address/length`.
    #[error("{0:?} is neither an address nor a network such as 192.0.2.0/24")]
    Shape(String),
    /// Bits are set to the right of the prefix.
    #[error("{text} has host bits set: did you mean the network {network} or the host {host}?")]
    HostBits {
        /// What was written.
        text: String,
        /// The network around it.
        network: IpNet,
        /// The address alone.
        host: IpAddr,
    },
}

/// A network, or a single address as a network of one. IPv4 in IPv6's clothing counts as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpNet);

impl Network {
    /// Reads an address or `address/length`.
    ///
    /// # Errors
    ///
    /// [`NetworkError`], offering both readings when host bits are set.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(IpNet::from(address.to_canonical())));
        }
        let net = address_and_length(text).ok_or_else(|| NetworkError::Shape(text.to_owned()))?;
        let text = || text.to_owned();
        if net.addr() != net.trunc().addr() {
            return Err(NetworkError::HostBits {
                text: text(),
                network: net.trunc(),
                host: net.addr(),
            });
        }
        match (net.addr().to_canonical(), net.prefix_len()) {
            (IpAddr::V4(v4), 96..) if net.addr().is_ipv6() => {
                IpNet::new(IpAddr::V4(v4), net.prefix_len() - 96)
                    .map(Self)
                    .map_err(|_| NetworkError::Shape(text()))
            }
            _ => Ok(Self(net)),
        }
    }

    /// Whether the address belongs to the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether any address belongs to both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }

    /// Whether this is every address of its family: `0.0.0.0/0` or `::/0`.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.prefix_len() == 0
    }

    /// The network as a pair of address and prefix length.
    #[must_use]
    pub const fn as_ipnet(self) -> IpNet {
        self.0
    }

    /// The length of its prefix in bits.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether several together are every address of a family, such as both halves of it.
    #[must_use]
    pub fn are_everything(networks: &[Self]) -> bool {
        let nets = networks.iter().map(|network| network.0).collect();
        IpNet::aggregate(&nets).iter().any(|net| net.prefix_len() == 0)
    }

    /// Whether all of its addresses are loopback addresses.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.0 {
            IpNet::V4(net) => net.prefix_len() >= 8 && net.addr().is_loopback(),
            IpNet::V6(net) => net.prefix_len() == 128 && net.addr().is_loopback(),
        }
    }
}

/// Reads `address/length`. No number begins with a zero: some programs read `010` as eight.
fn address_and_length(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let plain = length.bytes().all(|octet| octet.is_ascii_digit())
        && (length == "0" || !length.starts_with('0'));
    IpNet::new(address.parse().ok()?, length.parse().ok().filter(|_| plain)?).ok()
}

/// A single address is written without its length.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_overlap_where_one_holds_the_other() {
        let net = |text| Network::parse(text).unwrap();
        assert!(net("10.0.0.0/8").overlaps(&net("10.1.2.3")));
        assert!(net("10.1.2.3").overlaps(&net("10.0.0.0/8")));
        assert!(!net("10.1.0.0/16").overlaps(&net("10.2.0.0/16")));
        assert!(!net("0.0.0.0/0").overlaps(&net("::1")));
    }

    #[test]
    fn mapped_addresses_match_ipv4_networks() {
        let lan = Network::parse("10.1.0.0/16").unwrap();
        assert!(lan.contains("10.1.2.3".parse().unwrap()));
        assert!(lan.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!lan.contains("10.2.0.1".parse().unwrap()));
        let mapped = Network::parse("::ffff:10.1.0.0/112").unwrap();
        assert_eq!(mapped, lan);
        assert!(Network::parse("::ffff:10.1.2.3").unwrap().contains("10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn host_bits_and_nonsense_are_refused() {
        assert!(matches!(Network::parse("10.1.2.3/16"), Err(NetworkError::HostBits { .. })));
        for bad in [
            "",
            "10.1",
            "10.0.0.0/33",
            "x",
            "10.0.0.0/255.0.0.0",
            "::1/129",
            "010.0.0.0",
            "010.0.0.0/8",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/",
        ] {
            assert!(matches!(Network::parse(bad), Err(NetworkError::Shape(_))), "{bad:?}");
        }
    }

    #[test]
    fn everything_and_loopback_are_known() {
        assert!(Network::parse("0.0.0.0/0").unwrap().is_everything());
        assert!(Network::parse("::/0").unwrap().is_everything());
        assert!(Network::parse("127.0.0.0/8").unwrap().is_loopback());
        assert!(Network::parse("::1").unwrap().is_loopback());
        assert!(!Network::parse("0.0.0.0/0").unwrap().is_loopback());
        let nets = |texts: &[&str]| -> Vec<Network> {
            texts.iter().map(|text| Network::parse(text).unwrap()).collect()
        };
        assert!(Network::are_everything(&nets(&["10.0.0.0/8", "128.0.0.0/1", "0.0.0.0/1"])));
        assert!(Network::are_everything(&nets(&["::/1", "8000::/1"])));
        assert!(!Network::are_everything(&nets(&["0.0.0.0/1", "8000::/1", "::/1"][..2])));
    }
}
