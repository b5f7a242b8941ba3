"""A saved model, opened again, is the same model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from cir_core.errors import CheckpointRefused, NonFiniteError
from cir_core.models.fusion import Stage1Model
from cir_core.models.reranker import Stage2Model
from storage.atomic import sha256_of
from tasks.models import open_stage1, open_stage2, save_model
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
