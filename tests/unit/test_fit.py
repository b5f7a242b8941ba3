"""The weight of a late fusion, by its definition; and what it cannot be fitted on."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cir_core.errors import PreflightError
from cir_core.late_fusion import WEIGHTS
from cir_core.protocols import PROTOCOLS
from storage.identities import Identity
from storage.store import LocalStore
from storage.view import View
from storage.views import Ingested, Retrieved, Scored
from tasks.stages.fit import Fit

CATEGORIES = ("shirt", "dress")
IMAGES, K, QUERIES = 9, 4, 12

Row = dict[str, Any]


def written(view: type[View], folder: Path, settings: Row, **parts: list[Row]) -> Any:
    identity = Identity(view.stage, 1, settings, {})
    made = view.named(LocalStore(folder), identity)
    for name, rows in parts.items():
        made.write(name, pa.Table.from_pylist(rows, view.holds[name]))
    made.finish(identity, list(parts))
    return made


def query(number: int, targets: list[str] | None) -> Row:
    """Not in the order of their ids."""
    category = CATEGORIES[number % len(CATEGORIES)]
    one = {"query_id": f"q{-number % QUERIES}", "category": category, "targets": targets}
    return one | {"reference_id": "r", "text": "is red"}


def fit(folder: Path, queries: list[Row], rankings: list[Row], protocol: str) -> Fit:
    """``rankings`` are of all images, the first K of them candidates."""
    candidates = [row for row in rankings if row["stage1_rank"] <= K]
    names = [f"i{number}" for number in range(IMAGES)]
    ingested = written(
        Ingested, folder, {"protocol": protocol, "split": "selection"},
        images=[], problems=[], queries=queries,
        gallery=[
            {"gallery": "all", "position": place, "image_id": name}
            for place, name in enumerate(names)
        ],
        categories=[{"category": one, "gallery": "all"} for one in CATEGORIES],
    )  # fmt: skip
    retrieved = written(Retrieved, folder, {}, candidates=candidates, targets=rankings)
    scored = written(Scored, folder, {}, scores=candidates)
    return Fit(LocalStore(folder), ingested, retrieved, scored, "raw")


def drawn(queries: list[Row]) -> list[Row]:
    rng = np.random.default_rng(5)
    rows = []
    for one in queries:
        scores = np.sort(rng.random(IMAGES).astype(np.float32))[::-1]
        for rank, image in enumerate(rng.permutation(IMAGES)):
            rows.append(
                {
                    "query_id": one["query_id"],
                    "pool": "gallery",
                    "image_id": f"i{image}",
                    "stage1_rank": rank + 1,
                    "stage1_score": scores[rank],
                    "stage2_score": rng.random(),
                }
            )
    return rows


def plain_recall(
    queries: list[Row], rankings: list[Row], weight: float, k: int, *, first: bool
) -> float:
    """The definition, query by query; targets beyond the candidates have stage 1's rank."""
    hits: dict[str, list[bool]] = {category: [] for category in CATEGORIES}
    for one in queries:
        mine = [row for row in rankings if row["query_id"] == one["query_id"]]
        pool = [row for row in mine if row["stage1_rank"] <= K]
        pool.sort(key=lambda row: -(float(row["stage2_score"]) + weight * row["stage1_score"]))
        order = [row["image_id"] for row in pool + mine[K:]]
        if one["targets"]:
            counted = one["targets"][:1] if first else one["targets"]
            hits[one["category"]].append(min(map(order.index, counted)) < k)
    return float(np.mean([np.mean(each) for each in hits.values()]))


@pytest.mark.parametrize("protocol", ["fiq-original-kept", "circo-kept-caption"])
def test_the_curve_is_of_the_targets_that_count(tmp_path: Path, protocol: str) -> None:
    rng = np.random.default_rng(2)
    queries = [
        query(number, [f"i{image}" for image in rng.permutation(IMAGES)[:2]] if number else None)
        for number in range(QUERIES)
    ]
    rankings = drawn(queries)
    (part,) = fit(tmp_path, queries, rankings, protocol).work(())
    curve = part.content
    assert isinstance(curve, pa.Table)
    rows = curve.to_pylist()
    assert len({row["weight"] for row in rows}) == len(WEIGHTS)
    first = PROTOCOLS[protocol].recall_on == "first"
    for row in rows:
        assert row["n"] == QUERIES - 1
        plain = plain_recall(queries, rankings, row["weight"], row["k"], first=first)
        assert row["recall"] == pytest.approx(plain, abs=1e-12)


def test_queries_that_have_either_a_target_or_candidates_give_no_weight(tmp_path: Path) -> None:
    labelled, other = query(1, ["i1"]), query(2, None)
    asked = fit(tmp_path, [labelled, other], drawn([other]), "fiq-original-kept")
    with pytest.raises(PreflightError, match="no queries to fit") as refusal:
        list(asked.work(()))
    assert refusal.value.cause == "no query there has both a target and candidates"
