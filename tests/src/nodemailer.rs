//! A real client: nodemailer, as programs of Node.js send mail.

use std::net::SocketAddr;
use std::process::Command;

use crate::program::{self, Finished, repository};

/// Why it may not be there.
pub const ABSENT: &str = "nodemailer is not installed below tests/node";

/// Sends a message from `a@client.test` as it stands; `more` says how it comes under TLS and who logs in, see
/// `tests/node/send.js`. Without the program there is nothing.
#[must_use]
pub fn send(
    server: SocketAddr,
    to: &str,
    more: &[&str],
    password: &str,
    octets: &[u8],
) -> Option<Finished> {
    let folder = repository().join("tests/node");
    let node = program::find("node").filter(|_| folder.join("node_modules").is_dir())?;
    let mut command = Command::new(node);
    command.arg(folder.join("send.js")).arg(server.ip().to_string());
    command.arg(server.port().to_string()).args(["a@client.test", to]).args(more);
    Some(program::run(command.env("MAIL_PASSWORD", password), octets))
}
