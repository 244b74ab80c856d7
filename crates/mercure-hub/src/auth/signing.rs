//! Signing, for the tokens that the command line makes.

use jsonwebtoken::{Algorithm, EncodingKey, Header};

use super::key::{KeyError, parse_algorithm};

/// A key that tokens are signed with.
#[derive(Debug, Clone)]
pub struct SigningKey {
    algorithm: Algorithm,
    encoding: EncodingKey,
    id: Option<String>,
}

impl SigningKey {
    /// Reads a shared secret or a private key in PEM (PKCS #8).
    ///
    /// # Errors
    /// If it cannot be read, or does not fit the algorithm.
    pub fn parse(text: &str, algorithm: &str) -> Result<Self, KeyError> {
        let algorithm = parse_algorithm(algorithm)?;
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        let is_pem = text.trim_start().starts_with("-----BEGIN ");
        let bytes = text.trim().as_bytes();
        let encoding = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 if !is_pem => {
                Ok(EncodingKey::from_secret(text.as_bytes()))
            }
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                let reason = "is PEM, which no HMAC algorithm can use; name its own with --alg";
                return Err(KeyError::Unreadable(reason.to_owned()));
            }
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(bytes),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(bytes),
            _ => EncodingKey::from_rsa_pem(bytes),
        };
        let encoding = encoding.map_err(|_| {
            let reason = format!("is not a private key in PEM (PKCS #8) for {algorithm:?}");
            KeyError::Unreadable(reason)
        })?;
        Ok(Self { algorithm, encoding, id: None })
    }

    /// Names the key, so that the hub finds it among several.
    #[must_use]
    pub fn named(mut self, id: Option<String>) -> Self {
        self.id = id;
        self
    }

    /// Signs claims as a compact token.
    ///
    /// # Errors
    /// If the key does not fit the algorithm after all.
    pub fn sign(
        &self,
        typ: &str,
        claims: &serde_json::Value,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(self.algorithm);
        header.typ = Some(typ.to_owned());
        header.kid.clone_from(&self.id);
        jsonwebtoken::encode(&header, claims, &self.encoding)
    }
}
