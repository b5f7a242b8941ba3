"""The re-rank engine against the published loop, in one run: speed, FLOPs, agreement.

    python benchmarks/rerank.py            # a table; two minutes on two cores
    python benchmarks/rerank.py --json     # the same as JSON

Full size (12 layers of width 768, 577 image tokens), with random weights and random image tokens:
the ViT that makes these is no part of a pair's cost. Texts are as long as Fashion-IQ's. The queries
are begun beforehand: once for all of their candidates, a fiftieth of a pair's work each.

The ways take turns, and of each its fastest turn counts: what other programs take is not ours.
"""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import typer
from full_size import TEXT, VISION

from cir_core.layers.config import TextConfig
from cir_core.ports import FusedQueries, Launching, Load, PendingScores, Scorer
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.cost import engine_flops, published_flops
from cir_core.rerankers.dual.engine import RerankEngine
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.rerankers.plain import ReferenceScorer
from tasks.feed.lookahead import ahead
from tasks.stages.shard_scoring import AT_ONCE

FASHION_IQ_LENGTHS = np.repeat(
    [*range(5, 29), 35],
    [
        *(1, 12, 53, 103, 201, 325, 492, 611, 696, 764, 747, 597, 441),
        *(347, 276, 153, 71, 57, 21, 20, 9, 10, 7, 1, 1),
    ],
)
"""In tokens, of the 6,016 queries of Fashion-IQ val, [ENC] and [SEP] included: 14.3 on average."""

CONFIG = Stage2Config(
    kind="stage2",
    vision=VISION.model_copy(update={"depth": 1}),  # tokens are drawn, not encoded
    text=TEXT,
    merge_from=6,
)

QUERIES, IMAGES = 40, 12
MATRIX = 2048
"""Rows and columns of the product that tells the machine's speed."""


@dataclass
class Way:
    """A way of scoring some pairs, and the seconds of its fastest turn."""

    name: str
    scorer: Scorer
    query: np.ndarray
    image: np.ndarray
    seconds: float = float("inf")

    def take_turn(self, image_tokens: torch.Tensor) -> None:
        self.seconds = min(self.seconds, seconds(lambda: self._score(image_tokens)))

    def _score(self, image_tokens: torch.Tensor) -> None:
        """As a run does: where the scorer goes on before scores are there, call by call."""
        images, scorer = self.scorer.prepare(image_tokens), self.scorer
        if not isinstance(scorer, Launching):
            scorer.score(images, self.query, self.image)
            return

        def launch(start: int) -> PendingScores:
            some = slice(start, start + AT_ONCE)
            return scorer.launch(images, self.query[some], self.image[some])

        for _ in ahead(launch, range(0, len(self.query), AT_ONCE), scorer.calls_under_way):
            pass

    @property
    def pairs_per_second(self) -> float:
        return len(self.query) / self.seconds


def main(
    rounds: Annotated[int, typer.Option(help="Turns of each way.")] = 3,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of the table.")] = False,
) -> None:
    """Pairs per second of the published loop, and of the engine at 40 and at 4 queries an image."""
    torch.manual_seed(0)
    where, queries = torch.device(device), draw_queries()
    model = Stage2Model(CONFIG).eval()
    image_tokens = torch.randn(IMAGES, VISION.tokens, VISION.width, device=where)
    engine = RerankEngine(model, queries, device=where)
    engine.score(image_tokens, np.array([0]), np.array([0]))  # begins the queries
    published = published_way(ReferenceScorer(model.to(where), queries), queries, IMAGES)
    ways = [engine_way(engine, images=3, per_image=40), engine_way(engine, images=12, per_image=4)]
    product = float("inf")
    for _ in range(rounds):
        product = min(product, seconds_of_product(where))
        for way in (published, *ways):
            way.take_turn(image_tokens)
    speed = 2 * MATRIX**3 / product
    result = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {device}",
        "torch": torch.__version__,
        "matmul_gflop_per_second": speed / 1e9,
        "ways": [told(way, published, CONFIG, queries, speed) for way in (published, *ways)],
        **agreement(published, engine, image_tokens),
    }
    print(json.dumps(result, indent=2) if as_json else table(result))


def draw_queries(text: TextConfig = TEXT) -> FusedQueries:
    """Lengths are evenly spaced quantiles, in random order."""
    rng = np.random.default_rng(0)
    middles = (np.arange(QUERIES) + 0.5) / QUERIES
    lengths = rng.permutation(np.quantile(FASHION_IQ_LENGTHS, middles, method="nearest"))
    return FusedQueries.of(
        [rng.standard_normal((length, text.width), dtype=np.float32) for length in lengths],
        [[30523, *rng.integers(1000, 30000, length - 2).tolist(), 102] for length in lengths],
    )


def published_way(scorer: ReferenceScorer, queries: FusedQueries, images: int) -> Way:
    """A few queries of usual lengths, each with half of the images."""
    places = QUERIES * np.array([1, 3, 5, 7]) // 8
    usual, half = np.argsort(queries.lengths)[places], images // 2
    query, image = np.repeat(usual, half), np.tile(np.arange(half), len(usual))
    return Way("published loop", scorer, query, image)


def engine_way(engine: RerankEngine, *, images: int, per_image: int) -> Way:
    pair = np.arange(images * per_image)
    return Way(f"engine, {per_image} an image", engine, pair % QUERIES, pair // per_image)


def seconds_of_product(
    device: torch.device, size: int = MATRIX, dtype: torch.dtype = torch.float32
) -> float:
    """The fastest of a few products of square matrices."""
    matrix = torch.randn(size, size, device=device, dtype=dtype)

    def multiply() -> None:
        (matrix @ matrix)[0, 0].item()  # waits for a GPU

    return min(seconds(multiply) for _ in range(6))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def told(
    way: Way, published: Way, config: Stage2Config, queries: FusedQueries, speed: float
) -> dict[str, Any]:
    """``ratio`` is that of pairs per second to the published loop's, ``possible`` that of FLOPs;
    ``share_of_matmul`` relates FLOP/s to a plain matrix product's ``speed``."""
    sizes, lengths = config.sizes, queries.lengths[way.query]
    load = Load.of(lengths, way.image, images=int(way.image.max()) + 1)
    in_published = published_flops(sizes, load)
    flops = in_published if way is published else engine_flops(sizes, load)
    return {
        "way": way.name,
        "pairs": len(way.query),
        "mean_tokens": float(lengths.mean()),
        "pairs_per_second": way.pairs_per_second,
        "ratio": way.pairs_per_second / published.pairs_per_second,
        "possible": in_published / flops,
        "gflop_per_pair": flops / len(way.query) / 1e9,
        "share_of_matmul": flops / way.seconds / speed,
    }


def agreement(published: Way, engine: RerankEngine, image_tokens: torch.Tensor) -> dict[str, float]:
    """Both ways' scores of the published way's pairs."""
    expected, found = (
        scorer.score(image_tokens, published.query, published.image)
        for scorer in (published.scorer, engine)
    )
    return {
        "largest_difference": float(np.abs(found - expected).max()),
        "standard_deviation": float(expected.std()),
    }


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['machine']}, torch {result['torch']}: "
        f"{result['matmul_gflop_per_second']:.0f} GFLOP/s in a plain matrix product",
        f"{'':22}{'pairs':>6}{'tokens':>8}{'GFLOP':>8}{'pairs/s':>9}{'ratio':>7}{'possible':>10}"
        f"{'of matmul':>11}",
    ]
    lines += [
        f"{row['way']:22}{row['pairs']:6}{row['mean_tokens']:8.1f}{row['gflop_per_pair']:8.2f}"
        f"{row['pairs_per_second']:9.2f}{row['ratio']:7.2f}{row['possible']:10.2f}"
        f"{row['share_of_matmul']:11.0%}"
        for row in result["ways"]
    ]
    lines.append(
        f"largest difference of a score {result['largest_difference']:.1e}, "
        f"standard deviation of the scores {result['standard_deviation']:.2f}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
