//! Paths that may be left out by a word.

use std::path::PathBuf;

use super::node::Node;
use super::section::{Reader, Setting};

/// A file or a directory, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathOrOff {
    /// None.
    Off,
    /// It.
    Path(PathBuf),
}

impl PathOrOff {
    /// The path, if there is one.
    #[must_use]
    pub const fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Off => None,
            Self::Path(path) => Some(path),
        }
    }
}

impl Setting for PathOrOff {
    type Quantity = u8;

    fn type_name() -> String {
        "off or path".to_owned()
    }

    fn show(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Path(path) => path.show(),
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if node.text() == Some("off") {
            return Some(Self::Off);
        }
        PathBuf::read(node, reader).map(Self::Path)
    }
}
