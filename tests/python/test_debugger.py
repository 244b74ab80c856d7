"""The hub's own page in a real Chromium: what a person would do with it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import httpx
import jwt
import pytest
from playwright.sync_api import Browser, Page, expect

from support import neighbours, servers
from support.chromium import CHROMIUM, chromium

KEY = "a key for the debugger's tests, long enough"
TOPIC = "https://example.com/books/1"
TICKETS = "https://example.com/tickets/7"
PATH = "/.well-known/mercure"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def token(key: str = KEY, life: int = 600, **mercure: list[str]) -> str:
    return jwt.encode({"exp": int(time.time()) + life, "mercure": mercure}, key)


def elsewhere(url: str, hub: str) -> list[str]:
    """Whatever the page asks for, it asks of its own hub."""
    return [] if url.startswith((hub, "data:")) else [url]


EVERYTHING = {"publish": ["*"], "subscribe": ["*"]}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def hub(tmp_path) -> Iterator[str]:
    keys = {"publisher_jwt_key": KEY, "subscriber_jwt_key": KEY, "subscriptions": "true"}
    with neighbours.hub(tmp_path, debugger="true", **keys) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def visit(browser):
    contexts = []

    def visit(hub: str, width: int = 1000, scheme: str = "light", cookie: str = "") -> Page:
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme)
        contexts.append(context)
        if cookie:
            context.add_cookies([{"name": "mercureAuthorization", "value": cookie, "url": hub}])
        page = context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda asked: problems.extend(elsewhere(asked.url, hub)))
        page.goto(f"{hub}{PATH}/ui/")
        page.problems = problems
        return page

    yield visit
    for context in contexts:
        for page in context.pages:
            assert page.problems == []
        context.close()


def subscribe(page: Page, topic: str = TOPIC) -> None:
    page.get_by_label("Topics, one a line", exact=True).fill(topic)
    page.get_by_role("button", name="Subscribe", exact=True).click()
    expect(page.locator("#state")).to_have_text("live")


def publish(page: Page, data: str, topic: str = TOPIC) -> None:
    page.get_by_label("To topics, one a line").fill(topic)
    page.get_by_label("Data").fill(data)
    page.get_by_role("button", name="Publish", exact=True).click()


def events(page: Page):
    return page.locator("#events pre")


def test_a_pasted_token_subscribes_and_publishes_and_the_chart_moves(visit, hub):
    page = visit(hub)
    page.get_by_label("Token", exact=True).fill(token(**EVERYTHING))
    expect(page.locator("#findings")).to_contain_text("Generation 0.x, signed with HS256.")
    expect(page.locator("#findings")).to_contain_text("May publish to: *")
    subscribe(page)
    expect(page.locator("#chart rect")).to_have_count(0)
    page.get_by_label("private").check()
    publish(page, '{"available": false}\nsecond line')
    expect(events(page)).to_have_text(['{"available": false}\nsecond line'])
    expect(page.locator("#published")).to_contain_text("published as urn:uuid:")
    expect(page.locator("#chart rect")).to_have_count(1)
    expect(page.locator("#chart polyline")).to_have_attribute("points", re.compile(r"\d"))
    expect(page.locator("#chart-text")).to_contain_text("1 event in the last minute")
    expect(page.locator("#chart-text")).to_contain_text("ms (median)")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#active tbody tr")).to_have_count(1)
    expect(page.locator("#active tbody")).to_contain_text(TOPIC)
    page.get_by_role("button", name="Disconnect").click()
    expect(page.locator("#state")).to_have_text("not connected")


def test_the_cookie_is_used_only_when_asked(visit, hub):
    page = visit(hub, cookie=token(**EVERYTHING))
    publish(page, "without")
    expect(page.locator("#publish-refusal")).to_contain_text("401")
    page.get_by_label("this browser").check()
    subscribe(page)
    page.get_by_label("private").check()
    publish(page, "with the cookie")
    expect(events(page)).to_have_text(["with the cookie"])


@pytest.mark.parametrize(
    ("pasted", "reason"),
    [
        (lambda: token(life=-180, **EVERYTHING), "It expired 3 min ago"),
        (lambda: token(publish=[TICKETS]), f"It does not allow to publish to {TOPIC}"),
        (lambda: token(subscribe=["*"]), "It allows nobody to publish"),
        (lambda: token(key=KEY[::-1], **EVERYTHING), "mercure-hub explain"),
        (lambda: "nonsense", "this page can read"),
    ],
)
def test_a_refusal_is_explained(visit, hub, pasted, reason):
    page = visit(hub)
    # Made now: the tests may have begun long ago.
    page.get_by_label("Token", exact=True).fill(pasted())
    publish(page, "refused")
    expect(page.locator("#publish-refusal")).to_contain_text(reason)
    # A public topic needs no token; a bad one is refused all the same.
    if "expired" in reason:
        page.get_by_role("button", name="Subscribe", exact=True).click()
        expect(page.locator("#state")).to_have_text("refused")
        expect(page.locator("#refusal")).to_contain_text(reason)


def test_a_stream_comes_back_with_its_cursor(visit, tmp_path):
    keys = {"publisher_jwt_key": KEY, "subscriber_jwt_key": KEY, "debugger": "true"}
    with neighbours.hub(tmp_path, max_connection_age="1s", retry="50ms", **keys) as port:
        hub = f"http://127.0.0.1:{port}"
        page = visit(hub)
        # A connection that ends before the first event has no cursor of its own to come back with.
        page.get_by_label("Begin after this event id").fill("earliest")
        subscribe(page)
        headers = {"Authorization": f"Bearer {token(**EVERYTHING)}"}
        for number in range(30):
            form = {"topic": TOPIC, "data": str(number)}
            answer = httpx.post(hub + PATH, data=form, headers=headers, timeout=servers.PATIENCE)
            assert answer.status_code == 200
            time.sleep(0.1)
        expect(events(page)).to_have_text([str(29 - number) for number in range(30)])


def test_half_an_event_is_neither_shown_nor_skipped(visit, hub):
    """HTML, "Server-sent events": what a connection cuts is forgotten, its id and type included."""
    read = """async () => {
        const { Parser } = await import("./stream.js"), shown = [];
        const parser = new Parser((event) => shown.push(event.id));
        parser.feed("id: 1\\ndata: whole\\n\\nid: 2\\ndata: ha");
        parser.restart();
        const cursor = parser.lastId;
        parser.feed("retry: 4294967297\\n\\ndata: next\\n\\n");
        return [shown, cursor, parser.retry < 2 ** 31];
    }"""
    assert visit(hub).evaluate(read) == [["1", "1"], "1", True]


def test_the_keyboard_is_enough(visit, hub):
    page = visit(hub)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the events")).to_be_focused()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
        if reached[-1] == "token":
            page.keyboard.insert_text(token(**EVERYTHING))
        if reached[-1] == "connect":
            page.keyboard.press("Enter")
            expect(page.locator("#state")).to_have_text("live")
        if reached[-1] == "refresh":
            expect(events(page)).to_have_count(1)
            page.keyboard.press("Enter")
            break
        if reached[-1] == "private":
            # Enter in a field submits its form.
            page.get_by_label("Id", exact=True).press("Enter")
            page.get_by_label("private").focus()
    order = ["token", "topics", "parameter", "connect", "to", "data", "events", "refresh"]
    assert [name for name in reached if name in order] == order
    expect(events(page)).to_have_count(1)
    expect(page.locator("#active tbody tr")).to_have_count(1)


def test_everything_has_a_name_for_screen_readers(visit, hub):
    page = visit(hub)
    nameless = """() => [...document.querySelectorAll("input, textarea, select, button, a, svg")]
        .filter((one) => !(one.labels?.length || one.textContent.trim() || one.ariaLabel
            || one.getAttribute("aria-labelledby") || one.closest("[aria-label]")))
        .map((one) => one.outerHTML)"""
    assert page.evaluate(nameless) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_either_light(visit, hub, scheme):
    page = visit(hub, width=320, scheme=scheme)
    page.get_by_label("Token", exact=True).fill(token(**EVERYTHING))
    subscribe(page)
    publish(page, "unbreakable" * 30)
    expect(events(page)).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in re.findall(r"\d+", ground)[:3])
    assert (brightness < 150) == (scheme == "dark")


def test_commands_leave_the_token_out(visit, hub):
    page = visit(hub)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    secret = token(**EVERYTHING)
    page.get_by_label("Token", exact=True).fill(secret)
    page.get_by_label("Data").fill("it's")
    commands = []
    for button in (page.locator("#subscribe-curl"), page.locator("#publish-curl")):
        button.click()
        expect(button).to_have_text("Copied")
        commands.append(page.evaluate("navigator.clipboard.readText()"))
        expect(button).to_have_text("Copy as curl")
    assert commands[0].startswith("curl -N 'http://")
    assert "'data=it'\\''s'" in commands[1]
    for command in commands:
        assert '"Authorization: Bearer $MERCURE_JWT"' in command
        assert secret not in command


def test_a_hub_without_the_setting_has_no_page(tmp_path):
    with neighbours.hub(tmp_path, publisher_jwt_key=KEY) as port:
        assert httpx.get(f"http://127.0.0.1:{port}{PATH}/ui/").status_code == 404


def test_nobody_may_frame_the_page_and_it_runs_nothing_of_others(hub):
    answer = httpx.get(f"{hub}{PATH}/ui", follow_redirects=True)
    assert answer.url.path == f"{PATH}/ui/"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert httpx.get(f"{hub}{PATH}/ui/token").status_code == 404, "only a playground gives tokens"


def test_the_playground_works_at_once(visit, tmp_path):
    with neighbours.hub(tmp_path, playground="true") as port:
        page = visit(f"http://127.0.0.1:{port}")
        expect(page.locator("#insecure")).to_be_visible()
        expect(page.locator("#findings")).to_contain_text("Generation 1.0")
        subscribe(page)
        page.get_by_label("private").check()
        publish(page, "first steps")
        expect(events(page)).to_have_text(["first steps"])
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#active tbody tr")).to_have_count(1)
        assert "whoever reaches it may read and publish" in "".join(
            file.read_text() for file in tmp_path.glob("hub-*.log")
        )
