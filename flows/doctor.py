"""``cir-pipeline doctor``: the checks composed, and their findings told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Literal, get_args

from cir_core.datasets.selection import source_split
from cir_core.doctor.findings import Finding, State
from cir_core.doctor.verdicts import judge_texts
from cir_core.errors import CheckpointRefused, UsageError
from cir_core.families import PUBLISHED_RETRIEVER
from cir_core.planning.disk import Counts
from cir_core.ports import RetrieverConfig
from cir_core.types import Benchmark, Split
from flows.engines.choice import find_home
from flows.engines.prefect_api import Configuration, fault_of
from flows.graph import STAGES
from flows.origins import Resolved
from flows.own import complete, open_dataset
from flows.settings import Settings, demo_root, shipped_model
from flows.views.tables import Cell, Column, Console, print_line, print_lines, print_table
from storage.lock import is_writable
from storage.store import open_store
from tasks.doctor.dataset import check_dataset
from tasks.doctor.environment import check_environment, check_models, check_store
from tasks.models.opening import read_retriever_config

STYLES = {"ok": "green", "note": "dim", "problem": "bold yellow", "blocked": "bold red"}


@dataclass(frozen=True)
class _Dataset:
    """Findings about the dataset, and what a run on it adds to the store, if that is known."""

    findings: list[Finding]
    bytes_needed: int | None = None


def examine(resolved: Resolved, variables: Mapping[str, str], *, decode: bool) -> list[Finding]:
    """Environment, models and store; and the dataset, when one is named anywhere.

    Raises UsageError for an unknown dataset, or one that is named without a data root.
    """
    settings = complete(resolved.settings)
    dataset = _Dataset([])
    if resolved.origins["dataset"] != "default":
        chosen = resolved.origins["split"] != "default"
        dataset = _examine_dataset(
            settings, (source_split(settings.split),) if chosen else (), decode=decode
        )
    return [
        *check_environment(variables),
        *check_prefect(settings, Configuration(variables)),
        *check_models(_model(settings, "stage1"), _model(settings, "stage2")),
        *check_store(open_store(settings.store), bytes_needed=dataset.bytes_needed),
        *dataset.findings,
    ]


def check_prefect(settings: Settings, configuration: Configuration) -> list[Finding]:
    """The API that a run with these settings would take, whether it answers, and where Prefect's
    files would go."""
    api, home = configuration.api(), find_home(configuration, open_store(settings.store))
    fault = "" if api is None else fault_of(api.url)
    state: State = "ok"
    if fault:
        state = "note" if settings.engine == "in-process" else "blocked"
    writable = is_writable(home)
    remedy = "start it (`prefect server start`), or pass --engine in-process"
    return [
        Finding(
            "environment",
            "Prefect's API",
            state,
            "none configured: runs need none" if api is None else f"{api}: {fault or 'answers'}",
            remedy=remedy if fault else "",
        ),
        Finding(
            "environment",
            "Prefect's home",
            "ok" if writable else "problem",
            f"{home}: {'writable' if writable else 'not writable'}",
            remedy="" if writable else "set PREFECT_HOME to a folder that can be written",
        ),
    ]


def _examine_dataset(settings: Settings, splits: Sequence[Split], *, decode: bool) -> _Dataset:
    """All splits that are there, or the named ones; own data is one table, whatever the split."""
    dataset, root = open_dataset(settings), settings.data_root
    if root is None:
        if settings.dataset != "demo":
            raise UsageError(
                f"dataset {dataset.name} needs --data-root",
                remedy="pass the folder that holds its annotation files and images",
            )
        root = demo_root(settings.store)
        if not root.is_dir():
            return _Dataset([Finding("demo", "data", "note", "drawn by the first run")])
    there: Sequence[Split] = ("val",) if settings.dataset == "own" else get_args(Split)
    copy = check_dataset(root, dataset, splits or there, insist=bool(splits), decode=decode)
    if not copy.benchmarks:
        return _Dataset(copy.findings)
    usual: Split = "val" if "val" in copy.benchmarks else next(iter(copy.benchmarks))
    # How many an adaptive K is, stage 1 tells.
    k = dataset.k if settings.k is None or settings.k == "auto" else settings.k
    needed = _needed(copy.benchmarks[usual], settings, k, ranked=dataset.writes_ranked)
    model = _stage1(settings)
    texts = judge_texts(usual, copy.benchmarks[usual].queries, model) if model else []
    return _Dataset([*copy.findings, *texts], needed)


def _needed(
    benchmark: Benchmark, settings: Settings, k: int | Literal["all"], *, ranked: bool
) -> int:
    """Bytes that a run on this split adds, with the given models or ones of published size."""
    model = _stage1(settings) or PUBLISHED_RETRIEVER
    texts = [text for one in benchmark.queries for text in (one.text, one.other_text) if text]
    pairs = sum(
        (images if k == "all" else min(k, images)) + len(query.subset)
        for query in benchmark.queries
        for images in (len(benchmark.galleries[query.category]),)
    )
    images = len(benchmark.files)
    counts = Counts(
        images=images,
        queries=len(benchmark.queries),
        tokens=sum(map(len, model.tokenizer()(texts))),
        pairs=pairs,
        kept=images if settings.tokens == "cache" else 0,
        ranked=pairs if ranked else 0,
    )
    return sum(stage.disk(counts, model.widths) for stage in STAGES)


def _stage1(settings: Settings) -> RetrieverConfig | None:
    """Of the model that a run would take, if it is known and can be read."""
    folder = _model(settings, "stage1")
    if folder is None:
        return None
    try:
        return read_retriever_config(folder)
    except CheckpointRefused:
        return None  # why the model is refused is a finding of its own


def _model(settings: Settings, stage: Literal["stage1", "stage2"]) -> Path | None:
    """That a run would take; None where it would ask for one."""
    given: Path | None = getattr(settings, stage)
    return shipped_model(stage) if given is None and settings.dataset == "demo" else given


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """A table per part, and below them examples and remedies of what is not as it should be."""
    names = ("check", "found", "expected", "%", "")
    columns = [Column(name, right=name in ("expected", "%")) for name in names]
    for part, group in groupby(findings, key=attrgetter("part")):
        print_table(console, columns, map(_cells, group), title=(part, "bold"))
    for finding in findings:
        if finding.state != "ok" and (finding.examples or finding.remedy):
            _print_details(finding, console)


def _cells(finding: Finding) -> list[Cell]:
    percent = "" if finding.percent is None else f"{finding.percent:.2f}"
    told = [_told(value) for value in (finding.found, finding.expected)]
    return [finding.check, *told, percent, (finding.state, STYLES[finding.state])]


def _print_details(finding: Finding, console: Console) -> None:
    title = f"{finding.part}: {finding.check}: {_told(finding.found)}"
    print_line(console, "")
    print_line(console, title, STYLES[finding.state])
    for example in finding.examples:
        print_line(console, f"  {example}")
    if isinstance(finding.found, int) and finding.found > len(finding.examples) > 0:
        print_line(console, f"  ... and {finding.found - len(finding.examples):,} more")
    if finding.remedy:
        told = finding.remedy.replace("\n", "\n    ")
        print_lines(console, f"  what to do: {told}")


def _told(value: int | str | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else value
