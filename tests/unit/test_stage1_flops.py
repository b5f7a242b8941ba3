"""Counted FLOPs of stage 1 are those that torch counts."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cir_core.layers.config import VisionConfig
from cir_core.retrievers.blip.cost import vision_flops
from tests.support.tiny_models import tiny_stage1


def counted(work: Callable[[], object]) -> int:
    """By torch, which knows attention on the CPU only as the products it is made of."""
    with (
        torch.inference_mode(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        work()
    return counter.get_total_flops()


def test_the_vit_costs_what_torch_counts() -> None:
    model = tiny_stage1()
    vision = model.vision.config
    pixels = torch.zeros(3, 3, vision.image_size, vision.image_size)
    assert counted(lambda: model.vision(pixels)) == 3 * vision_flops(vision)


@pytest.mark.parametrize("layers", [1, 3])
def test_fusing_costs_what_torch_counts(layers: int) -> None:
    """Texts of one length, so that there is no padding."""
    model = tiny_stage1(layers=layers)
    ids, lengths = torch.ones(4, 7, dtype=torch.long), torch.full((4,), 7)
    images = torch.zeros(4, model.config.vision.tokens, model.config.vision.width)
    fused = counted(lambda: model.embed_queries(model.fuse(ids, lengths, images)))
    assert fused == model.config.asking_flops(np.full(4, 7))


def test_lengths_add_up_and_no_query_costs_nothing() -> None:
    config = tiny_stage1().config
    apart = config.asking_flops(np.array([3])) + config.asking_flops(np.array([9]))
    assert config.asking_flops(np.array([3, 9])) == apart
    assert config.asking_flops(np.array([], dtype=int)) == 0


def test_the_published_vit_costs_111_gflop() -> None:
    published = VisionConfig(
        image_size=384, patch_size=16, width=768, depth=12, heads=12, mlp_width=3072
    )
    assert vision_flops(published) == pytest.approx(111e9, rel=0.01)
