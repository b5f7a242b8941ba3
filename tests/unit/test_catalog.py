"""The catalog: views worked out by hand, and a file that is whole whoever has it open."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cir_core.errors import OutOfSpace, PreflightError, StoreBusy, StoreCorrupt
from storage.answers import ask
from storage.catalog import BrokenRuns, PublishedRun, query, write_catalog
from storage.views import run_id_of
from tests.support.made_catalogs import asked, published, ranked, two_categories, with_subset

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cir.duckdb"


def runs(path: Path) -> set[str]:
    return {run for (run,) in rows(path, "SELECT run_id FROM runs")}


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    return query(path, sql)[1]


# --- views, by hand


def test_rank_movement_is_each_labelled_querys_target_before_and_after(path: Path) -> None:
    write_catalog(path, [two_categories()])
    sql = """SELECT query_id, stage1_rank, stage2_rank, is_candidate, places_gained
             FROM rank_movement ORDER BY query_id"""
    assert rows(path, sql) == [
        ("d1", 3, 1, True, 2),
        ("d2", 7, 7, False, None),
        ("d3", None, None, False, None),
        ("d4", 1, 1, True, 0),
        ("s1", 1, 2, True, -1),
    ]


def test_recall_is_per_category_and_macro_averaged_over_labelled_queries(path: Path) -> None:
    write_catalog(path, [two_categories()])
    sql = "SELECT category, k, stage1, stage2, gain, n FROM recall ORDER BY ALL"
    assert rows(path, sql) == [
        ("average", 1, (1 / 4 + 1) / 2, (2 / 4 + 0) / 2, (1 / 4 - 1) / 2, 5),
        ("average", 5, (2 / 4 + 1) / 2, (2 / 4 + 1) / 2, 0, 5),
        ("average", 10, (3 / 4 + 1) / 2, (3 / 4 + 1) / 2, 0, 5),
        ("average", 50, (3 / 4 + 1) / 2, (3 / 4 + 1) / 2, 0, 5),
        ("dress", 1, 1 / 4, 2 / 4, 1 / 4, 4),
        ("dress", 5, 2 / 4, 2 / 4, 0, 4),
        ("dress", 10, 3 / 4, 3 / 4, 0, 4),
        ("dress", 50, 3 / 4, 3 / 4, 0, 4),
        ("micro", 1, 2 / 5, 2 / 5, 0, 5),
        ("micro", 5, 3 / 5, 3 / 5, 0, 5),
        ("micro", 10, 4 / 5, 4 / 5, 0, 5),
        ("micro", 50, 4 / 5, 4 / 5, 0, 5),
        ("shirt", 1, 1, 0, -1, 1),
        ("shirt", 5, 1, 1, 0, 1),
        ("shirt", 10, 1, 1, 0, 1),
        ("shirt", 50, 1, 1, 0, 1),
    ]


def test_recall_of_the_subset_has_its_own_ks_and_one_category_no_average(path: Path) -> None:
    write_catalog(path, [with_subset()])
    sql = "SELECT category, k, stage1, stage2, n FROM recall WHERE pool = 'subset' ORDER BY k"
    third = 1 / 3
    assert rows(path, sql) == [
        ("cirr", 1, 0, third, 3),
        ("cirr", 2, third, third, 3),
        ("cirr", 3, third, 2 / 3, 3),
    ]
    assert rows(path, "SELECT DISTINCT category FROM recall") == [("cirr",)]


def test_coverage_is_the_ceiling_at_some_ks_and_at_the_runs_own(path: Path) -> None:
    write_catalog(path, [two_categories()])
    sql = "SELECT k, coverage, n FROM coverage WHERE category = 'dress' ORDER BY k"
    wanted = {1: 1 / 4, 3: 2 / 4, 5: 2 / 4} | dict.fromkeys((10, 20, 50, 100, 200), 3 / 4)
    assert rows(path, sql) == [(k, value, 4) for k, value in wanted.items()]


def test_failures_tell_what_was_answered_and_why_the_target_was_not_first(path: Path) -> None:
    write_catalog(path, [two_categories(), with_subset()])
    sql = "SELECT query_id, pool, answered, stage2_rank, reason FROM failures ORDER BY ALL"
    assert rows(path, sql) == [
        ("1", "gallery", "c", 3, "ordered wrong"),
        ("2", "gallery", "a", 9, "lost in stage 1"),
        ("2", "subset", "a", 3, "ordered wrong"),
        ("3", "gallery", "a", None, "cannot be answered"),
        ("3", "subset", "a", None, "cannot be answered"),
        ("d2", "gallery", "b", 7, "lost in stage 1"),
        ("d3", "gallery", None, None, "cannot be answered"),
        ("s1", "gallery", "c", 2, "ordered wrong"),
    ]


def test_a_query_with_several_targets_counts_with_its_best(path: Path) -> None:
    several = asked("q", "dress", "a", 2) | {
        "targets": ["z", "c", "a"],
        "recall_targets": ["z", "c", "a"],
    }
    write_catalog(path, [published("run", [several], ranked("q", "gallery", "bac", "cba"))])
    sql = "SELECT stage1_rank, stage2_rank FROM rank_movement"
    assert rows(path, sql) == [(2, 1)]


def integrity(path: Path) -> dict[str, int]:
    names = [
        name
        for (name,) in rows(path, "SELECT view_name FROM duckdb_views() WHERE NOT internal")
        if name.startswith("integrity_")
    ]
    assert {*names} == {
        f"integrity_{name}"
        for name in ("runs", "unscored_candidates", "ranks_without_gaps", "galleries")
    }
    return {name: len(rows(path, f"SELECT * FROM {name}")) for name in names}


def test_a_sound_run_breaks_no_integrity_rule(path: Path) -> None:
    write_catalog(path, [two_categories(), with_subset()])
    assert set(integrity(path).values()) == {0}


def test_a_run_that_is_there_twice_breaks_integrity(path: Path) -> None:
    write_catalog(path, [two_categories()])
    with duckdb.connect(str(path)) as connection:
        connection.execute("INSERT INTO runs FROM runs")
    assert integrity(path)["integrity_runs"] == 1


def test_an_unscored_candidate_breaks_integrity(path: Path) -> None:
    run = two_categories()
    rankings = run.tables["rankings"]
    cut = rankings.filter(pc.not_equal(rankings["rank"], 3))
    with pytest.raises(BrokenRuns) as caught:
        write_catalog(path, [PublishedRun(run.row, {**run.tables, "rankings": cut}), with_subset()])
    assert caught.value.faults == {"run": {"integrity_unscored_candidates": 5}}
    assert caught.value.exit_code == 6
    assert "run run: 5 rows in integrity_unscored_candidates" in str(caught.value)
    assert not path.exists()


def test_a_broken_run_leaves_the_catalog_as_it_was(path: Path) -> None:
    write_catalog(path, [with_subset()])
    before = path.read_bytes()
    run = two_categories()
    cut = PublishedRun(run.row, {**run.tables, "rankings": run.tables["rankings"].slice(1)})
    with pytest.raises(BrokenRuns):
        write_catalog(path, [with_subset(), cut])
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["cir.duckdb"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE gallery_members SET sha256 = 'x' WHERE image_id = 'b'",
        "UPDATE gallery_members SET image_id = 'x' WHERE image_id = 'b'",
        "UPDATE gallery_members SET position = 9 - position",
        "UPDATE gallery_members SET path = NULL WHERE image_id = 'b'",
        "DELETE FROM gallery_members",
    ],
)
def test_a_gallery_other_than_the_one_searched_breaks_integrity(path: Path, change: str) -> None:
    """An image's bytes, its name, its place, and whether it could be used are all in the hash."""
    write_catalog(path, [two_categories()])
    with duckdb.connect(str(path)) as connection:
        connection.execute(change)
    assert integrity(path)["integrity_galleries"] == 1


@pytest.mark.parametrize("wrong", ["aac", "acc"])
def test_a_repeated_or_missing_rank_breaks_integrity(path: Path, wrong: str) -> None:
    rankings = ranked("q", "gallery", "abc", "abc")
    for row, letter in zip(rankings, wrong, strict=True):
        row["rank"] = "abc".index(letter) + 1
    with pytest.raises(BrokenRuns) as caught:
        write_catalog(path, [published("run", [asked("q", "dress", "a", 1)], rankings)])
    assert caught.value.faults["run"]["integrity_ranks_without_gaps"] == 1


# --- several runs, names, types


def test_runs_in_one_catalog_do_not_mix(path: Path) -> None:
    other = published(
        "two", [asked("d1", "dress", "a", 1)], ranked("d1", "gallery", "abc", "bac"), k=5
    )
    write_catalog(path, [two_categories("one"), other])
    assert runs(path) == {"one", "two"}
    sql = "SELECT k, stage1, stage2, n FROM recall WHERE run_id = 'two' AND k <= 5 ORDER BY k"
    assert rows(path, sql) == [(1, 1, 0, 1), (5, 1, 1, 1)]
    sql = "SELECT stage2 FROM recall WHERE run_id = 'one' AND category = 'dress' AND k = 1"
    assert rows(path, sql) == [(0.5,)]
    counts = "SELECT run_id, count(*) FROM rank_movement GROUP BY ALL ORDER BY ALL"
    assert rows(path, counts) == [("one", 5), ("two", 1)]
    ks = "SELECT run_id, k FROM coverage WHERE k IN (3, 5) AND category = 'dress' ORDER BY ALL"
    assert rows(path, ks) == [("one", 3), ("one", 5), ("two", 5)]


def test_a_catalog_may_hold_no_run(path: Path) -> None:
    write_catalog(path, [])
    assert runs(path) == set()
    assert rows(path, "SELECT * FROM recall") == []


def test_hostile_ids_and_texts_survive(path: Path) -> None:
    name = 'it\'s "quoted"; DROP TABLE runs; --\n👗\t e\u0301'
    one = asked(name, name, name, 1, "x") | {"text": name, "reference_id": name, "subset": [name]}
    rankings = [row | {"image_id": name} for row in ranked(name, "gallery", "a", "a")]
    write_catalog(path, [published("run", [one], rankings)])
    sql = "SELECT query_id, category, reference_id, text, targets, subset FROM queries"
    assert rows(path, sql) == [(name, name, name, name, [name], [name])]
    assert rows(path, "SELECT image_id FROM rankings") == [(name,)]
    assert rows(path, "SELECT category FROM recall WHERE k = 1 AND pool = 'gallery'") == [(name,)]


def test_a_store_with_a_quote_in_its_path_has_a_catalog(tmp_path: Path) -> None:
    path = tmp_path / "it's; a 'store'" / "cir.duckdb"
    write_catalog(path, [two_categories()])
    assert runs(path) == {"run"}


def test_a_run_is_named_by_the_start_of_its_evaluation() -> None:
    assert run_id_of("0123456789abcdef" * 2) == "0123456789ab"


# --- the file


def test_the_tables_of_one_run_are_in_memory_at_a_time(path: Path) -> None:
    """And not all that were written until the file is whole."""
    gc.collect()  # tables of earlier tests, which might go meanwhile
    held = []

    def each() -> Iterator[PublishedRun]:
        for number in range(4):
            held.append(pa.total_allocated_bytes())
            yield two_categories(f"run {number}")

    write_catalog(path, each())
    assert held[1] > held[0]
    assert held[1:] == [held[1]] * 3
    assert len(runs(path)) == 4


def test_an_older_client_can_open_the_file(path: Path) -> None:
    """The header holds the storage version: 64 until DuckDB 1.3, which every later one reads."""
    write_catalog(path, [two_categories()])
    header = path.read_bytes()[8:20]
    assert header[:4] == b"DUCK"
    assert int.from_bytes(header[4:12], "little") <= 65
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT * FROM duckdb_indexes()").fetchall() == []
        kinds = connection.execute(
            "SELECT DISTINCT constraint_type FROM duckdb_constraints()"
        ).fetchall()
    assert kinds == [("NOT NULL",)]  # 1.0 cannot open a file with any other


def test_every_table_view_and_column_says_what_it_is(path: Path) -> None:
    """In the file, so that any client shows it."""
    write_catalog(path, [two_categories()])
    told = rows(
        path,
        "SELECT table_name, NULL, comment FROM duckdb_tables() UNION ALL "
        "SELECT view_name, NULL, comment FROM duckdb_views() WHERE NOT internal UNION ALL "
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal",
    )
    assert len(told) > 150
    assert [(table, column) for table, column, comment in told if not comment] == []
    meant = {(table, column): comment for table, column, comment in told}
    first = [comment.split(". ")[0] for (_, column), comment in meant.items() if column is None]
    assert max(map(len, first)) <= 100, "a line of `sql --schema`"
    assert meant["coverage", None].startswith("Share of queries with a target among stage 1's")
    assert meant["coverage", "n"] == meant["metrics", "n"] == "queries behind it"
    assert meant["coverage", "k"] != meant["runs", "k"]


def test_only_the_catalog_is_left_behind(path: Path) -> None:
    write_catalog(path, [two_categories()])
    assert os.listdir(path.parent) == ["cir.duckdb"]


def test_what_a_killed_publish_left_behind_does_not_disturb_and_goes(path: Path) -> None:
    """Also when the next one happens to have the same process id, as in a container."""
    temporary = path.with_name(f".cir.duckdb.{os.getpid()}.tmp")
    with duckdb.connect(str(temporary)) as connection:
        connection.execute("CREATE TABLE runs (run_id VARCHAR)")
    temporary.with_name(temporary.name + ".wal").write_bytes(b"half a log")
    path.with_name(".cir.duckdb.1.tmp").write_bytes(b"half a file")
    write_catalog(path, [two_categories()])
    assert runs(path) == {"run"}
    assert os.listdir(path.parent) == ["cir.duckdb"]


SHELL = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read")
if sys.argv[2] == "write":
    connection.execute("CREATE TABLE mine AS SELECT 42 AS answer")
print("open", flush=True)
sys.stdin.readline()
print(connection.execute("SELECT count(*) FROM runs").fetchall()[0][0], flush=True)
"""


def shell(path: Path, mode: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SHELL, str(path), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "open\n"
    return process


def test_a_reading_shell_keeps_its_file_while_a_new_one_is_published(path: Path) -> None:
    write_catalog(path, [two_categories()])
    with shell(path, "read") as reader:
        assert runs(path) == {"run"}
        write_catalog(path, [two_categories(), with_subset()])
        assert runs(path) == {"run", "sub"}
        assert reader.communicate("go\n")[0] == "1\n"
    assert runs(path) == {"run", "sub"}


def test_a_writing_shell_is_told_apart_and_its_changes_survive(path: Path) -> None:
    write_catalog(path, [two_categories()])
    with shell(path, "write") as writer:
        with pytest.raises(StoreBusy):
            write_catalog(path, [two_categories()])
        with pytest.raises(StoreBusy):
            query(path, "SELECT 1")
        writer.communicate("go\n")
    assert rows(path, "SELECT answer FROM mine") == [(42,)]


def test_a_killed_shells_changes_are_kept_beside_the_new_catalog(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        write_catalog(path, [two_categories()])
        with shell(path, "write") as writer:
            writer.kill()
        assert path.with_name("cir.duckdb.wal").exists()
        write_catalog(path, [two_categories(), with_subset()])
        assert runs(path) == {"run", "sub"}
        kept = path.with_name(f"cir-unsaved-{number}.duckdb")
        assert str(kept) in caplog.text
        with duckdb.connect(str(kept)) as connection:
            assert connection.execute("SELECT answer FROM mine").fetchall() == [(42,)]


def test_a_log_without_its_catalog_does_not_spoil_the_next(path: Path) -> None:
    path.with_name("cir.duckdb.wal").write_bytes(b"orphan")
    write_catalog(path, [two_categories()])
    assert runs(path) == {"run"}
    assert path.with_name("cir-unsaved-1.duckdb.wal").read_bytes() == b"orphan"


def test_broken_runs_leave_a_killed_shells_log_where_it_is(path: Path) -> None:
    log = path.with_name("cir.duckdb.wal")
    log.write_bytes(b"unsaved")
    with pytest.raises(BrokenRuns):
        write_catalog(path, [two_categories(), two_categories()])
    assert log.read_bytes() == b"unsaved"


@pytest.mark.parametrize("there", [b"", b"not a database", b"another"])
def test_whatever_is_in_its_place_is_replaced(path: Path, there: bytes) -> None:
    if there == b"another":
        with duckdb.connect(str(path)) as connection:
            connection.execute("CREATE TABLE other (x INT)")
    else:
        path.write_bytes(there)
    write_catalog(path, [two_categories()])
    assert runs(path) == {"run"}


def test_a_failed_build_leaves_the_old_catalog(path: Path) -> None:
    write_catalog(path, [two_categories()])
    with pytest.raises(duckdb.Error):
        write_catalog(path, [two_categories(), PublishedRun({"run_id": "torn"}, {})])
    assert runs(path) == {"run"}


def test_a_full_disk_is_out_of_space(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any, **_kwargs: Any) -> None:
        raise duckdb.IOException("IO Error: Could not write file: No space left on device")

    monkeypatch.setattr("storage.catalog._insert", full)
    with pytest.raises(OutOfSpace):
        write_catalog(path, [two_categories()])
    assert not path.exists()


# --- asking


def test_a_query_gives_columns_and_rows(path: Path) -> None:
    write_catalog(path, [two_categories()])
    columns, found = query(path, "SELECT run_id, k AS kept FROM runs")
    assert columns == ["run_id", "kept"]
    assert found == [("run", 3)]


@pytest.mark.parametrize(
    "sql",
    ["SELEC 1", "SELECT * FROM nothing", "DROP TABLE runs", "INSERT INTO problems SELECT 1,2,3,4",
     "SELECT 'x'::INTEGER", "CREATE TABLE mine (x INT)"],
)  # fmt: skip
def test_wrong_or_writing_sql_is_refused_with_the_reason(path: Path, sql: str) -> None:
    write_catalog(path, [two_categories()])
    before = path.read_bytes()
    with pytest.raises(PreflightError) as caught:
        query(path, sql)
    assert caught.value.exit_code == 4
    assert caught.value.item == sql
    assert caught.value.cause
    assert path.read_bytes() == before


def test_without_a_catalog_the_remedy_is_to_run(path: Path) -> None:
    with pytest.raises(PreflightError, match="no catalog yet") as caught:
        query(path, "SELECT 1")
    assert "cir-pipeline run" in caught.value.remedy
    assert not path.exists()


def test_a_folder_in_the_catalogs_place_is_told_as_such(path: Path) -> None:
    path.mkdir()
    for work in (lambda: query(path, "SELECT 1"), lambda: write_catalog(path, [two_categories()])):
        with pytest.raises(PreflightError, match="a folder has the place") as caught:
            work()
        assert caught.value.item == str(path)
        assert caught.value.remedy


def test_tables_of_another_tool_are_told_with_what_to_do(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE other (x INT)")
    with pytest.raises(PreflightError, match="query failed") as caught:
        query(path, "FROM runs")
    assert "builds it anew" in caught.value.remedy


@pytest.mark.parametrize(
    "sql",
    ["COPY runs TO '{0}'", "SELECT * FROM read_csv('{0}')", "ATTACH '{0}'",
     "SET enable_external_access = true", "SELECT 1; SELECT 2", ""],
)  # fmt: skip
def test_sql_reaches_no_file_and_asks_once(path: Path, tmp_path: Path, sql: str) -> None:
    write_catalog(path, [two_categories()])
    other = tmp_path / "other.csv"
    with pytest.raises(PreflightError):
        query(path, sql.format(other))
    assert not other.exists()


def test_files_are_reached_where_they_are_allowed(path: Path, tmp_path: Path) -> None:
    write_catalog(path, [two_categories()])
    copy = f"COPY runs TO '{tmp_path / 'runs.csv'}'"
    with ask(path, copy, files=True):
        pass
    assert (tmp_path / "runs.csv").read_text().startswith("run_id,")
    missing = f"FROM read_csv('{tmp_path / 'none.csv'}')"
    with pytest.raises(PreflightError, match="query failed"), ask(path, missing, files=True):
        pass


@pytest.mark.parametrize("content", [b"", b"<html>" * 1000])
def test_a_damaged_catalog_is_told_from_a_held_one(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match="damaged"):
        query(path, "SELECT 1")


def test_a_catalog_of_a_newer_duckdb_is_told_as_such(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words of DuckDB 1.1.3 on a file of 2.0."""
    write_catalog(path, [two_categories()])

    def connect(*_args: Any, **_kwargs: Any) -> None:
        raise duckdb.IOException(
            "IO Error: Trying to read a database file with version number 999, but we can only "
            "read version 64."
        )

    monkeypatch.setattr(duckdb, "connect", connect)
    with pytest.raises(PreflightError, match="newer DuckDB"):
        query(path, "SELECT 1")
