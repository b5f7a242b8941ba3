"""One browser for each process of the suite, and pages that tell what went wrong in them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.made_report import MadeReport

PATIENCE = 60_000
"""Milliseconds for what takes some: the suite may share its cores with much else."""

Opening = Callable[..., "Page"]
"""Opens a file, perhaps at an address within it (``at``), in a context with these options."""


@pytest.fixture(scope="package")  # later tests count the processes that they have started
def chromium() -> Iterator["Browser"]:
    """Skips the tests where there is none; in continuous integration that fails them."""
    from playwright.sync_api import expect

    from tests.browser.chromium import LACKING, find_chromium, started

    if find_chromium() is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(LACKING)
    expect.set_options(timeout=PATIENCE)
    with started() as browser:
        yield browser


def outside(url: str, allowed: tuple[str, ...]) -> list[str]:
    return [] if url.startswith(allowed) else [f"request: {url}"]


@contextmanager
def watched(chromium: "Browser") -> Iterator[Opening]:
    """At the end no page may have written to its console, broken its policy, or asked for anything
    but itself and pictures beside it."""
    contexts, faults = [], list[str]()

    def open_page(path: Path, *, at: str = "", **options: Any) -> "Page":
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        allowed = ("data:", f"{path.parent.as_uri()}/pictures/", path.as_uri())
        page.on("request", lambda asked: faults.extend(outside(asked.url, allowed)))
        page.goto(path.as_uri() + at)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def opened(chromium: "Browser") -> Iterator[Opening]:
    """Pages of a test's own."""
    with watched(chromium) as opening:
        yield opening


@pytest.fixture(scope="module")
def shared(chromium: "Browser", mixed: "MadeReport") -> Iterator["Page"]:
    """The page of ``mixed``, opened once for a module's tests."""
    with watched(chromium) as opening:
        yield opening(mixed.page)


@pytest.fixture
def page(shared: "Page") -> "Page":
    """The shared one, with every filter as it was."""
    shared.evaluate(
        """() => new Promise((done) => {
          addEventListener("hashchange", done, { once: true });
          location.hash = `queries&again=${Math.random()}`;
        })"""
    )
    return shared


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> "MadeReport":
    """A re-ranked run of two categories, with hostile ids, unlabelled queries, several targets,
    and a query that could not be asked."""
    from tests.browser.made_report import HOSTILE, made_report, mixed_benchmark

    folder = tmp_path_factory.mktemp("mixed")
    return made_report(folder, mixed_benchmark(), unasked=HOSTILE[:1], probed=True)
