"""Finished runs without images or models: given scores, ranked and evaluated by the real tasks."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from cir_core.ordering import best_first
from cir_core.protocols import PROTOCOLS
from cir_core.types import Benchmark, ImageId, Query, QueryId
from storage import schemas
from storage.artifacts import Artifact
from storage.identities import Identity
from storage.store import LocalStore
from storage.views import Encoded, Evaluated, Ingested, Retrieved, Scored
from tasks.machine import Machine
from tasks.stages.evaluate import Evaluate
from tasks.stages.gallery import category_table, gallery_table
from tasks.stages.publish import Publish
from tasks.stages.rank import Rank
from tasks.stages.stage import Stage, make, make_here

PICTURE = (90, 120)
"""Larger than one within a report's page, which has its larger form beside it."""

AnyStage = TypeVar("AnyStage", bound=Stage[Any])

Scores = Mapping[str, np.ndarray]
"""By query id, a score for each image of its gallery, in gallery order."""


def write_run(
    store: Path,
    benchmark: Benchmark,
    *,
    protocol: str,
    k: int,
    stage1: Scores,
    stage2: Scores | None,
    split: str = "val",
    pictures: Path | None = None,
    annotations: str = "0" * 64,
    model: str = "2" * 64,
) -> str:
    """The fingerprint of the run's evaluation. Queries that ``stage1`` lacks have no candidates;
    without ``stage2`` nothing is re-ranked. ``pictures`` is a folder to be filled with a picture an
    image. Runs of one store that differ in their benchmark need other ``annotations``, in their
    scores of stage 2 another ``model``."""
    home = LocalStore(store)
    settings = {
        "dataset": PROTOCOLS[protocol].dataset,
        "split": split,
        "categories": list(benchmark.galleries),
        "protocol": protocol,
    }
    tables = {
        "queries": pa.Table.from_pylist([_row(one) for one in benchmark.queries], schemas.QUERIES),
        "gallery": gallery_table(benchmark),
        "categories": category_table(benchmark),
        "images": pa.Table.from_pylist([*_images(benchmark, pictures)], schemas.IMAGES),
        "problems": schemas.PROBLEMS.empty_table(),
    }
    ingested = _write(store, Identity("ingest", 0, settings, {"annotations": annotations}), tables)
    seen = {"ingest": ingested, "model": "1" * 64}
    encoded = _write(
        store, Identity("encode", 0, {}, seen), {"problems": schemas.PROBLEMS.empty_table()}
    )
    fused = _write(store, Identity("fuse", 0, {}, seen), {"unfused": _unfused(benchmark, stage1)})
    candidates, targets = _retrieved(benchmark, protocol, k, stage1)
    retrieved = _write(
        store,
        Identity(
            "retrieve",
            0,
            {"k": k, "index": "exact"},
            {"ingest": ingested, "encode": encoded, "fuse": fused},
        ),
        {
            "candidates": pa.Table.from_pylist(candidates, schemas.CANDIDATES),
            "targets": pa.Table.from_pylist(targets, schemas.TARGET_RANKS),
        },
    )
    if stage2 is None:
        views = Ingested(home, ingested), Encoded(home, encoded), Retrieved(home, retrieved)
        return made(Evaluate(home, *views, None, k)).made.fingerprint
    scores = pa.Table.from_pylist([*_scored(benchmark, candidates, stage2)], schemas.SCORES)
    scored = _write(
        store,
        Identity(
            "rerank",
            0,
            {"precision": "fp32", "prior": 0.0},
            {"retrieve": retrieved, "model": model},
        ),
        {"scores": scores},
    )
    return rank_and_evaluate(
        store,
        Ingested(LocalStore(store), ingested),
        Encoded(LocalStore(store), encoded),
        Retrieved(LocalStore(store), retrieved),
        Scored(LocalStore(store), scored),
        k,
    )


def rank_and_evaluate(
    store: Path, ingested: Ingested, encoded: Encoded, retrieved: Retrieved, scored: Scored, k: int
) -> str:
    """The fingerprint of the evaluation."""
    rank = made(Rank(LocalStore(store), ingested, retrieved, scored))
    return made(
        Evaluate(LocalStore(store), ingested, encoded, retrieved, rank.made, k)
    ).made.fingerprint


def made(stage: AnyStage) -> AnyStage:
    """The stage, when its artifact is there."""
    make(stage, Machine(), make_here)
    return stage


def random_scores(benchmark: Benchmark, rng: np.random.Generator, levels: int) -> Scores:
    """Few levels: many ties."""
    return {
        query.query_id: rng.integers(levels, size=len(benchmark.galleries[query.category])) / levels
        for query in benchmark.queries
    }


def cirr_benchmark(images: int, queries: int, *, labelled: bool = True) -> Benchmark:
    """Query n refers to image n; its subset and target are the images after."""
    names = [ImageId(f"test1-{number}-0-img1") for number in range(images)]
    asked = []
    for number in range(queries):
        members = [names[(number + step) % images] for step in range(1, 6)]
        asked.append(
            Query(
                query_id=QueryId(str(12063 + number)),
                category="cirr",
                reference_id=names[number],
                text=f"another {number}",
                targets=(members[2],) if labelled else (),
                subset=tuple(members),
            )
        )
    return Benchmark({"cirr": tuple(names)}, tuple(asked), {})


def circo_benchmark(images: int, queries: int, *, targets: int = 3) -> Benchmark:
    """Query n refers to image n; its targets are the images after. No targets, no labels."""
    names = [ImageId(str(100 + 7 * number)) for number in range(images)]
    asked = [
        Query(
            query_id=QueryId(str(number)),
            category="circo",
            reference_id=names[number],
            text=f"another {number}",
            targets=tuple(names[(number + step) % images] for step in range(1, targets + 1)),
        )
        for number in range(queries)
    ]
    return Benchmark({"circo": tuple(names)}, tuple(asked), {})


def published(store: Path, fingerprint: str) -> Path:
    """The catalog of the store's runs, up to date with this one."""
    publish = Publish(Evaluated(LocalStore(store), fingerprint))
    publish.write()
    (catalog,) = publish.files
    return catalog


def _unfused(benchmark: Benchmark, asked: Scores) -> pa.Table:
    rows = [
        {"item": query.query_id, "kind": "reference_unusable", "message": "it was lost"}
        for query in benchmark.queries
        if query.query_id not in asked
    ]
    return pa.Table.from_pylist(rows, schemas.PROBLEMS)


def _row(query: Query) -> dict[str, Any]:
    lists = {name: list(getattr(query, name)) or None for name in ("targets", "subset")}
    return {**asdict(query), **lists, "other_text": None}


def _images(benchmark: Benchmark, pictures: Path | None) -> Iterator[dict[str, Any]]:
    """Where no picture lies anywhere, a number stands for its hash."""
    named = {image for gallery in benchmark.galleries.values() for image in gallery}
    for number, image in enumerate(sorted(named)):
        path = f"{number}.png"
        yield {
            "image_id": image,
            "path": path,
            "sha256": f"{number:064x}" if pictures is None else _draw(pictures / path, number),
            "width": PICTURE[0],
            "height": PICTURE[1],
        }


def _draw(path: Path, number: int) -> str:
    """A picture of its own; the sha256 of its file."""
    path.parent.mkdir(exist_ok=True)
    colour = (37 * number % 256, 91 * number % 256, 151 * number % 256)
    Image.new("RGB", PICTURE, colour).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _retrieved(
    benchmark: Benchmark, protocol: str, k: int, scores: Scores
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of candidates and of targets."""
    candidates, targets = [], []
    for query in benchmark.queries:
        if query.query_id not in scores:
            continue
        mine, gallery = scores[query.query_id], benchmark.galleries[query.category]
        order = [gallery[row] for row in best_first(mine, np.arange(len(gallery)))]
        if PROTOCOLS[protocol].removes_reference:
            order.remove(query.reference_id)
        members = [image for image in order if image in query.subset]
        for pool, images in (("gallery", order[:k]), ("subset", members)):
            candidates += [
                {
                    "query_id": query.query_id,
                    "pool": pool,
                    "image_id": image,
                    "stage1_rank": place,
                    "stage1_score": mine[gallery.index(image)],
                }
                for place, image in enumerate(images, start=1)
            ]
        targets += [
            {"query_id": query.query_id, "image_id": one, "stage1_rank": order.index(one) + 1}
            for one in query.targets
            if one in order
        ]
    return candidates, targets


def _scored(
    benchmark: Benchmark, candidates: list[dict[str, Any]], scores: Scores
) -> Iterator[dict[str, Any]]:
    galleries = {one.query_id: benchmark.galleries[one.category] for one in benchmark.queries}
    for query, image in dict.fromkeys((row["query_id"], row["image_id"]) for row in candidates):
        score = scores[query][galleries[query].index(image)]
        yield {"query_id": query, "image_id": image, "stage2_score": score}


def _write(store: Path, identity: Identity, tables: Mapping[str, pa.Table]) -> str:
    artifact = Artifact.of(LocalStore(store), identity)
    if not artifact.is_done:
        for name, table in tables.items():
            artifact.write_part(name, table)
        artifact.finish(identity, tables)
    return identity.fingerprint
