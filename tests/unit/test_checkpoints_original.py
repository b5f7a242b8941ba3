"""BLIP's own checkpoints, CoVR's, and the sizes of ViT-L."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cir_core.checkpoints.conversion import KeyTable
from cir_core.checkpoints.original_blip import (
    BASE,
    MODEL_KEY,
    convert_base,
    convert_covr,
    is_covr,
)
from cir_core.checkpoints.published import STAGE2
from cir_core.errors import CheckpointRefused
from cir_core.families import expected_shapes, load_model, parse_config
from cir_core.layers.config import VisionConfig
from cir_core.layers.wordpiece import Tokenizer
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.retrievers.blip.config import PUBLISHED, Stage1Config
from storage.models.folders import read_tensors
from tasks.models.convert import convert
from tests.support.tiny_checkpoints import tiny_stage1

LARGE_VISION = VisionConfig(
    image_size=384, patch_size=16, width=1024, depth=24, heads=16, mlp_width=4096
)
LARGE = Stage1Config(kind="blip", vision=LARGE_VISION, text=PUBLISHED.text, embedding=256)


def original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As BLIP's own retrieval code saves a base: with what only its training uses."""
    momentum = {
        key.replace(name, f"{name}_m", 1): tensor
        for key, tensor in state.items()
        for name in ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
        if key.startswith(f"{name}.")
    }
    queues = {
        "image_queue": torch.zeros(8, 4),
        "text_queue": torch.zeros(8, 4),
        "idx_queue": torch.full((1, 4), -100),
        "ptr_queue": torch.zeros(1, dtype=torch.long),
    }
    width = state["text_proj.weight"].shape[1]
    head = {"itm_head.weight": torch.randn(2, width), "itm_head.bias": torch.randn(2)}
    return state | momentum | queues | head


def test_a_base_of_blips_own_code_is_read_without_its_training(tmp_path: Path) -> None:
    state, table = original(tiny_stage1()), KeyTable(BASE)
    torch.save({MODEL_KEY: state, "epoch": 3}, tmp_path / "original.pth")
    made = convert(tmp_path / "original.pth", tmp_path / "base")
    assert made.kind == "blip"
    assert {"idx_queue", "text_proj_m.bias", "visual_encoder_m.cls_token"} <= set(made.dropped)
    tensors = read_tensors(tmp_path / "base")
    for name, tensor in tensors.items():
        assert torch.equal(tensor, state[table.theirs(name)]), name
    assert len(made.dropped) + len(tensors) == len(state)
    with pytest.raises(CheckpointRefused, match=r"1 extra: visual_encoder_n\.cls_token"):
        convert_base(state | {"visual_encoder_n.cls_token": torch.zeros(1)}, "original")


def test_covrs_stage_1_says_how_it_sees_and_reads() -> None:
    state = tiny_stage1()
    assert not is_covr(MODEL_KEY, state)
    del state["temp"]
    assert is_covr(MODEL_KEY, state)
    assert not is_covr("BLIP_Retrieval", state), "of a published file, it is missing"
    assert not is_covr(MODEL_KEY, original(state))
    made = convert_covr(state, "covr")
    config = made.config
    assert isinstance(config, Stage1Config)
    assert (config.kind, config.pictures.fit) == ("stage1", "squash")
    texts = ["Is RED! (and #short)", 'the "same" dress; longer.']
    plain = ["is red and short", "the same dress longer"]
    assert config.tokenizer()(texts) == Tokenizer("bert-base-uncased")(plain)
    assert config.tokenizer()(texts) != Tokenizer("bert-base-uncased")(texts)
    assert config.model_dump()["vision"]["fit"] == "squash"
    plain_config = parse_config(PUBLISHED.model_dump(), "published").model_dump()
    assert "fit" not in plain_config["vision"]
    assert "marks" not in plain_config["text"]
    loaded = load_model(config, made.tensors, "covr")
    assert loaded.temperature.item() == pytest.approx(0.07)


def test_a_large_stage_2_has_the_published_names() -> None:
    config = Stage2Config(kind="stage2", vision=LARGE_VISION, text=LARGE.text, merge_from=6)
    shapes, table = expected_shapes(config), KeyTable(STAGE2)
    assert len({table.theirs(name) for name in shapes}) == len(shapes)
    assert shapes["layers.0.cross_attention.0.key.weight"] == (768, 1024)
