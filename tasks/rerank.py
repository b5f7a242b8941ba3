"""Stage 2: score every candidate pair, gallery shard by gallery shard."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from cir_core.images import normalise
from cir_core.models.reranker import Stage2Model
from cir_core.rerank.engine import FusedQueries, score_pairs
from storage import schemas
from storage.artifacts import Artifact, Identity, Made
from storage.checkpoints import weights_sha256
from tasks.models import open_stage2
from tasks.pixels import ImageFile, load_pixels
from tasks.progress import count, shards

VERSION = 1
SHARD = 256
"""Gallery images per part, as in encoding."""


@dataclass(frozen=True)
class _Pairs:
    """Distinct (query, image) pairs as rows into the queries and the ingested images."""

    query: np.ndarray
    image: np.ndarray


def rerank(
    store: Path,
    data_root: Path,
    ingested: str,
    queries: str,
    candidates: str,
    stage2: Path,
    *,
    device: str,
    batch: int,
) -> Made:
    """The artifact ``rerank``: parts scores-<shard>, one per gallery shard.

    Every candidate is scored, whether or not its query's target is among them; a pair that is in
    both pools is scored once. Stage 2 must hold stage 1's visual encoder (``check_pair``). Raises
    CheckpointRefused for an unusable stage 2, NonFiniteError for a score that is not finite.
    """
    identity = Identity(
        stage="rerank",
        version=VERSION,
        settings={},
        inputs={
            "retrieve": candidates,
            "fuse": queries,
            "ingest": ingested,
            "weights": weights_sha256(stage2),
        },
    )
    artifact = Artifact.of(store, identity)
    if artifact.is_done:
        return Made(identity.fingerprint, reused=True)
    model = open_stage2(stage2)
    files, fused, pairs = _read_pairs(store, ingested, queries, candidates)
    query_ids = np.array(list(fused.row), dtype=object)
    names = []
    with count("re-ranking", len(pairs.query), "pairs") as counter:
        for rows in shards(len(files), SHARD):
            mine = np.flatnonzero((pairs.image >= rows.start) & (pairs.image < rows.stop))
            name = f"scores-{rows.start:07d}-{rows.stop:07d}"
            names.append(name)
            if not artifact.has_part(name):
                shard = _Pairs(pairs.query[mine], pairs.image[mine])
                scores = _score_shard(
                    model.to(device),
                    data_root,
                    files,
                    fused.queries,
                    shard,
                    device=device,
                    batch=batch,
                )
                ids = [files[row].image_id for row in shard.image]
                table = pa.table([query_ids[shard.query], ids, scores], schema=schemas.SCORES)
                artifact.write_part(name, table)
            counter.update(len(mine))
    artifact.finish(identity, names)
    return Made(identity.fingerprint, reused=False)


@dataclass(frozen=True)
class _Fused:
    queries: FusedQueries
    row: dict[str, int]


def _read_pairs(
    store: Path, ingested: str, queries: str, candidates: str
) -> tuple[list[ImageFile], _Fused, _Pairs]:
    images = Artifact(store, "ingest", ingested).read("images")
    files = [
        ImageFile(row["image_id"], row["path"], row["sha256"])
        for row in images.select(["image_id", "path", "sha256"]).to_pylist()
    ]
    fused = _read_fused(Artifact(store, "fuse", queries).read("queries"))
    table = Artifact(store, "retrieve", candidates).read("candidates")
    distinct = table.group_by(["query_id", "image_id"], use_threads=False).aggregate([])
    image_row = {file.image_id: row for row, file in enumerate(files)}
    pairs = _Pairs(
        query=np.array([fused.row[query] for query in distinct["query_id"].to_pylist()], dtype=int),
        image=np.array([image_row[image] for image in distinct["image_id"].to_pylist()], dtype=int),
    )
    return files, fused, pairs


def _read_fused(table: pa.Table) -> _Fused:
    token_ids = table["token_ids"].to_pylist()
    z_t = [
        np.frombuffer(state.as_buffer(), dtype="<f4").reshape(length, -1)
        for state, length in zip(table["z_t"], table["length"].to_pylist(), strict=True)
    ]
    ids = table["query_id"].to_pylist()
    return _Fused(FusedQueries(z_t, token_ids), {query: row for row, query in enumerate(ids)})


@torch.inference_mode()
def _score_shard(
    model: Stage2Model,
    root: Path,
    files: list[ImageFile],
    queries: FusedQueries,
    pairs: _Pairs,
    *,
    device: str,
    batch: int,
) -> np.ndarray:
    """Scores of one shard's pairs; image tokens are in memory for ``batch`` images at a time."""
    scores = np.empty(len(pairs.query), dtype=np.float32)
    images = np.unique(pairs.image)
    for start in range(0, len(images), batch):
        chosen = images[start : start + batch]
        asked = [files[row] for row in chosen]
        loaded = load_pixels(root, asked, model.config.vision.image_size)
        for problem in loaded.problems.values():
            raise problem  # it was decoded once already, when it was encoded
        image_tokens = model.vision(normalise(loaded.pixels.to(device)))
        mine = np.flatnonzero((pairs.image >= chosen[0]) & (pairs.image <= chosen[-1]))
        scores[mine] = score_pairs(
            model,
            image_tokens,
            queries,
            pairs.query[mine],
            np.searchsorted(chosen, pairs.image[mine]),
        )
    return scores
