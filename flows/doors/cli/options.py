"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cir_core import types
from cir_core.search.choice import IndexKind
from cir_core.types import Keeping, RunSplit
from flows.doors.cli.completion import category_names, dataset_names, protocol_names
from flows.doors.cli.texts import text

DATA, MODELS, METHOD, MACHINE = "Data", "Models", "Method", "Machine"
"""Panels of a command's help."""

Dataset = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=DATA,
        autocompletion=dataset_names,
        help="A name that `datasets` lists, or the path of a folder of your own (./catalogue).",
        show_default="demo",
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=DATA, help="Folder with the published layout (not needed for demo)."
    ),
]
Queries = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=DATA,
        help="Own data: the file of queries.",
        show_default="queries.csv, .jsonl, ...",
    ),
]
Images = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=DATA, help="Own data: the folder of images.", show_default="all below"
    ),
]
Gallery = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=DATA,
        help="Own data: a list of the images to search.",
        show_default="all images",
    ),
]
Split = Annotated[
    RunSplit | None,
    typer.Option(
        rich_help_panel=DATA,
        help="train, val, test (CIRR's test1), or selection: the part of train kept out of "
        "training.",
        show_default="val",
    ),
]
Category = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel=DATA,
        autocompletion=category_names,
        help="Only this category; may be repeated.",
        show_default="all",
        parser=text,
    ),
]
Stage1 = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=MODELS, help="Stage 1 model folder.", show_default="shipped for demo"
    ),
]
Stage2 = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=MODELS, help="Stage 2 model folder.", show_default="shipped for demo"
    ),
]
Protocol = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=METHOD,
        autocompletion=protocol_names,
        help="How to ask and count: see `protocols`.",
        show_default="the dataset's first",
        parser=text,
    ),
]
K = Annotated[
    int | None,
    typer.Option(
        "-k",
        "--k",
        rich_help_panel=METHOD,
        help="Candidates per query.",
        show_default="the dataset's",
    ),
]
Index = Annotated[
    IndexKind | None,
    typer.Option(
        rich_help_panel=METHOD,
        help="How stage 1 searches: exact; or by FAISS: flat, ivf (approximate), gpu.",
        show_default="exact",
    ),
]
NList = Annotated[
    int | None,
    typer.Option(
        "--nlist",
        rich_help_panel=METHOD,
        help="Lists of an ivf index.",
        show_default="by the gallery's size",
    ),
]
NProbe = Annotated[
    int | None,
    typer.Option(
        "--nprobe",
        rich_help_panel=METHOD,
        help="Lists that a query looks through.",
        show_default="one in 16",
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=MACHINE, help="Where everything made is kept.", show_default="cir-store"
    ),
]
AllowMissing = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=DATA,
        help="Go on with this many unusable images or queries.",
        show_default="0",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=MACHINE,
        help="cpu, cuda, cuda:1 or auto.",
        show_default="auto",
        parser=text,
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(rich_help_panel=MACHINE, help="Images per forward pass.", show_default="32"),
]
Workers = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=MACHINE,
        help="Processes that decode images ahead of the model; 0: none, in turn with it.",
        show_default="GPU: cores but one, at most 16; CPU: one per 8 cores, at least 1",
    ),
]
Tokens = Annotated[
    Keeping | None,
    typer.Option(
        rich_help_panel=MACHINE,
        help="cache: keep image tokens in the store and read them, for repeated re-ranking; "
        "recompute: a ViT pass each time; auto: read what is kept already.",
        show_default="auto",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=MACHINE,
        help="For scoring pairs, beside models and images: 2GiB, 500MB. Changes no score.",
        show_default="half of what is free",
        parser=text,
    ),
]
Precision = Annotated[
    types.Precision | None,
    typer.Option(
        rich_help_panel=MODELS,
        help="In which stage 2 computes: fp32, bf16; on a GPU also tf32, fp16. Changes scores.",
        show_default="fp32",
    ),
]
Engine = Annotated[
    Literal["auto", "in-process", "prefect"] | None,
    typer.Option(
        rich_help_panel=MACHINE,
        help="in-process or prefect; auto takes Prefect when a Prefect API is configured.",
        show_default="auto",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
