"""Exports of finished runs: what is written, and what is refused with its reason."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cir_core.errors import PreflightError, ProblemsFound, UsageError
from cir_core.submissions.formats import ExportFormat
from cir_core.types import Benchmark
from flows.run import Run
from flows.views.recall import print_recall
from storage import schemas
from storage.store import LocalStore
from storage.views import Evaluated, run_id_of
from tasks.results.check_submission import check_submission
from tasks.results.export import export
from tests.support.made_runs import (
    Scores,
    circo_benchmark,
    cirr_benchmark,
    random_scores,
    write_run,
)

SCORED = "cirr-removed-subset-scored"


def made_run(
    store: Path,
    benchmark: Benchmark,
    *,
    protocol: str = SCORED,
    k: int = 50,
    seed: int = 0,
    lost: tuple[str, ...] = (),
    split: str = "test",
) -> tuple[str, Scores]:
    """The run's evaluation, and stage 2's scores; ``lost`` queries have no candidates."""
    rng = np.random.default_rng(seed)
    stage1 = {
        query: scores
        for query, scores in random_scores(benchmark, rng, 5).items()
        if query not in lost
    }
    stage2 = random_scores(benchmark, rng, 5)
    evaluated = write_run(
        store, benchmark, protocol=protocol, k=k, stage1=stage1, stage2=stage2, split=split
    )
    return evaluated, stage2


def test_a_cirr_run_becomes_two_files_that_the_check_accepts(tmp_path: Path) -> None:
    benchmark = cirr_benchmark(60, 5, labelled=False)
    evaluated, stage2 = made_run(tmp_path, benchmark)
    exported = export(LocalStore(tmp_path), "cirr-submission")
    folder = tmp_path / "exports" / run_id_of(evaluated)
    assert exported.files == (
        folder / "recall_submission_stage2.json",
        folder / "recall_subset_submission_stage2.json",
    )
    recall, subset = (json.loads(file.read_text()) for file in exported.files)
    assert (recall["version"], recall["metric"]) == ("rc2", "recall")
    assert (subset["version"], subset["metric"]) == ("rc2", "recall_subset")
    gallery = benchmark.galleries["cirr"]
    for query in benchmark.queries:
        scores = dict(zip(gallery, stage2[query.query_id], strict=True))
        order = sorted(query.subset, key=lambda one: (-scores[one], gallery.index(one)))
        assert subset[query.query_id] == order[:3]
        assert len({*recall[query.query_id]}) == 50
        assert query.reference_id not in recall[query.query_id]
        told = [scores[image] for image in recall[query.query_id]]
        assert told == sorted(told, reverse=True)
    assert {*folder.iterdir()} == {*exported.files}


def test_stage_1_has_files_of_its_own(tmp_path: Path) -> None:
    made_run(tmp_path, cirr_benchmark(60, 3))
    first = export(
        LocalStore(tmp_path), "cirr-submission", stage="stage1", folder=tmp_path / "out"
    ).files
    second = export(LocalStore(tmp_path), "cirr-submission", folder=tmp_path / "out").files
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert first[0].read_text() != second[0].read_text()


def test_a_circo_run_becomes_one_file_of_numbers(tmp_path: Path) -> None:
    benchmark = circo_benchmark(70, 4, targets=0)
    made_run(tmp_path, benchmark, protocol="circo-kept-caption")
    (file,) = export(LocalStore(tmp_path), "circo-submission").files
    content = json.loads(file.read_text())
    assert file.name == "submission_test_stage2.json"
    assert list(content) == ["0", "1", "2", "3"]
    assert all(len({*numbers}) == 50 for numbers in content.values())
    assert all(type(number) is int for numbers in content.values() for number in numbers)


@pytest.mark.parametrize(
    ("format_", "protocol", "benchmark"),
    [
        ("cirr-submission", SCORED, cirr_benchmark(60, 3)),
        ("circo-submission", "circo-kept-caption", circo_benchmark(60, 3)),
    ],
)
def test_too_few_candidates_are_refused_with_the_k_to_take(
    tmp_path: Path, format_: ExportFormat, protocol: str, benchmark: Benchmark
) -> None:
    made_run(tmp_path, benchmark, protocol=protocol, k=49)
    with pytest.raises(PreflightError) as refused:
        export(LocalStore(tmp_path), format_)
    assert "49 candidates" in refused.value.what
    assert "-k 50" in refused.value.remedy
    assert not (tmp_path / "exports").exists()


def test_a_query_without_candidates_refuses_a_submission_and_warns_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    benchmark = cirr_benchmark(60, 3)
    made_run(tmp_path, benchmark, lost=("12064",))
    with pytest.raises(ProblemsFound) as refused:
        export(LocalStore(tmp_path), "cirr-submission")
    assert '"12064": 0 instead of 50' in refused.value.item
    assert not (tmp_path / "exports").exists()
    (file,) = export(LocalStore(tmp_path), "jsonl").files
    assert "1 of 3 queries have no candidates" in caplog.text
    asked = {json.loads(line)["query_id"] for line in file.read_text().splitlines()}
    assert asked == {"12063", "12065"}


def test_a_gallery_that_is_too_small_is_refused_by_the_servers_rules(tmp_path: Path) -> None:
    made_run(tmp_path, cirr_benchmark(50, 3))
    with pytest.raises(ProblemsFound) as refused:
        export(LocalStore(tmp_path), "cirr-submission")
    assert '"12063": 49 instead of 50' in refused.value.item


def test_another_datasets_run_is_refused(tmp_path: Path) -> None:
    made_run(tmp_path, circo_benchmark(60, 3), protocol="circo-kept-caption")
    with pytest.raises(UsageError, match="is of dataset circo, not cirr"):
        export(LocalStore(tmp_path), "cirr-submission")


def test_tables_have_their_columns_and_each_stages_order(tmp_path: Path) -> None:
    benchmark = cirr_benchmark(12, 3)
    made_run(tmp_path, benchmark, k=5)
    (file,) = export(LocalStore(tmp_path), "parquet").files
    table = pq.read_table(file)
    assert table.schema.equals(schemas.EXPORT)
    assert table.num_rows == 3 * (5 + 5)
    (lines,) = export(LocalStore(tmp_path), "jsonl", stage="stage1").files
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert list(rows[0]) == schemas.EXPORT.names
    for column, found in (("rank", table.to_pylist()), ("stage1_rank", rows)):
        pools = [(row["query_id"], row["pool"], row[column]) for row in found]
        assert pools == [
            (query.query_id, pool, place)
            for query in benchmark.queries
            for pool in ("gallery", "subset")
            for place in range(1, 6)
        ]


def test_without_labels_there_are_no_qrels(tmp_path: Path) -> None:
    made_run(tmp_path, cirr_benchmark(12, 3, labelled=False), k=5)
    (file,) = export(LocalStore(tmp_path), "trec").files
    assert len(file.read_text().splitlines()) == 15


def test_a_run_is_found_by_the_first_digits_of_its_id(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="no finished run"):
        export(LocalStore(tmp_path), "jsonl")
    first, _ = made_run(tmp_path, cirr_benchmark(12, 3), k=5)
    assert export(LocalStore(tmp_path), "jsonl").run_id == run_id_of(first)
    second, _ = made_run(tmp_path, cirr_benchmark(12, 3), k=6)
    for evaluated in (first, second):
        assert export(LocalStore(tmp_path), "jsonl", run=evaluated[:12]).run_id == run_id_of(
            evaluated
        )
        assert export(LocalStore(tmp_path), "jsonl", run=evaluated).run_id == run_id_of(evaluated)
    with pytest.raises(UsageError, match="several runs") as refused:
        export(LocalStore(tmp_path), "jsonl")
    assert all(run_id_of(one) in refused.value.item for one in (first, second))
    assert "K = 6" in refused.value.item
    with pytest.raises(UsageError, match="no run 'xyz'"):
        export(LocalStore(tmp_path), "jsonl", run="xyz")


def test_a_check_reads_the_annotations_alone(tmp_path: Path) -> None:
    """No image is there, nor needed."""
    benchmark = cirr_benchmark(60, 5, labelled=False)
    made_run(tmp_path, benchmark)
    files = export(LocalStore(tmp_path), "cirr-submission").files
    root = tmp_path / "data"
    (root / "cirr/captions").mkdir(parents=True)
    (root / "cirr/image_splits").mkdir()
    entries = [
        {
            "pairid": int(query.query_id),
            "reference": query.reference_id,
            "caption": query.text,
            "img_set": {"id": 1, "members": [query.reference_id, *query.subset]},
        }
        for query in benchmark.queries
    ]
    (root / "cirr/captions/cap.rc2.test1.json").write_text(json.dumps(entries))
    paths = {name: f"./test1/{name}.png" for name in benchmark.galleries["cirr"]}
    (root / "cirr/image_splits/split.rc2.test1.json").write_text(json.dumps(paths))
    for file in files:
        verdict = check_submission(file, "cirr", "test", root)
        assert verdict.faults == ()
        assert "5 lists" in verdict.checked
    form = check_submission(files[0], "cirr", "test", None)
    assert [fault.kind for fault in form.faults] == ["wrong_count"]  # 4,148 are published
    with pytest.raises(PreflightError, match="cannot be read"):
        check_submission(tmp_path, "cirr", "test", root)


def test_a_run_without_labels_says_how_to_export_it(tmp_path: Path) -> None:
    evaluated, _ = made_run(tmp_path, cirr_benchmark(60, 3, labelled=False))
    run = Run({"evaluate": Evaluated(LocalStore(tmp_path), evaluated)}, {}, problems=0, made=())
    told = StringIO()
    print_recall(run, Console(file=told, width=40))
    command = f"cir-pipeline export --format cirr-submission --run {run.run_id} --store {tmp_path}"
    assert command in told.getvalue()
