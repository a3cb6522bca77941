"""A headless Chromium for the tests of the pages, and what they need of it; without one they are skipped."""

import re
import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="module")  # its event loop would be in the way of other modules'
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install 'minigpt[test]'")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def expect(locator):
    """Waits until it is so."""
    from playwright.sync_api import expect

    return expect(locator)


@pytest.fixture
def opened(browser):
    """A function that opens a page in a context of its own; whatever the browser complains of fails the test."""
    contexts, said = [], []

    def open_page(at: str, allowed: str = "^$", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(40_000)  # ms: a machine may be busy
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda m: m.type == "error" and not re.search(allowed, m.text) and said.append(m.text))
        page.on("request", lambda r: r.url.startswith((at, "data:")) or said.append(f"asked {r.url}"))
        page.goto(at)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
