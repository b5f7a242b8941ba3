"""The console script ``cir-pipeline``. Data goes to stdout, talk to stderr.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, cast

import typer

from cir_core.errors import CirError

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
    typer.Option(help="A name that `datasets` lists.", show_default="demo"),
]
_DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder with the published layout (not needed for demo)."),
]
_Split = Annotated[
    str | None, typer.Option(help="train, val or test (CIRR's test1).", show_default="val")
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
    out: Annotated[Path, typer.Option(help="Model folder to write; also holds what resumes.")],
    dataset: Annotated[str, typer.Option(help="demo or fiq.")] = "demo",
    preset: Annotated[str, typer.Option("--config", help="Named recipe.")] = "demo",
    data_root: _DataRoot = None,
    base: Annotated[
        Path | None, typer.Option(help="Pre-trained model that stage 1 and 2 start from.")
    ] = None,
    stage1: Annotated[
        Path | None, typer.Option(help="Finished stage 1, whose z_t stage 2 reads.")
    ] = None,
    store: _Store = None,
) -> None:
    """Train the base model, stage 1 or stage 2; interrupted, the same command goes on."""
    from typing import get_args

    from cir_core.errors import UsageError
    from flows.engine import InProcess
    from flows.settings import resolve
    from flows.train import TrainedStage, TrainingSettings, run_training

    if stage not in get_args(TrainedStage):
        raise UsageError(
            f"no training is called {stage!r}",
            remedy=f"choose one of {', '.join(get_args(TrainedStage))}",
        )
    settings = TrainingSettings(
        stage=cast("TrainedStage", stage),
        dataset=dataset,
        preset=preset,
        data_root=data_root,
        store=resolve({"store": store}, os.environ).settings.store,
        out=out,
        base=base,
        stage1=stage1,
    )
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


@config_app.command("show")
def config_show(as_json: _Json = False) -> None:
    """All settings, their values, and where each comes from."""
    from flows.settings import resolve

    resolved = resolve({}, os.environ)
    values = resolved.settings.model_dump(mode="json")
    if as_json:
        shown = {name: {"value": values[name], "from": resolved.origins[name]} for name in values}
        print(json.dumps(shown))
        return
    for name, value in values.items():
        told = "not set" if value in (None, []) else value
        print(f"{name:14} {told!s:14} ({resolved.origins[name]})")


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
    if settings.engine == "prefect" or (settings.engine == "auto" and _prefect_is_configured()):
        result = _run_with_prefect(settings)
    else:
        from flows.engine import InProcess
        from flows.pipeline import run_pipeline

        result = run_pipeline(settings, InProcess())
    _tell(result, settings, as_json=as_json)


def _tell(result: Any, settings: Any, *, as_json: bool) -> None:
    from rich.console import Console

    from flows.terminal import HEADER, print_recall, recall_rows

    if not result.made:
        _say("nothing to do: every stage was there already")
    else:
        _say(f"made: {', '.join(result.made)}")
    if as_json:
        summary = {
            "run_id": result.run_id,
            "catalog": str(result.catalog),
            "report": str(result.report),
            "made": result.made,
            "problems": result.problems,
            "recall": [
                dict(zip(HEADER, row, strict=True)) for row in recall_rows(settings.store, result)
            ],
        }
        print(json.dumps(summary))
        return
    print_recall(settings.store, result, Console())
    print(f"catalog: {result.catalog}")
    print(f"report:  {result.report}")


def _run_with_prefect(settings: Any) -> Any:
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "flows,tasks,storage")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    from flows.deployments import run_flow

    return run_flow(settings)


def _prefect_is_configured() -> bool:
    """A Prefect API is named in the environment; asking Prefect itself costs its import."""
    return bool(os.environ.get("PREFECT_API_URL"))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
