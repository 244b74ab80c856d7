//! Why a token is valid or not, told to the operator by the code that decides it.

use mercure_engine::Clock;
use mercure_protocol::{Generation, Grants, HubUrl, Limits, Matcher};
use serde_json::Value;
use std::sync::Arc;

use super::token::{Rejection, Setting};
use super::{Policy, Role, readable};

/// What there is to say about a token.
#[derive(Debug, Clone)]
pub struct TokenReport {
    /// What it grants, if it is valid.
    pub grants: Option<Arc<Grants>>,
    /// One finding per line.
    pub lines: Vec<String>,
}

/// Explains what a hub with this policy makes of a token in a role. Key sets that are fetched must
/// have been.
#[must_use]
pub fn explain_token(
    policy: &Policy,
    role: Role,
    token: &str,
    hub: &HubUrl,
    limits: &Limits,
    clock: &Clock,
) -> TokenReport {
    let setting = Setting { policy, role, hub, limits, clock };
    let mut lines = Vec::new();
    match setting.examine(token) {
        Ok(examined) => {
            let generation = match examined.generation {
                Generation::V1 => "1.0 (typ at+jwt)",
                Generation::V0 => "0.x",
            };
            lines.push(format!("valid for a {}", role.name()));
            lines.push(format!("generation: {generation}"));
            lines.push(format!("verified by: {}", examined.key));
            lines.push(expiry(&examined.claims, setting.now()));
            let grants = examined.verified.grants;
            lines.push(format!("may publish to: {}", list(grants.publish())));
            lines.push(format!("may read private updates of: {}", list(grants.subscribe())));
            if let Some(hint) = misplaced_claim(&examined.claims, examined.generation, &grants) {
                lines.push(hint);
            }
            TokenReport { grants: Some(grants), lines }
        }
        Err(rejection) => {
            lines.push(format!(
                "not valid for a {}: {}",
                role.name(),
                readable(&rejection.to_string())
            ));
            lines.extend(hint(&setting, token, &rejection));
            TokenReport { grants: None, lines }
        }
    }
}

/// The mistake that is most often behind a rejection.
fn hint(setting: &Setting<'_>, token: &str, rejection: &Rejection) -> Option<String> {
    let other = match setting.role {
        Role::Publisher => Role::Subscriber,
        Role::Subscriber => Role::Publisher,
    };
    if let Ok(examined) = (Setting { role: other, ..*setting }).examine(token) {
        return Some(format!(
            "it is valid for a {}: {} verifies it; sign it with the {} key for this use",
            other.name(),
            examined.key,
            setting.role.name(),
        ));
    }
    let text = rejection.to_string();
    let advice = [
        ("trusted issuers", "add its iss to trusted_issuers, or give it an [[issuer]] block"),
        ("aud does not name", "mint it with that audience, or set resource_identifier"),
        ("another key has signed it", "compare the key of whoever made it with the hub's"),
        ("expired", "mint a new one; mercure-hub token --expires sets its life"),
    ];
    let found = advice.iter().find(|(sign, _)| text.contains(sign));
    found.map(|(_, advice)| format!("hint: {advice}"))
}

/// A claim of the other generation, which does not count.
fn misplaced_claim(claims: &Value, generation: Generation, grants: &Grants) -> Option<String> {
    if !grants.publish().is_empty() || !grants.subscribe().is_empty() {
        return None;
    }
    let hint = match generation {
        Generation::V1 if Grants::has_v0_claim(claims) => {
            "its mercure claim does not count: a token with typ at+jwt is judged by \
             authorization_details"
        }
        Generation::V0 if claims.get("authorization_details").is_some() => {
            "its authorization_details do not count: they need typ at+jwt in the header"
        }
        Generation::V1 => "it has no Mercure authorization detail, so it grants nothing",
        Generation::V0 => "it has no mercure claim with topics, so it grants nothing",
    };
    Some(format!("hint: {hint}"))
}

fn expiry(claims: &Value, now: f64) -> String {
    match claims.get("exp").and_then(Value::as_f64) {
        Some(at) => format!("expires: in {} s", (at - now) as i64),
        None => "expires: never (its stream ends by max_connection_age only)".to_owned(),
    }
}

fn list(matchers: &[Matcher]) -> String {
    if matchers.is_empty() {
        return "nothing".to_owned();
    }
    matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
