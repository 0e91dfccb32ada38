//! Ordered sets of messages, the large ones apart: whoever may not carry large mail does not even look at
//! it, however much of it waits.

use std::collections::BTreeSet;

use mailroot_common::id::QueueId;

use super::link::{LARGE, Link};

/// Which messages are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sizes {
    /// All.
    All,
    /// Those that are not large.
    Small,
}

/// Messages in the order of a key.
#[derive(Debug)]
pub(super) struct BySize<K> {
    small: BTreeSet<(K, QueueId)>,
    large: BTreeSet<(K, QueueId)>,
}

impl<K> Default for BySize<K> {
    fn default() -> Self {
        Self { small: BTreeSet::new(), large: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> BySize<K> {
    /// Those that are as large as the message of the link.
    pub(super) fn of(&mut self, link: &Link) -> &mut BTreeSet<(K, QueueId)> {
        if link.flags & LARGE == 0 { &mut self.small } else { &mut self.large }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    fn large(&self, sizes: Sizes) -> Option<&BTreeSet<(K, QueueId)>> {
        (sizes == Sizes::All).then_some(&self.large)
    }

    pub(super) fn first(&self, sizes: Sizes) -> Option<(K, QueueId)> {
        let large = self.large(sizes).and_then(BTreeSet::first);
        self.small.first().into_iter().chain(large).min().copied()
    }

    pub(super) fn pop_first(&mut self, sizes: Sizes) {
        let first = self.first(sizes);
        if first.is_some() && first == self.small.first().copied() {
            self.small.pop_first();
        } else if first.is_some() {
            self.large.pop_first();
        }
    }

    /// All of them in order, each with whether it is large.
    pub(super) fn all(&self, sizes: Sizes) -> impl Iterator<Item = (K, QueueId, bool)> + '_ {
        let mut small = self.small.iter().peekable();
        let mut large = self.large(sizes).into_iter().flatten().peekable();
        std::iter::from_fn(move || {
            let is_large = match (small.peek(), large.peek()) {
                (Some(one), Some(other)) => other < one,
                (one, _) => one.is_none(),
            };
            let (key, id) = if is_large { large.next()? } else { small.next()? };
            Some((*key, *id, is_large))
        })
    }
}
