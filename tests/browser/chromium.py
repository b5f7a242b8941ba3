"""The system's Chromium: where it is, and driven by Playwright. None is downloaded."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")

LACKING = (
    "no Chromium: `make browser` installs Debian's (apt-get install chromium), or CIR_CHROMIUM "
    "names one"
)


def find_chromium() -> str | None:
    """The path of the browser: what CIR_CHROMIUM says, else the first of NAMES in PATH."""
    return os.environ.get("CIR_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def started() -> Iterator[Browser]:
    """Without a window. Raises LookupError where there is no browser."""
    path = find_chromium()
    if path is None:
        raise LookupError(LACKING)
    with sync_playwright() as playwright:
        # A sandbox of its own needs privileges that root in a container lacks; what is opened here
        # are pages that we wrote.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
