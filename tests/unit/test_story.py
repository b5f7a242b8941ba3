"""One query's story: from made-up catalogs, worked out by hand."""

import base64
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from cir_core.errors import PreflightError, UsageError
from flows.views.half_blocks import half_blocks, print_pictures
from flows.views.story import pictured, print_story
from flows.views.streams import put_json
from storage.answers import reading
from storage.catalog import PublishedRun, write_catalog
from tasks.results.story import Story, story
from tests.support.made_catalogs import asked, published, ranked, two_categories, with_subset


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cir.duckdb"


def told(path: Path, run: PublishedRun, name: str, shown: int = 10) -> Story:
    write_catalog(path, [run, two_categories("other")])
    with reading(path) as catalog:
        return story(catalog, run.row["run_id"], name, shown)


def drawn(found: Story, capsys: pytest.CaptureFixture[str]) -> str:
    print_story(found, Console(markup=False, highlight=False, width=200))
    return capsys.readouterr().out


def test_a_target_that_falls(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(path, two_categories(), "s1", shown=2)
    (pool,) = found.pools
    assert [(row["image_id"], row["moved"]) for row in pool.before] == [("a", -1), ("b", -1)]
    assert [(row["image_id"], row["moved"]) for row in pool.after] == [("c", 2), ("a", -1)]
    assert pool.margin1 == pytest.approx(0.1)
    assert pool.margin2 == -1
    text = drawn(found, capsys)
    assert "its target is no. 1 after stage 1 and no. 2 in the end" in text
    assert "it scores 1 less than the best other" in text
    assert "ordered wrong: c is first" in text
    assert "↑ 2" in text
    assert "a = target" in text


def test_a_target_that_was_lost_and_one_that_is_first(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = drawn(told(path, two_categories(), "d2"), capsys)
    assert "no. 7 after stage 1 and no. 7 in the end\nlost in stage 1: b is first" in text
    assert "= target" not in text
    first = told(path, two_categories(), "d1", shown=1)
    (pool,) = first.pools
    assert pool.failed is None
    assert [row["image_id"] for row in pool.before] == [
        "a",
        "c",
    ]  # the target, beyond what is shown
    assert "scores 1 more than the best other" in drawn(first, capsys)


def test_a_query_without_label_and_one_without_candidates(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "3 candidates in the gallery" in drawn(told(path, two_categories(), "s2"), capsys)
    text = drawn(told(path, two_categories(), "d3"), capsys)
    assert "It has no candidates." in text


def test_stage_1_alone_and_both_pools(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = told(path, with_subset(), "1")
    assert [pool.pool for pool in both.pools] == ["gallery", "subset"]
    assert "in the subset, its target is no. 2" in drawn(both, capsys)
    run = two_categories()
    alone = {**run.tables, "rankings": run.tables["rankings"].slice(0, 0)}
    found = told(path, PublishedRun({**run.row, "stage2_sha256": None}, alone), "s1")
    assert found.pools[0].after == []
    text = drawn(found, capsys)
    assert "its target is no. 1 after stage 1; it scores 0.1 more than the best other" in text
    assert "stage 2" not in text


def test_what_is_hostile_is_inert(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "it's \x1b[31m<b>\n\u202e" + "x" * 10_000
    query: dict[str, Any] = asked(name, "dress", "a", 1) | {"text": name, "reference_id": name}
    found = told(path, published("run", [query], ranked(name, "gallery", "ab", "ba")), name)
    text = drawn(found, capsys)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "it's \\x1b[31m<b>" in text
    put_json(asdict(found))
    assert json.loads(capsys.readouterr().out)["query"]["text"] == name


def test_an_id_is_found_in_another_form_and_unknown_ones_are_told_with_those_like_them(
    path: Path,
) -> None:
    run = published("run", [asked("caf\u00e9-1", "dress", "a", 1)], [])
    assert told(path, run, "cafe\u0301-1").query["query_id"] == "caf\u00e9-1"
    with pytest.raises(UsageError, match="asks no query 'Caf\u00e9-1'") as caught:
        told(path, run, "Caf\u00e9-1")
    assert "upper and lower case from the query" in caught.value.cause
    assert caught.value.item == "caf\u00e9-1"


def test_a_run_that_is_not_published_is_told(path: Path) -> None:
    write_catalog(path, [two_categories()])
    with reading(path) as catalog, pytest.raises(PreflightError, match="not in the catalog"):
        story(catalog, "gone", "d1")


def test_an_adaptive_k_is_no_number(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = two_categories()
    assert ", K = 3)" in drawn(told(path, run, "s1"), capsys)
    adaptive = replace(run, row={**run.row, "coverage_asked": 0.5})
    assert ", K = auto)" in drawn(told(path, adaptive, "s1"), capsys)


def test_the_pictures_of_a_story(path: Path) -> None:
    assert pictured(told(path, two_categories(), "s1")) == {
        "reference": "r",
        "target": "a",
        "first": "c",
    }
    assert pictured(told(path, two_categories(), "d1")) == {"reference": "r", "target": "c"}
    assert pictured(told(path, two_categories(), "d3")) == {"reference": "r", "target": "a"}
    assert pictured(told(path, two_categories(), "s2")) == {"reference": "r", "first": "a"}


def test_a_picture_is_drawn_of_half_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    picture = Image.new("RGB", (2, 2), (255, 0, 0))
    picture.putpixel((1, 1), (0, 0, 255))
    (line,) = half_blocks(picture, 2)
    assert line.plain == "▀▀"
    assert [span.style for span in line.spans] == [
        "rgb(255,0,0) on rgb(255,0,0)",
        "rgb(255,0,0) on rgb(0,0,255)",
    ]
    assert len(half_blocks(Image.new("RGB", (100, 300)), 10)) == 15
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20)).save(buffer, "JPEG")
    jpeg = base64.b64encode(buffer.getvalue()).decode()
    print_pictures({"reference": jpeg, "gone": "", "third": jpeg}, Console(width=70))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["reference", "gone"]  # a third has no room
    assert lines[1].rstrip() == "▀" * 28
    assert len(lines) == 8
