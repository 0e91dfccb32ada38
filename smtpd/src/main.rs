//! The `smtpd` program.

fn main() {}
