"""The page on a hundred million images says what its arithmetic says, with the models' counts."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cir_core.ports import Load
from cir_core.rerankers.dual.cost import engine_flops
from cir_core.retrievers.blip.config import PUBLISHED

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """As it is when it is run: beside the other benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("scale")


def test_the_page_has_the_tables_of_its_arithmetic(scale: ModuleType) -> None:
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    tables = scale.tables(scale.Task(), scale.Prices())
    assert len(tables) == 5
    for table in tables:
        assert str(table) in page


def test_what_it_counts_is_what_the_models_count(scale: ModuleType) -> None:
    cost, rerank = scale.cost, importlib.import_module("rerank")
    lengths = rerank.FASHION_IQ_LENGTHS
    assert pytest.approx(lengths.mean() * PUBLISHED.text.width * 4, rel=1e-3) == cost.Z_T
    assert PUBLISHED.embedding == cost.WIDTH
    vision = PUBLISHED.vision
    assert vision.tokens * vision.width * 4 == cost.TOKENS
    asked = PUBLISHED.asking_flops(lengths) / len(lengths)
    assert pytest.approx(0.41 * 729e12 / asked, rel=0.01) == cost.ASKED
    sizes, drawn = rerank.CONFIG.sizes, np.random.default_rng(0).choice(lengths, size=2000)
    alone, fours = (
        engine_flops(sizes, Load.of(drawn, np.arange(2000) // each, images=2000 // each))
        for each in (1, 4)
    )
    assert alone / 2000 == pytest.approx(12.7e9, rel=0.01)
    assert alone / fours < 1.03


def test_other_sizes_and_prices_give_other_bills(scale: ModuleType) -> None:
    task = scale.Task(images=1_000_000, queries=10_000)
    cheap, dear = (
        scale.dollars(task, scale.Prices(gpu_hour=price)).rows[0][3] for price in (10, 1000)
    )
    assert [one.partition(": ")[2] for one in (cheap, dear)] == ["8", "804"]
