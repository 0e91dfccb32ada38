//! The `smtpctl` program.

fn main() {}
