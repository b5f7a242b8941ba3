"""A lower precision keeps the ranking nearly, and is refused where it does not exist."""

import numpy as np
import pytest
import torch

from cir_core.errors import UsageError
from cir_core.layers.precision import require_precision, rounded_products
from cir_core.ports import FusedQueries
from cir_core.rerankers.dual import engine
from cir_core.rerankers.dual.engine import RerankEngine
from cir_core.types import Precision
from tests.support.tiny_models import TEXT, VISION, tiny_stage2

pytestmark = pytest.mark.numeric

CPU, QUERIES, IMAGES = torch.device("cpu"), 6, 40
PAIRS = np.divmod(np.arange(QUERIES * IMAGES), IMAGES)


def scores(precision: Precision) -> np.ndarray:
    rng = np.random.default_rng(5)
    images = torch.from_numpy(
        rng.standard_normal((IMAGES, VISION.tokens, VISION.width), np.float32)
    )
    queries = FusedQueries.of(
        [rng.standard_normal((4, TEXT.width), np.float32) for _ in range(QUERIES)],
        [rng.integers(0, TEXT.vocabulary_size, 4).tolist() for _ in range(QUERIES)],
    )
    scorer = RerankEngine(tiny_stage2(), queries, device=CPU, precision=precision)
    return scorer.score(scorer.prepare(images), *PAIRS).reshape(QUERIES, IMAGES)


def test_bf16_keeps_most_of_the_ranking_and_ties_nothing() -> None:
    exact, coarse = scores("fp32"), scores("bf16")
    assert coarse.dtype == np.float32
    assert not np.array_equal(exact, coarse)
    # 8 bits are a relative error of 0.4 percent a rounding, and there are some fifty in a row
    assert (exact - coarse).std() < 0.05 * exact.std()
    for row, other in zip(exact, coarse, strict=True):
        assert len(set(np.argsort(-row)[:10]) & set(np.argsort(-other)[:10])) >= 8
        assert len(set(other)) == IMAGES  # the head is fp32: in bf16 neighbours would tie


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_a_cpu_refuses_what_only_gpus_have(precision: Precision) -> None:
    with pytest.raises(UsageError, match=precision):
        RerankEngine(tiny_stage2(), FusedQueries.of([], []), device=CPU, precision=precision)


@pytest.mark.parametrize(
    ("capability", "usable"),
    [((7, 5), {"fp32", "fp16"}), ((8, 0), {"fp32", "tf32", "bf16", "fp16"})],
)
def test_what_a_gpu_has_depends_on_its_age(
    capability: tuple[int, int], usable: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    every: list[Precision] = ["fp32", "tf32", "bf16", "fp16"]
    for precision in every:
        if precision in usable:
            require_precision(precision, torch.device("cuda"))
        else:
            with pytest.raises(UsageError):
                require_precision(precision, torch.device("cuda"))


def test_products_are_rounded_inside_only_and_only_if_asked() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    with rounded_products("tf32"):
        assert matmul.allow_tf32
        with rounded_products("fp32"):
            assert not matmul.allow_tf32
        assert matmul.allow_tf32  # somebody else's choice is left as it was
    assert matmul.allow_tf32 == before


def test_the_score_head_is_fp32_in_tf32_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on the CPU, which has no tf32: only the switch is watched."""
    seen: list[tuple[str, bool]] = []

    def watch(name: str) -> None:
        plain = getattr(engine, name)

        def watching(*arguments: object, **options: object) -> object:
            seen.append((name, torch.backends.cuda.matmul.allow_tf32))
            return plain(*arguments, **options)

        monkeypatch.setattr(engine, name, watching)

    watch("feed_forward")
    watch("read_scores")
    monkeypatch.setattr(engine, "require_precision", lambda *_: None)
    scores("tf32")
    assert set(seen) == {("feed_forward", True), ("read_scores", False)}
