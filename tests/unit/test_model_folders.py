"""A saved model, opened again, is the same model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from cir_core.errors import CheckpointRefused, NonFiniteError, PreflightError
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.retrievers.blip.fusion import Stage1Model
from flows.settings import shipped_model
from storage.atomic import sha256_of
from storage.models.folders import model_files, model_sha256, write_linked
from tasks.models.opening import open_stage1, open_stage2, save_model
from tests.support.plain_hashes import plain_model_sha256, plain_tensors_sha256
from tests.support.tiny_models import tiny_stage1, tiny_stage2

Model = Stage1Model | Stage2Model
PAIRS = [(tiny_stage1, open_stage1), (tiny_stage2, open_stage2)]


def assert_same_weights(opened: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    assert opened.state_dict().keys() == expected.keys()
    for name, tensor in opened.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(("make", "open_model"), PAIRS)
def test_save_and_open_is_exact(
    tmp_path: Path, make: Callable[[], Model], open_model: Callable[[Path], Model]
) -> None:
    model = make().train()
    digest = save_model(model, tmp_path / "new" / "model")
    assert digest == sha256_of(tmp_path / "new" / "model" / "model.safetensors")
    opened = open_model(tmp_path / "new" / "model")
    assert opened.config == model.config
    assert not opened.training
    assert model.training  # saving leaves the model alone
    assert_same_weights(opened, model.state_dict())
    assert save_model(opened, tmp_path / "again") == digest


@pytest.mark.parametrize(("make", "open_model"), PAIRS)
def test_in_half_precision_the_weights_are_rounded_once(
    tmp_path: Path, make: Callable[[], Model], open_model: Callable[[Path], Model]
) -> None:
    model = make()
    digest = save_model(model, tmp_path, dtype=torch.float16)
    opened = open_model(tmp_path)
    rounded = {name: tensor.half().float() for name, tensor in model.state_dict().items()}
    assert_same_weights(opened, rounded)
    assert save_model(opened, tmp_path, dtype=torch.float16) == digest


def test_a_saved_model_replaces_the_one_before(tmp_path: Path) -> None:
    save_model(tiny_stage1(), tmp_path)
    save_model(tiny_stage2(), tmp_path)
    assert open_stage2(tmp_path).config == tiny_stage2().config
    with pytest.raises(CheckpointRefused, match="not a stage 1 model"):
        open_stage1(tmp_path)


def test_weights_too_large_for_half_precision_are_not_written(tmp_path: Path) -> None:
    model = tiny_stage2()
    with torch.no_grad():
        model.score_head.output.bias[0] = 70_000
    with pytest.raises(NonFiniteError, match=r"score_head\.output\.bias \(torch\.float16\)"):
        save_model(model, tmp_path / "model", dtype=torch.float16)
    assert not (tmp_path / "model").exists()
    save_model(model, tmp_path / "model")
    assert_same_weights(open_stage2(tmp_path / "model"), model.state_dict())


# --- what names a model


def record(folder: Path) -> str | None:
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        found: str | None = (weights.metadata() or {}).get("sha256")
    return found


def without_record(folder: Path) -> Path:
    """As an earlier version wrote it."""
    weights = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_folder_records_its_tensors(tmp_path: Path, dtype: torch.dtype) -> None:
    save_model(tiny_stage1(), tmp_path, dtype=dtype)
    assert record(tmp_path) == plain_tensors_sha256(tmp_path / "model.safetensors")
    assert model_sha256(tmp_path) == plain_model_sha256(tmp_path)


def test_a_flipped_bit_is_refused_with_both_digests(tmp_path: Path) -> None:
    save_model(tiny_stage1(), tmp_path)
    weights = tmp_path / "model.safetensors"
    recorded = plain_tensors_sha256(weights)
    flip_a_bit(weights)
    with pytest.raises(CheckpointRefused, match="weights are damaged") as refusal:
        open_stage1(tmp_path)
    assert refusal.value.item == str(weights)
    assert recorded in refusal.value.cause
    assert plain_tensors_sha256(weights) in refusal.value.cause


def test_a_folder_without_record_is_opened_and_has_the_same_name(tmp_path: Path) -> None:
    model = tiny_stage2()
    save_model(model, tmp_path)
    name = model_sha256(tmp_path)
    assert record(without_record(tmp_path)) is None
    assert model_sha256(tmp_path) == name
    assert_same_weights(open_stage2(tmp_path), model.state_dict())


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_shipped_models_have_their_record(stage: Literal["stage1", "stage2"]) -> None:
    folder = shipped_model(stage)
    assert record(folder) == plain_tensors_sha256(folder / "model.safetensors")


def test_another_config_or_other_weights_are_another_model(tmp_path: Path) -> None:
    save_model(tiny_stage1(), tmp_path)
    name = model_sha256(tmp_path)
    assert open_stage1(tmp_path, sha256=name).config == tiny_stage1().config
    config = tmp_path / "config.json"
    written = config.read_text()
    config.write_text(written.replace('"dropout": 0.1', '"dropout": 0.2'))
    with pytest.raises(PreflightError, match="changed since this run began"):
        open_stage1(tmp_path, sha256=name)
    config.write_text(written)
    save_model(tiny_stage1(seed=9), tmp_path)
    with pytest.raises(PreflightError, match="changed since this run began") as refusal:
        open_stage1(tmp_path, sha256=name)
    assert refusal.value.item == str(tmp_path / "model.safetensors")


def test_an_opened_model_owns_its_weights(tmp_path: Path) -> None:
    """A file that is written over does not change a model that was read from it."""
    model = tiny_stage2()
    save_model(model, tmp_path)
    opened, weights = open_stage2(tmp_path), tmp_path / "model.safetensors"
    with weights.open("r+b") as file:  # the same file: its pages are what a mapping would show
        file.seek(1 + len(weights.read_bytes()) // 2)
        file.write(b"x" * 999)
    assert_same_weights(opened, model.state_dict())


@pytest.mark.parametrize(
    "index",
    [
        "version https://git-lfs.github.com/spec/v1",
        "{}",
        '{"weight_map": {"a": 1}}',
        *(
            json.dumps({"weight_map": {"a": name}})
            for name in ("../weights.safetensors", "sub/weights.safetensors", "config.json")
        ),
    ],
)
def test_an_index_of_weights_names_files_of_weights_beside_it(tmp_path: Path, index: str) -> None:
    """It is often a stranger's: nothing is written outside the folder, or over its config."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.safetensors.index.json").write_text(index)
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointRefused, match="weights cannot be read"):
        write_linked(tmp_path / "folder", {"kind": "x"}, source)
    assert sorted(tmp_path.rglob("*")) == before


def test_all_files_of_a_model_are_known(tmp_path: Path) -> None:
    """Also the shards of others, and what its config attaches."""
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    for name in ("one", "two"):
        save_file({name: torch.zeros(1)}, source / f"{name}.safetensors")
    index = {"weight_map": {name: f"{name}.safetensors" for name in ("one", "two")}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    write_linked(folder, {"kind": "x", "attached": {"tokenizer.json": "{}"}}, source)
    assert set(model_files(folder)) == {path.name for path in folder.iterdir()}
