"""Stage 1's score as part of stage 2's: a setting of the model, which runs apply by themselves."""

import dataclasses
import json
import shutil
from typing import Any

import pytest

from storage.catalog import query
from tasks.models.opening import open_stage1, open_stage2
from tests.support.small_benchmarks import Bench, Finished, Pair
from tests.support.workshop import Workshop

PRIOR = 9.5
ROWS = (
    "SELECT query_id, pool, image_id, stage1_score, stage2_score, rank FROM rankings "
    "ORDER BY query_id, pool, rank"
)


@pytest.fixture(scope="module")
def with_prior(tmp_path_factory: pytest.TempPathFactory, cirr: Bench) -> Finished:
    """CIRR's run with a stage 2 that differs from the other only in its prior."""
    stage2 = tmp_path_factory.mktemp("prior") / "stage2"
    shutil.copytree(cirr.pair.stage2, stage2)
    config = json.loads((stage2 / "config.json").read_text())
    (stage2 / "config.json").write_text(json.dumps(config | {"prior": PRIOR}))
    bench = dataclasses.replace(cirr, pair=Pair(cirr.pair.stage1, stage2))
    return bench.finish(tmp_path_factory.mktemp("stores") / "prior")


def rows(finished: Finished) -> list[tuple[Any, ...]]:
    return query(finished.store / "cir.duckdb", ROWS)[1]


def test_a_final_score_is_stage_2s_and_prior_times_the_cosine(
    cirr_run: Finished, with_prior: Finished
) -> None:
    plain = {row[:3]: row[3:5] for row in rows(cirr_run)}
    found = {row[:3]: row[3:5] for row in rows(with_prior)}
    assert plain.keys() == found.keys()
    for pair, (cosine, score) in found.items():
        assert cosine == plain[pair][0]
        assert score == pytest.approx(plain[pair][1] + PRIOR * cosine, rel=1e-6)
    assert any(abs(cosine) > 0.1 for cosine, _ in found.values())


def test_ranks_follow_the_final_score(cirr_run: Finished, with_prior: Finished) -> None:
    order: dict[tuple[str, str], list[float]] = {}
    for query_id, pool, _, _, score, _ in rows(with_prior):
        order.setdefault((query_id, pool), []).append(score)
    assert all(scores == sorted(scores, reverse=True) for scores in order.values())
    assert [row[:3] for row in rows(with_prior)] != [row[:3] for row in rows(cirr_run)]


def test_catalog_report_and_identity_tell_the_prior(
    cirr_run: Finished, with_prior: Finished
) -> None:
    for finished, prior in ((cirr_run, 0.0), (with_prior, PRIOR)):
        assert query(finished.store / "cir.duckdb", "SELECT prior FROM runs")[1] == [(prior,)]
        page = finished.run.report.read_text()
        assert ("9.5 times stage 1's cosine" in page) == bool(prior)
        (manifest,) = (finished.store / "artifacts" / "rerank").rglob("manifest.json")
        assert json.loads(manifest.read_text())["identity"]["settings"]["prior"] == prior
    assert cirr_run.run.evaluated != with_prior.run.evaluated


def test_training_writes_the_prior_in_units_of_the_cosine(
    pretrained: Workshop,
) -> None:
    """A recipe counts in stage 1's logits: its cosines over its temperature."""
    base = pretrained.folder / "pretrain" / "best"
    file = pretrained.folder / "prior.toml"
    file.write_text('preset = "demo"\n[stage2]\nprior = 0.5\nepochs = 1\n')
    stage2 = pretrained.train("stage2", recipe=str(file), stage1=base)
    temperature = open_stage1(base).temperature.item()
    assert open_stage2(stage2).config.prior == pytest.approx(0.5 / temperature)
    assert "prior: 0.5" in (stage2 / "README.md").read_text()
