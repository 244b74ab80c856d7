//! A client's request, as a worker passes it on: what the client sent, the rules to judge it by,
//! and what the application has decided itself.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use mercure_protocol::{Grants, Limits, Principal, Protocol};
use serde::Deserialize;
use serde_json::Value;

use crate::api::{self, Accepted, Answer, Headers, Origins, Proxies, Request, Service};
use crate::auth::{KeySet, Keys, Policy, Refusal, Roles, Trust};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Envelope {
    #[serde(default)]
    query: String,
    /// Names and values as WSGI has them: each character stands for one byte.
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    /// What is asked for below the hub's URL.
    #[serde(default)]
    path: String,
    policy: PolicySpec,
    /// What the application grants to a client that presents no token.
    #[serde(default)]
    grants: Option<GrantsSpec>,
}

/// The application's rules. The algorithm is fixed: these are its own tokens. Keys are bytes, each
/// written as one character.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicySpec {
    anonymous: bool,
    publisher_key: Option<String>,
    subscriber_key: Option<String>,
    resource_identifier: String,
    trusted_issuers: Vec<String>,
    cookie_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantsSpec {
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
    /// What is told of the subscriber.
    #[serde(default)]
    payload: Option<Value>,
    #[serde(default)]
    expires_at: Option<u64>,
}

/// A relayed request, ready to be served.
#[derive(Debug)]
pub(crate) struct Relayed {
    request: Request,
    body: Vec<u8>,
    path: String,
    policy: Policy,
    given: Option<Principal>,
}

impl Relayed {
    pub(crate) fn parse(json: &[u8], service: &Service) -> Result<Self, Answer> {
        let envelope = serde_json::from_slice::<Envelope>(json);
        // The error would quote a value of the envelope, which may be a key.
        let envelope = envelope.map_err(|error| {
            Answer::text(400, format!("bad envelope at column {}", error.column()))
        })?;
        envelope.open(service).map_err(|reason| Answer::text(400, reason))
    }

    pub(crate) async fn publish(self, service: &Service) -> Answer {
        let (policy, request) = (&self.policy, &self.request);
        let principal = match self.given {
            // The session behind these grants is a cookie, which the browser sends at anybody's
            // request.
            Some(_) if !policy.same_origin(request, service.hub.url()) => {
                return policy.refuse(Refusal::CrossOrigin, request, service.hub.url());
            }
            Some(given) => given,
            None => match api::publisher(service, policy, request).await {
                Ok(principal) => principal,
                Err(refusal) => return refusal,
            },
        };
        api::publish(service, policy, request, &self.body, &principal).await
    }

    pub(crate) async fn subscribe(self, service: &Service) -> Result<Accepted, Answer> {
        api::subscribe(service, &self.policy, &self.request, self.given).await
    }

    pub(crate) async fn subscriptions(self, service: &Service) -> Answer {
        let path = format!("{}{}", service.hub.url().path(), self.path);
        api::subscriptions(service, &self.policy, &self.request, &path, self.given).await
    }

    pub(crate) async fn poll(self, service: &Service, interval: Duration) -> Answer {
        api::poll(service, &self.policy, &self.request, self.given, interval).await
    }
}

impl Envelope {
    pub(super) fn open(self, service: &Service) -> Result<Relayed, String> {
        let mut headers = Headers::default();
        for (name, value) in &self.headers {
            headers.push(name, &bytes_of(value));
        }
        let request = Request { query: self.query, headers, ..Request::default() };
        let policy = self.policy.policy()?;
        let grants = self.grants.filter(|_| !policy.finds_token(&request));
        let given = grants.map(|grants| grants.principal(service)).transpose()?;
        Ok(Relayed { body: bytes_of(&self.body), path: self.path, request, policy, given })
    }
}

impl PolicySpec {
    fn policy(self) -> Result<Policy, String> {
        let key = |secret: Option<String>| {
            let secret = secret.map(|secret| bytes_of(&secret));
            let keys = secret.map(|secret| KeySet::secret(&secret, &[Algorithm::HS256]));
            let keys = keys.transpose().map_err(|error| format!("a key {error}"))?;
            Ok::<_, String>(keys.map(|keys| Keys::Fixed(Arc::new(keys))))
        };
        let shared =
            Roles { publisher: key(self.publisher_key)?, subscriber: key(self.subscriber_key)? };
        Ok(Policy {
            protocol: Protocol::Both,
            anonymous: self.anonymous,
            origins: Origins::default(),
            publish_origins: Vec::new(),
            cookie_names: self.cookie_names,
            trust: Trust { shared, trusted: self.trusted_issuers, issuers: Vec::new() },
            verified: None,
            metadata: false,
            public_origins: Vec::new(),
            resource_identifier: self.resource_identifier,
            trusted_proxies: Proxies::default(),
        })
    }
}

impl GrantsSpec {
    fn principal(self, service: &Service) -> Result<Principal, String> {
        let limits: &Limits = &service.limits;
        let grants =
            Grants::from_selectors(&self.publish, &self.subscribe, service.hub.url(), limits);
        let grants = grants.map_err(|error| error.to_string())?.with_payload(self.payload);
        Ok(Principal::Granted {
            grants: Arc::new(grants),
            expires_at: self.expires_at,
            client: None,
            spoken: Protocol::Both,
        })
    }
}

fn bytes_of(latin1: &str) -> Vec<u8> {
    latin1.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}
