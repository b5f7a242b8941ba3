"""README's run on one's own pictures, as it is written there.

``doctor`` and ``plan`` are not executed: they look and time for 20 s, and have tests of their own.
"""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.doors.cli.app import app
from tests.support.documents import ROOT, blocks, commands, section
from tests.support.small_benchmarks import Pair

IMAGES = ("boot-01", "boot-07", "clog-02")


def test_its_commands_lead_from_a_folder_and_a_table_to_rankings(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    walk = section((ROOT / "README.md").read_text("utf-8"), "## A run on your own pictures")
    shoes = Path("catalogue", "shoes")
    shoes.mkdir(parents=True)
    for number, name in enumerate(IMAGES):
        Image.new("RGB", (64, 64), (80 * number, 40, 0)).save(shoes / f"{name}.jpg")
    (table,) = [block.code for block in blocks(walk) if block.language == "csv"]
    Path("catalogue/queries.csv").write_text(table)
    Path("models").mkdir()
    Path("models/fiq").symlink_to(pair.stage1.parent)

    doctor, plan, run, sql = commands(walk)
    assert (doctor[0], plan[0], run[0], sql[0]) == ("doctor", "plan", "run", "sql")
    assert plan[1:] == run[1:]
    for words in (run, sql):
        ended = CliRunner().invoke(app, words, catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
    assert ended.stdout.count("query-0000") == 2 * (len(IMAGES) - 1)
    (ranked,) = Path("cir-store/reports").glob("*/ranked.jsonl")
    rows = [json.loads(line) for line in ranked.read_text().splitlines()]
    assert {row["text"] for row in rows} == {"the same, but red", "with a heel"}
