"""One self-contained HTML page a run: the numbers, the SQL behind them, and pictures of queries."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from cir_core.metrics.recall import AVERAGE, MICRO
from cir_core.planning.disk import Counts
from cir_core.planning.effort import Effort, Forecast
from cir_core.ports import Widths
from cir_core.protocols import PROTOCOLS
from storage.answers import OpenCatalog, reading
from storage.catalog import CATALOG_FILE
from storage.products import Product
from tasks.results.album import Album
from tasks.results.samples import samples
from tasks.stages.output import Output, folder_of

VERSION = 8
PAGE, NUMBERS = "index.html", "metrics.json"

PAGE_SECONDS = 1.0
PICTURES = 256
"""Queries and their thumbnails, for which whole pictures are decoded: 16 queries with 16 pictures
each. The demo's page takes 1.4 s."""

PAGE_BYTES = 2_000_000
"""Mostly thumbnails."""


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
        folder, store = folder_of(self.evaluated), self.evaluated.store
        with reading(store.local(CATALOG_FILE)) as catalog:
            (run,) = catalog.rows(f"SELECT * FROM runs WHERE {self._of_run}")
            store.put_text(f"{folder}/{PAGE}", _template().render(self._content(catalog, run)))
            numbers = json.dumps(self._numbers(catalog, run), indent=1, default=str) + "\n"
        store.put_text(f"{folder}/{NUMBERS}", numbers)
        return {self.evaluated.run_id: self.evaluated.content}

    @property
    def _of_run(self) -> str:
        return f"run_id = '{self.evaluated.run_id}'"

    def _content(self, catalog: OpenCatalog, run: dict[str, Any]) -> dict[str, Any]:
        evaluated, reranked = self.evaluated, self.evaluated.is_reranked
        album = Album(evaluated.ingested.read("images"), self.root)
        return {
            "run": run,
            "protocol": PROTOCOLS[run["protocol"]],
            "galleries": _galleries(catalog, run),
            "reranked": reranked,
            "recalls": _recall_tables(catalog, run, "gain" if reranked else "stage1"),
            "cirr_average": _cirr_average(catalog, run),
            "places": _places(catalog, run),
            "coverage": _coverage(catalog, run),
            "curve": _curve(catalog, run),
            "problems": catalog.rows(f"SELECT * FROM problems WHERE {self._of_run} LIMIT 50"),
            "samples": samples(catalog, evaluated.run_id, album, reranked=reranked),
            "made_with": evaluated.made_with(),
        }

    def _numbers(self, catalog: OpenCatalog, run: dict[str, Any]) -> dict[str, Any]:
        tables = {
            name: catalog.rows(f"SELECT * FROM {name} WHERE {self._of_run}")
            for name in ("galleries", "problems", "metrics")
        }
        return {"report_version": VERSION, "run": run} | tables

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        seconds = PAGE_SECONDS + PICTURES * forecast.speeds.picture
        return Effort(pairs=forecast.work.candidates, seconds=seconds)

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        return PAGE_BYTES


def _galleries(catalog: OpenCatalog, run: dict[str, Any]) -> dict[str, Any]:
    """What was searched, by category."""
    sql = (
        "SELECT category, images, missing, sha256 FROM galleries\n"
        f"WHERE run_id = '{run['run_id']}' ORDER BY category"
    )
    return {"sql": sql, "rows": catalog.rows(sql)}


def _recall_tables(catalog: OpenCatalog, run: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    """One table per pool, in the categories' order, with the SQL that gives its numbers, and the
    intervals of one stage, or of the gain."""
    run_id = run["run_id"]
    tables = []
    for pool, metric in (("gallery", "recall"), ("subset", "recall_subset")):
        sql = (
            "SELECT category, k, stage1, stage2, gain, n FROM recall\n"
            f"WHERE run_id = '{run_id}' AND pool = '{pool}' ORDER BY category, k"
        )
        recall = {(row["category"], row["k"]): row for row in catalog.rows(sql)}
        if not recall:
            continue
        interval_sql = (
            "SELECT category, k, value, ci_low, ci_high, gallery_images FROM metrics\n"
            f"WHERE run_id = '{run_id}' AND stage = '{stage}' AND metric = '{metric}'"
        )
        intervals = catalog.rows(interval_sql)
        names = sorted(
            {category for category, _ in recall}, key=lambda name: (name in (AVERAGE, MICRO), name)
        )
        tables.append(
            {
                "pool": pool,
                "ks": sorted({k for _, k in recall}),
                "categories": names,
                "recall": recall,
                "interval": {(row["category"], row["k"]): row for row in intervals},
                "published": {name: _published(run["protocol"], name, metric) for name in names},
                "sql": f"{sql};\n\n{interval_sql}",
            }
        )
    return tables


def _places(catalog: OpenCatalog, run: dict[str, Any]) -> dict[str, Any]:
    """Measures of where targets rank: MRR, and mAP where the protocol has it."""
    sql = (
        "SELECT metric, k, category, stage, value, ci_low, ci_high FROM metrics\n"
        f"WHERE run_id = '{run['run_id']}' AND metric IN ('mrr', 'map')\n"
        "ORDER BY metric, k, category"
    )
    table: dict[tuple[str, int, str], dict[str, Any]] = {}
    for row in catalog.rows(sql):
        table.setdefault((row["metric"], row["k"], row["category"]), {})[row["stage"]] = row
    return {"sql": sql, "rows": table}


def _cirr_average(catalog: OpenCatalog, run: dict[str, Any]) -> dict[str, Any] | None:
    """CIRR's headline number, beside the published; None for other datasets."""
    sql = (
        "SELECT stage, value FROM metrics\n"
        f"WHERE run_id = '{run['run_id']}' AND metric = 'cirr_average' ORDER BY stage"
    )
    rows = catalog.rows(sql)
    if not rows:
        return None
    published = [
        {"label": one.label, "source": one.source, "value": value}
        for one in PROTOCOLS[run["protocol"]].published
        for (_, metric, _), value in one.values.items()
        if metric == "cirr_average"
    ]
    return {"rows": rows, "published": published, "sql": sql}


def _published(protocol: str, category: str, metric: str) -> list[dict[str, Any]]:
    """Other people's numbers for a category, in percent by k."""
    rows = []
    for published in PROTOCOLS[protocol].published:
        recall = {
            k: value
            for (name, kind, k), value in published.values.items()
            if (name, kind) == (category, metric)
        }
        if recall:
            rows.append({"label": published.label, "source": published.source, "recall": recall})
    return rows


def _coverage(catalog: OpenCatalog, run: dict[str, Any]) -> dict[str, Any]:
    sql = (
        "SELECT category, k, coverage, n FROM coverage\n"
        f"WHERE run_id = '{run['run_id']}' ORDER BY category, k"
    )
    rows = catalog.rows(sql)
    return {
        "sql": sql,
        "ks": sorted({row["k"] for row in rows}),
        "categories": sorted({row["category"] for row in rows}),
        "value": {(row["category"], row["k"]): row["coverage"] for row in rows},
    }


def _curve(catalog: OpenCatalog, run: dict[str, Any]) -> dict[str, Any]:
    """Recall of the queries that a late fusion was fitted on, by weight and k."""
    sql = (
        "SELECT weight, k, recall, n, is_chosen FROM late_fusion_curve\n"
        f"WHERE run_id = '{run['run_id']}' ORDER BY weight, k"
    )
    found = catalog.rows(sql)
    rows: dict[float, dict[int, float]] = {}
    for row in found:
        rows.setdefault(row["weight"], {})[row["k"]] = row["recall"]
    n = found[0]["n"] if found else 0
    return {"sql": sql, "ks": sorted({row["k"] for row in found}), "rows": rows, "n": n}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = (resources.files("tasks.results") / "report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text)
