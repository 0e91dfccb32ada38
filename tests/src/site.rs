//! A daemon in a directory of its own: started, stopped, killed, looked at.
//!
//! Readiness is a greeting on every listener and a control socket that answers, never a pause. When a test fails, the site prints its
//! configuration and its log.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::ctl::Ctl;
use crate::message::Stored;
use crate::program::{self, Finished};
use crate::setup::Setup;
use crate::talk::Talk;
use crate::wait;

/// A home directory and, when started, the daemon that lives in it.
pub struct Site {
    home: TempDir,
    setup: Mutex<Setup>,
    daemon: Mutex<Option<Child>>,
    uid: Option<u32>,
    under: Mutex<Vec<String>>,
}

impl Site {
    /// Writes the configuration and starts the daemon; returns once every listener greets.
    #[must_use]
    pub fn start(setup: Setup) -> Self {
        let site = Self::prepare(setup);
        site.launch();
        site
    }

    /// Writes the configuration only.
    ///
    /// # Panics
    ///
    /// When the temporary directory cannot be made.
    #[must_use]
    pub fn prepare(setup: Setup) -> Self {
        let home = tempfile::Builder::new().prefix("mailroot-").tempdir().unwrap();
        setup.write(home.path());
        Self {
            home,
            setup: Mutex::new(setup),
            daemon: Mutex::new(None),
            uid: None,
            under: Mutex::default(),
        }
    }

    /// As [`Self::start`], with the daemon running as another user.
    ///
    /// # Panics
    ///
    /// When the home cannot be handed to that user.
    #[must_use]
    pub fn start_as(uid: u32, setup: Setup) -> Self {
        let mut site = Self::prepare(setup);
        give(site.home.path(), uid);
        site.uid = Some(uid);
        site.launch();
        site
    }

    /// Starts the daemon by another program from now on: its name and its arguments, to which the daemon's
    /// command line is added. It must become the daemon, so that signals meet the right process.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn under(&self, words: &[&str]) {
        *self.under.lock().unwrap() = words.iter().map(|&word| word.to_owned()).collect();
    }

    /// The home directory.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where the first server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.setup.lock().unwrap().servers[0].address
    }

    /// A directory of a server's mail root.
    #[must_use]
    pub fn spool(&self, server: &str, directory: &str) -> PathBuf {
        self.home().join("spool").join(server).join(directory)
    }

    /// The daemon's command line for this home.
    ///
    /// # Panics
    ///
    /// When the daemon was not built.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut words = self.under.lock().unwrap().clone().into_iter().map(OsString::from);
        let daemon = program::ours("smtpd").into_os_string();
        let mut command = match words.next() {
            None => Command::new(daemon),
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(daemon);
                command
            }
        };
        command.arg("--home").arg(self.home()).env_remove("MAILROOT_HOME");
        command.env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM").current_dir("/");
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Runs the daemon to its end, for configurations that it refuses and for `--check`.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        program::run(self.command().args(arguments), b"")
    }

    /// Starts the daemon in this home (again) and waits until every listener greets and
    /// the control socket answers.
    ///
    /// # Panics
    ///
    /// When it ends instead, or does not answer in time.
    #[track_caller]
    pub fn launch(&self) {
        self.launch_with(&[]);
    }

    /// [`Self::launch`] with further arguments.
    ///
    /// # Panics
    ///
    /// As [`Self::launch`].
    #[track_caller]
    pub fn launch_with(&self, arguments: &[&str]) {
        self.spawn(arguments);
        self.await_listening();
    }

    /// Waits until every listener greets and the control socket answers.
    ///
    /// # Panics
    ///
    /// When the daemon ends instead, or does not answer in time.
    #[track_caller]
    pub fn await_listening(&self) {
        let addresses: Vec<SocketAddr> =
            self.setup.lock().unwrap().servers.iter().map(|server| server.address).collect();
        for address in addresses {
            wait::until(&format!("a greeting on {address}"), || {
                self.must_live();
                Talk::try_to(address).ok()
            });
        }
        let socket = self.home().join("run/control.sock");
        wait::until("the control socket", || {
            self.must_live();
            UnixStream::connect(&socket).ok()
        });
    }

    /// [`Self::launch`], and waits until the mail of earlier lives is known again: until then a list of the
    /// queue is incomplete.
    ///
    /// # Panics
    ///
    /// As [`Self::launch`].
    #[track_caller]
    pub fn launch_again(&self) {
        let count = || self.log().matches("event=queue_read").count();
        let before = count();
        self.launch();
        let servers = self.setup.lock().unwrap().servers.len();
        wait::until("queues that were read", || (count() >= before + servers).then_some(()));
    }

    /// Starts the daemon without waiting for anything.
    ///
    /// # Panics
    ///
    /// When the program cannot be started.
    pub fn spawn(&self, arguments: &[&str]) {
        let mut command = self.command();
        self.run_in_background(command.args(arguments));
    }

    /// Starts a process that will be the daemon once it gets SIGCONT; until then it is stopped.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn spawn_stopped(&self) {
        let daemon = self.command();
        let mut command = Command::new("sh");
        command.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).arg(daemon.get_program());
        command.args(daemon.get_args()).current_dir("/");
        for (name, value) in daemon.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.run_in_background(&mut command);
        let status = format!("/proc/{}/status", self.pid());
        wait::until("a stopped process", || {
            let text = fs::read_to_string(&status).unwrap_or_default();
            text.contains("State:\tT").then_some(())
        });
    }

    fn run_in_background(&self, command: &mut Command) {
        let log = self.append("log");
        let errors = self.append("errors");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().unwrap();
        *self.daemon.lock().unwrap() = Some(child);
    }

    fn append(&self, name: &str) -> File {
        OpenOptions::new().create(true).append(true).open(self.home().join(name)).unwrap()
    }

    #[track_caller]
    fn must_live(&self) {
        let mut daemon = self.daemon.lock().unwrap();
        if let Some(status) = daemon.as_mut().and_then(|child| child.try_wait().unwrap()) {
            *daemon = None;
            drop(daemon);
            panic!("the daemon ended: {status}");
        }
    }

    /// Whether the daemon runs; one that ended is forgotten.
    ///
    /// # Panics
    ///
    /// When another thread panicked.
    #[must_use]
    pub fn runs(&self) -> bool {
        let mut daemon = self.daemon.lock().unwrap();
        let ended = daemon.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
        if ended {
            *daemon = None;
        }
        !ended
    }

    /// The daemon's process id.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.lock().unwrap().as_ref().expect("the daemon runs").id()
    }

    /// What the kernel says of the daemon's memory, in KiB: `VmRSS` for now, `VmHWM` for the most.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[must_use]
    pub fn memory_kib(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Sends a signal to the daemon.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// Waits for the daemon's end.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    pub fn wait(&self) -> ExitStatus {
        let status = wait::until("the daemon's end", || {
            self.daemon.lock().unwrap().as_mut().expect("the daemon runs").try_wait().unwrap()
        });
        *self.daemon.lock().unwrap() = None;
        status
    }

    /// Stops the daemon with SIGTERM; it must exit 0.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "after SIGTERM the daemon ended with {status}");
    }

    /// Ends the daemon with SIGKILL.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// What it was configured with.
    ///
    /// # Panics
    ///
    /// When another thread panicked.
    #[must_use]
    pub fn setup(&self) -> Setup {
        self.setup.lock().unwrap().clone()
    }

    /// Replaces the configuration files; a running daemon does not know until it is told.
    pub fn configure(&self, setup: Setup) {
        setup.write(self.home());
        *self.setup.lock().unwrap() = setup;
    }

    /// A conversation with the first server, greeting read.
    #[must_use]
    pub fn talk(&self) -> Talk {
        Talk::to(self.address())
    }

    /// `smtpctl` for this home.
    #[must_use]
    pub fn ctl(&self, arguments: &[&str]) -> Finished {
        self.control().run(arguments)
    }

    /// `smtpctl` for this home, to be set up further.
    #[must_use]
    pub fn control(&self) -> Ctl {
        Ctl::new(self.home())
    }

    /// All that the daemon logged so far, in all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home().join("log")).unwrap_or_default()
    }

    /// Waits for a log line that holds every one of `parts`.
    ///
    /// # Panics
    ///
    /// When none comes.
    #[track_caller]
    pub fn logged(&self, parts: &[&str]) -> String {
        wait::until(&format!("a log line with {parts:?}"), || {
            self.log()
                .lines()
                .find(|line| parts.iter().all(|part| line.contains(part)))
                .map(str::to_owned)
        })
    }

    /// The messages in a server's Drop, without those still being written.
    #[must_use]
    pub fn dropped(&self, server: &str) -> Vec<Stored> {
        Stored::read_all(&self.spool(server, "Drop"), "eml")
    }

    /// Waits until the first server's Drop holds `count` messages, and returns them.
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    #[track_caller]
    pub fn await_dropped(&self, count: usize) -> Vec<Stored> {
        let name = self.setup.lock().unwrap().servers[0].name.clone();
        wait::until(&format!("{count} messages in Drop"), || {
            let stored = self.dropped(&name);
            (stored.len() >= count).then_some(stored)
        })
    }

    /// The files of the first server's Badmail, by name.
    #[must_use]
    pub fn badmail(&self) -> Vec<PathBuf> {
        let name = self.setup.lock().unwrap().servers[0].name.clone();
        let mut files: Vec<PathBuf> = fs::read_dir(self.spool(&name, "Badmail"))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        files.sort();
        files
    }

    /// Waits until no message is queued any more.
    ///
    /// # Panics
    ///
    /// When the queue does not drain.
    #[track_caller]
    pub fn await_empty_queue(&self) {
        wait::until("an empty queue", || {
            let listed = self.ctl(&["queue", "list", "-o", "name"]);
            (listed.code == 0 && listed.out.trim().is_empty()).then_some(())
        });
    }
}

/// Hands a tree to another user.
fn give(path: &Path, uid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
    fs::set_permissions(
        path,
        fs::Permissions::from_mode(if path.is_dir() { 0o755 } else { 0o644 }),
    )
    .unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), uid);
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.get_mut().unwrap_or_else(|e| e.into_inner()).take() {
            // It may have ended by itself; then there is nothing to end.
            let _ended = child.kill();
            let _status = child.wait();
        }
        if std::thread::panicking() {
            for name in ["etc/mailroot.yaml", "errors", "log"] {
                self.show(&self.home().join(name));
            }
            for entry in fs::read_dir(self.home().join("etc/servers.d")).into_iter().flatten() {
                self.show(&entry.unwrap().path());
            }
        }
    }
}

impl Site {
    fn show(&self, path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(200);
        eprintln!("--- {} (last {} lines)", path.display(), lines.len() - from);
        eprintln!("{}", lines[from..].join("\n"));
    }
}
