"""A finished run as large as Fashion-IQ's validation split, made up: no image need be there.

Images and texts are points of one space. A query lies between its target and its reference, with
noise; stage 1 sees points through more noise than stage 2, so that what a report tells looks like
what a trained pair leaves: stage 2 mends much and breaks some, and some targets are lost.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from cir_core.search.choice import IndexChoice
from storage import schemas
from storage.artifacts import Artifact
from storage.identities import Identity
from storage.store import LocalStore
from storage.tables import rows_of, vector_column
from storage.views import Encoded, Evaluated, Fused, Ingested, Retrieved, Scored
from tasks.stages.evaluate import Evaluate
from tasks.stages.output import make_output
from tasks.stages.publish import Publish
from tasks.stages.rank import Rank
from tasks.stages.retrieve import Retrieve
from tests.support.made_runs import made

GALLERIES = {"dress": 3817, "shirt": 6346, "toptee": 5373}
QUERIES = {"dress": 2017, "shirt": 2038, "toptee": 1961}
"""As in Fashion-IQ's validation split, with its original galleries."""

WIDTH = 32
BLUR, SIGHT = 0.17, 0.19
"""Noise of a coordinate, of stage 1's embedding and of stage 2's: a point is of unit length."""

COLOURS = ("red", "navy", "black", "white", "green", "mustard", "pale pink")
CHANGES = (
    "is {colour}",
    "is not {colour}",
    "has longer sleeves",
    "has no sleeves and is {colour}",
    "is more casual, without a print, and a lot shorter than this one",
    "is the same, but {colour} with thin straps",
)
"""Of different lengths, some negated."""


def write_large_run(
    store: Path,
    *,
    pictures: Path | None = None,
    k: int = 100,
    galleries: Mapping[str, int] = GALLERIES,
    queries: Mapping[str, int] = QUERIES,
    seed: int = 0,
) -> Evaluated:
    """A published run; ``pictures`` is a folder to be filled with a small JPEG an image, but for
    those that are there; without it no image has a file. Half a minute at full size, one more with
    pictures."""
    rng, home = np.random.default_rng(seed), LocalStore(store)
    members = {
        name: np.array([f"{name}-{row:05d}" for row in range(count)])
        for name, count in galleries.items()
    }
    points = {name: _unit(rng.standard_normal((len(ids), WIDTH))) for name, ids in members.items()}
    asked, wanted = _queries(rng, members, points, queries)
    ingested = Ingested(home, _write_ingested(home, members, asked, pictures))
    none = schemas.PROBLEMS.empty_table()
    images = np.concatenate([*members.values()])
    every_point = np.concatenate([*points.values()])
    embeddings = pa.table(
        [images, _vectors(_blurred(rng, every_point, BLUR))],
        schemas.of_width(schemas.EMBEDDINGS, WIDTH),
    )
    encoded = _write(
        home,
        Identity("encode", 0, {}, {"ingest": ingested.fingerprint, "model": _sha256("stage 1")}),
        {"embeddings": embeddings, "problems": none},
    )
    fused = _write(
        home,
        Identity("fuse", 0, {}, {"ingest": ingested.fingerprint}),
        {"queries": _fused(rng, asked, wanted), "unfused": none},
    )
    found = made(
        Retrieve(home, ingested, Encoded(home, encoded), Fused(home, fused), k, IndexChoice())
    ).made
    scored = _write_scores(rng, home, found, images, every_point, asked, wanted)
    ranked = made(Rank(home, ingested, found, scored)).made
    evaluated = made(Evaluate(home, ingested, Encoded(home, encoded), found, ranked, k)).made
    make_output(Publish(evaluated))
    return evaluated


def _queries(
    rng: np.random.Generator,
    members: Mapping[str, np.ndarray],
    points: Mapping[str, np.ndarray],
    counts: Mapping[str, int],
) -> tuple[pa.Table, np.ndarray]:
    """What is asked, and the point that each query means. References resemble their targets."""
    rows, wanted = [], []
    for category, count in counts.items():
        ids, at = members[category], points[category]
        for number in range(count):
            target = rng.integers(len(ids))
            near = rng.integers(len(ids), size=8)
            near = near[near != target]
            reference = near[np.argmax(at[near] @ at[target])]
            rows.append(
                {
                    "query_id": f"{category}-{number:06d}",
                    "category": category,
                    "reference_id": ids[reference],
                    "text": rng.choice(CHANGES).format(colour=rng.choice(COLOURS)),
                    "targets": [ids[target]],
                }
            )
            wanted.append(at[target] + 0.3 * at[reference])
    return pa.Table.from_pylist(rows, schemas.QUERIES), _unit(np.array(wanted))


def _write_ingested(
    store: LocalStore, members: Mapping[str, np.ndarray], asked: pa.Table, pictures: Path | None
) -> str:
    names = [*members]
    images = np.concatenate([*members.values()])
    gallery = pa.table(
        [
            np.repeat(names, [len(ids) for ids in members.values()]),
            np.concatenate([np.arange(len(ids)) for ids in members.values()]).astype(np.int32),
            images,
        ],
        schemas.GALLERY,
    )
    files = [
        {"image_id": name, "path": f"{name}.jpg", "sha256": sha256, "width": 96, "height": 128}
        for name, sha256 in zip(images, map(_sha256, images), strict=True)
    ]
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(files):
            one["sha256"] = _draw(pictures / one["path"], number)
    settings = {
        "dataset": "fiq",
        "split": "val",
        "categories": names,
        "protocol": "fiq-original-kept",
    }
    return _write(
        store,
        Identity("ingest", 0, settings, {}),
        {
            "queries": asked,
            "gallery": gallery,
            "categories": pa.table([names, names], schema=schemas.CATEGORIES),
            "images": pa.Table.from_pylist(files, schemas.IMAGES),
            "problems": schemas.PROBLEMS.empty_table(),
        },
    )


def _draw(path: Path, number: int) -> str:
    """A small picture of its own, unless there is one; the sha256 of its file."""
    if path.exists():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    rng = np.random.default_rng(number)
    coarse = rng.integers(255, size=(8, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((96, 128), Image.Resampling.BICUBIC).save(path, quality=80)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fused(rng: np.random.Generator, asked: pa.Table, wanted: np.ndarray) -> pa.Table:
    """Embeddings of the queries; there is no z_t, as of models that leave none."""
    count = asked.num_rows
    lengths = [len(text.split()) + 2 for text in asked["text"].to_pylist()]
    return pa.table(
        [
            asked["query_id"],
            _vectors(_blurred(rng, wanted, BLUR)),
            np.arange(count),
            pa.array([list(range(length)) for length in lengths], pa.list_(pa.int32())),
            np.array(lengths, np.int32),
            [b""] * count,
        ],
        schemas.of_width(schemas.FUSED_QUERIES, WIDTH),
    )


def _write_scores(
    rng: np.random.Generator,
    store: LocalStore,
    found: Retrieved,
    images: np.ndarray,
    points: np.ndarray,
    asked: pa.Table,
    wanted: np.ndarray,
) -> Scored:
    """Stage 2's, of the points that it sees more sharply, spread as logits are."""
    candidates = found.read("candidates")
    query = rows_of(candidates["query_id"], asked["query_id"])
    image = rows_of(candidates["image_id"], pa.chunked_array([pa.array(images)]))
    seen, meant = _blurred(rng, points, SIGHT), _blurred(rng, wanted, SIGHT)
    score = 12 * np.einsum("ij,ij->i", meant[query], seen[image]) - 4
    columns = [candidates["query_id"], candidates["image_id"], score.astype(np.float32)]
    inputs = {"retrieve": found.fingerprint, "model": _sha256("stage 2")}
    identity = Identity("rerank", 0, {"prior": 0.0, "precision": "fp32"}, inputs)
    return Scored(store, _write(store, identity, {"scores": pa.table(columns, schemas.SCORES)}))


def _write(store: LocalStore, identity: Identity, tables: Mapping[str, pa.Table]) -> str:
    artifact = Artifact.of(store, identity)
    if not artifact.is_done:
        for name, table in tables.items():
            artifact.write_part(name, table)
        artifact.finish(identity, tables)
    return identity.fingerprint


def _unit(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _blurred(rng: np.random.Generator, points: np.ndarray, noise: float) -> np.ndarray:
    return _unit(points + noise * rng.standard_normal(points.shape))


def _vectors(points: np.ndarray) -> pa.Array:
    return vector_column(points.astype(np.float32))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
