"""Runs whose stage 1 was never trained for composed queries: CLIP, SigLIP, textual inversion."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cir_core.errors import CheckpointRefused, ProblemsFound, UsageError
from storage.catalog import query
from storage.models.folders import write_checkpoint
from storage.views import Fused
from tests.support.small_benchmarks import Bench
from tests.support.tiny_towers import tiny_clip, tiny_inversion, tiny_siglip


def written(model: Any, folder: Path) -> Path:
    write_checkpoint(folder, model.config.model_dump(), model.state_dict())
    return folder


def made(bench: Bench, store: Path, stage1: Path, **changes: Any) -> tuple[Fused, tuple[str, ...]]:
    run = bench.run(store, stage1=stage1, stage2=None, until="retrieve", **changes)
    fused = run.artifacts["fuse"]
    assert isinstance(fused, Fused)
    return fused, run.made


def vectors(fused: Fused) -> np.ndarray:
    return np.array(fused.read("queries")["embedding"].to_pylist())


@pytest.mark.parametrize("build", [tiny_clip, tiny_siglip])
def test_another_weight_is_another_artifact_and_the_models_own_is_none(
    fiq: Bench, tmp_path: Path, build: Callable[[], Any]
) -> None:
    stage1, store = written(build(), tmp_path / "1"), tmp_path / "store"
    first, _ = made(fiq, store, stage1)
    again, work = made(fiq, store, stage1, text_weight=0.5)
    assert again.fingerprint == first.fingerprint
    assert work == ()
    assert "text_weight" not in first.identity()["settings"]
    assert set(first.read("queries")["z_t"].to_pylist()) == {b""}
    text, work = made(fiq, store, stage1, text_weight=1)
    assert "encode" not in work, "the gallery stays as it is"
    assert text.setting("text_weight") == 1
    image, _ = made(fiq, store, stage1, text_weight=0)
    between = vectors(text) + vectors(image)
    between /= np.linalg.norm(between, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors(first), between, rtol=0, atol=1e-5)
    require_told(store, {None, 0.0, 1.0})


def require_told(store: Path, weights: set[float | None]) -> None:
    """By the catalog and by each run's report."""
    _, rows = query(store / "cir.duckdb", "SELECT run_id, text_weight FROM runs")
    assert {weight for _, weight in rows} == weights
    for run_id, weight in rows:
        page = (store / "reports" / run_id / "index.html").read_text().replace("&#39;", "'")
        assert ("share of a query" in page) == (weight is not None)
        assert weight is None or f", the text's share of a query {weight:.4g}." in page


def test_textual_inversion_runs_and_lists_prompts_that_are_too_long(
    fiq: Bench, tmp_path: Path
) -> None:
    word = tiny_clip().config.tokenizer()(["$"])[0][1]
    stage1 = written(tiny_inversion(word), tmp_path / "whole")
    fused, _ = made(fiq, tmp_path / "store", stage1)
    assert np.allclose(np.linalg.norm(vectors(fused), axis=1), 1)
    short = written(tiny_inversion(word, positions=20), tmp_path / "short")
    with pytest.raises(ProblemsFound) as problems:
        made(fiq, tmp_path / "store", short)
    assert "tokens, the model reads 20, and none is cut off" in problems.value.item


def test_a_weight_is_refused_where_there_is_nothing_to_weigh(fiq: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not weigh image and text") as refusal:
        fiq.run(tmp_path / "store", text_weight=0.3)
    assert "leave --text-weight out" in refusal.value.remedy


def test_a_stage_2_that_reads_z_t_is_refused_before_any_work(fiq: Bench, tmp_path: Path) -> None:
    stage1 = written(tiny_clip(), tmp_path / "1")
    with pytest.raises(CheckpointRefused, match="reads z_t, and this stage 1 has none") as refusal:
        fiq.run(tmp_path / "store", stage1=stage1)
    assert "variant.reference = image" in refusal.value.remedy
