"""Checkpoints that must be refused, by name, without running anything of theirs."""

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cir_core.checkpoints.published import MODEL_KEYS, convert_published
from cir_core.errors import CheckpointRefused, NonFiniteError, UsageError
from storage.checkpoints import write_checkpoint
from storage.pickles import read_pickle, read_safetensors
from tasks.convert import convert
from tasks.pair import check_pair
from tests.support.tiny_checkpoints import save_published, tiny_stage1, tiny_stage2

State = dict[str, Tensor]
LAYER = "text_encoder.encoder.layer"
NAMED_KEYS = [
    "visual_encoder.pos_embed",
    "visual_encoder.blocks.1.mlp.fc1.weight",
    "visual_encoder.norm.weight",
    "text_encoder.embeddings.word_embeddings.weight",
    "text_encoder.embeddings.position_embeddings.weight",
    f"{LAYER}.0.intermediate.dense.weight",
    f"{LAYER}.6.crossattention.output.merge_layer.weight",
    f"{LAYER}.7.attention.self1.query.bias",
    "cls_head.2.weight",
]


@pytest.fixture
def stage2() -> State:
    return tiny_stage2()


class Bomb:
    """Unpickles by running a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


# -- keys and values -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", NAMED_KEYS)
def test_a_missing_key_is_named(stage2: State, key: str) -> None:
    del stage2[key]
    with pytest.raises(CheckpointRefused, match=key):
        convert_published(stage2, "stage2.pt")


@pytest.mark.parametrize(
    "key",
    [
        "text_proj.weight",
        "module.cls_head.0.weight",
        f"{LAYER}.8.output.dense.weight",
        f"{LAYER}.123456789.output.dense.weight",
        f"{LAYER}.2.crossattention.output.merge_layer.weight",
        f"{LAYER}.00.output.dense.weight",
        "text_encoder.embeddings.position_ids.weight",
    ],
)
def test_an_extra_key_is_named(stage2: State, key: str) -> None:
    stage2[key] = torch.zeros(2)
    with pytest.raises(CheckpointRefused, match=f"extra: {key}"):
        convert_published(stage2, "stage2.pt")


@pytest.mark.parametrize("key", NAMED_KEYS)
def test_a_misshapen_key_is_named(stage2: State, key: str) -> None:
    stage2[key] = torch.cat([stage2[key], stage2[key][..., :1]], dim=-1)
    if key.endswith("pos_embed"):
        stage2[key] = stage2[key][:, :-1]
    with pytest.raises(CheckpointRefused, match=key):
        convert_published(stage2, "stage2.pt")


def test_positions_must_agree_with_the_dropped_buffer(stage2: State) -> None:
    key = "text_encoder.embeddings.position_embeddings.weight"
    stage2[key] = stage2[key][:100]
    with pytest.raises(CheckpointRefused, match=r"position_ids .* does not count from 0 to 99"):
        convert_published(stage2, "stage2.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_refused(stage2: State, value: float) -> None:
    stage2["cls_head.0.bias"][3] = value
    with pytest.raises(NonFiniteError, match=r"cls_head\.0\.bias"):
        convert_published(stage2, "stage2.pt")


def test_integers_are_no_weights(stage2: State) -> None:
    stage2["cls_head.0.bias"] = stage2["cls_head.0.bias"].to(torch.int8)
    with pytest.raises(CheckpointRefused, match=r"cls_head\.0\.bias \(torch\.int8\)"):
        convert_published(stage2, "stage2.pt")


def test_another_vocabulary_is_refused(stage2: State) -> None:
    key = "text_encoder.embeddings.word_embeddings.weight"
    stage2[key] = stage2[key][:30522]
    with pytest.raises(CheckpointRefused, match="vocabulary of 30522 words is unknown") as refusal:
        convert_published(stage2, "stage2.pt")
    assert "30524 (bert-base-uncased)" in str(refusal.value)


@pytest.mark.parametrize("state", [{}, {"conv1.weight": torch.zeros(3)}])
def test_another_model_is_refused(state: State) -> None:
    with pytest.raises(CheckpointRefused, match="neither a stage-1 nor a stage-2"):
        convert_published(state, "resnet.pt")


# -- files ---------------------------------------------------------------------------------------


def _truncated(path: Path) -> None:
    save_published(path, {"w": torch.zeros(1000)}, MODEL_KEYS[0])
    path.write_bytes(path.read_bytes()[:2000])


def _truncated_old_format(path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:2000])


def _lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


def _other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "not a model")


def _compressed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))


def _no_model_key(path: Path) -> None:
    torch.save({"epoch": 3, "model": {"w": torch.zeros(1)}}, path)


def _both_model_keys(path: Path) -> None:
    torch.save({key: {"w": torch.zeros(1)} for key in MODEL_KEYS}, path)


def _not_a_state(path: Path) -> None:
    torch.save({MODEL_KEYS[0]: [1, 2]}, path)


def _not_a_tensor(path: Path) -> None:
    save_published(path, {"w": torch.zeros(1), "note": "hello"}, MODEL_KEYS[0])


def _inflated(path: Path) -> None:
    """Four bytes on disk, four terabytes once written out."""
    save_published(path, {"w": torch.zeros(1).expand(2**40)}, MODEL_KEYS[0])


FILES: list[tuple[Callable[[Path], object], str]] = [
    (_truncated, "truncated or damaged"),
    (_truncated_old_format, "its data is damaged|no pickle"),
    (_lfs_pointer, "git-lfs pointer"),
    (lambda path: path.write_bytes(b""), "neither a torch archive nor a pickle"),
    (lambda path: path.write_text("<html>not found"), "neither a torch archive nor a pickle"),
    (lambda path: path.write_bytes(b"\x80\x02garbage"), "its data is damaged|no pickle"),
    (_other_zip, "not one of torch.save"),
    (_compressed, "compressed"),
    (lambda path: None, "No such file"),
    (_no_model_key, "its keys are: epoch, model"),
    (_both_model_keys, "not exactly one of the keys"),
    (_not_a_state, "not a state dict"),
    (_not_a_tensor, "note is a str"),
    (_inflated, "w claims 4398046511104 bytes"),
]


@pytest.mark.parametrize(("spoil", "complaint"), FILES)
def test_a_bad_pickle_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], complaint: str
) -> None:
    path = tmp_path / "stage1.pt"
    spoil(path)
    with pytest.raises(CheckpointRefused, match=complaint) as refusal:
        convert(path, tmp_path / "out")
    assert str(path) in str(refusal.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["archive", "old", "bare"])
def test_a_pickle_bomb_does_not_go_off(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, trace = tmp_path / "bomb.pt", tmp_path / "exploded"
    bomb = Bomb(f"touch {trace}")
    content = {"epoch": 0, MODEL_KEYS[0]: {"w": torch.zeros(1), "x": bomb}}
    if form == "bare":
        path.write_bytes(pickle.dumps(bomb, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "archive")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(CheckpointRefused, match="more than tensors") as refusal:
        convert(path, tmp_path / "out")
    assert "system" in str(refusal.value)
    assert not trace.exists()
    if form == "bare":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert trace.exists()  # it was a live one


def test_only_the_model_leaves_a_pickle(tmp_path: Path) -> None:
    """Views and shared storage become tensors of their own."""
    base = torch.arange(6.0)
    state = {"a": base[:3], "b": base, "c": base.view(2, 3).T}
    path = save_published(tmp_path / "x.pt", state, MODEL_KEYS[1])
    model = read_pickle(path, MODEL_KEYS)
    assert model.model_key == MODEL_KEYS[1]
    assert model.tensors.keys() == state.keys()
    assert all(torch.equal(model.tensors[name], tensor) for name, tensor in state.items())


def _header(length: int, body: bytes) -> bytes:
    return struct.pack("<Q", length) + body


BEYOND = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        _header(2**63, b"{}"),
        _header(2**40, b"{}"),
        _header(99_000_000, b"{}"),
        _header(2, b"[]"),
        _header(5, b"\xff\xfe\x00{}"),
        _header(len(BEYOND), BEYOND),
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_a_bogus_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')
    with pytest.raises(CheckpointRefused, match=r"model\.safetensors"):
        convert(tmp_path, tmp_path / "out")
    with pytest.raises(CheckpointRefused):
        read_safetensors(tmp_path / "model.safetensors")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')
    with pytest.raises(CheckpointRefused, match=r"neither model\.safetensors nor pytorch_model"):
        convert(tmp_path, tmp_path / "out")


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match=r"config\.json is missing"):
        convert(tmp_path, tmp_path / "out")


def test_a_conversion_does_not_overwrite_its_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        convert(tmp_path, tmp_path)


# -- pairs ---------------------------------------------------------------------------------------


def _write(folder: Path, state: State) -> Path:
    converted = convert_published(state, folder.name)
    write_checkpoint(folder, converted.config.model_dump(), converted.tensors)
    return folder


def test_stages_must_not_be_swapped(tmp_path: Path, stage2: State) -> None:
    one, two = _write(tmp_path / "one", tiny_stage1()), _write(tmp_path / "two", stage2)
    check_pair(tmp_path / "store", one, two)
    with pytest.raises(CheckpointRefused, match="not a stage 2 model"):
        check_pair(tmp_path / "store", one, one)
    with pytest.raises(CheckpointRefused, match="not a stage 1 model"):
        check_pair(tmp_path / "store", two, one)


def test_a_pair_with_different_visual_encoders_is_refused(tmp_path: Path, stage2: State) -> None:
    stage2["visual_encoder.blocks.1.attn.qkv.bias"][0] += 1e-6
    one, two = _write(tmp_path / "one", tiny_stage1()), _write(tmp_path / "two", stage2)
    with pytest.raises(CheckpointRefused, match=r"1 tensors differ: blocks\.1\.query_key_value"):
        check_pair(tmp_path / "store", one, two)
