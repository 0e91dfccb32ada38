//! Where the programs lie that are run.

use std::path::{Path, PathBuf};

/// The folder of the benchmark.
fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program of the repository, built as for packages.
pub(crate) fn mailroot(name: &str) -> PathBuf {
    let folder = std::env::var_os("MAILROOT_PROGRAMS")
        .map_or_else(|| here().join("../../target/dist"), PathBuf::from);
    folder.join(name)
}

/// The bound, which was built together with this program.
pub(crate) fn bound() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(|folder| folder.join("bound")))
        .unwrap_or_else(|| here().join("target/release/bound"))
}
