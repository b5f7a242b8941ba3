"""Counted FLOPs are those that torch counts, and the budget bounds the memory that is used."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Int
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from cir_core.layers.config import TextConfig, VisionConfig
from cir_core.memory import free_memory, is_out_of_memory
from cir_core.ports import FusedQueries, Load, Scorer
from cir_core.rerankers.dual.budget import Budget
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.cost import (
    Sizes,
    absorbed_rows,
    begin_flops,
    engine_flops,
    published_flops,
)
from cir_core.rerankers.dual.engine import RerankEngine
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.rerankers.plain import ReferenceScorer
from tests.support.tiny_models import fill, tiny_stage2

CPU = torch.device("cpu")
PUBLISHED = Sizes(
    width=768, heads=12, feed_forward=3072, layers=12, merge_from=6, image_width=768, patches=577
)


def queries_of(model: Stage2Model, lengths: Int[np.ndarray, " query"]) -> FusedQueries:
    rng, text = np.random.default_rng(0), model.config.text
    return FusedQueries.of(
        [rng.standard_normal((n, text.width)).astype(np.float32) for n in lengths],
        [rng.integers(0, text.vocabulary_size, n).tolist() for n in lengths],
    )


def images_of(model: Stage2Model, count: int) -> torch.Tensor:
    return torch.randn(count, model.config.vision.tokens, model.config.vision.width)


def counted(scorer: Scorer, images: torch.Tensor, pairs: np.ndarray) -> int:
    """By torch, which knows attention on the CPU only as the products it is made of."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        scorer.score(images, pairs[:, 0], pairs[:, 1])
    return counter.get_total_flops()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("layers", "merge_from"), [(1, 0), (2, 0), (3, 1), (3, 3)])
def test_flops_are_those_that_torch_counts(seed: int, layers: int, merge_from: int) -> None:
    """Of five patches: images that up to 4 tokens look at are absorbed, others projected."""
    rng = np.random.default_rng(seed)
    model = tiny_stage2(layers=layers, merge_from=merge_from)
    lengths = rng.integers(1, 5, 4)
    queries, images, sizes = queries_of(model, lengths), images_of(model, 3), model.config.sizes
    pairs = np.stack([rng.integers(0, 4, 6), rng.integers(0, 3, 6)], axis=1)
    load = Load.of(lengths[pairs[:, 0]], pairs[:, 1], images=len(images))
    reference = ReferenceScorer(model, queries)
    assert counted(reference, images, pairs) == published_flops(sizes, load)
    engine = RerankEngine(model, queries, device=CPU, memory=2**26)
    begun, scored = begin_flops(sizes, lengths), engine_flops(sizes, load)
    assert counted(engine, images, pairs) == begun + scored
    assert counted(engine, images, pairs) == scored


def test_the_published_pair_costs_39_gflop_and_ours_a_sixth() -> None:
    lengths, pair = np.full(4000, 14), np.arange(4000)
    published = published_flops(PUBLISHED, Load.of(lengths, pair, images=len(pair)))
    assert published / len(pair) == pytest.approx(39.0e9, rel=0.01)
    # up to 62 tokens of an image, its work is proportional to them
    for per_image, times in ((40, 6.09), (4, 3.15), (1, 3.15)):
        ours = engine_flops(PUBLISHED, Load.of(lengths, pair // per_image, images=len(pair)))
        assert published / ours == pytest.approx(times, abs=0.005)


def test_flops_of_a_billion_pairs_are_not_too_many() -> None:
    """Of one pair and of a billion like it; 64 bits hold a fifth of these."""
    one = Load(pairs=np.array([1]), tokens=np.array([14]), looks=np.array([196]))
    many = Load(*(10**9 * numbers for numbers in (one.pairs, one.tokens, one.looks)))
    assert published_flops(PUBLISHED, many) == 10**9 * published_flops(PUBLISHED, one) > 2**63


@pytest.mark.parametrize("heads", [1, 2, 12])
def test_images_are_absorbed_up_to_where_it_costs_as_much(heads: int) -> None:
    sizes = Sizes(24, heads, 8, 2, 1, image_width=12, patches=9)
    rows = np.arange(1, 30)
    pixels = sizes.patches * sizes.image_width
    projecting = 4 * sizes.width * (pixels + rows * sizes.patches)
    absorbing = 4 * rows * (sizes.width * sizes.image_width + heads * pixels)
    assert absorbed_rows(sizes) == max(rows[absorbing < projecting], default=0)
    assert absorbed_rows(PUBLISHED) == 62


@pytest.mark.parametrize(("feed_forward", "grouped"), [(24, False), (192, False), (24, True)])
@pytest.mark.parametrize("memory", [800_000, 2_000_000, 2**26])
def test_the_work_stays_within_the_memory(
    feed_forward: int, memory: int, grouped: bool, tmp_path: Path
) -> None:
    vision = VisionConfig(image_size=64, patch_size=8, width=48, depth=1, heads=2, mlp_width=8)
    text = TextConfig(
        vocabulary="demo", vocabulary_size=180, width=48, layers=2, heads=2,
        feed_forward=feed_forward, positions=40,
    )  # fmt: skip
    config = Stage2Config(kind="stage2", vision=vision, text=text, merge_from=1)
    model = fill(Stage2Model(config), 1)
    rng = np.random.default_rng(0)
    engine = RerankEngine(
        model,
        queries_of(model, rng.integers(2, 30, 80)),
        device=CPU,
        memory=memory,
        grouped=grouped,
    )
    images = images_of(model, 5)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        engine.score(images, rng.integers(0, 80, 400), rng.integers(0, 5, 400))
    used = _peak_bytes(profiled, tmp_path / "trace.json")
    assert used <= memory
    least = memory / (4 if grouped else 2)  # a budget that is not used would be a poor one
    assert used > least or memory == 2**26


def _peak_bytes(profiled: profile, trace: Path) -> int:
    """The most that was allocated at once; torch tells single allocations only in its trace."""
    profiled.export_chrome_trace(str(trace))
    events = [e for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "[memory]"]
    changes = [event["args"]["Bytes"] for event in sorted(events, key=lambda event: event["ts"])]
    return int(np.cumsum(changes).max())


def test_without_a_setting_half_of_the_free_memory_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cir_core.rerankers.dual.budget.free_memory", lambda _device: 100 * 2**20)

    def tokens(memory: int | None) -> int:
        return Budget(
            memory, PUBLISHED, query_tokens=0, device=CPU, dtype=torch.float32
        ).most_tokens

    assert tokens(None) == tokens(50 * 2**20) < tokens(2**40) == 2048
    assert tokens(1) == 1


def test_free_memory_and_its_end_are_recognised() -> None:
    assert 2**20 < free_memory(CPU) < 2**50
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
