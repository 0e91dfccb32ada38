//! A name server of the tests' own, for answers that no honest one gives; it counts what it is asked.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const HEADER: usize = 12;
/// How long an answer may be kept.
const TTL: u32 = 60;

/// A record without its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An address.
    A(Ipv4Addr),
    /// A host that takes mail.
    Mx(u16, String),
    /// Another name.
    Alias(String),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An address.
    A,
    /// Hosts that take mail.
    Mx,
    /// Anything else.
    Other(u16),
}

/// A running server; it ends when dropped.
pub struct Names {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, Kind)>>>,
    ending: Arc<AtomicBool>,
}

impl Names {
    /// Answers each question, its name in small letters and without a final dot, with these records and
    /// their names.
    ///
    /// # Panics
    ///
    /// When there is no port.
    #[must_use]
    pub fn serve(answer: impl Fn(&str, Kind) -> Vec<(String, Record)> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let names = Self {
            address: socket.local_addr().unwrap(),
            asked: Arc::default(),
            ending: Arc::default(),
        };
        let (asked, ending) = (Arc::clone(&names.asked), Arc::clone(&names.ending));
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while !ending.load(Ordering::SeqCst) {
                let Ok((length, client)) = socket.recv_from(&mut query) else { continue };
                let Some((name, kind, end)) = question(&query[..length]) else { continue };
                let records = answer(&name, kind);
                asked.lock().unwrap().push((name, kind));
                // Whoever asked may have gone.
                let _gone = socket.send_to(&reply(&query[..end], &records), client);
            }
        });
        names
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked so far.
    ///
    /// # Panics
    ///
    /// When an answer panicked.
    #[must_use]
    pub fn asked(&self) -> Vec<(String, Kind)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
    }
}

/// The question of a query, and where it ends.
fn question(query: &[u8]) -> Option<(String, Kind, usize)> {
    let (mut labels, mut place) = (Vec::new(), HEADER);
    loop {
        let length = usize::from(*query.get(place)?);
        let label = query.get(place + 1..place + 1 + length)?;
        place += length + 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
    }
    let kind = match u16::from_be_bytes([*query.get(place)?, *query.get(place + 1)?]) {
        1 => Kind::A,
        15 => Kind::Mx,
        other => Kind::Other(other),
    };
    query.get(place + 3)?;
    Some((labels.join("."), kind, place + 4))
}

fn reply(question: &[u8], records: &[(String, Record)]) -> Vec<u8> {
    let mut out = question[..2].to_vec();
    out.extend([0x81, 0x80, 0, 1]);
    out.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    out.extend([0; 4]);
    out.extend(&question[HEADER..]);
    for (owner, record) in records {
        let (kind, data) = match record {
            Record::A(address) => (1_u16, address.octets().to_vec()),
            Record::Alias(target) => (5, encoded(target)),
            Record::Mx(preference, host) => {
                (15, [preference.to_be_bytes().to_vec(), encoded(host)].concat())
            }
        };
        out.extend(encoded(owner));
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(TTL.to_be_bytes());
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
    }
    out
}

fn encoded(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}
