use std::sync::Arc;

use mercure_engine::{Hub, PublishError, TransportError};
use mercure_protocol::{EventId, Principal, Update};

use super::{Answer, Request, Service};
use crate::auth::{Policy, Refusal};
use crate::ops::Publication as Trace;

/// Who asks to publish: the first half of a publish request, before its body is read.
///
/// # Errors
/// The answer to send if nobody may publish with these credentials, or in this form.
pub async fn publisher(
    service: &Service,
    policy: &Policy,
    request: &Request,
) -> Result<Principal, Answer> {
    let hub = &service.hub;
    let principal = match request.is_form() {
        true => policy
            .publisher(request, hub.url(), &service.limits, hub.clock())
            .await
            .map_err(|refusal| policy.refuse(refusal, request, hub.url())),
        false => Err(Answer::not_a_form()),
    };
    principal.map_err(|mut refusal| {
        policy.origins.allow(request, &mut refusal.headers);
        refusal
    })
}

/// Publishes the update that a body describes (section "Publication").
pub async fn publish(
    service: &Service,
    policy: &Policy,
    request: &Request,
    body: &[u8],
    principal: &Principal,
) -> Answer {
    let trace = service.traces.as_ref().map(|traces| traces.publication(request));
    let result = accept(service, policy, request, body, principal, trace.as_ref()).await;
    let mut answer = match result {
        Ok(id) => Answer::published(id),
        Err(refusal) => refusal,
    };
    if let Some(trace) = trace {
        trace.answered(answer.status);
    }
    policy.origins.allow(request, &mut answer.headers);
    answer
}

/// Publishes an update of the application, which may have been published before, under the same
/// id: then it is not repeated.
pub async fn publish_once(service: &Service, body: &[u8]) -> Answer {
    let hub = &service.hub;
    if let Ok(update) = Update::from_form(body, hub.url(), &service.limits)
        && let Some(id) = update.id()
    {
        match hub.holds(id).await {
            Ok(true) => return Answer::published(id.to_string()),
            Ok(false) => {}
            Err(error) => return Answer::transport_failed(&error),
        }
    }
    let (policy, request) = (Policy::closed(), Request::default());
    publish(service, &policy, &request, body, &Principal::Application).await
}

async fn accept(
    service: &Service,
    policy: &Policy,
    request: &Request,
    body: &[u8],
    principal: &Principal,
    trace: Option<&Trace>,
) -> Result<String, Answer> {
    if body.len() > service.max_request_body {
        return Err(Answer::body_too_large(service.max_request_body));
    }
    let hub = &service.hub;
    let update = Update::from_form(body, hub.url(), &service.limits)
        .map_err(|error| Answer::bad_publication(&error))?;
    let allowed = match principal {
        Principal::Application => true,
        Principal::Granted { grants, .. } => grants.allow_publish(update.topics(), hub.url()),
        Principal::Anonymous => false,
    };
    if !allowed {
        tracing::info!("a publication was refused: the token does not grant every topic");
        return Err(policy.refuse(Refusal::Insufficient, request, hub.url()));
    }
    match append(hub, &update, trace).await {
        Ok(id) => Ok(id.to_string()),
        Err(PublishError::Transport(TransportError::TooLarge { most })) => {
            Err(Answer::body_too_large(most))
        }
        Err(PublishError::Transport(error)) => Err(Answer::transport_failed(&error)),
        Err(error) => Err(Answer::unavailable(&error.to_string())),
    }
}

async fn append(
    hub: &Arc<Hub>,
    update: &Update,
    trace: Option<&Trace>,
) -> Result<EventId, PublishError> {
    let _span = trace.map(Trace::append);
    let published = hub.publish(update).await?;
    if let Some(trace) = trace {
        trace.appended(&published, hub);
    }
    Ok(published.id)
}
