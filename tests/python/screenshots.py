"""Draws the debugger for the documentation: ``make screenshots``."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from support import servers
from test_debugger import EVERYTHING, browser, events, hub, publish, subscribe, token, visit

__all__ = ["browser", "hub", "visit"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshot(visit, hub, scheme):
    page = visit(hub, scheme=scheme)
    page.get_by_label("Token", exact=True).fill(token(life=3600, **EVERYTHING))
    subscribe(page)
    for number in range(12):
        publish(page, f'{{"available": {number}}}')
        expect(events(page)).to_have_count(number + 1)
        page.wait_for_timeout(400)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#active tbody tr")).to_have_count(1)
    folder = servers.ROOT / "docs/production"
    page.screenshot(path=folder / f"debugger-{scheme}.png", full_page=True)
