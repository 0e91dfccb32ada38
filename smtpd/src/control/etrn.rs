//! `/v1/servers/{server}/etrn`: asking another host for mail that it holds for us.

use axum::body::Bytes;
use axum::extract::Extension;
use mailroot_common::control::{EtrnAnswer, EtrnRequest, Kind, Problem};
use mailroot_common::status::Class;
use smtpd_core::smtp::etrn::Etrn;

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::caller::Caller;
use super::extract::Path;
use super::gate::tell;
use super::server::{read_hop, read_name};

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
    let EtrnRequest { host, nodes } = read(&body)?;
    let hop = read_hop(&host)?;
    if nodes.is_empty() || nodes.len() > NODES_MAX {
        return Err(usage(format!("name between 1 and {NODES_MAX} domains or queues")));
    }
    let wishes = nodes.iter().map(|node| read_node(node)).collect::<Result<Vec<_>, _>>()?;
    tell(&app, "etrn-sent", found.name().as_str(), None, &caller).word("host", &host).send();
    let asked = found.ask_for_mail(&hop, &wishes).await.ok_or_else(|| {
        let detail = format!("virtual server {} does not run, and cannot call", found.name());
        Problem::new("server", Kind::Unavailable, detail).hint("choose another with -s")
    })?;
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

fn read_node(text: &str) -> Result<Etrn, Refused> {
    Etrn::parse(text)
        .ok_or_else(|| usage(format!("{text:?} is neither a domain nor @domain nor #queue")))
}
