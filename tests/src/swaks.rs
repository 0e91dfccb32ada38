//! A real client (swaks) that sends one message to another domain.

use std::process::Command;

use crate::program::{self, Finished};
use crate::site::Site;

/// Sends from `a@client.test` to `b@far.test`; what is said more comes last, and counts.
#[must_use]
pub fn send(site: &Site, more: &[&str]) -> Finished {
    let server = site.address().to_string();
    let mut command = Command::new("swaks");
    command.args(["--server", &server, "--from", "a@client.test", "--to", "b@far.test"]);
    program::run(command.args(more), b"")
}
