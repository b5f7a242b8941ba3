"""A schema is declared once: files, the catalog and its comments project it, and nothing else."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cir_core.errors import StoreCorrupt
from storage import schemas, z_t
from storage.catalog_tables import CATALOG, ddl
from storage.identities import Identity
from storage.store import LocalStore
from storage.tables import vector_column
from storage.views import Encoded, Scored

ROW = {"query_id": "q", "image_id": "i", "stage2_score": 0.5}
SCORE = pa.Table.from_pylist([ROW], schemas.SCORES)

WRONG = {
    "another column": (
        SCORE.append_column("x", pa.array([1])),
        "x: int64, and declared is none",
    ),
    "a column less": (SCORE.drop_columns("stage2_score"), "stage2_score: none"),
    "another type": (
        pa.Table.from_pylist(
            [ROW], schemas.SCORES.set(2, pa.field("stage2_score", pa.float64(), nullable=False))
        ),
        "stage2_score: double",
    ),
    "another order": (SCORE.select(["image_id", "query_id", "stage2_score"]), "their order is"),
    "may be null": (
        pa.table(SCORE.columns, names=schemas.SCORES.names),
        "query_id: string, and declared is string not null",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_columns_are_refused_on_write_and_on_read(tmp_path: Path, case: str) -> None:
    table, cause = WRONG[case]
    identity = Identity("rerank", 1, {}, {})
    scored = Scored.named(LocalStore(tmp_path), identity)
    with pytest.raises(StoreCorrupt, match="other columns") as caught:
        scored.write("scores", table)
    assert cause in caught.value.cause
    assert not scored.was_begun
    scored.write_part("scores", table)  # by another version
    scored.finish(identity, ["scores"])
    with pytest.raises(StoreCorrupt, match="other columns") as caught:
        scored.read("scores")
    assert caught.value.item == str(scored.folder)


def test_vectors_may_have_any_width_but_one(tmp_path: Path) -> None:
    for width in (2, 5):
        schema = schemas.of_width(schemas.EMBEDDINGS, width)
        table = pa.table([["a"], vector_column(np.ones((1, width), np.float32))], schema=schema)
        Encoded(LocalStore(tmp_path / str(width)), "f").write("embeddings-0", table)
    loose = pa.table([["a"], [[1.0]]], schema=schemas.EMBEDDINGS)
    schemas.require(loose.schema, schemas.EMBEDDINGS, "as declared")


def test_files_do_not_say_what_columns_mean(tmp_path: Path) -> None:
    scored = Scored(LocalStore(tmp_path), "f")
    scored.write("scores", SCORE)
    found = pq.read_schema(scored.folder / "scores.parquet")
    assert found.metadata is None
    assert all("about" not in str(one.metadata) for one in found)


def test_the_catalogs_tables_tell_what_they_are() -> None:
    with duckdb.connect() as connection:
        connection.execute(ddl())
        columns = connection.execute(
            "SELECT table_name, column_name, data_type, NOT is_nullable, comment "
            "FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
        tables = connection.execute("SELECT table_name, comment FROM duckdb_tables()").fetchall()
    told = {(table, column): rest for table, column, *rest in columns}
    assert told["rankings", "rank"] == ["INTEGER", True, "the final order, 1-based"]
    assert told["queries", "targets"] == [
        "VARCHAR[]",
        False,
        "right answers; NULL: a query without label",
    ]
    assert {table for table, column in told if column == "run_id"} == set(CATALOG)
    assert all(comment for _, comment in tables)


@pytest.mark.parametrize("lengths", [[3, 1], [2], []])
def test_what_is_packed_of_z_t_comes_back(lengths: list[int]) -> None:
    rng = np.random.default_rng(0)
    states = [rng.standard_normal((length, 4), dtype=np.float32) for length in lengths]
    packed = pa.chunked_array([[z_t.pack(one) for one in [*states, np.ones((9, 4), np.float32)]]])
    rows = list(range(len(lengths)))
    found = z_t.unpack(packed, rows, lengths)
    assert np.array_equal(found, np.concatenate(states) if states else np.empty((0, 0)))
    assert found.dtype == np.float32
    means = z_t.means(packed, [*lengths, 9])
    assert np.array_equal(
        means[:-1], [one.mean(axis=0, dtype=float) for one in states] or means[:-1]
    )
    assert np.array_equal(means[-1], np.ones(4))


def test_a_model_without_z_t_packs_nothing() -> None:
    packed = pa.chunked_array([[z_t.pack(np.empty((0, 0))), z_t.pack(np.empty((3, 0)))]])
    assert z_t.unpack(packed, [0, 1], [2, 3]).shape == (5, 0)
    assert z_t.means(packed, [2, 3]).shape == (2, 0)
