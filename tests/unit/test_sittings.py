"""What the making of an artifact took: recorded sitting by sitting, and information alone."""

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cir_core.errors import OutOfSpace
from cir_core.memory import forget_peaks, peak_memory, recent_peak
from storage import manifests
from storage.catalog import query
from storage.sittings import Sitting, sittings_of
from storage.store import LocalStore
from storage.views import Evaluated
from tasks.machine import Machine
from tasks.models.opening import read_reranker_config, read_retriever_config
from tasks.planning.workload import count_workload
from tasks.stages.chronicle import CPU, Committed
from tasks.stages.costs import cost_table
from tasks.stages.publish import Publish
from tasks.stages.stage import Each, Pass, make, make_here
from tests.support.small_benchmarks import Finished, K
from tests.support.toy_stage import Squares

MACHINE = Machine()


class Killed(BaseException):
    """In place of a signal."""


@pytest.fixture
def squares(tmp_path: Path) -> Squares:
    (tmp_path / "deaths").mkdir()
    return Squares(LocalStore(tmp_path / "store"), tmp_path / "deaths")


def killed_after(parts: int) -> Each:
    """In this process, until so many parts are committed."""

    def each(one_pass: Pass, shards: Sequence[str], machine: Machine) -> Iterator[Committed]:
        for number, done in enumerate(make_here(one_pass, shards, machine)):
            if number == parts:
                raise Killed
            yield done

    return each


def files(stage: Squares) -> list[Path]:
    return sorted((stage.made.folder.parents[2] / "sittings").rglob("*.json"))


def test_a_sitting_that_was_stopped_tells_what_it_made(squares: Squares) -> None:
    with pytest.raises(Killed):
        make(squares, MACHINE, killed_after(3))
    (stopped,) = sittings_of(squares.made)
    assert (stopped.parts, stopped.is_first, stopped.is_ended) == (3, True, False)
    make(squares, MACHINE, make_here)
    first, second = sittings_of(squares.made)
    assert first == stopped
    assert (second.parts, second.is_first, second.is_ended) == (4, False, True)
    make(squares, MACHINE, make_here)
    assert sittings_of(squares.made) == [first, second], "nothing was made"


def test_a_killed_process_has_recorded_what_it_made_until_lately(
    squares: Squares, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[Sitting]()

    def each(one_pass: Pass, shards: Sequence[str], machine: Machine) -> Iterator[Committed]:
        for done in make_here(one_pass, shards, machine):
            yield done
            seen.extend(sittings_of(squares.made))

    monkeypatch.setattr("tasks.stages.chronicle.SECONDS_BETWEEN_RECORDS", 0.0)
    make(squares, MACHINE, each)
    assert [(one.parts, one.is_ended) for one in seen] == [(n, False) for n in range(1, 9)]
    assert len(files(squares)) == 1


def test_what_was_deleted_is_not_counted(squares: Squares) -> None:
    make(squares, MACHINE, make_here)
    shutil.rmtree(squares.made.folder)
    make(squares, MACHINE, make_here)
    assert len(files(squares)) == 2
    (one,) = sittings_of(squares.made)
    assert one.parts == 8


def test_a_part_that_is_made_again_is_another_sitting(squares: Squares) -> None:
    make(squares, MACHINE, make_here)
    min(squares.made.folder.glob("*.parquet")).unlink()
    make(squares, MACHINE, make_here)
    assert [one.parts for one in sittings_of(squares.made)] == [8, 1]


def test_a_record_that_cannot_be_written_is_told_and_stops_nothing(
    squares: Squares, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put = LocalStore.put_text

    def full(store: LocalStore, name: str, text: str) -> str:
        if name.startswith("sittings/"):
            raise OutOfSpace("the disk is full", item=name)
        return put(store, name, text)

    monkeypatch.setattr(LocalStore, "put_text", full)
    with caplog.at_level(logging.WARNING):
        assert make(squares, MACHINE, make_here) == ("rerank",)
    assert "what this stage takes is not recorded: the disk is full" in caplog.text
    assert squares.made.is_done
    assert sittings_of(squares.made) == []


def test_an_older_record_says_nothing_of_copies_and_there_were_none(squares: Squares) -> None:
    make(squares, MACHINE, make_here)
    (file,) = files(squares)
    older = json.loads(file.read_text())
    del older["copied"], older["checksum"]
    file.write_text(json.dumps(older | {"pairs": 5}))
    (one,) = sittings_of(squares.made)
    assert (one.pairs, one.copied) == (5, 0)


@pytest.mark.parametrize("damage", ["{", "[]", '{"parts": 1}', "\ud800"])
def test_a_damaged_record_is_left_out_and_told(
    squares: Squares, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    make(squares, MACHINE, make_here)
    (file,) = files(squares)
    file.write_bytes(damage.encode(errors="surrogatepass"))
    with caplog.at_level(logging.WARNING):
        assert sittings_of(squares.made) == []
    assert f"what a stage took is not known: {file}" in caplog.text


# --- of a run


def costs(evaluated: Evaluated) -> dict[str, dict[str, Any]]:
    return {row["stage"]: row for row in cost_table(evaluated).to_pylist()}


def test_a_run_tells_what_its_artifacts_took_as_the_plan_counts_it(fiq_run: Finished) -> None:
    evaluated, pair = fiq_run.run.evaluated, fiq_run.bench.pair
    stage1, stage2 = read_retriever_config(pair.stage1), read_reranker_config(pair.stage2)
    chosen = evaluated.candidates
    candidates = chosen.read("candidates")
    work = count_workload(
        evaluated.ingested, stage1, k=K, encoded=chosen.encoded, candidates=candidates
    )
    found = costs(evaluated)
    assert list(found) == ["ingest", "encode", "fuse", "retrieve", "rerank", "rank", "evaluate"]
    seen = work.pictures * stage1.seeing_flops()
    fused = stage1.asking_flops(work.lengths)
    begun = stage2.beginning_flops(work.lengths)
    scored = begun + stage2.scoring_flops(work.expected.load)
    scored += work.expected.images * stage2.seeing_flops()
    assert found["encode"]["images"] == work.pictures
    assert found["encode"]["gflop"] == pytest.approx(seen / 1e9)
    assert (found["fuse"]["queries"], found["fuse"]["images"]) == (work.queries, None)
    assert found["fuse"]["gflop"] == pytest.approx(fused / 1e9)
    assert found["retrieve"]["gflop"] == pytest.approx(2 * stage1.embedding * work.compared / 1e9)
    assert found["rerank"]["pairs"] == work.expected.pairs
    assert found["rerank"]["gflop"] == pytest.approx(scored / 1e9)
    for row in found.values():
        assert (row["sittings"], row["unfinished"], row["recorded"]) == (1, 0, 1.0)
        assert row["peak_memory"] > 2**20
    one, two = (sittings_of(view)[0] for view in (chosen.encoded, chosen.fused))
    assert one.together == two.together == ("encode", "fuse")
    assert one.began_at == two.began_at


def test_gain_for_its_work(fiq_run: Finished) -> None:
    sql = (
        "SELECT g.points, 100 * m.value / (c.gflop / 1e6) FROM gain_per_petaflop g "
        "JOIN metrics m USING (run_id, category, pool, metric, k) JOIN costs c USING (run_id) "
        "WHERE m.stage = 'gain' AND c.stage = 'rerank'"
    )
    rows = query(fiq_run.run.catalog, sql)[1]
    assert rows
    assert [row[0] for row in rows] == pytest.approx([row[1] for row in rows])


def test_a_store_without_records_is_whole_and_nothing_is_made_up(
    fiq_run: Finished, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(fiq_run.store, store)
    shutil.rmtree(store / "sittings")
    assert fiq_run.bench.run(store).made == ()
    evaluated = Evaluated(LocalStore(store), fiq_run.run.evaluated.fingerprint)
    Publish(evaluated).write()
    names = "sittings, recorded, seconds, images, gflop, peak_memory, device"
    found = query(store / "cir.duckdb", f"SELECT DISTINCT {names} FROM costs")[1]
    assert found == [(0, 0.0, None, None, None, None, None)]
    assert query(store / "cir.duckdb", "FROM gain_per_petaflop")[1] == []


def test_part_of_a_record_is_told_as_such(fiq_run: Finished, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(fiq_run.store, store)
    (file,) = (store / "sittings" / "retrieve").rglob("*.json")
    told = manifests.unseal(file.read_text())
    file.write_text(manifests.seal(told | {"parts": 1, "is_ended": False}))
    evaluated = Evaluated(LocalStore(store), fiq_run.run.evaluated.fingerprint)
    found = costs(evaluated)["retrieve"]
    assert (found["recorded"], found["unfinished"]) == (0.25, 1)


def test_kept_tokens_that_were_read_are_a_cost_of_the_run(
    fiq_run: Finished, tmp_path: Path
) -> None:
    found = costs(fiq_run.bench.run(tmp_path, tokens="cache", until="evaluate").evaluated)
    before = costs(fiq_run.run.evaluated)
    assert list(found) == ["ingest", "tokens", *list(before)[1:]]
    assert found["tokens"]["gflop"] == pytest.approx(before["encode"]["gflop"])
    assert found["encode"]["gflop"] is None
    assert found["encode"]["images"] == before["encode"]["images"]


def test_a_peak_is_since_it_was_forgotten_and_the_process_keeps_its_own() -> None:
    forget_peaks(CPU)
    low = recent_peak(CPU)
    block = bytearray(b"1") * (64 * 2**20)
    high = recent_peak(CPU)
    assert high > low + len(block) // 2
    del block
    forget_peaks(CPU)
    assert recent_peak(CPU) < high
    assert peak_memory(CPU) > high - 2**20  # the kernel counts in batches
