"""One pass over the images: gallery embeddings, and z_t of every query whose reference it meets.

Encoding and fusing share the pass because the image tokens that a query's fusion needs are in hand
when its reference is encoded; they are far too large to keep.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cir_core.images import TARGET_RATIO
from cir_core.models.fusion import Stage1Model
from cir_core.models.tokenizer import pad_tokens
from cir_core.ordering import require_finite
from cir_core.types import Keeping
from storage import schemas
from storage.artifacts import Artifact, Identity, Made
from storage.tables import vector_column
from tasks.image_tokens import Pictures, Seen
from tasks.kept_tokens import see_images
from tasks.models import open_stage1
from tasks.progress import count, shard_name, shards
from tasks.questions import Questions, read_questions

VERSION = 4
SHARD = 256
"""Pictures per part: the unit of commit and of loss when a run is killed."""

GALLERY_PARTS, QUERY_PARTS = ("embeddings", "problems"), ("queries", "unfused")


class _Asked(NamedTuple):
    """A text of a question; ``place`` is its reference's in the batch of images."""

    place: int
    question: int
    token_ids: list[int]


@dataclass(frozen=True)
class Encoded:
    """``gallery`` holds embeddings of all images, ``queries`` embeddings and z_t."""

    gallery: Made
    queries: Made


def encode(
    store: Path,
    data_root: Path,
    ingested: str,
    pair: str,
    stage1: Path,
    *,
    device: str,
    batch: int,
    workers: int,
    tokens: Keeping,
) -> Encoded:
    """The artifacts ``encode`` (parts embeddings-*, problems-*) and ``fuse`` (parts queries-*, and
    unfused-* for the queries whose reference cannot be decoded, or whose text is too long).

    Shards that an interrupted run has committed are kept. Raises as ``open_stage1`` for a model
    other than the one that was checked, and as ``see_images``.
    """
    source = Artifact(store, "ingest", ingested)
    embed_identity, fuse_identity = identities(store, ingested, pair)
    embedded, fused = Artifact.of(store, embed_identity), Artifact.of(store, fuse_identity)
    gallery_done, queries_done = embedded.is_done, fused.is_done
    pictures = Pictures(store, data_root, ingested, batch, workers)
    if not (gallery_done and queries_done):
        _encode_shards(
            pictures,
            source.read("queries"),
            None if gallery_done else embedded,
            None if queries_done else fused,
            open_stage1(stage1, sha256=embed_identity.inputs["model"]).to(device),
            tokens,
        )
    names = [shard_name(rows) for rows in shards(len(pictures.distinct), SHARD)]
    if not gallery_done:
        parts = [f"{kind}-{name}" for kind in GALLERY_PARTS for name in names]
        embedded.finish(embed_identity, parts)
    if not queries_done:
        parts = [f"{kind}-{name}" for kind in QUERY_PARTS for name in names]
        fused.finish(fuse_identity, parts)
    return Encoded(
        gallery=Made(embed_identity.fingerprint, gallery_done),
        queries=Made(fuse_identity.fingerprint, queries_done),
    )


def identities(store: Path, ingested: str, pair: str) -> tuple[Identity, Identity]:
    """What names the artifacts ``encode`` and ``fuse``."""
    model = Artifact(store, "pair", pair).identity()["inputs"]["stage1"]
    source = Artifact(store, "ingest", ingested).identity()["inputs"]
    settings, inputs = {"target_ratio": TARGET_RATIO}, {"images": source["images"], "model": model}
    return (
        Identity("encode", VERSION, settings, inputs),
        Identity("fuse", VERSION, settings, inputs | {"texts": source["texts"]}),
    )


def shards_left(pictures: int, embedded: Artifact | None, fused: Artifact | None) -> list[range]:
    """The rows that have yet to be seen for the artifacts that are not None, and not whole."""
    return [rows for rows in shards(pictures, SHARD) if _missing_parts(rows, embedded, fused)]


def _encode_shards(
    pictures: Pictures,
    asked: pa.Table,
    embedded: Artifact | None,
    fused: Artifact | None,
    model: Stage1Model,
    tokens: Keeping,
) -> None:
    """Write the parts that are missing; an artifact that is None is whole and not touched."""
    questions = read_questions(model.config.text, asked, pictures.distinct)
    ids = pictures.distinct.copies
    missing = {rows: _missing_parts(rows, embedded, fused) for rows in shards(len(ids), SHARD)}
    plans = {rows: pictures.plan(rows) for rows, parts in missing.items() if parts}
    plan = list(chain.from_iterable(plans.values()))
    with (
        see_images(pictures, model.vision, plan, tokens=tokens) as images,
        count("encoding", len(ids), "pictures") as counter,
    ):
        for rows, parts in missing.items():
            if parts:
                mine = islice(images, len(plans[rows]))
                tables = _encode_shard(model, mine, ids, questions, pictures.batch)
                for kind, artifact in parts.items():
                    artifact.write_part(f"{kind}-{shard_name(rows)}", tables[kind])
            counter.update(len(rows))


def _missing_parts(
    rows: range, embedded: Artifact | None, fused: Artifact | None
) -> dict[str, Artifact]:
    """The kinds of parts that this shard lacks, and where they go."""
    owners = dict.fromkeys(GALLERY_PARTS, embedded) | dict.fromkeys(QUERY_PARTS, fused)
    return {
        kind: artifact
        for kind, artifact in owners.items()
        if artifact is not None and not artifact.has_part(f"{kind}-{shard_name(rows)}")
    }


def _encode_shard(
    model: Stage1Model,
    images: Iterable[Seen],
    ids: list[list[str]],
    questions: Questions,
    batch: int,
) -> dict[str, pa.Table]:
    """The shard's tables by kind of part: what holds for a picture holds for each of its images,
    what holds for a question for each of its queries."""
    gallery: list[pa.Table] = []
    fusions: list[dict[str, Any]] = []
    problems: list[dict[str, str]] = []
    unfused: list[dict[str, str]] = []
    for seen in images:
        for row in sorted([*seen.rows, *seen.problems]):
            unfused += questions.too_long.get(row, [])
        for row, problem in seen.problems.items():
            problems += [problem.row(one) for one in ids[row]]
            unfused += [
                _unfused(query, ids[row][0])
                for question in questions.of_picture(row)
                for query in questions.query_ids[question]
            ]
        if seen.rows:
            gallery.append(_embed(model, [ids[row] for row in seen.rows], seen.tokens))
            fusions += _fuse_batch(model, seen, questions, batch)
    width = model.config.embedding
    schema = schemas.embeddings(width)
    return {
        "embeddings": pa.concat_tables(gallery) if gallery else schema.empty_table(),
        "problems": pa.Table.from_pylist(problems, schemas.PROBLEMS),
        "queries": pa.Table.from_pylist(fusions, schemas.fused_queries(width)),
        "unfused": pa.Table.from_pylist(unfused, schemas.PROBLEMS),
    }


def _unfused(query_id: str, reference: str) -> dict[str, str]:
    return {
        "item": query_id,
        "kind": "reference_unusable",
        "message": f"{reference} cannot be decoded",
    }


@torch.inference_mode()
def _embed(model: Stage1Model, ids: list[list[str]], image_tokens: Tensor) -> pa.Table:
    """Each picture is embedded once, so that its images tie whatever the batch."""
    vectors = model.embed_images(image_tokens).float().cpu().numpy()
    require_finite(vectors, "gallery embeddings")
    each = vectors.repeat([len(copies) for copies in ids], axis=0)
    names = list(chain.from_iterable(ids))
    return pa.table([names, vector_column(each)], schema=schemas.embeddings(vectors.shape[1]))


@torch.inference_mode()
def _fuse_batch(
    model: Stage1Model, seen: Seen, questions: Questions, batch: int
) -> list[dict[str, Any]]:
    """The rows of all queries whose reference is in the batch; each question is fused once."""
    asked = [
        _Asked(place, question, token_ids)
        for place, row in enumerate(seen.rows)
        for question in questions.of_picture(row)
        for token_ids in questions.texts[question]
    ]
    asked.sort(key=lambda one: len(one.token_ids))  # similar lengths together: less padding
    fusions: list[dict[str, Any]] = []
    for start in range(0, len(asked), batch):
        fusions += _fuse(model, seen.tokens, asked[start : start + batch])
    return [
        {"query_id": query, **fusion}
        for fusion in _averaged(fusions)
        for query in questions.query_ids[fusion["question"]]
    ]


def _averaged(fusions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a question that is asked both ways share one embedding: their mean, of unit
    length. All rows of a question are here, since they have the same reference."""
    vectors: dict[int, list[np.ndarray]] = defaultdict(list)
    for row in fusions:
        vectors[row["question"]].append(row["embedding"])
    means = {name: np.mean(both, axis=0) for name, both in vectors.items() if len(both) > 1}
    unit = {name: mean / np.linalg.norm(mean) for name, mean in means.items()}
    return [row | {"embedding": unit.get(row["question"], row["embedding"])} for row in fusions]


def _fuse(model: Stage1Model, image_tokens: Tensor, asked: list[_Asked]) -> list[dict[str, Any]]:
    texts = pad_tokens([one.token_ids for one in asked])
    device = image_tokens.device
    references = image_tokens[[one.place for one in asked]]
    z_t = model.fuse(texts.ids.to(device), texts.lengths.to(device), references)
    vectors = model.embed_queries(z_t).float().cpu().numpy()
    require_finite(vectors, "query embeddings")
    hidden = z_t.float().cpu().numpy()
    return [
        {
            "question": one.question,
            "embedding": vector,
            "token_ids": one.token_ids,
            "length": len(one.token_ids),
            "z_t": np.ascontiguousarray(state[: len(one.token_ids)], dtype="<f4").tobytes(),
        }
        for one, vector, state in zip(asked, vectors, hidden, strict=True)
    ]
