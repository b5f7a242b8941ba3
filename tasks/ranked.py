"""A run's rankings as files to take away: JSONL and Parquet, beside its report."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from storage.artifacts import Artifact, Made
from storage.atomic import commit, commit_text, sha256_of
from storage.catalog import run_id_of
from storage.tables import write_jsonl, write_table
from tasks.ranking_rows import ranking_rows

VERSION = 1


@dataclass(frozen=True)
class Ranked:
    """The two files, and whether they were there already."""

    files: tuple[Path, Path]
    made: Made


def write_ranked(store: Path, evaluated: str) -> Ranked:
    """Write ``ranked.jsonl`` and ``ranked.parquet`` into ``<store>/reports/<run>/``: a row per
    query, pool and candidate, in the order of the queries and of the final ranks.

    Text and ids decode to the very characters that came in; a score reads as the same number.
    Queries that could not be asked have no rows; they are in the table ``problems``. Files whose
    bytes are still those of ``ranked.sha256`` are kept.
    """
    files, sums = _files(store, evaluated)
    if is_written(store, evaluated):
        return Ranked(files, Made(evaluated, reused=True))
    table = _rows(store, Artifact(store, "evaluate", evaluated))
    commit(files[0], lambda path: write_jsonl(path, table))
    commit(files[1], lambda path: write_table(path, table))
    commit_text(sums, _sums(files))
    return Ranked(files, Made(evaluated, reused=False))


def is_written(store: Path, evaluated: str) -> bool:
    """Whether both files are there, and their bytes what they were."""
    files, sums = _files(store, evaluated)
    return sums.is_file() and sums.read_bytes() == _sums(files).encode()


def _files(store: Path, evaluated: str) -> tuple[tuple[Path, Path], Path]:
    """The two files, and the one with their sums."""
    folder = store / "reports" / run_id_of(evaluated)
    return (folder / "ranked.jsonl", folder / "ranked.parquet"), folder / "ranked.sha256"


def _rows(store: Path, evaluated: Artifact) -> pa.Table:
    inputs = evaluated.identity()["inputs"]
    queries = Artifact(store, "ingest", inputs["ingest"]).read("queries")
    return ranking_rows(queries, Artifact(store, "rank", inputs["rank"]).read("rankings"))


def _sums(files: tuple[Path, Path]) -> str:
    """In the form that ``sha256sum --check`` reads; a file that is missing has no line."""
    lines = [f"{sha256_of(path)}  {path.name}" for path in files if path.is_file()]
    return "\n".join([f"# cir-pipeline ranked {VERSION}", *lines, ""])
