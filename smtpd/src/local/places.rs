//! How many connections there may be, in all and of each user, so that one cannot keep the others out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The places for connections to one socket. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    users: HashMap<u32, usize>,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    uid: u32,
    places: Places,
}

impl Places {
    /// A place for a user, if there is one: so many in all, so many of one user.
    #[must_use]
    pub fn take(&self, uid: u32, all_max: usize, user_max: usize) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = taken.users.get(&uid).copied().unwrap_or_default();
        if taken.all >= all_max || of_user >= user_max {
            return None;
        }
        taken.all += 1;
        taken.users.insert(uid, of_user + 1);
        Some(Place { uid, places: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(count) = taken.users.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                taken.users.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_every_place() {
        let places = Places::default();
        let taken: Vec<_> = (0..16).map_while(|_| places.take(1_000, 16, 4)).collect();
        assert_eq!(taken.len(), 4);
        assert!(places.take(1_001, 16, 4).is_some());
        drop(taken);
        assert!(places.take(1_000, 16, 4).is_some(), "places are given back");
        let all: Vec<_> = (0..200).map_while(|uid| places.take(uid, 16, 4)).collect();
        assert_eq!(all.len(), 16);
        assert!(places.take(1_000, 16, 4).is_none());
    }
}
