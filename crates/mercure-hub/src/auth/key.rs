//! Verification keys: secrets, PEM, JWK and JWK Sets, each bound to the algorithms it is for.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};

/// Names of the algorithms that a hub can be told to accept.
pub const ALGORITHMS: [&str; 12] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "EdDSA",
];
/// Keys that a JWK Set may hold.
const MAX_KEYS: usize = 100;
/// Shortest RSA modulus that is accepted, in bytes (RFC 7518, section 3.3).
const MIN_RSA_BYTES: usize = 256;

/// The algorithms that are accepted, by configuration; a token has no say in it.
pub type Algorithms = [Algorithm];

/// A verification key, bound to the algorithms it may be used with.
#[derive(Clone)]
pub struct Key {
    /// The name a token's `kid` may choose it by.
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

/// Keys of one issuer for one role.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Whether it is a shared secret as it was written.
    is_secret: bool,
}

/// Why no key could be made. Never quotes the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No such algorithm is on the hub's list.
    #[error("the algorithm is not supported; use one of {}", ALGORITHMS.join(", "))]
    Algorithm,
    /// The key is empty.
    #[error("is empty")]
    Empty,
    /// A private key where a public one belongs.
    #[error("is a private key; the hub verifies tokens, so give it the public key")]
    Private,
    /// PEM or JWK that cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The key is sound, and for other algorithms.
    #[error("is a key for {fits}, which the configured algorithms ({configured}) do not include")]
    Mismatch {
        /// What it could be used with.
        fits: &'static str,
        /// What is allowed.
        configured: String,
    },
}

/// Reads the name of an algorithm.
///
/// # Errors
/// For every name that is not in [`ALGORITHMS`]; `none` is not.
pub fn parse_algorithm(name: &str) -> Result<Algorithm, KeyError> {
    let known = ALGORITHMS.contains(&name).then(|| Algorithm::from_str(name).ok());
    known.flatten().ok_or(KeyError::Algorithm)
}

impl KeySet {
    /// Reads a key as an operator writes it: PEM, a JWK, a JWK Set, or else a shared secret.
    ///
    /// # Errors
    /// If it cannot be read or fits none of the algorithms.
    pub fn parse(text: &str, allowed: &Algorithms) -> Result<Self, KeyError> {
        let trimmed = text.trim();
        if trimmed.starts_with("-----BEGIN ") {
            return Self::pem(trimmed, allowed);
        }
        let is_json = ["\"kty\"", "\"keys\""].iter().any(|name| trimmed.contains(name));
        if trimmed.starts_with('{') && is_json {
            let keys = Self::json(trimmed.as_bytes(), allowed)?;
            let reason = "holds no key that can be used with the configured algorithms";
            return match keys.keys.is_empty() {
                true => Err(KeyError::Unreadable(reason.to_owned())),
                false => Ok(keys),
            };
        }
        Self::secret(text.as_bytes(), allowed)
    }

    fn of(keys: Vec<Key>) -> Self {
        Self { keys, is_secret: false }
    }

    /// Whether it is a shared secret as it was written.
    pub(crate) fn is_secret(&self) -> bool {
        self.is_secret
    }

    /// A shared secret, for HMAC algorithms.
    ///
    /// # Errors
    /// For an empty secret, or if no HMAC algorithm is allowed.
    pub fn secret(secret: &[u8], allowed: &Algorithms) -> Result<Self, KeyError> {
        if secret.is_empty() {
            return Err(KeyError::Empty);
        }
        let key = Key::new(None, &HMAC, DecodingKey::from_secret(secret), allowed)?;
        Ok(Self { keys: vec![key], is_secret: true })
    }

    /// A JWK, or those keys of a JWK Set that can be used (RFC 7517); there may be none.
    fn json(document: &[u8], allowed: &Algorithms) -> Result<Self, KeyError> {
        let unreadable = |what: &str| KeyError::Unreadable(format!("is not a valid {what}"));
        let value: serde_json::Value =
            serde_json::from_slice(document).map_err(|_| unreadable("JSON document"))?;
        if value.get("keys").is_none() {
            let jwk = serde_json::from_value(value).map_err(|_| unreadable("JWK"))?;
            return Ok(Self::of(vec![Key::from_jwk(&jwk, allowed)?]));
        }
        // Keys of a kind that is not known are passed over (RFC 7517, section 5).
        let set: JwkSet = serde_json::from_value(value).map_err(|_| unreadable("JWK Set"))?;
        if set.keys.len() > MAX_KEYS {
            return Err(KeyError::Unreadable(format!("holds more than {MAX_KEYS} keys")));
        }
        let keys = set.keys.iter().filter_map(|jwk| Key::from_jwk(jwk, allowed).ok());
        Ok(Self::of(keys.collect()))
    }

    /// A set that was fetched; one without usable keys revokes all. Symmetric keys do not count:
    /// what everybody can fetch is no secret.
    pub(super) fn fetched(document: &[u8], allowed: &Algorithms) -> Result<Self, KeyError> {
        let asymmetric = |algorithm: &&Algorithm| !HMAC.contains(algorithm);
        let allowed: Vec<_> = allowed.iter().filter(asymmetric).copied().collect();
        Self::json(document, &allowed)
    }

    fn pem(text: &str, allowed: &Algorithms) -> Result<Self, KeyError> {
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        let bytes = text.as_bytes();
        let (decoding, fits) = if let Ok(key) = DecodingKey::from_rsa_pem(bytes) {
            (key, &RSA[..])
        } else if let Ok(key) = DecodingKey::from_ec_pem(bytes) {
            let curve = curve_of(&key)?;
            (key, curve)
        } else if let Ok(key) = DecodingKey::from_ed_pem(bytes) {
            (key, &ED[..])
        } else {
            let reason = "is PEM, but not of an RSA, P-256, P-384 or Ed25519 public key";
            return Err(KeyError::Unreadable(reason.to_owned()));
        };
        Ok(Self::of(vec![Key::new(None, fits, decoding, allowed)?]))
    }

    /// The keys that may have signed a token with this header: those that its `kid` names or, if
    /// none bears that name, those without a name.
    pub(super) fn candidates(&self, header: &Header) -> Vec<&Key> {
        let fits = |key: &&Key| key.algorithms.contains(&header.alg);
        let Some(id) = &header.kid else {
            return self.keys.iter().filter(fits).collect();
        };
        let named = |key: &&Key| key.id.as_ref() == Some(id);
        if self.keys.iter().any(|key| named(&key)) {
            return self.keys.iter().filter(named).filter(fits).collect();
        }
        self.keys.iter().filter(|key| key.id.is_none()).filter(fits).collect()
    }
}

const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const P256: [Algorithm; 1] = [Algorithm::ES256];
const P384: [Algorithm; 1] = [Algorithm::ES384];
const ED: [Algorithm; 1] = [Algorithm::EdDSA];

/// An uncompressed point has twice the length of the curve's field, and one byte more.
fn curve_of(key: &DecodingKey) -> Result<&'static [Algorithm], KeyError> {
    match key.try_get_as_bytes().map(<[u8]>::len) {
        Ok(65) => Ok(&P256),
        Ok(97) => Ok(&P384),
        _ => Err(KeyError::Unreadable("is on another curve than P-256 and P-384".to_owned())),
    }
}

impl Key {
    fn new(
        id: Option<String>,
        fits: &[Algorithm],
        decoding: DecodingKey,
        allowed: &Algorithms,
    ) -> Result<Self, KeyError> {
        let algorithms: Vec<_> =
            allowed.iter().filter(|algorithm| fits.contains(algorithm)).copied().collect();
        if algorithms.is_empty() {
            let names: Vec<_> = allowed.iter().map(|algorithm| format!("{algorithm:?}")).collect();
            return Err(KeyError::Mismatch { fits: name_of(fits), configured: names.join(", ") });
        }
        let rsa_bytes = decoding.try_get_as_bytes().map(<[u8]>::len);
        if fits.first() == Some(&Algorithm::RS256) && rsa_bytes.is_ok_and(|n| n < MIN_RSA_BYTES) {
            return Err(KeyError::Unreadable("is an RSA key of less than 2048 bits".to_owned()));
        }
        Ok(Self { id, algorithms, decoding })
    }

    fn from_jwk(jwk: &Jwk, allowed: &Algorithms) -> Result<Self, KeyError> {
        let unusable = |reason: &str| KeyError::Unreadable(format!("is a JWK {reason}"));
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
            return Err(unusable("for encryption"));
        }
        let fits: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if rsa.n.len() * 3 / 4 < MIN_RSA_BYTES => {
                return Err(unusable("of an RSA key of less than 2048 bits"));
            }
            AlgorithmParameters::RSA(_) => &RSA,
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => &P256,
                EllipticCurve::P384 => &P384,
                _ => return Err(unusable("on a curve that is not supported")),
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => &ED,
            AlgorithmParameters::OctetKey(_) => &HMAC,
            _ => return Err(unusable("of a kind that is not supported")),
        };
        let named = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
        let meant = |algorithm: &&Algorithm| {
            named.as_ref().is_none_or(|name| *name == format!("{algorithm:?}"))
        };
        let fits: Vec<_> = fits.iter().filter(meant).copied().collect();
        let decoding =
            DecodingKey::from_jwk(jwk).map_err(|_| unusable("whose values cannot be read"))?;
        Self::new(jwk.common.key_id.clone(), &fits, decoding, allowed)
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

fn name_of(fits: &[Algorithm]) -> &'static str {
    match fits.first() {
        Some(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) => {
            "HS256, HS384 or HS512 (a shared secret)"
        }
        Some(Algorithm::ES256) => "ES256 (P-256)",
        Some(Algorithm::ES384) => "ES384 (P-384)",
        Some(Algorithm::EdDSA) => "EdDSA (Ed25519)",
        Some(_) => "RS256 to RS512 or PS256 to PS512 (RSA)",
        None => "another algorithm",
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {:?}, ***)", self.id, self.algorithms)
    }
}
