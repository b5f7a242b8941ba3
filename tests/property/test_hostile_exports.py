"""Ids and captions that break careless formats come back from every export, byte for byte."""

import json
import tempfile
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pyarrow.parquet as pq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cir_core.submissions import cirr
from cir_core.submissions.formats import compact_json
from cir_core.submissions.trec import unescaped
from cir_core.types import Benchmark, ImageId, Query, QueryId
from storage.store import LocalStore
from tasks.results.export import export
from tests.support.made_runs import random_scores, write_run

HOSTILE = [
    "line\nbreak",
    "carriage\rreturn\r\n",
    "tab\tand  spaces ",
    'quote " and \\ backslash',
    "'; DROP TABLE runs; --",
    "\u202eright to left",
    "👩\u200d👩\u200d👧 family",
    "caf\u00e9",  # NFC, and its twin:
    "cafe\u0301",  # NFD
    "007",
    "7",
    "1e3",
    "null",
    "100%",
    "100%25",
    "a\u2028b\u2029c\x85d",
    "\ufeffmark",
    "\x1b[31mred",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "x" * 10_000,
    " ",
    "\x1f",
]
TEXT = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@st.composite
def benchmarks(draw: st.DrawFn) -> Benchmark:
    """Eight images and three queries, each id another text."""
    images = draw(st.lists(TEXT, min_size=8, max_size=8, unique=True).map(_image_ids))
    queries = draw(st.lists(TEXT, min_size=3, max_size=3, unique=True))
    asked = tuple(
        Query(
            query_id=QueryId(name),
            category="cirr",
            reference_id=images[row],
            text=draw(TEXT | st.just("")),
            targets=(images[row + 1],),
            subset=images[row + 1 : row + 6],
        )
        for row, name in enumerate(queries)
    )
    return Benchmark({"cirr": images}, asked, {})


def _image_ids(names: list[str]) -> tuple[ImageId, ...]:
    return tuple(ImageId(name) for name in names)


def _of_hostile_ids() -> Benchmark:
    images = _image_ids(HOSTILE)
    query = Query(QueryId("\t\n%"), "cirr", images[0], "\u202e", (images[1],), images[1:6])
    return Benchmark({"cirr": images}, (query,), {})


@settings(max_examples=15, deadline=None)
@given(benchmarks())
@example(_of_hostile_ids())
def test_every_table_and_trec_file_gives_back_what_went_in(benchmark: Benchmark) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        write_run(
            store,
            benchmark,
            protocol="cirr-removed-subset-scored",
            k=len(HOSTILE),
            stage1=random_scores(benchmark, rng, 3),
            stage2=random_scores(benchmark, rng, 3),
        )
        (jsonl,) = export(LocalStore(store), "jsonl").files
        (parquet,) = export(LocalStore(store), "parquet").files
        run_file, qrels_file = export(LocalStore(store), "trec").files
        rows = [json.loads(line) for line in jsonl.read_text("ascii").splitlines()]
        assert rows == pq.read_table(parquet).to_pylist()
        _assert_rows(rows, benchmark)
        _assert_trec(run_file, qrels_file, rows, benchmark)


def _assert_rows(rows: list[dict[str, Any]], benchmark: Benchmark) -> None:
    gallery = benchmark.galleries["cirr"]
    for query in benchmark.queries:
        mine = [row for row in rows if row["query_id"] == query.query_id]
        assert {(row["reference_id"], row["text"]) for row in mine} == {
            (query.reference_id, query.text)
        }
        ranked = {row["image_id"] for row in mine if row["pool"] == "gallery"}
        assert ranked == set(gallery) - {query.reference_id}
        assert {row["image_id"] for row in mine if row["pool"] == "subset"} == set(query.subset)
    assert list(dict.fromkeys(row["query_id"] for row in rows)) == [
        query.query_id for query in benchmark.queries
    ]


def _assert_trec(
    run_file: Path, qrels_file: Path, rows: list[dict[str, Any]], benchmark: Benchmark
) -> None:
    """Read by other people's reader, in the order of its scores."""
    found = list(ir_measures.read_trec_run(str(run_file)))
    ranked = [
        (unescaped(one.query_id), unescaped(one.doc_id))
        for query in dict.fromkeys(one.query_id for one in found)
        for one in sorted(
            (one for one in found if one.query_id == query), key=lambda one: -one.score
        )
    ]
    assert ranked == [
        (row["query_id"], row["image_id"]) for row in rows if row["pool"] == "gallery"
    ]
    labels = [
        (unescaped(one.query_id), unescaped(one.doc_id))
        for one in ir_measures.read_trec_qrels(str(qrels_file))
    ]
    assert labels == [(query.query_id, query.targets[0]) for query in benchmark.queries]


@given(
    st.dictionaries(TEXT.filter(lambda key: key not in ("version", "metric")), st.lists(TEXT)),
    st.sampled_from(["recall", "recall_subset"]),
)
@example({"12063": HOSTILE}, "recall")
def test_a_cirr_submission_gives_back_its_names(
    rankings: dict[str, list[str]], metric: cirr.Metric
) -> None:
    text = compact_json(cirr.build(metric, rankings))
    assert text.isascii()
    assert len(text.splitlines()) == 1
    found = json.loads(text)
    for pair, ranking in rankings.items():
        assert found[pair] == ranking[: cirr.RULES[metric].length]
