"""The embedded default, for real: the shipped models on the drawn dataset, and what the documents
say of it."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cir_core.datasets.demo.world import build_split
from cir_core.families import require_pair
from flows.settings import shipped_model
from flows.views.values import cell
from storage.catalog import query
from tasks.models.opening import open_reranker, open_retriever
from tests.support.documents import blocks

ROOT = Path(__file__).parents[2]
README, COOKBOOK = ROOT / "README.md", ROOT / "docs" / "sql.md"
MOST_SHIPPED_BYTES = 12_000_000
TOLERANCE = 0.005
"""Of a recall. Other processors round differently, and a near-tie may fall the other way."""


@dataclass(frozen=True)
class DemoRun:
    store: Path
    recall: list[dict[str, Any]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    store = tmp_path_factory.mktemp("demo") / "store"
    script = str(Path(sys.executable).parent / "cir-pipeline")
    done = subprocess.run(
        [script, "run", "--store", str(store), "--engine", "in-process", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    return DemoRun(store, json.loads(done.stdout)["recall"])


def measured(demo: DemoRun, stage: str, k: int) -> tuple[float, float]:
    """Macro average over categories and the lower end of its interval."""
    _, rows = query(
        demo.store / "cir.duckdb",
        "SELECT value, ci_low FROM metrics WHERE category = 'average' AND metric = 'recall' "
        f"AND stage = '{stage}' AND k = {k}",
    )
    ((value, low),) = rows
    return value, low


def test_stage_1_keeps_the_target_among_its_first_ten(demo: DemoRun) -> None:
    assert measured(demo, "stage1", 10)[0] >= 0.85


def test_stage_2_alone_is_clearly_better_than_stage_1_at_rank_one(demo: DemoRun) -> None:
    gain, low = measured(demo, "gain", 1)
    assert low > 0, f"the paired interval of a gain of {gain:.3f} includes zero"


def test_the_catalog_is_sound(demo: DemoRun) -> None:
    sql = "SELECT view_name FROM duckdb_views() WHERE view_name LIKE 'integrity_%'"
    views = [name for (name,) in query(demo.store / "cir.duckdb", sql)[1]]
    assert len(views) >= 4
    for view in views:
        assert query(demo.store / "cir.duckdb", f"SELECT * FROM {view}")[1] == []


def test_no_number_hangs_on_ties(demo: DemoRun) -> None:
    """fp32 has no more digits for scores of 24 than 2e-6: a pair or two may tie by chance."""
    sql = "SELECT neighbours, tied, copies, with_target, mrr = mrr_least, mrr = mrr_most FROM ties"
    rows = query(demo.store / "cir.duckdb", sql)[1]
    assert len(rows) == 2
    for neighbours, tied, *rest in rows:
        assert neighbours == 63_504
        assert tied <= 5
        assert rest == [0, 0, True, True]


def test_every_query_and_image_of_the_demo_is_there(demo: DemoRun) -> None:
    content = build_split("val")
    counts = query(demo.store / "cir.duckdb", "SELECT images, queries, problems FROM runs")[1]
    captions = [len(rows) for name, rows in content.annotations.items() if "captions/" in name]
    assert counts == [(len(content.images), sum(captions), 0)]


def test_the_shipped_pair_is_small_and_holds_one_visual_encoder() -> None:
    folders = [shipped_model("stage1"), shipped_model("stage2")]
    files = [file for folder in folders for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) <= MOST_SHIPPED_BYTES
    require_pair(open_retriever(folders[0]), open_reranker(folders[1]))


def sql_examples() -> list[tuple[str, list[list[str]]]]:
    """Each SQL statement of docs/sql.md with the cells of the table printed below it."""
    blocks = re.findall(r"```sql\n(.*?)```\s*```text\n(.*?)```", COOKBOOK.read_text(), re.DOTALL)
    return [(sql.strip(), cells_of(printed)) for sql, printed in blocks]


@pytest.fixture(scope="module")
def both(demo: DemoRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's catalog with a second run, as ``retrieve`` publishes it: stage 1 alone."""
    path = tmp_path_factory.mktemp("both") / "cir.duckdb"
    shutil.copy(demo.store / "cir.duckdb", path)
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "UPDATE runs SET name = 'both'; INSERT INTO runs SELECT * REPLACE ("
            "'first' AS run_id, 'first' AS name, NULL AS stage2_sha256) FROM runs"
        )
        for table in ("queries", "candidates"):
            connection.execute(
                f"INSERT INTO {table} SELECT * REPLACE ('first' AS run_id) FROM {table}"
            )
    return path


def cells_of(printed: str) -> list[list[str]]:
    lines = [line for line in printed.splitlines() if line.startswith(("┃", "│"))]
    return [[cell.strip() for cell in re.split("[┃│]", line)[1:-1]] for line in lines]


def test_each_query_of_the_cookbook_is_shown_with_its_answer() -> None:
    assert len(sql_examples()) == COOKBOOK.read_text().count("```sql") == 22


@pytest.mark.parametrize(("sql", "printed"), sql_examples())
def test_the_cookbook_shows_what_its_queries_print(
    demo: DemoRun, both: Path, sql: str, printed: list[list[str]]
) -> None:
    columns, rows = query(both if "'both'" in sql else demo.store / "cir.duckdb", sql)
    assert printed[0] == columns
    assert len(printed) == len(rows) + 1
    for shown, row in zip(printed[1:], rows, strict=True):
        for told, value in zip(shown, row, strict=True):
            if isinstance(value, bool) or value is None:
                assert told == cell(value)
            elif isinstance(value, float):
                assert float(told) == pytest.approx(value, abs=TOLERANCE)
            elif isinstance(value, int):
                assert int(told) == pytest.approx(value, abs=5)
            else:
                assert told == str(value)


def test_what_other_documents_ask_is_answered(demo: DemoRun) -> None:
    others = [one for one in COOKBOOK.parent.glob("*.md") if one != COOKBOOK]
    asked = [block.code for one in others for block in blocks(one.read_text("utf-8"))
             if block.language == "sql"]  # fmt: skip
    assert len(asked) >= 4
    for sql in asked:
        assert query(demo.store / "cir.duckdb", sql)[0], sql


def test_the_readme_shows_the_recall_table_that_the_demo_prints(demo: DemoRun) -> None:
    blocks = re.findall(r"```text\n(Recall in %.*?)```", README.read_text(), re.DOTALL)
    ((header, *rows),) = [cells_of(block) for block in blocks]
    assert header == ["category", "metric", "stage 1", "stage 2", "gain [95 %]"]
    measured = [row for row in demo.recall if row["category"] != "micro" and row["metric"] != "mrr"]
    for told, made in zip(rows, measured, strict=True):
        name = {"recall": "R"}.get(made["metric"], made["metric"])
        assert told[:2] == [made["category"], f"{name}@{made['k']}"]
        gain = made.get("gain", {})
        numbers = (
            [made["stage1"]["value"]],
            [made["stage2"]["value"]] if gain else [],
            [gain[part] for part in ("value", "ci_low", "ci_high")] if gain else [],
        )
        for shown, wanted in zip(told[2:], numbers, strict=True):
            found = [float(number) / 100 for number in re.findall(r"[-+]?\d+\.\d+", shown)]
            assert found == pytest.approx(wanted, abs=TOLERANCE)
