"""The chat example in a real Chromium: what a person would see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from conftest import companions
from support import servers
from support.chromium import CHROMIUM, chromium

CHAT = servers.ROOT / "examples/chat"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def chat(start, tmp_path):
    folder = str(tmp_path / "chat")
    return start(lambda port: servers.gunicorn(port, "-w", "2"), folder=CHAT, CHAT_FOLDER=folder)


@pytest.fixture
def enter(browser, chat):
    contexts = []

    def enter(name: str, width: int = 900) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 700})
        contexts.append(context)
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{chat.port}/")
        page.get_by_label("Your name").fill(name)
        page.get_by_role("button", name="Enter").click()
        expect(page.locator("#state")).to_have_text("live")
        return page

    yield enter
    for context in contexts:
        context.close()


def send(page: Page, body: str, to: str = "") -> None:
    page.get_by_label("To", exact=True).fill(to)
    page.get_by_label("Message", exact=True).fill(body)
    page.get_by_role("button", name="Send").click()


def bodies(page: Page):
    return page.locator("#messages p")


def test_two_windows_exchange_messages(enter):
    alice, bob = enter("Alice"), enter("Bob")
    send(alice, "hello <b>Bob</b>")
    expect(bodies(bob)).to_have_text(["hello <b>Bob</b>"])
    send(bob, "hello Alice")
    for page in (alice, bob):
        expect(bodies(page)).to_have_text(["hello <b>Bob</b>", "hello Alice"])
    late = enter("Carol")
    expect(bodies(late)).to_have_text(["hello <b>Bob</b>", "hello Alice"])


def test_a_private_message_reaches_its_addressee_only(enter):
    alice, bob, carol = enter("Alice"), enter("Bob"), enter("Carol")
    alice_again = enter("Alice")
    send(alice, "for Bob", to="Bob")
    expect(bodies(bob)).to_have_text(["for Bob"])
    expect(bodies(alice_again)).to_have_text(["for Bob"])
    send(alice, "for all")
    expect(bodies(bob)).to_have_text(["for Bob", "for all"])
    expect(bodies(carol)).to_have_text(["for all"])
    carol.reload()
    expect(bodies(carol)).to_have_text(["for all"])


def test_after_a_killed_companion_pages_are_live_again_by_themselves(enter, runtime_dir):
    alice, bob = enter("Alice"), enter("Bob")
    send(alice, "before")
    expect(bodies(bob)).to_have_text(["before"])
    watch = """() => {
        window.lost = new Promise((resolve) => new MutationObserver(() => {
            if (state.textContent !== "live") resolve();
        }).observe(state, {childList: true}));
    }"""
    for page in (alice, bob):
        page.evaluate(watch)
    (companion,) = companions(runtime_dir)
    killed = time.monotonic()
    os.kill(companion, signal.SIGKILL)
    for page in (alice, bob):
        page.evaluate("window.lost")
        expect(page.locator("#state")).to_have_text("live")
    took = time.monotonic() - killed
    print(f"both windows were live again after {took:.2f} s")
    # Some two seconds; a busy machine may take longer.
    assert took < 15, "no reload, no wait worth the name"
    send(alice, "after")
    for page in (alice, bob):
        expect(bodies(page)).to_have_text(["before", "after"])


def test_nothing_is_lost_between_render_and_connect(enter, chat):
    """The page is held back before its script runs; what is sent meanwhile must be there."""
    alice = enter("Alice")
    send(alice, "in the history")
    expect(bodies(alice)).to_have_text(["in the history"])
    context = alice.context
    late = context.new_page()
    late.route("**/chat.js", lambda route: (send_and_wait(alice), route.continue_()))
    late.goto(f"http://127.0.0.1:{chat.port}/")
    expect(bodies(late)).to_have_text(["in the history", "in the gap"])


def send_and_wait(page: Page) -> None:
    if bodies(page).count() < 2:
        page.evaluate(
            "fetch('/messages', {method: 'POST', body: new URLSearchParams({body: 'in the gap'})})"
        )


def test_it_fits_a_phone(enter):
    page = enter("A person with a rather long name", width=320)
    send(page, "unbreakable" * 30)
    expect(bodies(page)).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for name in ("Send", "leave"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= 320 - box["width"]


def test_a_bad_name_is_explained(browser, chat):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{chat.port}/")
    page.get_by_label("Your name").fill("   ")
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("alert")).to_contain_text("1 to 32 characters")
    context.close()


def test_workers_that_start_at_once_open_one_store(tmp_path):
    """A server's workers meet at an empty folder: none may find the database locked."""
    opens = (
        "import sys; from store import Store\n"
        "for round in range(20):\n"
        "    sys.stdin.readline(); Store(f'{sys.argv[1]}/{round}.sqlite'); print(flush=True)"
    )
    command = [sys.executable, "-c", opens, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, cwd=CHAT, **pipes) for _ in range(4)]
    for _ in range(20):
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()
        assert [worker.stdout.readline() for worker in workers] == ["\n"] * 4
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
