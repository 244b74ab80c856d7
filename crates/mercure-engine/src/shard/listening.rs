//! What a shard listens to and how far it has come, for whoever adds to the log: a shard that an
//! event is nothing to is not woken for it.
//!
//! A wake costs several times what an event without receivers costs otherwise. Nothing can fall in
//! between: the event is in the window before the index is asked, and a shard files a subscriber
//! before it looks where the subscriber begins. So either the index knows the subscriber, or the event
//! is noted already: then the shard stands behind it or, if it cannot go there yet, looks at everything
//! up to there.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use mercure_protocol::TopicView;

use crate::event::Position;
use crate::index::Index;

#[derive(Debug, Default)]
pub(crate) struct Listening {
    index: RwLock<Index>,
    progress: Mutex<Progress>,
}

/// Of the events that the index was asked about; they are noted in the log's order.
#[derive(Debug, Default)]
struct Progress {
    /// The last one.
    noted: Position,
    /// The last one that may be for somebody.
    wanted: Position,
    /// The last one before the first that is wanted and not dispatched.
    clear: Position,
    /// The last one that the shard has dispatched.
    done: Position,
}

impl Listening {
    /// Takes note of an event that the window has got; whether the shard has to look at it.
    pub(crate) fn note(&self, position: Position, topics: &[TopicView<'_>]) -> bool {
        // Held until the note is made: who is filed meanwhile begins before the event or behind it.
        let index = self.index();
        let is_for_somebody = index.may_match(topics);
        let mut progress = self.progress();
        if is_for_somebody {
            if progress.wanted <= progress.done {
                progress.clear = progress.noted;
            }
            progress.wanted = position;
        }
        progress.noted = position;
        is_for_somebody
    }

    /// Makes the shard look at the log up to here, whatever it holds.
    pub(crate) fn note_all(&self, through: Position) {
        let mut progress = self.progress();
        (progress.noted, progress.wanted) = (through, through);
    }

    /// Whether the log may hold something for the shard after `cursor`.
    pub(super) fn has_news(&self, cursor: Position) -> bool {
        self.progress().wanted > cursor
    }

    /// Whether nothing up to here is left for the shard to dispatch.
    pub(crate) fn has_passed(&self, position: Position) -> bool {
        let progress = self.progress();
        let passed = match progress.wanted > progress.done {
            true => progress.clear.max(progress.done),
            false => progress.noted,
        };
        passed >= position
    }

    /// Where a shard stands that has dispatched up to `cursor`: further on, if what follows is
    /// nothing to it.
    pub(super) fn skip(&self, cursor: Position) -> Position {
        let mut progress = self.progress();
        progress.done = cursor;
        cursor.max(if progress.wanted > cursor { progress.clear } else { progress.noted })
    }

    /// Makes the shard, which stands at `cursor`, look at what was noted before somebody was filed: it
    /// may be for the one who was filed.
    pub(super) fn recall(&self, cursor: Position) {
        let mut progress = self.progress();
        if progress.noted > cursor {
            progress.wanted = progress.noted;
            progress.clear = progress.clear.min(cursor);
        }
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index, to be changed by the shard.
    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
