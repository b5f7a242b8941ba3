"""A finished run's rankings as files for test servers, evaluation tools and everybody else; and its
numbers as a table for a paper."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.errors import PreflightError, ProblemsFound, UsageError
from cir_core.late_fusion import fused_scores
from cir_core.protocols import PROTOCOLS
from cir_core.submissions import circo, cirr
from cir_core.submissions.faults import Verdict
from cir_core.submissions.formats import ExportFormat, Stage, compact_json
from cir_core.submissions.trec import qrel_lines, run_lines
from cir_core.types import Benchmark, Pool, Scale
from storage.atomic import commit, commit_text
from storage.runs import find_run, read_as_ours
from storage.store import Store
from storage.tables import write_jsonl, write_table
from storage.views import ADAPTIVE, Evaluated
from tasks.results.latex_table import LATEX_FILE, latex_table
from tasks.results.ranking_rows import ranking_rows, read_rankings
from tasks.stages.gallery import benchmark_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """The run, and the files that were written."""

    run_id: str
    files: tuple[Path, ...]


def export(
    store: Store,
    format_: ExportFormat,
    *,
    run: str | None = None,
    stage: Stage = "stage2",
    folder: Path | None = None,
) -> Exported:
    """Write a finished run in one format, into ``folder`` or ``<store>/exports/<run>/``.

    ``latex`` is the run's numbers, of both stages whatever ``stage`` says; the others are rankings.
    Reads artifacts only. Each file appears whole or not at all; a submission is written only if
    the server's rules allow all of it. Queries without candidates have no rows in the other
    formats, and a warning tells how many. Raises what ``find_run`` raises; UsageError when the run
    is of another dataset than the server's; PreflightError when its K is below what the server
    wants, or the run has no stage 2 and its order is asked for; StoreCorrupt when the run is
    another version's; ProblemsFound with every fault of a submission that would be refused.
    """
    found = find_run(store, run)
    with read_as_ours(found):
        folder = folder or store.local(f"exports/{found.run_id}")
        if format_ == "latex":
            found.require_current()
            text = latex_table(found)
            return Exported(found.run_id, _commit_texts({folder / LATEX_FILE: text}))
        if stage == "stage2" and not found.is_reranked:
            raise PreflightError(
                "a run that ended with stage 1 has no order of stage 2",
                item=f"run {found.run_id}",
                remedy="pass --stage stage1, or re-rank with `cir-pipeline run` and the same "
                "settings: its candidates are used again",
            )
        chosen = _read_run(found)
    return Exported(chosen.run_id, _WRITERS[format_](chosen, stage, folder))


@dataclass(frozen=True)
class _Run:
    """What exporting reads of a run."""

    run_id: str
    dataset: str
    split: str
    protocol: str
    k: int
    is_adaptive: bool
    queries: pa.Table
    gallery: pa.Table
    categories: pa.Table
    rankings: pa.Table
    late_fusion: tuple[float, Scale] | None

    @cached_property
    def benchmark(self) -> Benchmark:
        return benchmark_of(self.queries, self.gallery, self.categories)


def _fewest(evaluated: Evaluated) -> int:
    """Candidates of any query that has some; K, where that is a number."""
    k = evaluated.setting("k")
    ks = evaluated.candidates.ks() if k == ADAPTIVE else np.array([k])
    return int(ks.min()) if len(ks) else 0


def _read_run(evaluated: Evaluated) -> _Run:
    evaluated.require_current()
    source = evaluated.ingested
    return _Run(
        run_id=evaluated.run_id,
        dataset=source.setting("dataset"),
        split=source.setting("split"),
        protocol=source.protocol.name,
        k=_fewest(evaluated),
        is_adaptive=evaluated.setting("k") == ADAPTIVE,
        queries=source.read("queries"),
        gallery=source.read("gallery").sort_by("position"),
        categories=source.read("categories"),
        rankings=read_rankings(evaluated),
        late_fusion=evaluated.ranked.late_fusion if evaluated.is_reranked else None,
    )


# --- submissions


def _write_cirr(run: _Run, stage: Stage, folder: Path) -> tuple[Path, ...]:
    _require(run, "cirr", cirr.RULES["recall"].length)
    names: dict[cirr.Metric, Pool] = {"recall": "gallery", "recall_subset": "subset"}
    texts = {}
    for metric, pool in names.items():
        text = compact_json(cirr.build(metric, _ranked(run, stage, pool)))
        _require_valid(run, f"{metric} file", _check(cirr.check, run, text))
        texts[folder / f"{metric}_submission_{stage}.json"] = text
    return _commit_texts(texts)


def _write_circo(run: _Run, stage: Stage, folder: Path) -> tuple[Path, ...]:
    _require(run, "circo", circo.RULE.length)
    text = compact_json(circo.build(_ranked(run, stage, "gallery")))
    _require_valid(run, "file", _check(circo.check, run, text))
    return _commit_texts({folder / f"submission_{run.split}_{stage}.json": text})


def _require(run: _Run, dataset: str, length: int) -> None:
    if run.dataset != dataset:
        raise UsageError(
            f"run {run.run_id} is of dataset {run.dataset}, not {dataset}",
            remedy="name another run with --run, or export as trec, jsonl or parquet",
        )
    if run.k < length:
        raise PreflightError(
            f"{run.k} candidates a query are too few for a submission",
            item=f"run {run.run_id}, K = {run.k}" + " or more" * run.is_adaptive,
            cause=f"the server of {dataset} wants {length} images a query",
            remedy=f"run it again with -k {length} or more (encoded images are used again), then "
            "export that run",
        )


def _check(check: Callable[..., Verdict], run: _Run, text: str) -> Verdict:
    queries = run.queries.num_rows
    return check(text.encode(), run.split, benchmark=run.benchmark, queries=queries)


def _require_valid(run: _Run, name: str, verdict: Verdict) -> None:
    if verdict.faults:
        raise ProblemsFound(
            f"the server would refuse the {name} of run {run.run_id}",
            item="\n".join(str(fault) for fault in verdict.faults),
            cause="queries or images that could not be used (see the table problems), or a "
            "gallery smaller than the answer",
            remedy="complete the dataset and run again",
        )
    _log.info("%s", verdict.checked)


def _commit_texts(texts: Mapping[Path, str]) -> tuple[Path, ...]:
    for path, text in texts.items():
        commit_text(path, text)
    return tuple(texts)


# --- TREC


def _write_trec(run: _Run, stage: Stage, folder: Path) -> tuple[Path, ...]:
    _warn_of_unanswered(run, "; `trec_eval -c` counts them as 0, as our recall does")
    lines = "".join(_trec_lines(run, stage))
    texts = {folder / f"run_{stage}.trec": lines}
    recall_on = PROTOCOLS[run.protocol].recall_on
    qrels = "".join(qrel_lines(run.benchmark.queries, recall_on))
    if qrels:
        texts[folder / "qrels.trec"] = qrels
    return _commit_texts(texts)


def _trec_lines(run: _Run, stage: Stage) -> Iterator[str]:
    """By the scores of the stage; of a late fusion, by what it ranks by."""
    fusion = run.late_fusion if stage == "stage2" else None
    names = ["stage1_score", "stage2_score"] if fusion else [f"{stage}_score"]
    rows = _rows(run, stage, "gallery")
    queries, images = rows["query_id"].to_pylist(), rows["image_id"].to_pylist()
    told, *others = (rows[name].to_numpy() for name in names)
    end = 0
    for query, group in groupby(queries):
        one = slice(end, end := end + sum(1 for _ in group))
        scores = told[one]
        if fusion is not None:
            weight, scale = fusion
            pool, place = np.zeros(len(scores), int), np.arange(len(scores))
            scores = fused_scores(scores, others[0][one], pool, place, weight=weight, scale=scale)
        yield from run_lines(query, images[one], scores.astype(np.float32), run.run_id)


# --- tables


def _write_jsonl(run: _Run, stage: Stage, folder: Path) -> tuple[Path, ...]:
    _warn_of_unanswered(run)
    path = folder / f"rankings_{stage}.jsonl"
    commit(path, lambda temporary: write_jsonl(temporary, _rows(run, stage)))
    return (path,)


def _write_parquet(run: _Run, stage: Stage, folder: Path) -> tuple[Path, ...]:
    _warn_of_unanswered(run)
    path = folder / f"rankings_{stage}.parquet"
    commit(path, lambda temporary: write_table(temporary, _rows(run, stage)))
    return (path,)


def _warn_of_unanswered(run: _Run, advice: str = "") -> None:
    answered = pc.is_in(run.queries["query_id"], value_set=run.rankings["query_id"].unique())
    asked = run.queries.num_rows
    missing = asked - int(pc.sum(answered).as_py() or 0)
    if missing:
        _log.warning(
            "%d of %d queries have no candidates, and no rows: see the table problems%s",
            missing, asked, advice,
        )  # fmt: skip


# --- the rankings in order


def _rows(run: _Run, stage: Stage, pool: Pool | None = None) -> pa.Table:
    rows = ranking_rows(run.queries, run.rankings, stage)
    return rows if pool is None else rows.filter(pc.equal(rows["pool"], pool))


def _ranked(run: _Run, stage: Stage, pool: Pool) -> dict[str, list[str]]:
    """Every query's ranking, best first; empty where it has no candidates."""
    rankings: dict[str, list[str]] = {query: [] for query in run.queries["query_id"].to_pylist()}
    rows = _rows(run, stage, pool)
    for query, image in zip(
        rows["query_id"].to_pylist(), rows["image_id"].to_pylist(), strict=True
    ):
        rankings[query].append(image)
    return rankings


_WRITERS: Mapping[ExportFormat, Callable[[_Run, Stage, Path], tuple[Path, ...]]] = {
    "cirr-submission": _write_cirr,
    "circo-submission": _write_circo,
    "trec": _write_trec,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}
