//! Tokens that were verified already: looked up by digest, until they expire.

use std::fmt;
use std::sync::Arc;

use mercure_protocol::{ClientId, Grants, Protocol};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Role;
use super::jwks::FetchedKeys;
use super::key::KeySet;

/// What all entries may weigh together, in bytes, about.
const MAX_WEIGHT: u64 = 32 * 1024 * 1024;
/// Entries that are expected.
const EXPECTED: usize = 10_000;

/// A fetched set, and the version of it that was looked at.
pub(super) type Fetched = (Arc<FetchedKeys>, Arc<KeySet>);

/// What a valid token is worth.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    pub(super) grants: Arc<Grants>,
    /// Seconds since the Unix epoch.
    pub(super) expires_at: Option<u64>,
    /// Whose rules it was judged by, and whether those of 0.x hold as well.
    pub(super) spoken: Protocol,
    /// Whose token it is.
    pub(super) client: ClientId,
    /// The fetched set that verified it, as it was then: when the set is replaced, so may be the
    /// key, and the token is verified anew.
    pub(super) fetched: Option<Fetched>,
    /// What the entry costs, about.
    pub(super) weight: u64,
}

/// The digest of a token in a role; the token itself is not kept.
type TokenDigest = [u8; 32];

/// Tokens that were verified, by digest.
pub struct VerifiedTokens(Cache<(Role, TokenDigest), Arc<Verified>, ByWeight>);

#[derive(Clone)]
struct ByWeight;

impl Weighter<(Role, TokenDigest), Arc<Verified>> for ByWeight {
    fn weight(&self, _: &(Role, TokenDigest), value: &Arc<Verified>) -> u64 {
        value.weight
    }
}

impl Verified {
    /// Whether the key that verified it is still trusted.
    pub(super) fn is_current(&self) -> bool {
        self.fetched.as_ref().is_none_or(|(source, then)| Arc::ptr_eq(&source.current(), then))
    }
}

impl VerifiedTokens {
    /// Knows no token.
    #[must_use]
    pub fn new() -> Self {
        Self(Cache::with_weighter(EXPECTED, MAX_WEIGHT, ByWeight))
    }

    pub(super) fn get(&self, role: Role, token: &str) -> Option<Arc<Verified>> {
        self.0.get(&(role, digest(token)))
    }

    pub(super) fn insert(&self, role: Role, token: &str, verified: Arc<Verified>) {
        self.0.insert((role, digest(token)), verified);
    }

    pub(super) fn remove(&self, role: Role, token: &str) {
        self.0.remove(&(role, digest(token)));
    }
}

fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

/// Who a token belongs to: a subject of an issuer or, if it names none, its bearers.
pub(super) fn client(token: &str, claims: &Value) -> ClientId {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let digest = match text("sub") {
        Some(subject) => digest(&json!([text("iss"), subject]).to_string()),
        None => digest(token),
    };
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    ClientId(id)
}

impl Default for VerifiedTokens {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifiedTokens({})", self.0.len())
    }
}
