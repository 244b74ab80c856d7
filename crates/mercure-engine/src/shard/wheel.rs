//! A timer wheel: one entry per subscriber, no timer per connection.

use std::time::Duration;

use super::SlotRef;

/// The wheel's resolution.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// One turn of the wheel is a little over two minutes; what is due later is looked at in between.
const SLOTS: u64 = 512;

#[derive(Debug)]
pub(super) struct Wheel {
    slots: Vec<Vec<SlotRef>>,
    /// The tick whose slot is being emptied.
    tick: u64,
}

impl Wheel {
    pub(super) fn new(now: Duration) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), tick: tick_of(now) }
    }

    /// Schedules a look at a subscriber.
    pub(super) fn insert(&mut self, who: SlotRef, due: Duration, now: Duration) {
        let earliest = tick_of(now).max(self.tick) + 1;
        let tick = tick_of(due).clamp(earliest, earliest + SLOTS - 2);
        self.slot(tick).push(who);
    }

    /// The next entry that is due.
    pub(super) fn expired(&mut self, now: Duration) -> Option<SlotRef> {
        let current = tick_of(now);
        loop {
            let tick = self.tick;
            if let Some(who) = self.slot(tick).pop() {
                return Some(who);
            }
            // Keep the memory of a burst from staying for ever.
            self.slot(tick).shrink_to(64);
            if self.tick >= current {
                return None;
            }
            self.tick += 1;
        }
    }

    fn slot(&mut self, tick: u64) -> &mut Vec<SlotRef> {
        let at = usize::try_from(tick % SLOTS).unwrap_or_default();
        &mut self.slots[at]
    }
}

fn tick_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(slot: u32) -> SlotRef {
        SlotRef { slot, generation: 0 }
    }

    #[test]
    fn entries_fire_once_when_due_and_far_ones_early() {
        let mut wheel = Wheel::new(Duration::ZERO);
        wheel.insert(who(1), Duration::from_secs(1), Duration::ZERO);
        wheel.insert(who(2), Duration::from_secs(3600), Duration::ZERO);
        assert_eq!(wheel.expired(Duration::from_millis(900)), None);
        assert_eq!(wheel.expired(Duration::from_millis(1000)), Some(who(1)));
        assert_eq!(wheel.expired(Duration::from_secs(100)), None);
        assert_eq!(wheel.expired(Duration::from_secs(200)), Some(who(2)));
        assert_eq!(wheel.expired(Duration::from_secs(9000)), None);
    }

    #[test]
    fn an_entry_made_while_time_jumps_is_not_lost() {
        let mut wheel = Wheel::new(Duration::ZERO);
        wheel.insert(who(1), Duration::ZERO, Duration::from_secs(500));
        assert_eq!(wheel.expired(Duration::from_secs(501)), Some(who(1)));
    }
}
