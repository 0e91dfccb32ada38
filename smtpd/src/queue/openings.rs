//! Which routes of held mail are open, and which are claimed by a host that has come for their mail.
//!
//! Open routes are written down in one small file beside the store, replaced whole, so that a host
//! that has asked need not ask again because of a restart. Claims are not: their connection is gone.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use smtpd_core::route::table::RouteName;
use tokio::sync::Notify;

use super::Rest;
use crate::disk::Disk;
use crate::observe::{Level, Log};
use crate::store::guard;

/// The file beside the store.
const FILE: &str = "asked.json";
/// Its next state while that is written.
const DRAFT: &str = ".asked";
/// The largest file that is read.
const FILE_OCTETS_MAX: u64 = 8 << 20;

/// The open routes of one queue.
#[derive(Debug, Default)]
pub(super) struct Openings {
    state: Mutex<State>,
    changed: Notify,
    /// Nothing for a queue in memory.
    place: Option<Place>,
    /// What was written last; held by whoever writes.
    written: tokio::sync::Mutex<Vec<RouteName>>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<RouteName, Opening>,
    claimed: HashSet<RouteName>,
}

#[derive(Debug)]
struct Place {
    disk: Disk,
    directory: PathBuf,
    log: Log,
    server: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Opening {
    /// How many still hurry its mail.
    makers: u32,
    /// Whoever delivers has not heard of it since something changed.
    is_news: bool,
}

impl Openings {
    /// Those written down beside the store, each still to be made. A file that cannot be understood is
    /// told and counts as none. Blocks.
    pub(super) fn open(disk: &Disk, directory: &Path, log: &Log, server: &str) -> Self {
        let path = directory.join(FILE);
        let read = match disk.read(&path, FILE_OCTETS_MAX) {
            Ok(octets) => serde_json::from_slice::<Vec<String>>(&octets).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let names = read.unwrap_or_else(|error| {
            let line = log.line(Level::Error, "asked_unread").word("server", server);
            line.word("file", path.display()).word("error", error).send();
            Vec::new()
        });
        let routes: Vec<RouteName> = names.iter().map(|name| RouteName::from_text(name)).collect();
        let opening = Opening { makers: 1, is_news: true };
        let open = routes.iter().map(|route| (route.clone(), opening)).collect();
        Self {
            state: Mutex::new(State { open, claimed: HashSet::new() }),
            changed: Notify::new(),
            place: Some(Place {
                disk: disk.clone(),
                directory: directory.to_owned(),
                log: log.clone(),
                server: server.to_owned(),
            }),
            written: tokio::sync::Mutex::new(routes),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why held mail on a route is not tried now; nothing if it may be.
    pub(super) fn rest_of(&self, route: &RouteName) -> Option<Rest> {
        let state = self.lock();
        if state.claimed.contains(route) {
            return Some(Rest::Fetched);
        }
        (!state.open.contains_key(route)).then_some(Rest::Held)
    }

    /// The open routes, in order.
    pub(super) fn all(&self) -> Vec<RouteName> {
        let mut routes: Vec<RouteName> = self.lock().open.keys().cloned().collect();
        routes.sort();
        routes
    }

    pub(super) fn begin(&self, route: &RouteName) {
        let mut state = self.lock();
        let opening = state.open.entry(route.clone()).or_default();
        opening.makers += 1;
        opening.is_news = true;
        drop(state);
        self.tell();
    }

    pub(super) fn end_making(&self, route: &RouteName) {
        if let Some(opening) = self.lock().open.get_mut(route) {
            opening.makers = opening.makers.saturating_sub(1);
            opening.is_news = true;
        }
        self.tell();
    }

    pub(super) fn take_news(&self) -> Vec<RouteName> {
        let mut state = self.lock();
        let news = state.open.iter_mut().filter(|(_, opening)| opening.is_news);
        news.map(|(route, opening)| {
            opening.is_news = false;
            route.clone()
        })
        .collect()
    }

    pub(super) fn close_if(&self, is_done: impl Fn(&RouteName) -> bool) -> Vec<RouteName> {
        let mut state = self.lock();
        let State { open, claimed } = &mut *state;
        let is_over = |route: &RouteName, opening: &mut Opening| {
            !opening.is_news && opening.makers == 0 && !claimed.contains(route) && is_done(route)
        };
        open.extract_if(is_over).map(|(route, _)| route).collect()
    }

    /// Claims routes, all or none; says whether it did.
    pub(super) fn claim(&self, routes: &[RouteName]) -> bool {
        let mut state = self.lock();
        let is_free = !routes.iter().any(|route| state.claimed.contains(route));
        if is_free {
            state.claimed.extend(routes.iter().cloned());
        }
        is_free
    }

    /// Ends a claim. Mail that was asked for meanwhile leaves as it would have.
    pub(super) fn unclaim(&self, routes: &[RouteName]) {
        let mut state = self.lock();
        for route in routes {
            state.claimed.remove(route);
            if let Some(opening) = state.open.get_mut(route) {
                opening.is_news = true;
            }
        }
        drop(state);
        self.tell();
    }

    /// Has whoever delivers look.
    pub(super) fn tell(&self) {
        self.changed.notify_one();
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Writes down which routes are open, if that is not what is written already.
    pub(super) async fn keep(&self) {
        let Some(place) = &self.place else { return };
        let mut written = self.written.lock().await;
        let routes = self.all();
        if *written == routes {
            return;
        }
        let (disk, directory) = (place.disk.clone(), place.directory.clone());
        let names: Vec<String> = routes.iter().map(ToString::to_string).collect();
        let write = move || {
            let octets = serde_json::to_vec(&names).map_err(io::Error::other)?;
            disk.replace(&directory.join(FILE), &directory.join(DRAFT), &octets)
        };
        match guard::blocking(write).await {
            Ok(Ok(())) => *written = routes,
            Ok(Err(error)) | Err(error) => {
                let line = place.log.line(Level::Error, "asked_unwritten");
                line.word("server", &place.server).word("error", error).send();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_being_made(&self) -> bool {
        self.lock().open.values().any(|opening| opening.makers > 0)
    }
}
