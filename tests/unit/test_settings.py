"""Flags over environment over cir.toml over defaults; every mistake is told at once."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cir_core.errors import UsageError
from flows.origins import Resolved, resolve
from flows.settings import Settings
from flows.training_settings import settings_of_data

SOURCES = ("flag", "environment", "cir.toml", "default")


def resolved(
    folder: Path,
    *,
    flags: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    toml: str = "",
) -> Resolved:
    if toml:
        (folder / "cir.toml").write_text(toml, encoding="utf-8-sig")  # as Windows has it
    return resolve(flags or {}, environment or {}, folder)


def test_without_sources_every_value_is_the_default(tmp_path: Path) -> None:
    found = resolved(tmp_path)
    assert found.settings == Settings()
    assert found.origins == dict.fromkeys(Settings.model_fields, "default")
    assert (found.settings.dataset, found.settings.split) == ("demo", "val")


@pytest.mark.parametrize("strongest", range(len(SOURCES)))
def test_the_strongest_source_wins_and_is_named(tmp_path: Path, strongest: int) -> None:
    given = SOURCES[strongest:]
    found = resolved(
        tmp_path,
        flags={"batch": 1 if "flag" in given else None},
        environment={"CIR_BATCH": "2"} if "environment" in given else {},
        toml="batch = 3" if "cir.toml" in given else "",
    )
    assert found.settings.batch == [1, 2, 3, 32][strongest]
    assert found.origins["batch"] == given[0]


def test_each_setting_has_its_own_origin(tmp_path: Path) -> None:
    found = resolved(
        tmp_path,
        flags={"k": 7},
        environment={"CIR_DATASET": "cirr", "CIR_K": "8"},
        toml='split = "test"\ndataset = "fiq"\n',
    )
    settings = found.settings
    assert (settings.k, settings.dataset, settings.split) == (7, "cirr", "test")
    told = {name: found.origins[name] for name in ("k", "dataset", "split", "store")}
    assert told == {"k": "flag", "dataset": "environment", "split": "cir.toml", "store": "default"}


def test_every_setting_may_come_from_every_source(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "dataset": "fiq",
        "data_root": "/data",
        "name": "shop",
        "images": "photos",
        "queries": "monday.csv",
        "gallery": "stock.csv",
        "split": "train",
        "categories": ["dress", "shirt"],
        "stage1": "/models/1",
        "stage2": "/models/2",
        "protocol": "fiq-union-kept",
        "k": 20,
        "coverage": 0.9,
        "risk": 0.1,
        "calibrate": "0123",
        "no_guarantee": True,
        "index": "ivf",
        "nlist": 64,
        "nprobe": 8,
        "text_weight": 0.25,
        "candidates": "/run.trec",
        "embeddings": "/vectors",
        "late_fusion": 0.5,
        "late_fusion_scores": "raw",
        "until": "evaluate",
        "run_name": "baseline",
        "tags": ["paper", "k20"],
        "store": "/store",
        "wait": "1.5h",
        "allow_missing": 3,
        "device": "cuda:1",
        "batch": 64,
        "workers": 3,
        "processes": 2,
        "devices": "0,1",
        "tokens": "cache",
        "memory": "2GiB",
        "precision": "bf16",
        "encoder_precision": "fp32",
        "stage1_precision": "tf32",
        "stage2_precision": "fp16",
        "runner": "dask",
        "address": "tcp://host:8786",
        "engine": "prefect",
    }
    assert values.keys() == Settings.model_fields.keys()
    wanted = Settings.model_validate(values)
    environment = {f"CIR_{name.upper()}": str(value) for name, value in values.items()}
    environment |= {"CIR_CATEGORIES": "dress,shirt", "CIR_TAGS": "paper,k20"}
    toml = "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
    assert resolved(tmp_path, flags=values).settings == wanted
    assert resolved(tmp_path, environment=environment).settings == wanted
    assert resolved(tmp_path, toml=toml).settings == wanted


def test_a_training_is_judged_without_an_adaptive_k() -> None:
    adaptive = Settings(k="auto", coverage=0.9, risk=0.1, calibrate="a", no_guarantee=True)
    assert settings_of_data(adaptive) == Settings()
    assert settings_of_data(Settings(k=7)).k == 7


@pytest.mark.parametrize("empty", [None, (), []])
def test_an_empty_flag_was_not_given(tmp_path: Path, empty: object) -> None:
    found = resolved(tmp_path, flags={"categories": empty}, environment={"CIR_CATEGORIES": "dress"})
    assert found.settings.categories == ("dress",)
    assert found.origins["categories"] == "environment"


def test_a_zero_was_given(tmp_path: Path) -> None:
    found = resolved(tmp_path, flags={"allow_missing": 0}, toml="allow_missing = 5")
    assert found.settings.allow_missing == 0


def test_an_empty_variable_and_foreign_variables_are_no_settings(tmp_path: Path) -> None:
    environment = {"CIR_K": "", "K": "3", "XCIR_K": "4", "cir_k": "5"}
    assert resolved(tmp_path, environment=environment).settings == Settings()


def test_all_mistakes_are_told_at_once_with_their_sources(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(
            tmp_path,
            flags={"k": 0, "split": "dev"},
            environment={"CIR_BATCH": "many", "CIR_COLOUR": "red"},
            toml="allow_missing = -1\nspeed = 3\nstore = 5\n",
        )
    assert caught.value.exit_code == 2
    faults = caught.value.cause.split("; ")
    assert sorted(fault.partition(": ")[0] for fault in faults) == [
        "allow_missing (from cir.toml)",
        "batch (from environment)",
        "colour (from environment)",
        "k (from flag)",
        "speed (from cir.toml)",
        "split (from flag)",
        "store (from cir.toml)",
    ]


SECTIONED = """
data_root = "/data"
k = 10
batch = 8
[datasets.fiq]
data_root = "/data/fiq"
k = 20
stage1 = "~/fiq"
[datasets.own]
k = 30
"""


@pytest.mark.parametrize("dataset", ["fiq", "cirr", "./catalogue", "own"])
@pytest.mark.parametrize("source", ["flag", "environment", "cir.toml"])
def test_a_section_holds_for_its_dataset_alone(tmp_path: Path, dataset: str, source: str) -> None:
    """Whatever names the dataset, over the general settings and under all others."""
    found = resolved(
        tmp_path,
        flags={"dataset": dataset} if source == "flag" else {},
        environment={"CIR_DATASET": dataset} if source == "environment" else {},
        toml=SECTIONED.replace('data_root = "/data"\n', f"dataset = {dataset!r}\n")
        if source == "cir.toml"
        else SECTIONED,
    )
    section = f"cir.toml [datasets.{found.settings.dataset}]"
    expected = {"fiq": (20, section), "own": (30, section), "cirr": (10, "cir.toml")}
    assert (found.settings.k, found.origins["k"]) == expected[found.settings.dataset]
    assert (found.settings.batch, found.origins["batch"]) == (8, "cir.toml")
    if dataset == "fiq":
        assert found.settings.data_root == Path("/data/fiq")
        assert found.settings.stage1 == Path.home() / "fiq"
    if dataset == "./catalogue":
        assert (found.settings.dataset, found.settings.data_root) == ("own", Path("catalogue"))


def test_environment_and_flags_count_over_a_section(tmp_path: Path) -> None:
    found = resolved(
        tmp_path,
        flags={"dataset": "fiq", "k": 1},
        environment={"CIR_DATA_ROOT": "/elsewhere"},
        toml=SECTIONED,
    )
    assert (found.settings.k, found.settings.data_root) == (1, Path("/elsewhere"))
    told = [found.origins[name] for name in ("k", "data_root", "stage1")]
    assert told == ["flag", "environment", "cir.toml [datasets.fiq]"]


@pytest.mark.parametrize("where", ["file", "environment"])
def test_a_folder_gives_way_to_a_dataset_that_counts_more(tmp_path: Path, where: str) -> None:
    toml, environment = '[datasets.fiq]\ndata_root = "/data/fiq"\n', {"CIR_DATASET": "./mine"}
    if where == "file":
        toml, environment = f'dataset = "./mine"\n{toml}', {}
    for dataset, root in (("demo", None), ("fiq", Path("/data/fiq"))):
        found = resolved(tmp_path, flags={"dataset": dataset}, environment=environment, toml=toml)
        assert (found.settings.dataset, found.settings.data_root) == (dataset, root)


def test_without_a_named_dataset_the_default_ones_section_holds(tmp_path: Path) -> None:
    assert resolved(tmp_path, toml="k = 3\n[datasets.demo]\nk = 4").settings.k == 4


def test_mistakes_in_sections_are_told_at_once_whichever_dataset_is_run(tmp_path: Path) -> None:
    toml = """
k = 0
[datasets]
cirr = 3
[datasets.fiq]
speed = 3
k = "many"
store = "elsewhere"
[datasets.fashion-iq]
k = 5
"""
    with pytest.raises(UsageError) as caught:
        resolved(tmp_path, toml=toml)
    faults = re.split(r"; (?=\S+ \(from|cir\.toml)", caught.value.cause)
    assert sorted(fault.split(": ")[0] for fault in faults) == [
        "cir.toml [datasets.cirr]",
        "cir.toml [datasets.fashion-iq]",
        "k (from cir.toml [datasets.fiq])",
        "k (from cir.toml)",
        "speed (from cir.toml [datasets.fiq])",
        "store (from cir.toml [datasets.fiq])",
    ]
    assert "known are demo, fiq, cirr, circo, shoes, own" in caught.value.cause
    assert "known are dataset, data_root," in caught.value.remedy


def test_a_file_that_names_two_roots_of_own_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another one is given"):
        resolved(tmp_path, toml='dataset = "./x"\n[datasets.own]\ndata_root = "y"')


@pytest.mark.parametrize("toml", ["datasets = 3", "datasets = []"])
def test_datasets_that_are_no_sections_are_refused(tmp_path: Path, toml: str) -> None:
    with pytest.raises(UsageError, match="not usable") as caught:
        resolved(tmp_path, toml=toml)
    assert caught.value.cause.startswith("datasets (from cir.toml): holds sections")


@pytest.mark.parametrize("content", [b"k = ", b"\xff\xfe", b"k = 1\nk = 2"])
def test_a_settings_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cir.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"cir\.toml is not TOML") as caught:
        resolve({}, {}, tmp_path)
    assert caught.value.item == str(tmp_path / "cir.toml")


def test_settings_cannot_change_afterwards() -> None:
    with pytest.raises(ValidationError):
        Settings().k = 3


@pytest.mark.parametrize("source", ["flag", "environment", "toml"])
def test_the_home_folder_is_meant_whatever_source_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given: dict[str, Any] = {
        "flag": {"flags": {"store": Path("~/results"), "dataset": "~/cat"}},
        "environment": {"environment": {"CIR_STORE": "~/results", "CIR_DATASET": "~/cat"}},
        "toml": {"toml": 'store = "~/results"\ndataset = "~/cat"'},
    }
    settings = resolved(tmp_path, **given[source]).settings
    assert (settings.store, settings.data_root) == (tmp_path / "results", tmp_path / "cat")


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "a/~/x", "run:3"])
def test_what_only_looks_like_a_home_folder_is_left_alone(tmp_path: Path, path: str) -> None:
    assert resolved(tmp_path, flags={"store": Path(path)}).settings.store == Path(path)
