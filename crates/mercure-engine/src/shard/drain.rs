//! Streams that end one by one, so that their clients do not all reach the next hub at once.

use std::time::Duration;

use mercure_protocol::frame_retry;

use super::{Drain, Shard};

impl Shard {
    /// Gives every stream a moment within the window at which it ends, unless it ends sooner.
    pub(super) fn drain(&mut self, drain: Drain) {
        self.draining = Some(drain);
        let now = self.shared.clock.now();
        let slots: Vec<_> = self.subscribers.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let moment = now + drain.window.mul_f64(fastrand::f64());
            let subscriber = &mut self.subscribers[slot];
            subscriber.deadline =
                Some(subscriber.deadline.map_or(moment, |sooner| sooner.min(moment)));
            let check = self.shared.next_check(subscriber);
            self.wheel.insert(self.who(slot), check);
        }
    }

    /// The last thing that a client hears, if it has heard everything before.
    pub(super) fn say_when_to_return(&mut self, slot: usize) {
        let Some(drain) = self.draining.filter(|drain| !drain.retry.is_zero()) else { return };
        let now = self.shared.clock.now();
        let subscriber = &mut self.subscribers[slot];
        if !subscriber.is_blocked() {
            let retry = drain.retry.mul_f64(0.5 + fastrand::f64());
            // If it is gone, it need not be told.
            let _ = subscriber.write(&[&frame_retry(milliseconds(retry))], now);
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
