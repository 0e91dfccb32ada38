//! What the daemon tells the world about itself: log lines and counters.

mod counters;
mod dialogues;
mod followed;
mod line;
mod log;
mod mask;
mod measures;
mod postfix;
mod session_ids;
mod style;
mod tape;
mod w3c;

pub use counters::Counters;
pub use dialogues::{Dialogues, Ear, Follow, Listening, Party};
pub use line::{Format, Level, Line};
pub use log::{Log, LogError};
pub use mask::{KEY_OCTETS, Mask};
pub use measures::{Gauge, Histogram, Seen};
pub use session_ids::SessionIds;
pub use style::{Raised, Sink, Style};
pub use w3c::{W3c, W3cSettings};
