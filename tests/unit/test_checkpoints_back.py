"""Our models in the published names again: the published file, whole, and nothing else."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cir_core.checkpoints.published import MODEL_KEYS, Published, convert_published, to_published
from cir_core.errors import CheckpointRefused, NonFiniteError, OutOfSpace, UsageError
from cir_core.rerankers.dual.variant import Variant
from storage.models.folders import model_sha256
from storage.models.pickles import write_pickle
from tasks.models.convert import convert, convert_back
from tests.support.small_benchmarks import Pair
from tests.support.tiny_checkpoints import save_published, tiny_stage1, tiny_stage2

POSITION_IDS = "text_encoder.embeddings.position_ids"
STATES = {"BLIP_Retrieval": tiny_stage1, "BLIP_NLVR": tiny_stage2}


@pytest.fixture
def pair(published_pair: Pair) -> Pair:
    return published_pair


def there_and_back(state: dict[str, Tensor]) -> Published:
    converted = convert_published(state, "there")
    return to_published(converted.config, converted.tensors, "back")


@pytest.mark.parametrize("model_key", MODEL_KEYS)
def test_every_key_shape_type_and_bit_of_the_published_file_comes_back(model_key: str) -> None:
    state = STATES[model_key]()
    back = there_and_back(state)
    assert back.model_key == model_key
    assert back.state.keys() == state.keys()
    for key, tensor in state.items():
        assert back.state[key].dtype == tensor.dtype, key
        assert torch.equal(back.state[key], tensor), key
    assert (back.added, back.dropped) == ((POSITION_IDS,), ())


@pytest.mark.parametrize("model_key", MODEL_KEYS)
def test_files_and_folders_go_round_in_circles(tmp_path: Path, pair: Pair, model_key: str) -> None:
    """.pt -> folder -> .pt -> folder: both files load alike, both folders are the same model."""
    first = save_published(tmp_path / "first.pt", STATES[model_key](), model_key)
    one = pair.stage1 if STATES[model_key] is tiny_stage1 else pair.stage2  # made of such a file
    made = convert_back(one, tmp_path / "new" / "second.pt")
    assert convert(made.path, tmp_path / "two").dropped == made.added == (POSITION_IDS,)
    assert model_sha256(one) == model_sha256(tmp_path / "two")
    before, after = (torch.load(path, weights_only=True) for path in (first, made.path))
    assert [*before] == [*after] == ["epoch", model_key, "optimizer_state_dict"]
    assert before[model_key].keys() == after[model_key].keys()
    assert made.parameters == sum(tensor.numel() for tensor in after[model_key].values()) - 512


def test_a_folder_in_fp16_gives_an_fp32_file_and_is_itself_again(
    tmp_path: Path, pair: Pair
) -> None:
    convert_back(pair.stage1, tmp_path / "0.pt")
    convert(tmp_path / "0.pt", tmp_path / "halves", half=True)
    convert_back(tmp_path / "halves", tmp_path / "1.pt")
    convert(tmp_path / "1.pt", tmp_path / "again", half=True)
    assert model_sha256(tmp_path / "halves") == model_sha256(tmp_path / "again")
    assert model_sha256(tmp_path / "halves") != model_sha256(pair.stage1)
    saved = torch.load(tmp_path / "1.pt", weights_only=True)["BLIP_Retrieval"]
    weights = saved["text_proj.weight"]
    assert weights.dtype == torch.float32
    assert torch.equal(weights, tiny_stage1()["text_proj.weight"].half().float())
    assert saved[POSITION_IDS].dtype == torch.int64


def test_a_model_gives_the_same_bytes_under_any_name(tmp_path: Path, pair: Pair) -> None:
    first = convert_back(pair.stage2, tmp_path / "first.pt")
    second = convert_back(pair.stage2, tmp_path / "second.pt")
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()


def test_a_file_holds_no_more_than_its_tensors(tmp_path: Path, pair: Pair) -> None:
    """torch writes a view with all that it is a view of: ours must not be views of one file."""
    made = convert_back(pair.stage2, tmp_path / "2.pt")
    assert made.path.stat().st_size < 1.02 * 4 * made.parameters


# -- what the format cannot hold -----------------------------------------------------------------


def test_the_demo_pair_is_refused_with_every_reason(tmp_path: Path) -> None:
    from flows.settings import shipped_model

    for stage in ("stage1", "stage2"):
        with pytest.raises(CheckpointRefused, match="cannot express this model") as refusal:
            convert_back(shipped_model(stage), tmp_path / "demo.pt")
        for reason in ("vision has 4 heads at width 128", "text has 4 heads", "demo of 180 words"):
            assert reason in refusal.value.cause
        assert list(tmp_path.iterdir()) == []


def test_a_pre_trained_base_is_refused() -> None:
    converted = convert_published(tiny_stage1(), "stage1")
    base = converted.config.model_copy(update={"kind": "blip"})
    with pytest.raises(CheckpointRefused, match="kind is 'blip'"):
        to_published(base, converted.tensors, "base")


def test_a_score_with_a_prior_is_refused() -> None:
    """Whoever read the published file would rank by another score."""
    converted = convert_published(tiny_stage2(), "stage2")
    config = converted.config.model_copy(update={"prior": 9.5})
    with pytest.raises(CheckpointRefused, match=r"prior, 9\.5 times stage 1's cosine"):
        to_published(config, converted.tensors, "stage2")


def test_a_variant_of_the_published_model_is_refused() -> None:
    converted = convert_published(tiny_stage2(), "stage2")
    config = converted.config.model_copy(update={"variant": Variant(merging="head")})
    with pytest.raises(
        CheckpointRefused, match=r"variant of the published model: .*merging='head'"
    ):
        to_published(config, converted.tensors, "stage2")


def test_another_dropout_is_named_as_dropped() -> None:
    """It acts in training only, where the published code takes it from its own settings."""
    converted = convert_published(tiny_stage2(), "stage2")
    text = converted.config.text.model_copy(update={"dropout": 0.0})
    config = converted.config.model_copy(update={"text": text})
    back = to_published(config, converted.tensors, "back")
    assert back.dropped == ("text.dropout 0.0 (read as 0.1)",)
    assert convert_published(back.state, "again").config == converted.config


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        ({"temperature": None}, CheckpointRefused, "1 missing: temperature"),
        ({"queue": torch.zeros(2)}, CheckpointRefused, "1 extra: queue"),
        ({"temperature": torch.zeros(2)}, CheckpointRefused, r"temperature is \(2,\)"),
        ({"temperature": torch.tensor(float("nan"))}, NonFiniteError, "temperature"),
    ],
)
def test_a_folder_that_is_no_whole_model_is_refused_in_our_names(
    change: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    converted = convert_published(tiny_stage1(), "stage1")
    changed = converted.tensors | change
    tensors = {name: tensor for name, tensor in changed.items() if tensor is not None}
    with pytest.raises(error, match=complaint):
        to_published(converted.config, tensors, "folder")


# -- what must not be overwritten ----------------------------------------------------------------


def test_a_published_file_is_never_overwritten(tmp_path: Path, pair: Pair) -> None:
    only_copy = tmp_path / "stage1.pt"
    only_copy.write_bytes(b"the only copy")
    with pytest.raises(UsageError, match="never overwritten"):
        convert_back(pair.stage1, only_copy)
    assert only_copy.read_bytes() == b"the only copy"
    with pytest.raises(UsageError, match="never overwritten"):
        convert_back(pair.stage1, tmp_path)


@pytest.mark.parametrize("config", ['{"model_type": "blip"}', "no JSON", None])
def test_a_folder_with_something_else_is_not_overwritten(
    tmp_path: Path, pair: Pair, config: str | None
) -> None:
    """``None`` stands for a model of ours, of the other stage."""
    source = convert_back(pair.stage1, tmp_path / "1.pt").path
    out = tmp_path / "out"
    out.mkdir()
    content = (pair.stage2 / "config.json").read_text() if config is None else config
    (out / "config.json").write_text(content)
    with pytest.raises(UsageError, match="holds something else"):
        convert(source, out)
    assert [path.name for path in out.iterdir()] == ["config.json"]
    assert (out / "config.json").read_text() == content


def test_a_model_folder_is_no_foreign_source(tmp_path: Path, pair: Pair) -> None:
    with pytest.raises(UsageError, match="--to published"):
        convert(pair.stage1, tmp_path / "out")


def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch words a failed write as "unexpected pos"."""

    class Full(io.BytesIO):
        def write(self, *_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    opened = Path.open

    def open_full(path: Path, mode: str = "r", **options: Any) -> Any:
        return Full() if "w" in mode else opened(path, mode, **options)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OutOfSpace):
        write_pickle(tmp_path / "a.pt", {"weights": torch.zeros(1000)})
    assert os.listdir(tmp_path) == []
