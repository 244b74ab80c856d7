//! Who asks? Header, cookie or query parameter become a [`Principal`] or a [`Refusal`]; nothing
//! further down knows where a right came from.

mod credentials;
mod key;
mod token;

use self::credentials::Place;
pub use self::key::{Key, KeyError};
use self::token::verify;
use crate::api::{Origins, Request};
use mercure_engine::Clock;
use mercure_protocol::{HubUrl, Limits, Principal, Protocol};

/// The rules by which requests are authorized.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Generations of the protocol that are spoken.
    pub protocol: Protocol,
    /// Whether subscribers without a token are served (public updates only).
    pub anonymous: bool,
    /// Origins whose pages may use the hub.
    pub origins: Origins,
    /// Origins whose pages may publish with a cookie, beside the hub's own.
    pub publish_origins: Vec<String>,
    /// Cookies in which a token is looked for, in this order.
    pub cookie_names: Vec<String>,
    /// Verifies publishers' tokens.
    pub publisher_key: Option<Key>,
    /// Verifies subscribers' tokens.
    pub subscriber_key: Option<Key>,
    /// Issuers whose 1.0 tokens are accepted; they share the keys.
    pub trusted_issuers: Vec<String>,
    /// What the `aud` claim of a 1.0 token must name.
    pub resource_identifier: String,
}

/// Why a request was refused, as much as the client may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No token, and one is needed.
    Missing,
    /// The `Authorization` header cannot be read.
    Malformed,
    /// The token failed verification; the log says where.
    Invalid,
    /// The token is valid and does not allow this.
    Insufficient,
    /// A page of another origin tried to publish with the user's cookie.
    CrossOrigin,
}

/// What a token is used for; each role has its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Publisher,
    Subscriber,
}

impl Policy {
    /// A policy that trusts no credential.
    #[must_use]
    pub fn closed() -> Self {
        Self {
            protocol: Protocol::Both,
            anonymous: false,
            origins: Origins::default(),
            publish_origins: Vec::new(),
            cookie_names: Vec::new(),
            publisher_key: None,
            subscriber_key: None,
            trusted_issuers: Vec::new(),
            resource_identifier: String::new(),
        }
    }

    /// Whether the request presents a token of any kind, valid or not.
    #[must_use]
    pub fn finds_token(&self, request: &Request) -> bool {
        let parameter = credentials::authorization_parameter(&request.query, self.protocol);
        let found = credentials::find(request, parameter.as_deref(), &self.cookie_names);
        !matches!(found, Ok(None))
    }

    /// Identifies a publisher; there is always one, or a refusal.
    ///
    /// # Errors
    /// If no valid token is presented, or a cookie comes from another origin.
    pub fn publisher(
        &self,
        request: &Request,
        hub: &HubUrl,
        limits: &Limits,
        clock: &Clock,
    ) -> Result<Principal, Refusal> {
        // 0.x allows the query parameter for every operation.
        let parameter = credentials::authorization_parameter(&request.query, self.protocol);
        let presented = credentials::find(request, parameter.as_deref(), &self.cookie_names)?
            .ok_or(Refusal::Missing)?;
        if presented.place == Place::Cookie && !self.same_origin(request, hub) {
            return Err(Refusal::CrossOrigin);
        }
        verify(self, Role::Publisher, &presented, hub, limits, clock)
    }

    /// Identifies a subscriber; without a token it is anonymous.
    ///
    /// # Errors
    /// If a token is presented and is not valid.
    pub fn subscriber(
        &self,
        request: &Request,
        parameter: Option<&str>,
        hub: &HubUrl,
        limits: &Limits,
        clock: &Clock,
    ) -> Result<Principal, Refusal> {
        match credentials::find(request, parameter, &self.cookie_names)? {
            None => Ok(Principal::Anonymous),
            Some(presented) => verify(self, Role::Subscriber, &presented, hub, limits, clock),
        }
    }

    /// Whether the request comes from a page that may publish with the user's cookie: one of the
    /// hub's own origin or of a listed one. Without `Origin` and `Referer` it is not known to be
    /// ("Security Considerations").
    pub(crate) fn same_origin(&self, request: &Request, hub: &HubUrl) -> bool {
        let origin_of =
            |url: &str| url::Url::parse(url).ok().map(|url| url.origin().ascii_serialization());
        let source = request.headers.get("origin").or_else(|| request.headers.get("referer"));
        let Some(source) = source.and_then(origin_of).filter(|origin| origin != "null") else {
            return false;
        };
        let own = origin_of(hub.as_str());
        let host = request.headers.get("host");
        let addressed =
            |scheme: &str| host.and_then(|host| origin_of(&format!("{scheme}://{host}")));
        Some(&source) == own.as_ref()
            || ["https", "http"].iter().any(|scheme| addressed(scheme).as_ref() == Some(&source))
            || self.publish_origins.contains(&source)
    }

    fn key(&self, role: Role) -> Option<&Key> {
        match role {
            Role::Publisher => self.publisher_key.as_ref(),
            Role::Subscriber => self.subscriber_key.as_ref(),
        }
    }
}
