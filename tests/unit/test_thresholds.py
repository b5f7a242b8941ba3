"""Stages of an adaptive K over made-up embeddings: who calibrates whom, and what is lost."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cir_core.conformal import Assurance, fold_of
from cir_core.errors import PreflightError
from cir_core.metrics.galleries import SearchedGallery
from cir_core.types import Benchmark, ImageId
from storage import schemas
from storage.identities import Identity
from storage.store import LocalStore
from storage.tables import vector_column
from storage.view import View
from storage.views import Encoded, Evaluated, Fused, Ingested
from tasks.stages.elsewhere import Asking, Difference, Elsewhere, in_asking, in_queries
from tasks.stages.halves import thresholds_of
from tasks.stages.retrieve_within import RetrieveWithin
from tasks.stages.threshold import Threshold, require_enough
from tasks.stages.vectors import Vectors
from tests.support.made_runs import cirr_benchmark, made, write_run

IMAGES, LABELLED, SILENT, WIDTH = 40, 60, 5, 8
GALLERIES = ("other", 0.5), ("own", 0.25)


def write(view: View, identity: Identity, tables: dict[str, pa.Table]) -> None:
    for kind, table in tables.items():
        view.write(kind, table)
    view.finish(identity, list(tables))


def of_schema(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    return pa.table(columns).cast(schemas.of_width(schema, WIDTH))


class Shop:
    """One gallery; queries with a target, some of which are no members, and some without label. Its
    query 0 starts from its own target, which the protocol removes."""

    def __init__(self, folder: Path, *, lost: int) -> None:
        rng, self.store = np.random.default_rng(0), LocalStore(folder)
        self.images = rng.standard_normal((IMAGES, WIDTH)).astype(np.float32)
        self.asked = rng.standard_normal((LABELLED + SILENT, WIDTH)).astype(np.float32)
        self.targets = [
            None if row >= LABELLED else "elsewhere" if 0 < row <= lost else f"i{row % IMAGES}"
            for row in range(len(self.asked))
        ]
        about = {"protocol": "own-removed", "dataset": "own", "categories": ["own"]}
        identity = Identity("ingest", 0, about, {})
        self.ingested = Ingested.named(self.store, identity)
        write(self.ingested, identity, self._ingest())
        seen = Identity("encode", 0, {}, {"ingest": self.ingested.fingerprint})
        self.encoded = Encoded.named(self.store, seen)
        names = [f"i{row}" for row in range(IMAGES)]
        images = {"image_id": names, "embedding": vector_column(self.images)}
        write(self.encoded, seen, {"embeddings": of_schema(images, schemas.EMBEDDINGS)})
        seen = Identity("fuse", 0, {}, {"ingest": self.ingested.fingerprint})
        self.fused = Fused.named(self.store, seen)
        asked = {
            "query_id": [f"q{row}" for row in range(len(self.asked))],
            "embedding": vector_column(self.asked),
            "question": range(len(self.asked)),
            "token_ids": [[1]] * len(self.asked),
            "length": [1] * len(self.asked),
            "z_t": [b""] * len(self.asked),
        }
        write(self.fused, seen, {"queries": of_schema(asked, schemas.FUSED_QUERIES)})

    def threshold(self, assurance: Assurance) -> Threshold:
        return Threshold(self.store, self.ingested, self.encoded, self.fused, None, assurance)

    def within(self, threshold: Threshold) -> RetrieveWithin:
        seen = (self.ingested, self.encoded, self.fused)
        return RetrieveWithin(self.store, *seen, "auto", threshold.made)

    @property
    def below(self) -> np.ndarray:
        """By how much each image scores lower than a query's best, the reference aside."""
        scores = (self.asked.astype(float) @ self.images.astype(float).T).astype(np.float32)
        scores[:, 0] = -np.inf
        return scores.max(axis=1, keepdims=True).astype(float) - scores

    def _ingest(self) -> dict[str, pa.Table]:
        queries = [
            {
                "query_id": f"q{row}",
                "category": "own",
                "reference_id": "i0",
                "text": "red",
                "targets": None if target is None else [target],
            }
            for row, target in enumerate(self.targets)
        ]
        members = [
            {"gallery": "own", "position": row, "image_id": f"i{row}"} for row in range(IMAGES)
        ]
        return {
            "queries": pa.Table.from_pylist(queries, schemas.QUERIES),
            "gallery": pa.Table.from_pylist(members, schemas.GALLERY),
            "categories": pa.Table.from_pylist(
                [{"category": "own", "gallery": "own"}], schemas.CATEGORIES
            ),
        }


def rows(view: View, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = view.read(kind).to_pylist()
    return found


def test_each_half_calibrates_the_other_and_all_calibrate_the_silent(tmp_path: Path) -> None:
    shop = Shop(tmp_path, lost=3)
    threshold = made(shop.threshold(Assurance(0.8)))
    gaps = {row["query_id"]: row["gap"] for row in rows(threshold.made, "calibration")}
    below = shop.below
    found = {name: below[int(name[1:]), int(name[1:]) % IMAGES] for name in gaps}
    lost = {"q0", "q1", "q2", "q3", "q40"}  # q0 and q40 have the removed reference as their target
    assert {name for name, gap in gaps.items() if np.isinf(gap)} == lost
    assert {name: gap for name, gap in gaps.items() if name not in lost} == pytest.approx(
        {name: gap for name, gap in found.items() if name not in lost}
    )
    assert len(gaps) == LABELLED
    told = {row["fold"]: (row["n"], row["threshold"]) for row in rows(threshold.made, "thresholds")}
    for fold in (0, 1, None):
        calibrating = sorted(gap for name, gap in gaps.items() if fold_of(name) != fold)
        missed = int(0.2 * (len(calibrating) + 1)) - 1
        assert told[fold] == (len(calibrating), calibrating[-1 - missed])
    images: dict[str, set[str]] = {}
    for one in rows(made(shop.within(threshold)).made, "candidates"):
        images.setdefault(one["query_id"], set()).add(one["image_id"])
    for number, mine in enumerate(below):
        reach = told[fold_of(f"q{number}") if number < LABELLED else None][1]
        inside = np.flatnonzero(mine <= reach + 1e-7)
        assert images[f"q{number}"] == {f"i{image}" for image in inside}


def test_what_cannot_be_found_is_a_miss_whatever_k(tmp_path: Path) -> None:
    threshold = Shop(tmp_path, lost=20).threshold(Assurance(0.8))
    require_enough(threshold.ingested, threshold.assurance)
    with pytest.raises(PreflightError, match="no number of candidates") as refused:
        made(threshold)
    assert "have no target that could be found" in refused.value.cause
    assert "--coverage" in refused.value.remedy


@pytest.mark.parametrize(("asked", "least"), [(Assurance(0.99), 99), (Assurance(0.95, 0.01), 90)])
def test_too_few_are_counted_with_what_they_take(
    tmp_path: Path, asked: Assurance, least: int
) -> None:
    shop = Shop(tmp_path, lost=0)
    with pytest.raises(PreflightError, match="too few to choose K by") as refused:
        require_enough(shop.ingested, asked)
    assert f"takes {least} to calibrate with" in refused.value.cause


def test_an_assurance_names_what_it_chose(tmp_path: Path) -> None:
    shop = Shop(tmp_path, lost=0)
    asked = [Assurance(0.8), Assurance(0.7), Assurance(0.8, 0.1), Assurance(0.8, 0.2)]
    stages = [shop.within(shop.threshold(one)) for one in asked]
    assert len({stage.identity.fingerprint for stage in stages}) == len(asked)
    assert stages[0].settings()["k"] == "auto"


# --- another run's queries


def test_the_threshold_of_those_without_label_is_everybodys_where_another_run_calibrates() -> None:
    queries = [
        {"query_id": name, "category": "own", "reference_id": "i", "text": "", "targets": targets}
        for name, targets in (("a", ["i"]), ("b", None), ("c", ["i"]))
    ]
    mine = [{"gallery": name, "fold": None, "threshold": reach} for name, reach in GALLERIES]
    asked, found = pa.Table.from_pylist(queries), pa.Table.from_pylist(mine)
    assert thresholds_of(asked, found, "own").tolist() == [0.25, 0.25, 0.25]


def test_queries_are_asked_alike_or_it_is_told_in_what_they_are_not(tmp_path: Path) -> None:
    shop = Shop(tmp_path, lost=0)
    names = pa.chunked_array([[f"i{row}" for row in range(IMAGES)]])
    turned = pa.chunked_array([names.to_pylist()[::-1]])
    mine = Asking(shop.ingested, "a" * 64, None, Vectors(names, shop.images))
    assert not [*in_asking(replace(mine, embeddings=Vectors(turned, shop.images[::-1])), mine)]
    other = Asking(shop.ingested, "b" * 64, 0.25, Vectors(names, shop.images * 2))
    told = {one.what: (one.there, one.here) for one in in_asking(other, mine)}
    assert told["stage 1"] == ("b" * 16, "a" * 16)
    assert told["text weight"] == ("0.25", "the model's")
    there, here = told["embeddings"]
    assert there != here
    assert there.startswith("from files (")
    own = {one.what: one for one in in_asking(replace(mine, embeddings=None), mine)}
    assert own == {"embeddings": Difference("embeddings", "stage 1's own", here)}


def test_images_that_could_not_be_decoded_there_take_the_guarantee_away(tmp_path: Path) -> None:
    """What is not known before images are encoded."""
    run = Evaluated(LocalStore(tmp_path), "0" * 32)
    there, here = (SearchedGallery("own", images, 0, f"{images}") for images in (4, 5))
    strict = Elsewhere(run, {"own": "own"}, (), goes_on=False)
    assert strict.words(Assurance(0.8), there=here, here=here) == Assurance(0.8).words
    with pytest.raises(PreflightError, match="not guaranteed here") as refused:
        strict.words(Assurance(0.8), there=there, here=here)
    assert refused.value.cause == "gallery own: 4 (4 images) there, 5 (5 images) here"
    told = replace(strict, goes_on=True).words(Assurance(0.8), there=there, here=here)
    assert told == "no guarantee: run 000000000000 differs in gallery own"


def test_a_gallery_that_differs_takes_the_guarantee_of_its_own_queries(tmp_path: Path) -> None:
    run = Evaluated(LocalStore(tmp_path), "0" * 32)
    strange = Difference("gallery other", "4 images", "5 images", gallery="other")
    found = Elsewhere(run, {"own": "own", "other": "other"}, (strange,), goes_on=True)
    own, other = (SearchedGallery(name, 5, 0, name) for name in ("own", "other"))
    assert found.words(Assurance(0.8), there=own, here=own) == Assurance(0.8).words
    told = found.words(Assurance(0.8), there=other, here=other)
    assert told == "no guarantee: run 000000000000 differs in gallery other"


def ingested(folder: Path, benchmark: Benchmark) -> Ingested:
    """Of a run that nobody encoded."""
    about: dict[str, Any] = {"protocol": "cirr-removed-subset-scored", "k": 2}
    about["annotations"] = repr(benchmark)
    run = write_run(folder, benchmark, stage1={}, stage2=None, **about)
    return Evaluated(LocalStore(folder), run).ingested


def test_queries_of_copies_are_the_same_whatever_they_are_called(tmp_path: Path) -> None:
    """Made-up images have the sums of their places in the alphabet."""
    labelled, named = cirr_benchmark(6, 4), cirr_benchmark(6, 3, labelled=False)
    renamed = [replace(one, reference_id=ImageId(f"x{one.reference_id}")) for one in named.queries]
    longer = replace(renamed[0], text="another 0, and longer")
    images = tuple(ImageId(f"x{one}") for one in named.galleries["cirr"])
    others = replace(named, galleries={"cirr": images}, queries=(longer, *renamed[1:]))
    there, here = (ingested(tmp_path, one) for one in (labelled, others))
    (found,) = in_queries(there, here)
    assert found.here == "2 of 3 are among them, and would calibrate themselves"
