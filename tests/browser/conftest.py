"""A headless Chromium for tests of pages and widgets; skipped, with the reason, where there is none."""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def chromium():
    """Playwright's browser object over the system's Chromium (`VWSD_CHROMIUM`, else `chromium` on the path); it reaches this machine alone."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("VWSD_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        pytest.skip("no Chromium at hand (Debian: apt install chromium; or set VWSD_CHROMIUM)")
    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()
