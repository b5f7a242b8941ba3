"""What a run leaves, damaged: found by the same command, made again, and equal to what it was."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from cir_core.errors import PreflightError, StoreCorrupt
from flows.published import reading_run
from storage.catalog import CATALOG_FILE, query
from storage.listings import finished
from storage.store import LocalStore
from storage.views import Evaluated
from tasks.results.export import export
from tasks.results.run_list import list_runs
from tests.support.small_benchmarks import Finished


@pytest.fixture
def copied(fiq_run: Finished, tmp_path: Path) -> Finished:
    """A finished run in a store of its own, to be damaged."""
    shutil.copytree(fiq_run.store, tmp_path / "store")
    return Finished(fiq_run.bench, tmp_path / "store", fiq_run.run)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "emptied": empty,
    "a bit at the start": lambda path: flip(path, 20),
    "a bit in the middle": lambda path: flip(path, path.stat().st_size // 2),
    "a bit at the end": lambda path: flip(path, -1),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_page_or_its_numbers_are_made_again(copied: Finished, damage: str) -> None:
    folder = copied.store / "reports" / copied.run.run_id
    for name in ("index.html", "metrics.json"):
        good = (folder / name).read_bytes()
        DAMAGE[damage](folder / name)
        assert copied.bench.run(copied.store).made == ("report",)
        assert (folder / name).read_bytes() == good
    assert copied.bench.run(copied.store).made == ()


def of_another_tool(path: Path) -> None:
    path.unlink()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE runs (x INT)")


def of_a_newer_duckdb(path: Path) -> None:
    """In its first 4,096 bytes the storage's version follows a checksum over the rest and DUCK."""
    content = bytearray(path.read_bytes())
    content[12:20] = (100).to_bytes(8, "little")
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", content[8:4096]):
        checksum ^= word * 0xBF58476D1CE4E5B9 % 2**64
    content[:8] = checksum.to_bytes(8, "little")
    path.write_bytes(content)


def of_other_software(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + bytes(4080))


CATALOGS = {
    **DAMAGE,
    "of another tool": of_another_tool,
    "of a newer DuckDB": of_a_newer_duckdb,
    "of other software": of_other_software,
}


@pytest.mark.parametrize("damage", CATALOGS)
def test_a_damaged_catalog_is_made_again(copied: Finished, damage: str) -> None:
    catalog = copied.store / CATALOG_FILE
    sql = "SELECT * FROM rankings ORDER BY ALL"
    good = query(catalog, sql)
    CATALOGS[damage](catalog)
    assert copied.bench.run(copied.store).made == ("publish",)
    assert query(catalog, sql) == good
    assert copied.bench.run(copied.store).made == ()


@pytest.mark.parametrize("there", ["a newer DuckDB's", "a folder"])
def test_what_cannot_be_read_as_a_catalog_is_told_with_what_to_do(
    copied: Finished, there: str
) -> None:
    catalog = copied.store / CATALOG_FILE
    if there == "a folder":
        catalog.unlink()
        catalog.mkdir()
    else:
        of_a_newer_duckdb(catalog)
    store = LocalStore(copied.store)
    run = Evaluated(store, copied.run.evaluated.fingerprint)
    with pytest.raises(PreflightError) as caught, reading_run(run):
        pass
    assert caught.value.item == str(catalog)
    assert ("newer DuckDB" if catalog.is_file() else "a folder") in caught.value.what
    assert "builds it anew" in caught.value.remedy
    assert [run.run_id for run in list_runs(store)] == [copied.run.run_id]


def rankings_of(store: Path) -> Path:
    (artifact,) = finished(LocalStore(store), "rank")
    return artifact.folder / "rankings.parquet"


def test_no_export_is_made_of_a_damaged_part(copied: Finished) -> None:
    """A bit of the footer can drop rows without a word."""
    path = rankings_of(copied.store)
    for place in (-20, -200, path.stat().st_size // 2):
        flip(path, place)
        with pytest.raises(StoreCorrupt) as caught:
            export(LocalStore(copied.store), "jsonl")
        assert caught.value.exit_code == 6
        assert caught.value.item == str(path)
        flip(path, place)
    assert not (copied.store / "exports").exists()
    assert export(LocalStore(copied.store), "jsonl").files


def test_a_damaged_run_is_left_out_of_anothers_catalog_until_it_is_repaired(
    copied: Finished, caplog: pytest.LogCaptureFixture
) -> None:
    catalog, sql = copied.store / CATALOG_FILE, "SELECT * FROM rankings WHERE run_id = '{}'"
    mine = sql.format(copied.run.run_id)
    good = sorted(query(catalog, mine)[1])
    flip(rankings_of(copied.store), -20)
    other = copied.bench.run(copied.store, k=2)
    assert "left out of the catalog" in caplog.text
    assert query(catalog, "SELECT run_id FROM runs")[1] == [(other.run_id,)]
    assert copied.bench.run(copied.store).made == ("rank", "publish")
    assert sorted(query(catalog, mine)[1]) == good
    assert len(query(catalog, "SELECT run_id FROM runs")[1]) == 2
