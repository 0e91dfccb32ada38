//! What every command needs: where the daemon is, how to print, how to speak with the person.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use mailroot_common::control::{
    Kind, Problem, SOCKET, SOCKET_BELOW_HOME, SUBMIT_SOCKET, SUBMIT_SOCKET_BELOW_HOME, Version,
    path,
};
use mailroot_common::units::Timestamp;
use serde::Serialize;

use crate::args::Global;
use crate::client::Client;
use crate::io_problem;
use crate::output::{Form, Row, Shape, json, json_pretty, print_all, yaml};

/// The tool at work.
pub(crate) struct Tool {
    /// The wishes of the output.
    pub(crate) shape: Shape,
    /// Options of every command.
    pub(crate) global: Global,
    client: Option<Client>,
    sees_own: bool,
}

impl Tool {
    /// Reads the surroundings: clock and terminal.
    pub(crate) fn new(global: Global) -> Self {
        let width =
            if io::stdout().is_terminal() { comfy_table::Table::new().width() } else { None };
        let shape = Shape {
            form: global.output.clone(),
            columns: global.columns.clone(),
            no_headers: global.no_headers,
            sort: global.sort.clone(),
            limit: global.limit,
            time: global.time,
            utc: global.utc,
            width,
            colour: global.color.applies(),
            now: now(),
        };
        Self { shape, global, client: None, sees_own: false }
    }

    /// Where the control socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        socket(self.global.socket.as_deref(), self.global.home.as_deref())
    }

    /// The daemon.
    pub(crate) async fn daemon(&mut self) -> Result<&mut Client, Problem> {
        if self.client.is_none() {
            self.client = Some(Client::connect(&self.socket()).await?);
        }
        self.client.as_mut().ok_or_else(|| Problem::new("daemon", Kind::Failed, "not connected"))
    }

    /// The daemon, for what everybody may ask about his own mail: whoever has no role asks over the
    /// submit socket.
    pub(crate) async fn daemon_of_all(&mut self) -> Result<&mut Client, Problem> {
        if self.client.is_none() {
            let asked = match self.daemon().await {
                Ok(daemon) => daemon.get::<Version>(path::VERSION).await,
                Err(problem) => Err(problem),
            };
            let is_nobody = asked.as_ref().is_err_and(|it| it.kind() == Kind::NotPermitted);
            if is_nobody && self.global.socket.is_none() {
                let socket = submit_socket(self.global.home.as_deref());
                self.client = Some(Client::connect_as_owner(&socket).await?);
                self.sees_own = true;
            } else {
                asked?;
            }
        }
        self.daemon().await
    }

    /// Whether only the person's own mail is seen.
    pub(crate) const fn sees_own(&self) -> bool {
        self.sees_own
    }

    /// The virtual server of commands that need exactly one.
    pub(crate) fn server(&self) -> &str {
        self.global.server.as_deref().unwrap_or("default")
    }

    /// Prints one object: as JSON or YAML whole, for people in `text`'s words, else as a row.
    pub(crate) fn print_object<T: Row>(
        &self,
        object: T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Problem> {
        if self.print_data(&object)? {
            return Ok(());
        }
        let out = &mut stdout();
        if matches!(self.shape.form, Form::Table | Form::Wide) {
            return out.write_all(text(&object).as_bytes()).map_err(io_problem);
        }
        print_all(vec![object], &self.shape, out).map(|_| ())
    }

    /// Prints rows that are all there.
    pub(crate) fn print_rows<T: Row>(&self, rows: Vec<T>) -> Result<(), Problem> {
        print_all(rows, &self.shape, &mut stdout()).map(|_| ())
    }

    /// Prints data in the forms that show all of it; says whether such a form was wished.
    pub(crate) fn print_data(&self, data: &impl Serialize) -> Result<bool, Problem> {
        let text = match self.shape.form {
            Form::Json => json_pretty(data) + "\n",
            Form::Jsonl => json(data) + "\n",
            Form::Yaml => yaml(data),
            _ => return Ok(false),
        };
        stdout().write_all(text.as_bytes()).map(|()| true).map_err(io_problem)
    }

    /// Says what was done: as data if wished, in words to a person at a terminal, else not at all.
    pub(crate) fn say_done(&self, data: &impl Serialize, words: &str) -> Result<(), Problem> {
        if self.global.quiet || self.print_data(data)? || !io::stdout().is_terminal() {
            return Ok(());
        }
        writeln!(stdout(), "{words}").map_err(io_problem)
    }

    /// Says something besides the data, on standard error.
    pub(crate) fn note(&self, words: &str) {
        if !self.global.quiet {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(io::stderr(), "{words}");
        }
    }

    /// Whether a person can be asked.
    pub(crate) fn can_ask(&self) -> bool {
        !self.global.no_input && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks; only `y` or `yes` is consent.
    pub(crate) fn ask(&self, question: &str) -> Result<bool, Problem> {
        let mut answer = String::new();
        let asked = write!(io::stderr(), "{question} [y/N] ")
            .and_then(|()| io::stdin().read_line(&mut answer));
        asked.map_err(io_problem)?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

/// Standard output, buffered; flushed when dropped or by a list's end.
pub(crate) fn stdout() -> impl Write {
    BufWriter::with_capacity(64 * 1024, io::stdout())
}

/// The moment.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Where the control socket is, by what was said.
pub(crate) fn socket(socket: Option<&Path>, home: Option<&Path>) -> PathBuf {
    match (socket, home) {
        (Some(socket), _) => socket.to_owned(),
        (None, Some(home)) => home.join(SOCKET_BELOW_HOME),
        (None, None) => PathBuf::from(SOCKET),
    }
}

/// Where the submit socket is.
pub(crate) fn submit_socket(home: Option<&Path>) -> PathBuf {
    match home {
        Some(home) => home.join(SUBMIT_SOCKET_BELOW_HOME),
        None => PathBuf::from(SUBMIT_SOCKET),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found() {
        let (given, home) = (Path::new("/x/s"), Path::new("/h"));
        assert_eq!(socket(Some(given), Some(home)), given);
        assert_eq!(socket(None, Some(home)), Path::new("/h/run/control.sock"));
        assert_eq!(socket(None, None), Path::new("/run/mailroot/control.sock"));
    }
}
