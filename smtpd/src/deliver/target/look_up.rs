//! What DNS says of hosts: of those of a recipient's domain, and of a name of the operator's.

use std::net::IpAddr;

use mailroot_common::address::{Domain, Host};
use mailroot_common::status::EnhancedCode;
use smtpd_core::queue::outcome::Stage;
use smtpd_core::route::mx::{self, MxHost};
use smtpd_core::smtp::client::Ending;
use smtpd_core::tls_report::FailureKind;

use super::super::Settings;
use super::super::strict::{TlsWish, strict_mx};
use super::super::tls_report;
use super::super::trust::{OfDomain, Rule};
use super::{Named, Step, Targets};
use crate::resolve::LookupError;

impl Targets {
    pub(super) async fn addresses(
        &self,
        host: &Domain,
        settings: &Settings,
    ) -> Result<Vec<IpAddr>, LookupError> {
        settings.resolver.addresses(host, settings.family, &self.allowance).await
    }

    pub(super) fn note_dns(&mut self, status: EnhancedCode, error: &LookupError) {
        self.note(Ending::local(Stage::Dns, status, error.to_string()), None);
    }

    pub(super) async fn look_up_domain(
        &mut self,
        domain: Domain,
        settings: &Settings,
        random: u64,
    ) {
        // Nobody is asked what does not count.
        let heeded = self.wish.heeded(self.policy(settings));
        let records = settings.resolver.mx(&domain, &self.allowance);
        let (found, of_domain) = tokio::join!(records, OfDomain::find(settings, &domain, heeded));
        let mut of_domain = match of_domain {
            Ok(of_domain) => of_domain,
            Err(ending) => {
                self.obstacles.by_rule = true;
                return self.note(ending, None);
            }
        };
        of_domain.is_signed = found.as_ref().is_ok_and(|found| found.is_secure);
        self.of_domain = Some(of_domain);
        let records = match found {
            Ok(found) => found.value,
            Err(error) if error.is_temporary() => {
                return self.note_dns(EnhancedCode::transient(4, 3), &error);
            }
            Err(error) => return self.note_dns(EnhancedCode::permanent(1, 2), &error),
        };
        match mx::hosts(&domain, records, |name| settings.is_our_name(name), random) {
            Ok(hosts) => {
                self.site = self.sites.as_ref().map(|sites| sites.find(&hosts.all));
                let left = hosts.all.len() - hosts.to_try.len();
                if left > 0 {
                    let text = format!("{left} further hosts of {domain} were not tried");
                    let status = EnhancedCode::transient(4, 4);
                    self.note(Ending::local(Stage::Dns, status, text), None);
                }
                for host in hosts.to_try.into_iter().rev() {
                    self.steps.push_front(Step::Found(host));
                }
            }
            Err(error) => {
                let ending = Ending::local(Stage::Route, error.status(), error.to_string());
                self.note(ending, None);
            }
        }
    }

    pub(super) async fn look_up_host(&mut self, host: MxHost, settings: &Settings) {
        let policy = self.wish.raised(self.policy(settings));
        let usual = (policy.into(), Rule::Configured);
        let called = match &self.of_domain {
            None => Ok(usual),
            Some(of_domain) => {
                match of_domain.demand(settings, &host.name, policy, &self.allowance).await {
                    Ok(demand) => {
                        let called = of_domain.of_host(&host.name, policy, demand);
                        called.and_then(|it| self.wish.vouched(of_domain, &host.name).map(|()| it))
                    }
                    Err(error) => {
                        // The domain is not to blame for our own limit.
                        if !matches!(error, LookupError::NoneLeft { .. }) {
                            let kind = FailureKind::DnssecInvalid;
                            self.tell_ruled_out(settings, &host, kind, &error);
                        }
                        self.obstacles.by_rule = true;
                        return self.note_dns(EnhancedCode::transient(4, 3), &error);
                    }
                }
            }
        };
        let (tls, rule) = match called {
            Ok(called) => called,
            Err(ending) => {
                self.tell_ruled_out(settings, &host, FailureKind::ValidationFailure, &ending.text);
                self.obstacles.by_rule = true;
                return self.note(ending, None);
            }
        };
        match self.addresses(&host.name, settings).await {
            Ok(found) => {
                let before = self.ready.len();
                let name = Host::Name(host.name.clone());
                let by = Named::ByStranger(tls, rule);
                let ours = self.add(settings, &name, &found, settings.port, by);
                if ours {
                    // Those preferred less would only send it back to us.
                    self.ready.truncate(before);
                    self.steps.retain(|step| match step {
                        Step::Found(other) => other.preference < host.preference,
                        _ => true,
                    });
                }
            }
            Err(error) if error.is_temporary() => {
                self.note_dns(EnhancedCode::transient(4, 3), &error);
            }
            Err(error) => self.note_dns(EnhancedCode::permanent(4, 4), &error),
        }
    }

    /// Tells that a rule keeps a host of the domain from being called.
    fn tell_ruled_out(
        &self,
        settings: &Settings,
        host: &MxHost,
        kind: FailureKind,
        why: &dyn std::fmt::Display,
    ) {
        if let Some(of_domain) = self.of_domain.as_ref().filter(|_| self.is_counted) {
            tls_report::ruled_out(settings, of_domain, &host.name, kind, &why.to_string());
        }
    }

    /// A name of the operator's without a port is looked up as mail domains are, and is a host if
    /// DNS knows no MX for it, or nothing: the hosts file may know it.
    pub(super) async fn look_up_chosen(&mut self, name: Domain, settings: &Settings, random: u64) {
        let port = settings.port;
        let records = match self.wish {
            TlsWish::Usual | TlsWish::Relaxed => {
                settings.resolver.mx(&name, &self.allowance).await.map(|found| found.value)
            }
            TlsWish::Strict => match strict_mx(settings, &name, &self.allowance).await {
                Ok(records) => records,
                Err(ending) => return self.note(ending, None),
            },
        };
        let hosts = records
            .ok()
            .filter(|records| !records.is_empty())
            .and_then(|records| mx::hosts(&name, records, |_| false, random).ok());
        match hosts {
            Some(hosts) => {
                for host in hosts.to_try.into_iter().rev() {
                    let name = host.name;
                    self.steps.push_front(Step::ChosenName { name, port, security: None });
                }
            }
            None => self.steps.push_front(Step::ChosenName { name, port, security: None }),
        }
    }
}
