"""The run card: what was run, on what, how well and at what cost, in Markdown for a model hub or a
paper's appendix. Made of ``metrics.json``'s content alone."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from json import dumps
from typing import Any

from tasks.results.markup.markdown import as_markdown, markdown_table
from tasks.results.markup.visible import visible
from tasks.results.record.numbers import averaged
from tasks.results.titles import STAGES, title_of
from tasks.results.wording import adaptive_words, candidates_of, counted, is_reranked

Row = Mapping[str, Any]
Document = Mapping[str, Any]

HUB_METRICS = ("recall", "map", "recall_subset", "cirr_average")

MIB = 2**20


def card(document: Document) -> str:
    """The whole text. Ids and texts of data are escaped: none is markup."""
    sections = (_title, _protocol, _results, _data, _models, _settings, _costs, _again, _caveats)
    lines = [line for section in sections for line in section(document)]
    return "\n".join([*_front_matter(document), *lines, ""])


def _front_matter(document: Document) -> Iterator[str]:
    """Metadata as model hubs read it (``model-index``): values of JSON, which YAML takes."""
    run, last = document["run"], _last_stage(document)
    rows = [
        row
        for row in averaged(document["metrics"])
        if row["metric"] in HUB_METRICS and row["stage"] == last
    ]
    yield "---"
    yield "tags: [composed-image-retrieval]"
    if rows:
        yield "model-index:"
        yield f"- name: {_yaml(_name(document))}"
        yield "  results:"
        yield "  - task: {type: image-retrieval, name: Composed image retrieval}"
        dataset = {"name": run["dataset"], "type": run["dataset"], "split": run["split"]}
        yield f"    dataset: {_yaml(dataset | {'revision': run['gallery_sha256']})}"
        yield "    metrics:"
        for row in rows:
            metric = {
                "type": row["metric"] + (f"_at_{row['k']}" if row["k"] else ""),
                "name": f"{_measure(row)}, protocol {run['protocol']}",
                "value": round(100 * row["value"], 2),
            }
            yield f"    - {_yaml(metric)}"
    yield "---"
    yield ""


def _title(document: Document) -> Iterator[str]:
    run, tags = document["run"], document["label"]["tags"]
    yield f"# Run card: {as_markdown(_name(document))}"
    yield ""
    yield (
        f"Composed image retrieval on {as_markdown(run['dataset'])}, split {run['split']}: "
        f"{counted(run['queries'], 'query', 'queries')}, "
        f"{counted(run['gallery_images'], 'gallery image')}, "
        f"{candidates_of(run)} a query{adaptive_words(run)}"
        + (", re-ranked." if is_reranked(run) else "; nothing was re-ranked.")
    )
    yield ""
    yield f"Run `{run['run_id']}`, made {run['created_at']} UTC."
    if tags:
        yield f"Tags: {', '.join(map(as_markdown, tags))}."
    yield ""


def _protocol(document: Document) -> Iterator[str]:
    protocol = document["protocol"]
    yield f"Protocol **{as_markdown(protocol['name'])}**: {as_markdown(protocol['description'])}."
    yield f"Numbers under it are published by {as_markdown(protocol['source'])}."
    yield ""


def _results(document: Document) -> Iterator[str]:
    yield "## Results"
    yield ""
    rows = document["metrics"]
    if not rows:
        yield "The queries have no labels: nothing is measured."
        yield ""
        return
    stages = [stage for stage in STAGES if any(row["stage"] == stage for row in rows)]
    yield (
        f"In %, with 95 % intervals; protocol {as_markdown(document['protocol']['name'])}, "
        f"{candidates_of(document['run'])} a query. Recall is over all labelled queries. Coverage "
        "is the ceiling of stage 2."
    )
    yield ""
    found: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in sorted(rows, key=lambda row: _place(document, row)):
        found.setdefault((row["category"], _measure(row), str(row["n"])), {})[row["stage"]] = row
    heads = ["category", "measure", "queries", *(STAGES[stage] for stage in stages)]
    cells = (
        [*key, *(_interval(of_stage.get(stage)) for stage in stages)]
        for key, of_stage in found.items()
    )
    yield from _table(heads, cells)
    published = document["published"]
    if published:
        yield "Published for the same protocol and split:"
        yield ""
        told = ([_method(one), one["category"], _measure(one), one["percent"]] for one in published)
        yield from _table(["method and source", "category", "measure", "%"], told)


def _data(document: Document) -> Iterator[str]:
    yield "## What was searched"
    yield ""
    heads = ["category", "images", "missing", "sha256"]
    rows = ([row[name] for name in heads] for row in document["galleries"])
    yield from _table(heads, rows)


def _models(document: Document) -> Iterator[str]:
    yield "## Models"
    yield ""
    yield from _table(
        ["stage", "sha256 of config and weights"], document["facts"]["models"].items()
    )


def _settings(document: Document) -> Iterator[str]:
    yield "## Settings and versions"
    yield ""
    settings = document["facts"]["settings"].items()
    yield from _table(
        ["setting", "value"], ([_words(name), _told(value)] for name, value in settings)
    )
    versions = {
        ", ".join(f"{name} {version}" for name, version in one["made_with"].items())
        for one in document["artifacts"]
    }
    yield from (f"- {as_markdown(text)}" for text in sorted(versions))
    yield ""
    heads = ["artifact", "version", "fingerprint"]
    rows = ([one["stage"], one["version"], one["fingerprint"]] for one in document["artifacts"])
    yield from _table(heads, rows)


def _costs(document: Document) -> Iterator[str]:
    yield "## Cost"
    yield ""
    yield (
        "Of the making of each artifact, whichever run it was for; GFLOP are counted by the "
        "models' formulas. Empty: not recorded, or nothing of the kind."
    )
    yield ""
    heads = ["stage", "seconds", "images", "queries", "pairs", "GFLOP", "peak MiB", "on"]
    yield from _table(heads, map(_cost, document["costs"]))
    seconds = [row["seconds"] for row in document["costs"]]
    if all(one is not None for one in seconds):
        yield f"Together {sum(seconds):,.1f} s."
        yield ""
    for row in averaged(document["gain_per_petaflop"]):
        if row["metric"] in HUB_METRICS:
            yield (
                f"- {as_markdown(_measure(row))}: {row['points']:+,.2f} points for 10^15 "
                f"operations of stage 2 ({row['points_low']:+,.2f} to {row['points_high']:+,.2f})"
            )
    yield ""


def _again(document: Document) -> Iterator[str]:
    yield "## To reproduce it"
    yield ""
    yield "```sh"
    if document["command"]:
        yield visible(shlex.join(document["command"]))
    yield "cir-pipeline check-run --expected expected.toml"
    yield "```"
    yield ""
    yield (
        "`check-run` compares the numbers with this run's `expected.toml`, each with its "
        "tolerance, and the hashes of galleries and models."
    )
    yield ""


def _caveats(document: Document) -> Iterator[str]:
    if document["caveats"]:
        yield "## Caveats"
        yield ""
        yield from (f"- {as_markdown(text)}" for text in document["caveats"])


def _cost(row: Row) -> list[Any]:
    memory, gpu = row["peak_memory"], row["peak_gpu_memory"]
    peak = "" if memory is None else f"{memory / MIB:,.0f}"
    peak += "" if gpu is None else f" and {gpu / MIB:,.0f} on a GPU"
    at_least = "≥ " if row["sittings"] and row["recorded"] < 1 else ""
    machine = [row["processor"] if row["device"] == "CPU" else row["device"]]
    machine += [f"threads: {row['threads']}"] if row["threads"] else []
    machine += [f"processes: {row['processes']}"] if (row["processes"] or 1) > 1 else []
    return [
        row["stage"],
        _count(row["seconds"], at_least, ",.1f"),
        *(_count(row[name], at_least, ",") for name in ("images", "queries", "pairs")),
        _count(row["gflop"], at_least, ",.1f"),
        peak,
        ", ".join(filter(None, machine)),
    ]


def _count(value: float | None, at_least: str, form: str) -> str:
    return "" if value is None else f"{at_least}{value:{form}}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield from markdown_table(heads, (map(str, row) for row in rows))
    yield ""


def _name(document: Document) -> str:
    run = document["run"]
    return document["label"]["name"] or f"{run['dataset']} {run['split']}, run {run['run_id']}"


def _last_stage(document: Document) -> str:
    return "stage2" if is_reranked(document["run"]) else "stage1"


def _measure(row: Row) -> str:
    return title_of(row["metric"], row["k"])


def _method(row: Row) -> str:
    k = f", K = {row['candidates']}" if row["candidates"] else ""
    unstated = f", {row['unstated']} not stated" if row["unstated"] else ""
    return f"{row['method']}{k} ({row['source']}{unstated})"


def _interval(row: Row | None) -> str:
    if row is None:
        return ""
    sign = "+" if row["stage"] == "gain" else ""
    value, low, high = (100 * row[name] for name in ("value", "ci_low", "ci_high"))
    return f"{value:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _place(document: Document, row: Row) -> int:
    """The categories in their order, then the averages."""
    names = [one["category"] for one in document["galleries"]]
    return names.index(row["category"]) if row["category"] in names else len(names)


def _told(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _yaml(value: Any) -> str:
    return dumps(value)
