"""An ablation, composed, on a few drawn garments: killed and gone on with, adopted, and counted."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cir_core.errors import UsageError
from cir_core.metrics.significance import gain_interval
from cir_core.retrievers.blip.fusion import Stage1Model
from cir_core.training import presets
from cir_core.training.presets import Preset
from cir_core.types import Precisions
from flows.ablation import costs
from flows.ablation.checking import check
from flows.ablation.run import list_trials, run_ablation
from flows.ablation.trials import Trial, recipe_file
from flows.ablation_settings import AblationSettings
from flows.doors.cli.app import app
from flows.engines.engine import InProcess
from flows.origins import parse_ablation
from flows.settings import Settings, shipped_model
from flows.train import run_training
from flows.training_settings import TrainingSettings
from storage.catalog import query
from tasks.machine import Machine
from tasks.models.opening import save_model
from tasks.planning import timing
from tasks.planning.scoring_cost import Scoring, ScoringCost, measure
from tasks.training.journal import Journal
from tasks.training.ledger import LEDGER_FILE, Ledger
from tests.support.workshop import Workshop

FILE = """
base = "{base}"
stage1 = "{base}"
[data]
k = 4
[stage2]
epochs = 1
[[row]]
name = "paper's | <b> & 100 %"
[[row]]
name = "mean"
merge_from = 2
[[row]]
name = "no re-ranking"
stage = 1
"""
OTHER_K = """
[[row]]
name = "two candidates"
run = { k = 2 }
"""


class Killed(BaseException):
    """As sudden as a signal that nobody can catch."""


@pytest.fixture
def ablation(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> AblationSettings:
    folder = workshop.folder
    preset = presets.PRESETS["demo"]
    assert preset.base is not None
    torch.manual_seed(0)
    save_model(Stage1Model(preset.base), folder / "base", dtype=torch.float16)  # zero-shot
    file = folder / "few.toml"
    file.write_text(FILE.format(base=folder / "base"))
    monkeypatch.setattr(costs, "measure_each", lambda many: [measure(one) for one in many])
    monkeypatch.setattr(timing, "SECONDS", 0.001)
    data = Settings(store=folder / "store", device="cpu", workers=0)
    return AblationSettings(config=file, out=folder / "rows", data=data)


def test_an_ablation_that_is_killed_goes_on_and_its_numbers_are_those_of_its_runs(
    ablation: AblationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, mean, before = list_trials(ablation, InProcess())
    assert paper.training is not None
    assert before.training is None
    assert not paper.is_trained
    run_training(paper.training, InProcess())  # by hand
    made = [recipe_file(paper.training.out), *paper.training.out.rglob("*.safetensors")]
    written = {file: file.stat().st_mtime_ns for file in made}
    with monkeypatch.context() as context:
        context.setattr(Journal, "step", _killing(at=4))
        with pytest.raises(Killed):
            run_ablation(ablation, InProcess())
    assert paper.is_trained
    assert mean.ledger is not None
    _require_own(paper)
    assert (mean.ledger.step, mean.is_trained) == (3, False)
    found = run_ablation(ablation, InProcess())
    with monkeypatch.context() as context:
        context.setattr(Journal, "step", _killing(at=1))
        context.setattr(costs, "measure_each", _killing(at=0))
        again = run_ablation(ablation, InProcess())
    assert again == found
    assert {file: file.stat().st_mtime_ns for file in made} == written
    _require_counted(found.table, ablation.data.store)
    _require_told(found.table, found.files)


def _require_own(trial: Trial) -> None:
    """What is finished in its folder, but is of something else, does not count as its training."""
    assert trial.training is not None
    out = trial.training.out
    ledger, kept = Ledger.read(out), (out / LEDGER_FILE).read_bytes()
    assert ledger is not None
    replace(ledger, key="0" * 64).write(out)
    assert (trial.is_trained, trial.is_of_another) == (False, True)
    (out / LEDGER_FILE).write_bytes(kept)
    for other in ({"seed": 1}, {"preset": _with(trial.preset, merge_from=0)}):
        assert not replace(trial, **other).is_trained
    assert trial.preset is not None
    patient = trial.preset.stage2.model_copy(update={"patience": 99})
    assert replace(trial, preset=_with(trial.preset, stage2=patient)).is_trained


def _with(preset: Preset | None, **values: Any) -> Preset:
    assert preset is not None
    return preset.model_copy(update=values)


def _killing(*, at: int) -> Any:
    def killing(journal: Any, progress: Any = None) -> None:
        if progress is None or progress.step == at:
            raise Killed

    return killing


def _require_counted(table: Any, store: Path) -> None:
    """Against SQL, and against hits that are counted here."""
    paper, mean, before = table.rows
    assert (table.protocol, table.split) == ("demo-original-kept", "val")
    for row, stage in ((paper, "stage2"), (mean, "stage2"), (before, "stage1")):
        for (_, k), recall in row.recall.items():
            assert recall.value == pytest.approx(_recall(store, row.runs[0], stage, k))
            assert recall.spread is None
    assert table.queries == sum(len(group) for group in _hits(store, mean.runs[0], 1))
    first, other = (_hits(store, row.runs[0], 1) for row in (paper, mean))
    gained = [after - before for before, after in zip(first, other, strict=True)]
    recall = mean.recall["gallery", 1]
    assert (recall.gain, recall.gain_low, recall.gain_high) == pytest.approx(gain_interval(gained))
    assert paper.recall["gallery", 1].gain == 0
    assert (paper.k, before.k) == (4, None)
    assert before.scoring is None
    assert before.training is None
    assert paper.models != mean.models
    for row in (paper, mean):
        assert row.scoring.pairs_per_second > 0
        assert row.scoring.parameters > row.scoring.own_parameters > 0
        assert row.scoring.peak_memory > 2**20
        assert row.training.seconds > 0
    assert mean.scoring.flops_per_pair <= paper.scoring.flops_per_pair
    assert mean.scoring.own_parameters < paper.scoring.own_parameters


def _recall(store: Path, run: str, stage: str, k: int) -> float:
    _, rows = query(
        store / "cir.duckdb",
        f"SELECT value FROM metrics WHERE run_id = '{run}' AND metric = 'recall' AND k = {k} "
        f"AND stage = '{stage}' AND category = 'average' AND pool = 'gallery'",
    )
    ((value,),) = rows
    return float(value)


def _hits(store: Path, run: str, k: int) -> list[np.ndarray]:
    """By category, in the order of query ids; a target beyond the candidates is no hit at 1."""
    _, rows = query(
        store / "cir.duckdb",
        "SELECT q.category, bool_or(coalesce(r.rank <= $k, false))::INT FROM queries q LEFT JOIN "
        "rankings r ON r.run_id = q.run_id AND r.query_id = q.query_id "
        f"AND list_contains(q.targets, r.image_id) WHERE q.run_id = '{run}' "
        "GROUP BY q.category, q.query_id ORDER BY q.category, q.query_id".replace("$k", str(k)),
    )
    names = dict.fromkeys(name for name, _ in rows)
    return [np.array([float(hit) for name, hit in rows if name == one]) for one in names]


def _require_told(table: Any, files: tuple[Path, ...]) -> None:
    page, markdown, latex, summary = (file.read_text(encoding="utf-8") for file in files)
    assert "default-src &#39;none&#39;" in page
    assert "paper&#39;s | &lt;b&gt; &amp; 100 %" in page
    assert "| paper's &#124; &#60;b&#62; &#38; 100 % | 4 | fp32 |" in markdown
    assert r"paper\textquotesingle{}s \textbar{} \textless{}b\textgreater{} \& 100 \% & 4" in latex
    rows = json.loads(summary)["rows"]
    assert [row["name"] for row in rows] == [row.name for row in table.rows]
    first = table.rows[0].recall["gallery", 1].value
    assert rows[0]["recall"][0]["value"] == first
    assert f"| {100 * first:.2f} | – |" in markdown  # noqa: RUF001
    assert f"{table.queries} queries" in page


def test_every_seed_and_every_recipe_has_a_folder_of_its_own(ablation: AblationSettings) -> None:
    file = ablation.config
    file.write_text("seeds = [3, 4]\n" + file.read_text() + OTHER_K)
    folders = [
        one.training.out.name if one.training else None
        for one in list_trials(ablation, InProcess())
    ]
    paper, again, *mean = folders[:4]
    assert folders[4:] == [None, paper, again]  # another K needs no other training
    assert len({*folders}) == 5
    assert str(paper).startswith("paper-s-b-100-seed3-")
    (ablation.out / str(paper)).mkdir(parents=True)
    file.write_text(file.read_text().replace("paper's", "theirs"))
    trials = list_trials(ablation, InProcess())
    assert trials[0].training is not None
    assert trials[0].training.out.name == paper  # a new name needs no new training
    file.write_text(file.read_text().replace("epochs = 1", "epochs = 2"))
    changed = {one.training.out.name for one in list_trials(ablation, InProcess()) if one.training}
    assert changed.isdisjoint([paper, again, *mean])


def test_a_row_is_begun_by_hand_with_the_command_that_the_list_tells(
    ablation: AblationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ablation.config
    file.write_text(file.read_text().replace("k = 4", 'k = 4\nprotocol = "demo-original-removed"'))
    flags = ["--config", str(file), "--out", str(ablation.out), "--workers", "0"]
    flags += ["--store", str(ablation.data.store), "--device", "cpu"]
    told = CliRunner().invoke(app, ["ablate", "--list", *flags], catch_exceptions=False)
    (trial, *_), begun = list_trials(ablation, InProcess()), list[TrainingSettings]()
    monkeypatch.setattr("flows.train.run_training", lambda settings, _: begun.append(settings))
    command = next(one for one in told.stdout.splitlines() if "cir-pipeline train" in one)
    words = shlex.split(command)
    at = words.index("cir-pipeline")
    environment = dict(word.split("=") for word in words[:at])
    CliRunner(env=environment).invoke(app, words[at + 1 :], catch_exceptions=False)
    (by_hand,) = begun
    assert trial.training is not None
    unread = {"k": 4}  # a training has its recipe's
    assert by_hand.data.model_copy(update=unread) == trial.training.data.model_copy(
        update={"stage1": None, "stage2": None}
    )
    for name in ("out", "recipe", "base", "stage1", "precision"):
        assert getattr(by_hand, name) == getattr(trial.training, name)


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(
        """
seeds = [1, 1]
base = "nowhere"
[data]
dataset = "fiq"
[[row]]
name = "a"
variant = { encoder = "triple" }
[[row]]
name = "a"
run = { k = -1, split = "test", stage2 = "gone" }
merge_from = 3
"""
    )
    with pytest.raises(UsageError, match="cannot start") as caught:
        list_trials(AblationSettings(config=file), InProcess())
    for word in (
        "row 'a': another has that name", "seeds:", "base: no model at this path: nowhere",
        "data_root", "stage1: the finished stage 1", "variant.encoder", "k: Input should be",
        "run.split is no setting", "changes nothing", "run.stage2: no model at this path: gone",
    ):  # fmt: skip
        assert word in caught.value.cause
    file.write_text("seed = 3\n[stage2]\nseed = 4\n")
    with pytest.raises(UsageError) as caught:
        list_trials(AblationSettings(config=file), InProcess())
    for word in ("seed: Extra inputs", "`seeds`, above all tables", "row: Field required"):
        assert word in caught.value.cause


def test_the_file_is_over_the_environment_and_below_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "few.toml"
    file.write_text('[data]\nk = 7\nsplit = "test"\n')
    environment = {"CIR_K": "9", "CIR_DEVICE": "cpu", "CIR_SPLIT": "train"}
    settings = parse_ablation({"split": "val"}, environment, config=file).data
    assert (settings.k, settings.split, settings.device) == (7, "val", "cpu")


def test_the_section_of_the_dataset_that_the_file_names_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cir.toml").write_text(
        """
dataset = "cirr"
[datasets.cirr]
data_root = "/data/cirr"
k = 7
[datasets.fiq]
data_root = "/data/fiq"
k = 100
"""
    )
    file = tmp_path / "few.toml"
    file.write_text('[data]\ndataset = "fiq"\nengine = "in-process"\nstore = "theirs"\n')
    found = parse_ablation({}, {"CIR_ENGINE": "prefect"}, config=file).data
    assert (found.dataset, found.data_root, found.k) == ("fiq", Path("/data/fiq"), 100)
    assert (found.engine, found.store) == ("in-process", Path("theirs"))
    flagged = parse_ablation({"dataset": "cirr"}, {}, config=file).data
    assert (flagged.dataset, flagged.data_root, flagged.k) == ("cirr", Path("/data/cirr"), 7)
    file.write_text('[data]\ndataset = "./mine"\n')
    assert parse_ablation({}, {}, config=file).data.data_root == Path("./mine")
    flagged = parse_ablation({"dataset": "fiq"}, {}, config=file).data
    assert (flagged.dataset, flagged.data_root) == ("fiq", Path("/data/fiq"))


FINISHED = """
[data]
{data}
[[row]]
name = "finished"
run = {{ stage2 = "{stage2}" }}
"""


def test_the_stage_1_of_the_data_is_that_of_the_rows(tmp_path: Path) -> None:
    shipped, file = str(shipped_model("stage1")), tmp_path / "few.toml"
    file.write_text(FINISHED.format(data="stage1 = 'gone'", stage2=shipped_model("stage2")))
    with pytest.raises(UsageError, match="stage1: no model at this path: gone"):
        check(parse_ablation({}, {}, config=file))
    file.write_text(f"stage1 = {shipped!r}\n" + file.read_text())  # the file's own is over it
    assert check(parse_ablation({}, {}, config=file)).stage1 == Path(shipped)
    file.write_text(FINISHED.format(data="", stage2=shipped_model("stage2")))
    with pytest.raises(UsageError, match="stage1: no model at this path: gone"):
        check(parse_ablation({}, {"CIR_STAGE1": "gone"}, config=file))
    others = {"CIR_UNTIL": "retrieve", "CIR_STAGE2": "gone"}  # of other runs
    checked = check(parse_ablation({}, others, config=file))
    assert (checked.data.until, checked.data.stage2) == ("report", None)


def test_what_data_say_in_vain_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "few.toml"
    data = "stage2 = 'x'\nuntil = 'retrieve'\nkay = 3"
    file.write_text(FINISHED.format(data=data, stage2=shipped_model("stage2")))
    with pytest.raises(UsageError) as caught:
        check(parse_ablation({}, {}, config=file))
    for word in ("data.stage2: each row", "data.until: rows run", "kay: Extra inputs"):
        assert word in caught.value.cause
    file.write_text(FINISHED.format(data="data_root = '/none'", stage2=shipped_model("stage2")))
    with pytest.raises(UsageError, match=r"data: .*/none"):
        check(parse_ablation({"dataset": "fiq"}, {}, config=file))


def test_what_would_stop_a_row_hours_later_is_told_before_any_work(tmp_path: Path) -> None:
    first, second = (str(shipped_model(stage)) for stage in ("stage1", "stage2"))
    file, other = tmp_path / "few.toml", tmp_path / "other"
    torch.manual_seed(0)
    base = presets.PRESETS["demo"].base
    assert base is not None
    save_model(Stage1Model(base), other, dtype=torch.float16)
    rows = [
        'run = { precision = "tf32" }',
        "run = { nlist = 3 }",
        'run = { candidates = "/none" }',
        "run = { text_weight = 0.3 }",
        "merge_from = 99",
        "merge_from = -4",
        'stage2 = { selected_by = "recall@7" }',
        "stage2 = { learning_rate = inf }",
        f'run = {{ stage2 = "{first}" }}',
        f'run = {{ stage1 = "{other}", stage2 = "{second}" }}',
        "run = { stage2 = 5 }",
        'run = { stage2 = "~nobodyx/y" }',
    ]
    named = [f"[[row]]\nname = '{place}'\n{row}\n" for place, row in enumerate(rows)]
    file.write_text(f'base = "{first}"\n[data]\ndevice = "cpu"\n' + "".join(named))
    with pytest.raises(UsageError) as caught:
        check(parse_ablation({}, {}, config=file))
    for place, words in enumerate(
        (
            "tf32 is not for the device cpu", "has neither lists nor probes",
            "what is handed over to a run is not there: /none",
            "does not weigh image and text", "merge_from is 99, and the base has 3 layers",
            "merge_from: Input should be greater", "selected_by is recall@7",
            "learning_rate: Input should be a finite number", "this is not a stage 2 model",
            "different visual encoders", "stage2: Input is not a valid path",
            "run.stage2: no model at this path: ~nobodyx/y",
        )
    ):  # fmt: skip
        assert re.search(f"row '{place}': [^;]*{words}", caught.value.cause), (place, words)
    file.write_text(f'base = "{other}"\n[[row]]\nname = "a"\n')
    with pytest.raises(UsageError, match="base: the base and stage 1 hold different visual enc"):
        check(parse_ablation({}, {}, config=file))


def test_costs_of_another_shape_or_machine_are_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = ScoringCost(1, 2.0, 3.0, 4, 5, 6, 7)
    asked: list[Any] = []

    def measuring(many: Any) -> list[ScoringCost]:
        asked.append(many)
        return [cost]

    monkeypatch.setattr(costs, "measure_each", measuring)

    def measured(machine: Machine = Machine()) -> None:  # noqa: B008 - frozen
        one = Scoring(cast(Any, None), tmp_path, tmp_path, tmp_path, Precisions(), machine)
        assert costs.measured(tmp_path, {"run": one}, InProcess()) == {"run": cost}

    file = tmp_path / costs.COSTS_FILE
    measured()
    measured()
    assert len(asked) == 1
    kept = json.loads(file.read_text())
    for damaged in ("[]", "{", '"x"', json.dumps(kept | {"costs": [1]}),
                    json.dumps(kept | {"costs": {"run": {"pairs": 1}}})):  # fmt: skip
        file.write_text(damaged)
        measured()
    assert len(asked) == 6
    measured(Machine(batch=8))
    measured(Machine(batch=8, memory=2**30))
    assert len(asked) == 8
