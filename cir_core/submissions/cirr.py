"""CIRR's two submission files: the first 50 of the gallery, and the first 3 of the subset's 5.

``{"version": "rc2", "metric": "recall" | "recall_subset", "<pairid>": [names, best first], ...}``
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from cir_core.submissions.faults import Faults, Verdict, decode_object, shown
from cir_core.submissions.lists import Answers, ListRule, check_lists, check_queries
from cir_core.types import Benchmark

Metric = Literal["recall", "recall_subset"]

RULES: dict[Metric, ListRule] = {"recall": ListRule(50, str), "recall_subset": ListRule(3, str)}

VERSION = "rc2"

MAX_BYTES = 5_000_000
"""The server says 5 MB; of the two readings, the one that is surely accepted."""


def build(metric: Metric, rankings: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The submission of these rankings (by pair id, best first), cut to the metric's length.

    Nothing is made up: a short ranking stays short, and ``check`` says so.
    """
    length = RULES[metric].length
    lists = {pair: list(ranking[:length]) for pair, ranking in rankings.items()}
    return {"version": VERSION, "metric": metric, **lists}


def check(content: bytes, split: str, *, benchmark: Benchmark | None, queries: int) -> Verdict:
    """Everything that is wrong with a file's bytes, as a submission for this split.

    Without the benchmark only the form is checked, and the number of lists against ``queries``.
    A file without a usable metric is measured by the length that most of its lists have.
    """
    faults = Faults()
    if len(content) > MAX_BYTES:
        faults.add("too_large", f"{len(content):,} bytes")
    decoded = decode_object(content, faults)
    if decoded is None:
        return Verdict(f"CIRR {split}", faults.grouped())
    for key, allowed in (("version", (VERSION,)), ("metric", get_args(Metric))):
        if decoded.get(key) not in allowed:
            faults.add(key, f"it is {shown(decoded[key])}" if key in decoded else "it is missing")
    lists = {key: value for key, value in decoded.items() if key not in ("version", "metric")}
    metric = _metric(decoded.get("metric"), lists)
    if benchmark is None:
        _check_keys(lists, queries, faults)
    else:
        check_queries(lists, (query.query_id for query in benchmark.queries), faults)
    rule = RULES[metric]
    check_lists(lists, rule, _allowed(benchmark, metric), faults)
    against = (
        "pair ids, references, subsets and names checked against the annotations"
        if benchmark
        else "form only (pair ids, references, subsets and names need --data-root)"
    )
    told = f"CIRR {split}, {metric}: {len(lists):,} lists of {rule.length}, {len(content):,} bytes"
    return Verdict(f"{told}; {against}", faults.grouped())


def _metric(declared: object, lists: Mapping[str, object]) -> Metric:
    for metric in RULES:
        if declared == metric:
            return metric
    lengths = Counter(len(answers) for answers in lists.values() if isinstance(answers, list))
    is_subset = bool(lengths) and lengths.most_common(1)[0][0] <= RULES["recall_subset"].length
    return "recall_subset" if is_subset else "recall"


def _check_keys(lists: Mapping[str, object], queries: int, faults: Faults) -> None:
    """What can be said of pair ids without the annotations."""
    for key in lists:
        if not (key.isascii() and key.isdigit()):
            faults.add("unknown_query", shown(key))
    if len(lists) != queries:
        faults.add("wrong_count", f"{len(lists):,} instead of {queries:,}")


def _allowed(benchmark: Benchmark | None, metric: Metric) -> dict[str, Answers]:
    if benchmark is None:
        return {}
    galleries = {name: frozenset[str](images) for name, images in benchmark.galleries.items()}
    return {
        query.query_id: Answers(
            gallery=galleries[query.category],
            reference=query.reference_id,
            subset=frozenset(query.subset) if metric == "recall_subset" else None,
        )
        for query in benchmark.queries
    }
