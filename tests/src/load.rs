//! Load: many clients that send tagged messages over and over, and keep the books.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::account::Account;
use crate::message::tagged;
use crate::talk::Talk;

/// A line of what fills a message.
const LINE: &[u8; 100] = &{
    let mut line = [b'y'; 100];
    (line[98], line[99]) = (b'\r', b'\n');
    line
};

/// Clients at work; they end when told to.
pub struct Load {
    /// The books.
    pub account: Arc<Account>,
    /// Sessions that ended although nobody stopped the daemon.
    pub broken: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

/// How a client works.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Clients at once.
    pub clients: usize,
    /// Messages on one connection before QUIT.
    pub per_connection: usize,
    /// Octets of filling in each message.
    pub filling: usize,
}

impl Load {
    /// Starts clients that send to `recipient(number)` until stopped.
    #[must_use]
    pub fn start(
        address: SocketAddr,
        shape: Shape,
        recipient: impl Fn(usize) -> String + Send + Sync + 'static,
    ) -> Self {
        let account = Arc::new(Account::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let broken = Arc::new(AtomicUsize::new(0));
        let recipient = Arc::new(recipient);
        let clients = (0..shape.clients)
            .map(|client| {
                let worker = Worker {
                    address,
                    shape,
                    client,
                    account: Arc::clone(&account),
                    stopping: Arc::clone(&stopping),
                    broken: Arc::clone(&broken),
                };
                let recipient = Arc::clone(&recipient);
                std::thread::spawn(move || worker.run(&*recipient))
            })
            .collect();
        Self { account, broken, stopping, clients }
    }

    /// Ends the clients, each after the message it is at.
    ///
    /// # Panics
    ///
    /// When a client panicked.
    pub fn stop(self) -> Arc<Account> {
        self.stopping.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().unwrap();
        }
        self.account
    }
}

struct Worker {
    address: SocketAddr,
    shape: Shape,
    client: usize,
    account: Arc<Account>,
    stopping: Arc<AtomicBool>,
    broken: Arc<AtomicUsize>,
}

impl Worker {
    fn run(&self, recipient: &dyn Fn(usize) -> String) {
        let mut number = 0;
        while !self.stopping.load(Ordering::SeqCst) {
            if self.connection(&mut number, recipient).is_err() {
                self.broken.fetch_add(1, Ordering::SeqCst);
                std::thread::yield_now();
            }
        }
    }

    fn connection(
        &self,
        number: &mut usize,
        recipient: &dyn Fn(usize) -> String,
    ) -> std::io::Result<()> {
        let mut talk = Talk::try_to(self.address)?;
        talk.try_say("EHLO load.test")?;
        for _ in 0..self.shape.per_connection {
            if self.stopping.load(Ordering::SeqCst) {
                break;
            }
            *number += 1;
            let tag = format!("c{}n{number}", self.client);
            let mut octets = tagged(&tag);
            octets.extend(std::iter::repeat_n(LINE, self.shape.filling / LINE.len()).flatten());
            self.account.leave_open(&tag);
            let to = recipient(*number);
            let reply = talk.message("load@client.test", &[&to], &octets)?;
            if reply.code == 250 {
                self.account.acknowledge(&tag);
            } else {
                talk.try_say("RSET")?;
            }
        }
        talk.try_say("QUIT")?;
        Ok(())
    }
}

/// Processor time that a process has used.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    ticks: u64,
}

impl Spent {
    /// What a process has used up to now.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[must_use]
    pub fn by(pid: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The name, which may hold anything, ends with the last parenthesis.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        Self { ticks: fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum() }
    }

    /// What it has used since an earlier moment.
    #[must_use]
    pub fn since(&self, before: &Self) -> Duration {
        // The kernel tells it in hundredths of a second.
        Duration::from_millis((self.ticks - before.ticks) * 10)
    }
}
