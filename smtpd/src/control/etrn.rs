//! `/v1/servers/{server}/etrn`: asking another host for mail that it holds for us.

use axum::body::Bytes;
use axum::extract::Extension;
use mailroot_common::address::Domain;
use mailroot_common::config::Hop;
use mailroot_common::control::{EtrnAnswer, EtrnRequest, Kind, Problem};
use mailroot_common::status::Class;
use smtpd_core::smtp::etrn::{ATRN_DOMAINS_MAX, Etrn};

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use super::extract::Path;
use super::gate::tell;
use super::server::{read_hop, read_name};
use crate::virtual_server::VirtualServer;

/// How much may be asked for in one call.
const NODES_MAX: usize = 100;

/// A call, and what the host answers.
pub(super) async fn ask(
    app: App,
    Extension(caller): Extension<Caller>,
    Path(server): Path<String>,
    body: Bytes,
) -> Answer<Vec<EtrnAnswer>> {
    let found = app.service.known(&read_name(&server)?)?;
    let EtrnRequest { host, nodes, atrn } = read(&body)?;
    let hop = read_hop(&host)?;
    if atrn {
        return fetch(&app, &caller, &found, (&host, &hop), &nodes).await;
    }
    if nodes.is_empty() || nodes.len() > NODES_MAX {
        return Err(usage(format!("name between 1 and {NODES_MAX} domains or queues")));
    }
    let wishes = nodes.iter().map(|node| read_node(node)).collect::<Result<Vec<_>, _>>()?;
    tell(&app, "etrn-sent", found.name().as_str(), None, &caller).word("host", &host).send();
    let asked = found.ask_for_mail(&hop, &wishes).await.ok_or_else(|| at_rest(&found))?;
    let answer = |wish: &Etrn, host: String, is_taken: bool, reply: String| EtrnAnswer {
        node: wish.to_string(),
        host,
        is_taken,
        reply,
    };
    object(match asked {
        Ok((called, replies)) => wishes
            .iter()
            .zip(replies)
            .map(|(wish, reply)| {
                let is_taken = reply.class() == Class::Success;
                answer(wish, called.to_string(), is_taken, reply.to_string())
            })
            .collect(),
        Err(outcome) => {
            let called = outcome.host.as_ref().map_or(host, ToString::to_string);
            wishes
                .iter()
                .map(|wish| answer(wish, called.clone(), false, outcome.text.clone()))
                .collect()
        }
    })
}

/// A call whose connection brings the mail.
async fn fetch(
    app: &App,
    caller: &Caller,
    found: &VirtualServer,
    (host, hop): (&str, &Hop),
    nodes: &[String],
) -> Answer<Vec<EtrnAnswer>> {
    if !matches!(hop, Hop::SmartHost(_)) {
        let why = "mail is fetched with a login: name a smart host that has one, smarthost:NAME";
        return Err(usage(why));
    }
    if nodes.len() > ATRN_DOMAINS_MAX {
        return Err(usage(format!("name {ATRN_DOMAINS_MAX} domains at most")));
    }
    let read = |text: &String| {
        Domain::parse(text).map_err(|_| usage(format!("{text:?} is no domain, as ATRN wants it")))
    };
    let domains = nodes.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    tell(app, "atrn-sent", found.name().as_str(), None, caller).word("host", host).send();
    let asked = found.fetch_mail(hop, &domains).await.ok_or_else(|| at_rest(found))?;
    let (host, is_taken, reply) = match asked {
        Ok((called, reply)) => {
            (called.to_string(), reply.class() == Class::Success, reply.to_string())
        }
        Err(outcome) => {
            let called = outcome.host.as_ref().map_or_else(|| host.to_owned(), ToString::to_string);
            (called, false, outcome.text)
        }
    };
    object(vec![EtrnAnswer { node: nodes.join(","), host, is_taken, reply }])
}

fn at_rest(found: &VirtualServer) -> Problem {
    let detail = format!("virtual server {} does not run, and cannot call", found.name());
    Problem::new("server", Kind::Unavailable, detail).hint("choose another with -s")
}

fn read_node(text: &str) -> Result<Etrn, Refused> {
    Etrn::parse(text)
        .ok_or_else(|| usage(format!("{text:?} is neither a domain nor @domain nor #queue")))
}
