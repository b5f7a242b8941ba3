"""What a run starts from: settings with every choice made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from cir_core.conformal import Assurance
from cir_core.datasets.registry import Dataset
from cir_core.errors import UsageError
from cir_core.layers.precision import require_precision
from cir_core.search.choice import IndexChoice
from cir_core.search.indexes import require_available
from cir_core.types import Depth, Precisions, Scale
from flows.command import command_of
from flows.ends import End, is_measured, needs_stage2
from flows.machine import find_device, find_devices, find_workers
from flows.own import complete, open_dataset
from flows.settings import Settings, demo_root, shipped_model
from storage.runs import find_run
from storage.store import Store, open_store
from storage.views import Evaluated
from tasks.machine import Machine

COVERAGE = 0.95
"""Asked of an adaptive K by itself."""


@dataclass(frozen=True)
class Inputs:
    """Without ``categories``, all are meant. A run that ends before any pair is scored has no
    ``stage2``, whatever was given; one whose K is no ``auto`` has no ``assurance``, and no other
    run to ``calibrate`` it."""

    store: Store
    dataset: Dataset
    data_root: Path
    categories: tuple[str, ...]
    stage1: Path
    stage2: Path | None
    protocol: str
    k: Depth
    index: IndexChoice
    precision: Precisions
    machine: Machine
    candidates: Path | None = None
    embeddings: Path | None = None
    until: End = "report"
    late_fusion: float | Literal["fit"] | None = None
    late_fusion_scores: Scale = "standardised"
    text_weight: float | None = None
    assurance: Assurance | None = None
    calibrate: Evaluated | None = None
    no_guarantee: bool = False
    command: tuple[str, ...] = ()
    """That makes the same run again."""

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
    that is not there. Raises as ``find_run`` of the run that calibrates.
    """
    given = settings
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
    _require_fusible(settings)
    _require_nameable(settings)
    devices = find_devices(settings)
    device = devices[0] if devices else find_device(settings.device)
    index = IndexChoice(settings.index, settings.nlist, settings.nprobe)
    k = settings.k or ("all" if settings.candidates else dataset.k)
    if k == "all":
        index.require_all()
    assurance = _assurance(settings)
    calibrate = None if settings.calibrate is None else find_run(store, settings.calibrate)
    if calibrate is not None:  # a name may be another run's later
        given = given.model_copy(update={"calibrate": calibrate.run_id})
    require_available(index)
    precision = settings.precisions
    needed_in = [precision.encoder, precision.stage1]
    for one in [*needed_in, *[precision.stage2] * needs_stage2(settings.until)]:
        require_precision(one, torch.device(device))
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
        precision=precision,
        machine=Machine(
            device=device,
            batch=settings.batch,
            workers=find_workers(settings.workers, device),
            memory=settings.memory,
            tokens=settings.tokens,
            processes=len(devices) or settings.processes or 1,
            devices=devices,
        ),
        candidates=settings.candidates,
        embeddings=settings.embeddings,
        until=settings.until,
        late_fusion=settings.late_fusion or None,  # 0 is stage 2's own order
        late_fusion_scores=settings.late_fusion_scores,
        text_weight=settings.text_weight,
        assurance=assurance,
        calibrate=calibrate,
        no_guarantee=settings.no_guarantee,
        command=command_of(given),
    )


def _assurance(settings: Settings) -> Assurance | None:
    """What is asked of an adaptive K. Raises UsageError for one of candidates that are given or not
    found exactly, and for what is asked of a number."""
    asked = [
        name for name in ("coverage", "risk", "calibrate") if getattr(settings, name) is not None
    ]
    if settings.k == "auto":
        if settings.index != "exact":
            raise UsageError(
                f"-k auto searches exactly, without --index {settings.index}",
                cause="an index that may not see all images does not tell which lie within reach",
                remedy="leave out --index, or pass a number of candidates: -k 50",
            )
        return Assurance(settings.coverage or COVERAGE, settings.risk)
    if asked:
        raise UsageError(
            f"{' and '.join(f'--{name}' for name in asked)} without -k auto",
            cause="a number of candidates is not chosen by what it covers",
            remedy="pass -k auto; `cir-pipeline choose-k` tells what each K of a run covers",
        )
    return None


def _stage2(settings: Settings) -> Path | None:
    return (settings.stage2 or shipped_model("stage2")) if needs_stage2(settings.until) else None


def _require_nameable(settings: Settings) -> None:
    """Raises UsageError for a name or tags of what is no run yet."""
    if not is_measured(settings.until) and (settings.run_name or settings.tags):
        raise UsageError(
            f"a run has no name and no tags before it is evaluated (--until {settings.until})",
            remedy="leave out --run-name and --tag, or go on to --until evaluate or further",
        )


def _require_fusible(settings: Settings) -> None:
    """Raises UsageError for a late fusion that there is nothing for, or nothing to fit on, and for
    scores of none."""
    if settings.late_fusion is None and settings.late_fusion_scores != "standardised":
        raise UsageError(
            f"no score is added to another, {settings.late_fusion_scores} or not",
            cause="--late-fusion-scores says which scores a late fusion adds, and there is none",
            remedy="pass --late-fusion, or leave out --late-fusion-scores",
        )
    if not settings.late_fusion:
        return
    if not needs_stage2(settings.until):
        raise UsageError(
            f"a late fusion adds stage 1's score to stage 2's, and the run ends with stage 1 "
            f"(--until {settings.until})",
            remedy="go on to --until rerank or further, or pass --late-fusion 0",
        )
    if settings.late_fusion != "fit":
        return
    if settings.candidates or settings.embeddings:
        raise UsageError(
            "a late fusion is fitted on the selection queries, and the first stage is handed over "
            "for others",
            remedy="give the weight as a number: --late-fusion 0.3",
        )
    if settings.dataset == "own" and settings.split != "selection":
        raise UsageError(
            "own data's selection queries are some of the very queries that are asked",
            cause="a weight that is fitted on them makes their own recall too good",
            remedy="fit it on training queries (--queries train.csv --split selection "
            "--late-fusion fit), then give it as a number: --late-fusion 0.3",
        )


def _require_one_first_stage(settings: Settings) -> None:
    """Raises UsageError for settings of which one would be without effect."""
    weight = ["--text-weight"] * (settings.text_weight is not None)
    if settings.candidates is None:
        if settings.embeddings is not None and weight:
            raise UsageError(
                "embeddings from files are searched as they are, without --text-weight",
                cause="stage 1's own embeddings of the queries are not searched",
                remedy="leave out --embeddings, or --text-weight",
            )
        return
    stray = ["--embeddings"] * (settings.embeddings is not None)
    stray += ["-k auto"] * (settings.k == "auto")
    stray += ["--index"] * (settings.index != "exact")
    stray += weight
    if stray:
        raise UsageError(
            f"a file of candidates is re-ranked as it is, without {' or '.join(stray)}",
            cause="nothing is searched where the candidates are given",
            remedy=f"leave out --candidates, or {' and '.join(stray)}",
        )
