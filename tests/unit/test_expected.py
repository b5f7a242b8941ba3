"""``expected.toml`` and ``check-run``: a run holds what it said, and nothing else does."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cir_core.errors import ProblemsFound, UsageError
from cir_core.metrics.placing import AllTargetRanks, mean_average_precision, reciprocal_rank_metrics
from cir_core.metrics.recall import (
    TargetRanks,
    cirr_average,
    coverage_metrics,
    recall_metrics,
)
from flows.views.checks import require_reproduced, told
from storage.views import Evaluated
from tasks.results.record.expected import (
    Checked,
    Expected,
    check,
    name_of,
    read_expected,
    render,
    steps,
)
from tests.support.small_benchmarks import Finished


@pytest.fixture
def evaluated(cirr_run: Finished) -> Evaluated:
    return cirr_run.run.evaluated


def changed(evaluated: Evaluated, tmp_path: Path, **changes: str) -> Expected:
    """The run's own file, with lines replaced by their beginnings."""
    file, lines = tmp_path / "expected.toml", render(evaluated).splitlines()
    for start, line in changes.items():
        assert sum(one.startswith(start) for one in lines) == 1, start
        lines = [line if one.startswith(start) else one for one in lines]
    file.write_text("\n".join(lines), encoding="utf-8")
    return read_expected(file)


def states(checked: tuple[Checked, ...]) -> set[tuple[str, str]]:
    return {(one.name, one.state) for one in checked if one.state != "ok"}


def test_a_run_is_what_it_says(evaluated: Evaluated, cirr_run: Finished, tmp_path: Path) -> None:
    beside = cirr_run.run.report.with_name("expected.toml").read_text(encoding="utf-8")
    assert beside == render(evaluated)
    made = check(evaluated, changed(evaluated, tmp_path))
    assert made.ok
    require_reproduced(made, tmp_path)
    assert {one.state for one in (*made.facts, *made.numbers)} == {"ok"}
    assert len(made.numbers) == evaluated.read("metrics").num_rows
    assert {"gallery cirr", "model stage1", "model stage2", "protocol", "split"} <= {
        one.name for one in made.facts
    }
    assert told(made) == f"{len(made.facts)} ok of {len(made.facts)} facts; " + (
        f"{len(made.numbers)} ok of {len(made.numbers)} numbers"
    )


NAME = "cirr stage2 gallery recall@1"
KEY = f'"{NAME}"'


@pytest.mark.parametrize(
    ("off", "more", "flips", "state"),
    [
        (0.0, "", 1, "ok"),
        (1e-12, "", 0, "ok"),
        (1 / 7, "", 1, "within tolerance"),
        (1 / 7, "", 0, "differs"),
        (2 / 7, "", 1, "differs"),
        (2 / 7, "", 2, "within tolerance"),
        (2 / 7, ", tolerance = 0.3", 0, "within tolerance"),
        (1 / 7, ", tolerance = 0.1", 9, "differs"),
    ],
)
def test_a_number_may_be_off_by_its_tolerance(
    evaluated: Evaluated, tmp_path: Path, off: float, more: str, flips: int, state: str
) -> None:
    (value,) = [
        row["value"] for row in evaluated.read("metrics").to_pylist() if name_of(row) == NAME
    ]
    away = value + off if value <= 0.5 else value - off
    line = f"{KEY} = {{ value = {away!r}, step = {1 / 7!r}{more} }}"
    made = check(
        evaluated, changed(evaluated, tmp_path, **{KEY: line, "flips": f"flips = {flips}"})
    )
    assert states(made.numbers) == ({(NAME, state)} if state != "ok" else set())
    assert made.ok == (state != "differs")


def test_what_a_run_is_of_is_the_same_or_told(evaluated: Evaluated, tmp_path: Path) -> None:
    other = "0" * 64
    made = check(
        evaluated,
        changed(
            evaluated,
            tmp_path,
            **{
                "cirr = ": f'cirr = "{other}"\ndress = "{other}"',
                "stage2 = ": f'stage2 = "{other}"',
                "protocol": "",
                "k = ": "k = 5",
            },
        ),
    )
    assert states(made.facts) == {
        ("gallery cirr", "differs"),
        ("gallery dress", "missing"),
        ("model stage2", "differs"),
        ("k", "differs"),
    }
    assert "protocol" not in {one.name for one in made.facts}, "a deleted line is not compared"
    with pytest.raises(ProblemsFound, match="is not what") as caught:
        require_reproduced(made, tmp_path / "expected.toml")
    assert caught.value.exit_code == 3
    assert "other models, galleries or settings" in caught.value.cause


def test_numbers_that_are_missing_or_new_are_told(evaluated: Evaluated, tmp_path: Path) -> None:
    made = check(evaluated, changed(evaluated, tmp_path, **{KEY: '"a b@1" = { value = 1.0 }'}))
    assert states(made.numbers) == {("a b@1", "missing")}
    assert not made.ok


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("format = ", "Invalid value"),
        ("\ufeff\x00", "Invalid|Unescaped|control"),
        ("format = 2", "format: Input should be 1"),
        ("format = 1", "it expects nothing"),
        ("format = 1\nflips = -1\n[models]\nstage3 = 4", "flips: .*models.stage3: "),
        ("format = 1\n[numbers]\n'x' = { value = nan }", "numbers.x.value: "),
        ("format = 1\n[numbers]\n'x' = { value = 0.5, steps = 1 }", "numbers.x.steps: Extra"),
        ("format = 1\n[number]\nx = 1", "number: Extra"),
    ],
)
def test_a_bad_file_is_refused_with_every_reason(tmp_path: Path, text: str, cause: str) -> None:
    file = tmp_path / "expected.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_expected(file)
    assert caught.value.item == str(file)
    assert re.search(cause, caught.value.cause)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_expected(tmp_path / "none.toml")


HOSTILE = 'a"b\\c\n[x]\t\x00\x7f\u202e ]= 日本 🂡'


def test_hostile_categories_are_read_back(evaluated: Evaluated, tmp_path: Path) -> None:
    class Hostile(Evaluated):
        """With another category in all of its tables."""

        def read(self, kind: str, columns: Any = None) -> Any:
            table = super().read(kind, columns)
            place = table.column_names.index("category")
            return table.set_column(place, "category", [[HOSTILE] * len(table)])

    strange = Hostile(evaluated.store, evaluated.fingerprint)
    content = tomllib.loads(render(strange))
    assert list(content["galleries"]) == [HOSTILE]
    assert f"{HOSTILE} stage1 gallery recall@1" in content["numbers"]
    file = tmp_path / "expected.toml"
    file.write_bytes(render(strange).encode())
    assert check(strange, read_expected(file)).ok


# --- the tolerance


def ranks_of(rng: np.random.Generator, categories: list[str]) -> TargetRanks:
    stage1, stage2 = rng.integers(1, 5, size=(2, len(categories)))
    return TargetRanks(categories, stage1, stage2)


def neighbours(rng: np.random.Generator, ranks: np.ndarray) -> np.ndarray:
    """Each rank or one beside it: its target has changed places with a neighbour."""
    return np.maximum(1, ranks + rng.integers(-1, 2, size=len(ranks)))


def measured(ranks: TargetRanks) -> list[Mapping[str, Any]]:
    every = AllTargetRanks(
        ranks.category,
        [np.array([one]) for one in ranks.stage1],
        [np.array([one]) for one in ranks.stage2],
    )
    found = recall_metrics(ranks, ks=(1, 5, 10), pool="gallery")
    found += coverage_metrics(ranks, k=10)
    found += reciprocal_rank_metrics(ranks) + mean_average_precision(every, ks=(5, 10))
    return [asdict(metric) for metric in found + cirr_average(ranks, ranks)]


@pytest.mark.parametrize("sizes", [(1,), (7,), (3, 9, 4)])
def test_one_query_of_each_category_moves_no_number_by_more_than_a_step(
    sizes: tuple[int, ...],
) -> None:
    rng = np.random.default_rng(len(sizes))
    categories = [f"c{number}" for number, size in enumerate(sizes) for _ in range(size)]
    largest: dict[str, float] = {}
    for _ in range(200 if sizes == (1,) else 50):
        before = ranks_of(rng, categories)
        moved = np.concatenate([np.arange(size) == rng.integers(size) for size in sizes])
        after = TargetRanks(
            categories,
            np.where(moved, neighbours(rng, before.stage1), before.stage1),
            np.where(moved, neighbours(rng, before.stage2), before.stage2),
        )
        rows = measured(before)
        for one, other, step in zip(rows, measured(after), steps(rows), strict=True):
            share = abs(one["value"] - other["value"]) / step
            assert share <= 1 + 1e-9, one
            kind = f"{one['stage']} {one['metric']}"
            largest[kind] = max(largest.get(kind, 0.0), share)
    assert min(largest[f"stage2 {name}"] for name in ("recall", "mrr", "map")) > 0.9, largest
