use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, map_response_with_state};
use axum::response::Response;
use axum::routing::{any, get, post};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mercure_engine::body;
use mercure_protocol::{Metadata, Principal};

use super::answer::{request_of, response_of, stream_of};
use super::gate::OwnPlace;
use super::pages::pages;
use super::site::Site;
use crate::api::{self, Answer};
use crate::auth::Policy;
use crate::bus::{Companion, Relayed};

/// What a listener serves, for whoever only passes it on.
pub(crate) type Routes = Router;

/// The routes of the public listeners.
pub(crate) fn public(site: Arc<Site>) -> Router {
    let hub = site.hub_path.clone();
    let mut router = Router::new()
        .route(&hub, any(hub_resource))
        .route(&format!("{hub}/subscriptions"), any(subscriptions))
        .route(&format!("{hub}/subscriptions/{{*rest}}"), any(subscriptions));
    for path in metadata_paths(&site) {
        router = router.route(&path, any(metadata));
    }
    if site.pages.is_some() {
        router = router.merge(pages(&hub));
    }
    let counted = map_response_with_state(Arc::clone(&site), count);
    router.fallback(elsewhere).layer(from_fn(named)).layer(counted).with_state(site)
}

async fn count(State(site): State<Arc<Site>>, response: Response) -> Response {
    site.gate.refusals.count_answer(response.status().as_u16());
    response
}

/// A request over HTTP/1.1 names one host (RFC 9112, 3.2): what is in between could understand another
/// one by none or several.
async fn named(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(http::header::HOST).iter().count();
    match request.version() == http::Version::HTTP_11 && hosts != 1 {
        true => response_of(Answer::text(400, "the request has to name one host\n")),
        false => next.run(request).await,
    }
}

/// Somebody looks at the server: say what it is and where the hub is.
async fn elsewhere(State(site): State<Arc<Site>>, request: Request) -> Response {
    let (status, what) = match request.uri().path() {
        "/" => (200, "This is a Mercure hub."),
        _ => (404, "There is nothing here."),
    };
    response_of(Answer::text(status, format!("{what} Its URL is {}\n", site.hub_path)))
}

/// Where the metadata is looked for: derived from the hub's own URL and, if that is another one,
/// from its resource identifier.
fn metadata_paths(site: &Site) -> Vec<String> {
    let terms = site.terms();
    if !terms.policy.metadata {
        return Vec::new();
    }
    let identifier = url::Url::parse(&terms.policy.resource_identifier).ok();
    let identifier = identifier.filter(|url| matches!(url.scheme(), "http" | "https"));
    let identified = identifier.map(|url| url.path().trim_end_matches('/').to_owned());
    let mut paths = vec![site.hub_path.clone()];
    // Only what a route can be made of: other signs mean something else there.
    let sign = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    let plain = |path: &String| path.bytes().all(sign) && *path != site.hub_path;
    paths.extend(identified.filter(plain));
    paths.iter().map(|path| Metadata::path(path)).collect()
}

/// The hub's own URL: what is asked for is decided by the method.
async fn hub_resource(State(site): State<Arc<Site>>, request: Request) -> Response {
    match request.method().as_str() {
        "GET" => subscribe(&site, request).await,
        "QUERY" => query(&site, request).await,
        "POST" => publish(&site, request).await,
        "OPTIONS" => preflight(&site, request),
        _ => response_of(Answer::method_not_allowed("GET, POST, QUERY, OPTIONS")),
    }
}

async fn subscriptions(State(site): State<Arc<Site>>, request: Request) -> Response {
    match request.method().as_str() {
        "GET" | "HEAD" => {
            let (head, _) = request.into_parts();
            let terms = site.terms();
            let (service, policy) = (&terms.service, &terms.policy);
            let (request, path) = (request_of(&head), head.uri.path());
            response_of(api::subscriptions(service, policy, &request, path, None).await)
        }
        "OPTIONS" => preflight(&site, request),
        _ => response_of(Answer::method_not_allowed("GET, HEAD, OPTIONS")),
    }
}

async fn metadata(State(site): State<Arc<Site>>, request: Request) -> Response {
    match request.method().as_str() {
        "GET" | "HEAD" => {
            let (head, _) = request.into_parts();
            let terms = site.terms();
            response_of(api::metadata(&terms.service, &terms.policy, &request_of(&head)))
        }
        "OPTIONS" => preflight(&site, request),
        _ => response_of(Answer::method_not_allowed("GET, HEAD, OPTIONS")),
    }
}

async fn subscribe(site: &Site, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let (request, terms) = (request_of(&head), site.terms());
    respond(site.subscribe(&request, place(&head)).await, &terms.service)
}

/// The place of the connection, if it may carry several streams.
fn place(head: &http::request::Parts) -> Option<&OwnPlace> {
    head.extensions.get().filter(|_| head.version == http::Version::HTTP_2)
}

/// A subscription whose parameters are in the body (RFC 10008).
async fn query(site: &Site, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let (mut request, terms) = (request_of(&head), site.terms());
    let (service, policy) = (&terms.service, &terms.policy);
    let mut refusal = match request.is_form() {
        true => match read(body, service.max_request_body).await {
            Ok(form) => {
                request.form = form.into();
                return respond(site.subscribe(&request, place(&head)).await, service);
            }
            Err(refusal) => refusal,
        },
        false => Answer::not_a_form(),
    };
    policy.origins.allow(&request, &mut refusal.headers);
    response_of(refusal)
}

async fn publish(site: &Site, request: Request) -> Response {
    let (head, body) = request.into_parts();
    response_of(publication(site, &request_of(&head), body).await.unwrap_or_else(|refusal| refusal))
}

/// Judges the credentials before anything of the body is kept.
async fn publication(
    site: &Site,
    request: &api::Request,
    body: axum::body::Body,
) -> Result<Answer, Answer> {
    let terms = site.terms();
    let (service, policy) = (&terms.service, &terms.policy);
    let principal = match site.publisher(&terms, request).await {
        Ok(principal) => principal,
        Err(refusal) => {
            drain(body, service.max_request_body).await;
            return Err(refusal);
        }
    };
    let body = read(body, service.max_request_body).await?;
    Ok(api::publish(service, policy, request, &body, &principal).await)
}

fn preflight(site: &Site, request: Request) -> Response {
    let (head, _) = request.into_parts();
    response_of(api::preflight(&site.terms().policy, &request_of(&head)))
}

/// A stream through the library's body, or the refusal.
fn respond(result: Result<api::Accepted, Answer>, service: &api::Service) -> Response {
    match result {
        Ok(accepted) => {
            let (outlet, reader) = body();
            let headers = accepted.headers.clone();
            service.hub.attach(accepted.into_subscriber(outlet, &[]));
            stream_of(headers, reader)
        }
        Err(answer) => response_of(answer),
    }
}

/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes in what a client sends along with a request that is refused: some never see the answer if it comes
/// while they are still sending.
async fn drain(body: axum::body::Body, limit: usize) {
    const MOMENT: Duration = Duration::from_secs(3);
    // Nobody is asked to send what is not read to its end.
    if http_body::Body::size_hint(&body).lower() > limit as u64 {
        return;
    }
    let mut body = Limited::new(body, limit);
    let gone = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whatever comes of it, the answer is the same.
    let _ = tokio::time::timeout(MOMENT, gone).await;
}

async fn read(body: axum::body::Body, limit: usize) -> Result<Bytes, Answer> {
    // What is said to be too long is not waited for.
    if http_body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(Answer::body_too_large(limit));
    }
    let body = Limited::new(body, limit).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Answer::body_too_large(limit)),
        Ok(Err(_)) => Err(Answer::text(400, "the request body could not be read")),
        Err(_) => Err(Answer::text(408, "the request body did not arrive in time")),
    }
}

/// The routes of a companion's bus. Whoever can connect is the same user, so requests are the
/// application's own; those that it passes on for its clients carry the rules to judge them by.
pub(crate) fn bus(companion: Arc<Companion>) -> Router {
    Router::new()
        .route("/publish", post(bus_publish))
        .route("/publish-once", post(bus_publish_once))
        .route("/subscriptions", get(bus_subscriptions))
        .route("/subscriptions/{*rest}", get(bus_subscriptions))
        .route("/relay/publish", post(relay_publish))
        .route("/relay/subscribe", post(relay_subscribe))
        .route("/relay/subscriptions", post(relay_subscriptions))
        .route("/relay/poll", post(relay_poll))
        .route("/status", get(status))
        .route("/retire", post(retire))
        .layer(map_response_with_state(Arc::clone(&companion), redirect))
        .with_state(companion)
}

/// What this companion refuses because another one takes its place, that one will accept.
async fn redirect(State(companion): Shared, mut response: Response) -> Response {
    if companion.is_leaving() && response.status() == StatusCode::SERVICE_UNAVAILABLE {
        *response.status_mut() = StatusCode::GONE;
    }
    response
}

type Shared = State<Arc<Companion>>;

async fn bus_publish(State(companion): Shared, request: Request) -> Response {
    let service = &companion.service;
    response_of(match read(request.into_body(), service.max_request_body).await {
        Ok(body) => {
            let (policy, request) = (Policy::closed(), api::Request::default());
            api::publish(service, &policy, &request, &body, &Principal::Application).await
        }
        Err(answer) => answer,
    })
}

async fn bus_publish_once(State(companion): Shared, request: Request) -> Response {
    let service = &companion.service;
    response_of(match read(request.into_body(), service.max_request_body).await {
        Ok(body) => api::publish_once(service, &body).await,
        Err(answer) => answer,
    })
}

async fn bus_subscriptions(State(companion): Shared, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let (policy, application) = (Policy::closed(), Some(Principal::Application));
    let (service, request) = (&companion.service, request_of(&head));
    let path = format!("{}{}", service.hub.url().path(), head.uri.path());
    response_of(api::subscriptions(service, &policy, &request, &path, application).await)
}

async fn relay_subscriptions(State(companion): Shared, request: Request) -> Response {
    response_of(match relayed(request, &companion).await {
        Ok(relayed) => relayed.subscriptions(&companion.service).await,
        Err(answer) => answer,
    })
}

async fn relay_publish(State(companion): Shared, request: Request) -> Response {
    response_of(match relayed(request, &companion).await {
        Ok(relayed) => relayed.publish(&companion.service).await,
        Err(answer) => answer,
    })
}

async fn relay_subscribe(State(companion): Shared, request: Request) -> Response {
    let result = match relayed(request, &companion).await {
        Ok(relayed) => relayed.subscribe(&companion.service).await,
        Err(answer) => Err(answer),
    };
    respond(result, &companion.service)
}

async fn relay_poll(State(companion): Shared, request: Request) -> Response {
    response_of(match relayed(request, &companion).await {
        Ok(relayed) => relayed.poll(&companion.service, companion.poll_interval).await,
        Err(answer) => answer,
    })
}

async fn relayed(request: Request, companion: &Companion) -> Result<Relayed, Answer> {
    // The envelope repeats the client's body as a JSON string: at most six times as long.
    let limit = companion.service.max_request_body.saturating_mul(6).saturating_add(1 << 20);
    Relayed::parse(&read(request.into_body(), limit).await?, &companion.service)
}

async fn status(State(companion): Shared) -> Response {
    response_of(companion.status().await)
}

async fn retire(State(companion): Shared) -> Response {
    companion.retire();
    response_of(Answer::empty(204))
}
