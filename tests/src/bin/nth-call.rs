//! Stands beside a process, counts its calls on files below a folder, and makes the n-th one fail or the
//! last.
//!
//! ```text
//! nth-call PID FOLDER [N kill|EIO|ENOSPC]
//! ```
//!
//! It says `attached` once every thread is watched, then `call N NAME PATH` before each call is made, with
//! `fault` in place of `call` for the one that is injected, and `ended` when the process is gone. When
//! standard input ends it lets the process go on alone.
//!
//! One counter runs over all threads. The daemon's work on files moves from thread to thread of a pool, so
//! the counters that strace keeps for each thread and each call cannot say which call of the flow is the
//! n-th; and its own log and event descriptors would be counted among them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a tool of the tests reports by panicking")]

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
fn main() {
    tracer::run();
}

#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
fn main() {
    eprintln!("calls can be injected on x86-64 with the GNU C library only");
    std::process::exit(1);
}

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod tracer {
    use std::collections::{HashMap, HashSet};
    use std::fs::{self, File};
    use std::io::Read;
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};

    use nix::errno::Errno;
    use nix::libc;
    use nix::sys::ptrace::{self, Options};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    /// Where in a call's arguments the file is.
    #[derive(Clone, Copy)]
    enum Place {
        Descriptor(usize),
        Name(usize),
        /// A directory's descriptor and a name in it.
        In(usize, usize),
    }

    use Place::{Descriptor, In, Name};

    /// The calls that are counted: those that change files or make them durable, and those that open them.
    /// Of two names the new one is told.
    const CALLS: &[(libc::c_long, &str, Place)] = &[
        (libc::SYS_open, "open", Name(0)),
        (libc::SYS_openat, "openat", In(0, 1)),
        (libc::SYS_creat, "creat", Name(0)),
        (libc::SYS_mkdir, "mkdir", Name(0)),
        (libc::SYS_mkdirat, "mkdirat", In(0, 1)),
        (libc::SYS_rmdir, "rmdir", Name(0)),
        (libc::SYS_write, "write", Descriptor(0)),
        (libc::SYS_writev, "writev", Descriptor(0)),
        (libc::SYS_pwrite64, "pwrite64", Descriptor(0)),
        (libc::SYS_pwritev, "pwritev", Descriptor(0)),
        (libc::SYS_fsync, "fsync", Descriptor(0)),
        (libc::SYS_fdatasync, "fdatasync", Descriptor(0)),
        (libc::SYS_ftruncate, "ftruncate", Descriptor(0)),
        (libc::SYS_fallocate, "fallocate", Descriptor(0)),
        (libc::SYS_fchmod, "fchmod", Descriptor(0)),
        (libc::SYS_rename, "rename", Name(1)),
        (libc::SYS_renameat, "renameat", In(2, 3)),
        (libc::SYS_renameat2, "renameat2", In(2, 3)),
        (libc::SYS_link, "link", Name(1)),
        (libc::SYS_linkat, "linkat", In(2, 3)),
        (libc::SYS_unlink, "unlink", Name(0)),
        (libc::SYS_unlinkat, "unlinkat", In(0, 1)),
    ];

    enum Fault {
        Kill,
        Error(Errno),
    }

    struct Tracer {
        leader: Pid,
        folder: PathBuf,
        fault: Option<(usize, Fault)>,
        /// Threads that did not stop yet since they were seized. Until they have, nothing is counted.
        awaited: HashSet<Pid>,
        count: usize,
        /// Threads in a call that is not made; it ends with this error.
        failing: HashMap<Pid, Errno>,
    }

    pub(super) fn run() {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (pid, folder, fault) = match words[..] {
            [pid, folder] => (pid, folder, None),
            [pid, folder, n, what] => {
                let fault = match what {
                    "kill" => Fault::Kill,
                    "EIO" => Fault::Error(Errno::EIO),
                    "ENOSPC" => Fault::Error(Errno::ENOSPC),
                    _ => panic!("{what} is no fault"),
                };
                (pid, folder, Some((n.parse().unwrap(), fault)))
            }
            _ => panic!("usage: nth-call PID FOLDER [N kill|EIO|ENOSPC]"),
        };
        let leader = Pid::from_raw(pid.parse().unwrap());
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.into());
        std::thread::spawn(|| {
            // Whatever ends the input, the end of this process lets every thread go on.
            let _ended = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
        let (awaited, failing) = (HashSet::new(), HashMap::new());
        let mut tracer = Tracer { leader, folder, fault, awaited, count: 0, failing };
        tracer.awaited = tracer.seize();
        while tracer.step() {}
        println!("ended");
    }

    impl Tracer {
        /// Takes hold of every thread there is; those that they start are held from their start.
        fn seize(&self) -> HashSet<Pid> {
            let options = Options::PTRACE_O_TRACESYSGOOD
                | Options::PTRACE_O_TRACECLONE
                | Options::PTRACE_O_TRACEEXEC;
            let mut held = HashSet::new();
            loop {
                let before = held.len();
                for entry in fs::read_dir(format!("/proc/{}/task", self.leader)).unwrap() {
                    let name = entry.unwrap().file_name();
                    let thread = Pid::from_raw(name.to_str().unwrap().parse().unwrap());
                    if held.contains(&thread) {
                        continue;
                    }
                    match ptrace::seize(thread, options) {
                        Ok(()) => {
                            ptrace::interrupt(thread).unwrap();
                            held.insert(thread);
                        }
                        // It ended, or came with the thread that started it.
                        Err(Errno::ESRCH) => {}
                        Err(Errno::EPERM) if !held.is_empty() => {}
                        Err(error) => panic!("cannot trace {thread}: {error}"),
                    }
                }
                if held.len() == before {
                    return held;
                }
            }
        }

        /// Waits for one stop and goes on from it; false when the process is gone.
        fn step(&mut self) -> bool {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(status) => status,
                Err(Errno::ECHILD) => return false,
                Err(error) => panic!("waitpid: {error}"),
            };
            let (thread, signal) = match status {
                WaitStatus::PtraceSyscall(thread) => {
                    self.on_call(thread);
                    (thread, None)
                }
                WaitStatus::PtraceEvent(thread, _, _) => (thread, None),
                WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
                WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, _, _) => {
                    self.arrived(thread);
                    return thread != self.leader;
                }
                WaitStatus::Continued(_) | WaitStatus::StillAlive => return true,
            };
            match ptrace::syscall(thread, signal) {
                // Killed meanwhile.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => panic!("cannot resume {thread}: {error}"),
            }
            self.arrived(thread);
            true
        }

        fn arrived(&mut self, thread: Pid) {
            if self.awaited.remove(&thread) && self.awaited.is_empty() {
                println!("attached");
            }
        }

        fn on_call(&mut self, thread: Pid) {
            let (Ok(info), Ok(mut registers)) =
                (ptrace::syscall_info(thread), ptrace::getregs(thread))
            else {
                return; // killed meanwhile
            };
            if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
                if let Some(error) = self.failing.remove(&thread) {
                    registers.rax = i64::from(-(error as i32)).cast_unsigned();
                    ptrace::setregs(thread, registers).unwrap();
                }
                return;
            }
            let Some((_, name, place)) =
                CALLS.iter().find(|(number, _, _)| number.cast_unsigned() == registers.orig_rax)
            else {
                return;
            };
            if !self.awaited.is_empty() {
                return;
            }
            let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
            let Some(path) = self.path(*place, arguments) else { return };
            self.count += 1;
            let (number, path) = (self.count, path.display());
            match &self.fault {
                Some((at, fault)) if *at == number => {
                    println!("fault {number} {name} {path}");
                    match fault {
                        Fault::Kill => kill(self.leader, Signal::SIGKILL).unwrap(),
                        Fault::Error(error) => {
                            // A number that is no call: nothing is done.
                            registers.orig_rax = u64::MAX;
                            ptrace::setregs(thread, registers).unwrap();
                            self.failing.insert(thread, *error);
                        }
                    }
                }
                _ => println!("call {number} {name} {path}"),
            }
        }

        /// The file a call is about, below the folder; nothing if it is elsewhere.
        fn path(&self, place: Place, arguments: [u64; 4]) -> Option<PathBuf> {
            let path = match place {
                Descriptor(at) => self.descriptor(arguments[at])?,
                Name(at) => self.text(arguments[at])?,
                In(directory, at) => {
                    let name = self.text(arguments[at])?;
                    if name.is_absolute() {
                        name
                    } else {
                        self.descriptor(arguments[directory])?.join(name)
                    }
                }
            };
            path.strip_prefix(&self.folder).ok().map(Path::to_owned)
        }

        #[expect(clippy::cast_possible_truncation, reason = "descriptors are passed as int")]
        fn descriptor(&self, number: u64) -> Option<PathBuf> {
            let path = match number as i32 {
                libc::AT_FDCWD => format!("/proc/{}/cwd", self.leader),
                number => format!("/proc/{}/fd/{number}", self.leader),
            };
            fs::read_link(path).ok()
        }

        /// A string in the process's memory.
        fn text(&self, at: u64) -> Option<PathBuf> {
            let memory = File::open(format!("/proc/{}/mem", self.leader)).ok()?;
            let mut octets = [0; libc::PATH_MAX as usize];
            let len = memory.read_at(&mut octets, at).ok()?;
            let text = octets[..len].split(|&octet| octet == 0).next()?;
            Some(String::from_utf8_lossy(text).into_owned().into())
        }
    }
}
