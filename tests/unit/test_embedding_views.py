"""Embeddings in SQL: the catalog's views of the store's Parquet, with and without file access."""

import os
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cir_core.errors import PreflightError, StoreCorrupt
from storage import schemas
from storage.artifacts import Artifact
from storage.catalog import PublishedRun, query, write_catalog
from storage.embedding_views import EMBEDDING_VIEWS, mentions_embeddings
from storage.identities import Identity
from storage.store import LocalStore
from storage.tables import vector_column, write_table
from tests.support.made_catalogs import two_categories


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Whose path DuckDB would take for patterns, and for a list."""
    folder = tmp_path / "it's, a [s]tore?"
    folder.mkdir()
    return folder


def part(store: Path, folder: str, name: str, ids: str, first: float) -> None:
    """Two numbers an id: ``first``, and its place."""
    matrix = np.array([[first, place] for place in range(len(ids))], np.float32)
    key = "query_id" if name.startswith("queries") else "image_id"
    schema = schemas.of_width(pa.schema([pa.field(key, pa.string()), EMBEDDING]), 2)
    file = store / folder / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_table(file, pa.table([list(ids), vector_column(matrix)], schema=schema))


EMBEDDING = schemas.EMBEDDINGS.field("embedding").with_nullable(True)


def run(name: str, artifacts: dict[str, str]) -> PublishedRun:
    made = two_categories(name)
    rows = [
        {"stage": stage, "folder": f"artifacts/{stage}/{one}"} for stage, one in artifacts.items()
    ]
    return PublishedRun(made.row, {**made.tables, "artifacts": pa.Table.from_pylist(rows)})


@pytest.fixture
def catalog(store: Path) -> Path:
    """Runs a and b share their encoding; b's scores are of embeddings from elsewhere, c's are of
    other artifacts."""
    path = store / "cir.duckdb"
    write_catalog(
        path,
        [
            run("a", {"encode": "e1", "fuse": "f1"}),
            run("b", {"encode": "e1", "fuse": "f1", "embeddings": "x1"}),
            run("c", {"encode": "e2", "fuse": "f1"}),
        ],
    )
    part(store, "artifacts/encode/e1", "embeddings-0-2", "ij", 1)
    part(store, "artifacts/encode/e1", "embeddings-2-3", "k", 2)
    part(store, "artifacts/encode/e2", "embeddings-0-1", "i", 3)
    part(store, "artifacts/fuse/f1", "queries-0-3", "qqr", 4)  # q is asked both ways
    part(store, "artifacts/embeddings/x1", "gallery", "i", 5)
    part(store, "artifacts/embeddings/x1", "queries", "q", 6)
    return path


IMAGES = [
    ("a", "i", [1, 0]),
    ("a", "j", [1, 1]),
    ("a", "k", [2, 0]),
    ("b", "i", [5, 0]),
    ("c", "i", [3, 0]),
]
QUERIES = [("a", "q"), ("a", "r"), ("b", "q"), ("c", "q"), ("c", "r")]
ASKED = "FROM image_embeddings ORDER BY ALL"


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    return query(path, sql)[1]


def test_each_run_has_the_embeddings_that_its_scores_were_made_of(catalog: Path) -> None:
    """Read without permission to open files."""
    assert rows(catalog, ASKED) == IMAGES
    assert rows(catalog, "SELECT run_id, query_id FROM Query_Embeddings ORDER BY ALL") == QUERIES
    sql = "SELECT DISTINCT typeof(embedding) FROM image_embeddings"
    assert rows(catalog, sql) == [("FLOAT[]",)]
    with pytest.raises(PreflightError, match="query failed"):
        query(catalog, f"FROM read_parquet('{catalog.parent.name}/*') -- image_embeddings")


def test_another_client_reads_them_in_the_stores_folder(
    catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(catalog.parent)
    with duckdb.connect(catalog.name, read_only=True) as connection:
        assert connection.execute(ASKED).fetchall() == IMAGES
        asked = connection.execute("SELECT run_id, query_id FROM query_embeddings ORDER BY ALL")
        assert asked.fetchall() == QUERIES


def test_or_says_where_the_store_is(catalog: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    os.symlink(catalog.parent, plain)
    with duckdb.connect(str(plain / "cir.duckdb"), read_only=True) as connection:
        connection.execute(f"SET file_search_path = '{plain}'")
        assert connection.execute(ASKED).fetchall() == IMAGES


def test_what_is_gone_is_told_and_the_rest_is_there(
    catalog: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in catalog.parent.glob("artifacts/encode/e1/*"):
        file.unlink()
    assert rows(catalog, ASKED) == IMAGES[-2:]
    assert "embeddings are not there: " in caplog.text
    assert rows(catalog, "SELECT count(*) FROM runs") == [(3,)]


def test_a_catalog_without_runs_has_empty_ones(store: Path) -> None:
    path = store / "cir.duckdb"
    write_catalog(path, [])
    for view in EMBEDDING_VIEWS:
        assert rows(path, f"FROM {view.name}") == []


def test_an_older_catalog_has_none(tmp_path: Path) -> None:
    path = tmp_path / "cir.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE runs (run_id VARCHAR)")
    with pytest.raises(PreflightError, match="query failed"):
        query(path, ASKED)


def test_near_duplicates_are_found_by_either_functions(catalog: Path) -> None:
    for similarity in (
        "list_cosine_similarity(a.embedding, b.embedding)",
        "array_cosine_similarity(a.embedding::FLOAT[2], b.embedding::FLOAT[2])",
    ):
        sql = f"""SELECT a.image_id, b.image_id FROM image_embeddings a JOIN image_embeddings b
                  ON a.run_id = b.run_id AND a.image_id < b.image_id WHERE {similarity} > 0.9"""
        assert rows(catalog, sql) == [("i", "k")]


def test_only_statements_that_name_them_open_files() -> None:
    assert mentions_embeddings('SELECT * FROM "IMAGE_embeddings"')
    assert not mentions_embeddings("SELECT * FROM runs")


@pytest.fixture
def whole(store: Path) -> tuple[Path, Path]:
    """A catalog, and the one part of the embeddings that it names, in an artifact with a manifest;
    beside it what no manifest names."""
    identity = Identity("encode", 1, {}, {})
    matrix = np.arange(200, dtype=np.float32).reshape(100, 2)
    schema = schemas.of_width(pa.schema([pa.field("image_id", pa.string()), EMBEDDING]), 2)
    ids = [f"image {number}" for number in range(100)]
    artifact = Artifact.of(LocalStore(store), identity)
    artifact.write_part("embeddings-0-2", pa.table([ids, vector_column(matrix)], schema=schema))
    artifact.finish(identity, ["embeddings-0-2"])
    part(store, f"artifacts/encode/{identity.fingerprint}", "embeddings-9", "z", 9)
    write_catalog(store / "cir.duckdb", [run("a", {"encode": identity.fingerprint})])
    return store / "cir.duckdb", artifact.folder / "embeddings-0-2.parquet"


COUNTED = "SELECT count(*), sum(embedding[1]) FROM image_embeddings"


def test_a_flipped_bit_is_found_before_embeddings_are_read(whole: tuple[Path, Path]) -> None:
    """In a page, and in the footer, where one can drop rows without a word."""
    catalog, file = whole
    good = file.read_bytes()
    assert rows(catalog, COUNTED) == [(100, 9900.0)]
    for place in (5, len(good) // 2, len(good) - 40, len(good) - 6):
        file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(StoreCorrupt, match="not those that were written") as caught:
            rows(catalog, COUNTED)
        assert caught.value.item == str(file)
    file.write_bytes(good)
    assert rows(catalog, COUNTED) == [(100, 9900.0)]


def test_without_a_manifest_pages_are_checked(whole: tuple[Path, Path]) -> None:
    """As in copies of what is in a bucket."""
    catalog, file = whole
    (file.parent / "manifest.json").unlink()
    (file.parent / "embeddings-9.parquet").unlink()
    assert rows(catalog, COUNTED) == [(100, 9900.0)]
    content = bytearray(file.read_bytes())
    column = pq.ParquetFile(file).metadata.row_group(0).column(1)
    content[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreCorrupt, match="checksum"):
        rows(catalog, COUNTED)


def test_a_damaged_manifest_is_found(whole: tuple[Path, Path]) -> None:
    catalog, file = whole
    (file.parent / "manifest.json").write_text("{")
    with pytest.raises(StoreCorrupt, match="damaged"):
        rows(catalog, COUNTED)
