//! Token verification (section "Token Validation"; for 0.x, a signed `mercure` claim).

use jsonwebtoken::{Validation, decode, decode_header};
use mercure_engine::Clock;
use mercure_protocol::{Grants, HubUrl, Limits, Principal};
use serde_json::Value;

use super::credentials::{Place, Presented};
use super::{Policy, Refusal, Role};

/// Longest token that is looked at, in bytes.
const MAX_LENGTH: usize = 64 * 1024;

/// Verifies a token by the rules of its own generation, and of no other.
pub(super) fn verify(
    policy: &Policy,
    role: Role,
    presented: &Presented<'_>,
    hub: &HubUrl,
    limits: &Limits,
    clock: &Clock,
) -> Result<Principal, Refusal> {
    examine(policy, role, presented, hub, limits, clock).map_err(|reason| {
        // The reason is for the operator; the client learns only that the token is not valid.
        tracing::info!(?role, reason, "a token was refused");
        Refusal::Invalid
    })
}

fn examine(
    policy: &Policy,
    role: Role,
    presented: &Presented<'_>,
    hub: &HubUrl,
    limits: &Limits,
    clock: &Clock,
) -> Result<Principal, String> {
    let token = presented.token;
    if token.len() > MAX_LENGTH {
        return Err("it is too long".to_owned());
    }
    let header = decode_header(token).map_err(|error| format!("its header: {error}"))?;
    let is_v1 = header.typ.as_deref().is_some_and(is_access_token_type);
    if is_v1 && !policy.protocol.speaks_v1() {
        return Err("it is a 1.0 token (typ at+jwt) and this hub speaks 0.x only".to_owned());
    }
    if !is_v1 && !policy.protocol.speaks_v0() {
        return Err("its typ is not at+jwt and this hub speaks 1.0 only".to_owned());
    }
    let claims = verified_claims(policy, role, token)?;
    let now = clock.unix_time().as_secs_f64();
    let expires_at = check_times(&claims, now, is_v1)?;
    if is_v1 {
        check_issuer_and_audience(policy, &claims)?;
        // 1.0 knows no tokens in URLs. One that satisfies both generations may stand where 0.x
        // allows it; its rules stay those of 1.0.
        if presented.place == Place::Parameter && !Grants::has_v0_claim(&claims) {
            return Err("a 1.0 token must not be passed in the URL".to_owned());
        }
    }
    let grants = if is_v1 {
        Grants::from_v1_claims(&claims, hub, limits)
    } else {
        Grants::from_v0_claims(&claims, hub, limits)
    };
    let grants = grants.map_err(|error| error.to_string())?;
    Ok(Principal::Granted { grants, expires_at })
}

/// `at+jwt`, compared as RFC 7515, 4.1.9 says.
fn is_access_token_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    typ.strip_prefix("application/").unwrap_or(&typ) == "at+jwt"
}

/// The claims, if the signature is right. Key and algorithm come from the configuration; the
/// token has no say in either.
fn verified_claims(policy: &Policy, role: Role, token: &str) -> Result<Value, String> {
    let key = policy.key(role).ok_or("the hub has no key for this role")?;
    let mut validation = Validation::new(key.algorithm);
    // Times and audience are checked below, against the hub's own clock and identity.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    decode::<Value>(token, &key.decoding, &validation)
        .map(|data| data.claims)
        .map_err(|error| error.to_string())
}

fn check_times(claims: &Value, now: f64, exp_required: bool) -> Result<Option<u64>, String> {
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
        None if exp_required => Err("it has no exp claim, which 1.0 requires".to_owned()),
        None => Ok(None),
    }
}

fn check_issuer_and_audience(policy: &Policy, claims: &Value) -> Result<(), String> {
    let issuer = claims.get("iss").and_then(Value::as_str).ok_or("it has no iss claim")?;
    if !policy.trusted_issuers.iter().any(|trusted| trusted == issuer) {
        return Err("its iss is not among trusted_issuers".to_owned());
    }
    let identifier = policy.resource_identifier.as_str();
    let named = match claims.get("aud") {
        Some(Value::String(audience)) => audience == identifier,
        Some(Value::Array(audiences)) => audiences.iter().any(|a| a.as_str() == Some(identifier)),
        _ => return Err("it has no aud claim".to_owned()),
    };
    if named { Ok(()) } else { Err(format!("its aud does not name {identifier}")) }
}
