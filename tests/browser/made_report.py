"""A small run with pictures, of all that a page may meet, and its report."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from cir_core.types import Benchmark, ImageId, Query, QueryId
from storage.answers import reading
from storage.catalog import CATALOG_FILE
from storage.store import LocalStore
from storage.views import Evaluated
from tasks.results.report.report import Report
from tasks.stages.output import make_output
from tasks.stages.publish import Publish
from tests.support.made_runs import Scores, random_scores, write_run

K = 14
IMAGES, QUERIES = 30, 24
"""Of a category."""

TEXTS = (
    "is red and has longer sleeves",
    "is not striped",
    "plain",
    "without a collar, in the same green as before but shorter",
)

HOSTILE = (
    "<script>document.title = 'owned'</script>",
    "\"'><img src=x onerror=\"document.title='owned'\">",
    "line\none\ttab \u202eright to left\u202c &amp; </script> \\u003c ${1} {{ 1 }}",
)
"""Ids, and texts."""


PROBED = """
INSERT INTO probes BY NAME
SELECT run_id, query_id, 1 + row_number() OVER (ORDER BY query_id) % 3 AS image_rank,
       1 + row_number() OVER (ORDER BY query_id) % 5 AS text_rank
FROM queries WHERE targets IS NOT NULL"""
"""Ranks as ``cir-pipeline analyse`` publishes them."""


@dataclass(frozen=True)
class MadeReport:
    """Of a run in a store of its own, whose images lie in a folder."""

    store: Path
    report: Report

    @property
    def page(self) -> Path:
        return self.report.files[0]

    @property
    def run_id(self) -> str:
        return self.report.evaluated.run_id

    def ids(self, condition: str, *, of: str = "rank_movement") -> set[str]:
        """Of the queries that a condition in SQL holds for."""
        pool = " AND pool = 'gallery'" if of == "rank_movement" else ""
        sql = f"SELECT DISTINCT query_id FROM {of} WHERE run_id = '{self.run_id}'{pool}"
        return {row["query_id"] for row in self.rows(f"{sql} AND {condition}")}

    def rows(self, sql: str) -> list[dict[str, Any]]:
        with reading(self.store / CATALOG_FILE) as catalog:
            return catalog.rows(sql)


def mixed_benchmark() -> Benchmark:
    """Of two categories and hostile ids. Every fifth query has no label, every seventh two
    targets."""
    galleries, asked = {}, []
    for category in ("dress", "<b>shirt</b>"):
        images = [*(f"{category}-{row:02d}" for row in range(IMAGES)), *HOSTILE]
        gallery = tuple(map(ImageId, images))
        galleries[category] = gallery
        for number in range(QUERIES):
            is_first = category == "dress" and number < len(HOSTILE)
            targets = gallery[number + 1 : number + 2 + (number % 7 == 3)]
            asked.append(
                Query(
                    query_id=QueryId(HOSTILE[number] if is_first else f"{category}-q{number:02d}"),
                    category=category,
                    reference_id=gallery[-1 - number % 5] if is_first else gallery[number],
                    text=HOSTILE[number] if is_first else TEXTS[number % len(TEXTS)],
                    targets=() if number % 5 == 4 else targets,
                )
            )
    return Benchmark(galleries, tuple(asked), {})


def made_report(
    folder: Path,
    benchmark: Benchmark,
    *,
    protocol: str = "fiq-original-kept",
    reranked: bool = True,
    k: int = K,
    unasked: Collection[str] = (),
    probed: bool = False,
) -> MadeReport:
    """Scores with ties, that tell of some targets; ``unasked`` queries have no candidates.
    If it is ``probed``, those with labels have ranks by the image and by the text alone."""
    rng = np.random.default_rng(4)
    stage1, stage2 = (_scores(benchmark, rng) for _ in range(2))
    given = {query: scores for query, scores in stage1.items() if query not in unasked}
    fingerprint = write_run(
        folder / "store",
        benchmark,
        protocol=protocol,
        k=k,
        stage1=given,
        stage2=stage2 if reranked else None,
        pictures=folder / "images",
    )
    evaluated = Evaluated(LocalStore(folder / "store"), fingerprint)
    make_output(Publish(evaluated))
    if probed:
        with duckdb.connect(str(folder / "store" / CATALOG_FILE)) as connection:
            connection.execute(PROBED)
    report = Report(evaluated, folder / "images")
    make_output(report)
    return MadeReport(folder / "store", report)


def _scores(benchmark: Benchmark, rng: np.random.Generator) -> Scores:
    scores = random_scores(benchmark, rng, 20)
    for query in benchmark.queries:
        gallery = benchmark.galleries[query.category]
        seen = [gallery.index(target) for target in query.targets]
        scores[query.query_id][seen] += rng.choice([0, 0.3, 1])
    return scores
