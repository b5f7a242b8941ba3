"""Stage 2: score every candidate pair, gallery shard by gallery shard."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from cir_core.models.reranker import with_prior
from cir_core.models.vision import VisionTransformer
from cir_core.rerank.engine import RerankEngine
from cir_core.rerank.packing import FusedQueries
from cir_core.rerank.scorer import Scorer
from cir_core.types import Keeping, Precision
from storage import schemas
from storage.artifacts import Artifact, Identity, Made
from tasks.image_tokens import Pictures, Seen
from tasks.kept_tokens import see_images
from tasks.models import open_stage2
from tasks.progress import count, shard_name, shards

VERSION = 5
SHARD = 256
"""Gallery images per part, as in encoding."""


@dataclass(frozen=True)
class _Pairs:
    """Distinct (fused query, image) pairs as rows into those and into the ingested images, and
    stage 1's cosine of each."""

    query: np.ndarray
    image: np.ndarray
    cosine: np.ndarray

    def of_images(self, rows: range) -> "_Pairs":
        mine = (self.image >= rows.start) & (self.image < rows.stop)
        return _Pairs(self.query[mine], self.image[mine], self.cosine[mine])


@dataclass(frozen=True)
class _Fused:
    """The fused queries and their ids, row by row."""

    queries: FusedQueries
    ids: pa.Array


def rerank(
    store: Path,
    data_root: Path,
    ingested: str,
    queries: str,
    candidates: str,
    pair: str,
    stage2: Path,
    *,
    device: str,
    batch: int,
    workers: int,
    tokens: Keeping,
    memory: int | None,
    precision: Precision,
) -> Made:
    """The artifact ``rerank``: parts scores-<shard>, one per gallery shard.

    Every candidate is scored, whether or not its query's target is among them; a pair that is in
    both pools is scored once. A score is final: stage 2's prior, if it has one, is part of it.
    Stage 2 must hold stage 1's visual encoder (``check_pair``). ``memory`` bounds the bytes that
    scoring takes beside models and image tokens. Raises CheckpointRefused for an unusable stage 2,
    NonFiniteError for a score that is not finite, PreflightError when memory is too small.
    """
    identity = identify(store, ingested, queries, candidates, pair, precision=precision)
    artifact = Artifact.of(store, identity)
    if artifact.is_done:
        return Made(identity.fingerprint, reused=True)
    pictures = Pictures(store, data_root, ingested, batch, workers)
    ids, fused, pairs = _read_pairs(store, pictures, queries, candidates)
    vision, scorer = _open(stage2, fused.queries, torch.device(device), memory, precision)
    shares = {rows: pairs.of_images(rows) for rows in shards(len(ids), SHARD)}
    plans = {
        rows: pictures.plan(np.unique(shares[rows].image).tolist())
        for rows in shards_left(len(ids), artifact)
    }
    plan = list(chain.from_iterable(plans.values()))
    with (
        see_images(pictures, vision, plan, tokens=tokens) as images,
        count("re-ranking", len(pairs.query), "pairs") as counter,
    ):
        for rows, mine in shares.items():
            if rows in plans:
                seen = islice(images, len(plans[rows]))
                scores = _score_shard(scorer, seen, mine)
                scores = with_prior(scores, mine.cosine, identity.settings["prior"])
                artifact.write_part(_part(rows), _scores_table(mine, fused, ids, scores))
            counter.update(len(mine.query))
    artifact.finish(identity, map(_part, shares))
    return Made(identity.fingerprint, reused=False)


def identify(
    store: Path, ingested: str, queries: str, candidates: str, pair: str, *, precision: Precision
) -> Identity:
    """What names the artifact ``rerank``."""
    checked = Artifact(store, "pair", pair).identity()
    return Identity(
        stage="rerank",
        version=VERSION,
        settings={"precision": precision, "prior": checked["settings"]["prior"]},
        inputs={
            "retrieve": candidates,
            "fuse": queries,
            "ingest": ingested,
            "model": checked["inputs"]["stage2"],
        },
    )


def shards_left(images: int, artifact: Artifact) -> list[range]:
    """The rows of the ingested images whose pairs have yet to be scored."""
    return [rows for rows in shards(images, SHARD) if not artifact.has_part(_part(rows))]


def _part(rows: range) -> str:
    return f"scores-{shard_name(rows)}"


def _scores_table(pairs: _Pairs, fused: _Fused, ids: pa.Array, scores: np.ndarray) -> pa.Table:
    """A row per query and image; over both ways of asking, where there are two, the mean."""
    table = pa.table(
        {
            "query_id": fused.ids.take(pa.array(pairs.query)),
            "image_id": ids.take(pa.array(pairs.image)),
            "stage2_score": scores.astype(np.float64),
        }
    )
    mean = table.group_by(["query_id", "image_id"], use_threads=False).aggregate(
        [("stage2_score", "mean")]
    )
    return mean.rename_columns(schemas.SCORES.names).cast(schemas.SCORES)


def _read_pairs(
    store: Path, pictures: Pictures, queries: str, candidates: str
) -> tuple[pa.Array, _Fused, _Pairs]:
    ids = pictures.table()["image_id"].combine_chunks()
    fused = _read_fused(Artifact(store, "fuse", queries).read("queries"))
    table = Artifact(store, "retrieve", candidates).read("candidates")
    distinct = table.group_by(["query_id", "image_id"], use_threads=False).aggregate(
        [("stage1_score", "first")]
    )
    asked = pa.table({"query_id": fused.ids, "query": np.arange(len(fused.ids))})
    joined = distinct.append_column("image", pc.index_in(distinct["image_id"], ids)).join(
        asked, "query_id", join_type="inner", use_threads=False
    )
    columns = ("query", "image", "stage1_score_first")
    return ids, fused, _Pairs(*(joined[column].to_numpy() for column in columns))


def _read_fused(table: pa.Table) -> _Fused:
    token_ids = table["token_ids"].to_pylist()
    z_t = [
        np.frombuffer(state.as_buffer(), dtype="<f4").reshape(length, -1)
        for state, length in zip(table["z_t"], table["length"].to_pylist(), strict=True)
    ]
    return _Fused(FusedQueries.of(z_t, token_ids), table["query_id"].combine_chunks())


def _open(
    stage2: Path,
    queries: FusedQueries,
    device: torch.device,
    memory: int | None,
    precision: Precision,
) -> tuple[VisionTransformer, Scorer]:
    """Both halves of stage 2; the engine has its own copy of the dual encoder, so the model's does
    not stay."""
    model = open_stage2(stage2)
    engine = RerankEngine(model, queries, device=device, memory=memory, precision=precision)
    return model.vision.to(device), engine


@torch.inference_mode()
def _score_shard(scorer: Scorer, images: Iterable[Seen], pairs: _Pairs) -> np.ndarray:
    """Scores of one shard's pairs; image tokens are in memory for a batch of images at a time."""
    scores = np.empty(len(pairs.query), dtype=np.float32)
    for seen in images:
        for problem in seen.problems.values():
            raise problem  # it was decoded once already, when it was encoded
        mine = np.flatnonzero((pairs.image >= seen.rows[0]) & (pairs.image <= seen.rows[-1]))
        scores[mine] = scorer.score(
            seen.tokens, pairs.query[mine], np.searchsorted(seen.rows, pairs.image[mine])
        )
    return scores
