//! The rows of the speed table, and how one of them is measured once.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::load::{self, Load, Sink};
use crate::options::Options;
use crate::process;
use crate::server::{Program, Server, Setup, free_port};
use crate::tls_sink::TlsSink;

/// The longest a single measurement may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) relay: bool,
    /// Whether the sink is under TLS. The bound speaks none, and is not measured then.
    pub(crate) under_tls: bool,
    pub(crate) load: Load,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.relay, self.under_tls) {
            (true, true) => "relay under TLS",
            (true, false) => "relay",
            (false, _) => "hold",
        };
        let how = if self.load.open { "open" } else { "new" };
        let size = match self.load.size {
            size if size >= 1 << 20 => format!("{} MiB", size >> 20),
            size => format!("{} KiB", size >> 10),
        };
        write!(f, "{what}, {how}, {size}, {} sessions", self.load.sessions)
    }
}

/// What one measurement came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) cpu_per_thousand: f64,
    pub(crate) memory_kib: u64,
}

impl Row {
    /// The rows that are asked for.
    pub(crate) fn all(options: &Options) -> Vec<Self> {
        let (sizes, sessions): (&[u64], &[u32]) = if options.full {
            (&[1 << 10, 4 << 10, 100 << 10, 1 << 20], &[1, 20, 100])
        } else {
            (&[4 << 10], &[20])
        };
        let mut rows = Vec::new();
        for &size in sizes {
            for &sessions in sessions {
                for (relay, open) in [(false, false), (false, true), (true, false), (true, true)] {
                    let load = Load { sessions, messages: 0, size, open, to: load::TO };
                    rows.push(Self { relay, under_tls: false, load });
                }
                let load = Load { sessions, messages: 0, size, open: true, to: load::TO };
                rows.push(Self { relay: true, under_tls: true, load });
            }
        }
        rows.retain(|row| row.to_string().contains(&options.rows));
        rows
    }

    /// How many messages: about as long for each program, and less where each takes longer.
    pub(crate) fn messages(&self, program: Program, options: &Options) -> u64 {
        let base: u64 = if self.load.open { 40_000 } else { 20_000 };
        let larger = match self.load.size {
            size if size >= 1 << 20 => 80,
            size if size >= 100 << 10 => 10,
            _ => 1,
        };
        let fewer_sessions = if self.load.sessions == 1 { 5 } else { 1 };
        let slower = if program == Program::Postfix { 10 } else { 1 };
        options.messages(base / larger / fewer_sessions / slower)
    }

    /// What the row asks of a server beyond its defaults.
    pub(crate) fn setup(&self, next_hop: u16, options: &Options) -> Setup {
        let mut keys = Vec::new();
        if self.load.sessions > 50 {
            // All clients of the benchmark have one address.
            keys.push(("general", "max_connections_per_client: 200".to_owned()));
        }
        if self.under_tls {
            let smart_host = format!("smart_host: \"[127.0.0.1]:{next_hop}\"");
            keys.push(("delivery", smart_host));
            keys.push(("delivery", "security: {tls: required}".to_owned()));
        }
        let tls = self.under_tls;
        Setup { forwards: self.relay, tls, keys, ..Setup::new(next_hop, options) }
    }

    /// Measures `program` once, in the directory `home`.
    pub(crate) async fn measure(
        &self,
        program: Program,
        home: &Path,
        options: &Options,
    ) -> Outcome<Measured> {
        let (mut sink, mut tls_sink) = (None, None);
        let next_hop = match (self.relay, self.under_tls) {
            (true, true) => tls_sink.insert(TlsSink::start(&home.join("sink")).await?).port,
            (true, false) => sink.insert(Sink::start().await?).port,
            (false, _) => free_port()?,
        };
        let server = Server::start(program, home, &self.setup(next_hop, options)).await?;
        let mut watch = server.watch();
        let messages = self.messages(program, options);
        let warming = (messages / 1000).max(1) * 100;
        self.run(&server, warming).await?;
        if self.relay {
            watch.until(warming, PATIENCE).await?;
        }
        let cpu_before = process::cpu_seconds(server.pid())?;
        let begun = Instant::now();
        self.run(&server, messages).await?;
        if self.relay {
            watch.until(warming + messages, PATIENCE).await?;
        }
        let took = begun.elapsed().as_secs_f64();
        let cpu = process::cpu_seconds(server.pid())? - cpu_before;
        let memory_kib = match program {
            Program::Postfix => process::proportional_kib(server.pid()),
            _ => process::peak_kib(server.pid())?,
        };
        server.stop().await?;
        Ok(Measured {
            per_second: messages as f64 / took,
            cpu_per_thousand: cpu * 1000.0 / messages as f64,
            memory_kib,
        })
    }

    pub(crate) async fn run(&self, server: &Server, messages: u64) -> Outcome<()> {
        Load { messages, ..self.load }.send(server.port, PATIENCE).await
    }
}
