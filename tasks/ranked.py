"""A run's rankings as files to take away: JSONL and Parquet, beside its report."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage import schemas
from storage.artifacts import Artifact, Made
from storage.atomic import commit, commit_text, sha256_of
from storage.catalog import run_id_of
from storage.tables import write_table

VERSION = 1

ROWS_AT_ONCE = 10_000
"""Rows that are Python objects at a time, and rows that share an Arrow array: a text is repeated
for each candidate, and one array of strings holds 2 GB at most."""


@dataclass(frozen=True)
class Ranked:
    """The two files, and whether they were there already."""

    files: tuple[Path, Path]
    made: Made


def write_ranked(store: Path, evaluated: str) -> Ranked:
    """Write ``ranked.jsonl`` and ``ranked.parquet`` into ``<store>/reports/<run>/``: a row per
    query, pool and candidate, in the order of the queries and of the final ranks.

    Text and ids are UTF-8, byte for byte as they came; a score is written so that it reads as the
    same number. Queries that could not be asked have no rows; they are in the table ``problems``.
    Files whose bytes are still those of ``ranked.sha256`` are kept.
    """
    folder = store / "reports" / run_id_of(evaluated)
    files = folder / "ranked.jsonl", folder / "ranked.parquet"
    sums = folder / "ranked.sha256"
    if sums.is_file() and sums.read_bytes() == _sums(files).encode():
        return Ranked(files, Made(evaluated, reused=True))
    table = ranked_table(store, Artifact(store, "evaluate", evaluated))
    commit(files[0], lambda path: _write_lines(path, table))
    commit(files[1], lambda path: write_table(path, table))
    commit_text(sums, _sums(files))
    return Ranked(files, Made(evaluated, reused=False))


def ranked_table(store: Path, evaluated: Artifact) -> pa.Table:
    """A finished run's rankings with what was asked, with the schema ``EXPORT``."""
    inputs = evaluated.identity()["inputs"]
    queries = Artifact(store, "ingest", inputs["ingest"]).read("queries")
    rankings = Artifact(store, "rank", inputs["rank"]).read("rankings")
    place: Any = pc.index_in(rankings["query_id"], value_set=queries["query_id"].combine_chunks())
    keys = [(name, "ascending") for name in ("place", "pool", "rank")]
    order = pc.sort_indices(rankings.append_column("place", place), sort_keys=keys)
    asked = queries.select(["category", "reference_id", "text"])
    slices = [schemas.EXPORT.empty_table()]
    for start in range(0, len(order), ROWS_AT_ONCE):
        rows = order.slice(start, ROWS_AT_ONCE)
        mine = rankings.take(rows)
        for name, column in zip(asked.column_names, asked.take(place.take(rows)), strict=True):
            mine = mine.append_column(name, column)
        slices.append(mine.select(schemas.EXPORT.names).cast(schemas.EXPORT))
    return pa.concat_tables(slices)


def json_lines(table: pa.Table) -> Iterator[str]:
    """The rows as JSON objects, without line ends; every character as itself where JSON allows."""
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        for row in batch.to_pylist():
            yield json.dumps(row, ensure_ascii=False)


def _write_lines(path: Path, table: pa.Table) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for line in json_lines(table):
            file.write(line + "\n")


def _sums(files: tuple[Path, Path]) -> str:
    """In the form that ``sha256sum --check`` reads; a file that is missing has no line."""
    lines = [f"{sha256_of(path)}  {path.name}" for path in files if path.is_file()]
    return "\n".join([f"# cir-pipeline ranked {VERSION}", *lines, ""])
