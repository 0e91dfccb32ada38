//! `doctor --redact`: a report without what tells strangers whose it is.
//!
//! Addresses, host names, networks and what looks like a secret are replaced by words that say what
//! stood there: `user1@host2.example`, `host3.example`, `ip1`. The same thing has the same word
//! everywhere in a report, so that it still can be followed. Names of keys and files, loopback
//! addresses and ports stay; of a file that is named after a host, its ending.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use mailroot_common::config::{ServerConfig, ServiceConfig};
use mailroot_common::control::Check;

/// Shorter words are no secrets.
const SECRET_CHARS_MIN: usize = 24;
/// What files are called; such an ending is that of no host.
const FILES: [&str; 20] = [
    "yaml", "yml", "json", "jsonl", "eml", "pem", "sock", "log", "conf", "service", "socket", "d",
    "draft", "trace", "crt", "cer", "key", "keytab", "txt", "gz",
];
/// What parts of names of a directory service begin with (RFC 4514 section 3), and tell whose it is.
const NAMED: [&str; 8] = ["dc", "cn", "ou", "o", "uid", "l", "st", "samaccountname"];
/// Names that are the same everywhere.
const KNOWN: [&str; 3] = ["localhost", "localhost.localdomain", "smtpctl.invalid"];

/// Words of reports; a machine that is called so gives nothing away.
const PLAIN: [&str; 8] =
    ["localhost", "mail", "mailroot", "relay", "smtp", "host", "server", "queue"];

/// What has been replaced so far.
pub(crate) struct Redactor {
    /// What stood there, and what stands there now.
    words: HashMap<String, String>,
    users: usize,
    hosts: usize,
    addresses: usize,
    secrets: usize,
    names: usize,
    /// The keys of the configuration, and what they begin with.
    keys: BTreeSet<String>,
    /// The name of this machine without its domain.
    machine: Option<String>,
}

impl Redactor {
    /// Knows the name of this machine, which may stand alone.
    pub(super) fn new(machine: Option<&str>) -> Self {
        let keys = ServerConfig::keys().into_iter().chain(ServiceConfig::keys());
        let short = machine.and_then(|name| name.split('.').next()).map(str::to_lowercase);
        Self {
            words: HashMap::new(),
            users: 0,
            hosts: 0,
            addresses: 0,
            secrets: 0,
            names: 0,
            keys: keys.flat_map(|documented| beginnings(&documented.key)).collect(),
            machine: short.filter(|name| name.len() > 1 && !PLAIN.contains(&name.as_str())),
        }
    }

    /// Knows the name of the machine that it runs on.
    pub(crate) fn of_machine() -> Self {
        let machine = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Self::new(machine.as_deref())
    }

    /// A file of the configuration in other words: its brackets and braces stand apart from what they hold.
    pub(crate) fn yaml(&mut self, text: &str) -> String {
        let is_apart = |c: char| matches!(c, '[' | ']' | '{' | '}');
        let mut out = String::with_capacity(text.len());
        for piece in text.split_inclusive(is_apart) {
            let (words, sign) = match piece.strip_suffix(is_apart) {
                Some(words) => (words, &piece[words.len()..]),
                None => (piece, ""),
            };
            out.push_str(&self.text(words));
            out.push_str(sign);
        }
        out
    }

    /// A check without what tells whose it is.
    pub(super) fn check(&mut self, mut check: Check) -> Check {
        check.text = self.text(&check.text);
        check.hint = check.hint.map(|hint| self.text(&hint));
        check
    }

    /// A text in other words.
    pub(super) fn text(&mut self, text: &str) -> String {
        let is_gap = |c: char| {
            c.is_whitespace()
                || matches!(c, ',' | ';' | '"' | '\'' | '`' | '<' | '>' | '(' | ')' | '|')
        };
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(is_gap).unwrap_or(rest.len());
            let end = end_of_name(rest).unwrap_or(end);
            out.push_str(&self.word(&rest[..end]));
            rest = &rest[end..];
            let gap = rest.find(|c| !is_gap(c)).unwrap_or(rest.len());
            out.push_str(&rest[..gap]);
            rest = &rest[gap..];
        }
        out
    }

    fn word(&mut self, word: &str) -> String {
        let core = word.trim_end_matches(['.', ':', '!', '?']);
        let tail = &word[core.len()..];
        let masked = self.core(core);
        format!("{masked}{tail}")
    }

    fn core(&mut self, word: &str) -> String {
        if word.len() < 2 {
            return word.to_owned();
        }
        if let Some((key, value)) = word.split_once('=').filter(|(key, _)| is_name(key)) {
            if is_named(key) && !value.is_empty() && !value.starts_with(['%', '*']) {
                return format!("{key}={}", self.name(value));
            }
            return format!("{key}={}", self.core(value));
        }
        if let Some((scheme, rest)) = word.split_once("://") {
            return format!("{scheme}://{}", self.path(rest));
        }
        if let Some(masked) = self.address(word) {
            return masked;
        }
        if let Some((local, domain)) = word.rsplit_once('@') {
            let domain = if domain.is_empty() { String::new() } else { self.core(domain) };
            let local = if local.is_empty() { String::new() } else { self.user(local) };
            return format!("{local}@{domain}");
        }
        if let Some((front, port)) = word.rsplit_once(':')
            && !port.is_empty()
            && port.bytes().all(|octet| octet.is_ascii_digit())
        {
            return format!("{}:{port}", self.core(front));
        }
        // Of a host with its address, as logs write it: host[192.0.2.1].
        if let Some((front, inner)) = word.strip_suffix(']').and_then(|it| it.split_once('[')) {
            let front = if front.is_empty() { String::new() } else { self.core(front) };
            return format!("{front}[{}]", self.core(inner));
        }
        if word.contains('/') {
            return self.path(word);
        }
        if let Some((stem, ending)) = word.rsplit_once('.').filter(|(_, it)| FILES.contains(it)) {
            return format!(
                "{}.{ending}",
                if stem.contains('.') { self.core(stem) } else { stem.to_owned() }
            );
        }
        if self.is_host(word) {
            return self.host(word);
        }
        if is_secret(word) { self.secret(word) } else { word.to_owned() }
    }

    /// Each part for itself: directories and files are named after hosts too.
    fn path(&mut self, path: &str) -> String {
        path.split('/').map(|part| self.core(part)).collect::<Vec<_>>().join("/")
    }

    /// An IP address or a network.
    fn address(&mut self, word: &str) -> Option<String> {
        let (front, bits) = match word.split_once('/') {
            Some((front, bits)) if bits.parse::<u8>().is_ok() => (front, format!("/{bits}")),
            Some(_) => return None,
            None => (word, String::new()),
        };
        let address: IpAddr = front.parse().ok()?;
        if address.is_loopback() || address.is_unspecified() {
            return Some(word.to_owned());
        }
        let count = &mut self.addresses;
        let masked = self.words.entry(address.to_string()).or_insert_with(|| {
            *count += 1;
            format!("ip{count}")
        });
        Some(format!("{masked}{bits}"))
    }

    fn is_host(&self, word: &str) -> bool {
        let small = word.to_lowercase();
        if KNOWN.contains(&small.as_str()) {
            return false;
        }
        if self.machine.as_ref() == Some(&small) {
            return true;
        }
        let labels: Vec<&str> = small.trim_start_matches("*.").split('.').collect();
        let [_, .., last] = labels.as_slice() else { return false };
        let is_label = |label: &&str| {
            let is_good = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
            !label.is_empty() && label.chars().all(is_good)
        };
        let is_top = last.len() > 1 && !last.chars().all(|c| c.is_ascii_digit());
        is_top
            && labels.iter().all(is_label)
            && !FILES.contains(last)
            && !self.keys.iter().any(|key| is_key(key, &small))
    }

    fn host(&mut self, word: &str) -> String {
        let star = if word.starts_with("*.") { "*." } else { "" };
        let count = &mut self.hosts;
        let name = word.trim_start_matches("*.").to_lowercase();
        let masked = self.words.entry(name).or_insert_with(|| {
            *count += 1;
            format!("host{count}.example")
        });
        format!("{star}{masked}")
    }

    fn user(&mut self, word: &str) -> String {
        let count = &mut self.users;
        let masked = self.words.entry(format!("{word}@")).or_insert_with(|| {
            *count += 1;
            format!("user{count}")
        });
        masked.clone()
    }

    fn name(&mut self, word: &str) -> String {
        let count = &mut self.names;
        let masked = self.words.entry(format!("={}", word.to_lowercase())).or_insert_with(|| {
            *count += 1;
            format!("name{count}")
        });
        masked.clone()
    }

    fn secret(&mut self, word: &str) -> String {
        let count = &mut self.secrets;
        let masked = self.words.entry(word.to_owned()).or_insert_with(|| {
            *count += 1;
            format!("secret{count}")
        });
        masked.clone()
    }
}

/// A key and all that it begins with, without the signs of lists.
fn beginnings(key: &str) -> Vec<String> {
    let key = key.replace("[]", "");
    let dots = key.match_indices('.').map(|(at, _)| key[..at].to_owned());
    dots.chain([key.clone()]).collect()
}

/// Whether a word is a key; what may be called anything stands in capitals there.
fn is_key(key: &str, word: &str) -> bool {
    let is_free = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_uppercase());
    let same = |(one, other): (&str, &str)| one == other || is_free(one);
    key.matches('.').count() == word.matches('.').count()
        && key.split('.').zip(word.split('.')).all(same)
}

fn is_named(key: &str) -> bool {
    NAMED.iter().any(|named| key.eq_ignore_ascii_case(named))
}

/// Where a part of a name of a directory service ends that a text begins with: blanks are part of it
/// if it is ended by a sign or a line.
fn end_of_name(text: &str) -> Option<usize> {
    let (key, _) = text.split_once('=')?;
    is_named(key).then_some(())?;
    let ends =
        |c: char| matches!(c, ',' | ';' | '"' | '\'' | '`' | '<' | '>' | '(' | ')' | '#' | '\n');
    let end = text.find(ends)?;
    Some(text[..end].trim_end().len())
}

fn is_name(text: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    !text.is_empty() && text.chars().all(is_good)
}

/// Long, of letters and digits mixed, and no word of a language.
fn is_secret(word: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '_' | '-' | '=' | '.');
    word.len() >= SECRET_CHARS_MIN
        && word.chars().all(is_good)
        && word.chars().any(|c| c.is_ascii_digit())
        && word.chars().any(|c| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_report_it_is_cannot_be_told_and_it_can_be_followed() {
        let mut redactor = Redactor::new(Some("relay1.example.net"));
        for (text, expected) in [
            (
                "mail for al@slow.example waits: slow.example[192.0.2.7]:25 said no",
                "mail for user1@host1.example waits: host1.example[ip1]:25 said no",
            ),
            (
                "<al@slow.example>, <bob@slow.example>.",
                "<user1@host1.example>, <user2@host1.example>.",
            ),
            ("10.1.0.0/16 and 2001:db8::7 and [2001:db8::7]:587", "ip2/16 and ip3 and [ip3]:587"),
            ("relay1 is Relay1.Example.Net", "host2.example is host3.example"),
            (
                "127.0.0.1:25, [::1]:25, 0.0.0.0:25 on localhost",
                "127.0.0.1:25, [::1]:25, 0.0.0.0:25 on localhost",
            ),
            (
                "set delivery.fqdn in servers.d/default.yaml:12",
                "set delivery.fqdn in servers.d/default.yaml:12",
            ),
            (
                "mailroot 0.1.0, half the mail. e.g. 4.7.1",
                "mailroot 0.1.0, half the mail. e.g. 4.7.1",
            ),
            ("pin=0123456789abcdef0123456789abcdef", "pin=secret1"),
            ("see https://idp.example.org/token?x", "see https://host4.example/token?x"),
            (
                "*.corp.example goes to hub.corp.example:2525",
                "*.host5.example goes to host6.example:2525",
            ),
            ("/var/spool/mailroot/default/Queue", "/var/spool/mailroot/default/Queue"),
            ("ldap.corp.example serves, ldap.server is", "host7.example serves, ldap.server is"),
            ("smart_hosts.hub.port in smart_hosts.hub", "smart_hosts.hub.port in smart_hosts.hub"),
            ("bound as cn=relay,dc=corp", "bound as cn=name1,dc=name2"),
        ] {
            assert_eq!(redactor.text(text), expected);
        }
    }

    #[test]
    fn a_file_tells_no_more_than_a_report() {
        let text = "general: {listen: [10.1.0.5:25, \"[2001:db8::1]:25\"]}\n\
            access:\n  relay:\n    list: [10.1.0.0/16, {net: 10.2.0.0/16, comment: us}]\n\
            domains:\n  - {name: corp.example.net, type: default}\n  - name: \"*.corp.example.net\"\n\
            \x20   route: hub.corp.example.net:25 # ask ann@corp.example.net\n\
            ldap:\n  url: ldaps://ldap.corp.example.net/x\n  resolvers: [dns.corp.example.net]\n\
            \x20 base: \"ou=Our People,dc=Acme,dc=example\"\n  filter: (&(uid=%u)(o=acme ltd))\n\
            \x20 group: CN=Senders of Acme,DC=acme\n\
            tls:\n  certificate: /etc/ssl/corp.example.net/fullchain.pem\n\
            \x20 key: /etc/ssl/hub.corp.example.net.key\n";
        let told = Redactor::new(None).yaml(text);
        for secret in ["10.1", "10.2", "2001", "corp", "ann@", "hub.", "acme", "people"] {
            assert!(!told.to_lowercase().contains(secret), "{secret} in {told}");
        }
        for kept in [
            "(uid=%u)",
            "/fullchain.pem\n",
            ".example.key\n",
            "ldaps://host",
            "listen: [",
            "list: [",
            "{net: ",
            "type: default}",
            "\"*.",
            ":25 # ask ",
        ] {
            assert!(told.contains(kept), "{kept} in {told}");
        }
    }

    #[test]
    fn any_text_comes_through() {
        let mut redactor = Redactor::new(None);
        for text in [
            "",
            "@",
            "a@",
            "@b.example",
            "[",
            "]",
            "[]",
            "=",
            "://",
            ":",
            "a:::1",
            "\u{fc}.\u{e4}x",
        ] {
            let _ = redactor.text(text);
        }
        assert_eq!(redactor.text("x=@"), "x=@");
    }
}
