"""A whole run with models that share nothing with the published ones but the ports."""

from pathlib import Path

import numpy as np

from storage.models.folders import write_checkpoint
from tests.support.small_benchmarks import FIQ_QUERIES, Bench, K
from tests.support.toy_family import toy, toys_known


def test_a_run_of_another_family(fiq: Bench, tmp_path: Path) -> None:
    for stage, kind in (("1", "toy stage 1"), ("2", "toy stage 2")):
        model = toy(kind)  # type: ignore[arg-type]
        write_checkpoint(tmp_path / stage, model.config.model_dump(), model.state_dict())
    models = {"stage1": tmp_path / "1", "stage2": tmp_path / "2"}
    with toys_known():
        run = fiq.run(tmp_path / "store", **models, tokens="cache")
        again = fiq.run(tmp_path / "store", **models)
    assert again.made == ()
    assert run.report.is_file()
    candidates = run.evaluated.candidates
    assert candidates.encoded.setting("target_ratio") == 2.0
    assert candidates.encoded.setting("mean") == [0.0, 0.0, 0.0]
    fused = candidates.fused.read("queries")
    assert set(fused["z_t"].to_pylist()) == {b""}
    vectors = np.array(fused["embedding"].to_pylist())
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    rankings = run.evaluated.ranked.read("rankings")
    assert rankings.num_rows == 2 * FIQ_QUERIES * K
    assert np.isfinite(rankings["stage2_score"].to_numpy()).all()
