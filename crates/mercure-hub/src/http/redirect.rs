use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{any, get};

use super::answer::{request_of, response_of};
use super::site::{Site, Terms};
use crate::api::Answer;

/// The routes of a listener that sends everybody on to HTTPS, but the authority that looks whether
/// the name is ours (RFC 8555, 8.3).
pub(crate) fn redirect(site: Arc<Site>) -> Router {
    Router::new()
        .route("/.well-known/acme-challenge/{token}", get(challenge))
        .fallback(any(elsewhere))
        .with_state(site)
}

async fn challenge(State(site): State<Arc<Site>>, Path(token): Path<String>) -> Response {
    let found = site.tls.as_ref().and_then(|tls| tls.http_challenge(&token));
    response_of(match found {
        Some(answer) => Answer::text(200, answer),
        None => Answer::text(404, "no such challenge\n"),
    })
}

async fn elsewhere(State(site): State<Arc<Site>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let Some(origin) = secure_origin(&site.terms(), &request_of(&head)) else {
        return response_of(Answer::text(400, "the request names no host\n"));
    };
    let mut answer = Answer::text(308, "this hub speaks HTTPS\n");
    answer.headers.push(("Location", format!("{origin}{target}")));
    response_of(answer)
}

/// The public origin, if there is one, else the host that the client wanted at our own port.
fn secure_origin(terms: &Terms, request: &crate::api::Request) -> Option<String> {
    let public = terms.policy.public_origins.iter().find(|origin| origin.starts_with("https:"));
    if let Some(origin) = public {
        return Some(origin.clone());
    }
    let host = url::Url::parse(&format!("http://{}", request.headers.get("host")?)).ok()?;
    let mut origin = url::Url::parse(&terms.service.hub.url().origin()).ok()?;
    origin.set_scheme("https").ok()?;
    origin.set_host(host.host_str()).ok()?;
    Some(origin.origin().ascii_serialization())
}
