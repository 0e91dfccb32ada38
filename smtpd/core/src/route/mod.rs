//! Where mail goes: recipient domain to next hop, next hop to hosts.

pub mod alias;
pub mod crowd;
pub mod dane;
pub mod domain;
pub mod loopback;
pub mod mx;
mod name;
pub mod sender;
pub mod smart_host;
pub mod sts;
pub mod table;
