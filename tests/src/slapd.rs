//! A real directory (OpenLDAP's slapd) on a loopback port, with a throw-away database.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::certificates::Identity;
use crate::setup::Setup;
use crate::{ports, program, skip, wait};

/// Why there is no directory, for the list of skips.
pub const ABSENT: &str = "slapd is not installed";

/// The naming context.
pub const BASE: &str = "dc=local,dc=test";
/// Who may read everything.
pub const READER: &str = "cn=reader,dc=local,dc=test";
/// The reader's password.
pub const PASSWORD: &str = "correct horse";

/// Attributes of Active Directory, Exchange 5.5 and Site Server that OpenLDAP's own schemas do not have.
const SCHEMA: &str = "
attributetype ( 1.1.1.1 NAME 'proxyAddresses' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.1.1.2 NAME 'targetAddress' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.1.1.3 NAME 'altRecipient' SUP distinguishedName )
attributetype ( 1.1.1.4 NAME 'deliverAndRedirect' EQUALITY booleanMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 )
attributetype ( 1.1.1.5 NAME 'otherMailbox' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.1.1.6 NAME 'Target-Address' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.1.1.7 NAME 'Alt-Recipient' SUP distinguishedName )
attributetype ( 1.1.1.8 NAME 'Deliver-And-Redirect' EQUALITY booleanMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 )
attributetype ( 1.1.1.9 NAME 'mailAlternateAddress' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.1.1.10 NAME 'mailForwardingAddress' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.1.1.11 NAME 'mailLocalAddress' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
attributetype ( 1.1.1.12 NAME 'mailRoutingAddress' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE )
attributetype ( 1.1.1.13 NAME 'rfc822MailMember' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
attributetype ( 1.1.1.14 NAME 'mailHost' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
objectclass ( 1.1.2.1 NAME 'group' SUP top STRUCTURAL MUST cn MAY member )
";

/// A running directory; it ends when dropped.
pub struct Slapd {
    child: Option<Child>,
    home: TempDir,
    address: SocketAddr,
    /// Where TLS begins with the first octet.
    secure: Option<SocketAddr>,
    /// What its environment has besides.
    environment: Vec<(String, String)>,
}

/// How it takes tickets of a realm.
#[derive(Clone, Copy, Debug)]
pub struct Tickets<'a> {
    /// Its name, as the realm knows it.
    pub name: &'a str,
    /// What it must have in its environment to know the realm, `NAME=VALUE`.
    pub realm: &'a str,
    /// The file of its key.
    pub key: &'a Path,
}

/// An entry: its name below [`BASE`], and its attributes, `name: value` each.
pub type Entry<'a> = (&'a str, &'a [&'a str]);

/// A person's entry with further attributes.
#[must_use]
pub fn ldif(entries: &[Entry<'_>]) -> String {
    let mut text = format!(
        "dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\ndc: local\no: local\n\n\
         dn: {READER}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n\
         cn: reader\nuserPassword: {PASSWORD}\n\n"
    );
    for (name, attributes) in entries {
        let has_class = attributes.iter().any(|it| it.starts_with("objectClass: "));
        let class = if has_class { "" } else { "objectClass: organizationalRole\n" };
        let _infallible = writeln!(
            text,
            "dn: cn={name},{BASE}\n{class}objectClass: extensibleObject\ncn: {name}\n{}\n",
            attributes.join("\n")
        );
    }
    text
}

/// A directory with these entries; nothing where none is installed, which is noted.
#[must_use]
pub fn directory(entries: &[Entry<'_>]) -> Option<Slapd> {
    let started = Slapd::start(entries, None);
    if started.is_none() {
        skip::note("a directory", ABSENT);
    }
    started
}

/// A server that asks these directories, in clear text, and remembers nothing.
#[must_use]
pub fn asking(schema: &str, servers: &[SocketAddr]) -> Setup {
    let servers: Vec<String> = servers.iter().map(|at| format!("\"ldap://{at}\"")).collect();
    Setup::new()
        .key("ldap.enabled", "true")
        .key("ldap.server", &format!("[{}]", servers.join(", ")))
        .key("ldap.tls", "off")
        .key("ldap.schema", schema)
        .key("ldap.base", &format!("\"{BASE}\""))
        .key("ldap.cache.positive", "0s")
        .key("ldap.cache.negative", "0s")
}

impl Slapd {
    /// Serves these entries, under TLS too if an identity and its authority are given. `None` when it is
    /// not installed.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn start(entries: &[Entry<'_>], tls: Option<(&Identity, &Path)>) -> Option<Self> {
        Self::start_with(entries, tls, None)
    }

    /// The same; whoever shows a ticket of a realm is the entry of that name.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn start_with(
        entries: &[Entry<'_>],
        tls: Option<(&Identity, &Path)>,
        tickets: Option<Tickets<'_>>,
    ) -> Option<Self> {
        let add = program::find("slapadd").or_else(|| program::find("/usr/sbin/slapadd"))?;
        program::find("slapd").or_else(|| program::find("/usr/sbin/slapd"))?;
        let home = tempfile::Builder::new().prefix("mailroot-slapd-").tempdir().unwrap();
        let at = home.path().display();
        fs::create_dir(home.path().join("db")).unwrap();
        fs::write(home.path().join("mail.schema"), SCHEMA).unwrap();
        fs::write(home.path().join("entries.ldif"), ldif(entries)).unwrap();
        let secured = tls.map_or_else(String::new, |(identity, authority)| {
            let (file, authority) = (identity.path().display(), authority.display());
            format!(
                "TLSCACertificateFile {authority}\nTLSCertificateFile {file}\n\
                 TLSCertificateKeyFile {file}\nTLSVerifyClient never\n"
            )
        });
        let ticketed = tickets.map_or_else(String::new, |it| {
            format!(
                "sasl-cbinding tls-endpoint\nsasl-host {}\nauthz-regexp \"uid=([^,]+),cn=gssapi,cn=auth\" \"cn=$1,{BASE}\"\n",
                it.name
            )
        });
        fs::write(
            home.path().join("slapd.conf"),
            format!(
                "include /etc/ldap/schema/core.schema\ninclude {at}/mail.schema\n\
                 pidfile {at}/pid\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n{secured}{ticketed}\
                 database mdb\nsuffix \"{BASE}\"\ndirectory {at}/db\nmaxsize 16777216\n\
                 access to attrs=userPassword by anonymous auth by * none\n\
                 access to * by dn.exact=\"{READER}\" read by anonymous read by * none\n"
            ),
        )
        .unwrap();
        let mut command = Command::new(add);
        command.args(["-f", "slapd.conf", "-l", "entries.ldif"]).current_dir(home.path());
        program::run(&mut command, b"").ok();
        let secure = tls.map(|_| ports::local());
        let environment = tickets.iter().flat_map(|it| {
            let (name, value) = it.realm.split_once('=').unwrap();
            let key = it.key.display().to_string();
            [(name.to_owned(), value.to_owned()), ("KRB5_KTNAME".to_owned(), key)]
        });
        let environment = environment.collect();
        let mut slapd = Self { child: None, home, address: ports::local(), secure, environment };
        slapd.launch();
        Some(slapd)
    }

    /// Starts it again.
    ///
    /// # Panics
    ///
    /// When it does not listen.
    pub fn launch(&mut self) {
        let program = program::find("slapd").or_else(|| program::find("/usr/sbin/slapd")).unwrap();
        let mut urls = format!("ldap://{}/", self.address);
        if let Some(secure) = self.secure {
            let _infallible = write!(urls, " ldaps://{secure}/");
        }
        let log = fs::File::create(self.home.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(["-f", "slapd.conf", "-h", &urls, "-d", "stats"])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait::until("the directory to listen", || TcpStream::connect(self.address).ok());
    }

    /// Ends it, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _gone = child.kill();
            let _status = child.wait();
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where TLS begins with the first octet.
    ///
    /// # Panics
    ///
    /// When it has no certificate.
    #[must_use]
    pub fn secure(&self) -> SocketAddr {
        self.secure.unwrap()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let octets = fs::read(self.home.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&octets).into_owned()
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- slapd\n{}", self.log());
        }
    }
}
