/// A setting: one name, in three spellings.
#[derive(Debug)]
pub struct Setting {
    /// The name in the file; the other spellings follow from it.
    pub name: &'static str,
    /// The value if none is given; lists are separated by spaces.
    pub default: &'static str,
    /// What kind of value it takes, as shown in the help.
    pub value: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Whether a running hub takes a new value (SIGHUP).
    pub is_live: bool,
}

impl Setting {
    /// The environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("MERCURE_{}", self.name.to_ascii_uppercase())
    }

    /// Whether it takes several values.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.value.ends_with("...")
    }

    /// The flag, without its dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

const fn setting(
    name: &'static str,
    default: &'static str,
    value: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, default, value, help, is_live: false }
}

impl Setting {
    const fn live(mut self) -> Self {
        self.is_live = true;
        self
    }
}

/// Every setting of a hub, in the order of the documentation.
pub static SETTINGS: &[Setting] = &[
    setting(
        "listen",
        "127.0.0.1:5500",
        "ADDRESS...",
        "Where to listen: host:port (over TLS if a certificate is configured), http://host:port (never \
         over TLS), unix:/path, or systemd for the sockets that systemd passes",
    ),
    setting("tls_cert", "", "FILE", "Certificate chain (PEM) to show; read again when it changes"),
    setting("tls_key", "", "FILE", "Its private key (PEM)"),
    setting(
        "acme_domains",
        "",
        "DOMAIN...",
        "Names to get a certificate for, and renew it, from an authority (ACME)",
    ),
    setting("acme_email", "", "EMAIL", "Whom the authority may write to"),
    setting(
        "acme_directory",
        "https://acme-v02.api.letsencrypt.org/directory",
        "URL",
        "The authority: URL of its ACME directory",
    ),
    setting("acme_cache", "", "FOLDER", "Where account and certificates are kept"),
    setting(
        "acme_challenge",
        "tls-alpn-01",
        "tls-alpn-01|http-01",
        "How it is shown that the names are ours: at port 443, or at port 80 (redirect_listen)",
    ),
    setting(
        "acme_ca",
        "",
        "FILE",
        "Certificates (PEM) to trust as the authority's server [default: the system's]",
    ),
    setting(
        "redirect_listen",
        "",
        "ADDRESS...",
        "Where plain HTTP is sent on to HTTPS, and challenges are answered, as in 0.0.0.0:80",
    ),
    setting("hub_path", "/.well-known/mercure", "PATH", "Path of the hub"),
    setting(
        "public_url",
        "",
        "ORIGIN...",
        "Origins under which clients reach the hub, as in https://example.com; the first one is \
         the base of its own URL [default: the first address listened on]",
    ),
    setting(
        "resource_identifier",
        "",
        "URI",
        "What the aud claim of a 1.0 token must name [default: the hub's URL]",
    ).live(),
    setting("protocol", "both", "both|1.0|0.x", "Generations of the protocol to speak"),
    setting(
        "publisher_jwt_key",
        "",
        "KEY",
        "Key that verifies publishers' tokens: a secret, a public key in PEM, a JWK or a JWK Set; or \
         file:///path of a file that holds it",
    ).live(),
    setting(
        "publisher_jwks_uri",
        "",
        "URL",
        "Where publishers' keys are fetched instead: https://..., or file:///path",
    ).live(),
    setting(
        "publisher_jwt_alg",
        "HS256",
        "ALG...",
        "Algorithms that publishers' tokens may be signed with: HS, RS, PS with 256, 384 or 512, \
         ES256, ES384, EdDSA; of a fetched set, EdDSA, ES256 and RS256 if none is given",
    ).live(),
    setting(
        "subscriber_jwt_key",
        "",
        "KEY",
        "Key that verifies subscribers' tokens: a secret, a public key in PEM, a JWK or a JWK Set; or \
         file:///path of a file that holds it",
    ).live(),
    setting(
        "subscriber_jwks_uri",
        "",
        "URL",
        "Where subscribers' keys are fetched instead: https://..., or file:///path",
    ).live(),
    setting(
        "subscriber_jwt_alg",
        "HS256",
        "ALG...",
        "Algorithms that subscribers' tokens may be signed with: HS, RS, PS with 256, 384 or 512, \
         ES256, ES384, EdDSA; of a fetched set, EdDSA, ES256 and RS256 if none is given",
    ).live(),
    setting(
        "trusted_issuers",
        "",
        "ISSUER...",
        "Values of the iss claim that 1.0 tokens may have; without any, 1.0 tokens are refused",
    ).live(),
    setting(
        "jwks_refresh",
        "5m",
        "DURATION",
        "Age after which fetched keys are fetched again, up to a quarter sooner or later",
    ).live(),
    setting(
        "jwks_cooldown",
        "10s",
        "DURATION",
        "Shortest time between two fetches of keys, however many tokens name unknown ones",
    ).live(),
    setting("anonymous", "true", "BOOL", "Serve subscribers without a token (public updates only)").live(),
    setting(
        "cors_origins",
        "",
        "ORIGIN...",
        "Origins whose pages may use the hub, with credentials; * for any, without credentials",
    ).live(),
    setting(
        "publish_origins",
        "",
        "ORIGIN...",
        "Origins whose pages may publish with a cookie, beside the hub's own",
    ).live(),
    setting(
        "cookie_name",
        "",
        "NAME...",
        "Cookies that may hold a token [default: __Secure-mercure_access_token (1.0) and \
         mercureAuthorization (0.x)]",
    ).live(),
    setting(
        "subscriptions",
        "false",
        "BOOL",
        "Tell who is subscribed: subscription events (which take their place in the history) and \
         the subscription API",
    ),
    setting("heartbeat", "15s", "DURATION", "Silence after which a comment is sent; 0s for never"),
    setting(
        "retry",
        "1s",
        "DURATION",
        "Reconnection time told to subscribers, jittered by half; 0s for none",
    ).live(),
    setting(
        "max_connection_age",
        "1h",
        "DURATION",
        "Longest life of a stream, up to a quarter shorter; 0s for no bound",
    ).live(),
    setting(
        "write_timeout",
        "60s",
        "DURATION",
        "How long a client may leave what waits for it",
    ),
    setting("max_connections", "100000", "COUNT", "Subscribers at once"),
    setting(
        "max_connections_per_address",
        "1000",
        "COUNT",
        "Connections, and streams of HTTP/2, at once of one address, or of one /64 network of IPv6, beyond \
         this machine; 0 for no bound",
    )
    .live(),
    setting(
        "max_http_connections",
        "100000",
        "COUNT",
        "Connections at once that are no streams over plain HTTP/1.1: requests under way or to come, and \
         everything over TLS or HTTP/2",
    )
    .live(),
    setting(
        "publish_rate_per_address",
        "0",
        "COUNT",
        "Publications a second from one address; 0 for no bound",
    )
    .live(),
    setting(
        "publish_rate_per_subject",
        "0",
        "COUNT",
        "Publications a second with tokens of one subject (iss and sub); 0 for no bound",
    )
    .live(),
    setting(
        "trusted_proxies",
        "",
        "NETWORK...",
        "Proxies whose X-Forwarded-For, -Host and -Proto are believed, as in 10.0.0.0/8: addresses are counted \
         by it, and the hub's own URL follows from it",
    )
    .live(),
    setting(
        "proxy_protocol",
        "false",
        "BOOL",
        "Connections of trusted_proxies, and those to Unix sockets, begin with a PROXY header (version 1 or 2)",
    ),
    setting(
        "max_connections_per_subject",
        "1000",
        "COUNT",
        "Subscribers at once that belong to one subject (iss and sub) of a token",
    ),
    setting("max_request_body", "1MiB", "SIZE", "Largest body of a request").live(),
    setting("max_topics", "100", "COUNT", "Topics of one update").live(),
    setting("max_topic_length", "4KiB", "SIZE", "Length of a topic").live(),
    setting("max_id_length", "1KiB", "SIZE", "Length of an event id given by a publisher").live(),
    setting("max_type_length", "256B", "SIZE", "Length of an event type").live(),
    setting("max_matchers", "1000", "COUNT", "Topic matchers of one subscription request").live(),
    setting(
        "max_patterns",
        "100",
        "COUNT",
        "Of these, how many may be URL patterns or URI templates",
    ).live(),
    setting(
        "max_patterns_size",
        "2MiB",
        "SIZE",
        "What the patterns of one subscription request, or of one token, take compiled",
    ).live(),
    setting("max_matcher_length", "4KiB", "SIZE", "Length of a topic matcher").live(),
    setting("max_grants", "10000", "COUNT", "Topic matchers in one token").live(),
    setting(
        "transport",
        "memory://",
        "URL",
        "Keeper of the log: memory://, sqlite:///path, or an engine that several nodes share: \
         redis://, redis+sentinel://, postgres://, nats://",
    ),
    setting(
        "history_size",
        "100000",
        "COUNT",
        "Updates kept; events that tell of subscriptions come on top",
    ),
    setting("history_age", "0s", "DURATION", "Age of the oldest event kept; 0s for no bound"),
    setting("history_bytes", "256MiB", "SIZE", "Size of all events kept"),
    setting(
        "lease",
        "15s",
        "DURATION",
        "How long the subscriptions of a node outlive it, where several nodes share a log",
    ),
    setting(
        "drain",
        "5s",
        "DURATION",
        "Time over which streams end, one by one, when the hub is stopped by SIGTERM; 0s for at once",
    )
    .live(),
    setting(
        "drain_delay",
        "0s",
        "DURATION",
        "Time between saying at /ready that the hub stops and accepting no more connections",
    )
    .live(),
    setting(
        "ops_listen",
        "127.0.0.1:5501",
        "ADDRESS",
        "Where /live, /ready and /metrics are served: host:port or unix:/path; none for nowhere",
    ),
    setting(
        "otlp_endpoint",
        "",
        "URL",
        "Collector of traces (OTLP over HTTP), as in http://127.0.0.1:4318: a span for each publication, its \
         append and its dispatch",
    ),
    setting(
        "trace_ratio",
        "1",
        "NUMBER",
        "Part of the publications that are traced, 0 to 1, where the publisher's own context does not say",
    ),
    setting(
        "debugger",
        "false",
        "BOOL",
        "Show a page at the hub's path + /ui/ on which to subscribe, publish and look at a token; it has no \
         rights but those of the token pasted into it",
    ),
    setting(
        "playground",
        "false",
        "BOOL",
        "For first steps only: the debugger, with keys of its own and a token for everything for whoever asks",
    ),
    setting("log_format", "text", "text|json", "Form of log lines"),
    setting("log_level", "info", "LEVEL", "Log lines to write: error, warn, info, debug, trace").live(),
];
