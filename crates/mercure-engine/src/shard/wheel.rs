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
    ///
    /// Always ahead of the slot that is being emptied, and less than a turn: whoever is looked at
    /// too early, because it is due later than a turn or because the wheel lags behind the clock,
    /// is scheduled anew further on, so that emptying ends.
    pub(super) fn insert(&mut self, who: SlotRef, due: Duration) {
        let tick = tick_of(due).clamp(self.tick + 1, self.tick + SLOTS - 1);
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
        wheel.insert(who(1), Duration::from_secs(1));
        wheel.insert(who(2), Duration::from_secs(3600));
        assert_eq!(wheel.expired(Duration::from_millis(900)), None);
        assert_eq!(wheel.expired(Duration::from_millis(1000)), Some(who(1)));
        assert_eq!(wheel.expired(Duration::from_secs(100)), None);
        assert_eq!(wheel.expired(Duration::from_secs(200)), Some(who(2)));
        assert_eq!(wheel.expired(Duration::from_secs(9000)), None);
    }

    #[test]
    fn an_entry_made_while_time_jumps_is_not_lost() {
        let mut wheel = Wheel::new(Duration::ZERO);
        wheel.insert(who(1), Duration::ZERO);
        assert_eq!(wheel.expired(Duration::from_secs(501)), Some(who(1)));
    }

    /// Looks at everybody who is said to be due, and schedules them anew, as a shard does.
    fn looks(wheel: &mut Wheel, now: Duration, due: Duration) -> u32 {
        let mut looks = 0;
        while let Some(who) = wheel.expired(now) {
            looks += 1;
            assert!(looks < 1000, "emptying ends");
            wheel.insert(who, due);
        }
        looks
    }

    #[test]
    fn a_wheel_that_was_idle_for_long_is_emptied_in_the_end() {
        for idle in [60, 113, 118, 127, 128, 129, 135, 300, 100_000] {
            for ahead in [1, 15, 60, 127, 128, 300] {
                let now = Duration::from_secs(idle);
                let due = now + Duration::from_secs(ahead);
                let mut wheel = Wheel::new(Duration::ZERO);
                wheel.insert(who(1), due);
                looks(&mut wheel, now, due);
                assert_eq!(wheel.expired(due), Some(who(1)), "{idle} s idle, due in {ahead} s");
            }
        }
    }

    #[test]
    fn a_wheel_that_is_late_is_emptied_in_the_end() {
        let period = Duration::from_secs(300);
        let mut wheel = Wheel::new(Duration::ZERO);
        wheel.insert(who(1), period);
        for seconds in (0..1000).step_by(7) {
            let now = Duration::from_secs(seconds);
            assert!(looks(&mut wheel, now, now + period) <= 1);
        }
    }
}
