"""Whether runs compare: what their numbers are of, and where that differs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cir_core.errors import PreflightError, UsageError
from storage.manifests import digest
from storage.views import Evaluated
from tasks.results.wording import SHA256_DIGITS, gallery_told

ASKED = ("query_id", "category", "reference_id", "text", "targets", "subset", "other_text")
"""Columns of a query that make it the same question with the same answer."""

SHARED = ("category", "reference_id", "targets")
"""Those in which two protocols' queries of one id are the same: they may word it differently."""


@dataclass(frozen=True)
class Differing:
    """What is not the same of all runs, and its value of each, by run id."""

    what: str
    values: Mapping[str, str]

    def __str__(self) -> str:
        return "\n".join([f"{self.what}:", *(f"  {run}  {v}" for run, v in self.values.items())])


def differing_of(runs: Sequence[Evaluated]) -> list[Differing]:
    """Of protocol, split, galleries and queries, those in which the runs differ."""
    facts = {run.run_id: _facts(run) for run in runs}
    names = list(dict.fromkeys(name for one in facts.values() for name in one))
    found = [
        Differing(name, {run: one.get(name, "none") for run, one in facts.items()})
        for name in names
    ]
    return [one for one in found if len({*one.values.values()}) > 1]


def require_comparable(differing: Sequence[Differing]) -> None:
    """Raises PreflightError that says what differs, and each run's value."""
    if differing:
        raise PreflightError(
            "these runs do not compare",
            item="\n".join(map(str, differing)),
            cause="numbers of another protocol, split, gallery or other queries say nothing of "
            "which run is better",
            remedy="run them alike; or `compare --anyway`, which compares the queries that they "
            "share and says so",
        )


def shared_queries(runs: Sequence[Evaluated]) -> list[str]:
    """The ids of the queries that all runs have, with the same category, reference and targets, in
    order. Raises UsageError where there are none."""
    keys = [_shared_keys(run.ingested.read("queries")) for run in runs]
    shared = [
        query for query, key in keys[0].items() if all(one.get(query) == key for one in keys[1:])
    ]
    if not shared:
        raise UsageError(
            "these runs share no query",
            item=", ".join(run.run_id for run in runs),
            cause="none has the same id, category, reference and targets in all of them",
            remedy="compare runs over the same dataset and split",
        )
    return sorted(shared)


def differently_worded(runs: Sequence[Evaluated], queries: Sequence[str]) -> int:
    """How many of the queries have another text in some run than in the first."""
    texts = [
        dict(zip(table["query_id"].to_pylist(), table["text"].to_pylist(), strict=True))
        for table in (run.ingested.read("queries", ["query_id", "text"]) for run in runs)
    ]
    return sum(len({one[query] for one in texts}) > 1 for query in queries)


def _facts(run: Evaluated) -> dict[str, str]:
    source = run.ingested
    queries = source.read("queries").sort_by("query_id")
    galleries = {
        f"gallery of {row['category']}": gallery_told(row)
        for row in run.read("galleries").to_pylist()
    }
    return {
        "protocol": source.protocol.name,
        "split": f"{source.setting('dataset')} {source.setting('split')}",
        **galleries,
        "queries": f"{queries.num_rows:,}, {digest(_rows(queries, ASKED))[:SHA256_DIGITS]}",
    }


def _shared_keys(queries: pa.Table) -> dict[str, list[Any]]:
    rows = zip(queries["query_id"].to_pylist(), _rows(queries, SHARED), strict=True)
    return dict(rows)


def _rows(table: pa.Table, columns: Sequence[str]) -> list[list[Any]]:
    lists = [table[name].to_pylist() for name in columns]
    return [list(row) for row in zip(*lists, strict=True)]
