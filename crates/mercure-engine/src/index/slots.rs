use roaring::RoaringBitmap;

use super::Slot;

/// Up to so many, a list is smaller and quicker than a set.
const FEW: usize = 16;

/// The subscribers of one topic or pattern: mostly one, sometimes all. Adding and removing cost
/// little at any number, so that everybody may come or go at once.
#[derive(Debug)]
pub(super) enum Slots {
    Few(Vec<Slot>),
    /// In the order of slots, which is the order that subscribers have in memory.
    Many(RoaringBitmap),
}

impl Default for Slots {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Slots {
    pub(super) fn of(slot: Slot) -> Self {
        Self::Few(vec![slot])
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        match self {
            Self::Few(slots) if slots.contains(&slot) => {}
            Self::Few(slots) if slots.len() < FEW => slots.push(slot),
            Self::Few(slots) => *self = Self::Many(slots.iter().copied().chain([slot]).collect()),
            Self::Many(slots) => drop(slots.insert(slot)),
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        match self {
            Self::Few(slots) => slots.retain(|other| *other != slot),
            Self::Many(slots) => {
                slots.remove(slot);
                // Well below the other bound, so that one who comes and goes does not matter.
                if slots.len() <= FEW as u64 / 2 {
                    *self = Self::Few(slots.iter().collect());
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Few(slots) if slots.is_empty())
    }

    pub(super) fn for_each(&self, found: impl FnMut(Slot)) {
        match self {
            Self::Few(slots) => slots.iter().copied().for_each(found),
            Self::Many(slots) => slots.iter().for_each(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_what_a_set_holds(changes in proptest::collection::vec((any::<bool>(), 0..40u32), 0..200)) {
            let (mut slots, mut model) = (Slots::default(), BTreeSet::new());
            for (is_added, slot) in changes {
                match is_added {
                    true => {
                        slots.insert(slot);
                        model.insert(slot);
                    }
                    false => {
                        slots.remove(slot);
                        model.remove(&slot);
                    }
                }
                let mut held = Vec::new();
                slots.for_each(|slot| held.push(slot));
                prop_assert_eq!(held.len(), model.len(), "each once");
                prop_assert_eq!(held.into_iter().collect::<BTreeSet<_>>(), model.clone());
                prop_assert_eq!(slots.is_empty(), model.is_empty());
            }
        }
    }
}
