"""What a run and a training are asked to do: every setting, declared once (see ``flows.about``)."""

import os
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
)

from cir_core.search.choice import IndexKind
from cir_core.types import Keeping, Precision, Precisions, RunSplit, Scale
from flows.about import DATA, MACHINE, METHOD, MODELS, About
from flows.ends import End
from flows.leasing import as_wait
from flows.suggestions import category_names, dataset_names, protocol_names
from storage.addresses import as_typed
from storage.labels import as_name, as_word
from storage.store import open_store


def in_home(path: Path) -> Path:
    """The path with a leading ``~`` or ``~user`` expanded; as it is where nobody has that name. One
    that was typed as a URI is told as such."""
    return as_typed(Path(os.path.expanduser(path)))


HomePath = Annotated[Path, AfterValidator(in_home)]
"""A path in which ``~`` is the home folder: a shell expands it in ``--store ~/x``, and neither in
``--store=~/x`` nor in a file or the environment."""

OF_ALL = "as --precision says"

DECLARED = ConfigDict(
    frozen=True,
    extra="forbid",
    defer_build=True,
    field_title_generator=lambda name, _: name,
)
"""Checks of values are built when the first value is checked: ``--help`` needs none. In a form a
setting is called as everywhere."""


class Settings(BaseModel):
    """What one run is asked to do, as typed; ``resolve_inputs`` of the pipeline completes it."""

    model_config = DECLARED

    dataset: Annotated[
        str,
        About(
            "A name that `datasets` lists, or the path of a folder of your own (./catalogue).",
            DATA,
            changes_results=True,
            values=dataset_names,
            may_be_path=True,
        ),
    ] = "demo"
    data_root: Annotated[
        HomePath | None,
        About(
            "Folder, or s3://bucket/prefix, with the published layout (not needed for demo).",
            DATA,
            changes_results=False,
        ),
    ] = None
    queries: Annotated[
        str | None,
        About(
            "Own data: the file of queries.",
            DATA,
            changes_results=True,
            default="queries.csv, .jsonl, ...",
            may_be_path=True,
        ),
    ] = None
    images: Annotated[
        str | None,
        About(
            "Own data: the folder of images.",
            DATA,
            changes_results=True,
            default="all below",
            may_be_path=True,
        ),
    ] = None
    gallery: Annotated[
        str | None,
        About(
            "Own data: a list of the images to search.",
            DATA,
            changes_results=True,
            default="all images",
            may_be_path=True,
        ),
    ] = None
    name: Annotated[
        str | None, About("Own data: what to call them.", DATA, changes_results=True, default="own")
    ] = None
    split: Annotated[
        RunSplit,
        About(
            "train, val, test (CIRR's test1), or selection: the part of train kept out of "
            "training.",
            DATA,
            changes_results=True,
        ),
    ] = "val"
    categories: Annotated[
        tuple[str, ...],
        About(
            "Only this category; may be repeated.",
            DATA,
            changes_results=True,
            default="all",
            flags=("--category",),
            values=category_names,
        ),
    ] = ()
    stage1: Annotated[
        HomePath | None,
        About("Stage 1 model folder.", MODELS, changes_results=True, default="shipped for demo"),
    ] = None
    stage2: Annotated[
        HomePath | None,
        About("Stage 2 model folder.", MODELS, changes_results=True, default="shipped for demo"),
    ] = None
    protocol: Annotated[
        str | None,
        About(
            "How to ask and count: see `protocols`.",
            METHOD,
            changes_results=True,
            default="the dataset's first",
            values=protocol_names,
        ),
    ] = None
    k: Annotated[
        PositiveInt | Literal["all", "auto"] | None,
        About(
            "Candidates per query: a number, all of its gallery, or auto: as many as it needs, "
            "calibrated on labelled queries.",
            METHOD,
            changes_results=True,
            default="the dataset's",
            flags=("-k", "--k"),
        ),
    ] = None
    coverage: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | None,
        About(
            "With -k auto: the share of queries whose target shall be among their candidates.",
            METHOD,
            changes_results=True,
            default="0.95",
        ),
    ] = None
    risk: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | None,
        About(
            "With -k auto: the probability that calibration is unlucky and the share is lower.",
            METHOD,
            changes_results=True,
            default="none: the share is met on average",
        ),
    ] = None
    calibrate: Annotated[
        str | None,
        About(
            "With -k auto: the finished run, by name or digits of its id, whose labelled queries "
            "calibrate.",
            METHOD,
            changes_results=True,
            default="its own",
        ),
    ] = None
    no_guarantee: Annotated[
        bool,
        About(
            "Go on where the run that calibrates was asked otherwise, or of another gallery, and "
            "nothing is assured.",
            METHOD,
            changes_results=False,
        ),
    ] = False
    index: Annotated[
        IndexKind,
        About(
            "How stage 1 searches: exact; or by FAISS: flat, ivf (approximate), gpu.",
            METHOD,
            changes_results=True,
        ),
    ] = "exact"
    nlist: Annotated[
        PositiveInt | None,
        About(
            "Lists of an ivf index.", METHOD, changes_results=True, default="by the gallery's size"
        ),
    ] = None
    nprobe: Annotated[
        PositiveInt | None,
        About(
            "Lists that a query looks through.", METHOD, changes_results=True, default="one in 32"
        ),
    ] = None
    text_weight: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        About(
            "The text's share of a query, from 0 (the image alone) to 1, where stage 1 weighs both "
            "(clip, siglip).",
            METHOD,
            changes_results=True,
            default="the model's",
        ),
    ] = None
    candidates: Annotated[
        HomePath | None,
        About(
            "A file of candidates to re-rank, whoever chose them: .parquet, .jsonl, else a TREC "
            "run.",
            METHOD,
            changes_results=True,
            default="stage 1's",
        ),
    ] = None
    embeddings: Annotated[
        HomePath | None,
        About(
            "A folder of embeddings to search: gallery.parquet and queries.parquet.",
            METHOD,
            changes_results=True,
            default="stage 1's",
        ),
    ] = None
    late_fusion: Annotated[
        Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["fit"] | None,
        About(
            "Weight of stage 1's score beside stage 2's in the final order: a number, or fit (on "
            "the selection queries).",
            METHOD,
            changes_results=True,
            default="none: the order is stage 2's",
        ),
    ] = None
    late_fusion_scores: Annotated[
        Scale,
        About(
            "What a late fusion adds: scores standardised within a query and pool, or raw.",
            METHOD,
            changes_results=True,
        ),
    ] = "standardised"
    until: Annotated[
        End,
        About(
            "Where the run ends: encode, retrieve (stage 1 alone, with its report), rerank, "
            "evaluate, report (all of a run), or analyse (what is asked beside it, too).",
            METHOD,
            changes_results=False,
        ),
    ] = "report"
    run_name: Annotated[
        Annotated[str, AfterValidator(as_name)] | None,
        About(
            "What to call the run: `runs`, `compare` and `--run` take it for the run's id.",
            METHOD,
            changes_results=False,
            default="none",
        ),
    ] = None
    tags: Annotated[
        tuple[Annotated[str, AfterValidator(as_word)], ...],
        About(
            "A word to find the run by; may be repeated.",
            METHOD,
            changes_results=False,
            default="none",
            flags=("--tag",),
        ),
    ] = ()
    store: Annotated[
        HomePath,
        About(
            "Where everything made is kept: a folder, or s3://bucket/prefix.",
            MACHINE,
            changes_results=False,
            may_be_path=True,
        ),
    ] = Path("cir-store")
    wait: Annotated[
        Annotated[str, AfterValidator(as_wait)] | None,
        About(
            "How long to wait for another run that holds the store: 90s, 30min, 2h, forever.",
            MACHINE,
            changes_results=False,
            default="not at all",
        ),
    ] = None
    allow_missing: Annotated[
        NonNegativeInt,
        About("Go on with this many unusable images or queries.", DATA, changes_results=False),
    ] = 0
    device: Annotated[str, About("cpu, cuda, cuda:1 or auto.", MACHINE, changes_results=False)] = (
        "auto"
    )
    batch: Annotated[
        PositiveInt, About("Images per forward pass.", MACHINE, changes_results=False)
    ] = 32
    workers: Annotated[
        NonNegativeInt | None,
        About(
            "Processes that decode images ahead of the model; 0: none, in turn with it.",
            MACHINE,
            changes_results=False,
            default="GPU: cores but one, at most 16; CPU: one per 8 cores, at least 1",
        ),
    ] = None
    processes: Annotated[
        PositiveInt | None,
        About(
            "Processes that share the shards of a stage, each with models of its own and its share "
            "of the cores; on GPUs, one a device. Of a cluster (--address), its workers at most.",
            MACHINE,
            changes_results=False,
            default="1; all workers of a cluster",
        ),
    ] = None
    devices: Annotated[
        str | None,
        About(
            "Several, such as 0,1,2,3 (GPUs by number): a process on each shares the shards of a "
            "stage, in place of --device and --processes.",
            MACHINE,
            changes_results=False,
            default="none",
        ),
    ] = None
    tokens: Annotated[
        Keeping,
        About(
            "cache: keep image tokens in the store and read them, for repeated re-ranking; "
            "recompute: a ViT pass each time; auto: read what is kept already.",
            MACHINE,
            changes_results=False,
        ),
    ] = "auto"
    memory: Annotated[
        Annotated[ByteSize, Field(gt=0)] | None,
        About(
            "For scoring pairs, beside models and images: 2GiB, 500MB. Changes no score.",
            MACHINE,
            changes_results=False,
            default="half of what is free",
        ),
    ] = None
    precision: Annotated[
        Precision,
        About(
            "In which the models compute: fp32, bf16; on a GPU also tf32, fp16. Changes scores; "
            "embeddings and scores are fp32 whatever it is.",
            MODELS,
            changes_results=True,
        ),
    ] = "fp32"
    encoder_precision: Annotated[
        Precision | None,
        About(
            "Of what sees images, for both stages.",
            MODELS,
            changes_results=True,
            default=OF_ALL,
        ),
    ] = None
    stage1_precision: Annotated[
        Precision | None,
        About(
            "Of what reads texts, and their references' states, in stage 1.",
            MODELS,
            changes_results=True,
            default=OF_ALL,
        ),
    ] = None
    stage2_precision: Annotated[
        Precision | None,
        About("Of what scores pairs.", MODELS, changes_results=True, default=OF_ALL),
    ] = None
    runner: Annotated[
        Literal["processes", "dask", "ray"],
        About(
            "Whose workers share the shards: this machine's processes; or Dask's or Ray's, on this "
            "machine or, by --address, on others.",
            MACHINE,
            changes_results=False,
        ),
    ] = "processes"
    address: Annotated[
        str | None,
        About(
            "The running cluster of --runner: of Dask, tcp://host:8786; of Ray, host:6379 or "
            "ray://host:10001.",
            MACHINE,
            changes_results=False,
            default="none: this machine",
        ),
    ] = None
    engine: Annotated[
        Literal["auto", "in-process", "prefect"],
        About(
            "in-process or prefect; auto takes Prefect when a Prefect API is configured.",
            MACHINE,
            changes_results=False,
        ),
    ] = "auto"

    @property
    def precisions(self) -> Precisions:
        """Of each part of the pass."""
        parts = (self.encoder_precision, self.stage1_precision, self.stage2_precision)
        return Precisions(*(one or self.precision for one in parts))


def shipped_model(stage: Literal["stage1", "stage2"]) -> Path:
    """The demo pair that comes with the package."""
    return Path(str(resources.files("cir_core") / "pretrained" / "demo" / stage))


def demo_root(store: Path) -> Path:
    """Where the demo dataset is drawn."""
    return open_store(store).local("data/demo")
