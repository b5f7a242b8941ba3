"""One of several processes that train together: ``python training_process.py FILE``.

The launcher's environment (RANK, WORLD_SIZE and so on) says which. The first one writes the
gradients of one batch and the losses of a few steps to FILE.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from cir_core.training.gradients import Compute, accumulate
from cir_core.training.loop import fit, optimiser
from tests.unit.test_training import in_double, stage1_training, stage2_training


def main(file: Path) -> None:
    torch.set_num_threads(1)
    found: dict[str, torch.Tensor] = {}
    for name, make in (("stage1", stage1_training), ("stage2", stage2_training)):
        training = in_double(make(2, dropout=0.0))
        compute = Compute.on("cpu", micro_batch=1)
        named = {n: p for n, p in training.trained.named_parameters() if p.requires_grad}
        batch = training.draw(np.random.default_rng(0), 0)
        told = accumulate(training, batch, list(named.values()), compute, seed=1)
        found |= {f"{name}.{n}": p.grad.clone() for n, p in named.items() if p.grad is not None}
        steps = fit(training, training.recipe, optimiser(training, training.recipe), compute)
        losses = [step.losses["loss"] for step in steps]
        found[f"{name} losses"] = torch.tensor([told["loss"], *losses], dtype=torch.float64)
    if Compute.on("cpu").leads:
        torch.save(found, file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
