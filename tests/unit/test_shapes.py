"""Shapes of a model without its numbers."""

import pytest
import torch
from torch import nn

from cir_core.layers.shapes import shapes_alone


def test_shapes_take_no_memory_and_draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object, **__: object) -> None:
        raise AssertionError("torch imports its compiler to draw on the meta device")

    monkeypatch.setattr(torch.nn.init, "_no_grad_normal_", draw)
    with shapes_alone():
        module = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 5), nn.LayerNorm(5))
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"meta"}
    assert tuple(module.state_dict()["0.weight"].shape) == (3, 4)
    with pytest.raises(AssertionError):
        nn.Embedding(3, 4)
