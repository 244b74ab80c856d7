use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::accepting::stopped;

/// What ends a wait for a client: its time, or the hub. Made when a connection waits first and kept
/// for all its requests: to make a timer for each would cost more than to read the request.
pub(super) struct Wait {
    stop: watch::Receiver<bool>,
    timers: Option<Pin<Box<Timers>>>,
}

struct Timers {
    /// May be due earlier than the wait: it is set on only then. Never later.
    sleep: Pin<Box<Sleep>>,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Wait {
    pub(super) fn new(stop: watch::Receiver<bool>) -> Self {
        Self { stop, timers: None }
    }

    /// Whether the hub is stopping.
    pub(super) fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    /// Ready at the deadline, or once the hub is stopping, unless what is waited for `has_begun`.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Instant,
        has_begun: bool,
    ) -> Poll<()> {
        let timers = self.timers.get_or_insert_with(|| {
            let mut stop = self.stop.clone();
            let stopped = Box::pin(async move { stopped(&mut stop).await });
            Box::pin(Timers { sleep: Box::pin(sleep_until(deadline)), stopped })
        });
        let stops = !has_begun;
        if stops && (*self.stop.borrow() || timers.stopped.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(());
        }
        if timers.sleep.deadline() > deadline {
            timers.sleep.as_mut().reset(deadline);
        }
        while timers.sleep.as_mut().poll(cx).is_ready() {
            if timers.sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            timers.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
