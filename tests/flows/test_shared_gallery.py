"""Categories that share a gallery: it is kept and searched once, and each query is answered as if
there were no categories."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cir_core.planning.effort import Speeds
from flows.engines.engine import InProcess
from flows.plan import make_plan
from flows.run import Run, run_pipeline
from storage.artifacts import Artifact
from storage.catalog import CATALOG_FILE, query
from storage.store import LocalStore
from tests.support.small_benchmarks import Bench

CATEGORIES = 30
QUERIES = 60
K = 5


@pytest.fixture(scope="module")
def photos(fiq: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "photos"
    shutil.copytree(fiq.root / "images", folder)
    return folder


def names_of(photos: Path) -> list[str]:
    """In the order of a listing."""
    return sorted(path.name for path in photos.iterdir() if path.suffix != ".jsonl")


def settings(fiq: Bench, photos: Path, store: Path, categories: int, **changes: Any) -> Any:
    """The same labelled queries, in the order of their ids, over so many categories."""
    names = names_of(photos)
    lines = [
        {
            "query_id": f"q{number:02d}",
            "reference": names[number % len(names)],
            "text": f"is {number} times as red",
            "target": names[(number + 3) % len(names)],
            "category": f"c{number % categories}",
        }
        for number in range(QUERIES)
    ]
    file = f"{categories}.jsonl"
    (photos / file).write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    own = {"dataset": "own", "data_root": photos, "queries": file, "k": K, "categories": ()}
    return fiq.settings(store, **(own | changes))


@pytest.fixture(scope="module")
def stores(
    fiq: Bench, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, tuple[Path, Run]]:
    """By the number of categories."""
    made = {}
    for categories in (1, CATEGORIES):
        store = tmp_path_factory.mktemp("stores") / f"s{categories}"
        ended = run_pipeline(settings(fiq, photos, store, categories), InProcess())
        made[categories] = store, ended
    return made


def rows(store: Path, sql: str) -> list[tuple[Any, ...]]:
    return query(store / CATALOG_FILE, sql)[1]


def artifact(store: Path, stage: str) -> Artifact:
    (folder,) = (store / "artifacts" / stage).iterdir()
    return Artifact(LocalStore(store), stage, folder.name)


def test_each_query_is_answered_as_without_categories(
    stores: dict[int, tuple[Path, Run]],
) -> None:
    order = [("query_id", "ascending"), ("rank", "ascending")]
    plain, shared = (
        pq.read_table(ended.ranked[1]).drop_columns("category").sort_by(order)
        for _, ended in stores.values()
    )
    assert plain.num_rows == QUERIES * K
    assert shared.equals(plain)
    sql = "SELECT * EXCLUDE run_id FROM target_ranks ORDER BY ALL"
    first, second = (rows(store, sql) for store, _ in stores.values())
    assert len(first) == QUERIES
    assert second == first


def test_the_store_and_the_catalog_have_the_gallery_once(
    photos: Path, stores: dict[int, tuple[Path, Run]]
) -> None:
    names = names_of(photos)
    store, _ = stores[CATEGORIES]
    ingested = artifact(store, "ingest")
    assert ingested.read("gallery")["image_id"].to_pylist() == names
    assert ingested.read("categories").to_pylist() == [
        {"category": f"c{number}", "gallery": "c0"} for number in range(CATEGORIES)
    ]
    parts = sorted(path.name for path in artifact(store, "retrieve").folder.glob("*.parquet"))
    assert parts == ["candidates-00000.parquet", "targets-00000.parquet"]
    members = "SELECT gallery, image_id FROM gallery_members ORDER BY position"
    assert rows(store, members) == [("c0", name) for name in names]


def test_sql_has_the_gallery_of_every_category(
    photos: Path, stores: dict[int, tuple[Path, Run]]
) -> None:
    names = names_of(photos)
    store, _ = stores[CATEGORIES]
    found = rows(store, "SELECT category, position, image_id FROM gallery")
    assert sorted(found) == sorted(
        (f"c{number}", place, name)
        for number in range(CATEGORIES)
        for place, name in enumerate(names)
    )
    per_category = """
        SELECT category, count(*),
               sha256(string_agg(sha256 || ' ' || image_id || chr(10), '' ORDER BY position))
        FROM gallery WHERE path IS NOT NULL GROUP BY category ORDER BY category"""
    told = "SELECT category, images, sha256 FROM galleries ORDER BY category"
    assert rows(store, per_category) == rows(store, told)
    (one,) = rows(stores[1][0], "SELECT images, sha256 FROM galleries")
    assert {row[1:] for row in rows(store, told)} == {one}


def test_a_plan_counts_the_gallery_once(
    fiq: Bench, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts, bytes, and the seconds that are not this machine's."""
    monkeypatch.setattr("flows.plan.calibrate", lambda *_given, **_named: Speeds())
    plain, shared = (
        {
            one.stage: one.effort
            for one in make_plan(wanted, started=0.5).stages
            if one.stage != "ingest"  # its time is what it took
        }
        for wanted in (
            settings(fiq, photos, tmp_path / f"s{categories}", categories)
            for categories in (1, CATEGORIES)
        )
    )
    assert plain["retrieve"].seconds > 0
    assert shared == plain


def test_equal_galleries_of_a_gallery_list_are_one_and_others_stay_apart(
    fiq: Bench, photos: Path, tmp_path: Path
) -> None:
    names = names_of(photos)
    members = {"c0": names, "c1": names, "c2": names[::-1], "c3": names[1:]}
    listed = [{"image": one, "category": name} for name, ids in members.items() for one in ids]
    (photos / "listed.jsonl").write_text("\n".join(map(json.dumps, listed)), encoding="utf-8")
    changes = {"gallery": "listed.jsonl", "allow_missing": QUERIES}
    run_pipeline(settings(fiq, photos, tmp_path / "s", 4, **changes), InProcess())
    found = rows(tmp_path / "s", "SELECT category, gallery FROM galleries ORDER BY ALL")
    assert found == [("c0", "c0"), ("c1", "c0"), ("c2", "c2"), ("c3", "c3")]
    sql = "SELECT category, list(image_id ORDER BY position) FROM gallery GROUP BY ALL"
    assert dict(rows(tmp_path / "s", sql)) == members
