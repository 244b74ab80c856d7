use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::answer::response_of;
use crate::ops::Ops;

/// The routes for operators: on a listener of their own, since they are nobody else's business.
pub(crate) fn ops(ops: Arc<Ops>) -> Router {
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(ops)
}

async fn live(State(ops): State<Arc<Ops>>) -> Response {
    response_of(ops.live())
}

async fn ready(State(ops): State<Arc<Ops>>) -> Response {
    response_of(ops.ready().await)
}

async fn metrics(State(ops): State<Arc<Ops>>) -> Response {
    response_of(ops.metrics().await)
}
