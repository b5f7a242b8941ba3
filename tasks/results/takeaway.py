"""A run's rankings as files to take away: JSONL and Parquet, beside its report."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from storage.artifacts import Artifact, Made
from storage.atomic import commit
from storage.catalog import run_id_of
from storage.products import Product
from storage.tables import write_jsonl, write_table
from tasks.results.ranking_rows import ranking_rows

VERSION = 1
FILES = ("ranked.jsonl", "ranked.parquet")


@dataclass(frozen=True)
class Ranked:
    """The two files, and whether they were there already."""

    files: tuple[Path, Path]
    made: Made


def write_ranked(store: Path, evaluated: str) -> Ranked:
    """Write ``ranked.jsonl`` and ``ranked.parquet`` into ``<store>/reports/<run>/``: a row per
    query, pool and candidate, in the order of the queries and of the final ranks.

    Text and ids decode to the very characters that came in; a score reads as the same number.
    Queries that could not be asked have no rows; they are in the table ``problems``. Files that
    are still what was written are kept.
    """
    product = ranked_product(store, evaluated)
    lines, columns = (product.folder / file for file in FILES)
    artifact = Artifact(store, "evaluate", evaluated)
    reused = product.holds(run_id_of(evaluated), artifact.content)
    if not reused:
        table = _rows(store, artifact)
        commit(lines, lambda path: write_jsonl(path, table))
        commit(columns, lambda path: write_table(path, table))
        product.record({run_id_of(evaluated): artifact.content})
    return Ranked((lines, columns), Made(evaluated, reused))


def ranked_product(store: Path, evaluated: str) -> Product:
    """Both files of a run; its evaluation's content is their source, by run id."""
    return Product(store / "reports" / run_id_of(evaluated), "ranked", str(VERSION), FILES)


def _rows(store: Path, evaluated: Artifact) -> pa.Table:
    inputs = evaluated.identity()["inputs"]
    queries = Artifact(store, "ingest", inputs["ingest"]).read("queries")
    return ranking_rows(queries, Artifact(store, "rank", inputs["rank"]).read("rankings"))
