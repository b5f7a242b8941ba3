"""Comparing finished runs of a store, and the files that tell it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cir_core.errors import UsageError
from cir_core.submissions.formats import Stage
from storage.atomic import commit_text
from storage.manifests import digest
from storage.runs import find_run, read_as_ours, tagged_so
from storage.store import Store
from storage.views import Evaluated
from tasks.results.compare import rendering
from tasks.results.compare.answers import answers_of, last_stage, measures_of
from tasks.results.compare.cells import Told, told
from tasks.results.compare.comparable import (
    differently_worded,
    differing_of,
    require_comparable,
    shared_queries,
)
from tasks.results.compare.comparison import Asked, Comparison, compared
from tasks.results.compare.page import render
from tasks.stages.output import labelled_content

VERSION = 2
PAGE = "index.html"
FILES = (PAGE, "comparison.md", "comparison.tex", "comparison.json")
DIGITS = 12


@dataclass(frozen=True)
class Compared:
    """``told`` is what fits a terminal; ``texts`` are the files by name."""

    comparison: Comparison
    told: Told
    summary: dict[str, Any]
    texts: dict[str, str]
    files: Sequence[Path]


def compare(
    store: Store,
    names: Sequence[str],
    *,
    tags: Sequence[str] = (),
    stage: Stage | None = None,
    anyway: bool = False,
    asked: Asked | None = None,
    root_of: Callable[[str], Path | None] = lambda _: None,
    folder: Path | None = None,
) -> Compared:
    """Compare the runs that are called so, and after them those that have all of the tags, if any
    are given, by one stage's order or each by its last; and write ``FILES`` into ``folder``, by
    itself below the store's reports. ``root_of`` says where the pictures of a dataset lie, if
    anywhere.

    Raises UsageError for fewer than two runs, one named twice, and runs that share no query;
    PreflightError for runs of another protocol, split or gallery, or of other queries, unless
    ``anyway``; and what ``find_run`` and ``tagged_so`` raise.
    """
    runs = _runs(store, names, tags)
    differing = differing_of(runs)
    if not anyway:
        require_comparable(differing)
    queries = shared_queries(runs)
    worded = differently_worded(runs, queries)
    measures = measures_of([run.ingested.protocol for run in runs])
    answers = []
    for run in runs:
        run.require_current()
        with read_as_ours(run):
            answers.append(answers_of(run, stage or last_stage(run), queries, measures))
    asked = asked or Asked()
    comparison = compared(answers, _categories(runs[0]), asked)
    brief, whole = (
        told(comparison, differing, worded=worded, every_pair=every) for every in (False, True)
    )
    summary = rendering.summary(comparison, differing, whole, worded=worded)
    root = root_of(runs[0].ingested.setting("dataset"))
    texts = {
        PAGE: render(comparison, whole, root, is_beside_reports=folder is None),
        "comparison.md": rendering.markdown(brief),
        "comparison.tex": rendering.latex(brief),
        "comparison.json": json.dumps(summary, indent=1, allow_nan=False) + "\n",
    }
    key = digest([VERSION, [labelled_content(run) for run in runs], stage, anyway, asdict(asked)])
    folder = folder or store.local(f"reports/compare-{key[:DIGITS]}")
    for name in FILES:
        commit_text(folder / name, texts[name])
    return Compared(comparison, brief, summary, texts, [folder / name for name in FILES])


def _runs(store: Store, names: Sequence[str], tags: Sequence[str]) -> list[Evaluated]:
    runs = [find_run(store, name) for name in names]
    twice = {run.run_id for run in runs if runs.count(run) > 1}
    if twice:
        raise UsageError(
            "a run is named twice", item=", ".join(sorted(twice)), remedy="name each run once"
        )
    if tags:
        runs += [run for run in tagged_so(store, tags) if run not in runs]
    if len(runs) < 2:  # noqa: PLR2004 - one has nothing beside it
        raise UsageError(
            "a comparison is of two runs or more",
            item=", ".join(run.run_id for run in runs),
            remedy="name them, or a tag: `cir-pipeline runs ls` lists the store's",
        )
    return runs


def _categories(run: Evaluated) -> dict[str, str]:
    table = run.ingested.read("queries", ["query_id", "category"])
    pairs = zip(table["query_id"].to_pylist(), table["category"].to_pylist(), strict=True)
    return dict(pairs)
