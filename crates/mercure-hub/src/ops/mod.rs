//! What an operator wants to know of a running hub: whether it lives, whether it is ready for
//! clients, and figures.

mod metrics;
mod traces;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mercure_engine::{Hub, State};

use self::metrics::Figures;
pub(crate) use self::traces::Publication;
pub use self::traces::{TraceSettings, Traces};
use crate::api::Answer;
use crate::http::Site;

/// How long the engine may be away before a restart of this process is worth a try. Long, because a
/// restart ends every stream, and most often the engine is what is broken.
const LIVE_PATIENCE: Duration = Duration::from_secs(300);

/// How long an event may take to be ready for clients.
const ROUND: Duration = Duration::from_secs(2);

/// What the operator's endpoints are answered from.
#[derive(Debug)]
pub(crate) struct Ops {
    hub: Arc<Hub>,
    site: Arc<Site>,
    figures: Figures,
    stopping: AtomicBool,
}

impl Ops {
    pub(crate) fn new(hub: Arc<Hub>, site: Arc<Site>) -> Self {
        Self { hub, site, figures: Figures::new(), stopping: AtomicBool::new(false) }
    }

    /// Says from now on that no more clients should be sent here.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether this process is worth keeping.
    pub(crate) fn live(&self) -> Answer {
        verdict(&self.hub.transport_state(), self.hub.clock().now(), LIVE_PATIENCE)
    }

    /// Whether clients should be sent here: whether an event would make its round.
    pub(crate) async fn ready(&self) -> Answer {
        if self.stopping.load(Ordering::Relaxed) {
            return Answer::text(503, "the hub is stopping\n");
        }
        let known = verdict(&self.hub.transport_state(), self.hub.clock().now(), Duration::ZERO);
        if known.status != 200 {
            return known;
        }
        match tokio::time::timeout(ROUND, self.hub.make_the_round()).await {
            Ok(Ok(())) => known,
            Ok(Err(error)) => Answer::text(503, format!("{error}\n")),
            Err(_) => {
                let seconds = ROUND.as_secs();
                Answer::text(503, format!("an event would not arrive within {seconds} s\n"))
            }
        }
    }

    /// Figures in Prometheus' text format.
    pub(crate) async fn metrics(&self) -> Answer {
        let mut answer = Answer::text(200, "");
        answer.body = self.figures.of(&self.hub, &self.site).await.into_bytes();
        answer
    }
}

/// The reason is for operators: it may name hosts, never secrets.
fn verdict(state: &State, now: Duration, patience: Duration) -> Answer {
    match state {
        State::Away { since, reason } if now.saturating_sub(*since) >= patience => {
            let seconds = now.saturating_sub(*since).as_secs();
            Answer::text(503, format!("the transport is away for {seconds} s: {reason}\n"))
        }
        State::Away { .. } | State::Available => Answer::text(200, "ok\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_ends_at_once_and_life_much_later() {
        let away = State::Away { since: Duration::from_secs(10), reason: "gone".to_owned() };
        let status = |state: &State, seconds, patience| {
            verdict(state, Duration::from_secs(seconds), patience).status
        };
        assert_eq!(status(&State::Available, 11, Duration::ZERO), 200);
        assert_eq!(status(&away, 10, Duration::ZERO), 503);
        assert_eq!(status(&away, 300, LIVE_PATIENCE), 200);
        assert_eq!(status(&away, 310, LIVE_PATIENCE), 503);
    }
}
