//! What the daemon tells the world about itself: log lines and counters.

mod counters;
mod dialogues;
mod line;
mod log;
mod session_ids;
mod style;
mod tape;

pub use counters::Counters;
pub use dialogues::{Dialogues, Ear, Listening, Party};
pub use line::{Format, Level, Line};
pub use log::{Log, LogError};
pub use session_ids::SessionIds;
pub use style::{Raised, Sink, Style};
