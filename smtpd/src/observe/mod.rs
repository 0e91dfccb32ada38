//! What the daemon tells the world about itself: log lines and counters.

mod counters;
mod line;
mod log;

pub use counters::Counters;
pub use line::{Format, Level, Line};
pub use log::{Log, LogError, Sink};
