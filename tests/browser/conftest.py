"""A headless Chromium for tests of pages and widgets; skipped, with the reason, where there is none
or where it does not answer.
"""

import os
import shutil
import signal
from pathlib import Path

import pytest

LIMIT = 200  # seconds of one test with what it sets up; the slowest takes thirty


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A browser or a server that hangs ends in a skip that says so, not in a run that never
    ends."""
    if Path(__file__).parent not in item.path.parents or not hasattr(signal, "SIGALRM"):
        return (yield)

    def stop(number, frame):
        pytest.skip(f"the browser or the server behind it did not answer within {LIMIT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def chromium():
    """Playwright's browser object over the system's Chromium (`VWSD_CHROMIUM`, else the one on the
    path).
    """
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install 'vwsdlib[dev]')"
    )
    path = (
        os.environ.get("VWSD_CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if not path:
        pytest.skip("no Chromium at hand (Debian: apt install chromium; or set VWSD_CHROMIUM)")
    quiet = [
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()
