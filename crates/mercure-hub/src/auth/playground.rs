//! Keys that nobody chose, for first steps: whoever asks gets a token for everything.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::{KeyError, KeySet, Keys, SigningKey};

/// How long a token of a playground lives.
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// A hub that believes in its own tokens, and gives them to whoever asks.
#[derive(Debug, Clone)]
pub struct Playground {
    signing: SigningKey,
    keys: Arc<KeySet>,
}

impl Playground {
    /// The `iss` claim of its tokens.
    pub const ISSUER: &str = "urn:mercure-hub:playground";

    /// Makes a key that lives as long as this.
    ///
    /// # Errors
    /// If a random text were no key.
    pub fn new() -> Result<Self, KeyError> {
        let random = || uuid::Uuid::new_v4().simple().to_string();
        let secret = random() + &random();
        Ok(Self {
            signing: SigningKey::parse(&secret, "HS256")?,
            keys: Arc::new(KeySet::parse(&secret, &[Algorithm::HS256])?),
        })
    }

    /// The keys that verify its tokens, in either role.
    #[must_use]
    pub fn keys(&self) -> Keys {
        Keys::Fixed(Arc::clone(&self.keys))
    }

    /// A token of both generations that may publish and read everything.
    ///
    /// `audience` is the hub's resource identifier, `now` the time since 1970.
    #[must_use]
    pub fn token(&self, audience: &str, now: Duration) -> Option<String> {
        let claims = json!({
            "iss": Self::ISSUER,
            "aud": audience,
            "sub": "playground",
            "client_id": "playground",
            "jti": uuid::Uuid::new_v4().urn().to_string(),
            "iat": now.as_secs(),
            "exp": (now + LIFE).as_secs(),
            "mercure": {"publish": ["*"], "subscribe": ["*"]},
            "authorization_details": [{
                "type": "https://mercure.rocks/authorization-detail",
                "actions": ["publish", "subscribe"],
                "topics": [{"match": "*"}],
            }],
        });
        self.signing.sign("at+jwt", &claims).ok()
    }
}
