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
from cir_core.rerank.packing import rows_of as tokens_at
from cir_core.rerank.scorer import Scorer
from cir_core.types import Keeping, Precision
from storage import schemas
from storage.artifacts import Artifact, Identity, Made
from storage.tables import rows_of
from tasks.image_tokens import Pictures, Seen
from tasks.kept_tokens import see_images
from tasks.models import open_stage2
from tasks.pictures import Distinct
from tasks.progress import count, shard_name, shards

VERSION = 6
SHARD = 256
"""Pictures per part, as in encoding."""


@dataclass(frozen=True)
class _Pairs:
    """What is scored, once: distinct pairs of a fused text and a picture, as rows into those, with
    the number of their question and picture together, which a second text shares."""

    text: np.ndarray
    picture: np.ndarray
    number: np.ndarray

    def of_pictures(self, rows: range) -> "_Pairs":
        mine = _within(self.picture, rows)
        return _Pairs(self.text[mine], self.picture[mine], self.number[mine])


@dataclass(frozen=True)
class _Rows:
    """What gets the scores: every candidate of a query, once, with the number that scores it, its
    picture, and stage 1's cosine."""

    table: pa.Table
    number: np.ndarray
    picture: np.ndarray
    cosine: np.ndarray


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
    both pools is scored once, and so are copies of an image and queries that ask the same: they tie
    exactly. A score is final: stage 2's prior, if it has one, is part of it.
    Stage 2 must hold stage 1's visual encoder (``check_pair``). ``memory`` bounds the bytes that
    scoring takes beside models and image tokens. Raises as ``open_stage2`` for a model other than
    the one that was checked, NonFiniteError for a score that is not finite, PreflightError when
    memory is too small.
    """
    identity = identify(store, ingested, queries, candidates, pair, precision=precision)
    artifact = Artifact.of(store, identity)
    if artifact.is_done:
        return Made(identity.fingerprint, reused=True)
    pictures = Pictures(store, data_root, ingested, batch, workers)
    source = Artifact(store, "fuse", queries)
    table = source.read("queries", columns=["query_id", "question", "token_ids", "length"])
    texts = _distinct_texts(table)
    fused = _read_fused(source, table, texts)
    opened = (stage2, identity.inputs["model"])
    vision, scorer = _open(*opened, fused, torch.device(device), memory, precision)
    found = Artifact(store, "retrieve", candidates).read("candidates")
    rows = _read_rows(found, table, pictures.distinct)
    questions = table["question"].to_numpy()[texts]
    pairs = _pairs_of(rows, questions, pictures=len(pictures.distinct))
    shares = {some: pairs.of_pictures(some) for some in shards(len(pictures.distinct), SHARD)}
    plans = {
        some: pictures.plan(np.unique(shares[some].picture).tolist())
        for some in shards_left(len(pictures.distinct), artifact)
    }
    plan = list(chain.from_iterable(plans.values()))
    with (
        see_images(pictures, vision, plan, tokens=tokens) as images,
        count("re-ranking", len(pairs.text), "pairs") as counter,
    ):
        for some, mine in shares.items():
            if some in plans:
                scores = _score_shard(scorer, islice(images, len(plans[some])), mine)
                scored = _scores_table(rows, some, mine, scores, identity.settings["prior"])
                artifact.write_part(_part(some), scored)
            counter.update(len(mine.text))
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


def shards_left(pictures: int, artifact: Artifact) -> list[range]:
    """The rows of the pictures whose pairs have yet to be scored."""
    return [rows for rows in shards(pictures, SHARD) if not artifact.has_part(_part(rows))]


def _part(rows: range) -> str:
    return f"scores-{shard_name(rows)}"


def _scores_table(
    rows: _Rows, shard: range, pairs: _Pairs, scores: np.ndarray, prior: float
) -> pa.Table:
    """A row per query and image; over both ways of asking, where there are two, the mean. Images
    that are copies, and queries that ask the same, read one score."""
    numbers, place = np.unique(pairs.number, return_inverse=True)
    mean = np.bincount(place, weights=scores) / np.bincount(place)
    mine = np.flatnonzero(_within(rows.picture, shard))
    each = mean[np.searchsorted(numbers, rows.number[mine])]
    final = with_prior(each, rows.cosine[mine], prior)
    table = rows.table.take(pa.array(mine)).append_column("stage2_score", pa.array(final))
    return table.cast(schemas.SCORES)


def _within(pictures: np.ndarray, rows: range) -> np.ndarray:
    inside: np.ndarray = (pictures >= rows.start) & (pictures < rows.stop)
    return inside


def _read_rows(candidates: pa.Table, fused: pa.Table, pictures: Distinct) -> _Rows:
    """A candidate of both pools is one row."""
    table = candidates.group_by(["query_id", "image_id"], use_threads=False).aggregate(
        [("stage1_score", "first")]
    )
    question = fused["question"].to_numpy()[rows_of(table["query_id"], fused["query_id"])]
    picture = pictures.of(table["image_id"])
    number = question * len(pictures) + picture
    cosine = table["stage1_score_first"].to_numpy()
    return _Rows(table.select(["query_id", "image_id"]), number, picture, cosine)


def _pairs_of(rows: _Rows, question_of_text: np.ndarray, *, pictures: int) -> _Pairs:
    """Each question and picture once for each of the question's texts."""
    numbers = np.unique(rows.number)
    question, picture = np.divmod(numbers, max(1, pictures))
    order = np.argsort(question_of_text, kind="stable")
    sorted_questions = question_of_text[order]
    starts = np.searchsorted(sorted_questions, question)
    texts = np.searchsorted(sorted_questions, question, side="right") - starts
    return _Pairs(
        text=order[tokens_at(starts, texts)],
        picture=np.repeat(picture, texts),
        number=np.repeat(numbers, texts),
    )


def _distinct_texts(fused: pa.Table) -> np.ndarray:
    """The rows of each question's first query."""
    first = rows_of(fused["question"], fused["question"])
    is_first = pc.equal(fused["query_id"], fused["query_id"].take(pa.array(first)))
    return np.flatnonzero(is_first.to_numpy())


def _read_fused(source: Artifact, table: pa.Table, texts: np.ndarray) -> FusedQueries:
    """z_t is most of it: beside the store's column, which is not kept, there is one copy."""
    lengths = table["length"].to_numpy()[texts].astype(np.int64)
    states = source.read("queries", columns=["z_t"])["z_t"]
    token_ids = table["token_ids"].take(pa.array(texts)).to_pylist()
    if not len(texts):
        return FusedQueries.of([], token_ids)
    first = np.frombuffer(states[int(texts[0])].as_buffer(), dtype="<f4")
    z_t = np.empty((lengths.sum(), len(first) // lengths[0]), dtype=np.float32)
    ends = np.cumsum(lengths)
    for text, end, length in zip(texts.tolist(), ends.tolist(), lengths.tolist(), strict=True):
        state = np.frombuffer(states[text].as_buffer(), dtype="<f4")
        z_t[end - length : end] = state.reshape(length, -1)
    return FusedQueries(z_t, np.concatenate(token_ids, dtype=np.int64), lengths)


def _open(
    stage2: Path,
    sha256: str,
    queries: FusedQueries,
    device: torch.device,
    memory: int | None,
    precision: Precision,
) -> tuple[VisionTransformer, Scorer]:
    """Both halves of stage 2; the engine has its own copy of the dual encoder, so the model's does
    not stay."""
    model = open_stage2(stage2, sha256=sha256)
    engine = RerankEngine(model, queries, device=device, memory=memory, precision=precision)
    return model.vision.to(device), engine


@torch.inference_mode()
def _score_shard(scorer: Scorer, images: Iterable[Seen], pairs: _Pairs) -> np.ndarray:
    """Scores of one shard's pairs; image tokens are in memory for a batch of images at a time."""
    scores = np.empty(len(pairs.text), dtype=np.float32)
    for seen in images:
        for problem in seen.problems.values():
            raise problem  # it was decoded once already, when it was encoded
        mine = np.flatnonzero(_within(pairs.picture, range(seen.rows[0], seen.rows[-1] + 1)))
        scores[mine] = scorer.score(
            seen.tokens, pairs.text[mine], np.searchsorted(seen.rows, pairs.picture[mine])
        )
    return scores
