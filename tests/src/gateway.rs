//! A way from TCP on loopback to a Unix socket, for tools that speak HTTP over TCP only.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

/// The way, open for as long as the process runs.
#[derive(Clone, Copy, Debug)]
pub struct Gateway {
    /// Where it is entered.
    pub address: SocketAddr,
}

impl Gateway {
    /// Opens a way to a socket.
    ///
    /// # Panics
    ///
    /// When there is no port.
    #[must_use]
    pub fn to(socket: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket: PathBuf = socket.to_owned();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let socket = socket.clone();
                // A client whose way is closed sees that itself.
                thread::spawn(move || carry(&client, &socket));
            }
        });
        Self { address }
    }
}

fn carry(client: &TcpStream, socket: &Path) -> io::Result<()> {
    let daemon = UnixStream::connect(socket)?;
    let (mut from_client, mut to_daemon) = (client.try_clone()?, daemon.try_clone()?);
    thread::spawn(move || {
        let done = io::copy(&mut from_client, &mut to_daemon);
        let _ = to_daemon.shutdown(Shutdown::Write);
        done
    });
    let (mut from_daemon, mut to_client) = (daemon, client.try_clone()?);
    let done = io::copy(&mut from_daemon, &mut to_client).map(|_| ());
    let _ = to_client.shutdown(Shutdown::Both);
    done
}
