//! TLSA records that a validating resolver on this machine vouches for (RFC 7672 section 2.2).

use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use mailroot_common::address::Domain;
use smtpd_core::route::dane::{Tlsa, Tlsas};

use super::ask::Asker;
use super::dns::{absolute, host_name};
use super::{Allowance, LookupError};

impl Asker {
    /// The validated TLSA records of a host; none if it has none, or if what DNS says of it is not
    /// signed. Where even its addresses are not signed nobody is asked for TLSA: some name servers
    /// answer such a question badly (RFC 7672 section 2.2.2).
    pub(super) async fn tlsa(
        &self,
        host: &Domain,
        port: u16,
        allowance: &Allowance,
    ) -> Result<Tlsas, LookupError> {
        for base in self.bases(host, allowance).await? {
            let records = self.tlsa_at(&base, port, allowance).await?;
            if !records.is_empty() {
                return Ok(Tlsas { base, records });
            }
        }
        Ok(Tlsas { base: host.clone(), records: Vec::new() })
    }

    /// The names at which the TLSA records of a host may be: first what it is an alias of, if each step
    /// there is signed; then its own, if what DNS says of that is signed (RFC 7672 section 2.2.2).
    async fn bases(
        &self,
        host: &Domain,
        allowance: &Allowance,
    ) -> Result<Vec<Domain>, LookupError> {
        let name = absolute(host)?;
        for kind in [RecordType::A, RecordType::AAAA] {
            let found = match self.ask(&name, kind, allowance).await {
                Ok(found) => found,
                Err(error) if error.is_temporary() => return Err(error),
                Err(_) => continue,
            };
            let target = Some(&found.owner).filter(|owner| **owner != name).and_then(host_name);
            let is_own_signed = match (&target, found.is_secure) {
                (_, true) => true,
                (None, false) => false,
                // The alias itself may be signed, although what it leads to is not.
                (Some(_), false) => {
                    match self.ask_once(&name, RecordType::CNAME, allowance).await {
                        Ok(alias) => alias.is_secure,
                        Err(error) if error.is_temporary() => return Err(error),
                        Err(_) => false,
                    }
                }
            };
            let mut bases: Vec<Domain> = target.filter(|_| found.is_secure).into_iter().collect();
            bases.extend(is_own_signed.then(|| host.clone()));
            return Ok(bases);
        }
        Ok(Vec::new())
    }

    async fn tlsa_at(
        &self,
        base: &Domain,
        port: u16,
        allowance: &Allowance,
    ) -> Result<Vec<Tlsa>, LookupError> {
        let name = Name::from_ascii(format!("_{port}._tcp.{base}."));
        // A name that is too long to have records has none.
        let Ok(name) = name else { return Ok(Vec::new()) };
        match self.ask(&name, RecordType::TLSA, allowance).await {
            Ok(found) if found.is_secure => Ok(found.records.iter().filter_map(tlsa_of).collect()),
            Ok(_) => Ok(Vec::new()),
            Err(error) if error.is_temporary() => Err(error),
            Err(_) => Ok(Vec::new()),
        }
    }
}

fn tlsa_of(record: &Record) -> Option<Tlsa> {
    let RData::TLSA(tlsa) = &record.data else { return None };
    Some(Tlsa {
        usage: tlsa.cert_usage.into(),
        selector: tlsa.selector.into(),
        matching: tlsa.matching.into(),
        data: tlsa.cert_data.clone(),
    })
}
