//! The `smtpctl` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    smtpctl::run(std::env::args_os())
}
