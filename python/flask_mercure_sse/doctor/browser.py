"""What a browser would make of it: cookies, origins, the protocol's version."""

from __future__ import annotations

import socket
import ssl
from http.cookies import CookieError, Morsel, SimpleCookie
from urllib.parse import urlsplit

from flask import Response
from urllib3.exceptions import HTTPError

from ..errors import ConfigurationError
from .case import Case, origin_of
from .findings import Level


def check_cors(case: Case) -> None:
    """Whether pages of the application may read from a hub on another origin."""
    page = origin_of(case.options.url)
    if page == origin_of(case.hub_url):
        return
    headers = {"Origin": page, **case.credentials()}
    try:
        stream = case.hub_door.listen(case.subscription(), headers, timeout=case.timeout)
    except HTTPError:
        return  # reported where streams are opened
    stream.close()
    allowed = stream.headers.get("Access-Control-Allow-Origin")
    credentials = stream.headers.get("Access-Control-Allow-Credentials")
    fix = f'allow it at the hub: cors_origins = ["{page}"] (MERCURE_CORS_ORIGINS)'
    if allowed is None:
        text = f"the hub is on another origin, and does not allow pages of {page} to read from it"
        case.fault("cors", text, fix)
    elif allowed != page:
        # A hub that takes everybody cannot take anybody's cookie.
        text = f"the hub allows {allowed}; a page that sends its cookie needs {page} by name"
        case.fault("cors", text, fix)
    elif credentials != "true":
        case.fault("cors", f"the hub allows {page}, but not its cookies", fix)
    else:
        case.note("ok", "cors", f"pages of {page} may read from the hub, with their cookies")


def check_http_version(case: Case) -> None:
    """Whether a browser can have more than six streams."""
    fix = "let the proxy or the hub speak HTTP/2 to browsers; it needs HTTPS"
    advice = "a browser opens six connections to a host over HTTP/1.1: the seventh tab hangs"
    if not case.hub_door.is_secure:
        level: Level = "note" if _is_local(case.hub_door.host) else "warning"
        case.note(level, "http-version", advice, fix)
        return
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    parts = urlsplit(case.hub_url)
    host, _, port = (case.options.connect or "").rpartition(":")
    place = (host or parts.hostname or "", int(port or parts.port or 443))
    try:
        with (
            socket.create_connection(place, case.timeout) as connection,
            context.wrap_socket(connection, server_hostname=parts.hostname) as secure,
        ):
            version = secure.selected_alpn_protocol()
    except OSError:
        return  # reported where requests are sent
    if version == "h2":
        case.note("ok", "http-version", "the hub is reached by HTTP/2")
    else:
        case.note("warning", "http-version", f"no HTTP/2: {advice}", fix)


def check_cookie(case: Case) -> None:
    """Whether the cookie with a subscriber's token comes to the hub."""
    state = case.state
    if state.settings.subscriber_secret_key is None or state.settings.accel_redirect is not None:
        return
    set_cookie = _cookie_of_page(case) or _derived_cookie(case)
    if set_cookie is None:
        return
    _judge(case, set_cookie)


def _cookie_of_page(case: Case) -> str | None:
    """What a page of the application really sets."""
    name = case.state.settings.authz_cookie_name
    try:
        reply = case.page_door.request("GET", case.page_path, timeout=case.timeout)
    except HTTPError:
        return None  # reported by check_reach
    return next((c for c in reply.cookies if c.startswith(f"{name}=")), None)


def _derived_cookie(case: Case) -> str | None:
    """What ``set_authz_cookie`` would set on a page at this address."""
    app = case.state.app
    try:
        with app.test_request_context(base_url=case.options.url):
            token = case.state.subscriber_token([case.topic])
            response = case.state.instance.set_authz_cookie(Response(), jwt=token)
    except ConfigurationError as error:
        case.fault("cookie-domain", "no cookie of the application reaches the hub", str(error))
        return None
    return str(response.headers["Set-Cookie"])


def _judge(case: Case, set_cookie: str) -> None:
    """Applies a browser's rules (RFC 6265, 5.1.3, 5.1.4 and 5.4)."""
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(set_cookie)
    except CookieError:
        return
    name = case.state.settings.authz_cookie_name
    cookie = cookies.get(name)
    if cookie is None:
        return
    hub = urlsplit(case.hub_url)
    domain = _judge_domain(case, cookie)
    path = cookie["path"] or "/"
    comes = f"{hub.path}/".startswith(path.rstrip("/") + "/")
    if not comes:
        text = f"the cookie {name} is for paths below {path}, and the hub is at {hub.path}"
        case.fault("cookie-path", text, "leave path= out of set_authz_cookie")
    kept_back = cookie["secure"] and hub.scheme == "http" and not _is_local(hub.hostname or "")
    if kept_back:
        case.fault(
            "cookie-secure",
            f"the cookie {name} is Secure, and the hub is reached by plain http: browsers keep it "
            "back",
            "serve the hub by https; for tests without, pass secure=False to set_authz_cookie",
        )
    if domain and comes and not kept_back:
        case.note("ok", "cookie", f"a cookie {name} comes to the hub")


def _judge_domain(case: Case, cookie: Morsel[str]) -> bool:
    host = urlsplit(case.options.url).hostname or ""
    hub = urlsplit(case.hub_url).hostname or ""
    domain = cookie["domain"].lstrip(".").lower()
    if not _domain_reaches(domain or host, hub, exact=not domain):
        case.fault(
            "cookie-domain",
            f"the cookie {cookie.key} is for {domain or host}, and the hub is at {hub}: it is "
            "never sent there",
            "serve both below one domain and let set_authz_cookie derive it, or give domain= the "
            "one they share",
        )
        return False
    if domain and not _domain_reaches(domain, host, exact=False):
        case.fault(
            "cookie-domain",
            f"the cookie {cookie.key} is for {domain}, which {host} may not set: browsers ignore "
            "it",
            "leave domain= out of set_authz_cookie, or give it a domain that both belong to",
        )
        return False
    return True


def _domain_reaches(domain: str, host: str, *, exact: bool) -> bool:
    if exact:
        return domain == host
    return host == domain or host.endswith(f".{domain}")


def _is_local(host: str) -> bool:
    """Hosts that browsers trust without encryption."""
    return host == "localhost" or host.endswith(".localhost") or host.startswith("127.")
