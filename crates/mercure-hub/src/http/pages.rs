//! The debugger's pages, which are part of the program.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::get;

use super::answer::{request_of, response_of};
use super::site::Site;
use crate::api::Answer;
use crate::auth::Playground;

/// The pages that a hub shows.
#[derive(Debug)]
pub(crate) struct Pages {
    /// Where the pages get a token of their own.
    pub(crate) playground: Option<Playground>,
}

const INDEX: &str = include_str!("../../../../web/index.html");
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What else the page consists of: name, media type, content.
const FILES: [(&str, &str, &str); 6] = [
    ("style.css", "text/css; charset=utf-8", include_str!("../../../../web/style.css")),
    ("app.js", SCRIPT, include_str!("../../../../web/app.js")),
    ("chart.js", SCRIPT, include_str!("../../../../web/chart.js")),
    ("curl.js", SCRIPT, include_str!("../../../../web/curl.js")),
    ("stream.js", SCRIPT, include_str!("../../../../web/stream.js")),
    ("token.js", SCRIPT, include_str!("../../../../web/token.js")),
];

/// What the page may do: run its own scripts and talk to its own hub. Nobody may frame it, since a click
/// in it may publish.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes of the pages, below the hub's own path.
pub(super) fn pages(hub_path: &str) -> Router<Arc<Site>> {
    Router::new()
        .route(&format!("{hub_path}/ui"), get(entrance))
        .route(&format!("{hub_path}/ui/"), get(index))
        .route(&format!("{hub_path}/ui/token"), get(token))
        .route(&format!("{hub_path}/ui/{{file}}"), get(file))
}

/// The page names its parts relative to itself, so its own path ends in a slash.
async fn entrance() -> Response {
    let mut answer = Answer::empty(308);
    // Relative to the hub's own path, whatever a proxy has put before that.
    answer.headers.push(("Location", "ui/".to_owned()));
    response_of(answer)
}

async fn index(State(site): State<Arc<Site>>) -> Response {
    let is_playground = site.pages.as_ref().is_some_and(|pages| pages.playground.is_some());
    let page = match is_playground {
        true => INDEX.replace("data-mode=\"debugger\"", "data-mode=\"playground\""),
        false => INDEX.to_owned(),
    };
    response_of(page_of("text/html; charset=utf-8", page))
}

async fn file(Path(name): Path<String>) -> Response {
    let found = FILES.iter().find(|(file, ..)| *file == name);
    let Some((_, media_type, content)) = found else {
        return response_of(Answer::text(404, "the debugger has no such file\n"));
    };
    let mut response = response_of(page_of(media_type, String::new()));
    // Not a copy for everybody who asks.
    *response.body_mut() = Body::from(*content);
    response
}

/// A token for everything, where the hub is a playground.
async fn token(State(site): State<Arc<Site>>, request: Request) -> Response {
    let (terms, request) = (site.terms(), request_of(&request.into_parts().0));
    let playground = site.pages.as_ref().and_then(|pages| pages.playground.as_ref());
    if playground.is_some() && !is_known(request.headers.get("host"), &terms.policy.public_origins)
    {
        let reason = "this name could be anybody's: use the playground by its address, or name it in public_url\n";
        return response_of(Answer::text(403, reason));
    }
    let token = playground.and_then(|playground| {
        let now = terms.service.hub.clock().unix_time();
        playground.token(&terms.policy.resource_identifier, now)
    });
    response_of(match token {
        Some(token) => {
            let mut answer = Answer::text(200, token);
            answer.headers.push(("Cache-Control", "no-store".to_owned()));
            answer
        }
        None => Answer::text(404, "this hub is no playground, it gives no tokens\n"),
    })
}

/// Whether a host is an address, this machine, or configured: any other name can be made to lead here by a
/// page that then counts as of the same origin (DNS rebinding).
fn is_known(host: Option<&str>, public: &[String]) -> bool {
    let Some(url) = host.and_then(|host| url::Url::parse(&format!("http://{host}")).ok()) else {
        return false;
    };
    let is_public = |name: &str| {
        let hosts = public.iter().filter_map(|origin| url::Url::parse(origin).ok());
        hosts.into_iter().any(|origin| origin.host_str() == Some(name))
    };
    match url.host() {
        Some(url::Host::Domain(name)) => {
            name == "localhost" || name.ends_with(".localhost") || is_public(name)
        }
        Some(url::Host::Ipv4(_) | url::Host::Ipv6(_)) => true,
        None => false,
    }
}

fn page_of(media_type: &str, content: String) -> Answer {
    let field = |name, value: &str| (name, value.to_owned());
    Answer {
        status: 200,
        headers: vec![
            field("Content-Type", media_type),
            field("Content-Security-Policy", CONTENT_POLICY),
            field("X-Content-Type-Options", "nosniff"),
            field("Referrer-Policy", "no-referrer"),
            field("Cache-Control", "no-cache"),
        ],
        body: content.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_anybody_could_use_gets_no_token() {
        let public = ["https://try.example".to_owned()];
        for known in ["127.0.0.1:5500", "[::1]:5500", "localhost", "a.localhost:1", "try.example:8"]
        {
            assert!(is_known(Some(known), &public), "{known}");
        }
        for unknown in ["rebound.example", "localhost.example", "127.0.0.1.example", "", "a b"] {
            assert!(!is_known(Some(unknown), &public), "{unknown}");
        }
        assert!(!is_known(None, &public));
    }
}
