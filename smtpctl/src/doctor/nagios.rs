//! `doctor -o nagios`: one line for a monitoring system, with its exit codes.

use std::io::Write as _;

use mailroot_common::control::{Check, Level, Problem};

use crate::io_problem;
use crate::output::escape;
use crate::tool::stdout;

/// Prints the line; the exit code is 0, 1 or 2 by the worst that was found, 3 if nothing could be.
pub(super) fn tell(found: &Result<Vec<Check>, Problem>) -> Result<u8, Problem> {
    let (line, code) = line(found);
    stdout().write_all(line.as_bytes()).map_err(io_problem)?;
    Ok(code)
}

fn line(found: &Result<Vec<Check>, Problem>) -> (String, u8) {
    let checks = match found {
        Ok(checks) => checks,
        Err(problem) => return (format!("MAILROOT UNKNOWN - {}\n", plain(&problem.detail)), 3),
    };
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let (warnings, failures) = (count(Level::Warn), count(Level::Fail));
    let (word, code) = match (warnings, failures) {
        (0, 0) => ("OK", 0),
        (_, 0) => ("WARNING", 1),
        _ => ("CRITICAL", 2),
    };
    let worst = checks.iter().filter(|check| check.level != Level::Ok);
    let worst = worst.max_by_key(|check| check.level);
    let told = worst.map_or_else(
        || format!("{} checks", checks.len()),
        |check| plain(&format!("{}: {}", check.topic, check.text)),
    );
    let data = format!("warnings={warnings};0 failures={failures};;0");
    (format!("MAILROOT {word} - {told} | {data}\n"), code)
}

/// A text without the sign that data begin with.
fn plain(text: &str) -> String {
    escape(&text.replace('|', "/"))
}

#[cfg(test)]
mod tests {
    use mailroot_common::control::Kind;

    use super::*;

    #[test]
    fn the_worst_decides() {
        let check = |level, text: &str| Check::new(level, "dns", "name", text);
        let mut checks = vec![check(Level::Ok, "good")];
        let told = |checks: &[Check]| line(&Ok(checks.to_vec()));
        assert_eq!(
            told(&checks),
            ("MAILROOT OK - 1 checks | warnings=0;0 failures=0;;0\n".to_owned(), 0)
        );
        checks.push(check(Level::Warn, "odd | x"));
        assert_eq!(told(&checks).1, 1);
        assert!(told(&checks).0.starts_with("MAILROOT WARNING - dns: odd / x | warnings=1"));
        checks.push(check(Level::Fail, "bad"));
        assert!(told(&checks).0.starts_with("MAILROOT CRITICAL - dns: bad |"));
        assert_eq!(told(&checks).1, 2);
        let failed = line(&Err(Problem::new("daemon", Kind::Unavailable, "gone")));
        assert_eq!(failed, ("MAILROOT UNKNOWN - gone\n".to_owned(), 3));
    }
}
