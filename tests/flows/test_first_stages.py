"""Candidates and embeddings that somebody else made: what is handed over is what is re-ranked."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cir_core.errors import AnnotationError, PreflightError, UsageError
from flows.doors.cli.app import app
from flows.engines.engine import InProcess
from flows.graph import graph_of
from flows.inputs import resolve_inputs
from flows.plan import make_plan
from flows.run import Run, check_models
from storage.catalog import query
from storage.runs import find_run
from storage.store import LocalStore
from storage.tables import vectors_of
from storage.views import Retrieved
from tasks.results.export import export
from tasks.stages.stage import make, make_here
from tests.support.documents import ROOT, commands
from tests.support.handed_over import hand_over, write_candidates, write_vectors
from tests.support.small_benchmarks import Finished, K, Pair


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.planning.timing.SECONDS", 0.02)


RANKED = ("query_id", "pool", "image_id", "stage2_score", "rank")


@pytest.fixture
def copied(fiq_run: Finished, tmp_path: Path) -> Finished:
    return copy_of(fiq_run, tmp_path)


def copy_of(finished: Finished, folder: Path) -> Finished:
    shutil.copytree(finished.store, folder / "store")
    return replace(finished, store=folder / "store")


def again(finished: Finished, **changes: Any) -> Run:
    return finished.bench.run(finished.store, **changes)


def choose(finished: Finished, **changes: Any) -> Retrieved:
    """The candidates alone."""
    inputs = resolve_inputs(finished.bench.settings(finished.store, **changes))
    models = check_models(inputs, InProcess()).view
    ingested = finished.run.evaluated.ingested
    filtering = graph_of(inputs, ingested, models).filtering
    for stage in (*filtering.read, filtering.retrieve):
        make(stage, inputs.machine, make_here)
    return filtering.retrieve.made


def chosen(finished: Finished, pool: str = "gallery") -> list[tuple[str, str, float]]:
    rows = finished.run.evaluated.candidates.read("candidates").to_pylist()
    names = ("query_id", "image_id", "stage1_score")
    return [tuple(row[name] for name in names) for row in rows if row["pool"] == pool]


def rankings(run: Run, pool: str | None = None) -> list[dict[str, Any]]:
    rows = run.evaluated.ranked.read("rankings").to_pylist()
    return [row for row in rows if pool in (None, row["pool"])]


def metrics(run: Run) -> dict[tuple[Any, ...], float]:
    keys = ("category", "stage", "pool", "metric", "k")
    rows = run.evaluated.read("metrics").to_pylist()
    return {tuple(row[key] for key in keys): row["value"] for row in rows}


# --- candidates


def test_a_runs_own_candidates_in_trecs_format_give_its_own_rankings(
    cirr_run: Finished, tmp_path: Path
) -> None:
    mine = copy_of(cirr_run, tmp_path)
    files = export(LocalStore(mine.store), "trec", stage="stage1", folder=tmp_path).files
    (file,) = (one for one in files if one.name == "run_stage1.trec")
    run = again(mine, candidates=file, k=None)
    assert run.made == ("retrieve", "rerank", "rank", "evaluate", "publish", "report")
    assert run.evaluated.setting("k") == K
    assert run.run_id != cirr_run.run.run_id
    before, after = rankings(cirr_run.run), rankings(run)
    assert [[row[name] for name in RANKED] for row in after] == [
        [row[name] for name in RANKED] for row in before
    ]
    known = {key: value for key, value in metrics(cirr_run.run).items() if 0 < key[-1] <= K}
    known = {key: value for key, value in known.items() if key[2] == "gallery"}
    assert {key: metrics(run)[key] for key in known} == known


def test_one_choice_has_one_name_in_any_format_and_order(copied: Finished, tmp_path: Path) -> None:
    rows = chosen(copied)
    shuffled = [rows[at] for at in np.random.default_rng(3).permutation(len(rows))]
    files = [
        write_candidates(tmp_path / f"c{end}", shuffled) for end in (".run", ".parquet", ".jsonl")
    ]
    found = [choose(copied, candidates=file) for file in files]
    assert found[0] == found[1] == found[2]
    assert found[0] != copied.run.evaluated.candidates
    candidates = found[0].read("candidates")
    assert candidates.equals(copied.run.evaluated.candidates.read("candidates"))
    rows[0] = (*rows[0][:2], rows[0][2] + 1e-6)
    assert choose(copied, candidates=write_candidates(tmp_path / "d.run", rows)) != found[0]


def test_k_takes_the_best_by_the_files_score_and_ties_by_gallery_position(
    copied: Finished, tmp_path: Path
) -> None:
    queries = copied.run.evaluated.ingested.read("queries").to_pylist()
    gallery = copied.run.evaluated.ingested.read("gallery").to_pylist()
    of = {name: [row["image_id"] for row in gallery if row["gallery"] == name] for name in
          copied.bench.categories}  # fmt: skip
    rows = [
        (one["query_id"], image, 9.5 if image == one["targets"][0] else -float(place % 2))
        for one in queries
        for place, image in reversed([*enumerate(of[one["category"]])])
    ]
    handed_over = choose(copied, candidates=write_candidates(tmp_path / "c.run", rows), k=3)
    found = handed_over.read("candidates").to_pylist()
    for one in queries:
        images, target = of[one["category"]], one["targets"][0]
        even = [image for image in images[::2] if image != target]
        mine = [row for row in found if row["query_id"] == one["query_id"]]
        assert [row["image_id"] for row in mine] == [target, *even[:2]]
        assert [row["stage1_score"] for row in mine] == [9.5, 0, 0]
        assert [row["stage1_rank"] for row in mine] == [1, 2, 3]


def test_a_target_beyond_k_has_the_files_rank_and_one_that_it_lacks_has_none(
    copied: Finished, tmp_path: Path
) -> None:
    queries = copied.run.evaluated.ingested.read("queries").to_pylist()
    target = {row["query_id"]: row["targets"][0] for row in queries}
    first = queries[0]["query_id"]
    others = {name: [] for name in target}  # type: dict[str, list[str]]
    for name, image, _ in chosen(copied):
        if image != target[name]:
            others[name].append(image)
    rows = [(name, image, 1 - at / 9) for name in others for at, image in enumerate(others[name])]
    rows.append((first, target[first], -3.0))
    file = write_candidates(tmp_path / "c.run", rows)
    run = again(copied, candidates=file, k=2, until="retrieve")
    ranks = run.evaluated.candidates.read("targets").to_pylist()
    last = len(others[first]) + 1
    assert ranks == [{"query_id": first, "image_id": target[first], "stage1_rank": last}]
    assert metrics(run)["average", "stage1", "gallery", "recall", 50] == pytest.approx(
        1 / len(target)
    )
    sql = f"SELECT reason, count(*) FROM failures WHERE run_id = '{run.run_id}' GROUP BY ALL"
    assert query(run.catalog, sql)[1] == [("lost in stage 1", len(target))]
    sql = "SELECT run_id, first_stage, first_stage_sha256, vector_index FROM runs"
    told = {row[0]: row[1:] for row in query(run.catalog, sql)[1]}
    digest = run.evaluated.candidates.first_stage_sha256
    assert digest is not None
    assert told[run.run_id] == ("candidates", digest, None)
    assert told[copied.run.run_id] == ("stage1", None, "exact")
    assert f"Candidates from a file (sha256 of what was read: {digest[:16]}" in (
        run.report.read_text()
    )


def test_the_protocol_takes_references_out_of_the_file(
    cirr_run: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = copy_of(cirr_run, tmp_path)
    queries = cirr_run.run.evaluated.ingested.read("queries").to_pylist()
    own = [(row["query_id"], row["reference_id"], 99.0) for row in queries]
    given = chosen(cirr_run)
    plain = choose(mine, candidates=write_candidates(tmp_path / "c.run", given))
    with caplog.at_level(logging.INFO):
        found = choose(mine, candidates=write_candidates(tmp_path / "d.run", own + given))
    assert f"{len(own)} candidates are the query's own reference" in caplog.text
    assert found == plain


def test_members_of_a_subset_that_the_file_lacks_come_last_and_flatter_nobody(
    cirr_run: Finished, tmp_path: Path
) -> None:
    mine, given = copy_of(cirr_run, tmp_path), chosen(cirr_run)
    found = choose(mine, candidates=write_candidates(tmp_path / "c.run", given))
    rows = [row for row in found.read("candidates").to_pylist() if row["pool"] == "subset"]
    before = chosen(cirr_run, "subset")
    assert {(row["query_id"], row["image_id"]) for row in rows} == {one[:2] for one in before}
    score = {one[:2]: one[2] for one in given}
    absent = [row for row in rows if (row["query_id"], row["image_id"]) not in score]
    assert 0 < len(absent) < len(rows)
    for row in rows:
        mine_ = [one[2] for one in given if one[0] == row["query_id"]]
        if row in absent:
            assert row["stage1_rank"] == 5
            assert row["stage1_score"] < min(mine_)
        else:
            assert row["stage1_score"] == score[row["query_id"], row["image_id"]]


def test_a_plan_counts_the_files_pairs(copied: Finished, tmp_path: Path) -> None:
    file = write_candidates(tmp_path / "c.parquet", [row for row in chosen(copied) if row[2] > 0.0])
    given = pq.read_table(file).num_rows
    settings = copied.bench.settings(copied.store, candidates=file, k=None)
    plan = make_plan(settings, started=0.0)
    left = {one.stage: one for one in plan.stages if one.state != "done"}
    assert [*left] == ["retrieve", "rerank", "rank", "evaluate", "publish", "report"]
    for name in ("retrieve", "rank", "evaluate", "report"):
        assert left[name].effort.pairs == given
    assert left["rerank"].effort.pairs == 0, "the run has scored them"
    shutil.rmtree(copied.store / "artifacts" / "rerank")
    stages = make_plan(settings, started=0.0).stages
    assert [one.effort.pairs for one in stages if one.stage == "rerank"] == [given]


def test_everything_wrong_with_a_file_is_told_by_line(copied: Finished, tmp_path: Path) -> None:
    (name, image, _), *rest = chosen(copied)
    other = copied.bench.categories[1]
    lines = [
        f"{name} Q0 {image} 1 0.5 x",
        "",
        f"{name} Q0 {image} 1 0.5",
        f"{name} Q0 {image} 2 0.4 x",
        f"{name} Q0 {image.upper()} 2 0.4 x",
        f"{name} Q0 {other}-03 2 0.4 x",
        f"007 Q0 {image} 2 0.4 x",
        f"{rest[0][0]} Q0 {rest[0][1]} 2 many x",
        f"{rest[1][0]} Q0 {rest[1][1]} 2 nan x",
        f"{rest[2][0]} Q0 {rest[2][1]} 2 1e39 x",
    ]
    file = tmp_path / "c.run"
    file.write_text("\r\n".join(lines))
    with pytest.raises(AnnotationError) as caught:
        choose(copied, candidates=file)
    told = caught.value.item.splitlines()
    assert told[:9] == [
        str(file),
        "line 3: has 5 columns, and a TREC run 6: query Q0 image rank score tag",
        f"line 4: query {name!r} has image {image!r} already on line 1",
        f"line 5: image {image.upper()!r} differs in upper and lower case from the image {image!r}",
        f"line 6: image '{other}-03' is not in the gallery 'dress', of which query {name!r} is "
        "asked",
        "line 7: query '007' is not asked",
        "line 8: score is not a number: 'many'",
        "line 9: score nan is no finite number of fp32",
        "line 10: score 1e+39 is no finite number of fp32",
    ]
    assert told[9].endswith("has no candidate")
    assert not list((copied.store / "artifacts").glob("retrieve/*/*.tmp"))


@pytest.mark.parametrize("setting", ["candidates", "embeddings"])
def test_what_changes_before_it_is_used_stops_the_run(
    copied: Finished, tmp_path: Path, setting: str
) -> None:
    inputs = resolve_inputs(copied.bench.settings(copied.store))
    models, ingested = check_models(inputs, InProcess()).view, copied.run.evaluated.ingested
    given = hand_over(graph_of(inputs, ingested, models).filtering, tmp_path)
    changes: dict[str, Any] = {setting: given[setting]}
    inputs = replace(inputs, **changes)
    filtering = graph_of(inputs, ingested, models).filtering
    stage = [*filtering.read, filtering.retrieve][0]
    if setting == "candidates":
        file = given[setting]
        file.write_text(file.read_text().replace(" 1 0.", " 1 1.", 1))
    else:
        file = given[setting] / "queries.parquet"
        table = pq.read_table(file)
        pq.write_table(
            table.set_column(1, "embedding", table["embedding"].take([0] * len(table))), file
        )
    with pytest.raises(PreflightError, match="changed since this run began"):
        make(stage, inputs.machine, make_here)


def test_what_cannot_be_meant_is_refused(copied: Finished, tmp_path: Path) -> None:
    file = write_candidates(tmp_path / "c.run", chosen(copied))
    with pytest.raises(UsageError, match="without --embeddings or --index"):
        choose(copied, candidates=file, embeddings=tmp_path, index="flat")
    with pytest.raises(UsageError, match="re-ranked as it is, without --text-weight"):
        choose(copied, candidates=file, text_weight=0.5)
    with pytest.raises(UsageError, match="searched as they are, without --text-weight"):
        choose(copied, embeddings=tmp_path, text_weight=0.5)
    with pytest.raises(PreflightError, match="a file of candidates cannot be read"):
        choose(copied, candidates=tmp_path / "none.run")
    stage2 = tmp_path / "stage2"
    shutil.copytree(copied.bench.pair.stage2, stage2)
    config = json.loads((stage2 / "config.json").read_text())
    (stage2 / "config.json").write_text(json.dumps(config | {"prior": 2.0}))
    bench = replace(copied.bench, pair=Pair(copied.bench.pair.stage1, stage2))
    with pytest.raises(UsageError, match="adds stage 1's score"):
        choose(replace(copied, bench=bench), candidates=file)


def test_the_pages_example_gives_the_rankings_that_it_starts_from(
    copied: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a small benchmark, which the environment names, in place of the demo."""
    first, second, *_ = commands((ROOT / "docs" / "first-stages.md").read_text())
    settings = copied.bench.settings(copied.store).model_dump(mode="json", exclude_unset=True)
    for name, value in settings.items():
        told = ",".join(value) if isinstance(value, list) else str(value)
        monkeypatch.setenv(f"CIR_{name.upper()}", told)
    monkeypatch.chdir(copied.store.parent)
    terminal = CliRunner()
    assert terminal.invoke(app, first).exit_code == 0
    done = terminal.invoke(app, [*second, "--json"])
    assert done.exit_code == 0, done.output
    evaluated = find_run(LocalStore(copied.store), json.loads(done.stdout)["run_id"])
    after = evaluated.ranked.read("rankings").select(RANKED)
    assert after.equals(copied.run.evaluated.ranked.read("rankings").select(RANKED))


# --- embeddings


def vectors(finished: Finished, folder: Path) -> dict[str, tuple[list[str], np.ndarray]]:
    """The run's own, by file; of queries and images in another order."""
    candidates = finished.run.evaluated.candidates
    images = candidates.encoded.read("embeddings")
    queries = candidates.fused.read("queries")
    found = {
        "gallery": (images["image_id"].to_pylist(), vectors_of(images["embedding"])),
        "queries": (queries["query_id"].to_pylist(), vectors_of(queries["embedding"])),
    }
    folder.mkdir(exist_ok=True)
    return {name: (ids[::-1], matrix[::-1]) for name, (ids, matrix) in found.items()}


def test_a_runs_own_embeddings_give_its_own_candidates(
    fiq_run: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine, folder = copy_of(fiq_run, tmp_path), tmp_path / "vectors"
    mine_ = vectors(fiq_run, folder)
    for name, (ids, matrix) in mine_.items():
        write_vectors(folder / f"{name}.parquet", [*ids, "unknown"], [*matrix, matrix[0]])
    with caplog.at_level(logging.INFO):
        found = choose(mine, embeddings=folder)
    assert "1 vectors are of nothing that this run asks or searches" in caplog.text
    before = fiq_run.run.evaluated.candidates
    assert found != before
    assert (found.first_stage, before.first_stage) == ("embeddings", "stage1")
    for kind in ("candidates", "targets"):
        assert found.read(kind).equals(before.read(kind))


def test_other_embeddings_are_searched_whatever_their_width_and_numbers(
    copied: Finished, tmp_path: Path
) -> None:
    """One dimension a query: each has the image that says so; vectors are in fp16 and in fp64."""
    folder, (queries, images) = (
        tmp_path / "vectors",
        (copied.run.evaluated.ingested.read(kind).to_pylist() for kind in ("queries", "gallery")),
    )
    folder.mkdir()
    names = [*dict.fromkeys(row["image_id"] for row in images)]
    width = len(names)
    write_vectors(folder / "gallery.parquet", names, np.eye(width, dtype=np.float16), id="image")
    rows = [names.index(one["targets"][0]) for one in queries]
    asked = [one["query_id"] for one in queries]
    write_vectors(folder / "queries.parquet", asked, np.eye(width)[rows], vector="embedding")
    ranks = choose(copied, embeddings=folder).read("targets").to_pylist()
    assert [(row["query_id"], row["stage1_rank"]) for row in ranks] == [(one, 1) for one in asked]


def test_everything_wrong_with_embeddings_is_told(copied: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    (images, gallery), (asked, queries) = vectors(copied, folder).values()
    rows = [*gallery[:-1], gallery[0]]
    rows[1], rows[2] = 3 * rows[1], rows[2] * np.nan
    rows[3] = rows[3][:5]
    ids = [*images[:-1], images[0]]
    write_vectors(folder / "gallery.parquet", ids, rows)
    write_vectors(folder / "queries.parquet", asked[1:], queries[1:, :7])
    with pytest.raises(AnnotationError, match="21 faults") as caught:
        again(copied, embeddings=folder)
    assert "np.linalg.norm" in caught.value.remedy
