//! W3C extended log files, as the original wrote them: a directory for each virtual server, a file for each day.
//!
//! A thread of its own hears all sessions and writes; [`smtpd_core::w3c`] says what. Sessions never wait for it:
//! what it is too slow for is lost and counted in the file, so that a disk that hangs or fails stops no mail.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use mailroot_common::control::DialogueLine;
use nix::unistd::{AccessFlags, access};
use smtpd_core::w3c::{FIELDS, Record, Recorder};

use super::dialogues::{Dialogues, Place, Words};
use super::log::{Log, LogError, open_file};
use super::{Level, Mask};

/// Lines of dialogues that wait to be written; more are lost.
const LINES_MAX: usize = 32_000;
/// So many records are written at once.
const RECORDS_AT_ONCE: usize = 1_000;
/// How long the end waits for what is still to be written.
const ENDING: Duration = Duration::from_secs(2);

/// The files, or none.
#[derive(Debug, Default)]
pub struct W3c(Mutex<Option<Writing>>);

#[derive(Debug)]
struct Writing {
    settings: W3cSettings,
    /// Sessions are heard as long as this is there.
    place: Place,
    reopens: Arc<AtomicBool>,
    ended: mpsc::Receiver<()>,
}

/// Where the files are written, and what this machine is called in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct W3cSettings {
    /// The directory above those of virtual servers.
    pub directory: PathBuf,
    /// The machine's name.
    pub computer: String,
}

impl W3c {
    /// Whether files could be written below a directory.
    ///
    /// # Errors
    ///
    /// [`LogError::Directory`] with what stands in the way.
    pub fn check(directory: &Path) -> Result<(), LogError> {
        let failed = |source| LogError::Directory { path: directory.to_owned(), source };
        let there = directory.ancestors().find(|path| path.symlink_metadata().is_ok());
        let there = there.unwrap_or_else(|| Path::new("/"));
        if !there.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        access(there, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| failed(errno.into()))
    }

    /// Writes by other settings from now on, or no more.
    ///
    /// # Errors
    ///
    /// [`LogError::Thread`]; then nothing is written.
    pub fn set(
        &self,
        settings: Option<W3cSettings>,
        dialogues: &Dialogues,
        log: &Log,
    ) -> Result<(), LogError> {
        let mut writing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if writing.as_ref().map(|it| &it.settings) == settings.as_ref() {
            return Ok(());
        }
        *writing = None;
        if let Some(settings) = settings {
            *writing = Some(Writing::begin(settings, dialogues, log.clone())?);
        }
        Ok(())
    }

    /// Opens the files anew, after they were moved away.
    pub fn reopen(&self) {
        if let Some(writing) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            writing.reopens.store(true, Ordering::Relaxed);
        }
    }

    /// Writes what was heard so far and ends; a disk that hangs is not waited for.
    pub fn close(&self) {
        let writing = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Writing { place, ended, .. }) = writing {
            drop(place);
            // Whether it ended or not, there is nothing left to do.
            let _ = ended.recv_timeout(ENDING);
        }
    }
}

impl Writing {
    fn begin(settings: W3cSettings, dialogues: &Dialogues, log: Log) -> Result<Self, LogError> {
        let told = log.clone();
        let (place, lines) =
            dialogues.listen_on(LINES_MAX, move |party| told.tells_of(&party.server)).split();
        let (reopens, (end, ended)) = (Arc::new(AtomicBool::new(false)), mpsc::channel());
        let files = Files { settings: settings.clone(), log, open: BTreeMap::new(), failed: false };
        let asked = Arc::clone(&reopens);
        let run = move || {
            files.write_until_closed(lines, &asked);
            // Nobody may wait for it.
            let _ = end.send(());
        };
        let thread = std::thread::Builder::new().name("w3c".to_owned());
        thread.spawn(run).map_err(LogError::Thread)?;
        Ok(Self { settings, place, reopens, ended })
    }
}

/// What is being written.
struct Files {
    settings: W3cSettings,
    log: Log,
    open: BTreeMap<String, Open>,
    /// Whether the last writing failed, which was told.
    failed: bool,
}

struct Open {
    day: String,
    file: File,
}

impl Files {
    fn write_until_closed(mut self, mut lines: Words, reopens: &AtomicBool) {
        let mut recorder = Recorder::default();
        while let Some(first) = lines.blocking_recv() {
            if reopens.swap(false, Ordering::Relaxed) {
                self.open.clear();
            }
            let mask = self.log.style().mask;
            let mut texts: BTreeMap<(String, String), String> = BTreeMap::new();
            let mut next = Some(first);
            let mut room = RECORDS_AT_ONCE;
            while let Some(line) = next {
                let mut records = recorder.take(&line);
                if !self.log.tells_of(&line.server) {
                    // A connection that was made before is kept open.
                    records.clear();
                }
                gather(&records, &line, mask.as_deref(), &self.settings.computer, &mut texts);
                room -= 1;
                next = if room > 0 { lines.try_recv().ok() } else { None };
            }
            for ((server, day), text) in texts {
                let done = self.write(&server, &day, &text);
                self.tell(&server, done);
            }
        }
    }

    fn write(&mut self, server: &str, day: &str, text: &str) -> io::Result<()> {
        let open = match self.open.get_mut(server).filter(|open| open.day == day) {
            Some(open) => open,
            None => {
                let open = self.begin(server, day)?;
                self.open.entry(server.to_owned()).insert_entry(open).into_mut()
            }
        };
        let done = open.file.write_all(text.as_bytes());
        if done.is_err() {
            // The next try begins anew.
            self.open.remove(server);
        }
        done
    }

    /// Opens the file of a day and writes what goes before the records.
    fn begin(&self, server: &str, day: &str) -> io::Result<Open> {
        let directory = self.settings.directory.join(server);
        DirBuilder::new().recursive(true).mode(0o750).create(&directory)?;
        let path = directory.join(format!("ex{day}.log"));
        let mut file = open_file(&path).map_err(|error| match error {
            LogError::Open { source, .. } => source,
            other => io::Error::other(other.to_string()),
        })?;
        let now = self.log.now().to_string();
        let (date, time) = (now.get(..10).unwrap_or("-"), now.get(11..19).unwrap_or("-"));
        let version = env!("CARGO_PKG_VERSION");
        let head = format!(
            "#Software: Mailroot {version}\n#Version: 1.0\n#Date: {date} {time}\n#Fields: {FIELDS}\n"
        );
        file.write_all(head.as_bytes())?;
        Ok(Open { day: day.to_owned(), file })
    }

    /// Tells that writing has begun to fail, once, or that it succeeds again.
    fn tell(&mut self, server: &str, done: io::Result<()>) {
        match done {
            Err(error) if !std::mem::replace(&mut self.failed, true) => {
                let directory = self.settings.directory.join(server);
                let line = self.log.line(Level::Error, "w3c-failed");
                line.word("file", directory.display()).word("error", error).send();
            }
            Err(_) => {}
            Ok(()) if std::mem::replace(&mut self.failed, false) => {
                self.log.line(Level::Info, "w3c-written").word("server", server).send();
            }
            Ok(()) => {}
        }
    }
}

/// Adds records to the text of their files.
fn gather(
    records: &[Record],
    line: &DialogueLine,
    mask: Option<&Mask>,
    computer: &str,
    texts: &mut BTreeMap<(String, String), String>,
) {
    for record in records {
        let text = texts.entry((record.server.clone(), record.day())).or_default();
        let masked = mask.map(|mask| Record {
            user: mask.show_text(&record.user).into_owned(),
            query: mask.show_text(&record.query).into_owned(),
            ..record.clone()
        });
        text.push_str(&masked.as_ref().unwrap_or(record).line(computer));
        text.push('\n');
    }
    if line.lost > 0
        && let Some(mut first) = texts.first_entry()
    {
        let done = writeln!(first.get_mut(), "#Remark: {} lines of sessions were lost", line.lost);
        debug_assert!(done.is_ok(), "writing into a String cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use mailroot_common::control::Direction;
    use mailroot_common::id::SessionId;
    use smtpd_core::smtp::dialogue::Side;

    use super::super::{Ear, Format, Party};
    use super::*;
    use crate::clock::Clock;

    fn settings(directory: &Path) -> W3cSettings {
        W3cSettings { directory: directory.to_owned(), computer: "relay1".to_owned() }
    }

    fn ear(dialogues: &Dialogues) -> Ear {
        let party = Party {
            id: SessionId::from_u64(7),
            server: "lan".into(),
            direction: Direction::In,
            peer: "192.0.2.1:4000".parse().unwrap(),
        };
        dialogues.ear(party, Clock::real())
    }

    fn say(ear: &mut Ear) {
        ear.hear(Side::Server, b"220 mx\r\n");
        ear.hear(Side::Client, b"MAIL FROM:<bob@x.example>\r\n");
        ear.hear(Side::Server, b"250 ok\r\n");
    }

    #[test]
    fn sessions_are_written_below_the_server_and_not_where_it_is_mute() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("w3c");
        W3c::check(&directory).unwrap();
        let (log, told) = Log::captured(Format::Logfmt, Level::Info, Clock::real());
        let (w3c, dialogues) = (W3c::default(), Dialogues::default());
        w3c.set(Some(settings(&directory)), &dialogues, &log).unwrap();
        let _lan = log.of_server("lan");
        say(&mut ear(&dialogues));
        let texts = || {
            let files = std::fs::read_dir(directory.join("lan")).into_iter().flatten();
            files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok())
        };
        while !texts().any(|text| text.contains(" MAIL ")) {
            std::thread::yield_now();
        }
        log.set_server("lan", false);
        say(&mut ear(&dialogues));
        w3c.close();
        let files: Vec<_> = std::fs::read_dir(directory.join("lan")).unwrap().collect();
        let path = files[0].as_ref().unwrap().path();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.len() == 12 && name.starts_with("ex") && name.ends_with(".log"), "{name}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("\n#Fields: date time c-ip ").count(), 1, "{text}");
        assert_eq!(text.matches(" MAIL - +FROM:<bob@x.example> 250 0 ").count(), 1, "{text}");
        assert_eq!(told.text(), "");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told_once_and_used_when_it_can() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("w3c");
        std::fs::write(&directory, "in the way").unwrap();
        assert!(matches!(W3c::check(&directory), Err(LogError::Directory { .. })));
        let (log, told) = Log::captured(Format::Logfmt, Level::Info, Clock::real());
        let (w3c, dialogues) = (W3c::default(), Dialogues::default());
        w3c.set(Some(settings(&directory)), &dialogues, &log).unwrap();
        let mut ear = ear(&dialogues);
        say(&mut ear);
        while told.text().is_empty() {
            std::thread::yield_now();
        }
        say(&mut ear);
        std::fs::remove_file(&directory).unwrap();
        while !told.text().contains("w3c-written") {
            say(&mut ear);
            std::thread::yield_now();
        }
        assert_eq!(told.text().matches("event=w3c-failed").count(), 1, "{}", told.text());
        w3c.close();
    }

    #[test]
    fn addresses_are_masked_and_lost_lines_are_counted() {
        let mut recorder = Recorder::default();
        let line = |what, text: &str, lost| DialogueLine {
            at: mailroot_common::units::Timestamp::parse("2026-11-30T10:02:48Z").unwrap(),
            id: SessionId::from_u64(7),
            server: "lan".to_owned(),
            direction: Direction::In,
            peer: "192.0.2.1:4000".to_owned(),
            what,
            text: Some(text.to_owned()),
            octets: None,
            lost,
        };
        let mut texts = BTreeMap::new();
        use mailroot_common::control::Spoken::{Client, Server};
        for line in [
            line(Client, "HELO ada@y.example", 0),
            line(Server, "250 ok", 0),
            line(Client, "RCPT TO:<bob@x.example>", 0),
            line(Server, "250 ok", 0),
            line(Client, "NOOP", 7),
        ] {
            gather(&recorder.take(&line), &line, Some(&Mask::DomainOnly), "relay1", &mut texts);
        }
        let text = &texts[&("lan".to_owned(), "261130".to_owned())];
        assert!(text.contains(" RCPT - +TO:<*@x.example> 250 "), "{text}");
        assert!(text.contains(" *@y.example ") && !text.contains("ada"), "{text}");
        assert!(text.ends_with("\n#Remark: 7 lines of sessions were lost\n"), "{text}");
    }
}
