"""One browser for all tests that need one."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from pages import ROOT
from playwright.sync_api import Browser, sync_playwright

sys.path.append(str(ROOT / "book" / "_ext"))
from chromium import CHROMIUM


@pytest.fixture(scope="package")  # and closed after them: it keeps an event loop running
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--allow-file-access-from-files"])
        yield browser
        browser.close()
