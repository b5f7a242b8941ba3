"""One self-contained HTML page a run: the numbers, the SQL behind them, and pictures of queries."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cir_core.planning.disk import Counts
from cir_core.planning.effort import Effort, Forecast
from cir_core.ports import Widths
from storage.answers import reading
from storage.catalog import CATALOG_FILE
from storage.products import Product
from tasks.results.report.coverage import coverage
from tasks.results.report.late_fusion import late_fusion
from tasks.results.report.page import Page
from tasks.results.report.queries import queries
from tasks.results.report.recall import cirr_average, places, recalls
from tasks.results.report.searched import galleries, problems
from tasks.results.report.source import Source
from tasks.stages.output import Output, content_of, folder_of

VERSION = 9
PAGE, NUMBERS = "index.html", "metrics.json"

PAGE_SECONDS = 1.0
PICTURES = 256
"""Queries and their thumbnails, for which whole pictures are decoded: 16 queries with 16 pictures
each. The demo's page takes 1.4 s."""

PAGE_BYTES = 2_000_000
"""Mostly thumbnails."""

STYLES = "page.css", "queries.css"

SECTIONS: Mapping[str, Callable[[Source], Any]] = {
    "galleries": galleries,
    "recalls": recalls,
    "places": places,
    "cirr_average": cirr_average,
    "coverage": coverage,
    "late_fusion": late_fusion,
    "problems": problems,
    "queries": queries,
}
"""What each is made of, by the name under which its template, ``templates/<name>.html.j2``, or a
neighbour's has it. ``templates/report.html.j2`` says in which order they stand."""


@dataclass(frozen=True)
class Report(Output):
    """``<store>/reports/<run>/index.html`` and ``metrics.json``, from the catalog. A picture below
    ``root`` that is not what was ingested any more is not shown."""

    root: Path

    name = "report"
    missing = "no sound page of this run"
    seconds_per_pair = 0.2e-6

    @property
    def product(self) -> Product:
        folder = self.evaluated.store.local(folder_of(self.evaluated))
        return Product(folder, "report", str(VERSION), (PAGE, NUMBERS))

    def write(self) -> Mapping[str, str]:
        evaluated, store = self.evaluated, self.evaluated.store
        with reading(store.local(CATALOG_FILE)) as catalog:
            (run,) = catalog.rows(f"SELECT * FROM runs WHERE run_id = '{evaluated.run_id}'")
            source = Source(evaluated, run, catalog, self.root)
            store.put_text(f"{folder_of(evaluated)}/{PAGE}", _page(source))
            numbers = json.dumps(_numbers(source), indent=1, default=str) + "\n"
        store.put_text(f"{folder_of(evaluated)}/{NUMBERS}", numbers)
        return {evaluated.run_id: content_of(evaluated)}

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        seconds = PAGE_SECONDS + PICTURES * forecast.speeds.picture
        return Effort(pairs=forecast.work.candidates, seconds=seconds)

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        return PAGE_BYTES


def _page(source: Source) -> str:
    known = {
        "run": source.run,
        "protocol": source.protocol,
        "reranked": source.is_reranked,
        "made_with": source.evaluated.made_with(),
    }
    made = {name: section(source) for name, section in SECTIONS.items()}
    title = (
        f"cir-pipeline: {source.run['dataset']} {source.run['split']}, run {source.run['run_id']}"
    )
    return Page().render("report.html.j2", known | made, title=title, styles=STYLES)


def _numbers(source: Source) -> dict[str, Any]:
    tables = {
        name: source.rows(f"SELECT * FROM {name} WHERE {source.of_run}")
        for name in ("galleries", "problems", "metrics")
    }
    return {"report_version": VERSION, "run": source.run} | tables
