//! Whether DNS knows where recent mail says that it comes from: others refuse mail of a sender who cannot
//! exist, and a report to him ends in Badmail.

use std::time::Duration;

use mailroot_common::address::{Domain, Mailbox};
use mailroot_common::control::{Check, Level};
use smtpd_core::route::table::NextHop;
use tokio::task::JoinSet;

use super::decide::Court;
use super::{Shared, VirtualServer};
use crate::resolve::{Allowance, Family, Resolver};

/// How many domains are asked for: those with the most mail.
const DOMAINS_MAX: usize = 20;
/// How many of them are told.
const TOLD_MAX: usize = 5;
/// How long all of DNS is waited for.
const WAIT: Duration = Duration::from_secs(10);

/// A sender of late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The address.
    pub address: Mailbox,
    /// How many messages came from its domain.
    pub messages: u64,
}

impl VirtualServer {
    /// What was found about senders, those with the most mail first, each with what to do.
    pub async fn check_senders(&self, senders: Vec<Sender>) -> Vec<Check> {
        let (config, shared) = (self.config(), self.shared.load_full());
        let Ok(court) = Court::of(&config, shared.mail_name.as_ref()) else { return Vec::new() };
        let mut found = Vec::new();
        if let Some(address) = &config.messages.default_sender {
            let sender = Sender { address: address.clone(), messages: 0 };
            found.extend(examine(vec![sender], &court, &shared).await.0);
        }
        let (unknown, asked) = examine(senders, &court, &shared).await;
        found.extend(unknown);
        found.truncate(TOLD_MAX);
        if found.is_empty() {
            let text = match asked {
                0 => "no mail of late came from senders of other domains".to_owned(),
                1 => "the domain of recent senders can get replies".to_owned(),
                _ => format!("the {asked} domains of recent senders can get replies"),
            };
            found.push(Check::new(Level::Ok, "senders", "domains", text));
        }
        found.into_iter().map(|it| Check { server: Some(self.name().to_string()), ..it }).collect()
    }
}

/// The senders who can get no reply, and how many domains were asked for.
async fn examine(senders: Vec<Sender>, court: &Court, shared: &Shared) -> (Vec<Check>, usize) {
    let is_elsewhere = |sender: &Sender| court.hop(&sender.address) != NextHop::Drop;
    let mut asking = JoinSet::new();
    for (place, sender) in senders.into_iter().filter(is_elsewhere).take(DOMAINS_MAX).enumerate() {
        let Some(domain) = sender.address.domain().cloned() else { continue };
        let resolver = shared.resolver.clone();
        asking.spawn(async move {
            let trouble = trouble(&resolver, &domain).await;
            (place, trouble.map(|trouble| told(&sender, &domain, &trouble)))
        });
    }
    let (asked, mut found) = (asking.len(), Vec::new());
    let all = async {
        while let Some(done) = asking.join_next().await {
            found.extend(done.ok().and_then(|(place, check)| Some((place, check?))));
        }
    };
    // Of whom DNS says nothing in time, nothing is said.
    let _ = tokio::time::timeout(WAIT, all).await;
    found.sort_by_key(|(place, _)| *place);
    (found.into_iter().map(|(_, check)| check).collect(), asked)
}

/// Why nobody at a domain can get mail; nothing if he can, or if DNS does not say now.
async fn trouble(resolver: &Resolver, domain: &Domain) -> Option<String> {
    let allowance = Allowance::default();
    match resolver.mx(domain, &allowance).await {
        Ok(found) if found.value.is_empty() => {}
        Ok(found) if found.value.iter().all(|record| record.exchange.is_none()) => {
            return Some("takes no mail (null MX)".to_owned());
        }
        Ok(_) => return None,
        Err(error) => return (!error.is_temporary()).then(|| "is not in DNS".to_owned()),
    }
    match resolver.addresses(domain, Family::Any, &allowance).await {
        Ok(addresses) if !addresses.is_empty() => None,
        Err(error) if error.is_temporary() => None,
        Ok(_) | Err(_) => Some("has neither MX nor address in DNS".to_owned()),
    }
}

fn told(sender: &Sender, domain: &Domain, trouble: &str) -> Check {
    let Sender { address, messages } = sender;
    if *messages == 0 {
        let text = format!("messages.default_sender is {address}, and {domain} {trouble}");
        return Check::new(Level::Warn, "senders", "default_sender", text)
            .hint("smtpctl server set NAME messages.default_sender=ADDRESS; reports go there");
    }
    let times =
        if *messages == 1 { "1 message".to_owned() } else { format!("{messages} messages") };
    let text = format!("{times} of late came from {address} and the like: {domain} {trouble}");
    let hint = format!(
        "many hosts refuse such mail, and reports cannot reach its sender; who sends it: smtpctl \
         trace --from '*@{domain}'"
    );
    Check::new(Level::Warn, "senders", "domains", text).hint(hint)
}
