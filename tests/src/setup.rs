//! Configurations as tests write them: dotted keys and YAML values, made into the files of a home.
//!
//! The defaults here make a relay that can be tested on loopback: short retries, loopback destinations
//! allowed, small segments. Every key name that tests rely on stands in this file or in the test itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::ports;

/// The default domain of a test's server; its mail ends in Drop.
pub const LOCAL_DOMAIN: &str = "local.test";

/// The name the daemon greets with.
pub const HOSTNAME: &str = "relay.test";

#[derive(Clone, Debug)]
enum Node {
    Value(String),
    Map(BTreeMap<String, Self>),
}

impl Node {
    fn set(&mut self, path: &str, value: &str) {
        let Self::Map(map) = self else { panic!("{path} lies below a value") };
        match path.split_once('.') {
            None => {
                map.insert(path.to_owned(), Self::Value(value.to_owned()));
            }
            Some((first, rest)) => map
                .entry(first.to_owned())
                .or_insert_with(|| Self::Map(BTreeMap::new()))
                .set(rest, value),
        }
    }

    fn write(&self, indent: usize, out: &mut String) {
        let Self::Map(map) = self else { return };
        for (key, node) in map {
            let _infallible = match node {
                Self::Value(value) => writeln!(out, "{:indent$}{key}: {value}", ""),
                Self::Map(_) => writeln!(out, "{:indent$}{key}:", ""),
            };
            node.write(indent + 2, out);
        }
    }
}

/// One virtual server's file in the making.
#[derive(Clone, Debug)]
pub struct ServerFile {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    keys: Node,
    domains: Vec<String>,
}

impl ServerFile {
    /// A server with the tests' defaults, on a port of its own.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let address = ports::local();
        let mut server = Self {
            name: name.to_owned(),
            address,
            keys: Node::Map(BTreeMap::new()),
            domains: vec![format!("{{name: {LOCAL_DOMAIN}, type: default}}")],
        };
        for (key, value) in [
            ("version", "1"),
            ("general.listen", address.to_string().as_str()),
            ("delivery.allow_loopback", "true"),
            ("delivery.outbound.retry", "[1s]"),
            ("delivery.local.retry", "1s"),
            ("store.segment_size", "64KiB"),
        ] {
            server.keys.set(key, value);
        }
        server
    }

    /// Sets a key, such as `messages.max_size`, to a YAML value.
    #[must_use]
    pub fn key(mut self, path: &str, value: &str) -> Self {
        self.keys.set(path, value);
        self
    }

    /// Adds an entry of `domains:` in flow form.
    #[must_use]
    pub fn domain(mut self, entry: &str) -> Self {
        self.domains.push(entry.to_owned());
        self
    }

    /// Replaces every entry of `domains:`.
    #[must_use]
    pub fn only_domains(mut self, entries: &[&str]) -> Self {
        self.domains = entries.iter().map(|&entry| entry.to_owned()).collect();
        self
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.keys.write(0, &mut text);
        text.push_str("domains:\n");
        for domain in &self.domains {
            let _infallible = writeln!(text, "  - {domain}");
        }
        text
    }
}

/// A whole configuration in the making.
#[derive(Clone, Debug)]
pub struct Setup {
    service: Node,
    /// The servers; the first is the one most tests talk to.
    pub servers: Vec<ServerFile>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// One server called `default` that delivers [`LOCAL_DOMAIN`] to Drop.
    #[must_use]
    pub fn new() -> Self {
        let mut service = Node::Map(BTreeMap::new());
        for (key, value) in
            [("version", "1"), ("service.hostname", HOSTNAME), ("service.min_free", "1MiB")]
        {
            service.set(key, value);
        }
        Self { service, servers: vec![ServerFile::new("default")] }
    }

    /// Sets a key of the service file.
    #[must_use]
    pub fn service(mut self, path: &str, value: &str) -> Self {
        self.service.set(path, value);
        self
    }

    /// Sets a key of the first server's file.
    #[must_use]
    pub fn key(mut self, path: &str, value: &str) -> Self {
        self.servers[0].keys.set(path, value);
        self
    }

    /// Adds a domain to the first server.
    #[must_use]
    pub fn domain(mut self, entry: &str) -> Self {
        self.servers[0].domains.push(entry.to_owned());
        self
    }

    /// Replaces the domains of the first server.
    #[must_use]
    pub fn only_domains(mut self, entries: &[&str]) -> Self {
        self.servers[0].domains = entries.iter().map(|&entry| entry.to_owned()).collect();
        self
    }

    /// Adds a server.
    #[must_use]
    pub fn with(mut self, server: ServerFile) -> Self {
        self.servers.push(server);
        self
    }

    /// Sends everything that is not local to one host.
    #[must_use]
    pub fn smart_host(self, address: SocketAddr) -> Self {
        let value = format!("\"[{}]:{}\"", address.ip(), address.port());
        self.key("delivery.smart_host", &value)
    }

    /// Has the first server listen at a further address, where TLS begins at once.
    #[must_use]
    pub fn implicit_tls(self, address: SocketAddr) -> Self {
        let plain = self.servers[0].address;
        let doors = format!("[\"{plain}\", {{address: \"{address}\", tls: implicit}}]");
        self.key("general.listen", &doors)
    }

    /// Asks this DNS server, and delivers to this port of the hosts it names.
    #[must_use]
    pub fn dns(self, resolver: SocketAddr, port: u16) -> Self {
        self.service("dns.resolvers", &format!("[\"{resolver}\"]"))
            .key("delivery.connections.port", &port.to_string())
    }

    /// Writes the files under `home`.
    ///
    /// # Panics
    ///
    /// When a file cannot be written.
    pub fn write(&self, home: &Path) {
        let folder = home.join("etc/servers.d");
        fs::create_dir_all(&folder).unwrap();
        let mut text = String::new();
        self.service.write(0, &mut text);
        fs::write(home.join("etc/mailroot.yaml"), text).unwrap();
        for server in &self.servers {
            fs::write(folder.join(format!("{}.yaml", server.name)), server.text()).unwrap();
        }
    }
}
