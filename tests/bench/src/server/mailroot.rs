//! Mailroot as it is shipped, but for its ports, the smart host, and the log in a file.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tokio::process::Command;

use super::Setup;
use crate::{Outcome, programs};

pub(super) fn configure(home: &Path, port: u16, setup: &Setup) -> Outcome<()> {
    fs::create_dir_all(home.join("etc/servers.d"))?;
    let log = home.join("log");
    let resolver = setup
        .resolver
        .map_or_else(String::new, |port| format!("dns:\n  resolvers: [\"127.0.0.1:{port}\"]\n"));
    let service = format!(
        "version: 1\nservice:\n  hostname: relay.test\n\
         logging:\n  target: file\n  file: {}\n{resolver}",
        log.display()
    );
    fs::write(home.join("etc/mailroot.yaml"), service)?;
    let mut keys = setup.keys.clone();
    keys.push((
        "general",
        match setup.implicit {
            None => format!("listen: 127.0.0.1:{port}"),
            Some(other) => {
                let door = format!("{{address: \"127.0.0.1:{other}\", tls: implicit}}");
                format!("listen: [\"127.0.0.1:{port}\", {door}]")
            }
        },
    ));
    if !keys.iter().any(|(section, _)| *section == "delivery") {
        keys.push(("delivery", format!("smart_host: \"[127.0.0.1]:{}\"", setup.next_hop)));
    }
    keys.push(("domains", "- {name: local.test, type: default}".into()));
    let mut server = String::from("version: 1\n");
    for section in ["general", "access", "limits", "messages", "delivery", "store", "domains"] {
        let lines: Vec<&str> =
            keys.iter().filter(|key| key.0 == section).map(|key| key.1.as_str()).collect();
        if !lines.is_empty() {
            writeln!(server, "{section}:\n  {}", lines.join("\n  "))?;
        }
    }
    fs::write(home.join("etc/servers.d/default.yaml"), server)?;
    Ok(())
}

pub(super) fn command(home: &Path) -> Command {
    let mut command = Command::new(programs::mailroot("smtpd"));
    command.arg("--home").arg(home).env_remove("MAILROOT_HOME");
    command.env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
    command
}
