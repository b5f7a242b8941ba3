"""A setting is declared once, and every door has it: the terminal, the environment, cir.toml,
Prefect's form, ``config show`` and the documentation."""

import inspect
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import BaseModel, ByteSize, ConfigDict, PositiveInt
from typer.testing import CliRunner

from flows.ablation_settings import AblationSettings
from flows.about import About, settings_of
from flows.comparison_settings import ComparisonSettings
from flows.doors.cli.config import config_show
from flows.doors.cli.models import DATA
from flows.doors.cli.options import flags_of, takes
from flows.doors.parameters import parameters_of
from flows.origins import resolve
from flows.settings import HomePath, Settings
from flows.training_settings import TrainingSettings
from tests.support.settings_page import PAGE, rendered, table_of

KNOBS = {
    "data_root", "store", "allow_missing", "device", "batch", "workers", "processes", "devices",
    "tokens", "memory", "runner", "address", "engine", "until", "run_name", "tags", "no_guarantee",
    "wait",
}  # fmt: skip

WORDS = "What the text of this test says."


class MoreSettings(Settings):
    """A setting of each type that a terminal can give, added as anybody would."""

    colour: Annotated[Literal["red", "blue"], About(WORDS, changes_results=True)] = "red"
    shades: Annotated[PositiveInt | None, About(WORDS, changes_results=True, default="all")] = None
    strength: Annotated[float, About(WORDS, "Data", changes_results=True)] = 0.5
    is_mirrored: Annotated[bool, About(WORDS, changes_results=True)] = False
    words: Annotated[
        tuple[str, ...], About(WORDS, changes_results=True, flags=("--word",), default="none")
    ] = ()
    sizes: Annotated[tuple[int, ...], About(WORDS, changes_results=True, default="all")] = ()
    tint: Annotated[str, About(WORDS, changes_results=True)] = "pale"
    palette: Annotated[HomePath | None, About(WORDS, changes_results=False)] = None
    room: Annotated[ByteSize | None, About(WORDS, changes_results=False, default="free")] = None


GIVEN = {
    "colour": ["--colour", "blue"],
    "shades": ["--shades", "7"],
    "strength": ["--strength", "0.25"],
    "is_mirrored": ["--is-mirrored"],
    "words": ["--word", "a", "--word", "b"],
    "sizes": ["--sizes", "3", "--sizes", "4"],
    "tint": ["--tint", "dark"],
    "palette": ["--palette", "~/palette"],
    "room": ["--room", "2KiB"],
}
VALUES: dict[str, Any] = {
    "colour": "blue", "shades": 7, "strength": 0.25, "is_mirrored": True, "words": ["a", "b"],
    "sizes": [3, 4], "tint": "dark", "palette": "~/palette", "room": "2KiB",
}  # fmt: skip
ADDED = [*VALUES]


@pytest.fixture
def more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[MoreSettings]:
    """The doors in a house whose settings are more, and an empty folder to stand in."""
    for door in ("flows.origins", "flows.doors.cli.config"):
        monkeypatch.setattr(f"{door}.Settings", MoreSettings)
    for name in [*os.environ]:
        if name.startswith("CIR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return MoreSettings


@pytest.mark.parametrize(
    "settings", [Settings, TrainingSettings, AblationSettings, ComparisonSettings]
)
def test_every_setting_tells_what_it_is_and_whether_it_changes_results(
    settings: type[BaseModel],
) -> None:
    declared = settings_of(settings)
    assert [one.name for one in declared] == [*settings.model_fields]
    for one in declared:
        assert one.about.help.endswith(".")
        assert isinstance(one.about.changes_results, bool)


def test_a_setting_without_a_declaration_is_a_mistake() -> None:
    class Bare(BaseModel):
        model_config = ConfigDict(frozen=True)
        colour: str = "red"

    with pytest.raises(TypeError, match="'colour' is declared without About"):
        settings_of(Bare)


def test_what_changes_no_result_is_where_and_how_and_nothing_else() -> None:
    declared = settings_of(MoreSettings)
    knobs = {one.name for one in declared if not one.about.changes_results}
    assert knobs == KNOBS | {"palette", "room"}


def test_a_run_and_a_plan_take_every_setting() -> None:
    from flows.doors.cli.runs import plan, run

    for command in (run, plan):
        names = inspect.signature(command).parameters.keys()
        assert names == Settings.model_fields.keys() | {"as_json"}


def test_a_training_takes_all_of_its_own_and_none_twice() -> None:
    from flows.doors.cli.models import train

    own = TrainingSettings.model_fields.keys() - {"data"}
    assert inspect.signature(train).parameters.keys() == own | {*DATA, "as_json"}
    assert own & {*DATA} == set()


@pytest.mark.parametrize("name", ADDED)
def test_a_setting_that_is_added_is_an_option(more: type[MoreSettings], name: str) -> None:
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @takes(flags_of(settings=more))
    def command(**flags: Any) -> None:
        found = resolve(flags, {})
        changed = {name for name, origin in found.origins.items() if origin == "flag"}
        print(json.dumps([*changed, found.settings.model_dump(mode="json")[name]]))

    done = CliRunner().invoke(app, GIVEN[name])
    assert done.exit_code == 0, done.output
    wanted = more.model_validate({name: VALUES[name]}).model_dump(mode="json")
    assert json.loads(done.stdout) == [name, wanted[name]]
    assert WORDS in CliRunner().invoke(app, ["--help"], terminal_width=200).stdout


@pytest.mark.parametrize("name", ADDED)
@pytest.mark.parametrize("source", ["environment", "cir.toml"])
def test_a_setting_that_is_added_is_read(
    more: type[MoreSettings], tmp_path: Path, source: str, name: str
) -> None:
    value = VALUES[name]
    environment = {}
    if source == "environment":
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        environment = {f"CIR_{name.upper()}": text}
    else:
        (tmp_path / "cir.toml").write_text(f"{name} = {json.dumps(value)}\n")
    found = resolve({}, environment)
    assert found.settings == more.model_validate({name: value})
    assert found.origins[name] == source


def test_settings_that_are_added_are_parameters_of_a_flow(more: type[MoreSettings]) -> None:
    @parameters_of(more)
    def work(**values: Any) -> dict[str, Any]:
        """Work."""
        return values

    parameters = inspect.signature(work).parameters
    assert [*parameters] == [*more.model_fields]
    defaults = {name: one.default for name, one in parameters.items()}
    assert more.model_validate(defaults) == more()


def test_settings_that_are_added_are_told_in_a_form() -> None:
    form = MoreSettings.model_json_schema()["properties"]
    assert form["colour"]["description"] == WORDS
    assert form["colour"]["enum"] == ["red", "blue"]
    assert form["shades"]["description"] == f"{WORDS} Default: all."
    assert {name: one["title"] for name, one in form.items()} == {name: name for name in form}


def test_settings_that_are_added_are_shown(
    more: type[MoreSettings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CIR_SHADES", "7")
    config_show(as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown.keys() == more.model_fields.keys() | {"prefect_api"}
    assert shown["shades"] == {"value": 7, "from": "environment", "changes_results": True}
    assert shown["room"] == {"value": None, "from": "default", "changes_results": False}


def test_settings_that_are_added_are_in_the_table() -> None:
    lines = list(table_of(settings_of(MoreSettings)))
    assert f"| `shades` | `--shades` | all | yes | {WORDS} |" in lines
    assert f"| `tint` | `--tint` | `pale` | yes | {WORDS} |" in lines
    assert len(lines) == len(MoreSettings.model_fields) + 2


def test_the_documentation_tells_the_settings_that_there_are() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == rendered(page), "run `python -m tests.support.settings_page`"
