use super::message::Request;

/// Origins that pages may use the hub from, beside its own (section "Subscription").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// Exact origins, or `*` for any origin without credentials.
    pub allowed: Vec<String>,
}

impl Origins {
    /// Adds the CORS fields for the request's origin, if it is on the list. Credentials go with
    /// listed origins only, never with the wildcard, and an origin is never merely reflected.
    pub fn allow(&self, request: &Request, headers: &mut Vec<(&'static str, String)>) {
        if self.allowed.is_empty() {
            return;
        }
        headers.push(("Vary", "Origin".to_owned()));
        let Some(origin) = request.headers.get("origin") else {
            return;
        };
        if self.allowed.iter().any(|allowed| allowed == origin) {
            headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
            headers.push(("Access-Control-Allow-Credentials", "true".to_owned()));
        } else if self.allowed.iter().any(|allowed| allowed == "*") {
            headers.push(("Access-Control-Allow-Origin", "*".to_owned()));
        } else {
            return;
        }
        let exposed = "ETag, Last-Event-ID, Link, Mercure-Last-Event-ID".to_owned();
        headers.push(("Access-Control-Expose-Headers", exposed));
    }
}
