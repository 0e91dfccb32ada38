//! A DNS in memory, for tests with made-up peers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use mailroot_common::address::Domain;
use smtpd_core::route::mx::MxRecord;

use super::LookupError;

/// What a simulated name has.
#[derive(Clone, Debug, Default)]
pub(super) struct SimulatedHost {
    pub(super) mx: Vec<MxRecord>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) texts: Vec<String>,
    out_of_order: bool,
}

/// A DNS in memory: names that were not added do not exist. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDns {
    hosts: Arc<Mutex<HashMap<Domain, SimulatedHost>>>,
}

impl SimulatedDns {
    fn change(&self, name: &Domain, change: impl FnOnce(&mut SimulatedHost)) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        change(hosts.entry(name.clone()).or_default());
    }

    /// Adds an MX record; `None` is the null MX.
    pub fn add_mx(&self, name: &Domain, preference: u16, exchange: Option<Domain>) {
        self.change(name, |host| host.mx.push(MxRecord { preference, exchange }));
    }

    /// Puts one MX record in the place of those there were.
    pub fn set_mx(&self, name: &Domain, preference: u16, exchange: Option<Domain>) {
        self.change(name, |host| host.mx = vec![MxRecord { preference, exchange }]);
    }

    /// Adds an address.
    pub fn add_address(&self, name: &Domain, address: IpAddr) {
        self.change(name, |host| host.addresses.push(address));
    }

    /// Adds a text.
    pub fn add_text(&self, name: &Domain, text: &str) {
        self.change(name, |host| host.texts.push(text.to_owned()));
    }

    /// From now on nobody can tell anything about the name, or can again.
    pub fn set_out_of_order(&self, name: &Domain, out_of_order: bool) {
        self.change(name, |host| host.out_of_order = out_of_order);
    }

    pub(super) fn answer<T>(
        &self,
        name: &Domain,
        read: impl FnOnce(&SimulatedHost) -> Vec<T>,
    ) -> Result<Vec<T>, LookupError> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        match hosts.get(name) {
            None => Err(LookupError::NoSuchName(name.to_string())),
            Some(host) if host.out_of_order => {
                Err(LookupError::Temporary { name: name.to_string(), why: "out of order".into() })
            }
            Some(host) => {
                let found = read(host);
                if found.is_empty() {
                    return Err(LookupError::NoData(name.to_string()));
                }
                Ok(found)
            }
        }
    }

    pub(super) fn claimed_names(&self, address: IpAddr) -> Result<Vec<Domain>, LookupError> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<Domain> = hosts
            .iter()
            .filter(|(_, host)| host.addresses.contains(&address))
            .map(|(name, _)| name.clone())
            .collect();
        if names.is_empty() {
            return Err(LookupError::NoSuchName(address.to_string()));
        }
        Ok(names)
    }
}
