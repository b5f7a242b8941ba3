"""Is a run done when its plan said? Plans and then runs: the demo, and a sample of full size.

    python benchmarks/plan.py demo
    python benchmarks/plan.py full      # 24 images, 24 queries, random weights; 1 GB of disk
    python benchmarks/plan.py full --device cuda --images 15415 --queries 6016 -k 100

Both times are of this machine within minutes; on a busy one they differ by what else it does.
"""

import csv
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from encoding import DRAWN, photo
from full_size import TEXT, VISION

from cir_core.layers.config import TextConfig, VisionConfig
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.retrievers.blip.config import Stage1Config
from cir_core.retrievers.blip.fusion import Stage1Model
from flows.engines.engine import InProcess
from flows.plan import make_plan
from flows.run import run_pipeline
from flows.settings import Settings
from tasks.models.opening import save_model

WORDS = (
    *("is", "a", "red", "longer", "dress", "with", "short", "sleeves"),
    *("and", "more", "floral", "the", "same", "but", "without", "belt"),
)

TASKS = {"fuse": "encode"}
"""One task makes two stages; the others bear their stage's name."""

Device = Annotated[str, typer.Option(help="cpu, cuda or auto.")]

app = typer.Typer(help=__doc__, add_completion=False)


@app.command()
def demo(device: Device = "auto") -> None:
    """The embedded default, in a new store."""
    with tempfile.TemporaryDirectory() as folder:
        compare(Settings(store=Path(folder), device=device))


@app.command()
def full(
    device: Device = "auto",
    images: Annotated[int, typer.Option(min=2)] = 24,
    queries: Annotated[int, typer.Option(min=1)] = 24,
    k: Annotated[int, typer.Option("-k", min=1)] = 12,
) -> None:
    """Own data with models of the published sizes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_catalogue(folder / "data", images, queries)
        write_models(folder)
        compare(
            Settings(
                dataset="own",
                data_root=folder / "data",
                store=folder / "store",
                stage1=folder / "stage1",
                stage2=folder / "stage2",
                k=k,
                device=device,
            )
        )


def write_catalogue(root: Path, images: int, queries: int) -> None:
    """Photos, and texts about as long as Fashion-IQ's. Beyond some, photos are others' pixels in
    files of their own bytes: a picture is what its bytes are."""
    root.mkdir()
    rng = np.random.default_rng(0)
    drawn = []
    for row in range(images):
        path = root / f"{row}.jpg"
        if row < DRAWN:
            photo(rng).save(path, quality=90)
            drawn.append(path.read_bytes())
        else:
            path.write_bytes(drawn[row % DRAWN] + row.to_bytes(4, "big"))
    with (root / "queries.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["reference", "text", "target"])
        for row in range(queries):
            text = " ".join(rng.choice(WORDS, rng.integers(6, 19)))
            table.writerow([f"{row % images}.jpg", text, f"{(row + 1) % images}.jpg"])


def write_models(folder: Path, vision: VisionConfig = VISION, text: TextConfig = TEXT) -> None:
    torch.manual_seed(0)
    first = Stage1Model(Stage1Config(kind="stage1", vision=vision, text=text, embedding=256))
    save_model(first, folder / "stage1", dtype=torch.float16)
    merge_from = text.layers // 2
    second = Stage2Model(
        Stage2Config(kind="stage2", vision=vision, text=text, merge_from=merge_from)
    )
    second.vision = first.vision
    save_model(second, folder / "stage2", dtype=torch.float16)


def compare(settings: Settings) -> None:
    """A row per task, and the sum; the start of Python and its imports are in neither."""
    began = time.perf_counter()
    plan = make_plan(settings, started=0)
    print(f"planned in {time.perf_counter() - began:.1f} s")
    timed = InProcess()
    began = time.perf_counter()
    run_pipeline(settings, timed)
    took = time.perf_counter() - began
    planned: dict[str, float] = {}
    for stage in plan.stages:
        task = TASKS.get(stage.stage, stage.stage)
        planned[task] = planned.get(task, 0.0) + stage.effort.seconds
    for task, seconds in planned.items():
        print(f"{task:14}{seconds:8.1f} s planned{timed.seconds[task]:8.1f} s taken")
    print(f"{'all':14}{plan.seconds:8.1f} s planned{took:8.1f} s taken: {plan.seconds / took:.2f}")


if __name__ == "__main__":
    app()
