"""A run's numbers for a paper: every cell is a number of the run, and every text is a text."""

import re
from pathlib import Path
from typing import Any

import pytest

from flows.views.recall import recall_rows
from storage.store import LocalStore
from storage.views import Evaluated
from tasks.results.export import export
from tasks.results.latex_table import latex_table
from tasks.results.markup.latex import as_latex
from tests.support.small_benchmarks import Bench, Finished


def rows_of(text: str) -> list[list[str]]:
    body = text.split("\\toprule\n", 1)[1].split("\\bottomrule", maxsplit=1)[0]
    return [line.split(" & ") for line in body.splitlines() if line.endswith("\\\\")]


def bare(cell: str) -> str:
    return re.sub(r"[$\\]", "", cell).strip()


def test_cells_are_the_runs_numbers_with_the_gains_interval(
    fiq_run: Finished, cirr_run: Finished
) -> None:
    for finished in (fiq_run, cirr_run):
        rows = rows_of(latex_table(finished.run.evaluated))
        assert len({len(row) for row in rows}) == 1
        cells = {bare(cell) for row in rows for cell in row} | {""}
        told = recall_rows(finished.run)
        assert {one for _, _, *stages in told for one in stages} <= cells
        assert {measure for _, measure, *_ in told} <= {bare(row[1]) for row in rows}
        assert len(rows[0]) == 6, "a page is no wider, whatever is measured"


def test_the_caption_says_what_the_numbers_are_of(fiq_run: Finished) -> None:
    text = latex_table(fiq_run.run.evaluated)
    (caption,) = [line for line in text.splitlines() if line.startswith("\\caption{")]
    galleries = fiq_run.run.evaluated.read("galleries").to_pylist()
    for one in galleries:
        assert as_latex(f"{one['category']} {one['images']} images") in caption
        assert one["sha256"][:12] in caption
    assert as_latex("protocol fiq-original-kept") in caption
    assert "K = 6" in caption


def test_the_caption_says_what_cirrs_average_is(fiq_run: Finished, cirr_run: Finished) -> None:
    told = as_latex("average: mean of R@5 and R_subset@1.")
    assert told in latex_table(cirr_run.run.evaluated)
    assert told not in latex_table(fiq_run.run.evaluated)


def test_export_writes_it_also_of_stage_1_alone(fiq: Bench, tmp_path: Path) -> None:
    run = fiq.run(tmp_path / "store", until="retrieve")
    exported = export(LocalStore(tmp_path / "store"), "latex", folder=tmp_path / "out")
    assert exported.files == (tmp_path / "out" / "recall.tex",)
    text = exported.files[0].read_text(encoding="utf-8")
    assert text == latex_table(run.evaluated)
    assert "stage 1 with its 95" in text
    assert "stage 2" not in text


class Changed(Evaluated):
    """With other tables than the store's."""

    tables: dict[str, Any]

    def read(self, kind: str, columns: Any = None) -> Any:
        return self.tables.get(kind, super().read(kind))


def test_hostile_categories_are_texts_and_no_labels_are_told(fiq_run: Finished) -> None:
    run = fiq_run.run.evaluated
    strange = Changed(run.store, run.fingerprint)
    metrics = run.read("metrics")
    place = metrics.column_names.index("category")
    names = ["[2em]\\\\ 5 & 6 % x" for _ in range(len(metrics))]
    galleries = run.read("galleries").slice(0, 1)
    strange.tables = {
        "metrics": metrics.set_column(place, "category", [names]),
        "galleries": galleries.set_column(0, "category", [names[:1]]),
    }
    text = latex_table(strange)
    assert len({len(row) for row in rows_of(text)}) == 1
    assert not re.search(r"^\[", text, re.MULTILINE)
    strange.tables = {"metrics": metrics.slice(0, 0)}
    assert "nothing is measured" in latex_table(strange)
    assert "tabular" not in latex_table(strange)


@pytest.mark.parametrize(("text", "written"), [("[a]", "{[}a{]}"), ("a-b", "a{-}b")])
def test_a_bracket_is_no_option(text: str, written: str) -> None:
    assert as_latex(text) == written
