use std::sync::Arc;

use mercure_engine::Attendance;
use mercure_protocol::{
    Generation, LastEventId, Principal, Protocol, SubscriptionsPath, TopicView, collection,
    subscriptions_link,
};
use serde_json::{Value, json};

use super::{Answer, Request, Service};
use crate::auth::{Policy, Refusal};

/// Answers a request for active subscriptions (section "Subscription API"). `path` is as the
/// client wrote it, because it is the topic that its token must grant. `given` is an identity that
/// the adapter vouches for.
pub async fn subscriptions(
    service: &Service,
    policy: &Policy,
    request: &Request,
    path: &str,
    given: Option<Principal>,
) -> Answer {
    let result = answer(service, policy, request, path, given).await;
    let mut answer = result.unwrap_or_else(|refusal| refusal);
    policy.origins.allow(request, &mut answer.headers);
    answer
}

async fn answer(
    service: &Service,
    policy: &Policy,
    request: &Request,
    path: &str,
    given: Option<Principal>,
) -> Result<Answer, Answer> {
    let hub = &service.hub;
    let refused = |refusal| policy.refuse(refusal, request, hub.url());
    let parameter = policy.query_token(request);
    let reader = match given {
        Some(reader) => Ok(reader),
        None => {
            let (limits, clock) = (&service.limits, hub.clock());
            policy.subscriber(request, parameter.as_deref(), hub.url(), limits, clock).await
        }
    };
    let reader = reader.map_err(refused)?;
    let spoken = authorize(service, &reader, path).map_err(refused)?;
    // The cursor first: what changes after it is told by events after it.
    let head = hub.head().await.map_err(|error| Answer::transport_failed(&error))?;
    let cursor = head.id.as_ref().map_or(LastEventId::EARLIEST, |id| id.as_str());
    let attendances = hub.attendances().await.map_err(|error| Answer::transport_failed(&error))?;
    let (version, attendances) = attendances.ok_or_else(not_found)?;
    let (generation, asked) = forms(request, spoken)
        .into_iter()
        .find_map(|form| Some((form, SubscriptionsPath::parse(path, form, hub.url())?)))
        .ok_or_else(not_found)?;
    let etag = format!("\"{generation:?}-{}-{version}\"", head.position.0);
    let document = || document(service, generation, &asked, path, cursor, &attendances);
    // A collection always exists, so one that is known is not built.
    let exists = || !matches!(asked, SubscriptionsPath::One(..)) || document().is_some();
    let mut answer = match is_known(request, &etag) && exists() {
        true => Answer::empty(304),
        false => Answer::json(media_type(generation), &document().ok_or_else(not_found)?),
    };
    answer.headers.extend([
        ("Link", subscriptions_link(&policy.url_for(request, hub.url()), cursor)),
        ("ETag", etag),
        ("Cache-Control", "private, must-revalidate, max-age=0".to_owned()),
        ("Vary", "Accept, Authorization, Cookie".to_owned()),
    ]);
    Ok(answer)
}

/// The forms that the reader may be answered in.
fn authorize(service: &Service, reader: &Principal, path: &str) -> Result<Protocol, Refusal> {
    match reader {
        Principal::Anonymous => Err(Refusal::Missing),
        Principal::Application => Ok(Protocol::Both),
        Principal::Granted { grants, spoken, .. } => {
            let topic = TopicView::new(path, service.hub.url());
            match grants.allow_read(&[topic]) {
                true => Ok(*spoken),
                false => Err(Refusal::Insufficient),
            }
        }
    }
}

/// Forms in which the path may be meant, the likeliest first: those that the token speaks, in the
/// order that `Accept` suggests.
fn forms(request: &Request, spoken: Protocol) -> Vec<Generation> {
    let asks = |media: &str| request.headers.all("accept").any(|value| value.contains(media));
    let v1 = spoken.speaks_v1().then_some(Generation::V1);
    let v0 = spoken.speaks_v0().then_some(Generation::V0);
    let prefers_v0 = asks(media_type(Generation::V0)) && !asks(media_type(Generation::V1));
    let order = if prefers_v0 { [v0, v1] } else { [v1, v0] };
    order.into_iter().flatten().collect()
}

fn media_type(generation: Generation) -> &'static str {
    match generation {
        Generation::V1 => "application/json",
        Generation::V0 => "application/ld+json",
    }
}

fn document(
    service: &Service,
    generation: Generation,
    asked: &SubscriptionsPath,
    path: &str,
    cursor: &str,
    attendances: &[Arc<Attendance>],
) -> Option<Value> {
    let hub = service.hub.url();
    let all = attendances.iter().flat_map(|attendance| attendance.subscriptions(generation));
    let members = match asked {
        SubscriptionsPath::All => all.filter_map(|one| one.document(generation, hub)).collect(),
        SubscriptionsPath::Of(matcher) => {
            let asked = all.filter(|one| matcher.is(one.matcher));
            asked.filter_map(|one| one.document(generation, hub)).collect()
        }
        SubscriptionsPath::One(matcher, subscriber) => {
            let mut asked = all.filter(|one| matcher.is(one.matcher));
            let one = asked.find(|one| one.subscriber.to_string() == *subscriber)?;
            let mut document = one.root_document(generation, hub)?;
            if generation == Generation::V0 {
                document["lastEventID"] = json!(cursor);
            }
            return Some(document);
        }
    };
    Some(collection(generation, path, cursor, members))
}

/// Whether the client has this version (RFC 9110, section 13.1.2).
fn is_known(request: &Request, etag: &str) -> bool {
    let known = request.headers.all("if-none-match").flat_map(|value| value.split(','));
    known.map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == etag)
}

fn not_found() -> Answer {
    Answer::text(404, "there is no such subscription or collection")
}
