"""Ids and texts of any shape come out of Parquet, JSONL and DuckDB as they went in."""

import csv
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cir_core.datasets.ids import path_fault, text_fault, twins
from cir_core.datasets.registry import find_dataset
from storage import schemas
from storage.artifacts import Artifact
from storage.catalog import CATALOG_FILE, query
from storage.identities import Identity
from storage.sources.rows import read_rows
from storage.store import LocalStore
from storage.tables import vector_column
from storage.views import Encoded, Evaluated, Ingested, Retrieved, Scored
from tasks.results.takeaway import Takeaway
from tasks.stages.ingest import ingest
from tasks.stages.output import make_output
from tasks.stages.publish import Publish
from tests.support.made_runs import rank_and_evaluate

HOSTILE = (
    "e\u0301", "\u00e9", "A", "a", "007", "7", "NULL", "a\nb", "a\r\nb", "\t", " ", '"', "'; --",
    "\u202egpj", "\U0001f457", "a\u2028b", "\ufeff", "\\", "%00", "x" * 10_000, "[1]", "{}", "*",
)  # fmt: skip

texts = st.sampled_from(HOSTILE) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
)
ids = texts.filter(bool)
categories = ids.filter(lambda name: name not in ("average", "micro"))
file_names = ids.filter(
    lambda name: len(name.encode()) < 200 and "/" not in name and not name.startswith(".")
)


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[list[str], list[dict[str, Any]]]:
    """Paths of images, and labelled queries about them."""
    names = draw(st.lists(file_names, min_size=3, max_size=5, unique=True))
    images = sorted(f"{index % 2}/{name}.png" for index, name in enumerate(names))
    queries = [
        {
            "query_id": query_id,
            "reference": images[index % len(images)],
            "text": draw(texts),
            "target": images[(index + 1) % len(images)],
            "category": draw(categories),
        }
        for index, query_id in enumerate(draw(st.lists(ids, min_size=1, max_size=4, unique=True)))
    ]
    return images, queries


@pytest.fixture(scope="module", autouse=True)
def _without_waiting_for_the_disk() -> Iterator[None]:
    """Dozens of small files an example; what a power cut does is no question here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("storage.atomic._sync", lambda _path: None)
        yield


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def scored(store: Path, ingested: str) -> str:
    """The run that follows when every image is a candidate of every query; its evaluation."""
    source = Artifact(LocalStore(store), "ingest", ingested)
    asked, members = source.read("queries").to_pylist(), source.read("gallery").to_pylist()
    gallery_of = {row["category"]: row["gallery"] for row in source.read("categories").to_pylist()}
    candidates, targets, scores = [], [], []
    for one in asked:
        mine = [row["image_id"] for row in members if row["gallery"] == gallery_of[one["category"]]]
        for place, image in enumerate(mine):
            key = {"query_id": one["query_id"], "image_id": image}
            named = {"pool": "gallery", "stage1_rank": place + 1, "stage1_score": 0.1 * place}
            candidates.append(key | named)
            scores.append(key | {"stage2_score": 0.3 * place})
            if image in (one["targets"] or ()):
                targets.append(key | {"stage1_rank": place + 1})
    none = schemas.PROBLEMS.empty_table()
    vectors = pa.table(
        [[], vector_column(np.zeros((0, 2), np.float32))], schemas.of_width(schemas.EMBEDDINGS, 2)
    )
    made = {"encode": {"embeddings": vectors, "problems": none}, "fuse": {"unfused": none}}
    made["rerank"] = {"scores": pa.Table.from_pylist(scores, schemas.SCORES)}
    names = {stage: _keep(store, stage, {"model": "m"}, parts) for stage, parts in made.items()}
    tables = {
        "candidates": pa.Table.from_pylist(candidates, schemas.CANDIDATES),
        "targets": pa.Table.from_pylist(targets, schemas.TARGET_RANKS),
    }
    inputs = {"encode": names["encode"], "fuse": names["fuse"]}
    retrieved = _keep(store, "retrieve", inputs, tables)
    return rank_and_evaluate(
        store,
        Ingested(LocalStore(store), ingested),
        Encoded(LocalStore(store), names["encode"]),
        Retrieved(LocalStore(store), retrieved),
        Scored(LocalStore(store), names["rerank"]),
        9,
    )


def published(store: Path, evaluated: str) -> None:
    make_output(Publish(Evaluated(LocalStore(store), evaluated)))


def _keep(store: Path, stage: str, inputs: dict[str, str], parts: dict[str, pa.Table]) -> str:
    settings = {"k": 9, "index": "exact", "precision": "fp32", "prior": 0.0}
    identity = Identity(stage, 1, settings, inputs)
    artifact = Artifact.of(LocalStore(store), identity)
    for name, table in parts.items():
        artifact.write_part(name, table)
    artifact.finish(identity, list(parts))
    return identity.fingerprint


def told(store: Path, columns: str, table: str) -> list[tuple[Any, ...]]:
    return query(store / CATALOG_FILE, f"SELECT {columns} FROM {table}")[1]


@settings(max_examples=15, deadline=None)
@given(catalogues())
def test_own_data_come_out_of_every_file_as_they_went_in(
    catalogue: tuple[list[str], list[dict[str, Any]]],
) -> None:
    images, queries = catalogue
    with folder() as root:
        data, store = root / "data", root / "store"
        for name in images:
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2)).save(data / name)
        _write_csv(data / "queries.csv", queries)
        ingested = ingest(
            LocalStore(store), data, find_dataset("own"), "val", (), "own-removed"
        ).ingested
        source = ingested
        assert not source.read("problems").num_rows
        assert sorted(source.read("images")["image_id"].to_pylist()) == images
        evaluated = scored(store, ingested.fingerprint)
        published(store, evaluated)
        asked = [
            (one["query_id"], one["category"], one["reference"], one["text"], [one["target"]])
            for one in queries
        ]
        columns = "query_id, category, reference_id, text, targets"
        assert sorted(told(store, columns, "queries")) == sorted(asked)
        assert {row for (row,) in told(store, "image_id", "gallery")} == set(images)
        found = told(store, "query_id, image_id, rank", "rankings")
        assert {image for _, image, _ in found} == set(images)
        takeaway = Takeaway(Evaluated(LocalStore(store), evaluated))
        make_output(takeaway)
        files = takeaway.files
        rows = [json.loads(line) for line in files[0].read_text("utf-8").split("\n")[:-1]]
        assert rows == pq.read_table(files[1]).to_pylist()
        assert sorted((row["query_id"], row["image_id"], row["rank"]) for row in rows) == sorted(
            found
        )
        assert [row["query_id"] for row in rows if row["rank"] == 1] == [
            one["query_id"] for one in queries
        ]
        by_id = {one["query_id"]: one for one in queries}
        for row in rows:
            one = by_id[row["query_id"]]
            kept = (row["category"], row["reference_id"], row["text"])
            assert kept == (one["category"], one["reference"], one["text"])


@settings(max_examples=15, deadline=None)
@given(st.lists(texts | st.just("../../x") | st.just("/etc/passwd") | st.just("a\0b"), min_size=1))
def test_a_benchmarks_ids_survive_though_no_file_can_have_them(names: Sequence[str]) -> None:
    with folder() as root:
        entry = {"candidate": names[0], "target": names[-1], "captions": ["is red", names[-1]]}
        for file, content in (
            ("captions/cap.dress.val.json", [entry]),
            ("image_splits/split.dress.val.json", list(names)),
        ):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(json.dumps(content), encoding="utf-8")
        dataset, store = find_dataset("fiq"), root / "store"
        ingested = ingest(
            LocalStore(store), root, dataset, "val", ("dress",), "fiq-original-kept-raw"
        ).ingested
        source = ingested
        distinct = list(dict.fromkeys(names))
        assert source.read("gallery")["image_id"].to_pylist() == distinct
        problems = source.read("problems").to_pylist()
        assert [row["item"] for row in problems[: len(distinct)]] == distinct
        published(store, scored(store, ingested.fingerprint))
        members = told(store, "image_id", "gallery ORDER BY position")
        assert members == [(name,) for name in distinct]
        asked = told(store, "reference_id, targets, text", "queries")
        assert asked == [(names[0], [names[-1]], f"is red and {names[-1]}")]


entries_with_a_value = st.fixed_dictionaries({"reference": texts, "text": texts}).filter(
    lambda entry: any(entry.values())  # a row of empty values alone is none in CSV
)


@settings(max_examples=50, deadline=None)
@given(st.lists(entries_with_a_value, min_size=1))
def test_the_three_formats_hold_the_same_rows(entries: list[dict[str, str]]) -> None:
    with folder() as root:
        _write_csv(root / "q.csv", entries)
        lines = [json.dumps(one, ensure_ascii=index % 2 == 0) for index, one in enumerate(entries)]
        (root / "q.jsonl").write_bytes("\n".join(lines).encode())
        pq.write_table(pa.Table.from_pylist(entries), root / "q.parquet")
        for name in ("q.csv", "q.jsonl", "q.parquet"):
            assert [
                dict(row.values)
                for row in read_rows((root / name).read_bytes(), Path(name)).entries
            ] == entries


@given(st.lists(st.text(), unique=True))
def test_twins_are_different_ids_that_fold_to_the_same(names: list[str]) -> None:
    pairs = twins(names)
    assert all(one != other for one, other in pairs)
    assert len({other for _, other in pairs}) == len(pairs)
    assert len(twins(list(dict.fromkeys([*names, *map(str.lower, names)])))) >= len(pairs)


def test_case_and_unicode_twins_are_found() -> None:
    names = ["A.jpg", "b", "a.jpg", "e\u0301", "\u00e9", "\u00c9", "a.JPG"]
    assert twins(names) == [
        ("A.jpg", "a.jpg"), ("e\u0301", "\u00e9"), ("e\u0301", "\u00c9"), ("A.jpg", "a.JPG"),
    ]  # fmt: skip


@given(st.text(), st.text())
def test_what_passes_as_a_path_stays_below_its_folder(one: str, other: str) -> None:
    for name in (one, f"{one}/{other}", f"{one}/../{other}"):
        if not path_fault(name) and not text_fault(name):
            inside = Path("/data") / name
            assert str(inside) == f"/data/{name}"
            assert ".." not in inside.parts


def _write_csv(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(entries[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(entries)
