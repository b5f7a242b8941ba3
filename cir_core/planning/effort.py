"""What a run has yet to do, counted, and how long that takes at measured speeds."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from cir_core.layers.config import Stage1Config, Stage2Config
from cir_core.planning.disk import FLOAT, Counts, Widths, bytes_by_stage
from cir_core.rerankers.dual.cost import Load, Sizes, begin_flops, engine_flops
from cir_core.retrievers.blip.cost import fusion_flops, vision_flops
from cir_core.search.candidates import NONE_REMOVED
from cir_core.types import Keeping

KEPT_SECONDS_PER_BYTE = 1e-9
"""Reading kept image tokens: measured 0.6 ms to read and 1.1 ms to check 1.7 MiB on one core."""

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

SECONDS_PER_GALLERY = 0.05
"""Two parts are committed for each; categories that share one count once."""

SECONDS_PER_RUN = 0.4
"""A run's small tables into the catalog, which holds all runs of the store."""

ALMOST_CERTAIN = 1 - 1e-12
"""Of a chance: its logarithm can be taken back."""

PAGE_SECONDS = 1.0
PICTURES = 256
"""A report's queries and their thumbnails, for which whole pictures are decoded: 16 queries with 16
pictures each. The demo's page takes 1.4 s."""


@dataclass(frozen=True)
class Pool:
    """What is asked of one gallery of so many ``images``; they are ``gallery``, some distinct
    pictures.

    Each text, of so many tokens, has ``candidates`` of the images, any as likely as another but for
    the one that is ``removed`` (or NONE_REMOVED). Beside them, texts (their places in ``lengths``)
    ask for ``members`` of their subset.
    """

    gallery: Int[np.ndarray, " picture"]
    images: int
    lengths: Int[np.ndarray, " text"]
    removed: Int[np.ndarray, " text"]
    candidates: Int[np.ndarray, " text"]
    asking: Int[np.ndarray, " member"]
    members: Int[np.ndarray, " member"]


@dataclass(frozen=True)
class Expected:
    """Pairs to be scored, and for each picture the chance that it has any."""

    load: Load
    seen: Float[np.ndarray, " image"]

    def of_images(self, chosen: Bool[np.ndarray, " image"]) -> "Expected":
        return Expected(self.load.of_images(chosen), self.seen[chosen])

    @property
    def pairs(self) -> float:
        return float(self.load.pairs.sum())

    @property
    def images(self) -> float:
        return float(self.seen.sum())


def expect(pools: Sequence[Pool], pictures: int) -> Expected:
    """Before stage 1 has chosen: as if any candidates were as likely as others; a member of a
    subset that is a candidate too is one pair.

    Real candidates crowd on some images, so fewer images are seen, with more pairs each: where
    candidates are few for the gallery, what is expected is rather too much.
    """
    pairs, tokens, looks, unseen = np.zeros((4, pictures))
    for pool in pools:
        asks = pool.removed != NONE_REMOVED
        chance = pool.candidates / np.maximum(1, pool.images - asks)
        beside = 1 - chance[pool.asking]
        for power, sums in enumerate((pairs, tokens, looks)):
            weights = pool.lengths**power
            sums[pool.gallery] += (chance * weights).sum()
            np.subtract.at(sums, pool.removed[asks], (chance * weights)[asks])
            np.add.at(sums, pool.members, beside * weights[pool.asking])
        misses = np.log1p(-np.minimum(chance, ALMOST_CERTAIN))
        unseen[pool.gallery] += misses.sum()
        np.subtract.at(unseen, pool.removed[asks], misses[asks])
        np.add.at(unseen, pool.members, np.log1p(-ALMOST_CERTAIN))
    return Expected(Load(pairs, tokens, looks), -np.expm1(unseen))


def known(load: Load) -> Expected:
    """Of pairs that stage 1 has chosen."""
    return Expected(load, (load.pairs > 0).astype(float))


@dataclass(frozen=True)
class Workload:
    """What a split asks of both stages: of so many ingested ``images``, ``pictures`` are distinct.

    ``token_ids`` are those of each distinct text that is fused, of a query that is asked both ways
    two; ``references`` the rows of their pictures. ``compared`` sums over queries the images of
    their gallery. ``candidates`` are the rows of stage 1's table, ``expected`` the pairs of a text
    and a picture.
    """

    images: int
    pictures: int
    queries: int
    galleries: int
    token_ids: Sequence[Sequence[int]]
    references: Int[np.ndarray, " text"]
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
    """What of a run has yet to be done: its stages, and of the long ones the pictures that they
    have yet to see; the tokens of ``kept`` are there. The catalog already holds other ``runs``."""

    stages: frozenset[str]
    encoded: Bool[np.ndarray, " image"]
    fused: Bool[np.ndarray, " image"]
    scored: Bool[np.ndarray, " image"]
    kept: int = 0
    runs: int = 0


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


def forecast(
    work: Workload,
    left: Left,
    stage1: Stage1Config,
    stage2: Stage2Config,
    speeds: Speeds,
    tokens: Keeping,
) -> dict[str, Effort]:
    """The effort of each stage that is left, but for ingest, which a plan does itself. Where image
    tokens are to be kept, a stage ``tokens`` comes before the others.

    Ranks of targets beyond the K candidates are not in it, since their number is not known: they
    take as long again as the search at most.
    """
    lengths, widths = work.lengths, Widths.of(stage1)
    fused = left.fused[work.references]
    scored = work.expected.of_images(left.scored)
    passed, again = int((left.encoded | left.fused).sum()), round(scored.images)
    keeping = tokens == "cache" and bool(passed or again)
    to_keep = work.pictures - left.kept if keeping else 0
    reading = keeping or (tokens == "auto" and left.kept == work.pictures)

    def compute(images: int) -> Effort:
        seconds = speeds.feed + images * speeds.image if images else 0.0
        return Effort(images, flops=images * vision_flops(stage1.vision), seconds=seconds)

    def read(images: int) -> Effort:
        return Effort(images, seconds=images * KEPT_SECONDS_PER_BYTE * FLOAT * widths.image)

    see = read if reading else compute
    seen = see(passed)
    if passed:
        seen = replace(seen, seconds=seen.seconds + speeds.open_stage1)
    fusing = fusion_flops(stage1, lengths[fused])
    sizes = Sizes.of(stage2)
    scoring = round(begin_flops(sizes, lengths) + engine_flops(sizes, scored.load))
    efforts = {
        "tokens": compute(to_keep),
        "encode": seen,
        "fuse": Effort(
            queries=round(work.queries * fused.mean()) if len(fused) else 0,
            flops=fusing,
            seconds=fusing * speeds.fusion,
        ),
        "retrieve": Effort(
            queries=work.queries,
            pairs=work.candidates,
            flops=2 * stage1.embedding * work.compared,
            seconds=work.images * speeds.index
            + work.compared * speeds.search
            + work.galleries * SECONDS_PER_GALLERY,
        ),
        "rerank": together(
            [
                see(again),
                Effort(
                    queries=work.queries,
                    pairs=round(scored.pairs),
                    flops=scoring,
                    seconds=speeds.open_stage2 + scoring * speeds.scoring,
                ),
            ]
        ),
        "rank": Effort(pairs=work.candidates),
        "evaluate": Effort(pairs=work.candidates),
        "publish": Effort(
            pairs=(left.runs + 1) * work.candidates, seconds=(left.runs + 1) * SECONDS_PER_RUN
        ),
        "report": Effort(pairs=work.candidates, seconds=PAGE_SECONDS + PICTURES * speeds.picture),
        "ranked": Effort(pairs=work.candidates),
    }
    if "encode" not in left.stages:  # the pass is for the queries alone
        efforts["fuse"] = together([seen, efforts["fuse"]])
    disk = bytes_by_stage(
        Counts(
            images=round(left.encoded.mean() * work.images) if work.pictures else 0,
            queries=efforts["fuse"].queries,
            tokens=int(lengths[fused].sum()),
            pairs=work.candidates,
            kept=to_keep,
            ranked=work.candidates,
        ),
        widths,
    )
    return {
        stage: replace(
            effort,
            bytes=disk.get(stage, 0),
            seconds=effort.seconds + SECONDS_PER_PAIR.get(stage, 0.0) * effort.pairs,
        )
        for stage, effort in efforts.items()
        if stage in left.stages or (stage == "tokens" and to_keep)
    }
