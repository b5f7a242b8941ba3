"""The walk of docs/training.md through a training on one's own pictures, as it is written there."""

import csv
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cir_core.datasets.demo.drawing import draw
from cir_core.datasets.demo.garments import Garment, change, draw_garment
from cir_core.datasets.demo.wording import description, modification_captions
from cir_core.training import presets
from flows.doors.cli.app import app
from storage.catalog import query
from tests.support.documents import ROOT, blocks, commands, section
from tests.support.workshop import change_recipe, small_workshop

WALK = ROOT / "docs" / "training.md"
GROUPS, SIZE = 40, 3


def draw_catalogue(folder: Path) -> None:
    """Groups of a few garments, each one change from another, and every pair of them a query."""
    rng = np.random.default_rng(12)
    queries, descriptions = [], []
    for number in range(GROUPS):
        garments: list[Garment] = [draw_garment("dress", rng)]
        while len(garments) < SIZE:
            other = change(garments[-1], rng)
            garments += [] if other in garments else [other]
        group = f"product {number}"
        names = [f"photos/{group}/{index}.png" for index in range(SIZE)]
        (folder / "photos" / group).mkdir(parents=True)
        for name, garment in zip(names, garments, strict=True):
            draw(garment, rng).save(folder / name)
            descriptions.append([name, description(garment, rng), group])
        for before, after in permutations(range(SIZE), 2):
            text, _ = modification_captions(garments[before], garments[after], rng)
            queries.append([names[before], text, names[after], group])
    write(folder / "all-queries.csv", ["reference", "text", "target", "group"], queries)
    write(folder / "all-descriptions.csv", ["image", "text", "group"], descriptions)


def write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_the_walk_leads_from_a_folder_and_a_table_to_recall_on_what_was_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_workshop(tmp_path, monkeypatch)
    change_recipe(
        monkeypatch, pretrain={"batch": 16}, stage1={"batch": 16}, stage2={"batch": 16, "epochs": 1}
    )
    monkeypatch.setattr(presets, "SMALL_PRETRAIN_EPOCHS", 3)
    monkeypatch.setitem(presets.PRESETS, "small", presets.small(presets.PRESETS["demo"]))
    monkeypatch.chdir(tmp_path)
    draw_catalogue(tmp_path / "catalogue")
    walk = section(WALK.read_text("utf-8"), "## On your own pictures")
    for block in blocks(walk):
        if block.language == "python":
            exec(compile(block.code, str(WALK), "exec"), {})
    walked = list(commands(walk))
    assert [arguments[:2] for arguments in walked[:3]] == [
        ["train", "pretrain"], ["train", "stage1"], ["train", "stage2"]
    ]  # fmt: skip
    for arguments in walked:
        ended = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
    asked = len(Path("catalogue/val.csv").read_text().splitlines()) - 1
    assert 10 < asked < GROUPS * SIZE
    _, rows = query(
        Path("cir-store/cir.duckdb"),
        "SELECT DISTINCT k, n, gallery_images FROM metrics WHERE k = 10",
    )
    assert rows == [(10, asked, GROUPS * SIZE)]
    for stage in ("stage1", "stage2"):
        card = Path(f"models/{stage}/best/README.md").read_text()
        assert f"of {asked} queries" in card[card.index("On val.csv") :]
