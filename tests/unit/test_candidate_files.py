"""Files of candidates: what each format gives, and what is wrong with them, place by place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cir_core.datasets.row_faults import FAULTS_SHOWN, refuse_files
from cir_core.errors import AnnotationError, PreflightError
from cir_core.submissions.trec import run_lines
from cir_core.types import Benchmark, ImageId, Query, QueryId
from storage.sources import candidates
from storage.sources.candidates import CandidateRows, read_candidates
from storage.sources.embeddings import read_embeddings
from storage.store import LocalStore
from storage.views import Evaluated
from tasks.stages.changes import note_files
from tasks.stages.handed_over import Split, read_handed_over
from tests.support.made_runs import write_run

TREC = b"q1 Q0 a 1 0.5 t\n"
ONE = {"query": "q1", "image": "a", "score": 0.5}


def written(folder: Path, name: str, content: bytes) -> CandidateRows:
    (folder / name).write_bytes(content)
    return read_candidates(folder / name)


def rows(found: CandidateRows) -> list[tuple[Any, ...]]:
    columns = found.queries.to_pylist(), found.images.to_pylist(), found.scores.tolist()
    return list(zip(*columns, found.places.tolist(), strict=True))


def parquet(path: Path, **columns: Any) -> CandidateRows:
    pq.write_table(pa.table(columns), path)
    return read_candidates(path)


@pytest.mark.parametrize(
    "content",
    [
        TREC + b"q2 Q0 b 2 -1e-3 t\n",
        b"\xef\xbb\xbfq1\tQ0\ta\t1\t0.5\tt\r\nq2   Q0 b 2 -0.001 t",
        b"  q1 Q0 a 9 .5 t  \nq2 Q0 b 1 -1E-3 another",
    ],
)
def test_trec_is_parted_by_any_white_space_and_ranks_are_not_read(
    tmp_path: Path, content: bytes
) -> None:
    found = written(tmp_path, "run", content)
    assert rows(found) == [("q1", "a", 0.5, 1), ("q2", "b", -0.001, 2)]
    assert not found.faults.count


def test_blank_lines_keep_their_numbers_in_every_format_of_lines(tmp_path: Path) -> None:
    line = json.dumps(ONE).encode()
    for name, content in (("c.run", TREC), ("c.jsonl", line + b"\n")):
        found = written(tmp_path, name, b"\n" + content + b" \n" + content)
        assert rows(found) == [("q1", "a", 0.5, 2), ("q1", "a", 0.5, 4)]


def test_ids_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    expected = [("007", "1e3", 2.0, 1)]
    assert rows(written(tmp_path, "c.run", b"007 Q0 1e3 1 2 t")) == expected
    line = b'{"query_id": "007", "image_id": "1e3", "score": 2, "more": {"a": [1]}}'
    assert rows(written(tmp_path, "c.jsonl", line)) == expected
    texts = pa.array(["007"]).dictionary_encode()
    found = parquet(tmp_path / "c.parquet", query=texts, image=["1e3"], score=[2], rank=[1])
    assert rows(found) == expected
    assert found.others == ["rank"]
    with pytest.raises(AnnotationError, match="columns of other types") as caught:
        parquet(tmp_path / "d.parquet", query=[7], image=["a"], score=["0.5"])
    assert caught.value.cause == "query holds int64; score holds string"


def test_names_of_json_lines_that_are_not_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "LINES_OF_NAMES", 3)
    lines = [
        json.dumps(ONE | {"rank": 1}),
        "",
        json.dumps(ONE | {"tag\u00e9": "x", "rank": None}),
        json.dumps(ONE),
        json.dumps(ONE | {"late": 1}),
    ]
    found = written(tmp_path, "c.jsonl", "\n".join(lines).encode())
    assert found.others == ["rank", "tagé"]
    found = written(tmp_path, "d.jsonl", "\n".join([*lines, "no json"]).encode())
    assert found.others == ["rank", "tagé", "late"]  # each line is read for its fault
    broken = b'{"query": "q1", "image": "a", "score": 1, "no\xff": 1}'
    assert rows(written(tmp_path, "e.jsonl", broken))[0][:2] == ("q1", "a")


def test_faults_of_lines_are_told_and_the_others_are_read(tmp_path: Path) -> None:
    sound = json.dumps(ONE).encode()
    lines = [
        sound,
        b'{"query": 7, "image": "a", "score": true}',
        b'{"query": "q1", "image": "a"}',
        b"no json",
        b'{"query": "q1", "query_id": "q2", "image": "a", "score": 1}',
        b'{"query": "\xff", "image": "a", "score": 1}',
        b'{"query": "q2", "image": "b", "score": NaN}',
    ]
    found = written(tmp_path, "c.jsonl", b"\n".join(lines))
    assert [row[:2] + row[3:] for row in rows(found)] == [("q1", "a", 1), ("q2", "b", 7)]
    assert [fault.partition(": ")[2] for fault in found.faults.first] == [
        "query is not a text: 7; score is not a number: True",
        "score is missing",
        "is not JSON: Expecting value: line 1 column 1 (char 0)",
        "query and query_id are both given",
        r"query is not UTF-8 text: '\udcff'",
    ]
    found = written(tmp_path, "c.run", TREC + b"\xff Q0 a 1 1 t\n" + TREC)
    assert [row[3] for row in rows(found)] == [1, 3]
    assert found.faults.first == [r"line 2: is not UTF-8: b'\xff Q0 a 1 1 t'"]


def test_two_objects_on_a_line_are_no_json_line(tmp_path: Path) -> None:
    """Arrow's reader takes them; their places would be lost."""
    line = json.dumps(ONE).encode()
    assert written(tmp_path, "c.jsonl", line + line).faults.count == 1


def test_rows_that_lack_a_value_are_told(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"query": ["q", None], "image": ["a", "b"], "score": [None, 1.0]}
    found = parquet(tmp_path / "c.parquet", **columns)
    assert found.faults.first == ["row 1: score is missing", "row 2: query is missing"]


@pytest.mark.parametrize("name", ["c.run", "c.jsonl", "c.parquet"])
def test_a_file_without_candidates_is_a_fault(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        none: dict[str, Any] = {
            "query": pa.array([], pa.string()),
            "image": pa.array([], pa.string()),
        }
        found = parquet(tmp_path / name, **none, score=pa.array([], pa.float32()))
    else:
        found = written(tmp_path, name, b"")
    assert found.faults.first == ["there are no candidates in it"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("c.run", "q1 Q0 a".encode("utf-16"), "UTF-16"),
        ("c.parquet", b"PAR1", "not Parquet"),
    ],
)
def test_a_file_of_which_nothing_can_be_told_is_refused(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    with pytest.raises(AnnotationError, match=told):
        written(tmp_path, name, content)
    with pytest.raises(PreflightError, match="cannot be read"):
        read_candidates(tmp_path)


def test_columns_that_are_not_there_or_there_twice_are_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="lacks columns") as caught:
        parquet(tmp_path / "c.parquet", query=["q"], query_id=["q"], image=["a"])
    assert caught.value.cause == (
        "'query' and 'query_id' are both there; there is no column 'score'; found: 'query', "
        "'query_id', 'image'"
    )


def test_the_first_faults_are_told_and_all_are_counted(tmp_path: Path) -> None:
    found = written(tmp_path, "c.run", b"q Q0 a\n" * 2000)
    with pytest.raises(AnnotationError, match="2,000 faults") as caught:
        refuse_files({"c.run": found.faults}, remedy="")
    told = caught.value.item.splitlines()
    assert told[1].startswith("line 1: ")
    assert told[FAULTS_SHOWN].startswith(f"line {FAULTS_SHOWN}: ")
    assert told[FAULTS_SHOWN + 1 :] == [f"... and {2000 - FAULTS_SHOWN:,} more"]


# --- embeddings


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float16()), pa.list_(pa.float64()), pa.list_(pa.float32(), 2)]
)
def test_vectors_of_any_float_are_read_as_fp32(tmp_path: Path, kind: pa.DataType) -> None:
    unit = np.array([[0.6, 0.8], [1, 0], [0, -1]], dtype=np.float16)
    for name in ("gallery", "queries"):
        table = {"id": ["a", "b", "c"], "embedding": pa.array(list(unit)).cast(kind)}
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    for found in read_embeddings(tmp_path).values():
        assert found.vectors.dtype == np.float32
        assert np.array_equal(found.vectors, unit.astype(np.float32))
        assert not found.faults.count


def test_vectors_of_whole_numbers_and_ids_of_numbers_are_refused(tmp_path: Path) -> None:
    table = pa.table({"image": [1], "vector": [[1, 0]]})
    pq.write_table(table, tmp_path / "gallery.parquet")
    with pytest.raises(AnnotationError) as caught:
        read_embeddings(tmp_path)
    assert caught.value.cause.startswith("it holds ids as int64, vectors as list<")


def test_missing_vectors_and_numbers_are_told(tmp_path: Path) -> None:
    vectors = pa.array([[1.0, 0.0], None, [1.0, None], [0.0, 0.0], []])
    pq.write_table(
        pa.table({"image": list("abcde"), "vector": vectors}), tmp_path / "gallery.parquet"
    )
    pq.write_table(pa.table({"query": ["q"], "vector": [[1.0, 0.0]]}), tmp_path / "queries.parquet")
    assert read_embeddings(tmp_path)["gallery"].faults.first == [
        "row 2: vector is missing",
        "row 3: holds a number that is NaN, infinite or missing",
        "row 4: has length 0, not 1",
        "row 5: has 0 numbers, and the first vector 2",
    ]


# --- against a split


def test_ids_are_read_as_our_trec_files_write_them(tmp_path: Path) -> None:
    """And as they stand where nothing is called so: others do not escape theirs."""
    names = [ImageId(name) for name in ("a b", "100%", "a%20b", "c\u2028", "é")]
    queries = tuple(
        Query(QueryId(f"q {number}%"), "own", names[0], "t", (names[1],)) for number in range(2)
    )
    benchmark = Benchmark({"own": tuple(names)}, queries, {})
    scores = {one.query_id: np.arange(5) / 8 for one in queries}
    given: dict[str, Any] = {"protocol": "own-kept", "k": 5, "stage1": scores, "stage2": scores}
    evaluated = Evaluated(LocalStore(tmp_path), write_run(tmp_path, benchmark, **given))
    split, numbers = Split(evaluated.ingested), np.arange(5, dtype=np.float32)[::-1]
    ours = [line for one in queries for line in run_lines(one.query_id, names, numbers, "t")]
    (tmp_path / "ours.run").write_text("".join(ours))
    theirs = [f"q%20{row}% Q0 {name} 1 {4 - at} t\n" for row in range(2) for at, name in
              enumerate(["a%20b", "100%", "a%2520b", "c%E2%80%A8", "é"])]  # fmt: skip
    (tmp_path / "theirs.run").write_text("".join(theirs))
    found = [read_handed_over(tmp_path / f"{name}.run", split) for name in ("ours", "theirs")]
    assert found[0].digest == found[1].digest
    assert found[0].members.tolist() == [*range(5), *range(5)]
    assert found[0].scores.tolist() == [4, 3, 2, 1, 0] * 2


def test_a_file_that_changes_is_noticed_and_one_that_is_written_again_is_not(
    tmp_path: Path,
) -> None:
    same, other = tmp_path / "same.run", tmp_path / "other.run"
    for file in (same, other):
        file.write_bytes(TREC)
    noted = note_files([same, other])
    assert noted.changed() == ()
    for file, content in ((same, TREC), (other, TREC + TREC)):
        file.unlink()
        file.write_bytes(content)
    assert noted.changed() == (str(other),)


def test_whole_numbers_are_scores_as_fp64_has_them(tmp_path: Path) -> None:
    large = 2**53 + 1
    found = parquet(tmp_path / "run.parquet", query=["q1"], image=["a"], score=[large])
    assert found.scores.tolist() == [float(large)]
    lines = [ONE | {"score": 10**400}, {"query": "q1"}, ONE | {"score": large}]
    told = written(tmp_path, "run.jsonl", "\n".join(map(json.dumps, lines)).encode())
    assert rows(told) == [("q1", "a", float(large), 3)]
    assert told.faults.count == 2
