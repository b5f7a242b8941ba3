"""What a run has yet to do, counted, and how long that takes at measured speeds. Each stage says
what of this is its own."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from cir_core.planning.disk import FLOAT, Counts
from cir_core.planning.expected import Expected
from cir_core.ports import Load, RerankerConfig, RetrieverConfig, Widths
from cir_core.types import Keeping

KEPT_SECONDS_PER_BYTE = 1e-9
"""Reading kept image tokens: measured 0.6 ms to read and 1.1 ms to check 1.7 MiB on one core."""

Encoding = Literal["stage1", "stage2"]
"""Whose encoder sees pictures."""


@dataclass(frozen=True)
class Workload:
    """What a split asks of a model: of so many ingested ``images``, ``pictures`` are distinct.

    ``token_ids`` are those of each distinct text as the model reads it, of a query that is asked
    both ways two; ``references`` the rows of their pictures, ``asked_by`` a query of each.
    ``compared`` sums over queries the
    images of their gallery. ``candidates`` are the rows of stage 1's table, ``expected`` the pairs
    of a text and a picture.
    """

    images: int
    pictures: int
    queries: int
    galleries: int
    token_ids: Sequence[Sequence[int]]
    references: Int[np.ndarray, " text"]
    asked_by: Sequence[str]
    compared: int
    candidates: int
    expected: Expected

    @property
    def lengths(self) -> Int[np.ndarray, " text"]:
        return np.array([len(ids) for ids in self.token_ids], dtype=np.int64)


@dataclass(frozen=True)
class Speeds:
    """Of this machine with these models, in seconds; 0 is what was not measured."""

    open_stage1: float = 0.0
    open_stage2: float = 0.0
    feed: float = 0.0
    """Until the first images are decoded."""
    image: float = 0.0
    """To decode an image and compute its tokens."""
    image_again: float = 0.0
    """The same by stage 2's encoder, where it is another."""
    picture: float = 0.0
    """To decode an image alone."""
    fusion: float = 0.0
    """Of one FLOP of a query's fusion."""
    scoring: float = 0.0
    """Of one FLOP of the engine."""
    index: float = 0.0
    """Of one gallery image, to build the index."""
    search: float = 0.0
    """Of one query and one gallery image."""


@dataclass(frozen=True)
class Left:
    """What of a run has yet to be done: its ``stages``; of those over pictures, how much of what
    each picture asks for (1: all, 0 where a stage is done); the tokens of ``kept`` pictures are
    there, and those of ``kept_again`` by stage 2's encoder, where that is another and its tokens
    are to be kept (else None); those of ``copied`` others, and of ``copied_again``, are in earlier
    artifacts. The catalog already holds other ``runs``."""

    stages: frozenset[str]
    encoded: Float[np.ndarray, " picture"]
    fused: Float[np.ndarray, " picture"]
    scored: Float[np.ndarray, " picture"]
    kept: int = 0
    kept_again: int | None = None
    copied: int = 0
    copied_again: int = 0
    runs: int = 0


@dataclass(frozen=True)
class Known:
    """What earlier runs have of what is left to make, beside scores: it is copied, which takes room
    and next to no time. ``embedded`` are pictures, ``fused`` places of texts in the workload."""

    embedded: Int[np.ndarray, " some"]
    fused: Int[np.ndarray, " some"]


NOTHING = Known(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Effort:
    """What a stage has to do, and what that takes."""

    images: int = 0
    queries: int = 0
    pairs: int = 0
    flops: int = 0
    bytes: int = 0
    seconds: float = 0.0


def together(efforts: Iterable[Effort]) -> Effort:
    """Their sum."""
    every = [astuple(effort) for effort in (Effort(), *efforts)]
    return Effort(*map(sum, zip(*every, strict=True)))


@dataclass(frozen=True)
class Forecast:
    """What the stages count with: the ``work`` of the split as stage 1 reads it, the same as it is
    ``asked`` of stage 2, what is left of it, the models, and this machine's speeds; what of it is
    ``known`` already. Ranks of
    targets beyond the K candidates are nowhere in it, since their number is not known: they take as
    long again as the search at most. A run that ends before any pair is scored has no ``stage2``.
    """

    work: Workload
    asked: Workload
    left: Left
    stage1: RetrieverConfig
    stage2: RerankerConfig | None
    speeds: Speeds
    tokens: Keeping
    known: Known = NOTHING

    @property
    def widths(self) -> Widths:
        return self.stage1.widths

    @property
    def passed(self) -> int:
        """Pictures that stage 1 sees: of shards that lack anything, all that either stage wants."""
        lacks = (self.left.encoded > 0) | (self.left.fused > 0)
        return int((lacks & self._wants).sum())

    @property
    def _wants(self) -> Bool[np.ndarray, " picture"]:
        """Of each picture, whether stage 1 has to see it: to embed it, or for a text that is asked
        of it."""
        wants = np.full(self.work.pictures, "encode" in self.left.stages)
        wants[self.known.embedded] = False
        if "fuse" in self.left.stages:
            wants[np.delete(self.work.references, self.known.fused)] = True
        return wants

    @cached_property
    def scored(self) -> Expected:
        """The pairs that are left."""
        return self.asked.expected.of_images(self.left.scored)

    @cached_property
    def fused(self) -> Float[np.ndarray, " text"]:
        """How much of each text is left to fuse."""
        left = self._written.copy()
        left[self.known.fused] = 0
        return left

    @property
    def _written(self) -> Float[np.ndarray, " text"]:
        """The same with what is copied."""
        return self.left.fused[self.work.references]

    @property
    def queries(self) -> int:
        """That are left to fuse."""
        return self._queries(self.fused)

    def _queries(self, share: Float[np.ndarray, " text"]) -> int:
        return round(self.work.queries * share.mean()) if len(share) else 0

    @property
    def to_keep(self) -> int:
        """Pictures whose tokens are yet to be kept."""
        left = (self.left.encoded, self.left.fused, self.left.scored)
        keeps = self.tokens == "cache" and any(one.any() for one in left)
        return self.work.pictures - self.left.kept if keeps else 0

    @property
    def to_keep_again(self) -> int:
        """The same by stage 2's own encoder."""
        keeps = self.left.kept_again is not None and self.left.scored.any()
        return self.work.pictures - (self.left.kept_again or 0) if keeps else 0

    @property
    def counts(self) -> Counts:
        encoded = self.left.encoded
        return Counts(
            images=round(encoded.mean() * self.work.images) if len(encoded) else 0,
            queries=self._queries(self._written),
            tokens=round(float((self.work.lengths * self._written).sum())),
            pairs=self.work.candidates,
            kept=self.to_keep,
            again=self.to_keep_again * self.stage2.image_width if self.stage2 else 0,
            ranked=self.work.candidates,
        )

    def compute(self, pictures: int, *, by: Encoding = "stage1") -> Effort:
        """Decode pictures, and have the ViT see them."""
        seeing, image = self.stage1.seeing_flops(), self.speeds.image
        if by == "stage2" and self.stage2 is not None:
            seeing, image = self.stage2.seeing_flops(), self.speeds.image_again or image
        seconds = self.speeds.feed + pictures * image if pictures else 0.0
        return Effort(pictures, flops=pictures * seeing, seconds=seconds)

    def see(self, pictures: int, *, by: Encoding = "stage1") -> Effort:
        """Their image tokens: read where they are kept, computed elsewhere."""
        width = self.widths.image
        if by == "stage2" and self.stage2 is not None and self.speeds.image_again:
            width, are_kept = self.stage2.image_width, self.left.kept_again is not None
        else:
            all_kept = self.tokens == "auto" and self.left.kept == self.work.pictures
            are_kept = self.tokens == "cache" or all_kept
        if not are_kept:
            return self.compute(pictures, by=by)
        read = FLOAT * width * pictures
        return Effort(pictures, seconds=read * KEPT_SECONDS_PER_BYTE)

    def first_pass(self) -> Effort:
        """Stage 1's look at the pictures, for gallery and queries together."""
        opened = Effort(seconds=self.speeds.open_stage1 if self.passed else 0.0)
        return together([self.see(self.passed), opened])

    def fusing(self) -> Effort:
        """Of the texts that are left."""
        flops = self.stage1.asking_flops(self.work.lengths[self.fused > 0])
        return Effort(queries=self.queries, flops=flops, seconds=flops * self.speeds.fusion)

    def scoring(self) -> Effort:
        """Of the pairs that are left, and of their images."""
        assert self.stage2 is not None, "a run without stage 2 scores nothing"
        pairs, begun = self.scored, 0.0
        if round(pairs.pairs):
            begun = self.stage2.beginning_flops(self.asked.lengths)
        flops = round(begun + self.stage2.scoring_flops(pairs.load))
        scored = Effort(
            queries=self.work.queries,
            pairs=round(pairs.pairs),
            flops=flops,
            seconds=self.speeds.open_stage2 + flops * self.speeds.scoring,
        )
        return together([self.see(round(pairs.images), by="stage2"), scored])

    def scoring_of(self, images: int) -> Effort:
        """Of so many images of each gallery with all of its queries."""
        assert self.stage2 is not None, "a run without stage 2 scores nothing"
        lengths, seen = self.asked.lengths, images * self.work.galleries
        each = np.ones(seen) / max(1, self.work.galleries)
        load = Load(len(lengths) * each, lengths.sum() * each, (lengths**2).sum() * each)
        flops = round(self.stage2.beginning_flops(lengths) + self.stage2.scoring_flops(load))
        scored = Effort(
            queries=self.work.queries,
            pairs=images * self.work.queries,
            flops=flops,
            seconds=self.speeds.open_stage2 + flops * self.speeds.scoring,
        )
        return together([self.see(seen, by="stage2"), scored])

    def published_flops(self) -> int:
        """What the published loop would spend on the pairs that are left."""
        return 0 if self.stage2 is None else round(self.stage2.plain_flops(self.scored.load))

    def tables(self) -> Effort:
        """A row for each candidate."""
        return Effort(pairs=self.work.candidates)
