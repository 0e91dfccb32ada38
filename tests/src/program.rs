//! Running other programs to their end, and finding them.

use std::ffi::OsStr;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wait;

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// The command line, for messages.
    pub command: String,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} exited {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.out, self.err
        )
    }
}

impl Finished {
    /// The output of a command that must have exited 0.
    ///
    /// # Panics
    ///
    /// When it did not.
    #[track_caller]
    #[expect(clippy::must_use_candidate, reason = "often only success matters")]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.out
    }

    /// Requires an exit code, and hands back the whole.
    ///
    /// # Panics
    ///
    /// When the program exited otherwise.
    #[track_caller]
    #[expect(clippy::must_use_candidate, reason = "often only the code matters")]
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }
}

/// Runs `command` to its end with `input` on standard input.
///
/// # Panics
///
/// When it cannot be started.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> Finished {
    run_within(wait::PATIENCE, command, input)
}

/// [`run`] for what takes longer.
///
/// # Panics
///
/// When it cannot be started.
#[track_caller]
pub fn run_within(patience: Duration, command: &mut Command, input: &[u8]) -> Finished {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A program that was just copied is busy while another thread's child has it open for writing.
    let started = wait::until("a program that can be started", || match command.spawn() {
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
        started => Some(started),
    });
    let mut child = started.unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // A program that exits without reading its input is judged by its exit code.
        let _unread = stdin.write_all(&input);
    });
    let output = finish(child, &shown, patience);
    feeder.join().unwrap();
    Finished {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        command: shown,
    }
}

/// Waits for the end of a program with its output; one that does not end in time is ended, and its test
/// with it.
#[track_caller]
fn finish(mut child: Child, shown: &str, patience: Duration) -> Output {
    let mut streams: Vec<Box<dyn Read + Send>> =
        vec![Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    let readers: Vec<JoinHandle<Vec<u8>>> = streams
        .drain(..)
        .map(|mut stream| {
            std::thread::spawn(move || {
                let mut octets = Vec::new();
                // What cannot be read is missing in the output, which the test looks at.
                let _read = stream.read_to_end(&mut octets);
                octets
            })
        })
        .collect();
    let Some(status) = wait::within(patience, || child.try_wait().unwrap()) else {
        child.kill().unwrap();
        panic!("{shown} did not end within {} s", patience.as_secs());
    };
    let mut outputs = readers.into_iter().map(|reader| reader.join().unwrap());
    let stdout = outputs.next().unwrap();
    Output { status, stdout, stderr: outputs.next().unwrap() }
}

/// Where a program of the system is, looking also where only root's path leads.
#[must_use]
pub fn find(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name.as_ref()))
        .find(|candidate| candidate.is_file())
}

/// One of our own programs, from the target folder these tests were built in.
///
/// # Panics
///
/// When it was not built.
#[must_use]
pub fn ours(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is not built: run tests/run.sh, or cargo build -p smtpd -p smtpctl first",
        path.display()
    );
    path
}

/// The repository's root folder.
///
/// # Panics
///
/// Never: this crate stands one folder below it.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// strace on a running process, answering some of its calls with an error; it lets go when dropped.
#[derive(Debug)]
pub struct Tracer(Child);

impl Tracer {
    /// Attaches to all threads of a process; from then on these calls fail.
    ///
    /// # Panics
    ///
    /// When it cannot be started or cannot attach.
    #[must_use]
    pub fn attach(pid: u32, calls: &[&str], error: &str) -> Self {
        let list = calls.join(",");
        let mut child = Command::new(find("strace").expect("strace is installed"))
            .args(["-f", "-o", "/dev/null", "-p", &pid.to_string(), "-e", &format!("trace={list}")])
            .args(["-e", &format!("inject={list}:error={error}")])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = child.stderr.take().unwrap();
        let mut octet = [0];
        // It speaks first when it is attached.
        said.read_exact(&mut octet).expect("strace attaches");
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self(child)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It lets go of the process when it is asked to end, and even when it is killed.
        let pid = i32::try_from(self.0.id()).map(nix::unistd::Pid::from_raw);
        let _asked = pid.map(|pid| nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT));
        let _status = self.0.wait();
    }
}
