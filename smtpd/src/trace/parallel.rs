//! Unpacking blocks on several threads at once, for questions that filters cannot answer.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{available_parallelism, scope};

use super::read::{Place, Reader};

/// How many blocks are looked at before what they told is taken, at first and later: a question that
/// the newest blocks answer reads few, and memory holds what one batch told.
pub(super) const BATCH_FIRST: usize = 4;
pub(super) const BATCH: usize = 128;
/// How many threads one question may have.
const THREADS_MAX: usize = 4;

/// Hands the events of each block to `visit`, and gives back what that made of them in the order of
/// the places; nothing for blocks that are damaged.
pub(super) fn visit_blocks<T: Send>(
    reader: &Reader,
    places: &[Place],
    visit: impl Fn(&Place, &[u8]) -> T + Sync,
) -> Vec<Option<T>> {
    let one = |place: &Place| reader.events(place).map(|plain| visit(place, &plain));
    let threads = available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    if threads == 1 || places.len() < BATCH_FIRST {
        return places.iter().map(one).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(place) = places.get(number) else { return done };
            done.push((number, one(place)));
        }
    };
    let mut all: Vec<(usize, Option<T>)> = scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        all
    });
    all.sort_unstable_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, told)| told).collect()
}
