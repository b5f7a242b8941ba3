"""The console script ``cir-pipeline``. Data goes to stdout, talk to stderr.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from cir_core.errors import CirError
from cir_core.submissions.formats import ExportFormat, Stage

INTERRUPTED, TERMINATED = 130, 143

app = typer.Typer(
    name="cir-pipeline",
    help="Composed image retrieval in two stages: filter candidates, re-rank them, report recall.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="The settings of a run.", no_args_is_help=True)
app.add_typer(config_app, name="config")

_Dataset = Annotated[
    str | None,
    typer.Option(
        help="A name that `datasets` lists, or the path of a folder of your own (./catalogue).",
        show_default="demo",
    ),
]
_DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder with the published layout (not needed for demo)."),
]
_Queries = Annotated[
    str | None,
    typer.Option(help="Own data: the file of queries.", show_default="queries.csv, .jsonl, ..."),
]
_Images = Annotated[
    str | None, typer.Option(help="Own data: the folder of images.", show_default="all below")
]
_Gallery = Annotated[
    str | None,
    typer.Option(help="Own data: a list of the images to search.", show_default="all images"),
]
_Split = Annotated[
    str | None,
    typer.Option(
        help="train, val, test (CIRR's test1), or selection: the part of train kept out of "
        "training.",
        show_default="val",
    ),
]
_Category = Annotated[
    list[str] | None, typer.Option(help="Only this category; may be repeated.", show_default="all")
]
_Stage1 = Annotated[
    Path | None, typer.Option(help="Stage 1 model folder.", show_default="shipped for demo")
]
_Stage2 = Annotated[
    Path | None, typer.Option(help="Stage 2 model folder.", show_default="shipped for demo")
]
_Protocol = Annotated[
    str | None,
    typer.Option(help="How to ask and count: see `protocols`.", show_default="the dataset's first"),
]
_K = Annotated[
    int | None,
    typer.Option("-k", "--k", help="Candidates per query.", show_default="the dataset's"),
]
_Store = Annotated[
    Path | None, typer.Option(help="Where everything made is kept.", show_default="cir-store")
]
_AllowMissing = Annotated[
    int | None,
    typer.Option(help="Go on with this many unusable images or queries.", show_default="0"),
]
_Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 or auto.", show_default="auto")
]
_Batch = Annotated[int | None, typer.Option(help="Images per forward pass.", show_default="32")]
_Engine = Annotated[
    str | None,
    typer.Option(
        help="in-process or prefect; auto takes Prefect when a Prefect API is configured.",
        show_default="auto",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.callback()
def _log_to_stderr(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More talk.")] = False,
) -> None:
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for layer in ("flows", "tasks", "storage", "cir_core"):
        logging.getLogger(layer).setLevel(level)


@app.command()
def run(
    dataset: _Dataset = None,
    data_root: _DataRoot = None,
    queries: _Queries = None,
    images: _Images = None,
    gallery: _Gallery = None,
    split: _Split = None,
    category: _Category = None,
    stage1: _Stage1 = None,
    stage2: _Stage2 = None,
    protocol: _Protocol = None,
    k: _K = None,
    store: _Store = None,
    allow_missing: _AllowMissing = None,
    device: _Device = None,
    batch: _Batch = None,
    engine: _Engine = None,
    as_json: _Json = False,
) -> None:
    """Everything from images to the report, making only what is missing.

    Without options: the embedded demo, with its own data and trained models.
    """
    flags = {
        "dataset": dataset,
        "data_root": data_root,
        "queries": queries,
        "images": images,
        "gallery": gallery,
        "split": split,
        "categories": tuple(category or ()),
        "stage1": stage1,
        "stage2": stage2,
        "protocol": protocol,
        "k": k,
        "store": store,
        "allow_missing": allow_missing,
        "device": device,
        "batch": batch,
        "engine": engine,
    }
    _run(flags, as_json=as_json)


app.command("rerank", help="The same as `run`: every stage that the rankings and the report need.")(
    run
)


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(help="A published .pt file, a Hugging Face BLIP folder, or a model folder."),
    ],
    out: Annotated[Path, typer.Argument(help="Model folder to write, or .pt file.")],
    to: Annotated[
        Literal["folder", "published"],
        typer.Option(help="A model folder, or the published .pt that the authors' code loads."),
    ] = "folder",
    half: Annotated[
        bool, typer.Option("--half", help="Keep a folder's weights in fp16, rounded.")
    ] = False,
) -> None:
    """Convert a published checkpoint, or back, strictly: every tensor is mapped or named."""
    from cir_core.errors import UsageError
    from tasks import convert as conversion

    if to == "folder":
        made = conversion.convert(source, out, half=half)
    elif half:
        raise UsageError("published checkpoints hold fp32", remedy="leave --half out")
    else:
        made = conversion.convert_back(source, out)
    _say(f"{made.kind} model with {made.parameters / 1e6:.1f} M parameters")
    for word, names in (("dropped", made.dropped), ("made anew", made.added)):
        if names:
            _say(f"{word}: {', '.join(names)}")
    print(made.path)


@app.command()
def train(
    stage: Annotated[str, typer.Argument(help="pretrain, stage1 or stage2.")],
    out: Annotated[
        Path, typer.Option(help="Folder to write: models best and last, and what resumes.")
    ],
    dataset: _Dataset = None,
    recipe: Annotated[
        str, typer.Option("--config", help="demo, fiq, cirr, or a .toml file that changes one.")
    ] = "demo",
    data_root: _DataRoot = None,
    base: Annotated[
        Path | None, typer.Option(help="Pre-trained model that stage 1 and 2 start from.")
    ] = None,
    stage1: Annotated[
        Path | None, typer.Option(help="Finished stage 1, whose z_t stage 2 reads.")
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            help="cache: image tokens are kept in the store; recompute: a ViT pass every time."
        ),
    ] = "cache",
    precision: Annotated[str, typer.Option(help="fp32, bf16, or auto: bf16 on a GPU.")] = "auto",
    micro_batch: Annotated[
        int | None,
        typer.Option(help="Rows of a batch at a time; same result.", show_default="all", min=1),
    ] = None,
    store: _Store = None,
    allow_missing: _AllowMissing = None,
    device: _Device = None,
    batch: _Batch = None,
    engine: _Engine = None,
) -> None:
    """Train the base model, stage 1 or stage 2; interrupted, the same command goes on.

    Several GPUs: `accelerate launch .venv/bin/cir-pipeline train ...`.
    """
    from flows.train import parse_training, run_training

    flags = {
        "dataset": dataset,
        "data_root": data_root,
        "store": store,
        "allow_missing": allow_missing,
        "device": device,
        "batch": batch,
        "engine": engine,
    }
    settings = parse_training(
        flags,
        os.environ,
        stage=stage,
        recipe=recipe,
        out=out,
        base=base,
        stage1=stage1,
        features=features,
        precision=precision,
        micro_batch=micro_batch,
    )
    if _wants_prefect(settings.data.engine):
        _prepare_prefect()
        from flows.deployments import run_training_flow

        print(run_training_flow(settings))
        return
    from flows.engine import InProcess

    print(run_training(settings, InProcess()))


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help="One read-only statement.")],
    store: _Store = None,
    as_json: _Json = False,
) -> None:
    """Ask the catalog (DuckDB): tables runs, gallery, queries, target_ranks, candidates, rankings,
    metrics, problems; views recall, mrr, mean_average_precision, coverage, rank_movement,
    failures."""
    from rich.console import Console
    from rich.table import Table

    from flows.settings import resolve
    from storage.catalog import CATALOG_FILE, query

    settings = resolve({"store": store}, os.environ).settings
    columns, rows = query(settings.store / CATALOG_FILE, statement)
    if as_json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=str))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console().print(table)


@app.command()
def export(
    format_: Annotated[ExportFormat, typer.Option("--format", help="What to write.")],
    run_id: Annotated[
        str | None,
        typer.Option("--run", help="First digits of a run's id.", show_default="the only run"),
    ] = None,
    stage: Annotated[Stage, typer.Option(help="Whose order.")] = "stage2",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write into.", show_default="STORE/exports/RUN"),
    ] = None,
    store: _Store = None,
    as_json: _Json = False,
) -> None:
    """Write a finished run's rankings: for CIRR's or CIRCO's test server, as a TREC run with qrels,
    or as a table with a row per query and candidate."""
    from flows.settings import resolve
    from tasks.export import export as export_task

    settings = resolve({"store": store}, os.environ).settings
    exported = export_task(settings.store, format_, run=run_id, stage=stage, folder=out)
    if as_json:
        files = [str(file) for file in exported.files]
        print(json.dumps({"run_id": exported.run_id, "format": format_, "files": files}))
        return
    for file in exported.files:
        print(file)


@app.command("check-submission")
def check_submission(
    file: Annotated[Path, typer.Argument(help="A submission file, whoever wrote it.")],
    dataset: Annotated[Literal["cirr", "circo"], typer.Option(help="Whose test server.")],
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder with the annotations (no images needed); without: form only."),
    ] = None,
    split: Annotated[Literal["val", "test"], typer.Option(help="CIRR's test1 is test.")] = "test",
    as_json: _Json = False,
) -> None:
    """Whether the test server would take a file; if not, every reason at once (exit code 3)."""
    from dataclasses import asdict

    from flows.terminal import require_accepted
    from tasks.check import check_submission as check_task

    verdict = check_task(file, dataset, split, data_root)
    if as_json:
        print(json.dumps({"ok": not verdict.faults, **asdict(verdict)}))
    elif not verdict.faults:
        print(f"ok: {verdict.checked}")
    require_accepted(verdict, file)


@app.command()
def protocols(
    dataset: Annotated[str | None, typer.Option(help="Only this dataset's.")] = None,
    as_json: _Json = False,
) -> None:
    """What each recall means: the protocols by name, the first of a dataset is its default."""
    from dataclasses import asdict

    from cir_core.metrics.protocols import PROTOCOLS

    chosen = [one for one in PROTOCOLS.values() if dataset in (None, one.dataset)]
    if not chosen:
        from cir_core.datasets.registry import find_dataset

        find_dataset(str(dataset))
    if as_json:
        hidden = {"published"}
        rows = [{k: v for k, v in asdict(one).items() if k not in hidden} for one in chosen]
        print(json.dumps(rows))
        return
    from rich.console import Console

    from flows.listings import print_protocols

    print_protocols(chosen, Console())


@app.command()
def datasets(as_json: _Json = False) -> None:
    """What is supported, where it is expected, its licence, and how to obtain it."""
    from dataclasses import asdict

    from cir_core.datasets.registry import DATASETS

    if as_json:
        print(json.dumps({name: asdict(one.about) for name, one in DATASETS.items()}))
        return
    from rich.console import Console

    from flows.listings import print_datasets

    print_datasets(DATASETS.values(), Console())


@app.command()
def doctor(
    dataset: Annotated[
        str | None, typer.Option(help="Also check this dataset.", show_default="environment only")
    ] = None,
    data_root: _DataRoot = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test.", show_default="all that are there")
    ] = None,
    stage1: _Stage1 = None,
    stage2: _Stage2 = None,
    k: _K = None,
    store: _Store = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every image too: slow, finds broken ones.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Expected and found: environment, models, store, and a dataset's files, counts and images.

    Ends with 0 when all is well, 3 when something is wrong, 4 when something needed is missing.
    """
    from dataclasses import asdict

    from rich.console import Console

    from cir_core.findings import exit_code_of
    from flows.doctor import examine, print_findings
    from flows.settings import resolve

    flags = {
        "dataset": dataset,
        "data_root": data_root,
        "split": split,
        "stage1": stage1,
        "stage2": stage2,
        "k": k,
        "store": store,
    }
    findings = examine(resolve(flags, os.environ), os.environ, decode=decode)
    code = exit_code_of(findings)
    if as_json:
        print(json.dumps({"exit_code": code, "findings": [asdict(one) for one in findings]}))
    else:
        print_findings(findings, Console())
    raise typer.Exit(code)


@config_app.command("show")
def config_show(
    recipe: Annotated[
        str | None,
        typer.Option("--config", help="A training recipe (demo, fiq, cirr or a .toml) instead."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """All settings, their values, and where each comes from; of a run, or of a training recipe."""
    from flows.recipes import find_recipe, recipe_rows
    from flows.settings import resolve

    if recipe is not None:
        rows = recipe_rows(find_recipe(recipe))
    else:
        resolved = resolve({}, os.environ)
        values = resolved.settings.model_dump(mode="json")
        rows = [(name, value, resolved.origins[name]) for name, value in values.items()]
    if as_json:
        print(json.dumps({name: {"value": value, "from": origin} for name, value, origin in rows}))
        return
    width = max(len(name) for name, _, _ in rows)
    for name, value, origin in rows:
        told = "not set" if value in (None, []) else value
        print(f"{name:{width}} {told!s:14} ({origin})")


def main() -> NoReturn:
    """Run the command line; expected failures become four readable lines and their exit code."""
    signal.signal(signal.SIGINT, _interrupt)  # typer would end without a word
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except CirError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    sys.exit(0)


def _interrupt(_number: int, _frame: Any) -> NoReturn:
    _say("interrupted; finished parts are kept: run the same command again to go on")
    sys.exit(INTERRUPTED)


def _terminate(_number: int, _frame: Any) -> NoReturn:
    _say("terminated; finished parts are kept: run the same command again to go on")
    sys.exit(TERMINATED)


def _run(flags: dict[str, Any], *, as_json: bool) -> None:
    from flows.settings import resolve

    settings = resolve(flags, os.environ).settings
    if _wants_prefect(settings.engine):
        result = _run_with_prefect(settings)
    else:
        from flows.engine import InProcess
        from flows.pipeline import run_pipeline

        result = run_pipeline(settings, InProcess())
    _tell(result, settings, as_json=as_json)


def _tell(result: Any, settings: Any, *, as_json: bool) -> None:
    from rich.console import Console

    from flows.terminal import HEADER, gallery_rows, print_recall, recall_rows

    if not result.made:
        _say("nothing to do: every stage was there already")
    else:
        _say(f"made: {', '.join(result.made)}")
    if as_json:
        summary = {
            "run_id": result.run_id,
            "catalog": str(result.catalog),
            "report": str(result.report),
            "ranked": [str(path) for path in result.ranked],
            "made": result.made,
            "problems": result.problems,
            "galleries": gallery_rows(settings.store, result),
            "recall": [
                dict(zip(HEADER, row, strict=True)) for row in recall_rows(settings.store, result)
            ],
        }
        print(json.dumps(summary))
        return
    print_recall(settings.store, result, Console())
    print(f"catalog: {result.catalog}")
    print(f"report:  {result.report}")
    for path in result.ranked:
        print(f"ranked:  {path}")


def _run_with_prefect(settings: Any) -> Any:
    _prepare_prefect()
    from flows.deployments import run_flow

    return run_flow(settings)


def _prepare_prefect() -> None:
    """What Prefect reads when it is imported."""
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "flows,tasks,storage")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")


def _wants_prefect(engine: str) -> bool:
    """``auto`` takes Prefect when an API is named in the environment; asking Prefect itself costs
    its import."""
    return engine == "prefect" or (engine == "auto" and bool(os.environ.get("PREFECT_API_URL")))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
