"""All that is to be known of a GPU, in eight minutes: what is exact, what is fast, what is not.

    python benchmarks/gpu.py --json gpu.json         # on an H100 or H200; `make bench-gpu`
    python benchmarks/gpu.py --tiny --device cpu     # the same in small, to try it, in a minute

Nothing is fetched: pictures are drawn and weights are random, but for the demo's. What is needed
beside torch is in ``gpu-wheels.txt``. A part that fails, or takes twice its time, is told and loses
no other; the file is written after each; what the eight minutes are too short for is told to be
missing. The table is for docs/performance.md.
"""

import json
import logging
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NamedTuple

import gpu_engine
import gpu_pipeline
import torch
import typer
from gpu_scale import Found, Row, Scale
from machine import machine

MOST = 480.0
"""Seconds for all parts together."""


class Part(NamedTuple):
    """So many of these, more or less; the most wanted come first."""

    seconds: float
    measure: Callable[[Scale, float], Found]


PARTS = {
    "exactness": Part(45, gpu_engine.exactness),
    "speed": Part(60, gpu_engine.speed),
    "whole": Part(170, gpu_pipeline.whole),
    "encode": Part(30, gpu_pipeline.encode),
    "memory": Part(20, gpu_engine.memory),
    "index": Part(15, gpu_pipeline.index),
    "demo": Part(90, gpu_pipeline.demo),
}


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu.")] = "cuda",
    tiny: Annotated[bool, typer.Option("--tiny", help="All in small; says nothing.")] = False,
    part: Annotated[list[str] | None, typer.Option(help="These alone, of all.")] = None,
    out: Annotated[Path, typer.Option("--json", help="Write all numbers there.")] = Path(
        "gpu.json"
    ),
) -> None:
    """Measure part by part, and print a table."""
    logging.basicConfig(level=logging.WARNING)
    scale = Scale(torch.device(device), tiny)
    told: dict[str, Any] = {"machine": machine(), "device": device, "tiny": tiny, "parts": {}}
    rows, all_began = list[Row](), time.perf_counter()
    for name in part or PARTS:
        began = time.perf_counter()
        found = measured(PARTS[name], scale, left=MOST - (began - all_began))
        took = time.perf_counter() - began
        print(f"{name}: {took:.1f} s", flush=True)
        rows += found.rows
        told["parts"][name] = {"seconds": took, "rows": found.rows, **found.numbers}
        out.write_text(json.dumps(told, indent=1, default=str) + "\n")
    print(f"\n{told['machine']}\n\n{table(rows)}")


def measured(part: Part, scale: Scale, left: float) -> Found:
    """What the part has found; or why it has not."""
    try:
        with at_most(min(2 * part.seconds, left)):
            return part.measure(scale, min(part.seconds, left))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts go on
        traceback.print_exc()
        what = part.measure.__name__
        return Found([Row(what, f"failed: {type(error).__name__}: {error}".splitlines()[0])])
    finally:
        if scale.device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError when it takes longer, or at once where no time is left."""
    if seconds <= 0:
        raise TimeoutError("no time was left")

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def table(rows: Sequence[Row]) -> str:
    lines = ["| what | goal | measured |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {row.what} | {row.goal} | {row.measured} |" for row in rows)])


if __name__ == "__main__":
    typer.run(main)
