//! The bound: its log in the server's directory, twenty connections to the sink.

use std::path::Path;

use tokio::process::Command;

use super::Setup;
use crate::programs;

/// As many as Mailroot opens to one host unless it is told otherwise.
const CONNECTIONS: u16 = 20;

pub(super) fn command(home: &Path, port: u16, setup: &Setup) -> Command {
    let mut command = Command::new(programs::bound());
    command.arg(port.to_string()).arg(home.join("log"));
    if setup.forwards {
        command.arg(setup.next_hop.to_string()).arg(CONNECTIONS.to_string());
    }
    command
}
