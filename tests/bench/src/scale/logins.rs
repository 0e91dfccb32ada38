//! Wrong passwords of a user and of nobody: does the time of the answer tell them apart?

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Verdicts, millis};
use crate::client::Client;
use crate::options::Options;
use crate::server::{Program, Server, Setup, free_port};
use crate::{Outcome, programs};

/// Tries of each kind.
const TRIES: usize = 200;
/// Tries of each kind in a session: those without mail are only let say so much.
const TRIES_IN_SESSION: usize = 5;
const DIFFERENCE_MAX: Duration = Duration::from_millis(10);
/// `AUTH PLAIN` with `NUL ada NUL wrong`.
const KNOWN: &str = "AUTH PLAIN AGFkYQB3cm9uZw==";
/// The same of a name that nobody has, of as many letters.
const UNKNOWN: &str = "AUTH PLAIN AGV2ZQB3cm9uZw==";
/// `AUTH SCRAM-SHA-256` with `n,,n=ada,r=abcdef`, and of nobody.
const PROOFS: [&str; 2] =
    ["AUTH SCRAM-SHA-256 biwsbj1hZGEscj1hYmNkZWY=", "AUTH SCRAM-SHA-256 biwsbj1ldmUscj1hYmNkZWY="];

pub(super) async fn measure(options: &Options, home: &Path) -> Outcome<Verdicts> {
    let failures = "auth_failures: {max: 1000, delay: 0s, ban: never}";
    let keys = vec![
        ("general", "max_errors: unlimited".to_owned()),
        ("access", "basic: {enabled: true, require_tls: false}".to_owned()),
        ("access", failures.to_owned()),
    ];
    let setup = Setup { keys, ..Setup::new(free_port()?, options) };
    let server = Server::start(Program::Mailroot, home, &setup).await?;
    add_user(home)?;
    let mut verdicts = Verdicts::new(&format!("{TRIES} logins each of a user and of nobody"));
    let passwords = alternate(server.port, [KNOWN, UNKNOWN], "535", None).await?;
    tell(&mut verdicts, "a wrong password", &passwords);
    let proofs = alternate(server.port, PROOFS, "334", Some(("*", "501"))).await?;
    tell(&mut verdicts, "the first word of a proof", &proofs);
    server.stop().await?;
    Ok(verdicts)
}

/// Says the two lines by turns, so that whatever else the machine does falls on both; how long each answer took,
/// sorted.
async fn alternate(
    port: u16,
    lines: [&str; 2],
    code: &str,
    then: Option<(&str, &str)>,
) -> Outcome<[Vec<Duration>; 2]> {
    let mut waits = [Vec::new(), Vec::new()];
    let mut client = Client::open(port).await?;
    // The first one of each makes what later ones find.
    for try_number in 0..=TRIES {
        if try_number > 0 && try_number % TRIES_IN_SESSION == 0 {
            client = Client::open(port).await?;
        }
        for (line, waits) in lines.iter().zip(&mut waits) {
            let begun = Instant::now();
            client.say(format!("{line}\r\n").as_bytes()).await?;
            client.reply(code).await?;
            if try_number > 0 {
                waits.push(begun.elapsed());
            }
            if let Some((line, code)) = then {
                client.say(format!("{line}\r\n").as_bytes()).await?;
                client.reply(code).await?;
            }
        }
    }
    waits.iter_mut().for_each(|waits| waits.sort_unstable());
    Ok(waits)
}

fn tell(verdicts: &mut Verdicts, what: &str, [known, unknown]: &[Vec<Duration>; 2]) {
    let at = |waits: &[Duration], part: usize| {
        waits.get((waits.len().max(1) - 1) * part / 100).copied().unwrap_or_default()
    };
    for (whose, waits) in [("a user", known), ("nobody", unknown)] {
        let text = format!(
            "{}, {} to {}",
            millis(at(waits, 50)),
            millis(at(waits, 5)),
            millis(at(waits, 95))
        );
        verdicts.tell(&format!("{what}, {whose}: median, 5 to 95 %"), text);
    }
    let difference = at(known, 50).abs_diff(at(unknown, 50));
    let shown = format!("{:.3} ms", difference.as_secs_f64() * 1000.0);
    verdicts.judge(&format!("{what}: difference"), shown, "10 ms", difference < DIFFERENCE_MAX);
}

fn add_user(home: &Path) -> Outcome<()> {
    let mut command = Command::new(programs::mailroot("smtpctl"));
    command.arg("--home").arg(home).args(["user", "add", "ada", "--password-stdin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    child.stdin.take().ok_or("smtpctl takes no words")?.write_all(b"correct horse\n")?;
    if child.wait()?.success() { Ok(()) } else { Err("the user cannot be added".into()) }
}
