//! Who asks? Header, cookie or query parameter become a [`Principal`] or a [`Refusal`]; nothing
//! further down knows where a right came from.

mod credentials;
mod explain;
mod issuer;
mod jwks;
mod key;
mod playground;
mod signing;
mod token;
mod verified;

use std::sync::Arc;

use mercure_engine::Clock;
use mercure_protocol::{HubUrl, Limits, Metadata, Principal, Protocol};

use self::credentials::{Place, Presented};
pub use self::explain::{TokenReport, explain_token};
pub use self::issuer::{Issuer, Keys, Roles, Trust};
pub use self::jwks::{FetchError, FetchedKeys, Freshness, Source};
pub use self::key::{ALGORITHMS, Algorithms, Key, KeyError, KeySet, parse_algorithm};
pub use self::playground::Playground;
pub use self::signing::SigningKey;
use self::token::{Rejection, Setting, check_place};
use self::verified::Verified;
pub use self::verified::VerifiedTokens;
use crate::api::{Answer, Origins, Proxies, Request};
use crate::logging::Throttle;

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
    /// Whose tokens are believed.
    pub trust: Trust,
    /// Tokens that were verified already; `None` to verify each time.
    pub verified: Option<Arc<VerifiedTokens>>,
    /// Whether clients are told how to get a token (RFC 9728).
    pub metadata: bool,
    /// Origins under which clients reach the hub; if there are none, the request says it.
    pub public_origins: Vec<String>,
    /// What the `aud` claim of a 1.0 token must name.
    pub resource_identifier: String,
    /// Who is believed about how a client has named the hub.
    pub trusted_proxies: Proxies,
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

/// What a token is used for; each role has its own keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Publishing updates.
    Publisher,
    /// Reading private updates, and who is subscribed.
    Subscriber,
}

impl Role {
    /// The role as a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Subscriber => "subscriber",
        }
    }
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
            trust: Trust::default(),
            verified: None,
            metadata: false,
            public_origins: Vec::new(),
            trusted_proxies: Proxies::default(),
            resource_identifier: String::new(),
        }
    }

    /// Whether the request presents a token of any kind, valid or not.
    #[must_use]
    pub fn finds_token(&self, request: &Request) -> bool {
        let parameter = self.query_token(request);
        let found = credentials::find(request, parameter.as_deref(), &self.cookie_names);
        !matches!(found, Ok(None))
    }

    /// The hub's origin as the client knows it: the public one that it addressed, or the first, or
    /// else the host that the request names.
    pub(crate) fn origin_for(&self, request: &Request, hub: &HubUrl) -> String {
        let host = self.host(request);
        let forwarded = self.trusted_proxies.word(request, "x-forwarded-proto");
        let own = hub.origin();
        let scheme = match forwarded {
            Some(scheme @ ("http" | "https")) => scheme,
            _ => own.split(':').next().unwrap_or("http"),
        };
        let addressed = host.and_then(|host| origin_of(&format!("{scheme}://{host}")));
        let host_of = |origin: &str| origin.split_once("://").map(|(_, host)| host.to_owned());
        let same_host = |origin: &&String| host_of(origin).as_deref() == host;
        let public = self.public_origins.iter().find(same_host).or(self.public_origins.first());
        public.cloned().or(addressed).unwrap_or_else(|| hub.origin())
    }

    /// The host that the client has named, as far as a believed proxy knows it better.
    fn host<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let forwarded = self.trusted_proxies.word(request, "x-forwarded-host");
        forwarded.or_else(|| request.headers.get("host"))
    }

    /// The hub's URL as the client knows it.
    pub(crate) fn url_for(&self, request: &Request, hub: &HubUrl) -> String {
        format!("{}{}", self.origin_for(request, hub), hub.path())
    }

    /// The answer to a refused request.
    pub(crate) fn refuse(&self, refusal: Refusal, request: &Request, hub: &HubUrl) -> Answer {
        let url = || format!("{}{}", self.origin_for(request, hub), Metadata::path(hub.path()));
        Answer::refused(refusal, self.metadata.then(url).as_deref())
    }

    /// The token of the `authorization` parameter, which 0.x allows for every operation.
    #[must_use]
    pub fn query_token(&self, request: &Request) -> Option<String> {
        credentials::authorization_parameter(&request.query, self.protocol)
    }

    /// Identifies a publisher; there is always one, or a refusal.
    ///
    /// # Errors
    /// If no valid token is presented, or a cookie comes from another origin.
    pub async fn publisher(
        &self,
        request: &Request,
        hub: &HubUrl,
        limits: &Limits,
        clock: &Clock,
    ) -> Result<Principal, Refusal> {
        let parameter = self.query_token(request);
        let presented = credentials::find(request, parameter.as_deref(), &self.cookie_names)?
            .ok_or(Refusal::Missing)?;
        if presented.place == Place::Cookie && !self.same_origin(request, hub) {
            return Err(Refusal::CrossOrigin);
        }
        let setting = Setting { policy: self, role: Role::Publisher, hub, limits, clock };
        self.verify(&setting, &presented, request).await
    }

    /// Identifies a subscriber; without a token it is anonymous.
    ///
    /// # Errors
    /// If a token is presented and is not valid.
    pub async fn subscriber(
        &self,
        request: &Request,
        parameter: Option<&str>,
        hub: &HubUrl,
        limits: &Limits,
        clock: &Clock,
    ) -> Result<Principal, Refusal> {
        match credentials::find(request, parameter, &self.cookie_names)? {
            None => Ok(Principal::Anonymous),
            Some(presented) => {
                let setting = Setting { policy: self, role: Role::Subscriber, hub, limits, clock };
                self.verify(&setting, &presented, request).await
            }
        }
    }

    async fn verify(
        &self,
        setting: &Setting<'_>,
        presented: &Presented<'_>,
        request: &Request,
    ) -> Result<Principal, Refusal> {
        let verified = match self.remembered(setting, presented.token) {
            Some(verified) => Ok(verified),
            None => self.examine(setting, presented.token).await,
        };
        let verified = verified
            .and_then(|verified| check_place(presented, &verified).map(|()| verified))
            .map_err(|reason| {
                // The reason is for the operator; the client learns only that it is not valid.
                self.tell(setting, request, &reason);
                Refusal::Invalid
            })?;
        Ok(Principal::Granted {
            grants: Arc::clone(&verified.grants),
            expires_at: verified.expires_at,
            client: Some(verified.client),
            spoken: verified.spoken,
        })
    }

    /// Says why a token is refused, and whose it was.
    fn tell(&self, setting: &Setting<'_>, request: &Request, reason: &Rejection) {
        static REFUSED: Throttle = Throttle::new();
        let Some(left_out) = REFUSED.pass(setting.clock.now()) else { return };
        let (role, reason) = (setting.role.name(), readable(&reason.to_string()));
        let client = self.trusted_proxies.client(request).map(tracing::field::display);
        tracing::info!(client, role, reason, "a token was refused");
        if left_out > 0 {
            tracing::info!("{left_out} refusals of tokens before that one were left out");
        }
    }

    /// A token that was verified before and is still good.
    fn remembered(&self, setting: &Setting<'_>, token: &str) -> Option<Arc<Verified>> {
        let cache = self.verified.as_ref()?;
        let verified = cache.get(setting.role, token)?;
        let expired = verified.expires_at.is_some_and(|at| at as f64 <= setting.now());
        if expired || !verified.is_current() {
            cache.remove(setting.role, token);
            return None;
        }
        Some(verified)
    }

    async fn examine(
        &self,
        setting: &Setting<'_>,
        token: &str,
    ) -> Result<Arc<Verified>, Rejection> {
        let mut examined = setting.examine(token);
        if let Err(Rejection::UnknownKey { fetched: (source, seen), .. }) = &examined
            && source.renew(seen, setting.clock).await
        {
            examined = setting.examine(token);
        }
        let verified = Arc::new(examined?.verified);
        if let Some(cache) = &self.verified {
            cache.insert(setting.role, token, Arc::clone(&verified));
        }
        Ok(verified)
    }

    /// Whether the request comes from a page that may publish with the user's cookie: one of the
    /// hub's own origin or of a listed one. Without `Origin` and `Referer` it is not known to be
    /// ("Security Considerations").
    pub(crate) fn same_origin(&self, request: &Request, hub: &HubUrl) -> bool {
        let source = request.headers.get("origin").or_else(|| request.headers.get("referer"));
        let Some(source) = source.and_then(origin_of).filter(|origin| origin != "null") else {
            return false;
        };
        let own = origin_of(hub.as_str());
        let host = self.host(request);
        let addressed =
            |scheme: &str| host.and_then(|host| origin_of(&format!("{scheme}://{host}")));
        Some(&source) == own.as_ref()
            || ["https", "http"].iter().any(|scheme| addressed(scheme).as_ref() == Some(&source))
            || self.publish_origins.contains(&source)
    }
}

fn origin_of(url: &str) -> Option<String> {
    url::Url::parse(url).ok().map(|url| url.origin().ascii_serialization())
}

/// A reason that may quote a token, fit for a log and a terminal: one line, not too long.
fn readable(reason: &str) -> String {
    const LONGEST: usize = 300;
    let short: String = reason.chars().take(LONGEST).collect();
    let end = if short.len() < reason.len() { "…" } else { "" };
    format!("{}{end}", short.escape_debug())
}
