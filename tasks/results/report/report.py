"""One self-contained HTML page a run: the numbers, the SQL behind them, and pictures of queries."""

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
from tasks.results.album import MOST_FILES, PICTURE_BYTES
from tasks.results.analyses.analysis import WORDS
from tasks.results.record.files import RECORD_FILES, known_command, record_of
from tasks.results.record.files import VERSION as RECORD
from tasks.results.report.analyses import TITLES, analyses
from tasks.results.report.charts import chart_data, figure_numbers
from tasks.results.report.cost import cost
from tasks.results.report.coverage import coverage
from tasks.results.report.forms import told
from tasks.results.report.late_fusion import late_fusion
from tasks.results.report.page import Page
from tasks.results.report.queries import PICTURE_SUMS, PICTURES, queries
from tasks.results.report.query_rows import MENTIONED, QUERY_BYTES
from tasks.results.report.recall import cirr_average, places, recalls
from tasks.results.report.searched import galleries, problems
from tasks.results.report.settings import settings
from tasks.results.report.source import Source
from tasks.results.report.verdict import verdict
from tasks.results.titles import STAGES, title_of
from tasks.results.wording import (
    adaptive_words,
    candidates_of,
    counted,
    has_no_guarantee,
)
from tasks.stages.output import Output, content_of, folder_of

VERSION = 13
PAGE = "index.html"

PAGE_SECONDS = 2.0
"""Beside pictures; 4 for Fashion-IQ's validation queries."""

PAGE_BYTES = 2_000_000
"""Beside queries and pictures."""

STYLES = "page.css", "queries.css"

SECTIONS: Mapping[str, Callable[[Source], Any]] = {
    "verdict": verdict,
    "galleries": galleries,
    "recalls": recalls,
    "places": places,
    "cost": cost,
    "settings": settings,
    "cirr_average": cirr_average,
    "coverage": coverage,
    "analyses": analyses,
    "late_fusion": late_fusion,
    "problems": problems,
    "queries": queries,
}
"""What each is made of, by the name under which its template, ``templates/<name>.html.j2``, or a
neighbour's has it. ``templates/report.html.j2`` says in which order they stand."""


@dataclass(frozen=True)
class Report(Output):
    """``<store>/reports/<run>/index.html``, and the run's record beside it, from the catalog; and
    the folder ``pictures`` with as many larger pictures as are asked for (None: all), whose sums
    are part of the receipt. A picture below ``root`` that is not what was ingested any more is not
    shown. ``command`` makes the run again; without, it is what the record said before."""

    root: Path
    pictures: int | None = MOST_FILES
    command: tuple[str, ...] = ()

    name = "report"
    missing = "no sound page of this run"
    seconds_per_pair = 0.2e-6

    @property
    def product(self) -> Product:
        store, folder = self.evaluated.store, folder_of(self.evaluated)
        has_pictures = store.size(f"{folder}/{PICTURE_SUMS}") is not None
        files = (PAGE, *RECORD_FILES, *[PICTURE_SUMS] * has_pictures)
        return Product(store, folder, "report", f"{VERSION}-{RECORD}", files)

    @property
    def files(self) -> tuple[Path, ...]:
        """With the pictures that the page shows beside it."""
        self.evaluated.store.local_folder(f"{folder_of(self.evaluated)}/{PICTURES}")
        return super().files

    def write(self) -> Mapping[str, str]:
        evaluated, store = self.evaluated, self.evaluated.store
        with reading(store.local(CATALOG_FILE)) as catalog:
            run = catalog.run(evaluated.run_id)
            source = Source(evaluated, run, catalog, self.root, self.pictures)
            store.put_text(f"{folder_of(evaluated)}/{PAGE}", _page(source))
            command = self.command or known_command(store, folder_of(evaluated))
            record = record_of(catalog, evaluated, command, report=VERSION)
        for file, text in record.items():
            store.put_text(f"{folder_of(evaluated)}/{file}", text)
        return {evaluated.run_id: content_of(evaluated)}

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        work = forecast.work
        seconds = PAGE_SECONDS + _shown(work.images, work.queries) * forecast.speeds.picture
        return Effort(pairs=work.candidates, seconds=seconds)

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        shown = _shown(counts.images, counts.queries)
        return PAGE_BYTES + QUERY_BYTES * counts.queries + PICTURE_BYTES * shown


def _shown(images: int, queries: int) -> int:
    """Pictures at most."""
    return min(images, MOST_FILES, queries * MENTIONED)


def _page(source: Source) -> str:
    known = {
        "run": source.run,
        "protocol": source.protocol,
        "reranked": source.is_reranked,
        "made_with": source.evaluated.made_with(),
        "chart_data": chart_data,
        "figure_numbers": figure_numbers,
        "candidates": f"{candidates_of(source.run)} per query{adaptive_words(source.run)}",
        "no_guarantee": has_no_guarantee(source.run),
        "counted": counted,
        "told": told,
        "stages": STAGES,
        "title_of": title_of,
        "WORDS": WORDS,
        "titles": TITLES,
    }
    made = {name: section(source) for name, section in SECTIONS.items()}
    title = (
        f"cir-pipeline: {source.run['dataset']} {source.run['split']}, run {source.run['run_id']}"
    )
    return Page(has_folder=made["queries"].has_folder).render(
        "report.html.j2", known | made, title=title, styles=STYLES
    )
