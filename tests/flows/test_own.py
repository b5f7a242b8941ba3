"""A folder of one's own from end to end: described or not, with labels or without."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cir_core.errors import AnnotationError, PreflightError, ProblemsFound, UsageError
from flows.engines.engine import InProcess
from flows.origins import resolve
from flows.own import complete
from flows.run import Run, run_pipeline
from flows.settings import Settings
from flows.views.recall import recall_rows
from storage import schemas
from storage.catalog import CATALOG_FILE, query
from tests.support.small_benchmarks import FIQ_CATEGORIES, Bench

K = 6


@pytest.fixture(scope="module")
def catalogue(fiq: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small Fashion-IQ's pictures and queries, as somebody's folder."""
    folder = tmp_path_factory.mktemp("own") / "my catalogue"
    shutil.copytree(fiq.root / "images", folder / "photos")
    ids = {path.stem: path.name for path in (folder / "photos").iterdir()}
    queries = [
        {
            "query_id": f"{category} №{index}",
            "reference": ids[entry["candidate"]],
            "text": " and ".join(entry["captions"]),
            "target": ids[entry["target"]],
            "category": category,
        }
        for category in FIQ_CATEGORIES
        for index, entry in enumerate(
            json.loads((fiq.root / f"captions/cap.{category}.val.json").read_text())
        )
    ]
    lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in queries]
    (folder / "labelled.jsonl").write_text("".join(lines), encoding="utf-8")
    with (folder / "queries.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(f"photos/{one['reference']}", one["text"]) for one in queries]
        csv.writer(file).writerows([("reference", "text"), *rows])
    return folder


@pytest.fixture
def folder(catalogue: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(catalogue, tmp_path / "catalogue"))


def settings(fiq: Bench, folder: Path, store: Path, **changes: Any) -> Settings:
    flags = {
        "dataset": str(folder),
        "stage1": fiq.pair.stage1,
        "stage2": fiq.pair.stage2,
        "k": K,
        "store": store,
        "device": "cpu",
        "batch": 5,
    }
    given = {name: value for name, value in (flags | changes).items() if value is not None}
    return resolve(given, {}, folder).settings


def run(fiq: Bench, folder: Path, store: Path, **changes: Any) -> Run:
    return run_pipeline(settings(fiq, folder, store, **changes), InProcess())


@pytest.fixture(scope="module")
def unlabelled(
    fiq: Bench, catalogue: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Run]:
    store = tmp_path_factory.mktemp("stores") / "own"
    return store, run(fiq, catalogue, store)


def test_without_labels_rankings_are_written_and_nothing_is_measured(
    catalogue: Path, unlabelled: tuple[Path, Run]
) -> None:
    store, ended = unlabelled
    assert recall_rows(ended) == []
    assert "no labels" in ended.report.read_text()
    assert "data:image/jpeg" in ended.report.read_text()
    lines, parquet = ended.ranked
    table = pq.read_table(parquet)
    assert table.schema.equals(schemas.EXPORT)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert rows == table.to_pylist()
    with (catalogue / "queries.csv").open(newline="", encoding="utf-8") as file:
        asked = list(csv.DictReader(file))
    assert len(rows) == K * len(asked)
    for index, one in enumerate(asked):
        mine = rows[K * index : K * (index + 1)]
        assert {(row["reference_id"], row["text"]) for row in mine} == {tuple(one.values())}
        assert [row["rank"] for row in mine] == list(range(1, K + 1))
        assert sorted(row["stage1_rank"] for row in mine) == list(range(1, K + 1))
        scores = [row["stage2_score"] for row in mine]
        assert scores == sorted(scores, reverse=True)
        assert one["reference"] not in {row["image_id"] for row in mine}
    ranked = query(store / CATALOG_FILE, "SELECT count(*) FROM rankings")[1]
    assert ranked == [(len(rows),)]


def test_the_written_files_can_be_checked_and_come_back_when_damaged(
    fiq: Bench, catalogue: Path, unlabelled: tuple[Path, Run]
) -> None:
    store, ended = unlabelled
    lines = ended.ranked[0]
    before = lines.read_bytes()
    sums = (lines.parent / "ranked.sha256").read_text().splitlines()
    assert f"{hashlib.sha256(before).hexdigest()}  ranked.jsonl" in sums
    assert run(fiq, catalogue, store).made == ()
    lines.write_bytes(before + b"x")
    assert run(fiq, catalogue, store).made == ("ranked",)
    assert lines.read_bytes() == before


def test_another_table_of_queries_keeps_the_encoded_images(
    fiq: Bench, catalogue: Path, unlabelled: tuple[Path, Run]
) -> None:
    store, _ = unlabelled
    names = [f"photos/{path.name}" for path in (catalogue / "photos").iterdir()]
    monday = catalogue / "monday.csv"
    monday.write_text(f"reference,text\n{names[0]},is blue\n", encoding="utf-8")
    ended = run(fiq, catalogue, store, queries="monday.csv")
    assert "encode" not in ended.made
    assert "fuse" in ended.made


def test_with_labels_and_categories_recall_is_measured(
    fiq: Bench, folder: Path, tmp_path: Path
) -> None:
    ended = run(fiq, folder, tmp_path / "s", queries="labelled.jsonl", images="photos/")
    rows = recall_rows(ended)
    assert {row[0] for row in rows} == {*FIQ_CATEGORIES, "average"}
    sql = "SELECT protocol, dataset FROM runs"
    assert query(tmp_path / "s" / CATALOG_FILE, sql)[1] == [("own-removed", "own")]
    ids = query(tmp_path / "s" / CATALOG_FILE, "SELECT DISTINCT query_id FROM rankings")[1]
    assert (f"{FIQ_CATEGORIES[0]} №0",) in ids


def test_the_folder_may_describe_itself_and_flags_win(
    fiq: Bench, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(fiq.pair.stage1, tmp_path / "models" / "stage1")
    described = (
        'name = "my shop"\nimages = "photos"\nqueries = "labelled.jsonl"\n'
        'protocol = "own-kept"\nk = 3\nstage1 = "../models/stage1"\n'
        f"stage2 = '{fiq.pair.stage2}'\n"
    )
    (folder / "cir-dataset.toml").write_text(described, encoding="utf-8-sig")
    store = tmp_path / "s"
    run(fiq, folder, store, stage1=None, stage2=None, k=None, categories=("dress",))
    run(fiq, folder, store, stage1=None, stage2=None, k=4, categories=("dress",))
    found = query(store / CATALOG_FILE, "SELECT dataset, protocol, k, queries FROM runs ORDER BY k")
    assert found[1] == [("my shop", "own-kept", 3, 7), ("my shop", "own-kept", 4, 7)]


def test_a_gallery_per_category_is_searched_alone(fiq: Bench, folder: Path, tmp_path: Path) -> None:
    """Part names must not be made of a category, which may be no file's name."""
    names = sorted(path.name for path in (folder / "photos").iterdir())
    lines = [
        {"image": name, "category": f"all/{category}*[]"}
        for category in FIQ_CATEGORIES
        for name in names
        if name.startswith((category, names[0]))
    ]
    (folder / "gallery.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    asked = (folder / "labelled.jsonl").read_text(encoding="utf-8")
    for category in FIQ_CATEGORIES:
        asked = asked.replace(f'"category": "{category}"', f'"category": "all/{category}*[]"')
    (folder / "labelled.jsonl").write_text(asked, encoding="utf-8")
    flags = {"queries": "labelled.jsonl", "images": "photos", "gallery": "gallery.jsonl"}
    ended = run(fiq, folder, tmp_path / "s", **flags)
    rows = pq.read_table(ended.ranked[1]).to_pylist()
    for row in rows:
        category = row["category"].removeprefix("all/").removesuffix("*[]")
        assert row["image_id"].startswith((category, names[0]))
    assert len({row["category"] for row in rows}) == len(FIQ_CATEGORIES)


def test_a_lost_image_is_one_problem_however_many_queries_name_it(
    fiq: Bench, folder: Path, tmp_path: Path
) -> None:
    """As with a benchmark, though the gallery is what lies there."""
    names = sorted(path.name for path in (folder / "photos").iterdir())
    asked = [(names[1], names[0]), (names[2], names[0]), (names[0], names[3]), names[3:5]]
    lines = [f"photos/{one},is red,photos/{other}" for one, other in asked]
    (folder / "queries.csv").write_text("\n".join(["reference,text,target", *lines]))
    (folder / "photos" / names[0]).unlink()
    with pytest.raises(ProblemsFound, match=r"1 images or queries .* nor 3 queries") as caught:
        run(fiq, folder, tmp_path / "s")
    assert "--allow-missing 1 " in caught.value.remedy
    run(fiq, folder, tmp_path / "s", allow_missing=1)
    found = query(tmp_path / "s" / CATALOG_FILE, "SELECT item, kind FROM problems")[1]
    assert found == [
        (f"photos/{names[0]}", "missing"),
        ("query-00000", "target_unusable"),
        ("query-00001", "target_unusable"),
        ("query-00002", "reference_unusable"),
    ]
    of_queries = "SELECT query_id, kind FROM query_problems"
    assert query(tmp_path / "s" / CATALOG_FILE, of_queries)[1] == found[1:]


def test_a_text_that_is_too_long_is_a_problem_of_its_query_alone(
    fiq: Bench, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Told before a picture is decoded, and a miss where the query is labelled."""
    one, two = sorted(path.name for path in (folder / "photos").iterdir())[:2]
    texts = ("red " * 600, "is red", "\U0001f44d", "red " * 600)
    lines = [f"photos/{one},{text},photos/{two}" for text in texts[:3]]
    lines.append(f"photos/{two},{texts[3]},photos/{one}")
    (folder / "queries.csv").write_text(
        "\n".join(["reference,text,target", *lines]), encoding="utf-8"
    )
    store = tmp_path / "s"
    with pytest.raises(ProblemsFound, match="2 images or queries") as caught:
        run(fiq, folder, store)
    assert "query-00000: text_too_long: the text has 602 tokens" in caught.value.item
    assert "1 of 4 texts have no word of the model's vocabulary" in caplog.text
    assert "query-00002" in caplog.text
    assert not (store / "artifacts" / "encode").exists()
    run(fiq, folder, store, allow_missing=2)
    found = query(store / CATALOG_FILE, "SELECT query_id, kind FROM query_problems ORDER BY ALL")[1]
    assert found == [("query-00000", "text_too_long"), ("query-00003", "text_too_long")]
    asked = query(store / CATALOG_FILE, "SELECT DISTINCT query_id FROM rankings ORDER BY ALL")[1]
    assert asked == [("query-00001",), ("query-00002",)]
    counted = query(store / CATALOG_FILE, "SELECT DISTINCT n FROM recall")[1]
    assert counted == [(4,)]


# --- what is refused before any work


def test_a_path_and_another_data_root_contradict_each_other(folder: Path) -> None:
    with pytest.raises(UsageError, match="own"):
        resolve({"dataset": "./x", "data_root": folder}, {}, folder)


def test_a_path_beats_a_data_root_of_a_weaker_source(folder: Path) -> None:
    environment = {"CIR_DATASET": "fiq", "CIR_DATA_ROOT": "/data/fiq"}
    found = resolve({"dataset": "./x"}, environment, folder)
    assert (found.settings.dataset, found.settings.data_root) == ("own", Path("x"))
    assert found.origins["data_root"] == "flag"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"queries": "nope.csv", "images": "pics", "gallery": "g.txt"},
            "pics .* nope.csv .* g.txt",
        ),
        ({"dataset": "./nowhere"}, "nowhere"),
    ],
)
def test_files_that_are_not_there_are_told_at_once(
    fiq: Bench, folder: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(PreflightError) as caught:
        run(fiq, folder, tmp_path / "s", **changes)
    assert not (tmp_path / "s").exists()
    assert re.search(told, f"{caught.value.item} {caught.value.cause}")


def test_a_folder_without_one_table_of_queries_is_told(
    fiq: Bench, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "labelled.jsonl", folder / "queries.jsonl")
    with pytest.raises(PreflightError, match="several files"):
        run(fiq, folder, tmp_path / "s")
    (folder / "queries.jsonl").unlink()
    (folder / "queries.csv").unlink()
    with pytest.raises(PreflightError, match="no file of queries"):
        run(fiq, folder, tmp_path / "s")


@pytest.mark.parametrize("path", ["../elsewhere.csv", "/nowhere/q.csv", "nowhere.csv"])
def test_a_table_that_is_nowhere_is_refused(
    fiq: Bench, folder: Path, tmp_path: Path, path: str
) -> None:
    """Also where one of this name lies beside the folder, which is not where it was asked for."""
    (folder.parent / "elsewhere.csv").touch()
    with pytest.raises(PreflightError, match="own data are not complete") as caught:
        run(fiq, folder, tmp_path / "s", queries=path)
    assert re.search(rf"{Path(path).name} is not a file", caught.value.cause)


def test_images_lie_below_the_folder(fiq: Bench, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a path"):
        run(fiq, folder, tmp_path / "s", images="../photos")


def test_a_description_names_what_lies_in_the_folder(
    fiq: Bench, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "queries.csv", tmp_path / "q.csv")
    described = f"queries = {str(tmp_path / 'q.csv')!r}\n"
    (folder / "cir-dataset.toml").write_text(described, encoding="utf-8")
    with pytest.raises(UsageError, match="absolute path"):
        run(fiq, folder, tmp_path / "s")


def test_a_table_may_be_given_from_anywhere(
    fiq: Bench, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table in the folder counts first. The same bytes are the same run wherever they lie."""
    work = tmp_path / "work"
    work.mkdir()
    shutil.move(folder / "queries.csv", work / "mine.csv")
    shutil.copy(work / "mine.csv", tmp_path / "other.csv")
    monkeypatch.chdir(work)

    def queries_of(path: str) -> str:
        return complete(settings(fiq, folder, tmp_path / "s", queries=path)).queries or ""

    assert queries_of("mine.csv") == queries_of(f"{work}/mine.csv") == str(work / "mine.csv")
    assert queries_of("../other.csv") == str(tmp_path / "other.csv")
    assert queries_of("../catalogue/labelled.jsonl") == "labelled.jsonl"
    (work / "labelled.jsonl").touch()
    assert queries_of("labelled.jsonl") == "labelled.jsonl"
    first = run(fiq, folder, tmp_path / "s", queries="mine.csv")
    assert first.changed == ()
    assert run(fiq, folder, tmp_path / "s", queries="../other.csv").made == ()
    assert query(tmp_path / "s" / CATALOG_FILE, "SELECT count(*) FROM runs")[1] == [(1,)]


@pytest.mark.parametrize("toml", ["k = 'many'\nprotokoll = 1\n", "k = ", "stage1 = 3\n"])
def test_a_wrong_description_is_refused_with_all_its_mistakes(
    fiq: Bench, folder: Path, tmp_path: Path, toml: str
) -> None:
    (folder / "cir-dataset.toml").write_text(toml, encoding="utf-8")
    with pytest.raises(UsageError, match="description") as caught:
        run(fiq, folder, tmp_path / "s")
    assert "protokoll" not in toml or {"k", "protokoll"} <= set(
        caught.value.cause.replace(":", " ").replace(";", " ").split()
    )


def test_own_datas_flags_are_refused_beside_a_benchmark(fiq: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--images, --queries"):
        run_pipeline(
            Settings(dataset="fiq", data_root=fiq.root, queries="q.csv", images="x"), InProcess()
        )


def test_bad_rows_stop_a_run_before_anything_is_encoded(
    fiq: Bench, folder: Path, tmp_path: Path
) -> None:
    (folder / "queries.csv").write_text("reference,text\n,is red\n../x,is red\n", encoding="utf-8")
    with pytest.raises(AnnotationError, match="2 faults"):
        run(fiq, folder, tmp_path / "s")
    assert not (tmp_path / "s" / "artifacts" / "encode").exists()


def test_twins_in_case_are_different_images_and_are_told(
    fiq: Bench, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = sorted(path.name for path in (folder / "photos").iterdir())
    shutil.copy(folder / "photos" / names[1], folder / "photos" / names[0].upper())
    if len(list((folder / "photos").iterdir())) == len(names):
        pytest.skip("this file system takes both for one")
    ended = run(fiq, folder, tmp_path / "s", k=len(names))
    assert f"'photos/{names[0].upper()}' and 'photos/{names[0]}'" in caplog.text
    found = set(pq.read_table(ended.ranked[1])["image_id"].to_pylist())
    assert {f"photos/{names[0]}", f"photos/{names[0].upper()}"} <= found
