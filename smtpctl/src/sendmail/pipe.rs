//! `sendmail -bs`: standard input and output are a session with the daemon.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use super::submit::GREETING;
use super::{Failure, TRY_LATER};

const PIECE_OCTETS: usize = 64 << 10;

/// Carries octets both ways until the daemon ends the session.
pub(super) fn run(socket: &Path) -> Result<u8, Failure> {
    let stream = UnixStream::connect(socket).map_err(|error| {
        let words = format!("cannot reach the mail system at {}: {error}", socket.display());
        Failure { code: TRY_LATER, words }
    })?;
    let mut to_daemon = stream.try_clone()?;
    // It ends with the process: nobody waits for a program that has not said QUIT.
    thread::spawn(move || {
        // What cannot be carried shows as the end of the session.
        let _ = copy(&mut io::stdin().lock(), &mut to_daemon);
        let _ = to_daemon.shutdown(Shutdown::Write);
    });
    let mut from_daemon = stream;
    let mut out = io::stdout().lock();
    from_daemon.set_read_timeout(Some(GREETING))?;
    let mut first = [0];
    from_daemon.read_exact(&mut first).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the service has closed the connection",
            _ => "the service does not come",
        };
        let words = format!("{why}; see systemctl status mailroot");
        Failure { code: TRY_LATER, words }
    })?;
    from_daemon.set_read_timeout(None)?;
    out.write_all(&first)?;
    copy(&mut from_daemon, &mut out)?;
    Ok(0)
}

/// Copies what is there as soon as it is there.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE_OCTETS];
    loop {
        let octets = match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(piece.get(..octets).unwrap_or_default())?;
        to.flush()?;
    }
}
