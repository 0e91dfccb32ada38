//! `/v1/servers/{server}/domains`: the domains of one virtual server.

use axum::body::Bytes;
use mailroot_common::address;
use mailroot_common::config::DomainName;
use mailroot_common::config::delivery::{InDoubt, TlsMode};
use mailroot_common::config::domains::Release;
use mailroot_common::control::{Domain, DomainDetail, Edited, KeyEdits, NewDomain};
use mailroot_common::net::Network;
use mailroot_common::rate::Rate;

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::extract::Path;
use super::server::{read_hop, read_name};
use super::terms::Wanted;
use crate::config::RemoteDomainSpec;
use crate::service::DomainSpec;

/// All of them.
pub(super) async fn list(app: App, Path(server): Path<String>) -> Answer<Vec<Domain>> {
    object(app.service.domains(&read_name(&server)?)?)
}

/// One of them.
pub(super) async fn show(
    app: App,
    Path((server, domain)): Path<(String, String)>,
) -> Answer<DomainDetail> {
    let (server, name) = (read_name(&server)?, read_domain(&domain)?);
    object(app.service.domain_detail(&server, &name)?)
}

/// A new one.
pub(super) async fn add(
    app: App,
    Path(server): Path<String>,
    Wanted(asked): Wanted,
    body: Bytes,
) -> Answer<Domain> {
    let server = read_name(&server)?;
    let spec = read_spec(read(&body)?)?;
    object(app.service.add_domain(&server, spec, &asked).await?)
}

/// Other values for its keys.
pub(super) async fn edit(
    app: App,
    Path((server, domain)): Path<(String, String)>,
    Wanted(asked): Wanted,
    body: Bytes,
) -> Answer<Edited> {
    let (server, name) = (read_name(&server)?, read_domain(&domain)?);
    let KeyEdits { edits } = read(&body)?;
    object(app.service.edit_keys(Some((&server, Some(&name))), &edits, &asked).await?)
}

/// An alias becomes the default domain.
pub(super) async fn promote(
    app: App,
    Path((server, domain)): Path<(String, String)>,
    Wanted(asked): Wanted,
) -> Answer<Edited> {
    let (server, name) = (read_name(&server)?, read_domain(&domain)?);
    object(app.service.promote_domain(&server, &name, &asked).await?)
}

/// The end of one; what it was.
pub(super) async fn remove(
    app: App,
    Path((server, domain)): Path<(String, String)>,
    Wanted(asked): Wanted,
) -> Answer<Domain> {
    let (server, name) = (read_name(&server)?, read_domain(&domain)?);
    object(app.service.remove_domain(&server, &name, &asked).await?)
}

fn read_domain(text: &str) -> Result<DomainName, Refused> {
    DomainName::parse(text)
        .ok_or_else(|| usage(format!("{text:?} is no domain: write example.net or *.example.net")))
}

fn read_in_doubt(word: &str) -> Result<InDoubt, Refused> {
    let found = InDoubt::ALL.iter().find(|choice| choice.word() == word);
    found.copied().ok_or_else(|| usage(format!("{word:?} is none of retry, hold and return")))
}

fn read_tls(word: &str) -> Result<TlsMode, Refused> {
    let found = TlsMode::ALL.iter().find(|choice| choice.word() == word);
    let none = || usage(format!("{word:?} is none of off, optional, required and verify"));
    found.copied().ok_or_else(none)
}

fn read_net(text: &str) -> Result<Network, Refused> {
    Network::parse(text).map_err(|error| usage(error.to_string()))
}

fn read_rate(text: &str) -> Result<Rate, Refused> {
    Rate::parse(text).map_err(|error| usage(format!("{error}: write 30/min; also per s, h and d")))
}

fn read_spec(wish: NewDomain) -> Result<DomainSpec, Refused> {
    Ok(match wish {
        NewDomain::Alias { name } => DomainSpec::Alias(
            address::Domain::parse(&name).map_err(|error| usage(error.to_string()))?,
        ),
        NewDomain::Remote {
            name,
            relay,
            helo_only,
            route,
            in_doubt,
            tls,
            hold,
            etrn_from,
            atrn_users,
            connections,
            rate,
        } => {
            if !hold && !etrn_from.is_empty() {
                return Err(usage("etrn_from is about mail that is held: hold it as well"));
            }
            DomainSpec::Remote(RemoteDomainSpec {
                name: read_domain(&name)?,
                relay,
                helo_only,
                route: route.iter().map(|hop| read_hop(hop)).collect::<Result<_, _>>()?,
                in_doubt: in_doubt.as_deref().map(read_in_doubt).transpose()?,
                tls: tls.as_deref().map(read_tls).transpose()?,
                release: match (hold, atrn_users.is_empty()) {
                    (false, true) => Release::Off,
                    (true, true) => Release::Etrn,
                    (false, false) => Release::Atrn,
                    (true, false) => Release::Both,
                },
                atrn_users,
                connections,
                rate: rate.as_deref().map(read_rate).transpose()?,
                etrn_from: etrn_from.iter().map(|net| read_net(net)).collect::<Result<_, _>>()?,
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_become_specifications_or_usage_errors() {
        let wish = |json| read_spec(serde_json::from_value(json).unwrap());
        let alias = wish(serde_json::json!({"kind": "alias", "name": "A.example"})).unwrap();
        assert_eq!(alias, DomainSpec::Alias(address::Domain::parse("a.example").unwrap()));
        let remote = serde_json::json!(
            {"kind": "remote", "name": "*.b.example", "relay": true, "route": ["h:26", "[192.0.2.1]"],
             "in_doubt": "hold", "tls": "verify", "hold": true, "etrn_from": ["192.0.2.0/24"],
             "connections": 3, "rate": "30/min"}
        );
        let DomainSpec::Remote(spec) = wish(remote).unwrap() else { panic!("a remote domain") };
        assert_eq!(spec.name.to_string(), "*.b.example");
        assert!(spec.relay && !spec.helo_only);
        assert_eq!(
            (spec.route[0].to_string().as_str(), spec.in_doubt),
            ("h:26", Some(InDoubt::Hold))
        );
        assert_eq!(spec.tls, Some(TlsMode::Verify));
        assert_eq!((spec.connections, spec.rate), (Some(3), Some(Rate::per_minute(30))));
        assert!(
            spec.release == Release::Etrn
                && spec.etrn_from == [Network::parse("192.0.2.0/24").unwrap()]
        );
        for bad in [
            serde_json::json!({"kind": "remote", "name": "b.example", "tls": "yes"}),
            serde_json::json!({"kind": "remote", "name": "b.example", "etrn_from": ["192.0.2.1"]}),
            serde_json::json!({"kind": "remote", "name": "b.example", "rate": "often"}),
            serde_json::json!({"kind": "remote", "name": "b.example", "hold": true, "etrn_from": ["x"]}),
            serde_json::json!({"kind": "alias", "name": "*.a.example"}),
            serde_json::json!({"kind": "remote", "name": "a b"}),
            serde_json::json!({"kind": "remote", "name": "b.example", "route": ["a b"]}),
            serde_json::json!({"kind": "remote", "name": "b.example", "in_doubt": "drop"}),
        ] {
            let Refused(problem) = wish(bad).unwrap_err();
            assert_eq!(problem.exit, 2);
        }
    }
}
