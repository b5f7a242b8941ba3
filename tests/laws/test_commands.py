"""Every command explains itself in what a terminal of 80 columns shows, and answers programs."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_group
from typer.testing import CliRunner

from flows.doors.cli.app import COMMANDS, FIRST_LINE, GROUPS, PANELS, app
from tests.support.documents import ROOT
from tests.support.small_benchmarks import Finished

CALLED: dict[str, Any] = {words: one.built(words.split()[-1]) for words, one in COMMANDS.items()}
LISTED: dict[str, Any] = dict(get_group(app).commands)
EVERY: dict[str, Any] = CALLED | {group: LISTED[group] for group in GROUPS}


@pytest.mark.parametrize("words", CALLED)
def test_a_list_of_commands_says_what_their_help_begins_with(words: str) -> None:
    assert CALLED[words].help.split("\n\n")[0] == COMMANDS[words].told


@pytest.mark.parametrize("words", EVERY)
def test_the_first_line_of_a_help_fits_in_the_list_of_commands(words: str) -> None:
    first = EVERY[words].help.split("\n\n")[0]
    assert first.endswith(".")
    assert len(first) <= FIRST_LINE


@pytest.mark.parametrize("words", CALLED)
def test_a_command_tells_of_each_of_its_options(words: str) -> None:
    assert [one.name for one in CALLED[words].params if not one.help] == []


@pytest.mark.parametrize("words", CALLED)
def test_a_command_prints_json(words: str) -> None:
    (option,) = [one for one in CALLED[words].params if "--json" in one.opts]
    assert "JSON" in option.help


def test_every_command_has_its_place_in_the_help() -> None:
    longest = len("check-submission")  # beside which ``FIRST_LINE`` is what is left
    assert sorted(LISTED) == sorted({words.split()[0] for words in EVERY})
    assert max(map(len, LISTED)) == longest
    assert {one.rich_help_panel for one in LISTED.values()} == PANELS.keys()


# --- docs/json.md


def documented() -> Iterator[tuple[str, list[str]]]:
    """Each command with the fields that its row names; those in brackets are below others."""
    for line in (ROOT / "docs" / "json.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            commands, told = (cell.strip() for cell in line.strip("|").split("|"))
            outer = re.findall("`([^`]+)`", re.sub(r"\([^()]*\)", "", told))
            yield from ((name, outer) for name in re.findall("`([^`]+)`", commands))


FIELDS = dict(documented())


def test_every_command_has_a_row_in_the_document() -> None:
    assert {name.split(" --")[0] for name in FIELDS} == CALLED.keys()


def names_of(kind: type) -> set[str]:
    return {one.name for one in fields(kind)}


def test_the_documents_fields_are_those_of_what_is_printed(
    fiq_run: Finished, tmp_path: Path
) -> None:
    from cir_core.submissions.faults import Verdict
    from flows.ablation.table import Table
    from flows.plan import Plan
    from flows.views.analyses import analyses_summary
    from flows.views.runs import run_summary
    from flows.views.trainings import training_summary
    from tasks.models.converted import ConvertedModel
    from tasks.results.analyses.analysis import Analysis
    from tasks.results.record.expected import Check
    from tasks.results.run_list import ListedRun
    from tasks.results.story import Story
    from tasks.upkeep.listing import ListedArtifact, Usage
    from tasks.upkeep.verify import Verified

    printed: dict[str, Iterable[str]] = {
        "run": run_summary(fiq_run.run),
        "plan": names_of(Plan) | {"total", "seconds"},
        "choose-k": names_of(Analysis) | {"run_id"},
        "analyse": analyses_summary(fiq_run.run, []),
        "show": names_of(Story),
        "runs ls": names_of(ListedRun),
        "store ls": names_of(ListedArtifact),
        "store du": names_of(Usage),
        "verify": names_of(Verified) | {"ok"},
        "check-run": names_of(Check) | {"ok"},
        "check-submission": names_of(Verdict) | {"ok"},
        "train": training_summary(tmp_path),
        "ablate": names_of(Table),
        "convert": names_of(ConvertedModel),
    }
    for command, names in printed.items():
        assert set(FIELDS[command]) == set(names), command


@pytest.mark.parametrize("words", ["protocols", "datasets", "config show"])
def test_the_documents_fields_are_those_of_each_that_is_listed(words: str) -> None:
    told = json.loads(CliRunner().invoke(app, [*words.split(), "--json"]).stdout)
    for one in told if isinstance(told, list) else told.values():
        assert set(one) in ({*FIELDS[words]}, {*FIELDS[words]} - {"changes_results"})
