//! `servers.d/NAME.yaml`: one virtual server.

use std::sync::Arc;

use super::access::Access;
use super::check;
use super::choice::choice;
use super::delivery::Delivery;
use super::diagnostic::Source;
use super::dkim::{self, DkimEntry, DkimKeys};
use super::domains::{DomainEntry, DomainKeys};
use super::general::General;
use super::ldap::Ldap;
use super::limits::Limits;
use super::messages::Messages;
use super::name::ServerName;
use super::node::{Kind, Node};
use super::root::{Parsed, check_version, item, outcome, require_version, version_key};
use super::section::{EffectiveKey, KeyDoc, Origins, Profile, Reader, Section, Setting};
use super::security::Security;
use super::senders::Senders;
use super::store::Store;
use super::yaml;

/// The configuration of one virtual server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// What the administrator says it is for.
    pub description: Option<String>,
    /// Whether it is started with the service.
    pub enabled: bool,
    /// Whose defaults it has.
    pub profile: Profile,
    /// Listeners and sessions.
    pub general: General,
    /// Who may connect and relay.
    pub access: Access,
    /// Bounds on what clients send.
    pub limits: Limits,
    /// Whether strangers' mail is from whom it says.
    pub senders: Senders,
    /// Sizes, counts and reports.
    pub messages: Messages,
    /// How mail goes out.
    pub delivery: Delivery,
    /// The directory of our domains.
    pub ldap: Ldap,
    /// Where mail is kept.
    pub store: Store,
    /// Who may give orders about it.
    pub security: Security,
    /// Our domains and those handled in a way of their own; exactly one is the default.
    pub domains: Vec<DomainEntry>,
    /// The keys that mail on its way out is signed with.
    pub dkim: Vec<DkimEntry>,
    /// Where the keys stand.
    pub origins: Origins,
}

choice! {
    /// The words for the two profiles.
    pub enum ProfileWord {
        /// Ours.
        Modern = "modern",
        /// The original's.
        Iis6 = "iis6",
    }
}

impl From<ProfileWord> for Profile {
    fn from(word: ProfileWord) -> Self {
        match word {
            ProfileWord::Modern => Self::Modern,
            ProfileWord::Iis6 => Self::Iis6,
        }
    }
}

impl ServerConfig {
    const KEYS: &'static [&'static str] = &[
        "version",
        "description",
        "enabled",
        "profile",
        "general",
        "access",
        "senders",
        "limits",
        "messages",
        "delivery",
        "ldap",
        "store",
        "security",
        "domains",
        "dkim",
    ];

    /// The defaults of a profile; without any domain.
    #[must_use]
    pub fn defaults(profile: Profile) -> Self {
        Self {
            description: None,
            enabled: true,
            profile,
            general: General::defaults(profile),
            access: Access::defaults(profile),
            senders: Senders::defaults(profile),
            limits: Limits::defaults(profile),
            messages: Messages::defaults(profile),
            delivery: Delivery::defaults(profile),
            ldap: Ldap::defaults(profile),
            store: Store::defaults(profile),
            security: Security::defaults(profile),
            domains: Vec::new(),
            dkim: Vec::new(),
            origins: Origins::default(),
        }
    }

    /// Every key of the file with its documentation, in the order of the manual.
    #[must_use]
    pub fn keys() -> Vec<KeyDoc> {
        let plain = |key: &str, type_name: String, default: &str, doc: &str| KeyDoc {
            key: key.to_owned(),
            type_name,
            modern: default.to_owned(),
            iis6: default.to_owned(),
            bounds: None,
            doc: doc.to_owned(),
            section: String::new(),
        };
        let mut out = vec![
            version_key(),
            plain("description", String::type_name(), "none", "What the server is for."),
            plain("enabled", bool::type_name(), "true", "Whether it is started with the service."),
            plain(
                "profile",
                ProfileWord::type_name(),
                "modern",
                "Whose defaults the server has: ours, or those of the SMTP service of IIS 6.",
            ),
        ];
        General::describe("general", &mut out);
        Access::describe("access", &mut out);
        Senders::describe("senders", &mut out);
        Limits::describe("limits", &mut out);
        Messages::describe("messages", &mut out);
        Delivery::describe("delivery", &mut out);
        Ldap::describe("ldap", &mut out);
        Store::describe("store", &mut out);
        Security::describe("security", &mut out);
        DomainKeys::describe("domains[]", &mut out);
        DkimKeys::describe("dkim[]", &mut out);
        out
    }

    /// Every key with its value in force.
    #[must_use]
    pub fn effective(&self) -> Vec<EffectiveKey> {
        let word = match self.profile {
            Profile::Modern => ProfileWord::Modern,
            Profile::Iis6 => ProfileWord::Iis6,
        };
        let row = |key: &str, value: String, default: &str| EffectiveKey {
            key: key.to_owned(),
            items: vec![value.clone()],
            value,
            default: default.to_owned(),
            iis_default: default.to_owned(),
            origin: self.origins.place(key),
        };
        let mut out = vec![
            row("description", self.description.show(), "none"),
            row("enabled", self.enabled.show(), "true"),
            row("profile", word.show(), "modern"),
        ];
        let (profile, origins) = (self.profile, &self.origins);
        self.general.list("general", profile, origins, &mut out);
        self.access.list("access", profile, origins, &mut out);
        self.senders.list("senders", profile, origins, &mut out);
        self.limits.list("limits", profile, origins, &mut out);
        self.messages.list("messages", profile, origins, &mut out);
        self.delivery.list("delivery", profile, origins, &mut out);
        self.ldap.list("ldap", profile, origins, &mut out);
        self.store.list("store", profile, origins, &mut out);
        self.security.list("security", profile, origins, &mut out);
        for (number, entry) in self.domains.iter().enumerate() {
            entry.keys().list(&item("domains", number), profile, origins, &mut out);
        }
        for (number, entry) in self.dkim.iter().enumerate() {
            entry.keys().list(&item("dkim", number), profile, origins, &mut out);
        }
        out
    }
}

/// Reads the file of the virtual server `server`. `name` is how errors call the file.
///
/// # Errors
///
/// Every error of the text; warnings are among them.
pub fn parse_server(server: &ServerName, text: &str, name: &str) -> Parsed<ServerConfig> {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    let (node, duplicates) = yaml::parse(&source)?;
    let mut reader = Reader::new(source, duplicates);
    let entries = reader.entries(&node, "", ServerConfig::KEYS);
    let profile = entries.iter().find(|(key, _)| *key == "profile").map(|(_, node)| *node);
    if let Some(node) = profile {
        let mut word = ProfileWord::Modern;
        reader.set(&mut word, "profile", node, None);
        reader.profile = word.into();
    }
    let mut config = ServerConfig::defaults(reader.profile);
    for (key, value) in entries {
        read_entry(&mut config, key, value, &mut reader);
    }
    require_version(&node, &mut reader);
    check::check(&config, server, &node, &mut reader);
    let (diagnostics, origins) = reader.finish();
    config.origins = origins;
    outcome(config, diagnostics)
}

fn read_entry(config: &mut ServerConfig, key: &str, value: &Node, reader: &mut Reader) {
    match key {
        "description" => reader.set(&mut config.description, key, value, None),
        "enabled" => reader.set(&mut config.enabled, key, value, None),
        "profile" => {}
        "version" => check_version(value, reader),
        section => {
            reader.remember(section, value);
            match section {
                "general" => config.general.read(value, key, reader),
                "access" => config.access.read(value, key, reader),
                "senders" => config.senders.read(value, key, reader),
                "limits" => config.limits.read(value, key, reader),
                "messages" => config.messages.read(value, key, reader),
                "delivery" => config.delivery.read(value, key, reader),
                "ldap" => config.ldap.read(value, key, reader),
                "store" => config.store.read(value, key, reader),
                "security" => config.security.read(value, key, reader),
                "domains" => config.domains = read_domains(value, reader),
                _ => config.dkim = dkim::read(value, reader),
            }
        }
    }
}

fn read_domains(node: &Node, reader: &mut Reader) -> Vec<DomainEntry> {
    let items: &[Node] = match &node.kind {
        Kind::List(items) => items,
        Kind::Map(_) => std::slice::from_ref(node),
        Kind::Scalar { .. } => {
            let diagnostic =
                reader.error_at("E0106", "a list of domains belongs here", node, "not a list");
            reader.report(diagnostic.help("write  - {name: example.net, type: default}"));
            return Vec::new();
        }
    };
    let mut out = Vec::new();
    for (number, entry) in items.iter().enumerate() {
        let path = item("domains", number);
        out.extend(DomainEntry::read(entry, &path, reader));
    }
    out
}
