"""The whole page in Chromium: accessible, of any width, in light and dark, printed, without
scripts, and of runs that lack something."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, expect

from cir_core.types import Benchmark
from tasks.stages.output import make_output, write_output
from tests.browser.conftest import Opening
from tests.browser.made_report import MadeReport, made_report, mixed_benchmark
from tests.support.made_runs import circo_benchmark, cirr_benchmark

CARDS = "#query-results > article"

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]}}

SCHEMES: Sequence[Literal["light", "dark"]] = ("light", "dark")
SIZES: Sequence[ViewportSize] = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def violations(page: Page) -> list[str]:
    found: list[dict[str, Any]] = Axe().run(page, options=RULES).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


def is_too_wide(page: Page) -> bool:
    width: int = page.evaluate("document.documentElement.scrollWidth")
    return width > page.evaluate("innerWidth")


def test_the_page_is_accessible_and_fits_its_screen(page: Page, tmp_path: Path) -> None:
    for size in SIZES:
        page.set_viewport_size(size)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=tmp_path / f"{size['width']}-{scheme}.png")
        assert not is_too_wide(page)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.locator(f"{CARDS} .top button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == [], "on a phone, in the dark, beneath a larger picture"
    page.keyboard.press("Escape")
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = false")
    page.set_viewport_size(SIZES[0])
    page.emulate_media(color_scheme="light")
    assert violations(page) == [], "on a desk, in light"


def test_keys_lead_past_the_contents(opened: Opening, mixed: MadeReport) -> None:
    page = opened(mixed.page, viewport=SIZES[1])
    skip = page.get_by_role("link", name="Skip to the report")
    page.keyboard.press("Tab")
    expect(skip).to_be_focused()
    assert skip.bounding_box()["height"] > 20  # type: ignore[index]  # it has one: it is shown
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_charts_are_drawn_for_the_paper_and_then_for_the_screen(page: Page) -> None:
    drawn = page.locator("figure.chart svg[role=img]").first
    before = drawn.get_attribute("width")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert drawn.get_attribute("width") in ("328", "480")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert drawn.get_attribute("width") == before


def test_the_page_prints(page: Page) -> None:
    assert page.pdf(format="A4").startswith(b"%PDF-")
    page.emulate_media(media="print")
    expect(page.locator("#queries")).to_be_hidden()
    sizes = {
        row.evaluate("cell => getComputedStyle(cell).fontSize")
        for row in (page.locator(f"#recall tr{of} td").first for of in ("", ".published"))
    }
    page.emulate_media(media="screen")
    assert len(sizes) == 1, "others' numbers are not printed larger than the run's"


def test_samples_remain_without_scripts(opened: Opening, mixed: MadeReport) -> None:
    page = opened(mixed.page, java_script_enabled=False)
    expect(page.locator("#query-filters")).to_be_hidden()
    for title in ("Re-ranking gained most", "Lost in stage 1", "Queries without label"):
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    samples = page.locator("noscript .query")
    assert samples.count() > 12
    picture = samples.first.locator("img").first
    assert picture.evaluate("image => image.naturalWidth") == 84


def test_larger_pictures_lie_beside_the_page(page: Page) -> None:
    page.locator(f"{CARDS} .given button").first.click()
    image = page.get_by_role("dialog").locator("img")
    assert "/pictures/" in image.evaluate("image => image.decode().then(() => image.src)")
    assert image.evaluate("image => image.naturalHeight") == 120
    page.keyboard.press("Escape")


def test_a_page_without_its_folder_says_so_and_the_run_makes_it_again(
    mixed: MadeReport, chromium: Browser, tmp_path: Path
) -> None:
    alone = tmp_path / "index.html"
    shutil.copy(mixed.page, alone)
    page = chromium.new_page()
    page.goto(alone.as_uri())
    page.locator(f"{CARDS} .given button").first.click()
    expect(page.locator(".note")).to_contain_text("not in the folder pictures/")
    assert "data:" in page.get_by_role("dialog").locator("img").evaluate("image => image.src")
    page.close()
    report = mixed.report
    write_output(report)
    assert report.is_done
    before = {path.name: path.read_bytes() for path in report.files[0].parent.glob("pictures/*")}
    shutil.rmtree(report.files[0].parent / "pictures")
    assert make_output(report) == ("report",)
    after = {path.name: path.read_bytes() for path in report.files[0].parent.glob("pictures/*")}
    assert after == before != {}


@pytest.mark.parametrize(
    ("benchmark", "options", "absent", "present"),
    [
        (mixed_benchmark(), {"reranked": False}, "Stage 2", "Stage 1"),
        (
            cirr_benchmark(12, 4, labelled=False),
            {"protocol": "cirr-removed-subset-scored"},
            "The target is",
            "Subset in stage 2",
        ),
        (circo_benchmark(9, 1), {"protocol": "circo-kept-caption"}, "No label", "Stage 2"),
        (
            circo_benchmark(9, 1),
            {"protocol": "circo-kept-caption", "unasked": {"0"}},
            "Stage 1",
            "It could not be asked",
        ),
    ],
    ids=["stage 1 alone", "subsets, no labels", "one query, three targets", "none asked"],
)
def test_a_run_that_lacks_something_is_shown_for_what_it_is(
    opened: Opening,
    tmp_path: Path,
    benchmark: Benchmark,
    options: dict[str, Any],
    absent: str,
    present: str,
) -> None:
    page = opened(made_report(tmp_path, benchmark, **options).page)
    shown = page.locator("#query-browser").inner_text()
    assert present in shown
    assert absent not in shown
    expect(page.locator(CARDS)).to_have_count(min(5, len(benchmark.queries)))
    is_measured = any(query.targets for query in benchmark.queries)
    assert ("In percent" in page.locator("#recall").inner_text()) == is_measured
    page.evaluate("location.hash = 'queries&sort=gained&moved=up&answer=spoiled'")
    choices = page.locator("#query-filters select")
    expect(choices.locator("option:checked")).to_have_count(choices.count())  # none is blank
    page.locator("[name=find]").fill("nobody asked this")
    expect(page.get_by_role("status")).to_contain_text("None of")
