"""The dual encoder's engine on a GPU: is it exact, is it fast, does it go on when memory ends?"""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from gpu_scale import Found, Row, Scale
from precision import TOP, agreement
from rerank import MATRIX, engine_way, published_way, seconds_of_product, told

from cir_core.layers.precision import DTYPES, rounded_products
from cir_core.rerankers.dual import engine as engine_module
from cir_core.rerankers.dual import layers
from cir_core.rerankers.dual.engine import RerankEngine
from cir_core.rerankers.plain import ReferenceScorer
from cir_core.types import Precision
from tasks.stages.shard_scoring import AT_ONCE

TURNS = 3
PER_IMAGE = (40, 4)

CALLS = 4
"""Of the engine in a turn, as a run makes them: the next is launched while one is computed."""

ROOM = 3 * 2**28
"""Bytes that a GPU has left when its memory shall end: less than a block of 2,000 pairs takes."""


def exactness(scale: Scale, seconds: float) -> Found:
    """Each precision's scores against the published loop's in float64; and its own once more, the
    same pairs in another order and in small blocks."""
    del seconds
    images, queries = scale.image_tokens(scale.small(60, 14)), len(scale.queries.lengths)
    query, image = np.divmod(np.arange(queries * len(images)), len(images))
    exact = ReferenceScorer(copy.deepcopy(scale.model).double().to(scale.device), scale.queries)
    expected = exact.score(images.double(), query, image).reshape(queries, -1)
    rows, numbers = [], dict[str, Any]()
    for precision in scale.precisions:
        engine = RerankEngine(scale.model, scale.queries, device=scale.device, precision=precision)
        prepared = engine.prepare(images)
        found = engine.score(prepared, query, image).reshape(queries, -1)
        again = np.empty(found.size, dtype=np.float32)
        for some in np.array_split(np.random.default_rng(0).permutation(found.size), 7):
            again[some] = engine.score(prepared, query[some], image[some])
        numbers[precision] = one = compared(expected, found, again.reshape(queries, -1))
        rows.append(
            Row(
                f"{precision}: scores against float64 (deviation {expected.std():.2g})",
                f"largest difference {one['largest_difference']:.1e}, "
                f"first {TOP} shared {one['overlap']:.2%}, tau {one['tau']:.4f}, "
                f"{one['ties']} ties; shuffled and in other blocks {one['moved']:.1e}, "
                f"{one['changed']} of {queries} first {TOP} changed",
                "no tie" + (", 1e-5" if precision == "fp32" else ""),
            )
        )
    return Found(rows, numbers)


def by_number(scores: np.ndarray) -> dict[int, dict[int, float]]:
    """Of each query, its images' scores."""
    return {number: dict(enumerate(row)) for number, row in enumerate(scores.tolist())}


def compared(expected: np.ndarray, found: np.ndarray, again: np.ndarray) -> dict[str, float]:
    """Scores of each query's images; ``again`` are to be the same as ``found``."""
    overlap, tau = agreement(*(by_number(one) for one in (expected, found)))
    firsts, others = (np.argsort(-one, axis=1, kind="stable")[:, :TOP] for one in (found, again))
    return {
        "largest_difference": float(np.abs(found - expected).max()),
        "overlap": overlap,
        "tau": tau,
        "ties": sum(len(row) - len(np.unique(row)) for row in found),
        "moved": float(np.abs(found - again).max()),
        "changed": int((firsts != others).any(axis=1).sum()),
    }


def speed(scale: Scale, seconds: float) -> Found:
    """The engine in each precision against the published loop in fp32, in turn; and what share of a
    plain product's speed, in the same precision, it reaches."""
    del seconds
    counts = {per: CALLS * max(8, scale.small(AT_ONCE, 80) // per) for per in PER_IMAGE}
    images = scale.image_tokens(max(*counts.values(), scale.small(100, 8)))
    plain = ReferenceScorer(copy.deepcopy(scale.model).to(scale.device), scale.queries)
    published = published_way(plain, scale.queries, scale.small(100, 8))
    products = {precision: product_speed(scale, precision) for precision in scale.precisions}
    rows = [
        Row(f"plain product, {name}", f"{one / 1e12:.1f} TFLOP/s") for name, one in products.items()
    ]
    numbers: dict[str, Any] = {"flop_per_second": products}
    for precision in scale.precisions:
        engine = RerankEngine(scale.model, scale.queries, device=scale.device, precision=precision)
        ways = [engine_way(engine, images=count, per_image=per) for per, count in counts.items()]
        for _ in range(TURNS):
            for way in (published, *ways):
                way.take_turn(images)
        for per, way in zip(PER_IMAGE, ways, strict=True):
            of = told(way, published, scale.config, scale.queries, products[precision])
            numbers[f"{precision}, {per}"] = of
            rows.append(
                Row(f"engine, {precision}, {per} an image", in_words(of), goal(precision, per))
            )
    of = told(published, published, scale.config, scale.queries, products["fp32"])
    rows.append(Row("published loop, fp32", in_words(of)))
    return Found(rows, numbers | {"published": of})


def in_words(of: dict[str, Any]) -> str:
    return (
        f"{of['pairs_per_second']:,.0f} pairs/s, ratio {of['ratio']:.1f} "
        f"(by FLOPs {of['possible']:.1f}), {of['share_of_matmul']:.0%} of the product"
    )


def goal(precision: Precision, per_image: int) -> str:
    return "30, 45 %" if (precision, per_image) == ("bf16", 40) else ""


def product_speed(scale: Scale, precision: Precision) -> float:
    """FLOP/s of a plain product of square matrices."""
    size = scale.small(8192, MATRIX // 8)
    with rounded_products(precision):
        return 2 * size**3 / seconds_of_product(scale.device, size, DTYPES[precision])


def memory(scale: Scale, seconds: float) -> Found:
    """Scores when memory ends amid the work are those when it does not."""
    del seconds
    images = scale.image_tokens(52)
    ample, scarce = (RerankEngine(scale.model, scale.queries, device=scale.device) for _ in "12")
    way = engine_way(ample, images=52, per_image=40)
    expected = ample.score(images, way.query, way.image)
    scarce.score(images, way.query[:1], way.image[:1])  # begins the queries
    with told_by("cir_core.rerankers.dual.budget") as messages, little_memory(scale.device):
        found = scarce.score(images, way.query, way.image)
    difference = float(np.abs(found - expected).max())
    halved = f"halved {len(messages)} times, largest difference {difference:.1e}"
    row = Row("out of memory" + " (pretended)" * (scale.device.type == "cpu"), halved, "1e-5")
    return Found([row], {"messages": messages, "largest_difference": difference})


@contextmanager
def little_memory(device: torch.device) -> Iterator[None]:
    """Of a GPU. A CPU pretends: it raises what it would for more than so many rows."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        most = (torch.cuda.memory_reserved(device) + ROOM) / total
        torch.cuda.set_per_process_memory_fraction(most, device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        return
    attend = layers.attend_others

    def refusing(layer: Any, sizes: Any, x: torch.Tensor, *others: Any) -> torch.Tensor:
        if x.shape[1] > 700:
            torch.empty(2**55)
        return attend(layer, sizes, x, *others)

    with patch.object(engine_module, "attend_others", refusing):
        yield


@contextmanager
def told_by(logger: str) -> Iterator[list[str]]:
    """What it tells meanwhile."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(logger).addHandler(handler)
    try:
        yield messages
    finally:
        logging.getLogger(logger).removeHandler(handler)
