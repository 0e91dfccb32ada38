//! Secrets: read where the configuration says they are kept, each time one is needed, so that a
//! new password works without a reload and none lies in memory for long.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mailroot_common::config::Secret;
use zeroize::Zeroizing;

/// The most octets of a secret.
const OCTETS_MAX: u64 = 64 * 1024;
/// Rights of others that a file of secrets must not grant.
const FOREIGN: u32 = 0o077;

/// Why a secret cannot be had. Never says what stands in it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file.
    #[error("cannot read the secret {}: {source}", path.display())]
    File {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read or change the file.
    #[error("the secret {} is open to others: chmod 600 {}", .0.display(), .0.display())]
    Open(PathBuf),
    /// The service was started without credentials.
    #[error(
        "the credential {0} is not there: the service was started without it (LoadCredential=)"
    )]
    NoCredentials(String),
    /// The variable is not set.
    #[error("the variable {0} of the environment is not set")]
    NoVariable(String),
    /// Nothing stands there, or not text.
    #[error("the secret {0} is empty, or not one line of text")]
    Form(String),
    /// A text of several lines has nothing in it.
    #[error("the secret {0} is empty")]
    Empty(String),
}

/// Where secrets are found. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Secrets {
    directory: PathBuf,
}

impl Secrets {
    /// Those in a directory, and those of the environment.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The directory of the files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps a secret of one line in a file that nobody else can read; what was there before is
    /// replaced whole.
    ///
    /// # Errors
    ///
    /// The system's error; the old secret stands then.
    pub fn keep(&self, name: &str, text: &str) -> io::Result<()> {
        if text.is_empty() || text.contains(['\r', '\n', '\0']) {
            let words = "a password is one line of text and not empty";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        self.keep_text(name, &Zeroizing::new(format!("{text}\n")))
    }

    /// The same for a text of several lines.
    ///
    /// # Errors
    ///
    /// As [`Secrets::keep`].
    pub fn keep_text(&self, name: &str, text: &str) -> io::Result<()> {
        let temporary = self.draft(name, text)?;
        std::fs::rename(&temporary, self.directory.join(name))?;
        std::fs::File::open(&self.directory)?.sync_all()
    }

    /// Keeps a secret of several lines in a new file that nobody else can read.
    ///
    /// # Errors
    ///
    /// The system's error, also if there is a file of that name; it stands as it was then.
    pub fn keep_new(&self, name: &str, text: &str) -> io::Result<()> {
        let temporary = self.draft(name, text)?;
        // A link takes no other's place, as a rename would.
        let linked = std::fs::hard_link(&temporary, self.directory.join(name));
        std::fs::remove_file(&temporary)?;
        linked?;
        std::fs::File::open(&self.directory)?.sync_all()
    }

    /// Writes a text beside the place that it will have.
    fn draft(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        if !self.directory.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
            let above = self.directory.parent().unwrap_or(&self.directory);
            std::fs::File::open(above)?.sync_all()?;
        }
        let temporary = self.directory.join(format!(".{name}.new"));
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(temporary)
    }

    /// Removes the file of a secret, durably; nothing happens if there is none.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.directory.join(name)) {
            Ok(()) => std::fs::File::open(&self.directory)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads a secret: one line of text, without its end.
    ///
    /// # Errors
    ///
    /// [`SecretError`], in words for people.
    pub fn read(&self, secret: &Secret) -> Result<Zeroizing<String>, SecretError> {
        self.read_within(secret, OCTETS_MAX)
    }

    /// The same with another bound for its octets, for what grows.
    ///
    /// # Errors
    ///
    /// As [`Secrets::read`].
    pub fn read_within(
        &self,
        secret: &Secret,
        octets_max: u64,
    ) -> Result<Zeroizing<String>, SecretError> {
        let text = self.text(secret, octets_max)?;
        let line = text.trim_end_matches(['\r', '\n']);
        if line.is_empty() || line.contains(['\r', '\n', '\0']) {
            return Err(SecretError::Form(secret.to_string()));
        }
        Ok(Zeroizing::new(line.to_owned()))
    }

    /// Reads a secret that may have several lines.
    ///
    /// # Errors
    ///
    /// [`SecretError`], in words for people.
    pub fn read_lines(&self, secret: &Secret) -> Result<Zeroizing<String>, SecretError> {
        let text = self.text(secret, OCTETS_MAX)?;
        if text.trim().is_empty() {
            return Err(SecretError::Empty(secret.to_string()));
        }
        Ok(text)
    }

    fn text(&self, secret: &Secret, octets_max: u64) -> Result<Zeroizing<String>, SecretError> {
        Ok(match secret {
            Secret::File(name) => read_file(&self.directory.join(name), octets_max, true)?,
            Secret::Credential(name) => {
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
                // The service manager has seen to the rights of these.
                read_file(&Path::new(&directory).join(name), octets_max, false)?
            }
            Secret::Env(name) => Zeroizing::new(
                std::env::var(name).map_err(|_| SecretError::NoVariable(name.clone()))?,
            ),
        })
    }
}

fn read_file(
    path: &Path,
    octets_max: u64,
    guarded: bool,
) -> Result<Zeroizing<String>, SecretError> {
    let cannot = |source| SecretError::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(cannot)?;
    if guarded && file.metadata().map_err(cannot)?.mode() & FOREIGN != 0 {
        return Err(SecretError::Open(path.to_owned()));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(octets_max).read_to_string(&mut text).map_err(cannot)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_read_without_its_line_end_and_only_if_nobody_else_can() {
        let place = tempfile::tempdir().unwrap();
        let secrets = Secrets::in_directory(place.path());
        let secret = Secret::File("isp".to_owned());
        assert!(matches!(secrets.read(&secret), Err(SecretError::File { .. })));
        let path = place.path().join("isp");
        for (text, mode, expected) in [
            ("pa ss\n", 0o600, Ok("pa ss")),
            ("x", 0o400, Ok("x")),
            ("x", 0o640, Err("chmod 600")),
            ("x", 0o604, Err("chmod 600")),
            ("", 0o600, Err("empty")),
            ("a\nb\n", 0o600, Err("one line")),
        ] {
            let _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            match (secrets.read(&secret), expected) {
                (Ok(read), Ok(expected)) => assert_eq!(read.as_str(), expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (other, _) => panic!("{text:?} {mode:o}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_kept_is_read_again_and_open_to_nobody_else() {
        let place = tempfile::tempdir().unwrap();
        let secrets = Secrets::in_directory(&place.path().join("secrets.d"));
        let secret = Secret::File("isp".to_owned());
        for text in ["one", "two with blanks "] {
            secrets.keep("isp", text).unwrap();
            assert_eq!(secrets.read(&secret).unwrap().as_str(), text);
        }
        for bad in ["", "a\nb"] {
            assert_eq!(secrets.keep("isp", bad).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        let names: Vec<_> = fs::read_dir(secrets.directory()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(fs::metadata(secrets.directory()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_secret_behind_a_link_is_as_open_as_the_file_that_it_leads_to() {
        let place = tempfile::tempdir().unwrap();
        let secrets = Secrets::in_directory(&place.path().join("secrets.d"));
        fs::create_dir(secrets.directory()).unwrap();
        let (target, secret) = (place.path().join("elsewhere"), Secret::File("isp".to_owned()));
        fs::write(&target, "one\n").unwrap();
        std::os::unix::fs::symlink(&target, secrets.directory().join("isp")).unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o644)).unwrap();
        let refused = secrets.read(&secret).unwrap_err().to_string();
        assert!(refused.contains("chmod 600") && !refused.contains("one"), "{refused}");
        fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(secrets.read(&secret).unwrap().as_str(), "one");

        // A new secret takes the place of the link: nothing is written where it leads.
        secrets.keep("isp", "two").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "one\n");
        assert_eq!(secrets.read(&secret).unwrap().as_str(), "two");
        // The same for the draft's name, which somebody may have taken.
        std::os::unix::fs::symlink(&target, secrets.directory().join(".isp.new")).unwrap();
        secrets.keep("isp", "three").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "one\n");
    }

    #[test]
    fn a_new_secret_takes_no_place_of_another() {
        let place = tempfile::tempdir().unwrap();
        let secrets = Secrets::in_directory(place.path());
        let secret = Secret::File("key".to_owned());
        secrets.keep_new("key", "one\ntwo\n").unwrap();
        let refused = secrets.keep_new("key", "three\n").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(secrets.read_lines(&secret).unwrap().as_str(), "one\ntwo\n");
        assert!(secrets.read(&secret).unwrap_err().to_string().contains("one line"));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(place.path().join("key")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let secrets = Secrets::in_directory(Path::new("/nowhere"));
        let absent = Secret::Env("MAILROOT_NO_SUCH_SECRET".to_owned());
        let error = secrets.read(&absent).unwrap_err().to_string();
        assert!(error.contains("MAILROOT_NO_SUCH_SECRET"), "{error}");
    }
}
