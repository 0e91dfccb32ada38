//! The `smtpd` program: reads the configuration, starts the service, heeds signals, stops it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mailroot_common::config::{Auto, render_all};
use smtpd::args::Args;
use smtpd::clock::Clock;
use smtpd::config::{self, FirstStart, Loaded, Paths, Started};
use smtpd::control::Control;
use smtpd::net::Net;
use smtpd::observe::{Level, Log, LogError};
use smtpd::process::{self, Request, Signals};
use smtpd::service::{Service, ServiceError, SubmitSocket};

/// Set up in `.cargo/config.toml`. The C library's takes more memory when ten thousand lanes come to life at once.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit codes of sysexits(3).
const EX_UNAVAILABLE: u8 = 69;
const EX_SOFTWARE: u8 = 70;
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let args = Args::parse();
    let paths = match Paths::new(args.home.as_deref()) {
        Ok(paths) => paths,
        Err(error) => return fail(EX_UNAVAILABLE, &format!("cannot find the home: {error}")),
    };
    if args.check {
        return check(&paths);
    }
    process::make_files_private();
    process::keep_memory_to_ourselves();
    let clock = Clock::real();
    let started = match config::start(&paths, clock.now()) {
        Ok(started) => started,
        Err(failed) => {
            say(&failed.to_string());
            return fail(EX_CONFIG, "the configuration is refused; nothing was started");
        }
    };
    let log = match open_log(&args, &paths, &started.loaded, &clock) {
        Ok(log) => log,
        Err(error) => return fail(EX_UNAVAILABLE, &ServiceError::from(error).to_string()),
    };
    let runtime = match runtime(&started.loaded) {
        Ok(runtime) => runtime,
        Err(error) => return fail(EX_SOFTWARE, &format!("cannot start threads: {error}")),
    };
    let code = runtime.block_on(run(paths, started, log.clone(), clock));
    runtime.shutdown_timeout(Duration::from_secs(1));
    log.close();
    code
}

/// `--check`: says all that is wrong with the configuration as it lies there.
fn check(paths: &Paths) -> ExitCode {
    match config::load(paths) {
        Ok(loaded) => {
            say(&render_all(&loaded.warnings));
            say(&format!("{} is good", plural(loaded.files().count(), "configuration file")));
            ExitCode::SUCCESS
        }
        Err(failed) => {
            say(&failed.to_string());
            ExitCode::from(EX_CONFIG)
        }
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("each of {count} {noun}s") }
}

fn open_log(args: &Args, paths: &Paths, loaded: &Loaded, clock: &Clock) -> Result<Log, LogError> {
    let style = config::log_style(paths, loaded, process::stdout_is_journal())?;
    Log::open(style, args.log.map(Into::into), clock.clone())
}

fn runtime(loaded: &Loaded) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Auto::Count(threads) = loaded.service.service.threads {
        builder.worker_threads(usize::from(threads));
    }
    builder.thread_name("smtpd").enable_all().build()
}

/// What is said to whoever has started it as root. It may be all that there is in a container, so that it is no error.
const AS_ROOT: &str = "start it as a user of its own, as its unit does; for ports below 1024 that user needs \
                       CAP_NET_BIND_SERVICE and nothing else";

/// How often entries of access lists that have ended, and rights that would lapse, are looked for.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// How often reports about TLS are looked for that are due.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// How often files of certificates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Starts the service, serves until asked to stop, and stops it.
async fn run(paths: Paths, started: Started, log: Log, clock: Clock) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(EX_SOFTWARE, &format!("cannot listen for signals: {error}")),
    };
    greet(&paths, &started);
    if process::is_root() {
        log.line(Level::Warn, "runs-as-root").text("hint", AS_ROOT).send();
        say(&format!("smtpd: warning: it runs as root: {AS_ROOT}"));
    }
    let first_warnings = render_all(&started.loaded.warnings);
    say(&first_warnings);
    let service = Service::start(paths, started, log.clone(), clock, Net::Real).await;
    if let Some(troubles) = service.did_not_start() {
        service.stop().await;
        return fail(EX_UNAVAILABLE, &format!("no virtual server could be started\n{troubles}"));
    }
    let submit = SubmitSocket::open(&service).map_err(|error| {
        // Mail by all other ways is worth more than this one.
        log.line(Level::Error, "submit-failed").text("reason", &error).send();
        say(&format!("smtpd: {error}; programs of this machine cannot hand in mail"));
    });
    let control = match Control::listen(service.clone()) {
        Ok(control) => control,
        Err(error) => {
            service.stop().await;
            return fail(EX_UNAVAILABLE, &error.to_string());
        }
    };
    process::tell_ready(&service.summary());
    serve(&service, &mut signals).await;
    process::tell_stopping();
    service.dialogues().close();
    if let Ok(submit) = submit {
        submit.stop().await;
    }
    control.stop().await;
    service.stop().await;
    log.line(Level::Info, "stopped").send();
    ExitCode::SUCCESS
}

/// Heeds signals and reports to the supervisor until the service is asked to stop.
async fn serve(service: &Service, signals: &mut Signals) {
    let watchdog = process::watchdog_interval();
    let mut beat = tokio::time::interval(watchdog.unwrap_or(Duration::from_hours(24)));
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut tell = tokio::time::interval(TELL_EVERY);
    loop {
        tokio::select! {
            request = signals.next() => match request {
                Request::Stop => return,
                // What is wrong is in the log; what was in force stays.
                Request::ReopenLog => drop(service.reopen_log().await),
                Request::Reload => drop(service.reload("signal").await),
            },
            _ = sweep.tick() => {
                service.sweep_lists().await;
                service.uphold_rights();
            }
            _ = tell.tick() => service.begin_tls_reports(),
            _ = look.tick() => {
                service.look_at_certificates().await;
                service.begin_acme_requests();
            }
            _ = beat.tick(), if watchdog.is_some() => {
                if service.is_alive().await {
                    process::tell_alive();
                }
            }
        }
    }
}

/// Tells a person at a terminal what to try next; a service manager needs no such words.
fn greet(paths: &Paths, started: &Started) {
    if let Some(failed) = &started.degraded {
        say(&failed.to_string());
        say("The files above are broken. The last good configuration runs instead.");
    }
    let (Some(home), Some(first)) = (&paths.home, &started.first_start) else { return };
    say(&first_words(home, first));
}

fn first_words(home: &Path, first: &FirstStart) -> String {
    let home = home.display();
    let (listen, domain) = (&first.listen, &first.domain);
    let files: Vec<String> =
        first.files.iter().map(|file| format!("  {}", file.display())).collect();
    format!(
        "Mailroot wrote its first configuration:\n{}\n\n\
         The virtual server \"default\" listens on {listen}. Try it:\n  \
         swaks --server {listen} --to you@{domain}\n  \
         ls {home}/spool/default/Drop\n  \
         smtpctl --home {home} status\n",
        files.join("\n"),
    )
}

fn say(text: &str) {
    if !text.is_empty() {
        use std::io::Write;
        // Without standard error there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
    }
}

fn fail(code: u8, text: &str) -> ExitCode {
    say(&format!("smtpd: {text}"));
    ExitCode::from(code)
}
