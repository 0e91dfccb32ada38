//! `top`: everything at work, on the whole terminal, looked at again and again.
//!
//! [`look`] asks the daemon and turns its answers into text, [`screen`] knows what is shown and what
//! a key does, [`draw`] puts it on the terminal. The daemon is asked in a task of its own, so that
//! keys are heard while it does not answer. However this ends, the terminal is what it was before.

mod draw;
mod look;
mod screen;

use std::io::{self, IsTerminal};
use std::time::Duration;

use mailroot_common::control::{Kind, Problem, ServerDetail, path};
use mailroot_common::units::Span;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::io_problem;
use crate::tool::Tool;
use look::{News, Observer};
use screen::{Deed, Screen};

/// The shortest pause between two looks.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// How many keys, orders and answers may wait.
const AHEAD: usize = 64;

/// The arguments of `top`.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// How often to look.
    #[arg(long, value_name = "SPAN", default_value = "2s")]
    interval: String,
}

pub(crate) async fn run(tool: &mut Tool, args: &TopArgs) -> Result<u8, Problem> {
    let usage = |detail: String| Problem::new("top", Kind::Usage, detail);
    let interval =
        Span::parse(&args.interval).map_err(|error| usage(format!("--interval: {error}")))?;
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(usage("top needs a terminal to draw on".to_owned()).hint(
            "smtpctl status and smtpctl stats print the same once, with --watch again and again",
        ));
    }
    // What is wrong from the start is told as by every other command.
    tool.daemon().await?;
    if let Some(server) = tool.global.server.clone() {
        let path = path::fill(path::SERVER, &[&server]);
        let _there: ServerDetail = tool.daemon().await?.get(&path).await?;
    }
    let (orders, to_do) = mpsc::channel(AHEAD);
    let (news, heard) = mpsc::channel(AHEAD);
    let interval = interval.as_duration().max(INTERVAL_MIN);
    let observer = Observer::new(tool.socket(), tool.global.server.clone(), tool.shape.clone());
    tokio::spawn(observer.observe(interval, to_do, news));
    let screen = Screen::new(tool.global.server.clone(), tool.shape.colour);
    let terminal = ratatui::try_init().map_err(io_problem)?;
    let shown = show(terminal, screen, orders, heard).await;
    let restored = ratatui::try_restore().map_err(io_problem);
    let code = shown?;
    restored.map(|()| code)
}

/// Shows what is heard until a key or a signal ends it; the exit code.
async fn show(
    mut terminal: ratatui::DefaultTerminal,
    mut screen: Screen,
    orders: mpsc::Sender<Deed>,
    mut heard: mpsc::Receiver<News>,
) -> Result<u8, Problem> {
    let mut keys = read_keys();
    let (mut hung_up, mut ended) = (catch(SignalKind::hangup())?, catch(SignalKind::terminate())?);
    let mut interrupted = catch(SignalKind::interrupt())?;
    loop {
        terminal.draw(|frame| draw::draw(frame, &mut screen)).map_err(io_problem)?;
        let deed = tokio::select! {
            key = keys.recv() => match key {
                Some(Event::Key(key)) => screen.press(key),
                Some(_) => None,
                None => return Ok(0),
            },
            news = heard.recv() => {
                match news {
                    Some(news) => screen.hear(news),
                    None => return Ok(0),
                }
                None
            }
            _ = hung_up.recv() => return Ok(129),
            _ = interrupted.recv() => return Ok(130),
            _ = ended.recv() => return Ok(143),
        };
        match deed {
            Some(Deed::Leave) => return Ok(0),
            // The observer ends with this task; until then there is room, or the key was one too many.
            Some(deed) => drop(orders.try_send(deed)),
            None => {}
        }
    }
}

fn catch(kind: SignalKind) -> Result<Signal, Problem> {
    signal(kind).map_err(|error| {
        Problem::new("top", Kind::Failed, format!("cannot listen for signals: {error}"))
    })
}

/// What is typed, read in a thread that ends with the program.
fn read_keys() -> mpsc::Receiver<Event> {
    let (sender, keys) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}
