use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

/// A verification key, bound to the one algorithm it is for.
#[derive(Clone)]
pub struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    secret: Box<[u8]>,
}

/// Why no key could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The algorithm is not on the hub's list.
    #[error("the algorithm is not supported; use HS256, HS384 or HS512")]
    Algorithm,
    /// The key is empty.
    #[error("is empty")]
    Empty,
}

impl Key {
    /// A shared secret for an HMAC algorithm.
    ///
    /// # Errors
    /// For an empty secret or an algorithm that is not HS256, HS384 or HS512.
    pub fn new(secret: &[u8], algorithm: &str) -> Result<Self, KeyError> {
        let algorithm = match algorithm {
            "HS256" => Algorithm::HS256,
            "HS384" => Algorithm::HS384,
            "HS512" => Algorithm::HS512,
            _ => return Err(KeyError::Algorithm),
        };
        if secret.is_empty() {
            return Err(KeyError::Empty);
        }
        let decoding = DecodingKey::from_secret(secret);
        Ok(Self { algorithm, decoding, secret: secret.into() })
    }

    /// Signs claims as a compact token.
    ///
    /// # Errors
    /// If the claims cannot be serialized.
    pub fn sign(
        &self,
        typ: &str,
        claims: &serde_json::Value,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = jsonwebtoken::Header::new(self.algorithm);
        header.typ = Some(typ.to_owned());
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&self.secret))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, ***)", self.algorithm)
    }
}
