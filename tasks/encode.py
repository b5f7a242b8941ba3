"""One pass over the images: gallery embeddings, and z_t of every query whose reference it meets.

Encoding and fusing share the pass because the image tokens that a query's fusion needs are in hand
when its reference is encoded; they are far too large to keep.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

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
from tasks.models import open_stage1, tokenize
from tasks.progress import count, shard_name, shards

VERSION = 3
SHARD = 256
"""Images per part: the unit of commit and of loss when a run is killed."""

GALLERY_PARTS, QUERY_PARTS = ("embeddings", "problems"), ("queries", "unfused")


@dataclass(frozen=True)
class Encoded:
    """``gallery`` holds embeddings of all images, ``queries`` embeddings and z_t."""

    gallery: Made
    queries: Made


@dataclass(frozen=True)
class _Query:
    query_id: str
    token_ids: list[int]


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
    unfused-* for the queries whose reference cannot be decoded).

    Shards that an interrupted run has committed are kept. Raises CheckpointRefused for an unusable
    model, PreflightError for a text that is too long, and as ``see_images``.
    """
    source = Artifact(store, "ingest", ingested)
    embed_identity, fuse_identity = identities(store, ingested, pair)
    embedded, fused = Artifact.of(store, embed_identity), Artifact.of(store, fuse_identity)
    gallery_done, queries_done = embedded.is_done, fused.is_done
    if not (gallery_done and queries_done):
        _encode_shards(
            Pictures(store, data_root, ingested, batch, workers),
            source.read("queries"),
            None if gallery_done else embedded,
            None if queries_done else fused,
            open_stage1(stage1).to(device),
            tokens,
        )
    names = [shard_name(rows) for rows in shards(source.read("images").num_rows, SHARD)]
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


def shards_left(images: int, embedded: Artifact | None, fused: Artifact | None) -> list[range]:
    """The rows that have yet to be seen for the artifacts that are not None, and not whole."""
    return [rows for rows in shards(images, SHARD) if _missing_parts(rows, embedded, fused)]


def _encode_shards(
    pictures: Pictures,
    asked: pa.Table,
    embedded: Artifact | None,
    fused: Artifact | None,
    model: Stage1Model,
    tokens: Keeping,
) -> None:
    """Write the parts that are missing; an artifact that is None is whole and not touched."""
    queries = _queries_by_reference(model, asked)
    ids = pictures.table()["image_id"].to_pylist()
    missing = {rows: _missing_parts(rows, embedded, fused) for rows in shards(len(ids), SHARD)}
    plans = {rows: pictures.plan(rows) for rows, parts in missing.items() if parts}
    plan = list(chain.from_iterable(plans.values()))
    with (
        see_images(pictures, model.vision, plan, tokens=tokens) as images,
        count("encoding", len(ids), "images") as counter,
    ):
        for rows, parts in missing.items():
            if parts:
                mine = islice(images, len(plans[rows]))
                tables = _encode_shard(model, mine, ids, queries, pictures.batch)
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
    ids: list[str],
    queries: dict[str, list[_Query]],
    batch: int,
) -> dict[str, pa.Table]:
    """The shard's tables by kind of part."""
    gallery: list[pa.Table] = []
    fusions: list[dict[str, Any]] = []
    problems: list[dict[str, str]] = []
    unfused: list[dict[str, str]] = []
    for seen in images:
        for row, problem in seen.problems.items():
            problems.append(problem.row(ids[row]))
            names = dict.fromkeys(query.query_id for query in queries.get(ids[row], ()))
            unfused += [_unfused(name, ids[row]) for name in names]
        if seen.rows:
            usable = [ids[row] for row in seen.rows]
            table, rows = _encode_batch(model, usable, seen.tokens, queries, batch)
            gallery.append(table)
            fusions += rows
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
def _encode_batch(
    model: Stage1Model,
    ids: list[str],
    image_tokens: Tensor,
    queries: dict[str, list[_Query]],
    batch: int,
) -> tuple[pa.Table, list[dict[str, Any]]]:
    vectors = model.embed_images(image_tokens).float().cpu().numpy()
    require_finite(vectors, "gallery embeddings")
    table = pa.table([ids, vector_column(vectors)], schema=schemas.embeddings(vectors.shape[1]))
    asked = [(row, query) for row, image in enumerate(ids) for query in queries.get(image, ())]
    asked.sort(key=lambda item: len(item[1].token_ids))  # similar lengths together: less padding
    fusions: list[dict[str, Any]] = []
    for start in range(0, len(asked), batch):
        fusions += _fuse(model, image_tokens, asked[start : start + batch])
    return table, _averaged(fusions)


def _averaged(fusions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a query that is asked both ways share one embedding: their mean, of unit
    length. All rows of a query are here, since they have the same reference."""
    vectors: dict[str, list[np.ndarray]] = defaultdict(list)
    for row in fusions:
        vectors[row["query_id"]].append(row["embedding"])
    means = {name: np.mean(both, axis=0) for name, both in vectors.items() if len(both) > 1}
    unit = {name: mean / np.linalg.norm(mean) for name, mean in means.items()}
    return [row | {"embedding": unit.get(row["query_id"], row["embedding"])} for row in fusions]


def _fuse(
    model: Stage1Model, image_tokens: Tensor, asked: list[tuple[int, _Query]]
) -> list[dict[str, Any]]:
    texts = pad_tokens([query.token_ids for _, query in asked])
    device = image_tokens.device
    references = image_tokens[[row for row, _ in asked]]
    z_t = model.fuse(texts.ids.to(device), texts.lengths.to(device), references)
    vectors = model.embed_queries(z_t).float().cpu().numpy()
    require_finite(vectors, "query embeddings")
    hidden = z_t.float().cpu().numpy()
    return [
        {
            "query_id": query.query_id,
            "embedding": vector,
            "token_ids": query.token_ids,
            "length": len(query.token_ids),
            "z_t": np.ascontiguousarray(state[: len(query.token_ids)], dtype="<f4").tobytes(),
        }
        for (_, query), vector, state in zip(asked, vectors, hidden, strict=True)
    ]


def _queries_by_reference(model: Stage1Model, queries: pa.Table) -> dict[str, list[_Query]]:
    asked = [
        (row["query_id"], row["reference_id"], text)
        for row in queries.select(["query_id", "reference_id", "text", "other_text"]).to_pylist()
        for text in (row["text"], row["other_text"])
        if text is not None
    ]
    token_ids = tokenize(
        model.config.text, [query for query, _, _ in asked], [text for _, _, text in asked]
    )
    grouped: dict[str, list[_Query]] = defaultdict(list)
    for (query, reference, _), tokens in zip(asked, token_ids, strict=True):
        grouped[reference].append(_Query(query, tokens))
    return grouped
