//! `/v1/servers/{server}/dkim`: keys that mail is signed with.

use axum::body::Bytes;
use mailroot_common::address::Domain;
use mailroot_common::config::Selector;
use mailroot_common::control::{DkimKey, DkimRecord, Edited, NewDkimKey};

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::extract::Path;
use super::server::read_name;
use super::terms::Wanted;
use crate::dkim::KeyKind;
use crate::service::DkimSpec;

/// All of them.
pub(super) async fn list(app: App, Path(server): Path<String>) -> Answer<Vec<DkimKey>> {
    object(app.service.dkim_keys(&read_name(&server)?).await?)
}

/// A new one.
pub(super) async fn create(
    app: App,
    Path(server): Path<String>,
    Wanted(asked): Wanted,
    body: Bytes,
) -> Answer<Edited> {
    let server = read_name(&server)?;
    let spec = read_spec(&read(&body)?)?;
    object(app.service.create_dkim_key(&server, spec, &asked).await?)
}

/// The end of one.
pub(super) async fn remove(
    app: App,
    Path((server, domain, selector)): Path<(String, String, String)>,
    Wanted(asked): Wanted,
) -> Answer<Edited> {
    let (domain, selector) = (read_domain(&domain)?, read_selector(&selector)?);
    let server = read_name(&server)?;
    object(app.service.remove_dkim_key(&server, &domain, &selector, &asked).await?)
}

/// What DNS must say, and what it says.
pub(super) async fn records(
    app: App,
    Path((server, domain)): Path<(String, String)>,
) -> Answer<Vec<DkimRecord>> {
    let (server, domain) = (read_name(&server)?, read_domain(&domain)?);
    object(app.service.dkim_records(&server, &domain).await?)
}

fn read_domain(text: &str) -> Result<Domain, Refused> {
    Domain::parse(text).map_err(|error| usage(error.to_string()))
}

fn read_selector(text: &str) -> Result<Selector, Refused> {
    Selector::parse(text)
        .ok_or_else(|| usage(format!("{text:?} is no selector: use letters, digits and hyphens")))
}

/// The size of RSA keys that every verifier can take (RFC 8301 section 3.2).
const RSA_BITS: u32 = 2048;

fn read_spec(wish: &NewDkimKey) -> Result<DkimSpec, Refused> {
    let algorithm = wish.algorithm.as_deref().unwrap_or("rsa");
    let kind = match (algorithm, wish.bits) {
        ("ed25519", None) => KeyKind::Ed25519,
        ("ed25519", Some(_)) => return Err(usage("an Ed25519 key has one size: leave bits out")),
        ("rsa", bits) => KeyKind::rsa(bits.unwrap_or(RSA_BITS))
            .ok_or_else(|| usage("an RSA key has 2048, 3072 or 4096 bits"))?,
        (other, _) => return Err(usage(format!("{other:?} is neither rsa nor ed25519"))),
    };
    Ok(DkimSpec {
        domain: read_domain(&wish.domain)?,
        selector: wish.selector.as_deref().map(read_selector).transpose()?,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_become_specifications_or_usage_errors() {
        let wish = |json| read_spec(&serde_json::from_value(json).unwrap());
        let plain = wish(serde_json::json!({"domain": "A.example"})).unwrap();
        assert_eq!(Some(plain.kind), KeyKind::rsa(2048));
        assert_eq!((plain.domain.as_str(), plain.selector), ("a.example", None));
        let small = wish(serde_json::json!({"domain": "a.example", "algorithm": "ed25519"}));
        assert_eq!(small.unwrap().kind, KeyKind::Ed25519);
        for bad in [
            serde_json::json!({"domain": "a b"}),
            serde_json::json!({"domain": "a.example", "selector": "a_b"}),
            serde_json::json!({"domain": "a.example", "bits": 1024}),
            serde_json::json!({"domain": "a.example", "algorithm": "dsa"}),
            serde_json::json!({"domain": "a.example", "algorithm": "ed25519", "bits": 256}),
        ] {
            let Refused(problem) = wish(bad).unwrap_err();
            assert_eq!(problem.exit, 2);
        }
    }
}
