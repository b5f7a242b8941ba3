"""What a run starts from: settings with every choice made."""

from dataclasses import dataclass
from pathlib import Path

import torch

from cir_core.datasets.registry import Dataset
from cir_core.errors import UsageError
from cir_core.layers.precision import require_precision
from cir_core.search.choice import IndexChoice
from cir_core.search.indexes import require_available
from cir_core.types import Depth, Precision
from flows.ends import End, needs_stage2
from flows.machine import find_device, find_workers
from flows.own import complete, open_dataset
from flows.settings import Settings, demo_root, shipped_model
from storage.store import Store, open_store
from tasks.machine import Machine


@dataclass(frozen=True)
class Inputs:
    """Without ``categories``, all are meant. A run that ends before any pair is scored has no
    ``stage2``, whatever was given."""

    store: Store
    dataset: Dataset
    data_root: Path
    categories: tuple[str, ...]
    stage1: Path
    stage2: Path | None
    protocol: str
    k: Depth
    index: IndexChoice
    precision: Precision
    machine: Machine
    candidates: Path | None = None
    embeddings: Path | None = None
    until: End = "report"

    @property
    def models(self) -> dict[str, Path]:
        """The folders of those that the run needs, by stage."""
        named = {"stage1": self.stage1, "stage2": self.stage2}
        return {stage: folder for stage, folder in named.items() if folder is not None}


def resolve_inputs(settings: Settings) -> Inputs:
    """Fill in what the dataset implies: the demo brings its data and its models, own data may
    describe themselves.

    Raises UsageError when a data root or a model is needed and not given, all at once, or when the
    index or the first stage cannot be meant; PreflightError when the index needs FAISS or a GPU
    that is not there.
    """
    store, settings = open_store(settings.store), complete(settings)
    dataset = open_dataset(settings)
    is_demo = settings.dataset == "demo"
    needed = ("data_root", "stage1", *["stage2"] * needs_stage2(settings.until))
    missing = [
        f"--{name.replace('_', '-')}"
        for name in needed
        if getattr(settings, name) is None and not is_demo
    ]
    if missing:
        raise UsageError(
            f"dataset {settings.dataset} needs {', '.join(missing)}",
            cause="only the demo brings its own images and models",
            remedy="see `cir-pipeline run --help`; convert published checkpoints with "
            "`cir-pipeline convert`",
        )
    _require_one_first_stage(settings)
    device = find_device(settings.device)
    index = IndexChoice(settings.index, settings.nlist, settings.nprobe)
    k = settings.k or ("all" if settings.candidates else dataset.k)
    if k == "all":
        index.require_all()
    require_available(index)
    require_precision(settings.precision, torch.device(device))
    return Inputs(
        store=store,
        dataset=dataset,
        data_root=settings.data_root or demo_root(settings.store),
        categories=settings.categories,
        stage1=settings.stage1 or shipped_model("stage1"),
        stage2=_stage2(settings),
        protocol=dataset.protocol(settings.protocol).name,
        k=k,
        index=index,
        precision=settings.precision,
        machine=Machine(
            device=device,
            batch=settings.batch,
            workers=find_workers(settings.workers, device),
            memory=settings.memory,
            tokens=settings.tokens,
            processes=settings.processes,
        ),
        candidates=settings.candidates,
        embeddings=settings.embeddings,
        until=settings.until,
    )


def _stage2(settings: Settings) -> Path | None:
    return (settings.stage2 or shipped_model("stage2")) if needs_stage2(settings.until) else None


def _require_one_first_stage(settings: Settings) -> None:
    """Raises UsageError for settings of which one would be without effect."""
    if settings.candidates is None:
        return
    stray = ["--embeddings"] * (settings.embeddings is not None)
    stray += ["--index"] * (settings.index != "exact")
    if stray:
        raise UsageError(
            f"a file of candidates is re-ranked as it is, without {' or '.join(stray)}",
            cause="nothing is searched where the candidates are given",
            remedy=f"leave out --candidates, or {' and '.join(stray)}",
        )
