//! The newest events, in memory, for every shard to read.
//!
//! A shard is a cursor here, so a slow shard holds nothing up and needs no queue; what has left
//! the window is read from the transport.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::event::{Event, Position};

#[derive(Debug)]
pub(crate) struct Window {
    recent: RwLock<Recent>,
    max_events: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Recent {
    /// Each with the moment in which it came.
    events: VecDeque<(Arc<Event>, Duration)>,
    bytes: usize,
    /// Every event after this position is in the window.
    floor: Position,
}

/// Whether the window could answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Covered {
    Yes,
    /// The cursor is older than the window: ask the transport.
    No,
}

impl Window {
    pub(crate) fn new(floor: Position, max_events: usize, max_bytes: usize) -> Self {
        let recent = Recent { events: VecDeque::new(), bytes: 0, floor };
        Self { recent: RwLock::new(recent), max_events, max_bytes }
    }

    /// Adds the next event of the log, which came just now.
    pub(crate) fn push(&self, event: Arc<Event>, now: Duration) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        recent.bytes += event.record.size();
        recent.events.push_back((event, now));
        while recent.events.len() > self.max_events || recent.bytes > self.max_bytes {
            let Some((oldest, _)) = recent.events.pop_front() else {
                break;
            };
            recent.bytes -= oldest.record.size();
            recent.floor = oldest.position;
        }
    }

    /// Adds events that come after `floor` and right before those that are here; nothing if they do not, or
    /// if there is no room.
    pub(crate) fn extend_back(&self, floor: Position, events: VecDeque<Arc<Event>>, now: Duration) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        let bytes = recent.bytes + events.iter().map(|event| event.record.size()).sum::<usize>();
        let fits = recent.events.len() + events.len() <= self.max_events && bytes <= self.max_bytes;
        if fits && events.back().is_some_and(|event| event.position == recent.floor) {
            events.into_iter().rev().for_each(|event| recent.events.push_front((event, now)));
            (recent.bytes, recent.floor) = (bytes, floor);
        }
    }

    /// Raises the floor to where the log is followed from.
    pub(crate) fn begin_after(&self, position: Position) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        // What was pushed already comes after it.
        recent.floor = recent.floor.max(position);
    }

    /// Forgets everything: the next event comes after this position, and what is between is gone.
    pub(crate) fn restart_after(&self, position: Position) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        recent.events.clear();
        recent.bytes = 0;
        recent.floor = position;
    }

    /// Position of the newest event.
    pub(crate) fn head(&self) -> Position {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        recent.events.back().map_or(recent.floor, |(event, _)| event.position)
    }

    /// When the event at a place came, if it is here.
    pub(crate) fn came_at(&self, position: Position) -> Option<Duration> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        let at = recent.events.partition_point(|(event, _)| event.position < position);
        let (event, came) = recent.events.get(at)?;
        (event.position == position).then_some(*came)
    }

    /// Size of what it holds, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.recent.read().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Appends to `out` up to `limit` events after a position and up to another.
    pub(crate) fn read(
        &self,
        after: Position,
        through: Position,
        limit: usize,
        out: &mut Vec<Arc<Event>>,
    ) -> Covered {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        if after < recent.floor {
            return Covered::No;
        }
        let first = recent.events.partition_point(|(event, _)| event.position <= after);
        let next = recent.events.range(first..).take_while(|(event, _)| event.position <= through);
        out.extend(next.take(limit).map(|(event, _)| Arc::clone(event)));
        Covered::Yes
    }
}
