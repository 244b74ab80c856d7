use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mercure_engine::{From, Held, Interest, NewSubscriber, Outlet, Permit, Present, Resume};
use mercure_protocol::{
    ClientId, Grants, LastEventId, Matcher, Principal, SubscribeQuery, frame_cursor, frame_retry,
};

use super::{Answer, Request, Service};
use crate::auth::{Policy, Refusal};

/// A subscription that was granted and only needs somewhere to go.
#[derive(Debug)]
pub struct Accepted {
    /// Header fields of the response, without framing ones.
    pub headers: Vec<(&'static str, String)>,
    matchers: Vec<Matcher>,
    grants: Option<Arc<Grants>>,
    from: From,
    retry: Option<Bytes>,
    deadline: Option<Duration>,
    permit: Permit,
    present: Option<Present>,
}

impl Accepted {
    /// Keeps something for as long as the subscriber is there.
    pub fn hold(&mut self, what: Box<dyn Held>) {
        self.permit.hold(what);
    }

    /// The subscriber, with `head` (a response head, or nothing) before its stream.
    #[must_use]
    pub fn into_subscriber(self, outlet: Outlet, head: &[u8]) -> NewSubscriber {
        let mut preamble = BytesMut::from(head);
        preamble.extend(self.retry);
        // At least one byte of the body leaves at once: it makes proxies forward the head.
        preamble.extend_from_slice(b":\n");
        NewSubscriber {
            outlet,
            matchers: self.matchers,
            grants: self.grants,
            from: self.from,
            preamble: preamble.freeze(),
            permit: self.permit,
            present: self.present,
            deadline: self.deadline,
        }
    }
}

/// Serves a subscription request (section "Subscription") up to the point where the stream
/// begins. `given` is an identity that the adapter vouches for.
///
/// # Errors
/// The answer to send instead of a stream.
pub async fn subscribe(
    service: &Service,
    policy: &Policy,
    request: &Request,
    given: Option<Principal>,
) -> Result<Accepted, Answer> {
    let result = accept(service, policy, request, given).await;
    result.map_err(|mut refusal| {
        policy.origins.allow(request, &mut refusal.headers);
        refusal
    })
}

async fn accept(
    service: &Service,
    policy: &Policy,
    request: &Request,
    given: Option<Principal>,
) -> Result<Accepted, Answer> {
    let asked = Asked::parse(service, policy, request, given).await?;
    let resume = asked.resume(service).await?;
    let permit = service.hub.admit(asked.client).map_err(Answer::not_admitted)?;
    let present = service.hub.enter(&asked.matchers, asked.grants.as_deref());
    let present = present.map_err(Answer::not_admitted)?;
    let mut headers = stream_headers();
    if let Some(resume) = &resume {
        headers.extend(cursor_headers(policy, resume));
    }
    policy.origins.allow(request, &mut headers);
    let retry = (!service.retry.is_zero()).then(|| {
        let milliseconds = Service::jittered(service.retry).as_millis();
        frame_retry(u64::try_from(milliseconds).unwrap_or(u64::MAX))
    });
    Ok(Accepted {
        headers,
        deadline: deadline(service, asked.expires_at),
        matchers: asked.matchers,
        // What can read nothing private is not worth keeping.
        grants: asked.grants.filter(|grants| !grants.read_nothing()),
        present,
        from: resume.map_or_else(|| service.hub.now(), |resume| resume.from),
        retry,
        permit,
    })
}

/// Answers one round of a client that polls: what it has missed, and its new cursor.
///
/// A first round answers nothing but the cursor; `EventSource` adopts it and comes back with it.
pub async fn poll(
    service: &Service,
    policy: &Policy,
    request: &Request,
    given: Option<Principal>,
    interval: Duration,
) -> Answer {
    match round(service, policy, request, given, interval).await {
        Ok(answer) | Err(answer) => answer,
    }
}

async fn round(
    service: &Service,
    policy: &Policy,
    request: &Request,
    given: Option<Principal>,
    interval: Duration,
) -> Result<Answer, Answer> {
    let asked = Asked::parse(service, policy, request, given).await?;
    let failed = |error| Answer::transport_failed(&error);
    let mut headers = stream_headers();
    let (frames, retry) = match asked.resume(service).await? {
        None => {
            let head = service.hub.head().await.map_err(failed)?;
            let cursor = head.id.as_ref().map_or(LastEventId::EARLIEST, |id| id.as_str());
            (vec![frame_cursor(cursor)], FIRST_POLL)
        }
        Some(resume) => {
            headers.extend(cursor_headers(policy, &resume));
            let interest = Interest { matchers: &asked.matchers, grants: asked.grants.as_deref() };
            let frames = service.hub.poll(&interest, resume.from).await.map_err(failed)?;
            (frames, Service::jittered(interval))
        }
    };
    let retry = frame_retry(u64::try_from(retry.as_millis()).unwrap_or(u64::MAX));
    let body = std::iter::once(retry).chain(frames).collect::<Vec<_>>().concat();
    policy.origins.allow(request, &mut headers);
    Ok(Answer { status: 200, headers, body })
}

/// How soon a polling client comes back with its first cursor.
const FIRST_POLL: Duration = Duration::from_millis(50);

/// A subscription request, understood and authorized.
struct Asked {
    matchers: Vec<Matcher>,
    last_event_id: Option<LastEventId>,
    grants: Option<Arc<Grants>>,
    expires_at: Option<u64>,
    client: Option<ClientId>,
}

impl Asked {
    async fn parse(
        service: &Service,
        policy: &Policy,
        request: &Request,
        given: Option<Principal>,
    ) -> Result<Self, Answer> {
        let hub = &service.hub;
        let query = parse_query(service, policy, request)?;
        let principal = match given {
            Some(principal) => principal,
            None => policy
                .subscriber(
                    request,
                    query.authorization.as_deref(),
                    hub.url(),
                    &service.limits,
                    hub.clock(),
                )
                .await
                .map_err(|refusal| policy.refuse(refusal, request, hub.url()))?,
        };
        let (grants, expires_at, client) = match principal {
            Principal::Anonymous if !policy.anonymous => {
                return Err(policy.refuse(Refusal::Missing, request, hub.url()));
            }
            Principal::Anonymous | Principal::Application => (None, None, None),
            Principal::Granted { expires_at: Some(at), .. }
                if at <= hub.clock().unix_time().as_secs() =>
            {
                return Err(policy.refuse(Refusal::Invalid, request, hub.url()));
            }
            Principal::Granted { grants, expires_at, client, .. } => {
                (Some(grants), expires_at, client)
            }
        };
        // The header goes before the parameter: it is what EventSource sends on a reconnect.
        let header = request.headers.lossy("last-event-id");
        let header = header.and_then(|value| LastEventId::parse(&value));
        Ok(Self {
            matchers: query.matchers,
            last_event_id: header.or(query.last_event_id),
            grants,
            expires_at,
            client,
        })
    }

    async fn resume(&self, service: &Service) -> Result<Option<Resume>, Answer> {
        match &self.last_event_id {
            None => Ok(None),
            Some(last) => {
                let resume = service.hub.resume(last).await;
                resume.map(Some).map_err(|error| Answer::transport_failed(&error))
            }
        }
    }
}

/// Understands what a request asks to listen to.
fn parse_query(
    service: &Service,
    policy: &Policy,
    request: &Request,
) -> Result<SubscribeQuery, Answer> {
    let (query, form) = (request.query.as_bytes(), request.form.as_slice());
    let parse =
        || SubscribeQuery::parse(query, form, policy.protocol, service.hub.url(), &service.limits);
    // Compiling patterns takes a while; other requests must not wait for it.
    let signs: [&[u8]; 4] = [b"{", b"%7B", b"%7b", b"urlpattern"];
    let has = |text: &[u8], sign: &[u8]| text.windows(sign.len()).any(|window| window == sign);
    let parsed = match signs.iter().any(|sign| has(query, sign)) || !form.is_empty() {
        true => tokio::task::block_in_place(parse),
        false => parse(),
    };
    parsed.map_err(|error| Answer::bad_subscription(&error))
}

/// Where the stream begins, in the fields of both generations: the request does not say which one's
/// client reads the answer (section "Reconciliation").
fn cursor_headers(
    policy: &Policy,
    resume: &Resume,
) -> impl Iterator<Item = (&'static str, String)> {
    let preceding = resume.preceding.as_deref().unwrap_or(LastEventId::EARLIEST).to_owned();
    let v1 = policy.protocol.speaks_v1().then_some("Mercure-Last-Event-ID");
    let v0 = policy.protocol.speaks_v0().then_some("Last-Event-ID");
    v1.into_iter().chain(v0).map(move |name| (name, preceding.clone()))
}

fn stream_headers() -> Vec<(&'static str, String)> {
    vec![
        ("Content-Type", "text/event-stream".to_owned()),
        // no-transform keeps compressors, X-Accel-Buffering keeps nginx from holding events back.
        ("Cache-Control", "no-store, private, no-transform".to_owned()),
        ("X-Accel-Buffering", "no".to_owned()),
    ]
}

/// When the connection ends, on the hub's clock: at the token's end, or at the maximum age.
fn deadline(service: &Service, expires_at: Option<u64>) -> Option<Duration> {
    let clock = service.hub.clock();
    let now = clock.now();
    let expiry =
        expires_at.map(|at| now + Duration::from_secs(at).saturating_sub(clock.unix_time()));
    let age = service.max_connection_age;
    // Up to a quarter earlier, so that streams opened together do not end together.
    let oldest = (!age.is_zero()).then(|| now + age.mul_f64(1.0 - fastrand::f64() / 4.0));
    match (expiry, oldest) {
        (Some(expiry), Some(oldest)) => Some(expiry.min(oldest)),
        (expiry, oldest) => expiry.or(oldest),
    }
}
