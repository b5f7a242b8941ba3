"""What a lower precision changes: whole runs in each, side by side, each part of the pass alone and
all together.

python benchmarks/precision.py             # bf16 against fp32 on the CPU, the demo's val
python benchmarks/precision.py --device cuda --precision tf32 --precision bf16 --precision fp16
python benchmarks/precision.py --full      # models of the published sizes, random weights
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from machine import machine
from plan import write_catalogue, write_models
from scipy.stats import kendalltau

from cir_core.metrics.bootstrap import difference_intervals
from cir_core.metrics.comparison import Answers, recall_interval
from flows.engines.engine import InProcess
from flows.run import Run, run_pipeline
from flows.settings import Settings
from storage.catalog import query

TOP = 10

PARTS = {
    "all": "precision",
    "encoder": "encoder_precision",
    "stage 1": "stage1_precision",
    "stage 2": "stage2_precision",
}
"""The setting of each part of the pass."""

IMAGES, QUERIES = 24, 24
"""At full size: a minute on two cores for each precision that they have instructions for."""


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[list[str] | None, typer.Option(help="Against fp32.")] = None,
    k: Annotated[int, typer.Option("-k", help="Candidates per query.")] = 50,
    full: Annotated[bool, typer.Option(help="The published sizes, not the demo.")] = False,
) -> None:
    """Recall of both stages with its paired interval, the share of stage 2's first ten that stays,
    Kendall's tau of all candidates, and ties of stage 2's scores."""
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "store"
        given = of_full_size(Path(name)) if full else {}
        k = min(k, IMAGES - 1) if full else k  # the reference is no candidate
        expected = run(store, device, InProcess(), k=k, **given)
        print(f"K = {k}, {device}, fp32: {told(store, expected)}, ties {ties(store, expected)}")
        for one in precision or ["bf16"]:
            for part, setting in PARTS.items():
                timed, asked = InProcess(), given | {setting: one}
                found = run(store, device, timed, k=k, **asked)
                overlap, tau = agreement(scores(store, expected), scores(store, found))
                print(
                    f"{one}, {part}: {changed(store, expected, found)}; overlap@{TOP} {overlap:.4f}"
                    f", tau {tau:.4f}, ties {ties(store, found)}; "
                    f"{sum(timed.seconds.values()):.0f} s"
                )


def run(store: Path, device: str, timed: InProcess, *, k: int = 50, **given: Any) -> Run:
    """The demo's val in fp32, where nothing else is ``given``."""
    settings = {"store": store, "device": device, "k": k, **given}
    return run_pipeline(Settings.model_validate(settings), timed)


def of_full_size(folder: Path) -> dict[str, Any]:
    """Own data and models in this folder, as settings."""
    write_catalogue(folder / "data", IMAGES, QUERIES)
    write_models(folder)
    models = {stage: folder / stage for stage in ("stage1", "stage2")}
    return {"dataset": "own", "data_root": folder / "data", **models}


def told(store: Path, run: Run) -> str:
    """The mean over categories."""
    category, found = ranks(store, run)
    answers = Answers(category, [found[:, 1]])
    first, top = (100 * recall_interval(answers, k).value for k in (1, TOP))
    return f"stage 2 R@1 {first:.2f}, R@{TOP} {top:.2f}"


def changed(store: Path, expected: Run, found: Run) -> str:
    """How much more recall, in points, and where that lies for other queries."""
    category, before = ranks(store, expected)
    _, after = ranks(store, found)
    words = []
    for stage, k in ((0, TOP), (1, 1), (1, TOP)):
        hits = np.stack([after[:, stage] <= k, before[:, stage] <= k], axis=1).astype(float)
        (gain,) = difference_intervals(category, hits, [(0, 1)])
        low, high = 100 * gain.low, 100 * gain.high
        words.append(f"stage {stage + 1} R@{k} {100 * gain.value:+.2f} [{low:+.2f}, {high:+.2f}]")
    return ", ".join(words)


def ranks(store: Path, run: Run) -> tuple[list[str], np.ndarray]:
    """Each query's category, and where both stages put its target."""
    _, rows = query(
        store / "cir.duckdb",
        "SELECT category, stage1_rank, stage2_rank FROM rank_movement "
        f"WHERE run_id = '{run.run_id}' AND pool = 'gallery' ORDER BY query_id",
    )
    return [row[0] for row in rows], np.array([row[1:] for row in rows])


def ties(store: Path, run: Run) -> int:
    """Candidates of a query that have another's score."""
    _, rows = query(
        store / "cir.duckdb",
        "SELECT sum(n)::BIGINT FROM (SELECT count(*) - count(DISTINCT stage2_score) AS n "
        f"FROM rankings WHERE run_id = '{run.run_id}' GROUP BY query_id, pool)",
    )
    return int(rows[0][0])


def scores(store: Path, run: Run) -> dict[str, dict[str, float]]:
    """Stage 2's score of every candidate of every query."""
    _, rows = query(
        store / "cir.duckdb",
        "SELECT query_id, map(list(image_id), list(stage2_score)) FROM rankings "
        f"WHERE run_id = '{run.run_id}' GROUP BY query_id",
    )
    return dict(rows)


def agreement(
    expected: Mapping[Any, Mapping[Any, float]], found: Mapping[Any, Mapping[Any, float]]
) -> tuple[float, float]:
    """Means over queries; tau of the candidates that both have."""
    overlaps, taus = [], []
    for name, values in expected.items():
        others = found[name]
        firsts = [set(sorted(both, key=lambda one: -both[one])[:TOP]) for both in (values, others)]
        overlaps.append(len(firsts[0] & firsts[1]) / len(firsts[0]))
        common = values.keys() & others.keys()
        pairs = np.array([(values[one], others[one]) for one in common])
        taus.append(kendalltau(*pairs.T).statistic)
    return float(np.mean(overlaps)), float(np.mean(taus))


if __name__ == "__main__":
    typer.run(main)
