//! The life of a message in the queue: its envelope, its recipients, what attempts came to.

pub mod congestion;
pub mod dispose;
pub mod envelope;
pub mod outcome;
pub mod pace;
pub mod recipient;
pub mod retry;
pub mod turns;
pub mod wishes;
