//! What requests mean: values in, values out, no HTTP library.

mod cors;
mod message;
mod metadata;
mod publish;
mod quotas;
mod subscribe;
mod subscriptions;

use std::sync::Arc;
use std::time::Duration;

use mercure_engine::Hub;
use mercure_protocol::Limits;

pub use self::cors::Origins;
pub use self::message::{Answer, Headers, Request};
pub use self::metadata::metadata;
pub use self::publish::{publish, publish_once, publisher};
pub use self::quotas::{Proxies, Quotas};
pub use self::subscribe::{Accepted, poll, subscribe};
pub use self::subscriptions::subscriptions;
use crate::auth::Policy;
use crate::ops::Traces;

/// What every request is served with.
#[derive(Debug)]
pub struct Service {
    /// The engine.
    pub hub: Arc<Hub>,
    /// Bounds on what clients send.
    pub limits: Limits,
    /// Bound on a request body in bytes.
    pub max_request_body: usize,
    /// Reconnection time told to subscribers, before jitter; zero for none.
    pub retry: Duration,
    /// Longest life of a connection, before jitter; zero for no bound.
    pub max_connection_age: Duration,
    /// Where publications are traced, if anywhere.
    pub traces: Option<Arc<Traces>>,
}

impl Service {
    /// A duration between half and one and a half times the given one, so that clients that
    /// connected together do not return together.
    fn jittered(duration: Duration) -> Duration {
        duration.mul_f64(0.5 + fastrand::f64())
    }
}

/// Answers a preflight request.
#[must_use]
pub fn preflight(policy: &Policy, request: &Request) -> Answer {
    let mut answer = Answer::empty(204);
    policy.origins.allow(request, &mut answer.headers);
    answer.headers.extend([
        ("Access-Control-Allow-Methods", "GET, POST, QUERY, OPTIONS".to_owned()),
        (
            "Access-Control-Allow-Headers",
            "Authorization, Cache-Control, Content-Type, If-None-Match, Last-Event-ID".to_owned(),
        ),
        ("Access-Control-Max-Age", "600".to_owned()),
    ]);
    answer
}
