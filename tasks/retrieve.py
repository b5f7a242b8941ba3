"""Stage 1's candidates: K per query from its gallery, and all members of its subset."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.metrics.protocols import PROTOCOLS
from cir_core.ordering import best_first
from cir_core.retrieval.exact import Retrieved, search, similarity
from cir_core.types import Pool
from storage import schemas
from storage.artifacts import Artifact, Identity, Made
from storage.tables import vectors_of

VERSION = 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Vectors:
    """Embeddings with their ids' rows."""

    matrix: np.ndarray
    row: dict[str, int]


@dataclass(frozen=True)
class _Columns:
    """Growing columns of the two tables."""

    candidates: dict[str, list[Any]]
    targets: dict[str, list[Any]]


def retrieve(store: Path, ingested: str, gallery: str, queries: str, *, k: int) -> Made:
    """The artifact ``retrieve``: parts candidates-<number> and targets-<number>, one of each per
    category; a category's own name may be no file's.

    Whether a query's own reference may be a candidate is the protocol's choice. A gallery with
    fewer than ``k`` other images gives all it has, and a log line says so. Queries whose reference
    could not be encoded have no candidates.
    """
    source = Artifact(store, "ingest", ingested)
    settings = source.identity()["settings"]
    protocol = PROTOCOLS[settings["protocol"]]
    identity = Identity(
        stage="retrieve",
        version=VERSION,
        settings={"k": k, "removes_reference": protocol.removes_reference},
        inputs={"ingest": ingested, "encode": gallery, "fuse": queries},
    )
    artifact = Artifact.of(store, identity)
    if artifact.is_done:
        return Made(identity.fingerprint, reused=True)
    images = _vectors(Artifact(store, "encode", gallery).read("embeddings"), "image_id")
    asked = _vectors(Artifact(store, "fuse", queries).read("queries"), "query_id")
    members, records = source.read("gallery"), source.read("queries").to_pylist()
    names = []
    for number, category in enumerate(settings["categories"]):
        mine = members.filter(pc.equal(members["category"], category))
        ids = [image for image in mine["image_id"].to_pylist() if image in images.row]
        own = [query for query in records if query["category"] == category]
        usable = [query for query in own if query["query_id"] in asked.row]
        most = len(ids) - protocol.removes_reference
        if k > most:
            _log.warning("K=%d is larger than the gallery %s: %d images", k, category, most)
        columns = _retrieve_category(
            ids, usable, images, asked, k=k, removes_reference=protocol.removes_reference
        )
        candidates, targets = f"candidates-{number:05d}", f"targets-{number:05d}"
        artifact.write_part(candidates, pa.table(columns.candidates, schemas.CANDIDATES))
        artifact.write_part(targets, pa.table(columns.targets, schemas.TARGET_RANKS))
        names += [candidates, targets]
    artifact.finish(identity, names)
    return Made(identity.fingerprint, reused=False)


def _retrieve_category(
    ids: list[str],
    queries: list[dict[str, Any]],
    images: _Vectors,
    asked: _Vectors,
    *,
    k: int,
    removes_reference: bool,
) -> _Columns:
    position = {image: row for row, image in enumerate(ids)}
    targets = [
        [image for image in query["targets"] or () if image in position] for query in queries
    ]
    found = search(
        asked.matrix[[asked.row[query["query_id"]] for query in queries]],
        images.matrix[[images.row[image] for image in ids]],
        k=k,
        removed=[
            position.get(query["reference_id"]) if removes_reference else None for query in queries
        ],
        targets=[tuple(position[image] for image in known) for known in targets],
    )
    columns = _Columns(
        candidates={name: [] for name in schemas.CANDIDATES.names},
        targets={name: [] for name in schemas.TARGET_RANKS.names},
    )
    for query, known, retrieved in zip(queries, targets, found, strict=True):
        _add(columns, query["query_id"], "gallery", [ids[row] for row in retrieved.rows], retrieved)
        if query["subset"]:
            members, ranked = _rank_subset(query, images, asked, position)
            _add(columns, query["query_id"], "subset", members, ranked)
        columns.targets["query_id"] += [query["query_id"]] * len(known)
        columns.targets["image_id"] += known
        columns.targets["stage1_rank"] += retrieved.target_ranks
    return columns


def _rank_subset(
    query: dict[str, Any], images: _Vectors, asked: _Vectors, position: dict[str, int]
) -> tuple[list[str], Retrieved]:
    """The usable members of a query's subset, best first (ties: gallery order)."""
    members = [image for image in query["subset"] if image in position]
    vector = asked.matrix[[asked.row[query["query_id"]]]]
    scores = similarity(vector, images.matrix[[images.row[image] for image in members]])[0]
    order = best_first(scores, np.array([position[image] for image in members], dtype=np.int64))
    return [members[row] for row in order], Retrieved(order, scores[order], ())


def _add(
    columns: _Columns, query_id: str, pool: Pool, images: list[str], retrieved: Retrieved
) -> None:
    count = len(images)
    columns.candidates["query_id"] += [query_id] * count
    columns.candidates["pool"] += [pool] * count
    columns.candidates["image_id"] += images
    columns.candidates["stage1_rank"] += range(1, count + 1)
    columns.candidates["stage1_score"] += retrieved.scores.tolist()


def _vectors(table: pa.Table, key: str) -> _Vectors:
    ids: Iterator[str] = iter(table[key].to_pylist())
    return _Vectors(vectors_of(table["embedding"]), {name: row for row, name in enumerate(ids)})
