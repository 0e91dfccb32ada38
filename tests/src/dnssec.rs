//! A signed zone: Knot DNS signs and serves it, and unbound validates it by its key.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::dns::Dns;
use crate::{ports, program, wait};

/// Why there is no signed zone, for the list of skips.
pub const ABSENT: &str = "knot or unbound is not installed";

/// The zone that is signed.
pub const ZONE: &str = "signed.test";
/// The zone that is not.
pub const PLAIN: &str = "plain.test";

/// Both zones, and a resolver that validates; they end when dropped.
pub struct Dnssec {
    child: Child,
    home: TempDir,
    resolver: Option<Dns>,
}

impl Dnssec {
    /// Serves these records, each in zone-file form with its whole name, in the zone that it belongs to.
    /// `None` when Knot or unbound is not installed.
    ///
    /// # Panics
    ///
    /// When they are installed and do not start.
    #[must_use]
    pub fn serve(records: &[String]) -> Option<Self> {
        let program = program::find("knotd")?;
        let home = tempfile::Builder::new().prefix("mailroot-knot-").tempdir().unwrap();
        let address = ports::local();
        let file = home.path().join("knot.conf");
        let at = home.path().display();
        let signed = "    dnssec-signing: on\n    dnssec-policy: one\n";
        let mut text = format!(
            "server:\n    listen: {}@{}\n    rundir: \"{at}\"\nlog:\n  - target: stderr\n    any: info\n\
             database:\n    storage: \"{at}\"\npolicy:\n  - id: one\n    algorithm: ecdsap256sha256\n    \
             single-type-signing: on\nzone:\n",
            address.ip(),
            address.port()
        );
        for (zone, keys) in [(ZONE, signed), (PLAIN, "")] {
            let _infallible = write!(
                text,
                "  - domain: {zone}\n    file: \"{at}/{zone}\"\n    zonefile-sync: -1\n    \
                 journal-content: none\n{keys}"
            );
            fs::write(home.path().join(zone), zone_file(zone, records)).unwrap();
        }
        fs::write(&file, text).unwrap();
        let log = fs::File::create(home.path().join("log")).unwrap();
        let child = Command::new(program)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut dnssec = Self { child, home, resolver: None };
        wait::until("Knot to listen", || TcpStream::connect(address).ok());
        let keymgr = program::find("keymgr")?;
        let anchor = wait::until("the key of the zone", || {
            let mut command = Command::new(&keymgr);
            command.arg("-c").arg(&file).args([ZONE, "ds"]);
            let told = program::run(&mut command, b"").out;
            // The second of several is by SHA-256.
            told.lines().find(|line| line.contains(" 13 2 ")).map(str::to_owned)
        });
        dnssec.resolver = Some(Dns::validating(address, &anchor)?);
        Some(dnssec)
    }

    /// The resolver that validates.
    ///
    /// # Panics
    ///
    /// Never: there is one.
    #[must_use]
    pub fn resolver(&self) -> &Dns {
        self.resolver.as_ref().unwrap()
    }
}

fn zone_file(zone: &str, records: &[String]) -> String {
    let mut text = format!(
        "{zone}. 60 IN SOA ns.{zone}. admin.{zone}. 1 3600 600 86400 60\n{zone}. 60 IN NS ns.{zone}.\n\
         ns.{zone}. 60 IN A 127.0.0.1\n"
    );
    for record in records {
        let owner = record.split(' ').next().unwrap_or_default();
        if owner.ends_with(&format!("{zone}.")) {
            let _infallible = writeln!(text, "{record}");
        }
    }
    text
}

impl Drop for Dnssec {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            eprintln!("--- Knot\n{log}");
        }
    }
}
