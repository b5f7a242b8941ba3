"""Checkpoints that must be refused, by name, without running anything of theirs."""

import hashlib
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from cir_core.checkpoints.published import MODEL_KEYS, convert_published
from cir_core.errors import CheckpointRefused, NonFiniteError, UsageError
from storage.models import pickles
from storage.models.folders import write_checkpoint
from storage.models.hub import require_downloaded
from storage.models.pickles import read_pickle, read_safetensors
from storage.models.unpickle import ROOM, read_state
from storage.store import LocalStore
from tasks.models.convert import convert
from tasks.stages.pair import check_pair
from tests.support.tiny_checkpoints import save_published, tiny_stage1, tiny_stage2

State = dict[str, Tensor]
OLD_FORMAT: Any = {"_use_new_zipfile_serialization": False}
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
    torch.save({"epoch": 3, "note": "hello"}, path)


def _several_models(path: Path) -> None:
    state = {"w": torch.zeros(1)}
    torch.save({"epoch": 3, "model": state, "model_ema": state}, path)


def _another_model(path: Path) -> None:
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
    (_no_model_key, "no state dict; its keys are: epoch, note"),
    (_several_models, r"several state dicts \(model, model_ema\); its keys are: epoch, model,"),
    (_another_model, "neither a stage-1 nor a stage-2"),
    (_both_model_keys, r"several state dicts \(BLIP_Retrieval, BLIP_NLVR\)"),
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


@pytest.mark.parametrize("place", ["cls_head.2.weight", "data.pkl"])
def test_a_flipped_bit_is_refused(tmp_path: Path, stage2: State, place: str) -> None:
    path = save_published(tmp_path / "2.pt", stage2, MODEL_KEYS[1])
    content = bytearray(path.read_bytes())
    sought = b"optimizer_state_dict"  # in the pickle
    if place != "data.pkl":
        sought = stage2[place].numpy().tobytes()
    content[content.index(sought) + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointRefused, match="damaged") as refusal:
        convert(path, tmp_path / "out")
    assert refusal.value.exit_code == 7
    assert place in refusal.value.cause
    assert not (tmp_path / "out").exists()


def test_a_flipped_bit_beside_the_model_is_not_read(tmp_path: Path) -> None:
    momentum = torch.full((50,), 0.123)
    path = tmp_path / "2.pt"
    state = {"w": torch.ones(3)}
    torch.save({MODEL_KEYS[1]: state, "optimizer_state_dict": {"state": {0: momentum}}}, path)
    content = bytearray(path.read_bytes())
    content[content.index(momentum.numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    assert read_state(str(path), list(MODEL_KEYS))[1]["w"].tolist() == [1, 1, 1]


def test_an_archive_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = save_published(tmp_path / "2.pt", {"w": torch.ones(3)}, MODEL_KEYS[1])
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_pickle(path, MODEL_KEYS).tensors["w"].tolist() == [1, 1, 1]


def _wrapped(state: State, prefix: str) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


LAYOUTS: dict[str, Callable[[State], object]] = {
    "bare": lambda state: state,
    "bare, with numbers": lambda state: state | {"epoch": 3, "best": np.float32(0.5)},
    "model": lambda state: {"model": state, "epoch": 3, "loss": torch.tensor(0.5)},
    "state_dict": lambda state: {"state_dict": state, "optimizer": {"state": {}, "lr": [0.1]}},
    "published": lambda state: {MODEL_KEYS[1]: state, "teacher": {"w": torch.zeros(1)}},
    "DataParallel": lambda state: {"model": _wrapped(state, "module.")},
    "compiled": lambda state: _wrapped(state, "module._orig_mod."),
    "Lightning": lambda state: {"state_dict": _wrapped(state, "model."), "global_step": 7},
    "numpy numbers": lambda state: {
        "model": state,
        "loss": np.float64(0.25),
        "step": np.int64(9),
        "done": np.bool_(True),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_can_be_meant_in_one_way_is_read(
    tmp_path: Path, stage2: State, layout: str
) -> None:
    path = tmp_path / "2.pt"
    torch.save(LAYOUTS[layout](stage2), path)
    _, read = read_state(str(path), list(MODEL_KEYS))  # ours, so here will do
    ours = convert_published(read, "2.pt")
    expected = convert_published(stage2, "2.pt")
    assert ours.config == expected.config
    assert ours.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(ours.tensors[name], one) for name, one in expected.tensors.items())


def test_numbers_as_numpy_1_wrote_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "1.pt"
    torch.save({"model": {"w": torch.zeros(1)}, "loss": np.float64(0.25)}, path, **OLD_FORMAT)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.", b"cnumpy.core."))
    assert b"cnumpy.core.multiarray" in path.read_bytes()
    assert read_state(str(path), [])[0] == "model"


def test_what_is_no_state_dict_is_refused_with_what_would_help(tmp_path: Path) -> None:
    path = tmp_path / "1.pt"
    _several_models(path)
    with pytest.raises(CheckpointRefused) as refusal:
        convert(path, tmp_path / "out")
    assert "torch.save(model.state_dict(), path)" in refusal.value.remedy


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


# What the restricted loader has no reason to refuse: it builds values, and these are only large.


class Vast:
    """Unpickles as more bytes than the limit leaves room for."""

    def __reduce__(self) -> tuple[type[bytearray], tuple[int]]:
        return bytearray, (3 * ROOM,)


def test_a_pickle_that_takes_memory_without_end_is_stopped(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1), "x": Vast()}, tmp_path / "1.pt")
    with pytest.raises(CheckpointRefused, match="more memory than its size explains"):
        read_pickle(tmp_path / "1.pt")


def test_a_pickle_that_takes_time_without_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dictionary whose key is a pair of pairs of pairs, sixty deep: its hash asks for each."""
    pairs = b"".join(b"q%ch%c\x86" % (depth, depth) for depth in range(60))
    torch.save({"w": torch.zeros(1)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good:
        files = {name: good.read(name) for name in good.namelist()}
    files["good/data.pkl"] = b"\x80\x02})" + pairs + b"K\x01s."
    with zipfile.ZipFile(tmp_path / "1.pt", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    monkeypatch.setattr(pickles, "SECONDS", 3)
    with pytest.raises(CheckpointRefused, match="took more than 3 s"):
        read_pickle(tmp_path / "1.pt")


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


@pytest.mark.parametrize("place", ["cache", "folder"])
def test_a_download_that_was_damaged_on_this_disk_is_refused(tmp_path: Path, place: str) -> None:
    weights = tmp_path / "hf" / "model.safetensors"
    weights.parent.mkdir()
    content = save({"w": torch.zeros(9)})
    published = hashlib.sha256(content).hexdigest()
    (weights.parent / "config.json").write_text('{"model_type": "bert"}')
    real = tmp_path / "blobs" / published if place == "cache" else weights
    real.parent.mkdir(exist_ok=True)
    real.write_bytes(content)
    if place == "cache":
        weights.symlink_to(real)
    else:
        note = weights.parent / ".cache/huggingface/download/model.safetensors.metadata"
        note.parent.mkdir(parents=True)
        note.write_text(f"{'0' * 40}\n{published}\n{real.stat().st_mtime}\n")
    with pytest.raises(CheckpointRefused, match="not a Hugging Face BLIP"):  # its bytes are right
        convert(weights.parent, tmp_path / "out")
    written = real.stat()
    real.write_bytes(content[:-1] + b"\x01")
    os.utime(real, ns=(written.st_atime_ns, written.st_mtime_ns))
    with pytest.raises(CheckpointRefused, match="downloaded file is damaged") as refusal:
        convert(weights.parent, tmp_path / "out")
    assert published in refusal.value.cause
    if place == "folder":  # written anew by its owner
        os.utime(real, (written.st_atime + 60, written.st_mtime + 60))
        require_downloaded(weights)


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
    check_pair(LocalStore(tmp_path / "store"), one, two)
    with pytest.raises(CheckpointRefused, match="not a stage 2 model"):
        check_pair(LocalStore(tmp_path / "store"), one, one)
    with pytest.raises(CheckpointRefused, match="not a stage 1 model"):
        check_pair(LocalStore(tmp_path / "store"), two, one)


def test_a_pair_with_different_visual_encoders_is_refused(tmp_path: Path, stage2: State) -> None:
    stage2["visual_encoder.blocks.1.attn.qkv.bias"][0] += 1e-6
    one, two = _write(tmp_path / "one", tiny_stage1()), _write(tmp_path / "two", stage2)
    with pytest.raises(CheckpointRefused, match=r"1 tensors differ: blocks\.1\.query_key_value"):
        check_pair(LocalStore(tmp_path / "store"), one, two)
