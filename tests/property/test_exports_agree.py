"""What others compute from an exported TREC run is what we measured, however many scores tie.

trec_eval (through ir_measures) and ranx read the files as anybody would. Both divide average
precision by the number of targets, CIRCO by min(targets, k): compared per query, times that ratio.
"""

import importlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, Success

from cir_core.types import Benchmark
from storage.artifacts import Artifact
from storage.store import LocalStore
from tasks.results.export import export
from tests.support.made_runs import circo_benchmark, cirr_benchmark, random_scores, write_run

pytestmark = pytest.mark.slow  # ranx takes seconds to import

IMAGES = 12

Values = dict[tuple[str, int], float]
"""By metric and k, of stage 2."""


@pytest.fixture(scope="module")
def ranx() -> Iterator[ModuleType]:
    """Interpreted: compiling its loops takes half a minute, and here they are short."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("NUMBA_DISABLE_JIT", "1")
        # Its LaTeX strings have escapes that Python warns of, once, when it compiles the module.
        for category in (DeprecationWarning, SyntaxWarning):  # up to Python 3.11, and after
            warnings.filterwarnings("ignore", "invalid escape sequence", category)
        yield importlib.import_module("ranx")


def measured(store: Path, evaluated: str, stage: str) -> Values:
    rows = Artifact(LocalStore(store), "evaluate", evaluated).read("metrics").to_pylist()
    return {(row["metric"], row["k"]): row["value"] for row in rows if row["stage"] == stage}


def by_trec_eval(folder: Path, stage: str, *, k: int, targets: int, grade: int) -> Values:
    qrels = list(ir_measures.read_trec_qrels(str(folder / "qrels.trec")))
    run = list(ir_measures.read_trec_run(str(folder / f"run_{stage}.trec")))
    recall = {Success(rel=grade) @ k: ("recall", k) for k in (1, 5, 10) if k <= IMAGES}
    precision = {AP @ 5: ("map", 5), AP @ 10: ("map", 10)}
    found = ir_measures.pytrec_eval.calc_aggregate([*recall, *precision, RR(rel=grade)], qrels, run)
    values = {name: found[measure] for measure, name in recall.items() if name[1] <= k}
    for measure, (name, at) in precision.items():
        if at <= k:
            values[name, at] = found[measure] * targets / min(targets, at)
    if k >= IMAGES:
        values["mrr", 0] = found[RR(rel=grade)]
    return values


def by_ranx(
    ranx: ModuleType, folder: Path, stage: str, *, k: int, targets: int, grade: int
) -> Values:
    qrels = ranx.Qrels.from_file(str(folder / "qrels.trec"), kind="trec")
    run = ranx.Run.from_file(str(folder / f"run_{stage}.trec"), kind="trec")

    def mean(measure: str) -> float:
        return float(ranx.evaluate(qrels, run, measure))

    values = {("recall", at): mean(f"hit_rate@{at}-l{grade}") for at in (1, 5, 10) if at <= k}
    for at in (5, 10):
        if at <= k:
            values["map", at] = mean(f"map@{at}") * targets / min(targets, at)
    if k >= IMAGES:
        values["mrr", 0] = mean(f"mrr-l{grade}")
    return values


def assert_agreement(
    ranx: ModuleType, benchmark: Benchmark, protocol: str, *, seed: int, levels: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    targets = len(benchmark.queries[0].targets)
    grade = 2 if protocol.startswith("circo") else 1  # recall on the first target
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        evaluated = write_run(
            store,
            benchmark,
            protocol=protocol,
            k=k,
            stage1=random_scores(benchmark, rng, levels),
            stage2=random_scores(benchmark, rng, levels),
        )
        for stage in ("stage1", "stage2"):
            (run_file, _) = export(LocalStore(store), "trec", stage=stage).files
            ours = measured(store, evaluated, stage)
            asked: dict[str, Any] = {"k": k, "targets": targets, "grade": grade}
            for theirs in (
                by_trec_eval(run_file.parent, stage, **asked),
                by_ranx(ranx, run_file.parent, stage, **asked),
            ):
                comparable = {name: value for name, value in theirs.items() if name in ours}
                assert {name: ours[name] for name in comparable} == pytest.approx(
                    comparable, abs=1e-9
                )
                assert ("recall", 1) in comparable
                assert (("map", 5) in comparable) == (protocol.startswith("circo") and k >= 5)
                assert (("mrr", 0) in comparable) == (k >= IMAGES)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([1, 2, 3, 1000]),
    k=st.sampled_from([3, 7, IMAGES]),
    targets=st.integers(1, 7),
)
def test_with_several_targets(
    ranx: ModuleType, seed: int, levels: int, k: int, targets: int
) -> None:
    benchmark = circo_benchmark(IMAGES, 4, targets=targets)
    assert_agreement(ranx, benchmark, "circo-kept-caption", seed=seed, levels=levels, k=k)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([1, 2, 3, 1000]))
def test_with_one_target_and_the_reference_removed(
    ranx: ModuleType, seed: int, levels: int
) -> None:
    benchmark = cirr_benchmark(IMAGES, 4)
    protocol = "cirr-removed-subset-scored"
    assert_agreement(ranx, benchmark, protocol, seed=seed, levels=levels, k=IMAGES)
