//! Which file of aliases counts.

use mailroot_common::config::PathOrOff;

use super::Service;
use crate::aliases::AliasFile;
use crate::config::Loaded;

impl Service {
    /// The file of aliases; what was read of it stays known while it is the same.
    pub(super) fn aliases_by(&self, loaded: &Loaded) -> AliasFile {
        let path = match &loaded.service.service.aliases {
            None => Some(self.0.paths.aliases.as_path()),
            Some(PathOrOff::Path(path)) => Some(path.as_path()),
            Some(PathOrOff::Off) => None,
        };
        self.0.aliases.set(path);
        self.0.aliases.clone()
    }
}
