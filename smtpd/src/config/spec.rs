//! What an operator wants to have in a file, and its text.

use mailroot_common::address::Domain;
use mailroot_common::config::delivery::{InDoubt, TlsMode};
use mailroot_common::config::domains::Release;
use mailroot_common::config::{DomainName, Hop, Profile};
use mailroot_common::net::Network;
use mailroot_common::rate::Rate;
use serde_yaml::Value;

use super::template::{Line, Template, written};

/// A remote domain to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteDomainSpec {
    /// The domain.
    pub name: DomainName,
    /// Take mail for it from anyone.
    pub relay: bool,
    /// Greet its hosts with HELO.
    pub helo_only: bool,
    /// The hosts that take its mail; none means those of DNS.
    pub route: Vec<Hop>,
    /// What is done with its recipients in doubt, if not the same as for other domains.
    pub in_doubt: Option<InDoubt>,
    /// Whether its mail goes under TLS, if not as to other domains.
    pub tls: Option<TlsMode>,
    /// What has its mail sent, if it waits to be asked for.
    pub release: Release,
    /// From where it may be asked for by ETRN.
    pub etrn_from: Vec<Network>,
    /// Who may fetch it by ATRN.
    pub atrn_users: Vec<String>,
    /// Connections at the same time.
    pub connections: Option<u32>,
    /// Messages in a time.
    pub rate: Option<Rate>,
}

/// A virtual server to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// Where it listens, as it is written in a file; none means the default.
    pub listen: Vec<String>,
    /// Its default domain.
    pub domain: Domain,
    /// Its mail root, if not the usual one.
    pub root: Option<String>,
    /// The hosts that take all its mail for other domains.
    pub smart_host: Vec<Hop>,
    /// Whose defaults it has.
    pub profile: Profile,
    /// Whether it starts with the service.
    pub enabled: bool,
    /// What it is made for.
    pub template: Option<Template>,
}

/// A text in double quotes where YAML could take it for something else.
pub(super) fn quoted(text: &str) -> String {
    let octets = text.as_bytes();
    let is_plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"._-/:@+".contains(octet);
    let is_end = |octet: Option<&u8>| octet.is_some_and(u8::is_ascii_alphanumeric);
    // Neither a number of any kind nor a time of day.
    let is_word = octets.iter().any(|octet| octet.is_ascii_alphabetic() || *octet == b'/')
        || text.matches('.').count() > 1;
    let safe = octets.iter().all(is_plain)
        && is_end(octets.first())
        && is_end(octets.last())
        && is_word
        && !["y", "n", "yes", "no", "on", "off"].contains(&&*text.to_ascii_lowercase())
        && matches!(serde_yaml::from_str(text), Ok(Value::String(_)));
    if safe { text.to_owned() } else { format!("{text:?}") }
}

/// One value or a list in flow style.
pub(super) fn flow_list(items: &[String]) -> String {
    match items {
        [one] => quoted(one),
        _ => format!("[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", ")),
    }
}

/// The entry of an alias, in flow style.
pub(super) fn alias_entry(domain: &Domain) -> String {
    format!("{{name: {}, type: alias}}", quoted(domain.as_str()))
}

/// The entry of a remote domain, in flow style.
pub(super) fn remote_entry(spec: &RemoteDomainSpec) -> String {
    let mut out = format!("{{name: {}, type: remote", quoted(&spec.name.to_string()));
    for (key, on) in [("relay", spec.relay), ("helo_only", spec.helo_only)] {
        if on {
            out.push_str(&format!(", {key}: true"));
        }
    }
    if !spec.route.is_empty() {
        let hosts: Vec<String> = spec.route.iter().map(Hop::to_string).collect();
        out.push_str(&format!(", route: {}", flow_list(&hosts)));
    }
    if let Some(in_doubt) = spec.in_doubt {
        out.push_str(&format!(", in_doubt: {}", in_doubt.word()));
    }
    if let Some(tls) = spec.tls {
        out.push_str(&format!(", tls: {}", quoted(tls.word())));
    }
    if spec.release != Release::Off {
        out.push_str(&format!(", hold: {{release: {}", spec.release.word()));
        if !spec.atrn_users.is_empty() {
            out.push_str(&format!(", atrn_users: {}", flow_list(&spec.atrn_users)));
        }
        if !spec.etrn_from.is_empty() {
            let from: Vec<String> = spec.etrn_from.iter().map(Network::to_string).collect();
            out.push_str(&format!(", etrn_from: {}", flow_list(&from)));
        }
        out.push('}');
    }
    let limits: Vec<String> = [
        spec.connections.map(|most| format!("connections: {most}")),
        spec.rate.map(|rate| format!("rate: {rate}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !limits.is_empty() {
        out.push_str(&format!(", limits: {{{}}}", limits.join(", ")));
    }
    out.push('}');
    out
}

/// The file of a new server.
pub(super) fn server_text(name: &str, spec: &ServerSpec) -> String {
    let mut out = format!(
        "# The virtual server \"{name}\". Every key and its default: man 5 mailroot-server.yaml\n"
    );
    if let Some(template) = &spec.template {
        out.push_str(&format!(
            "# Made from the template \"{}\". {}\n",
            template.name,
            template.about()
        ));
    }
    out.push_str("version: 1\n");
    if !spec.enabled {
        out.push_str("enabled: false\n");
    }
    if spec.profile == Profile::Iis6 {
        out.push_str("profile: iis6\n");
    }
    let mut lines = Vec::new();
    let mut said = |key: &str, value| lines.push(Line { key: key.to_owned(), value, reason: None });
    if !spec.listen.is_empty() {
        said("general.listen", flow_list(&spec.listen));
    }
    if !spec.smart_host.is_empty() {
        let hosts: Vec<String> = spec.smart_host.iter().map(Hop::to_string).collect();
        said("delivery.smart_host", flow_list(&hosts));
    }
    if let Some(root) = &spec.root {
        said("store.root", quoted(root));
    }
    lines.extend(spec.template.iter().flat_map(Template::lines));
    out.push_str(&written(&lines));
    let domain = quoted(spec.domain.as_str());
    out.push_str(&format!("\ndomains:\n  - {{name: {domain}, type: default}}\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_where_yaml_would_take_it_for_something_else() {
        for (text, written) in [
            ("example.net", "example.net"),
            ("no", "\"no\""),
            ("1.2", "\"1.2\""),
            ("1e5", "\"1e5\""),
            ("*.a.example", "\"*.a.example\""),
            ("hub.example:26", "hub.example:26"),
            ("10.0.0.1:25", "10.0.0.1:25"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10:30", "\"10:30\""),
            ("1.5:30", "\"1.5:30\""),
            ("[::1]:25", "\"[::1]:25\""),
            ("a:", "\"a:\""),
            ("a b", "\"a b\""),
            ("a\"b", "\"a\\\"b\""),
        ] {
            assert_eq!(quoted(text), written);
            let read: Value = serde_yaml::from_str(&format!("[{written}]")).unwrap();
            assert_eq!(read[0], Value::from(text));
        }
    }
}
