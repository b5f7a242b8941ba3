"""What a lower precision changes in the demo's rankings: whole runs in each, side by side.

python benchmarks/precision.py             # bf16 against fp32 on the CPU, a minute
python benchmarks/precision.py --device cuda --precision tf32 --precision bf16 --precision fp16
"""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.stats import kendalltau

from flows.engines.engine import InProcess
from flows.run import Run, run_pipeline
from flows.settings import Settings
from storage.catalog import query

TOP = 10


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[list[str] | None, typer.Option(help="Against fp32.")] = None,
) -> None:
    """Recall, the share of the first ten that stays, and Kendall's tau of all candidates."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        expected = run(store, device, "fp32", InProcess())
        print(f"demo val, K = 50, {device}: {told(store, expected)} in fp32")
        for name in precision or ["bf16"]:
            found = run(store, device, name, InProcess())
            overlap, tau = agreement(scores(store, expected), scores(store, found))
            print(f"{told(store, found)} in {name}: overlap@{TOP} {overlap:.4f}, tau {tau:.4f}")


def run(store: Path, device: str, precision: str, engine: InProcess, k: int = 50) -> Run:
    settings = {"store": store, "device": device, "precision": precision, "k": k}
    return run_pipeline(Settings.model_validate(settings), engine)


def told(store: Path, run: Run) -> str:
    _, rows = query(
        store / "cir.duckdb",
        "SELECT value FROM metrics WHERE category = 'average' AND metric = 'recall' "
        f"AND stage = 'stage2' AND k IN (1, {TOP}) AND run_id = '{run.run_id}' ORDER BY k",
    )
    first, top = (100 * value for (value,) in rows)
    return f"stage 2 R@1 {first:.2f}, R@{TOP} {top:.2f}"


def scores(store: Path, run: Run) -> dict[str, np.ndarray]:
    """Every query's stage 2 scores, its candidates in the order of their ids."""
    _, rows = query(
        store / "cir.duckdb",
        "SELECT query_id, list(stage2_score ORDER BY image_id) FROM rankings "
        f"WHERE run_id = '{run.run_id}' GROUP BY query_id",
    )
    return {name: np.array(values) for name, values in rows}


def agreement(expected: dict[str, Any], found: dict[str, Any]) -> tuple[float, float]:
    """Means over queries."""
    overlaps, taus = [], []
    for name, values in expected.items():
        firsts = [set(np.argsort(-both)[:TOP].tolist()) for both in (values, found[name])]
        overlaps.append(len(firsts[0] & firsts[1]) / len(firsts[0]))
        taus.append(kendalltau(values, found[name]).statistic)
    return float(np.mean(overlaps)), float(np.mean(taus))


if __name__ == "__main__":
    typer.run(main)
