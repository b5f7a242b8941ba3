"""A run on data that attack whoever shows them, beside one on the same data with harmless names: no
page has another element, no terminal a control character, no file another place."""

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from tasks.results.markup.visible import visible
from tests.support.small_benchmarks import Pair

pytestmark = pytest.mark.slow

HARMLESS = {
    "images": [f"picture {number}.png" for number in range(6)],
    "queries": [f"question {number}" for number in range(6)],
    "categories": ["one", "two"],
    "name": ["mine"],
    "run": ["a run"],
}
HOSTILE = {
    "images": [
        "=cmd|' !A0.png",
        "\x1b]0;owned\x07.png",
        '"><img src=x onerror=alert(1)>.png',
        "$(touch owned)'; DROP TABLE runs; --.png",
        "\u202egnp.owned.png",
        "{{ 1 }} %s {0} \\input{owned} & $x$.png",
    ],
    "queries": [
        "../../../owned",
        "/etc/owned",
        "</script><script>alert(1)</script>",
        '=HYPERLINK("http://owned.example","x")',
        "\x1b[2J\x1b[31m\r\nowned",
        "'); DROP TABLE runs; --",
    ],
    "categories": ["../../../owned", "</title><svg onload=alert(1)> |`[x](javascript:alert(1))"],
    "name": ["../../../owned <b>"],
    "run": ["../../../<script>alert(1)</script> 'x'; --"],
}
Names = dict[str, list[str]]


class Told(NamedTuple):
    """What a command left on both streams."""

    out: str
    err: str


def _write_data(root: Path, names: Names) -> None:
    root.mkdir()
    for number, image in enumerate(names["images"]):
        Image.new("RGB", (64, 64), (40 * number, 200 - 30 * number, 80)).save(root / image)
    rows = [
        {
            "query_id": query,
            "reference": names["images"][number],
            "text": query,
            "target": names["images"][(number + 1) % 6],
            "category": names["categories"][number % 2],
        }
        for number, query in enumerate(names["queries"])
    ]
    with (root / "queries.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _commands(data: Path, store: Path, pair: Pair, names: Names) -> Iterator[list[str]]:
    ((name,), (dataset,)), where = (names["run"], names["name"]), ["--store", str(store)]
    run = [
        *("--dataset", str(data), "--name", dataset, "--tag", "both", *where),
        *("--stage1", str(pair.stage1), "--stage2", str(pair.stage2), "--device", "cpu"),
        *("--workers", "0", "--engine", "in-process"),
    ]
    yield ["run", *run, "--k", "3"]
    yield ["run", *run, "--k", "4", "--run-name", name]
    yield ["runs", "ls", *where]
    yield ["sql", "SELECT * FROM queries JOIN runs USING (run_id)", *where]
    yield ["compare", "--tag", "both", *where, "--rounds", "99"]
    yield ["choose-k", name, *where]
    yield ["report", name, "--data-root", str(data), *where]
    yield ["show", names["queries"][4], "--run", name, *where]
    yield from (
        ["export", "--run", name, "--format", form, *where]
        for form in ("trec", "jsonl", "parquet", "latex")
    )


class _Elements(HTMLParser):
    """A page's elements, each with the names of its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: Counter[tuple[str, ...]] = Counter()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag, *(name for name, _ in attrs)] += 1
        assert not any((value or "").startswith("javascript:") for _, value in attrs)


class Ended(NamedTuple):
    """All commands on one kind of names: where they worked, and what they told."""

    place: Path
    told: dict[str, Told]

    @property
    def elements(self) -> Counter[tuple[str, ...]]:
        """Of all pages together."""
        pages = [path.read_text("utf-8") for path in self.place.rglob("*.html")]
        assert len(pages) == 3, "of two runs, and of their comparison"
        return sum((_Elements(page).found for page in pages), Counter())


@pytest.fixture
def ended(
    tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> dict[str, Ended]:
    from flows.doors.cli import main

    told: dict[str, Ended] = {}
    for kind, names in (("harmless", HARMLESS), ("hostile", HOSTILE)):
        place = tmp_path / "a" / "b" / kind
        place.mkdir(parents=True)
        monkeypatch.chdir(place)
        _write_data(place / "data", names)
        told[kind] = Ended(place, {})
        for words in _commands(place / "data", place / "store", pair, names):
            monkeypatch.setattr(sys, "argv", ["cir-pipeline", *words])
            with pytest.raises(SystemExit) as end:
                main()
            streams = capfd.readouterr()
            assert end.value.code == 0, streams.err
            told[kind].told[str(words)] = Told(*streams)
    return told


def test_names_of_data_are_texts_and_nothing_else(ended: dict[str, Ended], tmp_path: Path) -> None:
    hostile, harmless = ended["hostile"], ended["harmless"]
    assert hostile.elements.keys() == harmless.elements.keys(), "more of a kind, no other kind"
    assert hostile.elements["script",] == harmless.elements["script",] > 0
    _require_nothing_elsewhere(hostile, tmp_path)
    for words, (out, err) in hostile.told.items():
        assert visible(out + err, kept="\n") == out + err, words
    _require_bytes_kept(hostile)


def _require_nothing_elsewhere(ended: Ended, top: Path) -> None:
    """No name of the data became one of a file."""
    assert [one.name for one in top.iterdir()] == ["a"]
    assert [one.name for one in (top / "a").iterdir()] == ["b"]
    assert {one.name for one in ended.place.iterdir()} == {"data", "store"}
    for path in (ended.place / "store").rglob("*"):
        assert re.fullmatch(r"[\w.+-]+", path.name), path
        assert "owned" not in path.name


def _require_bytes_kept(ended: Ended) -> None:
    """A formula of a spreadsheet, too: our readers are programs."""
    (ranked,) = list((ended.place / "store").glob("exports/*/*.jsonl"))
    rows = [json.loads(line) for line in ranked.read_text("utf-8").splitlines()]
    assert {row["query_id"] for row in rows} == {*HOSTILE["queries"]}
    assert {row["image_id"] for row in rows} == {*HOSTILE["images"]}
