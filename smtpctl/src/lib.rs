//! The Mailroot control tool: what a person types, sent to the daemon's control socket.
