"""What a run has yet to do, counted, and how long that takes at measured speeds."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from math import ceil

import numpy as np
from jaxtyping import Int

from cir_core.footprint import Counts, Widths, bytes_by_stage
from cir_core.models.config import Stage1Config, Stage2Config
from cir_core.models.flops import fusion_flops, vision_flops
from cir_core.rerank.cost import Sizes, begin_flops, engine_flops, published_flops

PAIRS_DRAWN = 2_000_000
"""More are counted by a sample: every so manieth text, in a gallery that many times smaller."""

KEPT_SECONDS_PER_BYTE = 1e-9
"""Reading kept image tokens: measured 0.6 ms to read and 1.1 ms to check 1.7 MiB on one core."""

FIXED_SECONDS = {"publish": 0.5, "report": 1.4}
"""A catalog and a page of pictures, whatever their size; measured on the demo, one core."""

SECONDS_PER_PAIR = {
    "retrieve": 0.3e-6,
    "rerank": 1.5e-6,
    "rank": 1.9e-6,
    "evaluate": 0.2e-6,
    "publish": 2.4e-6,
    "report": 0.2e-6,
    "ranked": 8e-6,
}
"""Tables in and out, measured with two million pairs (docs/performance.md)."""


@dataclass(frozen=True)
class Pool:
    """What the queries of one gallery ask for.

    ``lengths`` are those of their texts in tokens: a query that is asked both ways has two. Each
    text has ``candidates`` of the ``images``.
    """

    lengths: Int[np.ndarray, " text"]
    candidates: Int[np.ndarray, " text"]
    images: int


@dataclass(frozen=True)
class Pairs:
    """Pairs to score: each one's text in tokens, and a number for its image. Each of them, and of
    their images, stands for ``each``."""

    lengths: Int[np.ndarray, " pair"]
    images: Int[np.ndarray, " pair"]
    each: int = 1

    @property
    def count(self) -> int:
        return self.each * len(self.lengths)

    @property
    def images_seen(self) -> int:
        return self.each * len(np.unique(self.images))

    @property
    def per_image(self) -> int:
        """Pairs of an image that has any, on average and at least 1."""
        return max(1, round(self.count / max(1, self.images_seen)))

    def engine_flops(self, sizes: Sizes) -> int:
        return self.each * engine_flops(sizes, self.lengths, self.images)

    def published_flops(self, sizes: Sizes) -> int:
        return self.each * published_flops(sizes, self.lengths)


def expect_pairs(pools: Sequence[Pool]) -> Pairs:
    """Before stage 1 has chosen: as if it found every image of a gallery as often as any other.

    Real candidates crowd on some images, so fewer are seen, with more pairs each: what is expected
    is rather too much. The same pools give the same pairs.
    """
    rng = np.random.default_rng(0)
    each = max(1, ceil(sum(int(pool.candidates.sum()) for pool in pools) / PAIRS_DRAWN))
    lengths, images, first = [], [], 0
    for pool in pools:
        candidates, gallery = pool.candidates[::each], ceil(pool.images / each)
        lengths.append(np.repeat(pool.lengths[::each], candidates))
        images.append(first + rng.integers(0, max(1, gallery), len(lengths[-1])))
        first += gallery
    none = np.empty(0, dtype=np.int64)
    return Pairs(np.concatenate([none, *lengths]), np.concatenate([none, *images]), each)


@dataclass(frozen=True)
class Workload:
    """What a split asks of both stages, of the images and queries that can be used.

    ``token_ids`` are those of each text that is fused: of a query that is asked both ways, two.
    ``compared`` sums over queries the images of their gallery.
    """

    images: int
    queries: int
    token_ids: Sequence[Sequence[int]]
    compared: int
    pairs: Pairs

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
    """To decode an image and compute its tokens; to read them, where they are ``kept``."""
    kept: bool = False
    fusion: float = 0.0
    """Of one FLOP of a query's fusion."""
    scoring: float = 0.0
    """Of one FLOP of the engine."""
    search: float = 0.0
    """Of one query and one gallery image."""


@dataclass(frozen=True)
class Left:
    """What of a run has yet to be done: its stages; of the pass that encodes and fuses, images; of
    the texts to fuse and of the pairs to score, shares."""

    stages: frozenset[str]
    encoded: int
    fused: float
    scored: float


@dataclass(frozen=True)
class Effort:
    """What a stage has to do, and what that takes."""

    images: int = 0
    queries: int = 0
    pairs: int = 0
    flops: int = 0
    bytes: int = 0
    seconds: float = 0.0


def forecast(
    work: Workload,
    left: Left,
    stage1: Stage1Config,
    stage2: Stage2Config,
    speeds: Speeds,
    *,
    keeps_tokens: bool,
) -> dict[str, Effort]:
    """The effort of each stage that is left, but for ingest, which a plan does itself.

    With ``keeps_tokens`` all images are seen once, in a stage ``tokens`` before the others, unless
    their tokens are kept already.
    """
    keeping = keeps_tokens and not speeds.kept and bool(left.encoded or left.scored)
    lengths, pairs, sizes = work.lengths, work.pairs, Sizes.of(stage2)
    counts = Counts(
        images=work.images,
        queries=work.queries,
        tokens=int(lengths.sum()),
        pairs=pairs.count,
        kept=work.images if keeping else 0,
    )
    disk = bytes_by_stage(counts, Widths.of(stage1))
    vision = 0 if speeds.kept else vision_flops(stage1.vision)

    def see(images: int) -> Effort:
        """Their tokens, in the pass of a stage; from the store when a stage before kept them."""
        if keeping:
            read = KEPT_SECONDS_PER_BYTE * disk["tokens"] / work.images
            return Effort(images, seconds=images * read)
        return Effort(images, flops=images * vision, seconds=speeds.feed + images * speeds.image)

    efforts = {}
    if keeping:
        efforts["tokens"] = Effort(
            work.images,
            flops=work.images * vision,
            seconds=speeds.feed + work.images * speeds.image,
        )
    passed = see(left.encoded)
    passed = replace(passed, seconds=passed.seconds + speeds.open_stage1)
    fusion = round(left.fused * fusion_flops(stage1, lengths))
    efforts["encode"] = passed
    efforts["fuse"] = Effort(
        queries=round(left.fused * work.queries), flops=fusion, seconds=fusion * speeds.fusion
    )
    if "encode" not in left.stages:  # the images are seen for the queries alone
        efforts["fuse"] = together([passed, efforts["fuse"]])
    efforts["retrieve"] = Effort(
        queries=work.queries,
        pairs=pairs.count,
        flops=2 * stage1.embedding * work.compared,
        seconds=work.compared * speeds.search,
    )
    scoring = round(left.scored * scoring_flops(sizes, pairs, lengths))
    scored = Effort(
        queries=work.queries,
        pairs=round(left.scored * pairs.count),
        flops=scoring,
        seconds=speeds.open_stage2 + scoring * speeds.scoring,
    )
    efforts["rerank"] = together([see(round(left.scored * pairs.images_seen)), scored])
    for stage in ("rank", "evaluate", "publish", "report", "ranked"):
        efforts[stage] = Effort(pairs=pairs.count)
    return {
        stage: replace(
            effort,
            bytes=disk.get(stage, 0),
            seconds=effort.seconds + table_seconds(stage, effort.pairs),
        )
        for stage, effort in efforts.items()
        if stage in left.stages or stage == "tokens"
    }


def together(efforts: Iterable[Effort]) -> Effort:
    """Their sum."""
    every = [astuple(effort) for effort in (Effort(), *efforts)]
    return Effort(*map(sum, zip(*every, strict=True)))


def table_seconds(stage: str, pairs: int) -> float:
    """What a stage takes to read and write its tables."""
    return FIXED_SECONDS.get(stage, 0.0) + SECONDS_PER_PAIR.get(stage, 0.0) * pairs


def scoring_flops(sizes: Sizes, pairs: Pairs, lengths: Int[np.ndarray, " text"]) -> int:
    """The engine's, of all pairs; ``lengths`` are those of the texts that it begins."""
    return begin_flops(sizes, lengths) + pairs.engine_flops(sizes)
