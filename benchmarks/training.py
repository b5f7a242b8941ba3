"""What keeping image tokens saves in stage 2's training, and what a full-size step needs.

    python benchmarks/training.py epoch     # demo scale: cached against recomputed, in one run
    python benchmarks/training.py memory    # full size, random weights: one step's time and memory

Ratios are what counts: both ways are measured in turn on the same machine, in the same process.
"""

import resource
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from full_size import TEXT, VISION

from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.retrievers.blip.config import Stage1Config
from cir_core.retrievers.blip.fusion import Stage1Model
from cir_core.training.gradients import Compute
from cir_core.training.loop import fit, optimiser, total_steps
from cir_core.training.presets import PRESETS
from cir_core.training.recipes import Stage2Recipe
from cir_core.training.stage2 import Stage2Training
from cir_core.training.triplets import Triplets
from flows.engines.engine import InProcess
from flows.inputs import resolve_inputs
from flows.run import ingest_split
from flows.settings import Settings, shipped_model
from tasks.models.opening import open_stage1, open_stage2
from tasks.stages.tokens import tokens_of
from tasks.training.triplets import read_triplets

app = typer.Typer(help=__doc__, add_completion=False)


@app.command()
def epoch(
    store: Annotated[Path, typer.Option(help="Where the demo's training split is drawn.")],
    steps: Annotated[int, typer.Option(help="Steps of each way, in turns of ten.")] = 40,
) -> None:
    """Stage 2 of the preset demo: its steps with kept tokens, and with a ViT pass each."""
    engine, settings = InProcess(), Settings(store=store, split="train", device="cpu", workers=0)
    inputs, stage1 = resolve_inputs(settings), shipped_model("stage1")
    ingested = ingest_split(settings, inputs, engine).ingested
    tokens = tokens_of(ingested, stage1, inputs.data_root, "fp32")
    engine.make(tokens, inputs.machine)
    recipe = PRESETS["demo"].stage2.model_copy(update={"hard": 0, "random": 10})
    ways = {}
    for name, kept in (("cached", tokens.made), ("recomputed", None)):
        model = open_stage1(stage1)
        triplets = read_triplets(
            inputs.data_root, inputs.dataset, ingested, kept, model, recipe.captions
        )
        reranker = open_stage2(shipped_model("stage2"))
        ways[name] = Stage2Training(reranker, model, triplets, recipe, torch.device("cpu"))
    seconds = dict.fromkeys(ways, 0.0)
    runs = {
        name: fit(one, recipe, optimiser(one, recipe), Compute.on("cpu"))
        for name, one in ways.items()
    }
    for _ in range(steps // 10):
        for name, run in runs.items():
            began = time.perf_counter()
            for _ in range(10):
                next(run)
            seconds[name] += time.perf_counter() - began
    per_epoch = total_steps(recipe, len(ways["cached"])) / recipe.epochs
    for name, taken in seconds.items():
        step = taken / (steps // 10 * 10)
        print(f"{name:10} {step:.3f} s a step, {step * per_epoch / 60:.1f} min an epoch")
    print(f"recomputed / cached: {seconds['recomputed'] / seconds['cached']:.2f}")


@app.command()
def memory(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    batch: Annotated[int, typer.Option(help="Queries; as many candidates each.")] = 16,
    micro_batch: Annotated[int | None, typer.Option(help="Rows at a time.")] = None,
    checkpointing: Annotated[bool, typer.Option(help="As the presets fiq and cirr.")] = True,
) -> None:
    """One full-size step of the published recipe: batch x batch scores, forward and back."""
    torch.manual_seed(0)
    stage1 = Stage1Model(Stage1Config(kind="stage1", vision=VISION, text=TEXT, embedding=256))
    stage2 = Stage2Model(Stage2Config(kind="stage2", vision=VISION, text=TEXT, merge_from=6))
    rng = np.random.default_rng(0)
    rows = torch.arange(batch)
    tokens = rng.standard_normal((2 * batch, VISION.tokens, VISION.width), dtype=np.float32)
    texts = [[[30523, *rng.integers(1000, 30000, 12).tolist(), 102]] for _ in range(batch)]
    triplets = Triplets(
        torch.from_numpy(tokens), rows, rows + batch, torch.zeros(batch).long(), [rows], texts
    )
    recipe = Stage2Recipe(epochs=1, batch=batch, learning_rate=2e-5, checkpointing=checkpointing)
    compute = Compute.on(device, precision=precision, micro_batch=micro_batch)
    training = Stage2Training(stage2, stage1, triplets, recipe, compute.device)
    began = time.perf_counter()
    next(fit(training, recipe, optimiser(training, recipe), compute))
    taken = time.perf_counter() - began
    print(
        f"{batch} x {batch} pairs in {taken:.1f} s, {compute.micro_batch or batch} rows at a time"
    )
    if device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"peak memory of the process {peak:.1f} GiB (image tokens of the batch included)")
    else:
        print(f"peak GPU memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    app()
