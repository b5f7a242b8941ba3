"""Stage 2: score every candidate pair, gallery shard by gallery shard."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from cir_core.layers.vision import VisionTransformer
from cir_core.ports import Scorer
from cir_core.rerankers.dual.engine import RerankEngine
from cir_core.rerankers.dual.model import with_prior
from cir_core.rerankers.dual.packing import FusedQueries
from cir_core.types import Keeping, Precision
from storage import schemas
from storage.artifacts import Artifact, Identity, Made
from storage.tables import rows_of
from tasks.feed.image_tokens import Pictures, Plan, Seen
from tasks.feed.token_cache import see_images
from tasks.models.opening import open_stage2
from tasks.progress import Counter, count
from tasks.shards import Part, Shard, is_whole, parts, shards, slice_of
from tasks.stages.scoring import Pairs, Rows, pairs_of, read_rows

VERSION = 7
SHARD = 256
"""Pictures per part, as in encoding."""

PART = 2**15
"""Questions of pictures per part at most, where many are asked of few pictures: what a killed run
loses is 8 s of the demo's models on two cores at 4,000 pairs/s, 25 minutes at full size."""

AT_ONCE = 2**11
"""Questions of pictures that are scored together, and then told: with 14 tokens a text, as
Fashion-IQ's, one block of the engine on a GPU, so that no smaller blocks come of it."""


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
    """The artifact ``rerank``: parts scores-<shard>, one per gallery shard, or several where it has
    more than ``PART`` questions of its pictures; a question's two texts are in one.

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
    of_text = table["question"].to_numpy()[texts]
    questions = 1 + int(of_text.max(initial=0))
    found = Artifact(store, "retrieve", candidates).read("candidates")
    rows = read_rows(found, table, pictures.distinct, questions=questions)
    pairs = pairs_of(rows, of_text, questions=questions)
    every = [_open_shard(pairs, one, artifact) for one in shards(len(pictures.distinct), SHARD)]
    left = [shard for shard in every if shard.missing]
    plans = [_plan(pictures, pairs, shard) for shard in left]
    missing = sum(len(pairs.of_numbers(one.of(part))) for one in left for part in one.missing)
    with (
        see_images(pictures, vision, list(chain.from_iterable(plans)), tokens=tokens) as images,
        count("re-ranking", len(pairs.text), "pairs", done=len(pairs.text) - missing) as counter,
    ):
        for shard, plan in zip(left, plans, strict=True):
            seen = islice(images, len(plan))
            scores = chain.from_iterable(_score_shard(scorer, seen, pairs, shard, counter))
            for part in shard.missing:
                mine = shard.of(part)
                some = np.fromiter(scores, dtype=np.float32, count=len(pairs.of_numbers(mine)))
                scored = _scores_table(rows, pairs, mine, some, identity.settings["prior"])
                artifact.write_part(_name(part), scored)
    artifact.finish(identity, [_name(part) for shard in every for part in shard.parts])
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
    """The rows of the shards of pictures whose pairs have yet to be scored, some or all."""
    committed = artifact.committed("scores")
    return [rows for rows in shards(pictures, SHARD) if not is_whole(committed, rows)]


def _plan(pictures: Pictures, pairs: Pairs, shard: Shard) -> Plan:
    """Of the batches in which the whole shard is seen, those that something is missing of."""
    every = pictures.plan(np.unique(pairs.picture[slice_of(shard.items)]).tolist())
    return [some for some in every if shard.is_missing(pairs.of_pictures(some[0], some[-1])).any()]


def _open_shard(pairs: Pairs, rows: range, artifact: Artifact) -> Shard:
    numbers = pairs.of_pictures(rows.start, rows.stop - 1)
    every = parts(rows, len(numbers), PART)
    missing = [part for part in every if not artifact.has_part(_name(part))]
    return Shard(numbers, every, missing)


def _name(part: Part) -> str:
    return f"scores-{part.name}"


def _scores_table(
    rows: Rows, pairs: Pairs, some: range, scores: np.ndarray, prior: float
) -> pa.Table:
    """A row per query and image; over both ways of asking, where there are two, the mean. Images
    that are copies, and queries that ask the same, read one score."""
    number, texts = pairs.number[slice_of(some)], pairs.texts_each(some)
    place = np.repeat(np.arange(len(some)), texts)
    mean = np.bincount(place, weights=scores, minlength=len(some)) / texts
    read = rows.of_numbers(number)
    each = mean[np.searchsorted(number, rows.number[slice_of(read)])]
    final = with_prior(each, rows.cosine[slice_of(read)], prior)
    table = rows.table.slice(read.start, len(read))
    table = table.append_column("stage2_score", pa.array(final))
    return table.cast(schemas.SCORES)


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
def _score_shard(
    scorer: Scorer, images: Iterable[Seen], pairs: Pairs, shard: Shard, counter: Counter
) -> Iterator[np.ndarray]:
    """The missing scores of one shard's pairs, in order; image tokens are in memory for a batch of
    images at a time.

    What is scored together depends on the batch alone, not on the parts, since together with other
    pairs a score may have other last bits: where some of it is missing, all is scored again.
    """
    for seen in images:
        for problem in seen.problems.values():
            raise problem  # it was decoded once already, when it was encoded
        batch = pairs.of_pictures(seen.rows[0], seen.rows[-1])
        for start in range(0, len(batch), AT_ONCE):
            some = batch[start : start + AT_ONCE]
            missing = np.repeat(shard.is_missing(some), pairs.texts_each(some))
            if missing.any():
                picture = np.repeat(pairs.picture[slice_of(some)], pairs.texts_each(some))
                text = pairs.text[slice_of(pairs.of_numbers(some))]
                scores = scorer.score(seen.tokens, text, np.searchsorted(seen.rows, picture))
                counter.update(int(missing.sum()))
                yield scores[missing]
