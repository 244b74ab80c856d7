//! Token verification (section "Token Validation"; for 0.x, a signed `mercure` claim).

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, dangerous, decode, decode_header};
use mercure_engine::Clock;
use mercure_protocol::{Generation, Grants, HubUrl, Limits, Protocol};
use serde_json::Value;

use super::credentials::{Place, Presented};
use super::issuer::{Found, Keys, Roles};
use super::key::Key;
use super::verified::{Fetched, Verified, client};
use super::{Policy, Role};

/// Longest token that is looked at, in bytes.
const MAX_LENGTH: usize = 64 * 1024;

/// Why a token is not valid. For the operator: the client learns only that it is not.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Rejection {
    /// A rule is broken.
    #[error("{0}")]
    Rule(String),
    /// No key of a fetched set fits; it may be newer than the set.
    #[error("no key of {} fits its header ({header})", fetched.0.source())]
    UnknownKey {
        /// The set, and the version of it that was looked at.
        fetched: Fetched,
        /// What the token asked for.
        header: String,
    },
}

/// A token that was found valid, and how.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) verified: Verified,
    pub(super) generation: Generation,
    pub(super) key: String,
    pub(super) claims: Value,
}

impl From<String> for Rejection {
    fn from(reason: String) -> Self {
        Self::Rule(reason)
    }
}

impl From<&str> for Rejection {
    fn from(reason: &str) -> Self {
        Self::Rule(reason.to_owned())
    }
}

/// Claims that were signed.
struct Signed {
    claims: Value,
    /// By which key, in words.
    key: String,
    /// Of which fetched set.
    fetched: Option<Fetched>,
    /// Whether the key belongs to an issuer block.
    from_issuer: bool,
}

/// What verification looks at beside the token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) policy: &'a Policy,
    pub(super) role: Role,
    pub(super) hub: &'a HubUrl,
    pub(super) limits: &'a Limits,
    pub(super) clock: &'a Clock,
}

impl Setting<'_> {
    /// Verifies a token by the rules of its own generation, and of no other.
    pub(super) fn examine(&self, token: &str) -> Result<Examined, Rejection> {
        if token.len() > MAX_LENGTH {
            return Err("it is too long".into());
        }
        if token.split('.').count() != 3 {
            let shape = "it is no JWT: that is three parts, joined by dots";
            return Err(match token.contains(' ') {
                true => format!("{shape}, without Bearer or spaces").into(),
                false => shape.into(),
            });
        }
        let header = decode_header(token).map_err(|error| format!("its header: {error}"))?;
        if header.crit.is_some() {
            return Err("its header has crit: extensions that it says must be understood".into());
        }
        let generation = self.generation(&header)?;
        let Signed { claims, key, fetched, from_issuer } =
            self.verified_claims(generation, &header, token)?;
        if generation == Generation::V0 && from_issuer && !Grants::has_v0_claim(&claims) {
            // Without the type of 1.0, the claim is all that tells it from a token for others.
            return Err("it has no mercure claim, so its issuer may have made it for others".into());
        }
        let expires_at = check_times(&claims, self.now(), generation)?;
        if generation == Generation::V1 {
            self.check_audience(&claims)?;
        }
        let grants = match generation {
            Generation::V1 => Grants::from_v1_claims(&claims, self.hub, self.limits),
            Generation::V0 => Grants::from_v0_claims(&claims, self.hub, self.limits),
        };
        let grants = grants.map_err(|error| error.to_string())?;
        let spoken = match generation {
            Generation::V0 => Protocol::V0,
            Generation::V1 if Grants::has_v0_claim(&claims) => Protocol::Both,
            Generation::V1 => Protocol::V1,
        };
        let (weight, client) = (weight(token, &grants), client(token, &claims));
        let grants = Arc::new(grants);
        let verified = Verified { grants, expires_at, spoken, client, fetched, weight };
        Ok(Examined { verified, generation, key, claims })
    }

    pub(super) fn now(&self) -> f64 {
        self.clock.unix_time().as_secs_f64()
    }

    fn generation(&self, header: &Header) -> Result<Generation, Rejection> {
        let protocol = self.policy.protocol;
        let is_v1 = header.typ.as_deref().is_some_and(is_access_token_type);
        match is_v1 {
            true if protocol.speaks_v1() => Ok(Generation::V1),
            false if protocol.speaks_v0() => Ok(Generation::V0),
            true => Err("it is a 1.0 token (typ at+jwt) and this hub speaks 0.x only".into()),
            false => Err("its typ is not at+jwt and this hub speaks 1.0 only".into()),
        }
    }

    /// The claims, if the signature is right. Keys and algorithms come from the configuration;
    /// the token has no say but to name its issuer and a key that is trusted already.
    fn verified_claims(
        &self,
        generation: Generation,
        header: &Header,
        token: &str,
    ) -> Result<Signed, Rejection> {
        let (roles, found) = self.roles(generation, token)?;
        let keys = roles.of(self.role).ok_or_else(|| match found {
            Found::Shared => format!("the hub has no {} key", self.role.name()),
            Found::Issuer(id) => format!("issuer {id} has no {} key", self.role.name()),
        })?;
        let set = keys.current();
        let fetched = match keys {
            Keys::Fixed(_) => None,
            Keys::Fetched(source) => Some((Arc::clone(source), Arc::clone(&set))),
        };
        let candidates = set.candidates(header);
        if candidates.is_empty() {
            let kid = header.kid.as_deref().unwrap_or("none");
            let what = format!("alg {:?}, kid {kid}", header.alg);
            return Err(match fetched {
                Some(fetched) => Rejection::UnknownKey { fetched, header: what },
                None => format!("no {} key fits its header ({what})", self.role.name()).into(),
            });
        }
        let mut refusal = String::new();
        for key in candidates {
            match signed_claims(header, token, key) {
                Ok(claims) => {
                    let key = describe(found, self.role, key, header);
                    let from_issuer = matches!(found, Found::Issuer(_));
                    return Ok(Signed { claims, key, fetched, from_issuer });
                }
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {
                    refusal = "another key has signed it".to_owned();
                }
                Err(error) => refusal = error.to_string(),
            }
        }
        Err(format!("the {} key does not verify it: {refusal}", self.role.name()).into())
    }

    /// Whose keys count for the token.
    fn roles(&self, generation: Generation, token: &str) -> Result<(&Roles, Found<'_>), Rejection> {
        let trust = &self.policy.trust;
        // Not verified yet: it only chooses among issuers that are trusted.
        let claims = dangerous::insecure_decode_claims::<Value>(token)
            .map_err(|error| format!("its claims: {error}"))?;
        let issuer = claims.get("iss").and_then(Value::as_str);
        if generation == Generation::V0 {
            return Ok(trust.for_v0(issuer));
        }
        let issuer = issuer.ok_or("it has no iss claim, which 1.0 requires")?;
        Ok(trust.for_v1(issuer).ok_or("its iss is not among the trusted issuers")?)
    }

    fn check_audience(&self, claims: &Value) -> Result<(), String> {
        let identifier = self.policy.resource_identifier.as_str();
        let is_ours = |audience: &Value| audience.as_str() == Some(identifier);
        let named = match claims.get("aud") {
            Some(audience @ Value::String(_)) => is_ours(audience),
            Some(Value::Array(audiences)) => audiences.iter().any(is_ours),
            _ => return Err("it has no aud claim, which 1.0 requires".to_owned()),
        };
        if named { Ok(()) } else { Err(format!("its aud does not name {identifier}")) }
    }
}

/// 1.0 knows no tokens in URLs. One that satisfies both generations may stand where 0.x allows
/// it; its rules stay those of 1.0.
pub(super) fn check_place(presented: &Presented<'_>, verified: &Verified) -> Result<(), Rejection> {
    if presented.place == Place::Parameter && !verified.spoken.speaks_v0() {
        return Err("a 1.0 token must not be passed in the URL".into());
    }
    Ok(())
}

fn signed_claims(
    header: &Header,
    token: &str,
    key: &Key,
) -> Result<Value, jsonwebtoken::errors::Error> {
    let mut validation = Validation::new(header.alg);
    // Times and audience are checked against the hub's own clock and identity.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    decode::<Value>(token, key.decoding(), &validation).map(|data| data.claims)
}

fn describe(found: Found<'_>, role: Role, key: &Key, header: &Header) -> String {
    let whose = match found {
        Found::Shared => format!("the hub's {} key", role.name()),
        Found::Issuer(id) => format!("the {} key of issuer {id}", role.name()),
    };
    let id = key.id().map_or(String::new(), |id| format!(", kid {id}"));
    format!("{whose} ({:?}{id})", header.alg)
}

/// `at+jwt`, compared as RFC 7515, 4.1.9 says.
fn is_access_token_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    typ.strip_prefix("application/").unwrap_or(&typ) == "at+jwt"
}

fn check_times(claims: &Value, now: f64, generation: Generation) -> Result<Option<u64>, String> {
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(format!("its {name} is not a number")),
    };
    if time("nbf")?.is_some_and(|not_before| not_before > now) {
        return Err("it is not valid yet (nbf)".to_owned());
    }
    match time("exp")? {
        Some(expiry) if expiry <= now => Err("it has expired (exp)".to_owned()),
        // A float too large for the type becomes its maximum: as good as never.
        Some(expiry) => Ok(Some(expiry as u64)),
        None if generation == Generation::V1 => {
            Err("it has no exp claim, which 1.0 requires".to_owned())
        }
        None => Ok(None),
    }
}

/// What a verified token costs to keep: compiled patterns weigh most.
fn weight(token: &str, grants: &Grants) -> u64 {
    token.len() as u64 * 2 + 256 + grants.compiled_size() as u64
}
