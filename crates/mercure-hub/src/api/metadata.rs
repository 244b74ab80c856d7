use mercure_protocol::Metadata;

use super::{Answer, Request, Service};
use crate::auth::Policy;

/// What the hub says of itself as a protected resource (section "Protected Resource Metadata").
#[must_use]
pub fn metadata(service: &Service, policy: &Policy, request: &Request) -> Answer {
    let metadata = Metadata {
        resource: &policy.resource_identifier,
        authorization_servers: policy.trust.authorization_servers().collect(),
        cookie: policy.cookie_names.first().map(String::as_str),
        subscriptions: service.hub.tells(),
    };
    let mut answer = Answer::json("application/json", &metadata.document());
    answer.headers.push(("Cache-Control", "public, max-age=300".to_owned()));
    policy.origins.allow(request, &mut answer.headers);
    answer
}
