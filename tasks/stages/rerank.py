"""Stage 2: score every candidate pair, gallery shard by gallery shard."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from cir_core.layers.preprocess import Preprocess
from cir_core.planning.disk import Counts
from cir_core.planning.effort import Effort, Forecast
from cir_core.ports import (
    FusedQueries,
    ImageEncoder,
    Reranker,
    RerankerConfig,
    Scorer,
    Widths,
)
from cir_core.types import Precision
from storage.views import DroppedScores, Fused, KeptTokens, Retrieved, Scored
from tasks.feed.image_tokens import Pictures, Plan
from tasks.feed.pictures import distinct_pictures
from tasks.feed.references import KeptReferences
from tasks.feed.token_cache import TokenCache, see_images
from tasks.machine import Machine
from tasks.models.opening import open_reranker
from tasks.progress import count
from tasks.shards import Part, Shard, part_name, parts, rows_in, slice_of
from tasks.stages.asking import Asking, ask_by_texts, ask_with_z_t, require_seen
from tasks.stages.choosing import IMAGES
from tasks.stages.contents import Contents
from tasks.stages.earlier.scores import Scores, find_scores, keys_of
from tasks.stages.over_pictures import OverPictures
from tasks.stages.scoring import PairCosts, Pairs, Rows, pairs_of, read_rows, scores_table
from tasks.stages.shard_scoring import left_of, score_shard
from tasks.stages.stage import Pass, ReadyPart, Work
from tasks.stages.tokens import find_kept, tokens_needed

_log = logging.getLogger(__name__)

PART = 2**15
"""Questions of pictures per part at most, where many are asked of few pictures: what a killed run
loses is 8 s of the demo's models on two cores at 4,000 pairs/s, 25 minutes at full size."""

PICTURE = 20
"""So many pairs take as long as seeing a picture: at full size, on two cores, 17 in fp32 and 21 in
bf16."""


@dataclass(frozen=True)
class Rerank(OverPictures[Scored]):
    """Parts scores-<shard>, one per shard of pictures, or several where it has more than ``PART``
    questions of its pictures; a question's two texts are in one.

    Every candidate is scored, whether or not its query's target is among them; a pair that is in
    both pools is scored once, and so are copies of an image and queries that ask the same: they tie
    exactly. A score is final: the ``prior`` of stage 2 is part of it.
    ``model`` is the sha256 of a stage 2 that can follow stage 1 (``check_pair``); ``fused`` is None
    for one that reads texts itself instead of z_t, and takes ``pictures`` so. One that
    ``reads_references`` has all image tokens kept, whatever the machine's settings say: each is
    looked at for many pairs.
    Raises as ``open_reranker`` for another one, ProblemsFound for pictures that it cannot take,
    NonFiniteError for a score that is not finite, PreflightError when memory is too small.
    """

    model: str
    pictures: Preprocess
    fused: Fused | None
    reads_references: bool
    candidates: Retrieved
    prior: float
    precision: Precision

    makes = Scored
    version = 7
    seconds_per_pair = 1.5e-6

    def settings(self) -> Mapping[str, Any]:
        """How pictures are taken is in the names of z_t, where that is read."""
        taken = {} if self.fused is not None else self.pictures.settings()
        own = {"precision": self.precision, "prior": self.prior}
        return {**super().settings(), **taken, **own}

    def inputs(self) -> Mapping[str, str]:
        fused = {} if self.fused is None else {"fuse": self.fused.fingerprint}
        return {
            self.candidates.stage: self.candidates.fingerprint,
            "ingest": self.ingested.fingerprint,
            "model": self.model,
            **fused,
        }

    def needs(self, machine: Machine) -> Sequence[Pass]:
        return tokens_needed(self, self.keeping(machine))

    def weights(self, shards: Sequence[str]) -> Sequence[float]:
        """Candidates, copies and both pools counted, and the pictures that they are of."""
        pictures = distinct_pictures(self.ingested.read("images"))
        candidates = self.candidates.read("candidates", ["image_id"])["image_id"]
        each = np.bincount(pictures.of(candidates), minlength=len(pictures))
        work = each + PICTURE * (each > 0)
        return [float(work[slice_of(rows_in(shard))].sum()) for shard in shards]

    @contextmanager
    def open(self, machine: Machine) -> Iterator[Work]:
        pictures = Pictures(self.ingested, self.root, self.keeping(machine))
        model = open_reranker(self.folder, sha256=self.model, encoder=self.encoder_precision)
        encoder = model.encoder.to(machine.device)
        kept = find_kept(pictures, encoder, self.folder)
        candidates = self.candidates.read("candidates")
        config = model.config
        asking = self._asking(config, pictures, kept, candidates)
        scorer = open_scorer(model, asking.queries, machine, self.precision)
        del model  # the scorer has what it needs of it
        many = asking.questions
        rows = read_rows(candidates, asking.table, pictures.distinct, questions=many)
        known = self.known(asking.first_queries, rows)
        pairs = pairs_of(rows, asking.of_text, known, questions=many)
        costs = PairCosts(config, kept, asking.queries.lengths)
        yield partial(self._score, pictures, encoder, kept, scorer, rows, pairs, costs)

    def known(self, first_queries: pa.ChunkedArray | pa.Array, rows: Rows | None = None) -> Scores:
        """What earlier artifacts have of questions, of each of which a query is given, and of the
        ingested pictures; of these rows alone, or of all."""
        contents, cosines, wanted = Contents.of(self.ingested), bool(self.prior), None
        if rows is not None:
            wanted = np.unique(keys_of(rows.number, rows.cosine if cosines else None))
        return find_scores(
            self.made,
            self.fused,
            contents.of_questions(first_queries),
            contents.pictures,
            cosines=cosines,
            wanted=wanted,
        )

    def keeping(self, machine: Machine) -> Machine:
        """With image tokens kept, if it must be so."""
        return replace(machine, tokens="cache") if self.reads_references else machine

    def _asking(
        self,
        config: RerankerConfig,
        pictures: Pictures,
        kept: KeptTokens | None,
        candidates: pa.Table,
    ) -> Asking:
        if self.fused is not None:
            return ask_with_z_t(self.fused)
        queries = self.ingested.read("queries")
        queries = queries.filter(pc.is_in(queries["query_id"], pc.unique(candidates["query_id"])))
        asking = ask_by_texts(config, queries, pictures.distinct)
        if not self.reads_references:
            return asking
        assert kept is not None, "they are needed before"
        assert asking.references is not None, "it was asked by texts"
        tokens = TokenCache(kept)
        require_seen(tokens.problems, [candidates["image_id"], queries["reference_id"]])
        references = KeptReferences(tokens, pictures, asking.references)
        return replace(asking, queries=replace(asking.queries, references=references))

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        return forecast.scoring()

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        """Two ids of 4 bytes (indices into a dictionary) and a score of 4. zstd about halves this,
        which is not counted upon."""
        return 12 * counts.pairs

    def _score(
        self,
        pictures: Pictures,
        encoder: ImageEncoder,
        kept: KeptTokens | None,
        scorer: Scorer,
        rows: Rows,
        pairs: Pairs,
        costs: PairCosts,
        shards: Sequence[str],
    ) -> Iterator[ReadyPart]:
        view = self.made
        left = [_open_shard(pairs, shard, view) for shard in shards]
        plans = [_plan(pictures, pairs, shard) for shard in left]
        parts_left = [one.of(part) for one in left for part in one.missing]
        missing = sum(int(pairs.texts_each(pairs.left(some)).sum()) for some in parts_left)
        total = len(pairs.text)
        _tell_known(pairs, parts_left, missing)
        with (
            see_images(pictures, encoder, list(chain.from_iterable(plans)), kept) as images,
            count("re-ranking", total, "pairs", done=total - missing) as counter,
        ):
            for shard, plan in zip(left, plans, strict=True):
                seen = islice(images, len(plan))
                scores = chain.from_iterable(score_shard(scorer, seen, pairs, shard, counter))
                for part in shard.missing:
                    mine = shard.of(part)
                    texts = int(pairs.texts_each(pairs.left(mine)).sum())
                    some = np.fromiter(scores, dtype=np.float32, count=texts)
                    scored = scores_table(rows, pairs, mine, some, self.prior)
                    effort = costs.of(pairs, pairs.left(mine))
                    copied = int(pairs.start[mine.stop] - pairs.start[mine.start]) - texts
                    yield ReadyPart(view, _name(part), scored, effort, costs.tokens, copied)


@dataclass(frozen=True)
class RerankDropped(Rerank):
    """The same of candidates that are a sample of what was dropped."""

    makes = DroppedScores

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        return forecast.scoring_of(IMAGES)

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        return 12 * IMAGES * counts.queries


def open_scorer(
    model: Reranker, queries: FusedQueries, machine: Machine, precision: Precision
) -> Scorer:
    """Stage 2, ready to score these queries."""
    device = torch.device(machine.device)
    return model.open(queries, device=device, memory=machine.memory, precision=precision)


def _plan(pictures: Pictures, pairs: Pairs, shard: Shard) -> Plan:
    """Of the batches in which those pictures of the whole shard are seen that are to be scored, the
    batches that something is missing of."""
    left = pairs.left(shard.items)
    every = pictures.plan(np.unique(pairs.picture[left]).tolist())
    return [some for some in every if shard.is_missing(left_of(pairs, some)).any()]


def _open_shard(pairs: Pairs, shard: str, view: Scored) -> Shard:
    rows = rows_in(shard)
    numbers = pairs.of_pictures(rows.start, rows.stop - 1)
    every = parts(shard, len(numbers), PART)
    return Shard(numbers, every, [part for part in every if view.lacks(_name(part))])


def _tell_known(pairs: Pairs, some: Sequence[range], missing: int) -> None:
    every = sum(int(pairs.start[one.stop] - pairs.start[one.start]) for one in some)
    if every > missing:
        _log.info(
            "%s of %s scores are known from earlier runs", f"{every - missing:,}", f"{every:,}"
        )


def _name(part: Part) -> str:
    return part_name("scores", part.name)
