//! How others find the hub: protected resource metadata and `Link` fields (section "Discovery").

use serde_json::{Value, json};

use crate::MatcherType;
use crate::grants::DETAIL_TYPE;

/// What RFC 9728 puts between the host and the path of a resource.
const METADATA_ROOT: &str = "/.well-known/oauth-protected-resource";

/// What a hub says of itself as a protected resource (RFC 9728, section "Protected Resource
/// Metadata").
#[derive(Debug, Clone, Default)]
pub struct Metadata<'a> {
    /// The resource identifier, which tokens name in `aud`.
    pub resource: &'a str,
    /// Issuer identifiers of authorization servers.
    pub authorization_servers: Vec<&'a str>,
    /// The cookie that may hold a token, if one may.
    pub cookie: Option<&'a str>,
    /// Whether active subscriptions are told.
    pub subscriptions: bool,
}

impl Metadata<'_> {
    /// The document.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut document = json!({
            "resource": self.resource,
            "authorization_details_types_supported": [DETAIL_TYPE],
            "bearer_methods_supported": ["header"],
            "mercure_matcher_types_supported": MatcherType::NAMES,
        });
        if !self.authorization_servers.is_empty() {
            document["authorization_servers"] = json!(self.authorization_servers);
        }
        if let Some(cookie) = self.cookie {
            document["mercure_cookie"] = json!(cookie);
        }
        if self.subscriptions {
            document["mercure_subscriptions"] = json!(true);
        }
        document
    }

    /// Where the document of a resource with this path is served.
    #[must_use]
    pub fn path(resource_path: &str) -> String {
        format!("{METADATA_ROOT}{resource_path}")
    }
}

/// The `Link` field by which a resource names its hub, with the attributes of a stream of
/// subscription events (section "Subscription API"). `hub` is its URL as the client knows it.
#[must_use]
pub fn subscriptions_link(hub: &str, cursor: &str) -> String {
    format!(
        "<{}>; rel=\"mercure\"; last-event-id=\"{}\"; type=\"mercure\"; \
         content-type=\"application/json\"",
        hub,
        quoted(cursor),
    )
}

/// The text of a quoted string (RFC 9110, section 5.6.4).
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_leaves_out_what_does_not_apply() {
        let least = Metadata { resource: "https://h/x", ..Metadata::default() }.document();
        for member in ["authorization_servers", "mercure_cookie", "mercure_subscriptions"] {
            assert_eq!(least.get(member), None, "{member}");
        }
        assert_eq!(least["resource"], "https://h/x");
        let all = Metadata {
            resource: "https://h/x",
            authorization_servers: vec!["https://as"],
            cookie: Some("c"),
            subscriptions: true,
        };
        let all = all.document();
        assert_eq!(all["authorization_servers"], json!(["https://as"]));
        assert_eq!(all["mercure_cookie"], "c");
        assert_eq!(all["mercure_subscriptions"], true);
        assert_eq!(all["bearer_methods_supported"], json!(["header"]));
    }

    #[test]
    fn an_id_cannot_leave_its_quotes() {
        let link = subscriptions_link("https://h/x", r#"a"; rel="other\"#);
        assert!(link.contains(r#"last-event-id="a\"; rel=\"other\\""#), "{link}");
    }
}
