"""The command line: each mistake has its exit code and four readable lines on stderr, leaves
nothing half-written behind, and does not stand in the way of the good run that follows."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.settings import shipped_model
from storage.artifacts import Artifact
from storage.catalog import query
from storage.models.folders import model_sha256, read_config, read_tensors, write_checkpoint
from storage.store import LocalStore
from tests.support.small_benchmarks import Finished, Pair

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answer:
    """What a command left on the terminal, and its exit code."""

    code: object
    out: str
    err: str


Terminal = Callable[..., Answer]


@pytest.fixture
def terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Terminal]:
    """The console script in this process, from an empty folder and with no settings around."""
    from flows.doors.cli import main

    for name in [*os.environ]:
        if name.startswith("CIR_") or name == "PREFECT_API_URL":
            monkeypatch.delenv(name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["cir-pipeline", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        told = capfd.readouterr()
        return Answer(ended.value.code, told.out, told.err)

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def own(fiq_run: Finished, tmp_path: Path) -> Finished:
    """Fashion-IQ with its own copy of the data, to be spoilt, and with a store still to be made."""
    shutil.copytree(fiq_run.bench.root, tmp_path / "data")
    return Finished(replace(fiq_run.bench, root=tmp_path / "data"), tmp_path / "store", fiq_run.run)


def assert_nothing_half_written(store: Path) -> None:
    assert [str(path) for path in store.rglob("*") if path.name.endswith((".tmp", ".wal"))] == []
    for manifest in store.glob("artifacts/*/*/manifest.json"):
        assert Artifact(
            LocalStore(store), manifest.parent.parent.name, manifest.parent.name
        ).is_done


def assert_told(answer: Answer, code: int, *words: str) -> None:
    """What happened, to which item, why, what to do; nothing on stdout."""
    assert answer.code == code, answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    lines = answer.err[answer.err.index("error: ") :]
    for word in words:
        assert word in lines


def assert_a_good_run_follows(terminal: Terminal, fiq_run: Finished, store: Path) -> None:
    answer = terminal("run", *fiq_run.bench.arguments(store), "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["run_id"] == fiq_run.run.run_id
    assert_nothing_half_written(store)


# --- help and usage

VERBS = (
    "run", "encode", "retrieve", "filter", "rerank", "evaluate", "plan", "convert",
    "train", "show", "sql", "export", "check-submission", "doctor",
    "protocols", "datasets", "check-run", "compare", "runs",
    "verify", "store",
)  # fmt: skip


def test_help_lists_the_verbs(terminal: Terminal) -> None:
    answer = terminal("--help")
    assert answer.code == 0
    for verb in VERBS:
        assert f" {verb} " in answer.out
    assert answer.err == ""


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself(terminal: Terminal, verb: str) -> None:
    answer = terminal(verb, "--help")
    assert answer.code == 0
    assert "Usage: " in answer.out
    assert "--help" in answer.out


@pytest.mark.parametrize(("words", "besides"), [(["run", "--help"], ""), (["--help"], "pydantic")])
def test_help_imports_nothing_heavy(words: list[str], besides: str) -> None:
    program = (
        f"import sys; sys.argv = {['cir-pipeline', *words]}\n"
        "from flows.doors.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'prefect', 'duckdb', 'pyarrow', 'numpy', 'transformers'}\n"
        f"heavy.add({besides!r})\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stderr == "[]\n"


def test_analyses_of_a_finished_run_are_told_without_torch() -> None:
    """``choose-k`` needs no model: torch would be most of its time."""
    program = (
        "import sys, flows.published, flows.views.analyses, tasks.results.analyses.k_curve\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run --split ", "train val test selection"),
        ("train st", "stage1 stage2"),
        ("run --dataset ", "demo fiq cirr circo shoes own"),
        ("protocols --dataset ci", "cirr circo"),
        ("run --dataset ./ca", ""),
        ("run --dataset shoes --protocol ", "shoes-kept shoes-removed"),
        ("run --dataset ./catalogue --protocol ", "own-removed own-kept"),
        ("plan --protocol ", "circo-kept-caption circo-kept-concept"),
        ("run --dataset coco --protocol ", ""),
        ("run --dataset fiq --category ", "dress shirt toptee"),
        ("run --dataset own --category ", ""),
        ("train stage1 --config f", "fiq"),
        ("config show --config s", "small"),
        ("export --run ", ""),
    ],
)
def test_a_shell_completes_values(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, line: str, expected: str
) -> None:
    """Without any for paths, which the shell completes by itself, and where nothing is found."""
    Path("cir.toml").write_text('dataset = "circo"\n')
    assert completed(terminal, monkeypatch, line) == expected.split()


def test_a_shell_completes_the_runs_of_the_store(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, fiq_run: Finished
) -> None:
    line = f"export --store {fiq_run.store} --run {fiq_run.run.run_id[:2]}"
    assert completed(terminal, monkeypatch, line) == [fiq_run.run.run_id]
    Path("cir.toml").write_text("speed = 3\n")
    assert completed(terminal, monkeypatch, line) == []


def completed(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    """What bash is told of a line, by typer's protocol."""
    words = f"cir-pipeline {line}"
    with monkeypatch.context() as asking:
        asking.setenv("_CIR_PIPELINE_COMPLETE", "complete_bash")
        asking.setenv("COMP_WORDS", words)
        asking.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        answer = terminal()
    assert (answer.code, answer.err) == (0, "")
    return answer.out.split()


@pytest.mark.parametrize(
    "arguments",
    [["fly"], ["run", "--speed", "3"], ["run", "--batch", "x"], ["convert", "only-one"]],
)
def test_words_that_are_not_understood_are_usage_errors(
    terminal: Terminal, arguments: list[str]
) -> None:
    answer = terminal(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert "Usage" in answer.err


def test_an_unknown_dataset_is_a_usage_error(terminal: Terminal, tmp_path: Path) -> None:
    answer = terminal("run", "--dataset", "coco", "--store", tmp_path / "store")
    assert_told(answer, 2, "'coco'", "remedy:", "demo, fiq, cirr")
    assert not (tmp_path / "store").exists()


def test_all_that_a_dataset_needs_is_asked_for_at_once(terminal: Terminal, tmp_path: Path) -> None:
    answer = terminal("run", "--dataset", "cirr", "--store", tmp_path / "store")
    assert_told(answer, 2, "--data-root", "--stage1", "--stage2", "cause:", "remedy:")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("line", ["run", "plan", "export --format trec", "doctor", "sql SHOW", ""])
def test_an_unknown_kind_of_store_is_refused(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """It was a folder called ``gs:``. The empty line stands for the environment."""
    flags = ["--store", "gs://bucket/runs"]
    if not line:
        monkeypatch.setenv("CIR_STORE", "gs://bucket/runs")
        line, flags = "run", []
    assert_told(terminal(*line.split(), *flags), 2, "gs://bucket/runs", "remedy:", "s3://bucket")
    assert not Path("gs:").exists()


def test_an_unknown_category_is_a_usage_error(terminal: Terminal, own: Finished) -> None:
    answer = terminal("run", *own.bench.arguments(own.store), "--category", "hats")
    assert_told(answer, 2, "hats", "dress, shirt, toptee")


def test_all_impossible_settings_are_told_at_once(
    terminal: Terminal, own: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIR_ENGINE", "steam")
    Path("cir.toml").write_text("device = 3\n")
    answer = terminal("run", "--k", "0", "--memory", "much", "--batch", "-4")
    assert_told(
        answer, 2, "k (from flag): Input should be greater than 0, or Input should be 'all'",
        "memory (from flag)", "batch (from flag)",
        "engine (from environment)", "device (from cir.toml)", "remedy:",
    )  # fmt: skip


def test_a_device_that_is_not_there_is_a_usage_error(terminal: Terminal, own: Finished) -> None:
    answer = terminal("run", *own.bench.arguments(own.store), "--device", "abacus")
    assert_told(answer, 2, "'abacus'", "cause:", "--device cpu")


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_too_many_lists_are_refused_before_images_are_encoded(
    terminal: Terminal, own: Finished, verb: str
) -> None:
    options = own.bench.arguments(own.store)
    answer = terminal(verb, *options, "--index", "ivf", "--nlist", "9")
    assert_told(answer, 2, "9 lists are too many for a gallery of 14 images", "--nlist 1 or less")
    assert not (own.store / "artifacts" / "encode").exists()


def test_settings_are_shown_with_their_origins(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIR_K", "9")
    Path("cir.toml").write_text('dataset = "fiq"\n')
    shown = json.loads(terminal("config", "show", "--json").out)
    told = {name: tuple(shown[name].values()) for name in ("k", "dataset", "batch")}
    assert told == {
        "k": (9, "environment", True),
        "dataset": ("fiq", "cir.toml", True),
        "batch": (32, "default", False),
    }
    assert [*shown["k"]] == ["value", "from", "changes_results"]
    assert "(environment)" in terminal("config", "show").out
    with Path("cir.toml").open("a") as file:
        file.write("[datasets.cirr]\nbatch = 4\n")
    assert "(cir.toml [datasets.cirr])" in terminal("config", "show", "--dataset", "cirr").out
    assert terminal("config", "show", "--dataset", "cirr", "--config", "fiq").code == 2


# --- preflight


def _not_a_folder(root: Path) -> str:
    shutil.rmtree(root)
    root.touch()
    return str(root)


def _no_folder(root: Path) -> str:
    shutil.rmtree(root)
    return str(root)


def _no_annotation(root: Path) -> str:
    (root / "captions/cap.dress.val.json").unlink()
    return "cap.dress.val.json"


def _not_json(root: Path) -> str:
    (root / "image_splits/split.toptee.val.json").write_text("<html>404</html>")
    return "split.toptee.val.json"


def _not_text(root: Path) -> str:
    (root / "captions/cap.toptee.val.json").write_bytes(b"\xff\xfe\x00")
    return "cap.toptee.val.json"


def _not_entries(root: Path) -> str:
    (root / "captions/cap.dress.val.json").write_text('[{"candidate": 3}]')
    return "cap.dress.val.json"


def test_missing_or_wrong_annotations_are_found_before_any_work(
    terminal: Terminal, fiq_run: Finished, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    for spoil in (_not_a_folder, _no_folder, _no_annotation, _not_json, _not_text, _not_entries):
        root = shutil.copytree(fiq_run.bench.root, tmp_path / spoil.__name__)
        item = spoil(root)
        answer = terminal("run", *replace(fiq_run.bench, root=root).arguments(store))
        assert_told(answer, 4, "item:", item, "remedy:")
        assert not (store / "artifacts" / "ingest").exists()
        assert_nothing_half_written(store)
    assert_a_good_run_follows(terminal, fiq_run, store)


def test_a_store_that_is_a_file_is_found_before_any_work(terminal: Terminal, own: Finished) -> None:
    own.store.touch()
    answer = terminal("run", *own.bench.arguments(own.store))
    assert_told(answer, 4, "store", str(own.store), "cause:", "--store")


def test_a_store_that_is_held_is_busy(terminal: Terminal, own: Finished, fiq_run: Finished) -> None:
    own.store.mkdir()
    with (own.store / "lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = terminal("run", *own.bench.arguments(own.store))
        waited = terminal("run", *own.bench.arguments(own.store), "--wait", "0.1s")
    assert_told(answer, 5, str(own.store), "held by process 4711", "remedy:", "--wait 2h")
    assert_told(waited, 5, "held by process 4711, still after 0.1s")
    assert os.listdir(own.store) == ["lock"]
    assert_a_good_run_follows(terminal, fiq_run, own.store)


# --- images


def _missing(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _broken(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [(_missing, "missing"), (_empty, "empty"), (_truncated, "truncated"), (_broken, "unreadable")],
)
def test_bad_images_stop_a_run_and_are_listed(
    terminal: Terminal,
    own: Finished,
    spoil: Callable[[Path], None],
    kind: str,
) -> None:
    spoilt = _unasked_images(own)[:2]
    assert len(spoilt) == 2
    for path in spoilt:
        spoil(path)
    answer = terminal("run", *own.bench.arguments(own.store))
    assert_told(
        answer, 3, "2 images or queries cannot be used", "item:", "cause:", "--allow-missing 2",
        *(f"{path.stem}: {kind}" for path in spoilt),
    )  # fmt: skip
    assert not (own.store / "cir.duckdb").exists()
    assert_nothing_half_written(own.store)


def test_bad_images_of_every_kind_may_be_allowed_and_a_good_run_follows(
    terminal: Terminal, own: Finished, fiq_run: Finished
) -> None:
    kinds = (_missing, _empty, _truncated, _broken)
    for spoil, path in zip(kinds, _unasked_images(own)[: len(kinds)], strict=True):
        spoil(path)
    arguments = own.bench.arguments(own.store)
    refused = terminal("run", *arguments, "--allow-missing", "3")  # the cut one is decoded later
    assert_told(refused, 3, "4 images or queries cannot be used", "--allow-missing 4")
    allowed = terminal("run", *arguments, "--allow-missing", "4", "--json")
    assert allowed.code == 0
    assert json.loads(allowed.out)["problems"] == 4
    assert_a_good_run_follows(terminal, fiq_run, own.store)


def _unasked_images(own: Finished) -> list[Path]:
    """That no query refers to, so that each is one problem."""
    asked = "".join(path.read_text() for path in (own.bench.root / "captions").glob("*.val.json"))
    images = sorted((own.bench.root / "images").iterdir())
    return [path for path in images if f'"{path.stem}"' not in asked]


# --- checkpoints


def _swapped(pair: Pair, _folder: Path) -> Pair:
    return Pair(pair.stage2, pair.stage1)


def _first_twice(pair: Pair, _folder: Path) -> Pair:
    return Pair(pair.stage1, pair.stage1)


def _nan(pair: Pair, folder: Path) -> Pair:
    tensors = read_tensors(pair.stage2)
    tensors["score_head.hidden.bias"][2] = float("nan")
    write_checkpoint(folder, read_config(pair.stage2), tensors)
    return Pair(pair.stage1, folder)


def _nan_in_first(pair: Pair, folder: Path) -> Pair:
    tensors = read_tensors(pair.stage1)
    tensors["vision_projection.weight"][0, 0] = float("inf")
    write_checkpoint(folder, read_config(pair.stage1), tensors)
    return Pair(folder, pair.stage2)


def _other_vision(pair: Pair, folder: Path) -> Pair:
    tensors = read_tensors(pair.stage2)
    tensors["vision.cls_token"] += 1e-3
    write_checkpoint(folder, read_config(pair.stage2), tensors)
    return Pair(pair.stage1, folder)


def _cut_off(pair: Pair, folder: Path) -> Pair:
    shutil.copytree(pair.stage2, folder)
    os.truncate(folder / "model.safetensors", 100_000)
    return Pair(pair.stage1, folder)


def _no_model(pair: Pair, folder: Path) -> Pair:
    return Pair(folder, pair.stage2)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_swapped, "not a stage 1 model"),
        (_first_twice, "not a stage 2 model"),
        (_nan, "score_head.hidden.bias"),
        (_nan_in_first, "vision_projection.weight"),
        (_other_vision, "different visual encoders"),
        (_cut_off, "cannot be read"),
        (_no_model, "model"),
    ],
)
def test_an_unusable_pair_of_models_is_refused(
    terminal: Terminal,
    own: Finished,
    fiq_run: Finished,
    tmp_path: Path,
    spoil: Callable[[Pair, Path], Pair],
    said: str,
) -> None:
    bench = replace(own.bench, pair=spoil(own.bench.pair, tmp_path / "spoilt"))
    answer = terminal("run", *bench.arguments(own.store))
    assert_told(answer, 7, said, "cause:")
    assert not (own.store / "artifacts" / "retrieve").exists()
    assert_nothing_half_written(own.store)
    if spoil is _swapped:
        assert_a_good_run_follows(terminal, fiq_run, own.store)


def test_a_model_is_converted_back_and_again(
    terminal: Terminal, published_pair: Pair, tmp_path: Path
) -> None:
    buffer = "text_encoder.embeddings.position_ids"
    back = terminal("convert", published_pair.stage2, tmp_path / "2.pt", "--to", "published")
    assert (back.code, back.out) == (0, f"{tmp_path / '2.pt'}\n")
    assert f"made anew: {buffer}" in back.err
    again = terminal("convert", tmp_path / "2.pt", tmp_path / "model")
    assert (again.code, again.out) == (0, f"{tmp_path / 'model'}\n")
    assert f"dropped: {buffer}" in again.err
    assert model_sha256(tmp_path / "model") == model_sha256(published_pair.stage2)
    half = terminal("convert", tmp_path / "2.pt", tmp_path / "half", "--half")
    assert half.code == 0
    sizes = [
        (tmp_path / folder / "model.safetensors").stat().st_size for folder in ("half", "model")
    ]
    assert sizes[0] < 0.51 * sizes[1]


def test_what_cannot_be_converted_back_is_told(
    terminal: Terminal, pair: Pair, tmp_path: Path
) -> None:
    out, to = tmp_path / "1.pt", ("--to", "published")
    demo = terminal("convert", shipped_model("stage1"), out, *to)
    assert_told(demo, 7, "4 heads at width 128", "demo of 180 words", "remedy:")
    assert_told(terminal("convert", tmp_path / "nowhere", out, *to), 7, "no model at this path")
    assert_told(terminal("convert", pair.stage1, out, *to, "--half"), 2, "leave --half out")
    assert_told(terminal("convert", pair.stage1, tmp_path, *to), 2, "never overwritten")
    assert terminal("convert", pair.stage1, out, "--to", "onnx").code == 2
    assert not out.exists()


# --- what is printed


def test_a_run_prints_its_table_and_its_files(terminal: Terminal, fiq_run: Finished) -> None:
    answer = terminal("run", *fiq_run.bench.arguments(fiq_run.store))
    assert answer.code == 0
    assert "nothing to do" in answer.err
    for word in ("fiq-original-kept", "K = 6", "dress", "toptee", "average", "R@10", "gain"):
        assert word in answer.out
    assert f"catalog: {fiq_run.run.catalog}" in answer.out
    assert f"report:  {fiq_run.run.report}" in answer.out


def test_json_is_all_that_stdout_holds(terminal: Terminal, fiq_run: Finished) -> None:
    answer = terminal("run", *fiq_run.bench.arguments(fiq_run.store), "--json")
    told = json.loads(answer.out)
    assert told["run_id"] == fiq_run.run.run_id
    assert (told["made"], told["problems"]) == ([], 0)
    assert Path(told["catalog"]).is_file()
    assert Path(told["report"]).is_file()
    first = next(row for row in told["recall"] if (row["metric"], row["k"]) == ("recall", 10))
    sql = "SELECT category, value, ci_low, ci_high, n FROM metrics WHERE stage = 'gain' AND {} = {}"
    rows = query(fiq_run.store / "cir.duckdb", sql.format("(metric, k)", "('recall', 10)"))[1]
    gain = first["gain"]
    wanted = (first["category"], gain["value"], gain["ci_low"], gain["ci_high"], first["n"])
    assert wanted in rows


@pytest.mark.parametrize("device", ["meta", "mps", "xpu", "cuda:x", "gpu"])
def test_a_device_that_is_not_tested_is_refused(
    terminal: Terminal, fiq_run: Finished, device: str
) -> None:
    answer = terminal("run", *fiq_run.bench.arguments(fiq_run.store), "--device", device)
    assert answer.code == 2
    assert f"device {device!r} cannot be used" in answer.err


def test_the_version_is_told(terminal: Terminal) -> None:
    assert terminal("--version").out == f"{version('cir-pipeline')}\n"


@pytest.mark.parametrize("words", [("-h",), ("run", "-h"), ("train", "-h")])
def test_help_has_a_short_name(terminal: Terminal, words: tuple[str, ...]) -> None:
    answer = terminal(*words)
    assert (answer.code, answer.err) == (0, "")
    assert "Usage: " in answer.out


def test_a_wrong_choice_is_answered_with_those_that_there_are(terminal: Terminal) -> None:
    answer = terminal("run", "--index", "fast")
    assert answer.code == 2
    assert all(kind in answer.err for kind in ("exact", "flat", "ivf", "gpu"))


def test_a_plan_takes_a_runs_options_and_makes_nothing(
    terminal: Terminal, fiq_run: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.planning.timing.SECONDS", 0.02)
    options = fiq_run.bench.arguments(fiq_run.store)
    done = terminal("plan", *options)
    assert done.code == 0, done.err
    assert "nothing to do: every stage is there already" in done.out
    coarser = [*options, "--stage2-precision", "bf16", "--tokens", "recompute"]
    told = terminal("plan", *coarser)
    assert "rerank: precision bf16, not fp32" in told.out
    assert "time: " in told.out
    assert "disk: " in told.out
    plan = json.loads(terminal("plan", *coarser, "--json").out)
    left = {one["stage"] for one in plan["stages"] if one["state"] != "done"}
    assert left == {"rerank", "rank", "evaluate", "publish", "report"}
    (rerank,) = (one["effort"] for one in plan["stages"] if one["stage"] == "rerank")
    assert plan["total"]["flops"] == rerank["flops"] > 0
    assert plan["seconds"] > plan["total"]["seconds"] > 0
    assert "with --tokens cache: " in told.out
    assert len(list((fiq_run.store / "artifacts" / "rerank").iterdir())) == 1
    monkeypatch.setattr("storage.store.disk_usage", lambda _: SimpleNamespace(free=1000))
    full = terminal("plan", *coarser)
    assert full.code == 8
    assert "the disk is too small" in full.out


def test_sql_answers_as_a_table_and_as_json(terminal: Terminal, fiq_run: Finished) -> None:
    statement = "SELECT dataset, k, NULL AS nothing, created_at FROM runs"
    answer = terminal("sql", statement, "--store", fiq_run.store, "--json")
    (row,) = json.loads(answer.out)
    assert (row["dataset"], row["k"], row["nothing"]) == ("fiq", 6, None)
    table = terminal("sql", statement, "--store", fiq_run.store)
    assert (answer.code, table.code, table.err) == (0, 0, "")
    assert "dataset" in table.out
    assert "fiq" in table.out


@pytest.mark.parametrize("statement", ["SELEC 1", "SELECT * FROM nothing", "DROP TABLE runs"])
def test_wrong_sql_is_told_with_its_reason(
    terminal: Terminal, fiq_run: Finished, statement: str
) -> None:
    answer = terminal("sql", statement, "--store", fiq_run.store)
    assert_told(answer, 4, statement, "cause:")


def test_without_a_catalog_sql_says_what_to_run(terminal: Terminal, tmp_path: Path) -> None:
    answer = terminal("sql", "SELECT 1", "--store", tmp_path / "store")
    assert_told(answer, 4, "no catalog yet", "item:", "cir-pipeline run")


# --- exports and submissions


def test_an_export_tells_its_files(terminal: Terminal, fiq_run: Finished, tmp_path: Path) -> None:
    arguments = ["export", "--store", fiq_run.store, "--run", fiq_run.run.run_id, "--out", tmp_path]
    answer = terminal(*arguments, "--format", "trec")
    assert answer.code == 0
    assert answer.out.split() == [str(tmp_path / "run_stage2.trec"), str(tmp_path / "qrels.trec")]
    told = json.loads(terminal(*arguments, "--format", "parquet", "--json").out)
    assert told["run_id"] == fiq_run.run.run_id
    assert [Path(file).is_file() for file in told["files"]] == [True]


def test_an_export_for_a_server_needs_its_dataset_and_its_k(
    terminal: Terminal, fiq_run: Finished, cirr_run: Finished, tmp_path: Path
) -> None:
    arguments = ["export", "--format", "cirr-submission", "--out", tmp_path / "out", "--store"]
    assert_told(terminal(*arguments, fiq_run.store), 2, "dataset fiq, not cirr", "remedy:")
    assert_told(terminal(*arguments, cirr_run.store), 4, "K = 6", "cause:", "-k 50")
    assert_told(terminal(*arguments, tmp_path / "empty"), 4, "no finished run", "remedy:")
    assert not (tmp_path / "out").exists()


def test_a_submission_is_checked_by_its_form_or_by_the_annotations(
    terminal: Terminal, cirr_run: Finished, tmp_path: Path
) -> None:
    queries = json.loads((cirr_run.bench.root / "cirr/captions/cap.rc2.val.json").read_text())
    lists = {
        str(query["pairid"]): [
            member for member in query["img_set"]["members"] if member != query["reference"]
        ][:3]
        for query in queries
    }
    file = tmp_path / "subset.json"
    file.write_text(json.dumps({"version": "rc2", "metric": "recall_subset", **lists}))
    arguments = ["check-submission", file, "--dataset", "cirr", "--split", "val"]
    answer = terminal(*arguments, "--data-root", cirr_run.bench.root)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("ok: CIRR val, recall_subset: 7 lists of 3")
    assert len(answer.out.splitlines()) == 1
    assert_told(terminal(*arguments), 3, str(file), "7 instead of 4,181", "form only")


def test_a_faulty_submission_is_told_on_both_streams(
    terminal: Terminal, cirr_run: Finished, tmp_path: Path
) -> None:
    file = tmp_path / "recall.json"
    file.write_text('{"version": "rc2", "3": [3, 3]}')
    arguments = ["check-submission", file, "--dataset", "cirr", "--split", "val"]
    arguments += ["--data-root", cirr_run.bench.root]
    assert_told(terminal(*arguments), 3, "10 faults", '"metric"', "; and 3 more", "remedy:")
    answer = terminal(*arguments, "--json")
    assert answer.code == 3
    told = json.loads(answer.out)
    assert told["ok"] is False
    kinds = {fault["kind"]: fault["count"] for fault in told["faults"]}
    assert kinds == {"metric": 1, "missing_query": 6, "wrong_length": 1, "not_a_string": 2}


def test_commands_that_read_write_nothing(
    terminal: Terminal, fiq_run: Finished, tmp_path: Path
) -> None:
    """Not for a moment either, of which the folders' times would tell: they work on a disk that is
    read-only."""
    paths = [fiq_run.store, *fiq_run.store.rglob("*")]
    before = {path: path.stat() for path in paths}
    for words in (
        ["sql", "SELECT 1"], ["show", "dress-00000"], ["choose-k"], ["verify"], ["runs", "ls"],
        ["store", "ls"], ["store", "du"], ["store", "gc", "--dry-run"],
        ["export", "--format", "parquet", "--out", tmp_path / "out"],
    ):  # fmt: skip
        answer = terminal(*words, "--store", fiq_run.store)
        assert answer.code == 0, answer.err
    assert [fiq_run.store, *fiq_run.store.rglob("*")] == paths
    assert not [one for one in paths if one.stat().st_mtime_ns != before[one].st_mtime_ns]


# --- a process that may open no more files


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/data/a.png"),
        RuntimeError('Cannot open file "/data/a.png": Too many open files'),  # as DuckDB says it
    ],
)
def test_too_few_descriptors_are_told(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(**_options: object) -> None:
        raise error

    monkeypatch.setattr("flows.doors.cli.app.app", fail)
    told = ("no further file can be opened", "/data/a.png", "Too many open files", "(ulimit -n)")
    assert_told(terminal("run"), 4, *told)


# --- signals


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_an_interrupted_run_says_how_to_go_on_and_frees_the_store(
    terminal: Terminal,
    own: Finished,
    fiq_run: Finished,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
    said: str,
) -> None:
    def interrupted(*_args: object, **_kwargs: object) -> None:
        os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr("tasks.stages.retrieve.Retrieve.open", interrupted)
        answer = terminal("run", *own.bench.arguments(own.store))
    assert answer.code == code
    assert answer.out == ""
    assert f"{said}; finished parts are kept: run the same command again" in answer.err
    assert_nothing_half_written(own.store)
    assert_a_good_run_follows(terminal, fiq_run, own.store)


INTERRUPTED_IMPORT = """
import os, signal, sys

moment, number = sys.argv[1:]

class At:
    armed = True
    def find_spec(self, name, path=None, target=None):
        if name == moment and At.armed:
            At.armed = False
            os.kill(os.getpid(), int(number))

sys.meta_path.insert(0, At())
from flows.doors.cli import main
sys.argv[1:] = ["sql", "SELECT 1"]
main()
"""


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("typer", signal.SIGINT),  # of the command line itself
        ("flows.settings", signal.SIGTERM),
        ("numpy", signal.SIGINT),
        ("numpy.lib", signal.SIGINT),  # numpy goes on without what fails in it
    ],
)
def test_a_signal_amid_an_import_ends_at_once(
    module: str, number: signal.Signals, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, module, str(int(number))],
        cwd=ROOT, env=os.environ | {"CIR_STORE": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 128 + number
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("interrupted; " if number == signal.SIGINT else "terminated; ")


STUBBORN = """
import os, signal, sys
from flows.doors.cli.signals import end_on_signals
end_on_signals()
for _ in range(2):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        print("went on", flush=True)
"""


def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STUBBORN], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (130, "went on\n")
    assert len(ended.stderr.splitlines()) == 2


def test_an_ignored_interrupt_stays_ignored() -> None:
    """As a shell starts what runs in its background."""
    program = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{STUBBORN}"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("", "")


def test_inputs_that_changed_are_told_after_the_results(
    terminal: Terminal, fiq_run: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def find_changed(*_arguments: object) -> tuple[str, ...]:
        return ("data/a.png",)

    monkeypatch.setattr("flows.run.find_changed", find_changed)
    shutil.copytree(fiq_run.store, tmp_path / "store")
    answer = terminal("run", *fiq_run.bench.arguments(tmp_path / "store"), "--json")
    assert answer.code == 3
    assert json.loads(answer.out)["changed"] == ["data/a.png"]
    assert json.loads(answer.out)["recall"]
    assert "1 inputs have changed since they were used" in answer.err


def test_a_run_is_checked_against_what_was_expected(
    terminal: Terminal, fiq_run: Finished, tmp_path: Path
) -> None:
    beside = fiq_run.run.report.with_name("expected.toml")
    same = terminal("check-run", "--expected", beside, "--store", fiq_run.store)
    assert (same.code, same.out.count("ok of")) == (0, 2)
    other = tmp_path / "other.toml"
    other.write_text(beside.read_text(encoding="utf-8").replace("k = 6", "k = 7"), encoding="utf-8")
    call = ("check-run", fiq_run.run.run_id, "--expected", other, "--store", fiq_run.store)
    assert terminal(*call).code == 3
    answer = terminal(*call, "--json")
    told = json.loads(answer.out)
    assert (answer.code, told["ok"]) == (3, False)
    assert [one["name"] for one in told["facts"] if one["state"] != "ok"] == ["k"]
    assert terminal("check-run", "--expected", tmp_path / "none").code == 2
