"""Embeddings in SQL: views over the Parquet that artifacts hold, which the catalog does not repeat.

In the file they read paths relative to the store: a client opens it in the store's folder, or says
``SET file_search_path``. ``offer_embeddings`` makes the same views of what Arrow reads, for who may
open no files from SQL.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa

from storage import manifests
from storage.arrays import sha256_once
from storage.quoting import literal
from storage.tables import damaged

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddingView:
    """``parts`` says by stage which parts hold the vectors: a run's are those of the first stage
    that it has."""

    name: str
    id: str
    parts: Mapping[str, str]
    about: str

    def select(self, sources: Mapping["Source", str]) -> str:
        """Of relations, by what they hold; a query that is asked both ways is there twice, with one
        embedding."""
        branches = [
            f"SELECT r.run_id, e.{self.id}, e.embedding::FLOAT[] AS embedding\n"
            f"FROM (SELECT DISTINCT ON ({self.id}) {self.id}, embedding FROM {relation}) e\n"
            f"CROSS JOIN (VALUES {', '.join(f'({literal(run)})' for run in source.runs)}) r(run_id)"
            for source, relation in sources.items()
        ]
        nothing = f"SELECT '' AS run_id, '' AS {self.id}, []::FLOAT[] AS embedding WHERE false"
        return "\nUNION ALL\n".join(branches or [nothing])


@dataclass(frozen=True)
class Source:
    """Where the runs that share an artifact have their vectors, below the store."""

    folder: str
    kind: str
    runs: tuple[str, ...]

    @property
    def pattern(self) -> str:
        return f"{self.folder}/{self.kind}*.parquet"


_WHERE = (
    "Read from the store's Parquet: `cir-pipeline sql` finds it; another client opens the catalog "
    "in the store's folder, or says SET file_search_path = 'STORE'."
)

EMBEDDING_VIEWS = (
    EmbeddingView(
        "image_embeddings",
        "image_id",
        {"embeddings": "gallery", "encode": "embeddings"},
        f"Embeddings of the images that stage 1's scores were made of. {_WHERE}",
    ),
    EmbeddingView(
        "query_embeddings",
        "query_id",
        {"embeddings": "queries", "fuse": "queries"},
        f"Embeddings of the queries that stage 1's scores were made of. {_WHERE}",
    ),
)


def create_embedding_views(connection: "DuckDBPyConnection") -> None:
    """In the catalog, of its table ``artifacts``. DuckDB looks at a file before it makes a view of
    it: at one without rows, which has the real one's place in a folder of our own, so that neither
    the store's path nor a missing artifact matters."""
    with TemporaryDirectory() as folder:
        connection.execute(f"SET file_search_path = {literal(folder)}")
        for view in EMBEDDING_VIEWS:
            sources = list(_sources(connection, view))
            for source in sources:
                _write_empty(Path(folder), source, view.id)
            select = view.select({one: f"read_parquet({literal(one.pattern)})" for one in sources})
            connection.execute(f"CREATE VIEW {view.name} AS {select}")
            connection.execute(f"COMMENT ON VIEW {view.name} IS {literal(view.about)}")
            about = "of unit length, as wide as the model"
            connection.execute(f"COMMENT ON COLUMN {view.name}.embedding IS {literal(about)}")
        connection.execute("RESET file_search_path")


def offer_embeddings(connection: "DuckDBPyConnection", store: Path, sql: str) -> None:
    """Temporary views of the same names, which no permission to open files needs, of those that the
    statement mentions; nothing in a catalog that has no table ``artifacts``. What is not there any
    more is left out with a warning. Raises StoreCorrupt for parts that have other bytes than their
    manifest says; what is read of others, its pages' checksums are compared with."""
    known = "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'artifacts'"
    (found,) = connection.execute(known).fetchall()
    if not found[0]:
        return
    for view in _mentioned(sql):
        relations = {}
        for number, source in enumerate(_sources(connection, view)):
            files = _parts(store.absolute() / source.folder, source.kind)
            if not files:
                _log.warning("embeddings are not there: %s", store / source.pattern)
                continue
            relations[source] = f"_{view.name}_{number}"
            connection.register(relations[source], _dataset(files))
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {view.name} AS {view.select(relations)}")


def mentions_embeddings(sql: str) -> bool:
    """Whether a statement may read one of the views."""
    return bool(_mentioned(sql))


def _mentioned(sql: str) -> list[EmbeddingView]:
    return [view for view in EMBEDDING_VIEWS if view.name in sql.casefold()]


def _parts(folder: Path, kind: str) -> list[Path]:
    """Of an artifact's folder; a copy of a bucket's has no manifest."""
    files = sorted(folder.glob(f"{kind}*.parquet"))
    manifest = folder / "manifest.json"
    try:
        parts = manifests.parse_any(manifest.read_text(encoding="utf-8"), folder.name)["parts"]
    except FileNotFoundError:
        return files
    except (OSError, ValueError) as error:
        raise damaged(str(manifest), str(error)) from error
    for file in files:
        if file.stem in parts and sha256_once(file) != parts[file.stem]["sha256"]:
            raise damaged(str(file), "its bytes are not those that were written")
    return [file for file in files if file.stem in parts]


def _sources(connection: "DuckDBPyConnection", view: EmbeddingView) -> Iterator[Source]:
    stages = "[" + ", ".join(map(literal, view.parts)) + "]"
    sql = f"""
    WITH mine AS (
        SELECT stage, folder, run_id, list_position({stages}, stage) AS place FROM artifacts
        WHERE list_contains({stages}, stage)
    ), first AS (SELECT run_id, min(place) AS place FROM mine GROUP BY ALL)
    SELECT stage, folder, list(run_id ORDER BY run_id) FROM mine JOIN first USING (run_id, place)
    GROUP BY ALL ORDER BY ALL"""
    for stage, folder, runs in connection.execute(sql).fetchall():
        yield Source(folder, view.parts[stage], tuple(runs))


def _write_empty(root: Path, source: Source, name: str) -> None:
    import pyarrow.parquet as pq

    columns = {name: pa.array([], pa.string()), "embedding": pa.array([], pa.list_(pa.float32()))}
    file = root / source.folder / f"{source.kind}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)


def _dataset(files: list[Path]) -> pa.Table:
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    return ds.dataset(
        [str(file) for file in files],
        format=ds.ParquetFileFormat(default_fragment_scan_options=checked),
        filesystem=LocalFileSystem(),
    )
