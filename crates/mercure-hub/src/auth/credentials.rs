//! Where a token may stand (section "Presenting the Access Token", 0.x "Authorization").

use mercure_protocol::Protocol;

use super::Refusal;
use crate::api::Request;

/// A token as it was presented.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Presented<'a> {
    pub(super) token: &'a str,
    pub(super) place: Place,
}

/// Where a token stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Header,
    /// The `authorization` parameter, which belongs to 0.x.
    Parameter,
    /// Sent by the browser on its own account, so possibly at another site's request.
    Cookie,
}

/// Finds the token: the header goes before the 0.x query parameter, which goes before cookies.
pub(super) fn find<'a>(
    request: &'a Request,
    parameter: Option<&'a str>,
    cookie_names: &[String],
) -> Result<Option<Presented<'a>>, Refusal> {
    if let Some(token) = bearer(request)? {
        return Ok(Some(Presented { token, place: Place::Header }));
    }
    if let Some(token) = parameter {
        return Ok(Some(Presented { token, place: Place::Parameter }));
    }
    let cookie = cookie_names.iter().find_map(|name| cookie(request, name));
    Ok(cookie.map(|token| Presented { token, place: Place::Cookie }))
}

/// The token of the `Authorization` header. Another scheme than `Bearer` is somebody else's (a
/// proxy's password, say) and does not count.
fn bearer(request: &Request) -> Result<Option<&str>, Refusal> {
    let Some(value) = request.headers.get("authorization") else {
        // Present and unreadable is not absent: no cookie may take its place.
        let is_there = request.headers.lossy("authorization").is_some();
        return if is_there { Err(Refusal::Malformed) } else { Ok(None) };
    };
    if value.trim().is_empty() {
        return Err(Refusal::Malformed);
    }
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let token = token.trim();
    if token.is_empty() { Err(Refusal::Malformed) } else { Ok(Some(token)) }
}

fn cookie<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request
        .headers
        .all("cookie")
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(candidate, _)| *candidate == name)
        .map(|(_, value)| value.trim_matches('"'))
        .filter(|value| !value.is_empty())
}

/// The 0.x `authorization` parameter of a request that is not a subscription.
pub(super) fn authorization_parameter(query: &str, protocol: Protocol) -> Option<String> {
    if !protocol.speaks_v0() {
        return None;
    }
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == "authorization").map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Request {
        let mut request = Request::default();
        for (name, value) in fields {
            request.headers.push(name, value.as_bytes());
        }
        request
    }

    fn token(fields: &[(&str, &str)], parameter: Option<&str>) -> Result<Option<String>, Refusal> {
        let names = ["new".to_owned(), "old".to_owned()];
        let found = find(&request(fields), parameter, &names)?.map(|p| p.token.to_owned());
        Ok(found)
    }

    #[test]
    fn the_order_of_places() {
        let everywhere = [("Authorization", "bEaReR header"), ("Cookie", "old=o; new=\"n\"")];
        assert_eq!(token(&everywhere, Some("parameter")), Ok(Some("header".to_owned())));
        assert_eq!(token(&everywhere[1..], Some("parameter")), Ok(Some("parameter".to_owned())));
        assert_eq!(token(&everywhere[1..], None), Ok(Some("n".to_owned())));
        assert_eq!(token(&[("Cookie", "a=b; old=o")], None), Ok(Some("o".to_owned())));
        assert_eq!(token(&[("Cookie", "old=")], None), Ok(None));
    }

    #[test]
    fn other_schemes_are_not_ours_and_an_empty_bearer_is_an_error() {
        assert_eq!(token(&[("Authorization", "Basic eDp5")], None), Ok(None));
        assert_eq!(token(&[("Authorization", "Bearer ")], None), Err(Refusal::Malformed));
        assert_eq!(token(&[("Authorization", "Bearer")], None), Err(Refusal::Malformed));
    }
}
