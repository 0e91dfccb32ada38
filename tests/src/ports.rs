//! Ports and loopback addresses that no two tests share, in one process or in many.
//!
//! Ports lie below the range the system takes client ports from; a locked file per port keeps parallel
//! test processes apart for as long as they live.

use std::fs::{File, OpenOptions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;

const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port on which nobody listens on 127.0.0.1 and stays ours until this process ends.
///
/// # Panics
///
/// When every port of the range is taken.
#[must_use]
pub fn free() -> u16 {
    let user = nix::unistd::geteuid();
    let folder = std::env::temp_dir().join(format!("mailroot-test-ports-{user}"));
    std::fs::create_dir_all(&folder).unwrap();
    let span = u32::from(LAST - FIRST);
    let start = std::process::id().wrapping_mul(37) % span;
    for step in 0..span {
        let offset = u16::try_from((start + step) % span).unwrap();
        let port = FIRST + offset;
        let Ok(lock) = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(port.to_string()))
        else {
            continue;
        };
        if lock.try_lock().is_err() {
            continue;
        }
        // Asked by connecting: a listener of ours, opened to see whether it can be, could be inherited by a
        // program that another thread starts at this moment, and the port would be in use after all.
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            TAKEN.lock().unwrap().push(lock);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {LAST}");
}

/// A free address on 127.0.0.1.
#[must_use]
pub fn local() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free()))
}

/// Loopback address number `host`, with a given port: several hosts of one MX set share a port.
#[must_use]
pub fn host(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, host)), port)
}
