"""The report of a run of Fashion-IQ val's size, with stand-in pictures, and how fast it opens.

    PYTHONPATH=. python benchmarks/report.py                    # 6,016 queries, 15,536 pictures
    PYTHONPATH=. python benchmarks/report.py --share 0.1        # a tenth of all
    PYTHONPATH=. python benchmarks/report.py --folder /tmp/big  # both are made once, and kept

Drawn pictures are JPEG files of 400 x 600 pixels and some 45 KB, as the benchmark's. The page is
opened by Chromium, found as the tests find it. Where other work runs beside, CPU seconds tell more.
"""

import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from playwright.sync_api import Page
from retrieval import memory, told

from storage.views import Evaluated
from tasks.results.report.report import Report
from tests.browser.chromium import started
from tests.support.large_run import GALLERIES, QUERIES, write_large_run

SIZE = (400, 600)

TIMES = """() => new Promise((answer) => {
  const [opened] = performance.getEntriesByType("navigation");
  new PerformanceObserver((list) => {
    const painted = list.getEntriesByName("first-contentful-paint")[0];
    if (painted) answer([opened.loadEventEnd, painted.startTime]);
  }).observe({ type: "paint", buffered: true });
})"""
"""Milliseconds from the navigation to the end of the load event, and to the first paint."""

FILTER = """() => {
  const find = document.querySelector("[name=find]");
  const started = performance.now();
  find.value = "sleeves red";
  find.dispatchEvent(new Event("input", { bubbles: true }));
  document.querySelector("#query-results").getBoundingClientRect();
  return performance.now() - started;
}"""
"""Milliseconds from a search to its results, laid out."""


def measure(
    share: Annotated[float, typer.Option(help="Of the benchmark's images and queries.")] = 1.0,
    folder: Annotated[Path | None, typer.Option(help="Where pictures and run are kept.")] = None,
) -> None:
    """Time and memory of the page, its size, and how soon a browser shows it."""
    galleries, queries = (
        {name: round(share * count) for name, count in counts.items()}
        for counts in (GALLERIES, QUERIES)
    )
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        images, store = Path(place) / "images", Path(place) / f"store-{share:g}"
        for category, count in galleries.items():
            draw_pictures(images, category, count)
        evaluated = write_large_run(store, pictures=images, galleries=galleries, queries=queries)
        measure_opening(measure_report(evaluated, images))


def draw_pictures(folder: Path, category: str, count: int) -> None:
    """Soft colours under a fine grain: as many bytes as a photograph of this size. Those that are
    there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, (width, height) = np.random.default_rng([*category.encode()]), SIZE
    for number in range(count):
        path = folder / f"{category}-{number:05d}.jpg"
        if path.exists():
            continue
        soft = Image.fromarray(rng.integers(256, size=(height // 50, width // 50, 3), dtype="u1"))
        grain = Image.fromarray(rng.integers(256, size=(height // 4, width // 4), dtype="u1"))
        soft, grain = (one.resize(SIZE, Image.Resampling.BILINEAR) for one in (soft, grain))
        Image.blend(soft, grain.convert("RGB"), 0.22).save(path, quality=88)


def measure_report(evaluated: Evaluated, images: Path) -> Path:
    """The page, made anew."""
    report = Report(evaluated, images)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with told("page and pictures"), memory("page and pictures, beside what there was"):
        report.write()
    page = report.files[0]
    files = [one.stat().st_size for one in page.parent.glob("pictures/*.jpg")]
    print(f"page {page.stat().st_size / 1e6:.1f} MB", end=", ")
    print(f"pictures/ {len(files):,} files, {sum(files) / 1e6:.0f} MB")
    return page


def measure_opening(page: Path) -> None:
    """The second of two times, when the browser itself is warm, is the one that counts."""
    with started() as chromium:
        for state in ("cold", "warm"):
            tab = chromium.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(page.as_uri())
            print(f"Chromium, {state}: {opening(tab)}")
            tab.close()


def opening(tab: Page) -> str:
    loaded, painted = tab.evaluate(TIMES)
    searched = tab.evaluate(FILTER)
    return f"loaded after {loaded:.0f} ms, painted {painted:.0f} ms, a search {searched:.0f} ms"


if __name__ == "__main__":
    typer.run(measure)
